"""One direction of a connection: octets in, stream headers and first-level elements out.

lxml's pull parser reads the live stream, one parser a stream (parser.py). Nothing here decides: what a conforming
server would refuse is a ``Violation``, and the session has the policy. What it leaves to others: which root, which
elements, when a stream may restart, what any of it means.

What must hold:

* The octets seen are the octets a server sees. expat, which the servers use, is the judge (tests/support/judge.py):
  same elements, same refusals. The exceptions are RFC 6120 section 11.1's restrictions, which are said.
* A refused element costs only itself, and a refused stream is latched: lxml would begin a *new document* with the next
  feed after an error, and a peer could tell us any story.
* The cut of the octets changes no item but the offsets and sizes that are a chunk's.
* Memory and time are bounded by the limits, whatever comes.

How it goes: a stream is read up to its header (header.py), then its content in one of three ways (content.py), then
what stands behind its closing tag is passed over here. ``restart`` begins with the next header.

**Names** (names.py) are interned for the life of the process, so feeds are sliced and the dictionary is measured after
each. A start tag is parsed when it is complete, all its names at once: attributes of an unfinished tag are counted
(bounds.py).

Doubt: libxml2 looks at a tag when it is complete, expat at every octet. A peer that sends half a tag which is wrong
already is refused by the server before we notice. Nothing can hide in it: it is no element, and the server's stream
error is seen.
"""

import re
from typing import Final

from xproxy.config.stream import StreamLimits
from xproxy.xmpp.bounds import Bounds
from xproxy.xmpp.content import Content, State
from xproxy.xmpp.header import Header, HeaderReader
from xproxy.xmpp.items import FirstLevelElement as FirstLevelElement
from xproxy.xmpp.items import Item as Item
from xproxy.xmpp.items import StreamEnd as StreamEnd
from xproxy.xmpp.items import StreamHeader as StreamHeader
from xproxy.xmpp.items import StreamLimit as StreamLimit
from xproxy.xmpp.items import Tally
from xproxy.xmpp.items import Violation as Violation
from xproxy.xmpp.names import NameBudget as NameBudget
from xproxy.xmpp.prolog import WHITE
from xproxy.xmpp.tags import pieces as pieces
from xproxy.xmpp.tags import start_tag_name
from xproxy.xmpp.violation import Severity as Severity
from xproxy.xmpp.violation import ViolationKind as ViolationKind

_HEADER_BEHIND_MAX: Final = 72  # octets of a start tag that tell whether it is a stream's
_HEADER_BEHIND: Final = re.compile(rb"<(?:[^\s<>/:!?]{1,64}:)?stream[\s/>]|<\?xml")


