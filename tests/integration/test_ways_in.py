"""The ways in, in networks of their own: real firewall rules, a real HAProxy, a real SOCKS5 client, a real Prosody."""

import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.support import dns as dns_support
from tests.support import netns
from tests.support import prosody as prosody_support
from tests.support.accounts import DOMAIN, MODES, PASSWORDS
from tests.support.canary import Canary
from tests.support.dns import host, running_dns, srv
from tests.support.mint import Mint
from tests.support.netns import CLIENT, CLIENT6, GATEWAY, GATEWAY6, SERVER, SERVER6, Network, inside, network
from tests.support.ports import free_ports
from tests.support.prosody import running_prosody
from tests.support.proxy_process import ProxyProcess, actions, at, only, running_xproxy
from tests.support.slix import SlixDriver, slix_driver
from xproxy.control.client import ControlClient
from xproxy.events import Endpoint
from xproxy.proxy.proxy_protocol import HeaderReader, render_v1, render_v2

pytestmark = pytest.mark.integration

ALICE = {"user": "alice", "password": PASSWORDS["alice"]}
PORTS = {"starttls": 5222, "direct-tls": 5223}
PROXY_PORT = 15_222

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def from_readme(kind: str) -> str:
    """Return the one block of README of that kind: what is tested is what is written there."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return str(found)


REDIRECT = from_readme("nft")
TPROXY = from_readme("nft-tproxy")
TPROXY_ROUTES = [line.removeprefix("ip ") for line in from_readme("routes").splitlines()]
IPTABLES = [line.split() for line in from_readme("iptables").splitlines()]


@attrs.frozen(kw_only=True)
class Stage:
    """A client, a gateway for a proxy, and Prosody, each in a network of its own."""

    network: Network
    slix: SlixDriver
    mint: Mint
    canary: Canary
    directory: Path

    @contextmanager
    def proxy(self, *arguments: str, upstream: str = "original", **options: Any) -> Iterator[ProxyProcess]:
        """Run a proxy in the gateway."""
        self.canary.register("a password", ALICE["password"])
        with running_xproxy(
            self.directory / f"xproxy-{len(list(self.directory.iterdir()))}",
            *arguments,
            canary=self.canary,
            upstream=upstream,
            upstream_ca=self.mint.ca_file,
            domain=DOMAIN,
            prefix=inside(self.network.gateway),
            **options,
        ) as proxy:
            yield proxy

    def login(self, host: str, port: int, mode: str, proxy: ProxyProcess, slix: SlixDriver | None = None) -> None:
        """Log in as the client, dialling ``host``, and see that it worked."""
        outcome = (slix or self.slix).play(
            "login", host=host, port=port, mode=mode, domain=DOMAIN, clients=[ALICE], ca_file=str(proxy.ca_file)
        )
        for secret in outcome.secrets:
            self.canary.register_payload("a SASL payload", secret)
        assert outcome.final["end"] == "session", outcome

    def dial(self, host: str, port: int, say: bytes = b"", namespace: str | None = None) -> bytes:
        """Connect as the client without XMPP, and return all that comes back."""
        program = f"""
            import socket, sys
            with socket.create_connection(({host!r}, {port}), timeout=10) as sock:
                sock.sendall({say!r})
                try:
                    while data := sock.recv(65536):
                        sys.stdout.buffer.write(data)
                except ConnectionResetError:
                    pass
        """
        command = [*inside(namespace or self.network.client), sys.executable, "-c", textwrap.dedent(program)]
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, mint: Mint, canary: Canary) -> Iterator[Stage]:
    if reason := netns.missing() or prosody_support.missing():
        pytest.skip(reason)
    pytest.importorskip("slixmpp")
    with ExitStack() as stack:
        made = stack.enter_context(network())
        stack.enter_context(
            running_prosody(
                tmp_path_factory.mktemp("prosody"),
                domain=DOMAIN,
                leaf=mint.leaf(DOMAIN, label="prosody"),
                passwords=PASSWORDS,
                namespace=made.server,
            )
        )
        slix = stack.enter_context(slix_driver(*inside(made.client)))
        yield Stage(network=made, slix=slix, mint=mint, canary=canary, directory=Path())


@pytest.fixture
def here(stage: Stage, tmp_path: Path) -> Stage:
    """The stage, with a directory of the test's own."""
    return attrs.evolve(stage, directory=tmp_path)


