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

import bisect
import enum
import fcntl
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import Any, Final

import attrs
import orjson

from xproxy.errors import FileProblem
from xproxy.journal.format import (
    ENTRY_BYTES_MAX,
    ENTRY_BYTES_MIN,
    FRAME_OVERHEAD_BYTES,
    LOCK_FILE,
    MAGIC,
    NOTES_SUFFIX,
    ORIGIN_FILE,
    SEGMENT_SUFFIX,
    CloseReason,
    Entry,
    EntryType,
    Flags,
    FormatProblem,
    OldSegment,
    OpenReason,
    SegmentClose,
    SegmentName,
    SegmentOpen,
    Tail,
    new_key_of,
    parse_notes,
    stream_origin,
    tail_of,
)
from xproxy.journal.note import Checkpoint, Note, NoteProblem, VerifierKey, is_name, note_from_lines, parse_note
from xproxy.journal.policy import Policy
from xproxy.journal.reader import StreamPlace, read_open, segment_names, stream_places
from xproxy.journal.tree import Frontier

CHUNK_BYTES: Final = 4_194_304
HEARTBEAT_NS: Final = 60_000_000_000  # writer.py writes a journal-checkpoint this often
SILENCE_NS_MAX: Final = 2 * HEARTBEAT_NS + 10_000_000_000  # and a slow disk's time
FINDINGS_MAX: Final = 1_000  # of one stream; who has more knows enough
_HEAD: Final = Struct(">IBBQQ")  # length of the frame, then the header of the entry
_CRC: Final = Struct(">I")
_TIE: Final = Struct(">Q")
_FRAME_BYTES_MAX: Final = ENTRY_BYTES_MAX + FRAME_OVERHEAD_BYTES

Progress = Callable[[int], None]
"""Told how many more bytes were dealt with."""


class Severity(enum.IntEnum):
    """What a finding means for the whole."""

    NOTICE = 0
    """Worth knowing; the log itself accounts for it."""
    INCOMPLETE = 1
    """Something is not there, or not signed, that may simply never have been written."""
    TAMPERED = 2
    """The bytes are not what was signed."""


class Kind(enum.Enum):
    """What was found."""

    # tampered
    MODIFIED = "modified"
    DELETED = "deleted"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    ROLLED_BACK = "rolled-back"
    FORKED = "forked"
    BAD_SIGNATURE = "bad-signature"
    UNTRUSTED_KEY = "untrusted-key"
    FOREIGN_FILE = "foreign-file"
    # incomplete
    EMPTY = "empty"
    UNSEALED = "unsealed"
    UNSIGNED = "unsigned"
    SILENCE = "silence"
    KEY_WRAP_MISSING = "key-wrap-missing"
    # either of these two, or a notice
    TORN = "torn"
    UNSIGNED_AT_CRASH = "unsigned-at-crash"
    NEW_GENERATION = "new-generation"


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that was found."""

    kind: Kind
    severity: Severity
    stream: str  # name of its directory
    message: str
    segment: str | None = None
    index: int | None = None  # the first entry it is about
    end_index: int | None = None  # behind the last one

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON would have it."""
        last = None if self.end_index is None else self.end_index - 1
        json = {
            "kind": self.kind.value,
            "severity": self.severity.name.lower(),
            "stream": self.stream,
            "segment": self.segment,
            "first_entry": self.index,
            "last_entry": last,
            "message": self.message,
        }
        return {name: value for name, value in json.items() if value is not None}


@attrs.frozen(kw_only=True)
class KeyInForce:
    """A key and the first size of a note that it signs."""

    from_size: int
    key: VerifierKey


@attrs.frozen(kw_only=True)
class StreamReport:
    """What one generation of one stream was found to be."""

    name: str  # of its directory
    origin: str
    size: int  # entries verified
    signed_size: int  # of them covered by a good note
    root: bytes | None  # over signed_size
    segments: int
    octets: int
    notes: int
    keys: tuple[KeyInForce, ...]
    trusted_by: str | None  # "policy", "anchor", "sec" (for ops), None: nothing but the log itself
    anchored_size: int  # of the greatest anchor that fits
    findings: tuple[Finding, ...]


class Verdict(enum.Enum):
    """The answer."""

    INTACT = "intact"
    INCOMPLETE = "incomplete"
    TAMPERED = "tampered"


@attrs.frozen(kw_only=True)
class Report:
    """What the journal was found to be."""

    streams: tuple[StreamReport, ...]
    findings: tuple[Finding, ...]  # of all streams, and of the journal as a whole
    is_live: bool  # a writer has it

    @property
    def verdict(self) -> Verdict:
        """The worst finding decides."""
        worst = max((finding.severity for finding in self.findings), default=Severity.NOTICE)
        match worst:
            case Severity.TAMPERED:
                return Verdict.TAMPERED
            case Severity.INCOMPLETE:
                return Verdict.INCOMPLETE
            case _:
                return Verdict.INTACT


@attrs.frozen(kw_only=True)
class Anchor:
    """A note that was kept elsewhere."""

    note: Note
    checkpoint: Checkpoint
    source: str


