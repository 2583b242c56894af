"""A captured session as a person reads it: who said what, when, each element indented.

White space is only added where an element holds nothing but elements, so that text is shown as it was. What a terminal
would obey (control characters, marks that turn the line around) is shown as ``\\xNN``.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, Literal

import attrs

from xproxy.capture.elements import Elements
from xproxy.capture.lexer import Kind, Unit
from xproxy.capture.trace import (
    Close,
    Closed,
    Conn,
    End,
    Gap,
    Lost,
    Meta,
    Noted,
    OpenServer,
    SessionLine,
    Tick,
    Tls,
    TraceLine,
    Xml,
)
from xproxy.events import Side
from xproxy.events.connection import ConnectionAccepted, UpstreamConnected
from xproxy.events.tls import TlsEstablished, TlsFailed
from xproxy.record.clean import clean

INDENT: Final = "  "
_ALL: Final = 1 << 30

Style = Literal["client", "server", "proxy", "note", "tag", "text", "comment"]


@attrs.frozen
class Span:
    """A piece of text and what it is."""

    text: str
    style: Style


@attrs.frozen(kw_only=True)
class Entry:
    """What happened at one time."""

    session: int
    t_ns: int
    arrow: Span  # "C->S", "S->C", "proxy"
    lines: tuple[tuple[Span, ...], ...]


def transcript(lines: Iterable[TraceLine]) -> Iterator[Entry]:
    """Yield what happened, in order."""
    elements = Elements()
    opaque: dict[int, Counter[Side]] = {}
    for line in lines:
        if isinstance(line, Meta):
            continue
        if isinstance(line, Xml) and line.phase == "opaque":
            opaque.setdefault(line.session, Counter())[line.sent_by] += len(line.data)
            continue
        if (octets := opaque.pop(line.session, None)) is not None:
            for side, count in octets.items():
                yield _noted(line, f"{count:,} octets of the {side.value} that nobody looked into")
        if (note := _note(line)) is not None:
            yield _noted(line, note)
        for element in elements.of(line):
            by_client = element.sent_by is Side.CLIENT
            arrow = Span("C>S" if by_client else "S>C", "client" if by_client else "server")
            if element.by_proxy:
                arrow = Span("P>S" if by_client else "P>C", "proxy")
            yield Entry(session=element.session, t_ns=element.t_ns, arrow=arrow, lines=tuple(indented(element.unit)))


def _noted(line: SessionLine, note: str) -> Entry:
    return Entry(session=line.session, t_ns=line.t_ns, arrow=Span("--", "note"), lines=((Span(_safe(note), "note"),),))


def indented(unit: Unit) -> Iterator[tuple[Span, ...]]:
    """Yield the lines of a unit."""
    tokens = unit.tokens
    if not tokens:
        yield (Span(_safe(unit.octets.decode(errors="replace")), "tag"),)
        return
    inline = _inline(unit)
    row: list[Span] = []
    depth = 0
    held = 0  # elements that are open and keep their content on one line
    for number, token in enumerate(tokens):
        text = unit.octets[token.start : token.end].decode(errors="replace")
        if token.kind is Kind.TEXT and not text.strip() and not held:
            continue
        if token.kind is Kind.END:
            depth = max(0, depth - 1)
        begins_row = not held and not (
            token.kind is Kind.END and row and number and tokens[number - 1].kind is Kind.START
        )
        if begins_row and row:
            yield tuple(row)
            row = []
        if not row:
            row.append(Span(INDENT * depth, "text"))
        row.append(Span(_safe(text), _STYLES.get(token.kind, "tag")))
        if token.kind is Kind.START:
            depth += 1
            held += 1 if held or number in inline else 0
        elif token.kind is Kind.END and held:
            held -= 1
    if row:
        yield tuple(row)


_STYLES: Final[dict[Kind, Style]] = {Kind.TEXT: "text", Kind.CDATA: "text", Kind.COMMENT: "comment", Kind.PI: "comment"}


def _inline(unit: Unit) -> set[int]:
    """Return the start tags whose elements hold text of their own."""
    found: set[int] = set()
    stack: list[int] = []
    for number, token in enumerate(unit.tokens):
        if token.kind is Kind.START:
            stack.append(number)
        elif token.kind is Kind.END and stack:
            stack.pop()
        elif stack and token.kind in (Kind.TEXT, Kind.CDATA) and unit.octets[token.start : token.end].strip():
            found.add(stack[-1])
    return found


def _note(line: SessionLine) -> str | None:
    match line:
        case Conn():
            return f"session {line.session}, trace {line.trace_id}"
        case Noted(event=ConnectionAccepted() as accepted):
            return f"{accepted.client} connected to {accepted.listener}"
        case Noted(event=UpstreamConnected() as connected):
            return f"connected to {connected.host} ({connected.server})"
        case Noted():
            return line.event.action
        case Tls(event=TlsEstablished() as facts):
            name = f", {facts.server_name}" if facts.server_name else ""
            return f"TLS {facts.version} on the {facts.leg.value}'s leg, {facts.cipher}{name}"
        case Tls(event=TlsFailed() as failed):
            return f"TLS failed on the {failed.leg.value}'s leg: {failed.reason.value}"
        case Tls():
            return "TLS passes through undecrypted"
        case OpenServer():
            return f"the client asks for {line.domain} with TLS, the server begins in clear"
        case End():
            return f"the {line.sent_by.value} ended ({line.how.value})"
        case Close():
            return f"the proxy closes: {line.cause.value}"
        case Gap():
            return f"{line.lines} lines ({line.bytes} bytes) are not here: the ring was full"
        case Lost():
            return f"the capture was cut off: {line.why}"
        case Closed():
            return "closed"
        case Tick():
            return "a deadline passed"
        case Xml(extra=extra) if extra.lossy:
            return "octets that are no XML were cut out of what follows"
    return None


def _safe(text: str) -> str:
    return "\n".join(clean(part, _ALL)[0] for part in text.split("\n"))
