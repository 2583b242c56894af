"""Whoever changes a journal without its key is found out; what only an anchor can tell is said so here."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import journals
from tests.support.journals import Maker, frames_of, make_small, rewritten, write_frames
from xproxy.journal.format import (
    MAGIC,
    CloseReason,
    Entry,
    EntryType,
    OpenReason,
    SegmentName,
    encode_frame,
    encode_notes,
    parse_notes,
)
from xproxy.journal.note import Note
from xproxy.journal.policy import Policy
from xproxy.journal.verify import Anchor, Kind, Report, Severity, Verdict, verify_journal

STEP_FAST = 31  # of the octets of a journal, each 31st is enough on every commit


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    """A journal with rotations, a crash and two streams. Not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xproxy.journal.stream.ALLOCATE_BYTES", 2_048)
        yield make_small(tmp_path_factory.mktemp("original") / "journal")


@pytest.fixture(autouse=True)
def small_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xproxy.journal.stream.ALLOCATE_BYTES", 2_048)


@pytest.fixture
def journal(original: Maker, tmp_path: Path) -> Path:
    return journals.copy(original, tmp_path / "journal")


def anchor(note: Note) -> Anchor:
    return Anchor(note=note, checkpoint=note.checkpoint, source="the anchor")


def kinds(report: Report, severity: Severity = Severity.TAMPERED) -> set[Kind]:
    return {finding.kind for finding in report.findings if finding.severity is severity}


def files_of(journal: Path) -> list[Path]:
    return sorted([*journal.glob("*/*.xj"), *journal.glob("*/*.notes"), journal / "origin"])


def test_unchanged_it_is_intact(original: Maker) -> None:
    report = verify_journal(original.journal)
    assert report.findings == ()
    assert report.verdict is Verdict.INTACT
    sec, ops = report.streams
    assert (sec.name, sec.size, sec.signed_size, sec.segments) == ("sec", 21, 21, 3)
    assert (ops.name, ops.size, ops.signed_size, ops.segments) == ("ops", 8, 8, 2)
    assert [key.from_size for key in sec.keys] == [0, 7]


# --- every octet -------------------------------------------------------------------------------------------------


def flips(path: Path, positions: Iterator[tuple[int, int]], journal: Path) -> list[tuple[str, int, int]]:
    """Return what of ``positions`` (octet, bit) in ``path`` was flipped and not noticed for what it is.

    A newest note without its empty line is one that was cut, by a crash perhaps: that is incomplete.
    """
    data, missed = path.read_bytes(), []
    is_newest = path == max(path.parent.glob("*.notes"), default=None)
    noticed = {Verdict.TAMPERED, Verdict.INCOMPLETE} if is_newest else {Verdict.TAMPERED}
    for octet, bit in positions:
        changed = bytearray(data)
        changed[octet] ^= 1 << bit
        path.write_bytes(changed)
        if verify_journal(journal).verdict not in noticed:
            missed.append((path.name, octet, bit))
    path.write_bytes(data)
    return missed


@pytest.mark.slow
def test_a_flipped_bit_is_found(journal: Path) -> None:
    rng = random.Random(7)
    for path in files_of(journal):
        octets = range(rng.randrange(STEP_FAST), path.stat().st_size, STEP_FAST)
        assert flips(path, ((octet, rng.randrange(8)) for octet in octets), journal) == []


@pytest.mark.long
def test_every_flipped_bit_is_found(journal: Path) -> None:
    for path in files_of(journal):
        size = path.stat().st_size
        assert flips(path, ((octet, bit) for octet in range(size) for bit in range(8)), journal) == []


def cuts(path: Path, lengths: range, journal: Path) -> list[tuple[str, int]]:
    """Return to which lengths ``path`` was cut, and the journal called intact."""
    data, missed = path.read_bytes(), []
    for length in lengths:
        path.write_bytes(data[:length])
        if verify_journal(journal).verdict is Verdict.INTACT:
            missed.append((path.name, length))
    path.write_bytes(data)
    return missed


