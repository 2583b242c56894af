"""Peers that do not go the way into TLS that the proxy leads them: nothing of it reaches the other side."""

import base64
import contextlib
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.accounts import DOMAIN
from tests.support.canary import Canary
from tests.support.mint import Mint
from tests.support.proxy_process import ProxyProcess, Record, actions, at, only
from tests.support.raw_peer import (
    AUTH_END,
    AUTH_START,
    CLIENT_HEADER,
    CLOSE,
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
    log_in,
    scripted_server,
    serve_login,
    server_context,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

INJECTED = b"<message><body>canary-body: injected</body></message>"
StartProxy = Callable[..., ProxyProcess]


def offered(client: RawPeer, header: bytes = CLIENT_HEADER) -> None:
    """The client begins in clear and is offered STARTTLS by the proxy."""
    client.send(DECLARATION + header)
    assert b"<starttls" in client.until(b"</stream:features>")


def ended(proxy: ProxyProcess, client: RawPeer) -> list[Record]:
    """The client leaves; return the session's records."""
    client.close()
    return proxy.session()


# A client in clear before a server with direct TLS or none ------------------------------------------------------------


@pytest.mark.parametrize("tls", ["direct", "none"])
@pytest.mark.parametrize(
    ("said", "event", "cause"),
    [
        (STARTTLS + INJECTED, "starttls-injection", "starttls-injection"),
        (AUTH_START + b"AGEAYg==" + AUTH_END, "plaintext-authentication", "stream-violation"),
        (INJECTED, "stream-violation", "stream-violation"),
        (b"<stream:stream", "connection-closed", "client-ended"),
    ],
    ids=["injection", "login", "stanza", "half-a-tag"],
)
def test_nothing_a_client_says_in_clear_reaches_the_server(
    start_proxy: StartProxy, tls: str, said: bytes, event: str, cause: str
) -> None:
    got: list[bytes] = []
    with scripted_server(lambda peer: got.append(peer.rest())) as server:
        proxy = start_proxy(server.port, "--upstream-tls", tls)
        client = connect(proxy.port)
        offered(client)
        client.send(said)
        if cause != "client-ended":
            client.rest()
        session = ended(proxy, client)
        server.join()
    assert got == [b""]
    assert event in actions(session)
    assert at(session[-1], "event.reason") == cause
    assert "tls-established" not in actions(session)


def test_a_server_that_speaks_before_tls_is_not_heard(start_proxy: StartProxy) -> None:
    spoken = threading.Event()

    def script(peer: RawPeer) -> None:
        peer.send(b"<?xml version='1.0'?><stream:stream>" + INJECTED)
        spoken.set()
        peer.rest()

    with scripted_server(script) as server:
        proxy = start_proxy(server.port, "--upstream-tls", "direct")
        client = connect(proxy.port)
        offered(client)
        assert spoken.wait(SECONDS_MAX)
        client.send(STARTTLS)
        client.until(PROCEED)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
        session = ended(proxy, client)
    failed = only(session, "tls-failed")
    assert (at(failed, "xproxy.leg"), at(failed, "xproxy.tls.direct")) == ("server", True)
    assert INJECTED not in bytes(client.received)


def test_the_certificate_is_judged_by_the_domain_of_the_stream(start_proxy: StartProxy, mint: Mint) -> None:
    names: list[str | None] = []
    context = server_context(mint.leaf("other.test", label="other"))
    context.sni_callback = lambda sock, name, context: names.append(name)

    def script(peer: RawPeer) -> None:
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            peer.start_tls(context, server=True)
            peer.rest()

    with scripted_server(script) as server:
        proxy = start_proxy(server.port, "--upstream-tls", "direct")
        client = connect(proxy.port)
        offered(client)
        client.send(STARTTLS)
        client.until(PROCEED)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
        session = ended(proxy, client)
        server.join()
    assert names == [DOMAIN]
    assert at(only(session, "tls-failed"), "event.reason") == "certificate-name-mismatch"


def test_another_domain_inside_tls_than_before_it(start_proxy: StartProxy, mint: Mint) -> None:
    got: list[bytes] = []
    context = server_context(mint.leaf(DOMAIN, label="own-part"))

    def script(peer: RawPeer) -> None:
        peer.start_tls(context, server=True)
        got.append(peer.rest())

    with scripted_server(script) as server:
        proxy = start_proxy(server.port, "--upstream-tls", "direct")
        client = connect(proxy.port)
        offered(client)
        client.send(STARTTLS)
        client.until(PROCEED)
        client.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
        client.send(CLIENT_HEADER.replace(DOMAIN.encode(), b"other.test"))
        client.rest()
        session = ended(proxy, client)
        server.join()
    assert got == [b""]
    assert at(only(session, "tls-failed"), "event.reason") == "certificate-name-mismatch"


def test_direct_tls_upstream_is_asked_for_with_its_alpn_and_the_clients_version(
    start_proxy: StartProxy, mint: Mint
) -> None:
    seen: list[tuple[str | None, str | None]] = []
    context = server_context(mint.leaf(DOMAIN, label="own-part-alpn"))
    context.set_alpn_protocols(["xmpp-client"])

    def script(peer: RawPeer) -> None:
        serve_login(peer, context, direct=True)
        seen.append((peer.tls.selected_alpn_protocol(), peer.tls.version()))
        peer.rest()

    with scripted_server(script) as server:
        proxy = start_proxy(server.port, "--upstream-tls", "direct")
        client = connect(proxy.port)
        offered(client)
        client.send(STARTTLS)
        client.until(PROCEED)
        context = client_context(proxy.ca_file)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        client.start_tls(context, server_hostname=DOMAIN)
        assert (client.tls.version(), client.tls.selected_alpn_protocol()) == ("TLSv1.2", None)
        client.send(CLIENT_HEADER)
        client.until(b"</stream:features>")
        client.close()
        proxy.session()
        server._errors.clear()  # its script is cut off
    assert at(only(proxy.records(), "upstream-connected"), "xproxy.upstream.tls") == "direct"


def test_a_plain_server_that_offers_starttls_inside_tls_gets_nobody_further(start_proxy: StartProxy) -> None:
    def script(peer: RawPeer) -> None:
        greet(peer, STARTTLS_FEATURES)
        peer.until(STARTTLS)
        peer.send(PROCEED)
        peer.rest()

    with scripted_server(script) as server:
        proxy = start_proxy(server.port, "--upstream-tls", "none")
        client = connect(proxy.port)
        offered(client)
        client.send(STARTTLS)
        client.until(PROCEED)
        client.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
        client.send(CLIENT_HEADER)
        client.until(b"</stream:features>")
        client.send(STARTTLS)
        client.until(PROCEED)
        client.send(b"\x16\x03\x01\x00\xff\x01\x00>")
        client.rest()
        session = ended(proxy, client)
    assert at(only(session, "stream-violation", xmpp__sent_by="server"), "xmpp.violation.kind") == (
        "proceed-without-starttls"
    )
    assert at(session[-1], "event.reason") == "inspection-lost"


# A client with direct TLS before a server in clear --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "event", "field", "value"),
    [
        (PROCEED + INJECTED, "starttls-injection", "xmpp.sent_by", "server"),
        (PROCEED + b" ", "starttls-injection", "xmpp.starttls.octets", 1),
        (
            b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>" + CLOSE,
            "starttls-refused",
            "xmpp.starttls.answer",
            "{urn:ietf:params:xml:ns:xmpp-tls}failure",
        ),
        (INJECTED, "starttls-refused", "xmpp.starttls.answer", "{jabber:client}message"),
        (
            b"<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>" + CLOSE,
            "stream-error",
            "error.code",
            "host-unknown",
        ),
    ],
    ids=["injection", "one-octet", "failure", "stanza", "stream-error"],
)
def test_a_server_that_does_not_go_into_tls(
    start_proxy: StartProxy, answer: bytes, event: str, field: str, value: object
) -> None:
    got: list[bytes] = []

    def script(peer: RawPeer) -> None:
        got.append(greet(peer, STARTTLS_FEATURES))
        peer.until(STARTTLS)
        peer.send(answer)
        got.append(peer.rest())

    with scripted_server(script) as server:
        proxy = start_proxy(server.port, "--upstream-tls", "starttls")
        client = connect(proxy.port)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
        session = ended(proxy, client)
        server.join()
    assert f'to="{DOMAIN}"'.encode() in got[0]
    assert got[1] in (b"", CLOSE)
    assert at(only(session, event), field) == value
    assert "tls-established" not in actions(session)


