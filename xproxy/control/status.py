"""The state of a running proxy as a document: ``GET /v1/status``. Green, or red and why."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from xproxy.control.router import VERSION, Document
from xproxy.journal.failures import Health
from xproxy.record.document import timestamp

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_NS: Final = 1_000_000_000


@attrs.frozen(kw_only=True)
class Queue:
    """Records that wait for a writer."""

    waiting: int
    max: int
    is_full: bool  # no session is read


@attrs.frozen(kw_only=True)
class State:
    """What ``document_of`` says; every value is a counter that is kept anyway."""

    version: str
    boot_id: str
    pid: int
    now_ns: int
    started_at_ns: int
    listeners: Sequence[str]
    upstream: str | None
    upstream_verify: str
    certificate: str  # "ca", "files"
    identities: str
    level: str
    configured_level: str
    sessions: int
    sessions_max: int
    drain_seconds_left: float | None  # None: it does not drain
    journal_health: Health | None  # None: there is no journal
    journal_entries: int
    journal_queue: Queue | None
    log_path: Path | None
    log_queue: Queue
    log_problems: Mapping[str, str]  # by output: what it cannot be written for
    names: int
    names_max: int
    descriptors_max: int
    arriving: int = 0  # connections whose PROXY header or SOCKS5 request is waited for
    health_checks: int = 0  # of balancers, which are counted and not recorded
    refusing: bool = False  # clients, because the server is down


def document_of(state: State) -> Document:
    """Return ``state`` as a JSON object."""
    problems = list(_problems(state))
    health, queue = state.journal_health, state.journal_queue
    return {
        "health": "red" if problems else "green",
        "problems": problems,
        "state": "running" if state.drain_seconds_left is None else "draining",
        "drain_seconds_left": state.drain_seconds_left,
        "version": state.version,
        "api": VERSION,
        "pid": state.pid,
        "boot_id": state.boot_id,
        "started_at": timestamp(state.started_at_ns),
        "uptime_seconds": round((state.now_ns - state.started_at_ns) / _NS, 3),
        "listeners": list(state.listeners),
        "upstream": {"address": state.upstream, "verify": state.upstream_verify, "refusing": state.refusing},
        "certificate": state.certificate,
        "identities": state.identities,
        "sessions": {"now": state.sessions, "max": state.sessions_max},
        "arriving": state.arriving,
        "health_checks": state.health_checks,
        "journal": None
        if health is None or queue is None
        else {
            "ok": health.is_ok,
            "reason": health.reason,
            "since": timestamp(health.since_ns) if health.since_ns is not None else None,
            "entries": state.journal_entries,
            "waiting": queue.waiting,
            "waiting_max": queue.max,
        },
        "log": {
            "path": str(state.log_path) if state.log_path is not None else None,
            "level": state.level,
            "configured_level": state.configured_level,
            "waiting": state.log_queue.waiting,
            "waiting_max": state.log_queue.max,
        },
        "names": {"now": state.names, "max": state.names_max},
        "descriptors": {"now": _descriptors(), "max": state.descriptors_max},
        "resident_bytes": _resident_bytes(),
    }


def _problems(state: State) -> list[str]:
    problems: list[str] = []
    if state.journal_health is not None and not state.journal_health.is_ok:
        problems.append(f"records do not reach the journal: {state.journal_health.reason or 'it cannot be written'}")
    problems += [f"{output} cannot be written: {reason}" for output, reason in state.log_problems.items()]
    if state.refusing:
        problems.append("the server cannot be reached, and clients are refused until it can (refuse_while_down)")
    if state.log_queue.is_full or (state.journal_queue is not None and state.journal_queue.is_full):
        problems.append("no session is read: too many records wait to be written")
    return problems


def _descriptors() -> int | None:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return None


def _resident_bytes() -> int | None:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None
