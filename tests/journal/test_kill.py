"""kill -9 at random moments under load: no record that was reported durable is lost, and the log verifies."""

import subprocess
import sys
from pathlib import Path
from random import Random

import orjson
import pytest

from xproxy.journal.format import JOURNAL_DIRECTORY, Entry, EntryType, SegmentName, SegmentOpen, entries
from xproxy.journal.verify import Verdict, verify_journal

ROOT = Path(__file__).resolve().parents[2]


def kill_once(state: Path, first_number: int, seconds: float, *, early: bool = False) -> dict[int, int]:
    """Let a process write for about ``seconds`` and kill it; return what it reported: sequence -> number.

    ``early``: the seconds count from its start, so that it may not even have begun.
    """
    command = [sys.executable, "-m", "tests.support.journal_load", str(state), str(first_number)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = b"" if early else process.stdout.readline()  # it writes
    assert output or early, "it died by itself"
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    output += process.stdout.read()
    process.stdout.close()
    assert process.wait() == -9
    *lines, _ = output.split(b"\n")  # the last may be cut
    return {int(sequence): int(number) for sequence, number in (line.split() for line in lines)}


def log_of(directory: Path) -> dict[int, bytes]:
    """Return the payloads of the log, as format.py has it and without the journal's own reader."""
    found: dict[int, bytes] = {}
    names = sorted(name for file in directory.glob("*.xj") if (name := SegmentName.from_file(file.name)) is not None)
    for name in names:
        for _, stored in entries((directory / name.segment_file).read_bytes()):
            entry = Entry.from_bytes(stored)
            if entry.type is EntryType.SEGMENT_OPEN:
                first = SegmentOpen.from_bytes(entry.payload).name.first_index
                for index in range(first, max(found, default=-1) + 1):
                    found.pop(index, None)
            found[entry.index] = entry.payload
    return found


def kill_many_times(tmp_path: Path, times: int, verify_every: int) -> int:
    rng = Random(times)
    reported: dict[int, int] = {}
    for time in range(times):
        if time % 5 == 4:  # in the start and the recovery, which come after some 0.5 s of imports
            found = kill_once(tmp_path, time * 10_000_000 + 1, 0.4 + 0.4 * rng.random(), early=True)
        else:
            found = kill_once(tmp_path, time * 10_000_000 + 1, rng.choice((0.0, 0.01, 0.05)) * rng.random())
        assert not found.keys() & reported.keys(), "a number was given twice"
        reported |= found
        if (time + 1) % verify_every == 0:
            report = verify_journal(tmp_path / JOURNAL_DIRECTORY)
            # Nobody has closed it; that is all that may be said.
            assert report.verdict is not Verdict.TAMPERED, [str(finding) for finding in report.findings]
    log = log_of(tmp_path / JOURNAL_DIRECTORY / "sec")
    lost = [index for index, number in reported.items() if index not in log or orjson.loads(log[index])["n"] != number]
    assert not lost, f"{len(lost)} of {len(reported)} durable records are lost"
    return len(reported)


@pytest.mark.slow
def test_a_killed_process_loses_nothing_it_reported(tmp_path: Path) -> None:
    assert kill_many_times(tmp_path, 50, 10) > 1_000


@pytest.mark.long
def test_a_thousand_killed_processes_lose_nothing_they_reported(tmp_path: Path) -> None:
    count = kill_many_times(tmp_path, 1_000, 100)
    print(f"{count} records were reported durable, none is lost")
