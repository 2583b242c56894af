"""Fuzz the stream reader against the judge.

    python fuzz/fuzz_stream.py --seconds 60 [--seed N] [FILE ...]

The corpus is mutated and cut at random; reader and judge must agree, and the cut must not change what is said. With
files only these are tried. With ``--atheris``, atheris chooses the octets, if it is installed. What fails is
written to the working directory, and the exit code is 1.
"""

import argparse
import itertools
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.chunks import chunkings
from tests.support.reading import HEADER, disagreement, new_reader, read
from tests.support.strategies import FRAGMENTS

CORPUS = Path(__file__).resolve().parent / "corpus" / "stream"


def check(data: bytes, rng: random.Random) -> str | None:
    """Return what is wrong with how ``data`` is read, or None."""
    whole = read([data])
    chunks = rng.choice([*chunkings(data, rng, random_cuts=3)]) if data else [data]
    if (reason := disagreement(chunks)) is not None:
        return f"{reason} in chunks of {str([len(chunk) for chunk in chunks])[:300]}"
    for one, other in itertools.zip_longest(whole.story, read(chunks).story):
        if one != other:
            return f"whole {one!r}, in chunks of {str([len(chunk) for chunk in chunks])[:300]} {other!r}"
    reader = new_reader(logged_in=False)  # small slices, small budget: another way through the same code
    for chunk in chunks:
        reader.feed(chunk)
    if reader.offset != len(data):
        return f"offset {reader.offset} after {len(data)} octets"
    return None


def mutate(data: bytes, corpus: list[bytes], rng: random.Random) -> bytes:
    """Return a neighbour of ``data``."""
    octets = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randint(0, len(octets))
        match rng.randrange(8):
            case 0 | 1 | 2:
                octets[at:at] = rng.choice(FRAGMENTS)
            case 3:
                octets[at : at + rng.randint(1, 8)] = b""
            case 4 if octets:
                octets[min(at, len(octets) - 1)] = rng.choice(
                    b"<>/!?-[]'\"&;= \n:ax\x00\xff\xc3" + bytes(range(0, 256, 17))
                )
            case 5:
                other = rng.choice(corpus)
                start = rng.randint(0, len(other))
                octets[at:at] = other[start : start + rng.randint(1, 200)]
            case 6:
                end = min(len(octets), at + rng.randint(1, 40))
                octets[end:end] = octets[at:end]
            case _:
                octets[at:at] = HEADER if rng.random() < 0.2 else b">"
    return bytes(octets[:6_000])


def fuzz(seconds: float, seed: int, corpus: list[bytes]) -> int:
    """Return the number of disagreements, 0 or 1."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    runs = 0
    pool = list(corpus)
    while time.monotonic() < end:
        data = mutate(rng.choice(pool), corpus, rng)
        runs += 1
        if rng.random() < 0.02:
            pool[len(corpus) :] = [*pool[len(corpus) :], data][-500:]  # walk away from the corpus, not for ever
        if (reason := check(data, rng)) is not None:
            name = Path(f"fuzz-stream-{seed}-{runs}.bin")
            name.write_bytes(data)
            print(f"{name}: {reason}")
            return 1
    print(f"{runs} streams in {seconds:g} s, seed {seed}: reader and judge agree")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", action="store_true", help="let atheris choose the octets, if it is installed")
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    if arguments.files:
        reasons = [reason for file in arguments.files for _ in range(30) if (reason := check(file.read_bytes(), rng))]
        print("\n".join(reasons) or "reader and judge agree")
        return 1 if reasons else 0
    if arguments.atheris:
        import atheris  # type: ignore[import-not-found, unused-ignore]

        def one(data: bytes) -> None:
            if (reason := check(HEADER + data, rng)) is not None:
                raise AssertionError(reason)

        atheris.Setup([sys.argv[0], f"-max_total_time={int(arguments.seconds)}", str(CORPUS)], one)
        atheris.Fuzz()
        return 0
    corpus = [file.read_bytes() for file in sorted(CORPUS.iterdir())] + [HEADER]
    return fuzz(arguments.seconds, arguments.seed, corpus)


if __name__ == "__main__":
    sys.exit(main())
