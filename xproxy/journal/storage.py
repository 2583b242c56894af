"""The seam between the journal and the file system: everything the journal asks of a disk, and nothing else.

It is a seam so that a test can say no at any of these calls, or forget what was not synced (tests/support/disk.py). The
rules the journal keeps are in terms of it:

* ``write`` takes all or raises; what it took may be lost by a crash of the machine until ``sync`` has returned.
* After any ``OSError`` of an ``AppendFile`` nothing more is asked of that file but ``close``: after a failed fsync the
  kernel may have dropped the pages and call them clean, and a second fsync would lie.
* A new name is lost by a crash of the machine until ``sync_directory`` has returned; so is a ``replace``, which is
  otherwise all or nothing.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import attrs

from xproxy import system

_HAS_ALLOCATION: Final = system.offers(os, "posix_fallocate")
_FILL_BYTES: Final = 1_048_576
_NO_ALLOCATION: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@attrs.frozen
class Space:
    """How full a file system is."""

    total_bytes: int
    free_bytes: int  # for us: without what is kept for root

    @property
    def used_percent(self) -> float:
        """As df counts: of what we may use."""
        return 100.0 * (1 - self.free_bytes / self.total_bytes) if self.total_bytes else 0.0


class AppendFile(Protocol):
    """A file that is written once, at its end. Every method but ``close`` may raise OSError."""

    def write(self, data: bytes) -> None:
        """Append all of ``data``, or raise; a part of it may be in the file then."""

    def sync(self) -> None:
        """Return when what was written survives a crash of the machine."""

    def allocate(self, offset: int, length: int) -> None:
        """Make room for ``length`` octets from ``offset`` on, zeros as long as they are not written."""

    def truncate(self, size: int) -> None:
        """Cut the file."""

    def close(self) -> None:
        """Let go of it. Raises nothing: what mattered was synced."""


class Storage(Protocol):
    """A file system. Every method may raise OSError."""

    def make_directory(self, path: Path) -> None:
        """Make ``path`` (0700) unless it is there."""

    def names(self, path: Path) -> list[str]:
        """Return the names in a directory."""

    def read(self, path: Path) -> bytes:
        """Return all of a file."""

    def create(self, path: Path) -> AppendFile:
        """Make a file (0600) that is not there yet."""

    def sync_file(self, path: Path) -> None:
        """Return when a file that is there, whoever wrote it, survives a crash of the machine (fsync)."""

    def replace(self, source: Path, target: Path) -> None:
        """Give ``source`` the name ``target``; what had it is gone."""

    def remove(self, path: Path) -> None:
        """Remove a file."""

    def sync_directory(self, path: Path) -> None:
        """Return when the names in ``path`` survive a crash of the machine."""

    def space(self, path: Path) -> Space:
        """Return how full the file system of ``path`` is."""


class Disk:
    """The real ``Storage``."""

    def make_directory(self, path: Path) -> None:
        """Make ``path``."""
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)

    def names(self, path: Path) -> list[str]:
        """Return the names in a directory."""
        return os.listdir(path)

    def read(self, path: Path) -> bytes:
        """Return all of a file."""
        return path.read_bytes()

    def create(self, path: Path) -> "DiskFile":
        """Make a file."""
        # No O_APPEND: pwrite would ignore its offset (pwrite(2), "Bugs") and land behind the room made ahead.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return DiskFile(os.open(path, flags, 0o600))

    def sync_file(self, path: Path) -> None:
        """Sync a file that is there."""
        _sync(path, os.O_RDONLY)

    def replace(self, source: Path, target: Path) -> None:
        """Rename."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        """Sync a directory."""
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def space(self, path: Path) -> Space:
        """Ask the file system."""
        found = os.statvfs(path)
        usable = found.f_blocks - found.f_bfree + found.f_bavail
        return Space(usable * found.f_frsize, found.f_bavail * found.f_frsize)


class Guarded:
    """A ``Storage`` in which nothing is made, renamed or removed by name before ``check`` has agreed to it."""

    def __init__(self, storage: Storage, check: Callable[[], None]) -> None:
        """``check`` raises OSError where what is named is not ours any more."""
        self._storage = storage
        self._check = check

    def make_directory(self, path: Path) -> None:
        """Make ``path``."""
        self._check()
        self._storage.make_directory(path)

    def names(self, path: Path) -> list[str]:
        """Return the names in a directory."""
        return self._storage.names(path)

    def read(self, path: Path) -> bytes:
        """Return all of a file."""
        return self._storage.read(path)

    def create(self, path: Path) -> AppendFile:
        """Make a file."""
        self._check()
        return self._storage.create(path)

    def sync_file(self, path: Path) -> None:
        """Sync a file that is there."""
        self._storage.sync_file(path)

    def replace(self, source: Path, target: Path) -> None:
        """Rename."""
        self._check()
        self._storage.replace(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        self._check()
        self._storage.remove(path)

    def sync_directory(self, path: Path) -> None:
        """Sync a directory."""
        self._storage.sync_directory(path)

    def space(self, path: Path) -> Space:
        """Ask the file system."""
        return self._storage.space(path)


class DiskFile:
    """The real ``AppendFile``."""

    __slots__ = ("_can_allocate", "_descriptor", "_end")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end = 0
        self._can_allocate = True

    def write(self, data: bytes) -> None:
        """Write at the end of what was written: room made ahead lies behind it."""
        written = os.pwrite(self._descriptor, data, self._end)
        self._end += written
        if written != len(data):
            # A regular file takes less only when there is no more room for the rest.
            raise OSError(errno.ENOSPC, f"only {written} of {len(data)} octets were written")

    def sync(self) -> None:
        """Sync."""
        system.sync_data(self._descriptor)

    def allocate(self, offset: int, length: int) -> None:
        """Make room, where the file system can."""
        if not self._can_allocate:
            return
        try:
            if _HAS_ALLOCATION:
                os.posix_fallocate(self._descriptor, offset, length)
            else:
                self._fill(offset + length)
        except OSError as error:
            if error.errno not in _NO_ALLOCATION:
                raise
            self._can_allocate = False

    def _fill(self, end: int) -> None:
        """Write zeros from the end of the file on: what was written is on the disk, where nothing else makes room."""
        at = os.fstat(self._descriptor).st_size
        while at < end:
            at += os.pwrite(self._descriptor, bytes(min(end - at, _FILL_BYTES)), at)

    def truncate(self, size: int) -> None:
        """Cut."""
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        """Close."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = -1


def write_whole(storage: Storage, path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` at once: after a crash there is the old file or the new one. Raises OSError."""
    temporary = path.with_name(f"{path.name}.new")
    with suppress(FileNotFoundError):
        storage.remove(temporary)  # of a process that died here
    file = storage.create(temporary)
    try:
        file.write(data)
        file.sync()
    finally:
        file.close()
    storage.replace(temporary, path)
    storage.sync_directory(path.parent)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        system.sync(descriptor)
    finally:
        os.close(descriptor)
