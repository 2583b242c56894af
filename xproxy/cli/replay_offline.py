"""``xproxy replay offline``: captures through the session core again, printed, or compared with golden events."""

import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import click

from xproxy.capture.trace import SUFFIX as CAPTURE_SUFFIX
from xproxy.cli.capture_files import CaptureFile, captures_in, read_from, size_of
from xproxy.cli.output import is_terminal, make_console, progress_bar, replace_file
from xproxy.cli.report import emit, stamped
from xproxy.errors import FileProblem, UsageProblem
from xproxy.record.recorder import Record
from xproxy.replay.compare import by_session, compare, read_golden
from xproxy.replay.golden import SUFFIX, golden_lines
from xproxy.replay.offline import Replayed, replay
from xproxy.replay.report import EXIT_MATCH, EXIT_NOTHING, Case, Failure, FailureKind, Report

_EPILOG: Final = """\b
Examples:
  xproxy replay offline captures/
      the records of every captured session, as they were
  xproxy replay offline login.xcap.jsonl --golden login.events.jsonl --update
      write down what the analysis says of it, to be reviewed and committed
  xproxy replay offline tests/captures --golden tests/captures --junit report.xml
      in CI: does it still say the same?

\b
Exit codes: 0 as recorded, 1 a difference, 2 a capture that is damaged or of a later version, 3 environment,
6 nothing was replayed.
"""


@click.command(epilog=_EPILOG)
@click.argument("captures", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CAPTURE...")
@click.option("--golden", type=click.Path(path_type=Path), metavar="FILE|DIR", help="Compare with the events in FILE, "
              f"or for each capture NAME{CAPTURE_SUFFIX} with DIR/NAME{SUFFIX}.")  # fmt: skip
@click.option("--update", is_flag=True, help="Write --golden anew instead of comparing. Review it like code.")
@click.option("--json", "as_json", is_flag=True, help="JSON also on a terminal; piped it is JSON anyway.")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="With --golden: also "
              "write the result as JUnit XML.")  # fmt: skip
@click.option("--github", is_flag=True, help="With --golden: annotations for GitHub Actions (by itself where "
              "GITHUB_ACTIONS is true).")  # fmt: skip
def offline(
    captures: tuple[Path, ...], golden: Path | None, update: bool, as_json: bool, junit: Path | None, github: bool
) -> int:
    """Replay captures through the analysis: the same records as live, with the times and ids of then.

    CAPTURE is a file that `xproxy run --capture` wrote, or a directory of them. No network, no clock, no randomness:
    the same capture gives the same records.
    """
    if golden is None and (update or junit is not None or github):
        raise UsageProblem("there is nothing to compare with", "add --golden FILE or --golden DIR")
    files = list(captures_in(captures))
    if golden is None:
        return _print_records(files, as_json=as_json)
    if not golden.is_dir() and len(files) > 1:
        if not update or golden.exists():
            raise UsageProblem(f"{len(files)} captures cannot have one golden file", "name a directory, --golden DIR")
        _make_directory(golden)
    started = datetime.now(UTC)
    cases: list[Case] = []
    with progress_bar("replaying", size_of(files)) as advance:
        for each in files:
            file = each.path
            beside = golden / (file.name.removesuffix(CAPTURE_SUFFIX) + SUFFIX) if golden.is_dir() else golden
            sessions = _gather(read_from(each, replay(file, on_bytes=advance)))
            if not sessions:
                continue
            cases += _updated(file, sessions, beside) if update else _compared(file, sessions, beside)
    report = stamped(Report(name="xproxy replay offline", cases=tuple(cases)), started, datetime.now(UTC))
    format_: Literal["auto", "human", "json", "github"] = "json" if as_json else "github" if github else "auto"
    return emit(report, format_, junit)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="make the directory of golden events", path=path) from error


@attrs.define
class _Session:
    number: int
    trace_id: str
    line: int
    documents: list[dict[str, Any]] = attrs.Factory(list)
    ended: str | None = None
    lossy: int | None = None  # from this line of the capture on


def _gather(replayed: Iterable[Replayed]) -> list[_Session]:
    sessions: dict[int, _Session] = {}
    for each in replayed:
        session = sessions.setdefault(each.session, _Session(each.session, each.trace_id, each.line))
        session.documents += [record.document for record in each.records]
        session.ended = session.ended if each.ended is None else each.ended
        session.lossy = session.lossy or (each.line if each.lossy else None)
    return list(sessions.values())


def _case(file: Path, session: _Session, failures: tuple[Failure, ...] = ()) -> Case:
    properties = [("xproxy.trace_id", session.trace_id), ("xproxy.records", str(len(session.documents)))]
    if session.lossy is not None:
        properties.append(("xproxy.lossy_from_line", str(session.lossy)))
    return Case(
        name=f"session {session.number}",
        file=str(file),
        line=session.line,
        failures=failures,
        skipped=session.ended or None,
        properties=tuple(properties),
    )


def _compared(file: Path, sessions: list[_Session], golden: Path) -> Iterator[Case]:
    expected = by_session(read_golden(golden))
    for session in sessions:
        if session.ended:
            yield _case(file, session)
            continue
        want = expected.pop(str(session.number), [])
        got = golden_lines(session.documents, session=session.number)
        failure = compare(want, got, file=str(golden), line=1)
        yield _case(file, session, () if failure is None else (_with_hint(failure, file, golden),))
    skipped = {str(session.number) for session in sessions if session.ended}
    for number, lines in expected.items():
        if number not in skipped:
            missing = Failure(
                kind=FailureKind.GOLDEN,
                message=f"the capture has no session {number}",
                file=str(golden),
                line=lines[0][0],
            )
            yield Case(name=f"session {number or '(no record)'}", file=str(file), line=1, failures=(missing,))


def _with_hint(failure: Failure, file: Path, golden: Path) -> Failure:
    hint = f"$ xproxy replay offline {file} --golden {golden} --update"
    return attrs.evolve(failure, detail=f"{failure.detail}\nto accept it:\n{hint}")


def _updated(file: Path, sessions: list[_Session], golden: Path) -> Iterator[Case]:
    lines = [
        line
        for session in sessions
        if not session.ended
        for line in golden_lines(session.documents, session=session.number)
    ]
    replace_file(golden, b"".join(lines))
    for session in sessions:
        yield _case(file, session)


def _print_records(files: list[CaptureFile], *, as_json: bool) -> int:
    human = not as_json and is_terminal(sys.stdout)
    print_record = _human_printer() if human else _print_json
    replayed = 0
    with progress_bar("replaying", size_of(files)) as advance:
        for capture in files:
            file = capture.path
            for each in read_from(capture, replay(file, on_bytes=advance)):
                for record in each.records:
                    print_record(record)
                if each.lossy:
                    _say(f"{file}:{each.line}: octets that are no XML were cut out: records may differ from here on")
                if each.ended:
                    _say(f"{file}:{each.line}: session {each.session} is not whole: {each.ended}")
                elif each.ended is not None:
                    replayed += 1
    sys.stdout.flush()
    return EXIT_MATCH if replayed else EXIT_NOTHING


def _print_json(record: Record) -> None:
    sys.stdout.buffer.write(record.to_json())


def _human_printer() -> Any:
    from xproxy.log.view import render

    console = make_console()

    def print_record(record: Record) -> None:
        console.print(render(record, console))

    return print_record


def _say(text: str) -> None:
    click.echo(f"xproxy: {text}", err=True)
