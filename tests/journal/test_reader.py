import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.journals import SECOND_NS, START_NS, Maker, make_small
from xproxy.errors import FileProblem
from xproxy.journal.cursor import Cursor, CursorProblem
from xproxy.journal.format import CloseReason, EntryType
from xproxy.journal.reader import (
    Doorbell,
    JournalDamaged,
    JournalMissing,
    StreamReader,
    journal_directory,
    read_close,
    stream_places,
)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "journal")


def open_reader(maker: Maker, stream: str = "sec") -> StreamReader:
    reader = StreamReader(maker.directory(stream))
    reader.refresh()
    return reader


def indexes(reader: StreamReader, start: int = 0, count_max: int = 1_024) -> list[int]:
    """Read to the end, ``count_max`` at a time."""
    found: list[int] = []
    while batch := reader.read(start, count_max):
        assert len(batch) <= count_max
        found += [entry.index for entry in batch]
        start = found[-1] + 1
    return found


# --- what is durable ---------------------------------------------------------------------------------------------


def test_a_journal_without_entries(maker: Maker, tmp_path: Path) -> None:
    maker.directory().mkdir()
    reader = open_reader(maker)
    assert (reader.durable, reader.note, reader.segments, reader.read(0)) == (0, None, (), [])
    assert reader.first_at(0) == 0
    with pytest.raises(JournalMissing):
        journal_directory(tmp_path / "elsewhere")


def test_streams_and_generations_in_order(maker: Maker) -> None:
    for name in ("ops", "sec.g2", "sec", "sec.g10", "sec.g1", "sec.g", "other", "ops.g2"):
        maker.journal.joinpath(name).mkdir()
    assert [place.path.name for place in stream_places(maker.journal)] == ["sec", "sec.g2", "sec.g10", "ops", "ops.g2"]


def test_all_segments_are_one_log(tmp_path: Path) -> None:
    maker = make_small(tmp_path / "journal")
    with open_reader(maker) as reader:
        assert reader.durable == 21
        assert len(reader.segments) == 3
        for count_max in (1, 2, 1_024):
            assert indexes(reader, count_max=count_max) == list(range(21))
        for start in (3, 11, 15, 20, 21, 22, -1):
            assert indexes(reader, start) == (list(range(start, 21)) if start >= 0 else [])


def test_what_no_note_covers_is_not_shown(maker: Maker) -> None:
    log = maker.open()
    maker.events(2)
    reader = open_reader(maker)
    durable = reader.durable
    log.append(EntryType.EVENT, b"{}")
    log._write(log._live)  # type: ignore[arg-type]  # synced, and not signed yet
    assert reader.refresh() == durable
    assert indexes(reader) == list(range(durable))
    log.commit()
    assert reader.refresh() == durable + 1
    assert reader.read(durable)[0].payload == b"{}"


def test_a_torn_segment_is_stepped_over(maker: Maker) -> None:
    """The crash came after the file was made: its name is there, and no entry."""
    maker.open()
    maker.events(2)
    maker.die()
    torn = maker.directory() / "00000000000000000003-000002.xj"
    torn.write_bytes(b"XPJRNL1\n\0\0")
    reader = open_reader(maker)
    assert indexes(reader) == [0, 1, 2]
    maker.open()
    assert reader.refresh() == 4
    assert indexes(reader) == [0, 1, 2, 3]
    assert [segment.path.name for segment in reader.segments] == [
        "00000000000000000000-000001.xj",
        "00000000000000000003-000003.xj",
    ]


def test_a_torn_tail_is_not_log(maker: Maker) -> None:
    log = maker.open()
    maker.events(3)
    first = log.size
    maker.die()
    maker.open()
    with maker.segments()[0].open("ab") as file:
        file.write(b"anything")
    reader = open_reader(maker)
    assert indexes(reader) == list(range(first + 1))


