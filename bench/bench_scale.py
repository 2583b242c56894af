"""Does the cost stay linear? From 50 to 9 000 sessions in one process, and what happens at its limit.

    python bench/bench_scale.py [--quick] [--rounds N] [--sessions N ...] [--out DIR]

The sessions are opened step by step in one xproxy and stay. At each step: processor time to set one of the new sessions
up; memory of one; processor time a message, one in flight on every session; then a ping on every session at once, and
how long the last one took. Cost is linear if the columns stay as they are.

Then xproxy is given descriptors for a few sessions only: those that are open must live on while further clients are
turned away, each with a record.
"""

import json
import resource
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.ends import BenchFailed, load
from bench.kernel import cpu_ns, memory_bytes
from bench.proxies import Bench, xproxy
from bench.report import Bar, conclude, lines_svg, median, parser, table

STEPS = (50, 500, 1_000, 2_000, 5_000, 9_000)
MANY = "[sessions]\nsessions_max = 20000\nsessions_per_address_max = 20000\n"
LIMIT = 200  # descriptors, for the second part
REFUSED = 20


@attrs.frozen(kw_only=True)
class Step:
    """What was measured with so many sessions."""

    sessions: int
    setup_us: float  # processor time, of one of those that came with this step
    kib: float  # a session, above the empty proxy
    message_us: float  # processor time, a message and its echo; median of the rounds
    per_second: float
    ping_p50_ms: float
    ping_max_ms: float  # until the last session had its answer


def main() -> int:
    """Run the bench; return the exit code."""
    made = parser(__doc__, rounds=3)
    made.add_argument("--sessions", type=int, nargs="+", default=list(STEPS), metavar="N")
    options = made.parse_args()
    if options.quick:
        options.rounds, options.sessions = 1, [20, 60]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    del soft
    options.sessions = [count for count in options.sessions if 2 * count + 200 <= hard]
    steps = _measure(options.sessions, options.rounds, quick=options.quick)
    print(
        table(
            ("sessions", "set-up CPU us", "KiB/session", "CPU us/message", "messages/s", "ping p50 ms", "last ping ms"),
            [attrs.astuple(step) for step in steps],
        )
    )
    refused, alive = _at_the_limit()
    print(f"with {LIMIT} descriptors: {refused} clients turned away with a record, {alive} sessions go on")
    if refused == 0 or alive == 0:
        raise BenchFailed("near the limit of descriptors clients were not turned away, or sessions were lost")
    first, last = steps[min(1, len(steps) - 1)], steps[-1]
    bars = [
        Bar(f"last ping of {last.sessions} sessions", last.ping_max_ms, 1_000, " ms"),
        Bar(
            f"CPU a message, {last.sessions} of {first.sessions} sessions", last.message_us / first.message_us, 1.5, "x"
        ),
        Bar(f"memory a session at {last.sessions}", last.kib, 80, " KiB"),
    ]
    return conclude(
        "scale",
        options,
        results={"steps": [attrs.asdict(step) for step in steps], "refused": refused, "alive_at_limit": alive},
        bars=bars,
        plot=lines_svg(
            "Cost with the number of sessions",
            "sessions",
            "us, KiB",
            {
                "CPU us a message": [(step.sessions, step.message_us) for step in steps],
                "KiB a session": [(step.sessions, step.kib) for step in steps],
            },
        ),
    )


def _measure(counts: list[int], rounds: int, *, quick: bool) -> list[Step]:
    steps = []
    with ExitStack() as stack:
        bench = Bench.prepare(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xproxy-bench-"))))
        proxy = xproxy(bench, settings=MANY)
        clients = stack.enter_context(load(bench.ends, proxy.port))
        clients.set_up(20)  # certificates are minted, modules loaded
        empty, opened = memory_bytes(proxy.pid), 0
        for count in counts:
            before = cpu_ns(proxy.pid)
            clients.open(count - opened)
            setup_us = (cpu_ns(proxy.pid) - before) / 1_000 / (count - opened)
            opened = count
            clients.ping()
            messages = count if quick else max(20_000, 2 * count)
            costs, speeds = [], []
            for _ in range(rounds):
                before = cpu_ns(proxy.pid)
                sent = clients.send(messages)
                costs.append((cpu_ns(proxy.pid) - before) / 1_000 / messages)
                speeds.append(messages / sent.seconds)
            time.sleep(0.5)
            pings = [clients.ping() for _ in range(rounds)]
            steps.append(
                Step(
                    sessions=count,
                    setup_us=setup_us,
                    kib=(memory_bytes(proxy.pid) - empty) / 1_024 / count,
                    message_us=median(costs),
                    per_second=median(speeds),
                    ping_p50_ms=median(ping.p50_us for ping in pings) / 1_000,
                    ping_max_ms=median(ping.max_us for ping in pings) / 1_000,
                )
            )
            print(f"{count} sessions done", file=sys.stderr)
    return steps


def _at_the_limit() -> tuple[int, int]:
    """Return how many clients a process without descriptors turned away in form, and how many sessions lived on."""
    with ExitStack() as stack:
        bench = Bench.prepare(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xproxy-bench-"))))
        proxy = xproxy(bench, settings="[sessions]\nsessions_max = 20000\n")
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        clients = stack.enter_context(load(bench.ends, proxy.port))
        alive = 60
        clients.open(alive)
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port))) for _ in range(LIMIT)]
        records = next(bench.directory.glob("xproxy-*/records.jsonl"))
        deadline = time.monotonic() + 20
        while (refused := _refused(records)) < REFUSED and time.monotonic() < deadline:
            time.sleep(0.2)
        clients.send(2 * alive)  # fails if one has gone
        for sock in idle:
            sock.close()
        return refused, alive


def _refused(records: Path) -> int:
    lines = records.read_text().splitlines()
    return sum(1 for line in lines if json.loads(line)["event"]["action"] == "connection-refused")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchFailed as failed:
        sys.exit(f"bench_scale: {failed}")
