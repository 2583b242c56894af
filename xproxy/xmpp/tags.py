"""Octets of tags, looked at without a parser: where a piece ends, and which start tags begin a stream."""

import re
from collections.abc import Iterator
from typing import Final


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut ``data`` behind every ``>``. The rest, if any, comes last."""
    start = 0
    while (end := data.find(b">", start) + 1) > 0:
        yield data[start:end]
        start = end
    if start < len(data):
        yield data[start:]


_NAME: Final = re.compile(rb"<([^ \t\r\n/>=]+)")
_ATTRIBUTE: Final = re.compile(rb"""[ \t\r\n]+([^ \t\r\n=/>]+)[ \t\r\n]*=[ \t\r\n]*("[^"<]*"|'[^'<]*')""")


def prefix_of(tag: bytes) -> str | None:
    """Return the namespace prefix of a start tag that a parser has accepted."""
    name = _NAME.match(tag)
    assert name is not None, "it was read"
    return name[1].rpartition(b":")[0].decode() or None


def closing_tag_of(tag: bytes) -> bytes | None:
    """Return the closing tag to a start tag; None: it is no start tag."""
    match = _NAME.match(tag)
    return None if match is None else b"</" + match[1] + b">"


def may_be_one(data: bytes) -> bool:
    """Tell whether ``data`` begins and ends like one element: a look, before a parser is asked."""
    closing = closing_tag_of(data)
    return closing is not None and (data.endswith(b"/>") or data.endswith(closing))


def start_tag_name(tag: bytes, namespaces: dict[str | None, str]) -> str | None:
    """Return the Clark name of a start tag inside ``namespaces``; the tag may be cut at a ``>`` in an attribute."""
    match = _NAME.match(tag)
    if match is None:
        return None
    prefix, colon, local = match[1].rpartition(b":")
    declaration = b"xmlns:" + prefix if colon else b"xmlns"
    namespace = namespaces.get(prefix.decode("utf-8", "replace") if colon else None, "")
    at = match.end()
    while (attribute := _ATTRIBUTE.match(tag, at)) is not None:
        if attribute[1] == declaration:
            namespace = attribute[2][1:-1].decode("utf-8", "replace")
        at = attribute.end()
    name = local.decode("utf-8", "replace")
    return f"{{{namespace}}}{name}" if namespace else name