@pytest.mark.slow
def test_a_cut_is_found(journal: Path) -> None:
    for path in files_of(journal):
        size = path.stat().st_size
        assert cuts(path, range(0, size, STEP_FAST), journal) == []
        assert cuts(path, range(size - 1, size), journal) == []


@pytest.mark.long
def test_a_cut_at_every_octet_is_found(journal: Path) -> None:
    for path in files_of(journal):
        assert cuts(path, range(path.stat().st_size), journal) == []


@pytest.mark.parametrize("more", [b"\0", b"\n", b"x" * 100])
def test_what_is_appended_is_found(journal: Path, more: bytes) -> None:
    for path in files_of(journal):
        data = path.read_bytes()
        path.write_bytes(data + more)
        assert verify_journal(journal).verdict is not Verdict.INTACT, path
        path.write_bytes(data)


@pytest.mark.slow
@given(data=st.data())
def test_whatever_is_put_in_place_of_what_is_not_intact(original: Maker, data: st.DataObject) -> None:
    """Verification says intact exactly when the bytes are those that were written, and never fails otherwise."""
    path = data.draw(st.sampled_from(files_of(original.journal)))
    octets = path.read_bytes()
    start = data.draw(st.integers(0, len(octets)))
    end = data.draw(st.integers(start, min(len(octets), start + data.draw(st.sampled_from([0, 1, 40, 100_000])))))
    other = octets[:start] + data.draw(st.binary(max_size=60)) + octets[end:]
    path.write_bytes(other)
    try:
        report = verify_journal(original.journal)
    finally:
        path.write_bytes(octets)
    assert (report.verdict is Verdict.INTACT) == (other == octets)


@pytest.mark.slow
@given(data=st.data())
def test_no_entry_that_is_none_breaks_verification(original: Maker, data: st.DataObject) -> None:
    """Entries with right checksums whose type, flags and payload are anything at all."""
    path = data.draw(st.sampled_from(each_segment(original.journal)))
    octets, frames = path.read_bytes(), frames_of(path)
    number = data.draw(st.integers(0, len(frames) - 1))
    entry = frames[number][4:-4]
    value = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3))
    found = json.loads(entry[18:]) if entry[1] == 0 else {}
    for name in data.draw(st.lists(st.sampled_from(sorted(found) or ["x"]), max_size=3)):
        found[name] = data.draw(value)
    payload = data.draw(st.sampled_from([json.dumps(found).encode(), b"", b"{}"]))
    type_, flags = data.draw(st.sampled_from([1, 2, 3, 4, 9, entry[0]])), data.draw(st.sampled_from([0, 1, 2, 3, 4]))
    frames[number] = encode_frame(bytes([type_, flags]) + entry[2:18] + payload)
    write_frames(path, frames)
    other = path.read_bytes()
    try:
        report = verify_journal(original.journal)
    finally:
        path.write_bytes(octets)
    assert report.verdict is not Verdict.INTACT or octets.startswith(other)


# --- frames ------------------------------------------------------------------------------------------------------


def each_segment(journal: Path) -> list[Path]:
    return sorted(journal.glob("*/*.xj"))


def test_a_dropped_frame_is_found_and_named(journal: Path) -> None:
    for path in each_segment(journal):
        data, frames = path.read_bytes(), frames_of(path)
        first = int(path.name[:20])
        for number in range(len(frames)):
            write_frames(path, frames[:number] + frames[number + 1 :])
            report = verify_journal(journal)
            assert report.verdict is Verdict.TAMPERED
            if number:  # without its open entry a segment is none
                named = [finding for finding in report.findings if finding.index == first + number]
                assert named, (path, number, report.findings)
        path.write_bytes(data)


def test_a_frame_that_is_there_twice_is_found(journal: Path) -> None:
    for path in each_segment(journal):
        data, frames = path.read_bytes(), frames_of(path)
        for number in range(len(frames)):
            write_frames(path, frames[: number + 1] + frames[number:])
            assert verify_journal(journal).verdict is Verdict.TAMPERED, (path, number)
        path.write_bytes(data)


