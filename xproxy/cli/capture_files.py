"""Captures on a command line: files, and directories of them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import attrs
import click

from xproxy.capture.trace import SUFFIX, NothingCaptured
from xproxy.errors import UsageProblem

T = TypeVar("T")


@attrs.frozen
class CaptureFile:
    """A capture, and whether it was named itself or only the directory it is in."""

    path: Path
    is_named: bool


def captures_in(paths: Iterable[Path]) -> Iterator[CaptureFile]:
    """Yield the captures that ``paths`` name, those of a directory in the order of their names."""
    for path in paths:
        if path.is_dir():
            for file in sorted(path.glob(f"*{SUFFIX}")):
                yield CaptureFile(file, is_named=False)
        else:
            yield CaptureFile(path, is_named=True)


def some_captures_in(paths: Iterable[Path]) -> list[CaptureFile]:
    """Return them.

    Raises:
        UsageProblem: there is none.
    """
    named = list(paths)
    files = list(captures_in(named))
    if not files:
        where = ", ".join(map(str, named))
        raise UsageProblem(f"there is no capture, *{SUFFIX}, in {where}", "name a file, or another directory")
    return files


def read_from(capture: CaptureFile, items: Iterator[T]) -> Iterator[T]:
    """Yield ``items``, which are read from ``capture``; one that a proxy died over as it began it spoils no directory.

    Raises:
        FileProblem, TraceProblem: as ``read_trace``.
    """
    try:
        yield from items
    except NothingCaptured as problem:
        if capture.is_named:
            raise
        click.echo(f"xproxy: {problem.message}: its proxy died as it began it, or is beginning it now", err=True)


def size_of(captures: Iterable[CaptureFile]) -> int:
    """Return how many bytes they have together; 0 for what is no file."""
    return sum(each.path.stat().st_size for each in captures if each.path.is_file())