# The original destination ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("listen", "server", "client"),
    [("0.0.0.0", SERVER, CLIENT), ("[::]", SERVER, CLIENT), ("[::]", SERVER6, CLIENT6)],
    ids=["ipv4", "ipv4-of-dual-stack", "ipv6"],
)
def test_redirected_connections_go_where_they_were_going(
    here: Stage, listen: str, server: str, client: str, mode: str
) -> None:
    here.network.firewall(REDIRECT)
    with here.proxy(listen=[f"{listen}:{PROXY_PORT}"]) as proxy:
        here.login(server, PORTS[mode], mode, proxy)
        records = proxy.session()
    wanted = f"[{server}]:{PORTS[mode]}" if ":" in server else f"{server}:{PORTS[mode]}"
    accepted = only(records, "connection-accepted", xproxy__way="redirect", xproxy__requested=wanted)
    assert (at(accepted, "client.ip"), at(accepted, "xproxy.listener.port")) == (client, PROXY_PORT)
    assert (at(accepted, "xproxy.dialled.ip"), at(accepted, "xproxy.dialled.port")) == (server, PORTS[mode])
    only(records, "upstream-connected", destination__ip=server, destination__port=PORTS[mode])
    only(records, "session-established")


def test_iptables_does_as_well(here: Stage) -> None:
    if shutil.which("iptables") is None:
        pytest.skip("iptables is not installed (Debian package iptables)")
    here.network.firewall("")
    for command in IPTABLES:
        here.network.run(*command)
    with here.proxy(listen=[f"[::]:{PROXY_PORT}"]) as proxy:
        for server, mode in ((SERVER, "starttls"), (SERVER6, "direct-tls")):
            mark = proxy.mark()
            here.login(server, PORTS[mode], mode, proxy)
            records = proxy.session(after=mark)
            only(records, "connection-accepted", xproxy__way="redirect", xproxy__dialled__ip=server)
            only(records, "upstream-connected", destination__ip=server)
    here.network.firewall("")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("server", "client"), [(SERVER, CLIENT), (SERVER6, CLIENT6)], ids=["ipv4", "ipv6"])
def test_tproxied_connections_go_where_they_were_going(here: Stage, server: str, client: str, mode: str) -> None:
    try:
        here.network.firewall(TPROXY)
    except AssertionError as error:
        pytest.skip(f"this kernel has no TPROXY (CONFIG_NFT_TPROXY): {error}")
    for arguments in TPROXY_ROUTES:
        here.network.configure(*arguments.split())
    try:
        with here.proxy(listen=[f"tproxy://[::]:{PROXY_PORT}"]) as proxy:
            here.login(server, PORTS[mode], mode, proxy)
            records = proxy.session()
    finally:
        for arguments in TPROXY_ROUTES:
            here.network.configure(*arguments.replace(" add ", " delete ").split())
    accepted = only(records, "connection-accepted", xproxy__way="tproxy", client__ip=client)
    assert (at(accepted, "xproxy.listener.ip"), at(accepted, "xproxy.listener.port")) == (server, PORTS[mode])
    only(records, "upstream-connected", destination__ip=server, destination__port=PORTS[mode])
    only(records, "session-established")


@pytest.mark.parametrize("gateway", [GATEWAY, GATEWAY6])
@pytest.mark.parametrize("scheme", ["", "tproxy://"])
def test_who_dials_the_proxy_itself_is_refused(here: Stage, gateway: str, scheme: str) -> None:
    here.network.firewall(REDIRECT)
    with here.proxy(listen=[f"{scheme}[::]:{PROXY_PORT}"]) as proxy:
        assert here.dial(gateway, PROXY_PORT, b"<") == b""
        refused = proxy.wait_record("connection-refused")
    assert at(refused, "event.reason") == "not-redirected"
    assert at(refused, "client.ip") == (CLIENT6 if ":" in gateway else CLIENT)


def test_a_destination_that_is_a_listener_of_ours(here: Stage) -> None:
    here.network.firewall(REDIRECT.replace("{ 5222, 5223 }", "5223"))
    with here.proxy(listen=[f"0.0.0.0:{PROXY_PORT}", "0.0.0.0:5223"]) as proxy:
        assert here.dial(GATEWAY, 5223, b"<") == b""
        refused = proxy.wait_record("connection-refused")
    assert at(refused, "event.reason") == "destination-loop"
    assert at(refused, "xproxy.requested") == f"{GATEWAY}:5223"


def test_our_own_connections_turned_back_to_us_end_at_once(here: Stage) -> None:
    """The classic mistake: the rule also catches what the proxy itself sends."""
    of_our_own = REDIRECT.replace("prerouting", "output").replace("dstnat", "-100").replace("xproxy {", "xproxy_out {")
    here.network.firewall(REDIRECT + of_our_own)
    with here.proxy(listen=[f"0.0.0.0:{PROXY_PORT}"]) as proxy:
        assert here.dial(SERVER, 5222, b"<stream:stream") == b""
        first, second = proxy.sessions(count=2)
    assert at(only(second, "upstream-failed"), "event.reason") == "loop"
    assert at(second[0], "client.port") == at(only(first, "upstream-connected"), "xproxy.upstream.local.port")


