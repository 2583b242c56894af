"""What verification needs and says beside finding tampering (test_tampering.py)."""

import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.journals import START_NS, HastyDisk, Maker, make_small
from tests.support.signing import Key
from xproxy.config.journal import JournalSettings
from xproxy.errors import FileProblem
from xproxy.events.proxy import LimitReached
from xproxy.journal.findings import FINDINGS_MAX, Findings
from xproxy.journal.format import (
    Entry,
    EntryType,
    FormatProblem,
    OpenReason,
    SegmentOpen,
    encode_frame,
    entries,
    last_note,
    parse_notes,
)
from xproxy.journal.lock import WriterLock
from xproxy.journal.note import Checkpoint, parse_note
from xproxy.journal.policy import Policy, PolicyProblem
from xproxy.journal.reader import StreamReader, read_open
from xproxy.journal.stream import StreamLog
from xproxy.journal.verify import (
    Anchor,
    Kind,
    Severity,
    Verdict,
    bytes_to_verify,
    is_being_written,
    load_anchors,
    verify_journal,
)
from xproxy.journal.writer import open_journal
from xproxy.record.recorder import Observer, ProxyRecorder

NOW = datetime(2026, 9, 21, tzinfo=UTC)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "journal")


# --- what is there -----------------------------------------------------------------------------------------------


def test_nothing_at_all_is_incomplete(maker: Maker) -> None:
    report = verify_journal(maker.journal)
    assert report.verdict is Verdict.INCOMPLETE
    assert [finding.kind for finding in report.findings] == [Kind.EMPTY]
    maker.directory().mkdir()
    assert verify_journal(maker.journal).verdict is Verdict.INCOMPLETE


def test_nothing_at_all_where_an_anchor_tells_of_more_is_tampering(maker: Maker) -> None:
    origin = "gw1.example.org/xproxy/5f0c21aa/sec"
    note = Checkpoint(origin, 5, bytes(32)).sign([Key.make(origin)])
    anchor = Anchor(note=note, checkpoint=note.checkpoint, source="the anchor")
    assert verify_journal(maker.journal, anchors=[anchor]).verdict is Verdict.TAMPERED
    maker.directory().mkdir()
    report = verify_journal(maker.journal, anchors=[anchor])
    assert [finding.kind for finding in report.findings if finding.severity is Severity.TAMPERED] == [Kind.ROLLED_BACK]


def test_a_missing_directory_is_a_problem_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(FileProblem):
        verify_journal(tmp_path / "missing")


def test_a_missing_origin_is_found(maker: Maker) -> None:
    maker.open()
    maker.close()
    (maker.journal / "origin").unlink()
    report = verify_journal(maker.journal)
    assert [finding.kind for finding in report.findings] == [Kind.MODIFIED]
    assert report.streams[0].origin == "gw1.example.org/xproxy/5f0c21aa/sec"


def test_the_start_of_a_log_that_never_was(maker: Maker) -> None:
    """Killed before the very first note: nobody has seen anything of it."""
    maker.directory().mkdir()
    (maker.directory() / "00000000000000000000-000001.xj").write_bytes(b"XPJRNL1\n")
    report = verify_journal(maker.journal)
    assert report.verdict is Verdict.INCOMPLETE
    assert [finding.kind for finding in report.findings] == [Kind.TORN]
    maker.open()
    maker.events(1)
    maker.close()
    report = verify_journal(maker.journal)
    assert report.verdict is not Verdict.TAMPERED, report.findings


def test_a_torn_segment_is_named_and_hashed(maker: Maker) -> None:
    maker.open()
    maker.events(2)
    maker.die()
    torn = maker.directory() / "00000000000000000003-000002.xj"
    torn.write_bytes(b"XPJRNL1\n\0\0torn")
    report = verify_journal(maker.journal)
    assert report.verdict is Verdict.INCOMPLETE
    maker.open()
    maker.close()
    report = verify_journal(maker.journal)
    assert report.verdict is Verdict.INTACT
    assert [(finding.kind, finding.segment) for finding in report.findings] == [(Kind.TORN, torn.stem)]
    torn.write_bytes(b"XPJRNL1\n\0\0Torn")
    assert verify_journal(maker.journal).verdict is Verdict.TAMPERED
    torn.unlink()
    assert verify_journal(maker.journal).verdict is Verdict.TAMPERED