@pytest.mark.parametrize("features", [SASL_FEATURES, b"<stream:features/>"], ids=["login", "nothing"])
def test_a_server_that_offers_no_starttls_gets_no_login_in_clear(start_proxy: StartProxy, features: bytes) -> None:
    got: list[bytes] = []

    def script(peer: RawPeer) -> None:
        greet(peer, features)
        got.append(peer.rest())

    with scripted_server(script) as server:
        proxy = start_proxy(server.port, "--upstream-tls", "starttls")
        client = connect(proxy.port)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
        session = ended(proxy, client)
        server.join()
    assert got == [CLOSE]
    assert at(only(session, "starttls-refused"), "xmpp.starttls.answer") == "{http://etherx.jabber.org/streams}features"
    assert at(session[-1], "event.reason") == "tls-failed"


@pytest.mark.parametrize(
    ("said", "reason"),
    [(b"\x16\x03\x01\x00\x05\x01", "truncated-hello"), (b"\x16\x03\x01\xff\xff" + b"\x01" * 70_000, None)],
    ids=["cut", "rubbish"],
)
def test_a_client_whose_hello_is_none_makes_nobody_speak(
    start_proxy: StartProxy, said: bytes, reason: str | None
) -> None:
    got: list[bytes] = []
    with scripted_server(lambda peer: got.append(peer.rest())) as server:
        proxy = start_proxy(server.port, "--upstream-tls", "starttls")
        client = connect(proxy.port)
        client.send(said)
        if reason is not None:
            client.half_close()
        client.rest()
        session = ended(proxy, client)
        server.join()
    assert got == [b""]
    failed = only(session, "tls-failed")
    assert at(failed, "xproxy.leg") == "client"
    assert reason is None or at(failed, "event.reason") == reason


