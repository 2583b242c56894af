"""Stream management (XEP-0198): enabling, resuming, and whether the counters add up.

The stream id is a bearer secret: whoever has it and the account may take over the session. It is hashed with the
installation's key where it is read, and only the hash goes on.

A side's *sent* count starts at ``<enable/>`` for the client and ``<enabled/>`` for the server (section 4), and after
a resumption at what the other side says it has handled (section 5). Counters wrap at 2^32.
"""

import enum
from typing import Final, Protocol

import attrs
from lxml import etree

from xproxy.events import Event, Side
from xproxy.events.session import SessionResumed, SessionResumeFailed, SmAnomaly, SmEnabled
from xproxy.events.stream import RedirectOffered
from xproxy.xmpp import ns
from xproxy.xmpp.stanza import keyed_hash

_WRAP: Final = 2**32
_ACK_NS: Final = 30 * 1_000_000_000  # section 4: "as soon as possible"; a phone that sleeps answers when it wakes
_TRUE: Final = frozenset({"true", "1"})
_STANZA_ERROR: Final = f"{{{ns.STANZA_ERRORS}}}"


class _Asked(enum.Enum):
    NOTHING = enum.auto()
    ENABLE = enum.auto()
    RESUME = enum.auto()


class Sender(Protocol):
    """A side of the connection."""

    @property
    def stanzas(self) -> int:
        """How many stanzas it has sent so far on this connection."""


@attrs.define
class _Counter:
    """What one side has sent since management began: stanzas now minus ``base``."""

    sender: Sender
    base: int | None = None

    def start(self, already: int = 0) -> None:
        self.base = self.sender.stanzas - already

    @property
    def sent(self) -> int | None:
        return None if self.base is None else self.sender.stanzas - self.base


class StreamManagement:
    """The XEP-0198 dialogue of one connection."""

    def __init__(self, *, key: bytes, client: Sender, server: Sender) -> None:
        self._key = key
        self._counters = {Side.CLIENT: _Counter(client), Side.SERVER: _Counter(server)}
        self._asked = _Asked.NOTHING
        self._previous: str | None = None  # hash of the id the client wants to resume
        self._client_handled: int | None = None
        self._asked_at_ns = 0
        self._ack_wanted_at_ns: dict[Side, int | None] = dict.fromkeys(Side)  # by who is to answer
        self.resumed = False

    def from_client(self, name: str, element: etree._Element, at_ns: int) -> list[Event]:
        """``name`` is the local name of an element in an SM namespace."""
        match name:
            case "enable":
                self._asked = _Asked.ENABLE
                self._counters[Side.CLIENT].start()
            case "resume":
                self._asked = _Asked.RESUME
                self._asked_at_ns = at_ns
                self._previous = self._hash(element.get("previd"))
                self._client_handled = unsigned(element.get("h"))
            case "r":
                self._wanted(Side.SERVER, at_ns)
            case "a":
                return self._acknowledged(Side.CLIENT, element)
        return []

    def from_server(self, name: str, element: etree._Element, at_ns: int, *, before_tls: bool) -> list[Event]:
        """The server's half of the dialogue."""
        match name:
            case "enabled":
                return self._enabled(element, before_tls=before_tls)
            case "resumed":
                return self._resumed(element, at_ns)
            case "failed":
                return self._failed(element)
            case "r":
                self._wanted(Side.CLIENT, at_ns)
            case "a":
                return self._acknowledged(Side.SERVER, element)
        return []

    @property
    def next_due_ns(self) -> int | None:
        """When to call ``overdue`` again."""
        return min((since + _ACK_NS for since in self._ack_wanted_at_ns.values() if since is not None), default=None)

    def overdue(self, at_ns: int) -> list[Event]:
        """Return who has not acknowledged in time, each once a request: a client asleep, a connection that is dead."""
        events: list[Event] = []
        for by, since in self._ack_wanted_at_ns.items():
            if since is not None and since + _ACK_NS <= at_ns:
                self._ack_wanted_at_ns[by] = None
                sent = self._counters[by.other].sent
                events.append(SmAnomaly(sent_by=by, kind="ack-overdue", handled=None, sent=sent))
        return events

    def _wanted(self, by: Side, at_ns: int) -> None:
        if self._ack_wanted_at_ns[by] is None:
            self._ack_wanted_at_ns[by] = at_ns

    def _enabled(self, element: etree._Element, *, before_tls: bool) -> list[Event]:
        events: list[Event] = []
        if self._asked is not _Asked.ENABLE:
            events.append(SmAnomaly(sent_by=Side.SERVER, kind="unexpected-answer", handled=None, sent=None))
        self._asked = _Asked.NOTHING
        self._counters[Side.SERVER].start()
        location = element.get("location")
        resumable = element.get("resume") in _TRUE
        enabled = SmEnabled(
            id_hash=self._hash(element.get("id")) if resumable else None,
            resumable=resumable,
            max_seconds=unsigned(element.get("max")),
            has_location=location is not None,
        )
        events.append(enabled)
        if location:
            events.append(RedirectOffered(mechanism="sm-location", target=location, before_tls=before_tls))
        return events

    def _resumed(self, element: etree._Element, at_ns: int) -> list[Event]:
        if self._asked is not _Asked.RESUME or self._previous is None:
            return [SmAnomaly(sent_by=Side.SERVER, kind="unexpected-answer", handled=None, sent=None)]
        self._asked = _Asked.NOTHING
        handled = unsigned(element.get("h"))
        self._counters[Side.CLIENT].start(handled or 0)
        self._counters[Side.SERVER].start(self._client_handled or 0)
        self.resumed = True
        return [
            SessionResumed(
                id_hash=self._previous,
                client_handled=self._client_handled,
                server_handled=handled,
                duration_ns=at_ns - self._asked_at_ns,
            )
        ]

    def _failed(self, element: etree._Element) -> list[Event]:
        condition = next(
            (
                child.tag.removeprefix(_STANZA_ERROR)
                for child in element
                if isinstance(child.tag, str) and child.tag.startswith(_STANZA_ERROR)
            ),
            None,
        )
        asked, self._asked = self._asked, _Asked.NOTHING
        handled = unsigned(element.get("h"))
        if asked is _Asked.RESUME:
            return [SessionResumeFailed(id_hash=self._previous, condition=condition, server_handled=handled)]
        kind = "enable-failed" if asked is _Asked.ENABLE else "unexpected-answer"
        return [SmAnomaly(sent_by=Side.SERVER, kind=kind, handled=handled, sent=None, condition=condition)]

    def _acknowledged(self, by: Side, element: etree._Element) -> list[Event]:
        """``by`` says how many stanzas of the other side it has handled (section 4)."""
        self._ack_wanted_at_ns[by] = None
        handled, sent = unsigned(element.get("h")), self._counters[by.other].sent
        if handled is None:
            return [SmAnomaly(sent_by=by, kind="h-invalid", handled=None, sent=sent)]
        if sent is not None and (sent - handled) % _WRAP >= _WRAP // 2:
            return [SmAnomaly(sent_by=by, kind="handled-count-too-high", handled=handled, sent=sent)]
        return []

    def _hash(self, value: str | None) -> str | None:
        return keyed_hash(self._key, "sm", value) if value else None


def unsigned(text: str | None) -> int | None:
    """Parse an xs:unsignedInt (XEP-0198 section 4); None for anything else."""
    if text is None or not text.isascii() or not text.strip().isdecimal() or len(text) > 16:
        return None
    value = int(text)
    return value if value < _WRAP else None
