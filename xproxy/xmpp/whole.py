"""Complete elements of a stream, read as a document of their own by one parser for all sessions.

Between the start tag of a stream and its end tag, some octets make a well-formed document if and only if they are
content: complete, balanced elements and text. (If they closed the stream's element themselves, an end tag would stand
behind the root; if they left something open, an end tag would be missing, or be swallowed.) So a stream needs a parser
of its own only while an element is open, and a thousand sessions share the memory, and the processor's caches, of one.

A stanza alone, which is what comes most, is a document by itself: the stream's default namespace is declared in its own
tag, which costs a third less than tags around it. (A prefix of the stream is not declared there, a second declaration
is an error, behind the root nothing may stand: then it is no document, and is read with the tags around it.)

``stream`` decides what to read this way. Here nothing is judged: what is not plainly right is read again by the
stream's own parser, which says what is wrong with it.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from lxml import etree

from xproxy.xmpp.ns import STANZA_KINDS
from xproxy.xmpp.tags import closing_tag_of

_LT: Final = 0x3C
_GT: Final = 0x3E
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~:/?#@+,;=%-]*")
"""Names and namespace names that can be written between apostrophes as they are: all of XMPP's."""


class Wrapping(NamedTuple):
    """The tags to put around content of a stream. The same object for all streams with the same declarations."""

    opening: bytes
    closing: bytes
    stanzas: dict[bytes, "StanzaTags"]  # by the second and third octet


class StanzaTags(NamedTuple):
    """How one kind of stanza begins and ends, and its begin with the default namespace declared."""

    start: bytes
    closing: bytes
    closing_bytes: int
    declared: bytes


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
    default = next((f" xmlns='{value}'" for key, value in namespaces if key is None), "")
    stanzas = {
        kind[:2].encode(): StanzaTags(
            f"<{kind}".encode(), f"</{kind}>".encode(), len(kind) + 3, f"<{kind}{default}".encode()
        )
        for kind in STANZA_KINDS
    }
    wrapping = Wrapping(f"<{name}{declarations}>".encode(), f"</{name}>".encode(), stanzas)
    element = read_whole(b"", wrapping)
    if element is None or element.tag != root or element.nsmap != dict(namespaces):
        return None
    return wrapping


def read_header(tag: bytes) -> etree._Element | None:
    """Return the root that the start tag ``tag`` opens; None: it is not complete, more than that, or not right."""
    closing = closing_tag_of(tag)
    root = None if closing is None else _parse(tag + closing)
    return None if root is None or root.text is not None or len(root) else root


def read_elements(content: bytes, wrapping: Wrapping, root_name: str) -> Sequence[etree._Element] | None:
    """Return the elements that ``content``, which is not empty, consists of; None: there is something else to it.

    Something else is: text between them, a comment, instruction or CDATA section, an element with the root's name.
    """
    if (
        content[0] != _LT
        or content[-1] != _GT
        or b"\0" in content
        or (b"!" in content and b"<!" in content)  # one octet is found much faster than two
        or (b"?" in content and b"<?" in content)
    ):
        return None
    tags = wrapping.stanzas.get(content[1:3])
    if tags is not None:
        start, closing, closing_bytes, declared = tags
        end, size = content.find(b">") + 1, len(content)
        # Looks tell only that it is worth a try as one stanza; the parser decides. Nothing can stand behind it: neither
        # text nor a comment, instruction or CDATA section.
        if content.startswith(start) and (end == size or content.find(closing) + closing_bytes == size):
            alone = content if content.find(b" xmlns=", 0, end) >= 0 else declared + content[len(start) :]
            try:  # as in _parse, without the call
                stanza = _fromstring(alone, _PARSER)
            except etree.XMLSyntaxError:
                stanza = None
            if stanza is not None and not len(_PARSER.error_log) and stanza.tag != root_name:
                return (stanza,)
    root = None if content.startswith(b"</") else read_whole(content, wrapping)
    if root is None or root.text is not None:
        return None
    elements = list(root)
    for element in elements:
        if element.tail is not None or element.tag == root_name:
            return None
    return elements


def read_whole(content: bytes, wrapping: Wrapping) -> etree._Element | None:
    """Return the root around ``content``; None: it is not complete or not right, or the parser has something to say."""
    return _parse(wrapping.opening + content + wrapping.closing)


def _parse(document: bytes) -> etree._Element | None:
    try:
        root = _fromstring(document, _PARSER)
    except etree.XMLSyntaxError:
        return None
    # A namespace error is raised only if it was the last thing the parser had to say: a warning behind it hides it.
    return None if len(_PARSER.error_log) else root


# The settings are those of the stream's own parser (parser.py), with the same limits and the same names.
_PARSER: Final = etree.XMLParser(
    encoding="utf-8",
    resolve_entities="internal",
    no_network=True,
    huge_tree=False,
    load_dtd=False,
    collect_ids=False,
)
_fromstring: Final = etree.fromstring