def test_a_new_generation_is_a_log_of_its_own(maker: Maker) -> None:
    """History was lost: the log that lost it is left as evidence, and says so for ever."""
    maker.open()
    maker.events(3)
    maker.close()
    (path,) = maker.segments()
    path.write_bytes(path.read_bytes()[:-10])
    log, problem = StreamLog.open_(
        storage=HastyDisk(),
        journal=maker.journal,
        stream="sec",
        base="gw1.example.org/xproxy/5f0c21aa",
        wall_ns=maker.clock,
        monotonic=lambda: 0.0,
    )
    assert problem is not None
    maker.logs["sec"] = log
    log.begin(OpenReason.CREATED)
    log.commit()
    maker.events(2)
    maker.close()
    report = verify_journal(maker.journal)
    assert [stream.name for stream in report.streams] == ["sec", "sec.g2"]
    assert report.streams[1].size == 4
    by_stream = {(finding.stream, finding.severity): finding.kind for finding in report.findings}
    assert by_stream["sec", Severity.TAMPERED] is Kind.TRUNCATED
    assert by_stream["sec.g2", Severity.NOTICE] is Kind.NEW_GENERATION


# --- while it is written -----------------------------------------------------------------------------------------


def test_a_live_journal_is_intact_as_far_as_it_was(maker: Maker) -> None:
    lock = WriterLock.take(maker.journal, now=NOW)
    try:
        log = maker.open()
        maker.events(3)
        log.append(EntryType.EVENT, b"{}")
        log._write(log._live)  # type: ignore[arg-type]  # synced, and no note yet
        assert is_being_written(maker.journal)
        report = verify_journal(maker.journal)
        assert (report.verdict, report.is_live, report.streams[0].size) == (Verdict.INTACT, True, 4)
    finally:
        lock.release()
    maker.die()
    assert not is_being_written(maker.journal)
    assert verify_journal(maker.journal).verdict is Verdict.INCOMPLETE


def test_a_live_journal_that_was_tampered_with_is_not(maker: Maker) -> None:
    lock = WriterLock.take(maker.journal, now=NOW)
    try:
        maker.open()
        maker.events(5)
        path = maker.segments()[-1]
        data = bytearray(path.read_bytes())
        frames = [end for end, _ in entries(bytes(data))]
        data[frames[2] + 30] ^= 1
        path.write_bytes(data)
        assert verify_journal(maker.journal).verdict is Verdict.TAMPERED
    finally:
        lock.release()


@pytest.mark.parametrize("is_live", [True, False])
def test_a_segment_begun_while_it_is_looked_at_comes_behind_what_is_verified(
    maker: Maker, monkeypatch: pytest.MonkeyPatch, is_live: bool
) -> None:
    """Looked at before its first entry was there; its notes are read later, and cover entries by then."""
    lock = WriterLock.take(maker.journal, now=NOW)
    maker.open()
    maker.events(3)
    maker.rotate_segment()
    maker.events(2)
    newest = maker.segments()[-1]
    if not is_live:
        lock.release()
    seen: list[Path] = []

    def read(path: Path) -> tuple[SegmentOpen, Entry]:
        if path == newest:
            seen.append(path)
            if len(seen) == 1 or not is_live:
                raise FormatProblem("it does not begin as a segment does")
        return read_open(path)

    monkeypatch.setattr("xproxy.journal.chain.read_open", read)
    report = verify_journal(maker.journal)
    lock.release()
    assert seen
    assert (report.verdict is Verdict.TAMPERED) is not is_live, report.findings
    assert bool(report.findings) is not is_live


