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
