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
from xproxy.config.address import HostPort
from xproxy.config.listen import ListenAddress, ListenKind, ListenSettings, Network
from xproxy.config.sessions import SessionLimits
from xproxy.events import Endpoint
from xproxy.events.connection import (
    CloseCause,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionRefused,
    RefusalReason,
    ServerTls,
    UpstreamConnected,
    UpstreamFailed,
    UpstreamFailure,
    WayIn,
)
from xproxy.proxy import relay
from xproxy.proxy.connect import ConnectFailed
from xproxy.proxy.proxy_protocol import SIGNATURE_V2, render_local, render_v1, render_v2
from xproxy.proxy.route import FixedRoute, OriginalRoute, Route

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


async def test_a_header_that_names_the_balancer_itself_is_a_health_check_too() -> None:
    async with behind_balancer() as rig, nothing_is_left(rig):
        with await rig.connect() as balancer:
            await send_all(balancer, render_v1(Endpoint(*balancer.getsockname()), rig.address))
        await until(lambda: rig.proxy.health_checks == 1)
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


async def test_a_header_from_elsewhere_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    async with behind_balancer(trusted=NOWHERE) as rig, nothing_is_left(rig):
        with await rig.connect() as another:
            await sees_the_end(another)
        with await rig.connect(source="127.0.0.66") as spoofer:
            await send_all(spoofer, HEADER + b"<")
            await sees_the_end(spoofer)
            refused = await rig.channel.wait_for(ConnectionRefused, 2)
            assert refused.reason is RefusalReason.PROXY_HEADER_UNTRUSTED
            assert (refused.client, refused.balancer) == (Endpoint(*spoofer.getsockname()), None)


@pytest.mark.parametrize("kind", [ListenKind.PROXY_PROTOCOL, ListenKind.SOCKS5])
async def test_who_is_not_trusted_is_said_once_and_without_the_address(
    caplog: pytest.LogCaptureFixture, kind: ListenKind
) -> None:
    """Whether an address may be written is --identities' to say, and that holds for records."""
    with trio.fail_after(10):
        async with proxying(listen=listening(kind, trusted=NOWHERE)) as rig:
            for _ in range(2):
                with await rig.connect(source="127.0.0.66") as stranger:
                    await sees_the_end(stranger)
    assert caplog.text.count("add --trusted if it is yours") == 1
    assert str(rig.address) in caplog.text
    assert "127.0.0.66" not in caplog.text


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


# SOCKS5 ---------------------------------------------------------------------------------------------------------------

HEADER_OF_A_STREAM = (
    b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.org'>"
)
GREETING, NO_AUTHENTICATION = b"\x05\x01\x00", b"\x05\x00"


