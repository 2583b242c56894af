"""However TLS begins on the two legs, clients get in, and it is the same session; and what goes wrong is said."""

import base64
import datetime
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import dns as dns_support
from tests.support import ejabberd as ejabberd_support
from tests.support import prosody as prosody_support
from tests.support.accounts import DOMAIN, MODES, PASSWORDS
from tests.support.canary import Canary
from tests.support.dns import NameServer, host, not_offered, running_dns, srv
from tests.support.ejabberd import Ejabberd, running_ejabberd
from tests.support.gosendxmpp import GoSendXmpp
from tests.support.mint import Mint
from tests.support.ports import accepts, free_ports
from tests.support.prosody import Prosody, running_prosody
from tests.support.proxy_process import ProxyProcess, Record, action, actions, at, only, running_xproxy
from tests.support.raw_peer import (
    AUTH_END,
    AUTH_START,
    CLIENT_HEADER,
    DECLARATION,
    STARTTLS,
    RawPeer,
    client_context,
    connect,
    log_in,
)
from tests.support.slix import SlixDriver

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PROSODY = pytest.param("prosody", marks=pytest.mark.integration("prosody"))
EJABBERD = pytest.param("ejabberd", marks=pytest.mark.integration("ejabberdctl", "erl"))
UPSTREAM_TLS = ("same", "starttls", "direct", "none")
BODIES = ["canary-body: the first «grüße» & <more>", "canary-body: the answer"]

Start = Callable[..., ProxyProcess]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, mint: Mint, canary: Canary) -> Iterator[Start]:
    """Return the proxy with these arguments, started once for all tests."""
    running: dict[tuple[str, ...], ProxyProcess] = {}
    with ExitStack() as stack:

        def get(upstream: str, *arguments: str, domain: str | None = DOMAIN, listeners: int = 1) -> ProxyProcess:
            key = (upstream, *arguments)
            if key not in running:
                running[key] = stack.enter_context(
                    running_xproxy(
                        tmp_path_factory.mktemp("xproxy"),
                        *arguments,
                        canary=canary,
                        upstream=upstream,
                        upstream_ca=mint.ca_file,
                        domain=domain,
                        listeners=listeners,
                    )
                )
            return running[key]

        yield get


@pytest.fixture(scope="module")
def prosody_in_clear(tmp_path_factory: pytest.TempPathFactory, mint: Mint) -> Iterator[Prosody]:
    """A Prosody that takes logins without TLS, with the same accounts."""
    if reason := prosody_support.missing():
        pytest.skip(reason)
    with running_prosody(
        tmp_path_factory.mktemp("prosody-in-clear"),
        domain=DOMAIN,
        leaf=mint.leaf(DOMAIN, label="prosody-in-clear"),
        passwords=PASSWORDS,
        changes={
            "c2s_require_encryption = true": "c2s_require_encryption = false\nallow_unencrypted_plain_auth = true",
            '"saslauth", "tls", ': '"saslauth", ',
        },
    ) as server:
        yield server


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Callable[[str, str], int]:
    """Return the port of a server for a way of TLS."""

    def get(server: str, tls: str) -> int:
        if tls == "none":
            if server == "prosody":
                in_clear: Prosody = request.getfixturevalue("prosody_in_clear")
                return in_clear.starttls_port
            ejabberd: Ejabberd = request.getfixturevalue("ejabberd")
            return ejabberd.plain_port
        running: Prosody | Ejabberd = request.getfixturevalue(server)
        return running.port("direct-tls" if tls in ("direct", "direct-tls") else "starttls")

    return get


Port = Callable[[str, str], int]


def check_session(session: list[Record], mode: str, tls: str) -> None:
    """Check what the log says of the two legs."""
    wanted = {"same": "starttls" if mode == "starttls" else "direct"}.get(tls, tls)
    connected = only(session, "upstream-connected")
    assert at(connected, "xproxy.upstream.tls") == wanted
    legs = {at(each, "xproxy.leg"): each for each in session if action(each) == "tls-established"}
    assert set(legs) == ({"client"} if wanted == "none" else {"client", "server"})
    assert at(legs["client"], "xproxy.tls.direct") is (mode == "direct-tls")
    if wanted != "none":
        assert at(legs["server"], "xproxy.tls.direct") is (wanted == "direct")
        assert at(legs["server"], "tls.version") == at(legs["client"], "tls.version")
        assert at(legs["server"], "tls.client.server_name") == DOMAIN
    assert not [each for each in session if action(each) in ("stream-violation", "inspection-lost")]
    assert only(session, "session-established")


