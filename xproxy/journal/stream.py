"""One stream being written: its tree, its live segment, group commits. No thread, no policy: ``writer.py`` has those.

    append(...) append(...) ...   entries get their index, their leaf, their frame; all in memory
    commit()                      1 frames are written   2 fdatasync   3 the root is signed   4 the note is appended

Only when ``commit`` has returned is anything of it *durable*, and only then may anybody be told.

**When it fails.** Any error of steps 1 and 2 (also a short write, also of the room made ahead) ends the segment: its
descriptor is closed, it is never written again. The tree goes back to where the last commit left it, and the entries of
this one were never log: whoever appended them appends them anew, to the next segment, with other indexes
(``CommitFailed(kept=False)``). If the frames are durable and only signing or the note failed, they are log, and the
segment ends all the same; the next segment's first note covers them (``kept=True``), and until then nobody is told.

**Order of syncs.** A new segment: both files are created, then the directory is synced, then the frames are written (so
frames are never durable in a file that has no name). A commit: the frames are synced, then the note is appended. The
note itself is only synced where it was handed outside, at a rotation of keys and when the segment is sealed: a note
lost with the machine leaves whole durable frames that the next start adopts. Sealing: close entry and note as any
commit, notes synced, then the room made ahead is cut off, the file synced and closed, and the notes are thinned.
"""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from xproxy import __version__
from xproxy.journal.format import (
    MAGIC,
    CloseReason,
    EntryType,
    OldSegment,
    OpenReason,
    SegmentClose,
    SegmentName,
    SegmentOpen,
    encode_entry,
    encode_frame,
    encode_notes,
    parse_stream_directory,
    stream_directory,
    stream_origin,
)
from xproxy.journal.keys import KeyLost, KeyRing
from xproxy.journal.note import Checkpoint, Note
from xproxy.journal.recovery import MINUTE_NS, HistoryLost, Recovered, recover
from xproxy.journal.storage import AppendFile, Storage, write_whole
from xproxy.journal.tree import Frontier, leaf_hash

TORN_MAX: Final = 256  # an open entry names no more: each takes 130 of its 65 535 octets
ALLOCATE_BYTES: Final = 4 * 1024 * 1024  # room made ahead: what a crash leaves unused, and how early a full disk shows

logger = logging.getLogger(__name__)


