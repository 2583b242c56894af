import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from xproxy.capture.store import CaptureStore
from xproxy.errors import FileProblem


def test_lines_are_appended_in_their_order_to_files_of_ours(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "captures"
    store = CaptureStore.open(directory, queue_bytes_max=1_000, on_failure=pytest.fail)
    for number in range(10):
        assert store.append("x", b"%d\n" % number, is_new=number == 0)
        assert store.append("y", b"y", is_new=number == 0)
    store.close()
    assert (directory / "x").read_bytes() == b"".join(b"%d\n" % number for number in range(10))
    assert (directory / "y").read_bytes() == b"y" * 10
    assert stat.S_IMODE((directory / "x").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not store.append("x", b"late", is_new=True)


def test_a_file_that_is_there_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"mine")
    failed: list[FileProblem] = []
    store = CaptureStore.open(tmp_path, queue_bytes_max=1_000, on_failure=failed.append)
    store.append("x", b"theirs", is_new=True)
    store.close()
    assert (tmp_path / "x").read_bytes() == b"mine"
    assert "x: File exists" in str(failed[0])


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")
    failed: list[FileProblem] = []
    store = CaptureStore.open(tmp_path, queue_bytes_max=1_000, on_failure=failed.append)
    store.append("x", b"theirs", is_new=True)
    store.close()
    assert not (tmp_path / "elsewhere").exists()
    assert failed


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write = threading.Event()
    write = os.write

    def slowly(descriptor: int, data: bytes) -> int:
        may_write.wait(10)
        return write(descriptor, data)

    monkeypatch.setattr("xproxy.capture.store.os.write", slowly)
    store = CaptureStore.open(tmp_path, queue_bytes_max=100, on_failure=pytest.fail)
    assert store.append("x", b"a" * 60, is_new=True)
    assert not store.append("x", b"b" * 60, is_new=True)
    assert store.append("x", b"c" * 40, is_new=False)
    may_write.set()
    store.close()
    assert (tmp_path / "x").read_bytes() == b"a" * 60 + b"c" * 40


def test_a_full_disk_is_told_once_and_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("xproxy.capture.store.os.write", full)
    failed: list[FileProblem] = []
    told = threading.Event()

    def fail(problem: FileProblem) -> None:
        failed.append(problem)
        told.set()

    store = CaptureStore.open(tmp_path, queue_bytes_max=1_000, on_failure=fail)
    store.append("x", b"a", is_new=True)
    assert told.wait(10)
    assert not store.append("x", b"b", is_new=True)
    store.close()
    assert len(failed) == 1
    assert "No space left on device" in str(failed[0])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileProblem, match="cannot"):
        CaptureStore.open(tmp_path / "x", queue_bytes_max=1, on_failure=pytest.fail)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(FileProblem, match="make the directory of captures"):
        CaptureStore.open(tmp_path / "x", queue_bytes_max=1, on_failure=pytest.fail)
