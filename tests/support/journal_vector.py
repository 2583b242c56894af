"""Makes the vector of the present format version: ``python -m tests.support.journal_vector tests/vectors/journal/v1``.

A released version's vector is never made anew: that it still opens is the point.
"""

import sys
from pathlib import Path

import orjson

from tests.support.journals import make_small
from xproxy.cli.log import _describe_keys, report_to_json
from xproxy.journal import stream
from xproxy.journal.policy import Policy
from xproxy.journal.query import Query, merge, read_matching
from xproxy.journal.reader import StreamReader
from xproxy.journal.verify import load_anchors, verify_journal


def main(directory: Path) -> None:
    """Write everything into ``directory``, which must not be there yet."""
    directory.mkdir(parents=True)
    stream.ALLOCATE_BYTES = 2_048  # type: ignore[misc]  # of a crashed segment all is kept
    journal = directory / "journal"
    make_small(journal)
    for key in journal.rglob("signing.key*"):
        key.unlink()
    described = _describe_keys(directory)
    keys = "".join(f"log {each['keys'][-1]['vkey']}\n" for each in described)
    (directory / "policy").write_text(f"{keys}quorum none\n")
    (directory / "anchor").write_text("\n".join(each["note"] for each in described))
    report = verify_journal(
        journal, anchors=load_anchors(directory / "anchor"), policy=Policy.load(directory / "policy")
    )
    (directory / "report.json").write_bytes(orjson.dumps(report_to_json(report), option=orjson.OPT_INDENT_2) + b"\n")
    with StreamReader(journal / "sec") as sec, StreamReader(journal / "ops") as ops:
        streams = [
            read_matching(reader, name, Query(), 0, reader.refresh()) for name, reader in (("sec", sec), ("ops", ops))
        ]
        (directory / "records.jsonl").write_bytes(b"".join(entry.payload + b"\n" for entry in merge(*streams)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
