"""Where DNS leads clients of the domain (RFC 6120 section 3.2, RFC 2782, XEP-0368), and where the server's host is."""

import ipaddress
import socket
from typing import Final, Literal

import attrs
import trio

from xproxy.config.address import HostPort
from xproxy.config.upstream import UpstreamSettings
from xproxy.doctor.findings import Finding, Fix, Severity, listed
from xproxy.errors import EnvironmentProblem, UsageProblem
from xproxy.events.connection import ServerTls, UpstreamFailure
from xproxy.jid import is_ip_address
from xproxy.proxy import resolve
from xproxy.proxy.srv import LookupFailed, Srv
from xproxy.proxy.srv import Service as NoServers

LOOKUP_SECONDS_MAX: Final = 5.0  # as libc's resolver waits for one answer
RECORDS_MAX: Final = 16  # of one answer that are looked at: an answer over TCP may hold thousands
ADDRESSES_MAX: Final = 4  # of each family that are tried

Service = Literal["xmpp-client", "xmpps-client"]
SERVICES: Final[tuple[Service, ...]] = ("xmpp-client", "xmpps-client")
_KINDS: Final = {"xmpp-client": ServerTls.STARTTLS, "xmpps-client": ServerTls.DIRECT}


@attrs.frozen(kw_only=True)
class Answer:
    """What came of one question."""

    question: str
    srv: tuple[Srv, ...] = ()  # in the order clients try them, weights aside
    not_offered: bool = False  # the one record is "." (RFC 2782)
    addresses: tuple[str, ...] = ()
    failure: str | None = None  # why nothing is known; None with nothing in it: there is no such record


class Resolver:
    """Asks the name server that is named, else the system's; addresses then by the system, its hosts file too.

    ``xproxy.proxy.resolve`` does the asking: what is found here the proxy would find with ``--upstream srv``.
    """

    def __init__(self, nameserver: HostPort | None, *, seconds_max: float = LOOKUP_SECONDS_MAX) -> None:
        """Raises: UsageProblem where the name server is no address."""
        if nameserver is not None and not is_ip_address(nameserver.host):
            raise UsageProblem(f"the name server {nameserver.host!r} is no address", "write 192.0.2.53 or [::1]:5353")
        self._seconds_max = seconds_max
        self._is_named = nameserver is not None
        self._names: resolve.Resolver | None = None
        settings = UpstreamSettings(
            nameservers=None if nameserver is None else (nameserver,), lookup_seconds_max=seconds_max
        )
        try:
            self._names = resolve.open_resolver(settings)
        except EnvironmentProblem as problem:
            self._missing = problem.message

    async def services(self, domain: str, service: Service) -> Answer:
        """Look the SRV records of a service up; ``domain`` in A-labels."""
        question = f"_{service}._tcp.{domain}"
        if self._names is None:
            return Answer(question=question, failure=self._missing)
        try:
            found = await self._names.services(domain, _KINDS[service])
        except LookupFailed as failed:
            return Answer(question=question, failure=self._why(failed))
        if isinstance(found, NoServers):
            return Answer(question=question, not_offered=found is NoServers.NOT_OFFERED)
        found.sort(key=lambda each: (each.priority, -each.weight, each.host, each.port))
        return Answer(question=question, srv=tuple(found[:RECORDS_MAX]))

    async def addresses(self, host: str) -> Answer:
        """Look the addresses of ``host`` up, IPv6 and IPv4."""
        if is_ip_address(host):
            return Answer(question=host, addresses=(host.strip("[]"),))
        if not self._is_named or self._names is None:
            return await self._system(host)
        found: list[str] = []
        failure = None
        for kind in ("AAAA", "A"):
            try:
                found += (await self._names.texts(host, kind))[:ADDRESSES_MAX]
            except LookupFailed as failed:
                failure = self._why(failed)
        return Answer(question=host, addresses=tuple(found), failure=None if found else failure)

    async def tlsa(self, name: str) -> bool:
        """Return whether there are TLSA records of that name."""
        try:
            return self._names is not None and bool(await self._names.texts(name, "TLSA"))
        except LookupFailed:
            return False

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

    def _why(self, failed: LookupFailed) -> str:
        if failed.reason is UpstreamFailure.LOOKUP_TIMEOUT:
            return f"no answer within {self._seconds_max:g} s"
        return "the name server failed or refused (SERVFAIL, REFUSED)"


def _family(address: str) -> int:
    return ipaddress.ip_address(address.partition("%")[0]).version


DANE_FIX: Final = "--cert FILE --key FILE with the server's own, or a TLSA record of xproxy's certificate"


async def check_dane(resolver: Resolver, leads: list["Leads"]) -> Finding | None:
    """Say whether the certificate is bound by DNS (RFC 7673 section 4): TLSA records of what SRV leads to."""
    names = [f"_{record.port}._tcp.{record.host}" for each in leads for record, _ in each.targets]
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
        for target in {record.host for record in answer.srv}:
            nursery.start_soon(look_up, target)
    return Leads(
        service=service,
        answer=answer,
        targets=tuple((record, known[record.host]) for record in answer.srv),
    )


def _shown(record: Srv) -> str:
    return f"{record.host}:{record.port}"


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
    if not answer.srv and not answer.not_offered:
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
        _shown(record)
        for record, found in leads.targets
        if record.port not in ports or set(found.addresses).isdisjoint(addresses)
    ]
    everything = listed([_shown(record) for record, _ in leads.targets])
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
