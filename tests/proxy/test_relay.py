"""Bytes through a whole proxy on loopback sockets, with a core that forwards everything."""

import pytest
import trio

from tests.support.proxying import (
    proxying,
    receive_all,
    receive_exactly,
    send_all,
)
from xproxy.events.connection import (
    CloseCause,
    ConnectionClosed,
)
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
