"""The capture file: everything a session core was told, in its order and with its times.

    *.xcap.jsonl, version 2: UTF-8, JSON Lines, LF. One object a line; "k" says what it is. Keys that are not known are
    passed over. Where "v" of the first line is greater than VERSION the file is refused. A last line without its LF is
    no line: a crash leaves one. (Version 1 is the same without "opaque": such octets stood there as filler.)

    every line but meta:
      s  int   the session in this file       n  int  its place in the session, from 1 on without a gap
      t  int   nanoseconds since "at" of its conn; by the wall clock, so it may step back

    k        what                                         keys
    meta     the first line, and of each file that was    v, tool, created (RFC 3339), redaction ("default-2",
             appended to another (cat a b > c works)      "bodies-2": xproxy.capture.content), observer {version,
                                                          hostname, boot_id, node}
    conn     a session begins; n is 1                     at (UTC ns), trace (its trace.id), core (at which t the core
                                                          began), mode, limits {}, policy {}: the settings it ran with
    event    the proxy itself saw something               event {action, its fields}
    xml      octets, as they were handed to the core      d "client"|"server": who sent them; ph "plain"|"tls"|"bound";
                                                          raw (text), or b64 where they are no UTF-8. ph "opaque": of a
                                                          direction nobody looks into (TLS that passes through, a stream
                                                          that is no XMPP); octets: how many, and no more of them
    say      our own words (legs of different TLS modes)  d who hears them; raw or b64. No input: for people
    open     the client asked, inside its ClientHello,    domain
             for a server that begins in clear
    tls      TLS is up on a leg, failed, or is not ours   event {tls-established, tls-failed or tls-passthrough}
    end      a peer sends no more                         d, how "close_notify"|"truncated"|"reset"
    tick     a deadline came
    close    the proxy ended the session                  cause
    gap      lines up to n were dropped: the ring was full  lines, bytes
    closed   both legs are gone; the last line
    lost     capturing ended before the session did       why: asked, disk, size-limit (of all), session-limit,
                                                          queue-limit, element-not-complete, internal-error, shutdown

    optional on every input (xml, open, tls, end, tick, close, closed):
      rt   [[index, ns]]  the record of the index-th event it led to was made so much later than t
      mem  [[question, answer]]  what the proxy's memory of earlier sessions said (xproxy.xmpp.memory), in order
      names {offset, limit, max}  a budget of XML names was found spent at that octet: how full the parser's dictionary
           was depends on the process
      lossy  true: what was cut out here cannot be analysed as it was (octets that are no XML)

Octets are the peer's but for what redaction put in the place of secrets and content: same length, same tags, same
attributes, so every offset and size stays true. ``xproxy.capture.redact`` says what stays.

**Reading.** ``read_trace(path)`` yields typed lines, sessions interleaved as they were; ``Line.session`` is unique even
where files were appended to each other. It holds one line in memory. For one session after the other::

    for session in read_sessions(path):       # whole sessions: for files of a size that fits in memory
        for line in session.lines: ...

and ``xproxy.capture.elements.elements_of(lines)`` cuts the octets into headers, first-level elements and closing tags,
with the time and the line of the file each was complete at. What is wrong with a file is a ``TraceProblem`` that names
file and line.
"""

import base64
import binascii
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import orjson

from xproxy.capture.codec import Json, event_from_json, event_to_json, from_json, to_json
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.errors import FileProblem, UsageProblem
from xproxy.events import EndOfInput, Event, Side
from xproxy.events.connection import CloseCause
from xproxy.events.tls import TlsEstablished, TlsFailed, TlsPassthrough
from xproxy.record.recorder import Observer

VERSION: Final = 2
SUFFIX: Final = ".xcap.jsonl"
LINE_BYTES_MAX: Final = (
    16_777_216  # a stanza of 1 MiB, six octets for each in the worst of JSON's escapes, and the rest
)
NAME_BUDGETS: Final = frozenset(
    {"stream.names_before_login_max", "stream.names_max", "sessions.names_per_address_max"}
)  # the limits that depend on what the parser's dictionary held before

Phase = Literal["plain", "tls", "bound", "opaque"]


