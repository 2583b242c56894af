"""Capturing in a running proxy: which sessions, where to, how much; begun and ended at any time.

The proxy asks for every session (``session``); what is not captured goes through untouched. Sessions that are under way
when capturing begins are not captured: their beginning is missing. When it ends, those under way are cut off.

Capturing never costs a session: a limit, a full disk, a bug in here end the capture, with a record, and traffic goes
on.
"""

import hmac
import ipaddress
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs
import trio

from xproxy import __version__
from xproxy.capture.content import redaction
from xproxy.capture.gate import Gate, Wanted
from xproxy.capture.memory import WitnessedMemory
from xproxy.capture.redact import Alias, Redactor
from xproxy.capture.store import CaptureStore, Reserve, Taken
from xproxy.capture.tape import Tape, TapedCore, TapedRecorder
from xproxy.capture.trace import SUFFIX, Meta
from xproxy.config.capture import CaptureSettings
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.errors import FileProblem, UsageProblem
from xproxy.events import Event
from xproxy.events.capture import CaptureStarted, CaptureStopped
from xproxy.events.proxy import LimitReached
from xproxy.jid import Jid
from xproxy.proxy.seams import NewSession, SessionCore, SessionNotes
from xproxy.record.recorder import Observer
from xproxy.xmpp.actions import LegMode
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.names import NameTally
from xproxy.xmpp.session import Session

log = logging.getLogger(__name__)

LAST_BYTES: Final = 128  # the line that ends a file before its session does has at most so many
_MAPPED_BITS: Final = 96  # of a v4-mapped address, before the IPv4 one


@attrs.frozen(kw_only=True)
class CoreSettings:
    """What a session's core is made with at this moment."""

    limits: StreamLimits
    policy: StreamPolicy
    memory: Memory


@attrs.frozen(kw_only=True)
class CaptureStatus:
    """How capturing stands."""

    directory: Path | None  # None: nothing is captured
    bodies: bool
    jid: str | None
    net: str | None
    actions: tuple[str, ...]
    sessions_now: int  # that are looked at
    sessions: int  # with a file, since capturing began
    sessions_lost: int
    bytes: int
    rings_bytes: int


class _Run:
    """Capturing from its begin to its end."""

    def __init__(self, settings: CaptureSettings, directory: Path, store: CaptureStore) -> None:
        self.settings = settings
        self.directory = directory
        self.store = store
        self.wanted = Wanted(
            jid=None if settings.jid is None else str(Jid.from_text(settings.jid).bare),
            net=None if settings.net is None else _network(settings.net),
            actions=frozenset(settings.trigger_actions),
        )
        self.gates: set[Gate] = set()
        self.names: dict[str, str] = {}
        self.sessions = 0
        self.lost = 0
        self.bytes = 0
        self.ring_bytes = 0


