"""What does a user notice? Real sessions at Prosody, direct and through xproxy.

    python bench/bench_xmpp.py [--quick] [--rounds N] [--pairs N] [--out DIR]

Pairs of clients log in with STARTTLS and SCRAM, bind, and chat: one sends a message to the other's full JID, who
answers; so a chat message and its answer pass the proxy four times. Two sets of pairs, one connected to Prosody itself
and one through xproxy, take turns, so that what disturbs one disturbs the other. The clients are xproxy.peer, in
Python: they are the ceiling of messages a second here (the row "direct"), not the server and not the proxy.

Needs Debian's prosody.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs
import trio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.ends import BenchFailed
from bench.kernel import cpu_ns
from bench.proxies import run_xproxy
from bench.report import Bar, bars_svg, conclude, median, parser, table
from tests.support.mint import Mint
from tests.support.prosody import Prosody, missing, running_prosody
from xproxy.peer.client import Client, trusting

DOMAIN = "xmpp.test"
BODY = "Hist! Romeo, hist! O, for a falconer's voice, to lure this tassel-gentle back again! " * 2


@attrs.frozen(kw_only=True)
class Way:
    """How clients come to the server. ``proxy`` 0: nothing between."""

    name: str
    port: int
    proxy: int
    authority: Path


@attrs.frozen(kw_only=True)
class Round:
    """A round of chats on one way."""

    per_second: float  # messages, each way counted
    p50_ms: float  # from a message to its answer
    p99_ms: float
    server_us: float  # Prosody's processor time, a message
    proxy_us: float  # the proxy's


@attrs.frozen(kw_only=True)
class Login:
    """The logins on one way, one after the other."""

    p50_ms: float
    server_us: float
    proxy_us: float


def main() -> int:
    """Run the bench; return the exit code."""
    made = parser(__doc__)
    made.add_argument("--pairs", type=int, default=10)
    made.add_argument("--messages", type=int, default=2_000, help="a round, on each way")
    options = made.parse_args()
    if options.quick:
        options.rounds, options.pairs, options.messages = 2, 2, 40
    if (reason := missing()) is not None:
        raise BenchFailed(reason)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xproxy-bench-")))
        mint = Mint(directory)
        passwords = {f"user{number}": f"password-{number}" for number in range(4 * options.pairs + 2)}
        (directory / "prosody").mkdir()
        server = stack.enter_context(
            running_prosody(
                directory / "prosody", domain=DOMAIN, leaf=mint.leaf(DOMAIN, label="prosody"), passwords=passwords
            )
        )
        proxy = run_xproxy(
            stack, directory / "xproxy", upstream=server.starttls_port, domain=DOMAIN, authority=mint.ca_file
        )
        ways = (
            Way(name="direct", port=server.starttls_port, proxy=0, authority=mint.ca_file),
            Way(name="xproxy", port=proxy.port, proxy=proxy.pid, authority=directory / "xproxy" / "state" / "ca.pem"),
        )
        logins, rounds = trio.run(_run, server, ways, options.pairs, options.messages, options.rounds)
    print(f"{options.pairs} pairs on each way, {options.messages} messages a round, {options.rounds} rounds, medians")
    print(
        table(
            ("", "login p50 ms", "its CPU us", "messages/s", "answer p50 ms", "p99 ms", "Prosody's us", "xproxy's us"),
            [
                (
                    way.name,
                    logins[way.name].p50_ms,
                    logins[way.name].proxy_us or None,
                    *(
                        median(getattr(each, what) for each in rounds[way.name]) or None
                        for what in ("per_second", "p50_ms", "p99_ms", "server_us", "proxy_us")
                    ),
                )
                for way in ways
            ],
        )
    )
    more = median(each.p50_ms for each in rounds["xproxy"]) - median(each.p50_ms for each in rounds["direct"])
    shares = [each.proxy_us / each.server_us for each in rounds["xproxy"]]
    return conclude(
        "xmpp",
        options,
        results={
            "pairs": options.pairs,
            "logins": {name: attrs.asdict(login) for name, login in logins.items()},
            "rounds": {name: [attrs.asdict(each) for each in some] for name, some in rounds.items()},
        },
        bars=[
            Bar("an answer comes later by", more, 5, " ms"),
            Bar("processor time a message, of Prosody's own", median(shares), 1, "x"),
        ],
        plot=bars_svg(
            "A chat message at Prosody",
            "us",
            {
                "processor time a message": {
                    "prosody": median(each.server_us for each in rounds["xproxy"]),
                    "xproxy": median(each.proxy_us for each in rounds["xproxy"]),
                }
            },
        ),
    )


async def _run(
    server: Prosody, ways: Sequence[Way], pairs: int, messages: int, rounds: int
) -> tuple[dict[str, Login], dict[str, list[Round]]]:
    users = iter(server.passwords.items())
    logins: dict[str, Login] = {}
    clients: dict[str, list[tuple[Client, Client]]] = {}
    try:
        for way in ways:
            await _log_in(way, next(users))  # warm, and not used: certificates are minted
        for way in ways:
            times = []
            before = cpu_ns(server.pid), _cpu_of(way)
            clients[way.name] = []
            for _ in range(pairs):
                pair = []
                for _ in range(2):
                    begun = time.perf_counter()
                    pair.append(await _log_in(way, next(users)))
                    times.append((time.perf_counter() - begun) * 1_000)
                clients[way.name].append((pair[0], pair[1]))
            server_us, proxy_us = (
                (after - then) / 1_000 / len(times)
                for after, then in zip((cpu_ns(server.pid), _cpu_of(way)), before, strict=True)
            )
            logins[way.name] = Login(p50_ms=median(times), server_us=server_us, proxy_us=proxy_us)
        done: dict[str, list[Round]] = {way.name: [] for way in ways}
        for number in range(rounds + 1):
            for way in ways:
                measured = await _chat(server, way, clients[way.name], messages)
                if number:  # the first is to warm up
                    done[way.name].append(measured)
        return logins, done
    finally:
        for some in clients.values():
            for pair in some:
                for client in pair:
                    client.drop()


async def _log_in(way: Way, user: tuple[str, str]) -> Client:
    client = Client(host="127.0.0.1", port=way.port, domain=DOMAIN, tls=trusting(way.authority))
    await client.connect()
    await client.login(*user)
    await client.bind()
    return client


async def _chat(server: Prosody, way: Way, pairs: Sequence[tuple[Client, Client]], messages: int) -> Round:
    times: list[float] = []
    before = cpu_ns(server.pid), _cpu_of(way)
    begun = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for one, other in pairs:
            nursery.start_soon(_talk, one, other, messages // 2 // len(pairs), times)
    seconds = time.perf_counter() - begun
    count = 2 * len(times)
    server_us, proxy_us = (
        (after - then) / 1_000 / count for after, then in zip((cpu_ns(server.pid), _cpu_of(way)), before, strict=True)
    )
    times.sort()
    return Round(
        per_second=count / seconds,
        p50_ms=times[len(times) // 2] * 1_000,
        p99_ms=times[int(len(times) * 0.99)] * 1_000,
        server_us=server_us,
        proxy_us=proxy_us,
    )


async def _talk(one: Client, other: Client, count: int, times: list[float]) -> None:
    assert one.jid is not None
    assert other.jid is not None
    for _ in range(count):
        begun = time.perf_counter()
        await one.send_message(other.jid, BODY)
        await other.receive()
        await other.send_message(one.jid, BODY)
        await one.receive()
        times.append(time.perf_counter() - begun)


def _cpu_of(way: Way) -> int:
    return cpu_ns(way.proxy) if way.proxy else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchFailed as failed:
        sys.exit(f"bench_xmpp: {failed}")
