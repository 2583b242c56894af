"""Does anything grow? A million messages and 20 000 short sessions, and what the process has afterwards.

    python bench/bench_soak.py [--quick] [--messages N] [--sessions N] [--out DIR]

Some sessions stay and send all the messages while short sessions come and go (log in, leave), in 20 parts of equal
work. After each part: memory of its own (not that of programs and libraries, which others may share), names that the
XML parser keeps, descriptors, trio's tasks, objects known to the collector (after it has run, and without the deadlines
that trio keeps a thousand of when they are over), and how much of the C heap is in use: memory also depends on where
the heap has holes. The first quarter is to warm up: allocators and caches find their size. Flat means: in the last
quarter no more than 5 % above the second.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.ends import BenchFailed, load
from bench.kernel import descriptors, own_memory_bytes, threads
from bench.proxies import Bench, Started, xproxy
from bench.report import Bar, conclude, lines_svg, median, parser, table

PARTS = 20
PARTS_QUICK = 4
KEPT = 50  # sessions that send the messages
GROWTH_MAX = 1.05
LOOK_SECONDS_MAX = 30.0
WATCHED = ("memory_mib", "heap_mib", "names", "descriptors", "tasks", "objects")


@attrs.frozen(kw_only=True)
class Look:
    """What the process has after some parts of the work."""

    messages: int
    sessions: int
    memory_mib: float
    names: int
    descriptors: int
    threads: int
    tasks: int
    objects: int
    heap_mib: float  # in use


def main() -> int:
    """Run the bench; return the exit code."""
    made = parser(__doc__, rounds=1)
    made.add_argument("--messages", type=int, default=1_000_000)
    made.add_argument("--sessions", type=int, default=20_000)
    options = made.parse_args()
    if options.quick:
        options.messages, options.sessions = 4_000, 80
    begun = time.monotonic()
    looks = _soak(options.messages, options.sessions, PARTS_QUICK if options.quick else PARTS)
    print(f"{options.messages} messages and {options.sessions} short sessions in {time.monotonic() - begun:.0f} s")
    shown = looks[:: max(1, len(looks) // 10)]
    print(
        table(
            ("messages", "sessions", "MiB", "names", "descriptors", "threads", "tasks", "objects", "heap MiB"),
            [attrs.astuple(look) for look in (*shown, looks[-1])],
        )
    )
    return conclude(
        "soak",
        options,
        results={"looks": [attrs.asdict(look) for look in looks]},
        bars=[
            Bar(
                f"{what}: last quarter, of the second", growth([getattr(look, what) for look in looks]), GROWTH_MAX, "x"
            )
            for what in WATCHED
        ],
        plot=lines_svg(
            "A million messages, 20 000 short sessions",
            "short sessions",
            "MiB, names / 100",
            {
                "memory, MiB": [(look.sessions, look.memory_mib) for look in looks],
                "names / 100": [(look.sessions, look.names / 100) for look in looks],
            },
        ),
    )


def growth(values: Sequence[float]) -> float:
    """Return the median of the last quarter of ``values``, of that of the second quarter."""
    quarter = max(1, len(values) // 4)
    return median(values[-quarter:]) / median(values[quarter : 2 * quarter])


def _soak(messages: int, sessions: int, parts: int) -> list[Look]:
    with ExitStack() as stack:
        bench = Bench.prepare(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xproxy-bench-"))))
        seen = bench.directory / "seen.json"
        proxy = xproxy(bench, program=(sys.executable, str(Path(__file__).with_name("watched.py")), str(seen)))
        kept = stack.enter_context(load(bench.ends, proxy.port))
        kept.open(KEPT)
        short = stack.enter_context(load(bench.ends, proxy.port))
        looks = []
        for part in range(1, parts + 1):
            short.set_up(sessions // parts)
            kept.send(messages // parts)
            time.sleep(0.5)  # sessions that have ended are closed in form
            looks.append(_look(proxy, seen, part * (messages // parts), part * (sessions // parts)))
        return looks


def _look(proxy: Started, seen: Path, messages: int, sessions: int) -> Look:
    seen.unlink(missing_ok=True)
    os.kill(proxy.pid, signal.SIGUSR1)
    deadline = time.monotonic() + LOOK_SECONDS_MAX
    while not seen.exists():
        if time.monotonic() > deadline:
            raise BenchFailed("the proxy does not answer a look into it")
        time.sleep(0.01)
    inside = json.loads(seen.read_text())
    return Look(
        messages=messages,
        sessions=sessions,
        memory_mib=own_memory_bytes(proxy.pid) / 1_048_576,
        names=inside["names"],
        descriptors=descriptors(proxy.pid),
        threads=threads(proxy.pid),
        tasks=inside["tasks"],
        objects=inside["objects"],
        heap_mib=inside["heap_mib"],
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchFailed as failed:
        sys.exit(f"bench_soak: {failed}")