class TraceProblem(UsageProblem):
    """A capture cannot be read: damaged, made by a later version, or no capture at all."""

    def __init__(self, message: str, hint: str | None = None, *, path: Path, line: int) -> None:
        super().__init__(f"{path}:{line}: {message}", hint)
        self.path = path
        self.line = line


class NothingCaptured(TraceProblem):
    """There is not one complete line: no capture, or one whose proxy died as it began it."""


@attrs.frozen(kw_only=True)
class Meta:
    """Who made the file."""

    tool: str
    created: str
    redaction: str
    observer: Observer
    line: int = 1


@attrs.frozen(kw_only=True)
class NamesSpent:
    """A budget of XML names was found spent."""

    offset: int  # of that direction
    limit: str  # the key in the configuration
    max: int


@attrs.frozen(kw_only=True)
class Extra:
    """What an input brought with it besides."""

    record_times: tuple[tuple[int, int], ...] = ()  # index of an event it led to, ns behind the input's time
    answers: tuple[tuple[str, Any], ...] = ()  # of the memory of earlier sessions
    names: NamesSpent | None = None
    lossy: bool = False


NO_EXTRA: Final = Extra()


@attrs.frozen(kw_only=True)
class Line:
    """What every line of a session has."""

    session: int
    n: int
    t_ns: int
    line: int  # in the file


@attrs.frozen(kw_only=True)
class Conn(Line):
    """A session begins."""

    at_ns: int  # UTC: t_ns counts from here
    trace_id: str
    core_t_ns: int  # the time its core was begun with
    mode: str
    limits: StreamLimits
    policy: StreamPolicy


@attrs.frozen(kw_only=True)
class Noted(Line):
    """An event that the core did not see: accepted, connected, stalled."""

    event: Event


@attrs.frozen(kw_only=True)
class Xml(Line):
    """Octets, as they were handed to the core."""

    sent_by: Side
    phase: Phase
    data: bytes  # filler, where the phase is opaque
    extra: Extra = NO_EXTRA


@attrs.frozen(kw_only=True)
class Said(Line):
    """The proxy's own words."""

    to: Side
    data: bytes


@attrs.frozen(kw_only=True)
class Tls(Line):
    """TLS is up on a leg, or failed there."""

    event: TlsEstablished | TlsFailed | TlsPassthrough
    extra: Extra = NO_EXTRA


@attrs.frozen(kw_only=True)
class OpenServer(Line):
    """The client's hello asks for a domain; the server, which begins in clear, is to be led into TLS."""

    domain: str
    extra: Extra = NO_EXTRA


@attrs.frozen(kw_only=True)
class End(Line):
    """A peer sends no more."""

    sent_by: Side
    how: EndOfInput
    extra: Extra = NO_EXTRA


@attrs.frozen(kw_only=True)
class Tick(Line):
    """A deadline came."""

    extra: Extra = NO_EXTRA


@attrs.frozen(kw_only=True)
class Close(Line):
    """The proxy ended the session."""

    cause: CloseCause
    extra: Extra = NO_EXTRA


@attrs.frozen(kw_only=True)
class Gap(Line):
    """Lines up to this ``n`` were dropped: the ring was full."""

    lines: int
    bytes: int


@attrs.frozen(kw_only=True)
class Closed(Line):
    """Both legs are gone."""

    extra: Extra = NO_EXTRA


@attrs.frozen(kw_only=True)
class Lost(Line):
    """Capturing ended before the session did."""

    why: str


SessionLine = Conn | Noted | Xml | Said | OpenServer | Tls | End | Tick | Close | Gap | Closed | Lost
TraceLine = Meta | SessionLine


@attrs.frozen(kw_only=True)
class TraceSession:
    """A whole session."""

    meta: Meta
    conn: Conn
    lines: tuple[SessionLine, ...]  # without the conn

    @property
    def is_whole(self) -> bool:
        """Whether nothing was dropped and its end is there."""
        return isinstance(self.lines[-1] if self.lines else None, Closed) and not any(
            isinstance(line, Gap | Lost) for line in self.lines
        )


# Writing ------------------------------------------------------------------------------------------------------------


