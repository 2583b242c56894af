"""Real clients that do not trust the proxy: each leaves a readable cause, and passthrough lets it in undecrypted."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio

from tests.support.accounts import DOMAIN, MODES, PASSWORDS
from tests.support.canary import Canary
from tests.support.gosendxmpp import GoSendXmpp
from tests.support.mint import Mint
from tests.support.prosody import Prosody
from tests.support.proxy_process import ProxyProcess, Record, action, actions, at, only
from tests.support.proxying import proxying
from tests.support.slix import SlixDriver
from tests.support.xmppjs import XmppJs
from xproxy.config.address import HostPort
from xproxy.config.policy import PolicySettings
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.config.tls import TlsSettings
from xproxy.config.upstream import UpstreamSettings
from xproxy.events import Event
from xproxy.events.connection import ConnectionClosed
from xproxy.events.stanza import ClientFailureSuspected
from xproxy.events.stream import StreamOpened
from xproxy.events.tls import TlsEstablished, TlsFailed, TlsPassthrough
from xproxy.proxy.passthrough import PassthroughMemory
from xproxy.tls.service import TlsService
from xproxy.xmpp.actions import LegMode
from xproxy.xmpp.names import NameTally
from xproxy.xmpp.session import Session

pytestmark = [pytest.mark.integration, pytest.mark.slow]

JAVA: Final = Path(__file__).parents[1] / "support" / "TlsClient.java"
ALICE: Final = {"user": "alice", "password": PASSWORDS["alice"]}
SECONDS_MAX: Final = 40.0


@attrs.frozen(kw_only=True)
class Distrust:
    """What a client needs to connect that trusts ``ca_file`` alone, which is not the proxy's CA."""

    port: int
    mode: str
    ca_file: Path
    directory: Path


Try = Callable[[Distrust, pytest.FixtureRequest], object]


def run(command: list[str], **environment: str) -> int:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS_MAX,
        check=False,
        env=os.environ | environment,
    )
    return done.returncode


def try_slixmpp(how: Distrust, request: pytest.FixtureRequest) -> object:
    slix: SlixDriver = request.getfixturevalue("slix")
    return slix.play(
        "login", port=how.port, mode=how.mode, domain=DOMAIN, ca_file=str(how.ca_file), clients=[ALICE]
    ).final


def try_go_sendxmpp(how: Distrust, request: pytest.FixtureRequest) -> object:
    tool: type[GoSendXmpp] = request.getfixturevalue("go_sendxmpp")
    client = tool(
        port=how.port,
        mode=how.mode,
        ca_file=how.ca_file,
        user="gopher",
        domain=DOMAIN,
        password=PASSWORDS["gopher"],
    )
    return client.ask().final


def try_xmpp_js(how: Distrust, request: pytest.FixtureRequest) -> object:
    tool: type[XmppJs] = request.getfixturevalue("xmpp_js")
    return tool(port=how.port, mode=how.mode, ca_file=how.ca_file, domain=DOMAIN).play("login", ALICE).final


def try_node_1_2(how: Distrust, request: pytest.FixtureRequest) -> object:
    """It judges when its side of the handshake is done, which with TLS 1.2 is when ours is done too."""
    need("node")
    code = (
        f"require('tls').connect({{host: '127.0.0.1', port: {how.port}, servername: '{DOMAIN}', "
        "maxVersion: 'TLSv1.2'}).on('error', (error) => process.exit(1))"
    )
    return run(["node", "-e", code], NODE_EXTRA_CA_CERTS=str(how.ca_file))


def try_openssl(how: Distrust, request: pytest.FixtureRequest) -> object:
    command = ["openssl", "s_client", "-verify_return_error", "-connect", f"127.0.0.1:{how.port}", "-servername"]
    command += [DOMAIN, "-CAfile", str(how.ca_file)]
    return run([*command, *(["-starttls", "xmpp", "-xmpphost", DOMAIN] if how.mode == "starttls" else [])])


def try_gnutls(how: Distrust, request: pytest.FixtureRequest) -> object:
    need("gnutls-cli")
    command = ["gnutls-cli", "--port", str(how.port), "--sni-hostname", DOMAIN, "--verify-hostname", DOMAIN]
    return run([*command, "--x509cafile", str(how.ca_file), "127.0.0.1"])


