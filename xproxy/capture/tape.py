"""One session on its way into a capture: the inputs of its core in their order, redacted, as lines.

``TapedCore`` and ``TapedRecorder`` stand before the session's real core and recorder and hand everything on; what the
session does and says is not changed by them, with one exception that is meant: once the session is established a chunk
is handed to the core element by element, so that every element's end is exact and records do not depend on how the
network cut the octets. The bytes that are forwarded, and whether, are the same.

A line waits until its octets can be redacted, which is when their element is complete; all lines behind it wait too.
That is bounded by what the core allows an element to be long. An error in here ends the capture of this session, never
the session.
"""

import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs

from xproxy.capture.lexer import WHITE, Lexer, Unit, UnitKind
from xproxy.capture.memory import WitnessedMemory
from xproxy.capture.redact import Redactor, is_read_alike
from xproxy.capture.trace import (
    NAME_BUDGETS,
    Close,
    Closed,
    Conn,
    End,
    Extra,
    Lost,
    NamesSpent,
    Noted,
    OpenServer,
    Phase,
    Said,
    SessionLine,
    Tick,
    Tls,
    Xml,
)
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import EndOfInput, Event, Side
from xproxy.events.connection import CloseCause, ConnectionClosed
from xproxy.events.proxy import LimitReached
from xproxy.events.stream import InspectionLost, LossScope, StreamViolation
from xproxy.events.tls import TlsEstablished, TlsFailed, TlsPassthrough
from xproxy.proxy.diagnose import frames_of
from xproxy.proxy.seams import SessionNotes
from xproxy.record.document import Document
from xproxy.record.recorder import Record
from xproxy.xmpp.actions import Action, Forward, LegMode, Observe, Progress, Send
from xproxy.xmpp.actions import Close as CloseAction
from xproxy.xmpp.session import Session

log = logging.getLogger(__name__)

_HEAD: Final[dict[str, Any]] = {"session": 1, "n": 0, "t_ns": 0, "line": 0}  # filled in when the line is written
CHECKED_UNITS_MAX: Final = 16
"""Of a chunk of which something was refused, units that are read again with what stands for them, 0.3 ms each."""

_NO_LIMIT: Final = 1 << 62
_NO_CHARACTER: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\xff]")


class LineSink(Protocol):
    """Takes the lines of one session: ``xproxy.capture.gate``."""

    def line(self, line: SessionLine) -> None:
        """Take a line, numbered."""

    def recorded(self, record: Record) -> None:
        """A record of the session was made."""

    def cut_off(self, why: str) -> None:
        """A limit ended the capture of this session."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is wanted of this session."""


@attrs.define
class _Waiting:
    """A line that may not be complete."""

    line: SessionLine
    octets: int = 0  # of it that are not redacted yet
    data: bytearray | None = None
    record_times: list[tuple[int, int]] = attrs.Factory(list)
    answers: tuple[tuple[str, object], ...] = ()
    names: NamesSpent | None = None
    lossy: bool = False

    def finished(self, n: int) -> SessionLine:
        """Return the line with its number."""
        changes: dict[str, Any] = {"n": n}
        if self.data is not None:
            changes["data"] = bytes(self.data)
        if self.record_times or self.answers or self.names is not None or self.lossy:
            changes["extra"] = Extra(
                record_times=tuple(self.record_times), answers=self.answers, names=self.names, lossy=self.lossy
            )
        return attrs.evolve(self.line, **changes)


class _Direction:
    """One direction: its units, and the lines whose octets are not redacted yet."""

    def __init__(self) -> None:
        self.lexer = Lexer()
        self.waiting: deque[_Waiting] = deque()
        self.opaque = False  # nobody looks into it any more
        self.is_suspect = False  # the core has refused something of what is not complete yet

    def fill(self, octets: bytes) -> None:
        """Put redacted octets where they belong."""
        while octets:
            line = self.waiting[0]
            assert line.data is not None, "it has octets"
            taken = octets[: line.octets]
            line.data += taken
            line.octets -= len(taken)
            octets = octets[len(taken) :]
            if not line.octets:
                self.waiting.popleft()


