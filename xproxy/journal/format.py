"""The layout of the journal on disk, version 1. Pure: bytes in, values out.

    STATE/journal/                            mode 0700
      lock                                    who writes (lock.py)
      origin                                  one line: the base of the origins, e.g. gw1/xproxy/5f0c21aa
      ballast                                 nothing; given back when the disk is full (writer.py)
      sec/                                    a stream: its log is called <base>/sec
        signing.key                           keys.py
        00000000000000000000-000001.xj        a segment: index of its first leaf (20 digits), serial (6 or more)
        00000000000000000000-000001.notes     the signed notes of that segment's time
        00000000000000004711-000002.xj
        ...
      ops/                                    the other stream: <base>/ops
      sec.g2/                                 a later generation of a stream, see below: <base>/sec/g2

Integers are big-endian.

    segment = "XPJRNL1\\n"  frame*  zeros      zeros: room made ahead; none in a sealed segment
    frame   = u32 length | entry | u32 crc32(length | entry)
    entry   = u8 type | u8 flags | u64 index | u64 time_ns | [u64 tie] | payload        length <= 65 535
    leaf    = SHA-256(0x00 | entry),  node = SHA-256(0x01 | left | right)               RFC 6962 (tree.py)
    notes   = (signed note | LF)*              C2SP checkpoints (note.py), sizes never fall

The CRC only tells a torn write from tampering. What proves anything is the tree over the entries and the signatures
over its roots. 65 535 is what the bundles of C2SP tlog-tiles can hold; a record that would be larger is cut before it
is written, and says so (``xproxy.truncated``). The length of a frame is never 0, so zeros are the end.

**Types.** 1 segment-open: the first entry of every segment, JSON (``SegmentOpen``). 2 event: a record, JSON. 3
segment-close: the last entry of a sealed segment, JSON (``SegmentClose``). 4 control: a record (JSON, an event like any
other) that speaks of the journal itself: checkpoints, recovery, gaps, rotation of keys.

**Flags.** bit 0 SEALED: the payload is encrypted (only type 2 may be; nothing writes it yet: ``SegmentOpen.seal`` and
``<segment>.keys`` are the room for it. Tree and frames are over the stored bytes, so they need no key.) bit 1 TIED: a
u64 stands before the payload, how many leaves the other stream had, durable, when this entry was made. Every ``ops``
entry but opens and closes has it. Other bits are 0.

**index** counts the entries of a stream from 0 without holes: it is the leaf's number in the tree, and for a record its
``event.sequence``. **time_ns** is the wall clock at writing, UTC, as it was: it may go back. Order is by index, never
by clock.

**Streams.** ``sec`` holds records of level info and up and is never thinned; ``ops`` holds debug records, exists only
once there was one, and may miss some (a journal-gap says how many). Each heartbeat in ``sec`` (journal-checkpoint)
carries the newest note of ``ops``, each ``ops`` entry is tied to ``sec``: neither can vanish unseen, and their order is
known.

**Segments.** The serial of a new segment is 1 above the highest ever used. Order by (first index, serial) is order by
serial. A segment is one process's work and is appended to by that process only, until it is sealed (segment-close,
truncated to its last frame), or the process dies, or a write fails. After either of these it is never written again.
(A crash between the close and the cut leaves zeros behind a segment-close; the next start names them like any tail. A
new segment whose first commit fails is removed, where that works: while a disk is full there is one at every attempt.)
The next segment's open entry says what of the older ones belongs to the log:

* ``previous``: the newest older segment that has leaves in the log, and where they end. Frames of it at or above
  ``first_index`` are a *torn tail*: no log, although they may be whole.
* ``torn``: the segments between that one and this one, none of whose frames are log.

``file_bytes`` and ``tail_sha256`` say what stands after the log's last frame as it was found at the start after a crash
(for a whole segment in ``torn``: all of it), so that no byte of a torn tail can change unseen. Where a write failed in
a running process they are absent: what the disk has there is anybody's guess.

**Notes.** After each group commit a checkpoint is appended to the live segment's ``.notes``. The frames are durable
before: *durable is what a note covers*, and readers show nothing else. When a segment is sealed, or found after a
crash, its notes are thinned (written anew, then renamed over): kept are the first and the last, one a minute, all
around a rotation of keys, and each one handed outside. A note torn by a crash disappears then. There is one file of
notes a segment, so that thinning writes little and never touches what older segments vouch for.

After a crash, whole frames above the last note are adopted: they go on belonging to the log, and the next open entry
names them in ``unsigned_from``. They become readable with that segment's first note.

**Keys.** The open entry of the first segment names the verifier key; each later one the key in force. A control record
``key-rotated`` at index r brings a new one: notes of size <= r are signed by the old key, the first note of size > r by
both, all later ones by the new key.

**Generations.** A log never signs two histories. Should a start find fewer leaves than a note covers, or others, the
disk lied or someone meddled; that log is left as it is, and a new one begins beside it: ``sec.g2`` with the origin
``<base>/sec/g2``, whose first open entry carries the old log's last note in ``predecessor``.
"""

