"""Capture files on the disk: a thread that appends, so that no session waits for it.

A file is made with mode 0600, once (``O_EXCL``), and only ever appended to; what is appended are whole lines. It is
open while a batch is written: thousands of sessions need no descriptors.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from xproxy.errors import FileProblem

_CLOSE_SECONDS_MAX: Final = 10.0  # at the end, for what is waiting


class CaptureStore:
    """Appends to files of one directory."""

    def __init__(self, directory: Path, *, queue_bytes_max: int, on_failure: Callable[[FileProblem], None]) -> None:
        """``on_failure`` is called once, in the thread; nothing is written from then on."""
        self._directory = directory
        self._queue_bytes_max = queue_bytes_max
        self._on_failure = on_failure
        self._lock = threading.Condition()
        self._waiting: dict[str, list[bytes]] = {}
        self._waiting_bytes = 0
        self._closing = False
        self._problem: FileProblem | None = None
        self._thread = threading.Thread(target=self._run, name="xproxy-capture", daemon=True)
        self._new: set[str] = set()  # of those that wait: files to be made

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

    def append(self, name: str, data: bytes, *, is_new: bool) -> bool:
        """Have ``data`` appended to the file ``name``, made if ``is_new``; False: no room, or the disk has failed."""
        with self._lock:
            if self._problem is not None or self._closing or self._waiting_bytes + len(data) > self._queue_bytes_max:
                return False
            self._waiting.setdefault(name, []).append(data)
            if is_new:
                self._new.add(name)
            self._waiting_bytes += len(data)
            self._lock.notify()
            return True

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
                while not self._waiting and not self._closing:
                    self._lock.wait()
                if not self._waiting:
                    return
                batch, self._waiting = self._waiting, {}
                new, self._new = self._new, set()
            for name, parts in batch.items():
                data = b"".join(parts)
                try:
                    self._write(name, data, is_new=name in new)
                except OSError as error:
                    self._fail(FileProblem.from_os_error(error, doing="write the capture", path=self._directory / name))
                    return
                with self._lock:
                    self._waiting_bytes -= len(data)

    def _write(self, name: str, data: bytes, *, is_new: bool) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        if is_new:
            flags |= os.O_CREAT | os.O_EXCL
        descriptor = os.open(self._directory / name, flags, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def _fail(self, problem: FileProblem) -> None:
        with self._lock:
            self._problem = problem
            self._waiting = {}
            self._waiting_bytes = 0
        self._on_failure(problem)
