"""What does a session cost that does nothing? Memory, and processor time for keepalives.

    python bench/bench_idle.py [--quick] [--rounds N] [--sessions N] [--out DIR]

So many clients log in, send one message and stay. Memory is what the processes of the proxy have (PSS) above what they
had with 50 sessions, per session, once the proxy has been left alone for a second; the kernel's socket buffers do not
count. Each round starts the proxies anew. Then every client sends three blanks, as clients do to keep a connection
open, and the processor time for one is shown.
"""

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.ends import BenchFailed, load
from bench.kernel import cpu_ns, memory_bytes
from bench.proxies import Bench
from bench.report import Bar, bars_svg, conclude, median, parser, table

NAMES = ("haproxy", "sslsplit", "xproxy")
WARM = 50
BLANKS = 3
PAUSE_SECONDS = 1.0


@attrs.frozen(kw_only=True)
class Round:
    """One proxy, once."""

    kib: float  # a session
    empty_mib: float  # of the proxy with WARM sessions
    blank_us: float  # a keepalive


def main() -> int:
    """Run the bench; return the exit code."""
    made = parser(__doc__, rounds=3)
    made.add_argument("--sessions", type=int, default=900, help="above the 50 to warm up (default 900)")
    options = made.parse_args()
    if options.quick:
        options.rounds, options.sessions = 1, 20
    results: dict[str, list[Round]] = {}
    for _ in range(options.rounds):
        for name in NAMES:
            measured = _measure(name, options.sessions, pause=0.1 if options.quick else PAUSE_SECONDS)
            if measured is not None:
                results.setdefault(name, []).append(measured)
    print(f"{options.sessions} idle sessions, {options.rounds} rounds, medians")
    rows = [
        (name, *(median(getattr(each, what) for each in rounds) for what in ("kib", "empty_mib", "blank_us")))
        for name, rounds in results.items()
    ]
    print(table(("", "KiB/session", "MiB with 50", "CPU us/keepalive"), rows))
    kib = {name: median(each.kib for each in rounds) for name, rounds in results.items()}
    return conclude(
        "idle",
        options,
        results={
            "sessions": options.sessions,
            "results": {name: [attrs.asdict(each) for each in rounds] for name, rounds in results.items()},
        },
        bars=[Bar("memory an idle session", kib["xproxy"], 80, " KiB")],
        plot=bars_svg("Memory of an idle session", "KiB", {"": kib}),
    )


def _measure(name: str, sessions: int, pause: float) -> Round | None:
    with ExitStack() as stack:
        bench = Bench.prepare(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xproxy-bench-"))))
        proxy = bench.start(name)
        if proxy is None:
            return None
        clients = stack.enter_context(load(bench.ends, proxy.port))
        clients.open(WARM)
        clients.ping()
        time.sleep(pause)
        empty = memory_bytes(proxy.pid)
        clients.open(sessions)
        clients.ping()
        time.sleep(pause)
        kib = (memory_bytes(proxy.pid) - empty) / 1024 / sessions
        before = cpu_ns(proxy.pid)
        for _ in range(BLANKS):
            clients.blanks(1)
            time.sleep(pause / 2)
        blank_us = (cpu_ns(proxy.pid) - before) / 1_000 / BLANKS / (sessions + WARM)
        return Round(kib=kib, empty_mib=empty / 1024 / 1024, blank_us=blank_us)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchFailed as failed:
        sys.exit(f"bench_idle: {failed}")
