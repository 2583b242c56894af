"""Strict is RFC 6120 section 6.4.2 and 13.9.1; the tolerant reading keeps attribution where servers are laxer."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xproxy.xmpp.sasl.base64 import TEXT_CHARS_MAX, decode_base64, decode_initial_response


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", (b"", "strict")),
        ("=", (b"", "strict")),  # zero-length data (RFC 6120 section 6.4.2)
        ("QUJD", (b"ABC", "strict")),
        ("QUI=", (b"AB", "strict")),
        ("QQ==", (b"A", "strict")),
        (" QU\nJD\t\r\f\b", (b"ABC", "whitespace")),
        (" \n", (b"", "whitespace")),
        (" = ", (b"", "whitespace")),
        ("QQ", (b"A", "noncanonical")),  # unpadded
        ("QUJD=", (b"ABC", "noncanonical")),  # overpadded; b64decode(validate=True) takes it
        ("QUJD====", (b"ABC", "noncanonical")),
        ("QR==", (b"A", "noncanonical")),  # bits behind the end
        ("ab==cd==", (b"iq", "noncanonical")),  # joined: Prosody goes on behind padding
        (" Q Q ", (b"A", "noncanonical")),
        ("=abc", (None, "invalid")),  # RFC 6120 section 6.4.2 names this one
        ("==", (None, "invalid")),
        ("a", (None, "invalid")),
        ("abcde", (None, "invalid")),
        ("ab==c", (None, "invalid")),
        ("-_-_", (None, "invalid")),  # the URL-safe alphabet
        ("QU\x00JD", (None, "invalid")),
        ("QUJ\u00c4", (None, "invalid")),
        ("\uff31\uff35\uff2a\uff24", (None, "invalid")),  # fullwidth letters are no letters
        ("QUJD\ud800", (None, "invalid")),
    ],
)
def test_spellings(text: str, want: tuple[bytes | None, str]) -> None:
    assert decode_base64(text) == want


def test_a_long_text_is_not_decoded() -> None:
    assert decode_base64("A" * TEXT_CHARS_MAX) == (b"\0" * (TEXT_CHARS_MAX // 4 * 3), "strict")
    assert decode_base64("A" * (TEXT_CHARS_MAX + 4)) == (None, "invalid")


@pytest.mark.parametrize("text", ["4" * 60_000 + ",", "4=" * 30_000 + ",", "=" * 60_000, "44" * 30_000 + "\u00e4"])
def test_text_that_is_almost_base64_is_refused_at_once(text: str) -> None:
    """Time grows with the length, no faster: this comes from anybody, before login. Exponential would not end."""
    assert decode_base64(text) == (None, "invalid")


def test_an_absent_initial_response_is_not_an_empty_one() -> None:
    assert decode_initial_response("") == (None, None)
    assert decode_initial_response("=") == (b"", "strict")
    assert decode_initial_response("QQ") == (b"A", "noncanonical")


@given(st.binary(max_size=200))
def test_what_is_encoded_in_form_is_strict(data: bytes) -> None:
    assert decode_base64(base64.b64encode(data).decode()) == (data, "strict")


@given(st.text(max_size=60) | st.text(alphabet="ABab09+/= \n-_", max_size=30))
def test_strict_means_there_is_no_other_spelling(text: str) -> None:
    data, encoding = decode_base64(text)
    assert (data is None) == (encoding == "invalid")
    if encoding == "strict" and text != "=":
        assert data is not None
        assert base64.b64encode(data).decode() == text
