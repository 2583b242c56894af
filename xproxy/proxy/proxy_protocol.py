"""The PROXY protocol, versions 1 and 2: who a balancer says the client is, read and written, without I/O.

The text is HAProxy's ``proxy-protocol.txt`` (2.9; section 2.1 version 1, 2.2 version 2, 2.2.x the extensions).

**Reading.** ``HeaderReader.take`` is shown what a socket has at hand and says how many of those octets belong to the
header: the caller reads exactly that many off the socket, so that what follows (a ClientHello, a stream header) stays
there for whoever peeks next. A header may come in any pieces, one octet at a time too. The first octet that cannot be
right ends it: a header is expected or it is not, and nothing is guessed (section 2: "the receiver MUST be configured to
only receive the protocol and MUST NOT try to guess").

**What is strict.** Version 1 is taken only as it is written: single spaces, decimal ports without leading zeros,
addresses as text of the family they are said to be. In version 2 lengths must fit, extensions must fill what is left
behind the addresses, and a checksum must be right where one is sent (section 2.2.3). Datagrams are refused: this is
TCP. Extensions are otherwise skipped, within ``bytes_max``.

**What names nobody.** ``UNKNOWN`` (version 1), ``UNSPEC``, unix sockets and ``LOCAL`` (version 2) are good headers
without addresses: the client is then whoever connected.
"""

import enum
import ipaddress
import struct
from typing import Final

import attrs

from xproxy.events import Endpoint

SIGNATURE_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
"""Section 2.2: what begins a version 2 header, chosen to be no other protocol's."""

SIGNATURE_V1: Final = b"PROXY "

V1_BYTES_MAX: Final = 107
"""Section 2.1: the longest line of version 1, its CRLF included."""

V2_FIXED_BYTES: Final = 16
"""Section 2.2: signature, version and command, family and protocol, length."""

BYTES_MAX: Final = V2_FIXED_BYTES + 0xFFFF
"""What the length field of version 2 can say."""

_V2_VERSION: Final = 0x20
_V2_PROXY: Final = 0x21
_V2_LOCAL: Final = 0x20

_UNSPEC: Final = 0x00
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNIX_STREAM: Final = 0x31
_DATAGRAMS: Final = frozenset({0x12, 0x22, 0x32})
_ADDRESS_BYTES: Final = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}

_TLV_CRC32C: Final = 0x03  # section 2.2.3

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class HeaderFault(enum.Enum):
    """Why a header is not taken."""

    MISSING = "missing"  # something else came in its place
    MALFORMED = "malformed"
    OVERSIZED = "oversized"


@attrs.define(eq=False)
class HeaderRefused(Exception):  # noqa: N818 - a fact for the caller, who records it
    """No header, or none that can be taken. ``detail`` is a constant phrase and quotes nothing that was sent."""

    fault: HeaderFault
    detail: str


@attrs.frozen(kw_only=True)
class ProxyHeader:
    """What a header says. Both addresses or none; of one family, v4-mapped ones shown as IPv4."""

    version: int  # 1 or 2
    source: Endpoint | None  # the client, as the balancer saw it
    destination: Endpoint | None  # the address the client dialled
    is_local: bool = False  # the balancer speaks for itself: a health check (section 2.2)


