"""The proxy: its listeners, its plane, one task a session, and how all of it ends."""

import logging
import socket
import sys
from collections.abc import Callable, Iterator, Sequence

import attrs
import trio
from lxml import etree

from xproxy.config.listen import ListenAddress, ListenSettings
from xproxy.config.sessions import SessionLimits
from xproxy.config.upstream import UpstreamAddress, UpstreamProxyProtocol
from xproxy.events import Endpoint, Event
from xproxy.events.connection import ConnectionRefused, RefusalReason
from xproxy.events.proxy import LimitReached
from xproxy.proxy.destination import Destinations
from xproxy.proxy.entrance import Entrance
from xproxy.proxy.health import UpstreamHealth
from xproxy.proxy.listener import Admission, Admissions, Listener, open_listeners, take_over
from xproxy.proxy.passthrough import PassthroughMemory
from xproxy.proxy.plane import Plane, new_plane
from xproxy.proxy.refusal import Refusal
from xproxy.proxy.relay import Relay, Surroundings
from xproxy.proxy.route import Route
from xproxy.proxy.seams import Channel, NewRecorder, NewSession, Recorder, Tap
from xproxy.proxy.secure import Contexts
from xproxy.proxy.snapshot import SessionSnapshot
from xproxy.proxy.sockets import close_socket, endpoint_of
from xproxy.xmpp.names import renew_dictionary

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class ProxySettings:
    """What a proxy is told."""

    listen: ListenSettings
    upstream: UpstreamAddress  # what is asked for by SOCKS5, or was dialled, is compared with it
    domain: str | None = None  # --domain: for direct TLS without a name that could be one
    proxy_protocol: UpstreamProxyProtocol = "none"
    limits: SessionLimits = attrs.Factory(SessionLimits)