def test_ports_that_are_not_xmpps_are_refused(here: Stage) -> None:
    here.network.firewall(REDIRECT.replace("{ 5222, 5223 }", "{ 22, 443 }"))
    with here.proxy(listen=[f"0.0.0.0:{PROXY_PORT}"]) as proxy:
        for port in (22, 443):
            mark = proxy.mark()
            assert here.dial(SERVER, port, b"<") == b""
            refused = proxy.wait_record("connection-refused", after=mark)
            assert at(refused, "event.reason") == "destination-refused"
            assert at(refused, "xproxy.requested") == f"{SERVER}:{port}"


# HAProxy --------------------------------------------------------------------------------------------------------------

HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend xmpp
    bind :::5222 v4v6
    default_backend xproxy
backend xproxy
    server xproxy {address}:{port} {how} check inter 100ms
"""


@contextmanager
def running_haproxy(directory: Path, configuration: str, *, namespace: str | None = None) -> Iterator[None]:
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed (Debian package haproxy)")
    file = directory / "haproxy.cfg"
    file.write_text(configuration)
    command = [*(inside(namespace) if namespace else ()), "haproxy", "-f", str(file), "-db", "-q"]
    with (directory / "haproxy.out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None, (directory / "haproxy.out").read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("gateway", "client"), [(GATEWAY, CLIENT), (GATEWAY6, CLIENT6)], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("how", "mode"),
    [
        ("send-proxy", "starttls"),
        ("send-proxy-v2", "starttls"),
        ("send-proxy-v2", "direct-tls"),
        ("send-proxy-v2 proxy-v2-options crc32c,unique-id,authority", "starttls"),
    ],
    ids=["v1", "v2", "v2-direct-tls", "v2-with-extensions"],
)
def test_behind_haproxy_the_record_names_the_real_client(
    here: Stage, how: str, mode: str, gateway: str, client: str
) -> None:
    here.network.firewall("")
    upstream = f"{SERVER}:{PORTS[mode]}"
    with (
        here.proxy(upstream=upstream, listen=[f"proxy://127.0.0.1:{PROXY_PORT}"]) as proxy,
        running_haproxy(
            here.directory,
            HAPROXY.format(address="127.0.0.1", port=PROXY_PORT, how=how),
            namespace=here.network.gateway,
        ),
    ):
        deadline = time.monotonic() + 15
        while (status := ControlClient(proxy.state).get("/v1/status"))["health_checks"] < 3:
            assert time.monotonic() < deadline, status
            time.sleep(0.02)
        assert [name for name in actions(proxy.records()) if name.startswith("connection")] == []
        assert (status["arriving"], status["sessions"]["now"]) == (0, 0)
        here.login(gateway, 5222, mode, proxy)
        records = proxy.session()
    accepted = only(records, "connection-accepted", xproxy__way="proxy-protocol")
    assert (at(accepted, "source.ip"), at(accepted, "client.ip")) == (client, client)
    assert at(accepted, "xproxy.balancer.ip") == "127.0.0.1"
    assert at(accepted, "xproxy.balancer.port") != at(accepted, "client.port")
    assert (at(accepted, "xproxy.dialled.ip"), at(accepted, "xproxy.dialled.port")) == (gateway, 5222)
    assert at(only(records, "session-established"), "client.ip") == client


ACCEPTING = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen echo
    bind 127.0.0.1:{port} accept-proxy
    server behind 127.0.0.1:{behind} send-proxy
"""