@pytest.mark.parametrize("server", [PROSODY, EJABBERD])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tls", UPSTREAM_TLS)
def test_slixmpp_gets_in_and_is_understood(
    server: str, mode: str, tls: str, start: Start, port: Port, slix: SlixDriver, mint: Mint, canary: Canary
) -> None:
    for body in BODIES:
        canary.register("a message body", body)
    upstream = port(server, mode if tls == "same" else tls)
    proxy = start(f"127.0.0.1:{upstream}", "--upstream-tls", tls)

    def play(at_port: int, ca_file: Path) -> Any:
        clients = [{"user": user, "password": PASSWORDS[user]} for user in ("alice", "bob")]
        return slix.play(
            "messages", port=at_port, ca_file=str(ca_file), mode=mode, domain=DOMAIN, clients=clients, bodies=BODIES
        )

    direct = play(port(server, mode), mint.ca_file)
    mark = proxy.mark()
    proxied = play(proxy.port, proxy.ca_file)
    for secret in direct.secrets + proxied.secrets:
        canary.register_payload("a SASL payload or SM id", secret)
    assert "timeout" not in direct.final
    assert proxied.final == direct.final
    for session in proxy.sessions(after=mark, count=2):
        check_session(session, mode, tls)


@pytest.mark.parametrize("server", [PROSODY, EJABBERD])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tls", UPSTREAM_TLS)
def test_go_sendxmpp_gets_in(
    server: str, mode: str, tls: str, start: Start, port: Port, go_sendxmpp: type[GoSendXmpp], mint: Mint
) -> None:
    upstream = port(server, mode if tls == "same" else tls)
    proxy = start(f"127.0.0.1:{upstream}", "--upstream-tls", tls)

    def send(at_port: int, ca_file: Path, password: str) -> Any:
        client = go_sendxmpp(port=at_port, ca_file=ca_file, mode=mode, user="gopher", domain=DOMAIN, password=password)
        return client.send(f"nobody@{DOMAIN}", BODIES[0])

    for password in (PASSWORDS["gopher"], "canary-wrong-password"):
        direct = send(port(server, mode), mint.ca_file, password)
        mark = proxy.mark()
        proxied = send(proxy.port, proxy.ca_file, password)
        assert proxied.final == direct.final
        session = proxy.session(after=mark)
        if password == PASSWORDS["gopher"]:
            assert direct.final["status"] == 0
            check_session(session, mode, tls)
        else:
            assert "sasl-failed" in actions(session)  # of ejabberd twice


# Who the client is, told to the server --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict_ejabberd(tmp_path_factory: pytest.TempPathFactory, mint: Mint) -> Iterator[Ejabberd]:
    """An ejabberd that bans addresses, as its own example configuration has it."""
    if reason := ejabberd_support.missing():
        pytest.skip(reason)
    with running_ejabberd(
        tmp_path_factory.mktemp("strict-ejabberd"),
        domain=DOMAIN,
        leaf=mint.leaf(
            DOMAIN, label="strict-ejabberd", not_after=datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=20)
        ),
        passwords=PASSWORDS,
        changes={"  mod_ping: {}\n": "  mod_ping: {}\n  mod_fail2ban: {}\n"},
    ) as server:
        yield server


def client_at(address: str, port: int) -> RawPeer:
    """Return a client that connects from ``address``."""
    return RawPeer(socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(address, 0)))


def plain(user: str, password: str) -> bytes:
    """Return the payload of PLAIN."""
    return base64.b64encode(f"\0{user}\0{password}".encode())


def attempt(address: str, port: int, context: ssl.SSLContext, payload: bytes, *, direct: bool) -> bytes:
    """Try to log in from ``address`` as far as the server lets us; return what it said last."""
    client = client_at(address, port)

    def is_refused() -> bool:
        return b"<stream:error>" in client.until(b"</stream:")

    if not direct:
        client.send(DECLARATION + CLIENT_HEADER)
        if is_refused():
            client.close()
            return bytes(client.received)
        client.until(b">")
        client.send(STARTTLS)
        client.until(b"/>")
    client.start_tls(context, server_hostname=DOMAIN)
    client.send(CLIENT_HEADER)
    if not is_refused():
        client.send(AUTH_START + payload + AUTH_END)
        client.until(b"</")  # of a failure, or of a stream error
    client.close()
    return bytes(client.received)


