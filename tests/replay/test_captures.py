"""The captures of real sessions in tests/vectors/captures: what the analysis says of them; and they tell nothing."""

import json
import re
from pathlib import Path

import pytest

from tests.support.accounts import PASSWORDS
from tests.support.canary import Canary
from xproxy.capture.again import redacted_again
from xproxy.capture.content import redaction
from xproxy.capture.elements import elements_of
from xproxy.capture.pcapng import packets
from xproxy.capture.trace import VERSION, read_trace
from xproxy.capture.transcript import transcript
from xproxy.replay.compare import by_session, compare, read_golden
from xproxy.replay.golden import golden_lines
from xproxy.replay.offline import replay

DIRECTORY = Path(__file__).parent.parent / "vectors" / "captures"
CAPTURES = sorted(DIRECTORY.glob("*.xcap.jsonl"))


def test_there_are_some_and_each_says_where_it_is_from() -> None:
    assert len(CAPTURES) > 40
    listed = re.findall(r"^\| (\d\d-[a-z0-9-]+) \|", (DIRECTORY / "README.md").read_text(), re.MULTILINE)
    assert listed == [file.name.partition(".")[0] for file in CAPTURES]


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda file: file.name.partition(".")[0])
def test_the_analysis_says_the_same(capture: Path) -> None:
    golden = DIRECTORY / capture.name.replace(".xcap.jsonl", ".events.jsonl")
    documents = [record.document for replayed in replay(capture) for record in replayed.records]
    want = by_session(read_golden(golden))["1"]
    failure = compare(want, golden_lines(documents, session=1), file=str(golden), line=1)
    assert failure is None, f"{failure.message}\n{failure.detail}"


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda file: file.name.partition(".")[0])
def test_canary_nothing_made_of_it_tells_a_secret(capture: Path) -> None:
    canary = Canary()
    for user, password in PASSWORDS.items():
        canary.register(f"password of {user}", password)
    canary.register("what a test says", "canary-body")
    said = "".join(span.text for entry in transcript(read_trace(capture)) for row in entry.lines for span in row)
    for octets in (capture.read_bytes(), said.encode(), b"".join(packets(read_trace(capture)))):
        assert canary.hits(octets) == []


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda file: file.name.partition(".")[0])
def test_redacted_again_it_is_the_same_but_for_what_it_says_of_itself(capture: Path) -> None:
    was, _, lines = capture.read_bytes().partition(b"\n")
    now, _, again = b"".join(redacted_again(capture)).partition(b"\n")
    # Version 1 had filler for what nobody looked into, version 2 says how much it was.
    of_1 = re.sub(rb'"plain","raw":"(x+)"', lambda match: b'"opaque","octets":%d' % len(match[1]), lines)
    assert again in (lines, of_1)
    told = {"v": VERSION, "redaction": redaction(bodies=False)}
    assert json.loads(now) == json.loads(was) | told


def test_all_of_their_octets_are_elements_or_say_why_not() -> None:
    stanzas = sum(element.is_stanza for capture in CAPTURES for element in elements_of(read_trace(capture)))
    assert stanzas > 100