def test_without_a_name_nothing_is_said(start_proxy: StartProxy) -> None:
    got: list[bytes] = []
    with scripted_server(lambda peer: got.append(peer.rest())) as server:
        proxy = start_proxy(server.port, "--upstream-tls", "starttls", domain=None)
        client = connect(proxy.port)
        context = client_context(proxy.ca_file)
        context.check_hostname = False
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client.start_tls(context)
        session = ended(proxy, client)
        server.join()
    assert got == [b""]
    assert at(only(session, "tls-failed"), "event.reason") == "no-name"


# Replayed -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [False, True], ids=["clear-to-direct", "direct-to-clear"])
def test_a_captured_session_says_the_same_offline(
    start_proxy: StartProxy, mint: Mint, canary: Canary, tmp_path: Path, direct: bool
) -> None:
    payload = base64.b64encode(b"\0gopher\0canary-password-of-gopher")
    canary.register_payload("a SASL payload", payload.decode())
    context = server_context(mint.leaf(DOMAIN, label=f"captured-{direct}"))

    def script(peer: RawPeer) -> None:
        serve_login(peer, context, direct=not direct)
        peer.rest()

    with scripted_server(script) as server:
        arguments = ("--upstream-tls", "starttls" if direct else "direct", "--capture", str(tmp_path / "captures"))
        proxy = start_proxy(server.port, *arguments)
        client = connect(proxy.port)
        log_in(client, client_context(proxy.ca_file), payload, direct=direct)
        live = ended(proxy, client)
    replayed = subprocess.run(
        [sys.executable, "-m", "xproxy", "replay", "offline", "--json", str(tmp_path / "captures")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    offline = [json.loads(line) for line in replayed.stdout.splitlines()]
    for record in live:
        record["event"].pop("sequence", None)  # of the journal
    assert [record["event"]["action"] for record in offline] == actions(live)
    assert [record["event"] for record in offline] == [record["event"] for record in live]