def connected_to(port: int) -> socket.socket:
    """Return a connection, as soon as somebody takes it."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize("render", [render_v1, render_v2])
@pytest.mark.parametrize(
    ("source", "destination"),
    [
        (Endpoint("192.0.2.7", 56_324), Endpoint("198.51.100.1", 5222)),
        (Endpoint("2001:db8::7", 1), Endpoint("2001:db8::1", 65_535)),
        (Endpoint("192.0.2.7", 56_324), Endpoint("2001:db8::1", 5222)),
    ],
)
def test_haproxy_takes_the_headers_we_write(
    tmp_path: Path, render: Callable[[Endpoint, Endpoint], bytes], source: Endpoint, destination: Endpoint
) -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as behind:
        behind.settimeout(10)
        configuration = ACCEPTING.format(port=port, behind=behind.getsockname()[1])
        with running_haproxy(tmp_path, configuration), connected_to(port) as client:
            client.sendall(render(source, destination) + b"<hello>")
            server, _ = behind.accept()
            with server:
                server.settimeout(10)
                received = b""
                while not received.endswith(b"<hello>"):
                    received += server.recv(4_096)
    used, header = HeaderReader().take(received)
    assert header is not None
    assert (header.source, header.destination, received[used:]) == (source, destination, b"<hello>")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_one_xproxy_behind_another_knows_the_real_client(here: Stage, version: str, mode: str) -> None:
    here.network.firewall("")
    upstream = f"{SERVER}:{PORTS[mode]}"
    certificate = here.mint.leaf(DOMAIN, label="second")  # what the first one verifies
    with (
        here.proxy(
            *("--cert", str(certificate.certificate), "--key", str(certificate.key)),
            upstream=upstream,
            listen=[f"proxy://127.0.0.1:{PROXY_PORT}"],
        ) as second,
        here.proxy(
            *("--upstream-proxy-protocol", version),
            upstream=f"127.0.0.1:{PROXY_PORT}",
            listen=["[::]:5222"],
        ) as first,
    ):
        here.login(GATEWAY6, 5222, mode, first)
        front, behind = first.session(), second.session()
    assert at(front[0], "client.ip") == CLIENT6
    accepted = only(behind, "connection-accepted", xproxy__way="proxy-protocol")
    for field in ("client.ip", "client.port"):
        assert at(accepted, field) == at(front[0], field)
    assert at(accepted, "xproxy.dialled.ip") == GATEWAY6
    joined = only(front, "upstream-connected")
    assert at(accepted, "xproxy.balancer.port") == at(joined, "xproxy.upstream.local.port")


def test_haproxy_in_front_and_a_spoofer_beside_it(here: Stage) -> None:
    here.network.firewall("")
    spoofed = b"PROXY TCP4 203.0.113.9 203.0.113.1 1 5222\r\n<"
    with here.proxy(upstream=f"{SERVER}:5222", listen=[f"proxy://0.0.0.0:{PROXY_PORT}"]) as proxy:
        assert here.dial(GATEWAY, PROXY_PORT, spoofed) == b""
        refused = proxy.wait_record("connection-refused")
        assert at(refused, "event.reason") == "proxy-header-untrusted"
        assert at(refused, "client.ip") == CLIENT
        assert "203.0.113.9" not in proxy.log_file.read_text()


# Where the DNS leads --------------------------------------------------------------------------------------------------

FIRST = "10.77.2.3"  # a second address of the server's
SHUT = """
table inet shut {{
    chain input {{
        type filter hook input priority filter;
        ip daddr {first} tcp dport {port} {how}
    }}
}}
"""


@pytest.mark.parametrize(
    ("nameserver", "mode", "ways"),
    [(SERVER, "starttls", ["reject with tcp reset", "drop"]), (SERVER6, "direct-tls", [])],
    ids=["asked-by-ipv4", "asked-by-ipv6"],
)
def test_the_second_server_of_the_dns_serves_while_the_first_is_down(
    here: Stage, nameserver: str, mode: str, ways: list[str]
) -> None:
    """However it is down: it refuses, says nothing, or its machine has gone. When it is back, it serves again."""
    if reason := dns_support.missing():
        pytest.skip(reason)
    network, port, is_direct = here.network, PORTS[mode], mode == "direct-tls"
    network.firewall("")
    records = (
        srv(DOMAIN, target="first.test", port=port, priority=10, weight=1, direct=is_direct),
        srv(DOMAIN, target="second.test", port=port, priority=20, weight=2, direct=is_direct),
        *(host("first.test", FIRST), host("second.test", SERVER6)),
    )
    config = here.directory / "xproxy.toml"
    config.write_text(f'[upstream]\nnameservers = ["{nameserver}"]\n')
    with (
        running_dns(here.directory, *records, namespace=network.server) as dns,
        here.proxy("-c", str(config), upstream="srv", listen=["[::]:5222"]) as proxy,
    ):

        def server_of_a_login() -> tuple[str, str, int]:
            mark = proxy.mark()
            here.login(GATEWAY, 5222, mode, proxy)
            session = proxy.session(after=mark)
            only(session, "session-established")
            connected = only(session, "upstream-connected", xproxy__upstream__via="srv", destination__port=port)
            assert at(connected, "xproxy.upstream.tls") == ("direct" if is_direct else "starttls")
            first = at(connected, "destination.ip"), at(connected, "destination.address")
            return (*first, at(connected, "xproxy.upstream.priority"))

        first, second = (FIRST, "first.test", 10), (SERVER6, "second.test", 20)
        address = (f"{FIRST}/24", "dev", "to-gateway")
        network.configure("address", "add", *address, at=network.server)
        try:
            assert server_of_a_login() == first
            for how in ways:
                network.firewall(SHUT.format(first=FIRST, port=port, how=how), at=network.server)
                assert server_of_a_login() == second, how
                network.firewall("", at=network.server)
            if ways:
                assert server_of_a_login() == first
        finally:
            network.firewall("", at=network.server)
            network.configure("address", "delete", *address, at=network.server)
        assert server_of_a_login() == second
        questions = dns.queries()
    service = "_xmpps-client" if is_direct else "_xmpp-client"
    assert questions.count(f"SRV {service}._tcp.{DOMAIN}") == 1  # and kept as long as it says
    assert {"A first.test", "AAAA first.test", "A second.test", "AAAA second.test"} <= set(questions)


# SOCKS5 ---------------------------------------------------------------------------------------------------------------

PROXYCHAINS = """
strict_chain
{dns}
tcp_read_time_out 15000
tcp_connect_time_out 8000
[ProxyList]
socks5 {gateway} 1080
"""


@contextmanager
def by_socks(here: Stage, *, dns: bool = False) -> Iterator[SlixDriver]:
    """slixmpp in the client's network, every connection of which goes by SOCKS5."""
    if shutil.which("proxychains4") is None:
        pytest.skip("proxychains4 is not installed (Debian package proxychains4)")
    file = here.directory / "proxychains.conf"
    file.write_text(PROXYCHAINS.format(gateway=GATEWAY, dns="proxy_dns" if dns else ""))
    with slix_driver(*inside(here.network.client), "proxychains4", "-q", "-f", str(file)) as driver:
        yield driver


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("upstream", ["original", "fixed"])
def test_slixmpp_logs_in_by_socks5(here: Stage, mode: str, upstream: str) -> None:
    here.network.firewall("")
    where = "original" if upstream == "original" else f"{SERVER}:{PORTS[mode]}"
    with (
        here.proxy("--trusted", "10.77.1.0/24", upstream=where, listen=["socks5://0.0.0.0:1080"]) as proxy,
        by_socks(here) as slix,
    ):
        here.login(SERVER, PORTS[mode], mode, proxy, slix)
        records = proxy.session()
    wanted = f"{SERVER}:{PORTS[mode]}"
    only(records, "connection-accepted", xproxy__way="socks5", xproxy__requested=wanted, client__ip=CLIENT)
    only(records, "upstream-connected", destination__ip=SERVER)
    only(records, "session-established")


