"""The ways in over loopback sockets: PROXY headers and SOCKS5 requests, good ones, bad ones, late ones, none."""

import gc
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from tests.support.proxying import Rig, open_descriptors, proxying, receive_all, receive_exactly, send_all
from xproxy.config.listen import ListenAddress, ListenKind, ListenSettings, Network
from xproxy.config.sessions import SessionLimits
from xproxy.events import Endpoint
from xproxy.events.connection import (
    CloseCause,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionRefused,
    RefusalReason,
    WayIn,
)
from xproxy.proxy.proxy_protocol import SIGNATURE_V2, render_local, render_v1, render_v2

CLIENT, DIALLED = Endpoint("192.0.2.7", 56_324), Endpoint("198.51.100.1", 5222)
CLIENT6, DIALLED6 = Endpoint("2001:db8::7", 56_324), Endpoint("2001:db8::1", 5222)
HEADER = render_v2(CLIENT, DIALLED)
NOWHERE = (ipaddress.ip_network("203.0.113.0/24"),)


def listening(
    kind: ListenKind, host: str = "127.0.0.1", trusted: tuple[Network, ...] | None = None, **rest: object
) -> ListenSettings:
    return ListenSettings(addresses=(ListenAddress(host, 0, kind, trusted),), **rest)  # type: ignore[arg-type]


@asynccontextmanager
async def behind_balancer(*, limits: SessionLimits | None = None, **rest: object) -> AsyncIterator[Rig]:
    with trio.fail_after(10):
        async with proxying(listen=listening(ListenKind.PROXY_PROTOCOL, **rest), limits=limits) as rig:  # type: ignore[arg-type]
            yield rig


@asynccontextmanager
async def nothing_is_left(rig: Rig) -> AsyncIterator[None]:
    """See that the block leaves no descriptor, no task, no seat and no one waited for."""
    await trio.testing.wait_all_tasks_blocked()  # the listener has its spare descriptor
    gc.collect()
    before = open_descriptors()
    yield
    await rig.proxy._admissions.nobody_left()
    (listener,) = rig.proxy._listeners
    assert listener.waiting == 0
    assert not rig.proxy._admissions._by_address
    assert not rig.proxy._relays
    gc.collect()
    assert open_descriptors() == before


# PROXY protocol -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "client", "dialled"),
    [
        (render_v1(CLIENT, DIALLED), CLIENT, DIALLED),
        (render_v1(CLIENT6, DIALLED6), CLIENT6, DIALLED6),
        (render_v2(CLIENT, DIALLED), CLIENT, DIALLED),
        (render_v2(CLIENT6, DIALLED6), CLIENT6, DIALLED6),
        (
            b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 56324 5222\r\n",
            CLIENT,
            DIALLED,
        ),
    ],
)
async def test_the_client_is_who_the_balancer_says_and_not_a_byte_is_lost(
    header: bytes, client: Endpoint, dialled: Endpoint
) -> None:
    async with behind_balancer() as rig:
        for split in (False, True):
            with await rig.connect() as balancer:
                for part in [header, b"<hello>"] if split else [header + b"<hello>"]:
                    await send_all(balancer, part)
                with await rig.accept() as server:
                    assert await receive_exactly(server, 7) == b"<hello>"
                    await send_all(server, b"<welcome>")
                    assert await receive_exactly(balancer, 9) == b"<welcome>"
                accepted = await rig.channel.wait_for(ConnectionAccepted, 2 if split else 1)
                assert accepted == ConnectionAccepted(
                    client=client,
                    listener=rig.address,
                    way=WayIn.PROXY_PROTOCOL,
                    balancer=Endpoint(*balancer.getsockname()),
                    dialled=dialled,
                )


async def test_a_header_octet_by_octet() -> None:
    async with behind_balancer() as rig:
        with await rig.connect() as balancer:
            for octet in HEADER:
                await send_all(balancer, bytes([octet]))
                await trio.sleep(0.001)
            await send_all(balancer, b"<")
            (await rig.accept()).close()
        assert (await rig.channel.wait_for(ConnectionAccepted)).client == CLIENT


BAD = [
    (b"<?xml version='1.0'?>", RefusalReason.PROXY_HEADER_MISSING, None),
    (b"\x16\x03\x01\x02\x00\x01", RefusalReason.PROXY_HEADER_MISSING, None),
    (b"\x05\x01\x00", RefusalReason.PROXY_HEADER_MISSING, None),
    (b"PROXY TCP4 192.0.2.7\r\n<", RefusalReason.PROXY_HEADER_MALFORMED, None),
    (SIGNATURE_V2 + b"\x21\x12\x00\x0c" + bytes(12), RefusalReason.PROXY_HEADER_MALFORMED, None),
    (SIGNATURE_V2 + b"\x99", RefusalReason.PROXY_HEADER_MALFORMED, None),
    (b"PROXY " + b"x" * 5_000, RefusalReason.PROXY_HEADER_OVERSIZED, 4_096),
    (SIGNATURE_V2 + b"\x21\x11\xff\xff" + bytes(5_000), RefusalReason.PROXY_HEADER_OVERSIZED, 4_096),
    (SIGNATURE_V2 + b"\x20\x00\x0f\xf1", RefusalReason.PROXY_HEADER_OVERSIZED, 4_096),
]


