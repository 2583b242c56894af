"""A capture through the session core again: the records of then, with the times of then.

What the core is given is what it was given live, line for line, and so are the answers of what it asked (the memory of
earlier sessions, how full the parser's dictionary was). Memory does not grow with the capture: sessions are driven side
by side as their lines come, and are dropped when they are over.

Not the same as live, and so left to ``xproxy.replay.golden`` where records are compared: ``event.sequence`` (a record's
place in the journal) and hashes that are keyed (of ids of stanzas, devices and resumable sessions): the key is no part
of a capture.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from xproxy.capture.memory import ScriptedMemory, WitnessedMemory
from xproxy.capture.tape import Tape, TapedCore, TapedRecorder
from xproxy.capture.trace import (
    Close,
    Closed,
    Conn,
    End,
    Extra,
    Gap,
    Lost,
    Meta,
    NamesSpent,
    Noted,
    OpenServer,
    Said,
    SessionLine,
    Tick,
    Tls,
    TraceProblem,
    Xml,
    read_trace,
)
from xproxy.config.stream import StreamLimits
from xproxy.events import Event, Side
from xproxy.events.tls import TlsEstablished, TlsFailed, TlsPassthrough
from xproxy.proxy.seams import SessionCore, SessionNotes
from xproxy.record.recorder import Observer, Record, SessionRecorder
from xproxy.xmpp.actions import Action, Forward, LegMode, Observe, VerifyName
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.names import NameBudget
from xproxy.xmpp.session import Session
from xproxy.xmpp.stream import StreamReader


@attrs.frozen(kw_only=True)
class Replayed:
    """What one line of a capture led to."""

    session: int
    trace_id: str
    line: int  # in the file
    records: list[Record]
    ended: str | None = None  # "": the session is over; else why it could not be replayed to its end
    lossy: bool = False  # from here on records may differ from those of then


class OfflineSession:
    """One session, driven by its lines."""

    def __init__(self, conn: Conn, observer: Observer, *, tape: Tape | None = None) -> None:
        """Begin it; ``tape``: capture it anew.

        Raises:
            ValueError: its mode is not known.
        """
        self.trace_id = conn.trace_id
        self._at_ns = conn.at_ns
        self._memory = ScriptedMemory()
        self._spend: Callable[[Side, NamesSpent], None]
        self._core: SessionCore
        self._recorder: SessionNotes = SessionRecorder(trace_id=conn.trace_id, observer=observer)
        if tape is None:
            core = _Core(conn, self._memory)
            self._core, self._spend = core, core.spend
        else:
            memory = WitnessedMemory(self._memory)
            core = _Core(conn, memory)
            tape.begin(
                mode=LegMode(conn.mode),
                at_ns=conn.at_ns + conn.core_t_ns,
                limits=conn.limits,
                policy=conn.policy,
                memory=memory,
            )
            self._core, self._spend = TapedCore(core, tape), core.spend
            self._recorder = TapedRecorder(self._recorder, tape)
        self._withheld: list[tuple[Event, int]] = []  # behind a name that is to be verified

    def feed(self, line: SessionLine) -> list[Record]:
        """Take the next line; return the records that are certain now. The usual stanza has none."""
        core, at_ns = self._core, self._at_ns + line.t_ns
        if self._withheld:
            if isinstance(line, Tls) and isinstance(line.event, TlsFailed):
                self._withheld.clear()  # of a name that failed verification
            else:
                return [*self._released(), *self.feed(line)]
        if type(line) is Xml:
            if line.extra.answers:
                self._memory.give(line.extra.answers)
            if line.extra.names is not None:
                self._spend(line.sent_by, line.extra.names)
            actions = core.receive(line.sent_by, line.data, at_ns)
            if not actions or (len(actions) == 1 and type(actions[0]) is Forward):
                return []
            return self._records(actions, at_ns, line.extra)
        match line:
            case Noted():
                return [self._recorder.record(line.event, at_ns)]
            case Closed():
                closed = core.closed(at_ns)
                return [self._recorder.record(closed, at_ns + dict(line.extra.record_times).get(0, 0))]
            case Tls() | End() | Tick() | Close() | OpenServer():
                self._memory.give(line.extra.answers)
                return self._records(self._tell(line, at_ns), at_ns, line.extra)
        return []

    def _tell(self, line: Tls | End | Tick | Close | OpenServer, at_ns: int) -> list[Action]:
        core = self._core
        match line:
            case Tls(event=TlsEstablished() as facts):
                return core.tls_established(facts, at_ns)
            case Tls(event=TlsFailed() as failure):
                return core.tls_failed(failure, at_ns)
            case Tls(event=TlsPassthrough() as passed):
                return core.tls_passed_on(passed, at_ns)
            case End():
                return core.end_of_input(line.sent_by, line.how, at_ns)
            case Tick():
                return core.tick(at_ns)
            case Close():
                return core.close(line.cause, at_ns)
            case OpenServer():
                return core.open_server_stream(line.domain, at_ns)
        raise AssertionError("every input is told")

    def _records(self, actions: list[Action], at_ns: int, extra: Extra) -> list[Record]:
        """Record what was observed, as the relay does: a name that fails verification drops what stands behind it."""
        records: list[Record] = []
        late = dict(extra.record_times)
        index = 0
        verifying = False
        for action in actions:
            if isinstance(action, VerifyName):
                verifying = True
            elif isinstance(action, Observe):
                when = at_ns + late.get(index, 0)
                index += 1
                if verifying:
                    self._withheld.append((action.event, when))
                else:
                    records.append(self._recorder.record(action.event, when))
        return records

    def _released(self) -> list[Record]:
        withheld, self._withheld = self._withheld, []
        return [self._recorder.record(event, at_ns) for event, at_ns in withheld]


class _Core(Session):
    """The session core, whose budget of names is what the capture says."""

    def __init__(self, conn: Conn, memory: Memory) -> None:
        super().__init__(
            limits=conn.limits,
            policy=conn.policy,
            mode=LegMode(conn.mode),
            at_ns=conn.at_ns + conn.core_t_ns,
            memory=memory,
        )
        self._captured_names = self._names = _Names(conn.limits)
        for direction in (self._client, self._server):
            direction.reader.count_names_in(self._names)

    def spend(self, sent_by: Side, spent: NamesSpent) -> None:
        """The budget is found spent at the octet that ``spent`` names."""
        direction = self._client if sent_by is Side.CLIENT else self._server
        names = self._captured_names
        if direction is self._server and names.to_client is not None:
            names = names.to_client
        names.spend(direction.reader, spent)


class _Names(NameBudget):
    """Counts nothing, and is spent when it is told so: what a name costs depends on the process that first saw it."""

    __slots__ = ("_reader", "_spent", "to_client")

    def __init__(self, limits: StreamLimits) -> None:
        self._reader: StreamReader | None = None
        self._spent: NamesSpent | None = None
        self.to_client: _Names | None = None
        super().__init__(limits)

    def add(self, count: int) -> None:
        """Nothing."""

    def spend(self, reader: StreamReader, spent: NamesSpent) -> None:
        """From the octet on that ``spent`` names nothing is left."""
        self._reader, self._spent = reader, spent
        self.limit, self.max = spent.limit, spent.max

    @property
    def used(self) -> int:  # what is a count there is an answer here
        """More than there is, from that octet on."""
        spent = self._spent
        return self.max + 1 if spent is not None and self._reader and self._reader.offset >= spent.offset else 0

    @used.setter
    def used(self, value: int) -> None:
        self._spent = None

    def relayed_to_client(self) -> NameBudget:
        """As the real one, told by the capture as well."""
        names = self.to_client = _Names(self._limits)
        names.logged_in()
        names.renewals = self._limits.names_renewals_max
        return names


def replay(path: Path, *, on_bytes: Callable[[int], None] | None = None) -> Iterator[Replayed]:
    """Yield what the lines of a capture lead to, where they lead to anything.

    Raises:
        FileProblem: it cannot be read.
        TraceProblem: it is no capture, is damaged, or does not make sense.
    """
    observer: Observer | None = None
    sessions: dict[int, OfflineSession] = {}
    traces: dict[int, tuple[str, int]] = {}
    for line in read_trace(path, on_bytes=on_bytes):
        match line:
            case Meta():
                observer = line.observer
            case Conn():
                assert observer is not None, "the reader has seen to it"
                traces[line.session] = (line.trace_id, line.line)
                try:
                    sessions[line.session] = OfflineSession(line, observer)
                except ValueError:
                    raise nonsense(path, line.line) from None
            case Gap() | Lost():
                if sessions.pop(line.session, None) is not None:
                    why = "its beginning was dropped: the ring was full" if isinstance(line, Gap) else line.why
                    yield _replayed(line, traces, [], ended=why)
            case Said():
                pass
            case _:
                session = sessions.get(line.session)
                if session is None:
                    continue
                try:
                    records = session.feed(line)
                except Exception as error:  # a core that asserts has been told what cannot have been
                    raise nonsense(path, line.line) from error
                lossy = type(line) is Xml and line.extra.lossy
                if isinstance(line, Closed):
                    del sessions[line.session]
                    yield _replayed(line, traces, records, ended="")
                elif records or lossy:
                    yield _replayed(line, traces, records, lossy=lossy)
    for number in sessions:
        trace_id, begun = traces[number]
        yield Replayed(session=number, trace_id=trace_id, line=begun, records=[], ended="its end is not in the capture")


def _replayed(
    line: SessionLine,
    traces: dict[int, tuple[str, int]],
    records: list[Record],
    *,
    ended: str | None = None,
    lossy: bool = False,
) -> Replayed:
    trace_id, _ = traces[line.session]
    return Replayed(session=line.session, trace_id=trace_id, line=line.line, records=records, ended=ended, lossy=lossy)


def nonsense(path: Path, line: int) -> TraceProblem:
    """Return that a line of a capture cannot be."""
    return TraceProblem(
        "this line does not fit what came before it",
        "the file was changed after it was written, or made by an xproxy whose sessions went otherwise",
        path=path,
        line=line,
    )
