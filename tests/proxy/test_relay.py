"""Bytes and ends through a whole proxy on loopback sockets, with a core that forwards everything."""

import logging
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from tests.support.ends import is_bare
from tests.support.proxying import (
    BUG,
    CLOSING_TAG,
    OBSERVE,
    PROCEED,
    STARTTLS,
    Certified,
    Rig,
    both_secured,
    certified,
    directly_secured,
    open_descriptors,
    proxying,
    receive_all,
    receive_exactly,
    receive_some,
    send_all,
    send_until_full,
)
from xproxy.config.address import HostPort
from xproxy.config.sessions import SessionLimits
from xproxy.events import EndOfInput, Endpoint, Event, Side
from xproxy.events.connection import (
    CloseCause,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionStalled,
    UnsupportedTransport,
    UpstreamConnected,
    UpstreamFailed,
    UpstreamFailure,
)
from xproxy.events.proxy import LimitReached
from xproxy.events.tls import StarttlsRequested, TlsEstablished
from xproxy.proxy import relay
from xproxy.proxy.connect import Connection, open_upstream
from xproxy.proxy.plane import READ_BYTES_MAX, EpollPlane, WaitReadablePlane
from xproxy.proxy.route import Asked, Route
from xproxy.proxy.sockets import close_socket

PLANES = pytest.mark.parametrize("plane", [EpollPlane, WaitReadablePlane])
LEGS = pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])

AnyPlane = type[EpollPlane] | type[WaitReadablePlane]


@attrs.define(eq=False)
class Joined:
    """A client and a server with the proxy between them."""

    rig: Rig
    client: socket.socket
    server: socket.socket

    async def closed(self) -> ConnectionClosed:
        return await self.rig.channel.wait_for(ConnectionClosed)


@asynccontextmanager
async def joined(
    tmp_path: Path,
    *,
    secure: bool = False,
    plane: AnyPlane = EpollPlane,
    limits: SessionLimits | None = None,
    receive_buffer: int | None = None,
) -> AsyncIterator[Joined]:
    """Join two ends; TLS from the first byte if ``secure``. Whatever hangs for 10 s fails."""
    tls: Certified | None = certified(tmp_path) if secure else None
    with trio.fail_after(10):
        async with proxying(
            plane=plane,
            limits=limits,
            contexts=tls.contexts if tls else None,
            receive_buffer=receive_buffer,
        ) as rig:
            if tls is not None:
                client, server = await directly_secured(rig, tls, receive_buffer=receive_buffer)
            else:
                client, server = await rig.pair(receive_buffer=receive_buffer)
            with client, server:
                yield Joined(rig, client, server)


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# Bytes ------------------------------------------------------------------------------------------------------------


@PLANES
@LEGS
@pytest.mark.parametrize("size", [1, 16_383, 16_384, 16_385, 65_536, 65_537, 921_600])
async def test_both_directions_at_once_byte_for_byte(tmp_path: Path, plane: AnyPlane, secure: bool, size: int) -> None:
    rng = random.Random(size)
    there, back = rng.randbytes(size), rng.randbytes(size)
    async with joined(tmp_path, secure=secure, plane=plane) as ends, trio.open_nursery() as nursery:
        nursery.start_soon(send_all, ends.client, there)
        nursery.start_soon(send_all, ends.server, back)
        received: dict[str, bytes] = {}

        async def receive(name: str, sock: socket.socket) -> None:
            received[name] = await receive_exactly(sock, size)

        nursery.start_soon(receive, "there", ends.server)
        nursery.start_soon(receive, "back", ends.client)
        while len(received) < 2:
            await trio.lowlevel.checkpoint()
            await trio.sleep(0.001)
        assert received == {"there": there, "back": back}


@PLANES
@LEGS
@pytest.mark.parametrize("seed", range(3))
async def test_random_chunks(tmp_path: Path, plane: AnyPlane, secure: bool, seed: int) -> None:
    rng = random.Random(seed)
    chunks = [rng.randbytes(rng.choice((1, 2, 17, 230, 4_000, 20_000))) for _ in range(60)]
    async with joined(tmp_path, secure=secure, plane=plane) as ends:
        for sender, receiver in ((ends.client, ends.server), (ends.server, ends.client)):
            async with trio.open_nursery() as nursery:

                async def send(sock: socket.socket = sender) -> None:
                    for chunk in chunks:
                        await send_all(sock, chunk)
                        if rng.random() < 0.3:
                            await trio.lowlevel.checkpoint()

                nursery.start_soon(send)
                assert await receive_exactly(receiver, sum(map(len, chunks))) == b"".join(chunks)


