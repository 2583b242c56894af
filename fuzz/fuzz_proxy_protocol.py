"""Invariant: any octets are a PROXY header, the beginning of one, or refused, and nothing else is raised.

Besides: in any pieces the outcome is the same; never more is taken than the header; what is taken for a header names
addresses that can be written as one again; and the limit of octets holds.
"""

import random
import sys

import harness

with harness.instrumented():
    from xproxy.proxy.proxy_protocol import (
        SIGNATURE_V2,
        HeaderReader,
        HeaderRefused,
        ProxyHeader,
        render_v1,
        render_v2,
    )

LIMIT = 600
WORDS = [
    SIGNATURE_V2, b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"\r\n", b"192.0.2.7 ", b"2001:db8::7 ",
    b"::ffff:192.0.2.7 ",
    b"56324 ", b"5222", b"0", b"65536", b"\xff\xff",
    b"\x21\x11\x00\x0c", b"\x21\x21\x00\x24", b"\x20\x00\x00\x00", b"\x21\x31\x00\xd8",
    b"\x21\x12", b"\x03\x00\x04", b"\x04\x00\x00", b"\x20\x00\x05",
]  # fmt: skip

Outcome = tuple[str, ProxyHeader | str | None, int]


def check(data: bytes) -> None:
    """Judge what a balancer sent."""
    rng = harness.rng_of(data)
    outcome = read([data])
    assert read([data[at : at + 1] for at in range(len(data))]) == outcome, "octet by octet it is something else"
    assert read(pieces(data, rng)) == outcome, "in pieces it is something else"
    kind, header, taken = outcome
    if kind == "header":
        assert isinstance(header, ProxyHeader)
        assert taken <= LIMIT, "longer than is taken"
        assert read([data[:taken]]) == outcome, "it needed what is behind it"
        assert read([data[:taken] + b"behind"]) == outcome, "octets behind a header changed it"
        assert (header.source is None) == (header.destination is None), "half of the addresses"
        if header.source is not None and header.destination is not None:
            for render in (render_v1, render_v2):
                _, again, _ = read([render(header.source, header.destination)])
                assert isinstance(again, ProxyHeader)
                assert (again.source, again.destination) == (header.source, header.destination), "written as another"
    if kind == "waiting":
        assert taken == len(data) < LIMIT, "a header that is not whole leaves nothing behind"


def read(chunks: list[bytes]) -> Outcome:
    """Return what becomes of octets that arrive like this, and how many of them were taken."""
    reader, waiting, taken = HeaderReader(bytes_max=LIMIT), b"", 0
    for chunk in chunks:
        waiting += chunk
        try:
            used, header = reader.take(waiting)
        except HeaderRefused as refused:
            return refused.fault.value, refused.detail, 0
        assert 0 <= used <= len(waiting), "more was taken than there was"
        waiting, taken = waiting[used:], taken + used
        if header is not None:
            return "header", header, taken
        assert not waiting, "a header that is not whole leaves nothing behind"
    return "waiting", None, taken


def pieces(data: bytes, rng: random.Random) -> list[bytes]:
    """Return ``data`` cut at random."""
    cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.randint(1, 6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


if __name__ == "__main__":
    sys.exit(harness.main("proxy_protocol", check, words=WORDS, quick=80_000))
