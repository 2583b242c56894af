"""The data plane: reads every leg that may be read, runs the core, hands the records over, sends the bytes.

One plane serves all sessions. ``EpollPlane`` registers the legs, level-triggered, with one ``select.epoll`` whose own
descriptor a single trio task awaits; it then serves whatever is ready in a loop, so that a message costs no task
switch and no ``epoll_ctl``. ``WaitReadablePlane`` does the same with a task a leg, where there is no epoll.

**A turn has three phases.** Read a bounded amount from each ready leg and run the core; hand all records over in one
step; send. So the record of an element is in the channel before the bytes that complete it leave, and no list of
actions is ever cut.

**The contract.** The plane never awaits within a turn and never closes a descriptor. A leg is registered while nothing
holds it (``Hold``). At its end, at an error or when a peer does not take all that is sent, the plane holds the leg and
wakes the session's task, which sends the rest and lets go of the leg, or closes. Registrations are removed, not
masked: ``modify(fd, 0)`` still reports HUP and would spin. While the record channel is full no leg is read at all.

**Strangers.** Before a session is established the core looks at every ``>``, and a peer can make an octet cost 2 us.
Such legs are read in small portions, and only behind the others: they have an epoll of their own inside the first one,
and ``COSTLY_SECONDS`` a visit. Among them whoever has cost least so far comes first: a login takes a few milliseconds
in all, and need not wait for those who flood. What TLS then keeps back no descriptor tells; the leg is *due*, and
served again as soon as it could be written to, which is at once.

**OpenSSL.** A write that was not taken must be repeated with the same bytes (CPython sets no partial writes, so that
would be the whole buffer, with no progress to be seen): TLS is therefore written in pieces of one record. A read of
one record leaves nothing behind inside the TLS object; where something is left all the same, it is read at once when
the leg is registered, since no descriptor will ever report it.
"""

import errno
import logging
import select
import socket
import ssl
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final, Protocol, TypeGuard, assert_never

import trio

from xproxy import system
from xproxy.events import EndOfInput
from xproxy.events.connection import CloseCause
from xproxy.proxy.diagnose import frames_of
from xproxy.proxy.flow import TLS_RECORD_BYTES, Flow, Hold, Leg
from xproxy.proxy.seams import Channel
from xproxy.record.recorder import Record
from xproxy.tls.failures import UNEXPECTED_EOF, alert_in
from xproxy.xmpp.actions import (
    Action,
    Close,
    Forward,
    Observe,
    Pause,
    Resume,
    Send,
    StartTls,
    VerifyName,
    Wake,
)

log = logging.getLogger(__name__)

READ_BYTES_MAX: Final = 65_536
"""From one leg in one turn: four full TLS records. More would let one bulk transfer delay everybody's turn."""

READY_MAX: Final = 256
"""Legs in one turn; bounds what a turn holds to 16 MiB and the time a record waits to be handed over."""

LINGER_SECONDS: Final = 0.001
"""How long the plane waits on its own epoll before it goes back to trio. An answer usually comes within that, and
going back costs three task switches and two system calls. Nothing else of this thread runs meanwhile."""

VISIT_SECONDS: Final = 0.005
"""After this long the other tasks (set-up, timeouts, full sends) have their turn, however much is ready."""


COSTLY_SECONDS: Final = 0.002
"""For legs of sessions that are not established, in one turn, together; one portion may overrun it."""

READ_ON_SECONDS: Final = 0.002
"""A leg that took so long is not read on in the same turn, however much more it has: 64 KiB of the smallest elements
take 60 ms, and those of a bulk transfer under 1."""


class Plane(Protocol):
    """What a session's task asks of the plane."""

    def hold(self, leg: Leg, why: Hold) -> None:
        """Do not read ``leg`` until ``why`` is released."""

    def release(self, leg: Leg, why: Hold) -> None:
        """Take ``why`` back; the leg is read when nothing else holds it."""

    def carry_out(self, flow: Flow, actions: list[Action], at_ns: int) -> None:
        """Do what the core wants after an input that was not bytes."""

    def send_failed(self, leg: Leg, error: OSError) -> None:
        """``leg`` takes nothing more."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve legs until cancelled."""


_NS: Final = 1_000_000_000

Sends = list[tuple[Leg, bytes]]