@PLANES
@LEGS
async def test_ten_thousand_pipelined_messages(tmp_path: Path, plane: AnyPlane, secure: bool) -> None:
    messages = b"".join(b"<message id='%05d'><body>hello</body></message>" % number for number in range(10_000))
    async with joined(tmp_path, secure=secure, plane=plane) as ends, trio.open_nursery() as nursery:
        nursery.start_soon(send_all, ends.client, messages)
        assert await receive_exactly(ends.server, len(messages)) == messages


# Order and back pressure ------------------------------------------------------------------------------------------


@PLANES
@LEGS
async def test_the_record_is_handed_over_before_the_bytes_leave(tmp_path: Path, plane: AnyPlane, secure: bool) -> None:
    async with joined(tmp_path, secure=secure, plane=plane) as ends:
        seen: list[bool] = []

        def on_put(events: list[Event]) -> None:
            if any(isinstance(event, StarttlsRequested) for event in events):
                # Loopback delivers within send(): what has left could be read here.
                seen.append(bool(_waiting(ends.server)))

        ends.rig.channel.on_put = on_put
        await send_all(ends.client, OBSERVE)
        assert await receive_exactly(ends.server, len(OBSERVE)) == OBSERVE
        assert seen == [False]


def _waiting(sock: socket.socket) -> bytes:
    try:
        return socket.socket.recv(sock, 1, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


@PLANES
@LEGS
@pytest.mark.parametrize("slow", list(Side))
async def test_a_slow_reader_stops_its_source_and_costs_bounded_memory(
    tmp_path: Path, plane: AnyPlane, secure: bool, slow: Side
) -> None:
    pattern = random.Random(1).randbytes(1024 * 1024) * 64
    async with joined(tmp_path, secure=secure, plane=plane, receive_buffer=8_192) as ends:
        sender, receiver = (ends.client, ends.server) if slow is Side.SERVER else (ends.server, ends.client)
        sent = await send_until_full(sender, pattern, is_stopped=lambda: ends.rig.waiting_bytes(slow) > 0)
        assert sent < len(pattern), "the sender was never stopped"
        # Nothing is in our hands but what one turn read.
        assert 0 < ends.rig.waiting_bytes(slow) <= READ_BYTES_MAX
        turns = ends.rig.plane.turn_count
        await trio.sleep(0.05)
        assert ends.rig.plane.turn_count - turns <= 2, "the plane spins on a leg that is not read"
        # The other direction goes on meanwhile.
        await send_all(receiver, b"still here")
        assert await receive_exactly(sender, 10) == b"still here"
        assert await receive_exactly(receiver, sent) == pattern[:sent]


@PLANES
@LEGS
async def test_no_leg_is_read_while_the_channel_is_full(tmp_path: Path, plane: AnyPlane, secure: bool) -> None:
    async with joined(tmp_path, secure=secure, plane=plane) as ends:
        ends.rig.channel.fill()
        await send_all(ends.client, b"waits")
        await send_all(ends.server, b"waits too")
        await trio.sleep(0.05)
        assert not _waiting(ends.server)
        assert not _waiting(ends.client)
        ends.rig.channel.empty()
        assert await receive_exactly(ends.server, 5) == b"waits"
        assert await receive_exactly(ends.client, 9) == b"waits too"


@LEGS
async def test_a_peer_that_resets_while_a_send_waits(tmp_path: Path, secure: bool) -> None:
    async with joined(tmp_path, secure=secure, receive_buffer=8_192) as ends:
        await send_until_full(ends.client, bytes(64 * 1024 * 1024))
        reset(ends.server)
        closed = await ends.closed()
        assert (closed.cause, closed.initiator) == (CloseCause.SERVER_ENDED, Side.SERVER)
        assert closed.from_server.end is EndOfInput.RESET


@LEGS
async def test_a_stall_is_reported_and_ends_the_session(tmp_path: Path, secure: bool) -> None:
    limits = SessionLimits(stall_seconds_warn=0.05, stall_seconds_max=0.1, close_seconds_max=0.1)
    async with joined(tmp_path, secure=secure, receive_buffer=8_192, limits=limits) as ends:
        await send_until_full(ends.client, bytes(64 * 1024 * 1024))
        closed = await ends.closed()
        (stalled,) = ends.rig.channel.of(ConnectionStalled)
        assert isinstance(stalled, ConnectionStalled)
        assert stalled.leg is Side.SERVER
        assert stalled.waiting_bytes > 0
        (reached,) = ends.rig.channel.of(LimitReached)
        assert isinstance(reached, LimitReached)
        assert (reached.limit, reached.closes) == ("sessions.stall_seconds_max", True)
        assert closed.cause is CloseCause.LIMIT_REACHED


# Ends -------------------------------------------------------------------------------------------------------------


def end(sock: socket.socket, how: EndOfInput) -> None:
    """End ``sock`` in this way, for good."""
    if how is EndOfInput.RESET:
        reset(sock)
        return
    if how is EndOfInput.CLOSE_NOTIFY and isinstance(sock, ssl.SSLSocket):
        with pytest.raises(ssl.SSLWantReadError):
            sock.unwrap()
    sock.close()


async def end_seen(sock: socket.socket) -> EndOfInput:
    """Tell how the other side ended."""
    try:
        assert await receive_some(sock) == b""
    except ssl.SSLError as error:  # of the same kind after a reset; the kernel knows better
        if not is_bare(error):
            raise
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return EndOfInput.RESET if state == 7 else EndOfInput.TRUNCATED
    except ConnectionResetError:
        return EndOfInput.RESET
    return EndOfInput.CLOSE_NOTIFY


@PLANES
@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize(
    ("secure", "how"),
    [
        (False, EndOfInput.CLOSE_NOTIFY),  # without TLS a bare FIN is the end in form
        (False, EndOfInput.RESET),
        *((True, how) for how in EndOfInput),
    ],
)
async def test_an_end_is_passed_on_in_kind(
    tmp_path: Path, plane: AnyPlane, secure: bool, side: Side, how: EndOfInput
) -> None:
    async with joined(tmp_path, secure=secure, plane=plane) as ends:
        one, other = (ends.client, ends.server) if side is Side.CLIENT else (ends.server, ends.client)
        await send_all(one, b"last words")
        assert await receive_exactly(other, 10) == b"last words"
        end(one, how)
        assert await end_seen(other) is how
        other.close()
        closed = await ends.closed()
        assert closed.initiator is side
        assert (closed.from_client if side is Side.CLIENT else closed.from_server).end is how
        assert ends.rig.channel.events[-1] is closed


@PLANES
@LEGS
async def test_behind_a_closing_tag_the_other_direction_goes_on(tmp_path: Path, plane: AnyPlane, secure: bool) -> None:
    rest = random.Random(2).randbytes(900_000)
    async with joined(tmp_path, secure=secure, plane=plane) as ends:
        await send_all(ends.client, CLOSING_TAG)
        if isinstance(ends.client, ssl.SSLSocket):
            # TLS 1.3 allows one direction to end; unwrap would end both, so only the closing tag is sent here.
            pass
        else:
            ends.client.shutdown(socket.SHUT_WR)
        assert await receive_exactly(ends.server, len(CLOSING_TAG)) == CLOSING_TAG
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await send_all(ends.server, rest + CLOSING_TAG)
                end(ends.server, EndOfInput.CLOSE_NOTIFY)

            nursery.start_soon(send)
            assert await receive_exactly(ends.client, len(rest) + len(CLOSING_TAG)) == rest + CLOSING_TAG
        assert await end_seen(ends.client) is EndOfInput.CLOSE_NOTIFY
        ends.client.close()
        closed = await ends.closed()
        assert closed.cause is CloseCause.STREAM_CLOSED
        assert closed.from_server.bytes == len(rest) + len(CLOSING_TAG)


@LEGS
async def test_a_server_that_never_answers_a_closing_tag_is_closed_by_the_core(tmp_path: Path, secure: bool) -> None:
    async with joined(tmp_path, secure=secure) as ends:
        ends.rig.cores[0].close_ns = 50_000_000
        await send_all(ends.client, CLOSING_TAG)
        end(ends.client, EndOfInput.CLOSE_NOTIFY)
        assert await receive_exactly(ends.server, len(CLOSING_TAG)) == CLOSING_TAG
        assert await end_seen(ends.server) is EndOfInput.CLOSE_NOTIFY
        ends.server.close()
        assert (await ends.closed()).cause is CloseCause.STREAM_CLOSED


@LEGS
async def test_a_client_that_is_gone_behind_its_closing_tag(tmp_path: Path, secure: bool) -> None:
    """XMPPFramework closes at once: the server's answer meets a dead socket."""
    async with joined(tmp_path, secure=secure, limits=SessionLimits(close_seconds_max=0.05)) as ends:
        await send_all(ends.client, CLOSING_TAG)
        end(ends.client, EndOfInput.CLOSE_NOTIFY)
        assert await receive_exactly(ends.server, len(CLOSING_TAG)) == CLOSING_TAG
        with pytest.raises(OSError, match=r".*"):  # noqa: PT012 - the loop is what provokes it
            while True:
                await send_all(ends.server, b"more")
                await trio.sleep(0.001)
        ends.server.close()
        assert (await ends.closed()).cause is CloseCause.STREAM_CLOSED


async def test_a_slow_receiver_with_words_of_its_own_gets_everything(tmp_path: Path) -> None:
    """Closing with words of the receiver unread would reset, and take from it what it has not read yet."""
    data = random.Random(3).randbytes(300_000)
    async with joined(tmp_path, receive_buffer=8_192) as ends:
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await send_all(ends.client, data)
                ends.client.shutdown(socket.SHUT_WR)

            nursery.start_soon(send)
            received = bytearray()
            while part := await receive_some(ends.server, 10_000):
                received += part
                await send_all(ends.server, b"nobody reads this")
                await trio.lowlevel.checkpoint()
        assert bytes(received) == data


# Set-up -----------------------------------------------------------------------------------------------------------


async def test_the_first_records_of_a_session(tmp_path: Path) -> None:
    async with joined(tmp_path) as ends:
        accepted, connected = ends.rig.channel.events
        assert isinstance(accepted, ConnectionAccepted)
        assert isinstance(connected, UpstreamConnected)
        assert accepted.listener == ends.rig.address
        assert accepted.client.port == ends.client.getsockname()[1]
        assert connected.local.port == ends.server.getpeername()[1]
        assert connected.server.port == ends.server.getsockname()[1]


@pytest.mark.parametrize(
    ("first", "looks_like"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "http"),
        (b"SSH-2.0-x\r\n", "ssh"),
        (b"PROXY TCP4 ", "proxy-protocol"),
        (b"?", "unknown"),
    ],
)
async def test_another_transport_is_closed_without_a_word_to_the_server(first: bytes, looks_like: str) -> None:
    with trio.fail_after(10):
        async with proxying() as rig:
            with await rig.connect() as client:
                await send_all(client, first)
                closed = await rig.channel.wait_for(ConnectionClosed)
                (event,) = rig.channel.of(UnsupportedTransport)
                assert isinstance(event, UnsupportedTransport)
                assert event.looks_like == looks_like
                assert closed.cause is CloseCause.UNSUPPORTED_TRANSPORT
                assert not rig.channel.of(UpstreamConnected)


