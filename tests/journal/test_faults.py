"""The journal on a disk that fails: at every call, in every way, and with the machine gone at every call."""

import errno
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import orjson
import pytest

from tests.support.disk import Crash, Fault, MemoryDisk
from xproxy.config.journal import JournalSettings
from xproxy.errors import FileProblem
from xproxy.events.common import Level
from xproxy.journal import writer
from xproxy.journal.format import JOURNAL_DIRECTORY, Entry, EntryType, SegmentName, SegmentOpen, entries
from xproxy.journal.stored import StoredRecord
from xproxy.journal.verify import Verdict, verify_journal
from xproxy.journal.writer import Journal, open_journal
from xproxy.record.recorder import Observer, ProxyRecorder, Record

OBSERVER = Observer(version="0.1.0", hostname="gw1", boot_id="5f" * 16)
SETTINGS = JournalSettings(
    segment_bytes_max=6_000, segment_seconds_max=3_600, heartbeat_seconds=60, ballast_bytes=8_192
)
START_NS = 1_790_000_000_000_000_000


def record(number: int, level: Level = Level.INFO) -> Record:
    action = "stream-opened" if level >= Level.INFO else "stanza-relayed"
    event = {"id": f"{'ab' * 16}-{number}", "action": action, "outcome": "success"}
    return Record({"@timestamp": "2026-09-21T13:33:20.000000Z", "event": event, "n": number}, level, action)


@pytest.fixture(autouse=True)
def _no_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LINGER_SECONDS", 0)
    monkeypatch.setattr("xproxy.journal.stream.ALLOCATE_BYTES", 4_096)


class World:
    """One disk, and the processes that write a journal on it one after the other, in this thread."""

    def __init__(self, path: Path, on_failure: str = "degrade") -> None:
        self.state = path / "state"
        (self.state / JOURNAL_DIRECTORY).mkdir(parents=True, exist_ok=True)  # the lock is real
        self.disk = MemoryDisk()
        self.disk.directories.add(self.state)
        self.now = 1_000.0
        self.on_failure = on_failure
        self.put: list[Record] = []
        self.delivered: list[Record] = []
        self.journal: Journal | None = None
        self.fatal: list[Exception] = []

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now

    def wall_ns(self) -> int:
        return START_NS + int(self.now * 1e9)

    def open(self) -> Journal:
        self.journal = open_journal(
            self.state,
            settings=SETTINGS,
            on_failure=self.on_failure,  # type: ignore[arg-type]
            recorder=ProxyRecorder(observer=OBSERVER),
            deliver=self.delivered.extend,
            on_fatal=self.fatal.append,
            storage=self.disk,
            wall_ns=self.wall_ns,
            monotonic=self.monotonic,
        )
        self.journal._heartbeat_at = self.now + SETTINGS.heartbeat_seconds
        return self.journal

    def turn(self, *records: Record) -> None:
        assert self.journal is not None
        self.put += records
        self.journal.put_nowait(list(records))
        self.journal._turn()

    def live(self) -> None:
        """What a process does in its life: records of both streams, a heartbeat, new segments, new keys, the end."""
        number = len(self.put)
        journal = self.open()
        for _ in range(3):
            self.turn(record(number), record(number + 1, Level.DEBUG), record(number + 2))
            number += 3
        self.now += SETTINGS.heartbeat_seconds
        self.turn(record(number))
        journal.rotate_keys()
        for later in range(number + 1, number + 13):
            self.turn(record(later))
        self.turn(record(number + 13, Level.DEBUG))
        self.close()

    def close(self) -> int:
        assert self.journal is not None
        lost = self.journal.close()
        self.journal = None
        return lost

    def die(self) -> None:
        """The process is gone; only the lock was the system's."""
        if self.journal is not None:
            self.journal._lock.release()
            self.journal = None

    @property
    def numbered(self) -> dict[int, bytes]:
        """What was said to be durable in sec, by its number."""
        return {
            stored.document["event"]["sequence"]: stored.json
            for stored in self.delivered
            if isinstance(stored, StoredRecord) and "stanza-relayed" not in stored.action
        }

    def check(self, tmp_path: Path, verdicts: tuple[Verdict, ...] = (Verdict.INTACT,)) -> None:
        """Everything that was promised holds, and verify agrees."""
        log = dict(log_of(self.disk, self.state / JOURNAL_DIRECTORY / "sec"))
        missing = {index for index, json in self.numbered.items() if log.get(index) != json}
        assert not missing, f"{len(missing)} of {len(self.numbered)} durable records are lost: {sorted(missing)}"
        target = tmp_path / "dump"
        target.mkdir(exist_ok=True)
        self.disk.dump(self.state / JOURNAL_DIRECTORY, target)
        report = verify_journal(target)
        assert report.verdict in verdicts, [str(finding) for finding in report.findings]


