"""A proxy between a test's own client and server, with a core and a channel that a test can look into."""

import contextlib
import itertools
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import attrs
import trio
import trustme

from tests.support.ends import tells_ends_apart
from xproxy.config.address import HostPort
from xproxy.config.listen import ListenAddress, ListenSettings
from xproxy.config.sessions import SessionLimits
from xproxy.config.tls import TlsSettings
from xproxy.config.upstream import UpstreamFrom, UpstreamProxyProtocol, UpstreamSettings
from xproxy.events import EndOfInput, Endpoint, Event, Level, Side
from xproxy.events.connection import CloseCause, ConnectionClosed, DirectionTotals
from xproxy.events.tls import StarttlsRequested, TlsEstablished, TlsFailed, TlsPassthrough
from xproxy.proxy.health import HealthSettings, UpstreamHealth
from xproxy.proxy.passthrough import PassthroughMemory
from xproxy.proxy.plane import EpollPlane, Plane, WaitReadablePlane, new_plane
from xproxy.proxy.proxy import Proxy, ProxySettings
from xproxy.proxy.route import FixedRoute, OriginalRoute, Route
from xproxy.proxy.seams import NewSession
from xproxy.proxy.secure import Contexts, shake_hands
from xproxy.record.document import Document
from xproxy.record.recorder import Record
from xproxy.tls.service import TlsService
from xproxy.xmpp.actions import Action, Close, Forward, LegMode, Observe, Pause, Progress, Send, StartTls
from xproxy.xmpp.names import NameTally

E = TypeVar("E", bound=Event)

OBSERVE = b"<observe/>"
"""A chunk that holds this is observed by the stub core: one record before its bytes."""

STARTTLS = b"<starttls/>"
PROCEED = b"<proceed/>"
CLOSING_TAG = b"</stream:stream>"
BUG = b"<bug/>"


class StubCore:
    """Forwards everything and knows a few markers, each in one chunk."""

    def __init__(self, mode: LegMode, at_ns: int, *, close_seconds: float = 5.0) -> None:
        self.next_tick_ns: int | None = None
        self.is_costly = False
        self.left_at_certificate = False
        self.mode = mode
        self._begun = at_ns
        self.close_ns = int(close_seconds * 1e9)
        self.bytes = {Side.CLIENT: 0, Side.SERVER: 0}
        self.ends: dict[Side, EndOfInput] = {}
        self.tags: set[Side] = set()
        self.cause: CloseCause | None = None
        self.initiator: Side | None = None

    def receive(self, side: Side, data: bytes, at_ns: int) -> list[Action]:
        self.bytes[side] += len(data)
        actions: list[Action] = []
        if BUG in data:
            raise RuntimeError("quotes what the peer sent: s3cret")
        if OBSERVE in data:
            actions.append(Observe(StarttlsRequested()))
        if CLOSING_TAG in data:
            self.tags.add(side)
        actions.append(Forward(data))
        if data.endswith(STARTTLS):
            actions.append(Pause(side))
        if data.endswith(PROCEED):
            actions += [Pause(side), StartTls(domain="localhost")]
        return actions

    def renew_parsers(self) -> None:
        pass

    def open_server_stream(self, domain: str, at_ns: int) -> list[Action]:
        return [Send(Side.SERVER, domain.encode())]

    def tls_established(self, facts: TlsEstablished, at_ns: int) -> list[Action]:
        return [Observe(facts)]

    def tls_passed_on(self, facts: TlsPassthrough, at_ns: int) -> list[Action]:
        return [Observe(facts)]

    def tls_failed(self, failure: TlsFailed, at_ns: int) -> list[Action]:
        return [Observe(failure), *self._close(CloseCause.TLS_FAILED, failure.leg, EndOfInput.TRUNCATED)]

    def end_of_input(self, side: Side, how: EndOfInput, at_ns: int) -> list[Action]:
        again = side in self.ends
        self.ends.setdefault(side, how)
        if side in self.tags and not again and len(self.ends) == 1 and len(self.tags) == 1:
            self.next_tick_ns = at_ns + self.close_ns
            return []
        cause = CloseCause.CLIENT_ENDED if side is Side.CLIENT else CloseCause.SERVER_ENDED
        return self._close(CloseCause.STREAM_CLOSED if self.tags else cause, side, how)

    def tick(self, at_ns: int) -> list[Action]:
        self.next_tick_ns = None
        return self._close(CloseCause.STREAM_CLOSED, None, EndOfInput.TRUNCATED)

    def close(self, cause: CloseCause, at_ns: int) -> list[Action]:
        return self._close(cause, None, EndOfInput.TRUNCATED)

    def _close(self, cause: CloseCause, initiator: Side | None, how: EndOfInput) -> list[Action]:
        if self.cause is not None:
            return []
        self.cause, self.initiator = cause, initiator
        return [Close(cause=cause, initiator=initiator, how=how)]

    def closed(self, at_ns: int) -> ConnectionClosed:
        return ConnectionClosed(
            initiator=self.initiator,
            cause=self.cause or CloseCause.INTERNAL_ERROR,
            duration_ns=at_ns - self._begun,
            from_client=self._totals(Side.CLIENT),
            from_server=self._totals(Side.SERVER),
        )

    def progress(self) -> Progress:
        return Progress(phase="stub", mechanism=None)

    def _totals(self, side: Side) -> DirectionTotals:
        return DirectionTotals(
            bytes=self.bytes[side],
            stanzas=0,
            errors=0,
            closing_tag=side in self.tags,
            end=self.ends.get(side),
            last_element=None,
            last_element_age_ms=None,
        )