async def test_a_client_that_says_nothing() -> None:
    with trio.fail_after(10):
        async with proxying(limits=SessionLimits(first_byte_seconds_max=0.05)) as rig:
            with await rig.connect() as client:
                assert await receive_all(client) == b""
                assert (await rig.channel.wait_for(ConnectionClosed)).cause is CloseCause.NEGOTIATION_TIMEOUT


@pytest.mark.parametrize("how", [EndOfInput.CLOSE_NOTIFY, EndOfInput.RESET])
async def test_a_client_that_leaves_without_a_word(how: EndOfInput) -> None:
    with trio.fail_after(10):
        async with proxying() as rig:
            client = await rig.connect()
            end(client, how)
            closed = await rig.channel.wait_for(ConnectionClosed)
            assert closed.cause is CloseCause.CLIENT_ENDED
            assert closed.from_client.end is how


async def test_a_server_that_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    with trio.fail_after(10):
        async with proxying(upstream=HostPort("127.0.0.1", port)) as rig:
            with await rig.connect() as client:
                await send_all(client, b"<")
                assert await receive_all(client) == b""
                closed = await rig.channel.wait_for(ConnectionClosed)
                (failed,) = rig.channel.of(UpstreamFailed)
                assert isinstance(failed, UpstreamFailed)
                assert (failed.reason, failed.errno) == (UpstreamFailure.REFUSED, "ECONNREFUSED")
                assert closed.cause is CloseCause.UPSTREAM_FAILED


