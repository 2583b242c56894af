"""The TCP connection to the server: the first candidate that answers, as RFC 8305 (happy eyeballs) has it.

The next candidate is tried when one has failed, at once, or after 250 ms of silence; the others go on meanwhile. One
deadline holds for everything, name look-ups included: clients give up as well, and an answer behind that is for nobody.
"""

import contextlib
import errno
import os
import select
import socket
from typing import Final, Self

import attrs
import trio

from xproxy.events.connection import UpstreamFailed, UpstreamFailure
from xproxy.proxy.route import Asked, Candidate, Candidates, NoCandidate, Route

ATTEMPT_DELAY_SECONDS: Final = 0.25
"""RFC 8305 section 5: the recommended Connection Attempt Delay."""

_UNSENT_BYTES: Final = 16_384
"""More than this the kernel does not take for a server that reads slowly: its client feels it, and no buffer grows."""

_UNREACHABLE: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL, errno.EACCES}
)


@attrs.frozen(kw_only=True)
class Connection:
    """A connection to the server. Whoever gets it closes ``sock``."""

    sock: socket.socket  # does not block
    candidate: Candidate
    seconds: float  # from the first look-up to the connection

    def for_client(self, asked: Asked, route: Route) -> Self:
        """Return it for a client of which it was not known, when we connected, whether it begins with TLS."""
        tls = route.server_tls(direct=asked.direct)
        return attrs.evolve(self, candidate=attrs.evolve(self.candidate, tls=tls))


@attrs.define(eq=False)
class ConnectFailed(Exception):  # noqa: N818 - a fact for the session's task, which records it
    """No connection came about."""

    failure: UpstreamFailed


async def open_upstream(route: Route, asked: Asked, *, seconds_max: float) -> Connection:
    """Connect to the first server of ``route`` that answers.

    Raises:
        ConnectFailed: none answered within ``seconds_max``.
    """
    begun = trio.current_time()
    race = _Race(route, asked)
    try:
        with trio.move_on_after(seconds_max) as deadline:
            await race.run()
    except BaseException:
        race.close()
        raise
    seconds = trio.current_time() - begun
    if race.winner is None:
        raise ConnectFailed(race.failure(too_slow=deadline.cancelled_caught, seconds=seconds))
    sock, candidate = race.winner
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with contextlib.suppress(OSError):  # gone again; asking for its name will say so
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    return Connection(sock=sock, candidate=candidate, seconds=seconds)


def begin(sock: socket.socket, address: str, port: int) -> bool:
    """Begin to connect ``sock``, which does not block; tell whether it stands already. Raises OSError."""
    code = sock.connect_ex((address, port))
    if code == errno.EINPROGRESS:
        # Also where the server is on this machine and has answered before the call returned: so it is asked for.
        if not _has_answer(sock):
            return False
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    return True


async def answered(sock: socket.socket) -> None:
    """Return when ``sock``, which has begun to connect, is connected. Raises OSError."""
    await trio.lowlevel.wait_writable(sock)
    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(code, os.strerror(code))


def _has_answer(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(0))


_Begun = tuple[socket.socket, Candidate]


class _Race:
    """The attempts of one session."""

    def __init__(self, route: Route, asked: Asked) -> None:
        self._route = route
        self._asked = asked
        self._tried: list[Candidate] = []
        self._errors: list[OSError] = []
        self._untried: list[NoCandidate] = []
        self.winner: _Begun | None = None

    async def run(self) -> None:
        """Return when one attempt has won or all have failed. Cancelled, nothing is left open but a winner."""
        async with contextlib.aclosing(self._route.candidates(self._asked)) as candidates:
            # With a server on this machine that is all, and nobody need be told to go on meanwhile.
            if (begun := await self._begin_next(candidates)) is None:
                return
            async with trio.open_nursery() as nursery:
                while begun is not None:
                    ended = trio.Event()
                    nursery.start_soon(self._attempt, *begun, ended, nursery.cancel_scope)
                    with trio.move_on_after(ATTEMPT_DELAY_SECONDS):
                        await ended.wait()
                    begun = await self._begin_next(candidates)
                if self.winner is not None:
                    nursery.cancel_scope.cancel()

    async def _begin_next(self, candidates: Candidates) -> _Begun | None:
        """Begin to connect to the next candidate; None: there is none that would have to be waited for."""
        async for candidate in candidates:
            if self.winner is not None:
                return None
            if isinstance(candidate, NoCandidate):
                self._untried.append(candidate)
                continue
            self._tried.append(candidate)
            try:
                sock = socket.socket(socket.AF_INET6 if ":" in candidate.address else socket.AF_INET)
                try:
                    sock.setblocking(False)
                    stands = begin(sock, candidate.address, candidate.port)
                except BaseException:
                    sock.close()
                    raise
            except OSError as error:
                self._errors.append(error)
                continue
            if not stands:
                return sock, candidate
            self.winner = sock, candidate
            return None
        return None

    async def _attempt(
        self, sock: socket.socket, candidate: Candidate, ended: trio.Event, race: trio.CancelScope
    ) -> None:
        try:
            await answered(sock)
        except OSError as error:
            sock.close()
            self._errors.append(error)
            ended.set()
            return
        except BaseException:
            sock.close()
            raise
        if self.winner is not None:  # two answered in the same moment
            sock.close()
            return
        self.winner = sock, candidate
        race.cancel()

    def close(self) -> None:
        """Nobody wants the winner any more."""
        if self.winner is not None:
            self.winner[0].close()

    def failure(self, *, too_slow: bool, seconds: float) -> UpstreamFailed:
        """Return what became of it all: what a server said in so many words counts most."""
        reason, code = self._reason(too_slow=too_slow)
        places: list[Candidate | NoCandidate] = [*self._tried, *self._untried]
        host, port = (places[0].host, places[0].port) if places else (self._asked.domain or "", 0)
        return UpstreamFailed(
            host=host,
            port=port,
            reason=reason,
            errno=code,
            seconds=seconds,
            domain=self._asked.domain,
            tried=len(self._tried),
        )

    def _reason(self, *, too_slow: bool) -> tuple[UpstreamFailure, str | None]:
        codes = [error.errno for error in self._errors if error.errno is not None]
        names = [errno.errorcode.get(code, str(code)) for code in codes]
        if errno.ECONNREFUSED in codes:  # one address said so in words; another of the host may just be off
            return UpstreamFailure.REFUSED, "ECONNREFUSED"
        if too_slow:
            return (UpstreamFailure.TIMEOUT if self._tried else UpstreamFailure.LOOKUP_TIMEOUT), None
        if errno.ETIMEDOUT in codes:
            return UpstreamFailure.TIMEOUT, "ETIMEDOUT"
        if _UNREACHABLE.intersection(codes):
            return UpstreamFailure.UNREACHABLE, names[0]
        if self._untried and not self._errors:
            return self._untried[0].reason, None
        return UpstreamFailure.OTHER, names[0] if names else None
