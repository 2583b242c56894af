"""A capture as packets, for Wireshark: synthetic TCP on port 5222, one element a segment.

    pcapng (draft-ietf-opsawg-pcapng): SHB | IDB, LINKTYPE_RAW, if_tsresol 9 | EPB*   all little-endian
    EPB = type 6 | length | interface 0 | time high, low | captured, original length | packet | options | length
    packet = IPv4 (RFC 791) or IPv6 (RFC 8200) header | TCP header (RFC 9293) | octets

Addresses are those of the client's leg, ports the client's and 5222, so that it is decoded as XMPP. There is no TLS in
it: what was inside TLS stands there in clear, as a conversation of its own from another client port, because a reader
that saw <proceed/> takes what follows for TLS. Each conversation has its handshake and its FINs; segments are
acknowledged by those of the other side. The comment of a packet is the session's trace id and the capture's ``n``.
"""

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from xproxy.capture.elements import Elements
from xproxy.capture.lexer import UnitKind
from xproxy.capture.trace import Closed, Conn, Lost, Meta, Noted, Tls, TraceLine
from xproxy.events import Side
from xproxy.events.connection import ConnectionAccepted
from xproxy.events.tls import TlsEstablished

PORT: Final = 5222
SEGMENT_BYTES_MAX: Final = 32_768  # an IPv4 packet has at most 65 535
_LINKTYPE_RAW: Final = 101
_FIN, _SYN, _PSH, _ACK = 0x01, 0x02, 0x08, 0x10
_CLIENT, _SERVER = (
    ipaddress.IPv4Address("192.0.2.2"),
    ipaddress.IPv4Address("192.0.2.1"),
)  # of a ring that has lost them


def file_header() -> bytes:
    """Return the section header and the interface."""
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    interface = struct.pack("<HHI", _LINKTYPE_RAW, 0, 0) + _option(9, b"\x09") + _option(0, b"")
    return _block(0x0A0D0D0A, section) + _block(1, interface)


def packets(lines: Iterable[TraceLine]) -> Iterator[bytes]:
    """Yield the packet blocks of a capture, in its order."""
    elements = Elements()
    sessions: dict[int, _Session] = {}
    used: set[tuple[object, int]] = set()
    for line in lines:
        match line:
            case Meta():
                continue
            case Conn():
                sessions[line.session] = _Session(line, used)
            case Noted(event=ConnectionAccepted() as accepted):
                sessions[line.session].know(accepted)
            case Tls(event=TlsEstablished(leg=Side.CLIENT)):
                yield from sessions[line.session].hang_up(line.t_ns)
            case Closed() | Lost():
                yield from sessions.pop(line.session).hang_up(line.t_ns)
        for element in elements.of(line):
            if element.unit.kind is not UnitKind.BETWEEN and not element.by_proxy:
                yield from sessions[element.session].says(element.sent_by, element.unit.octets, element.t_ns, element.n)
    for session in sessions.values():
        yield from session.hang_up(None)


@attrs.define
class _Session:
    """One session's conversations."""

    conn: Conn
    used: set[tuple[object, int]]  # addresses and ports that have had a conversation
    client: ipaddress.IPv4Address | ipaddress.IPv6Address = _CLIENT
    server: ipaddress.IPv4Address | ipaddress.IPv6Address = _SERVER
    port: int = 40_000
    is_open: bool = False
    next: dict[Side, int] = attrs.Factory(dict)  # sequence numbers
    last_t_ns: int = 0

    def know(self, accepted: ConnectionAccepted) -> None:
        """Learn the addresses. One of each kind cannot talk: then the listener's is made up."""
        self.client = ipaddress.ip_address(accepted.client.ip.partition("%")[0])
        listener = ipaddress.ip_address(accepted.listener.ip.partition("%")[0])
        self.server = listener if listener.version == self.client.version else self.client
        self.port = accepted.client.port or 40_000

    def says(self, side: Side, octets: bytes, t_ns: int, n: int) -> Iterator[bytes]:
        """Yield the segments of one element."""
        if not self.is_open:
            yield from self._connect(t_ns)
        for start in range(0, len(octets), SEGMENT_BYTES_MAX):
            yield self._packet(side, _PSH | _ACK, octets[start : start + SEGMENT_BYTES_MAX], t_ns, n)

    def hang_up(self, t_ns: int | None) -> Iterator[bytes]:
        """Yield the end of the conversation, if there is one."""
        if self.is_open:
            when = self.last_t_ns if t_ns is None else t_ns
            yield self._packet(Side.CLIENT, _FIN | _ACK, b"", when, None)
            yield self._packet(Side.SERVER, _FIN | _ACK, b"", when, None)
            yield self._packet(Side.CLIENT, _ACK, b"", when, None)
            self.is_open = False

    def _connect(self, t_ns: int) -> Iterator[bytes]:
        while (self.client, self.port) in self.used:
            self.port = self.port + 1 if self.port < 65_535 else 1_024
        self.used.add((self.client, self.port))
        self.is_open = True
        self.next = {Side.CLIENT: 1_000, Side.SERVER: 2_000}
        yield self._packet(Side.CLIENT, _SYN, b"", t_ns, None)
        yield self._packet(Side.SERVER, _SYN | _ACK, b"", t_ns, None)
        yield self._packet(Side.CLIENT, _ACK, b"", t_ns, None)

    def _packet(self, side: Side, flags: int, octets: bytes, t_ns: int, n: int | None) -> bytes:
        self.last_t_ns = max(self.last_t_ns, t_ns)
        by_client = side is Side.CLIENT
        source, target = (self.client, self.server) if by_client else (self.server, self.client)
        ports = (self.port, PORT) if by_client else (PORT, self.port)
        acknowledged = self.next[side.other] if flags & _ACK else 0
        head = struct.pack("!HHIIBBHHH", *ports, self.next[side] & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF, 5 << 4,
                           flags, 65_535, 0, 0)  # fmt: skip
        self.next[side] += len(octets) + (1 if flags & (_SYN | _FIN) else 0)
        size = len(head) + len(octets)
        if source.version == 4:
            pseudo = source.packed + target.packed + struct.pack("!BBH", 0, 6, size)
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0x4000, 64, 6, 0) + source.packed + target.packed
            ip = ip[:10] + _checksum(ip) + ip[12:]
        else:
            pseudo = source.packed + target.packed + struct.pack("!II", size, 6)
            ip = struct.pack("!IHBB", 6 << 28, size, 6, 64) + source.packed + target.packed
        head = head[:16] + _checksum(pseudo + head + octets) + head[18:]
        comment = f"trace {self.conn.trace_id}" + (f" n {n}" if n is not None else "")
        return _enhanced_packet(self.conn.at_ns + t_ns, ip + head + octets, comment.encode())


def _enhanced_packet(at_ns: int, packet: bytes, comment: bytes) -> bytes:
    at_ns = max(at_ns, 0)
    fixed = struct.pack("<IIIII", 0, (at_ns >> 32) & 0xFFFFFFFF, at_ns & 0xFFFFFFFF, len(packet), len(packet))
    return _block(6, fixed + _padded(packet) + _option(1, comment) + _option(0, b""))


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(octets: bytes) -> bytes:
    return octets + bytes(-len(octets) % 4)


def _checksum(octets: bytes) -> bytes:
    """The Internet checksum (RFC 1071)."""
    octets += bytes(len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