def asking(host: str, port: int) -> bytes:
    """The request to be connected to ``host``, as a name or as an address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        where = b"\x03" + bytes([len(host)]) + host.encode()
    else:
        where = (b"\x01" if address.version == 4 else b"\x04") + address.packed
    return b"\x05\x01\x00" + where + struct.pack("!H", port)


@asynccontextmanager
async def asked_by_socks(
    *, limits: SessionLimits | None = None, domain: str | None = None, route: Route | None = None, **rest: object
) -> AsyncIterator[Rig]:
    listen = listening(ListenKind.SOCKS5, **rest)  # type: ignore[arg-type]
    with trio.fail_after(10):
        async with proxying(listen=listen, limits=limits, domain=domain, route=route) as rig:
            yield rig


def server_of(rig: Rig) -> Endpoint:
    return Endpoint(*rig.upstream.getsockname())


async def test_a_socks_client_is_answered_when_the_server_is_connected() -> None:
    async with asked_by_socks() as rig, nothing_is_left(rig):
        with await rig.connect() as client:
            server_end = server_of(rig)
            await send_all(client, GREETING)
            assert await receive_exactly(client, 2) == NO_AUTHENTICATION
            await send_all(client, asking(server_end.ip, server_end.port))
            with await rig.accept() as server:
                ours = server.getpeername()
                reply = b"\x05\x00\x00\x01" + socket.inet_aton(ours[0]) + struct.pack("!H", ours[1])
                assert await receive_exactly(client, 10) == reply
                await send_all(client, b"<hello>")
                assert await receive_exactly(server, 7) == b"<hello>"
                await send_all(server, b"<welcome>")
                assert await receive_exactly(client, 9) == b"<welcome>"
            accepted = await rig.channel.wait_for(ConnectionAccepted)
            assert accepted == ConnectionAccepted(
                client=Endpoint(*client.getsockname()),
                listener=rig.address,
                way=WayIn.SOCKS5,
                destination=str(server_end),
            )
            connected = await rig.channel.wait_for(UpstreamConnected)
            assert (connected.local, connected.tls) == (Endpoint(*ours), ServerTls.STARTTLS)


async def test_all_at_once_and_octet_by_octet_is_the_same() -> None:
    async with asked_by_socks() as rig:
        server_end = server_of(rig)
        said = GREETING + asking(server_end.ip, server_end.port)
        for pieces in ([said + b"<hello>"], [*(bytes([octet]) for octet in said), b"<hello>"]):
            with await rig.connect() as client:
                for piece in pieces:
                    await send_all(client, piece)
                    await trio.sleep(0.001)
                with await rig.accept() as server:
                    assert await receive_exactly(server, 7) == b"<hello>"
                    assert (await receive_exactly(client, 12))[:4] == NO_AUTHENTICATION + b"\x05\x00"


async def test_direct_tls_by_socks_is_seen_as_such() -> None:
    async with asked_by_socks() as rig:
        server_end = server_of(rig)
        with await rig.connect() as client:
            await send_all(client, GREETING + asking(server_end.ip, server_end.port) + b"\x16\x03\x01")
            connected = await rig.channel.wait_for(UpstreamConnected)
            assert connected.tls is ServerTls.DIRECT


async def test_a_client_that_does_not_speak_after_the_answer() -> None:
    async with asked_by_socks(limits=SessionLimits(first_byte_seconds_max=0.05)) as rig, nothing_is_left(rig):
        server_end = server_of(rig)
        with await rig.connect() as client:
            await send_all(client, GREETING + asking(server_end.ip, server_end.port))
            with await rig.accept() as server:
                assert await receive_all(server) == b""
            assert len(await receive_all(client)) == 12
        assert (await rig.channel.wait_for(ConnectionClosed)).cause is CloseCause.NEGOTIATION_TIMEOUT


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (UpstreamFailure.REFUSED, b"\x05"),
        (UpstreamFailure.UNREACHABLE, b"\x03"),
        (UpstreamFailure.UNKNOWN_HOST, b"\x04"),
        (UpstreamFailure.TIMEOUT, b"\x04"),
        (UpstreamFailure.OTHER, b"\x01"),
    ],
)
async def test_a_server_that_cannot_be_reached_is_told_as_rfc_1928_has_it(
    monkeypatch: pytest.MonkeyPatch, failure: UpstreamFailure, code: bytes
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise ConnectFailed(UpstreamFailed(host="127.0.0.1", port=9, reason=failure, errno=None, seconds=0.0))

    monkeypatch.setattr(relay, "open_upstream", fails)
    async with asked_by_socks() as rig, nothing_is_left(rig):
        server_end = server_of(rig)
        with await rig.connect() as client:
            await send_all(client, GREETING + asking(server_end.ip, server_end.port))
            answer = await receive_all(client)
            assert answer == NO_AUTHENTICATION + b"\x05" + code + b"\x00\x01" + bytes(6)
        assert (await rig.channel.wait_for(UpstreamFailed)).reason is failure
        assert (await rig.channel.wait_for(ConnectionClosed)).cause is CloseCause.UPSTREAM_FAILED


async def test_a_server_that_really_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    with trio.fail_after(10):
        listen = listening(ListenKind.SOCKS5)
        async with proxying(listen=listen, upstream=HostPort("127.0.0.1", port)) as rig, nothing_is_left(rig):
            with await rig.connect() as client:
                await send_all(client, GREETING + asking("127.0.0.1", port))
                assert (await receive_all(client))[2:4] == b"\x05\x05"


async def test_where_the_server_depends_on_the_clients_words_it_may_speak_at_once() -> None:
    class Later(FixedRoute):
        needs_domain = True

    route = Later(server=HostPort("127.0.0.1", 9))
    async with asked_by_socks(route=route, destination_ports=(5222, 9)) as rig:
        with await rig.connect() as client:
            await send_all(client, GREETING + asking("127.0.0.1", 9))
            assert await receive_exactly(client, 12) == NO_AUTHENTICATION + b"\x05\x00\x00\x01" + bytes(6)
            await send_all(client, HEADER_OF_A_STREAM)
            assert await receive_all(client) == b""  # not a second answer, within what is now XMPP
        assert (await rig.channel.wait_for(UpstreamFailed)).reason is UpstreamFailure.REFUSED


@pytest.mark.parametrize(
    ("sent", "answer", "reason"),
    [
        (b"<stream:stream>", b"", RefusalReason.SOCKS_MALFORMED),
        (b"\x16\x03\x01\x02\x00\x01", b"", RefusalReason.SOCKS_MALFORMED),
        (b"\x04\x01\x14\x66\xc0\x00\x02\x07\x00", b"", RefusalReason.SOCKS_UNSUPPORTED),
        (b"\x05\x01\x02", b"\x05\xff", RefusalReason.SOCKS_UNSUPPORTED),
        (GREETING + b"\x05\x02\x00\x01", NO_AUTHENTICATION + b"\x05\x07", RefusalReason.SOCKS_UNSUPPORTED),
        (GREETING + b"\x05\x01\x00\x05", NO_AUTHENTICATION + b"\x05\x08", RefusalReason.SOCKS_UNSUPPORTED),
        (GREETING + b"\x05\x01\x07", NO_AUTHENTICATION + b"\x05\x01", RefusalReason.SOCKS_MALFORMED),
        (GREETING + b"\x05\x01\x00\x03\x03a b\x00\x01", NO_AUTHENTICATION + b"\x05\x01", RefusalReason.SOCKS_MALFORMED),
    ],
)
async def test_what_is_no_request_is_answered_closed_and_recorded(
    sent: bytes, answer: bytes, reason: RefusalReason
) -> None:
    async with asked_by_socks() as rig, nothing_is_left(rig):
        with await rig.connect() as client:
            await send_all(client, sent)
            assert (await receive_all(client))[: len(answer)] == answer
            refused = await rig.channel.wait_for(ConnectionRefused)
            assert (refused.reason, refused.way) == (reason, WayIn.SOCKS5)
            assert refused.detail


@pytest.mark.parametrize("sent", [b"", b"\x05", GREETING, GREETING + b"\x05\x01\x00\x03\xff"])
async def test_a_request_that_does_not_come_in_time(sent: bytes) -> None:
    async with asked_by_socks(header_seconds_max=0.05) as rig, nothing_is_left(rig):
        with await rig.connect() as client:
            await send_all(client, sent)
            await receive_all(client)
            assert (await rig.channel.wait_for(ConnectionRefused)).reason is RefusalReason.SOCKS_TIMEOUT


@pytest.mark.parametrize("sent", [b"", b"\x05", GREETING, GREETING + b"\x05\x01\x00\x03\xff"])
async def test_a_client_that_leaves_before_its_request(sent: bytes) -> None:
    async with asked_by_socks() as rig, nothing_is_left(rig):
        with await rig.connect() as client:
            await send_all(client, sent)
        assert (await rig.channel.wait_for(ConnectionRefused)).reason is RefusalReason.SOCKS_MALFORMED


async def test_socks_clients_of_elsewhere_are_not_heard() -> None:
    async with asked_by_socks(trusted=NOWHERE) as rig, nothing_is_left(rig):
        with await rig.connect() as client:
            await send_all(client, GREETING)
            await sees_the_end(client)
            assert (await rig.channel.wait_for(ConnectionRefused)).reason is RefusalReason.SOCKS_UNTRUSTED


async def test_one_socks_client_cannot_keep_all_others_out() -> None:
    async with asked_by_socks(headers_per_client_max=1) as rig, nothing_is_left(rig):
        with await rig.connect() as first, await rig.connect() as second:
            await sees_the_end(second)
            refused = await rig.channel.wait_for(ConnectionRefused)
            assert (refused.reason, refused.limit) == (RefusalReason.HEADERS_PER_CLIENT_MAX, 1)
            await send_all(first, GREETING)
            assert await receive_exactly(first, 2) == NO_AUTHENTICATION


async def test_sessions_by_socks_count_for_their_client() -> None:
    async with asked_by_socks(limits=SessionLimits(sessions_per_address_max=1)) as rig:
        server_end = server_of(rig)
        with await rig.connect() as first, await rig.connect() as second:
            await send_all(first, GREETING + asking(server_end.ip, server_end.port))
            with await rig.accept():
                await send_all(second, GREETING + asking(server_end.ip, server_end.port))
                assert (await receive_all(second))[2:4] == b"\x05\x01"
                refused = await rig.channel.wait_for(ConnectionRefused)
                assert refused.reason is RefusalReason.SESSIONS_PER_ADDRESS_MAX


@pytest.mark.parametrize(
    "wanted",
    [
        HostPort("xmpp.example.org", 5222),  # in the domain
        HostPort("example.org", 5222),
        HostPort("example.org", 5223),
        HostPort("127.0.0.1", 5222),  # the server itself, by its usual port
    ],
)
async def test_what_is_served_may_be_asked_for_and_leads_to_the_server(wanted: HostPort) -> None:
    async with asked_by_socks(domain="example.org") as rig:
        with await rig.connect() as client:
            await send_all(client, GREETING + asking(wanted.host, wanted.port) + b"<")
            (await rig.accept()).close()
            assert (await rig.channel.wait_for(ConnectionAccepted)).destination == str(wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        HostPort("example.com", 5222),
        HostPort("notexample.org", 5222),
        HostPort("example.org.example.com", 5222),
        HostPort("example.org", 80),
        HostPort("example.org", 25),
        HostPort("192.0.2.7", 5222),
        HostPort("::1", 5222),
    ],
)
async def test_nobody_is_taken_anywhere_else(wanted: HostPort) -> None:
    async with asked_by_socks(domain="example.org") as rig, nothing_is_left(rig):
        with await rig.connect() as client:
            await send_all(client, GREETING + asking(wanted.host, wanted.port))
            assert (await receive_all(client))[2:4] == b"\x05\x02"
            refused = await rig.channel.wait_for(ConnectionRefused)
            assert (refused.reason, refused.destination) == (RefusalReason.DESTINATION_REFUSED, str(wanted))


async def test_with_original_a_request_leads_where_it_says_but_not_back_to_us() -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        port = elsewhere.getsockname()[1]
        async with asked_by_socks(route=OriginalRoute(), destination_ports=(port,)) as rig:
            with await rig.connect() as client:
                await send_all(client, GREETING + asking("localhost", port))
                await trio.lowlevel.wait_readable(elsewhere)
                elsewhere.accept()[0].close()
                assert (await receive_exactly(client, 4))[2:] == b"\x05\x00"
            rig.proxy._destinations._ports.add(rig.address.port)
            for host in ("localhost", "127.0.0.1", "127.0.0.99"):
                with await rig.connect() as client:
                    await send_all(client, GREETING + asking(host, rig.address.port))
                    await receive_all(client)
            reasons = [event.reason for event in rig.channel.of(ConnectionRefused)]  # type: ignore[attr-defined]
            assert reasons[:2] == [RefusalReason.DESTINATION_LOOP] * 2  # the third is no listener of ours


# The original destination ---------------------------------------------------------------------------------------------


async def test_who_was_not_redirected_has_nowhere_to_go() -> None:
    with trio.fail_after(10):
        async with proxying(route=OriginalRoute()) as rig, nothing_is_left(rig):
            with await rig.connect() as client:
                await sees_the_end(client)
                refused = await rig.channel.wait_for(ConnectionRefused)
                assert refused.reason is RefusalReason.NOT_REDIRECTED
                assert refused.client == Endpoint(*client.getsockname())


async def test_a_server_that_turns_out_to_be_ourselves() -> None:
    """What we connect to is turned back to us: here simply because it is our own address."""
    with socket.create_server(("127.0.0.1", 0)) as free_soon:
        port = free_soon.getsockname()[1]
    listen = ListenSettings(addresses=(ListenAddress("127.0.0.1", port),))
    with trio.fail_after(10):
        async with proxying(listen=listen, upstream=HostPort("127.0.0.1", port)) as rig, nothing_is_left(rig):
            with await rig.connect() as client:
                await send_all(client, b"<")
                await sees_the_end(client)
            await rig.proxy._admissions.nobody_left()
            assert len(rig.channel.of(ConnectionAccepted)) == 2
            assert (await rig.channel.wait_for(UpstreamFailed)).reason is UpstreamFailure.LOOP
