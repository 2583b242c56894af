"""What a start finds in the directory of a stream, and what of it is the log.

The newest segment with a whole and right open entry says which tree it goes on from and which older files count. So one
segment is read, however long the log is. From there on:

1. Its frames are read in order while index and CRC are right. Those are the leaves; the newest note there is must be
   over a beginning of them, with the root computed here, or history was lost or changed (``HistoryLost``): then
   nothing may be signed on top of it.
2. Whole frames above the note are adopted. They may have been only in the page cache of a process that was killed, so
   the file is synced first; if the disk refuses that, they are left out, and stay a torn tail.
3. Newer files without such an open entry are torn as a whole.

Nothing of an old segment is changed, but its notes are thinned.
"""

import hashlib
import logging
from contextlib import suppress
from pathlib import Path

import attrs

from xproxy.journal.format import (
    MAGIC,
    Entry,
    EntryType,
    FormatProblem,
    OldSegment,
    SegmentName,
    SegmentOpen,
    encode_notes,
    end_of_note,
    entries,
    has_magic,
    new_key_of,
    parse_notes,
)
from xproxy.journal.note import Note, NoteProblem, VerifierKey, parse_note
from xproxy.journal.storage import Storage, write_whole
from xproxy.journal.tree import Frontier, leaf_hash

MINUTE_NS = 60_000_000_000

logger = logging.getLogger(__name__)


class HistoryLost(Exception):  # noqa: N818 - what happened to it
    """The log on disk is not what was signed: leaves are missing or changed, or its notes are.

    ``note`` is the newest note that could be read, as text.
    """

    def __init__(self, message: str, note: str | None) -> None:
        super().__init__(message)
        self.note = note


@attrs.frozen(kw_only=True)
class Recovered:
    """Where a stream stands at a start."""

    tree: Frontier
    serial_max: int  # of any file there is
    vkey: VerifierKey | None  # in force; None: nothing was ever signed, there are only torn files
    previous: OldSegment | None
    torn: tuple[OldSegment, ...]
    note: Note | None  # the newest
    unsigned_from: int | None
    torn_bytes: int  # of previous, trailing zeros not counted

    @property
    def was_closed(self) -> bool:
        """Whether the last process had closed the stream in form, to the last step: no room is left behind the log."""
        old = self.previous
        if old is None or not old.is_closed or old.file_bytes != old.log_bytes:
            return False
        return not self.torn and self.unsigned_from is None


def recover(storage: Storage, directory: Path, origin: str) -> Recovered | None:
    """Return where the stream in ``directory`` stands; None if it has no log yet.

    Raises:
        HistoryLost: see there.
        OSError: the disk does not answer.
    """
    files = storage.names(directory)
    names = sorted({name for file in files if (name := SegmentName.from_file(file)) is not None}, reverse=True)
    if not names:
        return None
    present = set(files)
    torn: list[OldSegment] = []
    for name in names:
        data = storage.read(directory / name.segment_file) if name.segment_file in present else b""
        if (opening := read_open(data, name, origin)) is not None:
            return _Reader(storage, directory, origin, name, data, opening).finish(tuple(reversed(torn)), names)
        torn.append(
            OldSegment(
                name=name,
                log_bytes=0,
                is_closed=False,
                file_bytes=len(data) if name.segment_file in present else None,
                tail_sha256=hashlib.sha256(data).digest() if name.segment_file in present else None,
            )
        )
    note = _newest_note(storage, directory, names, present, origin)
    if note is not None or any(old.name.first_index for old in torn):
        raise HistoryLost("no segment can be read, though there was a log", note.to_text() if note else None)
    # The very first segment never came to its first note: nobody has seen anything of this log.
    return Recovered(
        tree=Frontier(),
        serial_max=max(name.serial for name in names),
        vkey=None,
        previous=None,
        torn=tuple(reversed(torn)),
        note=None,
        unsigned_from=None,
        torn_bytes=0,
    )


def read_open(data: bytes, name: SegmentName, origin: str) -> SegmentOpen | None:
    """Return the open entry of a segment's content, if it is whole and says what the name says."""
    if not has_magic(data):
        return None
    for _, stored in entries(data):
        try:
            entry = Entry.from_bytes(stored)
            if entry.type is not EntryType.SEGMENT_OPEN or entry.index != name.first_index:
                return None
            opening = SegmentOpen.from_bytes(entry.payload)
        except FormatProblem:
            return None
        return opening if opening.name == name and opening.origin == origin else None
    return None