@pytest.mark.slow
def test_swapped_frames_are_found(journal: Path) -> None:
    for path in each_segment(journal):
        data, frames = path.read_bytes(), frames_of(path)
        for one in range(len(frames)):
            for other in range(one + 1, len(frames)):
                swapped = list(frames)
                swapped[one], swapped[other] = frames[other], frames[one]
                write_frames(path, swapped)
                assert verify_journal(journal).verdict is Verdict.TAMPERED, (path, one, other)
        path.write_bytes(data)


def test_what_the_kinds_are_called(journal: Path) -> None:
    path = each_segment(journal)[-2]
    frames = frames_of(path)
    for changed, kind in (
        ([*frames[:2], *frames[3:]], Kind.DELETED),
        ([*frames[:3], *frames[2:]], Kind.DUPLICATED),
        ([*frames[:2], frames[3], frames[2], *frames[4:]], Kind.REORDERED),
        (frames[:-1], Kind.TRUNCATED),
    ):
        write_frames(path, changed)
        assert kind in kinds(verify_journal(journal))


def test_one_who_repairs_the_checksums_is_found(journal: Path) -> None:
    """Each entry in turn says something else, with a right CRC: the tree tells."""
    for path in each_segment(journal):
        data, frames = path.read_bytes(), frames_of(path)
        for number, frame in enumerate(frames):
            entry = Entry.from_bytes(frame[4:-4])
            other = rewritten(frame, lambda entry: attrs.evolve(entry, time_ns=entry.time_ns + 1))
            path.write_bytes(data.replace(frame, other))
            report = verify_journal(journal)
            assert report.verdict is Verdict.TAMPERED, (path, number)
            assert any(
                finding.segment == path.stem and finding.index is not None and finding.index <= entry.index
                for finding in report.findings
            )
        path.write_bytes(data)


def test_one_who_renumbers_what_is_left_is_found(journal: Path) -> None:
    path = each_segment(journal)[-1]
    frames = frames_of(path)
    left = [rewritten(frame, lambda entry: attrs.evolve(entry, index=entry.index - 1)) for frame in frames[3:]]
    write_frames(path, [*frames[:2], *left])
    assert verify_journal(journal).verdict is Verdict.TAMPERED


def test_one_who_also_forges_the_notes_is_found(journal: Path) -> None:
    path = sorted((journal / "sec").glob("*.notes"))[-1]
    notes, _ = parse_notes(path.read_bytes())
    ends = notes[-1].checkpoint.size
    forged = Note(notes[-1].text.replace(f"\n{ends}\n", f"\n{ends - 1}\n"), notes[-1].signatures)
    path.write_bytes(encode_notes([*notes[:-1], forged]))
    assert Kind.BAD_SIGNATURE in kinds(verify_journal(journal))


# --- segments ----------------------------------------------------------------------------------------------------


def test_a_missing_segment_is_found(original: Maker, journal: Path) -> None:
    """Of the newest only its other file tells; without both, see the rollbacks below."""
    for path in each_segment(journal):
        data = path.read_bytes()
        path.unlink()
        report = verify_journal(journal)
        assert report.verdict is Verdict.TAMPERED, path
        assert Kind.DELETED in kinds(report)
        assert path.stem in {finding.segment for finding in report.findings}
        path.write_bytes(data)


def test_missing_notes_are_found(journal: Path) -> None:
    for path in sorted(journal.glob("*/*.notes")):
        data = path.read_bytes()
        path.unlink()
        assert verify_journal(journal).verdict is not Verdict.INTACT, path
        path.write_bytes(data)


def test_a_segment_that_is_there_twice_is_found(journal: Path) -> None:
    for path in each_segment(journal):
        name = SegmentName.from_file(path.name)
        assert name is not None
        for first, serial in ((name.first_index, name.serial + 10), (name.first_index + 100, name.serial + 10),
                              (name.first_index + 1, name.serial), (99, 99)):  # fmt: skip
            twin = path.with_name(SegmentName(first, serial).segment_file)
            shutil.copy(path, twin)
            assert verify_journal(journal).verdict is not Verdict.INTACT, twin
            twin.unlink()