class EventRecorder:
    """Keeps the event itself in the document."""

    def record(self, event: Event, at_ns: int) -> Record:
        return Record({"event": event}, Level.INFO, event.action)

    def known(self) -> Document:
        return {}


class ListChannel:
    """Keeps what it is handed, and is full when told so."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.on_put: Callable[[list[Event]], None] | None = None
        self._full = False
        self._not_full = trio.Event()
        self._news = trio.Event()

    @property
    def is_full(self) -> bool:
        return self._full

    def fill(self) -> None:
        self._full = True
        self._not_full = trio.Event()

    def empty(self) -> None:
        self._full = False
        self._not_full.set()

    def put_nowait(self, records: list[Record]) -> None:
        events: list[Event] = [record.document["event"] for record in records]
        if self.on_put is not None:
            self.on_put(events)
        self.events += events
        self._news.set()

    async def wait_not_full(self) -> None:
        await self._not_full.wait()

    def of(self, *kinds: type[Event]) -> list[Event]:
        """Return the events of these classes, in order."""
        return [event for event in self.events if isinstance(event, kinds)]

    async def wait_for(self, kind: type[E], count: int = 1) -> E:
        """Return the ``count``-th event of ``kind`` as soon as there is one."""
        while True:
            found = [event for event in self.events if isinstance(event, kind)]
            if len(found) >= count:
                return found[count - 1]
            self._news = trio.Event()
            await self._news.wait()


@attrs.define(eq=False)
class Rig:
    """A running proxy, and the server's end of its next session."""

    proxy: Proxy
    channel: ListChannel
    plane: EpollPlane | WaitReadablePlane
    address: Endpoint
    upstream: socket.socket  # listening
    cores: list[StubCore]
    dropped: list[int]
    finished: trio.Event

    def waiting_bytes(self, side: Side) -> int:
        """How much of the one session waits to be sent to ``side``."""
        (relay,) = self.proxy._relays
        flow = relay._flow
        assert flow is not None
        return flow.leg(side).waiting_bytes()

    async def ended(self) -> int:
        """Wait until the proxy has come to its end; return how many sessions it dropped."""
        await self.finished.wait()
        return self.dropped[0]

    async def connect(self, *, receive_buffer: int | None = None, source: str | None = None) -> socket.socket:
        """Connect as a client, from the address ``source``, without a word."""
        sock = socket.socket()
        sock.setblocking(False)
        if source is not None:
            sock.bind((source, 0))
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            sock.connect((self.address.ip, self.address.port))
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        return sock

    async def accept(self) -> socket.socket:
        """Take the proxy's next connection, as the server."""
        await trio.lowlevel.wait_readable(self.upstream)
        sock, _ = self.upstream.accept()
        sock.setblocking(False)
        return sock

    async def pair(
        self, hello: bytes = b"<", *, receive_buffer: int | None = None
    ) -> tuple[socket.socket, socket.socket]:
        """Return a client and a server that are connected through the proxy; ``hello`` has passed."""
        client = await self.connect(receive_buffer=receive_buffer)
        await send_all(client, hello)
        server = await self.accept()
        assert await receive_exactly(server, len(hello)) == hello
        return client, server


