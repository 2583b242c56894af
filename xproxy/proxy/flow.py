"""One session as the plane sees it: two legs, what holds each of them, and what its task must look at."""

import enum
import math
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from xproxy.events import EndOfInput, Side
from xproxy.events.tls import TlsFailed
from xproxy.proxy.seams import Recorder, SessionCore, VerifyUpstreamName
from xproxy.xmpp.actions import Close, StartTls

TLS_RECORD_BYTES: Final = 16_384
"""RFC 8446 section 5.1: more plaintext is never in one record, so one read never leaves any behind."""

PLAIN_READ_BYTES: Final = 65_536

COSTLY_READ_BYTES: Final = 1_024
"""From a leg whose session is not established, in one turn. There the core looks at each ">": 1 KiB of them takes 2 to
4 ms, 64 KiB would take the time of everybody's turn. A client's part of a login has under 1 KiB a chunk."""


class Hold(enum.IntFlag):
    """Why a leg is not read. A leg without a reason is registered with the plane."""

    SET_UP = 1  # its session's task has it: not joined yet, or handshakes are under way
    PAUSED = 2  # the core said so
    PEER_FULL = 4  # the other leg has not taken all that came from this one
    BUSY = 8  # TLS must write before it can read on
    ENDED = 16  # there is nothing more to read
    CLOSING = 32  # the session ends


class Leg:
    """One connection of a session. Its socket belongs to the session's task, which alone closes it."""

    __slots__ = ("backlog", "core", "cost", "due", "ended", "fd", "fin_sent", "flow", "flushing", "hold", "is_costly",
                 "peer", "read", "read_bytes", "side", "sock", "stuck", "write")  # fmt: skip

    core: SessionCore
    flow: "Flow"
    peer: "Leg"
    read: Callable[[int], bytes]
    write: Callable[[bytes | memoryview], int]

    def __init__(self, side: Side, sock: socket.socket) -> None:
        self.side = side
        self.hold = int(Hold.SET_UP)  # a plain int: tested for every chunk, and a flag's operators take a microsecond
        self.backlog: deque[bytes | memoryview] | None = None  # read from the peer, not yet taken by this leg
        self.flushing = False  # a task is sending the backlog
        self.stuck = False  # nothing can be sent any more; what comes for this leg is dropped
        self.ended: EndOfInput | None = None
        self.fin_sent = False  # nothing more goes out, what comes in is still read
        self.is_costly = True  # what it says takes the core long: it is read in small portions, behind the others
        self.cost = 0.0  # seconds that its turns took while it was costly
        self.due = False  # costly, and perhaps there is more inside the TLS object
        self.use(sock)

    def use(self, sock: socket.socket) -> None:
        """Talk through ``sock`` from now on."""
        self.sock = sock
        self.fd = sock.fileno()
        if isinstance(sock, ssl.SSLSocket):
            # The methods of the C object inside; those of SSLSocket only test that there is one and call them. Python
            # has no public name for it, so where it is missing it is done without.
            tls = getattr(sock, "_sslobj", None) or sock
            self.read, self.write = tls.read, tls.write
        else:
            self.read, self.write = sock.recv, sock.send
        self._limit()

    def read_freely(self) -> None:
        """Read it like the others from now on."""
        self.is_costly = False
        self._limit()

    def _limit(self) -> None:
        if self.is_costly:
            self.read_bytes = COSTLY_READ_BYTES
        else:
            self.read_bytes = PLAIN_READ_BYTES if self.tls is None else TLS_RECORD_BYTES

    @property
    def tls(self) -> ssl.SSLSocket | None:
        """The socket if it is a TLS socket."""
        return self.sock if isinstance(self.sock, ssl.SSLSocket) else None

    def waiting_bytes(self) -> int:
        """How much waits to be sent."""
        return sum(map(len, self.backlog or ()))

    def put_off(self, *pieces: bytes | memoryview) -> None:
        """Keep ``pieces`` until the peer takes them."""
        if self.backlog is None:
            self.backlog = deque()
        self.backlog.extend(pieces)

    def taken(self, sent: int) -> None:
        """The peer took so much of the first piece that waits."""
        assert self.backlog is not None
        if sent < len(self.backlog[0]):
            self.backlog[0] = self.backlog[0][sent:]
            return
        self.backlog.popleft()
        if not self.backlog:
            self.backlog = None


class Flow:
    """One session: its two legs, its core, and a mailbox for its task."""

    __slots__ = (
        "_news",
        "_waiting",
        "client",
        "close",
        "core",
        "given_up",
        "recorder",
        "server",
        "starttls",
        "tick_ns",
        "verify_name",
    )

    def __init__(
        self,
        *,
        core: SessionCore,
        recorder: Recorder,
        client: Leg,
        server: Leg,
        verify_name: VerifyUpstreamName | None = None,
        given_up: "Callable[[Leg, ssl.SSLError], TlsFailed | None] | None" = None,
    ) -> None:
        self.core = core
        self.recorder = recorder
        self.client = client
        self.server = server
        self.verify_name = verify_name
        self.given_up = given_up  # what an alert from a peer means when TLS is up; None: nothing more than an end
        self.close: Close | None = None  # the first one counts
        self.starttls: StartTls | None = None
        self.tick_ns: int | None = None  # what the task waits for; the plane hurries it when the core wants less
        self._news = trio.Event()
        self._waiting: trio.CancelScope | None = None
        for leg, peer in ((client, server), (server, client)):
            leg.flow = self
            leg.core = core
            leg.peer = peer
            if not core.is_costly:
                leg.read_freely()

    def leg(self, side: Side) -> Leg:
        """The leg of ``side``."""
        return self.client if side is Side.CLIENT else self.server

    def part(self) -> None:
        """Have the legs forget each other: the session is over, and the plane has neither of them.

        What refers to each other is only freed when the collector looks for it, and that is late: a TLS object each.
        """
        for leg in (self.client, self.server):
            del leg.flow, leg.peer

    def wake(self) -> None:
        """Have the session's task look at the flow."""
        self._news.set()

    async def news(self, seconds_max: float = math.inf) -> None:
        """Wait until ``wake`` was called since it was last noticed, at most ``seconds_max`` or what ``hurry`` says."""
        with trio.move_on_after(seconds_max) as self._waiting:
            await self._news.wait()
            self._news = trio.Event()

    def hurry(self, seconds_max: float) -> None:
        """Have the wait in ``news`` end after ``seconds_max`` at the latest; to wake the task for that would cost more.

        A task that does not wait looks at the core's deadline before it does.
        """
        waiting = self._waiting
        if waiting is not None:
            waiting.deadline = min(waiting.deadline, trio.current_time() + seconds_max)
