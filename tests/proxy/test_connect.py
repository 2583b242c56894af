"""The connection to the server: which candidate it is, and why none came about."""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import trio
from trio.testing import MockClock

from xproxy.events.connection import ServerTls, UpstreamFailure, Via
from xproxy.proxy import connect
from xproxy.proxy.connect import ConnectFailed, open_upstream
from xproxy.proxy.route import Asked, Candidate, Candidates, NoCandidate

ASKED = Asked(direct=False, domain="xmpp.example")


class Places:
    """A route to these places, each after a pause of ``pause_seconds``."""

    needs_domain = False

    def __init__(self, *places: Candidate | NoCandidate, pause_seconds: float = 0) -> None:
        self.places = places
        self.pause_seconds = pause_seconds

    async def candidates(self, asked: Asked) -> Candidates:
        for place in self.places:
            await trio.sleep(self.pause_seconds)
            yield place


def candidate(address: str = "127.0.0.1", port: int = 5222, host: str = "xmpp.example") -> Candidate:
    return Candidate(host=host, address=address, port=port, tls=ServerTls.STARTTLS, via=Via.CONFIGURED)


@pytest.fixture
def listening() -> Iterator[Callable[[str], int]]:
    """Listen at an address; return the port."""
    with ExitStack() as stack:
        yield lambda address: stack.enter_context(socket.create_server((address, 0))).getsockname()[1]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> "Network":
    """Say what each address answers: an error at once, or success after so many seconds; see who was tried when."""

    def use(answers: dict[str, OSError | float]) -> list[tuple[str, float]]:
        begun: list[tuple[str, float]] = []
        said: dict[socket.socket, OSError | float] = {}

        def begin(sock: socket.socket, address: str, port: int) -> bool:
            begun.append((address, trio.current_time()))
            said[sock] = answers[address]
            return answers[address] == 0

        async def answered(sock: socket.socket) -> None:
            answer = said[sock]
            if isinstance(answer, OSError):
                raise answer
            await trio.sleep(answer)

        monkeypatch.setattr(connect, "begin", begin)
        monkeypatch.setattr(connect, "answered", answered)
        return begun

    return use


Network = Callable[[dict[str, OSError | float]], list[tuple[str, float]]]


async def test_a_plain_socket_that_does_not_block(listening: Callable[[str], int]) -> None:
    port = listening("127.0.0.1")
    connection = await open_upstream(Places(candidate(port=port)), ASKED, seconds_max=5)
    with connection.sock as sock:
        assert sock.getpeername() == ("127.0.0.1", port)
        assert sock.gettimeout() == 0.0
        assert 0 <= connection.seconds < 5


@pytest.mark.parametrize(
    ("raised", "reason", "code"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), UpstreamFailure.REFUSED, "ECONNREFUSED"),
        (OSError(errno.ENETUNREACH, "x"), UpstreamFailure.UNREACHABLE, "ENETUNREACH"),
        (TimeoutError(errno.ETIMEDOUT, "x"), UpstreamFailure.TIMEOUT, "ETIMEDOUT"),
        (OSError(errno.EMFILE, "x"), UpstreamFailure.OTHER, "EMFILE"),
    ],
)
async def test_each_failure_has_a_reason(
    network: Network, raised: OSError, reason: UpstreamFailure, code: str | None
) -> None:
    network({"192.0.2.1": raised})
    with pytest.raises(ConnectFailed) as failed:
        await open_upstream(Places(candidate("192.0.2.1")), ASKED, seconds_max=5)
    failure = failed.value.failure
    assert (failure.host, failure.port, failure.domain) == ("xmpp.example", 5222, "xmpp.example")
    assert (failure.reason, failure.errno, failure.tried) == (reason, code, 1)


async def test_what_an_address_says_in_words_counts_most(network: Network) -> None:
    network({"192.0.2.1": OSError(errno.ENETUNREACH, "x"), "192.0.2.2": OSError(errno.ECONNREFUSED, "x")})
    unknown = NoCandidate(host="gone.example", port=5222, reason=UpstreamFailure.UNKNOWN_HOST)
    with pytest.raises(ConnectFailed) as failed:
        await open_upstream(Places(unknown, candidate("192.0.2.1"), candidate("192.0.2.2")), ASKED, seconds_max=5)
    assert (failed.value.failure.reason, failed.value.failure.tried) == (UpstreamFailure.REFUSED, 2)


