"""A captured session as what was said: stream headers, elements and endings of both sides, in their order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import attrs

from xproxy.capture.node import Node, NotXmpp, from_element
from xproxy.capture.trace import Conn, End, Gap, Lost, Meta, Tls, TraceSession, Xml, read_sessions
from xproxy.config.stream import StreamLimits
from xproxy.events import Side
from xproxy.events.tls import TlsEstablished
from xproxy.xmpp import ns
from xproxy.xmpp.names import NameBudget
from xproxy.xmpp.stream import FirstLevelElement, StreamEnd, StreamHeader, StreamReader, Violation, pieces

# After these of the server its next octet begins a new stream (RFC 6120 sections 5.4.3.3 and 6.3.2, XEP-0138).
_RESTARTS: Final = frozenset({f"{{{ns.TLS}}}proceed", f"{{{ns.SASL}}}success", f"{{{ns.COMPRESS}}}compressed"})


@attrs.frozen(kw_only=True)
class Moment:
    """Something was said, or ended."""

    at_ns: int  # UTC
    order: int  # in its capture file, for what happened at one time
    by: Side
    what: Literal["header", "element", "close", "end"]
    element: Node | None = None
    to: str | None = None  # of a header


@attrs.frozen(kw_only=True)
class Story:
    """One connection."""

    meta: Meta
    conn: Conn
    file: Path
    moments: tuple[Moment, ...]
    tls: Literal["starttls", "direct", "none"]
    is_whole: bool


class _NoBudget(NameBudget):
    """The session paid for its names when it was live."""

    __slots__ = ()

    def add(self, count: int) -> None:
        """Count nothing."""


def read_stories(path: Path) -> Iterator[Story]:
    """Yield each session of a capture.

    Raises:
        FileProblem, TraceProblem: as ``read_sessions``.
    """
    for session in read_sessions(path):
        yield story_of(session, path)


def story_of(session: TraceSession, file: Path) -> Story:
    """Return the session as a story."""
    readers = {side: _reader(session.conn.limits) for side in Side}
    rests = dict.fromkeys(Side, b"")  # behind the last ">": where a stream begins anew is seen of whole tags only
    moments: list[Moment] = []
    tls: Literal["starttls", "direct", "none"] = "none"
    is_whole = True
    for line in session.lines:
        at_ns = session.conn.at_ns + line.t_ns
        match line:
            case Xml(phase="opaque"):
                pass
            case Xml():
                whole, gt, rests[line.sent_by] = (rests[line.sent_by] + line.data).rpartition(b">")
                moments += _read(readers[line.sent_by], line, whole + gt, at_ns)
            case Tls(event=TlsEstablished() as event):
                if event.leg is Side.CLIENT:
                    tls = "direct" if event.direct else "starttls"
                readers[event.leg].restart()
                rests[event.leg] = b""
            case End():
                moments.append(Moment(at_ns=at_ns, order=line.line, by=line.sent_by, what="end"))
            case Gap() | Lost():
                is_whole = False
            case _:
                pass
    return Story(meta=session.meta, conn=session.conn, file=file, moments=tuple(moments), tls=tls, is_whole=is_whole)


def _reader(limits: StreamLimits) -> StreamReader:
    names = _NoBudget(limits)
    names.logged_in()
    return StreamReader(limits=limits, names=names)


def _read(reader: StreamReader, line: Xml, data: bytes, at_ns: int) -> Iterator[Moment]:
    for piece in pieces(data):
        if line.sent_by is Side.CLIENT and reader.at_boundary and reader.opens_stream(piece):
            reader.restart()
        for item in reader.feed(piece):
            match item:
                case StreamHeader():
                    to = item.attributes.get("to")
                    yield Moment(at_ns=at_ns, order=line.line, by=line.sent_by, what="header", to=to)
                case FirstLevelElement(element=element):
                    try:
                        node = from_element(element)
                    except NotXmpp:
                        continue
                    yield Moment(at_ns=at_ns, order=line.line, by=line.sent_by, what="element", element=node)
                    if line.sent_by is Side.SERVER and node.tag in _RESTARTS:
                        reader.restart()
                case StreamEnd():
                    yield Moment(at_ns=at_ns, order=line.line, by=line.sent_by, what="close")
                case Violation():
                    pass
                case _:
                    pass