@pytest.mark.integration("ejabberdctl", "erl")
@pytest.mark.parametrize(("version", "direct"), [("v2", False), ("v1", True)], ids=["v2-starttls", "v1-direct"])
def test_wrong_passwords_ban_the_address_they_come_from_and_nobody_else(
    strict_ejabberd: Ejabberd, version: str, direct: bool, start: Start, canary: Canary
) -> None:
    server = strict_ejabberd
    port = server.proxied_direct_port if direct else server.proxied_port
    proxy = start(f"127.0.0.1:{port}", "--upstream-proxy-protocol", version)
    context = client_context(proxy.ca_file)
    wrong, right = plain("alice", "canary-wrong-password"), plain("alice", PASSWORDS["alice"])
    for payload in (wrong, right):
        canary.register_payload("a SASL payload", payload.decode())
    guesser, neighbour = ("127.0.0.66", "127.0.0.67") if direct else ("127.0.0.76", "127.0.0.77")
    mark = proxy.mark()
    answers = [attempt(guesser, proxy.port, context, wrong, direct=direct) for _ in range(25)]
    assert all(b"not-authorized" in said for said in answers[:19])
    assert all(b"Too many (20) failed authentications" in said and guesser.encode() in said for said in answers[20:])
    sessions = proxy.sessions(after=mark, count=25)
    assert {at(only(session, "upstream-connected"), "xproxy.upstream.proxy_protocol") for session in sessions} == {
        version
    }
    assert all("stream-error" in actions(session) for session in sessions[20:])
    for address in (neighbour, "127.0.0.1"):
        client = client_at(address, proxy.port)
        log_in(client, context, right, direct=direct)
        client.close()
    assert b"policy-violation" in attempt(guesser, proxy.port, context, right, direct=direct)
    deadline = time.monotonic() + 10  # it writes its log when it likes
    while not re.search(f"Accepted c2s.*{re.escape(neighbour)}", log := server.log_file.read_text()):
        assert time.monotonic() < deadline, log[-2_000:]
        time.sleep(0.05)


# Where the DNS leads --------------------------------------------------------------------------------------------------


@pytest.fixture
def start_dns(tmp_path: Path) -> Iterator[Callable[..., NameServer]]:
    """Start a name server."""
    if reason := dns_support.missing():
        pytest.skip(reason)
    with ExitStack() as stack:
        yield lambda *records: stack.enter_context(running_dns(tmp_path, *records))


@pytest.fixture
def start_srv(
    tmp_path: Path, start_dns: Callable[..., NameServer], start: Start, canary: Canary, mint: Mint
) -> Iterator[Callable[..., tuple[ProxyProcess, NameServer]]]:
    """Start a name server with these records and a proxy that asks it."""
    with ExitStack() as stack:

        def get(*records: str, domains: tuple[str, ...] = ()) -> tuple[ProxyProcess, NameServer]:
            # Of one domain at least the server is known at the start, or it would be a slip of the pen.
            server = start_dns(*records, host("known.test", "127.0.0.1"))
            listed = ", ".join(f'"{each}"' for each in ("known.test", *domains))
            config = tmp_path / "xproxy.toml"
            config.write_text(f'[upstream]\nnameservers = ["{server.address}"]\ndomains = [{listed}]\n')
            proxy = stack.enter_context(
                running_xproxy(
                    tmp_path / "xproxy",
                    *("-c", str(config)),
                    canary=canary,
                    upstream="srv",
                    upstream_ca=mint.ca_file,
                    domain=DOMAIN,
                )
            )
            return proxy, server

        yield get


StartSrv = Callable[..., tuple[ProxyProcess, NameServer]]


def session_of(proxy: ProxyProcess, payload: bytes, *, direct: bool = False) -> list[Record]:
    """Log in, leave, and return the session's records."""
    mark = proxy.mark()
    client = connect(proxy.port)
    log_in(client, client_context(proxy.ca_file), payload, direct=direct)
    client.close()
    return proxy.session(after=mark)


