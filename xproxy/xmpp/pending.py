"""Requests that wait for an answer: ``iq`` of type get or set, per direction (RFC 6120 section 8.2.3).

An answer belongs to a request by its id and its peer. The client's own server and account answer under several names
(no address, the account's JID, the domain: RFC 6120 sections 8.1.2.1 and 10.3), so these count as one peer, *home*.
Before the account is known nobody else can reach the client, and any address answers a request to home: some servers
put the account's JID on the bind result, which is what first tells it.

Two requests that an answer could belong to, by one id or by none, are answered in their order (RFC 6120 section 10.1).
The later one must not be taken for the one that is meant: before its login a client may ask for a registration form
and, by the same id, log in as somebody else, and the form would be that login's success.

A request that is not answered in the time its sender waits is *expired*: it is told once, and kept so that a late
answer is known for what it is. ``next_due_ns`` says when to look again; it may be early, never late.

Memory is bounded whatever peers write: ``limit`` requests a direction and ``without_id_max`` of those without an id.
The oldest goes first, and then answers may be taken for those of later ones: nobody's login may depend on it. An id or
an address that is long is kept as a digest.
"""

import contextlib
import hashlib
from itertools import chain
from typing import Final

import attrs
from lxml import etree

from xproxy.events import Side
from xproxy.events.stanza import RequestFacts
from xproxy.jid import Jid, JidError
from xproxy.xmpp.evidence import answer_seconds
from xproxy.xmpp.redact import child_names

KEY_CHARS_MAX: Final = 128  # ids are UUIDs or shorter, addresses too; a digest stands for anything longer

_HOME: Final = ""
_NS: Final = 1_000_000_000


@attrs.define
class _Waiting:
    number: int  # in the order they were sent
    peer: str
    to: str | None  # the peer as it was written, cut
    id: str | None
    type: str | None
    payload: str | None
    purpose: str | None
    fields: tuple[str, ...]
    at_ns: int
    threshold_ns: int
    expired: bool = False

    def facts(self, asker: Side, at_ns: int) -> RequestFacts:
        """What the log says of the request."""
        return RequestFacts(
            sent_by=asker,
            type=self.type,
            payload=self.payload,
            age_ns=at_ns - self.at_ns,
            purpose=self.purpose,
            fields=self.fields,
            late=self.expired,
        )


@attrs.frozen(kw_only=True)
class Expired:
    """A request that was not answered in time."""

    request: RequestFacts
    id: str | None  # as sent, cut; a digest stands for a long one
    peer: str | None  # who was to answer, as sent
    threshold_ns: int


