"""What a start makes of what it finds."""

import errno
import itertools
from pathlib import Path

import pytest

from tests.support.disk import Fault, MemoryDisk
from xproxy.journal.format import EntryType, OpenReason, SegmentName, SegmentOpen, encode_notes, entries, parse_notes
from xproxy.journal.keys import KeyLost, SigningKey
from xproxy.journal.note import Checkpoint
from xproxy.journal.recovery import HistoryLost, recover
from xproxy.journal.stream import CommitFailed, StreamLog

JOURNAL = Path("/state/journal")
SEC = JOURNAL / "sec"
ORIGIN = "gw1/xproxy/5f0c21aa/sec"
SECOND = 10**9


@pytest.fixture(autouse=True)
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xproxy.journal.stream.ALLOCATE_BYTES", 4_096)


@pytest.fixture
def disk() -> MemoryDisk:
    disk = MemoryDisk()
    disk.directories.add(JOURNAL)
    return disk


def open_(disk: MemoryDisk) -> tuple[StreamLog, HistoryLost | KeyLost | None]:
    ticks = itertools.count(1_790_000_000 * SECOND, SECOND)
    return StreamLog.open_(
        storage=disk,
        journal=JOURNAL,
        stream="sec",
        base="gw1/xproxy/5f0c21aa",
        wall_ns=lambda: next(ticks),
        monotonic=lambda: 0.0,
    )


def begun(disk: MemoryDisk, commits: int = 3) -> StreamLog:
    """A process that has committed as many entries, one by one, behind the open entry, and is gone."""
    log, problem = open_(disk)
    assert problem is None
    log.begin()
    for number in range(commits):
        log.append(EntryType.EVENT, b'{"n":%d}' % number)
        log.commit()
    return log


def name_of(log: StreamLog) -> SegmentName:
    assert log.segment is not None
    name = SegmentName.from_file(log.segment)
    assert name is not None
    return name


def notes_of(disk: MemoryDisk, name: SegmentName) -> list[int]:
    return [note.checkpoint.size for note in parse_notes(disk.read(SEC / name.notes_file))[0]]


def opening_of(disk: MemoryDisk, log: StreamLog) -> SegmentOpen:
    _, stored = next(entries(disk.read(SEC / name_of(log).segment_file)))
    return SegmentOpen.from_bytes(bytes(stored[18:]))


def test_nothing_is_no_log(disk: MemoryDisk) -> None:
    disk.directories.add(SEC)
    assert recover(disk, SEC, ORIGIN) is None


def test_a_log_goes_on_where_it_was(disk: MemoryDisk) -> None:
    log = begun(disk)
    recovered = recover(disk, SEC, ORIGIN)
    assert recovered is not None
    assert recovered.tree.size == log.size == 4
    assert recovered.tree.root() == log.note.checkpoint.root if log.note else False
    assert recovered.vkey == log.keys.current.verifier
    assert recovered.unsigned_from is None
    assert not recovered.was_closed
    assert recovered.previous is not None
    assert recovered.previous.file_bytes == 4_096


def test_notes_are_thinned_by_the_minutes_of_their_entries(disk: MemoryDisk) -> None:
    log = begun(disk, 150)  # a second each
    assert len(notes_of(disk, name_of(log))) == 150
    recover(disk, SEC, ORIGIN)
    kept = notes_of(disk, name_of(log))
    assert (kept[0], kept[-1]) == (2, 151)
    assert 4 <= len(kept) <= 5


def test_notes_that_cannot_be_thinned_stay(disk: MemoryDisk) -> None:
    log = begun(disk)
    disk.plan = lambda call, what, path: Fault() if what == "create" else None
    recovered = recover(disk, SEC, ORIGIN)
    assert recovered is not None
    assert notes_of(disk, name_of(log)) == [2, 3, 4]


def test_a_torn_note_is_left_out(disk: MemoryDisk) -> None:
    name = name_of(begun(disk))
    content = disk.files[SEC / name.notes_file].content
    del content[-5:]
    recovered = recover(disk, SEC, ORIGIN)
    assert recovered is not None
    assert recovered.unsigned_from == 3
    assert recovered.tree.size == 4
    assert notes_of(disk, name) == [2, 3]


def test_a_note_behind_a_hole_counts(disk: MemoryDisk) -> None:
    name = name_of(begun(disk))
    content = disk.files[SEC / name.notes_file].content
    middle = content.index(b"\n3\n")
    content[middle - 10 : middle + 100] = bytes(110)
    recovered = recover(disk, SEC, ORIGIN)
    assert recovered is not None
    assert recovered.unsigned_from is None
    assert notes_of(disk, name) == [2, 4]


def test_without_its_notes_a_segment_is_unsigned(disk: MemoryDisk) -> None:
    name = name_of(begun(disk))
    del disk.files[SEC / name.notes_file]
    recovered = recover(disk, SEC, ORIGIN)
    assert recovered is not None
    assert recovered.unsigned_from == 0


def test_what_cannot_be_synced_is_left_out_above_the_note(disk: MemoryDisk) -> None:
    name = name_of(begun(disk))
    content = disk.files[SEC / name.notes_file].content
    del content[-5:]
    disk.plan = lambda call, what, path: Fault(errno.EIO) if what == "fsync" else None
    recovered = recover(disk, SEC, ORIGIN)
    assert recovered is not None
    assert recovered.tree.size == 3
    assert recovered.unsigned_from is None
    assert recovered.previous is not None
    assert recovered.previous.tail_sha256 is None