@pytest.fixture
def payload(canary: Canary) -> bytes:
    """The payload of a login by PLAIN."""
    made = plain("gopher", PASSWORDS["gopher"])
    canary.register_payload("a SASL payload", made.decode())
    return made


@pytest.mark.integration("prosody")
@pytest.mark.parametrize("direct", [False, True], ids=["starttls", "direct"])
def test_the_second_priority_serves_while_the_first_is_down(
    start_srv: StartSrv, prosody: Prosody, payload: bytes, direct: bool
) -> None:
    (closed,) = free_ports(1)
    proxy, _ = start_srv(
        srv(DOMAIN, target="down.test", port=closed, priority=5),
        srv(DOMAIN, target="up.test", port=prosody.starttls_port, priority=10, weight=7),
        host("down.test", "127.0.0.1"),
        host("up.test", "127.0.0.1"),
    )
    connected = only(session_of(proxy, payload, direct=direct), "upstream-connected")
    assert at(connected, "destination.address") == "up.test"
    assert at(connected, "destination.port") == prosody.starttls_port
    assert at(connected, "xproxy.upstream.via") == "srv"
    assert at(connected, "xproxy.upstream.tls") == "starttls"
    assert (at(connected, "xproxy.upstream.priority"), at(connected, "xproxy.upstream.weight")) == (10, 7)
    assert at(connected, "xmpp.domain") == DOMAIN


@pytest.mark.integration("prosody")
@pytest.mark.parametrize("direct", [False, True], ids=["starttls", "direct"])
def test_a_record_for_direct_tls_is_taken_for_clients_of_both_kinds(
    start_srv: StartSrv, prosody: Prosody, payload: bytes, direct: bool
) -> None:
    proxy, server = start_srv(
        not_offered(DOMAIN),
        srv(DOMAIN, target="up.test", port=prosody.direct_tls_port, direct=True),
        host("up.test", "127.0.0.1"),
    )
    session = session_of(proxy, payload, direct=direct)
    check_session(session, "direct-tls" if direct else "starttls", "direct")
    assert at(only(session, "upstream-connected"), "xproxy.upstream.via") == "srv"
    again = session_of(proxy, payload, direct=direct)
    assert only(again, "session-established")
    # dnsmasq gives no SOA record with "there is none", so that is not kept.
    answered = [
        question for question in server.queries() if question in (f"SRV _xmpps-client._tcp.{DOMAIN}", "A up.test")
    ]
    assert len(answered) == 2, "what was answered is asked again"


@pytest.mark.integration("prosody")
def test_weights_share_the_sessions(start_srv: StartSrv, prosody: Prosody, payload: bytes) -> None:
    proxy, _ = start_srv(
        *(srv(DOMAIN, target=f"{name}.test", port=prosody.starttls_port, weight=50) for name in ("one", "two")),
        *(host(f"{name}.test", "127.0.0.1") for name in ("one", "two")),
    )
    names = set()
    for _ in range(40):  # both are drawn but for one run in 2**39
        names.add(at(only(session_of(proxy, payload), "upstream-connected"), "destination.address"))
        if len(names) == 2:
            break
    assert names == {"one.test", "two.test"}


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([not_offered(DOMAIN), not_offered(DOMAIN, direct=True)], "not-offered"),
        ([srv(DOMAIN, target="gone.test", port=5222)], "unknown-host"),
        ([], "unknown-host"),
        ([srv(DOMAIN, target="here.test", port=9), host("here.test", "127.0.0.1")], "refused"),
    ],
    ids=["not-offered", "no-such-target", "no-such-domain", "refused"],
)
def test_why_there_is_no_server_is_said(start_srv: StartSrv, records: list[str], reason: str) -> None:
    proxy, _ = start_srv(*records)
    mark = proxy.mark()
    client = connect(proxy.port)
    client.send(DECLARATION + CLIENT_HEADER)
    assert client.rest() == b""
    session = proxy.session(after=mark)
    failed = only(session, "upstream-failed")
    assert at(failed, "event.reason") == reason
    assert at(failed, "xmpp.domain") == DOMAIN
    assert at(session[-1], "event.reason") == "upstream-failed"


