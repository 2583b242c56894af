"""A server that knows SASL2 (XEP-0388) with Bind 2 (XEP-0386) and FAST (XEP-0484): Debian 12's servers do not."""

import base64
import hmac
import re
import secrets
import ssl
from typing import Final

import attrs
import scramp

from tests.support.raw_peer import CLOSE, DECLARATION, SERVER_HEADER, RawPeer

MECHANISM: Final = "SCRAM-SHA-1"
FAST: Final = "HT-SHA-256-NONE"
_SASL2: Final = b"xmlns='urn:xmpp:sasl:2'"
_FEATURES: Final = (
    b"<stream:features><authentication %s><mechanism>%s</mechanism><inline><bind xmlns='urn:xmpp:bind:0'>"
    b"<inline><feature var='urn:xmpp:carbons:2'/></inline></bind><fast xmlns='urn:xmpp:fast:0'>"
    b"<mechanism>%s</mechanism></fast></inline></authentication></stream:features>"
    % (_SASL2, MECHANISM.encode(), FAST.encode())
)


@attrs.define
class Sasl2Server:
    """What it knows between connections; ``script`` plays one of them."""

    context: ssl.SSLContext
    domain: str
    user: str
    password: str = attrs.field(repr=False)
    takes_tokens: bool = True
    """False: every token has expired (a stale one, XEP-0484 section 3.5)."""
    tokens: list[str] = attrs.field(factory=list, repr=False)

    def script(self, peer: RawPeer) -> None:
        """Direct TLS, one login (a refused token may be followed by another try), then until the client leaves."""
        peer.start_tls(self.context, server=True)
        peer.until(b"<stream:stream")
        peer.until(b">")
        peer.send(DECLARATION + SERVER_HEADER + _FEATURES)
        while not self._authenticated(peer, peer.until(b"</authenticate>")):
            pass
        peer.send(b"<stream:features/>")  # no restart: the stream goes on (XEP-0388 section 2.6)
        peer.until(CLOSE)
        peer.send(CLOSE)
        peer.rest()

    def _authenticated(self, peer: RawPeer, request: bytes) -> bool:
        initial = _content(request, b"initial-response")
        if b"HT-SHA-256-NONE" in request.partition(b">")[0]:
            token = self._token_of(initial)
            if token is None:
                peer.send(
                    b"<failure %s><credentials-expired xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>" % _SASL2
                )
                return False
            answer = hmac.digest(token.encode(), b"Responder", "sha256")
        else:
            mechanism = scramp.ScramMechanism(MECHANISM)
            credentials = mechanism.make_auth_info(self.password, iteration_count=4_096)
            server = mechanism.make_server(lambda user: credentials)
            server.set_client_first(initial.decode())
            peer.send(b"<challenge %s>%s</challenge>" % (_SASL2, base64.b64encode(server.get_server_first().encode())))
            final = peer.until(b"</response>")
            try:
                server.set_client_final(_content(final, b"response").decode())
            except scramp.ScramException:
                peer.send(b"<failure %s><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>" % _SASL2)
                return False
            answer = server.get_server_final().encode()
        peer.send(self._success(answer, request))
        return True

    def _token_of(self, initial: bytes) -> str | None:
        _, _, proof = initial.partition(b"\0")
        for token in self.tokens if self.takes_tokens else ():
            if hmac.compare_digest(proof, hmac.digest(token.encode(), b"Initiator", "sha256")):
                return token
        return None

    def _success(self, answer: bytes, request: bytes) -> bytes:
        token = b""
        if b"<request-token" in request:
            self.tokens.append(f"canary-token-{secrets.token_hex(16)}")
            token = b"<token xmlns='urn:xmpp:fast:0' expiry='2999-01-01T00:00:00Z' token='%s'/>" % (
                self.tokens[-1].encode()
            )
        tag = re.search(rb"<tag>([^<]+)</tag>", request)
        jid = f"{self.user}@{self.domain}/{tag[1].decode() if tag else 'any'}"
        return (
            b"<success %s><additional-data>%s</additional-data><authorization-identifier>%s</authorization-identifier>"
            b"<bound xmlns='urn:xmpp:bind:0'/>%s</success>" % (_SASL2, base64.b64encode(answer), jid.encode(), token)
        )


def _content(element: bytes, name: bytes) -> bytes:
    """Return the decoded Base64 content of the first element of that name."""
    found = re.search(rb"<" + name + rb"\b[^>]*>([^<]*)</" + name + rb">", element)
    assert found, element
    return base64.b64decode(found[1])
