"""What a person sees live: one line an event.

    10:18:40.123 W sasl-failed              3f2a1b romeo@example.org  SCRAM-SHA-1 refused: not-authorized, 9.9 ms

Time (UTC, as in the file), level (blank for info), action, the first digits of ``trace.id``, who, and the gist. On a
terminal a long line is folded under its gist; elsewhere it stays one line.

A terminal can be slow, or stopped with Ctrl-S, and must not hold up traffic or the file. So the view has a thread of
its own and a short queue; when more than ``waiting_max`` records wait, the oldest go and a line says how many. What it
prints comes from the document, so it is cleaned like everything else; markup is never interpreted.
"""

import errno
import threading
from collections import deque
from collections.abc import Container, Sequence
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from xproxy.events import Level
from xproxy.log.channel import OutputGone
from xproxy.record.document import Document
from xproxy.record.recorder import Record

WAITING_MAX: Final = 1_000  # more lines than anyone reads while they fly by
CLOSE_SECONDS_MAX: Final = 2.0
GIST_WIDTH_MIN: Final = 30  # a narrower terminal gets lines of any length
LONG_TEXT_CHARS: Final = 240  # of a skeleton; the file has all of it

_LEVELS: Final = {
    Level.DEBUG: ("d", "dim"),
    Level.INFO: (" ", "green"),
    Level.WARNING: ("W", "yellow"),
    Level.ERROR: ("E", "red"),
    Level.CRITICAL: ("C", "bold red"),
}
# Sessions that run at once are told apart by colour as well. Red, yellow and green
# mean levels; plain blue is hard to read on black.
_TRACE_STYLES: Final = ("cyan", "magenta", "bright_cyan", "bright_magenta", "bright_blue", "white")
_ACTION_WIDTH: Final = 24  # "plaintext-authentication" and "channel-binding-verdict" fit
_TRACE_DIGITS: Final = 6


def make_view_console() -> Console:
    """Return a console on standard output, past ``sys.stdout``. Colour where a terminal shows it, never with NO_COLOR.

    The view's thread may hang in a write to a stopped terminal. Were that ``sys.stdout``, whose lock it would then
    hold, the interpreter could not end: it aborts when it cannot flush.
    """
    # Held by the console as long as it lives; the descriptor is standard output's and stays open.
    stream = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    return Console(file=stream, markup=False, emoji=False, highlight=False)