import base64
import enum
import struct
import zlib
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final, Self

import attrs
import orjson

from xproxy.journal.note import Note, NoteProblem, VerifierKey, parse_note
from xproxy.journal.tree import HASH_BYTES

MAGIC: Final = b"XPJRNL1\n"
VERSION: Final = 1
ENTRY_BYTES_MAX: Final = 65_535  # u16 length prefix of entry bundles (C2SP tlog-tiles)
FRAME_OVERHEAD_BYTES: Final = 8
SEAL_OVERHEAD_BYTES: Final = 16  # the tag of AES-256-GCM, once payloads are encrypted
HEADER: Final = struct.Struct(">BBQQ")  # type, flags, index, time_ns
_LENGTH: Final = struct.Struct(">I")
_TIE: Final = struct.Struct(">Q")
ENTRY_BYTES_MIN: Final = HEADER.size
PAYLOAD_BYTES_MAX: Final = ENTRY_BYTES_MAX - HEADER.size - _TIE.size - SEAL_OVERHEAD_BYTES  # 65 493

SEGMENT_SUFFIX: Final = ".xj"
NOTES_SUFFIX: Final = ".notes"
JOURNAL_DIRECTORY: Final = "journal"  # under STATE
ORIGIN_FILE: Final = "origin"
LOCK_FILE: Final = "lock"
BALLAST_FILE: Final = "ballast"
KEY_FILE: Final = "signing.key"
NEXT_KEY_FILE: Final = "signing.key.next"
STREAMS: Final = ("sec", "ops")


class FormatProblem(Exception):  # noqa: N818 - what bytes were found to be
    """Bytes are not what the layout says. The message says what they are instead."""


class EntryType(enum.IntEnum):
    """What an entry is."""

    SEGMENT_OPEN = 1
    EVENT = 2
    SEGMENT_CLOSE = 3
    CONTROL = 4


class Flags(enum.IntFlag):
    """How an entry is to be read."""

    SEALED = 1
    TIED = 2


_FLAGS_KNOWN: Final = int(Flags.SEALED | Flags.TIED)


@attrs.frozen(kw_only=True)
class Entry:
    """One entry: a leaf of the tree."""

    type: EntryType
    index: int
    time_ns: int
    payload: bytes = attrs.field(repr=lambda value: f"<{len(value)} octets>")
    is_sealed: bool = False
    tie: int | None = None

    def to_bytes(self) -> bytes:
        """Return the stored bytes: what the leaf hash is over."""
        flags = (Flags.SEALED if self.is_sealed else 0) | (Flags.TIED if self.tie is not None else 0)
        tie = b"" if self.tie is None else _TIE.pack(self.tie)
        data = HEADER.pack(self.type, flags, self.index, self.time_ns) + tie + self.payload
        assert len(data) <= ENTRY_BYTES_MAX, f"an entry of {len(data)} octets"
        return data

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Self:
        """Read the stored bytes. Raises: FormatProblem."""
        if not ENTRY_BYTES_MIN <= len(data) <= ENTRY_BYTES_MAX:
            raise FormatProblem(f"an entry of {len(data)} octets")
        number, flags, index, time_ns = HEADER.unpack_from(data)
        if flags & ~_FLAGS_KNOWN:
            raise FormatProblem(f"an entry with unknown flags {flags:#04x}")
        try:
            type_ = EntryType(number)
        except ValueError:
            raise FormatProblem(f"an entry of unknown type {number}") from None
        if flags & Flags.SEALED and type_ is not EntryType.EVENT:
            raise FormatProblem(f"an encrypted entry of type {number}")
        start, tie = HEADER.size, None
        if flags & Flags.TIED:
            if len(data) < start + _TIE.size:
                raise FormatProblem("a tied entry without its tie")
            (tie,) = _TIE.unpack_from(data, start)
            start += _TIE.size
        return cls(
            type=type_,
            index=index,
            time_ns=time_ns,
            payload=bytes(data[start:]),
            is_sealed=bool(flags & Flags.SEALED),
            tie=tie,
        )


