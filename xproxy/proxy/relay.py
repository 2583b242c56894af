"""One session's task: it owns set-up, TLS, timeouts and the end; the plane moves the bytes in between.

**The end.** An abrupt end stays an abrupt end: each leg is closed in the kind of the other's end, with close_notify,
a bare FIN or RST, and no closing tag is ever invented, because that would destroy a resumable session (XEP-0198).
TLS is only ended on a leg from which nothing more will be read: with data pending ``unwrap`` loses it. A leg whose peer
may still be sending is shut down for writing and drained for a moment before it is closed, since closing a socket with
unread bytes sends RST, and RST takes from the peer what it has not read yet. What is drained was never forwarded.

**Whatever happens,** both descriptors are closed and ``ConnectionClosed`` is the last record of the session.
"""

import contextlib
import enum
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final, assert_never

import attrs
import trio

from xproxy.config.sessions import SessionLimits
from xproxy.config.upstream import UpstreamProxyProtocol
from xproxy.events import EndOfInput, Endpoint, Event, Side
from xproxy.events.connection import (
    CloseCause,
    ConnectionClosed,
    ConnectionStalled,
    DirectionTotals,
    ServerTls,
    UnsupportedTransport,
    UpstreamConnected,
    UpstreamFailed,
    UpstreamFailure,
)
from xproxy.events.proxy import LimitReached
from xproxy.events.tls import StarttlsInjection, TlsFailed, TlsFailure, TlsPassthrough
from xproxy.jid import JidError, enforce_domainpart
from xproxy.proxy.arrival import Arrival
from xproxy.proxy.connect import ConnectFailed, Connection, open_upstream
from xproxy.proxy.diagnose import frames_of
from xproxy.proxy.flow import Flow, Hold, Leg
from xproxy.proxy.health import UpstreamHealth
from xproxy.proxy.original import original_destination
from xproxy.proxy.passthrough import PassthroughMemory, end_event
from xproxy.proxy.peek import HeaderCut, OpeningRefused, peek_opening
from xproxy.proxy.plane import Plane
from xproxy.proxy.proxy_protocol import render_v1, render_v2
from xproxy.proxy.route import Asked, Route
from xproxy.proxy.seams import Answer, Channel, NewSession, SessionCore, SessionNotes
from xproxy.proxy.secure import Contexts, PassedOn, SecureFailed, Securing, domain_asked_for, peek_hello
from xproxy.proxy.snapshot import SessionSnapshot, snapshot_of
from xproxy.proxy.sockets import close_socket, endpoint_of, tune
from xproxy.proxy.transport import FIRST_BYTES, Transport, transport_of
from xproxy.tls.failures import HandshakeRefused, failure_of
from xproxy.tls.hello import ClientHello, HelloIncomplete, HelloMalformed
from xproxy.tls.verify import UpstreamIdentity
from xproxy.xmpp.actions import Action, Close, LegMode, Observe, VerifyName
from xproxy.xmpp.names import NameTally

log = logging.getLogger(__name__)

DRAIN_SECONDS: Final = 2.0
"""How long a leg is drained behind our FIN. A peer that is alive answers within a round trip."""

_DRAIN_BYTES_MAX: Final = 8_388_608
"""More than what can be under way to us when we end; whoever goes on sending does not read what we said."""

_CLOCK_CHECK_SECONDS: Final = 60.0
"""The core's deadlines are wall-clock times; after this long a step of that clock is noticed."""

_LAST_READ_BYTES: Final = 65_536

_LOOK_AGAIN_SECONDS: Final = 0.01
"""The plane reads the leg that a write waits for; it has no way to say that it did."""

_PROXY_HEADERS: Final = {"v1": render_v1, "v2": render_v2}

_NS: Final = 1_000_000_000

_BUSY: Final = int(Hold.BUSY)


