"""PROXY headers as the specification writes them, cut anywhere, bent, too long, and as HAProxy sends them."""

import ipaddress
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.chunks import chunkings
from xproxy.events import Endpoint
from xproxy.proxy.proxy_protocol import (
    BYTES_MAX,
    SIGNATURE_V2,
    HeaderFault,
    HeaderReader,
    HeaderRefused,
    ProxyHeader,
    crc32c,
    render_local,
    render_v1,
    render_v2,
)

CLIENT, DIALLED = Endpoint("192.0.2.7", 56_324), Endpoint("198.51.100.1", 5222)
CLIENT6, DIALLED6 = Endpoint("2001:db8::7", 56_324), Endpoint("2001:db8::1", 5222)

Outcome = ProxyHeader | tuple[HeaderFault, str] | None


def v2(command: int, family: int, rest: bytes, length: int | None = None) -> bytes:
    """A version 2 header, as bent as one likes."""
    return SIGNATURE_V2 + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest


TCP4 = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 56_324, 5222)
TCP6 = ipaddress.IPv6Address("2001:db8::7").packed + ipaddress.IPv6Address("2001:db8::1").packed + TCP4[-4:]
ALPN = b"\x01\x00\x0bxmpp-client"


def with_checksum(header: bytes) -> bytes:
    """The header with a CRC-32C extension (section 2.2.3)."""
    (length,) = struct.unpack_from("!H", header, 14)
    longer = header[:14] + struct.pack("!H", length + 7) + header[16:] + b"\x03\x00\x04"
    return longer + crc32c(longer + bytes(4)).to_bytes(4, "big")


def read(data: bytes, chunks: list[bytes] | None = None, *, bytes_max: int = BYTES_MAX) -> tuple[Outcome, bytes]:
    """Return what comes of ``data`` on a socket, arriving in ``chunks``, and what is left there."""
    reader, waiting, consumed = HeaderReader(bytes_max=bytes_max), b"", 0
    for chunk in chunks if chunks is not None else [data]:
        waiting += chunk
        try:
            used, header = reader.take(waiting)
        except HeaderRefused as refused:
            return (refused.fault, refused.detail), b""
        assert 0 <= used <= len(waiting)
        waiting = waiting[used:]
        consumed += used
        if header is not None:
            return header, data[consumed:]
        assert not waiting, "a header that is not whole leaves nothing behind"
    return None, b""


GOOD: list[tuple[bytes, ProxyHeader]] = [
    (
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\r\n",
        ProxyHeader(version=1, source=CLIENT, destination=DIALLED),
    ),
    (
        b"PROXY TCP6 2001:db8::7 2001:DB8:0:0::1 56324 5222\r\n",
        ProxyHeader(version=1, source=CLIENT6, destination=DIALLED6),
    ),
    (
        b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 56324 5222\r\n",
        ProxyHeader(version=1, source=CLIENT, destination=DIALLED),
    ),
    (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",  # section 2.1: the longest of its kind
        ProxyHeader(
            version=1, source=Endpoint("255.255.255.255", 65535), destination=Endpoint("255.255.255.255", 65535)
        ),
    ),
    (
        b"PROXY TCP4 192.0.2.7 198.51.100.1 0 0\r\n",
        ProxyHeader(version=1, source=Endpoint("192.0.2.7", 0), destination=Endpoint("198.51.100.1", 0)),
    ),
    (b"PROXY UNKNOWN\r\n", ProxyHeader(version=1, source=None, destination=None)),
    (
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        ProxyHeader(version=1, source=None, destination=None),
    ),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", ProxyHeader(version=1, source=None, destination=None)),  # 107 octets
    (v2(0x21, 0x11, TCP4), ProxyHeader(version=2, source=CLIENT, destination=DIALLED)),
    (v2(0x21, 0x21, TCP6), ProxyHeader(version=2, source=CLIENT6, destination=DIALLED6)),
    (v2(0x21, 0x11, TCP4 + ALPN), ProxyHeader(version=2, source=CLIENT, destination=DIALLED)),
    (v2(0x21, 0x21, TCP6 + ALPN + b"\x04\x00\x03...\xee\x00\x00"), ProxyHeader(
        version=2, source=CLIENT6, destination=DIALLED6
    )),
    (with_checksum(v2(0x21, 0x11, TCP4 + ALPN)), ProxyHeader(version=2, source=CLIENT, destination=DIALLED)),
    (v2(0x21, 0x00, b""), ProxyHeader(version=2, source=None, destination=None)),
    (v2(0x21, 0x00, b"anything at all"), ProxyHeader(version=2, source=None, destination=None)),
    (v2(0x21, 0x31, bytes(216)), ProxyHeader(version=2, source=None, destination=None)),
    (v2(0x20, 0x00, b""), ProxyHeader(version=2, source=None, destination=None, is_local=True)),
    (v2(0x20, 0x11, TCP4), ProxyHeader(version=2, source=None, destination=None, is_local=True)),
    (v2(0x20, 0xFF, b"\xff" * 9), ProxyHeader(version=2, source=None, destination=None, is_local=True)),
]  # fmt: skip