def try_nss(how: Distrust, request: pytest.FixtureRequest) -> object:
    """NSS is the TLS of Firefox and Thunderbird."""
    need("tstclnt")
    database = f"sql:{how.directory}"
    run(["certutil", "-N", "--empty-password", "-d", database])
    run(["certutil", "-A", "-d", database, "-n", "ca", "-t", "C,,", "-i", str(how.ca_file)])
    return run(["tstclnt", "-h", "127.0.0.1", "-p", str(how.port), "-d", database, "-a", DOMAIN])


def try_java(how: Distrust, request: pytest.FixtureRequest) -> object:
    """Java's own authorities do not know the proxy."""
    need("javac")
    return run(["java", str(JAVA), DOMAIN, str(how.port)])


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


# What each client does with a certificate that it does not trust, as the log has it: action, error.code or kind, alert.
CLOSED: Final = ("tls-failed", "closed", None)
CAUSES: Final[dict[str, tuple[Try, tuple[str, ...], tuple[str, str, str | None]]]] = {
    "slixmpp": (try_slixmpp, MODES, CLOSED),  # asyncio drops the alert that OpenSSL has made
    "go-sendxmpp": (try_go_sendxmpp, MODES, ("tls-failed", "client-rejected-certificate", "bad_certificate")),
    "xmpp.js on Node.js": (try_xmpp_js, MODES, CLOSED),  # it never sends one
    "Node.js with TLS 1.2": (try_node_1_2, ("direct-tls",), ("client-failure-suspected", "left-after-tls", None)),
    "openssl s_client": (try_openssl, MODES, ("tls-failed", "client-rejected-certificate", "unknown_ca")),
    "gnutls-cli": (try_gnutls, ("direct-tls",), ("tls-failed", "client-rejected-certificate", "bad_certificate")),
    "NSS": (try_nss, ("direct-tls",), ("tls-failed", "client-rejected-certificate", "unknown_ca")),
    "Java": (try_java, ("direct-tls",), ("tls-failed", "client-rejected-certificate", "certificate_unknown")),
}
CASES: Final = [(name, mode) for name, (_, modes, _) in CAUSES.items() for mode in modes]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_each_client_that_refuses_us_leaves_its_cause(
    proxies: dict[str, ProxyProcess],
    mint: Mint,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    name: str,
    mode: str,
) -> None:
    attempt, _, (wanted_action, reason, alert) = CAUSES[name]
    proxy = proxies[mode]
    mark = proxy.mark()
    attempt(Distrust(port=proxy.port, mode=mode, ca_file=mint.ca_file, directory=tmp_path), request)
    session = proxy.sessions(after=mark, count=1)[0]
    record = only(session, wanted_action)
    assert cause_in(record) == (wanted_action, reason, alert)
    if wanted_action == "tls-failed":
        assert at(record, "xproxy.leg") == "client"
        assert at(record, "xproxy.tls.ja4")
        assert at(record, "tls.server.hash.sha256"), "the certificate that was refused"
        assert len(at(record, "error.message")) > 20
        assert at(session[-1], "event.reason") == "tls-failed"
    assert "sasl-started" not in actions(session)


def cause_in(record: Record) -> tuple[str, str, str | None]:
    code = at(record, "error.code") or at(record, "xmpp.suspicion.kind")
    return action(record), code, at(record, "xproxy.tls.alert")


# Passthrough --------------------------------------------------------------------------------------------------------

SECOND: Final = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        return self.now


def core(mode: LegMode, at_ns: int, strangers: NameTally) -> Session:
    policy = StreamPolicy(domain=DOMAIN, correlation_key=bytes(32))
    return Session(limits=StreamLimits(), policy=policy, mode=mode, at_ns=at_ns, strangers=strangers)


def succeeded(final: Any) -> bool:
    """Whether the client logged in, for what each driver says of it."""
    return bool(final.get("bound") or final.get("end") == "session")


