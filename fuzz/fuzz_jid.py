"""Invariant: a text is a JID that reads back as itself, or a JidError that does not hold the text.

Besides: parts are within their octets, and a domain in A-labels is ASCII, stable, and the same domain again.
"""

import sys
from collections.abc import Callable

import harness

with harness.instrumented():
    from xproxy.jid import (
        DNS_NAME_OCTETS_MAX,
        PART_OCTETS_MAX,
        Jid,
        JidError,
        domain_to_ascii,
        enforce_domainpart,
        is_ip_address,
    )

PARTS = {"localpart", "domainpart", "resourcepart", "jid"}
REASONS = {"empty", "too-long", "invalid-character", "not-a-name", "address"}
WORDS = [
    word.encode()
    for word in (
        "@", "/", ".", "[::1]", "[", "]", "127.0.0.1", "xn--", "xn--bcher-kva", "bücher", "ß", "ẞ", "İ", "ı", "ς", "Σ",
        "\u200d", "\u200c", "\u00b7", "\u0301", "\u3002", "\uff0e", "\uff20", "\uff0f", "\u1e9e", "\u05d0", "\u0661",
        "\u06f1", "\u30fb", "\u212b", "\u1100\u1161", "\u0f0b", "\U0001f600", "\u00a0", "\u2028", "\u00ad", "_", "-",
        "\u0378", "\ufb01", "\u2163", "\uff21", "a" * 63, "\u0130",
    )
]  # fmt: skip


def check(data: bytes) -> None:
    """Judge one text; octets that are no UTF-8 become lone surrogates, which no JID may hold."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        jid = Jid.from_text(text)
    except JidError as error:
        judge_error(error, text)
    else:
        assert Jid.from_text(str(jid)) == jid, "it does not read back"
        assert str(Jid.from_text(str(jid))) == str(jid)
        assert str(jid.bare) == str(jid).partition("/")[0]
        for part in (jid.local, jid.domain, jid.resource):
            assert part is None or 1 <= len(part.encode()) <= PART_OCTETS_MAX, "a part of another length"
    domain = answer(enforce_domainpart, text)
    ascii_name = answer(domain_to_ascii, text)
    if isinstance(ascii_name, JidError):
        has_none = isinstance(domain, JidError) or is_ip_address(domain) or ascii_name.reason == "too-long"
        assert has_none, "a domain without A-labels"
        return
    assert ascii_name.isascii()
    assert 1 <= len(ascii_name) <= DNS_NAME_OCTETS_MAX
    assert domain_to_ascii(ascii_name) == ascii_name
    if not isinstance(domain, JidError):
        assert enforce_domainpart(ascii_name) == domain, "A-labels of another domain"


def answer(enforce: Callable[[str], str], text: str) -> str | JidError:
    """Return what becomes of ``text``."""
    try:
        return enforce(text)
    except JidError as error:
        judge_error(error, text)
        return error


def judge_error(error: JidError, text: str) -> None:
    """What may be said of a text that is none."""
    assert error.part in PARTS
    assert error.reason in REASONS
    assert len(text) < 20 or text not in repr(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None, "its context holds the text"


if __name__ == "__main__":
    sys.exit(harness.main("jid", check, words=WORDS, quick=120_000))
