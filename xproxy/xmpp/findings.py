"""What the conversation of the peers leads to, besides what is only to be recorded. The session draws the conclusions.

They stand in one list with the events, in the order in which they are to be taken.
"""

import attrs

from xproxy.events import Event
from xproxy.jid import Jid
from xproxy.xmpp.items import FirstLevelElement


@attrs.frozen
class TlsAsked:
    """``<starttls/>`` of the client."""


@attrs.frozen
class TlsGranted:
    """``<proceed/>`` of the server, which ended at ``offset``."""

    offset: int


@attrs.frozen
class OtherAnswer:
    """In clear the server says something else: if it was asked for TLS, it refuses."""

    name: str


@attrs.frozen(kw_only=True)
class LoggedIn:
    """``<success/>`` (RFC 6120 section 6.4.6), which ended at ``offset``: both directions restart.

    ``expected``: a login was under way. ``security_layer``: what follows is not XML but SASL's.
    """

    offset: int
    expected: bool
    security_layer: bool


@attrs.frozen
class LoggedInAtOnce:
    """Success of SASL2 (XEP-0388): nothing restarts."""


@attrs.frozen
class Ready:
    """Stanzas may flow: by ``how``, for ``jid`` where it is known; ``stanza`` is the server's that told so, if any."""

    how: str
    jid: Jid | None
    stanza: FirstLevelElement | None = None


@attrs.frozen
class Unreadable:
    """Both peers agreed on something we cannot read, for ``reason``, at ``offset``."""

    reason: str
    offset: int


@attrs.frozen
class Lost:
    """The rest of this direction must not be read as what it seems to be, for ``reason``, from ``offset`` on."""

    reason: str
    offset: int


@attrs.frozen
class Due:
    """There may be an earlier deadline."""


Conclusion = TlsAsked | TlsGranted | OtherAnswer | LoggedIn | LoggedInAtOnce | Ready | Unreadable | Lost | Due
Finding = Event | Conclusion
