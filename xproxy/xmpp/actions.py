"""What the session core tells the relay to do. The relay carries a list out in order."""

import enum

import attrs

from xproxy.events import EndOfInput, Event, Side
from xproxy.events.connection import CloseCause


@attrs.define(hash=True)  # frozen in fact; a frozen class takes twice the time to make, and there is one for each chunk
class Forward:
    """Send ``data``, as it came, to the side opposite to the one it was received from."""

    data: bytes


@attrs.frozen
class Send:
    """Send ``data``, our own words, to ``side``. Only ``negotiate`` uses it, where the legs' TLS modes differ."""

    side: Side
    data: bytes


@attrs.frozen
class Pause:
    """Stop reading from ``side`` until ``Resume`` or until TLS is up on it."""

    side: Side


@attrs.frozen
class Resume:
    """Read from ``side`` again."""

    side: Side


@attrs.frozen(kw_only=True)
class StartTls:
    """Begin TLS on both legs: look at the ClientHello, secure the server leg, then the client leg.

    Both legs are paused already. The relay reports with ``tls_established`` or ``tls_failed``.
    """

    domain: str | None  # the stream's ``to``: SNI and reference name upstream


@attrs.frozen
class VerifyName:
    """The stream is for ``domain``, another name than the server's certificate was compared with.

    The relay compares again and, on a mismatch, drops the rest of the list and calls ``tls_failed``. Nothing to do
    where verification is off.
    """

    domain: str


@attrs.frozen
class Wake:
    """``next_tick_ns`` is earlier than it was, though perhaps nothing else is to be done."""


@attrs.frozen(kw_only=True)
class Close:
    """End the session once the forwards before this action are sent: close both legs.

    ``how`` is the kind of close for the legs still open: an abrupt end stays an abrupt end.
    """

    cause: CloseCause
    initiator: Side | None
    how: EndOfInput = EndOfInput.TRUNCATED


@attrs.frozen
class Observe:
    """Hand ``event`` to the recorder before any byte of this turn is sent."""

    event: Event


Action = Forward | Send | Pause | Resume | StartTls | VerifyName | Wake | Close | Observe


class LegMode(enum.Enum):
    """How the session began on both legs."""

    CLEAR = "clear"  # XML first; STARTTLS may follow
    DIRECT_TLS = "direct-tls"  # TLS from the first byte (XEP-0368)
