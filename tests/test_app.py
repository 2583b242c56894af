"""From settings to a running proxy and back, in this process."""

import errno
import json
import os
import resource
import signal
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.support.peer import DOMAIN, PASSWORDS, make_trust
from xproxy import app
from xproxy.config.address import HostPort
from xproxy.config.control import ControlSettings
from xproxy.config.listen import ListenAddress, ListenSettings
from xproxy.config.log import LogSettings
from xproxy.config.policy import PolicySettings
from xproxy.config.sessions import SessionLimits
from xproxy.config.settings import Settings
from xproxy.config.state import StateSettings
from xproxy.config.upstream import UpstreamFrom, UpstreamSettings
from xproxy.control.address import control_socket, is_socket
from xproxy.control.client import ControlClient
from xproxy.errors import AddressProblem, EnvironmentProblem, FileProblem
from xproxy.events.connection import ServerTls, UpstreamFailure, Via
from xproxy.journal.format import Entry, EntryType, entries
from xproxy.journal.lock import JournalLocked
from xproxy.journal.query import Query, read_last
from xproxy.journal.reader import StreamReader
from xproxy.journal.verify import Verdict, verify_journal
from xproxy.journal.writer import JournalDown
from xproxy.log.filters import LevelFilter
from xproxy.log.outputs import open_log
from xproxy.peer.server import Server
from xproxy.proxy.route import Asked, Candidate, Candidates, FixedRoute, NoCandidate
from xproxy.record.recorder import Observer, ProxyRecorder
from xproxy.tls.service import TlsService

OBSERVER = Observer(version="0", hostname="gw1", boot_id="5f" * 16)
NOWHERE = HostPort("127.0.0.1", 9)  # never connected to in these tests


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        listen=ListenSettings(addresses=(ListenAddress("127.0.0.1", 0),)),
        upstream=UpstreamSettings(address=NOWHERE),
        state=StateSettings(directory=tmp_path / "state"),
        log=LogSettings(path=tmp_path / "log.jsonl"),
    )


@pytest.fixture(autouse=True)
def _descriptor_limit() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def records_of(settings: Settings) -> list[dict[str, Any]]:
    assert settings.log.path is not None
    return [json.loads(line) for line in settings.log.path.read_bytes().splitlines()]


def actions_of(settings: Settings) -> list[str]:
    return [record["event"]["action"] for record in records_of(settings)]


async def test_a_run_starts_and_stops_in_form(settings: Settings) -> None:
    async with trio.open_nursery() as nursery:
        running: app.Running = await nursery.start(app.run, settings)
        (endpoint,) = running.listeners
        assert endpoint.ip == "127.0.0.1"
        assert endpoint.port > 0
        running.stop("finished")
    opened, started, stopped = records_of(settings)
    assert opened["event"]["action"] == "journal-opened"
    assert [record["event"]["sequence"] for record in (opened, started, stopped)] == [1, 2, 3]
    assert started["event"]["action"] == "proxy-started"
    assert started["xproxy"]["listeners"] == [str(endpoint)]
    assert started["xproxy"]["descriptors_max"] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert stopped["event"]["action"] == "proxy-stopped"
    assert stopped["event"]["reason"] == "finished"
    assert stat.S_IMODE(settings.state.directory.stat().st_mode) == 0o700
    assert (settings.state.directory / "correlation.key").stat().st_size == 32
    with socket.socket() as sock:
        sock.bind((endpoint.ip, endpoint.port))  # it is free again


async def test_a_process_that_keeps_too_many_names_ends_with_an_error(settings: Settings) -> None:
    """A service manager starts it again only if it did not end well."""
    settings = attrs.evolve(settings, sessions=SessionLimits(names_total_max=0))
    with pytest.RaisesGroup(pytest.RaisesExc(EnvironmentProblem, match="more than 0 XML names")), trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            running: app.Running = await nursery.start(app.run, settings)
            async with await trio.open_tcp_stream("127.0.0.1", running.listeners[0].port) as stream:
                assert await stream.receive_some() == b""
    assert actions_of(settings)[-1] == "proxy-stopped"
    assert records_of(settings)[-1]["event"]["reason"] == "names-total-max"


