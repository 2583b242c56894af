import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lxml import etree

from xproxy.capture.mask import characters, decoded, hide_text, hide_verbatim, spelt

# Pieces of text as XML may spell them.
PIECES = st.sampled_from(
    [
        "a", "Romeo", " ", "\n", "\r\n", "\r", "\t", "é", "語", "😀", "&amp;", "&lt;", "&gt;", "&quot;",
        "&apos;", "&#65;",
        "&#9;", "&#x41;", "&#xe9;", "&#x8a9e;", "&#128512;", "&#x1F600;", "&#0065;", "]", "]]", ">", "=", "'", '"',
    ]
)  # fmt: skip


def parsed(raw: bytes) -> str:
    return etree.fromstring(b"<a>" + raw + b"</a>").text or ""


@given(st.lists(PIECES).map("".join))
@example("]]&gt;x>")
def test_filler_is_as_long_written_and_read(text: str) -> None:
    raw = text.replace("]]>", "]]&gt;").encode()
    hidden = hide_text(raw)
    assert len(hidden) == len(raw)
    assert len(parsed(hidden).encode()) == len(parsed(raw).encode())
    assert hide_text(hidden) == hidden


@given(st.lists(PIECES).map("".join))
def test_what_is_read_is_what_a_parser_reads(text: str) -> None:
    raw = text.replace("]]>", "]]&gt;").encode()
    found = characters(raw)
    assert "".join(char for char, _, _ in found) == decoded(raw) == parsed(raw)
    assert [end for _, _, end in found[:-1]] == [start for _, start, _ in found[1:]]


@given(st.binary(max_size=60))
def test_octets_of_any_kind_keep_their_number(raw: bytes) -> None:
    for hide in (hide_text, hide_verbatim):
        hidden = hide(raw)
        assert len(hidden) == len(raw)
        assert [at for at, octet in enumerate(raw) if octet == 0x3E] == [
            at for at, octet in enumerate(hidden) if octet == 0x3E
        ]


@given(st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=3, max_size=80))
def test_no_word_survives(text: str) -> None:
    for raw in (text.encode(), html.escape(text).encode(), "".join(f"&#{ord(char)};" for char in text).encode()):
        said = decoded(hide_text(raw))
        assert not re.search(r"[^Xx\u00e9\u0905\U0001f600\U00010000&<>\]\"';#1,]", said), said


@pytest.mark.parametrize(
    ("raw", "hidden"),
    [
        (b"", b""),
        (b" \n ", b" \n "),
        (b"Friend of mine", b"xxxxxxxxxxxxxx"),
        ("Grüße".encode(), b"xxxxxxx"),
        (b"a\r\nb\nc", b"x\r\nx\nx"),
        (b"a &amp; b &lt; c", b"xx&#88;xxx&lt;xx"),
        (b"&#x4a;&#0074;&#10;&nope;", b"&#x58;&#0088;&#10;&xxxx;"),
        (b"a>b]]>c", b"x>x]]>x"),
        (b"p\xe4ssword", b"x\xffxxxxxx"),
        (b"a & b", b"xx&,x"),
    ],
)
def test_what_becomes_of_a_text(raw: bytes, hidden: bytes) -> None:
    assert hide_text(raw) == hidden


@pytest.mark.parametrize(
    ("char", "like", "spelt_"),
    [("Q", b"a", b"Q"), ("z", b"&#x0041;", b"&#x007a;"), ("z", b"&#065;", b"&#122;"), ("z", b"&#65;", b"&#33;"),
     ("z", b"&amp;", b"&#33;")],
)  # fmt: skip
def test_another_character_in_as_many_octets(char: str, like: bytes, spelt_: bytes) -> None:
    assert spelt(char, like) == spelt_
