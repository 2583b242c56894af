"""Settings -> a running proxy: what is opened, in which order, and that all of it is closed again.

Start: state directory, keys, certificates, the server's name, descriptors, log, journal, control socket, listeners.
Each step may refuse with an ``XproxyError``, and what the steps before it have opened is closed in reverse order.
Listening comes last: a client that can connect is served and recorded. The end is the same way back: listeners close,
sessions drain, the control socket closes, ``proxy-stopped`` is recorded, the journal is sealed, the log is written out
and closed.

The server is not connected to at the start: it would see a connection that no client made. Its name is looked up,
because a name that is not known is a slip of the pen; a server that is down may come up at any time, so that is said on
stderr when the first client meets it, and again when the server is back.
"""

import logging
import os
import resource
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from xproxy import __version__
from xproxy.capture.service import CaptureService, CoreSettings
from xproxy.config.address import HostPort
from xproxy.config.sessions import DESCRIPTORS_OWN
from xproxy.config.settings import Settings
from xproxy.config.state import (
    make_state_directory,
    read_correlation_key,
)
from xproxy.config.stream import StreamPolicy
from xproxy.config.upstream import UpstreamAddress, UpstreamFrom, UpstreamSettings
from xproxy.control import captures
from xproxy.control.address import control_socket
from xproxy.control.operations import Reloaded, register
from xproxy.control.router import Document, Router
from xproxy.control.server import ControlServer, open_control_socket
from xproxy.control.sessions import passed_row
from xproxy.control.status import Queue, State, document_of
from xproxy.control.systemd import Notifier, PassedSocket
from xproxy.errors import AddressProblem, EnvironmentProblem, XproxyError, find_problem
from xproxy.events import Endpoint, Event, Level
from xproxy.events.capture import KeylogOpened
from xproxy.events.proxy import ConfigChanged, LimitReached, ProxyStarted, ProxyStopped
from xproxy.journal.channel import JournalChannel, write_journal
from xproxy.log.channel import RecordChannel
from xproxy.log.filters import LevelFilter, level_from_name
from xproxy.log.outputs import open_log
from xproxy.proxy.health import HealthSettings, UpstreamHealth
from xproxy.proxy.memory import SAVE_SECONDS, load_memory, save_memory
from xproxy.proxy.passthrough import PassthroughMemory
from xproxy.proxy.proxy import Proxy, ProxySettings
from xproxy.proxy.route import Asked, Candidate, Route
from xproxy.proxy.snapshot import SessionSnapshot
from xproxy.proxy.srv import ANY_DOMAIN
from xproxy.proxy.way_out import make_route, served_domains
from xproxy.record.document import Facts
from xproxy.record.identities import Identities
from xproxy.record.identity_key import open_identities
from xproxy.record.recorder import Observer, ProxyRecorder, SessionRecorder
from xproxy.tls.service import TlsService
from xproxy.xmpp.actions import LegMode
from xproxy.xmpp.names import NameTally
from xproxy.xmpp.session import Session

log = logging.getLogger(__name__)

STATUS_SECONDS: Final = 10.0  # between two lines for the service manager
END_SECONDS_MAX: Final = 30.0  # behind the drain: closing legs in form, sealing the journal, writing out the log
LOOKUP_SECONDS_MAX: Final = 10.0  # glibc asks two servers twice, 5 s each; a slow resolver is not a wrong name

Reread = Callable[[], Settings]


@attrs.frozen(kw_only=True)
class Running:
    """A proxy that listens. What ``run`` reports when it has started."""

    listeners: tuple[Endpoint, ...]  # real addresses, port 0 resolved
    upstream: UpstreamAddress
    ca_file: Path | None  # the local CA's certificate; None with the server's own files
    log_file: Path | None  # None: records go to standard output only
    stop: Callable[[str], None]  # drain with this reason ("finished"); called again: at once. ``run`` returns after it