class Tape:
    """The lines of one session. Belongs to the session's task."""

    def __init__(
        self,
        *,
        trace_id: str,
        redactor: Redactor,
        sink: LineSink,
        wall_ns: Callable[[], int],
        waiting_bytes_max: int = _NO_LIMIT,
    ) -> None:
        """``waiting_bytes_max``: octets that may wait for an element to be complete."""
        self._trace_id = trace_id
        self._waiting_bytes_max = waiting_bytes_max
        self._waiting_bytes = 0
        self._redactor = redactor
        self._sink = sink
        self._at_ns = wall_ns()
        self._lines: deque[_Waiting] = deque()
        self._directions = {side: _Direction() for side in Side}
        self._n = 0
        self._conn: _Waiting | None = None
        self._before_conn: list[_Waiting] = []
        self._current: _Waiting | None = None  # what the last input became
        self._expected: list[Event] = []  # events the recorder will be given for it
        self._input_at_ns = 0
        self._memory: WitnessedMemory | None = None
        self._limits = StreamLimits()
        self._secure = False
        self._closed_at_ns: int | None = None
        self.failed = False

    @property
    def is_off(self) -> bool:
        """Whether nothing is written of this session any more."""
        return self.failed or self._sink.is_closed

    # What happens -------------------------------------------------------------------------------------------------

    def begin(
        self, *, mode: LegMode, at_ns: int, limits: StreamLimits, policy: StreamPolicy, memory: WitnessedMemory
    ) -> None:
        """The core is there."""
        self._memory, self._limits = memory, limits
        conn = Conn(
            **_HEAD,
            at_ns=self._at_ns,
            trace_id=self._trace_id,
            core_t_ns=at_ns - self._at_ns,
            mode=mode.value,
            limits=limits,
            policy=policy,
        )
        self._conn = _Waiting(conn)
        self._lines.appendleft(self._conn)

    def line_at(self, at_ns: int) -> int:
        """Return ``t`` of a line."""
        return at_ns - self._at_ns

    def input(self, waiting: _Waiting, actions: list[Action], at_ns: int, *, goes_on: bool = False) -> list[Event]:
        """The core was told something and answered with ``actions``; return the events among them.

        ``goes_on``: it was the next part of one chunk, whose records are all made later.
        """
        assert self._memory is not None, "there is a core"
        waiting.answers = self._memory.take()
        self._lines.append(waiting)
        self._current = waiting
        self._input_at_ns = at_ns
        events = [action.event for action in actions if isinstance(action, Observe)]
        self._expected = [*self._expected, *events] if goes_on else events
        for action in actions:
            if isinstance(action, Send):
                said = Said(**_HEAD | {"t_ns": self.line_at(at_ns)}, to=action.side, data=action.data)
                self._lines.append(_Waiting(said))
        return events

    def told(self, waiting: _Waiting, actions: list[Action], at_ns: int) -> None:
        """As ``input``."""
        self.input(waiting, actions, at_ns)

    def octets(
        self,
        side: Side,
        data: bytes,
        units: list[Unit],
        actions: list[Action],
        at_ns: int,
        phase: Phase,
        *,
        goes_on: bool,
    ) -> None:
        """The core was told octets, behind which ``units`` of that side are complete."""
        direction = self._directions[side]
        at = {**_HEAD, "t_ns": self.line_at(at_ns)}
        phase = "opaque" if direction.opaque else phase
        waiting = _Waiting(Xml(**at, sent_by=side, phase=phase, data=b""), len(data), bytearray())
        events = self.input(waiting, actions, at_ns, goes_on=goes_on)
        self._waiting_bytes += len(data)
        waiting.names = _names_spent(events, side)
        direction.waiting.append(waiting)
        if direction.opaque:
            direction.fill(b"x" * len(data))
            return
        told = frozenset(text for event in events if isinstance(text := getattr(event, "text", None), str))
        refused = any(_is_refusal(event, side) for event in events)
        for number, unit in enumerate(units):
            is_suspect = (refused and number < CHECKED_UNITS_MAX) or (direction.is_suspect and number == 0)
            direction.fill(self._redacted(side, unit, told, waiting, refused=is_suspect))
        if units or refused:
            direction.is_suspect = refused and direction.lexer.waiting > 0
        over = any(isinstance(action, CloseAction) for action in actions)
        if self._waiting_bytes > self._waiting_bytes_max:
            self._flush()  # this chunk may have completed it
            if self._waiting_bytes > self._waiting_bytes_max:
                self._sink.cut_off("capture.waiting_bytes_max")
                self.lost("element-not-complete")
                return
        for other in Side:
            if over or any(_is_loss(event, other) for event in events):
                self._go_opaque(other, waiting if other is side else None)

    def _redacted(self, side: Side, unit: Unit, told: frozenset[str], waiting: _Waiting, *, refused: bool) -> bytes:
        filled = self._redactor.redact(side, unit, told)
        return self._checked(side, unit, filled, waiting) if refused else filled

    def _checked(self, side: Side, unit: Unit, filled: bytes, waiting: _Waiting) -> bytes:
        """Return what is refused as the octets of ``unit`` were, for the same reason and at the same place.

        Which of several wrong octets is the reason depends on where the parser is: some may have to go.
        """
        header = b"" if unit.kind is UnitKind.HEADER else self._redactor.header(side)
        for candidate in (filled, filled.replace(b"\xff", b"x"), _NO_CHARACTER.sub(b"x", filled)):
            if is_read_alike(header, unit.octets, candidate, self._limits):
                return candidate
        waiting.lossy = True
        return filled

    def _go_opaque(self, side: Side, waiting: _Waiting | None) -> None:
        """Nobody looks at this direction any more; what was begun is not completed."""
        direction = self._directions[side]
        if direction.opaque:
            return
        direction.opaque = True
        rest = direction.lexer.rest()
        if not any(line.octets for line in direction.waiting):
            return  # it stands in parts of a chunk that the core has not been told yet
        filled = self._redactor.redact(side, rest)
        direction.fill(filled if waiting is None else self._checked(side, rest, filled, waiting))

    def secured(self, leg: Side) -> None:
        """TLS is up; when it is on the client's leg, the last, new documents begin on both sides."""
        if leg is Side.CLIENT:
            self._secure = True
            self._redactor.forget_login()
            for side, direction in self._directions.items():
                if direction.lexer.waiting:
                    direction.fill(self._redactor.redact(side, direction.lexer.rest()))
                direction.lexer.reset()

    def passed_on(self) -> None:
        """There will be no TLS of ours: what comes is ciphertext."""
        for side in Side:
            self._go_opaque(side, None)

    @property
    def phase(self) -> Phase:
        """How far the session has come, before it is established."""
        return "tls" if self._secure else "plain"

    def units(self, side: Side, data: bytes) -> list[Unit]:
        """Return what is complete with ``data``."""
        direction = self._directions[side]
        return [] if direction.opaque else direction.lexer.feed(data)

    def waiting_octets(self, side: Side) -> int:
        """Return how many octets of earlier chunks belong to the next unit."""
        return self._directions[side].lexer.waiting

    def recorded(self, event: Event, record: Record, at_ns: int) -> None:
        """The recorder made a record."""
        index = next((index for index, each in enumerate(self._expected) if each is event), None)
        if index is not None:
            if at_ns != self._input_at_ns and self._current is not None:
                self._current.record_times.append((index, at_ns - self._input_at_ns))
        else:
            self._flush()
            self._expected = []
            self._current = None
            if isinstance(event, ConnectionClosed):
                self._end(at_ns)
            else:
                at = {**_HEAD, "t_ns": self.line_at(at_ns)}
                self._lines.append(_Waiting(Noted(**at, event=event)))
        self._sink.recorded(record)
        if isinstance(event, ConnectionClosed):
            self._flush()

    def totals_at(self, at_ns: int) -> None:
        """The core was asked for its totals; if they are recorded, it was for this time."""
        self._closed_at_ns = at_ns

    def _end(self, at_ns: int) -> None:
        for side, direction in self._directions.items():
            if direction.lexer.waiting:
                rest = direction.lexer.rest()
                direction.fill(self._checked(side, rest, self._redactor.redact(side, rest), direction.waiting[-1]))
        closed_at_ns = at_ns if self._closed_at_ns is None else self._closed_at_ns
        closed = _Waiting(Closed(**_HEAD | {"t_ns": self.line_at(closed_at_ns)}))
        if at_ns != closed_at_ns:
            closed.record_times.append((0, at_ns - closed_at_ns))
        if self._memory is not None:
            closed.answers = self._memory.take()
        self._lines.append(closed)

    def flush(self) -> None:
        """Hand on the lines that are complete: the next input begins."""
        self._flush()

    def _flush(self) -> None:
        if self._conn is None:
            return
        lines = self._lines
        while lines and not lines[0].octets:
            self._n += 1
            line = lines.popleft().finished(self._n)
            if isinstance(line, Xml):
                self._waiting_bytes -= len(line.data)
            self._sink.line(line)

    def lost(self, why: str) -> None:
        """Capturing ends here: what is not redacted is not written."""
        self._flush()
        if self._conn is not None and not self._sink.is_closed:
            self._n += 1
            self._sink.line(Lost(session=1, n=self._n, t_ns=self.line_at(self._input_at_ns), line=0, why=why))
        self._lines.clear()
        self.failed = True

    def fail(self, error: Exception) -> None:
        """A bug of ours: this session is not captured any further. The text of an exception may quote a peer."""
        log.error("capturing a session ended for an internal error: %s", frames_of(error))
        self._lines.clear()
        try:
            self.lost("internal-error")
        except Exception:
            self.failed = True


