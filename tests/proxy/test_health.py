"""When the server counts as down, and how its return is noticed."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.support.ports import free_ports
from tests.support.proxying import Rig, proxying, receive_all, send_all
from xproxy.config.address import HostPort
from xproxy.config.listen import ListenAddress, ListenSettings
from xproxy.config.upstream import UpstreamProxyProtocol
from xproxy.events import Event
from xproxy.events.connection import (
    ConnectionClosed,
    ConnectionRefused,
    RefusalReason,
    ServerTls,
    UpstreamConnected,
    UpstreamFailed,
    UpstreamFailure,
)
from xproxy.proxy.health import HealthSettings, UpstreamHealth
from xproxy.proxy.route import Asked, Candidates, FixedRoute, NoCandidate

SETTINGS = HealthSettings(
    down_after_failures=2,
    probe_seconds_min=1,
    probe_seconds_max=5,
    connect_seconds_max=8,
    domain=None,
    proxy_protocol="none",
)
FAILURE = UpstreamFailed(host="h", port=5222, reason=UpstreamFailure.REFUSED, errno="ECONNREFUSED", seconds=0.1)


class Nowhere:
    """A route that leads nowhere, and counts how often it is asked."""

    needs_domain = False

    def __init__(self) -> None:
        self.asked: list[float] = []

    def server_tls(self, *, direct: bool) -> ServerTls:
        raise AssertionError

    async def candidates(self, asked: Asked) -> Candidates:
        self.asked.append(trio.current_time())
        yield NoCandidate(host="h", port=1, reason=UpstreamFailure.UNKNOWN_HOST)


def test_down_after_so_many_failures_in_a_row() -> None:
    events: list[Event] = []
    health = UpstreamHealth(SETTINGS, Nowhere(), note=events.append)
    health.failed(FAILURE)
    health.connected()
    health.failed(FAILURE)
    assert not health.is_down
    health.failed(FAILURE)
    health.failed(FAILURE)
    assert health.is_down
    assert events == [attrs.evolve(FAILURE, refusing=True)]


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        *((reason, None) for reason in ("no-domain", "domain-not-allowed", "address-not-allowed", "loop")),
        ("other", "EMFILE"),
    ],
)
def test_what_a_client_asks_for_says_nothing_of_the_server(reason: str, code: str | None) -> None:
    health = UpstreamHealth(SETTINGS, Nowhere(), note=lambda event: None)
    for _ in range(9):
        health.failed(attrs.evolve(FAILURE, reason=UpstreamFailure(reason), errno=code))
    assert not health.is_down


async def test_probes_become_fewer(autojump_clock: MockClock) -> None:
    route = Nowhere()
    health = UpstreamHealth(SETTINGS, route, note=lambda event: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(health.probe)
        await trio.sleep(60)
        assert route.asked == []
        for _ in range(2):
            health.failed(FAILURE)
        await trio.sleep(20)
        assert [seconds - 60 for seconds in route.asked] == pytest.approx([1, 3, 7, 12, 17])
        nursery.cancel_scope.cancel()


@contextmanager
def listening(port: int = 0) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", port)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.mark.parametrize(
    ("version", "said"), [("none", b""), ("v1", b""), ("v2", b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")]
)
async def test_a_probe_says_whose_it_is_and_goes(version: UpstreamProxyProtocol, said: bytes) -> None:
    events: list[Event] = []
    settings = attrs.evolve(SETTINGS, proxy_protocol=version, probe_seconds_min=0.01, down_after_failures=1)
    with listening() as server, trio.fail_after(10):
        route = FixedRoute(server=HostPort("127.0.0.1", server.getsockname()[1]))
        health = UpstreamHealth(settings, route, note=events.append)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(health.probe)
            health.failed(FAILURE)
            await health.wait_up()
            await trio.lowlevel.wait_readable(server)
            with server.accept()[0] as probe:
                probe.setblocking(False)
                assert await receive_all(probe) == said
            nursery.cancel_scope.cancel()
    assert not health.is_down
    connected = events[-1]
    assert isinstance(connected, UpstreamConnected)
    assert connected.probe


def health_of(rig_port: int) -> tuple[FixedRoute, HealthSettings]:
    settings = attrs.evolve(SETTINGS, down_after_failures=1, probe_seconds_min=0.05, probe_seconds_max=0.05)
    return FixedRoute(server=HostPort("127.0.0.1", rig_port)), settings


async def fail_once(rig: Rig) -> None:
    """A client comes while the server is down."""
    with await rig.connect() as client:
        await send_all(client, b"<")
        assert await receive_all(client) == b""
    await rig.channel.wait_for(ConnectionClosed)


@pytest.mark.slow
async def test_while_the_server_is_down_connections_are_refused_by_the_system() -> None:
    """So a client goes on to the next of its servers, which it would not after a connection."""
    port, own = free_ports(2)
    route, settings = health_of(port)
    listen = ListenSettings(addresses=(ListenAddress("127.0.0.1", own),))
    with trio.fail_after(20):
        async with proxying(route=route, health=settings, listen=listen) as rig:
            await fail_once(rig)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", own))
            with socket.socket() as thief:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with pytest.raises(OSError, match="in use"):
                    thief.bind(("127.0.0.1", own))
            with listening(port) as server:
                await rig.channel.wait_for(UpstreamConnected)
                await trio.testing.wait_all_tasks_blocked()
                with await rig.connect() as client:
                    await send_all(client, b"<")
                    await trio.lowlevel.wait_readable(server)
                    server.accept()[0].close()  # the probe
                    await trio.lowlevel.wait_readable(server)
                    server.accept()[0].close()
            assert not rig.channel.of(ConnectionRefused)


@pytest.mark.slow
async def test_where_a_listener_cannot_be_shut_clients_are_turned_away() -> None:
    (port,) = free_ports(1)
    route, settings = health_of(port)
    with trio.fail_after(20):
        async with proxying(route=route, health=settings) as rig:  # at a port that the system chose
            await fail_once(rig)
            with await rig.connect() as client:
                assert await receive_all(client) == b""
            refused = await rig.channel.wait_for(ConnectionRefused)
            assert refused.reason is RefusalReason.UPSTREAM_DOWN
            with listening(port):
                connected = await rig.channel.wait_for(UpstreamConnected)
                assert connected.probe
