"""Events of one session, or of the proxy -> records.

A recorder gives each record its id and stamps what is known so far: addresses, the user and how far he is proven, TLS.
It learns from the events themselves, in their order, so that live and offline give the same records. What does not
change from one record to the next is nested and cleaned once and then shared by them.

**Who the client is.** ``xmpp.jid_source`` rises: stream-from (a claim in a header) < sasl-claimed (a claim in a login)
< sasl-success (the server accepted that login) < bind-result or resumed (the server named the session). Only from
sasl-success on the user is proven. A new login attempt replaces the claim of the last one, also by nothing.

**What is said of him** is ``identities.py``'s business: facts are known in clear here and covered as they are written.
"""

import enum
import functools
import itertools
from typing import Final

import attrs
import orjson

from xproxy.events import EVENT_TYPES, Event, Level, Side
from xproxy.events.connection import ConnectionAccepted, UpstreamConnected
from xproxy.events.delegates import delegates_of
from xproxy.events.sasl import SaslStarted, SaslSucceeded
from xproxy.events.session import ResourceBound, SessionEstablished
from xproxy.events.stream import StreamOpened
from xproxy.events.tls import TlsEstablished, TlsPassthrough
from xproxy.jid import Jid
from xproxy.record.document import Document, Facts, Value, timestamp, write_facts
from xproxy.record.ecs import SHAPES, client_facts, dataset_of, facts_of, level_name, server_facts
from xproxy.record.fields import ECS_VERSION
from xproxy.record.identities import Identities


@attrs.frozen(kw_only=True)
class Observer:
    """Who writes the log: this proxy on this machine in this run."""

    version: str
    hostname: str
    boot_id: str  # one run of the proxy; 32 hex digits
    node: str | None = None  # service.node.name, where several instances share a host


@attrs.frozen
class Record:
    """One event as it is written. ``document`` shares parts with other records: never change it."""

    document: Document
    level: Level
    action: str

    def to_json(self) -> bytes:
        """Return the document as one line of UTF-8 with its line end."""
        return orjson.dumps(self.document, option=orjson.OPT_APPEND_NEWLINE)


class SessionRecorder:
    """Makes the records of one session. Not thread-safe; belongs to the session's task."""

    __slots__ = ("_base", "_cover", "_generation", "_identities", "_known", "_number", "_template", "_to", "_trace_id")

    def __init__(self, *, trace_id: str, observer: Observer, identities: Identities | None = None) -> None:
        """``trace_id``: 32 lower-case hex digits, random, not all zero (W3C trace context).

        ``identities``: what is done to them; None: they are written as they are.
        """
        self._cover = identities
        self._generation = 0
        self._trace_id = trace_id
        self._number = 0
        self._to: str | None = None
        self._identities: dict[_Source, _Identity] = {}
        self._known: dict[str, Value] = {"trace.id": trace_id, "network.transport": "tcp", "network.protocol": "xmpp"}
        self._base = _base_of(observer)
        self._template: Document | None = None  # everything known, nested; None: to be made anew

    def record(self, event: Event, at_ns: int) -> Record:
        """Return the record of ``event``, which happened at ``at_ns`` (UTC, ns since the epoch)."""
        self._learn(event)
        cover = self._cover
        if cover is not None:
            cover.reach(at_ns)
            if cover.generation != self._generation:
                self._generation = cover.generation
                self._template = None
        if self._template is None:
            self._template = dict(self._base)
            write_facts(self._template, self._known if cover is None else {**cover.stamp, **cover.apply(self._known)})
        self._number += 1
        return _record(event, at_ns, f"{self._trace_id}-{self._number}", self._template, cover)

    def known(self) -> Document:
        """Return what every record of the session says of it, covered as in records; the caller's own."""
        document: Document = {}
        write_facts(document, self._known if self._cover is None else self._cover.apply(self._known))
        return document

    def _learn(self, event: Event) -> None:
        match event:
            case ConnectionAccepted():
                self._know(client_facts(event.client, event.listener))
            case UpstreamConnected():
                self._know(server_facts(event.host, event.server))
                self._know({"xproxy.upstream.local.ip": event.local.ip, "xproxy.upstream.local.port": event.local.port})
            case TlsEstablished(leg=Side.SERVER):
                self._know({"xproxy.upstream.verify": event.verify})
            case TlsEstablished():
                self._know(
                    {
                        "tls.established": True,
                        "tls.version": event.version,
                        "tls.version_protocol": "tls",
                        "xproxy.tls.ja4": event.ja4,
                    }
                )
                if event.server_name is not None and self._to is None:
                    self._know({"destination.domain": event.server_name, "server.domain": event.server_name})
            case TlsPassthrough():
                self._know({"xproxy.tls.passthrough": True, "xproxy.tls.ja4": event.ja4})
                if event.server_name is not None and self._to is None:
                    self._know({"destination.domain": event.server_name, "server.domain": event.server_name})
            case StreamOpened(sent_by=Side.CLIENT):
                if event.to is not None:
                    self._to = event.to
                    self._know({"destination.domain": event.to, "server.domain": event.to})
                if event.from_ is not None:
                    self._identify(_Source.STREAM_FROM, _Identity.from_address(event.from_))
            case SaslStarted():
                self._identify(_Source.SASL_CLAIMED, self._login(event.authcid, event.authzid))
            case SaslSucceeded():
                self._identify(_Source.SASL_SUCCESS, self._login(event.authcid, event.authzid))
            case ResourceBound():
                self._identify(_Source.BIND_RESULT, _Identity.from_jid(event.jid))
            case SessionEstablished(jid=Jid() as jid):
                source = _Source.RESUMED if event.how == "resume" else _Source.BIND_RESULT
                self._identify(source, _Identity.from_jid(jid))

    def _know(self, facts: Facts) -> None:
        known = self._known
        changed = {name: value for name, value in facts.items() if known.get(name) != value}
        if not changed:
            return
        # Set-up is mostly additions, and those are cheap. What takes something back is written anew: an old value
        # would stay in related.*, or be named as cut.
        adds_only = not any(
            known.get(name) is not None and (name not in _OVERWRITTEN or value is None)
            for name, value in changed.items()
        )
        known.update(changed)
        if adds_only and self._template is not None:
            self._template = dict(self._template)
            write_facts(self._template, changed if self._cover is None else self._cover.apply(changed))
        else:
            self._template = None

    def _login(self, authcid: str | None, authzid: str | None) -> "_Identity | None":
        """Return who logs in: the user is the authcid's; the address is the one he acts as (RFC 6120 section 6.3.8)."""
        if authcid is None:
            return _Identity.from_address(authzid) if authzid else None
        # An authcid is a localpart by RFC 6120 section 6.3.7; some servers take whole addresses.
        name, at, domain = authcid.partition("@")
        domain = domain if at else (self._to or "")
        address = authzid or (f"{name}@{domain}" if domain else name)
        return _Identity(name=name, domain=domain or None, jid=address)

    def _identify(self, source: "_Source", identity: "_Identity | None") -> None:
        if identity is not None:
            self._identities[source] = identity
        elif self._identities.pop(source, None) is None:
            return
        best = max(self._identities, default=None)
        known = self._identities[best] if best is not None else _NOBODY
        facts: dict[str, Value] = {
            "user.name": known.name,
            "user.domain": known.domain,
            "xmpp.jid": known.jid,
            "xmpp.jid_source": best.name.lower().replace("_", "-") if best is not None else None,
        }
        if self._cover is not None:
            facts["user.hash"] = f"{known.name}@{known.domain}" if known.name and known.domain else None
        self._know(facts)