def curl(here: Stage, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """curl has a SOCKS5 of its own, with names; telnet:// is a plain connection to it."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (Debian package curl)")
    header = (
        f"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{DOMAIN}' "
        "version='1.0'></stream:stream>"
    )
    command = [*inside(here.network.client), "curl", "-sS", "--max-time", "10", *arguments]
    return subprocess.run(command, input=header.encode(), capture_output=True, timeout=20, check=False)


def test_curl_asks_by_name_and_is_told_what_went_wrong(here: Stage) -> None:
    here.network.firewall("")
    with here.proxy("--trusted", CLIENT, upstream=f"{SERVER}:5222", listen=["socks5://0.0.0.0:1080"]) as proxy:
        proxied = ("--proxy", f"socks5h://{GATEWAY}:1080")
        answered = curl(here, *proxied, f"telnet://{DOMAIN}:5222")
        assert b"<stream:features>" in answered.stdout, answered
        records = proxy.session()
        only(records, "connection-accepted", xproxy__way="socks5", xproxy__requested=f"{DOMAIN}:5222")
        mark = proxy.mark()
        refused = curl(here, *proxied, "telnet://elsewhere.example:5222")
        assert (refused.returncode, refused.stdout) == (97, b"")
        assert b"(2)" in refused.stderr, refused.stderr  # RFC 1928 section 6: not allowed by ruleset
        record = proxy.wait_record("connection-refused", after=mark)
        assert at(record, "event.reason") == "destination-refused"
        assert at(record, "xproxy.requested") == "elsewhere.example:5222"
    with here.proxy("--trusted", CLIENT, upstream=f"{SERVER}:5299", listen=["socks5://0.0.0.0:1080"]) as proxy:
        refused = curl(here, "--proxy", f"socks5h://{GATEWAY}:1080", f"telnet://{DOMAIN}:5222")
        assert b"(5)" in refused.stderr, refused.stderr  # connection refused
        only(proxy.session(), "upstream-failed", event__reason="refused")
