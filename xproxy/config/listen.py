"""[listen]: where clients connect, and by which way they come in."""

import enum
import ipaddress
from typing import Final, Self

import attrs

from xproxy.config.address import HostPort
from xproxy.config.setting import setting

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ListenKind(enum.Enum):
    """What a listener expects before a client's first byte."""

    PLAIN = "plain"
    """Nothing. With ``--upstream original``: that a firewall rule redirected the connection (REDIRECT, DNAT)."""

    PROXY_PROTOCOL = "proxy-protocol"
    """A header of the PROXY protocol, version 1 or 2, from a balancer; without one nobody comes in."""

    SOCKS5 = "socks5"
    """A request of SOCKS version 5 (RFC 1928)."""

    TPROXY = "tproxy"
    """Nothing, but that a firewall rule hands over connections to any address (TPROXY): needs CAP_NET_ADMIN."""


_SCHEMES: Final = {"proxy": ListenKind.PROXY_PROTOCOL, "socks5": ListenKind.SOCKS5, "tproxy": ListenKind.TPROXY}


@attrs.frozen
class ListenAddress:
    """One address to listen on, as ``--listen`` has it: ``HOST:PORT``, with ``proxy://`` and the like before it."""

    host: str
    port: int
    kind: ListenKind = ListenKind.PLAIN
    trusted: tuple[Network, ...] | None = None  # None: those of the section

    @property
    def address(self) -> HostPort:
        """Host and port."""
        return HostPort(self.host, self.port)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return what ``text`` says.

        Raises:
            ValueError: with a sentence that says what to write instead.
        """
        scheme, separator, rest = text.partition("://")
        if not separator:
            address, kind = HostPort.from_text(text), ListenKind.PLAIN
        elif scheme in _SCHEMES:
            address, kind = HostPort.from_text(rest), _SCHEMES[scheme]
        else:
            known = ", ".join(f"{name}://" for name in _SCHEMES)
            raise ValueError(f"{scheme}:// in {text!r} is not known: write HOST:PORT, or {known} before it")
        return cls(address.host, address.port, kind)

    def __str__(self) -> str:
        """Return it as ``--listen`` takes it; ``trusted`` is not in it."""
        schemes = {kind: name for name, kind in _SCHEMES.items()}
        return f"{schemes[self.kind]}://{self.address}" if self.kind in schemes else str(self.address)


@attrs.frozen(kw_only=True)
class ListenSettings:
    """Where clients connect. STARTTLS and direct TLS are told apart by the first byte, on every address.

    proxy:// before an address: a balancer's PROXY protocol header comes first, version 1 or 2; socks5://: clients ask
    by SOCKS5; tproxy://: a firewall rule hands connections over. An address can be a table, with networks of its own:
    { address = "[::]:5222", kind = "proxy-protocol", trusted = ["192.0.2.0/24"] }
    """

    addresses: tuple[ListenAddress, ...] = setting(
        (ListenAddress("127.0.0.1", 5222),),
        "list of HOST:PORT",
        "only this machine until told otherwise; port 0 lets the system choose",
    )
    trusted: tuple[Network, ...] = setting(
        (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")),
        "list of networks",
        "whose PROXY protocol headers are believed and whose SOCKS5 requests are taken, where an address does not say "
        "otherwise; anybody else there could be whoever he says, or be taken wherever he wants",
    )
    header_seconds_max: float = setting(
        5.0,
        "seconds",
        "from accept until the PROXY protocol header or the SOCKS5 request is whole; balancers send it at once, and "
        "clients give up after 10",
    )
    header_bytes_max: int = setting(
        4_096,
        "bytes",
        "a PROXY protocol header of version 2 with its extensions; HAProxy's with a client certificate's names is "
        "under 1 KiB",
    )
    headers_max: int = setting(
        512,
        "connections",
        "of one address listened on, that have not sent their header or request yet; each holds a descriptor",
    )
    headers_per_client_max: int = setting(
        64,
        "connections",
        "likewise, of one SOCKS5 client (IPv6: one /64), so that one cannot take all; a balancer may",
    )
    destination_ports: tuple[int, ...] = setting(
        (5222, 5223),
        "list of ports",
        "where SOCKS5 clients may ask to be taken, and where --upstream original leads: XMPP's, so that nobody gets "
        "through to anything else; the port of --upstream HOST:PORT is added",
    )
    destinations: tuple[str, ...] = setting(
        (),
        "list of host names, addresses and networks",
        "the hosts SOCKS5 clients may ask for, and the addresses and networks that --upstream original leads to; "
        "without it: with one server its names and addresses and those of --domain, else any",
        example=["xmpp.example.org", "192.0.2.0/24"],
    )
