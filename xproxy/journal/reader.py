"""Reading the journal: what is durable, in order, from any place, for as long as one likes.

*Durable is what a note covers* (``format.py``), so a reader first looks how far the newest note goes and shows nothing
beyond: neither what a writer is just writing nor what a crash left. It takes no lock, writes nothing but its own
cursor, and reads behind a running writer's back: segments only grow, and what a note covers never changes.

Which files are log, and up to where, the newest segment's open entry says, and the ones before it in turn
(``previous``). Frames are checked by their CRC and index. That is enough against a bad disk; whether anybody has
meddled is the question of ``verify.py``.

**Following.** The newest ``.notes`` file grows with each commit. A reader in the writer's own process waits on a
``Doorbell`` that the writer rings; any other looks at that file again and again, soon at first and then at most four
times a second. Neither needs anything of the system that not every system has.
"""

import bisect
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

from xproxy.errors import FileProblem
from xproxy.journal.format import (
    ENTRY_BYTES_MAX,
    FRAME_OVERHEAD_BYTES,
    HEADER,
    JOURNAL_DIRECTORY,
    MAGIC,
    SEGMENT_SUFFIX,
    STREAMS,
    Entry,
    EntryType,
    FormatProblem,
    SegmentClose,
    SegmentName,
    SegmentOpen,
    entries,
    has_magic,
    last_note,
    parse_stream_directory,
)
from xproxy.journal.note import Note

READ_BYTES: Final = 1_048_576  # a step through a segment; never less than a frame
BATCH_COUNT_MAX: Final = 1_024  # entries handed out at once
NOTES_TAIL_BYTES: Final = 4_096  # holds the last two notes, unless witnesses have signed them
WAIT_SECONDS_MIN: Final = 0.005  # a commit under load comes this soon
WAIT_SECONDS_MAX: Final = 0.25  # what a person does not feel, and four stat(2) a second cost nothing
_FRAME_BYTES_MAX: Final = ENTRY_BYTES_MAX + FRAME_OVERHEAD_BYTES
_MARK_EVERY: Final = 4_096  # entries between two remembered places in a segment


Progress = Callable[[int], None]
"""Told how many more bytes were dealt with."""


class JournalMissing(FileProblem):
    """There is no journal where one was expected."""


class JournalDamaged(FileProblem):
    """A durable entry cannot be read."""


def _damaged(path: Path, what: str) -> JournalDamaged:
    return JournalDamaged(f"{path}: {what}", "xproxy log verify says what else is wrong", path=path)


# Which files there are ------------------------------------------------------------------------------------------------


@attrs.frozen(order=True)
class StreamPlace:
    """The directory of one generation of one stream."""

    order: tuple[int, int]  # of the stream, of the generation
    stream: str = attrs.field(order=False)
    generation: int = attrs.field(order=False)
    path: Path = attrs.field(order=False)


def journal_directory(state: Path) -> Path:
    """Return where the journal is under the state directory. Raises: JournalMissing: there is none."""
    directory = state / JOURNAL_DIRECTORY
    if not directory.is_dir():
        raise JournalMissing(
            f"there is no journal under {state}",
            "name the state directory of xproxy run with --state DIR",
            path=directory,
        )
    return directory


def stream_places(journal: Path) -> list[StreamPlace]:
    """Return the streams below ``journal``, ``sec`` first, generations in order. Raises: FileProblem."""
    try:
        names = os.listdir(journal)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="read the journal", path=journal) from error
    places = []
    for name in names:
        if (found := parse_stream_directory(name)) is not None:
            stream, generation = found
            places.append(StreamPlace((STREAMS.index(stream), generation), stream, generation, journal / name))
    return sorted(places)


def segment_names(directory: Path) -> list[SegmentName]:
    """Return the names of a stream's segments in order. Raises: FileProblem."""
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="read the journal", path=directory) from error
    found = (SegmentName.from_file(name) for name in names if name.endswith(SEGMENT_SUFFIX))
    # By serial: a segment of which nothing is log may begin above its successor.
    return sorted((name for name in found if name is not None), key=lambda name: (name.serial, name.first_index))


