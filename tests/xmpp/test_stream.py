"""The stream reader: what it returns, what it guards against, and that the cut of the octets never matters."""

import random
import sys
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tests.support.chunks import chunkings, with_trailing
from tests.support.judge import judge
from tests.support.reading import HEADER, Reading, new_reader, read
from tests.support.strategies import FRAGMENTS, cut, cuts, good_streams, odd_streams, stanzas
from xproxy.xmpp.names import renew_dictionary
from xproxy.xmpp.recovery import ElementSkip, Refused, is_accepted
from xproxy.xmpp.stanza import element_text
from xproxy.xmpp.stream import (
    FirstLevelElement,
    Item,
    Severity,
    StreamEnd,
    StreamHeader,
    StreamLimit,
    StreamReader,
    Violation,
    ViolationKind,
    pieces,
)

STREAMS = "http://etherx.jabber.org/streams"
DEEP = b"<message type='headline'>" + b"<d>" * 300 + b"</d>" * 300 + b"</message>"
SEED = 20260701


def tags(reading: Reading) -> list[str]:
    return [node[0].rpartition("}")[2] for node in reading.elements]


def every_cut(data: bytes) -> Iterable[list[bytes]]:
    return chunkings(data, random.Random(SEED))


def opened(*, logged_in: bool = True, **limits: int) -> StreamReader:
    reader = new_reader(logged_in=logged_in, **limits)
    items = reader.feed(HEADER)
    assert [type(item) for item in items] == [StreamHeader]
    return reader


def kinds(items: Iterable[Item]) -> list[ViolationKind]:
    return [item.kind for item in items if isinstance(item, Violation)]


# --- the ordinary ---


def test_a_header_is_read_with_its_names_and_attributes() -> None:
    data = b"<?xml version='1.0'?>\n" + HEADER.replace(b"version", b"xml:lang='de' version")
    for chunks in every_cut(data):
        assert read(chunks).items == [
            StreamHeader(
                name=f"{{{STREAMS}}}stream",
                attributes={
                    "to": "im.example",
                    "version": "1.0",
                    "{http://www.w3.org/XML/1998/namespace}lang": "de",
                },
                namespaces={None: "jabber:client", "stream": STREAMS},
                xml_declaration=True,
                offset=len(data),
            )
        ]


def test_elements_ends_and_offsets_fed_by_pieces_are_exact() -> None:
    stanzas = [b"<message to='a>b'><body>x</body></message>", b"<r xmlns='urn:xmpp:sm:3'/>", b"<presence></presence>"]
    data = HEADER + b" ".join(stanzas) + b"\n</stream:stream>"
    reader = new_reader()
    items = [item for piece in pieces(data) for item in reader.feed(piece)]
    found = [item for item in items if isinstance(item, FirstLevelElement)]
    ends = [data.index(stanza) + len(stanza) for stanza in stanzas]
    assert [(item.offset, item.octets) for item in found] == list(zip(ends, map(len, stanzas), strict=True))
    assert items[-1] == StreamEnd(len(data))
    assert reader.elements == 3
    assert reader.offset == len(data)


def test_elements_seen_do_not_depend_on_the_cut() -> None:
    data = HEADER + b"<a b='&lt;'>x<c/>y</a> <d/>\r\n<e><![CDATA[<f>]]></e></stream:stream>\n"
    want = read([data]).story
    assert [node[0] for node in read([data]).elements] == ["{jabber:client}" + name for name in "ade"]
    for chunks in every_cut(data):
        assert read(chunks).story == want
    for chunks in with_trailing(data, b"\r\n \t", random.Random(SEED)):
        assert read(chunks).story == want


def test_all_elements_of_one_feed_can_be_read_after_it_and_are_emptied_by_the_next() -> None:
    reader = opened()
    items = reader.feed(b"".join(b"<m><b>%d</b></m>" % i for i in range(50)) + b"<m><b>open")
    elements = [item.element for item in items if isinstance(item, FirstLevelElement)]
    assert [element_text(element) for element in elements] == [str(i) for i in range(50)]
    reader.feed(b"</b></m>")
    parent = elements[-1].getparent()
    assert parent is not None
    assert len(parent) == 2  # the one before the open one, and the one that has just ended
    assert len(elements[-1]) == 0


def test_pieces_lose_nothing() -> None:
    for data in (b"", b"a", b">", b"a>b>>c", b"<a/>"):
        cut_up = list(pieces(data))
        assert b"".join(cut_up) == data
        assert all(piece.count(b">") <= 1 and b">" not in piece[:-1] for piece in cut_up)


