"""Records on their way from the trio thread to the outputs: bounded, in order, none lost.

``put_nowait`` costs an append and, when the writer thread sleeps, a wake-up; it neither blocks nor drops, because a
turn of the relay must not be cut in the middle. What bounds the channel is the other end of the contract: **no leg is
read while ``is_full``**. Room above the high mark (``records_max - high_mark``) is for the turn that is under way.
Records in the writer thread's hands count until they are written, so an output that does not take them fills the
channel, and the traffic waits: a full disk is a stop, never a hole in the log.

The writer thread drains what is there in batches and gives each batch to every output in turn. After a batch it lingers
for ``LINGER_SECONDS``, so that under load there are few wake-ups, each with a large batch.

What an output may do:

* raise ``OSError``: said once on stderr (stdlib logging), then tried again with growing pauses until it works, which
  is said too. The output goes on exactly where it stopped (``Output``).
* raise ``OutputGone``: nobody will ever read it (a broken pipe). The output is given up, and ``on_fatal`` is called.

What is not here: durability. A record is *written* when the operating system has it.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import attrs
import trio

from xproxy.errors import EnvironmentProblem
from xproxy.log.filters import LevelFilter
from xproxy.record.recorder import Record

LINGER_SECONDS: Final = 0.005  # a record is on its way this much later at most; 200 wake-ups a second at most
BATCH_RECORDS_MAX: Final = 1_024  # about 1 MiB of JSON: what is held twice while it is written
RETRY_SECONDS_MIN: Final = 0.05
RETRY_SECONDS_MAX: Final = 2.0  # how soon a disk that has space again is noticed
CLOSE_SECONDS_MAX: Final = 10.0  # for the last records at the end; a stuck output must not keep the process for ever

logger = logging.getLogger(__name__)


class OutputGone(EnvironmentProblem):
    """An output has no reader any more and never will: a broken pipe, a lost terminal."""


class Output(Protocol):
    """Where records go. Only the writer thread calls it once the channel is started."""

    name: str  # for diagnostics: a path, "standard output"

    def take(self, records: Sequence[Record]) -> None:
        """Accept ``records``. Does no I/O, raises nothing."""

    def flush(self) -> None:
        """Write what was taken; return when the operating system has all of it.

        Raises:
            OSError: the rest is kept; the next call goes on exactly there.
            OutputGone: it is no use to try again.
        """

    def reopen(self) -> None:
        """Open the same path anew (log rotation). Raises OSError; then nothing has changed."""

    def close(self) -> None:
        """Let go of files and threads. Raises nothing."""


@attrs.define
class _Route:
    output: Output
    levels: LevelFilter
    is_gone: bool = False


@attrs.define
class _Reopen:
    done: trio.Event
    problem: OSError | None = None


class RecordChannel:
    """The way of the records. All methods are for the thread trio runs in, unless they say otherwise.

    ``put_nowait`` is for one thread, this or another: the journal's writer, where there is one.
    """

    def __init__(
        self,
        *,
        records_max: int,
        high_mark: int | None = None,
        on_fatal: Callable[[OutputGone], None] | None = None,
        retry_seconds_min: float = RETRY_SECONDS_MIN,
    ) -> None:
        """``high_mark``: default three quarters of ``records_max``.

        ``on_fatal`` is called in trio's thread when an output is gone; without trio, in the writer thread.
        """
        self.records_max = records_max
        self.high_mark = records_max * 3 // 4 if high_mark is None else high_mark
        assert 0 < self.high_mark <= records_max
        self._low_mark = self.high_mark // 2
        self._on_fatal = on_fatal
        self._retry_seconds_min = retry_seconds_min
        self._routes: list[_Route] = []
        self._queue: deque[Record] = deque()
        # Each counter has one writer: the trio thread or the writer thread.
        self._put_count = 0
        self._done_count = 0
        self._unwritten_count = 0
        self._problems: dict[str, str] = {}  # replaced, never changed: the trio thread reads it
        self._idle = True  # the writer thread waits for _awake, or is about to
        self._awake = threading.Event()
        self._closing = threading.Event()
        self._abandoned = False  # close() has run out of patience
        self._reopens: deque[_Reopen] = deque()
        self._token: trio.lowlevel.TrioToken | None = None
        self._room: trio.Event | None = None
        self._thread: threading.Thread | None = None

    def add_output(self, output: Output, levels: LevelFilter) -> None:
        """Add an output, before ``start``. Outputs are served in this order; the channel closes them."""
        assert self._thread is None
        self._routes.append(_Route(output, levels))

    def start(self) -> None:
        """Start the writer thread. Inside trio, ``wait_not_full`` and ``reopen`` work from then on."""
        assert self._thread is None
        if trio.lowlevel.in_trio_run():
            self._token = trio.lowlevel.current_trio_token()
        # Daemon: an output that blocks for ever must not keep the interpreter from ending; close() waits and reports.
        self._thread = threading.Thread(target=self._run, name="xproxy-log-writer", daemon=True)
        self._thread.start()

    def put_nowait(self, records: Sequence[Record]) -> None:
        """Hand over the records of one turn, in order. Never blocks, never drops."""
        self._queue.extend(records)
        self._put_count += len(records)
        if self._idle:
            self._idle = False
            self._awake.set()

    @property
    def waiting_count(self) -> int:
        """Records that are not written yet."""
        return self._put_count - self._done_count

    @property
    def problems(self) -> Mapping[str, str]:
        """Outputs that cannot be written now, and why."""
        return self._problems

    @property
    def is_full(self) -> bool:
        """True above the high mark: no leg is to be read."""
        return self._put_count - self._done_count > self.high_mark

    async def wait_not_full(self) -> None:
        """Return at once unless ``is_full``; else when half of what the high mark allows is written."""
        if not self.is_full:
            await trio.lowlevel.checkpoint()
            return
        assert self._token is not None, "started inside trio"
        while self.waiting_count > self._low_mark:
            if (room := self._room) is None:
                room = self._room = trio.Event()
            # The event is in place before the count is read again, and the writer thread counts before it looks for
            # the event: one of the two sees the other.
            if self.waiting_count <= self._low_mark:
                break
            await room.wait()

    async def reopen(self) -> None:
        """Reopen every output, between two batches.

        Raises: OSError, the first one met; that output goes on with the file it had.
        """
        assert self._token is not None, "started inside trio"
        request = _Reopen(done=trio.Event())
        self._reopens.append(request)
        self._idle = False
        self._awake.set()
        await request.done.wait()
        if request.problem is not None:
            raise request.problem

    def close(self, seconds_max: float = CLOSE_SECONDS_MAX) -> int:
        """Write what is left, close the outputs, end the thread. Blocks at most about ``seconds_max``.

        Returns how many records could not be written to some output; more than 0 has been said on stderr. Idempotent.
        """
        thread = self._thread
        if thread is None:
            return self.waiting_count
        self._closing.set()
        self._awake.set()
        thread.join(seconds_max)
        if thread.is_alive():
            self._abandoned = True
            thread.join(0.5)  # a retry in progress notices; a blocked write does not
        lost = self._unwritten_count + self.waiting_count
        if lost:
            logger.error("%d records could not be written before the end", lost)
        return lost

    # The writer thread.

    def _run(self) -> None:
        while True:
            if not self._turn():
                break
            if not self._queue and not self._closing.is_set():
                self._closing.wait(LINGER_SECONDS)
        for route in self._routes:
            if not route.is_gone:
                route.output.close()

    def _turn(self) -> bool:
        """Write the next batch, and let go of it before the next is waited for; False: there will be none."""
        batch = self._next_batch()
        self._serve_reopens()
        if not batch:
            return not self._closing.is_set() or bool(self._queue)
        routes = [route for route in self._routes if not route.is_gone]
        if not routes:
            self._unwritten_count += len(batch)
        for route in routes:
            wanted = [record for record in batch if route.levels.passes(record)]
            if wanted:
                self._write(route, wanted)
        self._done_count += len(batch)
        self._make_room()
        return True

    def _next_batch(self) -> list[Record]:
        """Return the next records; wait for some, for a reopen, or for the end (then it may be empty)."""
        queue = self._queue
        if not queue and not self._reopens and not self._closing.is_set():
            # Idle is announced before the queue is looked at again: a put in between sees it and wakes us.
            self._awake.clear()
            self._idle = True
            if not queue and not self._reopens and not self._closing.is_set():
                self._awake.wait()
            self._idle = False
        batch: list[Record] = []
        while queue and len(batch) < BATCH_RECORDS_MAX:
            batch.append(queue.popleft())
        return batch

    def _write(self, route: _Route, records: list[Record]) -> None:
        route.output.take(records)
        pause = self._retry_seconds_min
        failed = False
        while True:
            try:
                route.output.flush()
            except OutputGone as problem:
                self._give_up(route, problem, len(records))
                return
            except OSError as problem:
                if not failed:
                    failed = True
                    self._problems = {**self._problems, route.output.name: problem.strerror or str(problem)}
                    logger.error(
                        "cannot write log %s: %s; traffic waits until it can",
                        route.output.name,
                        problem.strerror or problem,
                    )
                if self._abandoned:
                    self._unwritten_count += len(records)
                    return
                # Woken early by a reopen or the end; the pause is for the disk's sake, not for order's.
                self._pause(pause)
                pause = min(pause * 2, RETRY_SECONDS_MAX)
                self._serve_reopens()
            else:
                if failed:
                    self._problems = {name: why for name, why in self._problems.items() if name != route.output.name}
                    logger.warning("log %s can be written again; nothing was lost", route.output.name)
                return

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._abandoned and not self._reopens and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))

    def _give_up(self, route: _Route, problem: OutputGone, lost: int) -> None:
        self._unwritten_count += lost
        route.is_gone = True
        route.output.close()
        logger.error("%s", problem)
        if self._on_fatal is not None:
            self._in_trio(self._on_fatal, problem)

    def _make_room(self) -> None:
        if (room := self._room) is not None and self.waiting_count <= self._low_mark:
            self._room = None
            self._in_trio(room.set)

    def _serve_reopens(self) -> None:
        while self._reopens:
            request = self._reopens.popleft()
            for route in self._routes:
                if route.is_gone:
                    continue
                try:
                    route.output.reopen()
                except OSError as problem:
                    request.problem = request.problem or problem
            self._in_trio(request.done.set)

    def _in_trio(self, function: Callable[..., object], *args: object) -> None:
        if self._token is None:
            function(*args)
            return
        with suppress(trio.RunFinishedError):  # nobody waits any more
            self._token.run_sync_soon(function, *args)
