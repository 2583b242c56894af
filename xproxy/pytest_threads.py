"""Replays and proxies in threads of their own, so that a test of any kind can be beside them: plain functions, asyncio,
trio, clients in subprocesses.

Each runs one ``trio.run``. Whoever made one must end it: ``stop`` waits for the thread.
"""

import contextlib
import queue
import ssl
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs
import trio

from xproxy.capture.cassette import Cassette
from xproxy.cli.report import render_human, stamped
from xproxy.config.replay import ReplaySettings
from xproxy.peer.client import trusting
from xproxy.replay.client import play_cassette
from xproxy.replay.engine import Engine
from xproxy.replay.report import Report
from xproxy.replay.server import Listening, serve_cassette

_LOOK_SECONDS = 0.2  # between two looks whether a thread has died instead of what was waited for
START_SECONDS_MAX = 30.0  # a proxy makes its CA first; a loaded machine takes seconds

T = TypeVar("T")
R = TypeVar("R")


class ReplayFailed(AssertionError):  # noqa: N818 - it names what happened
    """A replay found something; the text is what a person reads."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"the replay differs from its cassette\n{render_human(report).plain}")
        self.report = report


class Background(Generic[T, R]):
    """A trio program in a thread: it starts with a ``T`` and ends with an ``R``."""

    def __init__(self, main: Callable[[trio.TaskStatus[T]], Awaitable[R]], name: str) -> None:
        """Start it, and wait until it says that it has started.

        Raises:
            Exception: what ended it before.
        """
        self._started: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()
        self._main = main
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._result: R | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        value, error = self._started.get(timeout=START_SECONDS_MAX)
        if error is not None:
            self._thread.join()
            raise error
        assert value is not None
        self.value: T = value

    def _run(self) -> None:
        try:
            trio.run(self._supervise)
        except BaseException as error:
            self._error = error
            self._started.put((None, error))  # nobody reads it when it had started

    async def _supervise(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                done = trio.Event()

                async def main(task_status: "trio.TaskStatus[T]") -> None:
                    self._result = await self._main(task_status)
                    done.set()

                value = await nursery.start(main)
                self._started.put((value, None))
                await done.wait()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def wait(self, event: threading.Event) -> None:
        """Wait for something that happens inside, or the end."""
        while self.is_running and not event.wait(_LOOK_SECONDS):
            pass

    def ended_within(self, seconds: float) -> bool:
        """Wait for its end; False: it still runs."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def call(self, function: Callable[[], Any]) -> None:
        """Call a function inside, if it still runs."""
        if self._token is not None and self.is_running:
            with contextlib.suppress(trio.RunFinishedError):
                trio.from_thread.run_sync(function, trio_token=self._token)

    def join(self) -> R | None:
        """Wait for its end; return what it ended with, None if it was stopped.

        Raises:
            Exception: what ended it.
        """
        self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise _lone(error)
        return self._result

    def stop(self) -> R | None:
        """End it now."""
        self.call(self._scope.cancel)
        return self.join()