def test_boundaries_are_known_exactly() -> None:
    reader = new_reader()
    assert reader.at_boundary
    for data, at_boundary in (
        (b"<?xml version='1.0'?>", False),
        (HEADER[:20], False),
        (HEADER[20:], True),
        (b" \n", True),
        (b"<a/>", True),
        (b"<a", False),
        (b" b='>'", False),
        (b" c='&lt;/a>", False),
        (b"'/>", True),
        (b"<a><b/>", False),
        (b"</a>\n", True),
        (b"<a/><!-- </a>", False),
        (b" -->", True),
        (b"<a/></stream:stream>", True),
    ):
        reader.feed(data)
        assert reader.at_boundary is at_boundary, data


def test_a_restart_begins_a_document_and_the_offset_goes_on() -> None:
    reader = opened()
    reader.feed(b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
    reader.restart()
    assert reader.elements == 0
    (header,) = reader.feed(b"<?xml version='1.0'?>" + HEADER)
    assert isinstance(header, StreamHeader)
    assert header.offset == reader.offset == 2 * len(HEADER) + 51 + 21


def test_a_broken_reader_is_mended_by_a_restart() -> None:
    reader = opened()
    reader.feed(b"</x>")
    assert reader.broken
    assert reader.feed(HEADER + b"<a/>") == []
    reader.restart()
    assert not reader.broken
    assert [type(item) for item in reader.feed(HEADER)] == [StreamHeader]


@pytest.mark.parametrize(
    ("piece", "opens"),
    [
        (HEADER, True),
        (b" \n" + HEADER, True),
        (b"<?xml version='1.0'?>", True),
        (b"<?xml-stylesheet?>", False),
        (b"<stream:stream to='a>", True),
        (b"<s:stream xmlns:s='http://etherx.jabber.org/streams'>", True),
        (b'<stream xmlns="http://etherx.jabber.org/streams">', True),
        (b"<stream:stream xmlns:stream='urn:other'>", False),
        (b"<stream>", False),
        (b"<x xmlns='http://etherx.jabber.org/streams'>", False),
        (b"<stream:features>", False),
        (b"<iq a='<stream:stream'>", False),
        (b"</stream:stream>", False),
        (b"text", False),
        (b"", False),
    ],
)
def test_a_new_header_is_told_from_an_element(piece: bytes, opens: bool) -> None:
    assert opened().opens_stream(piece) is opens


def test_nothing_opens_a_stream_before_the_first() -> None:
    assert not new_reader().opens_stream(HEADER)


def test_text_behind_a_comment_is_part_of_the_element() -> None:
    for chunks in every_cut(HEADER + b"<auth>AG<!-- -->p1<?x?>AH<b>B</b>A=</auth>"):
        reader = new_reader()
        texts = [
            (element_text(item.element), item.element.text)
            for chunk in chunks
            for item in reader.feed(chunk)
            if isinstance(item, FirstLevelElement)
        ]
        assert texts == [("AGp1AHBA=", "AG")]


# --- what stands before the root ---


@pytest.mark.parametrize(
    ("prolog", "kind"),
    [
        (b"<?xml version='1.1'?>", ViolationKind.XML_VERSION),
        (b"<?xml version='1.0' encoding='UTF-7'?>", ViolationKind.ENCODING),
        (b"<?xml version='1.0' encoding='iso-8859-1'?>", ViolationKind.ENCODING),
        (b"<?xml version='1.0' standalone='no'?>", ViolationKind.STANDALONE),
        (b"<?xml?>", ViolationKind.XML_DECLARATION),
        (b"<?xml version='1.0' a='b'?>", ViolationKind.XML_DECLARATION),
        (b"<?xml version='1.0'?>\n<?xml version='1.0'?>", ViolationKind.XML_DECLARATION),
        (b"\xff\xfe<\x00", ViolationKind.ENCODING),
        (b"\xfe\xff\x00<", ViolationKind.ENCODING),
        (b"<\x00s\x00", ViolationKind.ENCODING),
        (b"\x00<", ViolationKind.ENCODING),
        (b"\x01\x00<", ViolationKind.NOT_WELL_FORMED),
        (b"<!DOCTYPE a>", ViolationKind.DTD),
        (b"<!-- a --><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>", ViolationKind.DTD),
        (b"GET / HTTP/1.1\r\n\r\n", ViolationKind.NOT_WELL_FORMED),
        (b"\x16\x03\x01", ViolationKind.NOT_WELL_FORMED),
    ],
)
def test_a_wrong_prolog_ends_inspection_before_the_parser_sees_it(prolog: bytes, kind: ViolationKind) -> None:
    for chunks in every_cut(prolog + HEADER + b"<a/>"):
        assert read(chunks).items == [Violation(kind=kind, severity=Severity.STREAM, offset=0)]


@pytest.mark.parametrize(
    ("prolog", "noted"),
    [
        (b"\xef\xbb\xbf", [ViolationKind.BYTE_ORDER_MARK]),
        (b"\n<?xml version='1.0'?>", [ViolationKind.SPACE_BEFORE_DECLARATION]),
        (b" \n", []),
        (b"<!-- a --> <!-- b -->", [ViolationKind.COMMENT]),
        (b"<?xml-stylesheet a?>", [ViolationKind.PROCESSING_INSTRUCTION]),
        (b'<?xml version = "1.0"\n encoding="Utf-8" standalone=\'yes\' ?>', []),
    ],
)
def test_a_tolerable_prolog_is_noted(prolog: bytes, noted: list[ViolationKind]) -> None:
    for chunks in every_cut(prolog + HEADER + b"<a/>"):
        reading = read(chunks)
        assert kinds(reading.items) == noted
        assert tags(reading) == ["a"]


def test_a_prolog_has_a_limit() -> None:
    for chunks in every_cut(b"<!--" + b"x" * 300 + b"-->" + HEADER):
        (limit,) = read(chunks).items
        assert isinstance(limit, StreamLimit)
        assert (limit.limit, limit.value, limit.closes) == ("stream.prolog_bytes_max", 256, True)
    assert not read([b" " * 100_000 + HEADER]).broken  # white space is only counted


def test_another_root_is_noted_and_read() -> None:
    reading = read([b"<html><body/></html>"])
    assert kinds(reading.items) == [ViolationKind.NOT_A_STREAM]
    assert tags(reading) == ["body"]


# --- one element costs only itself ---


def test_a_deep_headline_neither_blinds_nor_kills() -> None:
    data = HEADER + b"<before/>" + DEEP + b"<after/>" + DEEP * 2 + b" <later/>"
    for chunks in every_cut(data):
        reading = read(chunks)
        assert tags(reading) == ["before", "after", "later"]
        assert not reading.broken
        lost = [item for item in reading.items if isinstance(item, Violation)]
        first = len(HEADER) + len(b"<before/>") + len(DEEP)
        assert [item.octets for item in lost] == [len(DEEP)] * 3
        assert lost[0] == Violation(
            kind=ViolationKind.TOO_DEEP, severity=Severity.ELEMENT, offset=first, octets=len(DEEP)
        )


def test_a_deep_element_that_does_not_end_has_the_limit_of_any_other() -> None:
    reader = opened(stanza_bytes_max=50_000, stanza_bytes_warn=40_000)
    items = [item for _ in range(30) for item in reader.feed(b"<d>" * 1_000)]
    assert [item.limit for item in items if isinstance(item, StreamLimit)] == [
        "stream.stanza_bytes_warn",
        "stream.stanza_bytes_max",
    ]
    assert reader.broken


def test_an_element_being_skipped_at_the_end_of_input_is_told() -> None:
    reader = opened()
    assert reader.feed(b"<d>" * 300) == []
    assert not reader.at_boundary
    (lost,) = reader.finish()
    assert lost == Violation(kind=ViolationKind.TOO_DEEP, severity=Severity.ELEMENT, offset=reader.offset, octets=900)
    assert reader.finish() == []


def test_what_expat_refuses_too_ends_inspection() -> None:
    data = HEADER + b"<a/>" + b"<d>" * 300 + b"&nope;" + b"</d>" * 300 + b"<b/>"
    for chunks in every_cut(data):
        reading = read(chunks)
        assert tags(reading) == ["a"]
        assert reading.violations == [("too-deep", Severity.STREAM)]


def test_the_end_of_a_skipped_element_is_found_in_every_shape() -> None:
    for inside, last in (
        (b"<a/>", b""),
        (b"<a b='>/>'/>", b""),
        (b"<a>/></a>", b"<x/>"),
        (b"<a></a\n>", b"</stream:stream>"),
        (b"<a><!-- </a> --><![CDATA[</a>]]></a>", b"<"),
        (b"<a><a/></a>", b"   "),
        (b"<a b='/'></a>", b"</stream:stream>"),
    ):
        for chunks in every_cut(inside):
            skip = ElementSkip(HEADER)
            for chunk in chunks[:-1]:
                assert skip.feed(chunk) is None
            assert skip.feed(chunks[-1] + last) == last
    for wrong in (b"<p:a/>", b"<a>&b;<c/>", b"<a><![A[<b>", b"<a><![CDATA<b>", b"<a><b\xf0>", b"<a><!b><c>"):
        for chunks in every_cut(wrong):
            skip = ElementSkip(HEADER)
            for chunk in chunks[:-1]:
                assert skip.feed(chunk) is None
            with pytest.raises(Refused):
                skip.feed(chunks[-1])


MARKUP = [(b"<!--", b"-->"), (b"<?a ", b"?>"), (b"<![CDATA[", b"]]>"), (b"<b c='", b"'/>"), (b"<b c='", b"'></b>")]


@pytest.mark.parametrize(("begin", "end"), MARKUP)
def test_skipping_does_not_read_a_long_token_again_and_again(begin: bytes, end: bytes) -> None:
    skip = ElementSkip(HEADER)
    counted = skip._parser = Counting(skip._parser)
    assert skip.feed(b"<a>" + begin) is None
    for _ in range(1_000):
        assert skip.feed(b">-]" * 200) is None  # a token of 600 KB in small cuts: 300 MB if read anew each time
    assert skip._tokens._seen >= 600_000 - 10  # nor does the search begin anew
    assert skip.feed(end) is None
    assert skip.feed(b"</a>" + b"<b/>" * 40_000) == b"<b/>" * 40_000
    assert counted.octets == 3 + len(begin) + 600_000 + len(end) + 4 + 160_000


class Counting:
    """A parser, and how many octets it was given."""

    def __init__(self, parser: Any) -> None:
        self.parser = parser
        self.octets = 0

    def Parse(self, data: bytes, final: bool) -> int:  # noqa: N802 - as the parser has it
        self.octets += len(data)
        return int(self.parser.Parse(data, final))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.parser, name)