class CaptureService:
    """The tap of a running proxy. Lives in trio's thread."""

    def __init__(
        self,
        *,
        settings: CaptureSettings,
        observer: Observer,
        correlation_key: bytes,
        core_settings: Callable[[], CoreSettings],
        note: Callable[[Event], None],
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """``correlation_key`` keys the aliases of ids; ``note`` records an event of the proxy."""
        self._settings = settings
        self._observer = observer
        self._alias = Alias(hmac.digest(correlation_key, b"capture aliases", "sha256"))
        self._core_settings = core_settings
        self._note = note
        self._wall_ns = wall_ns
        self._run: _Run | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._finishing: CaptureStore | None = None  # the last one, as far as it has not written everything

    # The operator ---------------------------------------------------------------------------------------------------

    def start(
        self, settings: CaptureSettings | None = None, *, by_uid: int | None = None, by_pid: int | None = None
    ) -> None:
        """Begin to capture, as configured or with other ``settings``; recorded, and with bodies said on stderr.

        Raises:
            UsageProblem: it is under way already, or no directory is named.
            FileProblem: the directory cannot be used.
        """
        settings = settings if settings is not None else self._settings
        if self._run is not None:
            raise UsageProblem("sessions are captured already", "stop it first: xproxy capture stop")
        if settings.directory is None:
            raise UsageProblem("no directory is named", "xproxy capture start DIR, or directory in [capture]")
        self._token = trio.lowlevel.current_trio_token()
        store = CaptureStore.open(
            settings.directory, queue_bytes_max=settings.queue_bytes_max, on_failure=self._disk_failed
        )
        self._run = _Run(settings, settings.directory, store)
        if settings.bodies:
            log.warning("captures in %s hold what people say to each other", settings.directory)
        self._note(
            CaptureStarted(
                directory=str(settings.directory),
                bodies=settings.bodies,
                jid=self._run.wanted.jid,
                net=settings.net,
                actions=settings.trigger_actions,
                by_uid=by_uid,
                by_pid=by_pid,
            )
        )

    def stop(
        self,
        reason: str = "asked",
        *,
        problem: str | None = None,
        by_uid: int | None = None,
        by_pid: int | None = None,
    ) -> bool:
        """End it; sessions under way are cut off. Return whether there was anything to end. Recorded."""
        run, self._run = self._run, None
        if run is None:
            return False
        for gate in list(run.gates):
            if gate.is_written:
                run.lost += 1
            gate.cut(reason)
        if reason == "shutdown":
            failure = run.store.close()  # first, so that the record says how it ended
            if failure is not None:
                reason, problem = "disk", failure.message
        else:
            run.store.finish()
            self._finishing = run.store
        if reason not in ("asked", "shutdown"):
            log.error("capturing ended: %s", problem or reason)
        self._note(
            CaptureStopped(
                reason=reason,
                problem=problem,
                sessions=run.sessions,
                sessions_lost=run.lost,
                bytes=run.bytes,
                by_uid=by_uid,
                by_pid=by_pid,
            )
        )
        return True

    def close(self) -> None:
        """The proxy ends: capturing does, and everything is written. Blocks, at most some seconds."""
        self.stop("shutdown")
        if self._finishing is not None and (failure := self._finishing.close()) is not None:
            _not_all_written(failure)

    def status(self) -> CaptureStatus:
        """Return how it stands."""
        run = self._run
        settings = run.settings if run is not None else self._settings
        return CaptureStatus(
            directory=run.directory if run is not None else None,
            bodies=settings.bodies,
            jid=settings.jid,
            net=settings.net,
            actions=settings.trigger_actions,
            sessions_now=len(run.gates) if run is not None else 0,
            sessions=run.sessions if run is not None else 0,
            sessions_lost=run.lost if run is not None else 0,
            bytes=run.bytes if run is not None else 0,
            rings_bytes=run.ring_bytes if run is not None else 0,
        )

    # The proxy ------------------------------------------------------------------------------------------------------

    def session(
        self, trace_id: str, recorder: SessionNotes, new_session: NewSession
    ) -> tuple[SessionNotes, NewSession]:
        """Return what the session is to use."""
        run = self._run
        if run is None:
            return recorder, new_session
        ledger = _Ledger(self, run)
        gate = Gate(
            wanted=run.wanted,
            trace_id=trace_id,
            meta=self._meta,
            ledger=ledger,
            ring_bytes=run.settings.ring_bytes,
            session_bytes_max=run.settings.session_bytes_max,
        )
        run.gates.add(gate)
        redactor = Redactor(bodies=run.settings.bodies, alias=self._alias)
        tape = Tape(
            trace_id=trace_id,
            redactor=redactor,
            sink=gate,
            wall_ns=self._wall_ns,
            waiting_bytes_max=run.settings.waiting_bytes_max,
        )

        def new_taped(mode: LegMode, at_ns: int, names: NameTally) -> SessionCore:
            if tape.is_off:
                return new_session(mode, at_ns, names)
            settings = self._core_settings()
            memory = WitnessedMemory(settings.memory)
            core = Session(
                limits=settings.limits,
                policy=settings.policy,
                mode=mode,
                at_ns=at_ns,
                memory=memory,
                strangers=names,
            )
            tape.begin(mode=mode, at_ns=at_ns, limits=settings.limits, policy=settings.policy, memory=memory)
            return TapedCore(core, tape)

        return TapedRecorder(recorder, tape), new_taped

    def _meta(self) -> Meta:
        settings = self._run.settings if self._run is not None else self._settings
        return Meta(
            tool=f"xproxy {__version__}",
            created=datetime.fromtimestamp(self._wall_ns() / 1e9, UTC).isoformat(timespec="seconds"),
            redaction=redaction(bodies=settings.bodies),
            observer=self._observer,
        )

    def _disk_failed(self, problem: FileProblem) -> None:
        """In the store's thread."""
        token = self._token
        if token is None:
            return
        try:
            token.run_sync_soon(self._stop_for_the_disk, problem)
        except trio.RunFinishedError:
            _not_all_written(problem)

    def _stop_for_the_disk(self, problem: FileProblem) -> None:
        if self._run is not None and self._run.store.problem is problem:
            self.stop("disk", problem=problem.message)
        else:  # of a capture that was stopped before: the one of now, if there is one, goes on
            _not_all_written(problem)

    # What all sessions share ----------------------------------------------------------------------------------------

    def write(self, run: _Run, trace_id: str, data: bytes, reserve: Reserve | None) -> Taken:
        """Have ``data`` written to the file of a session."""
        # For each file that goes on, the words that end it must find room.
        files = len(run.names) + (trace_id not in run.names)
        if reserve != "last" and run.bytes + len(data) + LAST_BYTES * files > run.settings.total_bytes_max:
            if run is self._run:
                limit = run.settings.total_bytes_max
                self._note(LimitReached(limit="capture.total_bytes_max", value=limit, closes=False))
                self.stop("size-limit")
            return "over"
        name = run.names.get(trace_id)
        is_new = name is None
        if name is None:
            stamp = datetime.fromtimestamp(self._wall_ns() / 1e9, UTC)
            name = f"{stamp:%Y%m%dT%H%M%SZ}-{trace_id}{SUFFIX}"
        taken = run.store.append(name, data, is_new=is_new, reserve=reserve)
        if taken == "taken":
            if is_new:
                run.names[trace_id] = name
                run.sessions += 1
            run.bytes += len(data)
        return taken

    def cut_off(self, run: _Run, why: str) -> None:
        """A session's capture ended before the session did."""
        run.lost += 1
        values = {
            "capture.session_bytes_max": run.settings.session_bytes_max,
            "capture.queue_bytes_max": run.settings.queue_bytes_max,
            "capture.waiting_bytes_max": run.settings.waiting_bytes_max,
        }
        self._note(LimitReached(limit=why, value=values[why], closes=False))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return a network; of IPv4 ones written as IPv6 (RFC 4291 section 2.5.5.2) the IPv4 one, as clients are shown."""
    net = ipaddress.ip_network(text, strict=False)
    if isinstance(net, ipaddress.IPv6Network) and net.prefixlen >= _MAPPED_BITS:
        mapped = net.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, net.prefixlen - _MAPPED_BITS))
    return net


def _not_all_written(problem: FileProblem) -> None:
    log.error("the end of a capture is not written: %s", problem.message)


class _Ledger:
    """The service, for the gates of one run."""

    def __init__(self, service: CaptureService, run: _Run) -> None:
        self._service = service
        self._run = run

    def write(self, trace_id: str, data: bytes, reserve: Reserve | None = None) -> Taken:
        """Have ``data`` written."""
        return self._service.write(self._run, trace_id, data, reserve)

    def may_keep(self, change: int) -> bool:
        """Count bytes in rings; those that were released and wait for the disk are in memory still."""
        run = self._run
        run.ring_bytes += change
        return run.ring_bytes + run.store.released_bytes <= run.settings.memory_bytes_max

    def cut_off(self, why: str) -> None:
        """Count it and say so."""
        self._service.cut_off(self._run, why)

    def gone(self) -> None:
        """Count it: the store has said it."""
        self._run.lost += 1

    def ended(self, gate: Gate) -> None:
        """Forget it."""
        self._run.gates.discard(gate)
        name = self._run.names.pop(gate.trace_id, None)
        if name is not None:
            self._run.store.ended(name)