@pytest.mark.parametrize(("data", "header"), GOOD)
@pytest.mark.parametrize(
    "behind", [b"", b"\x16\x03\x01\x02\x00", b"<?xml version='1.0'?>", b"\r\n\r\n", SIGNATURE_V2, b"PROXY "]
)
def test_a_header_in_any_pieces_and_nothing_of_what_follows(data: bytes, header: ProxyHeader, behind: bytes) -> None:
    for chunks in chunkings(data + behind, random.Random(5)):
        assert read(data + behind, chunks) == (header, behind)


@pytest.mark.parametrize(("data", "header"), GOOD)
def test_a_part_of_a_header_is_waited_for(data: bytes, header: ProxyHeader) -> None:
    for end in range(len(data)):
        assert read(data[:end]) == (None, b"")


V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\r\n"
BAD: list[tuple[bytes, HeaderFault]] = [
    (b"<stream:stream>", HeaderFault.MISSING),
    (b"\x16\x03\x01\x02\x00", HeaderFault.MISSING),
    (b"GET / HTTP/1.1\r\n", HeaderFault.MISSING),
    (b"PROXX TCP4", HeaderFault.MISSING),
    (b"proxy TCP4", HeaderFault.MISSING),
    (b"\r\n\r\nPROXY ", HeaderFault.MISSING),
    (b"PROXY  TCP4 192.0.2.7 198.51.100.1 56324 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4  192.0.2.7 198.51.100.1 56324 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222 \r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222 1\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4\t192.0.2.7 198.51.100.1 56324 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4\r\n", HeaderFault.MALFORMED),
    (b"PROXY \r\n", HeaderFault.MALFORMED),
    (b"PROXY tcp4 192.0.2.7 198.51.100.1 56324 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY UDP4 192.0.2.7 198.51.100.1 56324 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY UNKNOWNS\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 2001:db8::7 2001:db8::1 56324 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP6 192.0.2.7 198.51.100.1 56324 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP6 fe80::7%eth0 2001:db8::1 56324 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 192.0.2.007 198.51.100.1 56324 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 192.0.2 198.51.100.1 56324 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 localhost 198.51.100.1 56324 5222\r\n", HeaderFault.MALFORMED),
    ("PROXY TCP4 192.0.2.٧ 198.51.100.1 56324 5222\r\n".encode(), HeaderFault.MALFORMED),
    ("PROXY TCP4 192.0.2.7 198.51.100.1 ٥٦ 5222\r\n".encode(), HeaderFault.MALFORMED),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 056324 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 1_0 5222\r\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\n", HeaderFault.MALFORMED),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\r", HeaderFault.MALFORMED),  # and no LF behind it: see below
    (b"PROXY UNKNOWN x\r\r\n", HeaderFault.MALFORMED),
    (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", HeaderFault.OVERSIZED),
    (b"PROXY " + b"x" * 200, HeaderFault.OVERSIZED),
    (SIGNATURE_V2 + b"\x11", HeaderFault.MALFORMED),
    (SIGNATURE_V2 + b"\x22", HeaderFault.MALFORMED),
    (SIGNATURE_V2 + b"\x31", HeaderFault.MALFORMED),
    (SIGNATURE_V2[:-1] + b"X", HeaderFault.MISSING),
    (v2(0x21, 0x12, TCP4), HeaderFault.MALFORMED),
    (v2(0x21, 0x22, TCP6), HeaderFault.MALFORMED),
    (v2(0x21, 0x32, bytes(216)), HeaderFault.MALFORMED),
    (v2(0x21, 0x10, TCP4), HeaderFault.MALFORMED),
    (v2(0x21, 0x41, TCP4), HeaderFault.MALFORMED),
    (v2(0x21, 0x11, TCP4[:-1]), HeaderFault.MALFORMED),
    (v2(0x21, 0x11, b""), HeaderFault.MALFORMED),
    (v2(0x21, 0x21, TCP4), HeaderFault.MALFORMED),
    (v2(0x21, 0x31, bytes(215)), HeaderFault.MALFORMED),
    (v2(0x21, 0x11, TCP4 + b"\x01"), HeaderFault.MALFORMED),
    (v2(0x21, 0x11, TCP4 + b"\x01\x00"), HeaderFault.MALFORMED),
    (v2(0x21, 0x11, TCP4 + b"\x01\x00\x01"), HeaderFault.MALFORMED),
    (v2(0x21, 0x11, TCP4 + b"\x01\xff\xff"), HeaderFault.MALFORMED),
    (v2(0x21, 0x11, TCP4 + b"\x03\x00\x03abc"), HeaderFault.MALFORMED),
    (v2(0x21, 0x11, TCP4 + b"\x03\x00\x04abcd"), HeaderFault.MALFORMED),
    (with_checksum(with_checksum(v2(0x21, 0x11, TCP4))), HeaderFault.MALFORMED),
]


