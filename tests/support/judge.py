"""What a conforming server would have read: expat over the same octets, written without a look at the reader.

Prosody, ejabberd and slixmpp all parse with a namespace-aware expat and build first-level elements from its events.
``judge`` does the same for one document. The reader must see the same elements and refuse what the judge refuses;
disagreement is a way to hide from the log. What RFC 6120 section 11.1 forbids and expat takes is in ``restricted``.
"""

import enum
import pyexpat
from typing import Any

import attrs

Node = tuple[str, tuple[tuple[str, str], ...], tuple[Any, ...]]  # Clark name, attributes, children (nodes and text)


_SEPARATOR = "\x01"  # as Prosody; no document may hold it
_CALL_BYTES = 1_048_576  # pyexpat gives expat no more at once


class Restricted(enum.Enum):
    """Constructs that expat takes and RFC 6120 section 11.1 and 11.6 do not."""

    DTD = "dtd"
    COMMENT = "comment"
    PROCESSING_INSTRUCTION = "processing-instruction"
    TEXT = "text"  # at stream level
    NESTED_ROOT = "nested-root"
    DECLARATION = "declaration"  # version, encoding or standalone other than the one allowed
    BYTE_ORDER_MARK = "byte-order-mark"
    UTF_16 = "utf-16"
    DEEP = "deep"  # more than ``depth_max`` levels
    LONG_NAME = "long-name"


@attrs.frozen(kw_only=True)
class Verdict:
    """``root`` is None while no stream opened. ``elements`` are complete first-level elements, in order.

    ``unread`` names those of them (by index) that hold what libxml2 does not take: too deep, too long a name.
    """

    root: str | None
    elements: tuple[Node, ...]
    unread: frozenset[int]
    ended: bool
    refused: bool
    restricted: frozenset[Restricted]


class _Builder:
    def __init__(self, depth_max: int) -> None:
        self.parser = pyexpat.ParserCreate(None, _SEPARATOR)
        self.parser.ordered_attributes = True
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.text
        self.parser.CommentHandler = lambda _data: self.restricted.add(Restricted.COMMENT)
        self.parser.ProcessingInstructionHandler = lambda _target, _data: self.restricted.add(
            Restricted.PROCESSING_INSTRUCTION
        )
        self.parser.StartDoctypeDeclHandler = lambda *_: self.restricted.add(Restricted.DTD)
        self.parser.XmlDeclHandler = self.declaration
        self.depth_max = depth_max
        self.stack: list[tuple[str, tuple[tuple[str, str], ...], list[Any]]] = []
        self.root: str | None = None
        self.elements: list[Node] = []
        self.ended = False
        self.unread: set[int] = set()
        self.restricted: set[Restricted] = set()

    def declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if version != "1.0" or (encoding or "utf-8").lower() != "utf-8" or standalone == 0:
            self.restricted.add(Restricted.DECLARATION)

    def start(self, name: str, attributes: list[str]) -> None:
        tag = _clark(name)
        pairs = sorted((_clark(key), value) for key, value in zip(attributes[::2], attributes[1::2], strict=True))
        if not self.stack:
            self.root = tag
        elif len(self.stack) == 1 and tag == self.root:
            self.restricted.add(Restricted.NESTED_ROOT)
        self.stack.append((tag, tuple(pairs), []))
        if len(self.stack) > self.depth_max:
            self.restricted.add(Restricted.DEEP)
            self.unread.add(len(self.elements))
        if any(len(part) > 50_000 for part in (tag, *(key for key, _ in pairs))):
            self.restricted.add(Restricted.LONG_NAME)
            self.unread.add(len(self.elements))

    def end(self, _name: str) -> None:
        tag, attributes, children = self.stack.pop()
        node = (tag, attributes, tuple(children))
        if len(self.stack) == 1:
            self.elements.append(node)
        elif self.stack:
            self.stack[-1][2].append(node)
        else:
            self.ended = True

    def text(self, text: str) -> None:
        if len(self.stack) == 1:
            if text.strip(" \t\r\n"):
                self.restricted.add(Restricted.TEXT)
        elif self.stack:
            children = self.stack[-1][2]
            if children and isinstance(children[-1], str):  # a comment stood between
                children[-1] += text
            else:
                children.append(text)


def judge(data: bytes, *, depth_max: int = 200) -> Verdict:
    """Read one document as a server with expat would, up to the last of its octets."""
    builder = _Builder(depth_max)
    refused = False
    assert len(data) <= _CALL_BYTES
    if data.startswith(b"\xef\xbb\xbf"):
        builder.restricted.add(Restricted.BYTE_ORDER_MARK)
    if data.startswith((b"\xfe\xff", b"\xff\xfe")) or b"\0" in data[:2]:
        builder.restricted.add(Restricted.UTF_16)
    try:
        # At once: expat may put off an unfinished token until its octets have doubled (2.6.0, and before in Debian).
        builder.parser.Parse(data, False)
        builder.parser.buffer_text = False  # flushes
    except (pyexpat.ExpatError, UnicodeError, LookupError, ValueError):
        refused = True
    return Verdict(
        root=builder.root,
        elements=tuple(builder.elements),
        unread=frozenset(index for index in builder.unread if index < len(builder.elements)),
        ended=builder.ended,
        refused=refused,
        restricted=frozenset(builder.restricted),
    )


def tree_of(element: Any) -> Node:
    """Return what an lxml element holds in the judge's shape, comments and processing instructions left out."""
    children: list[Any] = []

    def add_text(text: str | None) -> None:
        if not text:
            return
        if children and isinstance(children[-1], str):
            children[-1] += text
        else:
            children.append(text)

    add_text(element.text)
    for child in element:
        if isinstance(child.tag, str):
            children.append(tree_of(child))
        add_text(child.tail)
    return (element.tag, tuple(sorted(element.attrib.items())), tuple(children))


def _clark(name: str) -> str:
    namespace, separator, local = name.rpartition(_SEPARATOR)
    return f"{{{namespace}}}{local}" if separator else local
