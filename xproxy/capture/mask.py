"""Octets of text and of attribute values -> octets of the same length that say nothing.

One ``x`` an octet. What stays is what XML makes of it: each reference remains a reference to a character of the same
number of octets, so that the decoded length is the same too; line ends stay, for CR LF is one character; octets that
are no character stay as wrong as they were. So does ``>``, which is where negotiation cuts what it feeds. White space
alone is shape, not content, and stays.
"""

import re
from typing import Final

_PLAIN: Final = re.compile(rb"[\t\x20-\x25\x27-\x3b\x3d\x3f-\x5c\x5e-\x7f]*")  # no "&", "<", ">", "]", no line end
_WHITE: Final = re.compile(rb"[ \t\r\n]*")
_DIGIT, _NO_DIGIT = re.compile(rb"[0-9]"), re.compile(rb"[^0-9]")
_VERBATIM: Final = re.compile(rb"[&<\]]")  # what is markup elsewhere
# XML 1.0 section 2.2 Char, as UTF-8 (RFC 3629 section 4), beyond ASCII.
_LONG: Final = (
    rb"[\xc2-\xdf][\x80-\xbf]"
    rb"|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xef(?:[\x80-\xbe][\x80-\xbf]|\xbf[\x80-\xbd])"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_REFERENCE: Final = rb"&(?:#[0-9]+|#x[0-9A-Fa-f]+|[A-Za-z_:\x80-\xff][\w.\-:\x80-\xff]*);"
_BROKEN: Final = re.compile(rb"&(?!" + _REFERENCE[1:] + rb")")


def _pieces(good: bytes) -> re.Pattern[bytes]:
    """Return what a text is cut into; ``good``: the ASCII that says nothing but itself."""
    return re.compile(
        rb"(?P<reference>" + _REFERENCE + rb")"
        rb"|(?P<broken>&(?P<number>#x?)?(?P<name>[\w.\-:]*)[!-%'-,/=?@\[\\^`{|}~ ]?)"  # a reference that is none
        rb"|(?P<end>\]?\]?>|<)"
        rb"|(?P<line>[\r\n]+)"
        rb"|(?P<good>(?:" + good + rb"|" + _LONG + rb")(?:(?!\]?\]?>)(?:" + good + rb"|" + _LONG + rb"))*)"
        rb"|(?P<bad>.)",
        re.DOTALL,
    )  # fmt: skip


_PIECE: Final = _pieces(rb"[\t\x20-\x25\x27-\x3b\x3d\x3f-\x7f]")
# Behind a reference that is none libxml2 waits for a semicolon, whatever stands between.
_PIECE_OF_BROKEN: Final = _pieces(rb"[\t\x20-\x25\x27-\x3a\x3d\x3f-\x7f]")
_NAMED: Final = {b"&amp;": b"&#88;", b"&quot;": b"&#x58;", b"&apos;": b"&#x58;", b"&lt;": b"&lt;", b"&gt;": b"&lt;"}
_BY_OCTETS: Final = {1: 0x58, 2: 0xE9, 3: 0x905, 4: 0x1F600}  # X, é, and two that are as short as such numbers get
_LEAST: Final = {4: 0x10000}  # ... where that one does not fit


def hide_text(raw: bytes) -> bytes:
    """Return filler for character data or an attribute's value, markup taken away before."""
    if _WHITE.fullmatch(raw):
        return raw
    if _PLAIN.fullmatch(raw):
        return b"x" * len(raw)
    return (_PIECE_OF_BROKEN if _BROKEN.search(raw) else _PIECE).sub(_hide_piece, raw)


def hide_verbatim(raw: bytes) -> bytes:
    """Return filler for what holds no references: CDATA, a comment, a processing instruction."""
    if _WHITE.fullmatch(raw):
        return raw
    return b"".join(b"x" * len(part) if _is_good(part) else _hide_odd(part) for part in re.split(rb"([\r\n]+)", raw))


def _is_good(part: bytes) -> bool:
    return _PLAIN.fullmatch(_VERBATIM.sub(b"x", part)) is not None


def _hide_odd(part: bytes) -> bytes:
    return _PIECE.sub(_hide_piece, _VERBATIM.sub(b"x", part))


def _hide_piece(match: re.Match[bytes]) -> bytes:
    piece = match[0]
    match match.lastgroup:
        case "good":
            return b"x" * len(piece)
        case "reference":
            return _hide_reference(piece)
        case "broken":
            return _hide_broken(match)
        case "bad":
            return piece if piece < b"\x80" else b"\xff"  # an octet that is no character, whichever it was
        case _:
            return piece


def _hide_broken(match: re.Match[bytes]) -> bytes:
    """A reference that breaks off: what is wrong with it stays wrong, at the same octet."""
    number, name = match["number"] or b"", match["name"]
    if number:
        filled = _DIGIT.sub(b"1", name)
        filled = _NO_DIGIT.sub(b"x", filled)
    else:
        filled = (b"x" if name[:1].isalpha() or name[:1] in (b"_", b":") else b"1") + b"x" * (len(name) - 1)
        filled = filled[: len(name)]
    return b"&" + number + filled + b"," * (len(match[0]) - 1 - len(number) - len(name))


def _hide_reference(reference: bytes) -> bytes:
    if (named := _NAMED.get(reference)) is not None:
        return named
    if not reference.startswith(b"&#"):
        return b"&" + b"x" * (len(reference) - 2) + b";"  # not defined, and so is this
    is_hex = reference[2:3] == b"x"
    digits = reference[3 if is_hex else 2 : -1]
    number = int(digits[-12:], 16 if is_hex else 10)
    if number in (9, 10, 13) or number > 0x10FFFF or len(digits) > 12:
        return reference
    try:
        size = len(chr(number).encode())
    except UnicodeEncodeError:
        return reference  # a surrogate: no character
    for stand_in in (_BY_OCTETS[size], _LEAST.get(size, _BY_OCTETS[size])):
        shown = f"{stand_in:x}" if is_hex else str(stand_in)
        if len(shown) <= len(digits) and number >= 0x20:
            return b"&#" + (b"x" if is_hex else b"") + shown.rjust(len(digits), "0").encode() + b";"
    return reference


_REFERENCE_OR_CHAR: Final = re.compile(
    rb"&(?:#(?P<dec>[0-9]{1,12})|#x(?P<hex>[0-9A-Fa-f]{1,12})|(?P<name>amp|lt|gt|quot|apos));|(?P<line>\r\n|\r)"
    rb"|(?P<char>[\x00-\x7f]|" + _LONG + rb")|(?P<bad>.)",
    re.DOTALL,
)
_ENTITIES: Final = {b"amp": "&", b"lt": "<", b"gt": ">", b"quot": '"', b"apos": "'"}


def characters(raw: bytes, *, verbatim: bool = False) -> list[tuple[str, int, int]]:
    """Return the characters of ``raw`` as a parser reads them, each with its place; ``verbatim``: without references.

    What is no character comes out as U+FFFD.
    """
    found: list[tuple[str, int, int]] = []
    at = 0
    while at < len(raw):
        if verbatim and raw[at] == 0x26:
            found.append(("&", at, at + 1))
            at += 1
            continue
        match = _REFERENCE_OR_CHAR.match(raw, at)
        assert match is not None, "it matches any octet"
        at = match.end()
        found.append((_character(match), match.start(), at))
    return found


def decoded(raw: bytes) -> str:
    """Return ``raw`` as a parser reads it."""
    if b"&" not in raw and b"\r" not in raw:
        return raw.decode(errors="replace")
    return "".join(char for char, _, _ in characters(raw))


def _character(match: re.Match[bytes]) -> str:
    match match.lastgroup:
        case "char":
            return match[0].decode()
        case "line":
            return "\n"
        case "name":
            return _ENTITIES[match[0][1:-1]]
        case "dec" | "hex":
            number = int(match["dec"]) if match["dec"] else int(match["hex"], 16)
            return chr(number) if number <= 0x10FFFF and not 0xD800 <= number < 0xE000 else "\ufffd"
    return "\ufffd"


def spelt(char: str, like: bytes) -> bytes:
    """Return ASCII ``char`` in as many octets as ``like``, the spelling of another character, and in its manner.

    Where a decimal reference is too short for it, an exclamation mark stands there.
    """
    if not like.startswith(b"&"):
        return char.encode() * len(like)
    if like.startswith(b"&#x"):
        return b"&#x" + f"{ord(char):x}".rjust(len(like) - 4, "0").encode() + b";"
    if like.startswith(b"&#") and len(str(ord(char))) <= len(like) - 3:
        return b"&#" + str(ord(char)).rjust(len(like) - 3, "0").encode() + b";"
    return b"&#33;".rjust(len(like)) if len(like) < 5 else b"&#" + b"33".rjust(len(like) - 3, b"0") + b";"