@pytest.mark.parametrize(("begin", "end"), MARKUP)
@pytest.mark.parametrize("size", [1_048_000, 1_049_000, 2_200_000, 3_500_000, 5_000_000])
def test_the_end_is_exact_behind_a_token_that_takes_several_calls(begin: bytes, end: bytes, size: int) -> None:
    """expat gets a mebibyte at a time, and one that defers would wait for twice as much."""
    for before, behind in ((b"<a>", b"</a>"), (b"<a><b/>text", b"</a>"), (b"", b"")):
        if not before and end != b"'/>":
            continue
        skip = ElementSkip(HEADER)
        token = begin + b"." * (size - len(begin))
        assert skip.feed(before + token) is None
        if behind:
            assert skip.feed(end) is None
            assert skip.feed(behind[:-1]) is None
            assert skip.feed(b">" + b"<c/>") == b"<c/>"
        else:
            assert skip.feed(end + b"<c/>") == b"<c/>"


@pytest.mark.parametrize("size", [1_049_000, 3_500_000])
def test_what_stands_behind_a_long_token_is_judged_as_well(size: int) -> None:
    long = b"<!--" + b"." * size + b"-->"
    assert is_accepted(HEADER, b"<a>" + long + b"<b/></a>")
    assert not is_accepted(HEADER, b"<a>" + long + b"<p:b/></a>")
    assert is_accepted(HEADER, b"")
    assert is_accepted(HEADER, b"</stream:stream>")
    assert not is_accepted(HEADER, b"<a/></stream:stream></a>")
    skip = ElementSkip(HEADER)
    with pytest.raises(Refused):
        skip.feed(b"<a>" + long + b"<p:b/>")


