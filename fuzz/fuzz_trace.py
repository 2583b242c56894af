"""Invariant: a captured session, replayed offline, gives the records it gave live, and its capture tells no secret.

A script (as in fuzz_session.py) is played through a tape. Forwarded bytes are judged there; here the capture is read
again: no planted secret in it, every line as long in octets as what was received, the same records offline but for
what is said to be lossy, the same capture when it is redacted again. Its transcript and its packets tell nothing
either.

An input that begins with "{" is a capture file instead: it is read, replayed, shown, exported and redacted again, or
refused in one line that names it.
"""

import re
import sys
import tempfile
from pathlib import Path

import harness

with harness.instrumented():
    import fuzz_session

    from tests.support import dialogue
    from xproxy.capture.again import redacted_again
    from xproxy.capture.content import redaction
    from xproxy.capture.memory import WitnessedMemory
    from xproxy.capture.pcapng import file_header, packets
    from xproxy.capture.redact import Alias, Redactor
    from xproxy.capture.tape import Tape, TapedCore, TapedRecorder
    from xproxy.capture.trace import Meta, SessionLine, TraceProblem, Xml, meta_line, read_trace, session_line
    from xproxy.capture.transcript import transcript
    from xproxy.config.stream import StreamLimits, StreamPolicy
    from xproxy.events import Event, Side
    from xproxy.record.recorder import Record, SessionRecorder
    from xproxy.replay.golden import comparable
    from xproxy.replay.offline import replay
    from xproxy.xmpp.actions import LegMode
    from xproxy.xmpp.memory import Memory
    from xproxy.xmpp.session import Session

META = Meta(
    tool="xproxy 0", created="2026-11-25T20:00:00Z", redaction=redaction(bodies=False), observer=fuzz_session.OBSERVER
)
TRACE_ID = "a" * 32
SECRET = fuzz_session.SECRET
SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-trace-"))
FILE = SCRATCH / "x.xcap.jsonl"

WORDS = [
    *fuzz_session.WORDS,
    b'{"k":"xml","s":1,"n":3,"t":0,"d":"client","ph":"plain","raw":"',
    b'{"k":"tick","s":1,"n":4,"t":1}\n',
    b'{"k":"closed","s":1,"n":5,"t":2}\n',
    b'{"k":"end","s":1,"n":4,"t":1,"d":"server","how":"reset"}\n',
    *(f'"{key}":'.encode() for key in ("k", "s", "n", "t", "d", "ph", "raw", "b64", "rt", "mem", "names", "at", "v")),
]


def check(data: bytes) -> None:
    """Play a script, or read a file."""
    if data.lstrip()[:1] == b"{":
        FILE.write_bytes(data)
        read()
    elif SECRET.encode().lower() not in data.lower():
        lines = data.split(b"\n")[: fuzz_session.STEPS_MAX]
        flags = lines[0][1:].decode("latin-1") if lines[0].startswith(b"O") else ""
        memory = Memory()
        play = TapedPlay(flags, memory)
        for line in lines:
            if line.startswith(b"N"):
                play.finish()
                play.judge()
                play = TapedPlay(flags, memory)
            else:
                play.step(line)
        play.finish()
        play.judge()


def read() -> None:
    """Do with a file whatever can be done."""
    for use in (
        lambda: list(read_trace(FILE)),
        lambda: list(replay(FILE)),
        lambda: list(transcript(read_trace(FILE))),
        lambda: list(packets(read_trace(FILE))),
        lambda: list(redacted_again(FILE)),
    ):
        said = None
        try:
            use()
        except TraceProblem as problem:
            said = str(problem)
        assert said is None or re.fullmatch(rf"{FILE}:[0-9]+: .+", said), said


class Lines:
    """Keeps what a tape gives."""

    is_closed = False

    def __init__(self) -> None:
        self.lines: list[SessionLine] = []

    def line(self, line: SessionLine) -> None:
        """Take a line."""
        self.lines.append(line)

    def recorded(self, record: Record) -> None:
        """Nothing."""

    def cut_off(self, why: str) -> None:
        """Nothing."""


class Taped(TapedCore):
    """Shows the core behind it to the judge."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._core, name)


class TapedPlay(fuzz_session.Play):
    """A session that is captured."""

    def __init__(self, flags: str, memory: Memory) -> None:
        self.lines = Lines()
        self.octets = {side: bytearray() for side in Side}
        self.records: list[Record] = []
        self.tape = Tape(
            trace_id=TRACE_ID,
            redactor=Redactor(bodies=False, alias=Alias(b"key")),
            sink=self.lines,
            wall_ns=lambda: dialogue.BEGIN - 5,
        )
        self.taped: TapedRecorder | None = None
        super().__init__(flags, memory)

    def begin(self, limits: StreamLimits, policy: StreamPolicy, mode: LegMode, memory: Memory) -> Session:
        """Make the core, on tape."""
        witnessed = WitnessedMemory(memory)
        core = super().begin(limits, policy, mode, witnessed)
        self.tape.begin(mode=mode, at_ns=self.now, limits=limits, policy=policy, memory=witnessed)
        return Taped(core, self.tape)

    def record(self, event: Event) -> None:
        """Record it, as live."""
        if self.taped is None:
            self.taped = TapedRecorder(SessionRecorder(trace_id=TRACE_ID, observer=fuzz_session.OBSERVER), self.tape)
        self.records.append(self.taped.record(event, self.now))

    def say(self, side: Side, data: bytes) -> None:
        """Say it, and remember how much was heard."""
        super().say(side, data)

    def plant(self, side: Side, text: str) -> None:
        """Plant secrets, but not where a capture keeps what an attacker can see anyway: ids of stanzas, addresses."""
        text = re.sub(rf" id='{SECRET}'(?! resume)(?!><software)", " id='i7'", text)
        super().plant(side, text.replace(f"by='{SECRET}@", "by='p@"))

    def judge(self) -> None:
        """Read the capture again."""
        assert not self.tape.failed, "the tape gave up"
        FILE.write_bytes(meta_line(META) + b"".join(map(session_line, self.lines.lines)))
        octets = FILE.read_bytes()
        assert not fuzz_session._CANARY.hits(octets), f"a secret is in the capture: {octets!r}"
        heard = dict.fromkeys(Side, 0)
        for line in self.lines.lines:
            if isinstance(line, Xml):
                heard[line.sent_by] += len(line.data)
        assert heard == self.received, "octets are missing"
        again: list[Record] = []
        for replayed in replay(FILE):
            again += replayed.records
            if replayed.lossy:
                return
            assert not replayed.ended, replayed.ended
        want = comparable([record.document for record in self.records])
        got = comparable([record.document for record in again])
        assert got == want, "\n".join(difference(want, got))
        assert b"".join(redacted_again(FILE)) == octets, "redaction is not idempotent"
        said = "".join(span.text for entry in transcript(read_trace(FILE)) for row in entry.lines for span in row)
        assert not fuzz_session._CANARY.hits(said.encode())
        assert not fuzz_session._CANARY.hits(file_header() + b"".join(packets(read_trace(FILE))))


def difference(want: list[bytes], got: list[bytes]) -> list[str]:
    """Return the first lines that differ."""
    for index in range(max(len(want), len(got))):
        old, new = (lines[index] if index < len(lines) else b"" for lines in (want, got))
        if old != new:
            return [f"record {index + 1}", f"live:    {old.decode()}", f"offline: {new.decode()}"]
    return []


if __name__ == "__main__":
    sys.exit(harness.main("trace", check, words=WORDS, quick=500))
