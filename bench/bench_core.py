"""What do a login and a message cost the core alone, without sockets and TLS?

    python bench/bench_core.py [--quick] [--rounds N] [--against DIR]

A login is what the wire brings for STARTTLS, SCRAM-SHA-256, binding and stream management, a chunk as often as a peer
writes, and the closing tags. A message is a chat message of 230 octets, from the client and from the server in turn,
on 50 established sessions one after the other.

With --against another checkout (or an older commit, unpacked) is measured too. Each is a process of its own, and they
have their turns in each round, so that what disturbs one disturbs the other. CPU is that of the process.
"""

import argparse
import base64
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xproxy.events import Side
    from xproxy.events.tls import TlsEstablished
    from xproxy.xmpp.session import Session

ROOT = Path(__file__).resolve().parent.parent
SESSIONS = 50
MESSAGE_BYTES = 230
LOGINS = 100  # a round
TURNS = 40  # of a message each way on every session
AT_NS = 1_750_000_000_000_000_000
CLOSING_TAG = b"</stream:stream>"


def main() -> int:
    """Run the bench; return the exit code."""
    sys.path.insert(0, str(ROOT))
    from bench.report import median, ratio, table  # not in a worker, whose checkout may be older

    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--quick", action="store_true", help="only see that it works: figures of no worth")
    made.add_argument("--rounds", type=int, default=21, help="of which the median is taken (default: 21)")
    made.add_argument("--against", type=Path, metavar="DIR", help="another checkout, measured in turns")
    options = made.parse_args()
    rounds = 2 if options.quick else options.rounds
    trees = [ROOT] if options.against is None else [options.against.resolve(), ROOT]
    workers = [_start(tree, quick=options.quick) for tree in trees]
    figures: dict[str, list[list[float]]] = {}
    for what in ("login", "message"):
        figures[what] = [[] for _ in workers]
        for number in range(rounds + 1):
            for worker, values in zip(workers, figures[what], strict=True):
                value = _ask(worker, what)
                if number:  # the first one warms up
                    values.append(value)
    for worker in workers:
        worker.communicate()
    print(
        table(
            ("CPU us", *(str(tree) for tree in trees), *(["ratio"] if len(trees) > 1 else [])),
            [
                (what, *map(median, values), *([ratio(values[1], values[0])] if len(trees) > 1 else []))
                for what, values in figures.items()
            ],
        )
    )
    return 0


