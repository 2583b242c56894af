"""A report for GitHub Actions: annotations on the cassette's lines, and a table in the step's summary.

The runner takes a line of a step's output that begins with ``::`` (or has ``##[``) for a command. Stanzas are a
stranger's text, so whatever of them is printed is either percent-escaped inside one of our own commands, or stands
between ``stop-commands`` and a token that nobody could guess (``shielded``).
"""

import html
from typing import Final

from xproxy.replay.report import Report, one_line

ANNOTATIONS_MAX: Final = 10  # GitHub shows no more errors of one step


def annotations(report: Report) -> list[str]:
    """Return one ``::error`` command a failure; where there are too many the last says so."""
    commands = [
        _error(
            failure.message,
            file=failure.file or case.file,
            line=failure.line or case.line,
            title=f"{failure.kind.value} in {case.name}",
        )
        for case in report.cases
        for failure in case.failures
    ]
    if len(commands) > ANNOTATIONS_MAX:
        more = len(commands) - ANNOTATIONS_MAX + 1
        return [*commands[: ANNOTATIONS_MAX - 1], _error(f"and {more} more failures; the step's log has all of them")]
    return commands


def step_summary(report: Report) -> str:
    """Return what is appended to ``$GITHUB_STEP_SUMMARY``: Markdown that holds the peers' text as text only."""
    passed, failed, skipped = (report.count(outcome) for outcome in ("passed", "failed", "skipped"))
    lines = [
        f"### {_cell(report.name)}: {passed} passed, {failed} failed, {skipped} skipped",
        "",
        "| session | cassette | outcome | what |",
        "|---|---|---|---|",
    ]
    for case in report.cases:
        what = "<br>".join(_cell(failure.message) for failure in case.failures) or _cell(case.skipped or "")
        lines.append(f"| {_cell(case.name)} | {_cell(case.file)} | {case.outcome} | {what} |")
    for case in report.cases:
        for failure in case.failures:
            if failure.detail:
                # Inside <pre> GitHub's Markdown reads nothing, up to </pre>, which the escaped text cannot hold.
                lines += [
                    "",
                    f"<details><summary>{_cell(case.name)}: {_cell(failure.message)}</summary>",
                    "",
                    f"<pre>{html.escape(failure.detail)}</pre>",
                    "",
                    "</details>",
                ]
    return "\n".join(lines) + "\n"


def shielded(text: str, token: str) -> str:
    """Return ``text`` so that the runner sees no command in it. ``token``: random, new for each call."""
    return f"::stop-commands::{token}\n{text}\n::{token}::"


def _error(message: str, *, file: str | None = None, line: int | None = None, title: str | None = None) -> str:
    named = {"file": file, "line": None if line is None else str(line), "title": title}
    properties = ",".join(f"{name}={_property(value)}" for name, value in named.items() if value is not None)
    return f"::error{' ' + properties if properties else ''}::{_data(message)}"


def _data(text: str) -> str:
    """Escape what stands behind the second ``::`` (as GitHub's own toolkit does)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


_MARKDOWN: Final = {ord(char): f"&#{ord(char)};" for char in "|`*_[]()#!~@\\$<>&\"':"}


def _cell(text: str) -> str:
    """Return ``text`` in one line, every character that Markdown or HTML could read as a reference."""
    return one_line(text).translate(_MARKDOWN)
