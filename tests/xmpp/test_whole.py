"""Complete elements read by the parser of all sessions, and that nothing else is taken for them."""

from collections.abc import Sequence

import pytest
from lxml import etree

from tests.support.judge import tree_of
from tests.support.reading import HEADER, new_reader, read, read_ones
from xproxy.xmpp.stream import (
    FirstLevelElement,
    StreamEnd,
    StreamLimit,
    StreamReader,
    Violation,
    ViolationKind,
    pieces,
)
from xproxy.xmpp.whole import Wrapping, read_whole, wrapping_of

STREAMS = "http://etherx.jabber.org/streams"
ROOT = f"{{{STREAMS}}}stream"
MESSAGE = b"<message to='romeo@verona.example' type='chat'><body>Art thou not Romeo?</body></message>"


def wrapping() -> Wrapping:
    made = wrapping_of(ROOT, {None: "jabber:client", "stream": STREAMS}, "stream")
    assert made is not None
    return made


def opened(*, logged_in: bool = True) -> StreamReader:
    reader = new_reader(logged_in=logged_in)
    reader.feed(HEADER)
    return reader


def established() -> StreamReader:
    reader = new_reader(whole=True)
    reader.feed(HEADER)
    return reader


@pytest.mark.parametrize("content", [MESSAGE, MESSAGE * 3, b"<a/>", b"<a b='&lt;'>&#65;</a>", b""])
def test_complete_elements_are_read(content: bytes) -> None:
    root = read_whole(content, wrapping())
    assert root is not None
    assert root.tag == ROOT
    assert len(root) == content.count(b"</message>") + content.count(b"<a")


@pytest.mark.parametrize(
    "content",
    [
        b"<a>",
        b"</a>",
        b"<a></b>",
        b"<a b='>",
        b"<a><b/>",
        b"</stream:stream>",
        b"</stream:stream><stream:stream>",
        b"</stream:stream><!-- -->",
        b"<a/></stream:stream><stream:stream xmlns:stream='http://etherx.jabber.org/streams'><b/>",
        b"<!-- <a/>",
        b"<![CDATA[<a/>",
        b"<?a <b/>",
        b"<!DOCTYPE a>",
        b"<?xml version='1.0'?><a/>",
        b"<a>&nbsp;</a>",
        b"<a>\xff</a>",
        b"<p:a/>",
        b"<a p:b='c'/>",
        b"<p:a/><b xmlns='vcard-temp'/>",  # a warning behind the error
        b"<b xmlns='vcard-temp'/>",  # a warning alone: it is for the stream to note it
        b"<a>]]></a>",
        b"<a" + b"<a" * 300 + b"/>",
    ],
)
def test_what_is_not_plainly_right_is_not_taken(content: bytes) -> None:
    assert read_whole(content, wrapping()) is None


def test_no_wrapping_for_a_header_that_cannot_be_written_again() -> None:
    assert wrapping_of(ROOT, {None: "a'b", "stream": STREAMS}, "stream") is None
    assert wrapping_of(ROOT, {None: "jabber:client"}, "stream") is None  # the prefix is not declared
    assert wrapping_of(ROOT, {"stream": STREAMS, "é": "urn:x"}, "stream") is None
    made = wrapping_of("html", {}, None)
    assert made is not None
    assert made[:2] == (b"<html>", b"</html>")


def test_streams_that_declare_the_same_share_a_wrapping() -> None:
    assert wrapping() is wrapping()


def test_a_declaration_of_the_header_holds_for_what_is_inside() -> None:
    reader = new_reader(whole=True)
    reader.feed(HEADER[:-1] + b" xmlns:db='jabber:server:dialback'>")
    (item,) = reader.feed(b"<db:result>x</db:result>")
    assert reader.fed_whole
    assert isinstance(item, FirstLevelElement)
    assert item.element.tag == "{jabber:server:dialback}result"


def test_octets_and_offsets_are_those_of_the_short_way() -> None:
    chunks = [HEADER, MESSAGE, MESSAGE * 2, b"\n", MESSAGE + b"\n", b" " + MESSAGE, MESSAGE[:20], MESSAGE[20:], MESSAGE]
    assert _said(read(chunks, new_reader(whole=True)).items) == _said(read(chunks).items)


def _said(items: Sequence[object]) -> list[object]:
    return [(item.offset, item.octets) if isinstance(item, FirstLevelElement) else item for item in items]


def test_only_complete_elements_behind_an_element_go_this_way() -> None:
    reader = established()
    for data, whole in (
        (MESSAGE, True),
        (MESSAGE[:30], False),
        (MESSAGE[30:], False),
        (MESSAGE, True),
        (b" ", False),
        (b"<a/>text<b/>", False),
        (b"<a><!-- --></a>", False),
        (b"<a><![CDATA[x]]></a>", False),
        (b"<d>" * 150 + b"</d>" * 150, True),
        (b"<dd>" * 190 + b"</dd>" * 190, False),
        (b"<m>" + b"x" * 9_000 + b"</m>", False),
        (MESSAGE, True),
    ):
        reader.feed(data)
        assert reader.fed_whole is whole, data[:40]