async def run(
    settings: Settings,
    *,
    reread: Reread | None = None,
    signals: bool = False,
    passed: Sequence[PassedSocket] = (),
    notifier: Notifier | None = None,
    task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the proxy until it is told to stop, by ``Running.stop``, by a signal if ``signals``, or by cancellation.

    ``reread`` returns the settings anew on SIGHUP; without it only certificates and the log file are opened again.
    ``passed``: listening sockets that a service manager opened; the proxy closes them, and opens none of its own.
    ``notifier`` is told when it is ready, reloads, stops, and that it is alive.

    Raises:
        XproxyError: the settings cannot be put to work on this machine, an output of the log is gone for ever, or
            ``sessions.names_total_max`` was reached; nothing is left open.
    """
    assert settings.upstream.address is not None, "load(need_upstream=True) has seen to it"
    state = settings.state.directory
    make_state_directory(state)
    correlation_key = read_correlation_key(state, secrets.token_bytes)
    identities = open_identities(settings, time.time_ns())
    tls = TlsService(settings.tls, settings.upstream, state)
    route = make_route(settings.upstream, secrets.randbelow)
    if isinstance(settings.upstream.address, HostPort):
        await look_up(settings.upstream.address)
    elif settings.upstream.address is UpstreamFrom.SRV:
        await look_up_domains(route, settings.upstream)
    descriptors_max = raise_descriptor_limit(settings.sessions.sessions_max)
    levels = LevelFilter(level_from_name(settings.log.level))
    observer = Observer(version=__version__, hostname=socket.gethostname(), boot_id=secrets.token_hex(16))
    recorder = ProxyRecorder(observer=observer, identities=identities)
    app: _App | None = None

    def give_up(reason: str) -> None:
        if app is not None:
            app.abort(reason)

    with (
        open_log(
            settings.log,
            levels,
            settings.upstream.address,
            partial(give_up, "log-gone"),
            listed=listed_domains(settings.upstream),
        ) as mirror,
        write_journal(
            state,
            settings.journal,
            settings.policy.on_journal_failure,
            recorder,
            mirror,
            partial(give_up, "journal-down"),
        ) as channel,
        open_control_socket(control_socket(state)) if settings.control.enabled else nullcontext() as control,
    ):
        app = _App(
            settings=settings,
            reread=reread,
            correlation_key=correlation_key,
            tls=tls,
            route=route,
            channel=channel,
            levels=levels,
            observer=observer,
            recorder=recorder,
            identities=identities,
            passed=passed,
            notifier=notifier or Notifier(),
        )
        try:
            await app.serve(descriptors_max=descriptors_max, signals=signals, control=control, task_status=task_status)
        except BaseExceptionGroup as group:
            if problem := find_problem(group):
                raise problem from problem.__cause__
            raise


class _App:
    """A run from the open log to its end."""

    def __init__(
        self,
        *,
        settings: Settings,
        reread: Reread | None,
        correlation_key: bytes,
        tls: TlsService,
        route: Route,
        channel: RecordChannel | JournalChannel,
        levels: LevelFilter,
        observer: Observer,
        recorder: ProxyRecorder,
        identities: Identities | None = None,
        passed: Sequence[PassedSocket] = (),
        notifier: Notifier | None = None,
    ) -> None:
        assert settings.upstream.address is not None
        self._settings = settings
        self._upstream = settings.upstream.address
        self._reread = reread
        self._tls = tls
        self._observer = observer
        self._notifier = notifier or Notifier()
        self._identities = identities
        tls.on_leaves_max = self._leaves_max_reached
        self._channel = channel
        self._levels = levels
        self._policy = StreamPolicy(
            domain=settings.upstream.domain,
            on_inspection_lost_client=settings.policy.on_inspection_lost_client,
            on_inspection_lost_server=settings.policy.on_inspection_lost_server,
            server_text=settings.log.server_text,
            debug_events=levels.level <= Level.DEBUG,
            correlation_key=correlation_key,
            negotiation_seconds_max=settings.sessions.negotiation_seconds_max,
            own_part_seconds_max=settings.sessions.handshake_seconds_max,
            close_seconds_max=settings.sessions.close_seconds_max,
        )
        self._memory = load_memory(settings.state.directory)  # what sessions learn about servers, for those that follow
        self._recorder = recorder
        self.passthrough = PassthroughMemory(
            settings.policy,
            wall_ns=time.time_ns,
            on_limit=lambda limit, value: self._note(LimitReached(limit=limit, value=value, closes=False)),
        )
        self.capture = CaptureService(
            settings=settings.capture,
            observer=observer,
            correlation_key=correlation_key,
            core_settings=self._core_settings,
            note=self._note,
        )
        if self.passthrough.enabled:
            log.warning(
                "clients that refuse our certificate are relayed undecrypted for %.0f s: nothing of these sessions is "
                "recorded but their begin and end (policy.on_client_reject)",
                settings.policy.passthrough_seconds,
            )
        self._proxy = Proxy(
            ProxySettings(
                listen=settings.listen,
                upstream=self._upstream,
                domain=settings.upstream.domain,
                proxy_protocol=settings.upstream.proxy_protocol,
                limits=settings.sessions,
            ),
            route=route,
            health=self._health_of(route),
            channel=channel,
            recorder=self._recorder,
            new_recorder=lambda trace_id: SessionRecorder(trace_id=trace_id, observer=observer, identities=identities),
            new_session=self._new_session,
            new_trace_id=partial(secrets.token_hex, 16),  # W3C trace context: 16 random bytes
            wall_ns=time.time_ns,
            contexts=tls,
            passthrough=self.passthrough,
            passed=[each.sock for each in passed],
            tap=self.capture,
        )
        self.router = Router()
        register(self.router, self)
        captures.register(self.router, self.capture, settings)
        self._control = ControlServer(self.router, settings.control, self._note)
        self.configured_level: str = settings.log.level
        self._waiting: tuple[str, ...] = ()  # changed in the configuration, and only read at the start
        self._listeners: tuple[Endpoint, ...] = ()
        self._started_at_ns = time.time_ns()
        self._descriptors_max = 0
        self._reloading = trio.Lock()
        self._stop_reason: str | None = None
        self._dropped = 0

    async def serve(
        self,
        *,
        descriptors_max: int,
        signals: bool,
        control: socket.socket | None,
        task_status: trio.TaskStatus[Running],
    ) -> None:
        """Serve until stopped."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if signals else ()
        for number in numbers:  # behind the receiver, while captures and the journal are closed: not to be cut short
            signal.signal(number, signal.SIG_IGN)
        with trio.open_signal_receiver(*numbers) if numbers else nullcontext() as received:
            async with trio.open_nursery() as nursery:
                finished = trio.Event()
                self._copy_if_asked()
                listeners: tuple[Endpoint, ...] = await nursery.start(self._serve_proxy, finished)
                if control is not None:
                    await nursery.start(self._control.serve, control)
                settings = self._settings
                self._listeners, self._descriptors_max = listeners, descriptors_max
                self._note(
                    ProxyStarted(
                        version=__version__,
                        pid=os.getpid(),
                        listeners=listeners,
                        upstream=str(self._upstream),
                        upstream_verify=settings.upstream.verify,
                        certificate="ca" if settings.tls.certificate_file is None else "files",
                        on_client_reject=settings.policy.on_client_reject,
                        descriptors_max=descriptors_max,
                        sessions_max=settings.sessions.sessions_max,
                    )
                )
                if received is not None:
                    nursery.start_soon(self._obey, received, nursery)
                task_status.started(
                    Running(
                        listeners=listeners,
                        upstream=self._upstream,
                        ca_file=self._tls.ca_file,
                        log_file=settings.log.path,
                        stop=self.stop,
                    )
                )
                nursery.start_soon(self._save_now_and_then)
                nursery.start_soon(self._keep_telling)
                self._notifier.ready(self._words())
                await finished.wait()
                await self._control.close()  # what was asked before the end is answered and recorded
                nursery.cancel_scope.cancel()
        save_memory(self._memory, self._settings.state.directory)
        is_out_of_names = self._proxy.is_out_of_names and self._stop_reason is None
        reason = self._stop_reason or ("names-total-max" if is_out_of_names else "finished")
        self.capture.close()
        self._note(ProxyStopped(reason=reason, sessions_aborted=self._dropped))
        if is_out_of_names:
            raise EnvironmentProblem(
                f"more than {self._settings.sessions.names_total_max} XML names are kept, and only a new process is "
                "rid of them",
                "start xproxy again; a service manager does so by itself (systemd: Restart=on-failure)",
            )

    def _copy_if_asked(self) -> None:
        """Begin what makes copies of traffic or of keys, and say so where it cannot be overlooked."""
        if (keylog := self._settings.tls.keylog_file) is not None:
            log.warning("the keys of every TLS session are written to %s: who has it can read the traffic", keylog)
            self._note(KeylogOpened(path=str(keylog)))
        if self._settings.capture.directory is not None:
            self.capture.start()

    def stop(self, reason: str, seconds: float | None = None) -> None:
        """Drain for ``seconds``, or as long as is configured; told again without them, drop the sessions."""
        if self._stop_reason is None:
            self._stop_reason = reason
            if count := self._proxy.sessions:
                allowed = self._settings.sessions.drain_seconds if seconds is None else seconds
                have = "session has" if count == 1 else "sessions have"
                log.warning("stopping; %d %s %.0f s to end, told again they are dropped", count, have, allowed)
        self._proxy.drain(seconds)
        self._notifier.stopping(self._words(), (self._proxy.drain_seconds_left or 0.0) + END_SECONDS_MAX)

    def abort(self, reason: str) -> None:
        """Drop the sessions and stop."""
        self.stop(reason)
        self._proxy.drain()

    def _health_of(self, route: Route) -> UpstreamHealth | None:
        """Return what refuses clients while the server is down, if that is wanted."""
        upstream = self._settings.upstream
        if not upstream.refuse_while_down:
            return None
        settings = HealthSettings(
            down_after_failures=upstream.down_after_failures,
            probe_seconds_min=upstream.probe_seconds_min,
            probe_seconds_max=upstream.probe_seconds_max,
            connect_seconds_max=self._settings.sessions.connect_seconds_max,
            domain=upstream.domain if upstream.address is UpstreamFrom.SRV else None,
            proxy_protocol=upstream.proxy_protocol,
        )
        return UpstreamHealth(settings, route, note=self._note)

    async def _save_now_and_then(self) -> None:
        while True:
            await trio.sleep(SAVE_SECONDS)
            save_memory(self._memory, self._settings.state.directory)

    def _words(self) -> str:
        """Return a line for who looks at the service."""
        count = self._proxy.sessions
        doing = f"draining, {self._proxy.drain_seconds_left:.0f} s left" if self._proxy.is_draining else "running"
        return f"{doing}, {count} session{'' if count == 1 else 's'}"

    async def _keep_telling(self) -> None:
        """Say that the loop turns, twice as often as it is asked for, and how many sessions there are."""
        watchdog = self._notifier.watchdog_seconds
        said = ""
        while True:
            await trio.sleep(min(STATUS_SECONDS, watchdog / 2 if watchdog is not None else STATUS_SECONDS))
            self._notifier.flush()
            if watchdog is not None:
                self._notifier.alive()
            if (words := self._words()) != said:
                self._notifier.status(words)
                said = words

    async def _serve_proxy(self, finished: trio.Event, *, task_status: trio.TaskStatus[tuple[Endpoint, ...]]) -> None:
        self._dropped = await self._proxy.serve(task_status=task_status)
        finished.set()

    def _core_settings(self) -> CoreSettings:
        return CoreSettings(limits=self._settings.stream, policy=self._policy, memory=self._memory)

    def _new_session(self, mode: LegMode, at_ns: int, strangers: NameTally) -> Session:
        return Session(
            limits=self._settings.stream,
            policy=self._policy,
            mode=mode,
            at_ns=at_ns,
            memory=self._memory,
            strangers=strangers,
        )

    def _note(self, event: Event) -> None:
        self._channel.put_nowait([self._recorder.record(event, time.time_ns())])

    def _leaves_max_reached(self, value: int) -> None:
        self._note(LimitReached(limit="tls.leaves_max", value=value, closes=True))

    # For the operator, at the control socket -----------------------------------------------------------------------

    def status(self) -> Document:
        """Return the state of everything, from counters."""
        settings, channel = self._settings, self._channel
        journal = channel.journal if isinstance(channel, JournalChannel) else None
        mirror = channel.mirror if isinstance(channel, JournalChannel) else channel
        listeners = tuple(map(str, self._listeners))
        shown: Mapping[str, Any] = {"xproxy.listeners": listeners, "xproxy.upstream.address": str(self._upstream)}
        if self._identities is not None:
            shown = self._identities.apply(shown)
        return document_of(
            State(
                version=__version__,
                boot_id=self._observer.boot_id,
                pid=os.getpid(),
                now_ns=time.time_ns(),
                started_at_ns=self._started_at_ns,
                listeners=shown.get("xproxy.listeners") or (),
                upstream=shown.get("xproxy.upstream.address"),
                upstream_verify=settings.upstream.verify,
                certificate="ca" if settings.tls.certificate_file is None else "files",
                identities=settings.log.identities,
                level=self.level,
                configured_level=self.configured_level,
                sessions=self._proxy.sessions,
                sessions_max=settings.sessions.sessions_max,
                arriving=self._proxy.arriving,
                health_checks=self._proxy.health_checks,
                refusing=self._proxy.is_refusing,
                drain_seconds_left=self._proxy.drain_seconds_left,
                journal_health=journal.health if journal is not None else None,
                journal_entries=journal.durable_size if journal is not None else 0,
                journal_queue=Queue(waiting=journal.waiting_count, max=journal.records_max, is_full=journal.is_full)
                if journal is not None
                else None,
                log_path=settings.log.path,
                log_queue=Queue(waiting=mirror.waiting_count, max=mirror.records_max, is_full=mirror.is_full),
                log_problems=mirror.problems,
                names=self._proxy.names,
                names_max=settings.sessions.names_total_max,
                descriptors_max=self._descriptors_max,
            )
        )

    def snapshots(self) -> Iterator[SessionSnapshot]:
        """Yield each session as it stands."""
        return self._proxy.snapshots()

    def passed_clients(self) -> list[Document]:
        """Return who is let through undecrypted."""
        cover = self._identities.apply if self._identities is not None else _as_it_is
        return [passed_row(client, cover) for client in self.passthrough.snapshot()]

    @property
    def level(self) -> str:
        """The level of the log that is in force."""
        return self._levels.level.name.lower()

    def drain(self, seconds: float | None) -> Document:
        """Let sessions end by themselves and stop; return how many there are and how long they have."""
        if seconds is not None or not self._proxy.is_draining:
            self.stop("drain", seconds)
        return {"sessions": self._proxy.sessions, "seconds": self._proxy.drain_seconds_left}

    # Signals ----------------------------------------------------------------------------------------------------

    async def _obey(self, received: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in received:
            if number == signal.SIGHUP:
                nursery.start_soon(self.reload)  # it may wait for a disk; the order to stop must still be heard
            else:
                self.stop(signal.Signals(number).name.lower())

    async def reload(self) -> Reloaded:
        """Read certificates and the log level again, open the log file again. What is bad is recorded, the old kept."""
        async with self._reloading:
            self._notifier.reloading()
            try:
                return await self._reload()
            finally:
                if self._stop_reason is None:
                    self._notifier.ready(self._words())

    async def _reload(self) -> Reloaded:
        done: list[str] = []
        problems: dict[str, str] = {}
        self._waiting = ()
        for what, renew in (
            ("log-file", self._channel.reopen),
            ("certificates", self._renew_certificates),
            ("log-level", self._renew_level),
        ):
            try:
                await renew()
            except (XproxyError, OSError) as error:
                problem = problems[what] = str(error).replace("\n", "; ")
                log.error("%s kept as before: %s", what, problem)
                self._note(ConfigChanged(what=(what,), problem=problem))
            else:
                done.append(what)
        if done:
            self._note(ConfigChanged(what=tuple(done), needs_restart=self._waiting))
        return Reloaded(done=tuple(done), problems=problems, waiting=self._waiting)

    async def _renew_certificates(self) -> None:
        self._tls.reload()

    async def _renew_level(self) -> None:
        if self._reread is None:
            return
        settings = self._reread()
        self.configured_level = settings.log.level
        self.set_level(settings.log.level)
        self._waiting = tuple(changed_keys(self._settings, settings))
        if self._waiting:
            log.warning("changed, but only read at the start: %s", ", ".join(self._waiting))

    def set_level(self, name: str) -> None:
        """Put a level in force: for what is written at once, for debug events in sessions from now on."""
        level = level_from_name(name)
        self._levels.level = level
        self._policy = attrs.evolve(self._policy, debug_events=level <= Level.DEBUG)


def _as_it_is(facts: Facts) -> Facts:
    return facts


def changed_keys(old: Settings, new: Settings) -> Iterator[str]:
    """Yield the keys that differ and that a running proxy does not take over."""
    for section in attrs.fields_dict(Settings):
        was, now = getattr(old, section), getattr(new, section)
        for key in attrs.fields_dict(type(was)):
            name = f"{section}.{key}"
            if name != "log.level" and getattr(was, key) != getattr(now, key):
                yield name


# Steps of the start -------------------------------------------------------------------------------------------------


async def look_up(address: HostPort) -> None:
    """Check that the server's name is known.

    Raises:
        AddressProblem: it is not.
    """
    with trio.move_on_after(LOOKUP_SECONDS_MAX) as waiting:
        try:
            await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            temporary = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
            raise AddressProblem(
                f"the server {address} cannot be looked up: {address.host} "
                + ("got no answer from the name service" if temporary else "is not known"),
                "check --upstream, and that this machine's resolver works (getent hosts NAME)",
                address=str(address),
            ) from error
    if waiting.cancelled_caught:
        log.warning("the name service has not answered for %s in %.0f s; going on", address.host, LOOKUP_SECONDS_MAX)


async def look_up_domains(route: Route, settings: UpstreamSettings) -> None:
    """Check that the DNS names servers of the domains that clients may ask for.

    Raises:
        AddressProblem: it says that there are none for any of them; what is wrong with some is said on stderr.
    """
    problems: dict[str, str] = {}
    domains = [domain for domain in served_domains(settings) if domain != ANY_DOMAIN]

    async def check(domain: str) -> None:
        reasons = []
        async with aclosing(route.candidates(Asked(direct=False, domain=domain))) as places:
            async for place in places:
                if isinstance(place, Candidate):
                    return
                reasons.append(place.reason.value)
        problems[domain] = ", ".join(dict.fromkeys(reasons))

    with trio.move_on_after(LOOKUP_SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            for domain in domains:
                nursery.start_soon(check, domain)
    hint = "check domain and domains in [upstream], and the SRV records (dig SRV _xmpp-client._tcp.DOMAIN)"
    for domain, reason in problems.items():
        if len(problems) == len(domains) and reason in ("unknown-host", "not-offered"):
            raise AddressProblem(f"the DNS names no server for {domain} ({reason})", hint, address=domain)
        log.warning("the DNS names no server for %s now (%s); going on: %s", domain, reason, hint)


def listed_domains(settings: UpstreamSettings) -> frozenset[str] | None:
    """Return the domains whose servers are the operator's business, where strangers may name any; else None."""
    served = served_domains(settings)
    return frozenset(domain.lower() for domain in served) if ANY_DOMAIN in served else None


def raise_descriptor_limit(sessions_max: int) -> int:
    """Raise the soft limit of open files to the hard one and return it; say if it is too low for ``sessions_max``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS says "unlimited" and then refuses it; the soft limit stays as it was.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 2 * sessions_max:
        log.warning(
            "%d open files allow about %d sessions, sessions_max is %d: raise the limit (ulimit -Hn, LimitNOFILE=)",
            soft,
            max(0, soft - DESCRIPTORS_OWN) // 2,
            sessions_max,
        )
    return soft
