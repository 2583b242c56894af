"""The way by SRV records: the servers that the DNS names for the client's domain, in their order (RFC 2782).

RFC 6120 section 3.2 and XEP-0368: the records of ``_xmpp-client._tcp`` (the stream begins in clear) and of
``_xmpps-client._tcp`` (it begins with TLS) are mixed by priority and weight. The target "." says that a service is not
offered. Only where there is no record at all the domain's own addresses are tried, port 5222. (Section 3.2.1 would do
so as well when the DNS does not answer. That is not done here: it would be reported as what it is not, and where SRV
records are not answered, the addresses are hardly either.)

**Which domains.** The client says which one, so it is the client who says where to connect. Without further ado that is
the configured domain alone; more must be listed, and "*" stands for any. Then a stranger with a domain of his own could
have the proxy connect to whatever it can reach, so that addresses which are not public are refused.
"""

import enum
import ipaddress
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Final, Protocol

import attrs
import trio

from xproxy.config.upstream import UpstreamTls
from xproxy.events.connection import ServerTls, UpstreamFailure, Via
from xproxy.jid import JidError, domain_to_ascii, is_ip_address
from xproxy.proxy.route import Asked, Candidate, Candidates, NoCandidate, may_stay_in_clear, server_tls

FALLBACK_PORT: Final = 5222  # RFC 6120 section 3.2.2
ANY_DOMAIN: Final = "*"
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1


@attrs.frozen(kw_only=True)
class Srv:
    """One record of ``_xmpp-client._tcp`` (RFC 6120 section 3.2.1) or ``_xmpps-client._tcp`` (XEP-0368)."""

    priority: int  # the lower the earlier
    weight: int
    host: str  # as in a zone file, without the last dot
    port: int
    tls: ServerTls  # what the kind of record says


def in_order(records: Iterable[Srv], randbelow: Callable[[int], int]) -> list[Srv]:
    """Return ``records`` by priority, and within one priority drawn by weight.

    Both kinds are mixed, as XEP-0368 section 2 wants it. ``randbelow(n)`` returns a number from 0 to n - 1.
    """
    ordered: list[Srv] = []
    rest = sorted(records, key=attrgetter("priority"))
    while rest:
        group = [record for record in rest if record.priority == rest[0].priority]
        rest = rest[len(group) :]
        while group:
            ordered.append(group.pop(_drawn(group, randbelow)))
    return ordered


def _drawn(group: list[Srv], randbelow: Callable[[int], int]) -> int:
    """Return which of one priority comes next (RFC 2782, "Weight"): records of weight 0 are first in line."""
    line = sorted(range(len(group)), key=lambda index: group[index].weight > 0)
    wanted = randbelow(sum(record.weight for record in group) + 1)
    running = 0
    for index in line:
        running += group[index].weight
        if running >= wanted:
            return index
    raise AssertionError("the last one makes up the sum")


@attrs.define(eq=False)
class LookupFailed(Exception):  # noqa: N818 - a fact for the route
    """No answer, or none that helps."""

    reason: UpstreamFailure


class Service(enum.Enum):
    """What the DNS says of a service that has no servers."""

    UNKNOWN = "unknown"  # no record
    NOT_OFFERED = "not-offered"  # the target "."


class Names(Protocol):
    """Who answers: ``xproxy.proxy.resolve.Resolver``."""

    async def services(self, domain: str, kind: ServerTls) -> list[Srv] | Service:
        """Return the servers of ``domain`` for streams that begin with ``kind``. Raises LookupFailed."""

    async def addresses(self, host: str) -> list[str]:
        """Return the addresses of ``host``, at least one. Raises LookupFailed."""