def _start(tree: Path, *, quick: bool) -> "subprocess.Popen[str]":
    command = (sys.executable, __file__, "--worker", str(tree), "quick" if quick else "")
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(worker: "subprocess.Popen[str]", what: str) -> float:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(what + "\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def work(*, quick: bool) -> None:
    """Measure what standard input names, line by line."""
    logins, turns = (10, 1) if quick else (LOGINS, TURNS)
    sessions = [_log_in(number) for number in range(SESSIONS)]
    messages = [_message(number) for number in range(SESSIONS)]
    for line in sys.stdin:
        if line.strip() == "login":
            print(_cpu_us(lambda: [_leave(_log_in(number)) for number in range(logins)]) / logins, flush=True)
        else:
            spent = _cpu_us(lambda: [_exchange(sessions, messages) for _ in range(turns)])
            print(spent / (turns * 2 * SESSIONS), flush=True)


def _cpu_us(job: Callable[[], object]) -> float:
    before = time.process_time_ns()
    job()
    return (time.process_time_ns() - before) / 1_000


def _log_in(number: int) -> "Session":
    from xproxy.config.stream import StreamLimits, StreamPolicy
    from xproxy.events import Side
    from xproxy.xmpp.actions import LegMode
    from xproxy.xmpp.session import Session

    session = Session(limits=StreamLimits(), policy=StreamPolicy(), mode=LegMode.CLEAR, at_ns=AT_NS)
    at_ns = AT_NS
    for by_client, data in _login(f"user{number}"):
        at_ns += 1_000_000
        if data:
            session.receive(Side.CLIENT if by_client else Side.SERVER, data, at_ns)
        else:
            session.tls_established(_tls(Side.SERVER), at_ns)
            session.tls_established(_tls(Side.CLIENT), at_ns)
    assert session.established
    return session


def _leave(session: "Session") -> None:
    from xproxy.events import EndOfInput, Side

    for side in Side:
        session.receive(side, CLOSING_TAG, AT_NS)
    for side in Side:
        session.end_of_input(side, EndOfInput.CLOSE_NOTIFY, AT_NS)
    session.closed(AT_NS)


def _message(number: int) -> bytes:
    head, tail = f"<message to='user{number}@example.org' type='chat' id='m{number:06d}'><body>", "</body></message>"
    return (head + "y" * (MESSAGE_BYTES - len(head) - len(tail)) + tail).encode()


def _exchange(sessions: "list[Session]", messages: list[bytes]) -> None:
    from xproxy.events import Side

    for side in Side:
        for session, message in zip(sessions, messages, strict=True):
            session.receive(side, message, AT_NS)


def _login(user: str) -> list[tuple[bool, bytes]]:
    """Return what is said, and whether the client says it; nothing stands for the TLS handshakes."""
    stream = "xml:lang='en' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
    header = f"<?xml version='1.0'?><stream:stream to='example.org' {stream}"
    answer = f"<?xml version='1.0'?><stream:stream from='example.org' id='c0ffee12-3456-789a-bcde-f01234567' {stream}"
    tls, sasl = ("xmlns='urn:ietf:params:xml:ns:xmpp-tls'", "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'")
    bind, sm = ("xmlns='urn:ietf:params:xml:ns:xmpp-bind'", "xmlns='urn:xmpp:sm:3'")
    names = ("SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "SCRAM-SHA-256", "PLAIN")
    mechanisms = "".join(f"<mechanism>{name}</mechanism>" for name in names)
    said = (
        (True, header),
        (False, answer),
        (False, f"<stream:features><starttls {tls}><required/></starttls></stream:features>"),
        (True, f"<starttls {tls}/>"),
        (False, f"<proceed {tls}/>"),
        (False, ""),
        (True, header),
        (False, f"{answer}<stream:features><mechanisms {sasl}>{mechanisms}</mechanisms></stream:features>"),
        (True, f"<auth {sasl} mechanism='SCRAM-SHA-256'>{_base64(f'n,,n={user},r=fyko+d2lbbFgONRv9qkx')}</auth>"),
        (False, f"<challenge {sasl}>{_base64('r=fyko+d2lbbFgONRv9qkx3rfcNHYJ,s=QSXCR+Q6sek8bf92,i=4096')}</challenge>"),
        (True, f"<response {sasl}>{_base64('c=biws,r=fyko+d2lbbFgONRv9qkx3rfcNHYJ,p=v0X8v3Bz2T0CJGbJ')}</response>"),
        (False, f"<success {sasl}>{_base64('v=rmF9pqV8S7suAoZWja4dJRkFsKQ=')}</success>"),
        (True, header),
        (False, f"{answer}<stream:features><bind {bind}><required/></bind><sm {sm}/></stream:features>"),
        (True, f"<iq type='set' id='bind_1'><bind {bind}><resource>balcony</resource></bind></iq>"),
        (False, f"<iq type='result' id='bind_1'><bind {bind}><jid>{user}@example.org/balcony</jid></bind></iq>"),
        (True, f"<enable {sm} resume='true'/>"),
        (False, f"<enabled {sm} id='0123456789' resume='true' max='600'/>"),
        (True, "<presence/>"),
    )
    return [(by_client, text.encode()) for by_client, text in said]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _tls(leg: "Side") -> "TlsEstablished":
    from xproxy.events import Side
    from xproxy.events.tls import TlsEstablished

    return TlsEstablished(
        leg=leg,
        direct=False,
        version="1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        server_name="example.org",
        alpn=None,
        ja4=None,
        resumed=False,
        certificate=None,
        verify="ok" if leg is Side.SERVER else None,
        seconds=0.01,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        sys.path[0] = sys.argv[2]
        work(quick=sys.argv[3] == "quick")
    else:
        sys.exit(main())