def read_open(path: Path) -> tuple[SegmentOpen, Entry]:
    """Return what the open entry of the segment ``path`` says, and the entry.

    Raises:
        FormatProblem: it has none, or not its own.
        FileProblem: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(len(MAGIC) + _FRAME_BYTES_MAX)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="read", path=path) from error
    if not has_magic(data):
        raise FormatProblem("it does not begin as a segment does")
    for _, stored in entries(data):
        entry = Entry.from_bytes(stored)
        break
    else:
        raise FormatProblem("its first entry is not whole")
    if entry.type is not EntryType.SEGMENT_OPEN:
        raise FormatProblem("its first entry does not open a segment")
    opened = SegmentOpen.from_bytes(entry.payload)
    if opened.name.segment_file != path.name or entry.index != opened.name.first_index:
        raise FormatProblem(f"its first entry opens {opened.name.segment_file}")
    return opened, entry


@attrs.frozen(kw_only=True)
class Segment:
    """A segment that holds log."""

    path: Path
    opened: SegmentOpen
    time_ns: int  # of its open entry
    end_index: int | None  # of the first leaf of the next; None: it is the newest
    log_bytes: int | None  # where its frames end; None likewise

    @property
    def first_index(self) -> int:
        """Index of its first leaf."""
        return self.opened.name.first_index


def newest_note(path: Path) -> Note | None:
    """Return the last whole note of a ``.notes`` file, None if there is none.

    Raises:
        FormatProblem: the last is none.
        FileProblem: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - NOTES_TAIL_BYTES)
            file.seek(start)
            data = file.read()
            # A note cut at its beginning would be no note; the first two in the tail may be that.
            if start and data.count(b"\n\n") < 5:
                file.seek(0)
                data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="read", path=path) from error
    return last_note(data)


# Waiting --------------------------------------------------------------------------------------------------------------


