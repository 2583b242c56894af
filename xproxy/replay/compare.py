"""Golden records against those of now: what differs, for a person."""

import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from xproxy.errors import FileProblem
from xproxy.replay.report import Failure, FailureKind

DETAIL_LINES_MAX: Final = 200  # of one session: a reader has seen by then what is wrong
FIELDS_MAX: Final = 12  # of one record
VALUE_CHARS_MAX: Final = 100


def read_golden(path: Path) -> list[bytes]:
    """Return the lines of a golden file.

    Raises:
        FileProblem: it cannot be read.
    """
    try:
        return path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        hint = "make it with --update" if isinstance(error, FileNotFoundError) else None
        raise FileProblem.from_os_error(error, doing="read the golden events", path=path, hint=hint) from error


def by_session(lines: Sequence[bytes]) -> dict[str, list[tuple[int, bytes]]]:
    """Return the lines of each session with their places in the file, from 1; what is no record is under ""."""
    found: dict[str, list[tuple[int, bytes]]] = {}
    for number, line in enumerate(lines, 1):
        found.setdefault(_session(line), []).append((number, line))
    return found


def compare(want: Sequence[tuple[int, bytes]], got: Sequence[bytes], *, file: str, line: int) -> Failure | None:
    """Return what differs between golden lines and those of now; ``line`` is where to point if there are none."""
    expected = [each for _, each in want]
    if expected == list(got):
        return None
    old, new = [_record(each) for each in expected], [_record(each) for each in got]
    places = [number for number, _ in want]
    details: list[str] = []
    first: tuple[str, int] | None = None
    matcher = difflib.SequenceMatcher(None, [_name(each) for each in old], [_name(each) for each in new], False)
    for kind, a, b, c, d in matcher.get_opcodes():
        for at in range(a, b) if kind in ("delete", "replace") else ():
            details.append(f"- {_title(old[at])}")
            first = first or (f"{_name(old[at])} is missing", places[at])
        for at in range(c, d) if kind in ("insert", "replace") else ():
            details.append(f"+ {_title(new[at])}")
            first = first or (f"{_name(new[at])} is new", places[min(a, len(places) - 1)] if places else line)
        if kind == "equal":
            for was, now, place in zip(old[a:b], new[c:d], places[a:b], strict=True):
                changed = list(_changes(was, now))
                if not changed:
                    details.append(f"  {_title(now)}")
                    continue
                details.append(f"@ {_title(now)}")
                for path, before, after in changed[:FIELDS_MAX]:
                    details += [f"-     {path}: {before}", f"+     {path}: {after}"]
                if len(changed) > FIELDS_MAX:
                    details.append(f"      and {len(changed) - FIELDS_MAX} more fields")
                path, before, after = changed[0]
                first = first or (f"{_name(now)}: {path} was {before}, is {after}", place)
    message, place = first or ("the same records, written otherwise", places[0] if places else line)
    return Failure(
        kind=FailureKind.GOLDEN, message=message, detail="\n".join(_shortened(details)), file=file, line=place
    )


def _shortened(details: list[str]) -> Iterator[str]:
    """Keep what differs and three lines around it."""
    shown: set[int] = set()
    for at, detail in enumerate(details):
        if not detail.startswith("  "):
            shown.update(range(at - 3, at + 4))
    last = -1
    for count, at in enumerate(sorted(each for each in shown if 0 <= each < len(details)), 1):
        if at != last + 1:
            yield f"  ... {at - last - 1} more"
        yield details[at]
        last = at
        if count == DETAIL_LINES_MAX:
            yield f"  ... and more: {len(details) - at - 1} lines are not shown"
            return


def _record(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"event": {"action": "(no record)"}}


def _session(line: bytes) -> str:
    trace = _record(line).get("trace")
    return str(trace.get("id", "")) if isinstance(trace, dict) else ""


def _name(record: dict[str, Any]) -> str:
    event = record.get("event")
    return str(event.get("action")) if isinstance(event, dict) else "(no record)"


def _title(record: dict[str, Any]) -> str:
    event = record.get("event")
    number = str(event.get("id", "?")) if isinstance(event, dict) else "?"
    return f"{number:>8} {record.get('t_ms', '?'):>8} ms  {_name(record)}"


def _changes(was: Any, now: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            yield from _changes(was.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif was != now:
        yield path, _shown(was), _shown(now)


def _shown(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"
