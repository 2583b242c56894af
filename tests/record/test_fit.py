import tracemalloc
from typing import Any

import orjson
import pytest

from xproxy.record.fit import fit

DOCUMENT: dict[str, Any] = {
    "event": {"id": "1", "reason": "r" * 50},
    "a": {"b": "x" * 500, "c": ["y" * 100] * 10, "d": 7},
    "xproxy": {"truncated": ["z"], "cause": "w" * 20},
}


def test_what_fits_is_left_alone() -> None:
    data = orjson.dumps(DOCUMENT)
    assert fit(DOCUMENT, len(data)) == data


def test_the_largest_goes_first_and_is_named() -> None:
    before = orjson.loads(orjson.dumps(DOCUMENT))
    found = orjson.loads(fit(DOCUMENT, len(orjson.dumps(DOCUMENT)) - 1))
    assert found["a"] == {"b": "x" * 500, "d": 7}
    assert found["xproxy"] == {"truncated": ["z", "a.c"], "cause": "w" * 20}
    assert before == DOCUMENT


@pytest.mark.parametrize("size", range(150, 1_800, 10))
def test_it_fits_at_any_size_and_the_envelope_stays(size: int) -> None:
    data = fit(DOCUMENT, size)
    assert len(data) <= size
    found = orjson.loads(data)
    assert found["event"] == DOCUMENT["event"]
    for name in found["xproxy"]["truncated"][1:]:
        parent, _, key = name.partition(".")
        assert key not in found.get(parent, {})


def test_an_object_that_is_left_empty_goes_too() -> None:
    found = orjson.loads(fit({"event": {"id": "1"}, "a": {"b": {"c": "x" * 500}}}, 100))
    assert found == {"event": {"id": "1"}, "xproxy": {"truncated": ["a.b.c"]}}


def test_what_waits_to_be_written_takes_no_more_memory_than_it_has_octets() -> None:
    document = {"event": {f"field-{number}": "x" * 20 for number in range(50)}}
    tracemalloc.start()
    try:
        kept = [fit(document, 100_000) for _ in range(100)]
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken < 1.2 * sum(map(len, kept)) + 4_096
