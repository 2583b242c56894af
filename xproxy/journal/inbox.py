"""Records on their way from the trio thread to one writer thread: bounded, in order, none lost.

``put_nowait`` costs an append and, when the writer sleeps, a wake-up; it neither blocks nor drops, because a turn of
the relay must not be cut in the middle. What bounds it is the other end of the contract: no leg is read while
``is_full``.
Records count until the writer says ``done``.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import trio

from xproxy.record.recorder import Record


class Inbox:
    """The queue. Methods are for the trio thread, or for the writer where they say so."""

    def __init__(self, *, records_max: int) -> None:
        self.records_max = records_max
        self.high_mark = records_max * 3 // 4
        self._low_mark = self.high_mark // 2
        self._queue: deque[Record] = deque()
        # Each counter has one writer: the trio thread or the writer thread.
        self._put_count = 0
        self._done_count = 0
        self._idle = False  # the writer waits, or is about to
        self._awake = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._room: trio.Event | None = None

    def attach(self) -> None:
        """Inside trio: ``wait_not_full`` works from then on."""
        if trio.lowlevel.in_trio_run():
            self._token = trio.lowlevel.current_trio_token()

    def put_nowait(self, records: Sequence[Record]) -> None:
        """Hand over records, in order. Never blocks, never drops."""
        self._queue.extend(records)
        self._put_count += len(records)
        if self._idle:
            self._idle = False
            self._awake.set()

    def wake(self) -> None:
        """Make ``wait`` return. From any thread."""
        self._idle = False
        self._awake.set()

    @property
    def waiting_count(self) -> int:
        """Records that the writer is not done with."""
        return self._put_count - self._done_count

    @property
    def is_full(self) -> bool:
        """True above the high mark: no leg is to be read."""
        return self._put_count - self._done_count > self.high_mark

    async def wait_not_full(self) -> None:
        """Return at once unless ``is_full``; else when half of what the high mark allows is done."""
        if not self.is_full:
            await trio.lowlevel.checkpoint()
            return
        assert self._token is not None, "attached inside trio"
        while self.waiting_count > self._low_mark:
            if (room := self._room) is None:
                room = self._room = trio.Event()
            # The event is in place before the count is read again, and the writer counts before it looks for the
            # event: one of the two sees the other.
            if self.waiting_count <= self._low_mark:
                break
            await room.wait()

    # The writer thread.

    @property
    def is_empty(self) -> bool:
        """Writer: whether nothing waits to be taken."""
        return not self._queue

    def wait(self, seconds: float) -> None:
        """Writer: return when there is something to take, after ``wake``, or after ``seconds``."""
        if self._queue:
            return
        # Idle is announced before the queue is looked at again: a put in between sees it and wakes us.
        self._idle = True
        if not self._queue:
            self._awake.wait(seconds)
        self._idle = False
        self._awake.clear()

    def take(self, count_max: int) -> list[Record]:
        """Writer: return what is there, at most ``count_max``."""
        queue = self._queue
        if len(queue) <= count_max:
            # Only this thread takes, so what is counted now is there.
            return [queue.popleft() for _ in range(len(queue))]
        return [queue.popleft() for _ in range(count_max)]

    def done(self, count: int) -> None:
        """Writer: ``count`` records are out of our hands."""
        self._done_count += count
        if (room := self._room) is not None and self.waiting_count <= self._low_mark:
            self._room = None
            self.in_trio(room.set)

    def in_trio(self, function: Callable[..., object], *args: object) -> None:
        """Writer: call ``function`` in trio's thread; here, without trio."""
        if self._token is None:
            function(*args)
            return
        with suppress(trio.RunFinishedError):  # nobody waits any more
            self._token.run_sync_soon(function, *args)
