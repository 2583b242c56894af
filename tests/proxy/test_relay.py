"""Bytes through a whole proxy on loopback sockets, with a core that forwards everything."""

from pathlib import Path

import pytest
import trio

from tests.support.proxying import (
    PROCEED,
    STARTTLS,
    both_secured,
    certified,
    directly_secured,
    proxying,
    receive_all,
    receive_exactly,
    send_all,
)
from xproxy.events import Side
from xproxy.events.connection import (
    CloseCause,
    ConnectionClosed,
)
from xproxy.events.tls import TlsEstablished
from xproxy.proxy.plane import EpollPlane, WaitReadablePlane

PLANES = pytest.mark.parametrize("plane", [EpollPlane, WaitReadablePlane])


@PLANES
async def test_bytes_pass_both_ways(plane: type[EpollPlane]) -> None:
    async with proxying(plane=plane) as rig:
        client, server = await rig.pair()
        with client, server:
            await send_all(client, b"from the client")
            assert await receive_exactly(server, 15) == b"from the client"
            await send_all(server, b"from the server")
            assert await receive_exactly(client, 15) == b"from the server"
            client.close()
            with trio.fail_after(5):
                assert await receive_all(server) == b""
        closed = await rig.channel.wait_for(ConnectionClosed)
        assert closed.cause is CloseCause.CLIENT_ENDED
        assert closed.from_client.bytes == 16
        assert rig.channel.events[-1] is closed


@PLANES
async def test_starttls_on_both_legs(plane: type[EpollPlane], tmp_path: Path) -> None:
    tls = certified(tmp_path)
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
            legs = [event.leg for event in rig.channel.of(TlsEstablished)]
            assert legs == [Side.SERVER, Side.CLIENT]


@PLANES
async def test_direct_tls_on_both_legs(plane: type[EpollPlane], tmp_path: Path) -> None:
    tls = certified(tmp_path)
    async with proxying(plane=plane, contexts=tls.contexts) as rig:
        client, server = await directly_secured(rig, tls)
        with client, server:
            await send_all(client, b"from the client")
            assert await receive_exactly(server, 15) == b"from the client"
            await send_all(server, b"from the server")
            assert await receive_exactly(client, 15) == b"from the server"