class Proxy:
    """Serves sessions. Everything it needs is handed in; it opens and closes only sockets."""

    def __init__(
        self,
        settings: ProxySettings,
        *,
        route: Route,
        health: UpstreamHealth | None = None,
        channel: Channel,
        recorder: Recorder,
        new_recorder: NewRecorder,
        new_session: NewSession,
        new_trace_id: Callable[[], str],
        wall_ns: Callable[[], int],
        contexts: Contexts | None = None,
        passthrough: PassthroughMemory | None = None,
        plane: Plane | None = None,
        passed: Sequence[socket.socket] = (),
        tap: Tap | None = None,
    ) -> None:
        """Prepare a proxy.

        ``route`` says where each session's server is; ``health`` when to refuse everybody because it is down; None:
        never. ``recorder`` makes the records of events that belong to no
        session, ``new_recorder`` one for each session from its trace id. ``new_session`` makes the core. ``contexts``
        is for TLS; without it TLS fails on every session. ``passthrough`` knows who is let through undecrypted.
        ``wall_ns`` is the UTC time in ns. ``passed``: listening, non-blocking sockets that others opened, in place of
        ``settings.listen``; ``serve`` closes them. ``tap`` may stand between the relay and each session's core and
        recorder.
        """
        self._settings = settings
        self._passed = list(passed)
        self._tap = tap
        self._limits = settings.limits
        self._channel = channel
        self._recorder = recorder
        self._new_recorder = new_recorder
        self._new_trace_id = new_trace_id
        self._wall_ns = wall_ns
        self._plane = plane if plane is not None else new_plane(channel=channel, wall_ns=wall_ns)
        self._health = health
        self._surroundings = Surroundings(
            limits=settings.limits,
            route=route,
            proxy_protocol=settings.proxy_protocol,
            health=health,
            channel=channel,
            plane=self._plane,
            contexts=contexts,
            domain=settings.domain,
            own_names=frozenset(address.host.lower() for address in settings.listen.addresses),
            passthrough=passthrough,
            new_session=new_session,
            wall_ns=wall_ns,
        )
        self._admissions = Admissions(
            sessions_max=settings.limits.sessions_max,
            sessions_per_address_max=settings.limits.sessions_per_address_max,
            names_per_address_max=settings.limits.names_per_address_max,
        )
        self._destinations = Destinations(settings.listen, settings.upstream, settings.domain)
        self._listeners: list[Listener] = []
        self._relays: set[Relay] = set()
        self._draining = trio.Event()
        self._drain_scope = trio.CancelScope()  # around the wait for sessions that end by themselves
        self._names_full = False
        renew_dictionary()  # what was known before the first stranger stays in the first one

    @property
    def is_out_of_names(self) -> bool:
        """Whether the proxy ends because ``names_total_max`` was reached: only a new process can serve again."""
        return self._names_full

    @property
    def names(self) -> int:
        """How many XML names libxml2 keeps; ``names_total_max`` is its limit."""
        return _names_total()

    @property
    def sessions(self) -> int:
        """How many sessions there are now."""
        return self._admissions.count - self.arriving

    @property
    def arriving(self) -> int:
        """How many connections have not sent the PROXY header or the SOCKS5 request that comes first."""
        return sum(listener.waiting for listener in self._listeners)

    @property
    def is_refusing(self) -> bool:
        """Whether clients are refused because the server is down."""
        return self._health is not None and self._health.is_down

    @property
    def health_checks(self) -> int:
        """How often a balancer has looked whether we live."""
        return sum(listener.health_checks for listener in self._listeners)

    def snapshots(self) -> Iterator[SessionSnapshot]:
        """Yield each session as it stands; one that ends meanwhile is left out, one that begins is not waited for."""
        for relay in list(self._relays):
            if relay in self._relays:
                yield relay.snapshot()

    @property
    def is_draining(self) -> bool:
        """Whether no more sessions are accepted, for the proxy is to end."""
        return self._draining.is_set()

    @property
    def drain_seconds_left(self) -> float | None:
        """How long the sessions still have; None: it does not drain."""
        return max(0.0, self._drain_scope.deadline - trio.current_time()) if self.is_draining else None

    def drain(self, seconds: float | None = None) -> None:
        """Accept no more; let sessions end by themselves for ``seconds`` (``drain_seconds``), then drop them.

        Again: with ``seconds``, that is their time from now on; without, they are dropped now. ``serve`` returns when
        the last session is gone.
        """
        if self.is_draining and seconds is None:
            seconds = 0.0
        self._drain_scope.deadline = trio.current_time() + (self._limits.drain_seconds if seconds is None else seconds)
        self._draining.set()

    async def serve(self, *, task_status: trio.TaskStatus[tuple[Endpoint, ...]] = trio.TASK_STATUS_IGNORED) -> int:
        """Listen and serve until drained or cancelled; report the real addresses of the listeners when they are open.

        Returns how many sessions were dropped at the end of draining.

        Raises:
            AddressProblem: an address cannot be listened on.
        """
        wanted = self._settings.listen.addresses
        opened = take_over(self._passed, wanted) if self._passed else open_listeners(wanted)
        try:
            addresses = tuple(endpoint_of(sock.getsockname()) for _, sock in opened)
            self._destinations.listen_at(addresses)
            async with trio.open_nursery() as planes:
                await planes.start(self._run_plane)
                async with trio.open_nursery() as sessions:

                    def admit(admission: Admission) -> None:
                        sessions.start_soon(self._session, admission)

                    self._listeners = [self._listener(sock, address, admit) for address, sock in opened]
                    async with trio.open_nursery() as accepting:
                        for listener in self._listeners:
                            accepting.start_soon(listener.serve)
                        if self._health is not None:
                            accepting.start_soon(self._health.probe)
                            accepting.start_soon(self._shut_while_down, self._health)
                        task_status.started(addresses)
                        await self._draining.wait()
                        accepting.cancel_scope.cancel()
                    for _, sock in opened:
                        close_socket(sock)
                    dropped = await self._let_sessions_end()
                planes.cancel_scope.cancel()
            return dropped
        finally:
            for _, sock in opened:
                close_socket(sock)

    def _listener(self, sock: socket.socket, address: ListenAddress, admit: Callable[[Admission], None]) -> Listener:
        return Listener(
            sock,
            entrance=Entrance(
                address, self._settings.listen, upstream=self._settings.upstream, destinations=self._destinations
            ),
            limits=self._settings.listen,
            channel=self._channel,
            admissions=self._admissions,
            refuse=self._note,
            may_accept=self._may_accept,
            admit=admit,
        )

    async def _shut_while_down(self, health: UpstreamHealth) -> None:
        """Shut the listeners while the server is down, those that can be; the others turn clients away.

        Not a socket that a service manager passed: shut, it would be of no use to our successor. And not where the
        system chose the port: it would choose another.
        """
        if sys.platform != "linux" or self._passed:
            return
        wanted = zip(self._settings.listen.addresses, self._listeners, strict=False)
        if any(address.port == 0 for address, _ in wanted):
            return
        while True:
            await health.wait_down()
            for listener in self._listeners:
                listener.shut()
            await health.wait_up()
            for listener in self._listeners:
                await _reopen(listener)

    async def _run_plane(self, *, task_status: trio.TaskStatus[None]) -> None:
        await self._plane.run(task_status=task_status)

    async def _session(self, admission: Admission) -> None:
        trace_id = self._new_trace_id()
        recorder, surroundings = self._new_recorder(trace_id), self._surroundings
        if self._tap is not None:
            recorder, new_session = self._tap.session(trace_id, recorder, surroundings.new_session)
            if new_session is not surroundings.new_session:
                surroundings = attrs.evolve(surroundings, new_session=new_session)
        relay = Relay(
            surroundings=surroundings,
            recorder=recorder,
            sock=admission.sock,
            arrival=admission.arrival,
            names=admission.names,
            answer=admission.answer,
        )
        self._relays.add(relay)
        try:
            await relay.run()
        finally:
            self._relays.discard(relay)
            admission.leave()

    async def _let_sessions_end(self) -> int:
        """Wait for the sessions; drop those that do not end in time, and return their number."""
        with self._drain_scope:
            await self._admissions.nobody_left()
        dropped = len(self._relays)
        for relay in list(self._relays):
            relay.abort()
        await self._admissions.nobody_left()
        return dropped

    def _may_accept(self) -> Refusal | None:
        if self._draining.is_set():
            return Refusal(RefusalReason.DRAINING, 0)
        if self._health is not None and self._health.is_down:
            return Refusal(RefusalReason.UPSTREAM_DOWN)
        limit = self._limits.names_total_max
        if _names_total() < limit or self._renew_names(limit):
            return None
        if not self._names_full:
            self._names_full = True
            log.error("more than %d XML names are kept: draining, to be replaced by a new process", limit)
            self._note(LimitReached(limit="sessions.names_total_max", value=limit, closes=False))
            self.drain()
        return Refusal(RefusalReason.NAMES_TOTAL_MAX, limit)

    def _renew_names(self, limit: int) -> bool:
        """Let go of the names that were kept, and end the logins under way; False: it did not help."""
        if self._names_full or not renew_dictionary() or _names_total() >= limit:
            return False
        log.warning("more than %d XML names were kept, and are given up: logins under way end", limit)
        self._note(LimitReached(limit="sessions.names_total_max", value=limit, closes=False))
        for relay in list(self._relays):
            relay.renew_parsers()
        self._admissions.forget_names()
        return True

    def _note(self, event: Event | ConnectionRefused) -> None:
        self._channel.put_nowait([self._recorder.record(event, self._wall_ns())])


async def _reopen(listener: Listener) -> None:
    while True:
        try:
            listener.reopen()
        except OSError as error:  # it was ours all the time; whoever has it now must not keep us from trying
            log.error("cannot listen again: %s", error.strerror)
            await trio.sleep(1)
        else:
            return


def _names_total() -> int:
    """How many names libxml2 keeps for this thread."""
    # Measured as documented for lxml 6; types-lxml does not know it.
    return int(etree.memory_debugger.dict_size())  # type: ignore[attr-defined]
