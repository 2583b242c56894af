"""Where a connection was going before a firewall rule turned it to us. Linux only: elsewhere nothing is redirected.

REDIRECT and DNAT rewrite the destination; connection tracking remembers it and tells by getsockopt (netfilter's
``SO_ORIGINAL_DST``, ``IP6T_SO_ORIGINAL_DST``). TPROXY rewrites nothing: the socket's own name is the destination, which
takes ``IP_TRANSPARENT`` on the listener (Linux, Documentation/networking/tproxy.rst).
"""

import ipaddress
import socket
import struct
import sys
from typing import Final

from xproxy.events import Endpoint

_IS_LINUX: Final = sys.platform == "linux"

_SOL_IP: Final = 0
_SOL_IPV6: Final = 41
_SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST in linux/netfilter_ipv6/ip6_tables.h
_IP_TRANSPARENT: Final = 19  # linux/in.h
_IPV6_TRANSPARENT: Final = 75  # linux/in6.h

_DISCARD_PORT: Final = 9

_SOCKADDR_IN_BYTES: Final = 16
_SOCKADDR_IN6_BYTES: Final = 28


def original_destination(sock: socket.socket, listener: Endpoint) -> Endpoint | None:
    """Return where the client of ``sock``, accepted at ``listener``, was going; None: to us, nobody redirected it."""
    if not _IS_LINUX:
        return None
    try:
        # A v4-mapped connection of an IPv6 socket is tracked as IPv4.
        if ":" not in listener.ip:
            address = sock.getsockopt(_SOL_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN_BYTES)
            port, packed = struct.unpack_from("!2xH4s", address)
        else:
            address = sock.getsockopt(_SOL_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6_BYTES)
            port, packed = struct.unpack_from("!2xH4x16s", address)
    except OSError:  # ENOENT: not tracked; ENOPROTOOPT: no connection tracking in this kernel or namespace
        return None
    destination = Endpoint(str(ipaddress.ip_address(packed)), port)
    return None if destination == listener else destination


def make_transparent(sock: socket.socket) -> None:
    """Let ``sock``, not yet bound, accept connections to addresses that are not this machine's.

    Raises:
        OSError: EPERM without CAP_NET_ADMIN or CAP_NET_RAW; ENOPROTOOPT where there is no TPROXY.
    """
    if not _IS_LINUX:
        raise OSError(92, "TPROXY is Linux's")
    if sock.family == socket.AF_INET6:
        sock.setsockopt(_SOL_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(_SOL_IP, _IP_TRANSPARENT, 1)


def is_own_address(ip: str) -> bool:
    """Return whether ``ip`` is an address of this machine: a packet to it would come from itself. Sends nothing."""
    address = ipaddress.ip_address(ip)
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ip, _DISCARD_PORT))
            return ipaddress.ip_address(str(probe.getsockname()[0]).partition("%")[0]) == address
        except OSError:  # no way there at all
            return False