@pytest.mark.parametrize(("sent", "reason", "limit"), BAD)
async def test_what_is_no_header_is_closed_and_recorded(sent: bytes, reason: RefusalReason, limit: int | None) -> None:
    async with behind_balancer() as rig, nothing_is_left(rig):
        with await rig.connect() as balancer:
            await send_all(balancer, sent)
            await sees_the_end(balancer)
            refused = await rig.channel.wait_for(ConnectionRefused)
            assert (refused.reason, refused.limit, refused.way) == (reason, limit, WayIn.PROXY_PROTOCOL)
            assert refused.client == Endpoint(*balancer.getsockname())
            assert refused.detail
        assert not rig.channel.of(ConnectionAccepted)


async def until(holds: Callable[[], bool]) -> None:
    while True:
        if holds():
            return
        await trio.sleep(0.001)


async def sees_the_end(sock: socket.socket) -> None:
    """Wait until the proxy has closed: with unread octets that is a reset."""
    with suppress(ConnectionResetError):
        assert await receive_all(sock) == b""


@pytest.mark.parametrize(
    "sent", [b"", b"P", HEADER[:13], HEADER[:-1], b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\r"]
)
async def test_a_header_that_does_not_come_in_time(sent: bytes) -> None:
    async with behind_balancer(header_seconds_max=0.05) as rig, nothing_is_left(rig):
        with await rig.connect() as balancer:
            await send_all(balancer, sent)
            await sees_the_end(balancer)
            assert (await rig.channel.wait_for(ConnectionRefused)).reason is RefusalReason.PROXY_HEADER_TIMEOUT


async def test_octets_that_trickle_do_not_move_the_deadline() -> None:
    async with behind_balancer(header_seconds_max=0.1) as rig, nothing_is_left(rig):
        with await rig.connect() as balancer:
            for octet in HEADER[:20]:
                try:
                    await send_all(balancer, bytes([octet]))
                except (BrokenPipeError, ConnectionResetError):
                    break
                await trio.sleep(0.02)
            else:
                pytest.fail("nobody closed it")
            assert (await rig.channel.wait_for(ConnectionRefused)).reason is RefusalReason.PROXY_HEADER_TIMEOUT


@pytest.mark.parametrize("sent", [b"P", HEADER[:13], HEADER[:-1]])
@pytest.mark.parametrize("abruptly", [False, True])
async def test_a_balancer_that_leaves_within_its_header(sent: bytes, abruptly: bool) -> None:
    async with behind_balancer() as rig, nothing_is_left(rig):
        with await rig.connect() as balancer:
            await send_all(balancer, sent)
            await trio.sleep(0.01)
            if abruptly:
                balancer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert (await rig.channel.wait_for(ConnectionRefused)).reason is RefusalReason.PROXY_HEADER_MALFORMED


@pytest.mark.parametrize("sent", [b"", render_local(), b"PROXY UNKNOWN\r\n", SIGNATURE_V2 + b"\x21\x00\x00\x00"])
@pytest.mark.parametrize("abruptly", [False, True])
async def test_health_checks_are_counted_and_not_recorded(sent: bytes, abruptly: bool) -> None:
    async with behind_balancer() as rig, nothing_is_left(rig):
        for count in (1, 2):
            with await rig.connect() as balancer:
                await send_all(balancer, sent)
                if abruptly:
                    await trio.sleep(0.01)
                    balancer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await until(lambda: rig.proxy.health_checks >= count)  # noqa: B023 - it is over before the next round
        assert not rig.channel.events


@pytest.mark.parametrize("header", [render_local(), b"PROXY UNKNOWN\r\n", SIGNATURE_V2 + b"\x21\x00\x00\x00"])
async def test_who_speaks_behind_a_header_that_names_nobody_is_served(header: bytes) -> None:
    limits = SessionLimits(sessions_per_address_max=1)
    async with behind_balancer(limits=limits) as rig:
        with await rig.connect() as first, await rig.connect() as second:
            for balancer in (first, second):  # the limit of one client is not that of a balancer
                await send_all(balancer, header)
                await trio.sleep(0.01)
                await send_all(balancer, b"<")
                (await rig.accept()).close()
            accepted = await rig.channel.wait_for(ConnectionAccepted)
            assert (accepted.client, accepted.balancer) == (Endpoint(*first.getsockname()), None)
            assert accepted.way is WayIn.PROXY_PROTOCOL


async def test_a_header_from_elsewhere_is_not_read() -> None:
    async with behind_balancer(trusted=NOWHERE) as rig, nothing_is_left(rig):
        with await rig.connect() as spoofer:
            await send_all(spoofer, HEADER + b"<")
            await sees_the_end(spoofer)
            refused = await rig.channel.wait_for(ConnectionRefused)
            assert refused.reason is RefusalReason.PROXY_HEADER_UNTRUSTED
            assert (refused.client, refused.balancer) == (Endpoint(*spoofer.getsockname()), None)


async def test_a_header_where_none_is_expected_is_no_xmpp() -> None:
    with trio.fail_after(10):
        async with proxying() as rig:
            with await rig.connect() as spoofer:
                await send_all(spoofer, HEADER)
                assert await receive_all(spoofer) == b""
            assert (await rig.channel.wait_for(ConnectionClosed)).cause is CloseCause.UNSUPPORTED_TRANSPORT
            (accepted,) = rig.channel.of(ConnectionAccepted)
            assert isinstance(accepted, ConnectionAccepted)
            assert accepted.client.ip == "127.0.0.1"


async def test_limits_are_those_of_the_real_client() -> None:
    limits = SessionLimits(sessions_per_address_max=1)
    async with behind_balancer(limits=limits) as rig:
        with await rig.connect() as first, await rig.connect() as second, await rig.connect() as third:
            await send_all(first, render_v2(CLIENT, DIALLED) + b"<")
            server = await rig.accept()
            await send_all(second, render_v2(Endpoint(CLIENT.ip, 9), DIALLED) + b"<")
            await sees_the_end(second)
            refused = await rig.channel.wait_for(ConnectionRefused)
            assert refused == ConnectionRefused(
                client=Endpoint(CLIENT.ip, 9),
                listener=rig.address,
                reason=RefusalReason.SESSIONS_PER_ADDRESS_MAX,
                limit=1,
                way=WayIn.PROXY_PROTOCOL,
                balancer=Endpoint(*second.getsockname()),
            )
            await send_all(third, render_v2(CLIENT6, DIALLED6) + b"<")  # the balancer is the same
            (await rig.accept()).close()
            server.close()


async def test_names_are_counted_for_the_real_client() -> None:
    async with behind_balancer(limits=SessionLimits(names_per_address_max=5)) as rig:
        rig.proxy._admissions.names_of(CLIENT.ip).used = 6
        with await rig.connect() as first, await rig.connect() as second:
            await send_all(first, HEADER + b"<")
            await sees_the_end(first)
            assert (await rig.channel.wait_for(ConnectionRefused)).reason is RefusalReason.NAMES_PER_ADDRESS_MAX
            await send_all(second, render_v2(CLIENT6, DIALLED6) + b"<")
            (await rig.accept()).close()


async def test_only_so_many_may_wait_for_their_header() -> None:
    async with behind_balancer(headers_max=2) as rig, nothing_is_left(rig):
        with await rig.connect() as first, await rig.connect() as second:
            await send_all(first, b"P")
            await send_all(second, b"P")
            with await rig.connect() as third:
                await sees_the_end(third)
            refused = await rig.channel.wait_for(ConnectionRefused)
            assert (refused.reason, refused.limit) == (RefusalReason.HEADERS_MAX, 2)
            assert rig.proxy.sessions == 0
            await send_all(first, b"ROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\r\n<")
            (await rig.accept()).close()
            with await rig.connect() as fourth:
                await send_all(fourth, HEADER + b"<")
                (await rig.accept()).close()


async def test_who_waits_for_a_header_takes_a_seat() -> None:
    async with behind_balancer(limits=SessionLimits(sessions_max=1)) as rig, nothing_is_left(rig):
        with await rig.connect() as first:
            await send_all(first, b"P")
            with await rig.connect() as second:
                await sees_the_end(second)
            assert (await rig.channel.wait_for(ConnectionRefused)).reason is RefusalReason.SESSIONS_MAX
            await send_all(first, b"ROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\r\n<")
            (await rig.accept()).close()


async def test_draining_ends_the_wait_for_headers() -> None:
    async with behind_balancer() as rig:
        with await rig.connect() as balancer:
            await send_all(balancer, b"P")
            await until(lambda: rig.proxy._listeners[0].waiting == 1)
            rig.proxy.drain()
            await sees_the_end(balancer)
            assert (await rig.channel.wait_for(ConnectionRefused)).reason is RefusalReason.DRAINING
            assert await rig.ended() == 0


async def test_ipv4_clients_of_a_dual_stack_listener_are_shown_and_trusted_as_ipv4() -> None:
    async with behind_balancer(host="::", trusted=(ipaddress.ip_network("127.0.0.1/32"),)) as rig:
        with socket.create_connection(("127.0.0.1", rig.address.port)) as balancer:
            balancer.sendall(HEADER + b"<")
            (await rig.accept()).close()
            accepted = await rig.channel.wait_for(ConnectionAccepted)
            assert accepted.balancer == Endpoint(*balancer.getsockname())
            assert accepted.listener == Endpoint("127.0.0.1", rig.address.port)
        with socket.create_connection(("::1", rig.address.port)) as spoofer:
            spoofer.setblocking(False)
            await sees_the_end(spoofer)
            assert (await rig.channel.wait_for(ConnectionRefused)).client.ip == "::1"