class TapedRecorder:
    """Before a session's recorder."""

    def __init__(self, recorder: SessionNotes, tape: Tape) -> None:
        self._recorder = recorder
        self._tape = tape

    def record(self, event: Event, at_ns: int) -> Record:
        """Make the record."""
        record = self._recorder.record(event, at_ns)
        if not self._tape.is_off:
            try:
                self._tape.recorded(event, record, at_ns)
            except Exception as error:
                self._tape.fail(error)
        return record

    def known(self) -> Document:
        """Return what is known of the session."""
        return self._recorder.known()


class TapedCore:
    """Before a session's core."""

    def __init__(self, core: Session, tape: Tape) -> None:
        self._core = core
        self._tape = tape

    @property
    def next_tick_ns(self) -> int | None:
        """As the core's."""
        return self._core.next_tick_ns

    def receive(self, side: Side, data: bytes, at_ns: int) -> list[Action]:
        """Take bytes."""
        tape = self._tape
        if tape.is_off:
            return self._core.receive(side, data, at_ns)
        units: list[Unit] = []
        before = 0
        try:
            tape.flush()
            before = tape.waiting_octets(side)
            units = tape.units(side, data)
        except Exception as error:
            tape.fail(error)
        if not self._core.established or not units:
            phase = self._phase()
            actions = self._core.receive(side, data, at_ns)
            self._took(side, data, units, actions, at_ns, phase)
            return actions
        return self._receive_parts(side, data, before, units, at_ns)

    def _receive_parts(self, side: Side, data: bytes, before: int, units: list[Unit], at_ns: int) -> list[Action]:
        observed: list[Action] = []
        forwards: list[Forward] = []
        rest: list[Action] = []
        for number, (part, complete) in enumerate(_parts(data, before, units)):
            actions = self._core.receive(side, part, at_ns)
            self._took(side, part, complete, actions, at_ns, "bound", goes_on=number > 0)
            for action in actions:
                match action:
                    case Forward():
                        forwards.append(action)
                    case Observe():
                        observed.append(action)
                    case _:
                        rest.append(action)
        if any(isinstance(action, CloseAction) for action in rest):
            return [*observed, *rest]  # as the core does it with a whole chunk
        if forwards:
            observed.append(forwards[0] if len(forwards) == 1 else Forward(b"".join(each.data for each in forwards)))
        return [*observed, *rest]

    def _phase(self) -> Phase:
        return "bound" if self._core.established else self._tape.phase

    def _took(
        self,
        side: Side,
        data: bytes,
        units: list[Unit],
        actions: list[Action],
        at_ns: int,
        phase: Phase,
        *,
        goes_on: bool = False,
    ) -> None:
        tape = self._tape
        if tape.is_off:
            return
        try:
            tape.octets(side, data, units, actions, at_ns, phase, goes_on=goes_on)
        except Exception as error:
            tape.fail(error)

    @property
    def left_at_certificate(self) -> bool:
        """As the core's."""
        return self._core.left_at_certificate

    @property
    def is_costly(self) -> bool:
        """As the core's."""
        return self._core.is_costly

    def renew_parsers(self) -> None:
        """As the core does."""
        self._core.renew_parsers()

    def open_server_stream(self, domain: str, at_ns: int) -> list[Action]:
        """The server begins in clear and the client with TLS, asking for ``domain``."""
        line = OpenServer(**_HEAD, domain=domain)
        return self._told(lambda: self._core.open_server_stream(domain, at_ns), line, at_ns)

    def tls_established(self, facts: TlsEstablished, at_ns: int) -> list[Action]:
        """TLS is up on a leg."""
        actions = self._told(lambda: self._core.tls_established(facts, at_ns), Tls(**_HEAD, event=facts), at_ns)
        self._guarded(lambda: self._tape.secured(facts.leg))
        return actions

    def tls_passed_on(self, facts: TlsPassthrough, at_ns: int) -> list[Action]:
        """There will be no TLS of ours."""
        actions = self._told(lambda: self._core.tls_passed_on(facts, at_ns), Tls(**_HEAD, event=facts), at_ns)
        self._guarded(self._tape.passed_on)
        return actions

    def tls_failed(self, failure: TlsFailed, at_ns: int) -> list[Action]:
        """TLS failed on a leg."""
        return self._told(lambda: self._core.tls_failed(failure, at_ns), Tls(**_HEAD, event=failure), at_ns)

    def end_of_input(self, side: Side, how: EndOfInput, at_ns: int) -> list[Action]:
        """A peer will send no more."""
        line = End(**_HEAD, sent_by=side, how=how)
        return self._told(lambda: self._core.end_of_input(side, how, at_ns), line, at_ns)

    def tick(self, at_ns: int) -> list[Action]:
        """A deadline has come."""
        return self._told(lambda: self._core.tick(at_ns), Tick(**_HEAD), at_ns)

    def close(self, cause: CloseCause, at_ns: int) -> list[Action]:
        """The proxy ends the session."""
        return self._told(lambda: self._core.close(cause, at_ns), Close(**_HEAD, cause=cause), at_ns)

    def closed(self, at_ns: int) -> ConnectionClosed:
        """Both legs are gone, or the totals so far are asked for."""
        self._tape.totals_at(at_ns)
        return self._core.closed(at_ns)

    def progress(self) -> Progress:
        """How far the session has come."""
        return self._core.progress()

    def _told(self, tell: Callable[[], list[Action]], line: SessionLine, at_ns: int) -> list[Action]:
        tape = self._tape
        if tape.is_off:
            return tell()
        self._guarded(tape.flush)
        actions = tell()
        waiting = _Waiting(attrs.evolve(line, t_ns=tape.line_at(at_ns)))
        self._guarded(lambda: tape.told(waiting, actions, at_ns))
        return actions

    def _guarded(self, do: Callable[[], None]) -> None:
        if self._tape.is_off:
            return
        try:
            do()
        except Exception as error:
            self._tape.fail(error)


