"""The DNS, asked for what the system's own resolver does not tell: SRV records, and how long an answer holds.

dnspython asks, on trio. What it was told is kept as long as the answer says, within bounds: positive answers for at
most a day, negative ones (RFC 2308) for at most a minute, so that a record that was missing is soon found, and those
without the SOA record that says how long not at all (section 5). Many sessions that want the same at once wait for one
answer.
"""

import time
from collections.abc import Sequence
from typing import Final

import attrs
import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
import trio

from xproxy.config.address import HostPort
from xproxy.config.upstream import UpstreamSettings
from xproxy.errors import EnvironmentProblem
from xproxy.events.connection import ServerTls, UpstreamFailure
from xproxy.proxy.route import in_turn
from xproxy.proxy.srv import LookupFailed, Service, Srv

RESOLUTION_DELAY_SECONDS: Final = 0.05
"""RFC 8305 section 3: so long an answer of one family waits for that of the other."""

RECORDS_USED_MAX: Final = 32
"""Of a service, those of the best priorities. More could not be tried within connect_seconds_max, at one each 250 ms,
and whoever owns the domain chooses how many there are."""

RECORDS_KEPT_MAX: Final = 64
"""An answer with more of them is used, but not kept: so the cache is bounded in octets too, about 8 KiB each."""

_KINDS: Final = {ServerTls.STARTTLS: "_xmpp-client", ServerTls.DIRECT: "_xmpps-client"}


class Resolver:
    """Answers for all sessions."""

    def __init__(self, resolver: dns.asyncresolver.Resolver) -> None:
        """Ask through ``resolver``, which has its servers, its deadlines and its cache."""
        self._resolver = resolver
        self._asked: dict[tuple[dns.name.Name, str], _Question] = {}

    async def services(self, domain: str, kind: ServerTls) -> list[Srv] | Service:
        """Return the servers of ``domain`` (A-labels) for clients that begin with TLS, or with STARTTLS.

        Raises: LookupFailed.
        """
        try:
            owner = dns.name.Name([_KINDS[kind].encode(), b"_tcp", *_labels(domain), b""])
        except dns.exception.DNSException:
            return Service.UNKNOWN
        answer = await self._ask(owner, "SRV")
        records = [] if answer is None or answer.rrset is None else list(answer.rrset)
        if not records:
            return Service.UNKNOWN
        offered = [record for record in records if record.target != dns.name.root]
        if not offered:
            return Service.NOT_OFFERED
        offered.sort(key=lambda record: record.priority)
        return [
            Srv(
                priority=record.priority,
                weight=record.weight,
                host=record.target.to_text(omit_final_dot=True),
                port=record.port,
                tls=kind,
            )
            for record in offered[:RECORDS_USED_MAX]
        ]

    async def addresses(self, host: str) -> list[str]:
        """Return the addresses of ``host``, which is written as in a zone file, families in turn.

        Raises: LookupFailed.
        """
        try:
            owner = dns.name.from_text(host)
        except dns.exception.DNSException as error:
            raise LookupFailed(UpstreamFailure.UNKNOWN_HOST) from error
        found: dict[str, list[str]] = {}
        failed: list[LookupFailed] = []
        done = trio.Event()

        async def ask(kind: str) -> None:
            try:
                answer = await self._ask(owner, kind)
            except LookupFailed as failure:
                failed.append(failure)
            else:
                found[kind] = [] if answer is None or answer.rrset is None else [each.address for each in answer.rrset]
            if found.get(kind) or len(found) + len(failed) == 2:
                done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "AAAA")
            nursery.start_soon(ask, "A")
            await done.wait()
            nursery.cancel_scope.deadline = trio.current_time() + RESOLUTION_DELAY_SECONDS
        addresses = in_turn(found.get("AAAA", []) + found.get("A", []))
        if not addresses:
            raise failed[0] if failed else LookupFailed(UpstreamFailure.UNKNOWN_HOST)
        return addresses

    async def texts(self, name: str, kind: str) -> list[str]:
        """Return the records of ``kind`` that ``name`` has, as in a zone file; none where there are none.

        Raises: LookupFailed.
        """
        try:
            owner = dns.name.from_text(name)
        except dns.exception.DNSException as error:
            raise LookupFailed(UpstreamFailure.UNKNOWN_HOST) from error
        answer = await self._ask(owner, kind)
        return [] if answer is None or answer.rrset is None else [record.to_text() for record in answer.rrset]

    async def _ask(self, owner: dns.name.Name, kind: str) -> dns.resolver.Answer | None:
        """Return the answer; None: there is no such name. Of those that ask the same at once, one asks."""
        key = owner, kind
        while (question := self._asked.get(key)) is not None:
            await question.ended.wait()
            if question.is_answered:  # else whoever asked was cancelled
                return question.answer()
        question = self._asked[key] = _Question()
        try:
            try:
                question.found = await self._resolver.resolve(owner, kind, raise_on_no_answer=False, search=False)
            except dns.resolver.NXDOMAIN:
                question.found = None
            except dns.resolver.LifetimeTimeout:
                question.failed = UpstreamFailure.LOOKUP_TIMEOUT
            except (dns.exception.DNSException, OSError, ValueError):
                # NoNameservers: SERVFAIL, REFUSED, or nothing that could be read.
                question.failed = UpstreamFailure.LOOKUP_FAILED
            question.is_answered = True
        finally:
            del self._asked[key]
            question.ended.set()
        return question.answer()


