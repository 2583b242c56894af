"""Stanzas and what they mean for an operator: errors and the requests that earned them, requests nobody answers, rooms
that refuse, registrations, forged carbons, and what is left to suspect when a client goes away.

``session`` decides what is a stanza of which direction; here it is looked at. The usual message is counted and costs
next to nothing more.
"""

from collections.abc import Sequence
from typing import Final

from lxml import etree

from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import Event, Side
from xproxy.events.stanza import (
    ClientFailureSuspected,
    IqTimeout,
    RequestFacts,
    StanzaError,
    StanzaFacts,
    StanzaRelayed,
)
from xproxy.jid import Jid
from xproxy.xmpp import ns
from xproxy.xmpp.account import purpose_of, registration_ended, registration_fields
from xproxy.xmpp.carbons import carbons_forged
from xproxy.xmpp.evidence import CRASH_SECONDS_MAX, REFUSED_XML_SECONDS_MAX, fingerprint, iq_unhandled
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.muc import join_failed, room_joined
from xproxy.xmpp.pending import Expired, PendingRequests
from xproxy.xmpp.redact import safe_name, skeleton
from xproxy.xmpp.stanza import keyed_hash, read_error, stanza_facts
from xproxy.xmpp.stream import FirstLevelElement

ROOMS_MAX: Final = 100  # joins under way at once; a client with many bookmarks has some dozens

_NS_PER_SECOND: Final = 1_000_000_000


