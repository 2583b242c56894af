"""A disk in memory that can fail at any call, forget what was not synced, and be full."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import attrs

from xproxy.journal.storage import Space

SECTOR = 512
"""What a disk writes whole or not at all."""


class Crash(BaseException):
    """The process, or the machine, ends here."""


@attrs.frozen
class Fault:
    """How a call fails. ``taken``: the part of a write that comes down nevertheless."""

    error: int = errno.EIO
    taken: float = 0.0
    crash: bool = False

    def raise_(self, path: Path) -> None:
        """Fail."""
        if self.crash:
            raise Crash(str(path))
        raise OSError(self.error, os.strerror(self.error), str(path))


@attrs.define(eq=False)
class _Inode:
    content: bytearray = attrs.Factory(bytearray)
    synced: bytes = b""


Plan = Callable[[int, str, Path], Fault | None]
"""Is asked at each call: its number from 1, what it is, of which file."""


class MemoryDisk:
    """A ``Storage``. Files by path; directories are there when they were made."""

    def __init__(self, *, capacity_bytes: int = 1 << 30) -> None:
        self.files: dict[Path, _Inode] = {}
        self.durable: dict[Path, _Inode] = {}  # names that were synced
        self._undone: list[tuple[Path, Path | None, _Inode | None]] = []  # what was done to names since: see power_cut
        self.directories: set[Path] = set()
        self.capacity_bytes = capacity_bytes
        self.calls = 0
        self.log: list[str] = []
        self.plan: Plan | None = None

    # Storage

    def make_directory(self, path: Path) -> None:
        self.enter("mkdir", path)
        self.directories.add(path)

    def names(self, path: Path) -> list[str]:
        if path not in self.directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(path))
        inner = [*self.files, *self.directories]
        return [each.name for each in inner if each.parent == path]

    def read(self, path: Path) -> bytes:
        return bytes(self._find(path).content)

    def create(self, path: Path) -> "MemoryFile":
        self.enter("create", path)
        if path in self.files:
            raise FileExistsError(errno.EEXIST, "it is there", str(path))
        self.files[path] = _Inode()
        self._undone.append((path, None, self.files[path]))
        return MemoryFile(self, path, self.files[path])

    def sync_file(self, path: Path) -> None:
        self.enter("fsync", path)
        inode = self._find(path)
        inode.synced = bytes(inode.content)

    def replace(self, source: Path, target: Path) -> None:
        self.enter("rename", source)
        self.files[target] = self._find(source)
        self._undone.append((target, source, self.files.pop(source)))

    def remove(self, path: Path) -> None:
        self._find(path)
        self.enter("unlink", path)
        del self.files[path]
        self._undone.append((path, None, None))

    def sync_directory(self, path: Path) -> None:
        self.enter("fsync-directory", path)
        ours = [each for each in self._undone if each[0].parent == path]
        self._undone = [each for each in self._undone if each[0].parent != path]
        _apply(self.durable, ours)

    def space(self, path: Path) -> Space:
        return Space(self.capacity_bytes, max(0, self.capacity_bytes - self.used_bytes))

    # For tests

    @property
    def used_bytes(self) -> int:
        return sum(len(inode.content) for inode in self.files.values())

    def enter(self, what: str, path: Path) -> Fault | None:
        """Count a call; fail it if the plan says so. A write's fault is returned: part of it may come down."""
        self.calls += 1
        self.log.append(f"{what} {path.name}")
        fault = self.plan(self.calls, what, path) if self.plan is not None else None
        if fault is None or (what == "write" and fault.taken):
            return fault
        fault.raise_(path)
        return None

    def power_cut(self, rng: Random) -> None:
        """Lose what was not synced: names, from some moment on (a file system's journal is in order), and sectors."""
        self.plan = None
        self.files = dict(self.durable)
        _apply(self.files, self._undone[: rng.randint(0, len(self._undone))])
        self._undone = []
        for inode in self.files.values():
            inode.content = _after_power_cut(bytes(inode.content), inode.synced, rng)
            inode.synced = bytes(inode.content)
        self.durable = dict(self.files)

    def dump(self, source: Path, target: Path) -> None:
        """Write the files under ``source`` to the real directory ``target``."""
        for directory in sorted(self.directories):
            if directory.is_relative_to(source):
                (target / directory.relative_to(source)).mkdir(exist_ok=True)
        for path, inode in self.files.items():
            if path.is_relative_to(source):
                (target / path.relative_to(source)).write_bytes(inode.content)

    def _find(self, path: Path) -> _Inode:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return self.files[path]


class MemoryFile:
    """An ``AppendFile``. After an error nothing but close is allowed: the journal must not even try."""

    def __init__(self, disk: MemoryDisk, path: Path, inode: _Inode) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode
        self._end = 0
        self._failed = False

    def write(self, data: bytes) -> None:
        fault = self._enter("write")
        if fault is not None:
            self._put(data[: int(len(data) * fault.taken)])
            self._failed = True
            fault.raise_(self._path)
        new = max(0, self._end + len(data) - len(self._inode.content))
        room = self._disk.capacity_bytes - self._disk.used_bytes
        if new > room:
            self._put(data[: len(data) - new + max(0, room)])
            self._failed = True
            raise OSError(errno.ENOSPC, "no space", str(self._path))
        self._put(data)

    def sync(self) -> None:
        self._enter("fdatasync")
        self._inode.synced = bytes(self._inode.content)

    def allocate(self, offset: int, length: int) -> None:
        self._enter("allocate")
        new = max(0, offset + length - len(self._inode.content))
        if new > self._disk.capacity_bytes - self._disk.used_bytes:
            self._failed = True
            raise OSError(errno.ENOSPC, "no space", str(self._path))
        self._inode.content.extend(bytes(new))

    def truncate(self, size: int) -> None:
        self._enter("truncate")
        del self._inode.content[size:]

    def close(self) -> None:
        self._failed = True

    def _enter(self, what: str) -> Fault | None:
        assert not self._failed, f"{what} on {self._path.name} after it failed or was closed"
        try:
            return self._disk.enter(what, self._path)
        except OSError:
            self._failed = True
            raise

    def _put(self, data: bytes) -> None:
        self._inode.content[self._end : self._end + len(data)] = data
        self._end += len(data)


def _apply(names: dict[Path, _Inode], done: list[tuple[Path, Path | None, _Inode | None]]) -> None:
    for path, source, inode in done:
        if source is not None:
            names.pop(source, None)
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def _after_power_cut(now: bytes, synced: bytes, rng: Random) -> bytearray:
    if now == synced:
        return bytearray(now)
    size = len(synced) if rng.random() < 0.3 else rng.randint(min(len(now), len(synced)), max(len(now), len(synced)))
    found = bytearray(synced[:size].ljust(size, b"\x00"))
    chance = rng.choice((0.0, 0.5, 0.9, 1.0))
    for start in range(0, size, SECTOR):
        piece = now[start : start + SECTOR][: size - start]
        if found[start : start + len(piece)] != piece and rng.random() < chance:
            found[start : start + len(piece)] = piece
    return found