class _Turns:
    """The part that both planes share: turns over legs that are ready."""

    def __init__(self, *, channel: Channel, wall_ns: Callable[[], int]) -> None:
        self._channel = channel
        self._wall_ns = wall_ns
        self._stranded: list[Leg] = []  # registered with data inside the TLS object
        self._in_turn = False
        self._woken = False  # a session's task has something to do
        self.turn_count = 0  # for measuring and for tests that want no spinning

    # What the session's task calls ------------------------------------------------------------------------------

    def hold(self, leg: Leg, why: Hold) -> None:
        if not leg.hold:
            self._unregister(leg)
        leg.hold |= int(why)

    def release(self, leg: Leg, why: Hold) -> None:
        bit = int(why)
        if not leg.hold & bit:
            return
        leg.hold &= ~bit
        if leg.hold:
            return
        self._register(leg)
        tls = leg.tls
        if tls is not None and tls.pending():
            self._stranded.append(leg)
            if not self._in_turn:
                self._serve(())

    def carry_out(self, flow: Flow, actions: list[Action], at_ns: int) -> None:
        records: list[Record] = []
        sends: Sends = []
        try:
            self._collect(flow, None, actions, at_ns, records, sends)
        except Exception as error:  # a bug of ours ends this session only
            self._break(flow, error)
        self._finish(records, sends)

    def _register(self, leg: Leg) -> None:
        raise NotImplementedError

    def _unregister(self, leg: Leg) -> None:
        raise NotImplementedError

    def _regroup(self, leg: Leg) -> None:
        """A registered ``leg`` is not costly any more."""

    def _note_due(self, leg: Leg) -> None:
        """A registered, costly ``leg`` may hold more inside its TLS object."""
        leg.due = True

    # A turn -----------------------------------------------------------------------------------------------------

    def _serve(self, legs: Iterable[Leg]) -> None:
        self._in_turn = True
        try:
            self._turn(legs)
            while self._stranded:
                stranded, self._stranded = self._stranded, []
                self._turn(stranded)
        finally:
            self._in_turn = False

    def _turn(self, legs: Iterable[Leg]) -> None:
        """Read, hand over, send. The loop is the hot path of the whole program."""
        self.turn_count += 1
        records: list[Record] = []
        sends: Sends = []
        wall_ns = self._wall_ns
        for leg in legs:
            if leg.hold:  # held by an earlier leg of this very turn
                continue
            size = leg.read_bytes
            try:
                data = leg.read(size)
            except ssl.SSLWantReadError:  # half a record, or a session ticket
                continue
            except BlockingIOError:
                continue
            except OSError as error:
                self._read_failed(leg, error, records, sends)
                continue
            except Exception as error:  # a bug of ours ends this session only
                self._break(leg.flow, error)
                continue
            try:
                if not data:
                    self._ended(leg, EndOfInput.CLOSE_NOTIFY, records, sends)
                    continue
                at_ns = wall_ns()
                actions = leg.core.receive(leg.side, data, at_ns)
                if len(actions) == 1 and type(actions[0]) is Forward:
                    sends.append((leg.peer, actions[0].data))
                else:
                    self._collect(leg.flow, leg, actions, at_ns, records, sends)
                if len(data) == size and not leg.hold:
                    self._read_on(leg, records, sends)
            except Exception as error:  # a bug of ours ends this session only
                self._break(leg.flow, error)
        self._finish(records, sends)

    def _read_on(self, leg: Leg, records: list[Record], sends: Sends) -> None:
        """All that was asked for came: more of a bulk transfer is likely, or the rest of a record is inside TLS."""
        if leg.is_costly:
            self._note_due(leg)
        if leg.read_bytes != TLS_RECORD_BYTES:
            return
        core, side = leg.flow.core, leg.side
        leave_at = monotonic() + READ_ON_SECONDS
        for _ in range(READ_BYTES_MAX // TLS_RECORD_BYTES - 1):
            try:
                data = leg.read(TLS_RECORD_BYTES)
            except ssl.SSLWantReadError:
                return
            except OSError as error:
                self._read_failed(leg, error, records, sends)
                return
            if not data:
                self._ended(leg, EndOfInput.CLOSE_NOTIFY, records, sends)
                return
            at_ns = self._wall_ns()
            self._collect(leg.flow, leg, core.receive(side, data, at_ns), at_ns, records, sends)
            if leg.hold or len(data) < TLS_RECORD_BYTES or monotonic() > leave_at:
                return

    def _finish(self, records: list[Record], sends: Sends) -> None:
        """Phases two and three."""
        if records:
            self._channel.put_nowait(records)
        for leg, data in sends:
            if leg.backlog is not None:
                leg.backlog.append(data)  # its source is held: this came from the same turn
            elif len(data) > TLS_RECORD_BYTES:
                self._send_long(leg, data)
            else:
                try:
                    sent = leg.write(data)
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
                    sent = 0
                except OSError as error:
                    self.send_failed(leg, error)
                    continue
                except Exception as error:  # a bug of ours ends this session only
                    self._break(leg.flow, error)
                    continue
                if sent != len(data):
                    self._put_off(leg, data[sent:])

    def _send_long(self, leg: Leg, data: bytes) -> None:
        """Piece by piece: what is not taken must be offered again unchanged, and progress is to be seen."""
        pieces = list(in_pieces(leg, data))
        for number, piece in enumerate(pieces):
            try:
                sent = leg.write(piece)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
                sent = 0
            except OSError as error:
                self.send_failed(leg, error)
                return
            if sent != len(piece):
                self._put_off(leg, piece[sent:], *pieces[number + 1 :])
                return

    def _put_off(self, leg: Leg, *pieces: bytes | memoryview) -> None:
        leg.put_off(*pieces)
        self.hold(leg.peer, Hold.PEER_FULL)
        self._wake(leg.flow)

    def send_failed(self, leg: Leg, error: OSError) -> None:
        """The peer takes nothing more. If it may still be heard, its end will tell how; if not, it is gone."""
        leg.stuck = True
        leg.write = len  # what still comes for it counts as sent
        leg.backlog = None
        if not is_reset(error):
            log.warning("sending failed on the %s leg: %s", leg.side.value, type(error).__name__)
        if leg.ended is not None:
            flow = leg.flow
            at_ns = self._wall_ns()
            try:
                self.carry_out(flow, flow.core.end_of_input(leg.side, EndOfInput.RESET, at_ns), at_ns)
            except Exception as failure:  # a bug of ours ends this session only
                self._break(flow, failure)

    # Ends -------------------------------------------------------------------------------------------------------

    def _read_failed(self, leg: Leg, error: OSError, records: list[Record], sends: Sends) -> None:
        if isinstance(error, ssl.SSLWantWriteError):  # TLS owes the peer an answer (KeyUpdate)
            self.hold(leg, Hold.BUSY)
            self._wake(leg.flow)
            return
        if self._given_up(leg, error, records, sends):
            return
        truncated = is_unannounced(error) and not was_reset(leg.sock, error)
        how = EndOfInput.TRUNCATED if truncated else EndOfInput.RESET
        if not truncated and not is_reset(error):
            reason = getattr(error, "reason", None) or errno.errorcode.get(error.errno or 0)
            log.warning("reading failed on the %s leg: %s %s", leg.side.value, type(error).__name__, reason)
        try:
            self._ended(leg, how, records, sends)
        except Exception as failure:  # a bug of ours ends this session only
            self._break(leg.flow, failure)

    def _given_up(self, leg: Leg, error: OSError, records: list[Record], sends: Sends) -> bool:
        """The peer ended TLS with an alert: that is more than an end, and its name is worth a record."""
        flow = leg.flow
        if flow.given_up is None or not isinstance(error, ssl.SSLError) or alert_in(error) is None:
            return False
        try:
            failure = flow.given_up(leg, error)
            if failure is None:
                return False
            leg.ended = EndOfInput.RESET
            self.hold(leg, Hold.ENDED)
            self._wake(flow)
            at_ns = self._wall_ns()
            self._collect(flow, leg, flow.core.tls_failed(failure, at_ns), at_ns, records, sends)
        except Exception as bug:  # a bug of ours ends this session only
            self._break(flow, bug)
        return True

    def _ended(self, leg: Leg, how: EndOfInput, records: list[Record], sends: Sends) -> None:
        if leg.stuck:  # a send failed before: the error was reported there, and reads as a plain end here
            how = EndOfInput.RESET
        leg.ended = how
        self.hold(leg, Hold.ENDED)
        flow = leg.flow
        self._wake(flow)
        at_ns = self._wall_ns()
        self._collect(flow, leg, flow.core.end_of_input(leg.side, how, at_ns), at_ns, records, sends)

    def _break(self, flow: Flow, error: Exception) -> None:
        """End a session for a bug of ours. The text of an exception may quote what a peer sent: it is not logged."""
        log.error("a session ended for an internal error: %s", frames_of(error))
        if flow.close is None:
            self._close(flow, Close(cause=CloseCause.INTERNAL_ERROR, initiator=None))

    def _close(self, flow: Flow, action: Close) -> None:
        flow.close = action
        self.hold(flow.client, Hold.CLOSING)
        self.hold(flow.server, Hold.CLOSING)
        self._wake(flow)

    def _wake(self, flow: Flow) -> None:
        self._woken = True
        flow.wake()

    # Actions ----------------------------------------------------------------------------------------------------

    def _collect(
        self,
        flow: Flow,
        source: Leg | None,
        actions: list[Action],
        at_ns: int,
        records: list[Record],
        sends: Sends,
    ) -> None:
        """Take a list of actions apart: records and bytes are gathered, the rest is done."""
        for action in actions:
            match action:
                case Forward():
                    assert source is not None, "there is nothing to forward"
                    sends.append((source.peer, action.data))
                case Observe():
                    records.append(flow.recorder.record(action.event, at_ns))
                case Send():
                    sends.append((flow.leg(action.side), action.data))
                case Pause():
                    self.hold(flow.leg(action.side), Hold.PAUSED)
                case Resume():
                    self.release(flow.leg(action.side), Hold.PAUSED)
                case StartTls():
                    flow.starttls = action
                    for leg in (flow.client, flow.server):
                        self.hold(leg, Hold.SET_UP)
                        self.release(leg, Hold.PAUSED)
                    self._wake(flow)
                case VerifyName():
                    failure = flow.verify_name(action) if flow.verify_name is not None else None
                    if failure is not None:
                        self._collect(flow, None, flow.core.tls_failed(failure, at_ns), at_ns, records, sends)
                        return
                case Close():
                    if flow.close is None:
                        self._close(flow, action)
                    return
                case Wake():
                    pass  # the deadline is looked at below
                case _:
                    assert_never(action)
        if flow.client.is_costly and not flow.core.is_costly:
            for leg in (flow.client, flow.server):
                self._read_freely(leg)
        tick_ns = flow.core.next_tick_ns
        if tick_ns is not None and (flow.tick_ns is None or tick_ns < flow.tick_ns):
            # A deadline is never set without something to observe or an end.
            flow.tick_ns = tick_ns
            flow.hurry((tick_ns - at_ns) / _NS)

    def _read_freely(self, leg: Leg) -> None:
        leg.read_freely()
        if not leg.hold:
            self._regroup(leg)
            if leg.due:
                self._stranded.append(leg)
        leg.due = False


def in_pieces(leg: Leg, data: bytes) -> Iterable[memoryview]:
    """Cut ``data`` so that each piece is one write."""
    view = memoryview(data)
    size = TLS_RECORD_BYTES if leg.tls is not None else READ_BYTES_MAX
    for start in range(0, len(view), size):
        yield view[start : start + size]


def is_unannounced(error: OSError) -> TypeGuard[ssl.SSLError]:
    """Whether ``error`` says that TLS ended without close_notify, by FIN or RST."""
    return isinstance(error, ssl.SSLEOFError) or (
        isinstance(error, ssl.SSLError) and getattr(error, "reason", None) == UNEXPECTED_EOF
    )


def was_reset(sock: socket.socket, error: ssl.SSLError) -> bool:
    """Tell RST from a bare FIN: CPython says SSLEOFError to both.

    OpenSSL 3 gives a reason for the FIN; a failed read(2) has none, and the kernel knows what became of the connection.
    """
    if error.reason == UNEXPECTED_EOF:
        return False
    if not system.offers(socket, "TCP_INFO"):
        return error.reason is None
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
    except OSError:
        return True


_TCP_CLOSE: Final = 7  # <netinet/tcp.h>; behind a FIN it would be CLOSE_WAIT


def is_reset(error: OSError) -> bool:
    """Whether ``error`` says no more than that the peer is gone."""
    return is_unannounced(error) or error.errno in (
        errno.ECONNRESET,
        errno.EPIPE,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ECONNABORTED,
        errno.ENOTCONN,
    )


class EpollPlane(_Turns):
    """One epoll for all sessions."""

    def __init__(self, *, channel: Channel, wall_ns: Callable[[], int], linger_seconds: float = LINGER_SECONDS) -> None:
        super().__init__(channel=channel, wall_ns=wall_ns)
        self._linger_seconds = linger_seconds
        self._legs: dict[int, Leg] = {}
        self._epoll: select.epoll | None = None
        self._costly: select.epoll | None = None  # of the legs that are costly; registered in the other

    def _register(self, leg: Leg) -> None:
        self._legs[leg.fd] = leg
        self._epoll_of(leg).register(leg.fd, select.EPOLLIN)

    def _unregister(self, leg: Leg) -> None:
        leg.due = False  # when it is registered again, what is inside TLS is looked for
        if self._epoll is not None:
            del self._legs[leg.fd]
            self._epoll_of(leg).unregister(leg.fd)

    def _epoll_of(self, leg: Leg) -> "select.epoll":  # in quotes: where there is no epoll this module is read too
        epoll = self._costly if leg.is_costly else self._epoll
        assert epoll is not None, "the plane is not running"
        return epoll

    def _regroup(self, leg: Leg) -> None:
        assert self._costly is not None
        self._costly.unregister(leg.fd)
        self._register(leg)

    def _note_due(self, leg: Leg) -> None:
        if not leg.due:
            leg.due = True
            self._epoll_of(leg).modify(leg.fd, select.EPOLLIN | select.EPOLLOUT)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve legs until cancelled."""
        with select.epoll() as epoll, select.epoll() as costly:
            self._epoll, self._costly = epoll, costly
            epoll.register(costly.fileno(), select.EPOLLIN)
            task_status.started()
            try:
                while True:
                    await trio.lowlevel.wait_readable(epoll.fileno())
                    await self._visit(epoll)
            finally:
                self._epoll = None
                self._legs.clear()
                trio.lowlevel.notify_closing(epoll.fileno())

    async def _visit(self, epoll: "select.epoll") -> None:
        """Serve what is ready, and what becomes ready within a moment."""
        leave_at = monotonic() + VISIT_SECONDS
        legs, channel = self._legs, self._channel
        linger = 0.0
        while True:
            if channel.is_full:
                await channel.wait_not_full()
            ready = epoll.poll(linger, READY_MAX)
            if not ready:
                return
            self._woken = False
            some = [legs[fd] for fd, _ in ready if fd in legs]
            if some:
                self._serve(some)
            if len(some) < len(ready):
                self._serve_costly()
            if self._woken or monotonic() > leave_at:
                return
            linger = self._linger_seconds

    def _serve_costly(self) -> None:
        """Serve some of the costly legs, one a turn; of those that are ready the one that has cost least comes first.

        The kernel's order would not do: what it tells of once comes last the next time, served or not, and so a leg
        that was told of behind a slow one would stay behind it for ever.
        """
        assert self._costly is not None
        ready = [leg for fd, _ in self._costly.poll(0, READY_MAX) if (leg := self._legs.get(fd)) is not None]
        if len(ready) > 1:
            ready.sort(key=_cost_of)
        begun = monotonic()
        leave_at = begun + COSTLY_SECONDS
        for leg in ready:
            if leg.hold:  # by the turn of another leg; it is not registered any more
                continue
            if leg.due:
                leg.due = False
                self._costly.modify(leg.fd, select.EPOLLIN)
            self._serve((leg,))
            now = monotonic()
            leg.cost += now - begun
            if now > leave_at:
                return
            begun = now


def _cost_of(leg: Leg) -> float:
    return leg.cost


class WaitReadablePlane(_Turns):
    """A task for each leg that is read."""

    def __init__(self, *, channel: Channel, wall_ns: Callable[[], int]) -> None:
        super().__init__(channel=channel, wall_ns=wall_ns)
        self._scopes: dict[int, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None

    def _register(self, leg: Leg) -> None:
        assert self._nursery is not None, "the plane is not running"
        scope = self._scopes[leg.fd] = trio.CancelScope()
        self._nursery.start_soon(self._watch, leg, scope)

    def _unregister(self, leg: Leg) -> None:
        leg.due = False  # when it is registered again, what is inside TLS is looked for
        if self._nursery is not None:
            self._scopes.pop(leg.fd).cancel()

    async def _watch(self, leg: Leg, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                # A leg may have been let go of, and closed, before this ran.
                await trio.lowlevel.checkpoint_if_cancelled()
                if leg.due:
                    await trio.lowlevel.checkpoint()  # the others' turn
                else:
                    await trio.lowlevel.wait_readable(leg.fd)
                if self._channel.is_full:
                    await self._channel.wait_not_full()
                    continue
                leg.due = False
                self._serve((leg,))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve legs until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None


def new_plane(*, channel: Channel, wall_ns: Callable[[], int]) -> EpollPlane | WaitReadablePlane:
    """Return the plane for this system."""
    if system.offers(select, "epoll"):
        return EpollPlane(channel=channel, wall_ns=wall_ns)
    return WaitReadablePlane(channel=channel, wall_ns=wall_ns)
