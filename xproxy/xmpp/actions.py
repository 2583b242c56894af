"""What the session core tells the relay to do. The relay carries a list out in order."""

import enum
import functools

import attrs

from xproxy.events import EndOfInput, Event, Side
from xproxy.events.connection import CloseCause, ServerTls


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
    """Begin TLS: look at the ClientHello, secure the server leg (if it is to be), then the client leg.

    What is read by then is paused already. The relay reports with ``tls_established`` or ``tls_failed``.
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


@attrs.frozen(kw_only=True)
class Progress:
    """How far a session has come, for whoever looks on; made when it is asked for."""

    phase: str  # a value of ``session.Phase``
    mechanism: str | None  # of the last login that was tried


Action = Forward | Send | Pause | Resume | StartTls | VerifyName | Wake | Close | Observe


class LegMode(enum.Enum):
    """How a session begins: on both legs alike, or on the client's leg otherwise than on the server's."""

    CLEAR = "clear"  # XML first; STARTTLS may follow
    DIRECT_TLS = "direct-tls"  # TLS from the first byte (XEP-0368)
    CLEAR_TO_DIRECT = "clear-to-direct-tls"  # STARTTLS with us, then TLS from the first byte with the server
    CLEAR_TO_PLAIN = "clear-to-plain"  # STARTTLS with us; the server's leg stays in clear
    DIRECT_TO_CLEAR = "direct-tls-to-clear"  # we ask the server for STARTTLS
    DIRECT_TO_PLAIN = "direct-tls-to-plain"

    @property
    def is_direct(self) -> bool:
        """Whether the client's leg begins with TLS."""
        return self in (LegMode.DIRECT_TLS, LegMode.DIRECT_TO_CLEAR, LegMode.DIRECT_TO_PLAIN)

    @property
    def server_tls(self) -> ServerTls:
        """How TLS begins on the server's leg."""
        match self:
            case LegMode.CLEAR | LegMode.DIRECT_TO_CLEAR:
                return ServerTls.STARTTLS
            case LegMode.DIRECT_TLS | LegMode.CLEAR_TO_DIRECT:
                return ServerTls.DIRECT
            case LegMode.CLEAR_TO_PLAIN | LegMode.DIRECT_TO_PLAIN:
                return ServerTls.NONE

    @classmethod
    @functools.cache
    def of(cls, *, direct: bool, server: ServerTls) -> "LegMode":
        """Return the mode of a client that began with TLS (``direct``) or in clear, before ``server``."""
        return next(mode for mode in cls if (mode.is_direct, mode.server_tls) == (direct, server))
