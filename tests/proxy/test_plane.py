"""The plane by itself: what its contract says beyond what a session through the proxy shows. Both planes alike."""

import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
import trustme

from tests.support.proxying import (
    EventRecorder,
    ListChannel,
    StubCore,
    receive_exactly,
    send_all,
    wrap,
)
from xproxy.events import Side
from xproxy.events.tls import StarttlsRequested
from xproxy.proxy.flow import COSTLY_READ_BYTES, Flow, Hold, Leg
from xproxy.proxy.plane import EpollPlane, WaitReadablePlane, is_reset, is_unannounced, was_reset
from xproxy.xmpp.actions import Action, Forward, LegMode, Observe

PLANES = pytest.mark.parametrize("plane", [EpollPlane, WaitReadablePlane])
AnyPlane = type[EpollPlane] | type[WaitReadablePlane]


@asynccontextmanager
async def running(plane: AnyPlane) -> AsyncIterator[EpollPlane | WaitReadablePlane]:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            made = plane(channel=ListChannel(), wall_ns=time.time_ns)
            await nursery.start(made.run)
            yield made
            nursery.cancel_scope.cancel()


def pair() -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def flow_of(client: socket.socket, server: socket.socket, core: StubCore | None = None) -> Flow:
    return Flow(
        core=core or StubCore(LegMode.CLEAR, 0),
        recorder=EventRecorder(),
        client=Leg(Side.CLIENT, client),
        server=Leg(Side.SERVER, server),
    )