@pytest.mark.parametrize(("data", "fault"), BAD)
def test_what_is_no_header_is_refused_in_any_pieces(data: bytes, fault: HeaderFault) -> None:
    whole = data + b"<" if data.endswith(b"\r") else data
    for chunks in chunkings(whole, random.Random(6)):
        outcome, _ = read(whole, chunks)
        assert isinstance(outcome, tuple)
        assert outcome[0] is fault


def test_a_header_longer_than_is_taken() -> None:
    header = v2(0x21, 0x11, TCP4 + ALPN)
    assert read(header, bytes_max=len(header))[0] == ProxyHeader(version=2, source=CLIENT, destination=DIALLED)
    for local in (header, v2(0x20, 0x00, bytes(26))):
        outcome, _ = read(local, [local[:16]], bytes_max=len(header) - 1)
        assert outcome == (HeaderFault.OVERSIZED, "the header is longer than is taken")


def test_what_is_refused_is_not_quoted() -> None:
    outcome, _ = read(b"PROXY TCP4 s3cret s3cret 1 1\r\n")
    assert outcome is not None
    assert "s3cret" not in str(outcome)


def test_the_checksum_is_castagnoli() -> None:
    """The check value of the catalogue of CRCs, and RFC 3720 appendix B.4."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == int.from_bytes(bytes.fromhex("aa36918a"), "little")


@pytest.mark.parametrize(("source", "destination"), [(CLIENT, DIALLED), (CLIENT6, DIALLED6)])
def test_what_is_written_is_what_the_specification_shows(source: Endpoint, destination: Endpoint) -> None:
    is_ipv4 = source is CLIENT
    assert render_v1(source, destination) == (V1 if is_ipv4 else b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 5222\r\n")
    assert render_v2(source, destination) == (v2(0x21, 0x11, TCP4) if is_ipv4 else v2(0x21, 0x21, TCP6))


def test_one_header_has_one_family() -> None:
    assert render_v1(CLIENT, DIALLED6) == b"PROXY TCP6 ::ffff:c000:207 2001:db8::1 56324 5222\r\n"
    for source, destination in ((CLIENT, DIALLED6), (CLIENT6, DIALLED)):
        for render in (render_v1, render_v2):
            header, _ = read(render(source, destination))
            assert isinstance(header, ProxyHeader)
            assert (header.source, header.destination) == (source, destination)


def test_local_is_nobody() -> None:
    assert read(render_local() + b"<") == (
        ProxyHeader(version=2, source=None, destination=None, is_local=True),
        b"<",
    )


ENDPOINTS = st.builds(
    Endpoint,
    st.one_of(
        st.ip_addresses(v=4).map(str),
        st.ip_addresses(v=6).filter(lambda ip: not ip.ipv4_mapped).map(str),  # type: ignore[union-attr]
    ),
    st.integers(0, 65_535),
)


@given(source=ENDPOINTS, destination=ENDPOINTS, behind=st.binary(max_size=20))
def test_what_is_written_can_be_read(source: Endpoint, destination: Endpoint, behind: bytes) -> None:
    for render in (render_v1, render_v2):
        header, rest = read(render(source, destination) + behind)
        assert isinstance(header, ProxyHeader)
        assert (header.source, header.destination, rest) == (source, destination, behind)


@given(
    start=st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE_V2, SIGNATURE_V2 + b"!\x11\x00"]), data=st.data()
)
def test_any_octets_are_a_header_or_a_part_of_one_or_refused(start: bytes, data: st.DataObject) -> None:
    octets = start + data.draw(st.binary(max_size=300))
    whole, rest = read(octets)
    bytewise, bytewise_rest = read(octets, [octets[at : at + 1] for at in range(len(octets))])
    if isinstance(whole, ProxyHeader) or whole is None:
        assert (bytewise, bytewise_rest) == (whole, rest)
    else:
        assert isinstance(bytewise, tuple)
        assert bytewise[0] is whole[0]
