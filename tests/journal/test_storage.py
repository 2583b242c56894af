"""One suite for the seam: the real disk and the one in memory do the same."""

import errno
import os
from pathlib import Path

import pytest

from tests.support.disk import Fault, MemoryDisk
from xproxy import system
from xproxy.journal.storage import Disk, DiskFile, Space, Storage, write_whole


@pytest.fixture(params=["memory", "disk"])
def storage(request: pytest.FixtureRequest) -> Storage:
    return MemoryDisk() if request.param == "memory" else Disk()


@pytest.fixture
def directory(storage: Storage, tmp_path: Path) -> Path:
    path = tmp_path / "inner"
    storage.make_directory(path)
    storage.make_directory(path)  # it may be there
    return path


def test_what_is_written_is_read(storage: Storage, directory: Path) -> None:
    file = storage.create(directory / "a")
    file.write(b"one ")
    file.write(b"two")
    file.sync()
    file.close()
    file.close()
    storage.sync_file(directory / "a")
    storage.sync_directory(directory)
    assert storage.read(directory / "a") == b"one two"
    assert storage.names(directory) == ["a"]


def test_a_file_is_made_once(storage: Storage, directory: Path) -> None:
    storage.create(directory / "a").close()
    with pytest.raises(FileExistsError):
        storage.create(directory / "a")


def test_room_made_ahead_is_zeros_and_is_written_over(storage: Storage, directory: Path) -> None:
    file = storage.create(directory / "a")
    file.write(b"ab")
    file.allocate(0, 8)
    assert storage.read(directory / "a") == b"ab" + bytes(6)
    file.write(b"cd")
    assert storage.read(directory / "a") == b"abcd" + bytes(4)
    file.truncate(4)
    file.close()
    assert storage.read(directory / "a") == b"abcd"


def test_what_is_not_there_is_said_so(storage: Storage, directory: Path) -> None:
    for ask in (storage.read, storage.remove, storage.sync_file):
        with pytest.raises(FileNotFoundError):
            ask(directory / "none")
    with pytest.raises(FileNotFoundError):
        storage.names(directory / "none")


def test_replacing_is_at_once(storage: Storage, directory: Path) -> None:
    write_whole(storage, directory / "a", b"old")
    storage.create(directory / "a.new").close()  # of a process that died
    write_whole(storage, directory / "a", b"new")
    assert storage.read(directory / "a") == b"new"
    assert storage.names(directory) == ["a"]


def test_space_is_told(storage: Storage, directory: Path) -> None:
    space = storage.space(directory)
    assert 0 < space.free_bytes <= space.total_bytes
    assert 0 <= space.used_percent < 100


def test_a_file_system_without_blocks_is_not_full() -> None:
    assert Space(0, 0).used_percent == 0


def test_a_short_write_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Disk().create(tmp_path / "a")
    monkeypatch.setattr("os.pwrite", lambda descriptor, data, offset: len(data) - 1)
    with pytest.raises(OSError, match="only 3 of 4 octets") as raised:
        file.write(b"four")
    assert raised.value.errno == errno.ENOSPC
    file.close()


@pytest.mark.skipif(not system.offers(os, "posix_fallocate"), reason="there is no posix_fallocate, or it is not used")
@pytest.mark.parametrize(
    ("number", "is_error"), [(errno.EOPNOTSUPP, False), (errno.EINVAL, False), (errno.ENOSPC, True)]
)
def test_a_file_system_need_not_make_room_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_error: bool
) -> None:
    def refuse(descriptor: int, offset: int, length: int) -> None:
        raise OSError(number, os.strerror(number))

    file: DiskFile = Disk().create(tmp_path / "a")
    monkeypatch.setattr("os.posix_fallocate", refuse)
    try:
        if is_error:
            with pytest.raises(OSError, match="No space"):
                file.allocate(0, 10)
        else:
            file.allocate(0, 10)
            file.allocate(0, 10)
    finally:
        file.close()


def test_the_disk_in_memory_refuses_a_file_that_has_failed() -> None:
    disk = MemoryDisk()
    disk.make_directory(Path("/d"))
    file = disk.create(Path("/d/a"))
    disk.plan = lambda call, what, path: Fault()
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    disk.plan = None
    with pytest.raises(AssertionError, match="after it failed"):
        file.write(b"x")
