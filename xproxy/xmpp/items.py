"""What a reader of a stream hands out: headers, first-level elements, closing tags, and what is wrong with them."""

import attrs
from lxml import etree

from xproxy.xmpp.violation import Severity, ViolationKind


@attrs.frozen(kw_only=True)
class StreamHeader:
    """A stream opened (RFC 6120 section 4.2). Names are Clark names, ``{namespace}local``."""

    name: str
    attributes: dict[str, str]
    namespaces: dict[str | None, str]
    xml_declaration: bool
    offset: int  # octets of this direction up to and with the header's ">"


@attrs.define(hash=True)  # frozen in fact: making a frozen one takes twice the time
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


class Tally:
    """What was said of one stream so far. What is taken back, to be read again with more care, is taken back here too.

    Written by who reads (``parser``, ``header``, ``content``), one after the other.
    """

    __slots__ = ("elements", "noted", "octets", "passed", "unsaid")

    def __init__(self) -> None:
        self.elements = 0  # first-level elements seen
        self.noted: frozenset[ViolationKind] = frozenset()
        self.octets = 0  # since the end of the last element
        self.passed = 0  # first-level elements handed out since the last boundary that is known exactly
        self.unsaid = 0  # first-level elements the careful parser meets again: they were handed out before

    def note(self, items: list[Item], kind: ViolationKind, offset: int) -> None:
        """Append a note to ``items``, the first time."""
        if kind not in self.noted:
            self.noted |= {kind}
            items.append(Violation(kind=kind, severity=Severity.NOTE, offset=offset))