class Traffic:
    """The stanzas of one connection, both directions."""

    def __init__(self, *, policy: StreamPolicy, memory: Memory, limits: StreamLimits) -> None:
        self._policy = policy
        self._debug = policy.debug_events
        self._memory = memory
        self._pending = PendingRequests(limits.pending_requests_max, limits.pending_without_id_max)
        self.has_forgotten = False  # a request that may still be answered had to make room
        self._jid: Jid | None = None
        self._joining: dict[str, None] = {}  # rooms asked for and not yet entered, oldest first

    @property
    def next_due_ns(self) -> int | None:
        """When to call ``unanswered`` again."""
        return self._pending.next_due_ns

    def know(self, *, domain: str | None = None, jid: Jid | None = None) -> None:
        """Learn the domain of the stream, or whose session it is."""
        if jid is not None:
            self._jid = jid
        self._pending.know(domain=domain, account=jid)

    def forget(self) -> None:
        """Drop what was learnt in clear (RFC 6120 section 5.4.3.3)."""
        self._jid = None
        self._pending.clear()
        self.has_forgotten = False

    # Stanzas --------------------------------------------------------------------------------------------------------

    def message(
        self, side: Side, item: FirstLevelElement, type_: str | None, may_be_carbon: bool = True
    ) -> Sequence[Event]:
        """A message of this type passes. Not ``may_be_carbon``: it is known to hold nothing of that namespace."""
        if type_ == "error":
            return [self._error(side, item, None)]
        element = item.element
        is_carbon = (
            may_be_carbon
            and side is not _CLIENT
            and self._jid is not None
            and next(element.iterchildren(_CARBON), None) is not None
        )
        if not is_carbon and not self._debug:  # the usual one
            return ()
        events: list[Event] = []
        if is_carbon:
            assert self._jid is not None
            forged = carbons_forged(element, stanza=self._facts(item), account=self._jid)
            if forged is not None:
                events.append(forged)
        if self._debug:
            events.append(StanzaRelayed(sent_by=side, stanza=self._facts(item)))
        return events

    def presence(self, side: Side, item: FirstLevelElement) -> list[Event]:
        """A presence passes."""
        element = item.element
        events: list[Event] = []
        if side is Side.CLIENT:
            self._note_join(element)
        else:
            failed = join_failed(
                element, joining=self._joining, account=None if self._jid is None else str(self._jid.bare)
            )
            self._joining.pop((element.get("from") or "").partition("/")[0], None)
            if failed is not None:
                events.append(failed)
        if element.get("type") == "error":
            events.append(self._error(side, item, None))
        elif self._debug:
            events.append(StanzaRelayed(sent_by=side, stanza=self._facts(item)))
        return events

    def request(self, side: Side, item: FirstLevelElement, at_ns: int, *, established: bool) -> list[Event]:
        """An ``iq`` of type get or set passes."""
        element = item.element
        purpose = purpose_of(element, established=established)
        fields = registration_fields(element) if purpose == "register" else ()
        self.has_forgotten |= self._pending.sent(side, element, at_ns, purpose=purpose, fields=fields)
        return [StanzaRelayed(sent_by=side, stanza=self._facts(item))] if self._debug else []

    def request_answered(self, side: Side, item: FirstLevelElement, at_ns: int) -> RequestFacts | None:
        """Return the request that an ``iq`` of type result or error answers."""
        return self._pending.answered(side, item.element, at_ns)

    def answer(self, side: Side, item: FirstLevelElement, request: RequestFacts | None) -> list[Event]:
        """An ``iq`` of type result or error passes."""
        element = item.element
        if side is Side.SERVER:
            ended = registration_ended(element, request, server_text=self._policy.server_text)
            if ended is not None:
                return [ended]
        if element.get("type") == "error":
            if side is Side.CLIENT:
                unhandled = iq_unhandled(element, stanza=self._facts(item), request=request)
                if unhandled is not None:
                    return [unhandled]
            return [self._error(side, item, request)]
        if self._debug:
            return [StanzaRelayed(sent_by=side, stanza=self._facts(item), answers=request)]
        return []

    def relayed(self, side: Side, item: FirstLevelElement) -> list[Event]:
        """Something else of the first level passes."""
        return [StanzaRelayed(sent_by=side, stanza=self._facts(item))] if self._debug else []

    def _facts(self, item: FirstLevelElement) -> StanzaFacts:
        return stanza_facts(item.element, item.octets, self._policy.correlation_key)

    def _error(self, side: Side, item: FirstLevelElement, request: RequestFacts | None) -> StanzaError:
        facts = read_error(
            item.element,
            server_text=self._policy.server_text,
            sent_by=side,
            account=None if self._jid is None else str(self._jid.bare),
        )
        return StanzaError(
            sent_by=side,
            stanza=self._facts(item),
            type=facts.type,
            condition=facts.condition,
            condition_known=facts.condition_known,
            by=facts.by,
            code=facts.code,
            application_conditions=facts.application_conditions,
            text=facts.text,
            text_bytes=facts.text_bytes,
            request=request,
            skeleton=skeleton(item.element),
        )

    def _note_join(self, element: etree._Element) -> None:
        room = room_joined(element)
        if room is not None:
            self._joining[room] = None
            if len(self._joining) > ROOMS_MAX:
                del self._joining[next(iter(self._joining))]

    # What did not happen --------------------------------------------------------------------------------------------

    def unanswered(self, at_ns: int) -> list[Event]:
        """Return the requests that were not answered in time, and what that says of the client."""
        events: list[Event] = []
        for expired in self._pending.expired(at_ns):
            events.append(self._timeout(expired))
            if expired.request.sent_by is Side.SERVER:
                events.append(
                    ClientFailureSuspected(
                        kind="request-unanswered",
                        confidence="low",
                        payload=expired.request.payload,
                        fingerprint=None,
                        delay_ns=expired.request.age_ns,
                    )
                )
        return events

    def _timeout(self, expired: Expired) -> IqTimeout:
        return IqTimeout(
            request=expired.request,
            id_hash=None if expired.id is None else keyed_hash(self._policy.correlation_key, "stanza", expired.id),
            peer=expired.peer,
            threshold_ns=expired.threshold_ns,
        )

    # What a client's end says ---------------------------------------------------------------------------------------

    def client_gone(
        self, at_ns: int, delivered: FirstLevelElement | None, delivered_at_ns: int, refused_at_ns: int | None
    ) -> list[Event]:
        """The client went without a closing tag: say what it had just been sent, if that was just now.

        ``delivered``: the server's last stanza, where it can still be read. ``refused_at_ns``: when the server sent
        what is no XML to us.
        """
        if refused_at_ns is not None and at_ns - refused_at_ns <= REFUSED_XML_SECONDS_MAX * _NS_PER_SECOND:
            return [_suspicion("xml-refused", "high", None, None, at_ns - refused_at_ns, 1)]
        item, delay_ns = delivered, at_ns - delivered_at_ns
        if item is None or delay_ns > CRASH_SECONDS_MAX * _NS_PER_SECOND or self._is_expected(item.element):
            return []
        shape = fingerprint(item.element)
        occurrences = self._memory.count_shape(shape)
        confidence = "low" if occurrences == 1 else "medium"
        payload = next((safe_name(child.tag) for child in item.element if isinstance(child.tag, str)), None)
        return [_suspicion("closed-after-stanza", confidence, payload, shape, delay_ns, occurrences)]

    def _is_expected(self, element: etree._Element) -> bool:
        """An answer to its own request, or its own presence: a program that has what it came for often just goes."""
        if element.get("type") in ("result", "error"):
            return True
        from_ = (element.get("from") or "").partition("/")[0]
        return element.tag in _PRESENCES and self._jid is not None and from_ == str(self._jid.bare)


def _suspicion(
    kind: str, confidence: str, payload: str | None, shape: str | None, delay_ns: int, occurrences: int
) -> ClientFailureSuspected:
    return ClientFailureSuspected(
        kind=kind,
        confidence=confidence,
        payload=payload,
        fingerprint=shape,
        delay_ns=delay_ns,
        occurrences=occurrences,
    )


_CLIENT: Final = Side.CLIENT  # looked up in its class it takes five times as long
_PRESENCES: Final = frozenset(f"{{{content}}}presence" for content in ns.CONTENT)
_CARBON: Final = f"{{{ns.CARBONS}}}*"
