"""What every running proxy can be asked and told: its state, its sessions, reload, drain, the level of the log."""

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import attrs

from xproxy.control.router import Document, Outcome, Refused, Request, Router
from xproxy.control.sessions import list_sessions
from xproxy.control.words import LEVELS
from xproxy.proxy.snapshot import SessionSnapshot

DRAIN_SECONDS_MAX: Final = 7 * 86_400.0  # whoever needs longer than a week does not want it to end


@attrs.frozen(kw_only=True)
class Reloaded:
    """What a reload came to."""

    done: tuple[str, ...]
    problems: Mapping[str, str]  # by what was kept as before
    waiting: tuple[str, ...]  # keys that changed and are only read at the start


class Operated(Protocol):
    """A running proxy, as its operator sees it: ``xproxy.app``."""

    def status(self) -> Document:
        """Return the state of everything, from counters."""

    def snapshots(self) -> Iterable[SessionSnapshot]:
        """Yield each session as it stands."""

    def passed_clients(self) -> list[Document]:
        """Return who is let through undecrypted: ``sessions.passed_row``."""

    async def reload(self) -> Reloaded:
        """Read certificates and the level of the log again, open the log file again."""

    def drain(self, seconds: float | None) -> Document:
        """Let sessions end within ``seconds`` (None: as configured), then stop; return what becomes of it."""

    @property
    def level(self) -> str:
        """The level that is in force."""

    @property
    def configured_level(self) -> str:
        """The level that the next reload or start brings back."""

    def set_level(self, level: str) -> None:
        """Put ``level`` in force."""


def register(router: Router, proxy: Operated) -> None:
    """Add what every running proxy can be asked and told."""
    operations = _Operations(proxy)
    router.read("/v1/status", operations.status)
    router.read("/v1/sessions", operations.sessions)
    router.read("/v1/log-level", operations.level)
    router.change("PUT", "/v1/log-level", operations.set_level, what="log-level")
    router.change("POST", "/v1/reload", operations.reload, what="reload")
    router.change("POST", "/v1/drain", operations.drain, what="drain")


class _Operations:
    def __init__(self, proxy: Operated) -> None:
        self._proxy = proxy

    async def status(self, request: Request) -> Document:
        request.only()
        return self._proxy.status()

    async def sessions(self, request: Request) -> Document:
        request.only("sort", "limit")
        limit = request.number("limit")
        sort = request.text("sort", default="age")
        assert sort is not None
        listed = await list_sessions(
            self._proxy.snapshots(), sort=sort, limit=int(limit) if limit is not None else None
        )
        return {**listed, "passthrough": self._proxy.passed_clients()}

    async def level(self, request: Request) -> Document:
        request.only()
        return {"level": self._proxy.level, "configured": self._proxy.configured_level}

    async def set_level(self, request: Request) -> Document:
        request.only("level")
        level = request.text("level")
        if level not in LEVELS:
            raise Refused(400, f"{level!r} is no level", f"one of {', '.join(LEVELS)}")
        was = self._proxy.level
        self._proxy.set_level(level)
        return {"level": level, "was": was, "configured": self._proxy.configured_level}

    async def reload(self, request: Request) -> Outcome:
        request.only()
        reloaded = await self._proxy.reload()
        kept = [f"{what} kept as before: {problem}" for what, problem in reloaded.problems.items()]
        return Outcome(
            document={
                "reloaded": reloaded.done,
                "problems": [{"what": what, "problem": problem} for what, problem in reloaded.problems.items()],
                "needs_restart": reloaded.waiting,
            },
            applied=reloaded.done,
            kept=tuple(reloaded.problems),
            problem="; ".join(kept) or None,
            needs_restart=reloaded.waiting,
        )

    async def drain(self, request: Request) -> Document:
        request.only("seconds")
        return self._proxy.drain(request.number("seconds", most=DRAIN_SECONDS_MAX))
