"""Each XMPPStreamDelegate method that the wire shows is named by a record of some run: the table promises no more.

Comes after all other integration tests. One scripted dialogue goes through what real servers and clients do not do
when they are asked nicely, so that the check holds for this module alone too.
"""

import base64
import contextlib
import ssl
from collections.abc import Callable

import pytest

from tests.support.accounts import DOMAIN
from tests.support.canary import Canary
from tests.support.mint import Mint
from tests.support.proxy_process import ProxyProcess, actions, delegates_seen
from tests.support.raw_peer import (
    BIND_FEATURES,
    CLIENT_HEADER,
    CLOSE,
    DECLARATION,
    SASL_FEATURES,
    SERVER_HEADER,
    STARTTLS_FEATURES,
    RawPeer,
    client_context,
    connect,
    scripted_server,
    server_context,
)
from xproxy.events.delegates import METHODS, Observable

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PASSWORD = "canary-password-of-raw"
PAYLOAD = base64.b64encode(f"\0raw\0{PASSWORD}".encode())
SASL = b"xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
AUTH = b"<auth %s mechanism='PLAIN'>%s</auth>" % (SASL, PAYLOAD)
FAILURE = b"<failure %s><not-authorized/></failure>" % SASL
SUCCESS = b"<success %s/>" % SASL
CONFLICT = b"<error type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
GREETING = DECLARATION + SERVER_HEADER
STREAM_ERROR = (
    b"<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
)


def register(number: int) -> bytes:
    """Return a request for an account."""
    return (
        b"<iq type='set' id='reg-%d'><query xmlns='jabber:iq:register'><username>raw</username>"
        b"<password>%s</password></query></iq>" % (number, PASSWORD.encode())
    )


def bind(number: int, resource: bytes) -> bytes:
    """Return a request for a resource."""
    return (
        b"<iq type='set' id='bind-%d'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
        b"<resource>%s</resource></bind></iq>" % (number, resource)
    )


# Who says what, line by line; the other one waits for the end of it.
DIALOGUE: tuple[tuple[str, bytes], ...] = (
    ("client", CLIENT_HEADER),
    ("server", GREETING + SASL_FEATURES),
    ("client", register(1)),
    ("server", b"<iq type='error' id='reg-1'>" + CONFLICT + b"</iq>"),
    ("client", register(2)),
    ("server", b"<iq type='result' id='reg-2'/>"),
    ("client", AUTH),
    ("server", FAILURE),
    ("client", AUTH),
    ("server", SUCCESS),
    ("client", CLIENT_HEADER),
    ("server", GREETING + BIND_FEATURES),
    ("client", bind(1, b"taken")),
    ("server", b"<iq type='error' id='bind-1'>" + CONFLICT + b"</iq>"),
    ("client", bind(2, b"wanted")),
    (
        "server",
        b"<iq type='result' id='bind-2'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
        b"<jid>raw@xmpp.test/given</jid></bind></iq>",
    ),
    ("client", b"<enable xmlns='urn:xmpp:sm:3'/>"),
    ("server", b"<enabled xmlns='urn:xmpp:sm:3'/>"),
    ("client", b"<presence/>"),
    ("server", b"<presence from='other@xmpp.test/a'/>"),
    ("client", b"<message to='other@xmpp.test'><body>canary-body: raw out</body></message>"),
    ("server", b"<message from='other@xmpp.test/a'><body>canary-body: raw in</body></message>"),
    ("server", b"<iq type='get' id='ask-1' from='other@xmpp.test/a'><ping xmlns='urn:xmpp:ping'/></iq>"),
    ("client", b"<iq type='result' id='ask-1' to='other@xmpp.test/a'/>"),
    ("client", b"<r xmlns='urn:xmpp:sm:3'/>"),
    ("server", b"<a xmlns='urn:xmpp:sm:3' h='3'/>"),
    ("client", b"<hello xmlns='urn:example:custom'/>"),
    ("server", b"<hello xmlns='urn:example:custom'/>"),
    ("client", CLOSE),
    ("server", STREAM_ERROR),
)


def converse(peer: RawPeer, me: str) -> None:
    """Play my part of the dialogue."""
    for who, line in DIALOGUE:
        if who == me:
            peer.send(line)
        else:
            assert peer.exactly(len(line)) == line


def test_a_dialogue_with_everything_that_can_be_seen(
    start_proxy: Callable[..., ProxyProcess], mint: Mint, canary: Canary
) -> None:
    canary.register("a password", PASSWORD)
    canary.register("a message body", "canary-body: raw out")
    canary.register("a message body", "canary-body: raw in")
    context = server_context(mint.leaf(DOMAIN, label="delegates"))

    def script(peer: RawPeer) -> None:
        with contextlib.suppress(AssertionError, OSError):  # two of the three clients leave early
            assert peer.exactly(len(DECLARATION + CLIENT_HEADER)) == DECLARATION + CLIENT_HEADER
            peer.send(GREETING + STARTTLS_FEATURES)
            peer.until(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            peer.send(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            peer.start_tls(context, server=True)
            converse(peer, "server")
            peer.rest()

    with scripted_server(script) as server:
        proxy = start_proxy(server.port, "--log-level", "debug")

        def greeted() -> RawPeer:
            client = connect(proxy.port)
            client.send(DECLARATION + CLIENT_HEADER)
            client.until(b"</stream:features>")
            return client

        def secured(trusted: object) -> RawPeer:
            client = greeted()
            client.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            client.until(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            client.start_tls(client_context(trusted), server_hostname=DOMAIN)  # type: ignore[arg-type]
            return client

        # All the way; then one that leaves before it has said anything but hello; then one that does not trust us.
        client = secured(proxy.ca_file)
        converse(client, "client")
        client.close()
        (session,) = proxy.sessions(count=1)
        assert {"session-established", "stream-error"} <= set(actions(session))
        mark = proxy.mark()
        greeted().close()
        assert "session-established" not in actions(proxy.session(after=mark))
        mark = proxy.mark()
        with pytest.raises(ssl.SSLCertVerificationError):
            secured(mint.ca_file)
        assert "tls-failed" in actions(proxy.session(after=mark))


def test_each_method_that_can_be_observed_was_produced_by_some_run() -> None:
    seen = delegates_seen()
    missing = [method.selector for method in METHODS if method.selector not in seen]
    promised = [method.selector for method in METHODS if method.observable is not Observable.NO]
    assert not set(missing) & set(promised), f"never seen in any run: {sorted(set(missing) & set(promised))}"


def test_no_method_is_named_that_cannot_be_observed() -> None:
    unobservable = {method.selector for method in METHODS if method.observable is Observable.NO}
    assert not unobservable & delegates_seen()
    assert delegates_seen() <= {method.selector for method in METHODS}