def test_a_segment_that_the_chain_steps_over_is_found(tmp_path: Path) -> None:
    """A serial was used up by a start that came to nothing; somebody puts a segment of his own there."""
    maker = Maker(tmp_path / "journal")
    maker.open()
    maker.events(2)
    maker.rotate_segment()
    maker.events(1)
    maker.logs["sec"]._serial = 7
    maker.rotate_segment()
    maker.close()
    assert verify_journal(maker.journal).verdict is Verdict.INTACT
    other = Maker(tmp_path / "other")
    other.open()
    other.logs["sec"]._serial = 3
    other.events(3)
    other.rotate_segment()
    other.close()
    for path in [other.segments()[-1], other.notes()[-1]]:
        shutil.copy(path, maker.directory())
    assert kinds(verify_journal(maker.journal)) == {Kind.FOREIGN_FILE}


def test_notes_in_another_order_are_found(journal: Path) -> None:
    for path in sorted(journal.glob("*/*.notes")):
        data = path.read_bytes()
        notes = parse_notes(data)[0]
        for number in range(len(notes) - 1):
            swapped = list(notes)
            swapped[number : number + 2] = reversed(swapped[number : number + 2])
            path.write_bytes(encode_notes(swapped))
            assert Kind.REORDERED in kinds(verify_journal(journal)), (path, number)
        path.write_bytes(data)


def test_notes_that_are_there_twice_are_found(journal: Path) -> None:
    for path in sorted(journal.glob("*/*.notes")):
        data = path.read_bytes()
        notes = parse_notes(data)[0]
        for number in range(len(notes)):
            path.write_bytes(encode_notes([*notes[: number + 1], *notes[number:]]))
            assert Kind.DUPLICATED in kinds(verify_journal(journal)), (path, number)
        path.write_bytes(data)


def test_a_note_between_two_others_may_be_thinned_out_and_no_other(journal: Path) -> None:
    """The one change that is not noticed, and need not be: the next note vouches for all that this one did."""
    for path in sorted(journal.glob("*/*.notes")):
        data = path.read_bytes()
        notes = parse_notes(data)[0]
        path.write_bytes(encode_notes(notes[:-1]))
        assert verify_journal(journal).verdict is not Verdict.INTACT, path
        for number in range(len(notes) - 1):
            path.write_bytes(encode_notes([*notes[:number], *notes[number + 1 :]]))
            ends_rotation = len(notes[number].signatures) > 1
            expected = Verdict.TAMPERED if ends_rotation else Verdict.INTACT
            assert verify_journal(journal).verdict is expected, (path, number)
        path.write_bytes(data)


def test_swapped_segments_are_found(journal: Path) -> None:
    for suffix in ("xj", "notes"):
        paths = sorted((journal / "sec").glob(f"*.{suffix}"))
        for one, other in ((0, 1), (1, 2), (0, 2)):
            first, second = paths[one].read_bytes(), paths[other].read_bytes()
            paths[one].write_bytes(second)
            paths[other].write_bytes(first)
            assert verify_journal(journal).verdict is Verdict.TAMPERED, (suffix, one, other)
            paths[one].write_bytes(first)
            paths[other].write_bytes(second)


def test_swapped_streams_are_found(journal: Path) -> None:
    (journal / "sec").rename(journal / "x")
    (journal / "ops").rename(journal / "sec")
    (journal / "x").rename(journal / "ops")
    assert verify_journal(journal).verdict is Verdict.TAMPERED


def test_a_file_that_is_none_of_ours_is_found(journal: Path) -> None:
    (journal / "sec" / "0-1.xj").write_bytes(b"")
    assert Kind.FOREIGN_FILE in kinds(verify_journal(journal))


# --- streams vouch for each other --------------------------------------------------------------------------------


def test_the_stream_ops_cannot_vanish(journal: Path) -> None:
    shutil.rmtree(journal / "ops")
    assert Kind.DELETED in kinds(verify_journal(journal))


def test_the_stream_sec_cannot_vanish(journal: Path) -> None:
    shutil.rmtree(journal / "sec")
    assert Kind.DELETED in kinds(verify_journal(journal))


