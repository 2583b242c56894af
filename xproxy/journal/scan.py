"""One pass over the frames of a segment: CRC, index, leaf hash. What verification costs is spent here.

What an entry says beside being a leaf is the business of a ``Watcher``; it is asked only where there may be something.
"""

import os
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import Final, Protocol

from xproxy.errors import FileProblem
from xproxy.journal.findings import Kind
from xproxy.journal.format import (
    ENTRY_BYTES_MAX,
    ENTRY_BYTES_MIN,
    FRAME_OVERHEAD_BYTES,
    MAGIC,
    Entry,
    EntryType,
    Flags,
    FormatProblem,
    SegmentClose,
    Tail,
    tail_of,
)
from xproxy.journal.reader import Progress

CHUNK_BYTES: Final = 4_194_304
HEARTBEAT_NS: Final = 60_000_000_000  # writer.py writes a journal-checkpoint this often
SILENCE_NS_MAX: Final = 2 * HEARTBEAT_NS + 10_000_000_000  # and a slow disk's time
_HEAD: Final = Struct(">IBBQQ")  # length of the frame, then the header of the entry
_CRC: Final = Struct(">I")
_TIE: Final = Struct(">Q")
_FRAME_BYTES_MAX: Final = ENTRY_BYTES_MAX + FRAME_OVERHEAD_BYTES


class Damage(Exception):  # noqa: N818 - what a segment was found to be
    """A segment cannot be read on from here."""

    def __init__(self, kind: Kind, message: str, index: int, end_index: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.index = index
        self.end_index = end_index


class Watcher(Protocol):
    """Who looks at what is not just an event in clear."""

    closed: SegmentClose | None  # what the segment's last entry says, once it was read
    last_ns: int | None  # time of the entry before; None: nothing to compare with

    def take(self, entry: Entry, times: tuple[int, int]) -> None:
        """Look at an entry. ``times``: least and greatest so far, with its own. Raises: Damage."""

    def check_tie(self, tie: int, index: int) -> None:
        """Entry ``index`` was made when the other stream had ``tie`` entries."""

    def silent(self, index: int, seconds: float) -> None:
        """Between entry ``index`` and the one before it so much time passed."""


class Scan:
    """One pass over the frames of a segment's file."""

    def __init__(self, path: Path, first_index: int, progress: Progress) -> None:
        self._path = path
        self._index = first_index
        self._progress = progress
        self.octets = 0  # of whole frames
        self.tail = Tail.NOTHING

    def leaves(
        self, *, end_offset: int | None, end_index: int | None, limit: int | None, state: Watcher
    ) -> Iterator[list[bytes]]:
        """Yield the leaf hashes, a chunk at a time.

        Ends at ``end_offset`` or where there is no more; at ``limit`` entries of the log, if given.

        Raises:
            Damage: a frame is not what it should be.
            FileProblem: the file cannot be read.
        """
        try:
            with self._path.open("rb", buffering=0) as file:
                yield from self._leaves(file.fileno(), end_offset, end_index, limit, state)
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="read", path=self._path) from error

    def _leaves(
        self, descriptor: int, end_offset: int | None, end_index: int | None, limit: int | None, state: Watcher
    ) -> Iterator[list[bytes]]:
        # The hot loop: 1.6 us an entry of 900 bytes, of which 1 us is CRC and SHA-256. Locals, no objects.
        unpack, unpack_crc, crc32, head_bytes = _HEAD.unpack_from, _CRC.unpack_from, zlib.crc32, _HEAD.size
        event = int(EntryType.EVENT)
        index, position = self._index, len(MAGIC)  # offset in the file of the next frame
        least, greatest = 1 << 64, 0
        last_ns = state.last_ns
        stop = (1 << 64) if limit is None else limit
        while index < stop:
            wanted = CHUNK_BYTES if end_offset is None else min(CHUNK_BYTES, max(0, end_offset - position))
            data = os.pread(descriptor, wanted, position)
            leaves: list[bytes] = []
            add = leaves.append
            offset, size = 0, len(data)
            problem: Damage | None = None
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
                        state.check_tie(_TIE.unpack_from(frame, 22)[0], index)
                    else:
                        try:
                            entry = Entry.from_bytes(memoryview(frame)[4:])
                        except FormatProblem as error:
                            problem = Damage(Kind.MODIFIED, f"entry {index}: {error}", index, index + 1)
                            break
                        if state.closed is not None:
                            problem = Damage(Kind.MODIFIED, "entries stand behind its end", index)
                            break
                        try:
                            state.take(entry, (least, greatest))
                        except Damage as damage:
                            problem = damage
                            break
                elif state.closed is not None:
                    problem = Damage(Kind.MODIFIED, "entries stand behind its end", index)
                    break
                add(sha256(b"\x00" + frame[4:]).digest())
                index += 1
                offset = end + 4
            self._progress(offset)
            self.octets += offset
            position += offset
            state.last_ns = last_ns
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
        """No whole frame stands at ``position``: say what does. Raises: Damage."""
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
                raise Damage(Kind.TRUNCATED, f"the file has {size} bytes, its log has {end_offset}", index)
            raise Damage(Kind.MODIFIED, f"entry {index}, at octet {position}, is damaged", index, index + 1)
        if self.tail is Tail.TORN:
            whole = len(data) >= 4 and int.from_bytes(data[:4], "big") + 8 <= len(data)
            kind, what = (Kind.MODIFIED, "is damaged") if whole else (Kind.TRUNCATED, "is cut off")
            raise Damage(kind, f"entry {index}, at octet {position}, {what}", index, index + 1)

    def _disorder(self, descriptor: int, index: int, found: int, offset: int, end_index: int | None) -> Damage:
        """Entry ``found`` stands at ``offset``, where ``index`` should: look whether that comes later."""
        if found < index:
            return Damage(Kind.DUPLICATED, f"entry {found} stands where {index} should, again", found, found + 1)
        for other in _indexes(descriptor, offset):
            if other == index:
                return Damage(Kind.REORDERED, f"entry {found} stands before entry {index}", index, found + 1)
        return Damage(
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
