"""Whether the server is up: told by sessions that could or could not reach it, and by probes while it is down.

A client that is let in and then closed has found a server and lost it: it tries the same one again, for it has left the
list of its SRV records behind with the first connection (XMPPFramework, and it is not alone). A client whose connection
is refused tries the next one. So while the server is down nobody is let in, if that is wanted: the listeners are shut,
or, where that cannot be, clients are turned away at accept.

Probes are TCP connections that end at once, ever more seldom. With PROXY protocol version 2 they say that they are the
proxy's own (LOCAL).
"""

from collections.abc import Callable
from typing import Final

import attrs
import trio

from xproxy.config.upstream import UpstreamProxyProtocol
from xproxy.events import Event
from xproxy.events.connection import UpstreamConnected, UpstreamFailed, UpstreamFailure
from xproxy.proxy.connect import ConnectFailed, open_upstream
from xproxy.proxy.proxy_protocol import render_local
from xproxy.proxy.route import Asked, Route
from xproxy.proxy.sockets import close_socket, endpoint_of

# What says nothing of the server, but of the client or of ourselves.
_NOT_OF_THE_SERVER: Final = frozenset(
    {
        UpstreamFailure.NO_DOMAIN,
        UpstreamFailure.DOMAIN_NOT_ALLOWED,
        UpstreamFailure.ADDRESS_NOT_ALLOWED,
        UpstreamFailure.CLEAR_NOT_ALLOWED,
        UpstreamFailure.LOOP,
    }
)
_OUR_ERRORS: Final = frozenset({"EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"})

_PROBE_FACTOR: Final = 2.0


@attrs.frozen(kw_only=True)
class HealthSettings:
    """When the server counts as down, and how its return is noticed."""

    down_after_failures: int
    probe_seconds_min: float
    probe_seconds_max: float
    connect_seconds_max: float
    domain: str | None  # the one a probe asks for
    proxy_protocol: UpstreamProxyProtocol


class UpstreamHealth:
    """Watches one server for all sessions. Belongs to their thread."""

    def __init__(self, settings: HealthSettings, route: Route, *, note: Callable[[Event], None]) -> None:
        """``note`` is told when clients are refused from now on, and when they are let in again."""
        self._settings = settings
        self._route = route
        self._note = note
        self._failures = 0  # in a row
        self._down: trio.Event = trio.Event()
        self._up: trio.Event = trio.Event()
        self._up.set()

    @property
    def is_down(self) -> bool:
        """Whether clients are to be refused."""
        return self._down.is_set()

    async def wait_down(self) -> None:
        """Return when the server is down."""
        await self._down.wait()

    async def wait_up(self) -> None:
        """Return when it is up."""
        await self._up.wait()

    def failed(self, failure: UpstreamFailed) -> None:
        """A session has not reached it."""
        if self.is_down or failure.reason in _NOT_OF_THE_SERVER or failure.errno in _OUR_ERRORS:
            return
        self._failures += 1
        if self._failures >= self._settings.down_after_failures:
            self._note(attrs.evolve(failure, refusing=True))
            self._up = trio.Event()
            self._down.set()

    def connected(self) -> None:
        """A session has reached it."""
        self._failures = 0

    async def probe(self) -> None:
        """See whether it is up again, whenever it is down. Runs until cancelled."""
        while True:
            await self._down.wait()
            pause = self._settings.probe_seconds_min
            while True:
                await trio.sleep(pause)
                if await self._is_up():
                    break
                pause = min(pause * _PROBE_FACTOR, self._settings.probe_seconds_max)
            self._failures = 0
            self._down = trio.Event()
            self._up.set()

    async def _is_up(self) -> bool:
        settings = self._settings
        asked = Asked(direct=False, domain=settings.domain)
        try:
            connection = await open_upstream(self._route, asked, seconds_max=settings.connect_seconds_max)
        except ConnectFailed:
            return False
        sock, candidate = connection.sock, connection.candidate
        try:
            if settings.proxy_protocol == "v2":
                sock.send(render_local())
            server, local = endpoint_of(sock.getpeername()), endpoint_of(sock.getsockname())
        except OSError:  # it took the connection and reset it
            return False
        finally:
            close_socket(sock)
        self._note(
            UpstreamConnected(
                host=candidate.host,
                server=server,
                local=local,
                seconds=connection.seconds,
                tls=candidate.tls,
                via=candidate.via,
                domain=settings.domain,
                priority=candidate.priority,
                weight=candidate.weight,
                probe=True,
            )
        )
        return True