def meta_line(meta: Meta) -> bytes:
    """Return the first line of a file."""
    return _dump(
        {
            "v": VERSION,
            "k": "meta",
            "tool": meta.tool,
            "created": meta.created,
            "redaction": meta.redaction,
            "observer": to_json(meta.observer),
        }
    )


def session_line(line: SessionLine) -> bytes:
    """Return ``line`` as it stands in the file."""
    head: Json = {"k": _KINDS[type(line)], "s": line.session, "n": line.n, "t": line.t_ns}
    match line:
        case Conn():
            head |= {"at": line.at_ns, "trace": line.trace_id, "core": line.core_t_ns, "mode": line.mode}
            head |= {"limits": to_json(line.limits), "policy": to_json(line.policy)}
        case Noted():
            head["event"] = event_to_json(line.event)
        case Xml():
            octets = {"octets": len(line.data)} if line.phase == "opaque" else _octets(line.data)
            head |= {"d": line.sent_by.value, "ph": line.phase, **octets, **_extra(line.extra)}
        case Said():
            head |= {"d": line.to.value, **_octets(line.data)}
        case Tls():
            head |= {"event": event_to_json(line.event), **_extra(line.extra)}
        case OpenServer():
            head |= {"domain": line.domain, **_extra(line.extra)}
        case End():
            head |= {"d": line.sent_by.value, "how": line.how.value, **_extra(line.extra)}
        case Tick() | Closed():
            head |= _extra(line.extra)
        case Close():
            head |= {"cause": line.cause.value, **_extra(line.extra)}
        case Gap():
            head |= {"lines": line.lines, "bytes": line.bytes}
        case Lost():
            head["why"] = line.why
    return _dump(head)


def _dump(value: Json) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def _octets(data: bytes) -> Json:
    try:
        return {"raw": data.decode()}
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(data).decode()}


def _extra(extra: Extra) -> Json:
    if extra is NO_EXTRA:
        return {}
    found: Json = {}
    if extra.record_times:
        found["rt"] = extra.record_times
    if extra.answers:
        found["mem"] = extra.answers
    if extra.names is not None:
        found["names"] = to_json(extra.names)
    if extra.lossy:
        found["lossy"] = True
    return found


# Reading ------------------------------------------------------------------------------------------------------------


def read_trace(path: Path, *, on_bytes: Callable[[int], None] | None = None) -> Iterator[TraceLine]:
    """Yield the lines of a capture; ``on_bytes`` is told how far it has come.

    Raises:
        FileProblem: it cannot be read.
        TraceProblem: it is no capture, is damaged, or was made by a later version.
    """
    try:
        with path.open("rb") as file:
            reader = _Reader(path)
            while octets := file.readline(LINE_BYTES_MAX + 1):
                if not octets.endswith(b"\n"):
                    reader.check_cut(octets)
                    break
                yield reader.line(octets)
                if on_bytes is not None:
                    on_bytes(len(octets))
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="read the capture", path=path) from error
    reader.check_end()


def read_sessions(path: Path) -> Iterator[TraceSession]:
    """Yield each session whole, in the order of their beginnings. All of the file is in memory.

    Raises:
        FileProblem, TraceProblem: as ``read_trace``.
    """
    metas: dict[int, Meta] = {}
    conns: dict[int, Conn] = {}
    lines: dict[int, list[SessionLine]] = {}
    meta: Meta | None = None
    for line in read_trace(path):
        if isinstance(line, Meta):
            meta = line
        elif isinstance(line, Conn):
            assert meta is not None, "the reader has seen to it"
            metas[line.session], conns[line.session], lines[line.session] = meta, line, []
        else:
            lines[line.session].append(line)
    for session, conn in conns.items():
        yield TraceSession(meta=metas[session], conn=conn, lines=tuple(lines[session]))


