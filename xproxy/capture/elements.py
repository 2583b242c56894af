"""The octets of a capture as what they are: stream headers, first-level elements, closing tags.

Each with the side that sent it, and the time and line of the file at which it was complete. White space between
elements is left out. Where a session begins with a gap the first octets may be the end of something.
"""

from collections.abc import Iterable, Iterator

import attrs

from xproxy.capture.lexer import Lexer, Unit, UnitKind
from xproxy.capture.trace import Conn, Gap, Meta, Phase, Said, Tls, TraceLine, Xml
from xproxy.events import Side
from xproxy.events.tls import TlsEstablished


@attrs.frozen(kw_only=True)
class Element:
    """A unit of one direction."""

    session: int
    sent_by: Side
    unit: Unit
    phase: Phase
    t_ns: int
    n: int  # the session's line that completed it
    line: int  # in the file
    by_proxy: bool = False  # the proxy's own words; ``sent_by`` is then the side opposite to who heard them

    @property
    def is_stanza(self) -> bool:
        """Whether it is a message, a presence or an iq."""
        name = self.unit.octets.lstrip()[1:].split(b">", 1)[0].split(None, 1)[:1]
        local = name[0].rstrip(b"/").rpartition(b":")[2] if name else b""
        return self.unit.kind is UnitKind.ELEMENT and local in (b"message", b"presence", b"iq")


class Elements:
    """Cuts the lines of one session, or of several that are interleaved."""

    def __init__(self) -> None:
        self._lexers: dict[tuple[int, Side], Lexer] = {}

    def of(self, line: TraceLine) -> list[Element]:
        """Return what is complete with ``line``."""
        match line:
            case Xml(phase="opaque"):
                return []
            case Xml():
                lexer = self._lexer(line.session, line.sent_by)
                return [_element(line, unit) for unit in lexer.feed(line.data) if unit.octets.strip(b" \t\r\n")]
            case Said():
                unit = Unit(UnitKind.BETWEEN, line.data, ())
                return [_said(line, unit)]
            case Tls(event=TlsEstablished(leg=Side.CLIENT)):
                for side in Side:
                    self._lexer(line.session, side).reset()
            case Gap():
                for side in Side:
                    self._lexer(line.session, side).resume()
            case Conn():
                for side in Side:
                    self._lexers[line.session, side] = Lexer()
        return []

    def _lexer(self, session: int, side: Side) -> Lexer:
        return self._lexers.setdefault((session, side), Lexer())


def elements_of(lines: Iterable[TraceLine]) -> Iterator[Element]:
    """Yield the elements of a capture's lines, in the order they were complete."""
    elements = Elements()
    for line in lines:
        if not isinstance(line, Meta):
            yield from elements.of(line)


def _element(line: Xml, unit: Unit) -> Element:
    return Element(
        session=line.session,
        sent_by=line.sent_by,
        unit=unit,
        phase=line.phase,
        t_ns=line.t_ns,
        n=line.n,
        line=line.line,
    )


def _said(line: Said, unit: Unit) -> Element:
    return Element(
        session=line.session,
        sent_by=line.to.other,
        unit=unit,
        phase="plain",
        t_ns=line.t_ns,
        n=line.n,
        line=line.line,
        by_proxy=True,
    )