def load_anchors(path: Path) -> list[Anchor]:
    """Read a file of notes: bare ones one after another, or journal-checkpoint records as JSON Lines.

    Raises:
        FileProblem: it cannot be read, or holds none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="read the anchor", path=path) from error
    return parse_anchors(data, str(path), path)


def parse_anchors(data: bytes, source: str, path: Path) -> list[Anchor]:
    """``load_anchors`` of what was read already. Raises: FileProblem."""
    hint = "an anchor is a signed note as `xproxy log keys show` prints it, or journal-checkpoint records (JSON Lines)"
    notes: list[Note] = []
    try:
        if data.lstrip()[:1] == b"{":
            for line in data.splitlines():
                if b"journal-checkpoint" not in line:
                    continue
                document = orjson.loads(line)
                if document["event"]["action"] == "journal-checkpoint":
                    notes.extend(_notes_of_heartbeat(document))
        else:
            # Notes stand one behind another, with or without an empty line between: a note begins after the
            # signature lines of the one before.
            text = data.decode().replace("\r\n", "\n").strip("\n") + "\n"
            notes.extend(parse_note(part.encode()) for part in _split_notes(text))
        anchors = [Anchor(note=note, checkpoint=note.checkpoint, source=source) for note in notes]
    except (NoteProblem, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileProblem(f"the anchor {source} cannot be read: {error}", hint, path=path) from error
    if not anchors:
        raise FileProblem(f"the anchor {source} holds no note", hint, path=path)
    return anchors


def _split_notes(text: str) -> Iterator[str]:
    part: list[str] = []
    for line in text.split("\n"):
        is_signature = line.startswith("— ")
        if part and part[-1].startswith("— ") and not is_signature:
            yield "\n".join(part) + "\n"
            part = []
            if line == "":
                continue
        if part or line:
            part.append(line)
    if part and any(part):
        yield "\n".join(part).rstrip("\n") + "\n"


def _notes_of_heartbeat(document: dict[str, Any]) -> Iterator[Note]:
    """Yield the notes in a journal-checkpoint record. Raises: NoteProblem, KeyError, TypeError."""
    journal = document["xproxy"]["journal"]
    for name in ("note", "ops_note"):
        if lines := journal.get(name):
            yield note_from_lines(lines)


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
    snapshots = {place.path: _Snapshot.take(place.path) for place in reversed(places)}
    reports: list[StreamReport] = []
    known: list[Anchor] = list(anchors)
    from_heartbeats: dict[str, list[tuple[int, Note]]] = {}
    sec_size, is_sec_trusted = 0, False
    for place in places:
        origin = stream_origin(base, place.stream, place.generation)
        generations = [each.generation for each in places if each.stream == place.stream]
        verifier = _StreamVerifier(
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
                from_heartbeats.setdefault(_origin_of(note), []).append((index, note))
    findings.extend(_check_whole(places, base, known, from_heartbeats))
    return Report(streams=tuple(reports), findings=tuple(findings), is_live=is_live)


def _origin_of(note: Note) -> str:
    return note.text.partition("\n")[0]


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


# One stream -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class _Snapshot:
    """What there was of a stream when the verification began: a writer may go on meanwhile."""

    names: list[SegmentName]
    files: list[str]
    size: int  # of the newest note

    @classmethod
    def take(cls, directory: Path) -> "_Snapshot":
        names = segment_names(directory)
        try:
            files = os.listdir(directory)
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="read the journal", path=directory) from error
        size = 0
        for name in reversed(names):
            try:
                notes, _ = parse_notes((directory / name.notes_file).read_bytes())
            except (OSError, FormatProblem):
                continue
            if notes:
                size = notes[-1].checkpoint.size
                break
        return cls(names, files, size)


class _Damage(Exception):  # noqa: N818 - what a segment was found to be
    """A segment cannot be read on from here."""

    def __init__(self, kind: Kind, message: str, index: int, end_index: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.index = index
        self.end_index = end_index


@attrs.frozen(kw_only=True)
class _Link:
    """A segment in the chain. What the next one says of it, if there is one."""

    name: SegmentName
    opened: SegmentOpen | None  # None: it cannot be read, ``problem`` says why
    problem: str | None
    successor: SegmentOpen | None
    is_newest: bool

    @property
    def said(self) -> OldSegment | None:
        return None if self.successor is None else self.successor.previous


_Awaited = tuple[int, str, Note, int | None]
"""A size, who vouches for it, his note, and for a heartbeat its index in ``sec``."""


@attrs.define
class _StreamVerifier:
    """The state of one pass over one stream."""

    place: StreamPlace = attrs.field(kw_only=True)
    origin: str = attrs.field(kw_only=True)
    snapshot: _Snapshot = attrs.field(kw_only=True)
    anchors: list[Anchor] = attrs.field(kw_only=True)
    heartbeats: list[tuple[int, Note]] = attrs.field(kw_only=True)  # (index in sec, note of ops)
    policy: Policy | None = attrs.field(kw_only=True)
    is_live: bool = attrs.field(kw_only=True)
    sec_size: int | None = attrs.field(kw_only=True)  # None: this is sec
    is_sec_trusted: bool = attrs.field(kw_only=True)
    progress: Progress = attrs.field(kw_only=True)

    ops_notes: list[tuple[int, Note]] = attrs.field(factory=list, init=False)
    _findings: list[Finding] = attrs.field(factory=list, init=False)
    _keys: list[KeyInForce] = attrs.field(factory=list, init=False)
    _proved: set[bytes] = attrs.field(factory=set, init=False)  # public keys with a good note in this log
    _cosigners: list[KeyInForce] = attrs.field(factory=list, init=False)  # old keys, and from when on they sign too
    _tree: Frontier | None = attrs.field(factory=Frontier, init=False)  # None: lost by damage
    _size: int = attrs.field(default=0, init=False)
    _signed: Checkpoint | None = attrs.field(default=None, init=False)
    _last_note: Note | None = attrs.field(default=None, init=False)
    _note_count: int = attrs.field(default=0, init=False)
    _octets: int = attrs.field(default=0, init=False)
    _segment_count: int = attrs.field(default=0, init=False)
    _time_ns: int | None = attrs.field(default=None, init=False)  # of the last entry; None: nothing to compare with
    _tie: int = attrs.field(default=0, init=False)  # greatest so far
    _tie_at: dict[int, int] = attrs.field(factory=dict, init=False)  # by awaited size
    _anchored: int = attrs.field(default=0, init=False)
    _vouched: bool = attrs.field(default=False, init=False)  # a heartbeat of sec holds a note that fits
    _is_damaged: bool = attrs.field(default=False, init=False)

    def run(self) -> StreamReport:
        """Verify the stream."""
        self._check_files()
        chain = self._follow_chain()
        if not chain and not self._findings:
            self._found(Kind.EMPTY, Severity.INCOMPLETE, "there is no entry at all")
        self._awaited = self._sort_awaited()
        self._tie_at = dict.fromkeys((size for size, *_ in self._awaited), 0)
        for link in chain:
            self._verify_segment(link)
        self._check_end(chain)
        return StreamReport(
            name=self.place.path.name,
            origin=self.origin,
            size=self._size,
            signed_size=0 if self._signed is None else self._signed.size,
            root=None if self._signed is None else self._signed.root,
            segments=self._segment_count,
            octets=self._octets,
            notes=self._note_count,
            keys=tuple(self._keys),
            trusted_by=self._check_trust(),
            anchored_size=self._anchored,
            findings=tuple(self._findings),
        )

    _awaited: list[_Awaited] = attrs.field(factory=list, init=False)

    # findings

    def _found(
        self,
        kind: Kind,
        severity: Severity,
        message: str,
        *,
        segment: SegmentName | None = None,
        index: int | None = None,
        end_index: int | None = None,
    ) -> None:
        if len(self._findings) >= FINDINGS_MAX:
            return
        self._findings.append(
            Finding(
                kind=kind,
                severity=severity,
                stream=self.place.path.name,
                segment=None if segment is None else segment.stem,
                index=index,
                end_index=end_index,
                message=message,
            )
        )

    def _tampered(self, kind: Kind, message: str, **where: Any) -> None:
        self._found(kind, Severity.TAMPERED, message, **where)

    # which segments there are

    def _check_files(self) -> None:
        """Every file that looks like a part of the log must be one."""
        serials: dict[int, SegmentName] = {}
        present = set(self.snapshot.files)
        for file in sorted(present):
            if not file.endswith((SEGMENT_SUFFIX, NOTES_SUFFIX)):
                continue
            name = SegmentName.from_file(file)
            if name is None:
                self._tampered(Kind.FOREIGN_FILE, f"{file!r} is no name of a segment")
            elif file == name.notes_file and name.segment_file not in present:
                self._tampered(Kind.DELETED, f"there are notes, and no {name.segment_file}", segment=name)
            elif serials.setdefault(name.serial, name) != name:
                other = serials[name.serial].segment_file
                self._tampered(Kind.FOREIGN_FILE, f"{file} and {other} have one serial", segment=name)

    def _follow_chain(self) -> list[_Link]:
        """Return the segments that hold log in order, by what each says of the one before."""
        names = list(self.snapshot.names)
        opens: dict[SegmentName, SegmentOpen | str] = {}
        for name in names:
            try:
                opens[name] = read_open(self.place.path / name.segment_file)[0]
            except FormatProblem as problem:
                opens[name] = str(problem)
        chain: list[_Link] = []
        accounted: set[SegmentName] = set()
        successor: SegmentOpen | None = None
        # Newer than the newest that can be read: a start that came to nothing, or damage.
        while names and isinstance(opens[names[-1]], str):
            name = names.pop()
            accounted.add(name)
            self._judge_unreadable_newest(name, str(opens[name]), is_only=not names)
        current = names[-1] if names else None
        while current is not None:
            name, is_newest = current, not chain
            accounted.add(name)
            found = opens.get(name)
            if found is None:
                # The file is not there. Go on with what is.
                assert successor is not None
                self._tampered(
                    Kind.DELETED,
                    f"the segment is not there, though {successor.name.stem} goes on from it",
                    segment=name,
                    index=name.first_index,
                    end_index=successor.name.first_index,
                )
                self._is_damaged = True
                current, successor = self._next_older(names, accounted, name), None
                continue
            if isinstance(found, str):
                chain.append(_Link(name=name, opened=None, problem=found, successor=successor, is_newest=is_newest))
                current, successor = self._next_older(names, accounted, name), None
                continue
            chain.append(_Link(name=name, opened=found, problem=None, successor=successor, is_newest=is_newest))
            self._judge_torn(found, accounted)
            previous = found.previous
            if previous is None:
                if name.first_index != 0:
                    self._tampered(Kind.DELETED, "it is not the first, and names none before", segment=name)
                current = None
            elif previous.name.serial >= name.serial or previous.name.first_index > name.first_index:
                self._tampered(Kind.REORDERED, f"it names {previous.name.stem} as the one before", segment=name)
                current, successor = self._next_older(names, accounted, name), None
            else:
                current, successor = previous.name, found
        for extra in self.snapshot.names:
            if extra not in accounted:
                self._tampered(Kind.FOREIGN_FILE, "no other segment knows of it", segment=extra)
        chain.reverse()
        return chain

    def _next_older(
        self, names: list[SegmentName], accounted: set[SegmentName], name: SegmentName
    ) -> SegmentName | None:
        older = [each for each in names if each.serial < name.serial and each not in accounted]
        return older[-1] if older else None

    def _judge_unreadable_newest(self, name: SegmentName, problem: str, *, is_only: bool) -> None:
        notes = self._parse_notes_leniently(name)
        if notes:
            size = notes[-1].checkpoint.size
            self._tampered(
                Kind.MODIFIED,
                f"{problem}, though a note was signed over entries up to {size}",
                segment=name,
                index=name.first_index,
                end_index=max(size, name.first_index + 1),
            )
        elif not self.is_live:
            what = "the log was never begun" if is_only else "a start came to nothing, and no other followed"
            self._found(Kind.TORN, Severity.INCOMPLETE, f"{problem}: {what}", segment=name)

    def _judge_torn(self, opened: SegmentOpen, accounted: set[SegmentName]) -> None:
        """Check the segments that ``opened`` says hold no log."""
        for old in opened.torn:
            accounted.add(old.name)
            self._check_tail(old, opened.name)
            self._found(
                Kind.TORN,
                Severity.NOTICE,
                f"a segment without log, named by {opened.name.stem}"
                + ("" if old.file_bytes is None else f": {old.file_bytes} bytes"),
                segment=old.name,
            )
            notes = self._parse_notes_leniently(old.name)
            if notes and notes[-1].checkpoint.size > opened.name.first_index:
                self._tampered(Kind.TRUNCATED, "a note was signed in a segment that is no log", segment=old.name)

    def _parse_notes_leniently(self, name: SegmentName) -> list[Note]:
        try:
            return parse_notes((self.place.path / name.notes_file).read_bytes())[0]
        except (OSError, FormatProblem):
            return []

    def _check_tail(self, old: OldSegment, by: SegmentName) -> None:
        """Compare what stands behind the log in an old segment with what was found there when the next began."""
        path = self.place.path / old.name.segment_file
        expected = old.file_bytes
        if expected is None:
            return  # a write failed there: what the disk has is anybody's guess
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                found = hashlib.sha256()
                file.seek(old.log_bytes)
                while data := file.read(CHUNK_BYTES):
                    found.update(data)
                    self.progress(len(data))
        except FileNotFoundError:
            self._tampered(Kind.DELETED, f"{by.stem} names it, and it is not there", segment=old.name)
            return
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="read", path=path) from error
        if size != expected:
            kind = Kind.TRUNCATED if size < expected else Kind.MODIFIED
            self._tampered(kind, f"the file has {size} bytes, not {expected}", segment=old.name)
        elif old.tail_sha256 is not None and found.digest() != old.tail_sha256:
            self._tampered(Kind.MODIFIED, "what a crash left behind its last entry was changed", segment=old.name)
        elif old.tail_sha256 is None and size > old.log_bytes:
            self._tampered(Kind.MODIFIED, "bytes stand behind the last entry", segment=old.name)

    # what must come out

    def _sort_awaited(self) -> list[_Awaited]:
        """Return every root that is asked for from outside."""
        awaited: list[_Awaited] = [
            (anchor.checkpoint.size, anchor.source, anchor.note, None) for anchor in self.anchors
        ]
        awaited += [
            (note.checkpoint.size, f"entry {index} of sec", note, index)
            for index, note in self.heartbeats
            if not (self.is_live and note.checkpoint.size > self.snapshot.size)
        ]
        return sorted(awaited, key=lambda each: each[0])

    # one segment

    def _verify_segment(self, link: _Link) -> None:
        self._segment_count += 1
        name, opened = link.name, link.opened
        if opened is None:
            end = None if link.successor is None else link.successor.name.first_index
            self._tampered(Kind.MODIFIED, f"{link.problem}", segment=name, index=name.first_index, end_index=end)
            self._tree = None
            return
        self._check_open(opened, name)
        if link.said is not None:
            assert link.successor is not None
            self._check_tail(link.said, link.successor.name)
        tree = self._tree
        if tree is not None and (tree.size != name.first_index or tree.peaks != opened.peaks):
            if not self._is_damaged:
                self._tampered(
                    Kind.MODIFIED,
                    f"the tree before it is not the one it goes on from ({tree.size} entries, not {name.first_index})",
                    segment=name,
                    index=name.first_index,
                )
            tree = None
        if tree is None:
            self._is_damaged = True
            tree = Frontier(name.first_index, opened.peaks)
        self._tree = tree
        self._size = name.first_index
        notes = self._read_notes(link)
        try:
            self._walk(link, opened, notes)
        except _Damage as damage:
            end_index = damage.end_index
            self._tampered(damage.kind, damage.message, segment=name, index=damage.index, end_index=end_index)
            self._is_damaged = True
            self._tree = None
            return

    def _check_open(self, opened: SegmentOpen, name: SegmentName) -> None:
        if opened.origin != self.origin:
            self._tampered(Kind.FOREIGN_FILE, f"it is of the log {opened.origin!r}", segment=name)
        if opened.seal is not None and not (self.place.path / f"{name.stem}.keys").exists():
            self._found(Kind.KEY_WRAP_MISSING, Severity.INCOMPLETE, "nobody can decrypt it any more", segment=name)
        if not self._keys:
            self._keys.append(KeyInForce(from_size=0, key=opened.vkey))
        elif self._keys[-1].key != opened.vkey:
            if not self._is_damaged:
                self._tampered(
                    Kind.UNTRUSTED_KEY,
                    f"it names the key {opened.vkey}, in force is {self._keys[-1].key}",
                    segment=name,
                    index=name.first_index,
                )
            self._keys.append(KeyInForce(from_size=name.first_index + 1, key=opened.vkey))
        if opened.vkey.name != self.origin and opened.origin == self.origin:
            self._tampered(Kind.UNTRUSTED_KEY, f"its key signs for {opened.vkey.name}", segment=name)
        if opened.unsigned_from is not None:
            self._found(
                Kind.UNSIGNED_AT_CRASH,
                Severity.NOTICE,
                "no note covered these when the process died; the next one does",
                segment=name,
                index=opened.unsigned_from,
                end_index=name.first_index,
            )
        if opened.predecessor is not None:
            self._found(
                Kind.NEW_GENERATION,
                Severity.NOTICE,
                f"this log was begun because {_origin_and_size(opened.predecessor)} could not be gone on with",
                segment=name,
            )
        if opened.reason is OpenReason.STARTED or opened.reason is OpenReason.FAILED:
            self._time_ns = None  # the proxy did not run, or could not write, and says so
        self._check_newest_note(opened, name)

    def _check_newest_note(self, opened: SegmentOpen, name: SegmentName) -> None:
        """The note that the writer had last must still be there, or a later one."""
        if opened.note is None:
            return
        try:
            said = parse_note(opened.note.encode())
            checkpoint = said.checkpoint
        except NoteProblem as problem:
            self._tampered(Kind.MODIFIED, f"the note in its first entry: {problem}", segment=name)
            return
        last = None if self._last_note is None else self._last_note.checkpoint
        if last is None or last.size < checkpoint.size:
            if not self._is_damaged:
                self._tampered(
                    Kind.DELETED, f"the note of size {checkpoint.size}, which it names, is not there", segment=name
                )
        elif last.size == checkpoint.size and last != checkpoint:
            self._tampered(Kind.FORKED, f"two notes of size {last.size} differ", segment=name)

    def _read_notes(self, link: _Link) -> list[Note]:
        """Return the notes of a segment's time."""
        name = link.name
        path = self.place.path / name.notes_file
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="read", path=path) from error
        try:
            notes, end = parse_notes(data)
        except FormatProblem as problem:
            self._tampered(Kind.MODIFIED, f"{name.notes_file} {problem}", segment=name)
            return self._salvage(data)
        is_whole = end == len(data)
        if not is_whole and not self.is_live:
            # Where a write failed that is so. Else it is cut away at the next start.
            is_explained = link.successor is not None and link.successor.reason is OpenReason.FAILED
            severity = Severity.NOTICE if is_explained else Severity.INCOMPLETE
            self._found(Kind.TORN, severity, f"the last note in {name.notes_file} is cut off", segment=name)
        if self.is_live:
            notes = [note for note in notes if note.checkpoint.size <= self.snapshot.size]
        return notes

    def _salvage(self, data: bytes) -> list[Note]:
        """Return the notes before the first that is none."""
        end = len(data)
        while end > 0:
            end = data.rfind(b"\n\n", 0, end)
            if end < 0:
                break
            try:
                return parse_notes(data[: end + 2])[0]
            except FormatProblem:
                continue
        return []

    def _walk(self, link: _Link, opened: SegmentOpen, notes: list[Note]) -> None:
        """Read the frames of a segment, and compare the tree with each note on the way.

        Raises: _Damage.
        """
        name, said = link.name, link.said
        end_index = None if link.successor is None else link.successor.name.first_index
        if said is not None and said.log_bytes == 0:
            if notes and end_index is not None and notes[-1].checkpoint.size > end_index:
                self._tampered(Kind.TRUNCATED, "a note was signed over entries that are no log", segment=name)
            return
        checks = _Checks(self, name, notes, end_index)
        signed_size = max((note.checkpoint.size for note in notes), default=name.first_index)
        limit = self.snapshot.size if self.is_live and link.is_newest else None
        scan = _Scan(self.place.path / name.segment_file, name.first_index, self.progress)
        state = _SegmentState(self, name, opened)
        try:
            tree = self._tree
            assert tree is not None
            for leaves in scan.leaves(
                end_offset=None if said is None else said.log_bytes, end_index=end_index, limit=limit, state=state
            ):
                done = 0
                for size in checks.sizes_up_to(tree.size + len(leaves)):
                    count = size - tree.size
                    tree.extend(leaves[done : done + count])
                    done += count
                    self._size = tree.size
                    checks.compare(size, tree)
                tree.extend(leaves[done:] if done else leaves)
                self._size = tree.size
        except _Damage as damage:
            if not link.is_newest or damage.index < signed_size or state.closed is not None:
                raise
            # Behind the last note of the newest segment: nobody was told that this is durable.
            if not self.is_live:
                self._found(Kind.TORN, Severity.INCOMPLETE, damage.message, segment=name, index=damage.index)
        finally:
            self._octets += scan.octets
            self._note_count += len(notes)
        if end_index is not None and self._size != end_index:
            raise _Damage(Kind.DELETED, f"entries {self._size} to {end_index - 1} are missing", self._size, end_index)
        if self._size < signed_size:
            raise _Damage(
                Kind.TRUNCATED,
                f"it ends before entry {self._size}, though a note was signed over {signed_size}",
                self._size,
                signed_size,
            )
        if said is not None and said.is_closed != (state.closed is not None):
            raise _Damage(Kind.MODIFIED, "whether it was closed is not as the next one says", self._size - 1)
        self._check_tail_of_newest(link, scan, state)
        if notes:
            self._last_note = notes[-1]

    def _check_tail_of_newest(self, link: _Link, scan: "_Scan", state: "_SegmentState") -> None:
        if not link.is_newest or self.is_live:
            return
        if state.closed is not None:
            if scan.tail is not Tail.NOTHING:
                self._tampered(Kind.MODIFIED, "bytes stand behind its last entry", segment=link.name)
            elif state.closed.reason is not CloseReason.STOPPED:
                what = f"it was closed for its {state.closed.reason.value}, and none follows"
                self._found(Kind.UNSEALED, Severity.INCOMPLETE, what, segment=link.name)
        else:
            self._found(
                Kind.UNSEALED, Severity.INCOMPLETE, "the log was not closed: its writer died", segment=link.name
            )

    # notes and keys

    def _key_at(self, size: int) -> VerifierKey:
        """Return the key in force for a note of ``size``."""
        position = bisect.bisect_right(self._keys, size, key=lambda each: each.from_size)
        return self._keys[max(0, position - 1)].key

    def _rotate(self, index: int, key: VerifierKey) -> None:
        self._cosigners.append(KeyInForce(from_size=index + 1, key=self._keys[-1].key))
        self._keys.append(KeyInForce(from_size=index + 1, key=key))

    def _check_note(self, note: Note, checkpoint: Checkpoint, tree: Frontier, segment: SegmentName) -> None:
        """``tree`` is of the note's size."""
        size = checkpoint.size
        where: dict[str, Any] = {"segment": segment, "index": size - 1, "end_index": size}
        if checkpoint.origin != self.origin:
            self._tampered(Kind.FOREIGN_FILE, f"a note is of the log {checkpoint.origin}", **where)
            return
        # Entries are read ahead of the notes: a rotation may be known that this note is older than.
        signers = [*(old.key for old in self._cosigners if old.from_size <= size), self._key_at(size)]
        try:
            for key in signers:
                key.verify(note)
        except NoteProblem as problem:
            self._tampered(Kind.BAD_SIGNATURE, f"the note of size {size}: {problem}", **where)
            return
        if tree.root() != checkpoint.root:
            start = 0 if self._signed is None else self._signed.size
            start = max(start, segment.first_index)
            self._found_other_tree(start, size, segment)
            return
        self._cosigners = [old for old in self._cosigners if old.from_size > size]
        self._proved.update(key.public for key in signers)
        self._signed = checkpoint

    def _found_other_tree(self, start: int, end: int, segment: SegmentName) -> None:
        if self._other_tree_segment == segment:
            return  # once wrong, all later roots of the segment are
        self._other_tree_segment = segment
        self._tampered(
            Kind.MODIFIED,
            f"entries {start} to {end - 1} are not those that were signed",
            segment=segment,
            index=start,
            end_index=end,
        )
        self._is_damaged = True

    _other_tree_segment: SegmentName | None = attrs.field(default=None, init=False)

    def _check_awaited(self, size: int, tree: Frontier) -> None:
        """Compare what was asked for from outside with the tree of ``size``."""
        while self._awaited and self._awaited[0][0] <= size:
            wanted, who, note, sec_index = self._awaited.pop(0)
            if wanted != size:
                continue  # it lies in what is damaged
            if tree.root() != note.checkpoint.root:
                self._tampered(
                    Kind.FORKED,
                    f"the {wanted} entries that {who} vouches for are not these",
                    index=0,
                    end_index=wanted,
                )
                continue
            try:
                self._key_at(wanted).verify(note)
            except NoteProblem as problem:
                self._tampered(Kind.BAD_SIGNATURE, f"the note of {who}: {problem}")
                continue
            if sec_index is None:
                self._anchored = max(self._anchored, wanted)
                continue
            self._vouched = True
            if (tie := self._tie_at.get(wanted, 0)) > sec_index:
                self._tampered(
                    Kind.REORDERED,
                    f"entry {wanted - 1} was made after entry {tie - 1} of sec, and {who} knew it already",
                    index=wanted - 1,
                    end_index=wanted,
                )

    def _check_end(self, chain: list[_Link]) -> None:
        signed = 0 if self._signed is None else self._signed.size
        for wanted, who, _, sec_index in self._awaited:
            kind = Kind.ROLLED_BACK if sec_index is None else Kind.TRUNCATED
            message = f"{who} vouches for {wanted} entries, here are {self._size}"
            self._tampered(kind, message, index=self._size, end_index=wanted)
        if chain and not self._is_damaged and self._size > signed and not self.is_live:
            self._found(
                Kind.UNSIGNED,
                Severity.INCOMPLETE,
                "no note covers these",
                segment=chain[-1].name,
                index=signed,
                end_index=self._size,
            )

    def _check_trust(self) -> str | None:
        """Return what says that the key is the right one; None: nothing but the log."""
        by_sec = "sec" if self.is_sec_trusted and self._vouched else None
        if self.policy is None:
            return "anchor" if self._anchored else by_sec
        trusted = self.policy.keys_of(self.origin)
        if not trusted and self.sec_size is not None:
            # ops begins with the first debug record, which may have come after the policy was carried away.
            if self._size and by_sec is None:
                what = "the policy names no key of it, and no heartbeat of sec vouches for it yet"
                self._found(Kind.UNTRUSTED_KEY, Severity.INCOMPLETE, what)
            return by_sec
        if not trusted:
            self._tampered(Kind.UNTRUSTED_KEY, f"the policy names no key of the log {self.origin}")
            return None
        if any(key.public in self._proved for key in trusted):
            return "policy"
        if self._size:
            self._tampered(Kind.UNTRUSTED_KEY, "no note is signed by a key that the policy names")
        return None


