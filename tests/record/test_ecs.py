import attrs
import pytest

from tests.support.samples import FULL, SAMPLES
from xproxy.events import EVENT_TYPES
from xproxy.events.connection import CloseCause, ConnectionClosed
from xproxy.record.ecs import CATEGORY_TYPES, SHAPES, facts_of
from xproxy.record.fields import FIELDS


def sample(event_type):
    return next(event for event in FULL if isinstance(event, event_type))


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda event_type: event_type.action)
def test_category_and_type_are_a_pair_that_ecs_expects(event_type):
    shape = SHAPES[event_type]
    allowed = frozenset().union(*(CATEGORY_TYPES[category] for category in shape.category))
    assert set(shape.type) <= allowed
    # Each category is there for a reason: one of the types at least is its own. Detections are of unexpected kinds.
    for category in set(shape.category) - {"intrusion_detection"}:
        assert set(shape.type) & CATEGORY_TYPES[category]


@pytest.mark.parametrize("event", SAMPLES.values(), ids=SAMPLES.keys())
def test_facts_are_known_fields_and_hold_what_the_shape_promises(event):
    facts = facts_of(event)
    shape = SHAPES[type(event)]
    assert facts.keys() <= FIELDS.keys()
    for name in shape.required:
        assert facts[name] is not None
    outcome = facts.get("event.outcome")
    assert outcome in shape.outcomes if shape.outcomes else outcome is None


@pytest.mark.parametrize("event", FULL, ids=lambda event: event.action)
def test_every_optional_fact_of_an_event_is_in_its_document(event):
    for attribute in attrs.fields(type(event)):
        value = getattr(event, attribute.name)
        nothing = () if isinstance(value, tuple) else None
        # The session's own recorder says who established it.
        if attribute.type is None or "None" not in str(attribute.type) or attribute.name == "jid":
            continue
        assert facts_of(attrs.evolve(event, **{attribute.name: nothing})) != facts_of(event), attribute.name


@pytest.mark.parametrize(
    ("cause", "outcome"),
    [(CloseCause.STREAM_CLOSED, "success"), (CloseCause.TLS_FAILED, "failure"), (CloseCause.SHUTDOWN, "success")],
)
def test_a_close_is_a_success_when_it_was_in_order(cause, outcome):
    assert facts_of(attrs.evolve(sample(ConnectionClosed), cause=cause))["event.outcome"] == outcome