class PendingRequests:
    """The requests of one connection, in both directions. ``side`` is always who sent the element."""

    def __init__(self, limit: int, without_id_max: int) -> None:
        self._limit = limit
        self._without_id_max = without_id_max
        self._home = {_HOME}
        self._account_known = False
        # Plain dicts and lists: an OrderedDict and a deque take 900 bytes a side where nothing waits.
        self._by_id: dict[Side, dict[tuple[str, str], list[_Waiting]]] = {side: {} for side in Side}  # oldest first
        self._counts: dict[Side, int] = dict.fromkeys(Side, 0)  # of what those hold
        # COMPAT(XMPPFramework): register, iq-auth and a second bind come without id; they are answered in order.
        self._without_id: dict[Side, list[_Waiting]] = {side: [] for side in Side}
        self._sent = 0
        self.next_due_ns: int | None = None

    def __len__(self) -> int:
        """Return the number of requests that wait, both directions together."""
        return sum(self._counts[side] + len(self._without_id[side]) for side in Side)

    def know(self, *, domain: str | None = None, account: Jid | None = None) -> None:
        """Learn what means home: the domain of the client's stream, the bound JID. Counts for earlier requests too."""
        if domain is not None:
            self._home.add(_address(domain))
        if account is not None:
            self._account_known = True
            self._home |= {_address(str(account)), _address(str(account.bare)), _address(account.domain)}

    def expired(self, at_ns: int) -> list[Expired]:
        """Return the requests that have waited too long, each once."""
        self.next_due_ns = None
        found: list[Expired] = []
        for asker in Side:
            for waiting in chain(*self._by_id[asker].values(), self._without_id[asker]):
                if waiting.expired:
                    continue
                due_ns = waiting.at_ns + waiting.threshold_ns
                if due_ns > at_ns:
                    self._expect(due_ns)
                    continue
                facts = waiting.facts(asker, at_ns)
                waiting.expired = True
                found.append(Expired(request=facts, id=waiting.id, peer=waiting.to, threshold_ns=waiting.threshold_ns))
            # In order, an answer that comes too late would be taken for that of the next one.
            self._without_id[asker] = [each for each in self._without_id[asker] if not each.expired]
        return found

    def _expect(self, due_ns: int) -> None:
        if self.next_due_ns is None or due_ns < self.next_due_ns:
            self.next_due_ns = due_ns

    def clear(self) -> None:
        """Forget everything: nothing learnt in clear survives STARTTLS (RFC 6120 section 5.4.3.3)."""
        self._home = {_HOME}
        self._account_known = False
        self.next_due_ns = None
        for side in Side:
            self._by_id[side].clear()
            self._counts[side] = 0
            self._without_id[side].clear()

    def sent(
        self,
        side: Side,
        element: etree._Element,
        at_ns: int,
        *,
        purpose: str | None = None,
        fields: tuple[str, ...] = (),
    ) -> bool:
        """Remember a request; return True where the oldest of that side had to go for it."""
        names = child_names(element, 1)
        payload = names[0] if names else None
        # The peer is whom the client talks to: its ``to``, and the ``from`` of what the server brings.
        to = element.get("to" if side is Side.CLIENT else "from")
        peer = _address(to)
        id_ = element.get("id")
        self._sent += 1
        waiting = _Waiting(
            number=self._sent,
            peer=peer,
            to=to[:KEY_CHARS_MAX] if to else None,
            id=_bounded(id_) if id_ else None,
            type=element.get("type"),
            payload=payload,
            purpose=purpose,
            fields=fields,
            at_ns=at_ns,
            threshold_ns=int(answer_seconds(payload) * _NS),
        )
        self._expect(at_ns + waiting.threshold_ns)
        if not id_:
            queue = self._without_id[side]
            queue.append(waiting)
            if len(queue) <= self._without_id_max:
                return False
            del queue[0]
            return True
        by_id = self._by_id[side]
        same = by_id.setdefault((_bounded(id_), peer), [])
        if same and same[-1].expired:  # nobody answers those any more: an id is used again
            self._counts[side] -= len(same)
            same.clear()
        same.append(waiting)
        self._counts[side] += 1
        if self._counts[side] <= self._limit:
            return False
        self._drop_first(side, next(iter(by_id)))
        return True

    def _drop_first(self, side: Side, key: tuple[str, str]) -> _Waiting:
        by_id = self._by_id[side]
        same = by_id[key]
        waiting = same.pop(0)
        if not same:
            del by_id[key]
        self._counts[side] -= 1
        return waiting

    def answered(self, side: Side, element: etree._Element, at_ns: int) -> RequestFacts | None:
        """Return the request of the other side that ``element`` answers, and forget it; None where there is none."""
        asker = side.other
        peer = _address(element.get("to" if side is Side.CLIENT else "from"))
        candidates = self._home | {peer} if peer in self._home or not self._account_known else {peer}
        id_ = element.get("id")
        waiting = (
            self._take(asker, _bounded(id_), candidates) if id_ else _take_first(self._without_id[asker], candidates)
        )
        return None if waiting is None else waiting.facts(asker, at_ns)

    def _take(self, asker: Side, id_: str, candidates: set[str]) -> _Waiting | None:
        by_id = self._by_id[asker]
        found = [(id_, peer) for peer in candidates if (id_, peer) in by_id]
        if not found:
            return None
        return self._drop_first(asker, min(found, key=lambda key: by_id[key][0].number))


def _take_first(queue: list[_Waiting], candidates: set[str]) -> _Waiting | None:
    for waiting in queue:
        if waiting.peer in candidates:
            queue.remove(waiting)
            return waiting
    return None


def _address(text: str | None) -> str:
    """Return an address so that two spellings of it are equal; "" for an absent one."""
    if not text:
        return _HOME
    if len(text) <= KEY_CHARS_MAX:
        with contextlib.suppress(JidError):  # what is no JID compares as it is written
            text = str(Jid.from_text(text))
    return _bounded(text)


def _bounded(text: str) -> str:
    if len(text) <= KEY_CHARS_MAX:
        return text
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()
