"""The texts of findings: whatever a peer said, one printable line that ends."""

import string
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from xproxy.doctor.findings import LISTED_MAX, TEXT_BYTES_MAX, Finding, Fix, Severity, listed, quoted

ANY = st.text(alphabet=st.characters(exclude_categories=()), max_size=3_000)


@given(ANY)
def test_texts_are_printable_and_end(text: str) -> None:
    finding = Finding(
        check="x", severity=Severity.NOTE, finding=text, seen=text, consequence=text, fixes=(Fix("Prosody", text),)
    )
    for each in (finding.finding, finding.seen, finding.consequence, finding.fixes[0].setting):
        # Unassigned and private characters stay: no terminal is moved by them.
        assert {unicodedata.category(character) for character in each}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
        assert len(each.encode()) <= TEXT_BYTES_MAX


@given(ANY)
def test_a_quotation_cannot_end_itself(text: str) -> None:
    said = quoted(text)
    assert said.startswith('"')
    assert said.endswith('"')
    assert '"' not in said[1:-1]
    assert len(said) <= 123


def test_lists_are_cut() -> None:
    names = [letter * 500 for letter in string.ascii_letters]
    said = listed(names)
    assert said.count(",") == LISTED_MAX - 1
    assert said.endswith(f" and {len(names) - LISTED_MAX} more")
    assert listed(()) == ""


def test_severities_are_ordered() -> None:
    assert [each.word for each in sorted(Severity)] == ["ok", "note", "warning", "problem"]
