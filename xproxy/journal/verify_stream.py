"""Verification of one stream: which segments are log, the tree against its notes, keys, ties, anchors, the end.

What it must find, and why, stands in ``verify.py``.
"""

import bisect
from collections.abc import Iterator
from typing import Any

import attrs
import orjson

from xproxy.errors import FileProblem
from xproxy.journal.anchor import Anchor, notes_of_heartbeat
from xproxy.journal.chain import Chain, Link, Snapshot
from xproxy.journal.findings import Findings, KeyInForce, Kind, Severity, StreamReport
from xproxy.journal.format import (
    CloseReason,
    Entry,
    EntryType,
    FormatProblem,
    OpenReason,
    SegmentClose,
    SegmentName,
    SegmentOpen,
    Tail,
    new_key_of,
    parse_notes,
)
from xproxy.journal.note import Checkpoint, Note, NoteProblem, VerifierKey, parse_note
from xproxy.journal.policy import Policy
from xproxy.journal.reader import Progress, StreamPlace
from xproxy.journal.scan import Damage, Scan
from xproxy.journal.tree import Frontier


def origin_of(note: Note) -> str:
    """Return the log that a note is of."""
    return note.text.partition("\n")[0]


_Awaited = tuple[int, str, Note, int | None]
"""A size, who vouches for it, his note, and for a heartbeat its index in ``sec``."""