@pytest.mark.slow
@given(fragments=st.lists(st.one_of(st.sampled_from(FRAGMENTS), stanzas()), max_size=8), places=cuts())
def test_a_skipped_element_ends_where_expat_says_in_every_cut(fragments: list[bytes], places: list[int]) -> None:
    data = b"<a>" + b"".join(fragments) + b"</a><b/>"
    end = end_by_expat(data)
    for chunks in ([data], cut(data, places), [data[i : i + 1] for i in range(len(data))]):
        skip = ElementSkip(HEADER)
        given = 0
        told: int | None = None
        try:
            for chunk in chunks:
                given += len(chunk)
                if (rest := skip.feed(chunk)) is not None:
                    assert len(rest) < len(chunk), "told late"
                    assert data[given - len(rest) : given] == rest
                    told = given - len(rest)
                    break
        except Refused:
            pass
        assert told == end


def end_by_expat(data: bytes) -> int | None:
    """Where the first element ends: with so much and the closing tag a document is complete, for the first time."""
    for at in (at + 1 for at, octet in enumerate(data) if octet == ord(">")):
        elements = judge(HEADER + data[:at] + b"</stream:stream>")
        if elements.ended and not elements.refused and elements.elements:
            return at
    return None


# --- notes, once a stream ---


def test_comments_between_stanzas_cost_one_note_and_no_memory() -> None:
    reader = opened()
    items: list[Item] = []
    chunk = b"<!-- x -->" * 1_000
    for _ in range(200):
        items += reader.feed(chunk)
    items += reader.feed(b"<a/>")
    assert [type(item) for item in items] == [Violation, FirstLevelElement]
    assert isinstance(items[1], FirstLevelElement)
    parent = items[1].element.getparent()
    assert parent is not None
    assert len(parent) <= 2
    assert items[1].octets == 4


def test_text_and_instructions_are_noted_once_and_again_after_a_restart() -> None:
    reader = opened()
    data = b"text<a/>more<?b c?><!-- d --><a><!-- e --></a>&#x41;<b/>"
    want = [ViolationKind.TEXT, ViolationKind.PROCESSING_INSTRUCTION, ViolationKind.COMMENT]
    assert kinds(reader.feed(data)) == want
    assert kinds(reader.feed(data)) == []
    reader.restart()
    assert kinds(reader.feed(HEADER + data)) == want


