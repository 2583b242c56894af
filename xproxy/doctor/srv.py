"""Where DNS leads clients of the domain (RFC 6120 section 3.2, RFC 2782, XEP-0368), and where the server's host is."""

import ipaddress
import socket
from typing import Final, Literal

import attrs
import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
import trio

from xproxy.config.address import HostPort
from xproxy.doctor.findings import Finding, Fix, Severity, listed
from xproxy.errors import UsageProblem
from xproxy.jid import is_ip_address

LOOKUP_SECONDS_MAX: Final = 5.0  # as libc's resolver waits for one answer
RECORDS_MAX: Final = 16  # of one answer that are looked at: an answer over TCP may hold thousands
ADDRESSES_MAX: Final = 4  # of each family that are tried

Service = Literal["xmpp-client", "xmpps-client"]
SERVICES: Final[tuple[Service, ...]] = ("xmpp-client", "xmpps-client")


@attrs.frozen(kw_only=True)
class Srv:
    """One record."""

    priority: int
    weight: int
    target: str  # without the final dot; "" where the service is decidedly not offered (RFC 2782: ".")
    port: int

    def __str__(self) -> str:
        """Return the target as it is shown."""
        return f"{self.target}:{self.port}" if self.target else '"." (not offered)'


@attrs.frozen(kw_only=True)
class Answer:
    """What came of one question."""

    question: str
    srv: tuple[Srv, ...] = ()  # in the order clients try them, weights aside
    addresses: tuple[str, ...] = ()
    failure: str | None = None  # why nothing is known; None with nothing in it: there is no such record


