"""Every row of the wire's catalogue goes somewhere: to an action of the list, to a counter, or "later, because"."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from xproxy.events import EVENT_TYPES
from xproxy.record.ecs import group_of
from xproxy.record.fields import FIELDS

ROWS: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).parents[1] / "vectors" / "catalogue.toml").read_text(encoding="utf-8")
)["row"]

# The closed list of actions. Adding one is a reviewed change, here as in the vocabulary.
CLOSED_LIST = {
    "connection": """connection-accepted connection-refused connection-stalled connection-closed upstream-connected
        upstream-failed unsupported-transport""",
    "tls": """tls-established tls-failed starttls-requested starttls-refused starttls-injection starttls-stripped
        plaintext-authentication certificate-changed tls-passthrough""",
    "stream": """stream-opened stream-restarted stream-features stream-error stream-closed stream-violation
        inspection-lost redirect-offered""",
    "sasl": """sasl-offered sasl-started sasl-succeeded sasl-failed sasl-aborted sasl-malformed sasl-downgrade
        channel-binding-verdict upstream-tampering""",
    "session": """resource-bound bind-failed session-established sm-enabled session-resumed session-resume-failed
        sm-anomaly""",
    "account": "registration-succeeded registration-failed password-changed account-removed fast-token-issued",
    "stanza": """stanza-error iq-timeout iq-unhandled muc-join-failed client-failure-suspected carbons-forged
        stanza-relayed""",
    "s2s": "dialback-result component-authenticated component-refused",
    "proxy": "proxy-started proxy-stopped relay-crashed config-changed limit-reached summary",
    "capture": "capture-started capture-stopped keylog-opened",
    "journal": """journal-opened journal-checkpoint journal-recovered journal-gap journal-failed journal-pruned
        key-rotated log-read""",
    "sink, detect": "sink-failed sink-recovered sink-rejected detector-saturated alert",
}
ACTIONS = {action for group in CLOSED_LIST.values() for action in group.split()}
EXISTING = {event_type.action for event_type in EVENT_TYPES}


def test_the_list_is_closed() -> None:
    assert len(ACTIONS) == sum(len(group.split()) for group in CLOSED_LIST.values())
    assert EXISTING <= ACTIONS


def test_no_row_is_missing_or_twice() -> None:
    names = [row["event"] for row in ROWS]
    assert len(names) == len(set(names))
    assert [sum(row["section"] == section for row in ROWS) for section in ("2.1", "2.2", "2.3")] == [29, 22, 21]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["event"])
def test_every_row_goes_somewhere(row: dict[str, Any]) -> None:
    assert row.keys() <= {"section", "event", "actions", "by", "counted", "later"}
    assert row.get("actions") or row.get("counted") or row.get("later")
    assert set(row.get("actions", ())) <= ACTIONS
    assert all(len(row.get(key, "a reason")) > 5 for key in ("counted", "later", "by"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["event"])
def test_what_a_row_names_is_there(row: dict[str, Any]) -> None:
    assert set(row.get("actions", ())) <= EXISTING
    named = re.findall(r"\b(?:xmpp|xproxy|event)\.[a-z_.]*[a-z_*]", f"{row.get('by', '')} {row.get('counted', '')}")
    parents = {".".join(field.parent) for field in FIELDS.values()}
    assert [name for name in named if name not in FIELDS and name.removesuffix(".*") not in parents] == []


def test_every_action_stands_in_its_group() -> None:
    groups = {action: group for group, actions in CLOSED_LIST.items() for action in actions.split()}
    assert [event.action for event in EVENT_TYPES if group_of(event) != groups[event.action]] == []
