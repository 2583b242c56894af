"""What stands before the root of a stream, judged on the raw octets.

With the encoding forced to UTF-8 libxml2 no longer tells what the declaration or a byte order mark said, and it reads a
DOCTYPE without complaint. So nothing before the root's ``<`` reaches it unseen. RFC 6120 sections 11.1, 11.5 and 11.6.
"""

import functools
import re
from typing import Final

import attrs

from xproxy.xmpp.violation import ViolationKind

WHITE: Final = b" \t\r\n"  # XML 1.0 production 3; bytes.strip() without arguments takes more

_BOM: Final = b"\xef\xbb\xbf"
_LITERAL: Final = rb"""("[^"<>]*"|'[^'<>]*')"""
_EQUALS: Final = rb"[ \t\r\n]*=[ \t\r\n]*"
_DECLARATION: Final = re.compile(
    rb"<\?xml[ \t\r\n]+version" + _EQUALS + _LITERAL
    + rb"(?:[ \t\r\n]+encoding" + _EQUALS + _LITERAL + rb")?"
    + rb"(?:[ \t\r\n]+standalone" + _EQUALS + _LITERAL + rb")?"
    + rb"[ \t\r\n]*\?>"
)  # fmt: skip


@attrs.frozen(kw_only=True)
class Prolog:
    """The result of a scan. ``end`` is None while the root's start tag has not begun and nothing is refused."""

    end: int | None  # index of the root's "<"
    skip: int = 0  # so many octets at the beginning (mark, space, declaration) are not for the parser
    declared: bool = False
    notes: tuple[ViolationKind, ...] = ()
    refusal: ViolationKind | None = None


def scan_prolog(data: bytes, *, white_before: bool) -> Prolog:
    """Look at the first octets of a document; ``white_before`` says that white space was taken away before them."""
    notes: list[ViolationKind] = []
    skip = 0
    if data.startswith(_BOM):
        skip = len(_BOM)
        notes.append(ViolationKind.BYTE_ORDER_MARK)
    elif _BOM.startswith(data):
        return Prolog(end=None)
    elif data[0] in b"\xfe\xff\x00" or data.startswith(b"<\x00"):  # UTF-16 and UTF-32 in either order
        return Prolog(end=None, refusal=ViolationKind.ENCODING)
    if len(data) == skip:
        return Prolog(end=None)
    if data[skip] not in WHITE and data[skip] != 0x3C:  # libxml2 would say so later or sooner, as the network cuts
        return Prolog(end=None, refusal=ViolationKind.NOT_WELL_FORMED)
    declared = False
    if _is_declaration(data, skip):
        close = data.find(b"?>", skip)
        if close < 0:
            return Prolog(end=None)
        if (refusal := _refused_declaration(data[skip : close + 2])) is not None:
            return Prolog(end=None, refusal=refusal)
        declared = True
        skip = close + 2
        if white_before:
            notes.append(ViolationKind.SPACE_BEFORE_DECLARATION)
    end, refusal = _find_root(data, skip)
    return Prolog(end=end, skip=skip, declared=declared, notes=tuple(notes), refusal=refusal)


def _is_declaration(data: bytes, at: int) -> bool:
    return data.startswith(b"<?xml", at) and len(data) > at + 5 and data[at + 5] in b" \t\r\n?"


@functools.lru_cache(maxsize=16)  # peers of one kind write the same; up to 256 octets each
def _refused_declaration(declaration: bytes) -> ViolationKind | None:
    match = _DECLARATION.fullmatch(declaration)
    if match is None:
        return ViolationKind.XML_DECLARATION
    version, encoding, standalone = (value and value[1:-1] for value in match.groups())
    if version != b"1.0":
        return ViolationKind.XML_VERSION
    if encoding is not None and encoding.lower() != b"utf-8":
        return ViolationKind.ENCODING
    if standalone not in (None, b"yes"):
        return ViolationKind.STANDALONE
    return None


def _find_root(data: bytes, at: int) -> tuple[int | None, ViolationKind | None]:
    """Step over white space, comments and processing instructions; anything else is the parser's to judge."""
    while True:
        while data[at : at + 1] and data[at] in WHITE:
            at += 1
        following = data[at : at + 2]
        if following == b"<!":
            opening, closing = b"<!--", b"-->"
        elif following == b"<?":
            opening, closing = b"<?", b"?>"
            if _is_declaration(data, at):  # a second one; the first never reaches the parser, so it would take this
                return None, ViolationKind.XML_DECLARATION
        else:
            return (at if len(following) == 2 else None), None
        head = data[at : at + len(opening)]
        if head != opening:
            if opening.startswith(head):
                return None, None
            return None, ViolationKind.DTD
        end = data.find(closing, at + len(opening))
        if end < 0:
            return None, None
        at = end + len(closing)