class Resolver:
    """Asks the system's name servers, or the one that is named."""

    def __init__(self, nameserver: HostPort | None, *, seconds_max: float = LOOKUP_SECONDS_MAX) -> None:
        """Raises: UsageProblem where the name server is no address."""
        self._seconds_max = seconds_max
        self._named = nameserver is not None
        self._resolver: dns.asyncresolver.Resolver | None
        if nameserver is None:
            try:
                self._resolver = dns.asyncresolver.Resolver()
            except dns.resolver.NoResolverConfiguration:
                self._resolver = None
            return
        if not is_ip_address(nameserver.host):
            raise UsageProblem(f"the name server {nameserver.host!r} is no address", "write 192.0.2.53 or [::1]:5353")
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers = [dns.nameserver.Do53Nameserver(nameserver.host, nameserver.port)]

    async def services(self, domain: str, service: Service) -> Answer:
        """Look the SRV records of a service up; ``domain`` in A-labels."""
        question = f"_{service}._tcp.{domain}"
        answer = await self._ask(question, "SRV")
        if isinstance(answer, str):
            return Answer(question=question, failure=answer)
        records = [
            Srv(
                priority=record.priority,
                weight=record.weight,
                target=record.target.to_text(omit_final_dot=True) if record.target != dns.name.root else "",
                port=record.port,
            )
            for record in answer
            if record.rdtype == dns.rdatatype.SRV
        ]
        records.sort(key=lambda each: (each.priority, -each.weight, each.target, each.port))
        return Answer(question=question, srv=tuple(records[:RECORDS_MAX]))

    async def addresses(self, host: str) -> Answer:
        """Look the addresses of ``host`` up: IPv6 and IPv4; by the system (its hosts file too) unless one is named."""
        if is_ip_address(host):
            return Answer(question=host, addresses=(host.strip("[]"),))
        if not self._named:
            return await self._system(host)
        found: list[str] = []
        failures = []
        for kind in ("AAAA", "A"):
            answer = await self._ask(host, kind)
            if isinstance(answer, str):
                failures.append(answer)
            else:
                found += [record.address for record in answer if record.rdtype.name == kind][:ADDRESSES_MAX]
        return Answer(question=host, addresses=tuple(found), failure=failures[0] if failures and not found else None)

    async def tlsa(self, name: str) -> bool:
        """Return whether there are TLSA records of that name."""
        answer = await self._ask(name, "TLSA")
        return not isinstance(answer, str) and len(answer) > 0

    async def _system(self, host: str) -> Answer:
        with trio.CancelScope(deadline=trio.current_time() + self._seconds_max) as scope:
            try:
                infos = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                if isinstance(error, socket.gaierror) and error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
                    return Answer(question=host)
                said = error.strerror if isinstance(error, OSError) else None
                return Answer(question=host, failure=said or "it is no host name")
        if scope.cancelled_caught:
            return Answer(question=host, failure=f"no answer within {self._seconds_max:g} s")
        every = dict.fromkeys(str(info[4][0]) for info in infos)
        kept = [
            address
            for family in (6, 4)
            for address in [each for each in every if _family(each) == family][:ADDRESSES_MAX]
        ]
        return Answer(question=host, addresses=tuple(kept))

    async def _ask(self, name: str, kind: str) -> "dns.rdataset.Rdataset | tuple[()] | str":
        """Return the records, none, or why nothing is known."""
        if self._resolver is None:
            return "this system has no resolv.conf: name a server with --nameserver"
        try:
            question = dns.name.from_text(name)
            answer = await self._resolver.resolve(question, kind, lifetime=self._seconds_max, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return ()
        except dns.exception.Timeout:
            return f"no answer within {self._seconds_max:g} s"
        except dns.resolver.NoNameservers:
            return "the name server failed (SERVFAIL or refused)"
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return f"{type(error).__name__}"
        assert answer.rrset is not None
        return answer.rrset


def _family(address: str) -> int:
    return ipaddress.ip_address(address.partition("%")[0]).version


DANE_FIX: Final = "--cert FILE --key FILE with the server's own, or a TLSA record of xproxy's certificate"


async def check_dane(resolver: Resolver, leads: list["Leads"]) -> Finding | None:
    """Say whether the certificate is bound by DNS (RFC 7673 section 4): TLSA records of what SRV leads to."""
    names = [f"_{record.port}._tcp.{record.target}" for each in leads for record, _ in each.targets]
    found = []
    for name in dict.fromkeys(names):
        answer = await resolver.tlsa(name)
        if answer:
            found.append(name)
    if not found:
        return None
    return Finding(
        check="dane",
        severity=Severity.WARNING,
        finding=f"DNS names the certificates that may be shown: TLSA {listed(found)}",
        seen="asked DNS for TLSA records of what SRV leads to",
        consequence="clients that check them (DANE) refuse a certificate of xproxy's own authority",
        fixes=(Fix("xproxy", DANE_FIX),),
    )


@attrs.frozen(kw_only=True)
class Leads:
    """Where one service's records lead, each target with its addresses."""

    service: Service
    answer: Answer
    targets: tuple[tuple[Srv, Answer], ...] = ()


async def follow(resolver: Resolver, domain: str, service: Service) -> Leads:
    """Look the records up and the hosts they name."""
    answer = await resolver.services(domain, service)
    known: dict[str, Answer] = {}

    async def look_up(target: str) -> None:
        known[target] = await resolver.addresses(target)

    async with trio.open_nursery() as nursery:  # all at once: a name server that is slow is so sixteen times
        for target in {record.target for record in answer.srv if record.target}:
            nursery.start_soon(look_up, target)
    return Leads(
        service=service,
        answer=answer,
        targets=tuple((record, known[record.target]) for record in answer.srv if record.target),
    )


def check_leads(leads: Leads, *, host: str, addresses: tuple[str, ...], ports: tuple[int, ...]) -> Finding:
    """Say what the records mean for who uses them, with xproxy before the server at ``host``, one of ``ports``."""
    answer, seen = leads.answer, f"asked DNS for {leads.answer.question}"
    check = f"dns-{leads.service}"
    here = f"{host}, port {' or '.join(map(str, ports))}"
    if answer.failure is not None:
        return Finding(
            check=check,
            severity=Severity.WARNING,
            finding=f"whether there are SRV records {answer.question} is not known: {answer.failure}",
            seen=seen,
            consequence="clients that use DNS may be led round xproxy, or may not",
            fixes=(Fix("xproxy", "xproxy doctor --nameserver ADDRESS[:PORT] asks another name server"),),
        )
    if not answer.srv:
        fallback = "clients without a host setting go to port 5222 of the domain's own address (RFC 6120 section 3.2.2)"
        return Finding(
            check=check,
            severity=Severity.NOTE if leads.service == "xmpp-client" else Severity.OK,
            finding=f"there are no SRV records {answer.question}",
            seen=seen,
            consequence=fallback if leads.service == "xmpp-client" else "no client is led to a port for direct TLS",
        )
    if not leads.targets:
        return Finding(
            check=check,
            severity=Severity.NOTE,
            finding=f'the SRV record {answer.question} is ".": the service is decidedly not offered (RFC 2782)',
            seen=seen,
            consequence="clients that use DNS do not connect by it; who has a host setting reaches xproxy all the same",
        )
    elsewhere = [
        str(record)
        for record, found in leads.targets
        if record.port not in ports or set(found.addresses).isdisjoint(addresses)
    ]
    everything = listed([str(record) for record, _ in leads.targets])
    record = leads.targets[0][0]
    fix = Fix("DNS", f"{answer.question}. SRV {record.priority} {record.weight} <port of xproxy> <host of xproxy>.")
    if elsewhere:
        return Finding(
            check=check,
            severity=Severity.WARNING,
            finding=f"SRV {answer.question} leads to {listed(elsewhere)}, not to {here}",
            seen=f"{seen}, and for the addresses of its targets",
            consequence="clients without a host setting go there, round xproxy, and are in no log",
            fixes=(fix,),
        )
    return Finding(
        check=check,
        severity=Severity.NOTE,
        finding=f"SRV {answer.question} leads to {everything}, the server itself",
        seen=f"{seen}, and for the addresses of its targets",
        consequence="clients that use DNS reach xproxy only if it takes over that address and port, or the name",
        fixes=(fix,),
    )


def check_addresses(answer: Answer) -> Finding:
    """Say whether the host has addresses, of which families."""
    families = {_family(address) for address in answer.addresses}
    if not families:
        why = answer.failure or "there is none by that name"
        return Finding(
            check="address",
            severity=Severity.PROBLEM,
            finding=f"the host {answer.question} has no address: {why}",
            seen="asked for its A and AAAA records",
            consequence="xproxy does not start: it looks the server up first",
            fixes=(Fix("xproxy", "--upstream ADDRESS:PORT takes an address as well as a name"),),
        )
    return Finding(
        check="address",
        severity=Severity.OK,
        finding=f"{answer.question} is {listed(answer.addresses)}",
        seen="asked for its A and AAAA records" if answer.question not in answer.addresses else "given as an address",
    )