class StreamReader:
    """One direction of one connection over all its streams.

    In negotiation feed each of ``pieces(data)``: element ends are exact, and ``opens_stream`` can tell of a new header
    before it is fed. (``feed_one`` takes what is one element as exactly, and cheaper.) Afterwards feed what comes. When
    the input ends, ask ``finish``.
    """

    __slots__ = (
        "_behind",
        "_bounds",
        "_broken",
        "_content",
        "_expects_whole",
        "_header",
        "_limits",
        "_opening",
        "_position",
        "_tally",
        "fed_whole",
    )

    def __init__(self, *, limits: StreamLimits, names: NameBudget) -> None:
        self._limits = limits
        self._bounds = Bounds(limits, names)
        self._expects_whole = False
        self.fed_whole = False  # the last feed was of complete elements, and their trees are the caller's alone
        self._begin(0)

    def _begin(self, position: int) -> None:
        """Begin a stream behind ``position`` octets."""
        self._tally = Tally()
        self._bounds.renew()
        self._position = position  # up to date while neither a header nor content is read
        # One of these is at work, or neither: the stream has ended or is broken.
        self._opening: HeaderReader | None = HeaderReader(self._limits, self._bounds, self._tally, position)
        self._content: Content | None = None
        self._header: Header | None = None
        self._behind = b""  # the last tag behind the closing tag, as far as it came
        self._broken = False

    def restart(self) -> None:
        """The next octet begins a new document: after proceed, success, compressed, TLS. The offset goes on."""
        self._begin(self.offset)

    @property
    def offset(self) -> int:
        """Octets given so far, over all streams of this direction."""
        if self._content is not None:
            return self._content.position
        return self._position if self._opening is None else self._opening.position

    @property
    def broken(self) -> bool:
        """Nothing more is seen until ``restart``."""
        return self._broken or (self._content is not None and self._content.state is State.BROKEN)

    @property
    def elements(self) -> int:
        """First-level elements seen in this stream."""
        return self._tally.elements

    @property
    def at_boundary(self) -> bool:
        """Nothing is open but the stream: what comes next is a first-level element, white space or the end."""
        if self._content is not None:
            return self._content.at_boundary
        return not self.broken if self._opening is None else self._opening.held == b""

    def count_names_in(self, names: NameBudget) -> None:
        """Count new names in ``names`` from now on."""
        self._bounds.names = names

    def expect_whole(self) -> None:
        """The stream is established: from now on most chunks are complete elements."""
        self._expects_whole = True
        if self._content is not None:
            self._content.expect_whole()

    def renew_parser(self) -> None:
        """Go on with a new parser: the old one adds to a dictionary of names that was replaced."""
        if self._content is not None:
            self._content.renew_parser()

    def read_again(self, data: bytes) -> list[FirstLevelElement]:
        """Return the elements of ``data`` for a second look, if feeding it left ``fed_whole``."""
        return [] if self._content is None else self._content.read_again(data)

    def opens_stream(self, piece: bytes) -> bool:
        """Tell whether ``piece``, met at a boundary, is an XML declaration or a start tag with the root's name."""
        piece = piece.lstrip(WHITE)
        header = self._header
        if header is None or not piece.startswith(b"<"):
            return False
        if piece.startswith(b"<?xml"):
            return piece[5:6] in (b" ", b"\t", b"\r", b"\n")
        return start_tag_name(piece, header.namespaces) == header.name

    def finish(self) -> list[Item]:
        """Return what the end of the input leaves to say: an element that was being skipped was lost."""
        items: list[Item] = []
        if self._content is not None:
            self._content.finish(items)
            self._leave_content(self._content)
        return items

    def feed(self, data: bytes) -> list[Item]:
        """Take the next octets, in any cut, and return what became complete, in order. Never raises."""
        content = self._content
        if content is not None:
            whole = content.feed_whole(data)
            if whole is not None:
                self.fed_whole = True
                return whole
        self.fed_whole = False
        items: list[Item] = []
        if b"\0" in data:
            self._feed_null(data, items)
        else:
            self._feed_slices(data, items)
        return items

    def feed_one(self, data: bytes) -> list[Item] | None:
        """Take ``data`` if it is one complete element, met at a boundary, and return it. None: nothing was done.

        Its end is as exact as if each piece had been fed, and it is not the header of a new stream.
        """
        one = None if self._content is None else self._content.feed_whole(data, one=True)
        self.fed_whole = one is not None
        return one

    def _feed_null(self, data: bytes, items: list[Item]) -> None:
        """Stop at a NUL, which no XML in UTF-8 holds: libxml2 takes it for the end of its buffer now and then."""
        at = data.index(b"\0")
        held = None if self._opening is None else self._opening.held
        if held is not None and (held + data[:at]).lstrip(WHITE) in (b"", b"<"):
            self._feed_slices(data, items)  # UTF-16, perhaps
            return
        self._feed_slices(data[:at], items)
        null_at = self.offset
        if not self.broken:
            items.append(Violation(kind=ViolationKind.BAD_CHARACTER, severity=Severity.STREAM, offset=null_at + 1))
        self._stop(null_at + len(data) - at, broken=True)

    def _feed_slices(self, data: bytes, items: list[Item]) -> None:
        at = 0
        while at < len(data):
            content = self._content
            end = at + self._bounds.names.slice_bytes if content is None else content.cut(data, at)
            self._feed_part(data[at:end], items)
            at = end

    def _feed_part(self, part: bytes, items: list[Item]) -> None:
        while part:
            if self._content is not None:
                part = self._content.feed(part, items)
                self._leave_content(self._content)
            elif self._opening is not None:
                part = self._feed_header(self._opening, part, items)
            else:
                if not self.broken:
                    self._feed_behind(part, items)
                self._position += len(part)
                part = b""

    def _feed_header(self, opening: HeaderReader, part: bytes, items: list[Item]) -> bytes:
        part = opening.feed(part, items)
        if opening.is_broken:
            self._stop(opening.position, broken=True)
        elif opening.header is not None:
            self._opening = None
            self._header = header = opening.header
            self._content = content = Content(
                header, limits=self._limits, bounds=self._bounds, tally=self._tally, position=opening.position
            )
            if self._expects_whole:
                content.expect_whole()
            self._leave_content(content)
        return part

    def _leave_content(self, content: Content) -> None:
        """Let go of ``content`` if it is over."""
        if content.state in (State.ENDED, State.BROKEN):
            self._stop(content.position, broken=content.state is State.BROKEN)

    def _stop(self, position: int, *, broken: bool) -> None:
        self._opening = self._content = None
        self._position = position
        self._broken = broken

    def _feed_behind(self, data: bytes, items: list[Item]) -> None:
        """Behind the closing tag: noted and passed over. A stream that begins anew ends inspection.

        The stream is over: to a server's parser whatever follows is an error or nothing, so it hides nothing.
        COMPAT(slixmpp 1.17): it closes twice where an application disconnects behind a refused login.
        COMPAT(@xmpp/client 0.14, profanity 0.13): they answer acknowledgement requests and send iqs there.
        """
        held = self._behind + data
        begin = self._position - len(self._behind)
        text = held.lstrip(WHITE)
        if text:
            self._tally.note(items, ViolationKind.AFTER_END, begin + len(held) - len(text))
        header = _HEADER_BEHIND.search(held)
        if header is not None:
            offset = begin + header.end()
            items.append(Violation(kind=ViolationKind.AFTER_END, severity=Severity.STREAM, offset=offset))
            self._broken = True
        tag = held.rfind(b"<")
        self._behind = held[tag : tag + _HEADER_BEHIND_MAX] if tag >= 0 else b""
