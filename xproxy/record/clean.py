"""The one place where text of a peer becomes text of the log (CWE-117).

Every string of a document passes ``clean`` exactly once, in ``document.py``. orjson alone is not enough: it escapes C0
and nothing else, so DEL, C1, bidirectional overrides and line separators would reach terminals and editors, and it
raises on a lone surrogate. What cannot be seen or would disturb the reading is written as ``\\u{202e}``.

The mapping is injective, not idempotent: a backslash that a peer wrote before ``u{`` is itself written as ``\\u{5c}``,
so that an escape in the log always says what was received. (That is why it must run once.) No normalisation: two
spellings of one name stay two spellings. Which characters are escaped is fixed here and does not depend on the Unicode
tables of the Python that runs: the same input gives the same record.
"""

import re
from typing import Final

INTEGER_MAX: Final = 2**63 - 1  # ``long`` of ECS and Elasticsearch; orjson raises above 64 bits

_TROUBLEMAKERS: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: terminal control, line ends
    "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"  # spaces that pass for U+0020
    "\u00ad\u034f\u061c\u180b-\u180f"  # soft hyphen, grapheme joiner, Arabic letter mark, Mongolian selectors
    "\u115f\u1160\u3164\uffa0\u17b4\u17b5\u2800"  # letters and symbols without ink
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"  # zero width, bidirectional controls, invisible operators, BOM
    "\u2028\u2029"  # line and paragraph separators: line ends for JavaScript and many editors
    "\ufe00-\ufe0f\U000e0100-\U000e01ef"  # variation selectors
    "\ufff0-\ufffb\ufdd0-\ufdef"  # annotation controls, noncharacters
    "\U000e0000-\U000e0fff"  # tags: a whole hidden alphabet
    "\U0001d173-\U0001d17a\U0001bca0-\U0001bca3"  # musical and shorthand format controls
    "\ud800-\udfff"  # lone surrogates: not encodable at all
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))  # noncharacters
    + "]"
    r"|\\(?=u\{)"  # keeps the mapping injective
)
_ESCAPE: Final = re.compile(r"\\u\{[0-9a-f]+\}")


def _escape(match: re.Match[str]) -> str:
    return f"\\u{{{ord(match[0]):x}}}"


def clean(text: str, max_bytes: int) -> tuple[str, bool]:
    """Return ``text`` made harmless in at most ``max_bytes`` octets of UTF-8, and whether it was cut.

    Neither a character nor an escape is split. Never raises, whatever the text; the cost is bounded by ``max_bytes``.
    """
    if len(text) <= max_bytes and text.isascii() and text.isprintable() and "\\u{" not in text:
        return text, False
    # A character takes an octet at least: what lies behind can never fit, and is not even looked at, but for the two
    # characters that the pattern's look-ahead needs.
    escaped = _TROUBLEMAKERS.sub(_escape, text[: max_bytes + 3])
    octets = escaped.encode()
    if len(octets) <= max_bytes:
        return escaped, False
    kept = octets[:max_bytes].decode(errors="ignore")
    last = kept.rfind("\\")
    if last >= 0 and (whole := _ESCAPE.match(escaped, last)) and whole.end() > len(kept):
        kept = kept[:last]
    return kept, True


def clean_integer(number: int) -> tuple[int, bool]:
    """Return ``number`` within a signed 64-bit integer, and whether it had to be clamped."""
    if -INTEGER_MAX <= number <= INTEGER_MAX:
        return number, False
    return (INTEGER_MAX if number > 0 else -INTEGER_MAX), True
