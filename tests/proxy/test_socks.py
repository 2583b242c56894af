"""SOCKS version 5: what clients send, cut anywhere, bent, and as RFC 1928 has it."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.chunks import chunkings
from xproxy.config.address import HostPort
from xproxy.events import Endpoint
from xproxy.proxy.socks import Reply, SocksReader, SocksRefused, render_reply

GREETING = b"\x05\x01\x00"


def named(host: bytes, port: int = 5222) -> bytes:
    return b"\x05\x01\x00\x03" + bytes([len(host)]) + host + struct.pack("!H", port)


Outcome = tuple[str, HostPort | str | None, bytes]  # what happened, what was answered


def read(data: bytes, chunks: list[bytes] | None = None) -> tuple[Outcome, bytes]:
    """Return what comes of ``data`` on a socket, all answers, and what is left on the socket."""
    reader, answers, waiting, consumed = SocksReader(), b"", b"", 0
    for chunk in chunks if chunks is not None else [data]:
        waiting += chunk
        while waiting:
            try:
                step = reader.take(waiting)
            except SocksRefused as refused:
                kind = "malformed" if refused.is_malformed else "unsupported"
                return (kind, refused.detail, answers + refused.answer), b""
            assert 0 < step.used <= len(waiting)
            waiting = waiting[step.used :]
            consumed += step.used
            answers += step.answer
            if step.request is not None:
                return ("request", step.request, answers), data[consumed:]
    return ("waiting", None, answers), b""


GOOD = [
    (GREETING + named(b"xmpp.example.org"), HostPort("xmpp.example.org", 5222)),
    (b"\x05\x03\x02\x01\x00" + named(b"Example.ORG.", 5223), HostPort("example.org", 5223)),
    (b"\x05\xff" + bytes(255) + named(b"a" * 63 + b"." + b"b" * 63), HostPort("a" * 63 + "." + "b" * 63, 5222)),
    (GREETING + b"\x05\x01\x00\x01\xc0\x00\x02\x07\x14\x66", HostPort("192.0.2.7", 5222)),
    (
        GREETING + b"\x05\x01\x00\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x07\x14\x67",
        HostPort("2001:db8::7", 5223),
    ),
    (GREETING + b"\x05\x01\x00\x04" + bytes(10) + b"\xff\xff\xc0\x00\x02\x07\x14\x66", HostPort("192.0.2.7", 5222)),
    (GREETING + named(b"192.0.2.7"), HostPort("192.0.2.7", 5222)),
    (GREETING + named(b"2001:DB8:0::7"), HostPort("2001:db8::7", 5222)),
    (GREETING + named(b"_x.xn--bcher-kva.example"), HostPort("_x.xn--bcher-kva.example", 5222)),
]


@pytest.mark.parametrize(("data", "request_"), GOOD)
@pytest.mark.parametrize("behind", [b"", b"<", b"\x16\x03\x01", b"\x05\x01\x00"])
def test_a_request_in_any_pieces_and_nothing_of_what_follows(data: bytes, request_: HostPort, behind: bytes) -> None:
    for chunks in chunkings(data + behind, random.Random(7)):
        assert read(data + behind, chunks) == (("request", request_, b"\x05\x00"), behind)
    for end in range(len(data)):
        (outcome, *_), _ = read(data[:end])
        assert outcome == "waiting"


FAILED = b"\x00\x01" + bytes(6)
BAD = [
    (b"<stream:stream>", "malformed", b""),
    (b"GET / HTTP/1.1", "malformed", b""),
    (b"PROXY TCP4 ", "malformed", b""),
    (b"\x04\x01\x14\x66\xc0\x00\x02\x07\x00", "unsupported", b""),
    (b"\x05\x01\x02" + named(b"x.example"), "unsupported", b"\x05\xff"),
    (b"\x05\x00", "unsupported", b"\x05\xff"),
    (GREETING + b"\x04", "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + b"\x05\x02\x00\x01", "unsupported", b"\x05\x00\x05\x07" + FAILED),  # BIND
    (GREETING + b"\x05\x03\x00\x01", "unsupported", b"\x05\x00\x05\x07" + FAILED),  # UDP ASSOCIATE
    (GREETING + b"\x05\x01\x01\x01", "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + b"\x05\x01\x00\x02", "unsupported", b"\x05\x00\x05\x08" + FAILED),
    (GREETING + named(b""), "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + named(b"a b"), "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + named(b"a..b"), "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + named(b"a\x00.example"), "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + named(b"fe80::1%lo"), "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + named("bücher.example".encode()), "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + named(b"-x.example"), "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + named(b"a" * 64), "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + named(b"a." * 127 + b"a"), "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + named(b"127.1"), "malformed", b"\x05\x00\x05\x01" + FAILED),  # an address to inet_aton
    (GREETING + named(b"0x7f.1"), "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + named(b"2130706433"), "malformed", b"\x05\x00\x05\x01" + FAILED),
    (GREETING + named(b"x.example", 0), "malformed", b"\x05\x00\x05\x01" + FAILED),
]


@pytest.mark.parametrize(("data", "kind", "answers"), BAD)
def test_what_is_not_served_is_answered_as_the_rfc_says(data: bytes, kind: str, answers: bytes) -> None:
    for chunks in chunkings(data, random.Random(8)):
        outcome, _ = read(data, chunks)
        assert (outcome[0], outcome[2]) == (kind, answers)


def test_what_is_refused_is_not_quoted() -> None:
    for data in (GREETING + named(b"s3cret s3cret"), b"s3cret s3cret", GREETING + b"\x05\x01\x00\x09s3cret"):
        outcome, _ = read(data)
        assert "s3cret" not in str(outcome[1])


def test_a_reply_names_our_end() -> None:
    assert render_reply(Reply.SUCCEEDED, Endpoint("192.0.2.7", 5222)) == b"\x05\x00\x00\x01\xc0\x00\x02\x07\x14\x66"
    reply = render_reply(Reply.SUCCEEDED, Endpoint("2001:db8::7", 5222))
    assert reply == b"\x05\x00\x00\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x07\x14\x66"
    assert render_reply(Reply.CONNECTION_REFUSED) == b"\x05\x05\x00\x01" + bytes(6)


@given(start=st.sampled_from([b"", GREETING, GREETING + b"\x05\x01\x00\x03"]), data=st.binary(max_size=300))
def test_any_octets_are_a_request_or_a_part_of_one_or_refused(start: bytes, data: bytes) -> None:
    octets = start + data
    assert read(octets) == read(octets, [octets[at : at + 1] for at in range(len(octets))])
