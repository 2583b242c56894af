"""The document of a proxy's state: green, or red and why."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from xproxy.control.status import Queue, State, document_of
from xproxy.journal.failures import Health

STATE = State(
    version="0.1.0",
    boot_id="5f" * 16,
    pid=4711,
    now_ns=1_764_000_090_500_000_000,
    started_at_ns=1_764_000_000_000_000_000,
    listeners=["127.0.0.1:5222"],
    upstream="127.0.0.1:15222",
    upstream_verify="full",
    certificate="ca",
    identities="clear",
    level="info",
    configured_level="info",
    sessions=3,
    sessions_max=10_000,
    drain_seconds_left=None,
    journal_health=Health(is_ok=True),
    journal_entries=42,
    journal_queue=Queue(waiting=0, max=65_536, is_full=False),
    log_path=Path("/var/log/xproxy/records.jsonl"),
    log_queue=Queue(waiting=0, max=65_536, is_full=False),
    log_problems={},
    names=233,
    names_max=1_000_000,
    descriptors_max=32_768,
)


def test_green_has_no_problem() -> None:
    document = document_of(STATE)
    assert (document["health"], document["problems"], document["state"]) == ("green", [], "running")
    assert document["uptime_seconds"] == 90.5
    assert document["started_at"] == "2025-11-24T16:00:00.000000Z"
    assert document["journal"] == {
        "ok": True, "reason": None, "since": None, "entries": 42, "waiting": 0, "waiting_max": 65_536,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"journal_health": Health(is_ok=False, reason="no-space", since_ns=1_764_000_050_000_000_000)},
            "records do not reach the journal: no-space",
        ),
        ({"journal_health": Health(is_ok=False)}, "records do not reach the journal: it cannot be written"),
        ({"log_problems": {"/x": "No space left on device"}}, "/x cannot be written: No space left on device"),
        (
            {"refusing": True},
            "the server cannot be reached, and clients are refused until it can (refuse_while_down)",
        ),
        (
            {"log_queue": Queue(waiting=9, max=10, is_full=True)},
            "no session is read: too many records wait to be written",
        ),
        (
            {"journal_queue": Queue(waiting=9, max=10, is_full=True)},
            "no session is read: too many records wait to be written",
        ),
    ],
)
def test_red_says_why(changes: dict[str, Any], problem: str) -> None:
    document = document_of(attrs.evolve(STATE, **changes))
    assert (document["health"], document["problems"]) == ("red", [problem])


def test_a_drain_says_how_long_it_has() -> None:
    document = document_of(attrs.evolve(STATE, drain_seconds_left=12.5))
    assert (document["state"], document["drain_seconds_left"]) == ("draining", 12.5)


def test_a_proxy_without_a_journal_says_so() -> None:
    assert document_of(attrs.evolve(STATE, journal_health=None, journal_queue=None))["journal"] is None