@attrs.frozen(kw_only=True)
class Surroundings:
    """What every session of a proxy shares."""

    limits: SessionLimits
    route: Route
    health: UpstreamHealth | None  # is told how connecting went
    proxy_protocol: UpstreamProxyProtocol  # how the server is told the client's address
    channel: Channel
    plane: Plane
    contexts: Contexts | None  # None: TLS fails on every session
    domain: str | None  # --domain: the name for direct TLS without one
    own_names: frozenset[str]  # hosts of our own listeners, lower case
    passthrough: PassthroughMemory | None = None  # None: nobody is let through undecrypted
    new_session: NewSession
    wall_ns: Callable[[], int]
    to_servers: set[tuple[Endpoint, Endpoint]] = attrs.Factory(set)  # both ends of our connections, ours first


class Relay:
    """A session from accept to its last record."""

    def __init__(
        self,
        *,
        surroundings: Surroundings,
        recorder: SessionNotes,
        sock: socket.socket,
        arrival: Arrival,
        names: NameTally,
        answer: Answer | None = None,
    ) -> None:
        """Take over ``sock``, on which the client of ``arrival`` speaks next; ``names`` are those of its address.

        ``answer``: how to tell a client that waits for it whether it may speak.
        """
        self._around = surroundings
        self._limits = surroundings.limits
        self._plane = surroundings.plane
        self._wall_ns = surroundings.wall_ns
        self._recorder = recorder
        self._sock = sock
        self._arrival = arrival
        self._names = names
        self._answer = answer
        self._server: socket.socket | None = None  # connected, and not yet a leg
        self._server_end: Endpoint | None = None  # our end of the server's connection
        self._to_server: tuple[Endpoint, Endpoint] | None = None  # both ends of it
        self._accepted_at_ns = surroundings.wall_ns()
        self._core: SessionCore | None = None
        self._flow: Flow | None = None
        self._identity: UpstreamIdentity | None = None
        self._securing: Securing | None = None
        self._passed_on: TlsPassthrough | None = None
        self._mode = LegMode.CLEAR
        self._scope = trio.CancelScope()  # everything before the end

    def snapshot(self) -> SessionSnapshot:
        """Return how the session stands now, from what is counted anyway."""
        return snapshot_of(
            known=self._recorder.known(),
            way=self._arrival.way.value,
            age_ns=self._wall_ns() - self._accepted_at_ns,
            sock=self._sock,
            core=self._core,
            flow=self._flow,
            passed_on=self._passed_on is not None,
            at_ns=self._wall_ns(),
        )

    def abort(self) -> None:
        """End the session now, for the proxy is shutting down."""
        self._scope.cancel()

    def renew_parsers(self) -> None:
        """The dictionary of XML names was replaced: nobody goes on with the old one. Who has not logged in yet ends."""
        core = self._core
        if core is None:
            return
        if core.is_costly:
            self._close(CloseCause.LIMIT_REACHED)
            return
        try:
            core.renew_parsers()
        except Exception as error:  # a bug of ours ends this session only
            log.error("a session ended for an internal error: %s", frames_of(error))
            self._close(CloseCause.INTERNAL_ERROR)

    async def run(self) -> None:
        """Serve the session. Returns when both descriptors are closed; raises only Cancelled."""
        try:
            self._note(self._arrival.accepted())
            with self._scope:
                await self._session()
            if self._scope.cancelled_caught:
                self._close(CloseCause.SHUTDOWN)
            await self._end_legs()
        except Exception as error:  # a bug of ours ends this session only
            log.error("a session ended for an internal error: %s", frames_of(error))
            self._close(CloseCause.INTERNAL_ERROR)
        except BaseException:  # Cancelled, alone or in a group
            self._close(CloseCause.SHUTDOWN)
            raise
        finally:
            self._close_sockets()
            self._note_end()
            self._securing = None
            if self._flow is not None:
                self._flow.part()
                self._flow = None

    # Set-up -----------------------------------------------------------------------------------------------------

    async def _session(self) -> None:
        tune(self._sock, keepalive_seconds=self._limits.keepalive_seconds)
        asked = Asked(direct=False, destination=self._arrival.destination)
        connection = await self._answer_first(asked) if self._answer is not None else None
        if self._answer is not None:  # it was told that there is no server
            return
        direct = await self._first_byte()
        if direct:
            asked = attrs.evolve(asked, direct=True)
        if connection is not None:
            connection = connection.for_client(asked, self._around.route)
            self._note_connected(connection, asked)
        if direct is None:
            return
        if connection is None:
            if self._around.route.needs_domain:
                try:
                    asked = attrs.evolve(asked, domain=await self._read_ahead(direct))
                except _NothingToReadAhead:
                    return
            if (connection := await self._connect(asked)) is None:
                return
            self._note_connected(connection, asked)
        server, self._server = connection.sock, None
        self._mode = mode = LegMode.of(direct=direct, server=connection.candidate.tls)
        self._flow = flow = Flow(
            core=self._ensure_core(),
            recorder=self._recorder,
            client=Leg(Side.CLIENT, self._sock),
            server=Leg(Side.SERVER, server),
            verify_name=self._verify_name,
            given_up=self._given_up,
        )
        await self._begin(flow, mode)
        await self._oversee(flow)

    async def _begin(self, flow: Flow, mode: LegMode) -> None:
        """Read what speaks first; where TLS comes first, see to that."""
        match mode:
            case LegMode.CLEAR:
                self._start_reading(flow.client, flow.server)
            case LegMode.CLEAR_TO_DIRECT | LegMode.CLEAR_TO_PLAIN:
                self._start_reading(flow.client)
            case LegMode.DIRECT_TLS | LegMode.DIRECT_TO_PLAIN:
                await self._secure(flow, self._new_securing(flow, self._around.domain))
            case LegMode.DIRECT_TO_CLEAR:
                await self._open_server_stream(flow)
            case _:
                assert_never(mode)

    async def _open_server_stream(self, flow: Flow) -> None:
        """Have the core lead the server into TLS, for the domain that the client's hello asks for."""
        securing = self._new_securing(flow, self._around.domain)
        try:
            with trio.fail_after(self._limits.handshake_seconds_max):
                domain = await securing.look()
            if domain is None:
                nothing = HandshakeRefused(TlsFailure.NO_NAME, "the client asks for no domain and none is configured")
                raise SecureFailed(securing.failure(nothing))
        except trio.TooSlowError:
            self._tls_failed(flow, securing.failure(TimeoutError()))
        except SecureFailed as failed:
            self._tls_failed(flow, failed.event)
        else:
            now = self._wall_ns()
            self._plane.carry_out(flow, flow.core.open_server_stream(in_letters(domain), now), now)
            self._start_reading(flow.server)

    async def _answer_first(self, asked: Asked) -> Connection | None:
        """Answer a client that does not speak before it is told that it may, and forget how: it is told once.

        That is when the server is connected, or at once where only its first words say which server that is.
        """
        answer, connection = self._answer, None
        assert answer is not None
        if not self._around.route.needs_domain and (connection := await self._connect(asked)) is None:
            return None
        self._answer = None
        answer.connected(self._server_end)
        return connection

    def _is_our_own(self) -> bool:
        """Whether the connection that was accepted is one of ours to a server, by both of its ends.

        One end does not do: a port is taken for one destination only, so among some hundred clients of this machine one
        has the number of a connection of ours.
        """
        peer, listener = self._arrival.peer, self._arrival.listener
        going = original_destination(self._sock, listener) or listener
        return (peer, going) in self._around.to_servers or (peer, listener) in self._around.to_servers

    async def _connect(self, asked: Asked) -> Connection | None:
        """Connect to the server, and see that this is not ourselves. None: the session is over."""
        if self._is_our_own():
            # What we connect to is turned back to us. The session that connected has noted its end before it sent a
            # byte, and by the first of those bytes, or by a request of its client's, we are here.
            host, port = self._arrival.dialled.ip, self._arrival.dialled.port
            self._connect_failed(
                UpstreamFailed(host=host, port=port, reason=UpstreamFailure.LOOP, errno=None, seconds=0.0)
            )
            return None
        try:
            connection = await open_upstream(self._around.route, asked, seconds_max=self._limits.connect_seconds_max)
        except ConnectFailed as failed:
            self._connect_failed(failed.failure)
            return None
        sock = self._server = connection.sock
        tune(sock, keepalive_seconds=self._limits.keepalive_seconds)
        try:
            self._server_end = endpoint_of(sock.getsockname())
            self._to_server = self._server_end, endpoint_of(sock.getpeername())
            self._around.to_servers.add(self._to_server)
            self._introduce(sock)
            if self._around.health is not None:
                self._around.health.connected()
        except OSError as error:  # it took the connection and reset it at once
            self._connect_failed(
                UpstreamFailed(
                    host=connection.candidate.host,
                    port=connection.candidate.port,
                    reason=UpstreamFailure.OTHER,
                    errno=errno.errorcode.get(error.errno or 0),
                    seconds=connection.seconds,
                    domain=asked.domain,
                )
            )
            return None
        return connection

    def _introduce(self, sock: socket.socket) -> None:
        """Tell the server who its client is, ahead of everything else, TLS too (PROXY protocol, section 2)."""
        version = self._around.proxy_protocol
        if version != "none":
            header = _PROXY_HEADERS[version](self._arrival.client, self._arrival.dialled)
            sent = sock.send(header)
            assert sent == len(header), "a new connection takes so much at once"

    def _connect_failed(self, failure: UpstreamFailed) -> None:
        self._note(failure)
        if self._around.health is not None:
            self._around.health.failed(failure)
        if self._answer is not None:
            self._answer.failed(failure.reason)
        self._close(CloseCause.UPSTREAM_FAILED)

    def _note_connected(self, connection: Connection, asked: Asked) -> None:
        """Say to whom we are connected."""
        candidate, local = connection.candidate, self._server_end
        assert local is not None
        self._note(
            UpstreamConnected(
                host=candidate.host,
                server=Endpoint(endpoint_of((candidate.address, 0)).ip, candidate.port),
                local=local,
                seconds=connection.seconds,
                tls=candidate.tls,
                via=candidate.via,
                domain=asked.domain,
                priority=candidate.priority,
                weight=candidate.weight,
                proxy_protocol=None if self._around.proxy_protocol == "none" else self._around.proxy_protocol,
            )
        )

    async def _first_byte(self) -> bool | None:
        """Look at what the client begins with; tell whether that is TLS. None: the session is over."""
        try:
            first = await self._first_bytes()
        except OSError:
            self._first_end(EndOfInput.RESET)
            return None
        if first is None:
            self._close(CloseCause.NEGOTIATION_TIMEOUT)
            return None
        if not first:
            self._first_end(EndOfInput.CLOSE_NOTIFY)
            return None
        transport, looks_like = transport_of(first)
        if transport is Transport.OTHER:
            self._note(UnsupportedTransport(looks_like=looks_like))
            self._close(CloseCause.UNSUPPORTED_TRANSPORT)
            return None
        return transport is Transport.TLS

    async def _first_bytes(self) -> bytes | None:
        """Return some of what the client begins with, which stays where it is; None: it is silent for too long."""
        try:  # a client that has connected to talk has often done so
            return self._sock.recv(FIRST_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            pass
        with trio.move_on_after(self._limits.first_byte_seconds_max):
            await trio.lowlevel.wait_readable(self._sock)
            return self._sock.recv(FIRST_BYTES, socket.MSG_PEEK)
        return None

    async def _read_ahead(self, direct: bool) -> str | None:
        """Return the domain the client asks for, of what it sent so far; all of that stays where it is.

        Raises:
            _NothingToReadAhead: the session is over.
        """
        limits, begun = self._limits, trio.current_time()
        hello: ClientHello | None = None
        try:
            with trio.fail_after(limits.header_seconds_max):
                if direct:
                    hello = await peek_hello(self._sock, bytes_max=limits.hello_bytes_max, after_starttls=False)
                    return domain_asked_for(hello, self._around.own_names) or self._around.domain
                opening = await peek_opening(self._sock, bytes_max=limits.header_bytes_max)
                return opening.to or self._around.domain
        except trio.TooSlowError:
            self._close(CloseCause.NEGOTIATION_TIMEOUT)
        except OpeningRefused:
            self._judge_opening()
            self._close(CloseCause.STREAM_VIOLATION)
        except HeaderCut as cut:
            self._judge_opening()
            if cut.ended:
                self._first_end(EndOfInput.CLOSE_NOTIFY)
            else:
                self._note(
                    LimitReached(
                        limit="sessions.header_bytes_max",
                        value=limits.header_bytes_max,
                        sent_by=Side.CLIENT,
                        closes=True,
                    )
                )
                self._close(CloseCause.LIMIT_REACHED)
        except (OSError, EOFError, HelloIncomplete, HelloMalformed) as error:
            if direct:
                seconds = trio.current_time() - begun
                failed = failure_of(error, Side.CLIENT, direct=True, seconds=seconds, hello=hello)
                self._carry_out(self._ensure_core().tls_failed(failed, self._wall_ns()))
            else:
                self._first_end(EndOfInput.RESET)
        raise _NothingToReadAhead

    def _judge_opening(self) -> None:
        """For what is no stream header there is no server: the core alone says what is wrong with it."""
        with contextlib.suppress(OSError):
            data = self._sock.recv(self._limits.header_bytes_max)
            self._carry_out(self._ensure_core().receive(Side.CLIENT, data, self._wall_ns()))

    def _first_end(self, how: EndOfInput) -> None:
        """The client left without a word."""
        self._carry_out(self._ensure_core().end_of_input(Side.CLIENT, how, self._wall_ns()))

    def _start_reading(self, *legs: Leg) -> None:
        for leg in legs:
            self._plane.release(leg, Hold.SET_UP)

    def _new_securing(self, flow: Flow, domain: str | None) -> Securing:
        self._securing = securing = Securing(
            flow=flow,
            contexts=self._around.contexts,
            limits=self._limits,
            direct=self._mode.is_direct,
            server_tls=self._mode.server_tls,
            domain=domain,
            own_names=self._around.own_names,
            # All whom a balancer does not name come from its address: one that refuses must not blind the log for them.
            passthrough=self._around.passthrough if self._arrival.is_client_known else None,
            client_address=self._arrival.client.ip,
        )
        return securing

    async def _secure(self, flow: Flow, securing: Securing) -> None:
        """TLS on the legs that get it, told to the core step by step; on failure the core says Close."""
        has_server_tls = self._mode.server_tls is not ServerTls.NONE
        try:
            with trio.fail_after(self._limits.handshake_seconds_max):
                for secure_leg in (securing.secure_server, securing.secure_client)[not has_server_tls :]:
                    facts = await secure_leg()
                    now = self._wall_ns()
                    self._plane.carry_out(flow, flow.core.tls_established(facts, now), now)
            self._identity = securing.identity
        except PassedOn as passed:
            self._passed_on = passed.event
            now = self._wall_ns()
            self._plane.carry_out(flow, flow.core.tls_passed_on(passed.event, now), now)
        except trio.TooSlowError:
            self._tls_failed(flow, securing.failure(TimeoutError()))
        except SecureFailed as failed:
            self._tls_failed(flow, failed.event)
        if flow.close is None:
            self._start_reading(flow.client, flow.server)

    def _given_up(self, leg: Leg, error: ssl.SSLError) -> TlsFailed | None:
        """What an alert says that came when TLS was up. A client may refuse our certificate as late as that."""
        if self._securing is None:
            return None
        event = self._securing.given_up(error, leg.side)
        self._securing.learn(event)
        return event

    def _verify_name(self, wanted: VerifyName) -> TlsFailed | None:
        """Compare the server's certificate with the name of a stream that came later."""
        identity = self._identity
        if identity is None or not identity.is_proven:  # verification is off, and the log says so
            return None
        begun = trio.current_time()
        try:
            identity.check_covers(wanted.domain)
        except HandshakeRefused as error:
            return failure_of(
                error,
                Side.SERVER,
                direct=self._mode.server_tls is ServerTls.DIRECT,
                seconds=trio.current_time() - begun,
                server_name=wanted.domain,
                certificate=identity.certificate,
            )
        return None

    def _tls_failed(self, flow: Flow, event: TlsFailed | StarttlsInjection) -> None:
        now = self._wall_ns()
        if isinstance(event, TlsFailed):
            if self._securing is not None:
                self._securing.learn(event)
            self._plane.carry_out(flow, flow.core.tls_failed(event, now), now)
        else:
            self._note(event)
            self._close(CloseCause.STARTTLS_INJECTION)

    # While it runs ----------------------------------------------------------------------------------------------

    async def _oversee(self, flow: Flow) -> None:
        """Do what the plane leaves to the task, until the core or both peers have ended the session."""
        while not _is_over(flow):
            if self._passed_on is not None:
                _pass_on_fins(flow)
            if _has_to_send(flow):
                await self._oversee_sending(flow)
            elif flow.starttls is not None:
                starttls, flow.starttls = flow.starttls, None
                # With direct TLS the hello has been looked at, before the server was led into TLS.
                await self._secure(flow, self._securing or self._new_securing(flow, starttls.domain))
            else:
                await self._await_news(flow)
        if _has_to_send(flow):
            await self._flush(flow)

    async def _oversee_sending(self, flow: Flow) -> None:
        """Likewise, while something that a leg did not take at once waits to be sent."""
        async with trio.open_nursery() as nursery:
            while self._send_what_waits(flow, nursery) and not _is_over(flow):
                await self._await_news(flow)
                if self._passed_on is not None:
                    _pass_on_fins(flow)
            nursery.cancel_scope.cancel()

    async def _await_news(self, flow: Flow) -> None:
        """Wait for something to do, or carry out what the core's deadline asks for."""
        now = self._wall_ns()
        tick_ns = flow.tick_ns = flow.core.next_tick_ns
        if tick_ns is not None and tick_ns <= now:
            self._plane.carry_out(flow, flow.core.tick(now), now)
            return
        wait = min((tick_ns - now) / _NS, _CLOCK_CHECK_SECONDS) if tick_ns is not None else float("inf")
        with trio.move_on_after(wait):
            await flow.news()

    def _send_what_waits(self, flow: Flow, nursery: trio.Nursery) -> bool:
        """See that somebody sends what waits; tell whether anything does."""
        for leg in (flow.client, flow.server):
            if _has_to_write(leg) and not leg.flushing:
                leg.flushing = True
                nursery.start_soon(self._send_backlog, flow, leg)
        return _has_to_send(flow)

    async def _flush(self, flow: Flow) -> None:
        """Send what was read before the end."""
        with trio.move_on_after(self._limits.close_seconds_max):
            async with trio.open_nursery() as nursery:
                while self._send_what_waits(flow, nursery):
                    await flow.news()

    async def _send_backlog(self, flow: Flow, leg: Leg) -> None:
        """Send the backlog of ``leg``, then let its source be read again."""
        stall = _Stall(self._limits, trio.current_time())
        try:
            while _has_to_write(leg):
                taken = self._try_to_send(leg)
                if taken is _Taken.SOME:
                    stall = _Stall(self._limits, trio.current_time())
                    continue
                with trio.move_on_at(stall.next_at()):
                    if taken is _Taken.READS_FIRST:
                        await trio.sleep(_LOOK_AGAIN_SECONDS)
                    else:
                        await trio.lowlevel.wait_writable(leg.sock)
                        self._plane.release(leg, Hold.BUSY)
                    continue
                if self._stalled(flow, leg, stall):
                    return
        finally:
            leg.flushing = False
            flow.wake()
        self._plane.release(leg.peer, Hold.PEER_FULL)

    def _try_to_send(self, leg: Leg) -> "_Taken":
        """Offer what waits, unchanged."""
        if leg.backlog is None:
            return _Taken.NOTHING
        piece = leg.backlog[0]
        try:
            sent = leg.write(piece)
        except (ssl.SSLWantWriteError, BlockingIOError):
            return _Taken.NOTHING
        except ssl.SSLWantReadError:
            return _Taken.READS_FIRST
        except OSError as error:
            self._plane.send_failed(leg, error)
            return _Taken.SOME
        leg.taken(sent)
        return _Taken.SOME

    def _stalled(self, flow: Flow, leg: Leg, stall: "_Stall") -> bool:
        """Say that ``leg`` takes nothing; tell whether the session ends for it."""
        if not stall.warned:
            stall.warned = True
            self._note(
                ConnectionStalled(
                    leg=leg.side,
                    waiting_bytes=leg.waiting_bytes(),
                    seconds=trio.current_time() - stall.since,
                )
            )
            return False
        self._note(
            LimitReached(
                limit="sessions.stall_seconds_max",
                value=int(self._limits.stall_seconds_max),
                sent_by=leg.peer.side,
                closes=True,
            )
        )
        leg.backlog = None
        self._close(CloseCause.LIMIT_REACHED)
        return True

    # The end ----------------------------------------------------------------------------------------------------

    async def _end_legs(self) -> None:
        """Close each leg in the kind of the other's end."""
        flow = self._flow
        if flow is None:
            return
        how = flow.close.how if flow.close is not None else EndOfInput.TRUNCATED
        legs = (flow.client, flow.server)
        for leg in legs:
            self._plane.hold(leg, Hold.CLOSING)
        waiting = [leg for leg in legs if not _ends_at_once(leg, leg.peer.ended or how)]
        if not waiting:
            return
        with trio.move_on_after(self._limits.close_seconds_max):
            if len(waiting) == 1:
                await self._end_leg(waiting[0], waiting[0].peer.ended or how)
                return
            async with trio.open_nursery() as nursery:
                for leg in waiting:
                    nursery.start_soon(self._end_leg, leg, leg.peer.ended or how)

    async def _end_leg(self, leg: Leg, how: EndOfInput) -> None:
        if leg.tls is not None and how is EndOfInput.CLOSE_NOTIFY and not leg.stuck:
            await _send_close_notify(leg.tls)
        if leg.ended is None:
            await _drain(leg.sock, min(DRAIN_SECONDS, self._limits.close_seconds_max))
        close_socket(leg.sock)

    def _close(self, cause: CloseCause) -> None:
        """The proxy ends the session. A core that fails here has failed before, and was reported then."""
        try:
            self._carry_out(self._ensure_core().close(cause, self._wall_ns()))
        except Exception as error:
            log.error("a session could not be closed in form: %s", frames_of(error))
        flow = self._flow
        if flow is not None and flow.close is None:
            flow.close = Close(cause=cause, initiator=None)
            flow.wake()

    def _close_sockets(self) -> None:
        flow = self._flow
        if self._to_server is not None:
            self._around.to_servers.discard(self._to_server)
        if self._server is not None:
            close_socket(self._server)
        if flow is None:
            # Unread bytes, and all were only peeked at, would turn the close into a reset.
            with contextlib.suppress(OSError):
                self._sock.recv(_LAST_READ_BYTES)
            close_socket(self._sock)
            return
        for leg in (flow.client, flow.server):
            self._plane.hold(leg, Hold.CLOSING)
            close_socket(leg.sock)

    def _note_end(self) -> None:
        try:
            closed = self._closed()
            if self._securing is not None and self._core is not None and self._core.left_at_certificate:
                self._securing.learn_refusal(TlsFailure.CLOSED.value)
            if self._passed_on is not None:
                sent, received = closed.from_client.bytes, closed.from_server.bytes
                self._note(end_event(self._passed_on, from_client_bytes=sent, from_server_bytes=received))
            self._note(closed)
        except Exception as error:  # a bug of ours must not end the others' sessions
            log.error("the last record of a session is lost: %s", frames_of(error))

    def _closed(self) -> ConnectionClosed:
        now = self._wall_ns()
        try:
            return self._ensure_core().closed(now)
        except Exception as error:
            log.error("a session's totals are lost: %s", frames_of(error))
        nothing = DirectionTotals(
            bytes=0, stanzas=0, errors=0, closing_tag=False, end=None, last_element=None, last_element_age_ms=None
        )
        return ConnectionClosed(
            initiator=None,
            cause=CloseCause.INTERNAL_ERROR,
            duration_ns=now - self._accepted_at_ns,
            from_client=nothing,
            from_server=nothing,
        )

    # Records ----------------------------------------------------------------------------------------------------

    def _ensure_core(self) -> SessionCore:
        if self._core is None:
            self._core = self._around.new_session(self._mode, self._accepted_at_ns, self._names)
        return self._core

    def _carry_out(self, actions: list[Action]) -> None:
        """As the plane does, also before there are two legs: then only observations mean anything."""
        now = self._wall_ns()
        if self._flow is not None:
            self._plane.carry_out(self._flow, actions, now)
            return
        for action in actions:
            if isinstance(action, Observe):
                self._note(action.event)

    def _note(self, event: Event) -> None:
        self._around.channel.put_nowait([self._recorder.record(event, self._wall_ns())])


def in_letters(domain: str) -> str:
    """Return ``domain``, from a ClientHello, as a stream header has it: in U-labels (RFC 7622 section 3.2.1)."""
    try:
        return enforce_domainpart(domain)
    except JidError:
        return domain


class _NothingToReadAhead(Exception):  # noqa: N818 - the session is over, and that is recorded
    pass


class _Taken(enum.Enum):
    """How a leg took what was offered."""

    SOME = enum.auto()
    NOTHING = enum.auto()
    READS_FIRST = enum.auto()  # TLS must read before it can write: a renegotiation, which contexts switch off


class _Stall:
    """How long a leg has taken nothing."""

    def __init__(self, limits: SessionLimits, since: float) -> None:
        self._limits = limits
        self.since = since
        self.warned = False

    def next_at(self) -> float:
        """The next time to say something about it."""
        return self.since + (self._limits.stall_seconds_max if self.warned else self._limits.stall_seconds_warn)


def _is_over(flow: Flow) -> bool:
    return flow.close is not None or (flow.client.ended is not None and flow.server.ended is not None)


def _has_to_send(flow: Flow) -> bool:
    return _has_to_write(flow.client) or _has_to_write(flow.server)


def _has_to_write(leg: Leg) -> bool:
    """Whether something waits to be sent, or TLS must write before it can read on."""
    return leg.backlog is not None or leg.hold & _BUSY != 0


def _pass_on_fins(flow: Flow) -> None:
    """Tell a peer that the other one sends no more, as it would hear without us: we cannot say close_notify here."""
    for leg in (flow.client, flow.server):
        if leg.peer.ended is EndOfInput.CLOSE_NOTIFY and not leg.backlog and not leg.fin_sent:
            leg.fin_sent = True
            with contextlib.suppress(OSError):  # it is gone, and reading from it will say so
                leg.sock.shutdown(socket.SHUT_WR)


def _ends_at_once(leg: Leg, how: EndOfInput) -> bool:
    """Close ``leg`` if nothing has to be waited for; tell whether it is closed."""
    if how is EndOfInput.RESET:
        close_socket(leg.sock, abruptly=True)
        return True
    if leg.ended is None:  # its peer may still be sending
        return False
    if leg.tls is not None and how is EndOfInput.CLOSE_NOTIFY and not leg.stuck and not _says_close_notify(leg.tls):
        return False
    close_socket(leg.sock)
    return True


async def _send_close_notify(tls: ssl.SSLSocket) -> None:
    """Say close_notify (RFC 8446 section 6.1). The answer is not waited for: nothing more will be read."""
    while not _says_close_notify(tls):
        await trio.lowlevel.wait_writable(tls)


def _says_close_notify(tls: ssl.SSLSocket) -> bool:
    """Say it; False: the peer does not take it yet."""
    try:
        tls.unwrap()
    except ssl.SSLWantWriteError:
        return False
    except (ssl.SSLError, OSError, ValueError):
        pass  # SSLWantReadError: it is sent. Anything else: nobody is there to read it
    return True


async def _drain(sock: socket.socket, seconds: float) -> None:
    """Send FIN and read, raw and unseen, until the peer's own FIN or for a moment."""
    try:
        sock.shutdown(socket.SHUT_WR)
        left = _DRAIN_BYTES_MAX
        with trio.move_on_after(seconds):
            while left > 0:
                await trio.lowlevel.wait_readable(sock)
                # Of the base class: an SSLSocket's own recv would decrypt.
                octets = len(socket.socket.recv(sock, 65_536))
                if not octets:
                    return
                left -= octets
    except OSError:
        return
