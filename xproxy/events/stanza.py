"""Stanzas (RFC 6120 section 8): shapes only, never content."""

import attrs

from xproxy.events.common import EventBase, Level, Side


@attrs.frozen(kw_only=True)
class StanzaFacts:
    """What the log may say about a stanza."""

    kind: str  # "iq", "message", "presence"; "other" for an unknown first-level element
    type: str | None  # the type attribute, as sent
    id_hash: str | None  # keyed hash of the id
    to: str | None  # as sent
    from_: str | None
    payloads: tuple[str, ...]  # "{namespace}name" of each child
    octets: int


@attrs.frozen(kw_only=True)
class RequestFacts:
    """The request an error or a result answers."""

    sent_by: Side
    type: str | None
    payload: str | None  # "{namespace}name" of its first child
    age_ns: int
    purpose: str | None = None  # what it is for, where xproxy.xmpp.account.purpose_of knows it
    fields: tuple[str, ...] = ()  # of a registration: names of the fields that were filled in
    late: bool = False  # it had been given up: its iq-timeout is in the log


@attrs.frozen(kw_only=True)
class StanzaError(EventBase):
    """A stanza of type "error" (RFC 6120 section 8.3)."""

    action = "stanza-error"
    level = Level.WARNING
    message = "A stanza error was sent."

    sent_by: Side
    stanza: StanzaFacts
    type: str | None  # "auth", "cancel", "continue", "modify", "wait"; as sent
    condition: str
    condition_known: bool
    by: str | None
    code: str | None  # legacy number
    application_conditions: tuple[str, ...]
    text: str | None  # of the server only; a text that another user wrote never comes here
    text_bytes: int
    request: RequestFacts | None
    skeleton: str
    """The stanza as names, allow-listed attribute values and lengths (xproxy.xmpp.redact)."""


@attrs.frozen(kw_only=True)
class StanzaRelayed(EventBase):
    """A stanza passed. Only made when debug records are wanted."""

    action = "stanza-relayed"
    level = Level.DEBUG
    message = "A stanza passed."

    sent_by: Side
    stanza: StanzaFacts
    answers: RequestFacts | None = None


@attrs.frozen(kw_only=True)
class IqTimeout(EventBase):
    """A request was not answered in the time its sender waits (RFC 6120 section 8.2.3: an answer is a MUST)."""

    action = "iq-timeout"
    level = Level.WARNING
    message = "A request was not answered in time."

    request: RequestFacts
    id_hash: str | None
    peer: str | None  # who is to answer, as sent; None: the client's own server or account
    threshold_ns: int  # how long was waited


@attrs.frozen(kw_only=True)
class IqUnhandled(EventBase):
    """No part of the app wanted a request, so its library refused it: XMPPFramework's automatic 501."""

    action = "iq-unhandled"
    level = Level.WARNING
    message = "An app did not handle a request."

    stanza: StanzaFacts
    payload: str | None  # "{namespace}name" that nobody handled
    request: RequestFacts | None


@attrs.frozen(kw_only=True)
class MucJoinFailed(EventBase):
    """A user could not enter a room, or was put out of it (XEP-0045 sections 7.2, 8.2, 9.1)."""

    action = "muc-join-failed"
    level = Level.WARNING
    message = "A user could not join a room, or was removed from it."

    kind: str  # "join-refused", "kicked", "banned", "removed"
    reason: str  # "password-required", "banned", "members-only", "nick-conflict" ...; "other"
    room: str | None  # bare address, as sent
    condition: str | None  # of the error; None for who was inside
    condition_known: bool | None
    type: str | None
    status_codes: tuple[str, ...]  # XEP-0045 section 15.6
    by_actor: bool  # somebody did it, and is named in the stanza
    text_bytes: int  # of reasons and texts; people write them, so they are never kept


@attrs.frozen(kw_only=True)
class ClientFailureSuspected(EventBase):
    """Something went wrong within the app that the app itself may not see; evidence, no proof."""

    action = "client-failure-suspected"
    level = Level.WARNING
    message = "The client may have failed on what it was sent."

    kind: str
    """"request-unanswered", "closed-after-stanza", "xml-refused", "challenge-unanswered", "success-ignored",
    "left-after-tls": gone without a word inside TLS, so it may not accept our certificate."""
    confidence: str  # "low", "medium", "high"
    payload: str | None  # "{namespace}name" of what was delivered last
    fingerprint: str | None  # of its structure: the same stanza shape gives the same one
    delay_ns: int | None  # from delivery to the end
    occurrences: int = 1  # how often this shape was followed by this


@attrs.frozen(kw_only=True)
class CarbonsForged(EventBase):
    """A carbon copy comes from somebody else than the user's own account (XEP-0280 section 11, CVE-2017-5589)."""

    action = "carbons-forged"
    level = Level.CRITICAL
    message = "A carbon copy was forged."

    stanza: StanzaFacts
    direction: str  # "sent", "received": what it claims to be a copy of