def test_an_orderly_stop_is_told_from_a_newest_segment_that_is_gone(tmp_path: Path) -> None:
    """Each segment is full at once, also the last: the stop is still in the log, and its loss is noticed."""
    recorder = ProxyRecorder(observer=Observer(version="0", hostname="gw1", boot_id="ab" * 16))
    journal = open_journal(
        tmp_path,
        settings=JournalSettings(ballast_bytes=0, segment_bytes_max=1),
        on_failure="stop",
        recorder=recorder,
        deliver=lambda records: None,
        storage=HastyDisk(),
    )
    journal.start()
    journal.put_nowait([recorder.record(LimitReached(limit="x", value=1, closes=False), START_NS)])
    assert journal.close() == 0
    directory = tmp_path / "journal"
    assert verify_journal(directory).findings == ()
    for pattern in ("*.xj", "*.notes"):
        max((directory / "sec").glob(pattern)).unlink()
    report = verify_journal(directory)
    assert [finding.kind for finding in report.findings] == [Kind.UNSEALED]


@pytest.mark.slow
def test_verifying_and_reading_while_a_writer_goes_on_and_rotates(tmp_path: Path) -> None:
    """Segments are sealed, notes thinned and keys exchanged under the eyes of both; whatever they see is intact."""
    recorder = ProxyRecorder(observer=Observer(version="0", hostname="gw1", boot_id="ab" * 16))
    journal = open_journal(
        tmp_path,
        settings=JournalSettings(ballast_bytes=0, segment_bytes_max=100_000),
        on_failure="stop",
        recorder=recorder,
        deliver=lambda records: None,
        storage=HastyDisk(),
    )
    journal.start()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.001):
            number += 1
            records = [
                recorder.record(LimitReached(limit="x", value=number, closes=False), START_NS) for _ in range(20)
            ]
            if not journal.is_full:
                journal.put_nowait(records)
            if number % 20 == 0:
                journal.rotate_keys()

    thread = threading.Thread(target=write)
    thread.start()
    position = 0
    try:
        with StreamReader(tmp_path / "journal" / "sec") as reader:
            segments = 0
            while segments < 10:
                report = verify_journal(tmp_path / "journal")
                segments = report.streams[0].segments
                assert report.verdict is Verdict.INTACT, report.findings
                reader.refresh()
                while batch := reader.read(position):
                    assert [entry.index for entry in batch] == list(range(position, position + len(batch)))
                    position += len(batch)
    finally:
        stop.set()
        thread.join()
        assert journal.close() == 0
    report = verify_journal(tmp_path / "journal")
    assert (report.verdict, report.findings) == (Verdict.INTACT, ())
    assert report.streams[0].size >= position > 0
    assert len(report.streams[0].keys) > 1


def test_progress_tells_of_all_bytes(tmp_path: Path) -> None:
    maker = make_small(tmp_path / "journal")
    told: list[int] = []
    verify_journal(maker.journal, progress=told.append)
    total = bytes_to_verify(maker.journal)
    assert total > 0
    assert 0.9 * total < sum(told) < 1.1 * total


# --- anchors -----------------------------------------------------------------------------------------------------


def heartbeats(maker: Maker) -> bytes:
    """Return the journal's heartbeats as a sink would have kept them."""
    lines = []
    for path in maker.segments():
        for _, stored in entries(path.read_bytes()):
            entry = Entry.from_bytes(stored)
            if entry.type is EntryType.CONTROL:
                lines.append(entry.payload)
    return b"\n".join(lines) + b"\n"


def test_anchors_in_every_form(tmp_path: Path) -> None:
    maker = make_small(tmp_path / "journal")
    notes, _ = parse_notes(maker.notes()[0].read_bytes())
    bare = b"".join(note.to_bytes() for note in notes)
    apart = b"\n".join(note.to_bytes() for note in notes)
    path = tmp_path / "anchors"
    for data, count in (
        (notes[0].to_bytes(), 1),
        (b"\n\n" + notes[0].to_bytes() + b"\n\n", 1),
        (bare, len(notes)),
        (apart, len(notes)),
        (maker.notes()[0].read_bytes(), len(notes)),
        (notes[0].to_bytes().replace(b"\n", b"\r\n"), 1),
        (heartbeats(maker), 4),  # two heartbeats, each with a note of sec and one of ops
    ):
        path.write_bytes(data)
        anchors = load_anchors(path)
        assert len(anchors) == count
        report = verify_journal(maker.journal, anchors=anchors)
        assert report.verdict is Verdict.INTACT, report.findings
        assert report.streams[0].anchored_size == max(
            anchor.checkpoint.size for anchor in anchors if anchor.checkpoint.origin.endswith("/sec")
        )


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"text\n", b'{"event":{"action":"x"}}\n', b"{journal-checkpoint", b"\xff"]
)
def test_what_is_no_anchor_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "anchor"
    path.write_bytes(data)
    with pytest.raises(FileProblem):
        load_anchors(path)


