"""The writer on a real disk: what it writes, what it says, when it closes and rotates."""

import json
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import orjson
import pytest
import trio

from xproxy.config.journal import JournalSettings
from xproxy.errors import FileProblem
from xproxy.events.common import Level
from xproxy.journal import writer
from xproxy.journal.format import (
    CloseReason,
    Entry,
    EntryType,
    OpenReason,
    SegmentClose,
    SegmentName,
    SegmentOpen,
    entries,
    has_magic,
    new_key_of,
    parse_notes,
)
from xproxy.journal.lock import JournalLocked
from xproxy.journal.note import VerifierKey, note_from_lines
from xproxy.journal.storage import Disk, Space
from xproxy.journal.stored import StoredRecord
from xproxy.journal.tree import Frontier, leaf_hash
from xproxy.journal.verify import Verdict, verify_journal
from xproxy.journal.writer import Journal, open_journal, request_rotation
from xproxy.record.recorder import Observer, ProxyRecorder, Record
from xproxy.record.schema import event_schema

OBSERVER = Observer(version="0.1.0", hostname="gw1", boot_id="5f" * 16)
START_NS = 1_790_000_000_000_000_000


def record(number: int, level: Level = Level.INFO, **more: Any) -> Record:
    action = "stream-opened" if level >= Level.INFO else "stanza-relayed"
    document = {"event": {"id": f"{'ab' * 16}-{number}", "action": action}, "n": number, **more}
    return Record(document, level, action)