class HumanView:
    """An ``Output`` for people. May fall behind, and says so."""

    def __init__(
        self, console: Console | None = None, *, waiting_max: int = WAITING_MAX, unshown: Container[str] = ()
    ) -> None:
        """``console``: where to print; colour and width are its business. Default: ``make_view_console()``.

        ``unshown``: actions that are left out. The view's thread starts at once.
        """
        self.name = "the terminal"
        self._console = make_view_console() if console is None else console
        self._waiting_max = waiting_max
        self._unshown = unshown
        self._changed = threading.Condition()
        self._queue: deque[Record] = deque()
        self._skipped_count = 0
        self._closing = False
        self._problem: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="xproxy-log-view", daemon=True)
        self._thread.start()

    def take(self, records: Sequence[Record]) -> None:
        """Queue ``records`` for printing; the oldest are skipped when too many wait."""
        with self._changed:
            self._queue.extend(record for record in records if record.action not in self._unshown)
            while len(self._queue) > self._waiting_max:
                self._queue.popleft()
                self._skipped_count += 1
            self._changed.notify()

    def flush(self) -> None:
        """Raise OutputGone when the terminal or pipe is gone. Waits for nothing."""
        if (problem := self._problem) is not None:
            what = "nobody reads it any more" if problem.errno == errno.EPIPE else problem.strerror or str(problem)
            raise OutputGone(f"cannot write log {self.name}: {what}")

    def reopen(self) -> None:
        """Do nothing: there is no path."""

    def close(self) -> None:
        """Print what waits, unless the terminal takes nothing for CLOSE_SECONDS_MAX."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS_MAX)

    def _run(self) -> None:
        try:
            while (next_ := self._wait_next()) is not None:
                record, skipped_count = next_
                if skipped_count:
                    self._print(Text(f"{skipped_count} records not shown", style="dim italic"))
                self._print(render(record, self._console))
        except OSError as problem:
            self._problem = problem
        except SystemExit:  # rich's own answer to a broken pipe
            self._problem = BrokenPipeError(errno.EPIPE, "Broken pipe")

    def _wait_next(self) -> tuple[Record, int] | None:
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            if not self._queue:
                return None
            skipped_count, self._skipped_count = self._skipped_count, 0
            return self._queue.popleft(), skipped_count

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def render(record: Record, console: Console) -> Text:
    """Return ``record`` as a line for ``console``, folded to its width where it is a terminal."""
    document = record.document
    letter, style = _LEVELS[record.level]
    trace = _get(document, "trace.id") or ""
    line = Text.assemble(
        (document["@timestamp"][11:23], "dim"),
        f" {letter} ",
        (f"{record.action:{_ACTION_WIDTH}}", style),
        " ",
        (f"{trace[:_TRACE_DIGITS]:{_TRACE_DIGITS}}", _trace_style(trace)),
        " ",
    )
    indent = line.cell_len
    who, gist = _who(document), _gist(record.action, document)
    rest = Text.assemble((who, "bold"), "  " if who and gist else "", gist)
    width = console.width - indent
    if console.is_terminal and width >= GIST_WIDTH_MIN:
        rest = Text("\n" + " " * indent).join(rest.wrap(console, width))
    return line.append_text(rest)


def _trace_style(trace: str) -> str:
    return _TRACE_STYLES[int(trace[:8] or "0", 16) % len(_TRACE_STYLES)] if trace else ""


def _get(document: Document, name: str) -> Any:
    value: Any = document
    for key in name.split("."):
        if (value := value.get(key)) is None:
            return None
    return value


def _who(document: Document) -> str:
    """Return the client: his bare address if he named one (? while only a claim), else where he comes from."""
    source = _get(document, "xmpp.jid_source")
    if source is not None and (full := _get(document, "xmpp.jid")) is not None:
        jid = str(full).partition("/")[0]
        return jid if source in {"sasl-success", "bind-result", "resumed"} else f"{jid}?"
    return _address(document, "source")


def _address(document: Document, name: str) -> str:
    ip, port = _get(document, f"{name}.ip"), _get(document, f"{name}.port")
    if ip is None:
        return ""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _gist(action: str, document: Document) -> str:
    def get(name: str) -> Any:
        return _get(document, name)

    def text(name: str) -> str:
        return str(get(name) or "")

    match action:
        case "connection-accepted":
            return _with("dialled ", _address(document, "xproxy.listener"))
        case "connection-refused":
            return _join(text("event.reason"), _with("limit ", get("xproxy.limit.value")))
        case "connection-stalled":
            return f"{text('xproxy.leg')} leg, {get('xproxy.stall.waiting_bytes')} bytes wait, {_duration(get)}"
        case "connection-closed":
            by = text("xproxy.initiator")
            totals = "; ".join(_totals(get, side) for side in ("client", "server"))
            return _join(f"{text('event.reason')} by {by}", _duration(get), totals)
        case "upstream-connected":
            via = text("xproxy.upstream.via")
            return _join(
                _server(document),
                "" if via == "configured" else _with("by ", via),
                _with("from ", _address(document, "xproxy.upstream.local")),
                _duration(get),
            )
        case "upstream-failed":
            port = get("destination.port")
            where = f"{text('destination.address')} port {port}".strip() if port else text("destination.address")
            refusing = "clients are refused meanwhile" if get("xproxy.upstream.refusing") else ""
            return _join(where, text("event.reason"), text("error.code"), refusing)
        case "unsupported-transport":
            return f"looks like {text('xproxy.first_bytes')}"
        case "tls-established":
            return _join(
                f"{text('xproxy.leg')} leg",
                f"TLS {text('tls.version')}",
                text("tls.cipher"),
                _with("for ", get("tls.client.server_name")),
                _with("certificate ", get("xproxy.tls.verify")),
                "direct" if get("xproxy.tls.direct") else "",
                _duration(get),
            )
        case "tls-failed":
            return _join(
                f"{text('xproxy.leg')} leg",
                text("event.reason"),
                _with("alert ", get("xproxy.tls.alert")),
                _with("for ", get("tls.client.server_name")),
                text("error.message"),
            )
        case "tls-passthrough":
            return _join(
                text("xproxy.passthrough.stage"),
                _with("for ", get("tls.client.server_name")),
                _with("after ", get("xproxy.passthrough.refusal")),
                _with("until ", get("xproxy.passthrough.expires")),
                _with("bytes ", get("network.bytes")),
            )
        case "starttls-refused":
            return f"answer {_local(text('xmpp.starttls.answer'))}"
        case "starttls-injection":
            return f"{get('xmpp.starttls.octets')} octets from the {text('xmpp.sent_by')}"
        case "starttls-stripped":
            return text("xmpp.domain")
        case "plaintext-authentication":
            return _join(text("xmpp.sasl.mechanism"), f"STARTTLS {text('xmpp.starttls.offer')}")
        case "certificate-changed":
            old, new = text("xproxy.tls.previous_sha256"), text("tls.server.hash.sha256")
            return f"{text('xmpp.domain')}: {old[:16]}… is now {new[:16]}…"
        case "stream-opened":
            return _join(
                f"by the {text('xmpp.sent_by')}",
                _with("to ", get("xmpp.stream.to")),
                _with("from ", get("xmpp.stream.from")),
                _with("version ", get("xmpp.stream.version")),
            )
        case "stream-restarted":
            pipelined = "pipelined" if get("xmpp.stream.pipelined") else ""
            return _join(f"by the {text('xmpp.sent_by')}", f"after {text('event.reason')}", pipelined)
        case "stream-features":
            features = [_local(name) for name in get("xmpp.stream.features") or ()]
            return _join(" ".join(features) or "none", f"STARTTLS {text('xmpp.starttls.offer')}")
        case "stream-error":
            return _error(get)
        case "stream-closed":
            return f"by the {text('xmpp.sent_by')}"
        case "stream-violation":
            kind, by, offset = text("xmpp.violation.kind"), text("xmpp.sent_by"), get("xmpp.violation.offset")
            return f"{kind} by the {by} at octet {offset}"
        case "inspection-lost":
            octets = get("xmpp.inspection.octets")
            return _join(
                f"{text('event.reason')}: {text('xmpp.inspection.scope')} from the {text('xmpp.sent_by')}",
                f"at octet {get('xmpp.inspection.offset')}",
                f"{octets} octets" if octets is not None else "",
                f"policy {text('xmpp.inspection.policy')}",
            )
        case "redirect-offered":
            before = "before TLS" if get("xmpp.redirect.before_tls") else ""
            return _join(_with("to ", text("xmpp.redirect.target")), text("xmpp.redirect.mechanism"), before)
        case "sasl-offered":
            return " ".join(get("xmpp.sasl.offered") or ("none",))
        case "sasl-started":
            return _join(
                text("xmpp.sasl.mechanism"),
                _with("attempt ", get("xmpp.sasl.attempt")),
                _with("bound to ", get("xmpp.sasl.channel_binding")),
                "not offered" if get("xmpp.sasl.mechanism_offered") is False else "",
            )
        case "sasl-succeeded":
            return _join(text("xmpp.sasl.mechanism"), f"attempt {get('xmpp.sasl.attempt')}", _duration(get))
        case "sasl-failed":
            return _join(text("xmpp.sasl.mechanism"), _error(get), text("xproxy.cause"), _duration(get))
        case "sasl-aborted":
            return _join(text("xmpp.sasl.mechanism"), f"after {get('xmpp.sasl.rounds') or 0} rounds", _duration(get))
        case "sasl-malformed":
            step = get("xmpp.sasl.step")
            return _join(text("xmpp.sasl.mechanism"), text("xmpp.sasl.problem"), f"step {step}")
        case "channel-binding-verdict":
            return _join(
                text("xmpp.sasl.channel_binding") or f"flag {text('xmpp.sasl.gs2_flag')}",
                text("xproxy.channel_binding.prediction"),
                text("event.reason"),
            )
        case "sasl-downgrade":
            return _join(
                text("xmpp.sasl.downgrade.kind"),
                text("xmpp.sasl.mechanism"),
                _with("before: ", get("xmpp.sasl.downgrade.previous")),
                _with("missing: ", " ".join(get("xmpp.sasl.downgrade.missing") or ())),
            )
        case "upstream-tampering":
            what, signed = text("xproxy.tampering.kind"), text("xproxy.tampering.signed")
            return f"{what}: the server signed {signed}, {text('xproxy.tampering.expected')} arrived"
        case "resource-bound":
            asked = _with("asked for ", get("xmpp.bind.resource_requested"))
            return _join(_with("as /", text("xmpp.jid").partition("/")[2]), asked, _duration(get))
        case "bind-failed":
            return _join(_error(get), _with("asked for ", get("xmpp.bind.resource_requested")))
        case "session-established":
            return _join(f"by {text('xmpp.session.how')}", f"{_duration(get)} after the client connected")
        case "sm-enabled":
            resumable = "resumable" if get("xmpp.sm.resumable") else "not resumable"
            seconds = get("xmpp.sm.max_seconds")
            return _join(resumable, f"for {seconds} s" if seconds is not None else "", _hash(get))
        case "session-resumed":
            return _join(_hash(get), _duration(get))
        case "session-resume-failed":
            return _join(text("error.code"), _hash(get))
        case "sm-anomaly":
            handled, sent = get("xmpp.sm.handled"), get("xmpp.sm.sent")
            return _join(
                f"{text('xmpp.sm.anomaly')} by the {text('xmpp.sent_by')}",
                _with("h ", handled),
                _with("sent ", sent),
                text("error.code"),
            )
        case "registration-succeeded" | "password-changed" | "account-removed":
            return _join(" ".join(get("xmpp.request.fields") or ()), _duration(get))
        case "registration-failed":
            return _join(text("xmpp.request.purpose"), _error(get), _duration(get))
        case "fast-token-issued":
            asked = "as asked for" if get("xmpp.fast.requested") else "unasked"
            return _join(asked, text("xmpp.fast.mechanism"), _with("until ", get("xmpp.fast.expires")))
        case "iq-timeout":
            payload = _local(text("xmpp.request.payload"))
            asked = f"{text('xmpp.request.type')} {payload}".strip() or "request"
            seconds = (get("xmpp.request.threshold_ns") or 0) / 1e9
            peer = _with("to ", get("xmpp.request.peer"))
            return _join(f"{asked} by the {text('xmpp.request.sent_by')}", peer, f"no answer in {seconds:g} s")
        case "iq-unhandled":
            return _join(_stanza(get), _local(text("xmpp.stanza.unhandled")), _request(get))
        case "muc-join-failed":
            codes = _with("status ", " ".join(get("xmpp.muc.status_codes") or ()))
            words = f"{text('xmpp.muc.kind')}: {text('event.reason')}"
            return _join(words, text("xmpp.muc.room"), text("error.code"), codes)
        case "client-failure-suspected":
            delay = get("xmpp.suspicion.delay_ns")
            return _join(
                f"{text('xmpp.suspicion.kind')} ({text('xmpp.suspicion.confidence')} confidence)",
                _local(text("xmpp.suspicion.payload")),
                f"after {delay / 1e6:.0f} ms" if delay is not None else "",
                _with("shape ", get("xmpp.suspicion.fingerprint")),
            )
        case "carbons-forged":
            return _join(f"copy of what was {text('xmpp.carbons.direction')}", _stanza(get))
        case "dialback-result":
            return _join(
                f"{text('xmpp.dialback.element')} {text('xmpp.dialback.verdict')} from the {text('xmpp.sent_by')}",
                _with("from ", get("xmpp.dialback.from")),
                _with("to ", get("xmpp.dialback.to")),
                text("error.code"),
            )
        case "component-authenticated" | "component-refused":
            return _join(text("xmpp.domain"), text("error.code"), _duration(get))
        case "stanza-error":
            return _join(f"{_stanza(get)}: {_error(get)}", _request(get), _shorten(text("xmpp.stanza.skeleton")))
        case "stanza-relayed":
            return _join(_stanza(get), f"{get('xmpp.stanza.octets')} bytes", _request(get))
        case "proxy-started":
            listeners = ", ".join(get("xproxy.listeners") or ())
            upstream = f"{text('xproxy.upstream.address')} (verify {text('xproxy.upstream.verify')})"
            where = f"listens on {listeners} before {upstream}" if listeners else "listens"  # or left out
            return f"{where}, {get('xproxy.descriptors_max')} descriptors"
        case "proxy-stopped":
            aborted = get("xproxy.sessions_aborted")
            return _join(text("event.reason"), f"{aborted} sessions cut off" if aborted else "")
        case "config-changed":
            restart = ", ".join(get("xproxy.config.needs_restart") or ())
            return _join(
                ", ".join(get("xproxy.config.changed") or ()),
                text("error.message"),
                f"only read at the start: {restart}" if restart else "",
            )
        case "capture-started":
            only = (
                text("xproxy.capture.jid"),
                text("xproxy.capture.net"),
                ", ".join(get("xproxy.capture.actions") or ()),
            )
            bodies = "with what people say" if get("xproxy.capture.bodies") else ""
            return _join(f"into {text('xproxy.capture.directory')}", bodies, *only)
        case "capture-stopped":
            count = f"{get('xproxy.capture.sessions')} sessions, {get('xproxy.capture.bytes')} B"
            return _join(text("event.reason"), count, text("error.message"))
        case "keylog-opened":
            return f"into {text('xproxy.keylog.path')}"
        case "journal-opened":
            return f"{text('xproxy.journal.origin')} from {get('xproxy.journal.index')}"
        case "journal-checkpoint":
            return f"{get('xproxy.journal.size')} entries are signed"
        case "journal-recovered":
            unsigned, torn = get("xproxy.journal.unsigned_count"), get("xproxy.journal.torn_bytes")
            return _join(
                text("xproxy.journal.stream"),
                f"{unsigned} entries no note covers" if unsigned else "",
                f"{torn} octets torn" if torn else "",
            )
        case "journal-gap":
            missing = ", ".join(get("xproxy.journal.missing") or ())
            count = f"{text('xproxy.journal.stream')} lacks {get('xproxy.journal.missing_records')} records"
            return _join(count, text("event.reason"), missing)
        case "journal-failed":
            return _join(text("xproxy.journal.stream"), text("event.reason"), text("error.code"))
        case "key-rotated":
            return _join(text("xproxy.journal.stream"), text("xproxy.journal.vkey"))
        case "limit-reached":
            closes = "the session ends" if get("xproxy.limit.closes") else ""
            by = _with("by the ", get("xmpp.sent_by"))
            return _join(f"{text('xproxy.limit.name')} = {get('xproxy.limit.value')}", by, closes)
        case _:
            # starttls-requested, and actions younger than this list: their name says it all, or their sentence does.
            return "" if action == "starttls-requested" else str(document["message"])


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _with(words: str, value: object) -> str:
    return "" if value is None or value == "" else f"{words}{value}"


def _local(name: str) -> str:
    """Return the local part of ``{namespace}local``."""
    return name.rpartition("}")[2]


def _shorten(text: str) -> str:
    return text if len(text) <= LONG_TEXT_CHARS else f"{text[:LONG_TEXT_CHARS]}…"


def _duration(get: Any) -> str:
    ns = get("event.duration")
    if ns is None:
        return ""
    if ns < 10_000_000:
        return f"{ns / 1e6:.1f} ms"
    if ns < 1_000_000_000:
        return f"{ns / 1e6:.0f} ms"
    if ns < 60_000_000_000:
        return f"{ns / 1e9:.1f} s"
    minutes, seconds = divmod(ns // 1_000_000_000, 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds} s"


def _server(document: Document) -> str:
    host, address = _get(document, "destination.address"), _address(document, "destination")
    if host is None or not address:
        return host or address  # identities are left out
    return address if address.startswith((f"{host}:", f"[{host}]:")) else f"{host} ({address})"


def _totals(get: Any, side: str) -> str:
    octets = get("source.bytes" if side == "client" else "destination.bytes")
    return f"{side} {get(f'xproxy.from_{side}.stanzas')} stanzas {octets} bytes"


def _error(get: Any) -> str:
    by = get("xmpp.sent_by")
    kind = get("error.type")
    words = str(get("error.code") or "no condition")
    if kind is not None:
        words += f" ({kind})"
    if by is not None:
        words += f" from the {by}"
    if (message := get("error.message")) is not None:
        words += f" “{message}”"
    return words


def _stanza(get: Any) -> str:
    names = [_local(name) for name in get("xmpp.stanza.payloads") or ()]
    kind, type_ = get("xmpp.stanza.kind"), get("xmpp.stanza.type")
    words = f"{kind} {type_}" if type_ else str(kind)
    if names:
        words += f" [{' '.join(names)}]"
    arrow = "→ " if get("xmpp.sent_by") == "client" else "← "
    other = get("xmpp.stanza.to" if get("xmpp.sent_by") == "client" else "xmpp.stanza.from")
    return f"{arrow}{words}" + (f" {other}" if other else "")


def _request(get: Any) -> str:
    age = get("xmpp.request.age_ns")
    if age is None:
        return ""
    payload = get("xmpp.request.payload")
    return (
        f"answers {get('xmpp.request.type')} {_local(payload) if payload else ''}".rstrip() + f" {age / 1e6:.0f} ms old"
    )


def _hash(get: Any) -> str:
    return _with("id ", get("xmpp.sm.id_hash"))