class _Checks:
    """The sizes at which the tree of one segment is to be compared with something."""

    def __init__(
        self, verifier: _StreamVerifier, segment: SegmentName, notes: list[Note], end_index: int | None
    ) -> None:
        self._verifier = verifier
        self._segment = segment
        self._notes: dict[int, list[Note]] = {}
        previous = segment.first_index
        for note in notes:
            size = note.checkpoint.size
            if size < previous or size == segment.first_index:
                verifier._tampered(Kind.REORDERED, f"a note of size {size} is out of its place", segment=segment)
            elif end_index is not None and size > end_index:
                verifier._tampered(
                    Kind.TRUNCATED,
                    f"a note was signed over {size} entries, the segment ends before {end_index}",
                    segment=segment,
                    index=end_index,
                    end_index=size,
                )
            else:
                same = self._notes.setdefault(size, [])
                if same and same[-1] == note:
                    verifier._tampered(Kind.DUPLICATED, f"the note of size {size} is there twice", segment=segment)
                same.append(note)
            previous = max(size, previous)
        sizes = set(self._notes)
        sizes.update(size for size, *_ in verifier._awaited)
        self._sizes = sorted(sizes)
        self._position = bisect.bisect_right(self._sizes, segment.first_index)

    def sizes_up_to(self, size: int) -> Iterator[int]:
        """Yield the sizes to be compared that are reached now."""
        while self._position < len(self._sizes) and self._sizes[self._position] <= size:
            yield self._sizes[self._position]
            self._position += 1

    def compare(self, size: int, tree: Frontier) -> None:
        """The tree has come to ``size``."""
        for note in self._notes.get(size, ()):
            self._verifier._check_note(note, note.checkpoint, tree, self._segment)
        self._verifier._check_awaited(size, tree)