def encode_entry(type_: int, index: int, time_ns: int, payload: bytes, tie: int | None = None) -> bytes:
    """Return the bytes of an entry in clear: ``Entry.to_bytes`` for the writer's hot path."""
    if tie is None:
        return HEADER.pack(type_, 0, index, time_ns) + payload
    return HEADER.pack(type_, Flags.TIED, index, time_ns) + _TIE.pack(tie) + payload


def encode_frame(entry: bytes) -> bytes:
    """Return ``entry`` in its frame."""
    body = _LENGTH.pack(len(entry)) + entry
    return body + _LENGTH.pack(zlib.crc32(body))


# What stands in a segment's file --------------------------------------------------------------------------------------


class Tail(enum.Enum):
    """What stands after the last whole frame of a file."""

    NOTHING = "nothing"
    ZEROS = "zeros"
    """Room made ahead, or a write of which nothing came down."""
    TORN = "torn"
    """Part of a frame, or bytes that are none."""


def has_magic(data: bytes | memoryview) -> bool:
    """Return whether ``data`` begins as a segment does."""
    return data[: len(MAGIC)] == MAGIC


def entries(data: bytes | memoryview, offset: int = len(MAGIC)) -> Iterator[tuple[int, memoryview]]:
    """Yield (end offset of its frame, stored bytes of the entry) of the whole frames from ``offset`` on.

    Ends at the first thing that is no whole frame with a good CRC: ``tail_of(data, last end offset)`` says what it is.
    The CRC is all that is checked.
    """
    view = memoryview(data)
    unpack, crc32, size = _LENGTH.unpack_from, zlib.crc32, len(view)
    while offset + FRAME_OVERHEAD_BYTES <= size:
        (length,) = unpack(view, offset)
        end = offset + 4 + length
        if not ENTRY_BYTES_MIN <= length <= ENTRY_BYTES_MAX or end + 4 > size:
            return
        if crc32(view[offset:end]) != unpack(view, end)[0]:
            return
        yield end + 4, view[offset + 4 : end]
        offset = end + 4


def tail_of(data: bytes | memoryview, offset: int) -> Tail:
    """Return what stands in ``data`` from ``offset``, where the last whole frame ends."""
    if offset >= len(data):
        return Tail.NOTHING
    view = memoryview(data)
    for start in range(offset, len(view), len(_ZEROS)):
        piece = view[start : start + len(_ZEROS)]
        if piece != _ZEROS[: len(piece)]:
            return Tail.TORN
    return Tail.ZEROS


_ZEROS: Final = bytes(65_536)


# Names ----------------------------------------------------------------------------------------------------------------


@attrs.frozen(order=True)
class SegmentName:
    """The name of a segment. Sorts in the order of the log."""

    first_index: int
    serial: int

    @property
    def stem(self) -> str:
        """The name without suffix."""
        return f"{self.first_index:020d}-{self.serial:06d}"

    @property
    def segment_file(self) -> str:
        """Name of the file of frames."""
        return self.stem + SEGMENT_SUFFIX

    @property
    def notes_file(self) -> str:
        """Name of the file of notes."""
        return self.stem + NOTES_SUFFIX

    @classmethod
    def from_file(cls, name: str) -> "SegmentName | None":
        """Read the name of a segment's or a notes file; None if it is neither, spelt exactly so."""
        path = PurePath(name)
        first, separator, serial = path.stem.partition("-")
        if path.suffix not in {SEGMENT_SUFFIX, NOTES_SUFFIX} or not separator:
            return None
        if not (first.isascii() and first.isdecimal() and serial.isascii() and serial.isdecimal()):
            return None
        found = cls(int(first), int(serial))
        return found if found.stem == path.stem and found.serial > 0 else None


def stream_directory(stream: str, generation: int) -> str:
    """Return the name of a stream's directory."""
    return stream if generation == 1 else f"{stream}.g{generation}"


def stream_origin(base: str, stream: str, generation: int) -> str:
    """Return the origin of a stream: the name of the log, and of the keys that sign it."""
    return f"{base}/{stream}" if generation == 1 else f"{base}/{stream}/g{generation}"


def parse_stream_directory(name: str) -> tuple[str, int] | None:
    """Return (stream, generation) of a directory's name; None if it is no stream's."""
    stream, separator, number = name.partition(".g")
    if stream not in STREAMS:
        return None
    generation = int(number) if separator and number.isascii() and number.isdecimal() else 1
    return (stream, generation) if stream_directory(stream, generation) == name else None


# Notes of a segment -----------------------------------------------------------------------------------------------


def encode_notes(notes: list[Note]) -> bytes:
    """Return the content of a ``.notes`` file."""
    return b"".join([note.to_bytes() + b"\n" for note in notes])


