"""Whether the journal is what was signed: modified, deleted, reordered, truncated, or rolled back behind an anchor.

Every leaf is hashed again from the stored bytes, and the tree over them compared with every note that is kept. A note
that fits proves that all entries below its size are those the key's holder signed, in that order. So:

* **Modified, deleted, inserted, reordered**: the root changes; where frame and index already tell, the entry is named,
  else the range between the last note that fits and the first that does not.
* **Truncated**: a note, an open entry, the other stream or an anchor speaks of more entries than there are.
* **Rolled back** to an older state that was whole: nothing inside tells that; an anchor does, a note that was kept
  elsewhere. So does the other stream, if only one was rolled back.
* **Written anew by who has the key**: likewise only an anchor tells.
* **Written anew by who has not**: the key is another one; a policy or an anchor tells, and without either the report
  names the key that was believed.

Order is judged by index, never by clock. A silence longer than two heartbeats while the proxy ran, entries that no
note covers, a log that was not closed: that is *incomplete*, not tampered with. What a crash left (torn tails, records
adopted without a note) is named by the log itself, which then has a hash of it; it is a *notice*.

The work is one pass over the bytes: CRC, index, SHA-256 of the entry, and the tree a level at a time (``Frontier.
extend``). Segments begin with the peaks of the tree before them, so after damage in one, the next can be judged still.

One change is not noticed and need not be: a note between two kept ones that is left out. Notes are thinned anyway;
what it vouched for, the next one does.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from xproxy.errors import FileProblem
from xproxy.journal.anchor import Anchor, load_anchors, parse_anchors
from xproxy.journal.chain import Snapshot
from xproxy.journal.findings import Finding, Kind, Report, Severity, StreamReport, Verdict
from xproxy.journal.format import LOCK_FILE, ORIGIN_FILE, FormatProblem, stream_origin
from xproxy.journal.note import Note, is_name
from xproxy.journal.policy import Policy
from xproxy.journal.reader import Progress, StreamPlace, read_open, segment_names, stream_places
from xproxy.journal.verify_stream import StreamVerifier, origin_of

__all__ = [
    "Anchor",
    "Finding",
    "Kind",
    "Report",
    "Severity",
    "StreamReport",
    "Verdict",
    "bytes_to_verify",
    "is_being_written",
    "load_anchors",
    "parse_anchors",
    "verify_journal",
]


def is_being_written(journal: Path) -> bool:
    """Return whether a writer has the journal's lock, as far as one can see."""
    try:
        descriptor = os.open(journal / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def bytes_to_verify(journal: Path) -> int:
    """Return how many bytes ``verify_journal`` will tell ``Progress`` of, about. Raises: FileProblem."""
    total = 0
    for place in stream_places(journal):
        for name in segment_names(place.path):
            try:
                total += (place.path / name.segment_file).stat().st_size
            except OSError:
                continue
    return total


def verify_journal(
    journal: Path,
    *,
    anchors: Sequence[Anchor] = (),
    policy: Policy | None = None,
    progress: Progress = lambda octets: None,
) -> Report:
    """Verify all streams of the journal in ``journal`` (STATE/journal).

    A journal that is being written is verified up to the newest note there was at the start.

    Raises:
        FileProblem: it cannot be read.
    """
    is_live = is_being_written(journal)
    findings: list[Finding] = []
    places = stream_places(journal)
    base = _read_base(journal, places, findings)
    # ops before sec: what an ops entry says of sec is then no more than what is found there.
    snapshots = {place.path: Snapshot.take(place.path) for place in reversed(places)}
    reports: list[StreamReport] = []
    known: list[Anchor] = list(anchors)
    from_heartbeats: dict[str, list[tuple[int, Note]]] = {}
    sec_size, is_sec_trusted = 0, False
    for place in places:
        origin = stream_origin(base, place.stream, place.generation)
        generations = [each.generation for each in places if each.stream == place.stream]
        verifier = StreamVerifier(
            place=place,
            origin=origin,
            snapshot=snapshots[place.path],
            anchors=[anchor for anchor in known if anchor.checkpoint.origin == origin],
            heartbeats=from_heartbeats.get(origin, []),
            policy=policy,
            is_live=is_live and place.generation == max(generations),
            sec_size=None if place.stream == "sec" else sec_size,
            is_sec_trusted=is_sec_trusted,
            progress=progress,
        )
        report = verifier.run()
        reports.append(report)
        findings.extend(report.findings)
        if place.stream == "sec":
            sec_size, is_sec_trusted = report.size, report.trusted_by is not None
            for index, note in verifier.ops_notes:
                from_heartbeats.setdefault(origin_of(note), []).append((index, note))
    findings.extend(_check_whole(places, base, known, from_heartbeats))
    return Report(streams=tuple(reports), findings=tuple(findings), is_live=is_live)


def _read_base(journal: Path, places: list[StreamPlace], findings: list[Finding]) -> str:
    """Return the base of the origins, from ``origin``, or where that is not there from the oldest entry."""
    path = journal / ORIGIN_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="read", path=path) from error
    text = data.decode("utf-8", "replace")
    if text.endswith("\n") and is_name(text[:-1]):
        return text[:-1]
    base = ""
    for place in places:
        for name in segment_names(place.path):
            try:
                origin = read_open(place.path / name.segment_file)[0].origin
            except FormatProblem:
                continue
            suffix = stream_origin("", place.stream, place.generation)
            base = origin.removesuffix(suffix)
            break
        if base:
            break
    if places:
        message = "the file origin is not there" if not data else "the file origin holds no name"
        findings.append(
            Finding(kind=Kind.MODIFIED, severity=Severity.TAMPERED, stream="journal", message=f"{message}; {base!r}?")
        )
    return base


def _check_whole(
    places: list[StreamPlace],
    base: str,
    anchors: list[Anchor],
    from_heartbeats: dict[str, list[tuple[int, Note]]],
) -> Iterator[Finding]:
    """Yield what concerns streams that are not there."""
    origins = {stream_origin(base, place.stream, place.generation) for place in places}
    for anchor in anchors:
        if anchor.checkpoint.origin not in origins:
            yield Finding(
                kind=Kind.FORKED,
                severity=Severity.TAMPERED,
                stream="journal",
                message=f"{anchor.source} is of the log {anchor.checkpoint.origin}, which is not here",
            )
    for origin, notes in from_heartbeats.items():
        if origin not in origins:
            index, _ = notes[0]
            yield Finding(
                kind=Kind.DELETED,
                severity=Severity.TAMPERED,
                stream="journal",
                message=f"entry {index} of sec speaks of the log {origin}, which is not here",
            )
    if not any(place.stream == "sec" for place in places):
        kind, severity = (Kind.DELETED, Severity.TAMPERED) if places else (Kind.EMPTY, Severity.INCOMPLETE)
        yield Finding(kind=kind, severity=severity, stream="sec", message="there is no stream sec")
