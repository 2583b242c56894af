"""Sessions on tape, without sockets: what the relay does with a core and a recorder, step by step."""

import attrs

from xproxy.capture.content import redaction
from xproxy.capture.gate import Gate, Wanted
from xproxy.capture.memory import WitnessedMemory
from xproxy.capture.redact import Alias, Redactor
from xproxy.capture.store import Reserve, Taken
from xproxy.capture.tape import Tape, TapedCore, TapedRecorder
from xproxy.capture.trace import Meta
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import EndOfInput, Endpoint, Event, Side
from xproxy.events.connection import CloseCause, ConnectionAccepted, UpstreamConnected
from xproxy.record.recorder import Observer, Record, SessionRecorder
from xproxy.xmpp.actions import Action, Close, Forward, LegMode, Observe, Wake
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.session import Session

BEGIN_NS = 1_795_636_800_000_000_000
TRACE_ID = "0123456789abcdef0123456789abcdef"
CLIENT = Endpoint("192.0.2.7", 50_000)
SERVER = Endpoint("198.51.100.1", 5222)
OBSERVER = Observer(version="0.1.0", hostname="gateway", boot_id="f" * 32)
META = Meta(tool="xproxy 0.1.0", created="2026-11-25T20:00:00Z", redaction=redaction(bodies=False), observer=OBSERVER)

HEADER = "<stream:stream to='example.org' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
SERVER_HEADER = HEADER.replace(" to=", " id='c0ffee' from=")
SASL = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
BIND = "xmlns='urn:ietf:params:xml:ns:xmpp-bind'"
LOGIN: tuple[tuple[Side, str], ...] = (
    (Side.CLIENT, HEADER),
    (Side.SERVER, SERVER_HEADER),
    (
        Side.SERVER,
        f"<stream:features><mechanisms {SASL}><mechanism>PLAIN</mechanism></mechanisms></stream:features>",
    ),
    (Side.CLIENT, f"<auth {SASL} mechanism='PLAIN'>AGp1bGlldAByMG0zMG15cjBtMzA=</auth>"),  # juliet, r0m30myr0m30
    (Side.SERVER, f"<success {SASL}/>"),
    (Side.CLIENT, HEADER),
    (Side.SERVER, SERVER_HEADER),
    (Side.SERVER, f"<stream:features><bind {BIND}/></stream:features>"),
    (Side.CLIENT, f"<iq type='set' id='b'><bind {BIND}/></iq>"),
    (Side.SERVER, f"<iq type='result' id='b'><bind {BIND}><jid>juliet@example.org/balcony</jid></bind></iq>"),
)


@attrs.define
class Disk:
    """Stands for the service: what was written, and what it may hold."""

    data: bytearray = attrs.Factory(bytearray)
    room: int = 1 << 30
    rings_max: int = 1 << 30
    kept: int = 0
    cut: list[str] = attrs.Factory(list)
    over: int = 0

    def write(self, trace_id: str, data: bytes, reserve: Reserve | None = None) -> Taken:
        if reserve != "last" and len(self.data) + len(data) > self.room:
            return "queue-full"
        self.data += data
        return "taken"

    def may_keep(self, change: int) -> bool:
        self.kept += change
        return self.kept <= self.rings_max

    def cut_off(self, why: str) -> None:
        self.cut.append(why)

    def gone(self) -> None:
        self.cut.append("gone")

    def ended(self, gate: Gate) -> None:
        self.over += 1


class TapedSession:
    """One session; ``say`` what the peers say."""

    def __init__(
        self,
        *,
        bodies: bool = False,
        wanted: Wanted | None = None,
        disk: Disk | None = None,
        ring_bytes: int = 1 << 20,
        session_bytes_max: int = 1 << 26,
        waiting_bytes_max: int = 1 << 22,
        memory: Memory | None = None,
        client: Endpoint = CLIENT,
        policy: StreamPolicy | None = None,
    ) -> None:
        self.disk = disk if disk is not None else Disk()
        self.now = BEGIN_NS
        self.gate = Gate(
            wanted=wanted or Wanted(),
            trace_id=TRACE_ID,
            meta=lambda: META,
            ledger=self.disk,
            ring_bytes=ring_bytes,
            session_bytes_max=session_bytes_max,
        )
        redactor = Redactor(bodies=bodies, alias=Alias(b"key"))
        self.tape = Tape(trace_id=TRACE_ID, redactor=redactor, sink=self.gate, wall_ns=lambda: BEGIN_NS,
                         waiting_bytes_max=waiting_bytes_max)  # fmt: skip
        self.recorder = TapedRecorder(SessionRecorder(trace_id=TRACE_ID, observer=OBSERVER), self.tape)
        self.records: list[Record] = []
        self.forwarded = dict.fromkeys(Side, b"")
        self.closed = False
        self.note(ConnectionAccepted(client=client, listener=SERVER))
        witnessed = WitnessedMemory(memory if memory is not None else Memory())
        limits, policy = StreamLimits(), policy or StreamPolicy()
        core = Session(limits=limits, policy=policy, mode=LegMode.CLEAR, at_ns=self.now, memory=witnessed)
        self.tape.begin(mode=LegMode.CLEAR, at_ns=self.now, limits=limits, policy=policy, memory=witnessed)
        self.core = TapedCore(core, self.tape)
        self.note(UpstreamConnected(host="h", server=SERVER, local=CLIENT, seconds=0.01))

    def note(self, event: Event) -> None:
        self.records.append(self.recorder.record(event, self.now))

    def log_in(self) -> "TapedSession":
        for side, text in LOGIN:
            self.say(side, text)
        return self

    def say(self, side: Side, text: str | bytes) -> None:
        self.now += 1_000_000
        data = text.encode() if isinstance(text, str) else text
        self._carry_out(self.core.receive(side, data, self.now), side)

    def end(self, side: Side = Side.CLIENT, how: EndOfInput = EndOfInput.CLOSE_NOTIFY) -> "TapedSession":
        self.now += 1_000_000
        self._carry_out(self.core.end_of_input(side, how, self.now), side)
        return self.finish()

    def finish(self) -> "TapedSession":
        self.now += 1_000_000
        if not self.closed:
            self._carry_out(self.core.close(CloseCause.SHUTDOWN, self.now), Side.CLIENT)
        closed = self.core.closed(self.now)
        self.now += 7_000  # as the relay: a little later
        self.note(closed)
        return self

    def _carry_out(self, actions: list[Action], side: Side) -> None:
        for action in actions:
            match action:
                case Observe(event=event):
                    self.note(event)
                case Forward(data=data):
                    self.forwarded[side] += data
                case Close():
                    self.closed = True
                case Wake():
                    pass
                case _:
                    raise AssertionError(action)

    def capture(self) -> bytes:
        """What was written."""
        return bytes(self.disk.data)