def parse_notes(data: bytes) -> tuple[list[Note], int]:
    """Return the notes in the content of a ``.notes`` file and the offset where the last whole one ends.

    What stands behind that offset is a note that a crash has cut.

    Raises:
        FormatProblem: a whole note is none, or no checkpoint.
    """
    notes: list[Note] = []
    offset = 0
    while (note_end := end_of_note(data, offset)) is not None:
        try:
            note = parse_note(data[offset:note_end])
            note.checkpoint  # noqa: B018 - raises
        except NoteProblem as problem:
            raise FormatProblem(f"at octet {offset}: {problem}") from problem
        notes.append(note)
        offset = note_end + 1
    return notes, offset


def last_note(data: bytes) -> Note | None:
    """Return the last whole note in the end of a ``.notes`` file, of which ``data`` holds at least the last two.

    Raises: FormatProblem: it is none.
    """
    # Text, empty line, signatures, empty line: the last whole note stands between the first and third empty lines
    # from the end.
    end = data.rfind(b"\n\n")
    middle = data.rfind(b"\n\n", 0, max(end, 0))
    if end < 0 or middle < 0:
        return None
    if not data[middle + 2 : end].startswith("— ".encode()):
        # The last empty line ends a text whose signatures were cut: go back over it.
        end = middle
        middle = data.rfind(b"\n\n", 0, end)
        if middle < 0:
            return None
    start = data.rfind(b"\n\n", 0, middle)
    try:
        note = parse_note(data[start + 2 if start >= 0 else 0 : end + 1])
        note.checkpoint  # noqa: B018 - raises
    except NoteProblem as problem:
        raise FormatProblem(f"the last note: {problem}") from problem
    return note


def end_of_note(data: bytes, start: int) -> int | None:
    """Return where the note at ``start`` ends, or None: it is cut. The empty line behind it must be there."""
    middle = data.find(b"\n\n", start)
    end = data.find(b"\n\n", middle + 2) if middle >= 0 else -1
    return end + 1 if end >= 0 else None


# What the opening and the closing entry of a segment say --------------------------------------------------------------


class OpenReason(enum.Enum):
    """Why a segment was begun."""

    CREATED = "created"
    """The log begins."""
    STARTED = "started"
    """A process started."""
    ROTATED = "rotated"
    """The one before was full or old."""
    FAILED = "failed"
    """A write to the one before failed."""


class CloseReason(enum.Enum):
    """Why a segment was sealed."""

    STOPPED = "stopped"
    SIZE = "size"
    AGE = "age"


@attrs.frozen(kw_only=True)
class OldSegment:
    """What is log of an older segment."""

    name: SegmentName
    log_bytes: int  # its frames end here; 0: none of it is log
    is_closed: bool  # it ends in a segment-close
    file_bytes: int | None = None  # None: not known, or not there at all
    tail_sha256: bytes | None = None  # of octets log_bytes to file_bytes


@attrs.frozen(kw_only=True)
class Seal:
    """How payloads are encrypted (logging.md section 3.2). Nothing writes this yet."""

    aead: str
    salt: bytes
    commitment: bytes
    recipients: tuple[str, ...]


