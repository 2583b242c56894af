"""Invariant: any octets are a SOCKS5 greeting and request, the beginning of them, or refused; nothing else is raised.

Besides: in any pieces the outcome is the same; nothing behind the request is taken; the host that is asked for is in
the one form hosts are compared in; and every answer is one of the RFC's.
"""

import random
import sys

import harness

with harness.instrumented():
    from xproxy.config.address import HostPort
    from xproxy.config.destination import parse_host
    from xproxy.proxy.socks import SocksReader, SocksRefused

WORDS = [
    b"\x05\x01\x00", b"\x05\x02\x00\x02", b"\x05\xff", b"\x04\x01", b"\x05\x01\x00\x01", b"\x05\x01\x00\x03",
    b"\x05\x01\x00\x04",
    b"\x05\x02\x00", b"\x05\x03\x00", b"\x0bexample.org", b"\x07a..b.cd", b"\x09192.0.2.7", b"\x0b2001:db8::7",
    b"\x14\x66",
    b"\x00\x00", b"\xc0\x00\x02\x07", b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff",
]  # fmt: skip

REQUEST_BYTES_MAX = 7 + 255
GREETING_BYTES_MAX = 2 + 255

Outcome = tuple[str, HostPort | str | None, bytes, int]


def check(data: bytes) -> None:
    """Judge what a client sent."""
    rng = harness.rng_of(data)
    outcome = read([data])
    assert read([data[at : at + 1] for at in range(len(data))]) == outcome, "octet by octet it is something else"
    assert read(pieces(data, rng)) == outcome, "in pieces it is something else"
    kind, wanted, answers, taken = outcome
    assert answers[:2] in (b"", b"\x05\x00", b"\x05\xff"), "no answer to a greeting"
    assert len(answers) in (0, 2, 12), "an answer of another length"
    assert answers[2:4] in (b"", b"\x05\x01", b"\x05\x07", b"\x05\x08"), "no answer to a request"
    if kind == "request":
        assert isinstance(wanted, HostPort)
        assert answers == b"\x05\x00", "an answer before it is known what comes of it"
        assert parse_host(wanted.host) == wanted.host, "a host in two forms"
        assert 0 < wanted.port < 65_536
        assert read([data[:taken] + b"behind"]) == outcome, "octets behind a request changed it"
    if kind == "waiting":
        assert taken == len(data) < GREETING_BYTES_MAX + REQUEST_BYTES_MAX, "it is waited for too much"


def read(chunks: list[bytes]) -> Outcome:
    """Return what becomes of octets that arrive like this, what is answered, and how many of them were taken."""
    reader, waiting, taken, answers = SocksReader(), b"", 0, b""
    for chunk in chunks:
        waiting += chunk
        while waiting:
            try:
                step = reader.take(waiting)
            except SocksRefused as refused:
                return ("malformed" if refused.is_malformed else "other"), refused.detail, answers + refused.answer, 0
            assert 0 < step.used <= len(waiting), "it does not go on"
            waiting, taken, answers = waiting[step.used :], taken + step.used, answers + step.answer
            if step.request is not None:
                return "request", step.request, answers, taken
    return "waiting", None, answers, taken


def pieces(data: bytes, rng: random.Random) -> list[bytes]:
    """Return ``data`` cut at random."""
    cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.randint(1, 6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


if __name__ == "__main__":
    sys.exit(harness.main("socks", check, words=WORDS, quick=50_000))