@PLANES
async def test_what_lies_inside_tls_is_read_when_the_leg_is_registered(plane: AnyPlane) -> None:
    """A descriptor never reports what OpenSSL has taken already."""
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(serving)
    authority.configure_trust(trusting)
    client, ours = pair()
    server, to_server = pair()
    done: list[ssl.SSLSocket] = []

    async def secure() -> None:
        done.append(await wrap(client, trusting, "localhost"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure)
        secured = await wrap(ours, serving)
    with done[0], secured, server, to_server:
        await send_all(done[0], b"0123456789")
        await trio.lowlevel.wait_readable(secured)
        assert secured.recv(4) == b"0123"
        assert secured.pending() == 6
        async with running(plane) as made:
            flow = flow_of(secured, to_server)
            for hold_first in (False, True):
                if hold_first:  # the same after a pause
                    made.hold(flow.client, Hold.PAUSED)
                    await send_all(done[0], b"0123456789")
                    await trio.lowlevel.wait_readable(secured)
                    assert secured.recv(4) == b"0123"
                made.release(flow.client, Hold.PAUSED if hold_first else Hold.SET_UP)
                assert await receive_exactly(server, 6) == b"456789"


@PLANES
async def test_a_leg_is_read_when_the_last_reason_to_hold_it_is_gone(plane: AnyPlane) -> None:
    client, ours = pair()
    server, to_server = pair()
    with client, ours, server, to_server:
        async with running(plane) as made:
            flow = flow_of(ours, to_server)
            made.hold(flow.client, Hold.PAUSED)
            made.release(flow.client, Hold.SET_UP)
            client.send(b"waits")
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(BlockingIOError):
                server.recv(1)
            made.release(flow.client, Hold.BUSY)  # never held for that
            made.release(flow.client, Hold.PAUSED)
            assert await receive_exactly(server, 5) == b"waits"


@PLANES
async def test_a_read_that_wants_to_write_gives_the_leg_to_the_task(plane: AnyPlane) -> None:
    client, ours = pair()
    server, to_server = pair()
    with client, ours, server, to_server:
        async with running(plane) as made:
            flow = flow_of(ours, to_server)
            read, refused = flow.client.read, [ssl.SSLWantWriteError()]

            def wants_to_write(size: int) -> bytes:
                if refused:
                    raise refused.pop()
                return read(size)

            flow.client.read = wants_to_write
            made.release(flow.client, Hold.SET_UP)
            client.send(b"after the answer")
            await flow.news()
            assert flow.client.hold == Hold.BUSY
            made.release(flow.client, Hold.BUSY)  # as the session's task does when the socket can be written
            assert await receive_exactly(server, 16) == b"after the answer"


@PLANES
async def test_what_is_not_taken_is_kept_unchanged_and_its_source_is_held(plane: AnyPlane) -> None:
    client, ours = pair()
    server, to_server = pair()
    with client, ours, server, to_server:
        async with running(plane) as made:
            flow = flow_of(ours, to_server)

            def takes_nothing(_: bytes | memoryview) -> int:
                raise ssl.SSLWantWriteError

            flow.server.write = takes_nothing
            for leg in (flow.client, flow.server):
                made.release(leg, Hold.SET_UP)
            client.send(b"kept")
            await flow.news()
            assert list(flow.server.backlog or ()) == [b"kept"]
            assert flow.client.hold == Hold.PEER_FULL
            assert not flow.server.hold, "the side that takes nothing is still heard"
            client.send(b"not read")
            turns = made.turn_count
            await trio.sleep(0.02)
            assert made.turn_count == turns


@PLANES
async def test_an_error_that_is_none_of_the_network_ends_that_session_only(
    plane: AnyPlane, caplog: pytest.LogCaptureFixture
) -> None:
    client, ours = pair()
    server, to_server = pair()
    with client, ours, server, to_server:
        async with running(plane) as made:
            flow = flow_of(ours, to_server)

            def broken(_: int) -> bytes:
                raise ValueError("s3cret")

            flow.client.read = broken
            made.release(flow.client, Hold.SET_UP)
            client.send(b"x")
            await flow.news()
            assert flow.close is not None
    assert "ValueError" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("kind", [ssl.SSLError, ssl.SSLEOFError])
def test_a_bare_fin_is_known_whatever_kind_of_error_it_is(kind: type[ssl.SSLError]) -> None:
    """CPython before 3.11.3 has no kind for it."""
    one, other = pair()
    with one, other:
        fin = kind(1, "[SSL: UNEXPECTED_EOF_WHILE_READING] unexpected eof while reading")
        fin.reason = "UNEXPECTED_EOF_WHILE_READING"
        assert is_unannounced(fin)
        assert not was_reset(one, fin)
        assert is_reset(fin)
        bad = ssl.SSLError(1, "[SSL: BAD_RECORD_TYPE] bad record type")
        bad.reason = "BAD_RECORD_TYPE"
        assert not is_unannounced(bad)
        assert not is_reset(bad)


class PortionCore(StubCore):
    """Notes the size of each chunk, in a list that several share."""

    def __init__(self, name: str, told: list[tuple[str, int]], *, is_costly: bool) -> None:
        super().__init__(LegMode.CLEAR, 0)
        self.is_costly = is_costly
        self._name = name
        self._told = told

    def receive(self, side: Side, data: bytes, at_ns: int) -> list[Action]:
        self._told.append((self._name, len(data)))
        if self.is_costly and b"login" in data:
            self.is_costly = False
            return [Observe(StarttlsRequested()), Forward(data)]
        return [Forward(data)]


@asynccontextmanager
async def tls_pair() -> AsyncIterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(serving)
    authority.configure_trust(trusting)
    client, ours = pair()
    done: list[ssl.SSLSocket] = []

    async def secure() -> None:
        done.append(await wrap(client, trusting, "localhost"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure)
        secured = await wrap(ours, serving)
    with done[0], secured:
        yield done[0], secured


@PLANES
async def test_before_the_login_a_leg_is_read_in_portions_and_nothing_is_left_inside_tls(plane: AnyPlane) -> None:
    told: list[tuple[str, int]] = []
    server, to_server = pair()
    with server, to_server:
        async with tls_pair() as (client, ours), running(plane) as made:
            flow = flow_of(ours, to_server, PortionCore("stranger", told, is_costly=True))
            made.release(flow.client, Hold.SET_UP)
            for data in (b"a" * 16_384, b"b" * 4_096, b"c" * 10_000, b"d"):
                await send_all(client, data)
                assert await receive_exactly(server, len(data)) == data
            assert max(size for _, size in told) == COSTLY_READ_BYTES
            turns = made.turn_count
            await trio.sleep(0.02)
            assert made.turn_count == turns, "a leg with nothing to read is not served"


@PLANES
async def test_a_leg_that_is_due_is_read_on_after_a_pause(plane: AnyPlane) -> None:
    told: list[tuple[str, int]] = []
    server, to_server = pair()
    with server, to_server:
        async with tls_pair() as (client, ours), running(plane) as made:
            flow = flow_of(ours, to_server, PortionCore("stranger", told, is_costly=True))
            await send_all(client, b"a" * 16_384)
            await trio.lowlevel.wait_readable(ours)
            made.release(flow.client, Hold.SET_UP)
            while not told:
                await trio.lowlevel.checkpoint()
            made.hold(flow.client, Hold.PAUSED)
            made.release(flow.client, Hold.PAUSED)
            assert len(await receive_exactly(server, 16_384)) == 16_384


@PLANES
async def test_with_the_login_the_rest_is_read_freely(plane: AnyPlane) -> None:
    told: list[tuple[str, int]] = []
    server, to_server = pair()
    with server, to_server:
        async with tls_pair() as (client, ours), running(plane) as made:
            flow = flow_of(ours, to_server, PortionCore("user", told, is_costly=True))
            for leg in (flow.client, flow.server):
                made.release(leg, Hold.SET_UP)
            await send_all(client, b"login" + b"a" * 16_379)
            assert len(await receive_exactly(server, 16_384)) == 16_384
            await send_all(client, b"b" * 16_384)
            assert len(await receive_exactly(server, 16_384)) == 16_384
            await send_all(server, b"c" * 10_000)
            assert len(await receive_exactly(client, 10_000)) == 10_000
            assert [size for _, size in told] == [COSTLY_READ_BYTES, 16_384 - COSTLY_READ_BYTES, 16_384, 10_000]


async def test_a_session_that_is_established_is_served_between_the_portions_of_strangers() -> None:
    """Whoever floods before the login costs the others one portion, not all that was sent."""
    told: list[tuple[str, int]] = []
    sockets = [pair() for _ in range(8)]
    async with running(EpollPlane) as made:
        users = [
            (one[0], flow_of(one[1], other[1], PortionCore(name, told, is_costly=name != "user")))
            for one, other, name in zip(sockets[::2], sockets[1::2], ("s1", "s2", "s3", "user"), strict=True)
        ]
        for socket_, _ in users[:3]:
            socket_.send(b">" * 20_000)
        users[3][0].send(b"<message/>")
        for _, flow in users:
            made.release(flow.client, Hold.SET_UP)
        for _, other in zip(sockets[::2], sockets[1::2], strict=True):
            await receive_exactly(other[0], 10 if other is sockets[-1] else 20_000)
        assert told.index(("user", 10)) == 0, told[:8]
        assert sorted(name for name, _ in told[1:4]) == ["s1", "s2", "s3"]
    for one, other in sockets:
        one.close()
        other.close()


class SlowCore(PortionCore):
    """Takes 9 ms for a chunk that holds a ``>``, by a clock that only this moves."""

    now = 0.0

    def receive(self, side: Side, data: bytes, at_ns: int) -> list[Action]:
        SlowCore.now += 0.009 if b">" in data else 0.000_1
        return super().receive(side, data, at_ns)


async def test_a_login_does_not_wait_behind_those_who_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells of them first, turn after turn; a login that was told of behind one of them stayed there."""
    monkeypatch.setattr("xproxy.proxy.plane.monotonic", lambda: SlowCore.now)
    told: list[tuple[str, int]] = []
    sockets = [pair() for _ in range(8)]
    floods, login = sockets[:6], sockets[6:]
    async with running(EpollPlane) as made:
        for one, other in zip(floods[::2], floods[1::2], strict=True):
            one[0].send(b">" * 50_000)
            made.release(flow_of(one[1], other[1], SlowCore("flood", told, is_costly=True)).client, Hold.SET_UP)
        made.release(flow_of(login[0][1], login[1][1], SlowCore("login", told, is_costly=True)).client, Hold.SET_UP)
        for _ in range(10):
            before = len(told)
            login[0][0].send(b"<auth/>"[:-1])
            await receive_exactly(login[1][0], 6)
            assert "login" in [name for name, _ in told[before : before + 4]], told[before:]
    for one, other in sockets:
        one.close()
        other.close()
