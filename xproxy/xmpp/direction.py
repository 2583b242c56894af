"""What one side has said so far: its reader, its counts, and where its stream may begin anew."""

import re
from collections.abc import Sequence
from typing import Final

from xproxy.events import EndOfInput, Event, Side
from xproxy.events.connection import DirectionTotals
from xproxy.events.stream import RestartReason, StreamOpened, StreamRestarted
from xproxy.xmpp import ns
from xproxy.xmpp.findings import Lost
from xproxy.xmpp.items import FirstLevelElement, Item, StreamHeader
from xproxy.xmpp.redact import safe_name
from xproxy.xmpp.stream import StreamReader

STANZAS: Final = {f"{{{content}}}{kind}": kind for content in ns.CONTENT for kind in ns.STANZA_KINDS}

_WHITESPACE: Final = b" \t\r\n"
_TAG_BEGIN: Final = re.compile(rb"<[^!?]")  # of an element or a closing tag: no comment, CDATA section, PI or text
_LANG: Final = "{http://www.w3.org/XML/1998/namespace}lang"


class Direction:
    """What one side has sent so far."""

    __slots__ = (
        "acks",
        "bytes",
        "closing_tag",
        "content",
        "declares_carbons",
        "end",
        "errors",
        "held",
        "iqs",
        "is_restart_due",
        "last_at_ns",
        "last_chunk",
        "last_item",
        "last_name",
        "late_answers",
        "may_be_carbon",
        "messages",
        "opaque",
        "opened",
        "orphan_answers",
        "presences",
        "reader",
        "restarted",
        "restarting",
        "side",
    )

    def __init__(self, side: Side, reader: StreamReader) -> None:
        self.side = side
        self.reader = reader
        self.held = bytearray()  # the begin of a tag at an element boundary, not fed yet
        self.bytes = 0
        self.messages = 0
        self.presences = 0
        self.iqs = 0
        self.acks = 0  # of stream management, and requests for them
        self.late_answers = 0  # to requests that had been given up
        self.orphan_answers = 0
        self.errors = 0
        self.content: str | None = None  # the content namespace (RFC 6120 section 4.8.2)
        self.opened = False  # a header was seen since the connection or TLS began
        self.restarting: RestartReason | None = None  # why the next header is a restart
        self.restarted = False  # a header came since the last <auth/>
        self.is_restart_due = False  # the login succeeded, and the header has not come
        self.opaque = False  # relayed without being looked at
        self.closing_tag = False
        self.end: EndOfInput | None = None
        self.last_name: str | None = None
        # The last stanza, while it can be read: until the next feed. If it came in a chunk of complete elements, the
        # chunk, to be read again; each stanza's tree kept until the next one costs a quarter of the time with 500
        # sessions, because by then none of it is in the processor's caches.
        self.last_item: FirstLevelElement | None = None
        self.last_chunk: bytes | None = None
        self.may_be_carbon = True  # no message is taken for none without a look
        self.declares_carbons = False  # by a header: what is in the stream may be one without saying so
        self.last_at_ns = 0

    @property
    def stanzas(self) -> int:
        """Stanzas of all kinds."""
        return self.messages + self.presences + self.iqs

    def last_stanza(self) -> FirstLevelElement | None:
        """Return the last stanza, if the last feed completed it."""
        if self.last_chunk is not None:
            again = self.reader.read_again(self.last_chunk)
            return next((item for item in reversed(again) if item.element.tag in STANZAS), None)
        return self.last_item

    def begin_inside_tls(self) -> None:
        """Begin anew: nothing said in clear counts (RFC 6120 section 5.4.3.3)."""
        self.reader.restart()
        self.held.clear()
        self.opened = False
        self.restarting = None
        self.restarted = False
        self.is_restart_due = False
        self.closing_tag = False

    def feed_exactly(
        self, data: bytes, at: int, *, one: bool, login: bool, logged_in: bool, held_bytes_max: int
    ) -> tuple[Sequence[Item | Lost], int]:
        """Feed ``data`` from ``at`` on, so far that where an element ends is exact; return the items, and how far.

        That is up to a ``>``. With ``one`` it is all of ``data`` if that is one element, as most of what is said in a
        login is. (Looked at once a chunk and once behind a header: of many elements it would be asked in vain.)
        ``login``: one is in progress, ``logged_in``: one has succeeded. A tag is held up to ``held_bytes_max``.
        """
        if (
            one
            and self.opened
            and (at == 0 or self.reader.elements == 0)
            and not (self.held or self.is_restart_due)
            and (found := self.reader.feed_one(data[at:])) is not None
        ):
            return found, len(data)
        end = data.find(b">", at) + 1 or len(data)
        if data[end - 2 : end] == b"?>":  # an instruction ends no element: an XML declaration goes with its header
            end = data.find(b">", end) + 1 or len(data)
        return self._feed_piece(data[at:end], login=login, logged_in=logged_in, held_bytes_max=held_bytes_max), end

    def _feed_piece(self, piece: bytes, *, login: bool, logged_in: bool, held_bytes_max: int) -> Sequence[Item | Lost]:
        """Feed one piece; a tag at an element boundary is looked at whole first, since it may be a new header."""
        reader, held = self.reader, self.held
        if not self.opened or not (held or reader.at_boundary):
            return reader.feed(piece)
        items: list[Item | Lost] = []
        if not held:
            tag = piece.lstrip(_WHITESPACE)
            if len(tag) < len(piece):
                items += reader.feed(piece[: len(piece) - len(tag)])  # keepalives
            piece = tag
        held += piece
        if held.endswith(b">"):
            if reader.opens_stream(bytes(held)):
                # A header at an element boundary replaces the stream of its direction (RFC 6120 section 4.3.3).
                if self.restarting is None and (login or logged_in):
                    self.restarting = RestartReason.SASL
                reader.restart()
            elif self.is_restart_due and not held.startswith(b"</"):
                # RFC 6120 section 6.4.6: the client begins a new stream; or it leaves.
                return [*items, Lost("restart-missing", reader.offset)]
            elif login and self.side is Side.CLIENT and not _TAG_BEGIN.match(held):
                return [*items, Lost("no-element-in-login", reader.offset)]
        elif len(held) <= held_bytes_max:
            return items
        items += reader.feed(bytes(held))
        held.clear()
        return items

    def header_seen(self, header: StreamHeader, *, pipelined: bool) -> Event:
        """A stream begins; return what is to be recorded. ``pipelined``: before the answer that allows it was seen."""
        to, from_ = header.attributes.get("to"), header.attributes.get("from")
        event: Event
        if self.opened:
            reason = self.restarting or RestartReason.PEER
            event = StreamRestarted(sent_by=self.side, reason=reason, pipelined=pipelined, to=to, from_=from_)
        else:
            event = StreamOpened(
                sent_by=self.side,
                to=to,
                from_=from_,
                has_id="id" in header.attributes,
                version=header.attributes.get("version"),
                lang=header.attributes.get(_LANG),
                content_namespace=header.namespaces.get(None),
                xml_declaration=header.xml_declaration,
            )
        self.opened = True
        self.content = header.namespaces.get(None)
        self.declares_carbons = self.declares_carbons or ns.CARBONS in header.namespaces.values()
        self.restarting = None
        self.closing_tag = False
        self.is_restart_due = False
        self.restarted = True
        return event

    def totals(self, at_ns: int) -> DirectionTotals:
        """What ``ConnectionClosed`` says of this direction."""
        name = self.last_name
        return DirectionTotals(
            bytes=self.bytes,
            stanzas=self.stanzas,
            messages=self.messages,
            presences=self.presences,
            iqs=self.iqs,
            acks=self.acks,
            late_answers=self.late_answers,
            orphan_answers=self.orphan_answers,
            errors=self.errors,
            closing_tag=self.closing_tag,
            end=self.end,
            last_element=None if name is None else safe_name(name),
            last_element_age_ms=None if name is None else (at_ns - self.last_at_ns) // 1_000_000,
        )
