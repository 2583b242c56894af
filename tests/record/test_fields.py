import csv
from pathlib import Path

import pytest

from xproxy.record.fields import FIELDS

ECS_TABLE = Path(__file__).parents[2].parent / "shared" / "data" / "ecs_fields.csv"


def test_every_field_outside_our_own_is_of_ecs_with_that_type():
    if not ECS_TABLE.exists():
        pytest.skip(f"ECS's own table of fields is not at {ECS_TABLE.name}")
    with ECS_TABLE.open(newline="") as file:
        ecs = {row["field"]: (row["type"], row["array"] == "array") for row in csv.DictReader(file)}
    ours = {field.name: (field.type.value, field.array) for field in FIELDS.values() if not field.is_custom}
    assert ours == {name: ecs.get(name) for name in ours}
    assert not any(name.startswith(("xmpp.", "xproxy.")) for name in ecs)


def test_no_field_is_both_a_leaf_and_an_object():
    parents = {".".join(field.parent[:depth]) for field in FIELDS.values() for depth in range(1, len(field.parent) + 1)}
    assert not parents & FIELDS.keys()


def test_keys_are_plain_words():
    for field in FIELDS.values():
        for key in (*field.parent, field.key):
            assert key.lstrip("@").replace("_", "").isalnum()
            assert key == key.lower()