_KINDS: Final[dict[type[SessionLine], str]] = {
    Conn: "conn",
    Noted: "event",
    Xml: "xml",
    Said: "say",
    OpenServer: "open",
    Tls: "tls",
    End: "end",
    Tick: "tick",
    Close: "close",
    Gap: "gap",
    Closed: "closed",
    Lost: "lost",
}
_SIDES: Final = {side.value: side for side in Side}
_PHASES: Final[frozenset[str]] = frozenset({"plain", "tls", "bound", "opaque"})
_NEWER: Final = "it was made by a later xproxy; update this one"
_DAMAGED: Final = "the file was changed or damaged after it was written"


class _Bad(Exception):  # noqa: N818
    """What is wrong with a line, in words of ours."""


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0
        self._ids: dict[int, int] = {}  # numbers of the file, or of the part of it, to ours
        self._last: dict[int, int] = {}  # by our number: the n of the last line
        self._over: set[int] = set()  # numbers of the file whose sessions are over
        self._count = 0

    def line(self, octets: bytes) -> TraceLine:
        self._number += 1
        try:
            value = orjson.loads(octets)
        except ValueError:
            raise self._problem("it is no JSON", _DAMAGED if self._number > 1 else _NO_CAPTURE) from None
        try:
            if not isinstance(value, dict):
                raise _Bad("it is no JSON object")
            kind = value.get("k")
            if kind == "meta":
                return self._meta(value)
            if self._number == 1:
                raise _Bad("the first line of a capture is of kind meta")
            return self._session_line(kind, value)
        except _Bad as bad:
            hint = _NO_CAPTURE if self._number == 1 else _DAMAGED
            raise self._problem(str(bad), hint) from None
        except KeyError as error:
            raise self._problem(f"{error.args[0]} is missing", _DAMAGED) from None
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            raise self._problem("a value is not what it should be", _DAMAGED) from None

    def check_cut(self, octets: bytes) -> None:
        """A line without its end is fine at the end of a file: it was being written. One that is too long is not."""
        if len(octets) > LINE_BYTES_MAX:
            self._number += 1
            raise self._problem(f"the line is longer than {LINE_BYTES_MAX} bytes", _DAMAGED)

    def check_end(self) -> None:
        if not self._number:
            self._number = 1
            raise NothingCaptured("there is no complete line", _NO_CAPTURE, path=self._path, line=self._number)

    def _meta(self, value: Json) -> Meta:
        version = value["v"]
        if not isinstance(version, int) or version < 1:
            raise _Bad("there is no version")
        if version > VERSION:
            raise self._problem(f"the capture is of version {version}, this xproxy knows {VERSION}", _NEWER)
        self._ids = {}
        self._over = set()
        return Meta(
            tool=_text(value, "tool"),
            created=_text(value, "created"),
            redaction=_text(value, "redaction"),
            observer=_structured(value, "observer", Observer),
            line=self._number,
        )

    def _session_line(self, kind: object, value: Json) -> SessionLine:
        s, n, t = value["s"], value["n"], value["t"]
        if not (type(s) is int and type(n) is int and type(t) is int):
            raise _Bad("s, n and t are whole numbers")
        if kind == "conn":
            return self._conn(s, n, t, value)
        session = self._ids.get(s)
        if session is None:
            raise _Bad(f"session {s} has not begun, or is over")
        last = self._last[session]
        if n != last + 1 and not (kind == "gap" and n > last):
            raise _Bad(f"line {last + 1} of session {s} is missing: this is {n}")
        self._last[session] = n
        if kind in ("closed", "lost"):
            del self._ids[s], self._last[session]
            self._over.add(s)
        number = self._number
        match kind:
            case "xml":
                by, phase = _SIDES[value["d"]], value["ph"]
                if phase not in _PHASES:
                    raise _Bad("ph is none")
                if phase == "opaque":
                    data = _filler(value)
                else:
                    raw = value.get("raw")
                    data = raw.encode() if type(raw) is str else _binary(value)
                return Xml(
                    session=session, n=n, t_ns=t, line=number, sent_by=by, phase=phase, data=data, extra=_extras(value)
                )
            case "event":
                return Noted(session=session, n=n, t_ns=t, line=number, event=_event(value))
            case "say":
                raw = value.get("raw")
                data = raw.encode() if type(raw) is str else _binary(value)
                return Said(session=session, n=n, t_ns=t, line=number, to=_SIDES[value["d"]], data=data)
            case "tls":
                event = _event(value)
                if not isinstance(event, TlsEstablished | TlsFailed | TlsPassthrough):
                    raise _Bad("this event is not about TLS")
                return Tls(session=session, n=n, t_ns=t, line=number, event=event, extra=_extras(value))
            case "open":
                domain = _text(value, "domain")
                return OpenServer(session=session, n=n, t_ns=t, line=number, domain=domain, extra=_extras(value))
            case "end":
                return End(
                    session=session,
                    n=n,
                    t_ns=t,
                    line=number,
                    sent_by=_SIDES[value["d"]],
                    how=EndOfInput(value["how"]),
                    extra=_extras(value),
                )
            case "tick":
                return Tick(session=session, n=n, t_ns=t, line=number, extra=_extras(value))
            case "close":
                cause = CloseCause(value["cause"])
                return Close(session=session, n=n, t_ns=t, line=number, cause=cause, extra=_extras(value))
            case "gap":
                return Gap(
                    session=session,
                    n=n,
                    t_ns=t,
                    line=number,
                    lines=_whole(value, "lines"),
                    bytes=_whole(value, "bytes"),
                )
            case "closed":
                return Closed(session=session, n=n, t_ns=t, line=number, extra=_extras(value))
            case "lost":
                return Lost(session=session, n=n, t_ns=t, line=number, why=_text(value, "why"))
        raise _Bad("this kind of line is not known")

    def _conn(self, s: int, n: int, t: int, value: Json) -> Conn:
        if s in self._ids or s in self._over:
            raise _Bad(f"session {s} has begun before")
        if n != 1:
            raise _Bad("the first line of a session has number 1")
        self._count += 1
        self._ids[s] = self._count
        self._last[self._count] = 1
        trace_id = _text(value, "trace")
        if len(trace_id) != 32 or not trace_id.isascii() or not trace_id.isalnum():
            raise _Bad("trace is no trace id")
        return Conn(
            session=self._count,
            n=n,
            t_ns=t,
            line=self._number,
            at_ns=_whole(value, "at"),
            trace_id=trace_id,
            core_t_ns=_whole(value, "core"),
            mode=_text(value, "mode"),
            limits=_structured(value, "limits", StreamLimits),
            policy=_structured(value, "policy", StreamPolicy),
        )

    def _problem(self, message: str, hint: str | None = None) -> TraceProblem:
        return TraceProblem(message, hint, path=self._path, line=self._number)


