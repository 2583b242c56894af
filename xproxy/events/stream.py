"""XML streams: opened, restarted, refused, closed (RFC 6120 section 4)."""

import enum

import attrs

from xproxy.events.common import EventBase, Level, Side


@attrs.frozen(kw_only=True)
class StreamOpened(EventBase):
    """A stream header was seen (RFC 6120 section 4.7): the first one of that direction or the first inside TLS."""

    action = "stream-opened"
    level = Level.INFO
    message = "A stream was opened."

    sent_by: Side
    to: str | None
    from_: str | None
    has_id: bool
    version: str | None
    lang: str | None
    content_namespace: str | None  # "jabber:client", "jabber:server", "jabber:component:accept" ...
    xml_declaration: bool


class RestartReason(enum.Enum):
    """What made a direction restart."""

    SASL = "sasl"
    PEER = "peer"  # a header at an element boundary; nothing of the other direction was waited for


@attrs.frozen(kw_only=True)
class StreamRestarted(EventBase):
    """A new stream header replaced the stream of one direction (RFC 6120 section 4.3.3)."""

    action = "stream-restarted"
    level = Level.DEBUG
    message = "A stream was restarted."

    sent_by: Side
    reason: RestartReason
    pipelined: bool  # sent before the answer that allows it was seen
    to: str | None
    from_: str | None


@attrs.frozen(kw_only=True)
class StreamFeatures(EventBase):
    """The server's features (RFC 6120 section 4.3.2)."""

    action = "stream-features"
    level = Level.INFO
    message = "The server sent its stream features."

    features: tuple[str, ...]  # "{namespace}name" of each child
    starttls: str  # "none", "offered", "required"
    stanza_bytes_max: int | None = None  # XEP-0478
    idle_seconds_max: int | None = None


@attrs.frozen(kw_only=True)
class StreamError(EventBase):
    """A peer ended the stream with an error (RFC 6120 section 4.9)."""

    action = "stream-error"
    level = Level.ERROR
    message = "A stream ended with an error."

    sent_by: Side
    condition: str  # as sent, may be unknown
    condition_known: bool
    application_condition: str | None  # "{namespace}name"
    text: str | None  # of the server only, None where switched off
    text_bytes: int


@attrs.frozen(kw_only=True)
class StreamClosed(EventBase):
    """One direction ended with its closing tag (RFC 6120 section 4.4)."""

    action = "stream-closed"
    level = Level.INFO
    message = "A direction was closed with its closing tag."

    sent_by: Side


@attrs.frozen(kw_only=True)
class StreamViolation(EventBase):
    """A peer sent what a conforming entity would refuse. Never holds the bytes."""

    action = "stream-violation"
    level = Level.WARNING
    message = "A peer broke the rules of XML streams."

    sent_by: Side
    kind: str  # a name from xproxy.xmpp.stream.ViolationKind
    offset: int  # octets of that direction before the place it was noticed


class LossScope(enum.Enum):
    """How much is not inspected."""

    ELEMENT = "element"
    STREAM = "stream"


@attrs.frozen(kw_only=True)
class InspectionLost(EventBase):
    """Something was not inspected: one element, or a direction from here on."""

    action = "inspection-lost"
    level = Level.ERROR
    message = "Part of the traffic could not be inspected."

    sent_by: Side
    scope: LossScope
    reason: str  # a violation's kind, "compression", "security-layer", "restart-missing", "open-at-restart" ...
    offset: int
    octets: int | None  # of the element, where the scope is one
    policy: str  # "relay" or "close": what was done


@attrs.frozen(kw_only=True)
class RedirectOffered(EventBase):
    """The server named another address; a client that follows it goes round the proxy."""

    action = "redirect-offered"
    level = Level.WARNING
    message = "The server offers another address."

    mechanism: str  # "see-other-host", "sm-location"
    target: str  # host[:port]
    before_tls: bool