class Host:
    """A machine whose clocks stand still, and a journal that takes its turns when it is told."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.now = 1_000.0
        self.wall_offset = 0
        self.delivered: list[Record] = []
        self.disk = SpaceDisk()
        self.settings = JournalSettings(ballast_bytes=0)
        self.journal: Journal | None = None

    def open(self, **settings: int) -> Journal:
        self.settings = attrs.evolve(self.settings, **settings)
        self.journal = open_journal(
            self.state,
            settings=self.settings,
            on_failure="degrade",
            recorder=ProxyRecorder(observer=OBSERVER),
            deliver=self.delivered.extend,
            storage=self.disk,
            wall_ns=lambda: START_NS + self.wall_offset + int(self.now * 1e9),
            monotonic=lambda: self.now,
        )
        self.journal._heartbeat_at = self.now + self.settings.heartbeat_seconds
        self.journal._inbox.wait = lambda seconds: None  # type: ignore[method-assign]  # our clock stands still
        return self.journal

    def turn(self, *records: Record) -> None:
        assert self.journal is not None
        self.journal.put_nowait(records)
        self.journal._turn()

    def pass_(self, seconds: float) -> None:
        """Let time pass, and a turn come of it."""
        self.now += seconds
        self.turn()

    def close(self) -> int:
        assert self.journal is not None
        return self.journal.close()

    @property
    def directory(self) -> Path:
        return self.state / "journal"

    def entries(self, stream: str = "sec") -> list[Entry]:
        found = []
        for name in self.segments(stream):
            data = (self.directory / stream / name.segment_file).read_bytes()
            assert has_magic(data)
            found += [Entry.from_bytes(stored) for _, stored in entries(data)]
        return found

    def segments(self, stream: str = "sec") -> list[SegmentName]:
        files = (self.directory / stream).glob("*.xj")
        return sorted(name for file in files if (name := SegmentName.from_file(file.name)) is not None)

    def notes(self, stream: str = "sec") -> list[list[int]]:
        return [
            [note.checkpoint.size for note in parse_notes((self.directory / stream / name.notes_file).read_bytes())[0]]
            for name in self.segments(stream)
        ]

    def actions(self) -> list[str]:
        return [each.action for each in self.delivered]

    def only(self, action: str) -> dict[str, Any]:
        (found,) = [each.document for each in self.delivered if each.action == action]
        return found


class SpaceDisk(Disk):
    used = 10

    def space(self, path: Path) -> Space:
        return Space(100, 100 - self.used)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(writer, "LINGER_SECONDS", 0)
    host = Host(tmp_path)
    yield host
    if host.journal is not None:
        host.journal.close()


def test_a_journal_is_for_its_owner_alone(host: Host):
    host.open()
    host.close()
    assert stat.S_IMODE(host.directory.stat().st_mode) == 0o700
    for path in host.directory.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_is_delivered_is_what_is_stored(host: Host):
    host.open()
    host.turn(record(1), record(2))
    host.turn(record(3))
    host.close()
    stored = host.entries()
    assert [entry.index for entry in stored] == list(range(len(stored)))
    assert [entry.type for entry in stored] == [
        EntryType.SEGMENT_OPEN, EntryType.CONTROL, EntryType.EVENT, EntryType.EVENT, EntryType.EVENT,
        EntryType.SEGMENT_CLOSE,
    ]  # fmt: skip
    for entry, each in zip(stored[1:-1], host.delivered, strict=True):
        document = orjson.loads(entry.payload)
        assert document["event"]["sequence"] == entry.index
        assert document == each.document
        assert each.to_json() == entry.payload + b"\n"
        assert entry.time_ns == START_NS + 1_000 * 10**9
    assert SegmentOpen.from_bytes(stored[0].payload).reason is OpenReason.CREATED
    assert SegmentClose.from_bytes(stored[-1].payload).reason is CloseReason.STOPPED


def test_each_commit_is_signed_and_covers_everything(host: Host):
    journal = host.open()
    for number in range(4):
        host.turn(record(number))
        assert journal.durable_size == number + 3
        (name,) = host.segments()
        notes, _ = parse_notes((host.directory / "sec" / name.notes_file).read_bytes())
        tree = Frontier()
        for _, stored in entries((host.directory / "sec" / name.segment_file).read_bytes()):
            tree.append(leaf_hash(stored))
        VerifierKey.from_text(journal.vkey).verify(notes[-1])
        assert (notes[-1].checkpoint.size, notes[-1].checkpoint.root) == (tree.size, tree.root())


def test_a_record_given_is_not_changed(host: Host):
    host.open()
    given = record(1)
    host.turn(given)
    assert given == record(1)


def test_the_next_process_goes_on_in_a_new_segment(host: Host):
    host.open()
    host.turn(record(1))
    host.close()
    host.open()
    host.turn(record(2))
    host.close()
    first, second = host.segments()
    assert (first.first_index, first.serial) == (0, 1)
    assert second.serial == 2
    opening = SegmentOpen.from_bytes(host.entries()[second.first_index].payload)
    assert opening.reason is OpenReason.STARTED
    assert opening.previous is not None
    assert opening.previous.is_closed
    assert opening.previous.name == first
    assert [entry.index for entry in host.entries()] == list(range(len(host.entries())))
    assert "journal-recovered" not in host.actions()
    assert verify_journal(host.directory).verdict is Verdict.INTACT


def test_a_process_that_died_is_told_of(host: Host):
    journal = host.open()
    host.turn(record(1))
    journal._lock.release()
    (name,) = host.segments()
    path = host.directory / "sec" / name.segment_file
    # One whole frame without note, and a torn one, before the room made ahead.
    *_, (end, _) = entries(path.read_bytes())
    from xproxy.journal.format import encode_entry, encode_frame

    extra = encode_frame(encode_entry(EntryType.EVENT, 3, START_NS, b'{"event":{"action":"x"}}'))
    with path.open("r+b") as file:
        file.seek(end)
        file.write(extra + b"\x00\x00\x01\x00torn")
    before = path.read_bytes()
    host.open()
    host.turn(record(2))
    host.close()
    recovered = host.only("journal-recovered")["xproxy"]["journal"]
    assert recovered["unsigned_from"] == 3
    assert recovered["unsigned_count"] == 1
    assert recovered["torn_bytes"] == 8
    assert recovered["segment"] == name.segment_file
    assert path.read_bytes() == before  # never written again
    assert verify_journal(host.directory).verdict is Verdict.INTACT


def test_segments_are_closed_at_their_size(host: Host):
    host.open(segment_bytes_max=4_000)
    for number in range(20):
        host.turn(record(number, filler="x" * 500))
    host.close()
    segments = host.segments()
    assert len(segments) > 3
    closes = [
        SegmentClose.from_bytes(entry.payload) for entry in host.entries() if entry.type is EntryType.SEGMENT_CLOSE
    ]
    assert [close.reason for close in closes] == [CloseReason.SIZE] * (len(segments) - 1) + [CloseReason.STOPPED]
    for name in segments:
        data = (host.directory / "sec" / name.segment_file).read_bytes()
        assert list(entries(data))[-1][0] == len(data)  # cut to the last frame
    assert verify_journal(host.directory).verdict is Verdict.INTACT


def test_segments_are_closed_at_their_age(host: Host):
    host.open(segment_seconds_max=3_600)
    host.pass_(3_599)
    assert len(host.segments()) == 1
    host.pass_(1)
    host.turn(record(1))
    assert len(host.segments()) == 2
    assert [SegmentClose.from_bytes(e.payload).reason for e in host.entries() if e.type is EntryType.SEGMENT_CLOSE] == [
        CloseReason.AGE
    ]


def test_of_the_notes_one_a_minute_is_kept(host: Host):
    host.open(heartbeat_seconds=1_000_000)
    for number in range(200):
        host.now += 1
        host.turn(record(number))
    assert len(host.notes()[0]) == 201
    host.close()
    (kept,) = host.notes()
    assert kept[0] == 2
    assert kept[-1] == len(host.entries())
    assert 5 <= len(kept) <= 7  # 200 s, and both ends
    assert verify_journal(host.directory).verdict is Verdict.INTACT


def test_silence_is_signed_each_minute(host: Host):
    host.open()
    for _ in range(3):
        host.pass_(60)
    host.close()
    beats = [each.document for each in host.delivered if each.action == "journal-checkpoint"]
    assert len(beats) == 3
    sizes = [beat["xproxy"]["journal"]["size"] for beat in beats]
    assert sizes == [2, 3, 4]
    for beat in beats:
        note = note_from_lines(beat["xproxy"]["journal"]["note"])
        VerifierKey.from_text(host.journal.vkey if host.journal else "").verify(note)
        assert note.checkpoint.size in host.notes()[0]  # handed outside: kept
    assert verify_journal(host.directory).verdict is Verdict.INTACT


def test_a_clock_that_is_set_back_is_recorded_at_once_and_order_stays(host: Host):
    host.open()
    host.turn(record(1))
    host.wall_offset -= 3_600 * 10**9
    host.turn(record(2))
    host.close()
    assert host.only("journal-checkpoint")["xproxy"]["journal"]["clock_back_ns"] == 3_600 * 10**9
    times = [entry.time_ns for entry in host.entries()]
    assert min(times) < times[0]
    assert [entry.index for entry in host.entries()] == list(range(len(times)))
    close = SegmentClose.from_bytes(host.entries()[-1].payload)
    assert (close.time_ns_min, close.time_ns_max) == (min(times), max(times))
    assert verify_journal(host.directory).verdict is Verdict.INTACT


def test_debug_records_have_a_stream_of_their_own_tied_to_sec(host: Host):
    host.open()
    host.turn(record(1), record(2, Level.DEBUG), record(3), record(4, Level.DEBUG))
    assert [each.document["n"] for each in host.delivered if "n" in each.document] == [1, 2, 3, 4]
    host.pass_(1.1)
    ops = host.entries("ops")
    assert [entry.type for entry in ops] == [
        EntryType.SEGMENT_OPEN,
        EntryType.CONTROL,
        EntryType.EVENT,
        EntryType.EVENT,
    ]
    assert [entry.tie for entry in ops] == [None, 4, 4, 4]
    assert [orjson.loads(entry.payload)["event"]["sequence"] for entry in ops[2:]] == [2, 3]
    host.pass_(60)
    beat = host.only("journal-checkpoint")["xproxy"]["journal"]
    assert note_from_lines(beat["ops_note"]).checkpoint.size == 4
    host.close()
    assert verify_journal(host.directory).verdict is Verdict.INTACT


def test_debug_records_are_not_written_to_a_disk_that_is_nearly_full(host: Host):
    host.disk.used = 91
    host.open()
    host.turn(record(1, Level.DEBUG), record(2))
    host.pass_(60)
    assert host.only("journal-gap")["event"]["reason"] == "disk-nearly-full"
    assert not (host.directory / "ops").exists()
    assert [each.document["n"] for each in host.delivered if "n" in each.document] == [1, 2]  # seen live all the same


def test_a_disk_that_fills_is_recorded_at_each_mark_once(host: Host, caplog: pytest.LogCaptureFixture):
    host.open()
    for host.disk.used in (84, 85, 86, 84, 85, 91, 90, 96, 97, 50, 88):
        host.pass_(6)
        host.pass_(0)
    values = [each.document["xproxy"]["limit"]["value"] for each in host.delivered if each.action == "limit-reached"]
    assert values == [85, 90, 95, 85]
    assert "is 85 % full" in caplog.text


def test_keys_are_exchanged_and_the_old_one_is_gone(host: Host):
    journal = host.open()
    host.turn(record(1), record(2, Level.DEBUG))
    old = journal.vkey
    pem = (host.directory / "sec" / "signing.key").read_bytes()
    journal.rotate_keys()
    host.turn(record(3))
    host.turn(record(4))
    assert journal.vkey != old
    assert (host.directory / "sec" / "signing.key").read_bytes() != pem
    rotation = host.only("key-rotated")["xproxy"]["journal"]
    assert (rotation["previous_vkey"], rotation["vkey"]) == (old, journal.vkey)
    (entry,) = [entry for entry in host.entries() if new_key_of(entry) is not None]
    notes, _ = parse_notes((host.directory / "sec" / host.segments()[0].notes_file).read_bytes())
    both = [note for note in notes if len(note.signatures) == 2]
    assert [note.checkpoint.size for note in both] == [entry.index + 1]
    VerifierKey.from_text(old).verify(both[0])
    VerifierKey.from_text(journal.vkey).verify(both[0])
    host.close()
    host.open()
    host.close()
    assert verify_journal(host.directory).verdict is Verdict.INTACT


def test_an_exchange_of_keys_can_be_asked_for_from_outside(host: Host):
    journal = host.open()
    old = journal.vkey
    request_rotation(host.state)
    journal.poke()
    host.turn()
    host.turn()
    assert journal.vkey != old
    assert not (host.directory / "rotate-keys").exists()


def test_a_second_writer_is_refused_and_told_who_has_it(host: Host):
    host.open()
    with pytest.raises(JournalLocked, match=rf"being written by process {os.getpid()} on .* since 2026-"):
        host.open()
    host.close()
    host.open()


def test_a_lock_without_words_is_still_one(host: Host):
    host.open()
    (host.directory / "lock").write_bytes(b"")
    with pytest.raises(JournalLocked, match="being written by another process"):
        host.open()


def test_a_journal_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "journal").write_text("in the way")
    with pytest.raises(FileProblem, match="journal"):
        Host(tmp_path).open()


def test_an_origin_that_is_none_is_named(host: Host):
    host.open()
    host.close()
    (host.directory / "origin").write_text("two words\n")
    with pytest.raises(FileProblem, match="does not hold the name of a log"):
        host.open()


def test_the_journals_own_records_are_of_the_schema(host: Host):
    validator = jsonschema.Draft202012Validator(event_schema())
    journal = host.open()
    host.turn(record(1))
    journal.rotate_keys()
    host.pass_(60)
    host.disk.used = 99
    host.pass_(60)
    host.pass_(60)
    journal._lock.release()
    host.open()
    host.close()
    own = [each for each in host.delivered if each.action != "stream-opened"]
    assert {each.action for each in own} == {
        "journal-opened", "key-rotated", "journal-checkpoint", "limit-reached", "journal-recovered"
    }  # fmt: skip
    for each in own:
        assert isinstance(each, StoredRecord)
        validator.validate(json.loads(each.json))


# Records that are too large


def test_a_record_that_is_too_large_is_cut_and_says_so(host: Host):
    host.open()
    names = ["x" * 1_000 + str(number) for number in range(64)]
    large = {"tls": {"server": {"x509": {"alternative_names": names}}, "version": "1.3"}, "related": {"hosts": names}}
    host.turn(record(1, **large))
    host.close()
    document = orjson.loads(host.entries()[2].payload)
    assert document["xproxy"]["truncated"] == ["related.hosts"]
    assert document["tls"] == large["tls"]
    assert host.delivered[-1].to_json() == host.entries()[2].payload + b"\n"


# The thread


async def test_records_come_out_in_order_of_a_running_thread(tmp_path: Path):
    delivered: list[Record] = []
    done = threading.Event()

    def deliver(records: Any) -> None:
        delivered.extend(records)
        if len(delivered) > 5_000:
            done.set()

    journal = open_journal(
        tmp_path,
        settings=JournalSettings(ballast_bytes=0, records_max=2_000),
        on_failure="degrade",
        recorder=ProxyRecorder(observer=OBSERVER),
        deliver=deliver,
    )
    journal.start()
    with trio.fail_after(20):
        for number in range(5_000):
            if journal.is_full:
                await journal.wait_not_full()
                assert not journal.is_full
            journal.put_nowait([record(number)])
        await trio.to_thread.run_sync(done.wait)
    assert journal.close() == 0
    assert journal.close() == 0
    assert [each.document["n"] for each in delivered[1:]] == list(range(5_000))
    assert verify_journal(tmp_path / "journal").verdict is Verdict.INTACT


def run_(journal: Journal, *steps: Callable[[], None]) -> None:
    journal.start()
    for step in steps:
        step()
    journal.close()


def test_a_mistake_of_ours_ends_the_writing_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    told: list[Exception] = []
    journal = open_journal(
        tmp_path,
        settings=JournalSettings(ballast_bytes=0),
        on_failure="degrade",
        recorder=ProxyRecorder(observer=OBSERVER),
        deliver=lambda records: None,
        on_fatal=told.append,
    )
    run_(journal, lambda: journal.put_nowait([None]))  # type: ignore[list-item]
    assert len(told) == 1
    assert "the journal's writer failed" in caplog.text
    (path,) = (tmp_path / "journal" / "sec").glob("*.xj")
    assert verify_journal(tmp_path / "journal").verdict is not Verdict.TAMPERED
    assert path.exists()


def test_a_journal_that_was_removed_under_its_writer_leaves_the_one_in_its_place_alone(
    host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Seen once: "the file has 1156759 bytes, not 1176446", of a segment that another process had named as its own."""
    host.open(segment_seconds_max=3_600, ballast_bytes=8_192)
    host.turn(record(1), record(2, Level.DEBUG))
    shutil.rmtree(host.directory)
    other = Host(tmp_path)
    other.open(segment_seconds_max=7_200, ballast_bytes=8_192)
    for number in range(10):
        other.turn(record(number), record(number, Level.DEBUG))
    assert host.journal is not None
    host.journal._heartbeat_at = host.now + 10_000  # it has not looked yet
    host.now += 3_600
    host.turn(record(3))  # a segment of that age is closed, and another begun
    host.turn(record(4))
    assert not host.journal.health.is_ok
    assert host.journal.health.reason == "directory-gone"
    host.journal.rotate_keys()
    host.turn(record(5))
    assert host.close() >= 2
    assert len(other.segments()) == len(other.segments("ops")) == 1
    other.close()
    report = verify_journal(other.directory)
    assert (report.verdict, report.findings) == (Verdict.INTACT, ())
    assert "another directory stands in its place" in caplog.text


def test_a_journal_that_was_moved_away_is_noticed_and_gone_on_with_when_it_is_back(
    host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    host.open()
    host.turn(record(1))
    assert host.journal is not None
    host.directory.rename(tmp_path / "away")
    host.pass_(host.settings.heartbeat_seconds)
    assert host.journal.health.reason == "directory-gone"
    assert "was removed or moved away while it was written" in caplog.text
    host.turn(record(2))
    (tmp_path / "away").rename(host.directory)
    host.pass_(60)
    assert host.journal.health.is_ok
    host.turn(record(3))
    host.close()
    assert verify_journal(host.directory).verdict is not Verdict.TAMPERED
    actions = [delivered.action for delivered in host.delivered if isinstance(delivered, StoredRecord)]
    assert "journal-gap" in actions
