"""How a replay's report leaves the command line: for a person, as JSON, as JUnit XML, for GitHub Actions."""

import os
import secrets
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import attrs
import click
from rich.text import Text

from xproxy.cli.output import is_terminal, make_console, print_json
from xproxy.errors import FileProblem
from xproxy.replay.github import annotations, shielded, step_summary
from xproxy.replay.junit import render_junit
from xproxy.replay.report import Report, printable, to_json

Format = Literal["auto", "human", "json", "github"]
F = TypeVar("F", bound=Callable[..., Any])

_STYLES: Final = {"-": "red", "+": "green", "@": "cyan", "$": "bold"}
_OUTCOMES: Final = {"passed": ("PASS", "green"), "failed": ("FAIL", "bold red"), "skipped": ("SKIP", "yellow")}


def report_options(command: F) -> F:
    """Add ``--format`` and ``--junit``."""
    command = click.option("--junit", "junit", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
                           help="Also write the result as JUnit XML.")(command)  # fmt: skip
    return click.option(
        "--format", "format_", type=click.Choice(["auto", "human", "json", "github"]), default="auto",
        show_default=True, help="auto: human on a terminal and where CI is true, else JSON; github (also where "
        "GITHUB_ACTIONS is true): human, with annotations and a table in the step's summary.",
    )(command)  # fmt: skip


def stamped(report: Report, started: datetime, finished: datetime) -> Report:
    """Return the report with when and where it was made (aware datetimes)."""
    return attrs.evolve(
        report,
        started=started.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        seconds=(finished - started).total_seconds(),
        host=socket.gethostname(),
    )


def emit(report: Report, format_: Format, junit: Path | None) -> int:
    """Print the report, write what was asked for, return the exit code.

    Raises:
        FileProblem: the JUnit file or GitHub's summary file cannot be written.
    """
    on_github = format_ == "github" or (format_ == "auto" and os.environ.get("GITHUB_ACTIONS") == "true")
    for_people = is_terminal(sys.stdout) or os.environ.get("CI") == "true"  # a job's log is read by people
    if format_ == "json" or (format_ == "auto" and not on_github and not for_people):
        print_json(to_json(report))
    elif on_github:
        click.echo(shielded(render_human(report).plain, secrets.token_hex(16)))
        for command in annotations(report):
            click.echo(command)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            _write(Path(summary), step_summary(report).encode(), "write the step's summary", append=True)
    else:
        make_console().print(render_human(report), soft_wrap=True)
    if junit is not None:  # last: where it cannot be written the result was at least said
        _write(junit, render_junit(report), "write the JUnit file")
    return report.exit_code


def render_human(report: Report) -> Text:
    """Return what a person reads: a line a case, what is wrong below it, the count last."""
    text = Text()
    for case in report.cases:
        label, style = _OUTCOMES[case.outcome]
        text.append(label, style=style)
        place = f"{case.file}:{case.line}" if case.line else case.file
        text.append(f" {case.name}")
        text.append(f"  {place}  {case.seconds:.2f} s", style="dim")
        if case.skipped is not None:
            text.append(f"  {case.skipped}")
        text.append("\n")
        for note in case.notes:
            text.append("  let pass: ", style="yellow").append(f"{note}\n")
        for failure in case.failures:
            text.append(f"  {failure.kind.value}: ", style="bold")
            text.append(f"{failure.message}\n")
            text.append(f"  at {failure.file or case.file}:{failure.line or case.line or 1}\n", style="dim")
            for line in failure.detail.split("\n") if failure.detail else ():
                text.append(f"    {printable(line)}\n", style=_STYLES.get(line[:1], ""))
    counts = ", ".join(f"{count} {name}" for name in _OUTCOMES if (count := report.count(name)))
    text.append(f"{report.name}: {counts or 'nothing was replayed'}", style="bold")
    return text


def _write(path: Path, data: bytes, doing: str, *, append: bool = False) -> None:
    try:
        with path.open("ab" if append else "wb") as file:
            file.write(data)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing=doing, path=path) from error