class HeaderReader:
    """Reads one header. ``take`` raises at most once; a reader is not used again after that."""

    def __init__(self, *, bytes_max: int = BYTES_MAX) -> None:
        """``bytes_max``: octets of a version 2 header, extensions and all; version 1 has its own limit."""
        self._bytes_max = bytes_max
        self._read = bytearray()

    def take(self, at_hand: bytes) -> tuple[int, ProxyHeader | None]:
        """Return how many of the octets ``at_hand`` are the header's, and the header once it is whole.

        The next call is shown what comes behind them. What is no header is not read: nothing of it is counted.

        Raises:
            HeaderRefused: there will be no header.
        """
        before = len(self._read)
        seen = bytes(self._read + at_hand[: self._bytes_max + V2_FIXED_BYTES])
        if SIGNATURE_V2.startswith(seen[: len(SIGNATURE_V2)]):
            size, header = self._take_v2(seen)
        elif SIGNATURE_V1.startswith(seen[: len(SIGNATURE_V1)]):
            size, header = _take_v1(seen)
        else:
            raise HeaderRefused(HeaderFault.MISSING, "the first octets are no PROXY header")
        self._read = bytearray(seen[:size])
        return size - before, header

    def _take_v2(self, seen: bytes) -> tuple[int, ProxyHeader | None]:
        if len(seen) > 12:
            command = seen[12]
            if command not in (_V2_PROXY, _V2_LOCAL):
                detail = "another version" if command & 0xF0 != _V2_VERSION else "an unknown command"
                raise HeaderRefused(HeaderFault.MALFORMED, detail)
            if len(seen) > 13 and command == _V2_PROXY:
                _check_family(seen[13])
        if len(seen) < V2_FIXED_BYTES:
            return len(seen), None
        (length,) = struct.unpack_from("!H", seen, 14)
        size = V2_FIXED_BYTES + length
        if size > self._bytes_max:
            raise HeaderRefused(HeaderFault.OVERSIZED, "the header is longer than is taken")
        if seen[12] == _V2_PROXY and length < _ADDRESS_BYTES[seen[13]]:
            raise HeaderRefused(HeaderFault.MALFORMED, "the length is less than the addresses take")
        if len(seen) < size:
            return len(seen), None
        return size, _header_v2(seen[:size])


def _take_v1(seen: bytes) -> tuple[int, ProxyHeader | None]:
    end = seen.find(b"\r\n", 0, V1_BYTES_MAX)
    line = seen[: end if end >= 0 else V1_BYTES_MAX]
    # A CR may only be what the LF is still missing from.
    if b"\n" in line or b"\r" in (line if end >= 0 else line.removesuffix(b"\r")):
        raise HeaderRefused(HeaderFault.MALFORMED, "a line of version 1 ends with CR LF")
    if end >= 0:
        return end + 2, _header_v1(line)
    if len(seen) >= V1_BYTES_MAX:
        raise HeaderRefused(HeaderFault.OVERSIZED, "a line of version 1 has at most 107 octets")
    return len(seen), None


def _header_v1(line: bytes) -> ProxyHeader:
    """Return what ``line``, without its end, says."""
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":  # section 2.1: whatever follows it is ignored
        return ProxyHeader(version=1, source=None, destination=None)
    if words[1] not in (b"TCP4", b"TCP6"):
        raise HeaderRefused(HeaderFault.MALFORMED, "neither TCP4 nor TCP6 nor UNKNOWN")
    if len(words) != 6:
        raise HeaderRefused(HeaderFault.MALFORMED, "a line of version 1 has two addresses and two ports")
    of_text = ipaddress.IPv4Address if words[1] == b"TCP4" else ipaddress.IPv6Address
    try:
        source, destination = (of_text(word.decode("ascii")) for word in words[2:4])
    except ValueError as error:  # UnicodeDecodeError is one
        raise HeaderRefused(HeaderFault.MALFORMED, "an address is none of its family") from error
    if any(isinstance(address, ipaddress.IPv6Address) and address.scope_id for address in (source, destination)):
        raise HeaderRefused(HeaderFault.MALFORMED, "an address is none of its family")
    return ProxyHeader(
        version=1,
        source=_endpoint(source, _port(words[4])),
        destination=_endpoint(destination, _port(words[5])),
    )


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (word[:1] == b"0" and word != b"0") or int(word) > 0xFFFF:
        raise HeaderRefused(HeaderFault.MALFORMED, "a port is no number from 0 to 65535")
    return int(word)


def _check_family(family: int) -> None:
    if family in _DATAGRAMS:
        raise HeaderRefused(HeaderFault.MALFORMED, "datagrams do not come over TCP")
    if family not in _ADDRESS_BYTES:
        raise HeaderRefused(HeaderFault.MALFORMED, "an unknown family or protocol")