class _Reader:
    def __init__(
        self, storage: Storage, directory: Path, origin: str, name: SegmentName, data: bytes, opening: SegmentOpen
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._origin = origin
        self._name = name
        self._data = data
        self._opening = opening

    def finish(self, torn: tuple[OldSegment, ...], names: list[SegmentName]) -> Recovered:
        notes, notes_torn = self._read_notes()
        note = notes[-1] if notes else _parse(self._opening.note)
        signed = note.checkpoint if note is not None else None
        if signed is not None and signed.origin != self._origin:
            raise HistoryLost(
                f"the newest note is of the log {signed.origin}", note.to_text() if note is not None else None
            )

        vkey = self._opening.vkey
        signed_by = vkey
        tree = Frontier(self._opening.name.first_index, self._opening.peaks)
        log_bytes = len(MAGIC)
        is_closed = False
        at_note: tuple[Frontier, int, bool, VerifierKey] | None = None
        times: list[int] = []
        if signed is not None and signed.size == tree.size:
            at_note = (tree.copy(), log_bytes, False, vkey)
        try:
            for end, stored in entries(self._data):
                entry = Entry.from_bytes(stored)
                if entry.index != tree.size or (entry.type is EntryType.SEGMENT_OPEN) != (log_bytes == len(MAGIC)):
                    break
                if (new_key := new_key_of(entry)) is not None:
                    vkey = new_key
                tree.append(leaf_hash(stored))
                times.append(entry.time_ns)
                log_bytes = end
                is_closed = entry.type is EntryType.SEGMENT_CLOSE
                if signed is not None and signed.size == tree.size:
                    at_note = (tree.copy(), log_bytes, is_closed, vkey)
                    signed_by = vkey
                if is_closed:
                    break
        except FormatProblem as problem:
            logger.warning("%s: entry %d: %s", self._name.segment_file, tree.size, problem)

        if signed is not None:
            text = note.to_text() if note is not None else None
            if signed.size > tree.size:
                raise HistoryLost(f"{signed.size} entries were signed, {tree.size} can be read", text)
            if at_note is not None:
                if at_note[0].root() != signed.root:
                    raise HistoryLost(f"the {signed.size} entries that were signed are not these", text)
                try:
                    assert note is not None
                    signed_by.verify(note)
                except NoteProblem as problem:
                    raise HistoryLost(f"the newest note: {problem}", text) from problem
            # Else it is older than this segment, whose open entry the last process wrote after its own check.

        signed_size = signed.size if signed is not None else 0
        file_bytes: int | None = len(self._data)
        try:
            self._storage.sync_file(self._directory / self._name.segment_file)
        except OSError as error:
            logger.error("%s cannot be synced, what no note covers is left out: %s", self._name.segment_file, error)
            file_bytes = None
            if at_note is not None:
                tree, log_bytes, is_closed, vkey = at_note
            else:
                tree, log_bytes, is_closed = Frontier(self._name.first_index, self._opening.peaks), 0, False
                vkey = self._opening.vkey
        tail = self._data[log_bytes:]
        if len(notes) > 2 or notes_torn:
            self._thin(notes, times)
        found = OldSegment(
            name=self._name,
            log_bytes=log_bytes,
            is_closed=is_closed,
            file_bytes=file_bytes,
            tail_sha256=hashlib.sha256(tail).digest() if file_bytes is not None else None,
        )
        previous: OldSegment | None = found
        if tree.size == self._name.first_index:  # not even its open entry is log
            previous = self._opening.previous
            torn = (*self._opening.torn, attrs.evolve(found, log_bytes=0), *torn)
        return Recovered(
            tree=tree,
            serial_max=max(name.serial for name in names),
            vkey=vkey,
            previous=previous,
            torn=torn,
            note=note,
            unsigned_from=signed_size if tree.size > signed_size else None,
            torn_bytes=len(tail.rstrip(b"\x00")),
        )

    def _read_notes(self) -> tuple[list[Note], bool]:
        """Return the whole notes, and whether something else is among them: what a crash of the machine leaves.

        Notes are not synced one by one, so behind the last synced one anything may be missing. What a note behind a
        hole vouches for counts all the same: its frames were durable before it was written.
        """
        try:
            data = self._storage.read(self._directory / self._name.notes_file)
        except FileNotFoundError:
            return [], False
        try:
            notes, end = parse_notes(data)
        except FormatProblem:
            notes, end = _salvage(data, self._origin), 0
        return notes, end < len(data)

    def _thin(self, notes: list[Note], times: list[int]) -> None:
        """Keep of ``notes`` what format.py says is kept."""
        kept: list[Note] = []
        minute = -1
        first = self._name.first_index
        for number, note in enumerate(notes):
            position = note.checkpoint.size - 1 - first
            now = times[position] // MINUTE_NS if 0 <= position < len(times) else minute
            if number in (0, len(notes) - 1) or now != minute or len(note.signatures) > 1:
                kept.append(note)
            minute = now
        try:
            write_whole(self._storage, self._directory / self._name.notes_file, encode_notes(kept))
        except OSError as error:
            logger.warning("%s could not be thinned: %s", self._name.notes_file, error)


def _parse(text: str | None) -> Note | None:
    if text is None:
        return None
    try:
        return parse_note(text.encode())
    except NoteProblem as problem:
        raise HistoryLost(f"the note in an open entry: {problem}", None) from problem


def _salvage(data: bytes, origin: str) -> list[Note]:
    """Return the notes in ``data`` that are whole, of rising size."""
    start_of_note = f"{origin}\n".encode()
    notes: list[Note] = []
    start = data.find(start_of_note)
    while start >= 0:
        end = end_of_note(data, start)
        with suppress(NoteProblem):
            note = parse_note(data[start:end])
            if not notes or note.checkpoint.size > notes[-1].checkpoint.size:
                notes.append(note)
        start = data.find(start_of_note, start + 1)
    return notes


def _newest_note(
    storage: Storage, directory: Path, names: list[SegmentName], present: set[str], origin: str
) -> Note | None:
    """Return the greatest note of any segment; ``names`` from the newest to the oldest."""
    for name in names:
        if name.notes_file in present and (notes := _salvage(storage.read(directory / name.notes_file), origin)):
            return notes[-1]
    return None
