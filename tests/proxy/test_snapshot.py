"""How a session stands, asked for while it runs."""

import socket
import time
from collections import deque
from collections.abc import Iterator

import attrs
import pytest

from tests.support.proxying import EventRecorder, StubCore
from xproxy import system
from xproxy.events import Side
from xproxy.proxy.flow import Flow, Leg
from xproxy.proxy.snapshot import SessionSnapshot, snapshot_of
from xproxy.proxy.sockets import seconds_since_data
from xproxy.xmpp.actions import LegMode, Progress


class BrokenCore(StubCore):
    """Cannot say how it stands."""

    def progress(self) -> Progress:
        raise RuntimeError("quotes what the peer sent: s3cret")


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            yield client, accepted


def snapshot(
    core: StubCore | None, flow: Flow | None, sock: socket.socket, *, passed_on: bool = False
) -> SessionSnapshot:
    return snapshot_of(
        known={}, way="plain", age_ns=2_500_000_000, sock=sock, core=core, flow=flow, passed_on=passed_on, at_ns=1
    )  # fmt: skip


def test_the_steps_before_there_are_two_legs(connection: tuple[socket.socket, socket.socket]) -> None:
    _, sock = connection
    first = snapshot(None, None, sock)
    assert (first.phase, first.mechanism, first.server, first.age_seconds) == ("first-byte", None, None, 2.5)
    assert first.from_client.bytes == 0
    assert snapshot(StubCore(LegMode.CLEAR, 0), None, sock).phase == "connecting"
    assert snapshot(StubCore(LegMode.CLEAR, 0), None, sock, passed_on=True).phase == "passthrough"


def test_what_waits_and_what_was_carried(connection: tuple[socket.socket, socket.socket]) -> None:
    client, server = connection
    core = StubCore(LegMode.CLEAR, 0)
    core.receive(Side.CLIENT, b"x" * 7, 0)
    flow = Flow(core=core, recorder=EventRecorder(), client=Leg(Side.CLIENT, client), server=Leg(Side.SERVER, server))
    flow.server.backlog = deque((b"abc", memoryview(b"de")))
    taken = snapshot(core, flow, client)
    assert (taken.phase, taken.from_client.bytes, taken.from_server.bytes) == ("stub", 7, 0)
    assert taken.server is not None
    assert (taken.client.waiting_bytes, taken.server.waiting_bytes) == (0, 5)
    assert (taken.client.tls_version, taken.server.tls_version) == (None, None)


def test_a_bug_in_one_session_hides_no_other(
    connection: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    client, server = connection
    core = BrokenCore(LegMode.CLEAR, 0)
    flow = Flow(core=core, recorder=EventRecorder(), client=Leg(Side.CLIENT, client), server=Leg(Side.SERVER, server))
    assert snapshot(core, flow, client).from_client.bytes == 0
    assert "a session cannot say how it stands" in caplog.text
    assert "s3cret" not in caplog.text


def test_where_the_kernel_does_not_count_the_last_element_does(
    connection: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = connection
    core = StubCore(LegMode.CLEAR, 0)
    flow = Flow(core=core, recorder=EventRecorder(), client=Leg(Side.CLIENT, client), server=Leg(Side.SERVER, server))
    monkeypatch.setattr("xproxy.proxy.snapshot.seconds_since_data", lambda sock: None)
    assert snapshot(core, flow, client).idle_seconds is None
    closed = core.closed(1)
    spoken = attrs.evolve(closed, from_server=attrs.evolve(closed.from_server, last_element_age_ms=1_500))
    monkeypatch.setattr(core, "closed", lambda at_ns: spoken)
    assert snapshot(core, flow, client).idle_seconds == 1.5


@pytest.mark.skipif(not system.offers(socket, "TCP_INFO"), reason="this system does not say")
def test_silence_is_counted_by_the_kernel(connection: tuple[socket.socket, socket.socket]) -> None:
    client, server = connection
    client.send(b"x")
    server.recv(1)
    before = seconds_since_data(server)
    time.sleep(0.05)
    after = seconds_since_data(server)
    assert before is not None
    assert after is not None
    assert 0 <= before < after < 5
    server.close()
    assert seconds_since_data(server) is None
