"""Capture files on the disk: a thread that appends, so that no session waits for it.

A file is made with mode 0600, once (``O_EXCL``), and only ever appended to; what is appended are whole lines. It is
open while a batch is written: thousands of sessions need no descriptors.

What waits for the disk is bounded. What was in memory before, in a ring, is not counted once more: when an event
releases the rings of all sessions at once, that is the moment for which they were kept.

When the disk fails nothing is written from then on, but that each file whose session is not over says that it ends
there (``xproxy.capture.cutoff``), as far as there is room for that.
"""

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from xproxy.capture.cutoff import say_lost
from xproxy.errors import FileProblem

log = logging.getLogger(__name__)

_CLOSE_SECONDS_MAX: Final = 10.0  # at the end, for what is waiting

Reserve = Literal["ring", "last"]
"""What is taken although the queue is full: what a ring has kept, and the words that end a file."""

Taken = Literal["taken", "queue-full", "gone", "over"]
"""What became of octets to be written; gone: somebody has removed the file; over: nothing is written any more."""


class CaptureStore:
    """Appends to files of one directory."""

    def __init__(self, directory: Path, *, queue_bytes_max: int, on_failure: Callable[[FileProblem], None]) -> None:
        """``on_failure`` is called once, in the thread; nothing is written from then on."""
        self._directory = directory
        self._queue_bytes_max = queue_bytes_max
        self._on_failure = on_failure
        self._lock = threading.Condition()
        self._waiting: dict[str, list[bytes]] = {}
        self._waiting_bytes = 0  # of the queue
        self._released: dict[str, int] = {}  # octets of rings, by file
        self._closing = False
        self._problem: FileProblem | None = None
        self._thread = threading.Thread(target=self._run, name="xproxy-capture", daemon=True)
        self._new: set[str] = set()  # of those that wait: files to be made
        self._unfinished: set[str] = set()  # files that we made, and that do not have their end yet
        self._ended: set[str] = set()  # files for which nothing more comes
        self._batch: dict[str, list[bytes]] = {}  # is being written
        self._gone: set[str] = set()  # files that somebody has removed, or moved away, before they had their end
        self.released_bytes = 0
        """How much of rings waits to be written. Written under the lock, read without."""

    @classmethod
    def open(
        cls, directory: Path, *, queue_bytes_max: int, on_failure: Callable[[FileProblem], None]
    ) -> "CaptureStore":
        """Make the directory (0700) if it is not there, and start.

        Raises:
            FileProblem: it cannot be made or written to.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="make the directory of captures", path=directory) from error
        if not os.access(directory, os.W_OK | os.X_OK):
            raise FileProblem(
                f"cannot write to the directory of captures {directory}",
                "choose another, --capture DIR",
                path=directory,
            )
        store = cls(directory, queue_bytes_max=queue_bytes_max, on_failure=on_failure)
        store._thread.start()
        return store

    def append(self, name: str, data: bytes, *, is_new: bool, reserve: Reserve | None = None) -> Taken:
        """Have ``data`` appended to the file ``name``, made if ``is_new``."""
        with self._lock:
            if self._problem is not None or self._closing:
                return "over"
            if name in self._gone:
                return "gone"
            if reserve == "ring":
                self._released[name] = self._released.get(name, 0) + len(data)
                self.released_bytes += len(data)
            elif reserve is None and self._waiting_bytes + len(data) > self._queue_bytes_max:
                return "queue-full"
            else:
                self._waiting_bytes += len(data)
            self._waiting.setdefault(name, []).append(data)
            if is_new:
                self._new.add(name)
            self._lock.notify()
            return "taken"

    def ended(self, name: str) -> None:
        """Nothing more comes for the file ``name``."""
        with self._lock:
            self._ended.add(name)
            self._forget_finished()

    def _forget_finished(self) -> None:
        finished = {name for name in self._ended if name not in self._waiting and name not in self._batch}
        self._ended -= finished
        self._unfinished -= finished
        self._gone -= finished

    def finish(self) -> None:
        """Take no more; what waits is still written. Does not block."""
        with self._lock:
            self._closing = True
            self._lock.notify()

    def close(self) -> FileProblem | None:
        """Write what waits and end. Blocks, at most some seconds; return why not all of it is written."""
        self.finish()
        self._thread.join(_CLOSE_SECONDS_MAX)
        if self._thread.is_alive():
            return FileProblem(
                f"writing the end of the captures in {self._directory} took longer than {_CLOSE_SECONDS_MAX:.0f} s",
                "choose a faster one, --capture DIR",
                path=self._directory,
            )
        return self.problem

    @property
    def problem(self) -> FileProblem | None:
        """Return why something could not be written."""
        with self._lock:
            return self._problem

    def _run(self) -> None:
        while True:
            with self._lock:
                self._batch = {}
                self._forget_finished()
                while not self._waiting and not self._closing:
                    self._lock.wait()
                if not self._waiting:
                    return
                self._batch, self._waiting = self._waiting, {}
                released, self._released = self._released, {}
                new, self._new = self._new, set()
            for name, parts in self._batch.items():
                data = b"".join(parts)
                try:
                    self._write(name, data, is_new=name in new)
                except OSError as error:
                    if isinstance(error, FileNotFoundError) and name not in new and self._directory.is_dir():
                        self._is_gone(name)
                        continue
                    self._fail(FileProblem.from_os_error(error, doing="write the capture", path=self._directory / name))
                    return
                finally:
                    self._settle(len(data), released.get(name, 0))

    def _settle(self, size: int, of_ring: int) -> None:
        with self._lock:
            self._waiting_bytes -= size - of_ring
            self.released_bytes -= of_ring

    def _is_gone(self, name: str) -> None:
        with self._lock:
            self._gone.add(name)
            self._unfinished.discard(name)
        log.warning("the capture %s is not there any more; its session goes on without", self._directory / name)

    def _write(self, name: str, data: bytes, *, is_new: bool) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        if is_new:
            flags |= os.O_CREAT | os.O_EXCL
        descriptor = os.open(self._directory / name, flags, 0o600)
        if is_new:
            with self._lock:
                self._unfinished.add(name)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def _fail(self, problem: FileProblem) -> None:
        with self._lock:
            self._problem = problem
            self._waiting, self._released = {}, {}
            unfinished = sorted(self._unfinished)
        for name in unfinished:
            with suppress(FileProblem):  # the one that matters is told
                say_lost(self._directory / name, "disk")
        self._on_failure(problem)
