import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.traces import conn, render
from xproxy.capture.store import CaptureStore
from xproxy.capture.trace import Closed, Lost, Xml, read_trace, session_line
from xproxy.errors import FileProblem
from xproxy.events import Side


def test_lines_are_appended_in_their_order_to_files_of_ours(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "captures"
    store = CaptureStore.open(directory, queue_bytes_max=1_000, on_failure=pytest.fail)
    for number in range(10):
        assert store.append("x", b"%d\n" % number, is_new=number == 0) == "taken"
        assert store.append("y", b"y", is_new=number == 0) == "taken"
    store.close()
    assert (directory / "x").read_bytes() == b"".join(b"%d\n" % number for number in range(10))
    assert (directory / "y").read_bytes() == b"y" * 10
    assert stat.S_IMODE((directory / "x").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert store.append("x", b"late", is_new=True) == "over"


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


@pytest.fixture
def may_write(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until this is set, the disk does not answer."""
    answers = threading.Event()
    write = os.write

    def slowly(descriptor: int, data: bytes) -> int:
        answers.wait(10)
        return write(descriptor, data)

    monkeypatch.setattr("xproxy.capture.store.os.write", slowly)
    return answers


def test_what_waits_is_bounded(tmp_path: Path, may_write: threading.Event) -> None:
    store = CaptureStore.open(tmp_path, queue_bytes_max=100, on_failure=pytest.fail)
    assert store.append("x", b"a" * 60, is_new=True) == "taken"
    assert store.append("x", b"b" * 60, is_new=True) == "queue-full"
    assert store.append("x", b"c" * 40, is_new=False) == "taken"
    assert store.append("x", b"d", is_new=False) == "queue-full"
    assert store.append("x", b"the end", is_new=False, reserve="last") == "taken"
    may_write.set()
    store.close()
    assert (tmp_path / "x").read_bytes() == b"a" * 60 + b"c" * 40 + b"the end"


def test_what_rings_have_kept_waits_beside_the_queue(tmp_path: Path, may_write: threading.Event) -> None:
    store = CaptureStore.open(tmp_path, queue_bytes_max=100, on_failure=pytest.fail)
    for number in range(50):
        assert store.append(f"{number}", b"r" * 90, is_new=True, reserve="ring") == "taken"
        assert store.append(f"{number}", b"a", is_new=False) == "taken"
    assert store.released_bytes > 49 * 90 - 1
    may_write.set()
    store.close()
    assert store.released_bytes == 0
    assert {file.read_bytes() for file in tmp_path.iterdir()} == {b"r" * 90 + b"a"}


def octets(n: int) -> Xml:
    """Return the n-th line of a session."""
    return Xml(session=1, n=n, t_ns=n, line=n + 1, sent_by=Side.CLIENT, phase="bound", data=b"<message/>" * 10)


def full(descriptor: int, data: bytes) -> int:
    """As ``os.write`` on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_was_not_written_to_its_end_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[FileProblem] = []
    told = threading.Event()

    def fail(problem: FileProblem) -> None:
        failed.append(problem)
        told.set()

    store = CaptureStore.open(tmp_path, queue_bytes_max=100_000, on_failure=fail)
    write, full_from = os.write, 30_000

    def partly(descriptor: int, data: bytes) -> int:
        size = sum(file.stat().st_size for file in tmp_path.iterdir())
        return write(descriptor, data[: full_from - size]) if size < full_from else full(descriptor, data)

    monkeypatch.setattr("xproxy.capture.store.os.write", partly)
    begun = render([conn(), *(octets(n) for n in range(2, 12))])
    for name in ("goes-on", "over", "ends"):
        store.append(name, begun, is_new=True)
    store.append("over", session_line(Closed(session=1, n=12, t_ns=0, line=0)), is_new=False)
    store.ended("over")
    rest = [octets(n) for n in range(12, 300)]
    store.append("ends", b"".join(map(session_line, rest)), is_new=False)
    store.append("ends", session_line(Closed(session=1, n=300, t_ns=0, line=0)), is_new=False)
    store.ended("ends")
    assert told.wait(10)
    store.close()
    ends = {file.name: list(read_trace(file))[-1] for file in tmp_path.iterdir()}
    assert isinstance(ends["over"], Closed)
    assert ends["goes-on"] == Lost(session=1, n=12, t_ns=11, line=13, why="disk")
    lost = ends["ends"]
    assert isinstance(lost, Lost)
    assert 12 <= lost.n < 300
    assert len(failed) == 1


def test_a_full_disk_is_told_once_and_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xproxy.capture.store.os.write", full)
    failed: list[FileProblem] = []
    told = threading.Event()

    def fail(problem: FileProblem) -> None:
        failed.append(problem)
        told.set()

    store = CaptureStore.open(tmp_path, queue_bytes_max=1_000, on_failure=fail)
    store.append("x", b"a", is_new=True)
    assert told.wait(10)
    assert store.append("x", b"b", is_new=True) == "over"
    store.close()
    assert len(failed) == 1
    assert "No space left on device" in str(failed[0])


def test_a_file_that_somebody_moved_away_ends_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = CaptureStore.open(tmp_path, queue_bytes_max=1_000, on_failure=pytest.fail)
    for name in "xy":
        store.append(name, b"a", is_new=True)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2 and not store._batch)
    (tmp_path / "x").rename(tmp_path / "archived")
    store.append("x", b"b", is_new=False)
    wait_until(lambda: store.append("x", b"c", is_new=False) == "gone")
    assert store.append("y", b"b", is_new=False) == "taken"
    store.ended("x")
    assert store.close() is None
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"archived": b"a", "y": b"ab"}
    assert "x is not there any more" in caplog.text


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait for the store's thread."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileProblem, match="cannot"):
        CaptureStore.open(tmp_path / "x", queue_bytes_max=1, on_failure=pytest.fail)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(FileProblem, match="make the directory of captures"):
        CaptureStore.open(tmp_path / "x", queue_bytes_max=1, on_failure=pytest.fail)
