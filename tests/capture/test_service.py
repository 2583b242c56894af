"""Capturing from its begin to its end, and what is said when not all of it can be written."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.taping import BEGIN_NS, CLIENT, OBSERVER, SERVER, TRACE_ID
from xproxy.capture.service import CaptureService, CoreSettings
from xproxy.capture.trace import Closed, Lost, read_trace
from xproxy.config.capture import CaptureSettings
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import Endpoint, Event
from xproxy.events.capture import CaptureStopped
from xproxy.events.connection import ConnectionAccepted
from xproxy.proxy.seams import SessionCore, SessionNotes
from xproxy.record.recorder import SessionRecorder
from xproxy.xmpp.actions import LegMode
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.names import NameTally
from xproxy.xmpp.session import Session


class Proxy:
    """A proxy as far as its captures see it."""

    def __init__(self, **settings: object) -> None:
        self.events: list[Event] = []
        self.settings = settings
        self.service = CaptureService(
            settings=CaptureSettings(),
            observer=OBSERVER,
            correlation_key=b"k" * 32,
            core_settings=lambda: CoreSettings(limits=StreamLimits(), policy=StreamPolicy(), memory=Memory()),
            note=self.events.append,
            wall_ns=lambda: BEGIN_NS,
        )

    def start(self, directory: Path) -> None:
        self.service.start(CaptureSettings(directory=directory, **self.settings))  # type: ignore[arg-type]

    def connect(self, trace_id: str = TRACE_ID, *, client: Endpoint = CLIENT) -> None:
        """A client connects, and says nothing yet."""
        self.connected(trace_id, client=client)

    def connected(self, trace_id: str, *, client: Endpoint = CLIENT) -> tuple[SessionCore, SessionNotes]:
        """Return what the relay has of it."""
        recorder, new_session = self.service.session(
            trace_id, SessionRecorder(trace_id=trace_id, observer=OBSERVER), _session
        )
        recorder.record(ConnectionAccepted(client=client, listener=SERVER), BEGIN_NS)
        core = new_session(LegMode.CLEAR, BEGIN_NS, NameTally(1_000))
        core.tick(BEGIN_NS)
        return core, recorder

    @property
    def stopped(self) -> list[CaptureStopped]:
        return [event for event in self.events if isinstance(event, CaptureStopped)]


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait for another thread."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def _session(mode: LegMode, at_ns: int, names: NameTally) -> SessionCore:
    return Session(
        limits=StreamLimits(), policy=StreamPolicy(), mode=mode, at_ns=at_ns, memory=Memory(), strangers=names
    )


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return a function: the disk of that directory is full from now on."""
    write, open_, full, whose = os.write, os.open, set[Path](), dict[int, Path]()

    def opened(path: Path, *arguments: int) -> int:
        descriptor = open_(path, *arguments)
        whose[descriptor] = Path(path).parent
        return descriptor

    def written(descriptor: int, data: bytes) -> int:
        if whose.get(descriptor) in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr("xproxy.capture.store.os.open", opened)
    monkeypatch.setattr("xproxy.capture.store.os.write", written)
    return full.add


async def test_a_capture_is_written_when_the_proxy_ends(tmp_path: Path) -> None:
    proxy = Proxy()
    proxy.start(tmp_path)
    proxy.connect()
    proxy.service.close()
    (file,) = files(tmp_path)
    assert len(list(read_trace(file))) > 2
    assert [(event.reason, event.problem) for event in proxy.stopped] == [("shutdown", None)]