@pytest.mark.slow
async def test_a_server_that_resets_what_it_has_just_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is gone before anybody could ask who is at its other end: no bug of ours."""

    async def open_and_wait(route: Route, asked: Asked, *, seconds_max: float) -> Connection:
        connection = await open_upstream(route, asked, seconds_max=seconds_max)
        accepted, _ = server.accept()
        close_socket(accepted, abruptly=True)
        await trio.lowlevel.wait_readable(connection.sock)
        return connection

    monkeypatch.setattr(relay, "open_upstream", open_and_wait)
    with socket.create_server(("127.0.0.1", 0)) as server, trio.fail_after(10):
        async with proxying(upstream=HostPort("127.0.0.1", server.getsockname()[1])) as rig:
            with await rig.connect() as client:
                await send_all(client, b"<")
                assert await receive_all(client) == b""
                closed = await rig.channel.wait_for(ConnectionClosed)
                (failed,) = rig.channel.of(UpstreamFailed)
                assert isinstance(failed, UpstreamFailed)
                assert (failed.reason, failed.errno) == (UpstreamFailure.OTHER, "ENOTCONN")
                assert closed.cause is CloseCause.UPSTREAM_FAILED


@PLANES
async def test_starttls_on_both_legs(plane: AnyPlane, tmp_path: Path) -> None:
    tls = certified(tmp_path)
    with trio.fail_after(10):
        async with proxying(plane=plane, contexts=tls.contexts) as rig:
            client, server = await rig.pair(b"<stream>")
            await send_all(client, STARTTLS)
            assert await receive_exactly(server, len(STARTTLS)) == STARTTLS
            await send_all(server, PROCEED)
            assert await receive_exactly(client, len(PROCEED)) == PROCEED
            client, server = await both_secured(client, server, tls)
            with client, server:
                await send_all(client, b"from the client")
                assert await receive_exactly(server, 15) == b"from the client"
                await send_all(server, b"from the server")
                assert await receive_exactly(client, 15) == b"from the server"
                legs = [event for event in rig.channel.of(TlsEstablished) if isinstance(event, TlsEstablished)]
                assert [leg.leg for leg in legs] == [Side.SERVER, Side.CLIENT]
                assert {leg.version for leg in legs} == {"1.3"}


async def test_a_client_with_the_port_of_our_end_at_a_server_is_no_loop() -> None:
    """A port is taken for one destination only: among a few hundred local clients one has the number of ours."""
    with trio.fail_after(10):
        async with proxying() as rig:
            first, server = await rig.pair(b"<stream>")
            ours, theirs = (Endpoint(*name) for name in (server.getpeername(), server.getsockname()))
            assert rig.proxy._surroundings.to_servers == {(ours, theirs)}
            other = await rig.connect()
            # As if it had come from that port, to the proxy.
            rig.proxy._surroundings.to_servers.add((Endpoint(*other.getsockname()), theirs))
            await send_all(other, b"<stream>")
            with first, server, other, await rig.accept():
                assert not rig.channel.of(UpstreamFailed)


# Ourselves --------------------------------------------------------------------------------------------------------


@PLANES
async def test_a_bug_ends_that_session_only_and_quotes_nobody(
    plane: AnyPlane, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(10), caplog.at_level(logging.DEBUG):
        async with proxying(plane=plane) as rig:
            client, server = await rig.pair()
            other_client, other_server = await rig.pair()
            with client, server, other_client, other_server:
                await send_all(client, BUG)
                assert await receive_all(server) == b""
                server.close()
                client.close()
                closed = await rig.channel.wait_for(ConnectionClosed)
                assert closed.cause is CloseCause.INTERNAL_ERROR
                await send_all(other_client, b"alive")
                assert await receive_exactly(other_server, 5) == b"alive"
    text = caplog.text
    assert "RuntimeError" in text
    assert "proxying.py" in text
    assert "s3cret" not in text


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
async def test_no_descriptor_is_left(tmp_path: Path, secure: bool) -> None:
    tls = certified(tmp_path)
    with trio.fail_after(20):
        async with proxying(contexts=tls.contexts, limits=SessionLimits(close_seconds_max=0.1)) as rig:
            await trio.testing.wait_all_tasks_blocked()
            before = open_descriptors()
            for number, how in enumerate((*EndOfInput, *EndOfInput)):
                client, server = await (directly_secured(rig, tls) if secure else rig.pair())
                one, other = (client, server) if number % 2 else (server, client)
                if secure or how is not EndOfInput.TRUNCATED:
                    end(one, how)
                one.close()
                other.close()
            for first in (b"", b"GET / ", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00", b"\x16" + bytes(100)):
                client = await rig.connect()  # set-ups that fail half-way
                await send_all(client, first)
                client.close()
            await rig.channel.wait_for(ConnectionClosed, 6 + 5)
            await rig.proxy._admissions.nobody_left()
            _close_all_waiting(rig)
            assert open_descriptors() == before


def _close_all_waiting(rig: Rig) -> None:
    """Close what the proxy opened to the server and nobody took."""
    while True:
        try:
            sock, _ = rig.upstream.accept()
        except BlockingIOError:
            return
        sock.close()


# Shutting down ----------------------------------------------------------------------------------------------------


async def test_draining_lets_sessions_end_by_themselves() -> None:
    with trio.fail_after(10):
        async with proxying() as rig:
            client, server = await rig.pair()
            with client, server:
                rig.proxy.drain()
                await trio.testing.wait_all_tasks_blocked(0.01)
                with pytest.raises(OSError, match="refused"):
                    socket.create_connection((rig.address.ip, rig.address.port))
                await send_all(client, b"still")
                assert await receive_exactly(server, 5) == b"still"
                client.close()
                assert await receive_all(server) == b""
            assert await rig.ended() == 0
            closed = await rig.channel.wait_for(ConnectionClosed)
            assert closed.cause is CloseCause.CLIENT_ENDED


async def test_draining_drops_sessions_abruptly_when_time_is_up(tmp_path: Path) -> None:
    tls = certified(tmp_path)
    with trio.fail_after(10):
        async with proxying(contexts=tls.contexts, limits=SessionLimits(drain_seconds=0.05)) as rig:
            client, server = await directly_secured(rig, tls)
            silent = await rig.connect()
            await rig.channel.wait_for(ConnectionAccepted, 2)
            with client, server, silent:
                rig.proxy.drain()
                assert await end_seen(client) is EndOfInput.TRUNCATED, "a clean end would end a resumable session"
                assert await end_seen(server) is EndOfInput.TRUNCATED
                client.close()
                server.close()
                assert await rig.ended() == 2
            causes = {event.cause for event in rig.channel.of(ConnectionClosed) if isinstance(event, ConnectionClosed)}
            assert causes == {CloseCause.SHUTDOWN}


async def test_told_twice_it_does_not_wait() -> None:
    with trio.fail_after(10):
        async with proxying() as rig:
            client, server = await rig.pair()
            with client, server:
                rig.proxy.drain()
                rig.proxy.drain()
                assert await receive_all(client) == b""
                assert await receive_all(server) == b""
            assert await rig.ended() == 1


async def test_cancelled_every_session_still_has_its_last_record() -> None:
    with trio.fail_after(10):
        async with proxying() as rig:
            client, server = await rig.pair()
        with client, server:
            closed = rig.channel.events[-1]
            assert isinstance(closed, ConnectionClosed)
            assert closed.cause is CloseCause.SHUTDOWN


async def test_who_goes_on_sending_behind_our_end_is_drained_of_so_much_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_DRAIN_BYTES_MAX", 1_000)
    peer, ours = socket.socketpair()
    with peer, ours:
        ours.setblocking(False)
        peer.send(b">" * 1_000)
        with trio.fail_after(5):
            await relay._drain(ours, 60)
        peer.send(b">")  # nobody waits for it
        assert ours.recv(2) == b">"
