"""Small journals on a real disk, written by the stream itself: the clock is the test's, and no thread runs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import orjson

from xproxy.journal.format import (
    MAGIC,
    ORIGIN_FILE,
    CloseReason,
    Entry,
    EntryType,
    OpenReason,
    encode_frame,
    entries,
    stream_directory,
)
from xproxy.journal.note import Note
from xproxy.journal.storage import Disk, DiskFile
from xproxy.journal.stream import StreamLog

BASE = "gw1.example.org/xproxy/5f0c21aa"
START_NS = 1_790_000_000_000_000_000  # 2026-09-21T14:13:20Z
SECOND_NS = 1_000_000_000


@attrs.define
class Clock:
    """A wall clock that moves when it is told."""

    now_ns: int = START_NS
    step_ns: int = 1_000_000  # each reading takes so long

    def __call__(self) -> int:
        """Return the time."""
        self.now_ns += self.step_ns
        return self.now_ns


def payload(number: int, **more: Any) -> bytes:
    """Return a record as it is stored."""
    document: dict[str, Any] = {
        "@timestamp": "2026-09-21T14:13:20.000000Z",
        "log": {"level": more.pop("level", "info")},
        "message": "A test.",
        "event": {"action": more.pop("action", "stream-opened"), "id": f"{'ab' * 16}-{number}", "sequence": number},
        **more,
    }
    return orjson.dumps(document)


class HastyFile(DiskFile):
    """Does not wait for the disk."""

    __slots__ = ()

    def sync(self) -> None:
        """Do nothing."""


class HastyDisk(Disk):
    """A disk that nobody waits for: these journals need not survive the machine, and the machine is shared."""

    def create(self, path: Path) -> DiskFile:
        """Make a file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return HastyFile(os.open(path, flags, 0o600))

    def sync_file(self, path: Path) -> None:
        """Do nothing."""

    def sync_directory(self, path: Path) -> None:
        """Do nothing."""


class Maker:
    """Writes streams of one journal."""

    def __init__(self, journal: Path, clock: Clock | None = None) -> None:
        """``journal``: STATE/journal, made if it is not there."""
        self.journal = journal
        self.clock = clock or Clock()
        journal.mkdir(parents=True, exist_ok=True)
        if not (journal / ORIGIN_FILE).exists():
            (journal / ORIGIN_FILE).write_text(f"{BASE}\n")
        self.logs: dict[str, StreamLog] = {}

    def open(self, stream: str = "sec") -> StreamLog:
        """Begin a segment as a process does that starts."""
        log, problem = StreamLog.open_(
            storage=HastyDisk(),
            journal=self.journal,
            stream=stream,
            base=BASE,
            wall_ns=self.clock,
            monotonic=lambda: self.clock.now_ns / 1e9,
        )
        assert problem is None, problem
        log.begin(OpenReason.CREATED if log.recovered is None else OpenReason.STARTED)
        log.commit()
        self.logs[stream] = log
        return log

    def events(self, count: int, stream: str = "sec", commit_every: int = 1, **more: Any) -> None:
        """Append ``count`` records, with a commit after each ``commit_every``."""
        log = self.logs[stream]
        for number in range(1, count + 1):
            tie = self.logs["sec"].durable_size if stream == "ops" else None
            log.append(EntryType.EVENT, payload(log.size, **more), tie=tie)
            if number % commit_every == 0:
                log.commit()

    def heartbeat(self) -> Note:
        """Append a journal-checkpoint to sec; return the newest note it is signed by."""
        log, ops = self.logs["sec"], self.logs.get("ops")
        note = log.note
        assert note is not None
        journal: dict[str, Any] = {"note": note.to_lines(), "size": note.checkpoint.size}
        if ops is not None and ops.note is not None:
            journal["ops_note"] = ops.note.to_lines()
        more = {"action": "journal-checkpoint", "xproxy": {"journal": journal}}
        log.keep_newest_note()
        log.append(EntryType.CONTROL, payload(log.size, **more))
        log.commit(keep_note=True)
        assert log.note is not None
        return log.note

    def rotate_key(self, stream: str = "sec") -> None:
        """Exchange the signing key, as the writer does."""
        log = self.logs[stream]
        old, new = log.keys.current.verifier, log.keys.prepare()
        more = {
            "action": "key-rotated",
            "xproxy": {"journal": {"vkey": str(new.verifier), "previous_vkey": str(old)}},
        }
        log.append(EntryType.CONTROL, payload(log.size, **more))
        log.keys.bring_into_force(new)
        log.commit()

    def rotate_segment(self, stream: str = "sec", reason: CloseReason = CloseReason.SIZE) -> None:
        """Seal the live segment and begin the next."""
        self.logs[stream].seal(reason)
        self.logs[stream].begin(OpenReason.ROTATED)
        self.logs[stream].commit()

    def close(self) -> None:
        """Seal all, as a process does that stops."""
        for log in self.logs.values():
            log.seal(CloseReason.STOPPED)
        self.logs.clear()

    def die(self) -> None:
        """Leave all as it is, as a process does that is killed."""
        for log in self.logs.values():
            live = log._live
            if live is not None:
                live.file.close()
                live.notes.close()
        self.logs.clear()

    def directory(self, stream: str = "sec", generation: int = 1) -> Path:
        """Return where a stream lies."""
        return self.journal / stream_directory(stream, generation)

    def segments(self, stream: str = "sec") -> list[Path]:
        """Return the segments in the order of their names."""
        return sorted(self.directory(stream).glob("*.xj"))

    def notes(self, stream: str = "sec") -> list[Path]:
        """Return the files of notes likewise."""
        return sorted(self.directory(stream).glob("*.notes"))


def make_small(journal: Path) -> Maker:
    """Write a journal with all there is: three segments of sec, two of ops, a rotated key, a crash; closed in form."""
    maker = Maker(journal)
    maker.open()
    maker.open("ops")
    maker.events(4)
    maker.events(3, "ops", level="debug")
    maker.heartbeat()
    maker.rotate_key()
    maker.events(3, commit_every=3)
    maker.rotate_segment()
    maker.events(3)
    maker.events(2, commit_every=9)  # never committed
    maker.die()
    maker.clock.now_ns += 3_600 * SECOND_NS
    maker.open()
    maker.open("ops")
    maker.events(2, "ops", level="debug")
    maker.heartbeat()
    maker.events(3)
    maker.close()
    return maker


def copy(maker: Maker, to: Path) -> Path:
    """Copy the journal; return the copy."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(maker.journal, to)
    return to


def frames_of(path: Path) -> list[bytes]:
    """Return the frames of a segment: what stands behind them is lost."""
    data, start, frames = path.read_bytes(), len(MAGIC), []
    for end, _ in entries(data):
        frames.append(data[start:end])
        start = end
    return frames


def write_frames(path: Path, frames: list[bytes]) -> None:
    """Make ``path`` a segment of these frames."""
    path.write_bytes(MAGIC + b"".join(frames))


def rewritten(frame: bytes, change: Callable[[Entry], Entry]) -> bytes:
    """Return the frame of another entry, with a right checksum."""
    return encode_frame(change(Entry.from_bytes(frame[4:-4])).to_bytes())