@pytest.mark.parametrize(
    "data",
    [
        b"<presence/>",
        MESSAGE,
        b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>",
        b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>",
        b"<a b='>'>&gt;</a>",
    ],
)
def test_one_element_is_taken_whole_and_its_end_is_as_exact_as_in_pieces(data: bytes) -> None:
    reader, other = opened(), opened()
    one = reader.feed_one(data)
    in_pieces = [item for piece in pieces(data) for item in other.feed(piece)]
    assert one is not None
    (found,), (expected,) = one, in_pieces
    assert isinstance(found, FirstLevelElement)
    assert isinstance(expected, FirstLevelElement)
    assert (found.offset, found.octets) == (expected.offset, expected.octets)
    assert tree_of(found.element) == tree_of(expected.element)
    assert reader.at_boundary
    assert reader.offset == other.offset == len(HEADER) + len(data)
    assert reader.elements == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"<a/><b/>",
        b"<a></a><a></a>",
        b" <a/>",
        b"<a/> ",
        b"<a>",
        b"<a><b/>",
        b"</stream:stream>",
        HEADER,
        b"<stream:stream/>",
        b"<stream:stream>a</stream:stream>",
        b"<?xml version='1.0'?>",
        b"<a/><!-- x --><b/>",
        b"<a><!-- x --></a>",
        b"<a><?p q?></a>",
        b"<a><![CDATA[x]]></a>",
        b"<a/></stream:stream><stream:stream><b/>",
        b"text<a/>",
        b"<x:y/>",
        b"<a b='1' b='2'/>",
        b"<a>\0</a>",
        b"<d>" * 220 + b"</d>" * 220,
        b"<a>" + b"x" * 9_000 + b"</a>",
    ],
)
def test_what_is_not_one_plain_element_is_not_taken(data: bytes) -> None:
    reader = opened()
    assert reader.feed_one(data) is None
    assert reader.offset == len(HEADER)
    assert read([HEADER, data]).story == read_ones([HEADER, data]).story


def test_nothing_is_taken_where_an_element_is_open_or_no_stream_is() -> None:
    reader = new_reader()
    assert reader.feed_one(b"<a/>") is None
    reader.feed(HEADER + b"<a>")
    assert reader.feed_one(b"<b/>") is None
    reader.feed(b"</a></stream:stream>")
    assert reader.feed_one(b"<b/>") is None


def test_names_of_a_stranger_are_counted_where_one_element_is_taken() -> None:
    reader = opened(logged_in=False)
    items = reader.feed_one(b"<u" + b"".join(b" nm%d=''" % i for i in range(90)) + b"/>")
    assert items is not None
    assert any(isinstance(item, StreamLimit) and item.closes for item in items)
    assert reader.broken


def test_a_stream_lets_go_of_its_parser_when_complete_elements_come() -> None:
    reader = established()
    reader.feed(MESSAGE[:30])
    reader.feed(MESSAGE[30:])
    assert reader._content._parser is not None
    for _ in range(4):
        reader.feed(MESSAGE)
    assert reader._content._parser is None
    reader.feed(MESSAGE[:30])
    (item,) = reader.feed(MESSAGE[30:])
    assert isinstance(item, FirstLevelElement)
    assert tree_of(item.element) == tree_of(
        etree.fromstring(MESSAGE.replace(b"<message", b"<message xmlns='jabber:client'"))
    )


def test_a_second_look_finds_the_same_elements() -> None:
    reader = established()
    seen = [tree_of(item.element) for item in reader.feed(MESSAGE * 2) if isinstance(item, FirstLevelElement)]
    assert reader.fed_whole
    assert [tree_of(item.element) for item in reader.read_again(MESSAGE * 2)] == seen


def test_names_are_counted_and_their_limit_holds() -> None:
    reader = new_reader(whole=True, names_max=100)
    reader.feed(HEADER)
    told = [item for n in range(80) for item in reader.feed(b"<whole-a%d><whole-b%d/></whole-a%d>" % (n, n, n))]
    assert not isinstance(told[-1], FirstLevelElement)
    assert reader.broken


@pytest.mark.parametrize("depth", [4, 5, 200])
def test_the_limit_of_depth_is_the_same_in_both_ways(depth: int) -> None:
    for levels in range(depth - 2, depth + 2):
        data = b"<a>" * (levels - 1) + b"<a/>" + b"</a>" * (levels - 1)
        stories = [
            _said(reader.feed(data))
            for reader in (new_reader(whole=whole, depth_max=depth) for whole in (False, True))
            if reader.feed(HEADER)
        ]
        assert stories[0] == stories[1], levels
        assert (levels < depth) == isinstance(stories[0][0], tuple)


def test_a_stream_inside_the_stream_is_refused_as_ever() -> None:
    reader = established()
    items = reader.feed(MESSAGE + b"<stream:stream/>")
    assert [item.kind for item in items if isinstance(item, Violation)] == [ViolationKind.NESTED_ROOT]
    assert reader.broken


@pytest.mark.parametrize("before", [b"", MESSAGE, MESSAGE * 2])
def test_a_closing_tag_needs_no_parser(before: bytes) -> None:
    reader = established()
    if before:
        reader.feed(before)
    assert reader.feed(b"</stream:stream>") == [StreamEnd(len(HEADER) + len(before) + 16)]
    assert reader.at_boundary
    assert [type(item) for item in reader.feed(b"<a/>")] == [Violation]


@pytest.mark.parametrize("closing", [b"</stream:stream >", b"</stream:stream>\n", b"</stream:strea>", b"</stream>"])
def test_another_spelling_of_the_closing_tag_is_the_parsers(closing: bytes) -> None:
    whole, other = established(), opened()
    assert whole.feed(closing) == other.feed(closing)
    assert whole.broken is other.broken


def test_text_before_the_closing_tag_is_noted() -> None:
    reader = established()
    items = [*reader.feed(b"<a/>text"), *reader.feed(b"</stream:stream>")]
    assert [item.kind for item in items if isinstance(item, Violation)] == [ViolationKind.TEXT]
