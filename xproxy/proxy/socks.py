"""SOCKS version 5 (RFC 1928), the server's part, without I/O: what a client asks for, and the answers.

The client greets, we choose a method, it makes its request, we answer when the upstream connection stands or has
failed, and from then on the connection is the client's. ``SocksReader.take`` is shown what a socket has at hand and
says how much of it was read, so that what follows stays there; clients may send greeting and request in one piece.

**What is served.** CONNECT, to an IPv4 address, an IPv6 address or a name. Of the methods only "no authentication":
who may come in is decided by the network the client is in (``trusted``), and a password would be one more secret on the
wire in clear. BIND and UDP ASSOCIATE have no use for XMPP. All else is answered as the RFC says and closed.
"""

import enum
import ipaddress
import struct
from typing import Final

import attrs

from xproxy.config.address import HostPort
from xproxy.config.destination import parse_host
from xproxy.events import Endpoint

_VERSION: Final = 5
_NO_AUTHENTICATION: Final = 0x00
_NO_METHOD: Final = b"\x05\xff"
_CONNECT: Final = 0x01
_IPV4, _NAME, _IPV6 = 0x01, 0x03, 0x04


class Reply(enum.IntEnum):
    """Section 6: what became of a request."""

    SUCCEEDED = 0x00
    GENERAL_FAILURE = 0x01
    NOT_ALLOWED = 0x02  # "connection not allowed by ruleset"
    NETWORK_UNREACHABLE = 0x03
    HOST_UNREACHABLE = 0x04
    CONNECTION_REFUSED = 0x05
    TTL_EXPIRED = 0x06
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_TYPE_NOT_SUPPORTED = 0x08


@attrs.define(eq=False)
class SocksRefused(Exception):  # noqa: N818 - a fact for the caller, who records it
    """There will be no request that can be served. ``detail`` is a constant phrase and quotes nothing that was sent."""

    is_malformed: bool  # else it is SOCKS, but of a kind that is not served
    detail: str
    answer: bytes  # to send before closing; may be empty


@attrs.frozen(kw_only=True)
class Step:
    """What came of the octets at hand."""

    used: int
    answer: bytes = b""  # to send now
    request: HostPort | None = None  # where the client wants to go; answer it with ``render_reply``


class SocksReader:
    """Reads greeting and request. Not used again after it raised or returned a request."""

    def __init__(self) -> None:
        self._is_greeted = False
        self._read = b""

    def take(self, at_hand: bytes) -> Step:
        """Read on. What belongs to an unfinished message is used and kept; what follows the request is left.

        Raises:
            SocksRefused: there will be no request.
        """
        before = len(self._read)
        seen = self._read + at_hand
        size = _request_bytes(seen) if self._is_greeted else _greeting_bytes(seen)
        if size is None or len(seen) < size:
            self._read = seen
            return Step(used=len(at_hand))
        self._read = b""
        if not self._is_greeted:
            if _NO_AUTHENTICATION not in seen[2:size]:
                raise SocksRefused(False, "the client insists on an authentication", _NO_METHOD)
            self._is_greeted = True
            return Step(used=size - before, answer=bytes((_VERSION, _NO_AUTHENTICATION)))
        return Step(used=size - before, request=_request(seen[:size]))


def _greeting_bytes(seen: bytes) -> int | None:
    """Section 3: version, count, that many methods. None: not to be known yet."""
    if seen and seen[0] != _VERSION:
        detail = "SOCKS version 4" if seen[0] == 4 else "the first octet is not SOCKS version 5"
        raise SocksRefused(seen[0] != 4, detail, b"")
    return 2 + seen[1] if len(seen) > 1 else None


def _request_bytes(seen: bytes) -> int | None:
    """Section 4: version, command, reserved, address type, address, port. None: not to be known yet."""
    if len(seen) > 0 and seen[0] != _VERSION:
        raise _malformed("the request is not SOCKS version 5")
    if len(seen) > 1 and seen[1] != _CONNECT:
        answer = render_reply(Reply.COMMAND_NOT_SUPPORTED)
        raise SocksRefused(False, "a command other than CONNECT", answer)
    if len(seen) > 2 and seen[2] != 0:
        raise _malformed("the reserved octet is not zero")
    if len(seen) < 4:
        return None
    match seen[3]:
        case 0x01:
            return 10
        case 0x04:
            return 22
        case 0x03:
            return 7 + seen[4] if len(seen) > 4 else None
        case _:
            answer = render_reply(Reply.ADDRESS_TYPE_NOT_SUPPORTED)
            raise SocksRefused(False, "an unknown address type", answer)


def _request(message: bytes) -> HostPort:
    (port,) = struct.unpack("!H", message[-2:])
    if message[3] == _NAME:
        try:
            host = parse_host(message[5:-2].decode("ascii"))
        except ValueError as error:  # UnicodeDecodeError is one; parse_host quotes what was sent
            raise _malformed("the host is no name and no address") from error
    else:
        host = parse_host(str(ipaddress.ip_address(message[4:-2])))
    if port == 0:
        raise _malformed("the port is 0")
    return HostPort(host, port)


def _malformed(detail: str) -> SocksRefused:
    return SocksRefused(True, detail, render_reply(Reply.GENERAL_FAILURE))


def render_reply(reply: Reply, bound: Endpoint | None = None) -> bytes:
    """Return the answer to a request (section 6); ``bound``: our end of the server's connection, if there is one."""
    ip = ipaddress.ip_address(bound.ip if bound is not None else "0.0.0.0")
    port = bound.port if bound is not None else 0
    kind = _IPV4 if ip.version == 4 else _IPV6
    return struct.pack("!BBBB", _VERSION, reply, 0, kind) + ip.packed + struct.pack("!H", port)
