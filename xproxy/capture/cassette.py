"""A cassette: what two or more parties said to each other, kept to be said again, and to be read in a review.

    <cassette xmlns="urn:xproxy:cassette" xmlns:x="urn:xproxy:cassette" version="2">
      <meta bodies="recorded" by="xproxy 0.1.0" recorded="2026-11-25" redaction="default-2"/>
      <account name="alice" jid="alice@example.test"/>
      <session name="alice" account="alice" domain="example.test" tls="starttls" mechanism="SCRAM-SHA-1"
               mechanisms="SCRAM-SHA-1 PLAIN" sm="no">
        <features stage="login">...</features>             what the server offered, without TLS and SASL: they are live
        <features stage="session">...</features>
      </session>
      <script>                                             all sessions' events, in the order in which they were seen
        <connect in="alice"/>                              TCP, TLS, stream
        <login in="alice"/>                                SASL and bind (or resumption: <resume in="alice"/>)
        <client in="alice" t="61"><iq xmlns="jabber:client" type="get" id="${id:1}">...</iq></client>
        <server in="alice" t="63"><iq xmlns="jabber:client" type="result" id="${id:1}">...</iq></server>
        <expect-none in="alice" for="2"/>                  nothing may come for so long
        <close in="alice" by="client"/>                    the closing tag; <drop/>: the connection went without one
      </script>
    </cassette>

On ``client`` and ``server``: ``t`` (milliseconds since the first event), ``optional="yes"`` (may be missing),
``order="any"`` (free) or ``order="strict"`` (everything before it first, everything behind it after). ``optional`` on
``close`` and ``drop``: the peer may also leave in the other way, or stay. On elements
inside a stanza: ``x:strict="no"`` (more may be there) and ``x:skip="yes"`` (whatever is inside), x being the cassette's
namespace. Values hold placeholders (placeholder.py); everything that holds none is compared to the letter. Nothing is
tolerated that the file does not say. SASL, TLS, stream management and pings of the connection are live and not in the
script.

The bytes are deterministic: reading and writing a file gives the same file (``cassette fmt``).
"""

import enum
from collections.abc import Callable, Iterable
from typing import Final, Literal

import attrs

from xproxy.capture.content import redaction
from xproxy.capture.node import Node
from xproxy.events import Side
from xproxy.xmpp import ns

NAMESPACE: Final = "urn:xproxy:cassette"
VERSION: Final = 2
SUFFIX: Final = ".xmpp.xml"
REDACTION: Final = redaction(bodies=False)
"""By which rules secrets were taken out: those of captures, and of capture/hide.py."""

# Features of a stream that a cassette does not hold: they are live in a replay, or a replay does not know them.
LIVE_FEATURES: Final = frozenset(
    {
        f"{{{ns.TLS}}}starttls",
        f"{{{ns.SASL}}}mechanisms",
        f"{{{ns.BIND}}}bind",
        f"{{{ns.SM2}}}sm",
        f"{{{ns.SASL2}}}authentication",
        f"{{{ns.SASL_CB}}}sasl-channel-binding",
        "{http://jabber.org/features/compress}compression",
        "{http://jabber.org/features/iq-auth}auth",
    }
)


class What(enum.Enum):
    """Kinds of event; the value is the element's name in the file."""

    CONNECT = "connect"  # the client's: TCP, TLS and stream are there
    LOGIN = "login"  # the client's: authenticated and bound, or refused
    RESUME = "resume"  # the client's: XEP-0198 section 5
    STANZA = "stanza"
    CLOSE = "close"
    DROP = "drop"
    QUIET = "expect-none"


@attrs.frozen(kw_only=True)
class Event:
    """One event of the script."""

    number: int  # from 1, as reports call it
    what: What
    side: Side  # whose it is; of ``expect-none``: who shall be silent
    session: str
    stanza: Node | None = None  # with placeholders; of ``expect-none`` what must not come, None for anything
    t_ms: int | None = None
    order: Literal["lane", "any", "strict"] = "lane"
    optional: bool = False
    seconds: float = 0.0  # of ``expect-none``
    line: int | None = attrs.field(default=None, eq=False)
    comments: tuple[str, ...] = ()  # that stand before it in the file


@attrs.frozen(kw_only=True)
class Account:
    """Somebody who logs in. The password comes from the command line."""

    name: str
    jid: str  # bare
    line: int | None = attrs.field(default=None, eq=False)
    comments: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """The localpart."""
        return self.jid.partition("@")[0]

    @property
    def domain(self) -> str:
        """The domainpart."""
        return self.jid.partition("@")[2]


@attrs.frozen(kw_only=True)
class Session:
    """One client's session, over all its connections."""

    name: str
    account: str | None  # None: it never logs in
    domain: str
    tls: Literal["starttls", "direct", "none"] = "starttls"
    mechanism: str | None = None  # that succeeded, or was refused
    mechanisms: tuple[str, ...] = ()  # offered, without those that a replay cannot play
    refused: str | None = None  # the condition, where the recorded login failed
    resource: str | None = None  # asked for; None: the server chose
    sm: Literal["no", "yes", "resume"] = "no"  # stream management as the server granted it
    login_features: tuple[Node, ...] = ()
    session_features: tuple[Node, ...] = ()
    line: int | None = attrs.field(default=None, eq=False)
    comments: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Meta:
    """Where the cassette comes from."""

    recorded: str | None = None  # the day
    by: str | None = None
    redaction: str = REDACTION
    bodies: Literal["recorded", "hidden"] = "hidden"


@attrs.frozen(kw_only=True)
class Cassette:
    """All of it."""

    meta: Meta = attrs.Factory(Meta)
    accounts: tuple[Account, ...] = ()
    sessions: tuple[Session, ...] = ()
    events: tuple[Event, ...] = ()
    tail: tuple[str, ...] = ()  # comments behind the last event
    file: str = attrs.field(default="", eq=False)  # as it was named

    def account(self, name: str) -> Account:
        """Return the account of that name, which is there: it was checked."""
        return next(account for account in self.accounts if account.name == name)

    def session(self, name: str) -> Session:
        """Return the session of that name, which is there: it was checked."""
        return next(session for session in self.sessions if session.name == name)

    def in_session(self, name: str) -> tuple[Event, ...]:
        """Return the events of one session."""
        return tuple(event for event in self.events if event.session == name)

    def with_stanzas(self, change: Callable[[Node], Node]) -> "Cassette":
        """Return the cassette with each stanza (and feature) changed."""
        return attrs.evolve(
            self,
            events=tuple(
                event if event.stanza is None else attrs.evolve(event, stanza=change(event.stanza))
                for event in self.events
            ),
        )


def numbered(events: Iterable[Event]) -> tuple[Event, ...]:
    """Return the events with their numbers in order."""
    return tuple(attrs.evolve(event, number=number) for number, event in enumerate(events, 1))