def test_white_space_between_elements_is_no_violation() -> None:
    for chunks in every_cut(HEADER + b" <a/>\r\n\t&#32;&#xA;<b/><![CDATA[ ]]><c/>"):
        reading = read(chunks)
        assert tags(reading) == ["a", "b", "c"]
        assert reading.violations == []


def test_an_odd_namespace_name_is_noted_and_read() -> None:
    for chunks in every_cut(HEADER + b"<a/><b xmlns='%'/><c xmlns='u}v'/>"):
        reading = read(chunks)
        assert [node[0] for node in reading.elements] == ["{jabber:client}a", "{%}b", "{u}v}c"]
        assert reading.violations == [("namespace-name", Severity.NOTE)]


# --- namespaces: errors that libxml2 only logs ---


@pytest.mark.parametrize(
    "wrong", [b"<p:a/>", b"<a p:b='c'/>", b"<a xmlns:p=''/>", b"<a:b:c/>", b"<a xmlns:xmlns='b'/>"]
)
def test_namespace_errors_end_inspection(wrong: bytes) -> None:
    for chunks in every_cut(HEADER + b"<a/>" + wrong + b"<b/>"):
        reading = read(chunks)
        assert tags(reading) == ["a"]
        assert reading.violations == [("namespace", Severity.STREAM)]


@pytest.mark.parametrize("noise", [b"<v xmlns='vcard-temp'/>", b"<v xmlns='%'/>"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_full_error_log_hides_nothing(noise: bytes, inside: bool) -> None:
    many = b"<a>" + noise * 250 + b"<p:b/></a>" if inside else noise * 250 + b"<p:b/>"
    good = many.replace(b"<p:b/>", b"")
    expected = 1 if inside else 250
    for chunks in every_cut(HEADER + good):
        reading = read(chunks)
        assert not reading.broken
        assert len(reading.elements) == expected
    for chunks in every_cut(HEADER + many + b"<c/>"):
        reading = read(chunks)
        assert reading.broken
        assert len(reading.elements) == expected - inside


# --- the end, and after ---


def test_white_space_after_the_end_is_nothing() -> None:
    for chunks in every_cut(HEADER + b"</stream:stream>\r\n "):
        assert [type(item) for item in read(chunks).items] == [StreamHeader, StreamEnd]


@pytest.mark.parametrize(
    "tail",
    [
        b" <a/>",
        b"</stream:stream>\n</stream:stream>",
        b"</stream:features>",
        b"<iq type='get'><streams/></iq>",
        b"x & <",
    ],
)
def test_what_stands_behind_the_end_is_noted_once_and_is_no_element(tail: bytes) -> None:
    for chunks in every_cut(HEADER + b"<a/></stream:stream>" + tail):
        reading = read(chunks)
        assert reading.violations == [("after-end", Severity.NOTE)]
        assert tags(reading) == ["a"]
        assert reading.ended


@pytest.mark.parametrize("tail", [HEADER, b"<?xml version='1.0'?>", b"<a/><s:stream xmlns:s='x'>", b"<stream>"])
def test_a_stream_that_begins_behind_the_end_is_not_passed_over(tail: bytes) -> None:
    for chunks in every_cut(HEADER + b"</stream:stream>" + tail):
        assert read(chunks).violations == [("after-end", Severity.NOTE), ("after-end", Severity.STREAM)]


def test_a_new_header_after_the_end_is_the_sessions_to_allow() -> None:
    reader = opened()
    reader.feed(b"</stream:stream>")
    assert reader.at_boundary
    assert reader.opens_stream(HEADER)
    assert kinds(reader.feed(HEADER)) == [ViolationKind.AFTER_END, ViolationKind.AFTER_END]


def test_a_nested_root_ends_inspection() -> None:
    for chunks in every_cut(HEADER + b"<a/>" + HEADER + b"<b/>"):
        reading = read(chunks)
        assert tags(reading) == ["a"]
        assert reading.violations == [("nested-root", Severity.STREAM)]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (b"<a>&nope;</a>", ViolationKind.UNDEFINED_ENTITY),
        (b"<?xml version='1.0'?>", ViolationKind.XML_DECLARATION),
        (b"<a>\xff</a>", ViolationKind.BAD_CHARACTER),
        (b"<a>\x00</a>", ViolationKind.BAD_CHARACTER),
        (b"<a>&#0;</a>", ViolationKind.BAD_CHARACTER),
        (b"<!DOCTYPE a><a/>", ViolationKind.NOT_WELL_FORMED),
        (b"</a>", ViolationKind.NOT_WELL_FORMED),
    ],
)
def test_after_an_error_nothing_is_read_as_a_new_document(wrong: bytes, kind: ViolationKind) -> None:
    offsets = set()
    for chunks in every_cut(HEADER + b"<a/>" + wrong + HEADER + b"<evil/>"):
        reading = read(chunks)
        assert tags(reading) == ["a"]
        assert reading.violations == [(kind.value, Severity.STREAM)]
        offsets.add(reading.items[-1].offset)
    assert len(offsets) == 1  # the very octet, however it was cut


