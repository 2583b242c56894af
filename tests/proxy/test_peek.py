"""A stream header is looked at and stays where it is."""

import socket

import pytest
import trio

from tests.support.dialogue import DECLARED_HEADER
from tests.support.proxying import send_all
from xproxy import system
from xproxy.proxy.peek import HeaderCut, Opening, OpeningRefused, peek_opening

HEADER = DECLARED_HEADER.encode()


@pytest.fixture(params=["kernel", "portable"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's way of waiting for more, and the one that does without."""
    if request.param == "portable":
        monkeypatch.setattr(system, "WAKES_AT_LOW_MARK", False)


Ends = tuple[socket.socket, socket.socket]


async def test_nothing_is_taken(ends: Ends) -> None:
    client, ours = ends
    await send_all(client, HEADER + b"<auth/>")
    assert await peek_opening(ours, bytes_max=8_192) == Opening("example.org")
    assert ours.recv(65_536) == HEADER + b"<auth/>"
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


async def test_octet_by_octet(ends: Ends) -> None:
    client, ours = ends
    found: list[Opening] = []

    async def look() -> None:
        found.append(await peek_opening(ours, bytes_max=8_192))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            for octet in HEADER:
                assert not found
                client.send(bytes((octet,)))
                await trio.testing.wait_all_tasks_blocked()
    assert found == [Opening("example.org")]


@pytest.mark.parametrize("sent", [b"", b"<", HEADER[:-1]])
async def test_an_end_within_the_header(ends: Ends, sent: bytes) -> None:
    client, ours = ends
    await send_all(client, sent)
    client.close()
    with trio.fail_after(5), pytest.raises(HeaderCut) as cut:
        await peek_opening(ours, bytes_max=8_192)
    assert cut.value.ended


@pytest.mark.parametrize("filler", [b"a", b">", b" "])
async def test_a_header_that_does_not_end(ends: Ends, filler: bytes) -> None:
    client, ours = ends
    await send_all(client, b"<s to='" + filler * 8_192)
    with trio.fail_after(5), pytest.raises(HeaderCut) as cut:
        await peek_opening(ours, bytes_max=8_192)
    assert not cut.value.ended
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


async def test_a_header_of_just_the_limit(ends: Ends) -> None:
    client, ours = ends
    header = b"<s to='a' b='"
    header += b"x" * (1_000 - len(header) - 2) + b"'>"
    await send_all(client, header)
    assert await peek_opening(ours, bytes_max=1_000) == Opening("a")


async def test_what_is_no_header(ends: Ends) -> None:
    client, ours = ends
    await send_all(client, b"<!DOCTYPE a>")
    with trio.fail_after(5), pytest.raises(OpeningRefused):
        await peek_opening(ours, bytes_max=8_192)