_NO_CAPTURE: Final = f"name a capture, *{SUFFIX}, as `xproxy run --capture DIR` writes them"


def _text(value: Json, key: str) -> str:
    found = value[key]
    if not isinstance(found, str):
        raise _Bad(f"{key} is no text")
    return found


def _whole(value: Json, key: str) -> int:
    found = value[key]
    if type(found) is not int:
        raise _Bad(f"{key} is no whole number")
    return found


def _filler(value: Json) -> bytes:
    size = _whole(value, "octets")
    if not 0 <= size <= LINE_BYTES_MAX:
        raise _Bad(f"octets is more than {LINE_BYTES_MAX}")
    return b"x" * size


def _binary(value: Json) -> bytes:
    try:
        return base64.b64decode(_text(value, "b64"), validate=True)
    except (binascii.Error, ValueError):
        raise _Bad("b64 is no base64") from None


def _structured(value: Json, key: str, kind: type[Any]) -> Any:
    try:
        return from_json(value[key], kind)
    except ValueError as error:
        raise _Bad(f"{key}: {error}") from None


def _event(value: Json) -> Event:
    try:
        return event_from_json(value["event"])
    except ValueError as error:
        raise _Bad(f"event: {error}") from None


def _extras(value: Json) -> Extra:
    if not ("rt" in value or "mem" in value or "names" in value or "lossy" in value):
        return NO_EXTRA
    return Extra(
        record_times=tuple((int(index), int(late)) for index, late in value.get("rt", ())),
        answers=tuple((str(question), answer) for question, answer in value.get("mem", ())),
        names=_structured(value, "names", NamesSpent) if "names" in value else None,
        lossy=value.get("lossy") is True,
    )