def test_laughs_are_not_expanded() -> None:
    entities = b"".join(b"<!ENTITY l%d '%b'>" % (i + 1, b"&l%d;" % i * 10) for i in range(9))
    data = b"<!DOCTYPE l [<!ENTITY l0 'lol'>" + entities + b"]>" + HEADER + b"<a>&l9;</a>"
    assert kinds(read([data]).items) == [ViolationKind.DTD]


# --- limits ---


def test_white_space_is_kept_inside_an_open_tag() -> None:
    for parts in (
        [b"<a/>", b"<a", b" ", b"b='c'/>"],
        [b"<a/><a b='x>", b"  ", b"y'/>"],
        [b"<a/><a b='&lt;/a>", b" \n ", b"'/>"],
        [b"<a>", b" ", b"</a>"],
        [b"<a>x", b"\n", b"y</a>"],
    ):
        whole = read([HEADER + b"".join(parts)])
        assert whole.elements
        assert read([HEADER, *parts]).story == whole.story


def test_white_space_between_elements_is_not_stored() -> None:
    reader = opened()
    for _ in range(160):
        assert reader.feed(b" " * 65_536) == []
    (item,) = reader.feed(b"  <a/>")
    assert isinstance(item, FirstLevelElement)
    assert item.octets == 4
    parent = item.element.getparent()
    assert parent is not None
    assert parent.text is None


def test_ten_megabytes_of_white_space_in_one_feed() -> None:
    reader = opened()
    assert reader.feed(b" \n" * 5_000_000) == []
    assert reader.at_boundary


def test_a_large_stanza_is_read_and_warned_of_once() -> None:
    stanza = b"<message><body>" + b"x" * 900 * 1024 + b"</body></message>"
    for chunks in (
        [HEADER + stanza + b"<a/>"],
        [HEADER, *(stanza[i : i + 1_400] for i in range(0, len(stanza), 1_400)), b"<a/>"],
    ):
        reading = read(chunks)
        assert tags(reading) == ["message", "a"]
        limits = [item for item in reading.items if isinstance(item, StreamLimit)]
        assert [(item.limit, item.closes) for item in limits] == [("stream.stanza_bytes_warn", False)]


@pytest.mark.parametrize(
    "start", [b"<a>", b"<a>x<!--", b"<a><b c='", b"<a", b"<!--", b"<?a ", b"<a><![CDATA[", b"<a x='>"]
)
@pytest.mark.parametrize("filling", [b"x", b" ", b"> "])
def test_an_element_may_not_grow_for_ever(start: bytes, filling: bytes) -> None:
    reader = opened(stanza_bytes_max=20_000, stanza_bytes_warn=10_000)
    items = reader.feed(start)
    for _ in range(8):
        items += reader.feed(filling * 4_000)
    last = items[-1]
    assert isinstance(last, StreamLimit)
    assert last.limit == "stream.stanza_bytes_max"
    assert reader.broken
    assert reader.feed(b"x") == []


@pytest.mark.parametrize("start", [b"<stream:stream a='", HEADER + b"<a>", HEADER + b"<a b='"])
def test_a_stranger_may_fill_less_memory_than_a_user(start: bytes) -> None:
    """A tree of empty elements takes forty times its octets; a thousand strangers with 1 MiB each took all there is."""
    reader = new_reader(logged_in=False)
    items = reader.feed(start)
    for _ in range(70):
        items += reader.feed(b"x" * 1_000)
    last = items[-1]
    assert isinstance(last, StreamLimit)
    assert (last.limit, last.value) == ("stream.stanza_before_login_bytes_max", 65_536)
    assert reader.broken


