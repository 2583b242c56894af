"""One direction of a connection: octets in, stream headers and first-level elements out."""

import enum
from collections.abc import Iterator

import attrs
from lxml import etree

from xproxy.config.stream import StreamLimits


class ViolationKind(enum.Enum):
    """What a conforming entity would refuse or RFC 6120 section 11.1 forbids. The value is the name in the log."""

    NOT_WELL_FORMED = "not-well-formed"
    BAD_CHARACTER = "bad-character"  # not allowed in XML, or not UTF-8
    UNDEFINED_ENTITY = "undefined-entity"
    NAMESPACE = "namespace"  # undeclared prefix, reserved prefix or name, an attribute twice
    NAMESPACE_NAME = "namespace-name"  # a namespace name that is no URI
    DTD = "dtd"
    COMMENT = "comment"
    PROCESSING_INSTRUCTION = "processing-instruction"
    TEXT = "text-at-stream-level"
    TOO_DEEP = "too-deep"
    PARSER_LIMIT = "parser-limit"  # a limit of libxml2, such as 50 000 octets in one name
    NESTED_ROOT = "nested-root"
    NOT_A_STREAM = "not-a-stream"  # the root is not stream:stream
    AFTER_END = "after-end"  # octets behind the closing tag
    BYTE_ORDER_MARK = "byte-order-mark"
    ENCODING = "encoding"  # declared or detected, other than UTF-8
    XML_VERSION = "xml-version"
    STANDALONE = "standalone"
    XML_DECLARATION = "xml-declaration"  # malformed, or not at the start
    SPACE_BEFORE_DECLARATION = "space-before-declaration"


class Severity(enum.Enum):
    """What a violation costs."""

    NOTE = "note"  # recorded, once a stream and kind; parsing goes on
    ELEMENT = "element"  # one first-level element was not seen; parsing goes on behind it
    STREAM = "stream"  # nothing more is seen of this direction until a restart


@attrs.frozen(kw_only=True)
class StreamHeader:
    """A stream opened (RFC 6120 section 4.2). Names are Clark names, ``{namespace}local``."""

    name: str
    attributes: dict[str, str]
    namespaces: dict[str | None, str]
    xml_declaration: bool
    offset: int  # octets of this direction up to and with the header's ">"
    pipelined: bool = False  # feed_piece() found it inside the old stream and restarted by itself


@attrs.frozen
class FirstLevelElement:
    """A child of the stream's root is complete: a stanza or a nonza.

    ``element`` may be read until the next feed, then it is emptied. ``offset`` is where the element ended if the fed
    data ended there (a piece always does), else the end of the data that completed it. ``octets`` are those since the
    last element's end; of several that ended in one feed the first bears them all and the others have 0.
    """

    element: etree._Element
    offset: int
    octets: int


@attrs.frozen
class StreamEnd:
    """The closing tag of the stream (RFC 6120 section 4.4)."""

    offset: int


@attrs.frozen(kw_only=True)
class Violation:
    """A rule was broken. Never holds the octets."""

    kind: ViolationKind
    severity: Severity
    offset: int  # where it was noticed; of a lost element: its end
    octets: int | None = None  # of a lost element


@attrs.frozen(kw_only=True)
class StreamLimit:
    """A limit was reached. With ``closes`` the reader is broken and the session has to end."""

    limit: str  # the key in the configuration
    value: int
    offset: int
    closes: bool


Item = StreamHeader | FirstLevelElement | StreamEnd | Violation | StreamLimit


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut ``data`` behind every ``>``. The rest, if any, comes last."""
    start = 0
    while (end := data.find(b">", start) + 1) > 0:
        yield data[start:end]
        start = end
    if start < len(data):
        yield data[start:]


class NameBudget:
    """New XML names one connection may make the process remember, both directions and all restarts together."""

    def __init__(self, limits: StreamLimits) -> None:
        self.limits = limits
        self.used = 0
        self.max = limits.names_before_login_max
        self.limit = "stream.names_before_login_max"
        self.slice_bytes = limits.slice_before_login_bytes

    def logged_in(self) -> None:
        """Give the connection the allowance of an authenticated one."""
        self.max = self.limits.names_max
        self.limit = "stream.names_max"
        self.slice_bytes = 8_192


class StreamReader:
    """One direction of one connection over all its streams.

    In negotiation use ``feed_piece`` for each of ``pieces(data)``: element ends are exact, and a new header inside the
    old stream restarts the reader by itself (a ``StreamHeader`` with ``pipelined``); a piece that may be the beginning
    of such a header is held until its ``>``. Afterwards use ``feed``.
    """

    def __init__(self, *, limits: StreamLimits, names: NameBudget) -> None:
        self.offset = 0  # octets given so far
        self.elements = 0  # first-level elements seen in this stream
        self.broken = False
        self._limits = limits
        self._names = names
        self.restart()

    def restart(self) -> None:
        """The next octet begins a new document: after proceed, success, compressed, TLS."""
        self.elements = 0
        self.broken = False
        self._depth = 0
        self._parser = etree.XMLPullParser(events=("start", "end", "comment", "pi"), encoding="utf-8")

    @property
    def at_boundary(self) -> bool:
        """Nothing is open but the stream: the next octet begins a first-level element, or is white."""
        return self._depth <= 1

    def opens_stream(self, piece: bytes) -> bool:
        """Tell whether ``piece``, at a boundary, is an XML declaration or a start tag with the root's name."""
        piece = piece.lstrip()
        return piece.startswith((b"<?xml ", b"<stream:stream"))

    def feed_piece(self, piece: bytes) -> list[Item]:
        """Feed one of ``pieces(data)`` while restarts are possible."""
        pipelined = bool(self._depth) and self.at_boundary and self.opens_stream(piece)
        if pipelined:
            self.restart()
        return self.feed(piece)

    def finish(self) -> list[Item]:
        """The input ended: report an element that was being skipped."""
        return []

    def feed(self, data: bytes) -> list[Item]:
        """Take the next octets, in any cut, and return what became complete, in order. Never raises."""
        items: list[Item] = []
        self.offset += len(data)
        if self.broken:
            return items
        try:
            self._parser.feed(data)
        except etree.XMLSyntaxError:
            self.broken = True
        for event, element in self._parser.read_events():
            if event == "start":
                self._depth += 1
                if self._depth == 1:
                    items.append(
                        StreamHeader(
                            name=element.tag,
                            attributes=dict(element.attrib),
                            namespaces=dict(element.nsmap),
                            xml_declaration=False,
                            offset=self.offset,
                        )
                    )
            elif event == "end":
                self._depth -= 1
                if self._depth == 1:
                    self.elements += 1
                    items.append(FirstLevelElement(element, self.offset, len(data)))
                elif self._depth == 0:
                    items.append(StreamEnd(self.offset))
        if self.broken:
            items.append(Violation(kind=ViolationKind.NOT_WELL_FORMED, severity=Severity.STREAM, offset=self.offset))
        return items
