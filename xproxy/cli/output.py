"""What the command line prints, and how: the only place that knows about terminals."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import orjson
from rich.console import Console
from rich.text import Text

from xproxy.errors import ConfigProblems, FileProblem, XproxyError


def is_terminal(stream: IO[Any]) -> bool:
    """Return whether a person reads ``stream``."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def choose_format(wanted: Literal["auto", "human", "json"], stream: IO[Any]) -> Literal["human", "json"]:
    """Return ``wanted``, or for "auto" human on a terminal and JSON when piped."""
    if wanted == "auto":
        return "human" if is_terminal(stream) else "json"
    return wanted


def make_console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error.

    Colour where a terminal shows it, and never with NO_COLOR. Peer text is printed as it is: no markup, no emoji codes.
    """
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=False)


def print_json(value: object) -> None:
    """Print ``value`` as indented JSON on a terminal, as one line when piped."""
    option = orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if is_terminal(sys.stdout) else 0)
    sys.stdout.buffer.write(orjson.dumps(value, option=option))
    sys.stdout.flush()


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far a long work of ``total`` bytes has come, on standard error if that is a terminal.

    Gives a function that is told how many more bytes were dealt with. The bar goes away at the end.
    """
    if not is_terminal(sys.stderr):
        yield lambda octets: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    console = make_console(stderr=True)
    with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda octets: progress.advance(task, octets)


def print_error(error: XproxyError, console: Console | None = None) -> None:
    """Print what went wrong and what to do on standard error."""
    console = console or make_console(stderr=True)
    line = Text.assemble(("xproxy: ", "bold red"), error.message)
    console.print(line, soft_wrap=True)
    if isinstance(error, ConfigProblems):
        for problem in error.problems:
            console.print(Text(f"  {problem}"), soft_wrap=True)
    elif error.hint:
        console.print(Text(f"  {error.hint}", style="dim"), soft_wrap=True)


def exit_quietly_on_broken_pipe() -> None:
    """Point standard output at nowhere, so that the interpreter's own flush at exit says nothing more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all: whoever reads it meanwhile, or after a crash, has the old one or the new one.

    The new one keeps the old one's mode. What is no regular file (a pipe, /dev/stdout) is written as it is.

    Raises:
        FileProblem: it cannot be written.
    """
    from xproxy.tls.files import write_file  # here: it brings cryptography along, and most commands write nothing

    try:
        target = path.resolve()  # a link stays a link
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="write", path=path) from error
    write_file(target, data, mode=None)