def test_the_largest_kerberos_token_comes_through() -> None:
    reader = new_reader(logged_in=False)
    items = reader.feed(HEADER + b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='GSSAPI'>")
    items += reader.feed(b"x" * 64_000)
    items += reader.feed(b"</auth>")
    assert isinstance(items[-1], FirstLevelElement)


def test_text_at_stream_level_may_not_grow_for_ever() -> None:
    reader = opened(stanza_bytes_max=20_000)
    for _ in range(10):
        items = reader.feed(b"x" * 4_000)
        if items:
            break
    assert [item.limit for item in items if isinstance(item, StreamLimit)] == ["stream.stanza_bytes_max"]


def test_a_stranger_may_bring_few_names() -> None:
    before = etree.memory_debugger.dict_size()
    reader = opened(logged_in=False)
    items: list[Item] = []
    for i in range(5_000):
        items += reader.feed(b"<x%da1 y%da1=''/>" % (i, i))
        if reader.broken:
            break
    assert isinstance(items[-1], StreamLimit)
    assert (items[-1].limit, items[-1].value) == ("stream.names_before_login_max", 64)
    assert etree.memory_debugger.dict_size() - before < 64 + 10


def test_a_stranger_may_not_bring_all_names_in_one_feed() -> None:
    """One new name for every three octets."""
    letters = [bytes([a, b]) for a in range(0xC4, 0xC9) for b in range(0x80, 0xC0)]
    names = [x + y for x in letters for y in letters]
    before = etree.memory_debugger.dict_size()
    reader = opened(logged_in=False)
    items = reader.feed(b"".join(b"<%b>" % name for name in names))
    assert any(isinstance(item, StreamLimit) and item.closes for item in items)
    assert etree.memory_debugger.dict_size() - before < 64 + 1_024 // 3


def test_a_stranger_may_not_bring_all_names_in_one_tag() -> None:
    before = etree.memory_debugger.dict_size()
    reader = opened(logged_in=False)
    items = reader.feed(b"<a " + b" ".join(b"q%dq1=''" % i for i in range(60_000)) + b"/>")
    assert any(isinstance(item, StreamLimit) and item.closes for item in items)
    assert etree.memory_debugger.dict_size() - before < 64 + 1_024 // 3


def test_after_login_more_names_are_allowed() -> None:
    reader = opened(names_max=500)
    items: list[Item] = []
    for i in range(600):
        items += reader.feed(b"<z%db1/>" % i)
    limits = [item for item in items if isinstance(item, StreamLimit)]
    assert [(item.limit, item.closes) for item in limits] == [("stream.names_max", True)]
    assert 490 <= sum(isinstance(item, FirstLevelElement) for item in items) <= 501


def names_of_features() -> int:
    """Return how many names a server's features cost."""
    reader = opened(logged_in=False)
    reader.feed(
        b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"
        b"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>"
        b"<authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism><inline><bind xmlns='urn:xmpp:bind:0'>"
        b"<inline><feature var='urn:xmpp:sm:3'/></inline></bind><fast xmlns='urn:xmpp:fast:0'/></inline>"
        b"</authentication><sm xmlns='urn:xmpp:sm:3'/></stream:features>"
    )
    return reader._bounds.names.used


def test_the_vocabulary_of_xmpp_is_not_charged() -> None:
    assert names_of_features() < 8


def test_nor_in_another_thread_nor_after_its_names_were_given_up() -> None:
    used: list[int] = []

    def live() -> None:
        used.append(names_of_features())
        assert renew_dictionary()
        used.append(names_of_features())

    thread = threading.Thread(target=live)
    thread.start()
    thread.join()
    assert len(used) == 2
    assert max(used) < 8


def test_long_text_without_names_is_not_counted_as_names() -> None:
    reader = opened(logged_in=False)
    items = reader.feed(b"<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>" + b"=" * 20_000)
    items += reader.feed(b"\"'" * 10 + b"</response>")
    assert [type(item) for item in items] == [FirstLevelElement]


@pytest.mark.parametrize("inside", [b"<b/>", b"<b/>x", b"<b c=''/>", b"<!---->", b">", b"<b c=\"\" d='' e=''/>"])
def test_a_strangers_element_may_have_few_nodes(inside: bytes) -> None:
    """A tree of the smallest elements takes 40 to 60 times its octets."""
    data = b"<a>" + inside * (60_000 // len(inside)) + b"</a>"
    found = []
    for chunks in every_cut(data):
        reader = opened(logged_in=False)
        items = [item for chunk in chunks for piece in pieces(chunk) for item in reader.feed(piece)]
        (limit,) = (item for item in items if isinstance(item, StreamLimit))
        assert limit.closes
        found.append((limit.limit, limit.value))
        assert limit.offset - len(HEADER) < 40 * 1_024
    assert set(found) == {("stream.stanza_before_login_bytes_max", 65_536)}
    assert any(isinstance(item, FirstLevelElement) for item in opened().feed(data)), "a user's may"


@pytest.mark.parametrize("rest", [b"></m>", b">x</m>", b"/>"])
def test_attributes_of_tags_that_came_in_two_parts_do_not_add_up(rest: bytes) -> None:
    reader = opened(names_max=60)
    for _ in range(100):
        items = reader.feed(b"<m a='1' b='2'") + reader.feed(rest)
        assert [type(item) for item in items] == [FirstLevelElement]


# --- memory ---


def test_a_dictionary_of_names_that_is_full_is_given_up() -> None:
    """What strangers have said is forgotten, the vocabulary is not; who was in the middle of an element goes on."""
    assert renew_dictionary()
    size = etree.memory_debugger.dict_size
    before = size()
    reader = opened(names_max=100_000)
    strangers = b"".join(b"<renewed-%d/>" % number for number in range(20_000))
    reader.feed(strangers)
    items = reader.feed(b"<message to='a'><body>x</body><renewed-1>" + b"<deep>")
    assert size() >= before + 20_000
    assert renew_dictionary()
    reader.renew_parser()
    assert size() < before + 100, "nobody goes on with the old one"
    items += reader.feed(b"</deep>y</renewed-1></message><presence/>")
    elements = [item.element for item in items if isinstance(item, FirstLevelElement)]
    assert [element.tag for element in elements] == ["{jabber:client}message", "{jabber:client}presence"]
    assert not kinds(items)
    warmed = size()
    opened(logged_in=False).feed(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFkbWk=</auth>")
    assert size() <= warmed + 4


def test_where_the_state_of_the_thread_cannot_be_reached_names_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert not renew_dictionary()


@given(good_streams(), st.integers(0, 300))
def test_a_parser_is_renewed_wherever_the_stream_stands(stream: bytes, at: int) -> None:
    whole, renewed = new_reader(), new_reader()
    for reader in (whole, renewed):
        reader.expect_whole()
    said = [(type(item), shown(item)) for part in (stream[:at], stream[at:]) for item in whole.feed(part)]
    again = []
    for part in (stream[:at], stream[at:]):
        again += [(type(item), shown(item)) for item in renewed.feed(part)]
        renewed.renew_parser()
    assert again == said


def shown(item: Item) -> object:
    return (
        etree.tostring(item.element, with_tail=False)
        if isinstance(item, FirstLevelElement)
        else getattr(item, "kind", None)
    )


def test_the_heap_survives_white_space_and_references() -> None:
    """The last text node is remembered by libxml2; taking it away lets a peer write behind it."""
    reader = opened()
    rng = random.Random(SEED)
    parts = [b" " * 500, b"&#32;", b"<a/>", b"<a>x</a>", b"\n" * 3_000, b"<!-- c -->", b"&#32;" * 200, b"<b>", b"</b>"]
    for _ in range(20_000):
        reader.feed(rng.choice(parts))
        if reader.broken:
            reader.restart()
            reader.feed(HEADER)


def test_unaligned_reads_keep_little() -> None:
    reader = opened()
    stanza = b"<message to='a@b'><body>hello</body></message>"
    other = b"<presence/>"
    data = (stanza * 20 + other) * 600
    rng = random.Random(SEED)
    at = count = most = 0
    while at < len(data):
        size = rng.randint(1, 9_000)
        count += len(reader.feed(data[at : at + size]))
        at += size
        most = max(most, reader._content.retained_bytes)
    assert count == 600 * 21
    assert most < 40_000


def test_without_a_likely_end_the_exact_one_is_looked_for() -> None:
    reader = opened()
    unit = b"<a b='c'/>"
    data = (unit * 400 + b"<!-- -->") * 60
    most = count = 0
    for at in range(0, len(data), 4_099):
        count += sum(isinstance(item, FirstLevelElement) for item in reader.feed(data[at : at + 4_099]))
        most = max(most, reader._content.retained_bytes)
    assert count == 400 * 60
    assert most < 80_000


def resident_kib() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4


@pytest.mark.slow
def test_memory_stays_flat() -> None:
    reader = opened()
    stanza = b"<message to='a@b' id='%d'><body>" + b"x" * 200 + b"</body></message>"
    for i in range(5_000):
        reader.feed(stanza % i)
    before = resident_kib()
    for i in range(60_000):
        reader.feed(stanza % i)
    assert resident_kib() - before < 2_000


@pytest.mark.long
def test_memory_stays_flat_over_a_million_stanzas() -> None:
    reader = opened()
    stanza = b"<message to='a@b' id='%d'><body>" + b"x" * 170 + b"</body></message>"
    for i in range(5_000):
        reader.feed(stanza % i)
    before = resident_kib()
    for i in range(1_000_000):
        reader.feed(stanza % i)
    assert resident_kib() - before < 2_000


# --- any octets at all ---


@given(data=st.binary(max_size=300), places=cuts(300), header=st.booleans(), logged_in=st.booleans())
def test_any_octets_yield_items_and_never_an_exception(
    data: bytes, places: list[int], header: bool, logged_in: bool
) -> None:
    reader = new_reader(logged_in=logged_in)
    if header:
        reader.feed(HEADER)
    start = reader.offset
    reading = read(cut(data, places), reader)
    assert not reading.broken or reader.broken
    reader.finish()
    assert reader.offset == start + len(data)


@given(
    data=st.one_of(odd_streams(), good_streams()), places=cuts(), names=st.integers(8, 80), size=st.integers(50, 900)
)
def test_small_limits_never_raise(data: bytes, places: list[int], names: int, size: int) -> None:
    reader = new_reader(
        logged_in=False, names_before_login_max=names, stanza_bytes_max=size, stanza_bytes_warn=size // 2,
        slice_before_login_bytes=64,
    )  # fmt: skip
    read(cut(data, places), reader)
    reader.finish()
    assert reader.offset == len(data)