def _parts(data: bytes, before: int, units: list[Unit]) -> list[tuple[bytes, list[Unit]]]:
    """Cut ``data`` behind each element; white space goes with what stands before it, comments with what follows."""
    parts: list[tuple[bytes, list[Unit]]] = []
    start, end = 0, -before  # the first unit may have begun in an earlier chunk
    own: list[Unit] = []
    is_due = False  # an element ended since the last cut
    for unit in units:
        if is_due and unit.octets.strip(WHITE):
            parts.append((data[start:end], own))
            start, own, is_due = end, [], False
        own.append(unit)
        end += len(unit.octets)
        is_due = is_due or unit.kind is not UnitKind.BETWEEN
    if is_due and data[end:].strip(WHITE):
        parts.append((data[start:end], own))
        start, own = end, []
    if start < len(data):
        parts.append((data[start:], own))
    return parts


def _is_refusal(event: Event, side: Side) -> bool:
    return isinstance(event, StreamViolation | InspectionLost) and event.sent_by is side


def _is_loss(event: Event, side: Side) -> bool:
    return isinstance(event, InspectionLost) and event.sent_by is side and event.scope is LossScope.STREAM


def _names_spent(events: list[Event], side: Side) -> NamesSpent | None:
    for event in events:
        if isinstance(event, LimitReached) and event.limit in NAME_BUDGETS and event.offset is not None:
            return NamesSpent(offset=event.offset, limit=event.limit, max=event.value)
    return None
