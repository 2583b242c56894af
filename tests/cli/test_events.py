import json

import jsonschema
import pytest
from click.testing import CliRunner

from xproxy.cli.events import events
from xproxy.events import EVENT_TYPES
from xproxy.record.fields import FIELDS
from xproxy.record.schema import event_schema


def run(*arguments, **environment):
    result = CliRunner().invoke(events, arguments, env={"COLUMNS": "100", "NO_COLOR": "1", **environment})
    assert result.exit_code == 0, result.output
    return result.output


def test_the_catalogue_names_every_action_with_level_and_meaning():
    shown = run()
    for event_type in EVENT_TYPES:
        assert event_type.action in shown
    row = next(line for line in shown.splitlines() if "starttls-stripped" in line)
    assert row.split()[:4] == ["starttls-stripped", "critical", "The", "server"]
    assert "\x1b" not in shown


@pytest.mark.parametrize("columns", ["60", "200"])
def test_the_catalogue_fits_the_width(columns):
    assert max(len(line.rstrip()) for line in run(COLUMNS=columns).splitlines()) <= int(columns)


def test_the_catalogue_as_json():
    catalogue = json.loads(run("--json"))
    assert [entry["action"] for entry in catalogue] == [event_type.action for event_type in EVENT_TYPES]
    failed = next(entry for entry in catalogue if entry["action"] == "sasl-failed")
    assert failed["level"] == "warning"
    assert failed["group"] == "sasl"
    assert failed["outcome"] == ["failure"]
    assert failed["meaning"] == "The server refused the login (RFC 6120 section 6.5)."


def test_the_schema_is_printed_whole():
    schema = json.loads(run("--schema"))
    assert schema == json.loads(json.dumps(event_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_delegates_are_listed(columns):
    shown = run("--delegates", COLUMNS=columns)
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= int(columns)
    listed = json.loads(run("--delegates", "--json"))
    assert [method["number"] for method in listed] == list(range(1, 43))
    assert listed[10] == {
        "number": 11,
        "selector": "xmppStream:didNotAuthenticate:",
        "observable": "yes",
        "actions": ["sasl-failed", "client-failure-suspected"],
        "where": "xmpp.suspicion.kind challenge-unanswered or success-ignored: the app itself refused",
    }
    if columns == "200":
        assert all(method["selector"] in shown for method in listed)


def test_the_fields_are_listed():
    shown = run("--fields", COLUMNS="200")
    for name in FIELDS:
        assert name in shown
    listed = json.loads(run("--fields", "--json"))
    assert [field["field"] for field in listed] == list(FIELDS)
    assert {"ecs": False, "array": True}.items() <= next(
        field for field in listed if field["field"] == "xmpp.sasl.offered"
    ).items()
