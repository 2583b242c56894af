"""Invariant: the stream reader sees what expat sees, in every cut the same, and its offset counts every octet.

The judge (``tests/support/judge.py``) reads the same octets with pyexpat, as servers do; a disagreement is a way to
hide from the log.
"""

import itertools
import sys

import harness

with harness.instrumented():
    from tests.support.chunks import chunkings
    from tests.support.reading import disagreement, new_reader, read
    from tests.support.strategies import FRAGMENTS


def check(data: bytes) -> None:
    """Judge one document."""
    rng = harness.rng_of(data)
    whole = read([data])
    chunks = rng.choice([*chunkings(data, rng, random_cuts=3)]) if data else [data]
    sizes = str([len(chunk) for chunk in chunks])[:300]
    reason = disagreement(chunks)
    assert reason is None, f"{reason} in chunks of {sizes}"
    for one, other in itertools.zip_longest(whole.story, read(chunks).story):
        assert one == other, f"whole {one!r}, in chunks of {sizes} {other!r}"
    reader = new_reader(logged_in=False)  # small slices, small budget: another way through the same code
    for chunk in chunks:
        reader.feed(chunk)
    reader.finish()
    assert reader.offset == len(data), f"offset {reader.offset} after {len(data)} octets"


if __name__ == "__main__":
    sys.exit(harness.main("stream", check, words=FRAGMENTS, quick=1_600))
