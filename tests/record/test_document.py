import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xproxy.record.document import timestamp, write_facts
from xproxy.record.fields import FIELDS, ITEMS_MAX, Type


def written(facts, document=None):
    document = {} if document is None else document
    write_facts(document, facts)
    return document


def test_dotted_names_become_nested_objects():
    assert written({"xmpp.sasl.mechanism": "PLAIN", "xmpp.sasl.attempt": 1, "xmpp.sent_by": "client"}) == {
        "xmpp": {"sasl": {"mechanism": "PLAIN", "attempt": 1}, "sent_by": "client"}
    }


def test_nothing_known_is_left_out_and_zero_and_false_are_not():
    facts = {"user.name": None, "error.type": "", "xmpp.sasl.offered": (), "xmpp.sm.handled": 0, "tls.resumed": False}
    assert written(facts) == {"xmpp": {"sm": {"handled": 0}}, "tls": {"resumed": False}}


def test_a_name_outside_the_table_is_a_mistake_of_ours():
    with pytest.raises(KeyError):
        written({"xmpp.anything": "x"})


def test_shared_objects_are_copied_before_they_are_changed():
    shared = {"xmpp": {"jid": "a@b", "sasl": {"attempt": 1}}, "related": {"user": ["a"]}}
    before = orjson.dumps(shared)
    document = written({"xmpp.sasl.step": 0, "xmpp.sasl.authcid": "c"}, dict(shared))
    assert orjson.dumps(shared) == before
    assert document["xmpp"] == {"jid": "a@b", "sasl": {"attempt": 1, "step": 0, "authcid": "c"}}
    assert document["related"] == {"user": ["a", "c"]}


def test_cut_fields_are_named():
    document = written(
        {
            "error.message": "é" * 200,
            "xmpp.sasl.offered": [f"M{number}" for number in range(1000)],
            "xmpp.stream.features": ["{urn:x}" + "y" * 600],
            "xmpp.sm.handled": 2**70,
            "user.name": "short",
        },
        {"xproxy": {"truncated": ["user.domain"]}},
    )
    assert document["xproxy"]["truncated"] == [
        "user.domain",
        "error.message",
        "xmpp.sasl.offered",
        "xmpp.stream.features",
        "xmpp.sm.handled",
    ]
    assert document["error"]["message"] == "é" * 128
    assert len(document["xmpp"]["sasl"]["offered"]) == ITEMS_MAX
    assert document["xmpp"]["sm"]["handled"] == 2**63 - 1


def test_related_repeats_each_value_once_and_no_address_as_a_host():
    document = written(
        {
            "destination.ip": "192.0.2.1",
            "destination.address": "192.0.2.1",
            "destination.domain": "example.org",
            "server.domain": "example.org",
            "tls.client.server_name": "other.example",
        }
    )
    assert document["related"] == {"ip": ["192.0.2.1"], "hosts": ["example.org", "other.example"]}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("@socket", None),
    ],
)
def test_an_address_is_one_that_elasticsearch_takes(text, kept):
    assert written({"source.ip": text}).get("source", {}).get("ip") == kept


@pytest.mark.parametrize(
    ("at_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456Z"),
        (1_700_000_000_999_999_999, "2023-11-14T22:13:20.999999Z"),
    ],
)
def test_time_is_utc_with_microseconds(at_ns, text):
    assert timestamp(at_ns) == text


TEXT = st.text(st.characters(), max_size=40)
FACTS = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(TEXT, max_size=4)
        if field.array
        else {Type.LONG: st.integers(), Type.BOOLEAN: st.booleans()}.get(field.type, TEXT)
        for name, field in FIELDS.items()
        if field.parent[:1] in {("xmpp",), ("user",), ("error",), ("source",)}
    },
)


@given(FACTS)
def test_whatever_a_peer_sends_is_one_line_of_json(facts):
    line = orjson.dumps(written(facts), option=orjson.OPT_APPEND_NEWLINE)
    assert line.decode().splitlines(keepends=True) == [line.decode()]