def test_a_reader_follows_over_rotations_and_restarts(maker: Maker) -> None:
    maker.open()
    reader = open_reader(maker)
    seen: list[int] = []
    for step in range(8):
        maker.events(3, commit_every=2 if step % 2 else 1)
        maker.logs["sec"].commit()
        if step in (2, 5):
            maker.rotate_segment()
        if step == 3:
            maker.close()
            maker.open()
        if step == 4:
            maker.die()
            maker.open()
        reader.refresh()
        seen += indexes(reader, len(seen))
    assert seen == list(range(maker.logs["sec"].size))


def test_damage_is_said(maker: Maker) -> None:
    maker.open()
    maker.events(3)
    maker.close()
    (path,) = maker.segments()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    reader = open_reader(maker)
    with pytest.raises(JournalDamaged, match="log verify"):
        indexes(reader)


def test_damaged_notes_are_said(maker: Maker) -> None:
    maker.open()
    maker.events(1)
    maker.close()
    (path,) = maker.notes()
    path.write_bytes(path.read_bytes().replace(b"\n3\n", b"\nx\n"))
    with pytest.raises(JournalDamaged):
        open_reader(maker)


def test_notes_longer_than_the_end_that_is_read(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xproxy.journal.reader.NOTES_TAIL_BYTES", 300)
    maker.open()
    maker.events(9)
    assert open_reader(maker).durable == 10


@given(st.data())
def test_wherever_one_begins_one_reads_the_rest(big: Maker, data: st.DataObject) -> None:
    reader = open_reader(big)
    with reader:
        for _ in range(4):
            start = data.draw(st.integers(0, reader.durable))
            count = data.draw(st.integers(1, 40))
            batch = reader.read(start, count)
            assert [entry.index for entry in batch] == list(range(start, start + len(batch)))
            assert bool(batch) == (start < reader.durable)
            if batch:
                ends = {segment.end_index for segment in reader.segments} | {reader.durable}
                assert len(batch) == count or batch[-1].index + 1 in ends


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Some thousand entries in four segments."""
    maker = Maker(tmp_path_factory.mktemp("big") / "journal")
    maker.open()
    for number in range(4):
        maker.events(2_000, commit_every=100)
        if number < 3:
            maker.clock.now_ns += 100 * SECOND_NS
            maker.rotate_segment()
    maker.close()
    return maker


# --- time --------------------------------------------------------------------------------------------------------


def test_seeking_by_time(big: Maker) -> None:
    reader = open_reader(big)
    times = [entry.time_ns for start in range(0, reader.durable, 100) for entry in reader.read(start, 100)]
    assert reader.durable > 8_000
    for index in (0, 1, 1_999, 2_001, 2_002, 5_000, reader.durable - 1):
        time_ns = reader.read(index, 1)[0].time_ns
        assert reader.first_at(time_ns) == index
        assert reader.first_at(time_ns - 1) == index
        assert reader.end_at(time_ns) > index
    assert times
    assert reader.first_at(1 << 63) == reader.durable
    assert reader.end_at(0) == 0


def test_seeking_by_time_when_the_clock_went_back(maker: Maker) -> None:
    log = maker.open()
    times = [START_NS + offset * SECOND_NS for offset in (10, 20, 5, 30, 6)]
    for time_ns in times:
        log.append(EntryType.EVENT, b"{}", time_ns=time_ns)
    log.commit()
    reader = open_reader(maker)
    assert reader.first_at(times[1]) == 2
    assert reader.first_at(START_NS + 6 * SECOND_NS) == 1
    assert reader.first_at(START_NS + 25 * SECOND_NS) == 4


def test_the_close_is_found_from_behind(maker: Maker) -> None:
    log = maker.open()
    maker.events(3)
    assert read_close(maker.segments()[0], log._live.bytes_) is None  # type: ignore[union-attr]
    log.seal(CloseReason.AGE)
    (path,) = maker.segments()
    close = read_close(path, path.stat().st_size)
    assert close is not None
    assert (close.reason, close.entries_count) == (CloseReason.AGE, 5)


# --- waiting -----------------------------------------------------------------------------------------------------


def test_waiting_looks_again_and_again_and_ever_less_often(maker: Maker) -> None:
    maker.open()
    reader = open_reader(maker)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 8:
            maker.events(1)

    assert reader.wait(reader.durable, 10.0, sleep)
    assert slept == [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.25, 0.25]
    assert not reader.wait(reader.durable, 1.0, lambda seconds: None)
    assert reader.wait(0, 0.0, lambda seconds: pytest.fail("there is more already"))


def test_the_doorbell_wakes(maker: Maker) -> None:
    maker.open()
    reader = open_reader(maker)
    durable, bell = reader.durable, Doorbell()

    def write() -> None:
        maker.events(1)
        bell.ring()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert reader.wait_for_bell(durable, 30.0, bell)
    finally:
        thread.join()
    assert not reader.wait_for_bell(reader.durable, 0.0, bell)


def test_a_bell_rung_between_looking_and_waiting_is_heard() -> None:
    bell = Doorbell()
    rings = bell.rings
    bell.ring()
    bell.wait(rings, 30.0)  # returns at once


# --- cursors -----------------------------------------------------------------------------------------------------

ORIGIN = "gw1.example.org/xproxy/5f0c21aa/sec"


def test_a_cursor_is_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "cursor.json"
    assert Cursor.load(path) is None
    for cursor in (Cursor.start(ORIGIN), Cursor(origin=ORIGIN, next_index=7, last_leaf=b"\x12" * 32)):
        cursor.save(path)
        assert Cursor.load(path) == cursor
        assert path.stat().st_mode & 0o777 == 0o600
        assert os.listdir(tmp_path) == ["cursor.json"]


def test_reading_goes_on_at_the_cursor(maker: Maker, tmp_path: Path) -> None:
    maker.open()
    maker.events(5)
    reader, path = open_reader(maker), tmp_path / "cursor.json"
    cursor = Cursor.start(ORIGIN)
    cursor.check(reader, ORIGIN, path)
    for entry in reader.read(0, 3):
        cursor = cursor.after(entry)
    cursor.save(path)
    again = Cursor.load(path)
    assert again is not None
    again.check(open_reader(maker), ORIGIN, path)
    assert again.next_index == 3


def test_a_cursor_of_another_history_is_refused(maker: Maker, tmp_path: Path) -> None:
    maker.open()
    maker.events(5)
    reader = open_reader(maker)
    good = Cursor.start(ORIGIN).after(reader.read(3, 1)[0])
    good.check(reader, ORIGIN, tmp_path)
    for cursor, message in (
        (Cursor(origin="other", next_index=4, last_leaf=good.last_leaf), "of the log other"),
        (Cursor(origin=ORIGIN, next_index=99, last_leaf=good.last_leaf), "rolled back"),
        (Cursor(origin=ORIGIN, next_index=4, last_leaf=bytes(32)), "written anew"),
    ):
        with pytest.raises(CursorProblem, match=message):
            cursor.check(reader, ORIGIN, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format":"other"}',
        '{"format":"xproxy-cursor","version":2}',
        '{"format":"xproxy-cursor","version":1,"origin":"x","next_index":-1,"last_leaf":null}',
        '{"format":"xproxy-cursor","version":1,"origin":"x","next_index":1,"last_leaf":null}',
        '{"format":"xproxy-cursor","version":1,"origin":"x","next_index":1,"last_leaf":"zz"}',
    ],
)
def test_what_is_no_cursor_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cursor.json"
    path.write_text(text)
    with pytest.raises(CursorProblem):
        Cursor.load(path)


def test_a_cursor_that_cannot_be_written_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "cursor.json"
    with pytest.raises(FileProblem):
        Cursor.start(ORIGIN).save(path)
