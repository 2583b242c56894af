"""A real ``xproxy run``, asked and told by the real commands."""

import json
import os
import pty
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.support.canary import Canary
from tests.support.peer import DOMAIN, PASSWORDS, Trust, make_trust
from tests.support.proxy_process import ProxyProcess, action, actions, at, only, running_xproxy
from xproxy import system
from xproxy.control.client import ControlClient
from xproxy.peer.client import Client, Mode, trusting
from xproxy.peer.errors import PeerError
from xproxy.peer.server import Server

pytestmark = pytest.mark.slow

USER = next(iter(PASSWORDS))


@attrs.frozen
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@attrs.define(eq=False)
class Rig:
    """A running proxy before an embedded server."""

    proxy: ProxyProcess
    server: Server

    def client(self, mode: Mode = Mode.STARTTLS) -> Client:
        trust = trusting(self.proxy.ca_file)
        return Client(host="127.0.0.1", port=self.proxy.port, domain=DOMAIN, tls=trust, mode=mode)

    async def ask(self, *arguments: str, named: bool = True) -> Outcome:
        """Run a command about the proxy, which is ``named`` by its state directory."""
        state = ("--state", str(self.proxy.state)) if named else ()
        command = [sys.executable, "-m", "xproxy", *arguments, *state]
        with trio.fail_after(60):
            done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        outcome = Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in outcome.err, outcome.err
        return outcome


@pytest.fixture
def canary() -> Canary:
    made = Canary()
    for user, password in PASSWORDS.items():
        made.register(f"password of {user}", password)
    return made


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    (tmp_path / "server").mkdir()
    return make_trust(tmp_path / "server")


@pytest.fixture
def proxies() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@asynccontextmanager
async def before_a_server(
    stack: ExitStack, directory: Path, trust: Trust, canary: Canary, *arguments: str
) -> AsyncIterator[Rig]:
    """The proxy is stopped, and judged, when ``stack`` is closed."""
    server = Server(domain=DOMAIN, passwords=PASSWORDS, tls=trust.server)
    async with trio.open_nursery() as nursery:
        upstream = await nursery.start(server.serve)
        proxy = stack.enter_context(
            running_xproxy(
                directory / "proxy", *arguments, canary=canary, upstream=str(upstream), upstream_ca=trust.mint.ca_file
            )
        )
        yield Rig(proxy=proxy, server=server)
        nursery.cancel_scope.cancel()


