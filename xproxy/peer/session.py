"""A bound resource on the server: it outlives its connection when stream management says so."""

from collections.abc import Callable
from typing import Final, Protocol

import attrs

from xproxy.jid import Jid
from xproxy.peer.sm import SmState
from xproxy.xmpp import ns

ACK_REQUEST: Final = f"<r xmlns='{ns.SM3}'/>".encode()
ACK_REQUEST_EVERY: Final = 5  # stanzas: the queue stays short, and not every stanza costs two more elements
UNACKED_MAX: Final = 20_000  # stanzas; a client that never acknowledges is cut off there


class Outlet(Protocol):
    """The connection a session speaks through."""

    def say(self, data: bytes) -> None:
        """Queue ``data``."""

    async def has_room(self) -> None:
        """Return when little enough is queued."""

    def end(self, condition: str, *, inside: str = "") -> None:
        """End the stream with an error."""


@attrs.define(eq=False)
class Session:
    """One resource of one user."""

    jid: Jid
    outlet: Outlet | None
    on_change: Callable[["Session"], None] = attrs.field(repr=False)
    """Called when the session gave up by itself."""
    sm: SmState | None = None
    hibernated_until: float | None = None  # trio's clock; None: connected
    is_available: bool = False  # has sent presence (RFC 6121 section 4.2)
    priority: int = 0
    _ack_is_requested: bool = False

    async def deliver(self, stanza: bytes) -> None:
        """Send ``stanza``, now or after resumption; waits while the client is slow to read."""
        if self.sm is not None:
            self.sm.on_sent(stanza)
        if (outlet := self.outlet) is None:
            return
        outlet.say(stanza)
        if self.sm is not None:
            self._request_ack(outlet, self.sm)
            if len(self.sm.unacked) > UNACKED_MAX:
                self.sm = None
                outlet.end("resource-constraint")
                self.on_change(self)
                return
        await outlet.has_room()

    def _request_ack(self, outlet: Outlet, sm: SmState) -> None:
        if len(sm.unacked) >= ACK_REQUEST_EVERY and not self._ack_is_requested:
            self._ack_is_requested = True
            outlet.say(ACK_REQUEST)

    def on_ack(self, h: int) -> None:
        """Take an acknowledgement.

        Raises:
            AckedTooMuch: as ``SmState.on_ack``.
        """
        assert self.sm is not None
        self.sm.on_ack(h)
        self._ack_is_requested = False
        if self.outlet is not None:
            self._request_ack(self.outlet, self.sm)

    def resume(self, outlet: Outlet, h: int) -> None:
        """Go on through ``outlet``: say what the client has not acknowledged (XEP-0198 section 5).

        Raises:
            AckedTooMuch: the client claims more than was sent.
        """
        assert self.sm is not None
        self.sm.on_ack(h)
        self.outlet, self.hibernated_until = outlet, None
        outlet.say(f"<resumed xmlns='{ns.SM3}' previd='{self.sm.id}' h='{self.sm.h}'/>".encode())
        for stanza in self.sm.unacked:
            outlet.say(stanza)
        self._ack_is_requested = False
        self._request_ack(outlet, self.sm)
