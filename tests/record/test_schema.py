import copy

import jsonschema
import orjson
import pytest

from tests.support.samples import FULL, SAMPLES
from xproxy.events import EVENT_TYPES
from xproxy.record.ecs import SHAPES, Scope
from xproxy.record.recorder import Observer, ProxyRecorder, SessionRecorder
from xproxy.record.schema import SCHEMA_ID, event_schema

VALIDATOR = jsonschema.Draft202012Validator
CHECKER = VALIDATOR(event_schema(), format_checker=VALIDATOR.FORMAT_CHECKER)
OBSERVER = Observer(version="0.1.0", hostname="gw1", boot_id="b" * 32)


def document_of(event):
    if SHAPES[type(event)].scope is Scope.PROXY:
        recorder = ProxyRecorder(observer=OBSERVER)
    else:
        recorder = SessionRecorder(trace_id="a" * 32, observer=OBSERVER)
    return orjson.loads(recorder.record(event, 1_700_000_000_123_456_789).to_json())


def problems_of(document):
    return [f"{error.json_path}: {error.message}" for error in CHECKER.iter_errors(document)]


def sample(action):
    return document_of(next(event for event in FULL if event.action == action))


def test_the_schema_is_one():
    VALIDATOR.check_schema(event_schema())
    assert event_schema()["$id"] == SCHEMA_ID
    assert event_schema()["$defs"].keys() == {event_type.action for event_type in EVENT_TYPES}


@pytest.mark.parametrize("event", SAMPLES.values(), ids=SAMPLES.keys())
def test_every_event_is_valid_full_and_minimal(event):
    assert problems_of(document_of(event)) == []


def test_every_event_is_valid_at_the_end_of_a_session_that_had_everything():
    recorder = SessionRecorder(trace_id="a" * 32, observer=OBSERVER)
    for event in [*FULL, *FULL]:
        document = orjson.loads(recorder.record(event, 0).to_json())
        if SHAPES[type(event)].scope is not Scope.PROXY:
            assert problems_of(document) == []


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda event_type: event_type.action)
def test_a_required_field_that_is_missing_is_a_problem(event_type):
    document = sample(event_type.action)
    for name in (*SHAPES[event_type].required, "event.id", "@timestamp"):
        broken = copy.deepcopy(document)
        *parents, key = name.split(".")
        place = broken
        for parent in parents:
            place = place[parent]
        del place[key]
        assert problems_of(broken), name


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        (None, "extra", 1),
        ("xmpp", "password", "x"),
        ("event", "outcome", "unknown"),
        ("event", "action", "sasl-failled"),
        ("event", "category", ["network"]),
        (None, "message", "Authentication failed for romeo."),
        ("log", "level", "info"),
        ("user", "name", 7),
        ("user", "name", ""),
        ("related", "user", "romeo"),
        ("error", "message", "x" * 257),
        (None, "@timestamp", "2023-11-14T22:13:20Z"),
        (None, "trace", {}),
    ],
    ids=str,
)
def test_what_does_not_belong_is_a_problem(place, key, value):
    document = sample("sasl-failed")
    document["user"] = {"name": "romeo"}
    assert problems_of(document) == []
    (document if place is None else document[place])[key] = value
    assert problems_of(document)


def test_events_of_the_proxy_have_no_trace():
    document = sample("proxy-started")
    document["trace"] = {"id": "a" * 32}
    assert problems_of(document)
