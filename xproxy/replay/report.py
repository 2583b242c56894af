"""What a replay found, as values: a case per session, and what its failures mean for the exit code.

Every kind of replay (offline, as server, as client) ends in a ``Report``; junit.py, github.py and the command line
render it. Who makes the values redacts: ``detail`` is shown as it is, and so is ``message``. ``scrubbed`` is the last
guard behind that.
"""

import enum
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

EXIT_MATCH: Final = 0
EXIT_DIFFERENT: Final = 1  # mismatch, missing, unexpected, golden difference
EXIT_TLS: Final = 3  # the environment: cannot bind, cannot connect, TLS; the only one worth another try
EXIT_AUTH: Final = 4
EXIT_TIMEOUT: Final = 5  # nothing differed, something never came
EXIT_NOTHING: Final = 6  # as pytest's 5: no test was run
MESSAGE_CHARS_MAX: Final = 300  # one line of a terminal, of an annotation


class FailureKind(enum.Enum):
    """What went wrong; the value is the ``type`` in JUnit."""

    MISSING = "MissingStanza"  # the cassette has it, it did not come
    UNEXPECTED = "Unexpected"  # it came, the cassette has nothing like it left
    MISMATCH = "Mismatch"  # it came and differs
    GOLDEN = "Golden"  # events differ from the golden file
    STREAM = "Stream"  # the stream failed: no XML, a stream error, an end before its time
    AUTH = "Auth"
    TLS = "Tls"
    TIMEOUT = "Timeout"  # the peer never came, or stopped before the first stanza


_EXIT_CODES: Final = {
    FailureKind.MISSING: EXIT_DIFFERENT,
    FailureKind.UNEXPECTED: EXIT_DIFFERENT,
    FailureKind.MISMATCH: EXIT_DIFFERENT,
    FailureKind.GOLDEN: EXIT_DIFFERENT,
    FailureKind.STREAM: EXIT_DIFFERENT,
    FailureKind.AUTH: EXIT_AUTH,
    FailureKind.TLS: EXIT_TLS,
    FailureKind.TIMEOUT: EXIT_TIMEOUT,
}
_WORST_FIRST: Final = (EXIT_DIFFERENT, EXIT_AUTH, EXIT_TLS, EXIT_TIMEOUT)


@attrs.frozen(kw_only=True)
class Failure:
    """One thing that is not as it was recorded."""

    kind: FailureKind
    message: str  # one line
    detail: str = ""  # redacted: the diff, the closest miss, what went before, how to accept it
    file: str | None = None  # where the expectation stands; None: the case's own place
    line: int | None = None  # from 1


@attrs.frozen(kw_only=True)
class Case:
    """One replayed session."""

    name: str  # "session 1 (alice)"
    file: str  # the cassette, capture or golden file, as it was named on the command line
    line: int | None = None  # where the session begins in it
    failures: tuple[Failure, ...] = ()
    skipped: str | None = None  # why it was not replayed
    seconds: float = 0.0
    properties: tuple[tuple[str, str], ...] = ()  # facts for the JUnit file: matched stanzas, client, redaction
    notes: tuple[str, ...] = ()  # what differs and was let pass, a line each

    @property
    def outcome(self) -> str:
        """Return "failed", "skipped" or "passed"."""
        return "failed" if self.failures else "skipped" if self.skipped is not None else "passed"


@attrs.frozen(kw_only=True)
class Report:
    """Everything one replay found."""

    name: str  # "xproxy replay server"
    cases: tuple[Case, ...]
    started: str = ""  # RFC 3339, UTC; "" where time is not to be told (golden output)
    seconds: float = 0.0
    host: str = ""  # of the machine it ran on

    @property
    def failures(self) -> tuple[Failure, ...]:
        """All failures of all cases."""
        return tuple(failure for case in self.cases for failure in case.failures)

    @property
    def exit_code(self) -> int:
        """Return what the command ends with. A difference outweighs everything else: trying again does not help."""
        codes = {_EXIT_CODES[failure.kind] for failure in self.failures}
        for code in _WORST_FIRST:
            if code in codes:
                return code
        return EXIT_MATCH if any(case.skipped is None for case in self.cases) else EXIT_NOTHING

    def count(self, outcome: str) -> int:
        """Return how many cases ended so."""
        return sum(case.outcome == outcome for case in self.cases)

    def scrubbed(self, scrub: Callable[[str], str]) -> "Report":
        """Return the report with every text of it passed through ``scrub``."""
        return attrs.evolve(
            self,
            cases=tuple(
                attrs.evolve(
                    case,
                    name=scrub(case.name),
                    skipped=None if case.skipped is None else scrub(case.skipped),
                    notes=tuple(scrub(note) for note in case.notes),
                    properties=tuple((name, scrub(value)) for name, value in case.properties),
                    failures=tuple(
                        attrs.evolve(failure, message=scrub(failure.message), detail=scrub(failure.detail))
                        for failure in case.failures
                    ),
                )
                for case in self.cases
            ),
        )


def one_line(text: str) -> str:
    """Return ``text`` as a message: in one line, without what does not print, not longer than MESSAGE_CHARS_MAX."""
    text = "".join(char if char.isprintable() else " " for char in " ".join(text.split()))
    return text if len(text) <= MESSAGE_CHARS_MAX else text[: MESSAGE_CHARS_MAX - 1] + "…"


def printable(line: str) -> str:
    """Return a line of a detail as it can be printed: what does not print is written as an escape.

    A stranger's text may hold C1 controls, which terminals obey, and line separators, behind which a line of its own
    would begin.
    """
    return "".join(
        char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode() for char in line
    )


def merged(name: str, reports: Iterable[Report]) -> Report:
    """Return one report of the cases of several."""
    parts = list(reports)
    return Report(
        name=name,
        cases=tuple(case for part in parts for case in part.cases),
        started=min((part.started for part in parts), default=""),
        seconds=sum(part.seconds for part in parts),
        host=parts[0].host if parts else "",
    )


def to_json(report: Report) -> dict[str, Any]:
    """Return the report for orjson: the shape of ``--format json``."""
    return {
        "name": report.name,
        "started": report.started,
        "seconds": round(report.seconds, 3),
        "exit_code": report.exit_code,
        "cases": [
            {
                "name": case.name,
                "file": case.file,
                "line": case.line,
                "outcome": case.outcome,
                "skipped": case.skipped,
                "seconds": round(case.seconds, 3),
                "properties": dict(case.properties),
                "notes": list(case.notes),
                "failures": [
                    {
                        "kind": failure.kind.value,
                        "message": failure.message,
                        "detail": failure.detail,
                        "file": failure.file or case.file,
                        "line": failure.line or case.line,
                    }
                    for failure in case.failures
                ],
            }
            for case in report.cases
        ],
    }