@attrs.frozen(kw_only=True)
class SrvRoute:
    """Where the DNS says that the client's domain is served."""

    names: Names
    randbelow: Callable[[int], int]
    domains: frozenset[str]  # A-labels, or an address; with "*" any
    tls: UpstreamTls = "same"
    clear_anywhere: bool = False
    private_addresses: bool = False  # of a domain that is not listed

    needs_domain = True

    def server_tls(self, *, direct: bool) -> ServerTls:
        """As configured; with "same" the record decides."""
        return server_tls(self.tls, direct=direct)

    async def candidates(self, asked: Asked) -> Candidates:
        """Yield what to try. Names are looked up when their turn comes."""
        domain = _ascii(asked.domain)
        if domain is None:
            yield NoCandidate(host=asked.domain or "", port=0, reason=UpstreamFailure.NO_DOMAIN)
            return
        is_listed = domain in self.domains
        if not is_listed and (ANY_DOMAIN not in self.domains or is_ip_address(domain)):
            yield NoCandidate(host=domain, port=0, reason=UpstreamFailure.DOMAIN_NOT_ALLOWED)
            return
        found = await self._servers(domain)
        if isinstance(found, NoCandidate):
            yield found
            return
        for server, via in found:
            for each in await self._places(server, via, is_trusted=is_listed or self.private_addresses):
                yield each

    async def _servers(self, domain: str) -> list[tuple[Srv, Via]] | NoCandidate:
        """Return the servers of ``domain`` in their order, or why there are none."""
        kinds = {
            "same": (ServerTls.DIRECT, ServerTls.STARTTLS),
            "direct": (ServerTls.DIRECT,),
            "starttls": (ServerTls.STARTTLS,),
            "none": (ServerTls.STARTTLS,),
        }[self.tls]
        answers: dict[ServerTls, list[Srv] | Service | LookupFailed] = {}

        async def ask(kind: ServerTls) -> None:
            try:
                answers[kind] = await self.names.services(domain, kind)
            except LookupFailed as failed:
                answers[kind] = failed

        if not is_ip_address(domain):
            async with trio.open_nursery() as nursery:
                for kind in kinds:
                    nursery.start_soon(ask, kind)
        records = [record for answer in answers.values() if isinstance(answer, list) for record in answer]
        if records:
            return [(record, Via.SRV) for record in in_order(records, self.randbelow)]
        for answer in answers.values():
            if isinstance(answer, LookupFailed):
                return NoCandidate(host=domain, port=0, reason=answer.reason)
        if answers.get(ServerTls.STARTTLS) is Service.NOT_OFFERED or ServerTls.STARTTLS not in kinds:
            return NoCandidate(host=domain, port=0, reason=UpstreamFailure.NOT_OFFERED)
        fallback = Srv(priority=0, weight=0, host=domain, port=FALLBACK_PORT, tls=ServerTls.STARTTLS)
        return [(fallback, Via.FALLBACK)]

    async def _places(self, server: Srv, via: Via, *, is_trusted: bool) -> list[Candidate | NoCandidate]:
        """Return the addresses of one server; those that may not be connected to as such."""
        host, port = server.host, server.port
        try:
            addresses = [host] if is_ip_address(host) else await self.names.addresses(host)
        except LookupFailed as failed:
            return [NoCandidate(host=host, port=port, reason=failed.reason)]
        tls = ServerTls.NONE if self.tls == "none" else server.tls
        places: list[Candidate | NoCandidate] = []
        for address in addresses:
            if not is_trusted and not is_public(address):
                places.append(NoCandidate(host=host, port=port, reason=UpstreamFailure.ADDRESS_NOT_ALLOWED))
            elif tls is ServerTls.NONE and not self.clear_anywhere and not may_stay_in_clear(address):
                places.append(NoCandidate(host=host, port=port, reason=UpstreamFailure.CLEAR_NOT_ALLOWED))
            else:
                from_srv = via is Via.SRV
                places.append(
                    Candidate(
                        host=host,
                        address=address,
                        port=port,
                        tls=tls,
                        via=via,
                        priority=server.priority if from_srv else None,
                        weight=server.weight if from_srv else None,
                    )
                )
        return places


def is_public(address: str) -> bool:
    """Whether ``address`` is one of the internet, also where it is an IPv4 address in the clothes of IPv6."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return ip.is_global and not ip.is_multicast


def ascii_domain(text: str) -> str:
    """Return ``text`` as names are compared and looked up: in A-labels, or an address without brackets.

    Raises: JidError: it is neither.
    """
    if is_ip_address(text):
        return str(ipaddress.ip_address(text.strip("[]")))
    return domain_to_ascii(text)


def _ascii(text: str | None) -> str | None:
    try:
        return None if text is None else ascii_domain(text)
    except JidError:
        return None