@pytest.mark.parametrize("name", ["slixmpp", "go-sendxmpp", "xmpp.js on Node.js"])
@pytest.mark.parametrize("mode", MODES)
async def test_passthrough_lets_it_log_in_until_the_stated_time(
    prosody: Prosody, mint: Mint, tmp_path: Path, request: pytest.FixtureRequest, name: str, mode: str
) -> None:
    """The first connection fails with a record, the second logs in undecrypted, after the expiry it fails again."""
    attempt = CAUSES[name][0]
    fixture = {"slixmpp": "slix", "go-sendxmpp": "go_sendxmpp"}.get(name, "xmpp_js")
    request.getfixturevalue(fixture)  # not in the thread: it may skip
    clock = Clock()
    policy = PolicySettings(on_client_reject="passthrough", passthrough_seconds=600)
    memory = PassthroughMemory(policy, wall_ns=clock)
    upstream = HostPort("127.0.0.1", prosody.port(mode))
    contexts = TlsService(TlsSettings(), UpstreamSettings(ca_file=mint.ca_file, domain=DOMAIN), tmp_path)
    with trio.fail_after(3 * SECONDS_MAX):
        async with proxying(
            upstream=upstream, contexts=contexts, new_session=core, passthrough=memory, domain=DOMAIN
        ) as rig:

            async def once() -> tuple[Any, list[Event]]:
                rig.channel.events.clear()
                how = Distrust(port=rig.address.port, mode=mode, ca_file=mint.ca_file, directory=tmp_path)
                final = await trio.to_thread.run_sync(attempt, how, request)
                await rig.channel.wait_for(ConnectionClosed)
                return final, list(rig.channel.events)

            refused, events = await once()
            assert not succeeded(refused)
            assert any(isinstance(event, TlsFailed | ClientFailureSuspected) for event in events)
            (kept,) = memory.snapshot()
            assert kept.key.address == "127.0.0.1"

            for count in (1, 2):
                let_in, events = await once()
                assert succeeded(let_in), let_in
                begin, end = (event for event in events if isinstance(event, TlsPassthrough))
                assert (begin.stage, end.stage) == ("begin", "end")
                assert begin.expires_at_ns == kept.expires_at_ns
                assert end.from_client_bytes is not None
                assert end.from_server_bytes is not None
                assert min(end.from_client_bytes, end.from_server_bytes) > 1_000
                assert not any(isinstance(event, TlsEstablished | TlsFailed) for event in events)
                opened = [event for event in events if isinstance(event, StreamOpened)]
                assert len(opened) == (2 if mode == "starttls" else 0), "nothing inside TLS was seen"
                assert memory.snapshot()[0].sessions == count

            clock.now = kept.expires_at_ns
            refused, events = await once()
            assert not succeeded(refused)
            assert not any(isinstance(event, TlsPassthrough) for event in events)


@pytest.mark.parametrize("upstream", MODES)
@pytest.mark.parametrize("mode", MODES)
def test_the_real_proxy_says_so_in_its_log(
    start_proxy: Callable[..., ProxyProcess],
    prosody: Prosody,
    mint: Mint,
    canary: Canary,
    slix: SlixDriver,
    tmp_path: Path,
    mode: str,
    upstream: str,
) -> None:
    """As a process, with its settings from a file; every record after the begin says that the session is passed on.

    Where the server is to be spoken to otherwise than the client speaks, the proxy's own part comes before.
    """
    (tmp_path / "xproxy.toml").write_text('[policy]\non_client_reject = "passthrough"\npassthrough_seconds = 600.0\n')
    upstream_tls = {"starttls": "starttls", "direct-tls": "direct"}[upstream]
    arguments = ("-c", str(tmp_path / "xproxy.toml"), "--upstream-tls", upstream_tls)
    proxy = start_proxy(prosody.port(upstream), *arguments)

    def log_in() -> tuple[Any, list[Record]]:
        mark = proxy.mark()
        job = {"port": proxy.port, "mode": mode, "domain": DOMAIN, "ca_file": str(mint.ca_file)}
        final = slix.play("login", clients=[ALICE], **job).final
        return final, proxy.session(after=mark)

    refused, session = log_in()
    assert not succeeded(refused)
    assert at(only(session, "tls-failed"), "error.code") == "closed"

    command = [sys.executable, "-m", "xproxy", "sessions", "--state", str(proxy.state)]
    shown = subprocess.run([*command, "--json"], capture_output=True, timeout=SECONDS_MAX, check=True)
    (listed,) = json.loads(shown.stdout)["passthrough"]
    assert "127.0.0.1" in str(listed)
    assert "closed" in str(listed)

    let_in, session = log_in()
    assert succeeded(let_in)
    begin, end = (record for record in session if action(record) == "tls-passthrough")
    assert at(begin, "log.level") == "warning"
    assert at(begin, "xproxy.passthrough.stage") == "begin"
    assert at(begin, "xproxy.passthrough.refusal") == "closed"
    assert at(begin, "xproxy.passthrough.expires") > at(begin, "@timestamp")
    assert at(end, "xproxy.passthrough.stage") == "end"
    assert at(end, "source.bytes") > 1_000
    assert {at(record, "xproxy.tls.passthrough") for record in session[session.index(begin) :]} == {True}
    assert actions(session)[-2:] == ["tls-passthrough", "connection-closed"]
    assert "sasl-started" not in actions(session)