class Doorbell:
    """Tells readers in the writer's process that there may be more. Any number may wait, in threads of their own."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rings = 0

    def ring(self) -> None:
        """There is more to read. Never waits long."""
        with self._changed:
            self._rings += 1
            self._changed.notify_all()

    @property
    def rings(self) -> int:
        """How often it rang: to be asked before looking, and given to ``wait``."""
        return self._rings

    def wait(self, rings: int, seconds: float) -> None:
        """Wait until it rings once more than ``rings`` times, or ``seconds`` are over."""
        with self._changed:
            self._changed.wait_for(lambda: self._rings != rings, seconds)


# One stream -----------------------------------------------------------------------------------------------------------


class StreamReader:
    """Reads one generation of one stream. Not thread-safe; ``close`` it."""

    def __init__(self, directory: Path) -> None:
        """``directory``: STATE/journal/sec, for one. Nothing is read before ``refresh`` or the first question."""
        self.directory = directory
        self._opened: dict[SegmentName, tuple[SegmentOpen, int]] = {}
        self._segments: list[Segment] = []
        self._firsts: list[int] = []
        self._durable = 0
        self._note: Note | None = None
        self._marks: dict[SegmentName, list[tuple[int, int]]] = {}  # (index, offset), rising
        self._next: tuple[int, SegmentName, int] | None = None  # index, segment, offset: where the last read ended
        self._file: tuple[SegmentName, int] | None = None
        self._looked_at: tuple[object, ...] = ()

    def __enter__(self) -> "StreamReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the open file. Reading again opens it again."""
        if self._file is not None:
            os.close(self._file[1])
            self._file = None

    def refresh(self) -> int:
        """Look what has become durable and return how many entries are, from 0 on.

        Raises:
            JournalDamaged: the chain of segments or the newest note cannot be read.
            FileProblem: the disk does not answer.
        """
        names = segment_names(self.directory)
        looked_at = (names, _stamp(self.directory / names[-1].notes_file) if names else None)
        if looked_at == self._looked_at:
            return self._durable
        self._segments = self._chain(names)
        self._firsts = [segment.first_index for segment in self._segments]
        for segment in reversed(self._segments):
            path = self.directory / segment.opened.name.notes_file
            try:
                note = newest_note(path)
            except FormatProblem as problem:
                raise _damaged(path, str(problem)) from problem
            if note is not None:
                self._note, self._durable = note, note.checkpoint.size
                break
        self._looked_at = looked_at
        return self._durable

    @property
    def durable(self) -> int:
        """How many entries are durable, as of the last ``refresh``."""
        return self._durable

    @property
    def note(self) -> Note | None:
        """The note that says so."""
        return self._note

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments that hold log, as of the last ``refresh``."""
        return tuple(self._segments)

    def read(self, index: int, count_max: int = BATCH_COUNT_MAX) -> list[Entry]:
        """Return durable entries from ``index`` on, as many as there are and at most ``count_max``.

        Call ``refresh`` to see newer ones. Those of one call are of one segment.

        Raises:
            JournalDamaged: an entry is not what it should be.
            FileProblem: the disk does not answer.
        """
        try:
            return [Entry.from_bytes(stored) for stored in self.read_stored(index, count_max)]
        except FormatProblem as problem:
            raise _damaged(self.directory, f"among the entries from {index} on is {problem}") from problem

    def read_stored(self, index: int, count_max: int = BATCH_COUNT_MAX) -> list[bytes]:
        """Return what ``read`` does as the stored bytes: what the leaves are hashes of."""
        if not 0 <= index < self._durable or count_max < 1:
            return []
        segment = self._segments[bisect.bisect_right(self._firsts, index) - 1]
        limit = min(self._end_of(segment), index + count_max)
        found: list[bytes] = []
        for number, end, stored in self._walk(segment, index):
            if number >= index:
                found.append(stored)
            if number + 1 >= limit:
                self._next = (limit, segment.opened.name, end)
                return found
        raise _damaged(segment.path, f"it ends before entry {index + len(found)}, which a note covers")

    def first_at(self, time_ns: int) -> int:
        """Return the index of the first durable entry, in order, that was written at ``time_ns`` or later.

        The clock may have gone back, so later entries may bear an earlier time. Without one: how many there are.
        """
        for segment in self._segments:
            if self._newest_time_of(segment) < time_ns:
                continue
            limit = self._end_of(segment)
            for number, _, stored in self._walk(segment, segment.first_index):
                if number >= limit:
                    break
                if HEADER.unpack_from(stored)[3] >= time_ns:
                    return number
        return self._durable

    def end_at(self, time_ns: int) -> int:
        """Return an index behind every durable entry that was written at ``time_ns`` or earlier: a segment's end."""
        for segment in reversed(self._segments):
            if self._oldest_time_of(segment) <= time_ns:
                return self._end_of(segment)
        return 0

    def wait(self, durable: int, seconds: float, sleep: Callable[[float], None] = time.sleep) -> bool:
        """Wait until more than ``durable`` entries are, by looking again and again, at most about ``seconds``.

        Returns whether there are more.
        """
        delay, waited = WAIT_SECONDS_MIN, 0.0
        while self.refresh() <= durable:
            if waited >= seconds:
                return False
            sleep(delay)
            waited += delay
            delay = min(delay * 2, WAIT_SECONDS_MAX)
        return True

    def wait_for_bell(self, durable: int, seconds: float, bell: Doorbell) -> bool:
        """``wait`` in the process of the writer that rings ``bell``: sooner, and without looking for nothing."""
        end = time.monotonic() + seconds
        while True:
            rings = bell.rings
            if self.refresh() > durable:
                return True
            if (left := end - time.monotonic()) <= 0:
                return False
            bell.wait(rings, left)

    def _chain(self, names: list[SegmentName]) -> list[Segment]:
        """Follow ``previous`` back from the newest segment that has an open entry."""
        for newest in reversed(names):
            try:
                self._open_of(newest)
            except FormatProblem:
                continue  # a start that came to nothing, or one that is just being written
            break
        else:
            return []
        chain: list[Segment] = []
        name: SegmentName | None = newest
        end_index = log_bytes = None
        while name is not None:
            path = self.directory / name.segment_file
            try:
                opened, time_ns = self._open_of(name)
            except FormatProblem as problem:
                raise _damaged(path, str(problem)) from problem
            chain.append(Segment(path=path, opened=opened, time_ns=time_ns, end_index=end_index, log_bytes=log_bytes))
            end_index, previous = name.first_index, opened.previous
            if previous is not None and previous.name.serial >= name.serial:
                raise _damaged(path, "it names itself or a later one as the one before")
            log_bytes = None if previous is None else previous.log_bytes
            name = None if previous is None else previous.name
        chain.reverse()
        return chain

    def _open_of(self, name: SegmentName) -> tuple[SegmentOpen, int]:
        if (known := self._opened.get(name)) is None:
            opened, entry = read_open(self.directory / name.segment_file)
            known = self._opened[name] = (opened, entry.time_ns)
        return known

    def _end_of(self, segment: Segment) -> int:
        """Return the index behind the last durable entry of ``segment``."""
        return self._durable if segment.end_index is None else min(self._durable, segment.end_index)

    def _newest_time_of(self, segment: Segment) -> int:
        """Return the latest time in ``segment``, or one that is later than all if that is not written there."""
        if segment.log_bytes is not None and (close := read_close(segment.path, segment.log_bytes)) is not None:
            return close.time_ns_max
        return 1 << 64

    def _oldest_time_of(self, segment: Segment) -> int:
        """Return the earliest time in ``segment``, or that of its first entry if the earliest is not written there."""
        if segment.log_bytes is not None and (close := read_close(segment.path, segment.log_bytes)) is not None:
            return close.time_ns_min
        return segment.time_ns

    def _walk(self, segment: Segment, index: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield (index, end offset, stored bytes) of the entries of ``segment``, from ``index`` or a little before.

        Ends where no whole frame is.
        """
        name = segment.opened.name
        number, offset = self._place_before(name, index)
        marks = self._marks.setdefault(name, [])
        descriptor = self._descriptor(name)
        while True:
            try:
                data = os.pread(descriptor, READ_BYTES, offset)
            except OSError as error:
                raise FileProblem.from_os_error(error, doing="read", path=segment.path) from error
            end = 0
            for end, view in entries(data, 0):
                stored = bytes(view)
                if HEADER.unpack_from(stored)[2] != number:
                    raise _damaged(segment.path, f"at octet {offset + end} stands another entry than {number}")
                if number % _MARK_EVERY == 0 and (not marks or marks[-1][0] < number):
                    marks.append((number, offset + end - len(stored) - FRAME_OVERHEAD_BYTES))
                yield number, offset + end, stored
                number += 1
            if end == 0:
                return
            offset += end

    def _place_before(self, name: SegmentName, index: int) -> tuple[int, int]:
        """Return the nearest known place at or before ``index``: its index and offset."""
        place = (name.first_index, len(MAGIC))
        marks = self._marks.get(name, [])
        if position := bisect.bisect_right(marks, index, key=lambda mark: mark[0]):
            place = marks[position - 1]
        if self._next is not None and self._next[1] == name and place[0] < self._next[0] <= index:
            place = (self._next[0], self._next[2])
        return place

    def _descriptor(self, name: SegmentName) -> int:
        if self._file is None or self._file[0] != name:
            self.close()
            path = self.directory / name.segment_file
            try:
                self._file = (name, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                raise FileProblem.from_os_error(error, doing="read", path=path) from error
        return self._file[1]


def read_close(path: Path, log_bytes: int) -> SegmentClose | None:
    """Return what the close entry says that ends at octet ``log_bytes`` of the segment ``path``; None: none does.

    Frames can only be walked forwards, but a close is short, so its length is tried: only one frame can end there and
    have that length, that type and that CRC.

    Raises: FileProblem.
    """
    try:
        with path.open("rb") as file:
            start = max(0, log_bytes - _CLOSE_BYTES_MAX)
            file.seek(start)
            data = file.read(log_bytes - start)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="read", path=path) from error
    for length in range(HEADER.size, len(data) - FRAME_OVERHEAD_BYTES + 1):
        offset = len(data) - length - FRAME_OVERHEAD_BYTES
        if int.from_bytes(data[offset : offset + 4], "big") != length:
            continue
        for end, stored in entries(data, offset):
            if end == len(data) and stored[0] == EntryType.SEGMENT_CLOSE:
                try:
                    return SegmentClose.from_bytes(Entry.from_bytes(stored).payload)
                except FormatProblem:
                    return None
            break
    return None


_CLOSE_BYTES_MAX: Final = 1_024


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when ``path`` is appended to or replaced."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size
