"""Octets between the end of cleartext and the start of TLS (the CVE-2011-0411 class), from either side."""

import threading
from collections.abc import Callable

import pytest

from tests.support.accounts import DOMAIN
from tests.support.canary import Canary
from tests.support.mint import Mint
from tests.support.proxy_process import ProxyProcess, action, actions, at, only
from tests.support.raw_peer import (
    CLIENT_HEADER,
    DECLARATION,
    PROCEED,
    SASL_FEATURES,
    SECONDS_MAX,
    STARTTLS,
    STARTTLS_FEATURES,
    RawPeer,
    client_context,
    connect,
    greet,
    scripted_server,
    server_context,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

INJECTED = b"<message><body>canary-body: injected</body></message>"
StartProxy = Callable[..., ProxyProcess]


@pytest.fixture(autouse=True)
def _canaries(canary: Canary) -> None:
    canary.register("an injected body", "canary-body: injected")


def test_what_a_client_sends_behind_starttls_never_reaches_the_server(start_proxy: StartProxy) -> None:
    got: list[bytes] = []

    def script(peer: RawPeer) -> None:
        greet(peer, STARTTLS_FEATURES)
        got.append(peer.rest())

    with scripted_server(script) as server:
        proxy = start_proxy(server.port)
        client = connect(proxy.port)
        client.send(DECLARATION + CLIENT_HEADER)
        client.until(b"</stream:features>")
        client.send(STARTTLS + INJECTED)
        assert client.rest() == b""
        client.close()
        session = proxy.session()
        server.join()
    assert INJECTED not in got[0]
    injection = only(session, "starttls-injection")
    assert at(injection, "xmpp.sent_by") == "client"
    assert at(injection, "xmpp.starttls.octets") == len(INJECTED)
    assert at(injection, "log.level") == "critical"
    assert at(session[-1], "event.reason") == "starttls-injection"


def test_octets_sent_later_wait_and_are_then_no_client_hello(start_proxy: StartProxy) -> None:
    """While the server thinks the client is not read; what it sent stands where its ClientHello should be."""
    injected = threading.Event()

    def script(peer: RawPeer) -> None:
        greet(peer, STARTTLS_FEATURES)
        peer.until(STARTTLS)
        assert injected.wait(SECONDS_MAX)
        peer.send(PROCEED)
        assert peer.rest() == b""

    with scripted_server(script) as server:
        proxy = start_proxy(server.port)
        client = connect(proxy.port)
        client.send(DECLARATION + CLIENT_HEADER)
        client.until(b"</stream:features>")
        client.send(STARTTLS)
        proxy.wait_record("starttls-requested")
        client.send(INJECTED)
        injected.set()
        assert client.rest() in (b"", PROCEED)
        client.close()
        session = proxy.session()
    assert at(only(session, "starttls-injection"), "xmpp.starttls.octets") == len(INJECTED)
    assert "tls-established" not in [action(record) for record in session if at(record, "xproxy.leg") == "client"]


@pytest.mark.parametrize("octets", [INJECTED, b" ", b"\n"], ids=["stanza", "space", "newline"])
def test_what_a_server_sends_behind_proceed_never_reaches_the_client(start_proxy: StartProxy, octets: bytes) -> None:
    def script(peer: RawPeer) -> None:
        greet(peer, STARTTLS_FEATURES)
        peer.until(STARTTLS)
        peer.send(PROCEED + octets)
        peer.rest()

    with scripted_server(script) as server:
        proxy = start_proxy(server.port)
        client = connect(proxy.port)
        client.send(DECLARATION + CLIENT_HEADER)
        client.until(b"</stream:features>")
        client.send(STARTTLS)
        assert octets not in client.rest().removeprefix(PROCEED)
        client.close()
        session = proxy.session()
    injection = only(session, "starttls-injection")
    assert at(injection, "xmpp.sent_by") == "server"
    assert at(injection, "xmpp.starttls.octets") == len(octets)
    assert "tls-established" not in actions(session)


def test_a_little_whitespace_behind_starttls_is_tolerated(proxies: dict[str, ProxyProcess]) -> None:
    """As real clients send it (and Prosody takes it): the session goes on, the record says how much there was."""
    proxy = proxies["starttls"]
    mark = proxy.mark()
    client = connect(proxy.port)
    client.send(DECLARATION + CLIENT_HEADER)
    client.until(b"</stream:features>")
    client.send(STARTTLS + b"\r\n")
    client.until(PROCEED)
    client.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
    client.send(CLIENT_HEADER)
    client.until(b"</stream:features>")
    client.close()
    session = proxy.session(after=mark)
    assert at(only(session, "starttls-requested"), "xmpp.starttls.trailing_whitespace_bytes") == 2
    assert "starttls-injection" not in actions(session)


def test_nothing_learnt_in_clear_survives_tls(start_proxy: StartProxy, mint: Mint) -> None:
    """A man in the middle before TLS claims mechanisms and a stream id; inside TLS only the real ones are seen."""
    context = server_context(mint.leaf(DOMAIN, label="after-clear"))
    lies = STARTTLS_FEATURES.replace(
        b"</stream:features>",
        b"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>X-LIE</mechanism></mechanisms>"
        b"</stream:features>",
    )

    def script(peer: RawPeer) -> None:
        greet(peer, lies)
        peer.until(STARTTLS)
        peer.send(PROCEED)
        peer.start_tls(context, server=True)
        greet(peer, SASL_FEATURES)
        peer.rest()

    with scripted_server(script) as server:
        proxy = start_proxy(server.port)
        client = connect(proxy.port)
        client.send(DECLARATION + CLIENT_HEADER)
        client.until(b"</stream:features>")
        client.send(STARTTLS)
        client.until(PROCEED)
        client.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
        client.send(CLIENT_HEADER)
        client.until(b"</stream:features>")
        client.send(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='X-LIE'>=</auth>")
        proxy.wait_record("sasl-started")
        client.close()
        session = proxy.session()
    assert at(only(session, "sasl-started"), "xmpp.sasl.mechanism_offered") is False
