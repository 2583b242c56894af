"""Invariant: any octets are a ClientHello, the beginning of one, or refused, and nothing else is raised.

Besides: ``needed`` is more than there is and no more than the limit; a prefix of a hello is never refused; a parsed
hello reads the same with octets behind it, and in records of other sizes.
"""

import random
import sys

import harness

with harness.instrumented():
    from xproxy.tls.hello import HELLO_BYTES_MAX, ClientHello, HelloIncomplete, HelloMalformed, parse_client_hello

WORDS = [
    b"\x16\x03\x01", b"\x16\x03\x03", b"\x01\x00", b"\x00\x00", b"\x00\x10", b"\x00\x2b", b"\x00\x0d", b"\x03\x04",
    b"\x03\x03", b"\x0a\x0a", b"\xfa\xfa", b"\x0bxmpp-client", b"\x02h2", b"\x00\x0bexample.org", b"\xff\xff",
]  # fmt: skip


def check(data: bytes) -> None:
    """Judge one first flight."""
    rng = harness.rng_of(data)
    outcome = parse(data)
    prefix = parse(data[: rng.randint(0, len(data))])
    if isinstance(outcome, ClientHello):
        assert parse(data + b"behind") == outcome, "octets behind a hello changed it"
        assert isinstance(prefix, HelloIncomplete) or prefix == outcome, "a part of a good hello was refused"
        assert len(outcome.ja4) == 36, "a JA4 of another length"
        assert outcome.ja4.isprintable()
        assert outcome.top_version in outcome.versions
        if len(data) == 5 + int.from_bytes(data[3:5], "big"):
            assert parse(split_records(data, rng)) == outcome, "in other records it is another hello"
    if isinstance(outcome, HelloIncomplete):
        assert len(data) < outcome.needed <= HELLO_BYTES_MAX, "needed makes no sense"
        assert isinstance(prefix, HelloIncomplete), "a part of a beginning was refused"


def parse(data: bytes) -> ClientHello | HelloIncomplete | HelloMalformed:
    """Return what becomes of ``data``."""
    try:
        return parse_client_hello(data)
    except (HelloIncomplete, HelloMalformed) as outcome:
        return outcome


def split_records(hello: bytes, rng: random.Random) -> bytes:
    """Return the message in ``hello``, one record, in records of random sizes."""
    message, out = hello[5:], b""
    while message:
        size = rng.choice((32, 33, 64, 512, len(message)))
        out += b"\x16\x03\x01" + len(message[:size]).to_bytes(2, "big") + message[:size]
        message = message[size:]
    return out


if __name__ == "__main__":
    sys.exit(harness.main("hello", check, words=WORDS, quick=150_000))