class ProxyRecorder:
    """Makes the records of events that belong to no session. Thread-safe: the journal has events of its own."""

    __slots__ = ("_boot_id", "_cover", "_numbers", "_template")

    def __init__(self, *, observer: Observer, identities: Identities | None = None) -> None:
        self._boot_id = observer.boot_id
        self._numbers = itertools.count(1)  # one step of it cannot be interrupted
        self._cover = identities
        self._template = _base_of(observer)

    def record(self, event: Event, at_ns: int) -> Record:
        """Return the record of ``event``, which happened at ``at_ns`` (UTC, ns since the epoch)."""
        template = self._template
        if (cover := self._cover) is not None:
            cover.reach(at_ns)
            template = dict(template)
            write_facts(template, cover.stamp)
        return _record(event, at_ns, f"{self._boot_id}-{next(self._numbers)}", template, cover)


class _Source(enum.IntEnum):
    """Where an identity comes from, in rising trust. Names in kebab-case are ``xmpp.jid_source``."""

    STREAM_FROM = 1
    SASL_CLAIMED = 2
    SASL_SUCCESS = 3
    BIND_RESULT = 4
    RESUMED = 5


@attrs.frozen(kw_only=True)
class _Identity:
    name: str | None
    domain: str | None
    jid: str | None

    @classmethod
    def from_jid(cls, jid: Jid) -> "_Identity":
        return cls(name=jid.local, domain=jid.domain, jid=str(jid))

    @classmethod
    def from_address(cls, text: str) -> "_Identity":
        """Read an address as a peer wrote it, valid or not (parts by RFC 7622 section 3.1)."""
        rest = text.partition("/")[0]
        name, at, domain = rest.partition("@")
        return cls(name=name if at else None, domain=domain if at else rest, jid=text)


_OVERWRITTEN: Final = frozenset({"xmpp.jid_source"})
"""Facts of which nothing is left when another value takes their place: short words of ours, in no other field."""

_NOBODY: Final = _Identity(name=None, domain=None, jid=None)


@functools.lru_cache(maxsize=4)
def _base_of(observer: Observer) -> Document:
    """Return what every record of a run has in common, nested. Shared: not to be changed."""
    base: Document = {}
    write_facts(
        base,
        {
            "ecs.version": ECS_VERSION,
            "observer.type": "proxy",
            "observer.vendor": "xproxy",
            "observer.product": "xproxy",
            "observer.version": observer.version,
            "observer.hostname": observer.hostname,
            "service.name": "xproxy",
            "service.node.name": observer.node,
            "service.ephemeral_id": observer.boot_id,
        },
    )
    return base


def _envelope_of(event_type: type[Event]) -> tuple[Document, Document]:
    """Return what is the same in every record of one action: the top level, and the object ``event``."""
    shape = SHAPES[event_type]
    return (
        {"log": {"level": level_name(event_type.level)}, "message": event_type.message},
        {
            "kind": "event",
            "category": list(shape.category),
            "type": list(shape.type),
            "action": event_type.action,
            "dataset": dataset_of(event_type),
            "module": "xproxy",
            "severity": int(event_type.level),
        },
    )


_ENVELOPES: Final = {event_type: _envelope_of(event_type) for event_type in EVENT_TYPES}


def _record(event: Event, at_ns: int, event_id: str, template: Document, cover: Identities | None) -> Record:
    top, constant = _ENVELOPES[type(event)]
    own = {"id": event_id, **constant}
    document = {"@timestamp": timestamp(at_ns), **top, "event": own, **template}
    facts = facts_of(event)
    if delegates := delegates_of(event):
        facts = {**facts, "xmpp.delegate": delegates}
    write_facts(document, facts if cover is None else cover.apply(facts), {"event": own})
    return Record(document, event.level, event.action)