def test_a_segment_that_cannot_be_synced_and_has_no_note_is_torn(disk: MemoryDisk) -> None:
    first = begun(disk)
    second, _ = open_(disk)
    second.begin()
    second.append(EntryType.EVENT, b"{}")
    disk.plan = lambda call, what, path: Fault(errno.EIO) if what == "write" and path.suffix == ".notes" else None
    with pytest.raises(CommitFailed) as raised:
        second.commit()
    assert raised.value.kept
    disk.plan = lambda call, what, path: Fault(errno.EIO) if what == "fsync" else None
    recovered = recover(disk, SEC, ORIGIN)
    assert recovered is not None
    assert recovered.tree.size == 4
    assert recovered.previous is not None
    assert recovered.previous.name == name_of(first)
    assert [old.name.serial for old in recovered.torn] == [2]


def test_entries_out_of_order_are_no_log(disk: MemoryDisk) -> None:
    log = begun(disk)
    content = disk.files[SEC / name_of(log).segment_file].content
    whole = bytes(content)
    ends = [end for end, _ in entries(whole)]
    frames = whole[ends[2] : ends[3]] + whole[ends[1] : ends[2]]
    content[ends[1] : ends[3]] = frames
    with pytest.raises(HistoryLost, match="4 entries were signed, 2 can be read"):
        recover(disk, SEC, ORIGIN)


def test_an_entry_that_is_none_ends_the_log(disk: MemoryDisk) -> None:
    from xproxy.journal.format import encode_frame

    log = begun(disk)
    content = disk.files[SEC / name_of(log).segment_file].content
    *_, (end, _) = entries(bytes(content))
    bad = encode_frame(b"\x09" + bytes(20))
    content[end : end + len(bad)] = bad
    recovered = recover(disk, SEC, ORIGIN)
    assert recovered is not None
    assert recovered.tree.size == 4
    assert recovered.torn_bytes > 0


@pytest.mark.parametrize("what", ["other tree", "other key", "other log"])
def test_a_note_that_is_not_ours_ends_the_log(disk: MemoryDisk, what: str) -> None:
    log = begun(disk)
    assert log.note is not None
    root = bytes(32) if what == "other tree" else log.note.checkpoint.root
    key = SigningKey.generate(ORIGIN) if what == "other key" else log.keys.current
    origin = "gw2/xproxy/00000000/sec" if what == "other log" else ORIGIN
    note = Checkpoint(origin, 4, root).sign([key])
    disk.files[SEC / name_of(log).notes_file].content[:] = encode_notes([note])
    with pytest.raises(HistoryLost) as raised:
        recover(disk, SEC, ORIGIN)
    assert raised.value.note == note.to_text()


def test_a_log_whose_first_segment_cannot_be_read_is_lost(disk: MemoryDisk) -> None:
    name = name_of(begun(disk))
    disk.files[SEC / name.segment_file].content[20] ^= 1
    with pytest.raises(HistoryLost, match="no segment can be read"):
        recover(disk, SEC, ORIGIN)


def test_a_first_segment_that_nobody_saw_is_torn_and_named(disk: MemoryDisk) -> None:
    log, _ = open_(disk)
    log.begin()
    disk.plan = lambda call, what, path: Fault(taken=0.5) if what == "write" else Fault() if what == "unlink" else None
    with pytest.raises(CommitFailed):
        log.commit()
    disk.plan = None
    again, problem = open_(disk)
    assert problem is None
    assert not again.has_history
    again.begin()
    again.commit()
    opening = opening_of(disk, again)
    assert opening.reason is OpenReason.CREATED
    assert [old.name.serial for old in opening.torn] == [1]
    assert opening.name == SegmentName(0, 2)


def test_a_lost_log_is_followed_by_another_generation_and_that_by_itself(disk: MemoryDisk) -> None:
    log = begun(disk)
    assert log.note is not None
    del disk.files[SEC / name_of(log).segment_file].content[-4_000:]
    again, problem = open_(disk)
    assert isinstance(problem, HistoryLost)
    assert again.origin == f"{ORIGIN}/g2"
    again, problem = open_(disk)  # the last process died before it wrote anything there
    assert problem is None
    again.begin()
    again.commit()
    third, problem = open_(disk)
    assert problem is None
    assert third.origin == f"{ORIGIN}/g2"
    assert third.size == 1
    _, stored = next(entries(disk.read(JOURNAL / "sec.g2" / "00000000000000000000-000001.xj")))
    assert SegmentOpen.from_bytes(bytes(stored[18:])).predecessor == log.note.to_text()


def test_a_stream_that_is_given_up_forgets_what_waits(disk: MemoryDisk) -> None:
    log = begun(disk)
    log.append(EntryType.EVENT, b"{}")
    assert log.pending_bytes > 0
    log.discard()
    assert (log.size, log.pending_bytes, log.is_live) == (4, 0, False)
    log.begin()
    log.commit()
    assert opening_of(disk, log).reason is OpenReason.FAILED


def test_a_file_that_somebody_else_made_is_left_alone(disk: MemoryDisk) -> None:
    log = begun(disk)
    log.discard()
    stranger = SEC / SegmentName(4, 2).segment_file
    disk.create(stranger).close()
    with pytest.raises(CommitFailed):
        log.begin()
    assert stranger in disk.files
    log.begin()
    log.commit()
    assert [old.name.serial for old in opening_of(disk, log).torn] == [2]
