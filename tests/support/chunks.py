"""The same octets in different cuts: a parser must not care how the network delivered them."""

import itertools
import random
from collections.abc import Iterator

Chunks = list[bytes]


def chunkings(data: bytes, rng: random.Random, *, random_cuts: int = 4) -> Iterator[Chunks]:
    """Yield ``data`` whole, byte by byte, behind each ``>``, before each ``<`` and in seeded random cuts."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    yield _cut_at(data, [i + 1 for i, octet in enumerate(data) if octet == ord(">")])
    yield _cut_at(data, [i for i, octet in enumerate(data) if octet == ord("<")])
    for _ in range(random_cuts):
        count = rng.randint(1, max(1, min(len(data), 12)))
        yield _cut_at(data, sorted(rng.randint(0, len(data)) for _ in range(count)))


def with_trailing(data: bytes, trailing: bytes, rng: random.Random) -> Iterator[Chunks]:
    """Yield ``data`` and what came behind it in one read, and the trailing octets one by one."""
    yield [data + trailing]
    yield [data, *(trailing[i : i + 1] for i in range(len(trailing)))]
    yield from chunkings(data + trailing, rng, random_cuts=2)


def _cut_at(data: bytes, cuts: list[int]) -> Chunks:
    edges = [0, *cuts, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