async def test_sessions_say_who_how_far_and_how_much(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    async with before_a_server(proxies, tmp_path, trust, canary) as rig:
        async with rig.client() as bound, await trio.open_tcp_stream("127.0.0.1", rig.proxy.port):
            jid = await bound.enter(USER, PASSWORDS[USER], "desk", mechanism="SCRAM-SHA-1")
            rig.proxy.wait_record("session-established")
            listed = (await rig.ask("sessions", "--sort", "phase")).document
            assert (listed["total"], listed["passthrough"]) == (2, [])
            row, silent = listed["sessions"]
            accepted = rig.proxy.wait_record("connection-accepted")
            connected = rig.proxy.wait_record("upstream-connected")
            assert row["trace_id"] == accepted["trace"]["id"]
            assert row["client"] == f"127.0.0.1:{accepted['client']['port']}"
            assert row["listener"] == f"127.0.0.1:{rig.proxy.port}"
            assert row["upstream"] == f"127.0.0.1:{connected['server']['port']}"
            assert (row["way_in"], row["upstream_verify"]) == ("plain", "ok")
            assert (row["jid"], row["jid_source"], row["domain"]) == (jid, "bind-result", DOMAIN)
            assert (row["phase"], row["tls"], row["mechanism"]) == (
                "established",
                {"client": "1.3", "server": "1.3"},
                "SCRAM-SHA-1",
            )
            assert row["from_client"]["stanzas"] >= 1
            assert row["from_client"]["bytes"] > 500
            assert row["to_client"]["waiting_bytes"] == row["to_server"]["waiting_bytes"] == 0
            assert 0 <= row["age_seconds"] < 60
            # Where the kernel does not count, it is since the last element, and of single peers nothing is known.
            assert 0 <= row["idle_seconds"] <= row["age_seconds"]
            assert (row["to_client"]["silent_seconds"] is not None) == system.offers(socket, "TCP_INFO")
            assert (silent["phase"], silent["jid"], silent["mechanism"]) == ("first-byte", None, None)
            assert silent["from_client"] == {"bytes": 0, "stanzas": 0, "errors": 0}
            assert len((await rig.ask("sessions", "--limit", "1")).document["sessions"]) == 1
            await bound.close()
        closed = rig.proxy.wait_record("connection-closed", where=lambda record: at(record, "xmpp.jid") == jid)
        assert closed["trace"]["id"] == row["trace_id"]


@pytest.mark.parametrize("mode", ["pseudonym", "omit"])
async def test_what_records_may_not_hold_is_not_shown(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack, mode: str
) -> None:
    async with before_a_server(proxies, tmp_path, trust, canary, "--identities", mode) as rig, rig.client() as client:
        await client.enter(USER, PASSWORDS[USER], "desk")
        rig.proxy.wait_record("session-established")
        outcome = await rig.ask("sessions")
        (row,) = outcome.document["sessions"]
        status = await rig.ask("status")
        assert USER not in outcome.out + status.out
        assert "desk" not in outcome.out
        assert "127.0.0.1" not in outcome.out
        assert ("127.0.0.1" in status.out) == (mode == "pseudonym")  # the proxy's own; omit leaves out these too
        assert status.document["identities"] == mode
        established = rig.proxy.wait_record("session-established")
        assert row["jid"] == at(established, "xmpp.jid")
        assert (row["jid"] is None) == (mode == "omit")
        assert row["domain"] == DOMAIN
        await client.close()


@pytest.mark.parametrize(
    ("mode", "upstream_tls"),
    [
        (Mode.DIRECT_TLS, "same"),
        # Up to TLS the proxy speaks itself on one side, and then leaves the two alone.
        (Mode.DIRECT_TLS, "starttls"),
        (Mode.STARTTLS, "direct"),
    ],
)
async def test_who_is_let_through_undecrypted_is_listed(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack, mode: Mode, upstream_tls: str
) -> None:
    """A client that trusts the server's own authority alone refuses ours once, and then reaches the server itself."""
    (tmp_path / "xproxy.toml").write_text('[policy]\non_client_reject = "passthrough"\n')
    configured = ("-c", str(tmp_path / "xproxy.toml"), "--upstream-tls", upstream_tls, "--domain", DOMAIN)
    async with before_a_server(proxies, tmp_path, trust, canary, *configured) as rig:
        refusing = {"host": "127.0.0.1", "port": rig.proxy.port, "domain": DOMAIN, "tls": trust.client}
        with pytest.raises((OSError, PeerError)):
            await Client(mode=mode, **refusing).connect()
        rig.proxy.wait_record("connection-closed")
        async with Client(mode=mode, **refusing) as client:
            await client.login(USER, PASSWORDS[USER])
            document = (await rig.ask("sessions")).document
            (row,), (passed,) = document["sessions"], document["passthrough"]
            assert (row["phase"], row["jid"]) == ("passthrough", None)
            assert (passed["client"], passed["server_name"], passed["sessions"]) == ("127.0.0.1", DOMAIN, 1)
            assert passed["refusal"] == "closed"  # trio's TLS says nothing when it refuses
            assert passed["refused_at"] < passed["expires_at"]
            shown = await trio.to_thread.run_sync(lambda: on_a_terminal("sessions", "--state", str(rig.proxy.state)))
            assert f"not inspected: client 127.0.0.1, server name {DOMAIN}" in shown
            await client.close()


async def test_the_level_of_the_log_is_set_recorded_and_comes_back_with_a_reload(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    async with before_a_server(proxies, tmp_path, trust, canary) as rig:
        assert (await rig.ask("log-level")).document == {"level": "info", "configured": "info"}
        await chat(rig)
        assert "stanza-relayed" not in actions(rig.proxy.records())
        changed = await rig.ask("log-level", "debug")
        assert (changed.code, changed.document) == (0, {"level": "debug", "was": "info", "configured": "info"})
        record = rig.proxy.wait_record("config-changed")
        assert record["xproxy"]["config"]["changed"] == ["log-level"]
        assert record["xproxy"]["control"]["uid"] == os.geteuid()
        assert record["xproxy"]["control"]["pid"] not in (os.getpid(), rig.proxy.process.pid)
        assert record["event"]["outcome"] == "success"
        await chat(rig)
        rig.proxy.wait_record("stanza-relayed")
        assert (await rig.ask("reload")).document["reloaded"] == ["log-file", "certificates", "log-level"]
        assert (await rig.ask("log-level")).document["level"] == "info"
        assert (await rig.ask("log-level", "loud")).code == 2


async def chat(rig: Rig) -> None:
    async with rig.client(Mode.DIRECT_TLS) as client:
        after = rig.proxy.mark()
        await client.enter(USER, PASSWORDS[USER], "desk")
        await client.ping()
        await client.close()
        rig.proxy.wait_record("connection-closed", after=after)


async def test_a_reload_says_what_it_could_not_read(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    leaf = trust.mint.leaf(DOMAIN, label="again")
    files = ("--cert", str(leaf.certificate), "--key", str(leaf.key))
    async with before_a_server(proxies, tmp_path, trust, canary, *files) as rig:
        leaf.certificate.write_text("broken")
        outcome = await rig.ask("reload")
        assert outcome.code == 1
        assert outcome.document["reloaded"] == ["log-file", "log-level"]
        (problem,) = outcome.document["problems"]
        assert problem["what"] == "certificates"
        assert "holds no certificate" in problem["problem"]
        asked = rig.proxy.wait_record("config-changed", where=lambda record: at(record, "xproxy.control.pid"))
        assert asked["xproxy"]["config"] == {
            "changed": ["reload"],
            "applied": ["log-file", "log-level"],
            "kept": ["certificates"],
        }
        assert asked["event"]["outcome"] == "failure"
        assert asked["error"]["message"].startswith("certificates kept as before: ")


async def test_a_reload_says_what_is_only_read_at_the_start_and_what_a_broken_file_keeps(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    """Found by its configuration, whatever else has gone wrong there meanwhile."""
    file = tmp_path / "xproxy.toml"
    state = f"[state]\ndirectory = '{tmp_path / 'proxy' / 'state'}'\n"
    file.write_text(state)
    async with before_a_server(proxies, tmp_path, trust, canary, "-c", str(file)) as rig:

        async def reload() -> tuple[Outcome, dict[str, Any]]:
            mark = rig.proxy.mark()
            outcome = await rig.ask("reload", "-c", str(file), named=False)
            where = lambda record: at(record, "xproxy.control.pid") is not None  # noqa: E731
            return outcome, rig.proxy.wait_record("config-changed", after=mark, where=where)

        file.write_text(f"{state}[upstream]\ndomain = 'other.example'\n[log]\nlevel = 'debug'\n")
        outcome, record = await reload()
        assert (outcome.code, outcome.document["needs_restart"]) == (0, ["upstream.domain"])
        assert record["event"]["outcome"] == "success"
        assert record["xproxy"]["config"] == {
            "changed": ["reload"],
            "applied": ["log-file", "certificates", "log-level"],
            "needs_restart": ["upstream.domain"],
        }
        file.write_text(f"{state}[log]\nlevel = 'loud'\n[upstream]\ntls = 'clear'\n")
        outcome, record = await reload()
        assert (outcome.code, outcome.document["reloaded"]) == (1, ["log-file", "certificates"])
        (kept,) = outcome.document["problems"]
        assert f"{file}:4: level: must be" in kept["problem"]
        assert f"{file}:6: tls: must be" in kept["problem"]
        assert record["error"]["message"].startswith(f"log-level kept as before: {file}:4: level: must be")
        assert record["event"]["outcome"] == "failure"
        assert record["xproxy"]["config"] == {
            "changed": ["reload"],
            "applied": ["log-file", "certificates"],
            "kept": ["log-level"],
        }
        assert (await rig.ask("log-level")).document["level"] == "debug"


async def test_a_drain_ends_the_proxy_in_form(tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack) -> None:
    async with before_a_server(proxies, tmp_path, trust, canary) as rig, rig.client() as client:
        await client.enter(USER, PASSWORDS[USER], "desk")
        rig.proxy.wait_record("session-established")
        begun = (await rig.ask("drain", "--seconds", "600")).document
        assert begun["sessions"] == 1
        assert 500 < begun["seconds"] <= 600
        assert (await rig.ask("status")).document["state"] == "draining"
        assert len((await rig.ask("sessions")).document["sessions"]) == 1
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", rig.proxy.port)
        assert (await rig.ask("drain")).document["sessions"] == 1  # said again without a time, nothing changes
        outcome = await rig.ask("drain", "--seconds", "0.2", "--wait")
        assert (outcome.code, outcome.document["ended"]) == (0, True)
        assert rig.proxy.process.wait(5) == 0
    records = rig.proxy.records()
    stopped = records[-1]
    assert (action(stopped), stopped["event"]["reason"]) == ("proxy-stopped", "drain")
    assert stopped["xproxy"]["sessions_aborted"] == 1
    assert only(records, "connection-closed")["event"]["reason"] == "shutdown"
    drains = [record for record in records if at(record, "xproxy.config.changed") == ["drain"]]
    assert len(drains) == 3
    assert all(at(record, "xproxy.control.uid") == os.geteuid() for record in drains)
    assert not (rig.proxy.state / "control.sock").exists()
    late = await rig.ask("status")
    assert late.code == 3
    assert "no xproxy runs with the state directory" in late.err


async def test_with_nobody_connected_the_answer_to_a_drain_still_comes(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    async with before_a_server(proxies, tmp_path, trust, canary) as rig:
        outcome = await rig.ask("drain", "--wait")
        assert (outcome.code, outcome.document["sessions"]) == (0, 0)
        assert rig.proxy.process.wait(5) == 0


async def test_status_is_green_and_says_what_runs(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    async with before_a_server(proxies, tmp_path, trust, canary) as rig:
        outcome = await rig.ask("status")
        document = outcome.document
        assert (outcome.code, document["health"], document["problems"]) == (0, "green", [])
        assert document["pid"] == rig.proxy.process.pid
        assert document["listeners"] == [f"127.0.0.1:{rig.proxy.port}"]
        assert document["journal"]["ok"] is True
        assert document["journal"]["entries"] >= 2
        assert document["log"]["path"] == str(rig.proxy.log_file)
        assert document["descriptors"]["now"] > 5
        assert 10_000_000 < document["resident_bytes"] < 1_000_000_000


async def test_status_is_red_where_the_log_cannot_be_written(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    async with before_a_server(proxies, tmp_path, trust, canary, "--log", "/dev/full") as rig:
        outcome = await rig.ask("status")
        for _ in range(100):
            if outcome.code != 0:
                break
            outcome = await rig.ask("status")
        assert outcome.code == 1
        assert outcome.document["problems"] == ["/dev/full cannot be written: No space left on device"]
        rig.proxy.kill()


async def test_it_answers_when_the_sessions_have_all_descriptors(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    async with before_a_server(proxies, tmp_path, trust, canary) as rig:
        client = ControlClient(rig.proxy.state)
        pid = rig.proxy.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")), limits[1]))
        for _ in range(3):
            assert await trio.to_thread.run_sync(client.get, "/v1/log-level") == {"level": "info", "configured": "info"}
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        assert (await rig.ask("status")).code == 0
    assert rig.proxy.stderr().count("\n") == 1  # where it listens, and no more


async def test_sighup_and_sigterm_still_do_what_they_did(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    async with before_a_server(proxies, tmp_path, trust, canary) as rig:
        await rig.ask("log-level", "debug")
        rig.proxy.signal(signal.SIGHUP)
        rig.proxy.wait_record("config-changed", where=lambda record: not at(record, "xproxy.control"))
        assert (await rig.ask("log-level")).document["level"] == "info"


async def test_a_second_proxy_does_not_take_the_socket_of_the_first(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    async with before_a_server(proxies, tmp_path, trust, canary) as rig:
        second = await rig.ask("run", "--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:9")
        assert second.code == 3
        assert "is being written by process" in second.err
        assert (await rig.ask("status")).document["pid"] == rig.proxy.process.pid


async def test_after_a_crash_the_next_one_takes_its_place(tmp_path: Path, trust: Trust, canary: Canary) -> None:
    with ExitStack() as first:
        async with before_a_server(first, tmp_path, trust, canary) as rig:
            rig.proxy.kill()
            dead = await rig.ask("status")
            assert dead.code == 3
            assert "has ended without a goodbye" in dead.err
    (tmp_path / "proxy" / "log.jsonl").rename(tmp_path / "log.before")
    (tmp_path / "proxy" / "ready").unlink()
    with ExitStack() as second:
        async with before_a_server(second, tmp_path, trust, canary) as rig:
            assert (await rig.ask("status")).code == 0
            rig.proxy.kill()  # what the first crash left in the journal is told of there, and is no loss


async def test_a_thousand_sessions_are_listed_while_the_relay_goes_on(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    async with before_a_server(proxies, tmp_path, trust, canary) as rig, rig.client() as client:
        await client.enter(USER, PASSWORDS[USER], "desk")
        held = [await trio.open_tcp_stream("127.0.0.1", rig.proxy.port) for _ in range(999)]
        try:
            control = ControlClient(rig.proxy.state)
            await all_are_in(control, 1_000)
            took: list[float] = []
            done = trio.Event()

            async def list_them() -> None:
                begun = trio.current_time()
                listed = await trio.to_thread.run_sync(lambda: control.get("/v1/sessions", {"sort": "bytes"}))
                took.append(trio.current_time() - begun)
                assert (listed["total"], len(listed["sessions"])) == (1_000, 1_000)
                assert listed["sessions"][0]["jid"]
                done.set()

            pings: list[float] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(list_them)
                while not done.is_set():
                    begun = trio.current_time()
                    await client.ping()
                    pings.append(trio.current_time() - begun)
            print(f"1000 sessions listed in {took[0] * 1e3:.0f} ms; meanwhile {len(pings)} round trips, "
                  f"the longest {max(pings) * 1e3:.1f} ms")  # fmt: skip
            shown = await rig.ask("sessions", "--limit", "5")
            assert len(shown.document["sessions"]) == 5
        finally:
            for stream in held:
                await stream.aclose()
        await client.close()


async def all_are_in(control: ControlClient, count: int) -> None:
    with trio.fail_after(20):
        while True:
            status = await trio.to_thread.run_sync(lambda: control.get("/v1/status"))
            if status["sessions"]["now"] == count:
                return
            await trio.sleep(0.01)


README = Path(__file__).parents[2] / "README.md"


async def test_the_commands_of_readme_do_what_it_says(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    section = README.read_text().partition("\n## A running proxy\n")[2].partition("\n## ")[0]
    commands = [line.partition("#")[0].split() for line in section.partition("```sh\n")[2].splitlines()]
    commands = commands[: commands.index(["```"])]
    assert [command[1] for command in commands] == ["status", "sessions", "log-level", "reload", "drain"]
    async with before_a_server(proxies, tmp_path, trust, canary) as rig:
        for program, *arguments in commands[:-1]:
            assert program == "xproxy"
            assert (await rig.ask(*arguments)).code == 0
        shown = await rig.ask("log", "show", "--action", "config-changed")
        assert len([line for line in shown.out.splitlines() if '"control"' in line]) == 2
        if shutil.which("curl") is not None:
            (curl,) = re.findall(r"`(curl [^`]*)`", section)
            command = curl.replace("STATE", str(rig.proxy.state)).split()
            answer = await trio.run_process([*command, "--silent"], capture_stdout=True)
            assert json.loads(answer.stdout)["health"] == "green"
        assert (await rig.ask(*commands[-1][1:])).code == 0
        assert rig.proxy.process.wait(5) == 0


# What a person sees -------------------------------------------------------------------------------------------------


STYLE = re.compile(r"\x1b\[[\d;]*m")


def on_a_terminal(*arguments: str, seconds: float | None = None, columns: int = 220) -> str:
    """Run a command on a pseudo terminal; with ``seconds`` until it is interrupted."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": "30", "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "xproxy", *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    if seconds is not None:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
    output = bytearray()
    while True:
        try:
            chunk = os.read(master, 65_536)
        except OSError:  # EIO: the other end is closed
            break
        if not chunk:
            break
        output += chunk
    process.wait(30)
    os.close(master)
    return STYLE.sub("", output.decode(errors="replace"))


async def test_a_person_gets_tables_and_sentences(
    tmp_path: Path, trust: Trust, canary: Canary, proxies: ExitStack
) -> None:
    async with before_a_server(proxies, tmp_path, trust, canary) as rig, rig.client() as client:
        jid = await client.enter(USER, PASSWORDS[USER], "desk")
        rig.proxy.wait_record("session-established")
        state = ("--state", str(rig.proxy.state))

        async def see(*arguments: str, **options: Any) -> str:
            return await trio.to_thread.run_sync(lambda: on_a_terminal(*arguments, *state, **options))

        table = await see("sessions")
        assert all(word in table for word in (jid, "bound", "established", "1.3/1.3", "who says", "1 session"))
        narrow = await see("sessions", columns=80)
        assert "listener" not in narrow
        assert "established" in narrow
        watched = await see("sessions", "--watch", "--interval", "0.2", seconds=4.0)
        assert watched.count(jid) >= 2
        assert "\x1b[?1049h" in watched  # the alternate screen
        assert "\x1b[?1049l" in watched  # and back
        assert "\x1b[2J" not in watched.partition("\x1b[?1049h")[2]  # never cleared: it would flicker
        status = await see("status")
        assert "green  xproxy" in status
        assert "level info" in status
        assert "info -> debug; info comes back with the next reload or restart" in await see("log-level", "debug")
        assert "read again: log-file, certificates, log-level" in await see("reload")
        drained = await see("drain", "--seconds", "0.2", "--wait")
        assert "draining: 1 session has 0 s" in drained
        assert "the proxy has ended" in drained


def test_piped_watching_is_a_line_of_json_each(tmp_path: Path, trust: Trust, canary: Canary) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        upstream = f"127.0.0.1:{server.getsockname()[1]}"
        with running_xproxy(tmp_path / "proxy", canary=canary, upstream=upstream) as proxy:
            command = ["sessions", "--watch", "--interval", "0.1", "--state", str(proxy.state)]
            with subprocess.Popen([sys.executable, "-m", "xproxy", *command], stdout=subprocess.PIPE) as watching:
                assert watching.stdout is not None
                lines = [json.loads(watching.stdout.readline()) for _ in range(3)]
                watching.send_signal(signal.SIGINT)
                assert watching.wait(10) == 130
            assert [line["total"] for line in lines] == [0, 0, 0]


def test_status_is_red_while_the_journal_cannot_be_written_and_green_again(tmp_path: Path) -> None:
    """The limit of a file's size takes the disk's part: every write beyond it fails."""
    state = tmp_path / "state"
    command = ["run", "--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:9", "--state", state, "--log-format", "json"]
    with subprocess.Popen(
        [sys.executable, "-m", "xproxy", *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "listening on" in process.stderr.readline()
        limits = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, limits[1]))
        client = ControlClient(state)
        client.put("/v1/log-level", {"level": "info"})  # makes a record
        assert wait_for_health(client, "red") == ["records do not reach the journal: file-too-big"]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
        assert wait_for_health(client, "green") == []
        process.terminate()
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
    gap = only([json.loads(line) for line in out.splitlines()], "journal-gap")
    missing = gap["xproxy"]["journal"]["missing"]  # the record of the start may not have been durable yet
    assert set(missing) - {"proxy-started success 1"} == {"config-changed success 1"}


def wait_for_health(client: ControlClient, wanted: str) -> list[str]:
    deadline = time.monotonic() + 40  # the journal tries again every 30 s at the latest
    while True:
        status = client.get("/v1/status")
        if status["health"] == wanted:
            problems: list[str] = status["problems"]
            return problems
        assert time.monotonic() < deadline, status
        time.sleep(0.02)
