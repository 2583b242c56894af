"""What does relaying a message cost, beside the programs one would use instead?

    python bench/bench_relay.py [--quick] [--rounds N] [--out DIR] [--only NAME ...] [--cell TEXT ...]

Clients with one message in flight each, a server that echoes, TLS 1.3 from the first octet on both legs, everything on
loopback. xproxy parses every stanza and writes its records to journal and log file; sslsplit -S writes the octets of
every connection; haproxy looks at nothing; mitmproxy runs in TCP mode; "tcp" passes the octets through without TLS of
its own; "direct" has nothing between and is the ceiling of the load. All run at the same time, and in each round all
have their turn, so that what disturbs one disturbs the others; the medians of the rounds are shown.

CPU is what the kernel accounts to the proxy's processes, per message and its echo: two relayed directions.

Needs gcc and libssl-dev; haproxy and sslsplit from Debian, mitmproxy from PyPI (`pip install 'xproxy[bench]'`, or a
`mitmdump` in the PATH): who is not there is left out. Exit code 1: a bar is missed.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.ends import BenchFailed, Load, load
from bench.kernel import cpu_ns
from bench.proxies import Bench, Started
from bench.report import Bar, bars_svg, conclude, median, parser, ratio, table


@attrs.frozen
class Cell:
    """A load, and who is put under it."""

    name: str
    sessions: int
    octets: int
    messages: int  # a round
    proxies: tuple[str, ...]


CELLS = (
    Cell("1 session, 230 B", 1, 230, 4_000, ("direct", "tcp", "haproxy", "sslsplit", "xproxy")),
    Cell("50 sessions, 230 B", 50, 230, 30_000, ("direct", "tcp", "haproxy", "sslsplit", "xproxy", "mitmproxy")),
    Cell("500 sessions, 230 B", 500, 230, 30_000, ("direct", "haproxy", "sslsplit", "xproxy")),
    Cell("50 sessions, 16 KiB", 50, 16_384, 6_000, ("direct", "haproxy", "sslsplit", "xproxy")),
    Cell("50 sessions, 230 B, debug", 50, 230, 15_000, ("sslsplit", "xproxy-debug")),
)
MITMPROXY_SHARE = 10  # it gets so much less to do, and is still the slowest


@attrs.frozen(kw_only=True)
class Round:
    """One turn of one proxy."""

    cpu_us: float | None  # a message; None: there is no proxy
    per_second: float
    p50_us: float
    p99_us: float
    client_cpu_us: float  # a message, of the load


def main() -> int:
    """Run the bench; return the exit code."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", metavar="NAME", help="these proxies only")
    made.add_argument("--cell", nargs="+", metavar="TEXT", help="cells whose name has one of these in it only")
    options = made.parse_args()
    if options.quick:
        options.rounds = 2
    cells = [cell for cell in CELLS if not options.cell or any(text in cell.name for text in options.cell)]
    names = dict.fromkeys(name for cell in cells for name in cell.proxies if not options.only or name in options.only)
    results: dict[str, dict[str, list[Round]]] = {}
    with ExitStack() as stack:
        bench = Bench.prepare(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xproxy-bench-"))))
        proxies = {name: started for name in names if (started := bench.start(name)) is not None}
        for name in names - proxies.keys():
            print(f"{name} is not installed and left out", file=sys.stderr)
        for cell in cells:
            under = {name: proxies[name] for name in cell.proxies if name in proxies}
            results[cell.name] = measure(bench, cell, under, options.rounds, quick=options.quick)
            print(f"\n{cell.name}, {cell.messages} messages a round, {options.rounds} rounds", flush=True)
            print(_table(results[cell.name]), flush=True)
    print()
    return conclude(
        "relay",
        options,
        results={
            "cells": {
                cell: {name: [attrs.asdict(each) for each in rounds] for name, rounds in by_name.items()}
                for cell, by_name in results.items()
            }
        },
        bars=bars_of(results),
        plot=bars_svg(
            "Processor time a message and its echo",
            "us",
            {
                cell: {name: median(_costs(rounds)) for name, rounds in by_name.items() if _costs(rounds)}
                for cell, by_name in results.items()
            },
        ),
    )


def measure(
    bench: Bench, cell: Cell, proxies: Mapping[str, Started], rounds: int, *, quick: bool
) -> dict[str, list[Round]]:
    """Put each of ``proxies`` under the load of ``cell``, in turns."""
    done: dict[str, list[Round]] = {name: [] for name in proxies}
    with ExitStack() as stack:
        loads: dict[str, Load] = {}
        for name, proxy in proxies.items():
            loads[name] = clients = stack.enter_context(load(bench.ends, proxy.port))
            clients.size(cell.octets)
            clients.open(min(cell.sessions, 10) if quick else cell.sessions)
            clients.send(max(cell.sessions, cell.messages // (100 if quick else 10)))  # to warm up
        for _ in range(rounds):
            for name, proxy in proxies.items():
                count = cell.messages // (MITMPROXY_SHARE if name == "mitmproxy" else 1) // (50 if quick else 1)
                done[name].append(_turn(proxy, loads[name], max(count, cell.sessions)))
    return done


def _turn(proxy: Started, clients: Load, messages: int) -> Round:
    before = cpu_ns(proxy.pid) if proxy.pid else 0
    sent = clients.send(messages)
    spent = cpu_ns(proxy.pid) - before if proxy.pid else None
    return Round(
        cpu_us=None if spent is None else spent / 1_000 / messages,
        per_second=messages / sent.seconds,
        p50_us=sent.p50_us,
        p99_us=sent.p99_us,
        client_cpu_us=sent.client_cpu_us,
    )


def _costs(rounds: Sequence[Round]) -> list[float]:
    return [each.cpu_us for each in rounds if each.cpu_us is not None]


def _table(results: Mapping[str, Sequence[Round]]) -> str:
    beside = results.get("sslsplit")
    rows = []
    for name, rounds in results.items():
        costs = _costs(rounds)
        rows.append(
            (
                name,
                median(costs) if costs else None,
                ratio(costs, _costs(beside)) if costs and beside else None,
                median(each.per_second for each in rounds),
                median(each.p50_us for each in rounds),
                median(each.p99_us for each in rounds),
                median(each.client_cpu_us for each in rounds),
            )
        )
    return table(("", "CPU us", "of sslsplit's", "messages/s", "p50 us", "p99 us", "load's CPU us"), rows)


def bars_of(results: Mapping[str, Mapping[str, Sequence[Round]]]) -> list[Bar]:
    """Return what was to be shown, as far as it was measured."""
    bars = []
    for cell, beside, most in (
        ("50 sessions, 230 B", "sslsplit", 1.0),
        ("500 sessions, 230 B", "sslsplit", 1.25),
        ("50 sessions, 230 B", "haproxy", 1.8),
        ("50 sessions, 230 B", "mitmproxy", 0.1),
    ):
        by_name = results.get(cell, {})
        if "xproxy" in by_name and beside in by_name:
            figure = ratio(_costs(by_name["xproxy"]), _costs(by_name[beside]))
            bars.append(Bar(f"CPU, {cell}, of {beside}'s", figure, most, "x"))
    alone = results.get("1 session, 230 B", {})
    if {"direct", "sslsplit", "xproxy"} <= alone.keys():
        bars += [
            Bar(f"latency added, 1 session, {what[:3]}, of sslsplit's", added(alone, what), 1.7, "x")
            for what in ("p50_us", "p99_us")
        ]
    return bars


def added(results: Mapping[str, Sequence[Round]], what: str) -> float:
    """Return how many times the latency that sslsplit adds xproxy adds: medians, less what there is without either."""
    direct, sslsplit, xproxy = (
        median(float(getattr(each, what)) for each in results[name]) for name in ("direct", "sslsplit", "xproxy")
    )
    return (xproxy - direct) / max(sslsplit - direct, 0.1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchFailed as failed:
        sys.exit(f"bench_relay: {failed}")
