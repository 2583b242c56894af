"""What does relaying a message cost? CPU of the proxy's process per message round trip, against ``sslsplit -S``.

50 sessions (``--sessions``), direct TLS 1.3 on both legs, logged in, one 230-byte message in flight each; xproxy parses
every stanza and writes its records (level info) to a file, sslsplit writes the content of every connection. Both run at
the same time, the load alternates between them, and the medians of the rounds are compared: what disturbs one disturbs
the other. Counted is what the kernel accounts to the proxy's process and threads (/proc/PID/task/*/schedstat, ns).

    python bench/bench_relay.py [--sessions 50] [--messages 20000] [--rounds 5] [--quick] [--json FILE] [--only xproxy]

Exit code 1 if xproxy takes more than ``--bar`` (1.0) times what sslsplit takes. Needs Debian's sslsplit; without it
only xproxy is measured.
"""

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import trustme

PEERS = Path(__file__).with_name("peers.py")


@attrs.frozen(kw_only=True)
class Round:
    """One round against one proxy."""

    cpu_us: float  # per message
    messages_per_second: float
    p50_us: float
    p99_us: float
    tls: str


def main() -> int:
    """Run the bench; return the exit code."""
    arguments = _parse()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xproxy-bench-")))
        proxies = _start(stack, directory, arguments)
        loads = {name: stack.enter_context(_load(port, arguments.sessions)) for name, (_, port) in proxies.items()}
        for load in loads.values():
            _exchange(load, arguments.messages // 10)  # warm up
        results: dict[str, list[Round]] = {name: [] for name in proxies}
        for _ in range(arguments.rounds):
            for name, (pid, _) in proxies.items():
                results[name].append(_measure(pid, loads[name], arguments.messages))
    return _report(results, arguments)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--messages", type=int, default=20_000, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 4000 messages")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=("xproxy", "sslsplit"))
    parser.add_argument("--bar", type=float, default=1.0)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.messages, arguments.rounds = 4_000, 3
    return arguments


def _start(stack: ExitStack, directory: Path, arguments: argparse.Namespace) -> dict[str, tuple[int, int]]:
    """Start the server and the proxies; return pid and port of each proxy."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    authority.private_key_pem.write_to_path(str(directory / "ca.key"))
    server = authority.issue_cert("localhost")
    server.private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
    peer = stack.enter_context(
        _process(sys.executable, str(PEERS), "serve", str(directory / "server.pem"), str(directory / "server.pem"))
    )
    assert peer.stdout is not None
    upstream = int(peer.stdout.readline())
    proxies: dict[str, tuple[int, int]] = {}
    if arguments.only != "sslsplit":
        proxies["xproxy"] = _start_xproxy(stack, directory, upstream)
    if arguments.only != "xproxy":
        if shutil.which("sslsplit"):
            proxies["sslsplit"] = _start_sslsplit(stack, directory, upstream)
        else:
            print("sslsplit is not installed: xproxy alone is measured", file=sys.stderr)
    return proxies


def _start_xproxy(stack: ExitStack, directory: Path, upstream: int) -> tuple[int, int]:
    ready = directory / "ready"
    process = stack.enter_context(
        _process(
            *(sys.executable, "-m", "xproxy", "run", "--listen", "127.0.0.1:0", "--upstream", f"127.0.0.1:{upstream}"),
            *("--domain", "localhost", "--state", str(directory / "state"), "--log", str(directory / "xproxy.jsonl")),
            *("--log-format", "json", "--upstream-ca", str(directory / "ca.pem"), "--ready-file", str(ready)),
            errors=directory / "xproxy.err",
        )
    )
    for _ in range(200):
        if ready.exists() and (text := ready.read_text().strip()):
            return process.pid, int(text.rpartition(":")[2])
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"xproxy did not start:\n{(directory / 'xproxy.err').read_text()}")


def _start_sslsplit(stack: ExitStack, directory: Path, upstream: int) -> tuple[int, int]:
    logs = directory / "sslsplit"
    logs.mkdir()
    port = _free_port()
    # -P would pass undecryptable connections on; -D keeps it in the foreground (it still forks its privileged half).
    process = stack.enter_context(
        _process(
            *("sslsplit", "-S", str(logs), "-k", str(directory / "ca.key"), "-c", str(directory / "ca.pem")),
            *("ssl", "127.0.0.1", str(port), "127.0.0.1", str(upstream)),
            errors=directory / "sslsplit.err",
        )
    )
    time.sleep(1)
    if process.poll() is not None:
        raise SystemExit(f"sslsplit did not start:\n{(directory / 'sslsplit.err').read_text()}")
    return process.pid, port


def _free_port() -> int:
    """sslsplit does not say which port it got for 0."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def _process(*command: str, errors: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    with ExitStack() as stack:
        stderr = stack.enter_context(errors.open("w")) if errors is not None else None
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, bufsize=1
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


@contextmanager
def _load(port: int, sessions: int) -> Iterator[subprocess.Popen[str]]:
    with _process(sys.executable, str(PEERS), "load", str(port), str(sessions)) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("the clients could not log in")
        yield process


def _exchange(load: subprocess.Popen[str], messages: int) -> tuple[float, float, float, str]:
    assert load.stdin is not None
    assert load.stdout is not None
    load.stdin.write(f"{messages}\n")
    load.stdin.flush()
    seconds, p50, p99, tls = load.stdout.readline().split()
    return float(seconds), float(p50), float(p99), tls


def _measure(pid: int, load: subprocess.Popen[str], messages: int) -> Round:
    before = _cpu_ns(pid)
    seconds, p50, p99, tls = _exchange(load, messages)
    spent = _cpu_ns(pid) - before
    return Round(
        cpu_us=spent / 1_000 / messages, messages_per_second=messages / seconds, p50_us=p50, p99_us=p99, tls=tls
    )


def _cpu_ns(pid: int) -> int:
    """CPU time of ``pid``, its threads and its children so far."""
    total = 0
    for one in _family(pid):
        for task in Path(f"/proc/{one}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _family(int(child))


def _report(results: dict[str, list[Round]], arguments: argparse.Namespace) -> int:
    print(f"{arguments.sessions} sessions, {arguments.messages} messages a round, {arguments.rounds} rounds, medians")
    print(f"{'':10} {'CPU us/message':>15} {'min':>7} {'max':>7} {'messages/s':>11} {'p50 us':>8} {'p99 us':>8}  TLS")
    medians: dict[str, float] = {}
    for name, rounds in results.items():
        costs = [each.cpu_us for each in rounds]
        medians[name] = statistics.median(costs)
        print(
            f"{name:10} {medians[name]:15.1f} {min(costs):7.1f} {max(costs):7.1f} "
            f"{statistics.median(each.messages_per_second for each in rounds):11.0f} "
            f"{statistics.median(each.p50_us for each in rounds):8.0f} "
            f"{statistics.median(each.p99_us for each in rounds):8.0f}  {rounds[0].tls}"
        )
    ratio = medians["xproxy"] / medians["sslsplit"] if len(medians) == 2 else None
    if ratio is not None:
        print(f"xproxy / sslsplit: {ratio:.2f}")
    if arguments.json is not None:
        document = {
            "bench": "relay",
            "sessions": arguments.sessions,
            "messages": arguments.messages,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "rounds": {name: [attrs.asdict(each) for each in rounds] for name, rounds in results.items()},
            "cpu_us_median": medians,
            "ratio": ratio,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return int(ratio is not None and ratio > arguments.bar)


if __name__ == "__main__":
    sys.exit(main())