class _SegmentState:
    """What a segment's entries say beside being leaves."""

    def __init__(self, verifier: _StreamVerifier, name: SegmentName, opened: SegmentOpen) -> None:
        self._verifier = verifier
        self._name = name
        self._first = name.first_index
        self.closed: SegmentClose | None = None

    def take(self, entry: Entry, times: tuple[int, int]) -> None:
        """Look at an entry that is not just an event in clear. ``times``: least and greatest so far, with its own.

        Raises: _Damage.
        """
        verifier, index = self._verifier, entry.index
        if (entry.type is EntryType.SEGMENT_OPEN) != (index == self._first):
            raise _Damage(Kind.MODIFIED, f"entry {index} opens a segment", index, index + 1)
        if entry.tie is not None:
            self._check_tie(entry.tie, index)
        else:
            self._remember_tie(index)
        try:
            if entry.type is EntryType.SEGMENT_CLOSE:
                self.closed = closed = SegmentClose.from_bytes(entry.payload)
                if (closed.entries_count, closed.time_ns_min, closed.time_ns_max) != (index - self._first + 1, *times):
                    raise _Damage(Kind.MODIFIED, "what it says of itself at its end is not so", index, index + 1)
            elif entry.type is EntryType.CONTROL:
                if (key := new_key_of(entry)) is not None:
                    verifier._rotate(index, key)
                elif b"journal-checkpoint" in entry.payload:
                    self._take_heartbeat(entry)
        except FormatProblem as problem:
            raise _Damage(Kind.MODIFIED, f"entry {index}: {problem}", index, index + 1) from problem

    def _take_heartbeat(self, entry: Entry) -> None:
        try:
            document = orjson.loads(entry.payload)
            if document["event"]["action"] != "journal-checkpoint":
                return
            for note in _notes_of_heartbeat(document):
                note.checkpoint  # noqa: B018 - raises
                if _origin_of(note) != self._verifier.origin and self._verifier.sec_size is None:
                    self._verifier.ops_notes.append((entry.index, note))
        except (NoteProblem, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatProblem(f"a journal-checkpoint that cannot be read: {error!r}") from error

    def _check_tie(self, tie: int, index: int) -> None:
        verifier = self._verifier
        if verifier.sec_size is None:
            return
        where: dict[str, Any] = {"segment": self._name, "index": index, "end_index": index + 1}
        if tie < verifier._tie:
            verifier._tampered(
                Kind.REORDERED, f"entry {index} was made before entry {verifier._tie} of sec, the one before it after",
                **where,
            )  # fmt: skip
        if tie > verifier.sec_size and not verifier._tie > verifier.sec_size:
            verifier._tampered(
                Kind.TRUNCATED, f"entry {index} was made when sec had {tie} entries, here are {verifier.sec_size}",
                **where,
            )  # fmt: skip
        verifier._tie = max(tie, verifier._tie)
        self._remember_tie(index)

    def _remember_tie(self, index: int) -> None:
        if index + 1 in self._verifier._tie_at:
            self._verifier._tie_at[index + 1] = self._verifier._tie

    def silent(self, index: int, seconds: float) -> None:
        """Between entry ``index`` and the one before it so much time passed."""
        if self._verifier.sec_size is None:
            self._verifier._found(
                Kind.SILENCE,
                Severity.INCOMPLETE,
                f"{seconds:.0f} s without an entry, though the proxy ran",
                segment=self._name,
                index=index,
            )


class _Scan:
    """One pass over the frames of a segment's file."""

    def __init__(self, path: Path, first_index: int, progress: Progress) -> None:
        self._path = path
        self._index = first_index
        self._progress = progress
        self.octets = 0  # of whole frames
        self.tail = Tail.NOTHING

    def leaves(
        self, *, end_offset: int | None, end_index: int | None, limit: int | None, state: _SegmentState
    ) -> Iterator[list[bytes]]:
        """Yield the leaf hashes, a chunk at a time.

        Ends at ``end_offset`` or where there is no more; at ``limit`` entries of the log, if given.

        Raises:
            _Damage: a frame is not what it should be.
            FileProblem: the file cannot be read.
        """
        try:
            with self._path.open("rb", buffering=0) as file:
                yield from self._leaves(file.fileno(), end_offset, end_index, limit, state)
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="read", path=self._path) from error

    def _leaves(
        self, descriptor: int, end_offset: int | None, end_index: int | None, limit: int | None, state: _SegmentState
    ) -> Iterator[list[bytes]]:
        # The hot loop: 1.6 us an entry of 900 bytes, of which 1 us is CRC and SHA-256. Locals, no objects.
        unpack, unpack_crc, crc32, head_bytes = _HEAD.unpack_from, _CRC.unpack_from, zlib.crc32, _HEAD.size
        event = int(EntryType.EVENT)
        verifier = state._verifier
        index, position = self._index, len(MAGIC)  # offset in the file of the next frame
        least, greatest = 1 << 64, 0
        last_ns = verifier._time_ns
        stop = (1 << 64) if limit is None else limit
        while index < stop:
            wanted = CHUNK_BYTES if end_offset is None else min(CHUNK_BYTES, max(0, end_offset - position))
            data = os.pread(descriptor, wanted, position)
            leaves: list[bytes] = []
            add = leaves.append
            offset, size = 0, len(data)
            problem: _Damage | None = None
            while index < stop and offset + head_bytes <= size:
                length, type_, flags, found, time_ns = unpack(data, offset)
                end = offset + 4 + length
                if end + 4 > size or length > ENTRY_BYTES_MAX or length < ENTRY_BYTES_MIN:
                    break
                frame = data[offset:end]
                if crc32(frame) != unpack_crc(data, end)[0]:
                    break
                if found != index:
                    problem = self._disorder(descriptor, index, found, position + offset, end_index)
                    break
                if time_ns < least:
                    least = time_ns
                if time_ns > greatest:
                    greatest = time_ns
                if last_ns is not None and time_ns - last_ns > SILENCE_NS_MAX:
                    state.silent(index, (time_ns - last_ns) / 1e9)
                last_ns = time_ns
                if type_ != event or flags:
                    if type_ == event and flags == Flags.TIED and length >= ENTRY_BYTES_MIN + 8:
                        state._check_tie(_TIE.unpack_from(frame, 22)[0], index)
                    else:
                        try:
                            entry = Entry.from_bytes(memoryview(frame)[4:])
                        except FormatProblem as error:
                            problem = _Damage(Kind.MODIFIED, f"entry {index}: {error}", index, index + 1)
                            break
                        if state.closed is not None:
                            problem = _Damage(Kind.MODIFIED, "entries stand behind its end", index)
                            break
                        try:
                            state.take(entry, (least, greatest))
                        except _Damage as damage:
                            problem = damage
                            break
                elif state.closed is not None:
                    problem = _Damage(Kind.MODIFIED, "entries stand behind its end", index)
                    break
                add(sha256(b"\x00" + frame[4:]).digest())
                index += 1
                offset = end + 4
            self._progress(offset)
            self.octets += offset
            position += offset
            verifier._time_ns = last_ns
            self._index = index
            if leaves:
                yield leaves
            if problem is not None:
                raise problem
            if end_offset is not None and position >= end_offset:
                return
            if not leaves:
                break
        if index < stop:
            self._judge_tail(descriptor, position, end_offset)

    def _judge_tail(self, descriptor: int, position: int, end_offset: int | None) -> None:
        """No whole frame stands at ``position``: say what does. Raises: _Damage."""
        index = self._index
        data = os.pread(descriptor, _FRAME_BYTES_MAX, position)
        size = os.fstat(descriptor).st_size
        self.tail = Tail.NOTHING
        start = position
        while piece := os.pread(descriptor, CHUNK_BYTES, start):
            self.tail = tail_of(piece, 0)
            if self.tail is Tail.TORN:
                break
            start += len(piece)
            self._progress(len(piece))
        if end_offset is not None:
            if size < end_offset:
                raise _Damage(Kind.TRUNCATED, f"the file has {size} bytes, its log has {end_offset}", index)
            raise _Damage(Kind.MODIFIED, f"entry {index}, at octet {position}, is damaged", index, index + 1)
        if self.tail is Tail.TORN:
            whole = len(data) >= 4 and int.from_bytes(data[:4], "big") + 8 <= len(data)
            kind, what = (Kind.MODIFIED, "is damaged") if whole else (Kind.TRUNCATED, "is cut off")
            raise _Damage(kind, f"entry {index}, at octet {position}, {what}", index, index + 1)

    def _disorder(self, descriptor: int, index: int, found: int, offset: int, end_index: int | None) -> _Damage:
        """Entry ``found`` stands at ``offset``, where ``index`` should: look whether that comes later."""
        if found < index:
            return _Damage(Kind.DUPLICATED, f"entry {found} stands where {index} should, again", found, found + 1)
        for other in _indexes(descriptor, offset):
            if other == index:
                return _Damage(Kind.REORDERED, f"entry {found} stands before entry {index}", index, found + 1)
        return _Damage(
            Kind.DELETED,
            f"entry {index} is missing" if found == index + 1 else f"entries {index} to {found - 1} are missing",
            index,
            found,
        )


def _indexes(descriptor: int, offset: int) -> Iterator[int]:
    """Yield the indexes of the frames from ``offset`` on, as long as they are whole."""
    while data := os.pread(descriptor, CHUNK_BYTES, offset):
        start = 0
        while start + _HEAD.size <= len(data):
            length, _, _, index, _ = _HEAD.unpack_from(data, start)
            end = start + 4 + length
            if not ENTRY_BYTES_MIN <= length <= ENTRY_BYTES_MAX or end + 4 > len(data):
                break
            yield index
            start = end + 4
        if start == 0:
            return
        offset += start


def _origin_and_size(note: str) -> str:
    origin, _, rest = note.partition("\n")
    return f"{origin!r} of {rest.partition(chr(10))[0]!r} entries"
