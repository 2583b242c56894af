import unicodedata

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xproxy.record.clean import INTEGER_MAX, clean, clean_integer

ANY_TEXT = st.text(st.characters(), max_size=60)  # with surrogates


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("romeo", "romeo"),
        ("Grüße, 世界 🙂", "Grüße, 世界 🙂"),
        ("a\r\nb", "a\\u{d}\\u{a}b"),
        ("\x1b[31m", "\\u{1b}[31m"),
        ("\x7f\x9b", "\\u{7f}\\u{9b}"),
        ("\ud800", "\\u{d800}"),
        ("abc\u202egnp.exe", "abc\\u{202e}gnp.exe"),
        ("\u2066\u2069\u200e\u200f\u061c", "\\u{2066}\\u{2069}\\u{200e}\\u{200f}\\u{61c}"),
        ("\u2028\u2029", "\\u{2028}\\u{2029}"),
        ("adm\u200din\ufeff", "adm\\u{200d}in\\u{feff}"),
        ("tag\U000e0041", "tag\\u{e0041}"),
        ("\U0010ffff\ufffe", "\\u{10ffff}\\u{fffe}"),
        ("a\u00a0b\u3000", "a\\u{a0}b\\u{3000}"),
        ("\\u{202e}", "\\u{5c}u{202e}"),
        ("C:\\users", "C:\\users"),
        ("", ""),
    ],
)
def test_what_cannot_be_seen_is_written_out(text, shown):
    assert clean(text, 1024) == (shown, False)


def test_every_control_format_separator_and_surrogate_of_unicode_is_escaped():
    bad = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    # Visible format characters: Arabic, Syriac, Kaithi and Egyptian signs that enclose or join what is drawn.
    visible = {*"\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2", "\U000110bd", "\U000110cd"}
    visible |= {chr(code) for code in range(0x13430, 0x13440)}
    missed = [hex(ord(character)) for character in bad if clean(character, 64)[0] == character]
    assert set(missed) <= {hex(ord(character)) for character in visible}


@pytest.mark.parametrize(
    ("text", "max_bytes", "shown", "was_cut"),
    [
        ("abcd", 4, "abcd", False),
        ("abcde", 4, "abcd", True),
        ("aüü", 4, "aü", True),  # a character is not split
        ("🙂🙂", 7, "🙂", True),
        ("a\u202eb", 9, "a\\u{202e}", True),  # an escape fits whole
        ("a\u202eb", 8, "a", True),  # or not at all
        ("a\\u{b", 6, "a", True),
        ("ab\\c", 3, "ab\\", True),  # a backslash alone is none
        ("abc\\u{", 4, "abc", True),
        ("x" * 5_000_000, 3, "xxx", True),
    ],
)
def test_a_text_is_cut_at_its_limit(text, max_bytes, shown, was_cut):
    assert clean(text, max_bytes) == (shown, was_cut)


@given(ANY_TEXT, st.integers(0, 80))
@example("\\", 0)
@example("\\u{", 5)
def test_any_text_becomes_one_harmless_line_within_its_limit(text, max_bytes):
    shown, was_cut = clean(text, max_bytes)
    assert len(shown.encode()) <= max_bytes
    assert orjson.loads(orjson.dumps(shown)) == shown
    assert len(f"{shown}.".splitlines()) == 1
    assert clean(text, 10_000)[0].startswith(shown)
    assert was_cut == (shown != clean(text, 10_000)[0])


@given(ANY_TEXT, ANY_TEXT)
def test_two_texts_never_look_the_same(one, other):
    if one != other:
        assert clean(one, 10_000) != clean(other, 10_000)


@given(st.integers())
@example(2**64)
@example(-(2**200))
def test_integers_stay_within_64_bits(number):
    kept, was_cut = clean_integer(number)
    assert -INTEGER_MAX <= kept <= INTEGER_MAX
    assert was_cut == (kept != number)
    orjson.dumps(kept)