@attrs.define(eq=False)
class _Question:
    """What several sessions wait for."""

    ended: trio.Event = attrs.Factory(trio.Event)
    is_answered: bool = False
    found: dns.resolver.Answer | None = None
    failed: UpstreamFailure | None = None

    def answer(self) -> dns.resolver.Answer | None:
        if self.failed is not None:
            raise LookupFailed(self.failed)
        return self.found


class BoundedCache(dns.resolver.LRUCache):
    """dnspython's cache, with bounds to how long and how large."""

    def __init__(self, *, entries_max: int, seconds_max: float, negative_seconds_max: float) -> None:
        super().__init__(entries_max)
        self._seconds_max = seconds_max
        self._negative_seconds_max = negative_seconds_max

    def put(self, key: dns.resolver.CacheKey, value: dns.resolver.Answer) -> None:
        """Keep ``value`` for as long as it says, within bounds."""
        now = time.time()
        if value.rrset is None:
            if not any(rrset.rdtype == dns.rdatatype.SOA for rrset in value.response.authority):
                return  # dnspython would keep it for 68 years
            seconds_max = self._negative_seconds_max
        else:
            seconds_max = self._seconds_max
        if sum(len(rrset) for section in value.response.sections for rrset in section) > RECORDS_KEPT_MAX:
            return
        value.expiration = min(value.expiration, now + seconds_max)
        super().put(key, value)


def open_resolver(settings: UpstreamSettings) -> Resolver:
    """Return a resolver that asks the servers of the settings, else those of /etc/resolv.conf.

    Raises:
        EnvironmentProblem: /etc/resolv.conf names none.
    """
    try:
        resolver = dns.asyncresolver.Resolver(configure=settings.nameservers is None)
    except dns.resolver.NoResolverConfiguration as error:
        raise EnvironmentProblem(
            "/etc/resolv.conf cannot be read or names no name server",
            'set nameservers = ["192.0.2.53:53"] in [upstream], or mend /etc/resolv.conf',
        ) from error
    if settings.nameservers is not None:
        resolver.nameservers = _nameservers(settings.nameservers)
    resolver.lifetime = settings.lookup_seconds_max
    resolver.timeout = settings.lookup_seconds_max / 2  # a second try, or a second server, has its turn
    resolver.cache = BoundedCache(
        entries_max=settings.lookup_entries_max,
        seconds_max=settings.lookup_ttl_seconds_max,
        negative_seconds_max=settings.lookup_negative_seconds_max,
    )
    return Resolver(resolver)


def _nameservers(addresses: Sequence[HostPort]) -> list[dns.nameserver.Nameserver]:
    return [dns.nameserver.Do53Nameserver(address.host, address.port) for address in addresses]


def _labels(domain: str) -> list[bytes]:
    return [label.encode() for label in domain.split(".")]