@attrs.define
class StreamVerifier:
    """The state of one pass over one stream."""

    place: StreamPlace = attrs.field(kw_only=True)
    origin: str = attrs.field(kw_only=True)
    snapshot: Snapshot = attrs.field(kw_only=True)
    anchors: list[Anchor] = attrs.field(kw_only=True)
    heartbeats: list[tuple[int, Note]] = attrs.field(kw_only=True)  # (index in sec, note of ops)
    policy: Policy | None = attrs.field(kw_only=True)
    is_live: bool = attrs.field(kw_only=True)
    sec_size: int | None = attrs.field(kw_only=True)  # None: this is sec
    is_sec_trusted: bool = attrs.field(kw_only=True)
    progress: Progress = attrs.field(kw_only=True)

    ops_notes: list[tuple[int, Note]] = attrs.field(factory=list, init=False)
    _findings: Findings = attrs.field(init=False)
    _chain: Chain = attrs.field(init=False)
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

    def __attrs_post_init__(self) -> None:
        self._findings = Findings(self.place.path.name)
        self._chain = Chain(
            self.place.path, self.snapshot, self._findings, is_live=self.is_live, progress=self.progress
        )

    def run(self) -> StreamReport:
        """Verify the stream."""
        self._chain.check_files()
        chain = self._chain.follow()
        self._is_damaged = self._chain.has_hole
        if not chain and not self._findings.all:
            self._findings.add(Kind.EMPTY, Severity.INCOMPLETE, "there is no entry at all")
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
            findings=tuple(self._findings.all),
        )

    _awaited: list[_Awaited] = attrs.field(factory=list, init=False)

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

    def _verify_segment(self, link: Link) -> None:
        self._segment_count += 1
        name, opened = link.name, link.opened
        if opened is None:
            end = None if link.successor is None else link.successor.name.first_index
            self._findings.tampered(
                Kind.MODIFIED, f"{link.problem}", segment=name, index=name.first_index, end_index=end
            )
            self._tree = None
            return
        self._check_open(opened, name)
        if link.said is not None:
            assert link.successor is not None
            self._chain.check_tail(link.said, link.successor.name)
        tree = self._tree
        if tree is not None and (tree.size != name.first_index or tree.peaks != opened.peaks):
            if not self._is_damaged:
                self._findings.tampered(
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
        except Damage as damage:
            end_index = damage.end_index
            self._findings.tampered(damage.kind, damage.message, segment=name, index=damage.index, end_index=end_index)
            self._is_damaged = True
            self._tree = None
            return

    def _check_open(self, opened: SegmentOpen, name: SegmentName) -> None:
        if opened.origin != self.origin:
            self._findings.tampered(Kind.FOREIGN_FILE, f"it is of the log {opened.origin!r}", segment=name)
        if opened.seal is not None and not (self.place.path / f"{name.stem}.keys").exists():
            self._findings.add(
                Kind.KEY_WRAP_MISSING, Severity.INCOMPLETE, "nobody can decrypt it any more", segment=name
            )
        if not self._keys:
            self._keys.append(KeyInForce(from_size=0, key=opened.vkey))
        elif self._keys[-1].key != opened.vkey:
            if not self._is_damaged:
                self._findings.tampered(
                    Kind.UNTRUSTED_KEY,
                    f"it names the key {opened.vkey}, in force is {self._keys[-1].key}",
                    segment=name,
                    index=name.first_index,
                )
            self._keys.append(KeyInForce(from_size=name.first_index + 1, key=opened.vkey))
        if opened.vkey.name != self.origin and opened.origin == self.origin:
            self._findings.tampered(Kind.UNTRUSTED_KEY, f"its key signs for {opened.vkey.name}", segment=name)
        if opened.unsigned_from is not None:
            self._findings.add(
                Kind.UNSIGNED_AT_CRASH,
                Severity.NOTICE,
                "no note covered these when the process died; the next one does",
                segment=name,
                index=opened.unsigned_from,
                end_index=name.first_index,
            )
        if opened.predecessor is not None:
            self._findings.add(
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
            self._findings.tampered(Kind.MODIFIED, f"the note in its first entry: {problem}", segment=name)
            return
        last = None if self._last_note is None else self._last_note.checkpoint
        if last is None or last.size < checkpoint.size:
            if not self._is_damaged:
                self._findings.tampered(
                    Kind.DELETED, f"the note of size {checkpoint.size}, which it names, is not there", segment=name
                )
        elif last.size == checkpoint.size and last != checkpoint:
            self._findings.tampered(Kind.FORKED, f"two notes of size {last.size} differ", segment=name)

    def _read_notes(self, link: Link) -> list[Note]:
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
            self._findings.tampered(Kind.MODIFIED, f"{name.notes_file} {problem}", segment=name)
            return self._salvage(data)
        is_whole = end == len(data)
        if not is_whole and not self.is_live:
            # Where a write failed that is so. Else it is cut away at the next start.
            is_explained = link.successor is not None and link.successor.reason is OpenReason.FAILED
            severity = Severity.NOTICE if is_explained else Severity.INCOMPLETE
            self._findings.add(Kind.TORN, severity, f"the last note in {name.notes_file} is cut off", segment=name)
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

    def _walk(self, link: Link, opened: SegmentOpen, notes: list[Note]) -> None:
        """Read the frames of a segment, and compare the tree with each note on the way.

        Raises: Damage.
        """
        name, said = link.name, link.said
        end_index = None if link.successor is None else link.successor.name.first_index
        if said is not None and said.log_bytes == 0:
            if notes and end_index is not None and notes[-1].checkpoint.size > end_index:
                self._findings.tampered(Kind.TRUNCATED, "a note was signed over entries that are no log", segment=name)
            return
        checks = _Checks(self, name, notes, end_index)
        signed_size = max((note.checkpoint.size for note in notes), default=name.first_index)
        limit = self.snapshot.size if self.is_live and link.is_newest else None
        scan = Scan(self.place.path / name.segment_file, name.first_index, self.progress)
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
        except Damage as damage:
            if not link.is_newest or damage.index < signed_size or state.closed is not None:
                raise
            # Behind the last note of the newest segment: nobody was told that this is durable.
            if not self.is_live:
                self._findings.add(Kind.TORN, Severity.INCOMPLETE, damage.message, segment=name, index=damage.index)
        finally:
            self._octets += scan.octets
            self._note_count += len(notes)
        if end_index is not None and self._size != end_index:
            raise Damage(Kind.DELETED, f"entries {self._size} to {end_index - 1} are missing", self._size, end_index)
        if self._size < signed_size:
            raise Damage(
                Kind.TRUNCATED,
                f"it ends before entry {self._size}, though a note was signed over {signed_size}",
                self._size,
                signed_size,
            )
        if said is not None and said.is_closed != (state.closed is not None):
            raise Damage(Kind.MODIFIED, "whether it was closed is not as the next one says", self._size - 1)
        self._check_tail_of_newest(link, scan, state)
        if notes:
            self._last_note = notes[-1]

    def _check_tail_of_newest(self, link: Link, scan: "Scan", state: "_SegmentState") -> None:
        if not link.is_newest or self.is_live:
            return
        if state.closed is not None:
            # Anything but zeros behind a close was damage already (_walk).
            if scan.tail is not Tail.NOTHING:
                what = "the room behind its last entry was not cut off: its writer died while it closed"
                self._findings.add(Kind.UNSEALED, Severity.INCOMPLETE, what, segment=link.name)
            elif state.closed.reason is not CloseReason.STOPPED:
                what = f"it was closed for its {state.closed.reason.value}, and none follows"
                self._findings.add(Kind.UNSEALED, Severity.INCOMPLETE, what, segment=link.name)
        else:
            self._findings.add(
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
            self._findings.tampered(Kind.FOREIGN_FILE, f"a note is of the log {checkpoint.origin}", **where)
            return
        # Entries are read ahead of the notes: a rotation may be known that this note is older than.
        signers = [*(old.key for old in self._cosigners if old.from_size <= size), self._key_at(size)]
        try:
            for key in signers:
                key.verify(note)
        except NoteProblem as problem:
            self._findings.tampered(Kind.BAD_SIGNATURE, f"the note of size {size}: {problem}", **where)
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
        self._findings.tampered(
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
                self._findings.tampered(
                    Kind.FORKED,
                    f"the {wanted} entries that {who} vouches for are not these",
                    index=0,
                    end_index=wanted,
                )
                continue
            try:
                self._key_at(wanted).verify(note)
            except NoteProblem as problem:
                self._findings.tampered(Kind.BAD_SIGNATURE, f"the note of {who}: {problem}")
                continue
            if sec_index is None:
                self._anchored = max(self._anchored, wanted)
                continue
            self._vouched = True
            if (tie := self._tie_at.get(wanted, 0)) > sec_index:
                self._findings.tampered(
                    Kind.REORDERED,
                    f"entry {wanted - 1} was made after entry {tie - 1} of sec, and {who} knew it already",
                    index=wanted - 1,
                    end_index=wanted,
                )

    def _check_end(self, chain: list[Link]) -> None:
        signed = 0 if self._signed is None else self._signed.size
        for wanted, who, _, sec_index in self._awaited:
            kind = Kind.ROLLED_BACK if sec_index is None else Kind.TRUNCATED
            message = f"{who} vouches for {wanted} entries, here are {self._size}"
            self._findings.tampered(kind, message, index=self._size, end_index=wanted)
        if chain and not self._is_damaged and self._size > signed and not self.is_live:
            self._findings.add(
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
                self._findings.add(Kind.UNTRUSTED_KEY, Severity.INCOMPLETE, what)
            return by_sec
        if not trusted:
            self._findings.tampered(Kind.UNTRUSTED_KEY, f"the policy names no key of the log {self.origin}")
            return None
        if any(key.public in self._proved for key in trusted):
            return "policy"
        if self._size:
            self._findings.tampered(Kind.UNTRUSTED_KEY, "no note is signed by a key that the policy names")
        return None


class _Checks:
    """The sizes at which the tree of one segment is to be compared with something."""

    def __init__(
        self, verifier: StreamVerifier, segment: SegmentName, notes: list[Note], end_index: int | None
    ) -> None:
        self._verifier = verifier
        self._segment = segment
        self._notes: dict[int, list[Note]] = {}
        previous = segment.first_index
        for note in notes:
            size = note.checkpoint.size
            if size < previous or size == segment.first_index:
                verifier._findings.tampered(
                    Kind.REORDERED, f"a note of size {size} is out of its place", segment=segment
                )
            elif end_index is not None and size > end_index:
                verifier._findings.tampered(
                    Kind.TRUNCATED,
                    f"a note was signed over {size} entries, the segment ends before {end_index}",
                    segment=segment,
                    index=end_index,
                    end_index=size,
                )
            else:
                same = self._notes.setdefault(size, [])
                if same and same[-1] == note:
                    verifier._findings.tampered(
                        Kind.DUPLICATED, f"the note of size {size} is there twice", segment=segment
                    )
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

    def __init__(self, verifier: StreamVerifier, name: SegmentName, opened: SegmentOpen) -> None:
        self._verifier = verifier
        self._name = name
        self._first = name.first_index
        self.closed: SegmentClose | None = None

    @property
    def last_ns(self) -> int | None:
        """Time of the entry before, also of the segment before; None: there is nothing to compare with."""
        return self._verifier._time_ns

    @last_ns.setter
    def last_ns(self, time_ns: int | None) -> None:
        self._verifier._time_ns = time_ns

    def take(self, entry: Entry, times: tuple[int, int]) -> None:
        """Look at an entry that is not just an event in clear. ``times``: least and greatest so far, with its own.

        Raises: Damage.
        """
        verifier, index = self._verifier, entry.index
        if (entry.type is EntryType.SEGMENT_OPEN) != (index == self._first):
            raise Damage(Kind.MODIFIED, f"entry {index} opens a segment", index, index + 1)
        if entry.tie is not None:
            self.check_tie(entry.tie, index)
        else:
            self._remember_tie(index)
        try:
            if entry.type is EntryType.SEGMENT_CLOSE:
                self.closed = closed = SegmentClose.from_bytes(entry.payload)
                if (closed.entries_count, closed.time_ns_min, closed.time_ns_max) != (index - self._first + 1, *times):
                    raise Damage(Kind.MODIFIED, "what it says of itself at its end is not so", index, index + 1)
            elif entry.type is EntryType.CONTROL:
                if (key := new_key_of(entry)) is not None:
                    verifier._rotate(index, key)
                elif b"journal-checkpoint" in entry.payload:
                    self._take_heartbeat(entry)
        except FormatProblem as problem:
            raise Damage(Kind.MODIFIED, f"entry {index}: {problem}", index, index + 1) from problem

    def _take_heartbeat(self, entry: Entry) -> None:
        try:
            document = orjson.loads(entry.payload)
            if document["event"]["action"] != "journal-checkpoint":
                return
            for note in notes_of_heartbeat(document):
                note.checkpoint  # noqa: B018 - raises
                if origin_of(note) != self._verifier.origin and self._verifier.sec_size is None:
                    self._verifier.ops_notes.append((entry.index, note))
        except (NoteProblem, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatProblem(f"a journal-checkpoint that cannot be read: {error!r}") from error

    def check_tie(self, tie: int, index: int) -> None:
        verifier = self._verifier
        if verifier.sec_size is None:
            return
        where: dict[str, Any] = {"segment": self._name, "index": index, "end_index": index + 1}
        if tie < verifier._tie:
            verifier._findings.tampered(
                Kind.REORDERED, f"entry {index} was made before entry {verifier._tie} of sec, the one before it after",
                **where,
            )  # fmt: skip
        if tie > verifier.sec_size and not verifier._tie > verifier.sec_size:
            verifier._findings.tampered(
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
            self._verifier._findings.add(
                Kind.SILENCE,
                Severity.INCOMPLETE,
                f"{seconds:.0f} s without an entry, though the proxy ran",
                segment=self._name,
                index=index,
            )


def _origin_and_size(note: str) -> str:
    origin, _, rest = note.partition("\n")
    return f"{origin!r} of {rest.partition(chr(10))[0]!r} entries"