@pytest.mark.parametrize("stream", ["sec", "ops"])
def test_one_stream_alone_cannot_be_rolled_back(tmp_path: Path, stream: str) -> None:
    maker = Maker(tmp_path / "journal")
    for round_ in range(2):
        maker.open()
        maker.open("ops")
        maker.events(2, "ops")
        maker.heartbeat()
        maker.events(3)
        maker.events(1, "ops")
        maker.close()
        if round_ == 0:
            journals.copy(maker, tmp_path / "older")
    assert verify_journal(maker.journal).verdict is Verdict.INTACT
    shutil.rmtree(maker.directory(stream))
    shutil.copytree(tmp_path / "older" / stream, maker.directory(stream))
    assert Kind.TRUNCATED in kinds(verify_journal(maker.journal))


def test_ties_that_go_back_are_found(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "journal")
    maker.open()
    maker.events(5)
    ops = maker.open("ops")
    for tie in (2, 4, 3):
        ops.append(EntryType.EVENT, b"{}", tie=tie)
    ops.commit()
    maker.close()
    report = verify_journal(maker.journal)
    assert kinds(report) == {Kind.REORDERED}
    assert [finding.index for finding in report.findings] == [3]


def test_a_heartbeat_that_knew_the_future_is_found(tmp_path: Path) -> None:
    """An entry of ops says it was made after one of sec, which already vouches for it."""
    maker = Maker(tmp_path / "journal")
    maker.open()
    ops = maker.open("ops")
    ops.append(EntryType.EVENT, b"{}", tie=3)
    ops.commit()
    maker.heartbeat()  # entry 1
    maker.events(5)
    maker.close()
    report = verify_journal(maker.journal)
    assert kinds(report) == {Kind.REORDERED}


# --- what needs an anchor ----------------------------------------------------------------------------------------


def make_two_runs(directory: Path) -> tuple[Maker, Path, list[Note]]:
    """Return a journal, a copy of it as it was after its first run, and the notes handed outside."""
    maker = Maker(directory / "journal")
    notes = []
    older = directory / "older"
    for round_ in range(2):
        maker.open()
        maker.events(3)
        notes.append(maker.heartbeat())
        maker.close()
        if round_ == 0:
            journals.copy(maker, older)
    return maker, older, notes


def test_an_older_copy_is_whole_and_only_an_anchor_tells(tmp_path: Path) -> None:
    maker, older, (early, late) = make_two_runs(tmp_path)
    assert verify_journal(older).verdict is Verdict.INTACT
    assert verify_journal(older, anchors=[anchor(early)]).verdict is Verdict.INTACT
    report = verify_journal(older, anchors=[anchor(early), anchor(late)])
    assert kinds(report) == {Kind.ROLLED_BACK}
    report = verify_journal(maker.journal, anchors=[anchor(early), anchor(late)])
    assert report.verdict is Verdict.INTACT
    assert report.streams[0].anchored_size == late.checkpoint.size
    assert report.streams[0].trusted_by == "anchor"


def test_cut_back_with_its_notes_it_looks_like_a_crash_and_an_anchor_tells(tmp_path: Path) -> None:
    maker, _, (_, late) = make_two_runs(tmp_path)
    segment, notes = maker.segments()[-1], maker.notes()[-1]
    write_frames(segment, frames_of(segment)[:2])
    kept = parse_notes(notes.read_bytes())[0][:1]
    notes.write_bytes(encode_notes(kept))
    report = verify_journal(maker.journal)
    assert report.verdict is Verdict.INCOMPLETE
    assert kinds(report, Severity.INCOMPLETE) >= {Kind.UNSEALED}
    assert kinds(verify_journal(maker.journal, anchors=[anchor(late)])) == {Kind.ROLLED_BACK}


def test_written_anew_with_another_key_is_found_with_policy_or_anchor(tmp_path: Path) -> None:
    maker, _, (_, late) = make_two_runs(tmp_path)
    key = verify_journal(maker.journal).streams[0].keys[0].key
    shutil.rmtree(maker.journal)
    forged = Maker(tmp_path / "journal")
    forged.open()
    forged.events(20)
    forged.close()
    report = verify_journal(forged.journal)
    assert report.verdict is Verdict.INTACT  # nothing inside tells, but it names the key it believed
    assert report.streams[0].trusted_by is None
    assert report.streams[0].keys[0].key != key
    assert kinds(verify_journal(forged.journal, policy=Policy((key,)))) == {Kind.UNTRUSTED_KEY}
    assert kinds(verify_journal(forged.journal, anchors=[anchor(late)])) == {Kind.FORKED}


