"""The end of a capture file that could not be written to its end: it says so itself.

A disk that is full took a part of a line, or none of it. What is no whole line is cut off, and a ``lost`` line put in
its place; where even that finds no room, whole lines make it, the last first.
"""

import os
from pathlib import Path
from typing import Final

import orjson

from xproxy.capture.trace import Lost, session_line
from xproxy.errors import FileProblem

GIVEN_UP_BYTES_MAX: Final = 1_048_576
"""Of whole lines: a file system frees blocks, of 4 to 64 KiB; who has no room after that has another reason."""

_WINDOW_BYTES: Final = 65_536


def say_lost(path: Path, why: str) -> None:
    """Make ``path`` end in a ``lost`` line; a file whose session is over, or has not begun, only in a whole one.

    Raises:
        FileProblem: it cannot be written; then it is as it was, or ends in a whole line.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _say_lost(descriptor, why)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="end the capture", path=path) from error


def _say_lost(descriptor: int, why: str) -> None:
    size = os.fstat(descriptor).st_size
    begin, end = _last_line(descriptor, size)
    if end < size:
        os.ftruncate(descriptor, end)
    lowest = max(0, end - GIVEN_UP_BYTES_MAX)
    while begin < end and (words := _words(os.pread(descriptor, end - begin, begin), why)):
        try:
            written = os.pwrite(descriptor, words, end)
        except OSError:
            written = 0
        if written == len(words):
            return
        if begin < lowest:
            os.ftruncate(descriptor, end)
            return
        os.ftruncate(descriptor, begin)
        begin, end = _last_line(descriptor, begin)


def _last_line(descriptor: int, size: int) -> tuple[int, int]:
    """Return where the last whole line of the first ``size`` octets begins and ends; the same place: there is none."""
    window = _WINDOW_BYTES
    while True:
        start = max(0, size - window)
        data = os.pread(descriptor, size - start, start)
        end = data.rfind(b"\n") + 1
        before = data.rfind(b"\n", 0, end - 1) + 1 if end else 0
        if start == 0 or before:
            return start + before, start + end
        window *= 4


def _words(line: bytes, why: str) -> bytes:
    """Return what follows ``line``; nothing where nothing is missing, no session has begun, or it is not of ours."""
    try:
        value = orjson.loads(line)
        if value["k"] in ("meta", "closed", "lost"):
            return b""
        return session_line(Lost(session=value["s"], n=value["n"] + 1, t_ns=value["t"], line=0, why=why))
    except (ValueError, KeyError, TypeError):  # somebody else wrote here; the capture's end has to be told all the same
        return b""
