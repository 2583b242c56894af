"""Journals of every format version that was ever released still open, and prove what they proved then.

``tests/vectors/journal/README.md`` says what they are and how they were made.
"""

import json
from pathlib import Path

import pytest

from xproxy.cli.log import report_to_json
from xproxy.journal.policy import Policy
from xproxy.journal.query import Query, merge, read_matching
from xproxy.journal.reader import StreamReader
from xproxy.journal.verify import load_anchors, verify_journal

VECTORS = Path(__file__).parents[1] / "vectors" / "journal"
VERSIONS = sorted(path for path in VECTORS.iterdir() if path.is_dir())


def test_there_is_one_of_every_version() -> None:
    assert [path.name for path in VERSIONS] == ["v1"]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_it_verifies_as_it_did(version: Path) -> None:
    report = verify_journal(
        version / "journal", anchors=load_anchors(version / "anchor"), policy=Policy.load(version / "policy")
    )
    assert report_to_json(report) == json.loads((version / "report.json").read_text())
    assert report.verdict.value == "intact"


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_it_reads_as_it_did(version: Path) -> None:
    with StreamReader(version / "journal" / "sec") as sec, StreamReader(version / "journal" / "ops") as ops:
        streams = [
            read_matching(reader, name, Query(), 0, reader.refresh()) for name, reader in (("sec", sec), ("ops", ops))
        ]
        found = b"".join(entry.payload + b"\n" for entry in merge(*streams))
    assert found == (version / "records.jsonl").read_bytes()


def test_no_private_key_is_kept() -> None:
    assert not [path for path in VECTORS.rglob("*") if path.is_file() and b"PRIVATE" in path.read_bytes()]
