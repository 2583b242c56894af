"""What a stream header asks for, read ahead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.dialogue import DECLARED_HEADER, HEADER
from xproxy.xmpp.opening import Opening, OpeningRefused, read_opening


@pytest.mark.parametrize("header", [HEADER, DECLARED_HEADER, "\n " + HEADER, DECLARED_HEADER + "<auth/></wrong>"])
def test_the_domain_of_a_header(header: str) -> None:
    assert read_opening(header.encode()) == Opening("example.org")


@pytest.mark.parametrize("header", [HEADER, DECLARED_HEADER])
def test_a_header_is_found_with_its_last_octet(header: str) -> None:
    data = header.encode()
    for end in range(len(data)):
        assert read_opening(data[:end]) is None
    assert read_opening(data) == Opening("example.org")


def test_a_header_without_a_domain() -> None:
    assert read_opening(HEADER.replace("to='example.org'", "").encode()) == Opening(None)


def test_a_greater_sign_within_an_attribute_ends_nothing() -> None:
    data = HEADER.replace("<stream:stream", "<stream:stream a='>>' b=\">\"").encode()
    for end in range(len(data)):
        assert read_opening(data[:end]) is None
    assert read_opening(data) == Opening("example.org")


def test_references_and_letters_are_read() -> None:
    assert read_opening(b"<s to='b&#252;cher.ex&amp;mple'>") == Opening("bücher.ex&mple")
    assert read_opening("<s to='bücher.example'>".encode()) == Opening("bücher.example")


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE s [<!ENTITY a 'b'>]><s to='&a;'>",
        b"<!DOCTYPE s>",
        b"<s to='&a;'>",
        b"<s to='\xff'>",
        b"<s to='a' to='b'>",
        b"<s:s to='a'>",
        b"text><s to='a'>",
        b"<s to='\x01'>",
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(OpeningRefused):
        read_opening(data)


@given(st.binary(max_size=200))
def test_any_octets_are_a_header_or_none_or_refused(data: bytes) -> None:
    try:
        opening = read_opening(data)
    except OpeningRefused:
        return
    assert opening is None or isinstance(opening, Opening)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="&<'\ufffe\uffff")))
def test_every_domain_is_read_as_it_stands(domain: str) -> None:
    assert read_opening(f"<s to='{domain}'>".encode()) == Opening(domain)
