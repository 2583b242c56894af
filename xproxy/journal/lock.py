"""One writer: a lock on the journal that names who has it.

The lock is flock(2) on ``lock``, so it ends with its process however that ends. What is written in the file is for the
message only. The file is never removed: two processes could then hold locks on two files of the same name.

That comes to pass where somebody removes or moves the whole directory under a running proxy, and another is started in
its place. The first one's descriptors then belong to files without a name, and everything it does by name would be done
to the other's journal: ``check_place`` is asked before each of those (storage.py, ``Guarded``).
"""

import errno
import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from xproxy.errors import FileProblem
from xproxy.journal.format import LOCK_FILE


class JournalLocked(FileProblem):
    """Another process writes this journal."""


class WriterLock:
    """The lock while it is held."""

    __slots__ = ("_descriptor", "_directory", "_place")

    def __init__(self, descriptor: int, directory: Path, place: int) -> None:
        self._descriptor = descriptor
        self._directory = directory
        self._place = place  # descriptor of the directory: as long as it is open, no other has its inode number

    @classmethod
    def take(cls, directory: Path, *, now: datetime) -> "WriterLock":
        """Take the lock of the journal in ``directory``.

        Raises:
            JournalLocked: somebody has it; the message says who.
            FileProblem: the file cannot be used.
        """
        path = directory / LOCK_FILE
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                os.close(descriptor)
                raise
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="open the lock", path=path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = describe_holder(path)
            os.close(descriptor)
            os.close(place)
            raise JournalLocked(
                f"the journal {directory} is being written by {holder}",
                "stop it first, or give this one a directory of its own with --state DIR",
                path=path,
            ) from None
        except OSError as error:
            os.close(descriptor)
            os.close(place)
            raise FileProblem.from_os_error(error, doing="lock", path=path) from error
        # The message only: that it cannot be written (a full disk) is no reason to refuse.
        text = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": now.astimezone(UTC).isoformat("T", "seconds"),
        }
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(text).encode() + b"\n", 0)
        except OSError:
            pass
        return cls(descriptor, directory, place)

    def check_place(self) -> None:
        """See that what stands at the journal's path is still the directory that was locked.

        Raises:
            OSError: ENOENT where there is none, ESTALE where it is another.
        """
        there, ours = os.stat(self._directory), os.fstat(self._place)
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise OSError(errno.ESTALE, "another directory stands in its place", str(self._directory))

    def release(self) -> None:
        """Let somebody else write. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            os.close(self._place)
        self._descriptor = self._place = -1


def describe_holder(path: Path) -> str:
    """Return who holds the lock ``path``, as far as he has said so."""
    try:
        holder = json.loads(path.read_bytes())
        return f"process {int(holder['pid'])} on {holder['host']!s:.100} since {holder['since']!s:.40}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
