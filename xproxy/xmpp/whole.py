"""Complete elements of a stream, read as a document of their own by one parser for all sessions.

Between the start tag of a stream and its end tag, some octets make a well-formed document if and only if they are
content: complete, balanced elements and text. (If they closed the stream's element themselves, an end tag would stand
behind the root; if they left something open, an end tag would be missing, or be swallowed.) So a stream needs a parser
of its own only while an element is open, and a thousand sessions share the memory, and the processor's caches, of one.

``stream`` decides what to read this way. Here nothing is judged: what is not plainly right is read again by the
stream's own parser, which says what is wrong with it.
"""

import functools
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from lxml import etree

_PLAIN: Final = re.compile(r"[A-Za-z0-9._~:/?#@+,;=%-]*")
"""Names and namespace names that can be written between apostrophes as they are: all of XMPP's."""


class Wrapping(NamedTuple):
    """The tags to put around content of a stream. The same object for all streams with the same declarations."""

    opening: bytes
    closing: bytes


def wrapping_of(root: str, namespaces: Mapping[str | None, str], prefix: str | None) -> Wrapping | None:
    """Return tags that mean what a stream's header means to what is inside it; None: not to be had.

    ``root`` is the Clark name of the stream's root, ``prefix`` its prefix, ``namespaces`` what the header declares.
    """
    return _wrapping_of(root, prefix, tuple(namespaces.items()))


@functools.lru_cache(maxsize=64)  # servers of one kind need two; peers choose what they declare
def _wrapping_of(root: str, prefix: str | None, namespaces: tuple[tuple[str | None, str], ...]) -> Wrapping | None:
    local = root.rpartition("}")[2]
    name = f"{prefix}:{local}" if prefix else local
    declarations = "".join(f" xmlns{':' if key else ''}{key or ''}='{value}'" for key, value in namespaces)
    if not all(_PLAIN.fullmatch(text) for text in (name, *(text or "" for pair in namespaces for text in pair))):
        return None
    wrapping = Wrapping(f"<{name}{declarations}>".encode(), f"</{name}>".encode())
    element = read_whole(b"", wrapping)
    if element is None or element.tag != root or element.nsmap != dict(namespaces):
        return None
    return wrapping


def read_whole(content: bytes, wrapping: Wrapping) -> etree._Element | None:
    """Return the root around ``content``; None: it is not complete or not right, or the parser has something to say."""
    opening, closing = wrapping
    try:
        root = _fromstring(opening + content + closing, _PARSER)
    except etree.XMLSyntaxError:
        return None
    # A namespace error is raised only if it was the last thing the parser had to say: a warning behind it hides it.
    return None if len(_PARSER.error_log) else root


# The settings are those of the stream's own parser (stream.py), with the same limits and the same names.
_PARSER: Final = etree.XMLParser(
    encoding="utf-8",
    resolve_entities="internal",
    no_network=True,
    huge_tree=False,
    load_dtd=False,
    collect_ids=False,
)
_fromstring: Final = etree.fromstring
