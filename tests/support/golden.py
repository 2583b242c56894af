"""Golden event lists: what a scenario's log must say, kept in tests/vectors/golden and reviewed like code.

A list holds one entry a record, with its action and the few fields below that do not change from run to run. Set
XPROXY_UPDATE_GOLDEN=1 to write the lists anew, then read the difference.
"""

import difflib
import json
import os
from pathlib import Path
from typing import Any

_DIRECTORY = Path(__file__).parent.parent / "vectors" / "golden"

# Stable fields of the documents, in the order they are shown. Names are paths; a missing one is left out.
# How a connection ended (FIN, RST, close_notify) is often a race between the two peers, and not here.
_FIELDS = (
    "event.outcome",
    "event.reason",
    "error.code",
    "error.type",
    "xproxy.leg",
    "xproxy.initiator",
    "xproxy.cause",
    "xproxy.tls.direct",
    "xproxy.tls.verify",
    "xproxy.tls.alert",
    "tls.version",
    "tls.client.server_name",
    "tls.next_protocol",
    "xproxy.channel_binding.end_points_equal",
    "xproxy.channel_binding.prediction",
    "xmpp.sent_by",
    "xmpp.jid_source",
    "xmpp.stream.to",
    "xmpp.stream.from",
    "xmpp.stream.xml_declaration",
    "xmpp.stream.pipelined",
    "xmpp.starttls.offer",
    "xmpp.sasl.offered",
    "xmpp.sasl.mechanism",
    "xmpp.sasl.attempt",
    "xmpp.sasl.authcid",
    "xmpp.sasl.gs2_flag",
    "xmpp.sasl.channel_binding",
    "xmpp.sasl.rounds",
    "xmpp.sasl.iterations",
    "xmpp.sasl.problem",
    "xmpp.session.how",
    "xmpp.sm.resumable",
    "xmpp.sm.anomaly",
    "xmpp.violation.kind",
    "xmpp.inspection.scope",
    "xmpp.inspection.policy",
    "xmpp.stanza.kind",
    "xmpp.stanza.from",
    "xmpp.request.sent_by",
    "xmpp.request.type",
    "xmpp.request.payload",
    "xproxy.from_client.closing_tag",
    "xproxy.from_server.closing_tag",
)

# What these say depends on the sessions before, hence on which tests run before this one.
_OF_EARLIER_SESSIONS = frozenset({"sasl-downgrade", "certificate-changed", "starttls-stripped"})


def check_golden(name: str, sessions: list[list[dict[str, Any]]]) -> None:
    """Compare the sessions' records with golden/NAME.json, or write it when XPROXY_UPDATE_GOLDEN is set."""
    got = [
        [_reduced(record) for record in records if record["event"]["action"] not in _OF_EARLIER_SESSIONS]
        for records in sessions
    ]
    path = _DIRECTORY / f"{name}.json"
    if os.environ.get("XPROXY_UPDATE_GOLDEN"):
        path.write_text(_render(got))
    want = json.loads(path.read_text())
    difference = "\n".join(
        difflib.unified_diff(_render(want).splitlines(), _render(got).splitlines(), path.name, "this run", lineterm="")
    )
    assert not difference, difference


def _render(sessions: list[list[dict[str, Any]]]) -> str:
    """Return JSON with one record a line, so that differences read well."""
    blocks = [
        "[\n" + ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in session) + "\n]"
        for session in sessions
    ]
    return "[" + ", ".join(blocks) + "]\n"


def _reduced(record: dict[str, Any]) -> dict[str, Any]:
    entry = {"action": _at(record, "event.action"), "level": _at(record, "log.level")}
    for path in _FIELDS:
        value = _at(record, path)
        if value is not None:
            # Prosody's order of mechanisms is that of a Lua table, another one each time it starts.
            entry[path] = sorted(value) if isinstance(value, list) else value
    return entry


def _at(record: dict[str, Any], path: str) -> Any:
    value: Any = record
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value
