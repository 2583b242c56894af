"""Where clients may be taken: what SOCKS5 requests are granted, where ``--upstream original`` leads, and never to us.

A client that is taken wherever it asks makes an open relay of a proxy. So the port must be one of XMPP's
(``destination_ports``), and the host one that is served: with one server its own names and addresses, else what
``destinations`` lists. Where nothing is listed and ``--upstream original`` is set, any host will do: who may ask is
then decided by the firewall rule, or by the networks whose SOCKS5 requests are taken (``trusted``).
"""

import ipaddress
import socket
from collections.abc import Iterable
from functools import partial
from typing import Final

import trio

from xproxy.config.address import HostPort
from xproxy.config.destination import parse_destination, parse_host
from xproxy.config.listen import ListenSettings, Network
from xproxy.config.upstream import UpstreamAddress, UpstreamFrom
from xproxy.events import Endpoint
from xproxy.events.connection import RefusalReason
from xproxy.jid import JidError, domain_to_ascii
from xproxy.proxy.original import is_own_address
from xproxy.proxy.refusal import Refused

LOOKUPS_MAX: Final = 8
"""Names of clients' choice that are looked up at once: slow ones must not take the threads that sessions need."""

_NOT_SERVED: Final = "a host that is not served"


class Destinations:
    """Judges where clients want to go."""

    def __init__(self, settings: ListenSettings, upstream: UpstreamAddress, domain: str | None) -> None:
        """``settings`` are checked: every destination in them can be parsed."""
        self._upstream = upstream
        self._is_original = upstream is UpstreamFrom.ORIGINAL
        self._ports = set(settings.destination_ports)
        self._names: set[str] = set()
        self._networks: list[Network] = []
        for entry in map(parse_destination, settings.destinations):
            if isinstance(entry, str):
                self._names.add(entry)
            else:
                self._networks.append(entry)
        self._domain: str | None = None
        if isinstance(upstream, HostPort):
            self._ports.add(upstream.port)
            self._names.add(_host(upstream.host))
            self._domain = _ascii(domain)
        self._is_any = not settings.destinations and not isinstance(upstream, HostPort)
        self._listening: frozenset[Endpoint] = frozenset()
        self._lookups = trio.CapacityLimiter(LOOKUPS_MAX)

    def listen_at(self, listeners: Iterable[Endpoint]) -> None:
        """Take note of our own addresses, known once they are listened on."""
        self._listening = frozenset(listeners)

    def leads_to_us(self, destination: Endpoint) -> bool:
        """Whether ``destination`` is one of our listeners."""
        for listener in self._listening:
            if listener.port == destination.port and (
                listener.ip == destination.ip
                or (ipaddress.ip_address(listener.ip).is_unspecified and is_own_address(destination.ip))
            ):
                return True
        return False

    def check_original(self, destination: Endpoint) -> None:
        """Judge the original destination of a redirected connection, with ``--upstream original``.

        Raises:
            Refused: it leads to us, or is not allowed.
        """
        self._check_port(destination.port)
        self._check_address(destination)
        if not self._is_any and not self._is_listed(destination.ip):
            raise Refused(RefusalReason.DESTINATION_REFUSED, detail=_NOT_SERVED)

    async def check_request(self, wanted: HostPort) -> HostPort:
        """Judge a SOCKS5 request; return where it leads, which is ``wanted`` or one of its addresses.

        May ask the name service, and is to be given a deadline.

        Raises:
            Refused: it leads to us, or is not allowed.
        """
        self._check_port(wanted.port)
        is_address = _is_address(wanted.host)
        if self._is_original:
            return await self._check_leading_there(wanted, [wanted.host] if is_address else None)
        # Elsewhere we connect to our own server whatever is asked for, so a name need not be looked up.
        if not (
            self._is_any
            or wanted.host in self._names
            or self._is_of_domain(wanted.host)
            or (is_address and await self._is_served(wanted.host))
        ):
            raise Refused(RefusalReason.DESTINATION_REFUSED, detail=_NOT_SERVED)
        return wanted

    async def _check_leading_there(self, wanted: HostPort, addresses: list[str] | None) -> HostPort:
        if addresses is None:
            addresses = await self._addresses_of(wanted.host)
        is_by_name = self._is_any or wanted.host in self._names
        allowed = [ip for ip in addresses if is_by_name or self._is_listed(ip)]
        if not allowed and not is_by_name:
            raise Refused(RefusalReason.DESTINATION_REFUSED, detail=_NOT_SERVED)
        for ip in allowed:
            self._check_address(Endpoint(ip, wanted.port))
        # What was judged by its address is what is connected to: asked again, the name could lead elsewhere.
        return wanted if is_by_name else HostPort(allowed[0], wanted.port)

    def _check_port(self, port: int) -> None:
        if port not in self._ports:
            raise Refused(RefusalReason.DESTINATION_REFUSED, detail="a port that is not allowed")

    def _check_address(self, destination: Endpoint) -> None:
        if self.leads_to_us(destination):
            raise Refused(RefusalReason.DESTINATION_LOOP, detail="it leads to the proxy itself")
        address = ipaddress.ip_address(destination.ip)
        if address.is_unspecified or address.is_multicast or destination.ip == "255.255.255.255":
            raise Refused(RefusalReason.DESTINATION_REFUSED, detail="an address that is no one's")

    def _is_listed(self, ip: str) -> bool:
        address = ipaddress.ip_address(ip)
        return ip in self._names or any(address in network for network in self._networks)

    async def _is_served(self, ip: str) -> bool:
        """Whether ``ip`` is listed or, where there is one server, its address: clients look names up themselves."""
        if self._is_listed(ip):
            return True
        return isinstance(self._upstream, HostPort) and ip in await self._addresses_of(self._upstream.host)

    async def _addresses_of(self, host: str) -> list[str]:
        """Return the addresses of ``host``; none if nobody knows, which connecting to it will say again and record."""
        look_up = partial(socket.getaddrinfo, host, 0, type=socket.SOCK_STREAM)
        try:
            found = await trio.to_thread.run_sync(look_up, abandon_on_cancel=True, limiter=self._lookups)
        except (OSError, UnicodeError):
            return []
        return list(dict.fromkeys(parse_host(str(address[0]).partition("%")[0]) for *_, address in found))

    def _is_of_domain(self, host: str) -> bool:
        """Whether ``host`` is the XMPP domain or in it, as the targets of its SRV records mostly are."""
        return self._domain is not None and (host == self._domain or host.endswith(f".{self._domain}"))


def _host(text: str) -> str:
    try:
        return parse_host(text)
    except ValueError:
        return text.lower()


def _ascii(domain: str | None) -> str | None:
    try:
        return domain_to_ascii(domain).lower() if domain is not None else None
    except JidError:  # an address: it is compared as such
        return domain


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
