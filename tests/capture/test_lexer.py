import random

import pytest

from tests.support.chunks import chunkings
from xproxy.capture.lexer import Kind, Lexer, Unit, UnitKind

HEADER = b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"


def units(data: bytes) -> list[tuple[UnitKind, bytes]]:
    """Return the units but white space, which is handed on as it comes, however it is cut."""
    rng = random.Random(7)
    want: list[tuple[UnitKind, bytes]] | None = None
    for chunks in chunkings(data, rng):
        lexer = Lexer()
        found = [unit for chunk in chunks for unit in lexer.feed(chunk)]
        assert b"".join(unit.octets for unit in found) + lexer.rest().octets == data
        for unit in found:
            check_tokens(unit)
        got = [(unit.kind, unit.octets) for unit in found if unit.octets.strip()]
        assert want is None or got == want
        want = got
    assert want is not None
    return want


def check_tokens(unit: Unit) -> None:
    at = 0
    for token in unit.tokens:
        assert token.start == at
        assert token.end > at
        at = token.end
    assert at == len(unit.octets)


def test_a_stream_is_cut_into_what_it_says() -> None:
    message = b"<message to='a>b'><body>a &gt; <!-- > --><![CDATA[</body>]]>\n</body></message>"
    data = HEADER + b" " + message + b"\n\n<r xmlns='urn:xmpp:sm:3'/><a><b/></a></stream:stream>"
    assert units(data) == [
        (UnitKind.HEADER, HEADER),
        (UnitKind.ELEMENT, message),
        (UnitKind.ELEMENT, b"<r xmlns='urn:xmpp:sm:3'/>"),
        (UnitKind.ELEMENT, b"<a><b/></a>"),
        (UnitKind.CLOSING_TAG, b"</stream:stream>"),
    ]


@pytest.mark.parametrize("again", [HEADER, HEADER.partition(b"?>")[2]])
def test_a_header_begins_a_new_stream_wherever_it_stands(again: bytes) -> None:
    assert units(HEADER + b"<a/>" + again + b"<b/></stream:stream><c/>") == [
        (UnitKind.HEADER, HEADER),
        (UnitKind.ELEMENT, b"<a/>"),
        (UnitKind.HEADER, again),
        (UnitKind.ELEMENT, b"<b/>"),
        (UnitKind.CLOSING_TAG, b"</stream:stream>"),
        (UnitKind.ELEMENT, b"<c/>"),
    ]


def test_what_stands_between_is_told_apart() -> None:
    assert units(HEADER + b"<!-- > --><?p ?>text<a/><![CDATA[<]]>") == [
        (UnitKind.HEADER, HEADER),
        (UnitKind.BETWEEN, b"<!-- > -->"),
        (UnitKind.BETWEEN, b"<?p ?>"),
        (UnitKind.BETWEEN, b"text"),
        (UnitKind.ELEMENT, b"<a/>"),
        (UnitKind.BETWEEN, b"<![CDATA[<]]>"),
    ]


@pytest.mark.parametrize("tail", [b"<a", b"<a b='>", b"<!", b"<!-", b"<!-- -", b"<![CDATA[ ]]", b"<?xm", b"<a>t", b"t"])
def test_what_is_not_complete_waits(tail: bytes) -> None:
    assert units(HEADER + tail) == [(UnitKind.HEADER, HEADER)]


def test_white_space_on_the_first_level_is_not_waited_with() -> None:
    lexer = Lexer()
    lexer.feed(HEADER)
    assert [unit.octets for unit in lexer.feed(b" \n")] == [b" \n"]
    assert lexer.waiting == 0
    assert lexer.feed(b"<a> \n") == []


def test_a_long_tag_in_single_octets_costs_no_more_than_it_is_long() -> None:
    lexer = Lexer()
    lexer.feed(HEADER)
    data = b"<a b='" + b"x" * 60_000 + b"'>" + b"y" * 60_000 + b"<!--" + b"-" * 60_000
    for octet in data:
        lexer.feed(bytes([octet]))
    assert lexer.waiting == len(data)
    assert [token.kind for token in lexer.rest().tokens] == [Kind.START, Kind.TEXT]
