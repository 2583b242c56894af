"""Which lines of a session get into its file: filters, and the ring that keeps what came before it was known.

A session is wanted when its client is of the network asked for, when it is of the account asked for (a claim counts: a
login that fails is what one looks for), and when one of the actions asked for was recorded. Until then its lines are
kept; when the ring is full the oldest go, but never the first, which says what the session is. A ``gap`` stands for
them: such a capture can be looked at, not replayed from its beginning.
"""

import ipaddress
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from xproxy.capture.store import Reserve, Taken
from xproxy.capture.trace import Closed, Conn, Gap, Lost, Meta, SessionLine, meta_line, session_line
from xproxy.events.connection import ConnectionAccepted
from xproxy.jid import Jid, JidError
from xproxy.record.recorder import Record

_OVERHEAD_BYTES: Final = 100  # of a line in memory


@attrs.frozen(kw_only=True)
class Wanted:
    """What is captured."""

    jid: str | None = None  # bare
    net: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    actions: frozenset[str] = frozenset()


class Ledger(Protocol):
    """What all captures of a run share: ``xproxy.capture.service``."""

    def write(self, trace_id: str, data: bytes, reserve: Reserve | None = None) -> Taken:
        """Have ``data`` written to the file of that session, or nothing of it."""

    def may_keep(self, change: int) -> bool:
        """Count ``change`` bytes kept in rings; False: there are too many."""

    def cut_off(self, why: str) -> None:
        """A session's capture ended before the session did."""

    def gone(self) -> None:
        """Somebody has removed a session's file."""

    def ended(self, gate: "Gate") -> None:
        """A session is over or not wanted."""


class Gate:
    """The lines of one session."""

    def __init__(self, *, wanted: Wanted, trace_id: str, meta: Callable[[], Meta], ledger: Ledger, ring_bytes: int,
                 session_bytes_max: int) -> None:  # fmt: skip
        self._wanted = wanted
        self.trace_id = trace_id
        self._meta = meta
        self._ledger = ledger
        self._ring_bytes = ring_bytes
        self._bytes_max = session_bytes_max
        self._is_jid = wanted.jid is None
        self._is_triggered = not wanted.actions
        self._open = False
        self._begun = False
        self._closed = False
        self._conn = b""
        self._ring: deque[tuple[SessionLine, bytes]] = deque()
        self._kept = 0
        self._gap = 0
        self._gap_bytes = 0
        self._gap_line: SessionLine | None = None
        self._written = 0
        self._last_n = 0  # of the lines that came
        self._last_t_ns = 0
        self._written_n = 0  # ... and that were written

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is wanted of this session."""
        return self._closed

    @property
    def is_written(self) -> bool:
        """Whether the session has a file."""
        return self._begun

    def recorded(self, record: Record) -> None:
        """Look whether the session is wanted."""
        if self._closed:
            return
        document, wanted = record.document, self._wanted
        is_accepted = record.action == ConnectionAccepted.action
        if is_accepted and wanted.net is not None and not _is_in(document["client"]["ip"], wanted.net):
            self.close()
            return
        if not self._is_jid and _bare(str(document.get("xmpp", {}).get("jid", ""))) == wanted.jid:
            self._is_jid = True
        if not self._is_triggered and record.action in wanted.actions:
            self._is_triggered = True
        if self._is_jid and self._is_triggered and not self._open:
            self._open = True
            self._release()

    def line(self, line: SessionLine) -> None:
        """Take a line."""
        if self._closed:
            return
        self._last_n, self._last_t_ns = line.n, line.t_ns
        data = session_line(line)
        if isinstance(line, Conn):
            self._conn = data
            if self._open:
                self._release()
            return
        if self._open and self._conn:
            self._write(data)
        else:
            self._keep(line, data)
        if isinstance(line, Closed | Lost):
            self.close()

    def cut_off(self, why: str) -> None:
        """A limit ended the capture of this session."""
        self._ledger.cut_off(why)

    def close(self) -> None:
        """Nothing more is wanted; what is kept goes."""
        if not self._closed:
            self._closed = True
            self._ring.clear()
            self._ledger.may_keep(-self._kept)
            self._kept = 0
            self._ledger.ended(self)

    def cut(self, why: str) -> None:
        """Capturing ends before the session does."""
        if self._begun and not self._closed:
            lost = Lost(session=1, n=self._written_n + 1, t_ns=self._last_t_ns, line=0, why=why)
            self._ledger.write(self.trace_id, session_line(lost), "last")
        self.close()

    def _keep(self, line: SessionLine, data: bytes) -> None:
        size = len(data) + _OVERHEAD_BYTES
        self._ring.append((line, data))
        self._kept += size
        has_room = self._ledger.may_keep(size)
        while self._ring and (self._kept > self._ring_bytes or not has_room):
            dropped, octets = self._ring.popleft()
            size = len(octets) + _OVERHEAD_BYTES
            self._kept -= size
            has_room = self._ledger.may_keep(-size) or has_room
            self._gap += 1
            self._gap_bytes += len(octets)
            self._gap_line = dropped

    def _release(self) -> None:
        """Write what was kept."""
        if not self._conn:
            return
        parts = [meta_line(self._meta()), self._conn]
        if (line := self._gap_line) is not None:
            gap = Gap(session=1, n=line.n, t_ns=line.t_ns, line=0, lines=self._gap, bytes=self._gap_bytes)
            parts.append(session_line(gap))
        parts += [data for _, data in self._ring]
        self._ring.clear()
        self._ledger.may_keep(-self._kept)
        self._kept = 0
        self._write(b"".join(parts), "ring")

    def _write(self, data: bytes, reserve: Reserve | None = None) -> None:
        if self._written + len(data) > self._bytes_max:
            self._ledger.cut_off("capture.session_bytes_max")
            self.cut("session-limit")
            return
        match self._ledger.write(self.trace_id, data, reserve):
            case "taken":
                self._begun = True
                self._written += len(data)
                self._written_n = self._last_n
            case "queue-full":
                self._ledger.cut_off("capture.queue_bytes_max")
                self.cut("queue-limit")
            case "gone":
                self._ledger.gone()
                self.close()
            case "over":
                pass  # with this very write, or a moment ago: it is being said


def _is_in(ip: str, net: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(ip) in net
    except ValueError:
        return False


def _bare(text: str) -> str | None:
    try:
        return str(Jid.from_text(text).bare)
    except JidError:
        return None