@asynccontextmanager
async def proxying(
    *,
    limits: SessionLimits | None = None,
    plane: type[EpollPlane] | type[WaitReadablePlane] | None = None,
    contexts: Contexts | None = None,
    new_session: NewSession | None = None,
    listen: ListenSettings | None = None,
    upstream: HostPort | None = None,
    route: Route | None = None,
    domain: str | None = None,
    proxy_protocol: UpstreamProxyProtocol = "none",
    health: HealthSettings | None = None,
    receive_buffer: int | None = None,
    passthrough: PassthroughMemory | None = None,
) -> AsyncIterator[Rig]:
    """Run a proxy before a listening socket; leaving the block cancels what is left."""
    channel = ListChannel()
    cores: list[StubCore] = []
    ids = itertools.count(1)

    def stub(mode: LegMode, at_ns: int, names: NameTally) -> StubCore:
        cores.append(StubCore(mode, at_ns))
        return cores[-1]

    the_plane: Plane = (plane or new_plane)(channel=channel, wall_ns=time.time_ns)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        if receive_buffer is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        server = upstream or HostPort("127.0.0.1", listening.getsockname()[1])
        the_route = route or FixedRoute(server=server)

        def note(event: Event) -> None:
            channel.put_nowait([EventRecorder().record(event, time.time_ns())])

        proxy = Proxy(
            ProxySettings(
                listen=listen or ListenSettings(addresses=(ListenAddress("127.0.0.1", 0),)),
                upstream=UpstreamFrom.ORIGINAL if isinstance(route, OriginalRoute) else server,
                limits=limits or SessionLimits(),
                domain=domain,
                proxy_protocol=proxy_protocol,
            ),
            route=the_route,
            health=UpstreamHealth(health, the_route, note=note) if health is not None else None,
            channel=channel,
            recorder=EventRecorder(),
            new_recorder=lambda _: EventRecorder(),
            new_session=new_session or stub,
            new_trace_id=lambda: f"{next(ids):032x}",
            wall_ns=time.time_ns,
            contexts=contexts,
            passthrough=passthrough,
            plane=the_plane,
        )
        async with trio.open_nursery() as nursery:
            dropped: list[int] = []
            finished = trio.Event()

            async def serve(*, task_status: trio.TaskStatus[tuple[Endpoint, ...]]) -> None:
                dropped.append(await proxy.serve(task_status=task_status))
                finished.set()

            (address,) = await nursery.start(serve)
            assert isinstance(the_plane, EpollPlane | WaitReadablePlane)
            yield Rig(proxy, channel, the_plane, address, listening, cores, dropped, finished)
            nursery.cancel_scope.cancel()


async def send_all(sock: socket.socket, data: bytes) -> None:
    """Send all of ``data``."""
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view[:16_384]) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            await trio.lowlevel.wait_writable(sock)


