"""TLS that does not come about, with real peers on either leg: each has its record and its cause, and nobody hangs."""

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Callable

import pytest

from tests.support.accounts import DOMAIN
from tests.support.mint import Leaf, Mint
from tests.support.prosody import Prosody
from tests.support.proxy_process import ProxyProcess, Record, action, actions, at, only
from tests.support.raw_peer import (
    CLIENT_HEADER,
    DECLARATION,
    PROCEED,
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

StartProxy = Callable[..., ProxyProcess]


def ask_for_tls(client: RawPeer) -> None:
    """Go up to the server's <proceed/>."""
    client.send(DECLARATION + CLIENT_HEADER)
    client.until(b"</stream:features>")
    client.send(STARTTLS)
    client.until(PROCEED)


def tls_server(leaf: Leaf, *, direct: bool) -> Callable[[RawPeer], None]:
    """Return a server that goes over to TLS with ``leaf`` and then waits for the end."""
    context = server_context(leaf)

    def script(peer: RawPeer) -> None:
        if not direct:
            greet(peer, STARTTLS_FEATURES)
            peer.until(STARTTLS)
            peer.send(PROCEED)
        with contextlib.suppress(OSError):  # the handshake is refused; how that looks to us is not the point
            peer.start_tls(context, server=True)
            peer.rest()

    return script


def try_to_connect(proxy: ProxyProcess, *, direct: bool) -> list[Record]:
    """Connect as a client that trusts the proxy; it must be cut off without a byte in clear. Returns the records."""
    client = connect(proxy.port)
    if not direct:
        ask_for_tls(client)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        client.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
    client.close()
    return proxy.session()


BAD_LEAVES: list[tuple[str, Callable[[Mint], Leaf]]] = [
    ("certificate-expired", lambda mint: mint.expired(DOMAIN)),
    ("certificate-name-mismatch", lambda mint: mint.leaf("other.test", label="other-name")),
    ("certificate-self-signed", lambda mint: mint.self_signed(DOMAIN)),
]


@pytest.mark.parametrize("direct", [False, True], ids=["starttls", "direct-tls"])
@pytest.mark.parametrize(("reason", "make"), BAD_LEAVES, ids=[reason for reason, _ in BAD_LEAVES])
def test_a_bad_upstream_certificate_ends_the_session(
    start_proxy: StartProxy, mint: Mint, reason: str, make: Callable[[Mint], Leaf], direct: bool
) -> None:
    leaf = make(mint)
    with scripted_server(tls_server(leaf, direct=direct)) as server:
        session = try_to_connect(start_proxy(server.port), direct=direct)
    failed = only(session, "tls-failed")
    assert at(failed, "xproxy.leg") == "server"
    assert at(failed, "error.code") == reason
    assert at(failed, "tls.client.server_name") == DOMAIN
    assert at(failed, "xproxy.tls.ja4")  # the client's hello was read before
    assert at(session[-1], "event.reason") == "tls-failed"
    assert "tls-established" not in actions(session)


def test_an_unknown_authority_is_told_from_self_signed(
    start_proxy: StartProxy, mint: Mint, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Mint(tmp_path_factory.mktemp("stranger"))
    with scripted_server(tls_server(stranger.leaf(DOMAIN), direct=True)) as server:
        session = try_to_connect(start_proxy(server.port), direct=True)
    assert at(only(session, "tls-failed"), "error.code") == "certificate-untrusted"


@pytest.mark.parametrize(("verdict", "make"), [(r.removeprefix("certificate-"), m) for r, m in BAD_LEAVES])
def test_without_verification_the_session_goes_on_and_says_what_was_wrong(
    start_proxy: StartProxy, verdict: str, make: Callable[[Mint], Leaf], mint: Mint
) -> None:
    with scripted_server(tls_server(make(mint), direct=True)) as server:
        proxy = start_proxy(server.port, "--upstream-verify", "none")
        client = connect(proxy.port)
        client.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
        client.tls.unwrap().close()
        session = proxy.session()
    established = only(session, "tls-established", xproxy__leg="server")
    assert at(established, "xproxy.tls.verify") == verdict
    # ... and every later record of that session repeats it.
    assert {at(record, "xproxy.upstream.verify") for record in session[session.index(established) + 1 :]} == {verdict}


@pytest.mark.parametrize("mode", ["starttls", "direct-tls"])
def test_openssl_s_client_refuses_our_ca(proxies: dict[str, ProxyProcess], mint: Mint, mode: str) -> None:
    """`openssl s_client -verify_return_error`, with and without trust in the proxy's CA."""
    proxy = proxies[mode]
    command = ["openssl", "s_client", "-verify_return_error", "-connect", f"127.0.0.1:{proxy.port}"]
    command += ["-servername", DOMAIN, "-verify_hostname", DOMAIN]
    command += ["-starttls", "xmpp", "-xmpphost", DOMAIN] if mode == "starttls" else []
    for ca_file, status in ((proxy.ca_file, 0), (mint.ca_file, 1)):
        mark = proxy.mark()
        done = subprocess.run(
            [*command, "-CAfile", str(ca_file)], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
        )
        assert done.returncode == status, done.stderr
        session = proxy.session(after=mark)
        if status:
            failed = only(session, "tls-failed")
            assert at(failed, "xproxy.leg") == "client"
            assert at(failed, "error.code") == "client-rejected-certificate"
            assert at(failed, "xproxy.tls.alert") == "unknown_ca"
        else:
            only(session, "tls-established", xproxy__leg="client")


@pytest.mark.parametrize("mode", ["starttls", "direct-tls"])
def test_a_tls_1_2_client_gets_1_2_on_both_legs(proxies: dict[str, ProxyProcess], prosody: Prosody, mode: str) -> None:
    proxy = proxies[mode]
    mark = proxy.mark()
    context = client_context(proxy.ca_file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client = connect(proxy.port)
    if mode == "starttls":
        ask_for_tls(client)
    client.start_tls(context, server_hostname=DOMAIN)
    assert client.tls.version() == "TLSv1.2"
    client.close()
    session = proxy.session(after=mark)
    assert [at(record, "tls.version") for record in session if action(record) == "tls-established"] == ["1.2", "1.2"]


def test_a_server_without_a_version_in_common_is_named(start_proxy: StartProxy, mint: Mint) -> None:
    """The client would take 1.2 at most, the server gives 1.3 at least."""
    leaf = mint.leaf(DOMAIN, label="only-1-3")
    context = server_context(leaf)
    context.minimum_version = ssl.TLSVersion.TLSv1_3

    def script(peer: RawPeer) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            peer.start_tls(context, server=True)

    with scripted_server(script) as server:
        proxy = start_proxy(server.port)
        limited = client_context(proxy.ca_file)
        limited.maximum_version = ssl.TLSVersion.TLSv1_2
        client = connect(proxy.port)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client.start_tls(limited, server_hostname=DOMAIN)
        session = proxy.session()
    failed = only(session, "tls-failed")
    assert at(failed, "xproxy.leg") == "server"
    assert at(failed, "error.code") == "version"


def test_a_hello_of_100_octets_and_fin_neither_spins_nor_hangs(proxies: dict[str, ProxyProcess]) -> None:
    proxy = proxies["direct-tls"]
    mark = proxy.mark()
    before = cpu_ticks(proxy.process.pid)
    client = connect(proxy.port)
    client.send(client_hello()[:100])
    client.sock.shutdown(socket.SHUT_WR)
    client.rest()
    client.close()
    session = proxy.session(after=mark)
    failed = only(session, "tls-failed")
    assert at(failed, "error.code") == "truncated-hello"
    assert cpu_ticks(proxy.process.pid) - before < 50  # half a second of CPU would be a spin


def test_a_client_that_answers_proceed_in_clear_is_no_tls(proxies: dict[str, ProxyProcess]) -> None:
    proxy = proxies["starttls"]
    mark = proxy.mark()
    client = connect(proxy.port)
    ask_for_tls(client)
    client.send(CLIENT_HEADER)
    assert client.rest() == b""
    client.close()
    injection = only(proxy.session(after=mark), "starttls-injection")
    assert at(injection, "xmpp.sent_by") == "client"
    assert at(injection, "xmpp.starttls.octets") == len(CLIENT_HEADER)


def test_a_client_that_leaves_after_proceed_is_a_truncated_hello(proxies: dict[str, ProxyProcess]) -> None:
    proxy = proxies["starttls"]
    mark = proxy.mark()
    client = connect(proxy.port)
    ask_for_tls(client)
    client.close()
    session = proxy.session(after=mark)
    assert at(only(session, "tls-failed"), "error.code") in ("truncated-hello", "closed")


def client_hello() -> bytes:
    """Return a real ClientHello."""
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=DOMAIN)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def cpu_ticks(pid: int) -> int:
    """Return user and system time of a process, in hundredths of a second."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