async def test_direct_tls_without_a_name_is_for_the_configured_domain(settings: Settings, tmp_path: Path) -> None:
    """The whole way: the option reaches the relay, which names the domain to the server and shows a leaf for it."""
    trust = make_trust(tmp_path)
    server = Server(domain=DOMAIN, passwords=PASSWORDS, tls=trust.server)
    async with trio.open_nursery() as nursery:
        address = await nursery.start(server.serve)
        upstream = UpstreamSettings(address=address, domain=DOMAIN, ca_file=trust.mint.ca_file)
        settings = attrs.evolve(settings, upstream=upstream)
        running: app.Running = await nursery.start(app.run, settings)
        nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        nameless.check_hostname = False
        assert running.ca_file is not None
        nameless.load_verify_locations(running.ca_file)
        stream = await trio.open_tcp_stream("127.0.0.1", running.listeners[0].port)
        secure = trio.SSLStream(stream, nameless, server_hostname=None, https_compatible=True)
        await secure.do_handshake()
        await secure.aclose()
        running.stop("finished")
        running.stop("finished")
        nursery.cancel_scope.cancel()
    secured = [record for record in records_of(settings) if record["event"]["action"] == "tls-established"]
    assert [record["tls"].get("client", {}).get("server_name") for record in secured] == [DOMAIN, None]


@pytest.mark.parametrize(("mode", "address"), [("pseudonym", "127.0.0.0"), ("omit", None)])
async def test_records_cover_identities_as_configured(settings: Settings, mode: Any, address: str | None) -> None:
    settings = attrs.evolve(settings, log=LogSettings(path=settings.log.path, identities=mode))
    async with trio.open_nursery() as nursery:
        running: app.Running = await nursery.start(app.run, settings)
        (endpoint,) = running.listeners
        async with await trio.open_tcp_stream(endpoint.ip, endpoint.port) as stream:
            await stream.send_all(b"<")
            with suppress(trio.BrokenResourceError):
                await stream.receive_some(1)  # there is no server: closed without a byte
        running.stop("finished")
    records = records_of(settings)
    accepted = next(record for record in records if record["event"]["action"] == "connection-accepted")
    assert accepted["source"].get("ip") == address
    assert {record["xproxy"]["identities"]["mode"] for record in records} == {mode}
    assert (settings.state.directory / "identities.key").exists() == (mode == "pseudonym")
    if mode == "omit":
        assert settings.log.path is not None
        assert b"127.0.0.1" not in settings.log.path.read_bytes()


async def test_cancelling_a_run_closes_everything(settings: Settings) -> None:
    before = set(os.listdir("/proc/self/fd"))
    async with trio.open_nursery() as nursery:
        await nursery.start(app.run, settings)
        nursery.cancel_scope.cancel()
    assert set(os.listdir("/proc/self/fd")) == before
    assert actions_of(settings) == ["journal-opened", "proxy-started"]  # no stop in form


async def test_an_address_that_is_taken_is_named_and_nothing_stays_open(settings: Settings) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = ListenAddress(*taken.getsockname())
        settings = attrs.evolve(settings, listen=ListenSettings(addresses=(ListenAddress("127.0.0.1", 0), address)))
        with pytest.raises(AddressProblem, match=f"cannot listen on {address}.*in use.*stop it, or choose another"):
            await app.run(settings)
    assert set(os.listdir("/proc/self/fd")) == before
    assert actions_of(settings) == ["journal-opened"]


async def test_a_log_that_cannot_be_opened_is_named(settings: Settings, tmp_path: Path) -> None:
    settings = attrs.evolve(settings, log=LogSettings(path=tmp_path / "none" / "log.jsonl"))
    with pytest.raises(FileProblem, match=r"cannot open the log file .*none/log\.jsonl: No such file"):
        await app.run(settings)


async def test_a_server_that_is_not_known_is_named() -> None:
    with pytest.raises(AddressProblem, match=r"the server a\.\.b:5222 cannot be looked up: a\.\.b is not known"):
        await app.look_up(HostPort("a..b", 5222))


