"""JSON Lines to a file or to standard output.

A batch is one ``write``. What the system did not take stays in ``_pending`` with the count of octets it did take, so a
line that was written in part is continued at exactly the next octet. A line is only ever repeated as a whole, and only
where the file it was begun in could not take its end (full disk) and was then exchanged by ``reopen``.
"""

import errno
import os
import select
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from xproxy.errors import FileProblem
from xproxy.log.channel import OutputGone
from xproxy.record.recorder import Record

STANDARD_OUTPUT: Final = "-"
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
_MODE: Final = 0o600  # on creation; a file that exists keeps its mode

Write = Callable[[int, memoryview], int]


class JsonLinesFile:
    """An ``Output`` of one JSON document a line. Appends; creates the file for its owner alone."""

    def __init__(self, path: Path | str, *, write: Write = os.write) -> None:
        """Open ``path``; "-" is standard output, which is never closed. ``write`` is ``os.write`` or a test's.

        Raises: FileProblem.
        """
        self._path = None if str(path) == STANDARD_OUTPUT else Path(path)
        self._system_write = write
        self._pending = b""
        self._written_bytes = 0  # of _pending
        self.name = "standard output" if self._path is None else str(self._path)
        if self._path is None:
            self._descriptor = 1
            return
        try:
            self._descriptor = self._open(self._path)
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="open the log file", path=self._path) from error

    def take(self, records: Sequence[Record]) -> None:
        """Accept ``records`` as lines."""
        lines = b"".join([record.to_json() for record in records])
        self._pending = self._pending[self._written_bytes :] + lines if self._pending else lines
        self._written_bytes = 0

    def flush(self) -> None:
        """Write what was taken. Raises OSError (the rest is kept), OutputGone for a pipe without reader."""
        try:
            self._write_until(len(self._pending))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise OutputGone(
                    f"cannot write log {self.name}: nobody reads it any more", "keep its reader running"
                ) from error
            raise
        self._pending, self._written_bytes = b"", 0

    def reopen(self) -> None:
        """Open the path anew and let go of the old file. Raises OSError; then the old file stays in use."""
        if self._path is None:
            return
        descriptor = self._open(self._path)
        self._finish_line()
        os.close(self._descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Close the file. What was taken and not flushed is lost."""
        if self._path is not None and self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = -1

    def _open(self, path: Path) -> int:
        descriptor = os.open(path, _FLAGS | os.O_NONBLOCK, _MODE)  # a FIFO that nobody reads would be waited for
        try:
            os.set_blocking(descriptor, True)
            if _ends_within_a_line(path, descriptor):
                # Left by a crash or a full disk: our first line must not be glued to it.
                self._system_write(descriptor, memoryview(b"\n"))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _write_until(self, end: int) -> None:
        view = memoryview(self._pending)
        while self._written_bytes < end:
            try:
                self._written_bytes += self._system_write(self._descriptor, view[self._written_bytes : end])
            except BlockingIOError:
                # Standard output can be non-blocking by someone else's doing; it is full, not broken.
                select.select([], [self._descriptor], [], 1.0)

    def _finish_line(self) -> None:
        """End the line that was begun in the old file there, or take it back as a whole."""
        done = self._written_bytes
        if done == 0 or self._pending[done - 1 : done] == b"\n":
            return
        try:
            self._write_until(self._pending.index(b"\n", done) + 1)
        except OSError:
            self._written_bytes = self._pending.rfind(b"\n", 0, done) + 1


def _ends_within_a_line(path: Path, descriptor: int) -> bool:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return False
    try:
        reader = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # we may append and not read: then we cannot know
    try:
        return os.pread(reader, 1, status.st_size - 1) != b"\n"
    finally:
        os.close(reader)
