"""tls-server-end-point (RFC 5929 section 4) is the one channel binding that can cross: with the server's key.

Neither Prosody 0.12 nor slixmpp 1.17 nor go-sendxmpp 0.5.7 can do it, so both ends are scramp over raw sockets.
"""

import base64
import re
from collections.abc import Callable

import pytest
import scramp

from tests.support.accounts import DOMAIN
from tests.support.canary import Canary
from tests.support.mint import Leaf, Mint
from tests.support.proxy_process import ProxyProcess, at, only
from tests.support.raw_peer import (
    BIND,
    BIND_FEATURES,
    BOUND,
    CLIENT_HEADER,
    CLOSE,
    RawPeer,
    client_context,
    connect,
    greet,
    scripted_server,
    server_context,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MECHANISM = "SCRAM-SHA-256-PLUS"
PASSWORD = "canary-password-of-scram"
NAMESPACE = b"xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
FEATURES = (
    b"<stream:features><mechanisms %s><mechanism>SCRAM-SHA-256-PLUS</mechanism></mechanisms>"
    b"<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-server-end-point'/>"
    b"</sasl-channel-binding></stream:features>" % NAMESPACE
)


def element(name: bytes, text: str, attributes: bytes = b"") -> bytes:
    """Return a SASL element with a Base64 payload."""
    return b"<%s %s%s>%s</%s>" % (name, NAMESPACE, attributes, base64.b64encode(text.encode()), name)


def content(data: bytes) -> str:
    """Return the decoded payload of the element ``data`` ends with."""
    found = re.search(rb">([^<>]+)</[a-z]+>$", data)
    assert found, data
    return base64.b64decode(found[1]).decode()


def scram_server(leaf: Leaf) -> Callable[[RawPeer], None]:
    """Return a server that binds to the certificate it shows."""
    mechanism = scramp.ScramMechanism(MECHANISM)
    credentials = mechanism.make_auth_info(PASSWORD, iteration_count=4_096)
    binding = ("tls-server-end-point", bytes.fromhex(leaf.sha256))  # ECDSA with SHA-256

    def script(peer: RawPeer) -> None:
        peer.start_tls(server_context(leaf), server=True)
        greet(peer, FEATURES)
        server = mechanism.make_server(lambda user: credentials, channel_binding=binding)
        server.set_client_first(content(peer.until(b"</auth>")))
        peer.send(element(b"challenge", server.get_server_first()))
        try:
            server.set_client_final(content(peer.until(b"</response>")))
        except scramp.ScramException:
            peer.send(b"<failure %s><not-authorized/></failure>" % NAMESPACE + CLOSE)
            return
        peer.send(element(b"success", server.get_server_final()))
        greet(peer, BIND_FEATURES)
        peer.until(BIND)
        peer.send(BOUND)
        peer.rest()

    return script


def log_in(proxy: ProxyProcess, ca_file: object, canary: Canary) -> bytes:
    """Log in with the binding of the certificate shown to us; return what the server said at the end."""
    peer = connect(proxy.port)
    peer.start_tls(client_context(ca_file), server_hostname=DOMAIN)  # type: ignore[arg-type]
    binding = ("tls-server-end-point", bytes.fromhex(peer.certificate_sha256()))
    client = scramp.ScramClient([MECHANISM], "scram", PASSWORD, channel_binding=binding)
    peer.send(CLIENT_HEADER)
    peer.until(b"</stream:features>")
    sent = [client.get_client_first()]
    peer.send(element(b"auth", sent[0], b" mechanism='%s'" % MECHANISM.encode()))
    client.set_server_first(content(peer.until(b"</challenge>")))
    sent.append(client.get_client_final())
    peer.send(element(b"response", sent[1]))
    for message in sent:
        canary.register("a SCRAM message", message)
    last = peer.until(b"</success>") if b"success" in _peek(peer) else peer.until(CLOSE)
    if b"success" in last:
        client.set_server_final(content(last))
        peer.send(CLIENT_HEADER)
        peer.until(b"</stream:features>")
        peer.send(BIND)
        peer.until(BOUND)
    peer.close()
    return last


def _peek(peer: RawPeer) -> bytes:
    """Wait for the next octets without taking them."""
    before = len(peer.received)
    assert peer.more()
    return bytes(peer.received[before:])


@pytest.fixture
def leaf(mint: Mint, canary: Canary) -> Leaf:
    canary.register("password of scram", PASSWORD)
    return mint.leaf(DOMAIN, label="end-point")


def test_it_crosses_with_the_servers_own_certificate(
    start_proxy: Callable[..., ProxyProcess], leaf: Leaf, mint: Mint, canary: Canary
) -> None:
    with scripted_server(scram_server(leaf)) as server:
        proxy = start_proxy(server.port, "--cert", str(leaf.certificate), "--key", str(leaf.key))
        assert b"<success" in log_in(proxy, mint.ca_file, canary)
        session = proxy.session()
    verdict = only(session, "channel-binding-verdict")
    assert at(verdict, "xproxy.channel_binding.prediction") == "succeeds"
    assert at(verdict, "xproxy.channel_binding.end_points_equal") is True
    assert at(only(session, "sasl-succeeded"), "xmpp.sasl.authcid") == "scram"
    only(session, "session-established")


def test_it_cannot_cross_with_a_certificate_of_ours_and_the_failure_is_explained(
    start_proxy: Callable[..., ProxyProcess], leaf: Leaf, canary: Canary
) -> None:
    with scripted_server(scram_server(leaf)) as server:
        proxy = start_proxy(server.port)
        assert b"<not-authorized/>" in log_in(proxy, proxy.ca_file, canary)
        session = proxy.session()
    verdict = only(session, "channel-binding-verdict")
    assert at(verdict, "xproxy.channel_binding.prediction") == "fails"
    assert at(verdict, "xproxy.channel_binding.end_points_equal") is False
    failed = only(session, "sasl-failed")
    assert at(failed, "xproxy.cause") == "channel-binding-broken-by-proxy"
