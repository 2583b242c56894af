"""What does it cost to set a session up?

    python bench/bench_setup.py [--quick] [--rounds N] [--out DIR]

Clients log in and leave, eight at a time: TLS 1.3 handshakes on both legs, stream, SASL PLAIN, binding, closing tags.
CPU is what the kernel accounts to the proxy's processes, per session. The bar is hard on purpose: beside it stands what
sslsplit takes for the TLS handshakes alone (clients that leave right behind them), although it resumes its TLS sessions
with the server; what it takes for whole sessions is shown as well. xproxy writes some 20 records a session.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.ends import BenchFailed, Load, load
from bench.kernel import cpu_ns
from bench.proxies import Bench, Started
from bench.report import Bar, bars_svg, conclude, median, parser, ratio, table

SESSIONS = 400  # a round
NAMES = ("direct", "haproxy", "sslsplit", "xproxy")


@attrs.frozen(kw_only=True)
class Round:
    """One turn: processor time of the proxy, and how long it took, a session."""

    cpu_us: float
    seconds: float
    tls_only: bool


def main() -> int:
    """Run the bench; return the exit code."""
    options = parser(__doc__).parse_args()
    sessions = 20 if options.quick else SESSIONS
    if options.quick:
        options.rounds = 2
    results: dict[str, list[Round]] = {}
    with ExitStack() as stack:
        bench = Bench.prepare(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xproxy-bench-"))))
        proxies = {name: started for name in NAMES if (started := bench.start(name)) is not None}
        loads = {name: stack.enter_context(load(bench.ends, proxy.port)) for name, proxy in proxies.items()}
        for clients in loads.values():
            clients.set_up(max(8, sessions // 10))  # certificates are minted, contexts made
        for _ in range(options.rounds):
            for name, proxy in proxies.items():
                for tls_only in (False, True):
                    key = f"{name}, TLS only" if tls_only else name
                    results.setdefault(key, []).append(_turn(proxy, loads[name], sessions, tls_only=tls_only))
    print(f"{sessions} sessions a round, {options.rounds} rounds, medians")
    print(
        table(
            ("", "CPU us/session", "sessions/s"),
            [
                (name, median(each.cpu_us for each in rounds) or None, 1 / median(each.seconds for each in rounds))
                for name, rounds in results.items()
            ],
        )
    )
    bars = []
    if "sslsplit, TLS only" in results:
        ours, theirs = ([each.cpu_us for each in results[name]] for name in ("xproxy", "sslsplit, TLS only"))
        bars.append(Bar("set-up CPU a session, of sslsplit's for TLS alone", ratio(ours, theirs), 1.25, "x"))
    return conclude(
        "setup",
        options,
        results={"sessions": sessions, "results": {k: [attrs.asdict(each) for each in v] for k, v in results.items()}},
        bars=bars,
        plot=bars_svg(
            "Processor time to set a session up",
            "us",
            {
                what: {
                    name: median(each.cpu_us for each in results[name + suffix]) for name in proxies if name != "direct"
                }
                for what, suffix in (("TLS, login, binding, end", ""), ("TLS alone", ", TLS only"))
            },
        ),
    )


def _turn(proxy: Started, clients: Load, sessions: int, *, tls_only: bool) -> Round:
    before = cpu_ns(proxy.pid) if proxy.pid else 0
    seconds = clients.set_up(sessions, tls_only=tls_only)
    spent = cpu_ns(proxy.pid) - before if proxy.pid else 0
    return Round(cpu_us=spent / 1_000 / sessions, seconds=seconds / sessions, tls_only=tls_only)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchFailed as failed:
        sys.exit(f"bench_setup: {failed}")