def log_of(disk: MemoryDisk, directory: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (index, payload) of the log's records, as format.py has it and without the journal's own reader."""
    found: dict[int, bytes] = {}
    names = sorted(SegmentName.from_file(name) for name in disk.names(directory) if name.endswith(".xj"))  # type: ignore[type-var]
    for name in names:
        assert name is not None
        for _, stored in entries(disk.read(directory / name.segment_file)):
            entry = Entry.from_bytes(stored)
            if entry.type is EntryType.SEGMENT_OPEN:
                first = SegmentOpen.from_bytes(entry.payload).name.first_index
                for index in [index for index in found if index >= first]:
                    del found[index]
            found[entry.index] = entry.payload
    yield from found.items()


def gaps_of(world: World) -> Counter[str]:
    counts: Counter[str] = Counter()
    for _, payload in log_of(world.disk, world.state / JOURNAL_DIRECTORY / "sec"):
        document = orjson.loads(payload)
        if document.get("event", {}).get("action") == "journal-gap":
            for line in document["xproxy"]["journal"]["missing"]:
                name, _, count = line.rpartition(" ")
                counts[name] += int(count)
    return counts


def calls_of_a_life(path: Path) -> int:
    world = World(path)
    world.live()
    return world.disk.calls


def fresh(tmp_path: Path, number: int) -> Path:
    path = tmp_path / str(number)
    path.mkdir()
    return path


def test_a_life_without_faults(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.live()
    world.live()
    world.check(tmp_path)
    stored = [record.document["n"] for record in world.delivered if "n" in record.document]
    assert stored == [record.document["n"] for record in world.put]
    assert all(isinstance(record, StoredRecord) for record in world.delivered)
    assert {"fdatasync", "rename", "truncate", "create", "allocate"} <= {line.split()[0] for line in world.disk.log}


Plan = Callable[[int], Callable[[int, str, Path], Fault | None]]

PLANS: dict[str, Plan] = {
    "io-error": lambda nth: lambda call, what, path: Fault(errno.EIO) if call == nth else None,
    "short": lambda nth: lambda call, what, path: Fault(errno.ENOSPC, taken=0.6) if call == nth else None,
    "all-came-down": lambda nth: lambda call, what, path: Fault(errno.EIO, taken=1.0) if call == nth else None,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_any_one_call_may_fail(tmp_path: Path, name: str) -> None:
    """Nothing is lost or counted twice, whichever call fails, and the log verifies."""
    for nth in range(1, calls_of_a_life(fresh(tmp_path, 0)) + 40):
        world = World(fresh(tmp_path, nth))
        world.disk.plan = PLANS[name](nth)
        try:
            world.live()
        except FileProblem:  # the start said no
            world.die()
        world.disk.plan = None
        world.open()
        world.close()
        world.check(tmp_path / str(nth))
        check_nothing_is_lost(world)


@pytest.mark.slow
def test_any_one_call_may_fail_after_a_crash(tmp_path: Path) -> None:
    """The recovery is part of a life too."""
    calls = 0
    nth = -1
    while (nth := nth + 1) <= calls:
        world = World(fresh(tmp_path, nth))
        world.live()
        world.open()
        world.turn(record(100), record(101, Level.DEBUG))
        world.turn(record(102))
        world.die()
        start = world.disk.calls  # at nth 0 nothing fails: how many calls are there?
        world.disk.plan = lambda call, what, path, at=start + nth: Fault(errno.EIO, taken=0.5) if call == at else None  # type: ignore[misc]
        try:
            world.live()
        except FileProblem:
            world.die()
        calls = max(calls, world.disk.calls - start)
        world.disk.plan = None
        world.open()
        world.close()
        world.check(tmp_path / str(nth))
        check_nothing_is_lost(world)


def check_nothing_is_lost(world: World) -> None:
    put = Counter(record.document["n"] for record in world.put if record.level >= Level.INFO)
    delivered = [record for record in world.delivered if "n" in record.document and record.level >= Level.INFO]
    assert Counter(record.document["n"] for record in delivered) == put
    raw = Counter("stream-opened success" for record in delivered if not isinstance(record, StoredRecord))
    missing = gaps_of(world)
    assert missing["stream-opened success"] == raw.total()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "power"])
@pytest.mark.parametrize("taken", [0.0, 0.5, 1.0])
def test_the_end_may_come_at_any_call(tmp_path: Path, end: str, taken: float) -> None:
    """What was said to be durable is there after it, and the log verifies."""
    for nth in range(1, calls_of_a_life(fresh(tmp_path, 0)) + 1):
        world = World(fresh(tmp_path, nth))
        world.disk.plan = lambda call, what, path, nth=nth: Fault(crash=True, taken=taken) if call == nth else None  # type: ignore[misc]
        with pytest.raises(Crash):
            world.live()
        world.die()
        world.disk.plan = None
        if end == "power":
            world.disk.power_cut(Random(nth))
        world.open()
        world.close()
        world.check(tmp_path / str(nth))


@pytest.mark.slow
def test_a_disk_may_die_at_any_call_and_the_machine_after_it(tmp_path: Path) -> None:
    for nth in range(1, calls_of_a_life(fresh(tmp_path, 0)) + 1, 3):
        world = World(fresh(tmp_path, nth))
        world.disk.plan = lambda call, what, path, nth=nth: Fault(errno.EIO, taken=0.5) if call >= nth else None  # type: ignore[misc]
        try:
            world.live()
        except FileProblem:
            world.die()
        world.disk.power_cut(Random(nth))
        world.live()
        world.check(tmp_path / str(nth))


# Full disks


def fill(disk: MemoryDisk, leave: int = 0) -> None:
    disk.capacity_bytes = disk.used_bytes + leave


def test_a_full_disk_takes_the_ballast_first(tmp_path: Path) -> None:
    world = World(tmp_path)
    journal = world.open()
    world.turn(record(0))
    assert "ballast" in world.disk.names(journal.directory)
    fill(world.disk)
    for number in range(1, 8):
        world.turn(record(number))
    assert "ballast" not in world.disk.names(journal.directory)
    assert journal.health.is_ok
    assert [each.action for each in world.delivered].count("journal-failed") == 1
    world.disk.capacity_bytes = 1 << 30
    world.close()
    world.check(tmp_path)
    check_nothing_is_lost(world)


def test_without_room_traffic_goes_on_and_the_gap_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    journal = world.open()
    world.turn(record(0))
    fill(world.disk, -8_192)  # not even what the ballast leaves
    for number in range(1, 20):
        world.turn(record(number))
    assert not journal.health.is_ok
    assert journal.health.reason == "no-space"
    raw = [each for each in world.delivered if not isinstance(each, StoredRecord)]
    assert len(raw) > 5
    assert "sequence" not in raw[0].document["event"]
    world.disk.capacity_bytes = 1 << 30
    world.now += 100
    world.turn(record(20))
    assert journal.health.is_ok
    world.close()
    world.check(tmp_path)
    check_nothing_is_lost(world)
    (gap,) = [each for each in world.delivered if each.action == "journal-gap"]
    assert gap.document["event"]["reason"] == "no-space"
    assert gap.document["xproxy"]["journal"]["missing_records"] == len(raw)


def test_with_policy_stop_nothing_is_given_up(tmp_path: Path) -> None:
    world = World(tmp_path, on_failure="stop")
    journal = world.open()
    world.turn(record(0))
    world.disk.plan = lambda call, what, path: Fault(errno.EIO)
    world.turn(record(1))
    assert len(world.fatal) == 1
    assert journal.waiting_count == 1
    world.disk.plan = None
    assert world.close() == 0  # the last attempt: the disk is back
    world.check(tmp_path)
    assert all(isinstance(each, StoredRecord) for each in world.delivered)


def test_with_policy_stop_the_end_says_what_is_lost(tmp_path: Path) -> None:
    world = World(tmp_path, on_failure="stop")
    world.open()
    world.turn(record(0))
    world.disk.plan = lambda call, what, path: Fault(errno.EIO)
    world.turn(record(1), record(2))
    assert world.close() == 2
    assert all(isinstance(each, StoredRecord) for each in world.delivered)
    world.disk.plan = None
    world.open()
    world.close()
    world.check(tmp_path)


def test_debug_records_that_cannot_be_written_are_counted(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.open()
    world.disk.plan = lambda call, what, path: Fault(errno.EIO) if "/ops" in str(path) else None
    world.turn(record(0), record(1, Level.DEBUG), record(2, Level.DEBUG))
    world.now += SETTINGS.heartbeat_seconds + 1
    world.turn(record(3))
    world.turn(record(4))
    world.close()
    world.check(tmp_path)
    (gap,) = [each for each in world.delivered if each.action == "journal-gap"]
    assert gap.document["xproxy"]["journal"]["stream"] == "ops"
    assert gap.document["xproxy"]["journal"]["missing"] == ["stanza-relayed success 2"]
    assert len([each for each in world.delivered if each.action == "stanza-relayed"]) == 2


# History that is not what was signed


def damaged(world: World, change: Callable[[bytearray], None]) -> None:
    directory = world.state / JOURNAL_DIRECTORY / "sec"
    newest = max(name for name in world.disk.names(directory) if name.endswith(".xj"))
    change(world.disk.files[directory / newest].content)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data.__delitem__(slice(-40, None)), id="cut"),
        pytest.param(lambda data: data.__setitem__(-100, 0), id="changed"),
    ],
)
def test_a_history_that_was_changed_is_left_alone_and_a_new_log_begun(
    tmp_path: Path, change: Callable[[bytearray], None]
) -> None:
    world = World(tmp_path)
    world.live()
    damaged(world, change)
    before = {path: bytes(inode.content) for path, inode in world.disk.files.items() if path.parent.name == "sec"}
    world.delivered.clear()
    world.open()
    world.turn(record(50))
    world.close()
    assert before.items() <= {path: bytes(inode.content) for path, inode in world.disk.files.items()}.items()
    assert [each.action for each in world.delivered][:2] == ["journal-opened", "journal-failed"]
    assert world.delivered[0].document["xproxy"]["journal"]["origin"].endswith("/sec/g2")
    assert world.delivered[1].document["event"]["reason"] == "history-lost"
    log = dict(log_of(world.disk, world.state / JOURNAL_DIRECTORY / "sec.g2"))
    opening = SegmentOpen.from_bytes(log[0])
    assert opening.predecessor is not None
    assert opening.predecessor.splitlines()[0].endswith("/sec")


def test_a_key_that_is_lost_begins_a_new_log(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.live()
    del world.disk.files[world.state / JOURNAL_DIRECTORY / "sec" / "signing.key"]
    world.delivered.clear()
    world.open()
    world.close()
    assert world.delivered[1].document["event"]["reason"] == "key-lost"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(30))
def test_the_power_may_go_at_any_call_in_many_ways(tmp_path: Path, seed: int) -> None:
    """In a first or a later life, and again while the last time is being recovered from."""
    rng = Random(seed)
    for nth in range(1, calls_of_a_life(fresh(tmp_path, 0)) + 1):
        world = World(fresh(tmp_path, nth))
        if rng.random() < 0.5:
            world.live()
        for at in (nth, rng.randint(1, 40)):
            fault = Fault(crash=True, taken=rng.random())
            call_at = world.disk.calls + at
            world.disk.plan = lambda call, what, path, at=call_at, fault=fault: fault if call == at else None  # type: ignore[misc]
            try:
                world.live()
            except Crash:
                world.die()
            world.disk.power_cut(rng)
        world.live()
        world.check(tmp_path / str(nth))