async def test_what_a_full_disk_does_not_take_at_the_end_is_said_in_the_record(
    tmp_path: Path, full_disk: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    proxy = Proxy()
    proxy.start(tmp_path)
    full_disk(tmp_path)
    proxy.connect()
    proxy.service.close()
    (stopped,) = proxy.stopped
    assert stopped.reason == "disk"
    assert stopped.problem is not None
    assert "No space left on device" in stopped.problem
    assert "capturing ended" in caplog.text


async def test_a_full_disk_of_a_capture_that_was_stopped_does_not_end_the_next(
    tmp_path: Path, full_disk: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    proxy = Proxy()
    proxy.start(tmp_path / "one")
    full_disk(tmp_path / "one")
    proxy.connect()
    first = proxy.service._run
    assert first is not None
    proxy.service.stop()
    proxy.start(tmp_path / "two")
    await trio.to_thread.run_sync(first.store.close)
    await trio.testing.wait_all_tasks_blocked()
    assert proxy.service.status().directory == tmp_path / "two"
    assert "the end of a capture is not written: cannot write the capture" in caplog.text
    proxy.connect("f" * 32)
    proxy.service.close()
    assert [event.reason for event in proxy.stopped] == ["asked", "shutdown"]
    assert len(files(tmp_path / "two")) == 1


async def test_a_file_never_begins_with_its_end(tmp_path: Path) -> None:
    proxy = Proxy(session_bytes_max=10)
    proxy.start(tmp_path)
    proxy.connect()
    proxy.service.close()
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("net", "ips"),
    [
        ("::ffff:192.0.2.0/120", ["192.0.2.9"]),
        ("::ffff:192.0.2.9", ["192.0.2.9"]),
        ("192.0.2.0/24", ["192.0.2.9"]),
        ("2001:db8::/32", ["2001:db8::7"]),
        ("::/0", ["2001:db8::7"]),
        ("0.0.0.0/0", ["192.0.2.9", "198.51.100.9"]),
    ],
)
async def test_a_network_may_be_written_either_way(net: str, ips: list[str], tmp_path: Path) -> None:
    proxy = Proxy(net=net)
    proxy.start(tmp_path)
    clients = ["192.0.2.9", "198.51.100.9", "2001:db8::7"]
    for number, ip in enumerate(clients):
        proxy.connect(f"{number:032x}", client=Endpoint(ip, 50_000))
    proxy.service.close()
    assert {clients[int(file.name.partition("-")[2].partition(".")[0], 16)] for file in files(tmp_path)} == set(ips)


async def test_a_disk_that_fails_is_no_limit_that_was_reached(
    tmp_path: Path, full_disk: Callable[[Path], None]
) -> None:
    proxy = Proxy()
    proxy.start(tmp_path)
    proxy.connect("a" * 32)
    run = proxy.service._run
    assert run is not None
    await trio.to_thread.run_sync(wait_until, lambda: files(tmp_path) and not run.store._batch)
    full_disk(tmp_path)
    proxy.connect("b" * 32)
    wait_until(lambda: run.store.problem)  # in its thread; ours has not heard of it
    proxy.connect("c" * 32)
    await trio.to_thread.run_sync(run.store._thread.join)
    await trio.testing.wait_all_tasks_blocked()
    assert [event.action for event in proxy.events] == ["capture-started", "capture-stopped"]
    (stopped,) = proxy.stopped
    assert (stopped.reason, stopped.sessions, stopped.sessions_lost) == ("disk", 2, 2)
    ends = [list(read_trace(file))[-1] for file in files(tmp_path) if file.stat().st_size]
    assert [type(end) for end in ends] == [Lost]


async def test_at_the_limit_of_all_every_capture_says_that_it_ends(tmp_path: Path) -> None:
    for room in range(8_000, 8_600, 40):
        directory = tmp_path / f"{room}"
        proxy = Proxy(total_bytes_max=room)
        proxy.start(directory)
        for number in range(20):
            proxy.connect(f"{number:032x}")
        proxy.service.close()
        (stopped,) = proxy.stopped
        assert stopped.reason == "size-limit"
        assert sum(file.stat().st_size for file in files(directory)) <= room
        for file in files(directory):
            lost = list(read_trace(file))[-1]
            assert isinstance(lost, Lost)
            assert lost.why == "size-limit"


async def test_an_event_in_all_sessions_at_once_loses_none_of_their_rings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, write = threading.Event(), os.write

    def slowly(descriptor: int, data: bytes) -> int:
        may_write.wait(10)
        return write(descriptor, data)

    monkeypatch.setattr("xproxy.capture.store.os.write", slowly)
    proxy = Proxy(actions="connection-closed", queue_bytes_max=10_000, memory_bytes_max=1_000_000)
    proxy.start(tmp_path)
    for number in range(100):
        core, recorder = proxy.connected(f"{number:032x}")
        recorder.record(core.closed(BEGIN_NS), BEGIN_NS)
    assert [event.action for event in proxy.events] == ["capture-started"]
    may_write.set()
    proxy.service.close()
    found = [list(read_trace(file)) for file in files(tmp_path)]
    assert len(found) == 100
    assert {type(lines[-1]) for lines in found} == {Closed}
    assert sum(file.stat().st_size for file in files(tmp_path)) > 100_000