async def receive_some(sock: socket.socket, size: int = 65_536) -> bytes:
    """Return what comes next, ``b""`` at the end."""
    while True:
        try:
            return sock.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError):
            await trio.lowlevel.wait_readable(sock)


async def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """Return ``size`` bytes, fewer only at the end."""
    parts = bytearray()
    while len(parts) < size:
        part = await receive_some(sock, size - len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)


async def receive_all(sock: socket.socket) -> bytes:
    """Return everything until the end."""
    parts = bytearray()
    while part := await receive_some(sock):
        parts += part
    return bytes(parts)


@attrs.define(eq=False)
class Certified:
    """A directory with a CA of ours, and TLS for a server named "localhost" and for clients that trust the CA."""

    contexts: TlsService
    server: ssl.SSLContext
    client: ssl.SSLContext


def certified(
    state: Path,
    *,
    names: tuple[str, ...] = ("localhost",),
    verify: bool = True,
    domain: str | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Certified:
    """Make a server's certificate for ``names``, and contexts of a proxy that trusts it; ``now`` is for its CA."""
    real = trustme.CA()
    server = tells_ends_apart(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    real.issue_cert(*names).configure_cert(server)
    bundle = state / "real-ca.pem"
    real.cert_pem.write_to_path(str(bundle))
    contexts = TlsService(
        TlsSettings(),
        UpstreamSettings(ca_file=bundle, verify="full" if verify else "none", domain=domain),
        state / "state",
        now=now,
    )
    assert contexts.ca_file is not None
    client = tells_ends_apart(ssl.create_default_context(cafile=str(contexts.ca_file)))
    return Certified(contexts, server, client)


async def both_secured(
    client: socket.socket, server: socket.socket, tls: Certified, server_name: str = "localhost"
) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Return both sockets after their handshakes with the proxy between them."""
    done: dict[str, ssl.SSLSocket] = {}

    async def secure_client() -> None:
        done["client"] = await wrap(client, tls.client, server_name)

    async def secure_server() -> None:
        done["server"] = await wrap(server, tls.server)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure_client)
        nursery.start_soon(secure_server)
    return done["client"], done["server"]


async def directly_secured(
    rig: Rig, tls: Certified, server_name: str = "localhost", *, receive_buffer: int | None = None
) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Return a client and a server that are connected through the proxy by TLS from the first byte."""
    done: dict[str, ssl.SSLSocket] = {}
    client = await rig.connect(receive_buffer=receive_buffer)

    async def secure_client() -> None:
        done["client"] = await wrap(client, tls.client, server_name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure_client)
        done["server"] = await wrap(await rig.accept(), tls.server)
    return done["client"], done["server"]


async def wrap(sock: socket.socket, context: ssl.SSLContext, server_name: str | None = None) -> ssl.SSLSocket:
    """Return ``sock`` after a handshake: as the client with ``server_name``, else as the server."""
    tls = context.wrap_socket(
        sock,
        server_side=context.protocol is ssl.PROTOCOL_TLS_SERVER,
        server_hostname=server_name,
        do_handshake_on_connect=False,
        suppress_ragged_eofs=False,
    )
    try:
        await shake_hands(tls)
    except BaseException:
        tls.close()
        raise
    return tls


async def send_until_full(sock: socket.socket, data: bytes, *, is_stopped: Callable[[], bool] = lambda: True) -> int:
    """Send until nobody takes any more for a while, and ``is_stopped``; return how much went."""
    view = memoryview(data)
    sent = 0
    while sent < len(data):
        try:
            sent += sock.send(view[sent : sent + 16_384])
        except (BlockingIOError, ssl.SSLWantWriteError):
            with trio.move_on_after(0.1) as waiting:
                await trio.lowlevel.wait_writable(sock)
            if waiting.cancelled_caught and is_stopped():
                break
    return sent


def open_descriptors() -> dict[str, str]:
    """What this process has open, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one for this very listing
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found
