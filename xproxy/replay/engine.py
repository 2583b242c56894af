"""What the fake server and the fake client share: one task that says what is due, deadlines, and the end.

The engine owns the ``Playback``; the two of them tell it what came (``take``, ``happened``) and are told what to say
(``Voice``). Everything that changes the playback calls ``wake``.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Protocol

import attrs
import trio

from xproxy.capture.cassette import Cassette, Event, What
from xproxy.config.replay import ReplaySettings
from xproxy.events import Side
from xproxy.replay.accept import accepted
from xproxy.replay.bindings import CannotRender
from xproxy.replay.explain import Played, to_report
from xproxy.replay.partings import PARTINGS
from xproxy.replay.playback import Playback
from xproxy.replay.report import FailureKind, Report


def utc_now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)


Excuse = tuple[FailureKind, str]


class Voice(Protocol):
    """How the engine makes an event of ours happen."""

    def can(self, event: Event) -> bool:
        """Whether there is somebody to say it to (for a login: whether one may be tried) now."""

    async def make(self, event: Event) -> None:
        """Say the stanza, connect, log in, close ... and tell the playback that it happened."""


@attrs.define(eq=False, kw_only=True)
class Engine:
    """One replay. ``run`` it in a nursery with whatever serves the other side."""

    cassette: Cassette
    ours: Side
    settings: ReplaySettings
    passwords: dict[str, str] = attrs.field(repr=False)
    contains: bool = False
    clock: Callable[[], datetime] = utc_now
    playback: Playback = attrs.field(init=False)
    somebody_came: bool = attrs.field(init=False, default=False)
    _changed: trio.Event = attrs.field(init=False, factory=trio.Event)
    _turn: trio.Lock = attrs.field(init=False, factory=trio.Lock)
    _began: dict[str, float] = attrs.field(init=False, factory=dict)
    _ended: dict[str, float] = attrs.field(init=False, factory=dict)
    _last_t_ms: int | None = attrs.field(init=False, default=None)
    _last_at: float = attrs.field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        """Set out."""
        self.playback = Playback(
            self.cassette,
            self.ours,
            self.clock,
            self.passwords,
            self.contains,
            self.settings.unexpected,
            self.settings.lenient,
            self.settings.match_seconds_max,
        )

    def wake(self, session: str | None = None) -> None:
        """Something happened (in ``session``): look again at what is due."""
        now = trio.current_time()
        self.somebody_came = True
        if session is not None:
            self._began.setdefault(session, now)
            self._ended[session] = now
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when ``holds()``, looked at whenever something happened."""
        while not holds():
            self._changed = trio.Event()
            await self._changed.wait()

    def happened(self, event: Event) -> None:
        """An event of theirs that is no stanza happened."""
        self.playback.happened(event)
        self._pass_time(event)
        self.wake(event.session)

    async def say_due(self, voice: Voice) -> None:
        """Make everything happen that is due. One task at a time does so."""
        async with self._turn:
            while (event := self.playback.due()) is not None and voice.can(event):
                await self._keep_pace(event)
                if self.playback.due() is not event:
                    continue  # while we waited something came that has to be answered first
                if event.what is What.QUIET:
                    await self._keep_quiet(event)
                    continue
                try:
                    await voice.make(event)
                except CannotRender as error:
                    self.playback.note(FailureKind.STREAM, event.session, f"#{event.number}: {error}", event)
                    self.playback.skip_rest(event.session)
                self._pass_time(event)
                self.wake(event.session)

    async def _keep_quiet(self, event: Event) -> None:
        self.playback.quiet(event)
        try:
            await trio.sleep(event.seconds)
        finally:
            self.playback.end_quiet(event)
        self.wake(event.session)

    async def _keep_pace(self, event: Event) -> None:
        if self.settings.pace == "fast" or event.t_ms is None or self._last_t_ms is None:
            return
        gap = min((event.t_ms - self._last_t_ms) / 1_000, self.settings.gap_seconds_max)
        await trio.sleep_until(self._last_at + gap)

    def _pass_time(self, event: Event) -> None:
        if event.t_ms is not None:
            self._last_t_ms, self._last_at = event.t_ms, trio.current_time()

    async def play(
        self,
        voice: Voice,
        *,
        still_busy: Callable[[], bool],
        excuse: Callable[[str], Excuse | None] = lambda name: None,
    ) -> None:
        """Return when the script was played out, or nothing came for too long. Says which, in the playback.

        ``excuse``: what is known of a session that did not come to its stanzas.
        """
        deadline = trio.current_time() + self.settings.total_seconds
        while not self.playback.is_over:
            self._changed = trio.Event()
            await self.say_due(voice)
            if self.playback.is_over:
                return
            if self._changed.is_set():
                continue
            patience = self.settings.step_seconds if still_busy() else self.settings.total_seconds
            until = min(trio.current_time() + patience, deadline)
            with trio.move_on_at(until) as scope:
                await self._changed.wait()
            if scope.cancelled_caught:
                why = "nothing came" if until < deadline else "the time for the whole replay is over"
                self._give_up(why, patience, excuse)
                return

    def _give_up(self, why: str, seconds: float, excuse: Callable[[str], Excuse | None]) -> None:
        playback = self.playback
        if not self.somebody_came:
            what = "client" if self.ours is Side.SERVER else "server"
            for each in self.cassette.sessions:
                playback.note(FailureKind.TIMEOUT, each.name, f"no {what} came within {seconds:g} s")
                playback.skip_rest(each.name)
            return
        for each in self.cassette.sessions:
            if (known := excuse(each.name)) is not None:
                playback.note(known[0], each.name, known[1])
            elif playback.missing(each.name):
                playback.note_missing(each.name, f"{why} for {seconds:g} s" if "nothing" in why else why, left=False)
        for each in self.cassette.sessions:
            # What we could not say waits for something of theirs: a stanza was named above, a parting was not.
            unsaid = playback.unsaid(each.name)
            cause = playback.blocker(unsaid[0]) if unsaid else None
            if cause is None or cause.what not in PARTINGS:
                continue
            if not any(finding.event is cause for finding in playback.findings):
                message = f"#{cause.number} <{cause.what.value}/> did not come: {why}"
                playback.note(FailureKind.MISSING, cause.session, message, cause)
        for each in self.cassette.sessions:
            playback.skip_rest(each.name)

    def accepted(self) -> Cassette:
        """Return the cassette as the replay met it."""
        return accepted(self.playback)

    def report(self, name: str, *, accept: str | None = None, notes: tuple[tuple[str, str], ...] = ()) -> Report:
        """Return what came of it."""
        self.playback.settle_order()
        seconds = {session: self._ended[session] - began for session, began in self._began.items()}
        return to_report(name, Played(playback=self.playback, seconds=seconds, accept=accept, notes=notes))


@contextlib.asynccontextmanager
async def one_error() -> AsyncIterator[None]:
    """Let a lone exception out of the groups that nurseries make around it."""
    try:
        yield
    except BaseExceptionGroup as group:
        lone: BaseException = group
        while isinstance(lone, BaseExceptionGroup) and len(lone.exceptions) == 1:
            lone = lone.exceptions[0]
        raise lone from lone.__cause__