@pytest.mark.parametrize(("number", "words"), [(socket.EAI_NONAME, "is not known"), (socket.EAI_AGAIN, "no answer")])
async def test_a_name_service_that_is_away_is_told_from_a_wrong_name(
    monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    async def fail(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(number, "as the resolver says it")

    monkeypatch.setattr("trio.socket.getaddrinfo", fail)
    with pytest.raises(AddressProblem, match=words):
        await app.look_up(HostPort("xmpp.example.org", 5222))


async def test_a_slow_name_service_only_delays(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def never(*args: object, **kwargs: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("trio.socket.getaddrinfo", never)
    await app.look_up(HostPort("xmpp.example.org", 5222))
    assert "has not answered for xmpp.example.org" in caplog.text


async def reload(settings: Settings, reread: app.Reread | None) -> None:
    """Start, send what SIGHUP sends, stop."""
    with open_log(settings.log, LevelFilter(), NOWHERE, lambda: None) as channel:
        running = app._App(
            settings=settings,
            reread=reread,
            correlation_key=b"k" * 32,
            tls=TlsService(settings.tls, settings.upstream, settings.state.directory),
            route=FixedRoute(server=NOWHERE),
            channel=channel,
            levels=LevelFilter(),
            observer=OBSERVER,
            recorder=ProxyRecorder(observer=OBSERVER),
        )
        await running.reload()


async def test_a_reload_is_recorded(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    settings.state.directory.mkdir()
    await reload(settings, lambda: attrs.evolve(settings, upstream=UpstreamSettings(address=NOWHERE, domain="new")))
    (record,) = records_of(settings)
    assert record["event"]["action"] == "config-changed"
    assert record["xproxy"]["config"]["changed"] == ["log-file", "certificates", "log-level"]
    assert "only read at the start: upstream.domain" in caplog.text


async def test_what_is_bad_at_a_reload_is_recorded_and_the_rest_renewed(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def reread() -> Settings:
        raise FileProblem("cannot read the configuration file x.toml", path=tmp_path)

    settings.state.directory.mkdir()
    await reload(settings, reread)
    bad, good = records_of(settings)
    assert bad["xproxy"]["config"]["changed"] == ["log-level"]
    assert "x.toml" in bad["error"]["message"]
    assert good["xproxy"]["config"]["changed"] == ["log-file", "certificates"]
    assert "log-level kept as before: cannot read the configuration file x.toml" in caplog.text


async def written(path: Path, action: bytes) -> None:
    """Wait for a record of ``action`` in ``path``. The writer is a thread and says nothing."""
    with trio.fail_after(5):
        while not path.exists() or action not in path.read_bytes():  # noqa: ASYNC110, ASYNC240
            await trio.sleep(0.01)


async def test_the_log_file_is_opened_again(settings: Settings, tmp_path: Path) -> None:
    assert settings.log.path is not None
    async with trio.open_nursery() as nursery:
        running: app.Running = await nursery.start(partial(app.run, settings, signals=True))
        await written(settings.log.path, b"proxy-started")
        settings.log.path.rename(tmp_path / "log.1")
        os.kill(os.getpid(), signal.SIGHUP)
        await written(settings.log.path, b"config-changed")
        running.stop("finished")
    assert actions_of(settings) == ["config-changed", "proxy-stopped"]
    assert b"proxy-started" in (tmp_path / "log.1").read_bytes()


async def test_a_log_without_reader_ends_the_run(settings: Settings) -> None:
    """Nothing passes unrecorded: without an output there is no proxy."""
    assert settings.log.path is not None
    os.mkfifo(settings.log.path)
    reader = os.open(settings.log.path, os.O_RDONLY | os.O_NONBLOCK)
    gone = pytest.RaisesExc(EnvironmentProblem, match="nobody reads it any more|could not be written")
    with pytest.RaisesGroup(gone):
        async with trio.open_nursery() as nursery:
            running: app.Running = await nursery.start(partial(app.run, settings))
            os.close(reader)
            running.stop("finished")


def test_the_descriptor_limit_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    assert app.raise_descriptor_limit(sessions_max=1) == hard
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    assert caplog.text == ""
    app.raise_descriptor_limit(sessions_max=hard)
    assert "open files allow about" in caplog.text


class Places:
    """A route that knows of these domains; the others are as they are said to be."""

    needs_domain = True

    def __init__(self, **reasons: UpstreamFailure | None) -> None:
        self.reasons = {name.replace("_", "."): reason for name, reason in reasons.items()}

    def server_tls(self, *, direct: bool) -> ServerTls:
        raise AssertionError

    async def candidates(self, asked: Asked) -> Candidates:
        await trio.lowlevel.checkpoint()
        assert asked.domain is not None
        if (reason := self.reasons[asked.domain]) is not None:
            yield NoCandidate(host=asked.domain, port=0, reason=reason)
        else:
            yield Candidate(host=asked.domain, address="127.0.0.1", port=5222, tls=ServerTls.STARTTLS, via=Via.FALLBACK)


async def test_a_domain_without_a_server_is_said_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    one = UpstreamSettings(address=UpstreamFrom.SRV, domain="one.example")
    two = attrs.evolve(one, domains=("two.example", "*"))
    await app.look_up_domains(Places(one_example=None), one)
    await app.look_up_domains(Places(one_example=UpstreamFailure.LOOKUP_TIMEOUT), one)
    await app.look_up_domains(Places(one_example=UpstreamFailure.UNKNOWN_HOST, two_example=None), two)
    assert [message.split(";")[0] for message in caplog.messages] == [
        "the DNS names no server for one.example now (lookup-timeout)",
        "the DNS names no server for one.example now (unknown-host)",
    ]
    with pytest.raises(AddressProblem, match=r"names no server for one\.example"):
        await app.look_up_domains(Places(one_example=UpstreamFailure.NOT_OFFERED), one)


async def test_the_log_is_a_mirror_of_the_journal(settings: Settings) -> None:
    async with trio.open_nursery() as nursery:
        running: app.Running = await nursery.start(app.run, settings)
        running.stop("finished")
    journal = settings.state.directory / "journal"
    assert verify_journal(journal).verdict is Verdict.INTACT
    (segment,) = (journal / "sec").glob("*.xj")
    stored = [Entry.from_bytes(data) for _, data in entries(segment.read_bytes())]
    records = [entry.payload for entry in stored if entry.type in (EntryType.EVENT, EntryType.CONTROL)]
    assert settings.log.path is not None
    assert settings.log.path.read_bytes().splitlines() == records


async def test_a_second_run_with_the_same_state_is_refused(settings: Settings, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        running: app.Running = await nursery.start(app.run, settings)
        with pytest.raises(JournalLocked, match=f"being written by process {os.getpid()} on "):
            await app.run(attrs.evolve(settings, log=LogSettings(path=tmp_path / "other.jsonl")))
        running.stop("finished")


def break_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("xproxy.system.sync_data", fail)


async def test_when_the_journal_fails_the_proxy_goes_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        running: app.Running = await nursery.start(app.run, settings)
        assert settings.log.path is not None
        await written(settings.log.path, b"proxy-started")
        break_disk(monkeypatch)
        running.stop("finished")
    *_, stopped = records_of(settings)
    assert stopped["event"]["action"] == "proxy-stopped"
    assert "sequence" not in stopped["event"]
    assert "traffic goes on, records are counted, not kept" in caplog.text
    assert "1 records are not in the journal" in caplog.text


async def test_when_the_journal_fails_the_proxy_stops_if_told_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = attrs.evolve(settings, policy=PolicySettings(on_journal_failure="stop"))
    down = pytest.RaisesExc(JournalDown, match="cannot be written: Input/output error")
    with pytest.RaisesGroup(down):
        async with trio.open_nursery() as nursery:
            await nursery.start(app.run, settings)
            assert settings.log.path is not None
            await written(settings.log.path, b"proxy-started")
            break_disk(monkeypatch)
            nursery.start_soon(_cause_a_record, settings)


async def _cause_a_record(settings: Settings) -> None:
    """Connect: the proxy has something to record."""
    started = next(record for record in records_of(settings) if record["event"]["action"] == "proxy-started")
    host, _, port = started["xproxy"]["listeners"][0].rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    await stream.aclose()


async def test_the_control_socket_closes_before_the_journal_does(settings: Settings) -> None:
    """Who has asked half a question is waited for a moment, what was asked is in the log, and the log is sealed."""
    path = control_socket(settings.state.directory)
    async with trio.open_nursery() as nursery:
        running: app.Running = await nursery.start(app.run, settings)
        sock = trio.socket.socket(socket.AF_UNIX)
        await sock.connect(str(path))
        half = trio.SocketStream(sock)
        await half.send_all(b"GET /v1/status HTTP/1.1\r\n")
        client = ControlClient(settings.state.directory)
        await trio.to_thread.run_sync(client.put, "/v1/log-level", {"level": "warning"})
        with trio.fail_after(10):
            running.stop("finished")
            assert await half.receive_some() == b""
        await half.aclose()
    assert not is_socket(path)
    report = verify_journal(settings.state.directory / "journal")
    assert (report.verdict, report.is_live) == (Verdict.INTACT, False)
    with StreamReader(settings.state.directory / "journal" / "sec") as reader:
        stored = [entry.document for entry in read_last(reader, "sec", Query(), 100)] if reader.refresh() else []
    assert [document["event"]["action"] for document in stored][-2:] == ["config-changed", "proxy-stopped"]
    assert stored[-2]["xproxy"]["control"] == {"uid": os.geteuid(), "pid": os.getpid()}


async def test_without_a_control_socket_it_runs_as_well(settings: Settings) -> None:
    settings = attrs.evolve(settings, control=ControlSettings(enabled=False))
    async with trio.open_nursery() as nursery:
        running: app.Running = await nursery.start(app.run, settings)
        assert not is_socket(control_socket(settings.state.directory))
        running.stop("finished")


async def test_what_holds_the_place_of_the_control_socket_keeps_it_from_starting(settings: Settings) -> None:
    settings.state.directory.mkdir(mode=0o700)
    control_socket(settings.state.directory).write_text("")
    with pytest.raises(FileProblem, match="is there, and is no socket: remove it"):
        await app.run(settings)
    control_socket(settings.state.directory).unlink()
    async with trio.open_nursery() as nursery:  # what the steps before had opened is closed: the lock is free
        running: app.Running = await nursery.start(app.run, settings)
        running.stop("finished")


def test_whose_servers_are_the_operators_business() -> None:
    assert app.listed_domains(UpstreamSettings(domain="Own.example", domains=("*",))) == {"own.example", "*"}
    assert app.listed_domains(UpstreamSettings(domain="own.example", domains=("other.example",))) is None
