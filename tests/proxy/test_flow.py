"""What a session's task and the plane tell each other."""

import math
import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.proxy.test_plane import flow_of
from xproxy.proxy.flow import Flow


@pytest.fixture
def flow() -> Iterator[Flow]:
    one, other = socket.socketpair()
    with one, other:
        yield flow_of(one, other)


async def test_what_was_told_before_is_noticed_at_once_and_only_once(flow: Flow, autojump_clock: MockClock) -> None:
    flow.wake()
    await flow.news()
    assert trio.current_time() == 0
    await flow.news(7)
    assert trio.current_time() == pytest.approx(7)


@pytest.mark.parametrize(("first", "hurried", "waited"), [(math.inf, 5, 5), (20, 5, 5), (5, 20, 5), (5, -1, 0)])
async def test_a_wait_is_shortened_and_never_made_longer(
    flow: Flow, autojump_clock: MockClock, first: float, hurried: float, waited: float
) -> None:
    autojump_clock.autojump_threshold = math.inf
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow.news, first)
        await wait_all_tasks_blocked()
        flow.hurry(hurried)
        autojump_clock.autojump_threshold = 0
    assert trio.current_time() == pytest.approx(waited, abs=0.001)


async def test_nobody_is_hurried_who_does_not_wait(flow: Flow, autojump_clock: MockClock) -> None:
    await flow.news(3)
    flow.hurry(1)
    await flow.news(9)
    assert trio.current_time() == pytest.approx(12)