def test_a_policy_that_names_any_key_the_log_has_had_is_met(original: Maker) -> None:
    sec, ops = verify_journal(original.journal).streams
    for key in sec.keys:
        report = verify_journal(original.journal, policy=Policy((key.key, ops.keys[0].key)))
        assert report.verdict is Verdict.INTACT
        assert [stream.trusted_by for stream in report.streams] == ["policy", "policy"]


def test_a_policy_need_not_know_ops_if_sec_vouches_for_it(original: Maker, tmp_path: Path) -> None:
    sec, ops = verify_journal(original.journal).streams
    report = verify_journal(original.journal, policy=Policy((sec.keys[0].key,)))
    assert report.verdict is Verdict.INTACT
    assert [stream.trusted_by for stream in report.streams] == ["policy", "sec"]
    report = verify_journal(original.journal, policy=Policy((ops.keys[0].key,)))
    assert kinds(report) == {Kind.UNTRUSTED_KEY}

    young = Maker(tmp_path / "journal")
    young.open()
    young.open("ops")
    young.close()
    report = verify_journal(young.journal, policy=Policy((verify_journal(young.journal).streams[0].keys[0].key,)))
    assert (report.verdict, kinds(report, Severity.INCOMPLETE)) == (Verdict.INCOMPLETE, {Kind.UNTRUSTED_KEY})


def test_an_anchor_of_another_log_is_not_met(original: Maker, tmp_path: Path) -> None:
    other = Maker(tmp_path / "journal")
    (other.journal / "origin").write_text("gw2.example.org/xproxy/1\n")
    log, _ = other.open(), other.events(2)
    assert log.note is not None
    foreign = renamed(log.note)
    assert kinds(verify_journal(original.journal, anchors=[foreign])) == {Kind.FORKED}


def renamed(note: Note) -> Anchor:
    text = note.text.replace("gw1", "gw2")
    return anchor(Note(text, note.signatures))


# --- the rotation of keys ----------------------------------------------------------------------------------------


def test_a_key_nobody_vouched_for_is_found(tmp_path: Path) -> None:
    """Who has only the new key cannot have brought it into force: the old one must have signed too."""
    maker = Maker(tmp_path / "journal")
    maker.open()
    maker.events(2)
    maker.rotate_key()
    maker.events(2)
    maker.close()
    assert verify_journal(maker.journal).verdict is Verdict.INTACT
    (path,) = maker.notes()
    notes = parse_notes(path.read_bytes())[0]
    stripped = [Note(note.text, note.signatures[-1:]) for note in notes]
    assert stripped != notes
    path.write_bytes(encode_notes(stripped))
    assert kinds(verify_journal(maker.journal)) == {Kind.BAD_SIGNATURE}


def test_a_segment_with_a_key_out_of_nowhere_is_found(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "journal")
    log = maker.open()
    maker.events(2)
    log.seal(CloseReason.SIZE)
    log.keys.current = log.keys.prepare()
    log.begin(OpenReason.ROTATED)
    log.commit()
    maker.events(2)
    maker.close()
    report = verify_journal(maker.journal)
    assert kinds(report) == {Kind.UNTRUSTED_KEY}
    assert [finding.index for finding in report.findings] == [4]


def test_an_old_key_is_worth_nothing_for_what_came_later(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "journal")
    log = maker.open()
    maker.events(2)
    old = log.keys.current
    maker.rotate_key()
    maker.events(3)
    maker.close()
    (path,) = maker.notes()
    notes = parse_notes(path.read_bytes())[0]
    path.write_bytes(encode_notes([*notes[:-1], notes[-1].checkpoint.sign([old])]))
    assert kinds(verify_journal(maker.journal)) == {Kind.BAD_SIGNATURE}


# --- what a crash left -------------------------------------------------------------------------------------------


