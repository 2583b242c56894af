"""Servers and components: dialback (XEP-0220) and the component protocol (XEP-0114). Keys and digests never."""

import attrs

from xproxy.events.common import EventBase, Level, Side


@attrs.frozen(kw_only=True)
class DialbackResult(EventBase):
    """A verdict of server dialback: on a stream (``result``) or on a key (``verify``) (XEP-0220 section 2)."""

    action = "dialback-result"
    level = Level.INFO
    message = "A server gave its verdict in dialback."

    sent_by: Side
    element: str  # "result", "verify"
    verdict: str  # "valid", "invalid", "error"; "other" for anything else
    from_: str | None  # domains, as sent
    to: str | None
    condition: str | None  # of a verdict "error"


@attrs.frozen(kw_only=True)
class ComponentAuthenticated(EventBase):
    """The server accepted a component's handshake (XEP-0114 section 3)."""

    action = "component-authenticated"
    level = Level.INFO
    message = "A component logged in."

    domain: str | None  # the component's name: the stream's ``to``
    duration_ns: int  # from handshake to answer


@attrs.frozen(kw_only=True)
class ComponentRefused(EventBase):
    """The server refused a component's handshake with a stream error (XEP-0114 section 3)."""

    action = "component-refused"
    level = Level.ERROR
    message = "A component was refused."

    domain: str | None
    condition: str  # of the stream error: "not-authorized" for a wrong secret, "conflict", "host-unknown"
    condition_known: bool
    duration_ns: int | None  # None: there was no handshake yet
