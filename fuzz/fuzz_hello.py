"""Fuzz the ClientHello parser: any octets are a hello, the beginning of one, or refused; nothing else is raised.

    python fuzz/fuzz_hello.py --seconds 60 [--seed N]

Hellos of Python's own client and made ones are mutated octet by octet, cut, and split into records anew. Besides:
``needed`` is more than there is and no more than the limit; a prefix of a hello is never refused for another reason
than the whole; and a parsed hello reads the same with octets behind it. The seed is printed.
"""

import argparse
import contextlib
import random
import secrets
import ssl
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from xproxy.tls.hello import HELLO_BYTES_MAX, ClientHello, HelloIncomplete, HelloMalformed, parse_client_hello

INTERESTING = (0, 1, 2, 5, 0x0A, 0x10, 0x16, 0x7F, 0x80, 0xFF)


def real_hello(name: str | None, alpn: list[str]) -> bytes:
    """Return the first flight of Python's client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        engine.do_handshake()
    return outgoing.read()


def split_records(hello: bytes, rng: random.Random) -> bytes:
    """Return the message in ``hello``, one record, in records of random sizes."""
    message, out = hello[5:], b""
    while message:
        size = rng.choice((1, 3, 4, 5, 64, 512, len(message)))
        out += b"\x16\x03\x01" + len(message[:size]).to_bytes(2, "big") + message[:size]
        message = message[size:]
    return out


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return ``data`` with a few octets changed, dropped, doubled, or its end cut off."""
    mutated = bytearray(data)
    for _ in range(rng.randint(0, 8)):
        at = rng.randrange(len(mutated))
        match rng.randrange(4):
            case 0:
                mutated[at] = rng.choice(INTERESTING)
            case 1:
                mutated[at] = rng.randrange(256)
            case 2:
                del mutated[at : at + rng.randint(1, 3)]
            case _:
                mutated[at:at] = mutated[at : at + rng.randint(1, 40)]
        if not mutated:
            return b""
    return bytes(mutated[: rng.randint(0, len(mutated))] if rng.random() < 0.2 else mutated)


def parse(data: bytes) -> ClientHello | HelloIncomplete | HelloMalformed:
    """Return what becomes of ``data``."""
    try:
        return parse_client_hello(data)
    except (HelloIncomplete, HelloMalformed) as outcome:
        return outcome


def check(data: bytes, rng: random.Random) -> str:
    """Judge one input and return the kind of its outcome."""
    outcome = parse(data)
    prefix = parse(data[: rng.randint(0, len(data))])
    if isinstance(outcome, ClientHello):
        assert parse(data + b"behind") == outcome, "octets behind a hello changed it"
        assert isinstance(prefix, HelloIncomplete) or prefix == outcome, "a part of a good hello was refused"
        assert len(outcome.ja4) == 36, "a JA4 of another length"
    if isinstance(outcome, HelloIncomplete):
        assert len(data) < outcome.needed <= HELLO_BYTES_MAX, "needed makes no sense"
        assert isinstance(prefix, HelloIncomplete), "a part of a beginning was refused"
    return type(outcome).__name__


def main() -> None:
    """Run for the time asked for."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=10)
    arguments.add_argument("--seed", type=int, default=secrets.randbits(32))
    chosen = arguments.parse_args()
    rng = random.Random(chosen.seed)
    print(f"seed {chosen.seed}")
    corpus = [real_hello("example.org", ["xmpp-client"]), real_hello(None, []), real_hello("a.example", ["h2", "x"])]
    end = time.monotonic() + chosen.seconds
    counts: dict[str, int] = {}
    while time.monotonic() < end:
        data = rng.choice(corpus)
        if rng.random() < 0.5:
            data = split_records(data, rng)
        data = mutate(data, rng)
        try:
            kind = check(data, rng)
        except Exception:
            print(f"input: {data.hex()}", file=sys.stderr)
            raise
        counts[kind] = counts.get(kind, 0) + 1
    print(counts)


if __name__ == "__main__":
    main()