def _lone(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@attrs.frozen(kw_only=True)
class AccountHandle:
    """One account of the cassette, as a client needs it."""

    name: str
    jid: str
    user: str
    password: str = attrs.field(repr=False)


class ServerHandle:
    """A fake server in a thread."""

    def __init__(
        self,
        cassette: Cassette,
        *,
        tls: ssl.SSLContext | None,
        ca_path: Path,
        passwords: dict[str, str],
        settings: ReplaySettings,
        accept: str | None = None,
    ) -> None:
        """Start it on a port that the system chooses."""
        self.cassette = cassette
        self.ca_path = ca_path
        self._passwords = passwords
        self._engine: Engine | None = None
        self._started = datetime.now(UTC)
        self._report: Report | None = None
        self._linger_seconds = settings.linger_seconds
        self._said = threading.Event()
        self._waits_for_partings = False

        async def main(task_status: "trio.TaskStatus[Listening]") -> Report:
            return await serve_cassette(
                cassette,
                tls=tls,
                passwords=passwords,
                settings=settings,
                accept=accept,
                on_said=self._all_said,
                on_played=self._played,
                task_status=task_status,
            )

        self._thread: Background[Listening, Report] = Background(main, "xproxy replay server")
        self.host = self._thread.value.address.host
        self.port = self._thread.value.address.port
        self.domain = cassette.sessions[0].domain

    def _played(self, engine: Engine) -> None:
        self._engine = engine

    def _all_said(self, engine: Engine) -> None:
        self._waits_for_partings = engine.playback.awaits_parting and not engine.playback.findings
        self._said.set()

    def said_all(self) -> bool:
        """Wait until the replay is over, or nothing is left of it but that clients leave: True.

        They may be fixtures, which leave when the test is done.
        """
        self._thread.wait(self._said)
        return self._waits_for_partings and not self._thread.ended_within(self._linger_seconds)

    @property
    def environment(self) -> dict[str, str]:
        """What makes clients in subprocesses trust the server's certificate."""
        return trust_environment(self.ca_path)

    def account(self, name: str | None = None) -> AccountHandle:
        """Return an account of the cassette, by name; the only one without."""
        name = name or self.cassette.accounts[0].name
        account = self.cassette.account(name)
        return AccountHandle(name=name, jid=account.jid, user=account.user, password=self._passwords[name])

    def report(self) -> Report:
        """Wait until the cassette is played out, or a deadline is over; return what was found."""
        if self._report is None:
            report = self._thread.join()
            assert report is not None, "it was stopped"
            self._report = stamped(report, self._started, datetime.now(UTC))
        return self._report

    def check(self) -> None:
        """Wait as ``report`` does.

        Raises:
            ReplayFailed: something differs.
        """
        __tracebackhide__ = True
        report = self.report()
        if report.exit_code:
            raise ReplayFailed(report)

    def stop(self) -> Report | None:
        """End it now; what it had found is only known if it was over."""
        if self._report is None:
            self._report = self._thread.stop()
        return self._report

    def accepted(self) -> Cassette | None:
        """Return the cassette as the replay met it, None while it plays."""
        return None if self._engine is None else self._engine.accepted()


def trust_environment(ca_path: Path) -> dict[str, str]:
    """Return variables for clients: OpenSSL and Go, Node, Python's requests (which also trust nothing else then)."""
    path = str(ca_path)
    return {"SSL_CERT_FILE": path, "NODE_EXTRA_CA_CERTS": path, "REQUESTS_CA_BUNDLE": path}


@attrs.define
class ClientHandle:
    """The clients of a cassette, to be run against servers."""

    cassette: Cassette
    passwords: dict[str, str] = attrs.field(repr=False)
    settings: ReplaySettings
    reports: list[Report] = attrs.field(factory=list)

    def run(
        self,
        host: str,
        port: int,
        *,
        ca: Path | str | None = None,
        strict: bool = False,
    ) -> Report:
        """Play them all; return what was found. ``ca``: who signed the server's certificate; None: the system's CAs."""
        tls = ssl.create_default_context() if ca is None else trusting(ca)
        started = datetime.now(UTC)
        play = partial(
            play_cassette,
            self.cassette,
            host=host,
            port=port,
            tls=tls,
            passwords=self.passwords,
            settings=self.settings,
            contains=not strict,
        )

        async def main(task_status: "trio.TaskStatus[bool]") -> Report:
            task_status.started(True)
            return await play()

        report = Background(main, "xproxy replay client").join()
        assert report is not None
        self.reports.append(stamped(report, started, datetime.now(UTC)))
        return self.reports[-1]

    def check(self, host: str, port: int, *, ca: Path | str | None = None, strict: bool = False) -> Report:
        """Play them all.

        Raises:
            ReplayFailed: something differs.
        """
        report = self.run(host, port, ca=ca, strict=strict)
        if report.exit_code:
            raise ReplayFailed(report)
        return report