def _header_v2(header: bytes) -> ProxyHeader:
    if header[12] == _V2_LOCAL:  # section 2.2: the rest is discarded, whatever it is
        return ProxyHeader(version=2, source=None, destination=None, is_local=True)
    family = header[13]
    addresses_end = V2_FIXED_BYTES + _ADDRESS_BYTES[family]
    if family != _UNSPEC:  # behind UNSPEC the receiver knows no structure
        _check_extensions(header, addresses_end)
    if family not in (_TCP4, _TCP6):
        return ProxyHeader(version=2, source=None, destination=None)
    of_bytes, size = (ipaddress.IPv4Address, 4) if family == _TCP4 else (ipaddress.IPv6Address, 16)
    source_ip, destination_ip, source_port, destination_port = struct.unpack_from(
        f"!{size}s{size}sHH", header, V2_FIXED_BYTES
    )
    return ProxyHeader(
        version=2,
        source=_endpoint(of_bytes(source_ip), source_port),
        destination=_endpoint(of_bytes(destination_ip), destination_port),
    )


def _check_extensions(header: bytes, offset: int) -> None:
    """Section 2.2: type, length, value, up to the end."""
    is_checked = False
    while offset < len(header):
        if offset + 3 > len(header):
            raise HeaderRefused(HeaderFault.MALFORMED, "an extension is cut off")
        kind, length = struct.unpack_from("!BH", header, offset)
        offset += 3
        if offset + length > len(header):
            raise HeaderRefused(HeaderFault.MALFORMED, "an extension is longer than the header")
        if kind == _TLV_CRC32C:
            if is_checked:  # each costs a walk over all of it
                raise HeaderRefused(HeaderFault.MALFORMED, "a header has one checksum")
            is_checked = True
            _check_checksum(header, offset, length)
        offset += length


def _check_checksum(header: bytes, offset: int, length: int) -> None:
    """Section 2.2.3: over the whole header, with the four octets of the checksum itself as zeros."""
    if length != 4:
        raise HeaderRefused(HeaderFault.MALFORMED, "a checksum has four octets")
    sent = int.from_bytes(header[offset : offset + 4], "big")
    if crc32c(header[:offset] + bytes(4) + header[offset + 4 :]) != sent:
        raise HeaderRefused(HeaderFault.MALFORMED, "the checksum is wrong")


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of ``data`` (Castagnoli; RFC 3309 appendix). Bit by bit: headers are short and have one."""
    value = 0xFFFFFFFF
    for octet in data:
        value ^= octet
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _endpoint(address: _IPAddress, port: int) -> Endpoint:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return Endpoint(str(mapped or address), port)


# Writing ------------------------------------------------------------------------------------------------------------


def render_v1(source: Endpoint, destination: Endpoint) -> bytes:
    """Return the version 1 line that says ``source`` connected to ``destination``.

    Where one is IPv4 and the other IPv6, both are written as IPv6, the one v4-mapped: a header has one family.
    """
    source_ip, destination_ip = _of_one_family(source, destination)
    return f"PROXY TCP{source_ip.version} {source_ip} {destination_ip} {source.port} {destination.port}\r\n".encode()


def render_v2(source: Endpoint, destination: Endpoint) -> bytes:
    """Return the version 2 header that says ``source`` connected to ``destination``; families as in ``render_v1``."""
    source_ip, destination_ip = _of_one_family(source, destination)
    addresses = source_ip.packed + destination_ip.packed + struct.pack("!HH", source.port, destination.port)
    return _render_v2(_V2_PROXY, _TCP4 if source_ip.version == 4 else _TCP6, addresses)


def render_local() -> bytes:
    """Return the version 2 header of a connection that is nobody's but the sender's own."""
    return _render_v2(_V2_LOCAL, _UNSPEC, b"")


def _render_v2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE_V2 + struct.pack("!BBH", command, family, len(addresses)) + addresses


def _of_one_family(source: Endpoint, destination: Endpoint) -> tuple[_IPAddress, _IPAddress]:
    addresses = ipaddress.ip_address(source.ip), ipaddress.ip_address(destination.ip)
    if addresses[0].version == addresses[1].version:
        return addresses
    return _as_ipv6(addresses[0]), _as_ipv6(addresses[1])


def _as_ipv6(address: _IPAddress) -> ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv6Address):
        return address
    return ipaddress.IPv6Address(b"\x00" * 10 + b"\xff\xff" + address.packed)
