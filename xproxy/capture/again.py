"""A capture redacted again: as if its sessions had been captured by the rules of now, without what people say.

Each session is driven through the core and a tape, as live. Ids were made aliases when it was captured; they stay.
A session whose beginning is missing cannot be driven; its octets are redacted all the same, but no error's text stays.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from xproxy.capture.content import redaction
from xproxy.capture.lexer import Lexer
from xproxy.capture.redact import Alias, Redactor
from xproxy.capture.tape import Tape
from xproxy.capture.trace import Conn, Gap, Lost, Meta, SessionLine, Xml, meta_line, read_trace, session_line
from xproxy.record.recorder import Observer, Record
from xproxy.replay.offline import OfflineSession, nonsense


class _KeptAlias(Alias):
    """Every id is one already."""

    def __init__(self) -> None:
        super().__init__(b"")

    def of(self, value: bytes) -> bytes:
        """Return it."""
        return value


def redacted_again(path: Path, *, on_bytes: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """Yield the lines of ``path``, redacted by the rules of now.

    Raises:
        FileProblem, TraceProblem: as ``read_trace``; also a session that cannot have been so.
    """
    observer: Observer | None = None
    driven: dict[int, _Driven] = {}
    plain: dict[int, Redactor] = {}
    for line in read_trace(path, on_bytes=on_bytes):
        match line:
            case Meta():
                observer = line.observer
                yield meta_line(attrs.evolve(line, redaction=redaction(bodies=False)))
                continue
            case Conn():
                assert observer is not None, "the reader has seen to it"
                driven[line.session] = _Driven.begin(path, line, observer)
                continue
            case Gap():
                begun = driven.pop(line.session, None)
                if begun is not None:
                    yield session_line(begun.conn)
                    plain[line.session] = Redactor(bodies=False, alias=_KeptAlias())
        if (redactor := plain.get(line.session)) is not None:
            yield session_line(_alone(line, redactor) if isinstance(line, Xml) else line)
        else:
            yield from map(session_line, driven[line.session].feed(path, line))
    for each in driven.values():
        yield from map(session_line, each.end())


def _alone(line: Xml, redactor: Redactor) -> Xml:
    """Redact a line by itself: what it begins within is not known, so nothing that is no element stays."""
    if line.phase == "opaque":
        return line
    lexer = Lexer()
    lexer.resume()
    filled = b"".join(redactor.redact(line.sent_by, unit) for unit in lexer.feed(line.data))
    return attrs.evolve(line, data=filled + redactor.redact(line.sent_by, lexer.rest()))


@attrs.define
class _Driven:
    """A session on its way from one capture to another."""

    conn: Conn
    session: OfflineSession
    tape: Tape
    sink: "_Sink"

    @classmethod
    def begin(cls, path: Path, conn: Conn, observer: Observer) -> "_Driven":
        sink = _Sink(conn.session)
        redactor = Redactor(bodies=False, alias=_KeptAlias())
        tape = Tape(trace_id=conn.trace_id, redactor=redactor, sink=sink, wall_ns=lambda: conn.at_ns)
        try:
            return cls(conn, OfflineSession(conn, observer, tape=tape), tape, sink)
        except ValueError:
            raise nonsense(path, conn.line) from None

    def feed(self, path: Path, line: SessionLine) -> list[SessionLine]:
        if isinstance(line, Lost):
            self.tape.lost(line.why)
            return self.sink.take()
        try:
            self.session.feed(line)
        except Exception as error:
            raise nonsense(path, line.line) from error
        if self.tape.failed:
            raise nonsense(path, line.line)
        return self.sink.take()

    def end(self) -> list[SessionLine]:
        """The file ends, though the session did not."""
        self.tape.flush()
        return self.sink.take()


@attrs.define
class _Sink:
    """Takes the lines of a tape."""

    session: int
    lines: list[SessionLine] = attrs.Factory(list)
    is_closed: bool = False

    def line(self, line: SessionLine) -> None:
        """Take a line."""
        self.lines.append(attrs.evolve(line, session=self.session))

    def recorded(self, record: Record) -> None:
        """Nothing."""

    def cut_off(self, why: str) -> None:
        """Nothing."""

    def take(self) -> list[SessionLine]:
        """Return what came."""
        lines, self.lines = self.lines, []
        return lines