def test_an_anchor_with_a_signature_of_somebody_else(tmp_path: Path) -> None:
    """The tree is right and the signature is not: then it is no anchor, and somebody played with it."""
    maker = make_small(tmp_path / "journal")
    note = parse_notes(maker.notes()[0].read_bytes())[0][0]
    forged = note.checkpoint.sign([Key.make(note.checkpoint.origin)])
    report = verify_journal(
        maker.journal, anchors=[Anchor(note=forged, checkpoint=forged.checkpoint, source="the anchor")]
    )
    assert [finding.kind for finding in report.findings] == [Kind.BAD_SIGNATURE]


# --- the policy file ---------------------------------------------------------------------------------------------

KEY = Key.make("log.example/sec", bytes(32)).verifier
OTHER = Key.make("log.example/ops", b"\1" * 32).verifier


def load(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy"
    path.write_text(text)
    return Policy.load(path)


def test_a_policy(tmp_path: Path) -> None:
    policy = load(tmp_path, f"# ours\n\n \tlog {KEY}  https://log.example/ \nlog\t{OTHER}\nquorum none\n")
    assert policy.keys == (KEY, OTHER)
    assert policy.keys_of("log.example/ops") == (OTHER,)
    assert policy.keys_of("log.example") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "quorum none"),
        (f"log {KEY}\n", "quorum none"),
        ("quorum none\nquorum none\n", "quorum none"),
        (f"log {KEY}\nlog {KEY}\nquorum none\n", ":2: this key is there already"),
        ("log nonsense\nquorum none\n", ":1: "),
        (f"log {KEY} url more\nquorum none\n", ":1: not a line"),
        ("witness W key\nquorum W\n", ":1: witnesses are not supported yet"),
        ("quorum W\n", ":1: witnesses are not supported yet"),
        ("hello\nquorum none\n", ":1: not a line"),
        (f"log {KEY}\r\nquorum none\r\n", ":1: a control character"),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PolicyProblem, match=message):
        load(tmp_path, text)


# --- what comes out is what went in ------------------------------------------------------------------------------


@given(
    st.builds(
        Entry,
        type=st.just(EntryType.EVENT),
        index=st.integers(0, 2**64 - 1),
        time_ns=st.integers(0, 2**64 - 1),
        payload=st.binary(max_size=200),
        is_sealed=st.booleans(),
        tie=st.none() | st.integers(0, 2**64 - 1),
    )
)
def test_an_entry_is_what_was_encoded(entry: Entry) -> None:
    assert Entry.from_bytes(entry.to_bytes()) == entry
    ((_, stored),) = entries(encode_frame(entry.to_bytes()), 0)
    assert Entry.from_bytes(stored) == entry


def test_notes_are_what_was_written(tmp_path: Path) -> None:
    maker = make_small(tmp_path / "journal")
    for path in maker.notes():
        data = path.read_bytes()
        notes, end = parse_notes(data)
        assert end == len(data)
        assert b"".join(note.to_bytes() + b"\n" for note in notes) == data
        assert last_note(data) == notes[-1]
        assert all(parse_note(note.to_bytes()) == note for note in notes)


def test_no_number_of_notices_hides_what_is_worse() -> None:
    findings = Findings("sec")
    for _ in range(FINDINGS_MAX + 5):
        findings.add(Kind.TORN, Severity.NOTICE, "a notice")
    findings.tampered(Kind.MODIFIED, "the one that counts")
    assert len(findings.all) == FINDINGS_MAX + 1
    assert findings.all[-1].severity is Severity.TAMPERED


def test_findings_as_json(tmp_path: Path) -> None:
    maker = make_small(tmp_path / "journal")
    shutil.rmtree(maker.directory("ops"))
    (finding, *_) = verify_journal(maker.journal).findings
    json = orjson.loads(orjson.dumps(finding.to_json()))
    assert json["kind"] == "deleted"
    assert json["severity"] == "tampered"
    assert json["stream"] == "journal"