def test_a_log_that_was_not_closed_is_incomplete(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "journal")
    maker.open()
    maker.events(2)
    maker.die()
    report = verify_journal(maker.journal)
    assert report.verdict is Verdict.INCOMPLETE
    assert kinds(report, Severity.INCOMPLETE) == {Kind.UNSEALED}


def test_a_crash_between_the_close_and_the_cut(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "journal")
    maker.open()
    maker.events(2)
    maker.close()
    (path,) = maker.segments()
    data = path.read_bytes()
    path.write_bytes(data + bytes(500))
    report = verify_journal(maker.journal)
    assert (report.verdict, kinds(report, Severity.INCOMPLETE)) == (Verdict.INCOMPLETE, {Kind.UNSEALED})
    path.write_bytes(data + bytes(500) + b"x")
    assert verify_journal(maker.journal).verdict is Verdict.TAMPERED
    path.write_bytes(data + bytes(500))
    maker.open()
    maker.close()
    assert verify_journal(maker.journal).findings == ()
    path.write_bytes(data)
    assert verify_journal(maker.journal).verdict is Verdict.TAMPERED


def append_to_crashed(maker: Maker, data: bytes) -> None:
    """Write ``data`` behind the last frame of the newest segment, into the room made ahead."""
    path = maker.segments()[-1]
    end = len(MAGIC) + sum(map(len, frames_of(path)))
    with path.open("r+b") as file:
        file.seek(end)
        file.write(data)


def test_torn_and_unsigned_tails_are_named(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "journal")
    log = maker.open()
    maker.events(2)
    size = log.size
    maker.die()
    entry = Entry(type=EntryType.EVENT, index=size, time_ns=maker.clock(), payload=journals.payload(size))
    whole = encode_frame(entry.to_bytes())
    append_to_crashed(maker, whole + b"\0\0\1\0torn")
    report = verify_journal(maker.journal)
    assert report.verdict is Verdict.INCOMPLETE
    assert kinds(report, Severity.INCOMPLETE) == {Kind.UNSEALED, Kind.UNSIGNED, Kind.TORN}
    (torn,) = (finding for finding in report.findings if finding.kind is Kind.TORN)
    assert torn.index == size + 1

    maker.open()
    maker.events(1)
    maker.close()
    report = verify_journal(maker.journal)
    assert report.verdict is Verdict.INTACT
    (unsigned,) = report.findings
    assert (unsigned.kind, unsigned.index, unsigned.end_index) == (Kind.UNSIGNED_AT_CRASH, size, size + 1)


def test_a_silence_is_incomplete_unless_the_proxy_was_down(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "journal")
    maker.open()
    maker.events(2)
    maker.close()
    maker.clock.now_ns += 3_600 * journals.SECOND_NS
    maker.open()
    maker.events(2)
    assert verify_journal(maker.journal).verdict is Verdict.INCOMPLETE  # not closed
    maker.clock.now_ns -= 3_600 * journals.SECOND_NS  # a clock that goes back is nobody's fault
    maker.events(1)
    maker.close()
    assert verify_journal(maker.journal).findings == ()
    maker.open()
    maker.events(1)
    maker.clock.now_ns += 200 * journals.SECOND_NS
    maker.events(1)
    maker.close()
    report = verify_journal(maker.journal)
    (silence,) = report.findings
    assert (silence.kind, silence.severity) == (Kind.SILENCE, Severity.INCOMPLETE)


def test_a_segment_closed_for_its_size_has_a_successor(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "journal")
    log = maker.open()
    maker.events(2)
    log.seal(CloseReason.SIZE)
    maker.logs.clear()
    report = verify_journal(maker.journal)
    assert kinds(report, Severity.INCOMPLETE) == {Kind.UNSEALED}


def test_damage_in_one_segment_does_not_hide_that_in_another(journal: Path) -> None:
    first, _, third = sorted((journal / "sec").glob("*.xj"))
    for path in (first, third):
        data = bytearray(path.read_bytes())
        data[-100] ^= 1
        path.write_bytes(data)
    segments = {finding.segment for finding in verify_journal(journal).findings if finding.kind is Kind.MODIFIED}
    assert {first.stem, third.stem} <= segments