async def test_a_place_that_cannot_be_tried_says_why() -> None:
    place = NoCandidate(host="gone.example", port=5269, reason=UpstreamFailure.LOOKUP_FAILED)
    with pytest.raises(ConnectFailed) as failed:
        await open_upstream(Places(place), ASKED, seconds_max=5)
    failure = failed.value.failure
    assert (failure.host, failure.port, failure.reason, failure.tried) == (
        "gone.example",
        5269,
        UpstreamFailure.LOOKUP_FAILED,
        0,
    )


async def test_silence_has_a_limit(network: Network, autojump_clock: MockClock) -> None:
    network({"192.0.2.1": 1e9})
    with pytest.raises(ConnectFailed) as failed:
        await open_upstream(Places(candidate("192.0.2.1")), ASKED, seconds_max=8)
    assert failed.value.failure.reason is UpstreamFailure.TIMEOUT
    assert failed.value.failure.seconds == pytest.approx(8)


async def test_the_limit_holds_for_looking_up_as_well(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectFailed) as failed:
        await open_upstream(Places(candidate(), pause_seconds=60), ASKED, seconds_max=8)
    failure = failed.value.failure
    assert (failure.reason, failure.host, failure.tried) == (UpstreamFailure.LOOKUP_TIMEOUT, "xmpp.example", 0)
    assert failure.seconds == pytest.approx(8)


async def test_the_next_one_is_tried_after_a_quarter_of_a_second_of_silence(
    network: Network, autojump_clock: MockClock
) -> None:
    begun = network({"192.0.2.1": 1e9, "192.0.2.2": 1e9, "192.0.2.3": 0.1})
    connection = await open_upstream(
        Places(*(candidate(f"192.0.2.{number}") for number in (1, 2, 3))), ASKED, seconds_max=8
    )
    connection.sock.close()
    assert connection.candidate.address == "192.0.2.3"
    assert [seconds for _, seconds in begun] == pytest.approx([0, 0.25, 0.5])
    assert connection.seconds == pytest.approx(0.6)


async def test_the_first_one_still_wins_when_it_answers_in_time(network: Network, autojump_clock: MockClock) -> None:
    network({"192.0.2.1": 0.4, "192.0.2.2": 1e9})
    connection = await open_upstream(Places(candidate("192.0.2.1"), candidate("192.0.2.2")), ASKED, seconds_max=8)
    connection.sock.close()
    assert connection.candidate.address == "192.0.2.1"


async def test_a_failure_leads_on_at_once(network: Network, autojump_clock: MockClock) -> None:
    begun = network({"192.0.2.1": OSError(errno.ECONNREFUSED, "x"), "2001:db8::1": 0.1})
    connection = await open_upstream(Places(candidate("192.0.2.1"), candidate("2001:db8::1")), ASKED, seconds_max=8)
    connection.sock.close()
    assert begun == [("192.0.2.1", pytest.approx(0)), ("2001:db8::1", pytest.approx(0))]


async def test_who_answers_at_once_has_won_whatever_is_under_way(network: Network, autojump_clock: MockClock) -> None:
    begun = network({"192.0.2.1": 1e9, "192.0.2.2": 0, "192.0.2.3": 0})
    connection = await open_upstream(
        Places(*(candidate(f"192.0.2.{number}") for number in (1, 2, 3))), ASKED, seconds_max=8
    )
    connection.sock.close()
    assert connection.candidate.address == "192.0.2.2"
    assert [address for address, _ in begun] == ["192.0.2.1", "192.0.2.2"]
    assert connection.seconds == pytest.approx(0.25)


async def test_a_failure_that_is_known_at_once(listening: Callable[[str], int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectFailed) as failed:
        await open_upstream(Places(candidate(port=port), candidate(port=port)), ASKED, seconds_max=5)
    assert (failed.value.failure.reason, failed.value.failure.tried) == (UpstreamFailure.REFUSED, 2)


async def test_a_real_failover(listening: Callable[[str], int]) -> None:
    port = listening("127.0.0.2")
    connection = await open_upstream(
        Places(candidate("127.0.0.1", port), candidate("127.0.0.2", port)), ASKED, seconds_max=5
    )
    with connection.sock as sock:
        assert sock.getpeername() == ("127.0.0.2", port)