class CommitFailed(Exception):  # noqa: N818 - what happened to it
    """A commit failed and the segment has ended. ``kept``: its entries are log all the same, not yet durable."""

    def __init__(self, error: OSError, *, kept: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.kept = kept


@attrs.define
class _Live:
    """The segment that is being written."""

    name: SegmentName
    file: AppendFile
    notes: AppendFile
    opened_at: float  # on the monotonic clock
    bytes_: int = 0  # written and synced
    allocated: int = 0
    time_ns_min: int = 2**64 - 1
    time_ns_max: int = 0
    kept_notes: list[Note] = attrs.Factory(list)  # of a thinned notes file, but for the newest
    notes_count: int = 0
    is_closing: bool = False  # the newest entry is the close
    is_closed: bool = False  # and it is log
    minute: int = -1


class StreamLog:
    """A stream of the journal, open for writing by this process. Not thread-safe."""

    def __init__(
        self,
        *,
        storage: Storage,
        directory: Path,
        stream: str,
        origin: str,
        keys: KeyRing,
        recovered: Recovered | None,
        predecessor: str | None,
        wall_ns: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._storage = storage
        self._directory = directory
        self.stream = stream
        self.origin = origin
        self.keys = keys
        self.recovered = recovered  # what the start found; None: a new log
        self._predecessor = predecessor
        self._wall_ns = wall_ns
        self._monotonic = monotonic
        self._tree = recovered.tree if recovered is not None else Frontier()
        self._kept_tree = self._tree.copy()  # what is log: synced, and signed or to be signed
        self._durable_size = 0  # a note of ours covers so many
        self._note = recovered.note if recovered is not None else None
        self._serial = recovered.serial_max if recovered is not None else 0
        self._previous = recovered.previous if recovered is not None else None
        self._torn = list(recovered.torn) if recovered is not None else []
        self._unsigned_from = recovered.unsigned_from if recovered is not None else None
        self._live: _Live | None = None
        self.next_reason = OpenReason.STARTED if self.has_history else OpenReason.CREATED
        self._frames: list[bytes] = []
        self._pending_bytes = 0
        self._times: list[int] = []  # least and greatest of the pending entries

    @classmethod
    def open_(
        cls,
        *,
        storage: Storage,
        journal: Path,
        stream: str,
        base: str,
        wall_ns: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> "tuple[StreamLog, HistoryLost | KeyLost | None]":
        """Open the newest generation of a stream; nothing is written to it yet but its key.

        If its history was lost or changed, or its key, that generation is left as it is, a new one begun beside it,
        and the reason returned.

        Raises: OSError.
        """
        there = [found for name in storage.names(journal) if (found := parse_stream_directory(name)) is not None]
        generation = max((number for name, number in there if name == stream), default=1)
        problem: HistoryLost | KeyLost | None = None
        while True:
            directory = journal / stream_directory(stream, generation)
            origin = stream_origin(base, stream, generation)
            storage.make_directory(directory)
            storage.sync_directory(journal)
            try:
                recovered = recover(storage, directory, origin)
                if recovered is None or recovered.vkey is None:
                    keys = KeyRing.create(storage, directory, origin)
                else:
                    keys = KeyRing.open_(storage, directory, recovered.vkey)
            except (HistoryLost, KeyLost) as lost:
                problem = lost
                generation += 1
                continue
            predecessor = None
            if generation > 1 and (recovered is None or recovered.vkey is None):
                # Asked anew, not remembered: a process may have died between the two generations.
                before = generation - 1
                predecessor = _last_note(
                    storage, journal / stream_directory(stream, before), stream_origin(base, stream, before)
                )
            log = cls(
                storage=storage,
                directory=directory,
                stream=stream,
                origin=origin,
                keys=keys,
                recovered=recovered,
                predecessor=predecessor,
                wall_ns=wall_ns,
                monotonic=monotonic,
            )
            return log, problem

    # What is known ------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many entries there are with those that wait for a commit: the next one's index."""
        return self._tree.size

    @property
    def has_history(self) -> bool:
        """Whether there was a log before this process."""
        return self.recovered is not None and self.recovered.vkey is not None

    @property
    def durable_size(self) -> int:
        """How many entries a note of this process covers; 0 before the first commit."""
        return self._durable_size

    @property
    def note(self) -> Note | None:
        """The newest note."""
        return self._note

    @property
    def is_live(self) -> bool:
        """Whether there is a segment to append to."""
        return self._live is not None

    @property
    def segment(self) -> str | None:
        """Name of the live segment's file, else of the last one that holds log."""
        if self._live is not None:
            return self._live.name.segment_file
        return self._previous.name.segment_file if self._previous is not None else None

    @property
    def segment_bytes(self) -> int:
        """How long the live segment is, with what waits for a commit."""
        return (self._live.bytes_ if self._live is not None else 0) + self._pending_bytes

    @property
    def pending_bytes(self) -> int:
        """What waits for a commit."""
        return self._pending_bytes

    @property
    def segment_age_seconds(self) -> float:
        """How long ago the live segment was begun."""
        return self._monotonic() - self._live.opened_at if self._live is not None else 0.0

    # Segments -----------------------------------------------------------------------------------------------------

    def keep_newest_note(self) -> None:
        """The newest note will be handed outside: not thinned, and synced by the next ``commit(keep_note=True)``."""
        if self._live is not None and self._note is not None and self._live.notes_count:
            kept = self._live.kept_notes
            if not kept or kept[-1] != self._note:
                kept.append(self._note)

    def begin(self, reason: OpenReason | None = None) -> None:
        """Begin a segment; its open entry waits for the next commit. ``reason``: default ``next_reason``.

        Raises: CommitFailed: its files cannot be made.
        """
        assert self._live is None
        assert self._tree.size == self._kept_tree.size, "what was appended and not committed belongs to a segment"
        self._serial += 1
        name = SegmentName(self._tree.size, self._serial)
        file: AppendFile | None = None
        notes: AppendFile | None = None
        try:
            file = self._storage.create(self._directory / name.segment_file)
            notes = self._storage.create(self._directory / name.notes_file)
            self._storage.sync_directory(self._directory)
        except OSError as error:
            for each in (file, notes):
                if each is not None:
                    each.close()
            if isinstance(error, FileExistsError):  # not ours, whoever made it while we hold the lock
                self._name_torn(name)
            else:
                self._remove(name)
            self.next_reason = OpenReason.FAILED
            raise CommitFailed(error, kept=True) from error
        self._live = _Live(name, file, notes, self._monotonic())
        opening = SegmentOpen(
            origin=self.origin,
            name=name,
            reason=reason if reason is not None else self.next_reason,
            vkey=self.keys.current.verifier,
            peaks=self._tree.peaks,
            software=f"xproxy {__version__}",
            previous=self._previous,
            torn=tuple(self._torn),
            unsigned_from=self._unsigned_from,
            note=self._note.to_text() if self._note is not None else None,
            predecessor=self._predecessor if self._tree.size == 0 else None,
        )
        self._frames.append(MAGIC)
        self._pending_bytes += len(MAGIC)
        self.append(EntryType.SEGMENT_OPEN, opening.to_bytes())

    def append(self, type_: int, payload: bytes, tie: int | None = None, time_ns: int | None = None) -> int:
        """Add an entry to what the next commit writes; return its index. Does no I/O."""
        tree = self._tree
        index = tree.size
        if time_ns is None:
            time_ns = self._wall_ns()
        entry = encode_entry(type_, index, time_ns, payload, tie)
        frame = encode_frame(entry)
        self._frames.append(frame)
        self._pending_bytes += len(frame)
        tree.append(leaf_hash(entry))
        times = self._times
        if not times:
            self._times = [time_ns, time_ns]
        elif time_ns < times[0]:
            times[0] = time_ns
        elif time_ns > times[1]:
            times[1] = time_ns
        return index

    def commit(self, *, keep_note: bool = False) -> None:
        """Make what was appended durable and sign it. ``keep_note``: the note will be handed outside: it is synced.

        Raises: CommitFailed; the segment has ended.
        """
        live = self._live
        assert live is not None
        is_signed = not self._frames and self._durable_size == self._tree.size and self.keys.outgoing is None
        if self._frames:
            self._write(live)
        try:
            if not is_signed:
                self._sign(live, keep_note=keep_note)
            elif keep_note:
                self.keep_newest_note()
                live.notes.sync()
        except OSError as error:
            self._abandon(live)
            raise CommitFailed(error, kept=True) from error

    def _write(self, live: _Live) -> None:
        data = b"".join(self._frames)
        try:
            if live.bytes_ + len(data) > live.allocated:
                length = -(-len(data) // ALLOCATE_BYTES) * ALLOCATE_BYTES
                live.file.allocate(live.allocated, length)
                live.allocated += length
            live.file.write(data)
            live.file.sync()
        except OSError as error:
            self._forget_pending()
            self._abandon(live)
            raise CommitFailed(error, kept=False) from error
        live.bytes_ += len(data)
        live.is_closed = live.is_closing
        live.time_ns_min = min(live.time_ns_min, self._times[0])
        live.time_ns_max = max(live.time_ns_max, self._times[1])
        self._frames, self._pending_bytes, self._times = [], 0, []
        self._kept_tree = self._tree.copy()
        self._unsigned_from_now()

    def _sign(self, live: _Live, *, keep_note: bool) -> None:
        checkpoint = Checkpoint(self.origin, self._tree.size, self._tree.root())
        ends_rotation = self.keys.outgoing is not None
        note = checkpoint.sign(self.keys.signers)
        live.notes.write(encode_notes([note]))
        minute = live.time_ns_max // MINUTE_NS
        if live.notes_count == 0 or keep_note or ends_rotation or minute != live.minute:
            live.kept_notes.append(note)
        if keep_note or ends_rotation:
            live.notes.sync()
        live.notes_count += 1
        live.minute = minute
        self._note = note
        self._durable_size = self._tree.size
        self._unsigned_from = None
        if ends_rotation:
            with suppress(OSError):  # then both sign the next one too
                self.keys.finish()

    def _unsigned_from_now(self) -> None:
        """Frames are log and no note covers them yet: so it stands in the next open entry if it stays so."""
        if self._unsigned_from is None and self._note is not None and self._note.checkpoint.size < self._tree.size:
            self._unsigned_from = self._note.checkpoint.size
        elif self._unsigned_from is None and self._note is None:
            self._unsigned_from = 0

    def _forget_pending(self) -> None:
        self._frames, self._pending_bytes, self._times = [], 0, []
        self._tree = self._kept_tree.copy()

    def _abandon(self, live: _Live) -> None:
        self.next_reason = OpenReason.FAILED
        live.file.close()
        live.notes.close()
        self._live = None
        if live.bytes_:
            self._previous = OldSegment(name=live.name, log_bytes=live.bytes_, is_closed=live.is_closed)
            self._torn = []
        else:
            self._remove(live.name)

    def _remove(self, name: SegmentName) -> None:
        """Remove a segment none of whose frames is log, or name it as torn.

        While a disk is full there is one at every attempt, and they must not fill the next open entry.
        """
        try:
            # In this order, so that never a notes file stands without its segment.
            for path in (self._directory / name.notes_file, self._directory / name.segment_file):
                with suppress(FileNotFoundError):
                    self._storage.remove(path)
            self._storage.sync_directory(self._directory)
        except OSError:
            self._name_torn(name)

    def _name_torn(self, name: SegmentName) -> None:
        self._torn.append(OldSegment(name=name, log_bytes=0, is_closed=False))
        if len(self._torn) > TORN_MAX:
            del self._torn[0]

    def discard(self) -> None:
        """Give up the live segment without another write, as a failed commit does, and what waits in it."""
        self._forget_pending()
        if self._live is not None:
            self._abandon(self._live)

    def seal(self, reason: CloseReason) -> None:
        """End the live segment in form, with what waits for a commit.

        Raises: CommitFailed; the segment has ended all the same.
        """
        live = self._live
        assert live is not None
        now = self._wall_ns()
        times = [now, *self._times]
        close = SegmentClose(
            reason=reason,
            entries_count=self._tree.size + 1 - live.name.first_index,
            time_ns_min=min(live.time_ns_min, *times),
            time_ns_max=max(live.time_ns_max, *times),
        )
        self.append(EntryType.SEGMENT_CLOSE, close.to_bytes(), time_ns=now)
        live.is_closing = True
        self.commit(keep_note=True)
        file_bytes: int | None = live.bytes_
        try:
            live.file.truncate(live.bytes_)
            live.file.sync()
        except OSError as error:
            logger.error("%s is sealed and could not be cut to its length: %s", live.name.segment_file, error)
            file_bytes = None
        live.file.close()
        live.notes.close()
        self._live = None
        self.next_reason = OpenReason.ROTATED
        self._previous = OldSegment(
            name=live.name,
            log_bytes=live.bytes_,
            is_closed=True,
            file_bytes=file_bytes,
            tail_sha256=hashlib.sha256(b"").digest() if file_bytes is not None else None,
        )
        self._torn = []
        if live.notes_count > len(live.kept_notes):
            try:
                write_whole(self._storage, self._directory / live.name.notes_file, encode_notes(live.kept_notes))
            except OSError as error:  # they are whole as they are, only many
                logger.warning("%s could not be thinned: %s", live.name.notes_file, error)


def _last_note(storage: Storage, directory: Path, origin: str) -> str | None:
    """Return the newest note of a log that is not gone on with."""
    try:
        recovered = recover(storage, directory, origin)
    except HistoryLost as lost:
        return lost.note
    return recovered.note.to_text() if recovered is not None and recovered.note is not None else None