def test_a_domain_that_is_not_served_is_not_looked_up(start_srv: StartSrv) -> None:
    proxy, server = start_srv(srv("stranger.test", target="here.test", port=9), host("here.test", "127.0.0.1"))
    mark = proxy.mark()
    client = connect(proxy.port)
    client.send(CLIENT_HEADER.replace(DOMAIN.encode(), b"stranger.test"))
    assert client.rest() == b""
    assert at(only(proxy.session(after=mark), "upstream-failed"), "event.reason") == "domain-not-allowed"
    assert not [question for question in server.queries() if "stranger" in question]


def test_any_domain_leads_to_no_private_address(start_srv: StartSrv) -> None:
    proxy, _ = start_srv(
        srv("stranger.test", target="here.test", port=9),
        host("here.test", "127.0.0.1"),
        domains=("*",),
    )
    mark = proxy.mark()
    client = connect(proxy.port)
    client.send(CLIENT_HEADER.replace(DOMAIN.encode(), b"stranger.test"))
    assert client.rest() == b""
    assert at(only(proxy.session(after=mark), "upstream-failed"), "event.reason") == "address-not-allowed"


@pytest.mark.parametrize(
    ("said", "cause", "violation"),
    [
        (b"<!DOCTYPE a><stream:stream", "stream-violation", "dtd"),
        (b"<stream:stream to='" + b"a" * 8_192, "limit-reached", None),
    ],
    ids=["no-header", "too-long"],
)
def test_a_beginning_that_is_no_header_is_on_record(
    start_srv: StartSrv, said: bytes, cause: str, violation: str | None
) -> None:
    proxy, server = start_srv()
    before = server.queries()
    mark = proxy.mark()
    client = connect(proxy.port)
    client.send(said)
    client.rest()
    session = proxy.session(after=mark)
    assert at(session[-1], "event.reason") in (cause, "inspection-lost")
    if violation is not None:
        assert at(only(session, "stream-violation"), "xmpp.violation.kind") == violation
    else:
        assert at(only(session, "limit-reached"), "xproxy.limit.name") == "sessions.header_bytes_max"
    assert server.queries() == before


# While the server is down ---------------------------------------------------------------------------------------------


def test_clients_find_no_proxy_while_there_is_no_server(tmp_path: Path, mint: Mint, canary: Canary) -> None:
    """Refused by the system they go on to the next server; and the proxy is there again when the server is."""
    server_port, own_port = free_ports(2)
    config = tmp_path / "xproxy.toml"
    config.write_text(
        f'[listen]\naddresses = ["127.0.0.1:{own_port}"]\n'
        "[upstream]\nrefuse_while_down = true\nprobe_seconds_min = 0.1\nprobe_seconds_max = 0.2\n"
    )
    with running_xproxy(
        tmp_path / "xproxy",
        *("-c", str(config)),
        canary=canary,
        upstream=f"127.0.0.1:{server_port}",
        upstream_ca=mint.ca_file,
        domain=DOMAIN,
        listeners=0,
    ) as proxy:
        client = connect(own_port)
        client.send(DECLARATION + CLIENT_HEADER)
        assert client.rest() == b""
        proxy.wait_record("upstream-failed", where=lambda record: bool(at(record, "xproxy.upstream.refusing")))
        deadline = time.monotonic() + 5
        while accepts(own_port):
            assert time.monotonic() < deadline, "it still listens"
            time.sleep(0.05)
        with socket.create_server(("127.0.0.1", server_port)):
            up = proxy.wait_record("upstream-connected")
            assert at(up, "xproxy.upstream.probe") is True
            while not accepts(own_port):
                assert time.monotonic() < deadline + 5, "it does not listen again"
                time.sleep(0.05)
    assert "can be reached again" in proxy.stderr()


def test_a_domain_that_has_no_server_is_a_slip_of_the_pen(
    tmp_path: Path, start_dns: Callable[..., NameServer], canary: Canary
) -> None:
    server = start_dns(host("known.test", "127.0.0.1"))
    config = tmp_path / "xproxy.toml"
    config.write_text(f'[upstream]\nnameservers = ["{server.address}"]\n')
    with (
        pytest.raises(AssertionError, match=r"the DNS names no server for xmpp\.test"),
        running_xproxy(tmp_path / "xproxy", "-c", str(config), canary=canary, upstream="srv", domain=DOMAIN),
    ):
        pass
