"""Where a session's server is: the candidates to try, in order, and how TLS begins there.

A route answers for one session, given where the client meant to go and which XMPP domain it asks for. Candidates are
addresses, not names: looking names up is the route's business, connecting is that of ``connect``. They come one at a
time, so that a look-up that is only needed when the first server is down is only made then.
"""

import ipaddress
import socket
from collections.abc import AsyncGenerator
from typing import Protocol

import attrs
import trio

from xproxy.config.address import HostPort
from xproxy.config.upstream import UpstreamTls
from xproxy.events.connection import ServerTls, UpstreamFailure, Via
from xproxy.jid import is_ip_address


@attrs.frozen(kw_only=True)
class Asked:
    """What a client has said, in one way or another, about where it wants to go."""

    direct: bool  # it began with TLS
    domain: str | None = None  # its stream's ``to`` or its SNI; read ahead for routes that need it alone
    destination: HostPort | None = None  # of a connection that was redirected to us, or of a SOCKS5 request


@attrs.frozen(kw_only=True)
class Candidate:
    """One address at which the server may be."""

    host: str  # the name that led to it, as configured or as the DNS has it
    address: str  # IPv4 or IPv6, in text form
    port: int
    tls: ServerTls
    via: Via
    priority: int | None = None  # of the SRV record
    weight: int | None = None


@attrs.frozen(kw_only=True)
class NoCandidate:
    """A place that cannot even be tried."""

    host: str
    port: int
    reason: UpstreamFailure


Candidates = AsyncGenerator[Candidate | NoCandidate, None]


class Route(Protocol):
    """Says where sessions' servers are."""

    @property
    def needs_domain(self) -> bool:
        """Whether ``Asked.domain`` must be known before anything can be said."""

    def candidates(self, asked: Asked) -> Candidates:
        """Yield what to try, the best first. Raises nothing: what is amiss is a ``NoCandidate``."""

    def server_tls(self, *, direct: bool) -> ServerTls:
        """How TLS begins for a client that began with it or not. Only asked where ``needs_domain`` is False."""


def server_tls(setting: UpstreamTls, *, direct: bool) -> ServerTls:
    """Return how TLS begins upstream for a client that began with TLS (``direct``) or in clear."""
    match setting:
        case "same":
            return ServerTls.DIRECT if direct else ServerTls.STARTTLS
        case "starttls":
            return ServerTls.STARTTLS
        case "direct":
            return ServerTls.DIRECT
        case "none":
            return ServerTls.NONE


def may_stay_in_clear(address: str) -> bool:
    """Whether what is said to ``address`` does not leave this machine."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


@attrs.frozen(kw_only=True)
class FixedRoute:
    """One server for all, as configured. Its name is looked up for each session: the DNS may move it."""

    server: HostPort
    tls: UpstreamTls = "same"
    clear_anywhere: bool = False  # without TLS also to other machines

    needs_domain = False

    def server_tls(self, *, direct: bool) -> ServerTls:
        """As configured."""
        return server_tls(self.tls, direct=direct)

    def candidates(self, asked: Asked) -> Candidates:
        """Yield the addresses of the server."""
        tls = server_tls(self.tls, direct=asked.direct)
        return addresses_of(self.server, tls, Via.CONFIGURED, clear_anywhere=self.clear_anywhere)


@attrs.frozen(kw_only=True)
class OriginalRoute:
    """The server the client dialled: before the packet filter redirected it to us, or by its request (SOCKS5)."""

    tls: UpstreamTls = "same"
    clear_anywhere: bool = False

    needs_domain = False

    def server_tls(self, *, direct: bool) -> ServerTls:
        """As configured."""
        return server_tls(self.tls, direct=direct)

    def candidates(self, asked: Asked) -> Candidates:
        """Yield the addresses of the destination."""
        assert asked.destination is not None, "without one nobody arrives (arrival.py)"
        tls = server_tls(self.tls, direct=asked.direct)
        return addresses_of(asked.destination, tls, Via.ORIGINAL, clear_anywhere=self.clear_anywhere)


async def addresses_of(server: HostPort, tls: ServerTls, via: Via, *, clear_anywhere: bool) -> Candidates:
    """Yield the addresses of ``server`` in the system's order (RFC 6724), families in turn (RFC 8305 section 4)."""
    try:
        addresses = [server.host] if is_ip_address(server.host) else await _look_up(server)
    except (OSError, UnicodeError) as error:
        is_silent = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
        reason = UpstreamFailure.LOOKUP_FAILED if is_silent else UpstreamFailure.UNKNOWN_HOST
        yield NoCandidate(host=server.host, port=server.port, reason=reason)
        return
    for address in addresses:
        if tls is ServerTls.NONE and not clear_anywhere and not may_stay_in_clear(address):
            yield NoCandidate(host=server.host, port=server.port, reason=UpstreamFailure.CLEAR_NOT_ALLOWED)
        else:
            yield Candidate(host=server.host, address=address, port=server.port, tls=tls, via=via)


async def _look_up(server: HostPort) -> list[str]:
    found = await trio.socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    return in_turn([str(where[0]) for _, _, _, _, where in found])


def in_turn(addresses: list[str]) -> list[str]:
    """Return ``addresses``, each once, with the families taking turns as RFC 8305 section 4 wants it."""
    unique = list(dict.fromkeys(addresses))
    if not unique:
        return []
    first = [address for address in unique if (":" in address) == (":" in unique[0])]
    second = [address for address in unique if (":" in address) != (":" in unique[0])]
    mixed = [address for pair in zip(first, second, strict=False) for address in pair]
    shorter = min(len(first), len(second))
    return mixed + first[shorter:] + second[shorter:]