@attrs.frozen(kw_only=True)
class SegmentOpen:
    """The payload of a segment's first entry."""

    origin: str
    name: SegmentName
    reason: OpenReason
    vkey: VerifierKey  # in force for this segment
    peaks: tuple[bytes, ...]  # of the tree of name.first_index leaves: what reading from here on needs
    software: str
    previous: OldSegment | None = None
    torn: tuple[OldSegment, ...] = ()
    unsigned_from: int | None = None  # leaves from here to first_index were adopted without a note
    note: str | None = None  # the newest note there was
    predecessor: str | None = None  # the last note of the generation before
    seal: Seal | None = None

    def to_bytes(self) -> bytes:
        """Return the payload."""
        return _dump(
            {
                "version": VERSION,
                "origin": self.origin,
                "first_index": self.name.first_index,
                "serial": self.name.serial,
                "reason": self.reason.value,
                "vkey": str(self.vkey),
                "peaks": [_text(peak) for peak in self.peaks],
                "software": self.software,
                "previous": None if self.previous is None else _old_to_json(self.previous),
                "torn": [_old_to_json(old) for old in self.torn],
                "unsigned_from": self.unsigned_from,
                "note": self.note,
                "predecessor": self.predecessor,
                "seal": None
                if self.seal is None
                else {
                    "aead": self.seal.aead,
                    "salt": _text(self.seal.salt),
                    "commitment": _text(self.seal.commitment),
                    "recipients": list(self.seal.recipients),
                },
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "SegmentOpen":
        """Read the payload. Raises: FormatProblem."""
        try:
            json = orjson.loads(data)
            if json["version"] != VERSION:
                raise FormatProblem(f"a segment of version {json['version']}, this program knows {VERSION}")
            seal = json["seal"]
            peaks = tuple(_octets(peak) for peak in json["peaks"])
            found = cls(
                origin=_str(json["origin"]),
                name=SegmentName(_count(json["first_index"]), _count(json["serial"])),
                reason=OpenReason(json["reason"]),
                vkey=VerifierKey.from_text(json["vkey"]),
                peaks=peaks,
                software=_str(json["software"]),
                previous=None if json["previous"] is None else _old_from_json(json["previous"]),
                torn=tuple(_old_from_json(old) for old in json["torn"]),
                unsigned_from=None if json["unsigned_from"] is None else _count(json["unsigned_from"]),
                note=None if json["note"] is None else _str(json["note"]),
                predecessor=None if json["predecessor"] is None else _str(json["predecessor"]),
                seal=None
                if seal is None
                else Seal(
                    aead=_str(seal["aead"]),
                    salt=_octets(seal["salt"]),
                    commitment=_octets(seal["commitment"]),
                    recipients=tuple(_str(each) for each in seal["recipients"]),
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError, NoteProblem) as error:
            raise FormatProblem(f"a segment-open that cannot be read: {error!r}") from error
        if len(peaks) != found.name.first_index.bit_count() or any(len(peak) != HASH_BYTES for peak in peaks):
            raise FormatProblem(f"a segment-open whose peaks are not those of {found.name.first_index} leaves")
        return found


@attrs.frozen(kw_only=True)
class SegmentClose:
    """The payload of a sealed segment's last entry."""

    reason: CloseReason
    entries_count: int  # with the open and this
    time_ns_min: int  # of its entries
    time_ns_max: int

    def to_bytes(self) -> bytes:
        """Return the payload."""
        return _dump(
            {
                "reason": self.reason.value,
                "entries_count": self.entries_count,
                "time_ns_min": self.time_ns_min,
                "time_ns_max": self.time_ns_max,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "SegmentClose":
        """Read the payload. Raises: FormatProblem."""
        try:
            json = orjson.loads(data)
            return cls(
                reason=CloseReason(json["reason"]),
                entries_count=_count(json["entries_count"]),
                time_ns_min=_count(json["time_ns_min"]),
                time_ns_max=_count(json["time_ns_max"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatProblem(f"a segment-close that cannot be read: {error!r}") from error


def new_key_of(entry: Entry) -> VerifierKey | None:
    """Return the key that ``entry`` brings into force, if it is a ``key-rotated`` control record.

    Raises: FormatProblem: it is one and holds no key.
    """
    # Two substring tests are cheaper than JSON; whoever has these words in a control record is one of us.
    if entry.type is not EntryType.CONTROL or b"key-rotated" not in entry.payload:
        return None
    try:
        document = orjson.loads(entry.payload)
        if document["event"]["action"] != "key-rotated":
            return None
        return VerifierKey.from_text(document["xproxy"]["journal"]["vkey"])
    except (KeyError, TypeError, ValueError, AttributeError, NoteProblem) as error:
        raise FormatProblem(f"a key-rotated that cannot be read: {error!r}") from error


def _old_to_json(old: OldSegment) -> dict[str, Any]:
    return {
        "first_index": old.name.first_index,
        "serial": old.name.serial,
        "log_bytes": old.log_bytes,
        "is_closed": old.is_closed,
        "file_bytes": old.file_bytes,
        "tail_sha256": None if old.tail_sha256 is None else _text(old.tail_sha256),
    }


def _old_from_json(json: dict[str, Any]) -> OldSegment:
    return OldSegment(
        name=SegmentName(_count(json["first_index"]), _count(json["serial"])),
        log_bytes=_count(json["log_bytes"]),
        is_closed=_bool(json["is_closed"]),
        file_bytes=None if json["file_bytes"] is None else _count(json["file_bytes"]),
        tail_sha256=None if json["tail_sha256"] is None else _octets(json["tail_sha256"]),
    )


def _dump(json: dict[str, Any]) -> bytes:
    return orjson.dumps(json, option=orjson.OPT_SORT_KEYS)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _octets(text: str) -> bytes:
    return base64.b64decode(_str(text), validate=True)


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r}")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"not a count: {value!r}")
    return value


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"not a bool: {value!r}")
    return value
