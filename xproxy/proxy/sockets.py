"""Small facts about TCP sockets: addresses as the log shows them, options for both legs, ways to close."""

import contextlib
import errno
import functools
import ipaddress
import socket
import struct
import sys
from typing import Any, Final

import trio

from xproxy import system
from xproxy.events import Endpoint

_ABRUPT: Final = struct.pack("ii", 1, 0)  # struct linger: on, no time: close() sends RST


_KEYS_REMEMBERED_MAX: Final = 1_024  # each client's is asked for several times while it comes in

# How long a connection is silent before it is probed; macOS has another name for it.
_KEEPALIVE_AFTER: Final[int | None] = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))


def endpoint_of(address: Any) -> Endpoint:
    """Return the endpoint in a socket address of AF_INET or AF_INET6; a v4-mapped address is shown as IPv4."""
    ip, port = str(address[0]), int(address[1])
    ip = ip.partition("%")[0]  # the zone of a link-local address is no part of it
    if ip.startswith("::ffff:") and "." in ip:
        ip = ip.removeprefix("::ffff:")
    return Endpoint(ip, port)


@functools.lru_cache(maxsize=_KEYS_REMEMBERED_MAX)
def address_key(ip: str) -> str:
    """What counts as one client address: an IPv4 address, or the /64 that one IPv6 subscriber has to himself."""
    try:
        parsed = ipaddress.ip_address(ip)
    except ValueError:
        return ip
    if parsed.version == 4:
        return ip
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def tune(sock: socket.socket, *, keepalive_seconds: int) -> None:
    """Set what both legs need. A peer that is gone already makes some systems refuse; reading will tell."""
    sock.setblocking(False)
    try:
        # Messages are small and answers wait for them: Nagle's algorithm would add a round trip.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if _KEEPALIVE_AFTER is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _KEEPALIVE_AFTER, keepalive_seconds)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            raise


def seconds_since_data(sock: socket.socket) -> float | None:
    """Return how long ago the peer last sent something; None where the system does not say."""
    if not system.offers(socket, "TCP_INFO"):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED.stop)
    except OSError:
        return None
    found = info[_LAST_DATA_RECEIVED]
    return int.from_bytes(found, sys.byteorder) / 1_000 if len(found) == 4 else None


_LAST_DATA_RECEIVED: Final = slice(52, 56)  # struct tcp_info of <linux/tcp.h>: tcpi_last_data_recv, in ms


def close_socket(sock: socket.socket, *, abruptly: bool = False) -> None:
    """Close ``sock``, with RST if ``abruptly``. Never raises: there is nothing more to do about it."""
    if sock.fileno() < 0:
        return
    trio.lowlevel.notify_closing(sock)
    if abruptly:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABRUPT)
    with contextlib.suppress(OSError):  # the descriptor is gone in any case (close(2))
        sock.close()
