"""Files that could not be written to their end."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.traces import conn, every_kind, render
from xproxy.capture.cutoff import say_lost
from xproxy.capture.trace import Closed, Lost, SessionLine, Tick, Xml, read_trace, session_line
from xproxy.errors import FileProblem
from xproxy.events import Side

HEAD = render([conn()])


def begun(count: int, size: int = 10) -> list[SessionLine]:
    """Return a session that goes on."""
    octets = [
        Xml(session=1, n=n, t_ns=n, line=n + 1, sent_by=Side.CLIENT, phase="bound", data=b"x" * size)
        for n in range(2, count + 1)
    ]
    return [conn(), *octets]


def test_what_is_no_whole_line_goes_and_the_end_is_said(tmp_path: Path) -> None:
    file = tmp_path / "x"
    lines = begun(20)
    whole = render(lines)
    half = session_line(Tick(session=1, n=21, t_ns=0, line=0))
    for cut in range(len(half)):
        file.write_bytes(whole + half[:cut])
        say_lost(file, "disk")
        *before, last = list(read_trace(file))[1:]
        assert before == lines
        assert last == Lost(session=1, n=21, t_ns=20, line=22, why="disk")


def test_what_has_its_end_or_no_beginning_is_only_made_whole(tmp_path: Path) -> None:
    file = tmp_path / "x"
    meta = render([])
    for whole in (b"", meta, render(every_kind()), render([conn(), Lost(session=1, n=2, t_ns=0, line=3, why="disk")])):
        file.write_bytes(whole + b'{"k":')
        say_lost(file, "disk")
        assert file.read_bytes() == whole


def test_a_long_line_is_found_whole(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(render(begun(3, 300_000)) + b"y" * 200_000)
    say_lost(file, "disk")
    assert [type(line) for line in read_trace(file)][-2:] == [Xml, Lost]


def test_lines_make_room_for_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x"
    lines = begun(20, 50)
    file.write_bytes(render(lines))
    block_ends_at = file.stat().st_size - 200
    write = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset + len(data) > block_ends_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data, offset)

    monkeypatch.setattr("xproxy.capture.cutoff.os.pwrite", full)
    say_lost(file, "disk")
    found = list(read_trace(file))
    assert found[1:-1] == lines[: len(found) - 2]
    assert 15 < len(found) < 20
    assert isinstance(found[-1], Lost)


def test_where_nothing_helps_the_file_ends_in_a_whole_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("xproxy.capture.cutoff.os.pwrite", full)
    file = tmp_path / "x"
    lines = begun(40, 100_000)
    file.write_bytes(render(lines))
    say_lost(file, "disk")
    assert 25 < len(list(read_trace(file))) < 32  # not all is given up for a word


@pytest.mark.parametrize("line", [b'{"k":"xml"}', b"nonsense", b"\0\0", b"3", b'{"k":"xml","s":1,"n":"1","t":0}'])
def test_what_somebody_else_wrote_is_left_as_it_is(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(line + b"\n")
    say_lost(file, "disk")
    assert file.read_bytes() == line + b"\n"


def test_a_file_that_is_gone_or_a_link_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(HEAD)
    for name in ("gone", "link"):
        with pytest.raises(FileProblem, match="cannot end the capture"):
            say_lost(tmp_path / name, "disk")
    assert (tmp_path / "elsewhere").read_bytes() == HEAD


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(directory)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here (root with CAP_SYS_ADMIN can)")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_on_a_disk_that_is_really_full(small_disk: Path) -> None:
    files = [small_disk / name for name in "ab"]
    for file in files:
        file.write_bytes(render(begun(3)))
    n = 4
    with pytest.raises(OSError, match="No space left"):  # noqa: PT012
        while True:
            for file in files:
                octets = Xml(session=1, n=n, t_ns=n, line=0, sent_by=Side.SERVER, phase="bound", data=b"x" * 700)
                descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
                line = memoryview(session_line(octets))
                try:
                    while line:
                        line = line[os.write(descriptor, line) :]
                finally:
                    os.close(descriptor)
            n += 1
    for file in files:
        say_lost(file, "disk")
        assert isinstance(list(read_trace(file))[-1], Lost)
        assert not any(isinstance(line, Closed) for line in read_trace(file))
