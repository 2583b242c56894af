"""The examination: what is looked at, in which order, within one deadline.

DNS first, then TCP to every address, then the two ways to begin (STARTTLS, direct TLS), if need be with a PROXY header.
On the first way that shows features the rest is asked: certificate, versions of TLS, what is offered with each, what is
signed; and, only where it was asked for, what takes a login or may ban us. Findings are told as they are made. What was
not come to by the deadline is a finding too.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import attrs
import trio

from xproxy.config.address import HostPort
from xproxy.doctor import bans, certificate, login, offer, proxied, reach, scram, signed, srv
from xproxy.doctor.findings import Finding, Severity
from xproxy.doctor.look import LIMITS, Look, Offered, Visitor, Way
from xproxy.doctor.stop import Step
from xproxy.jid import Jid, JidError, domain_to_ascii
from xproxy.peer.client import Mode
from xproxy.peer.errors import PeerError
from xproxy.tls.verify import Authorities

SECONDS_MAX: Final = 90.0  # for all of it: a dozen connections of which each has STEP_SECONDS_MAX a step
STARTTLS_PORT: Final = 5222  # RFC 6120 section 14.7
REDIRECT: Final = "see-other-host"
DIRECT_TLS_PORT: Final = 5223  # not registered, and everywhere


@attrs.frozen(kw_only=True)
class Patient:
    """Who is examined, and how far."""

    host: str
    port: int | None  # None: as DNS says, else 5222 and 5223
    domain: str
    jid: Jid | None = None
    password: str | None = attrs.field(default=None, repr=False)
    ban_tries: int = 0
    nameserver: HostPort | None = None


@attrs.define(eq=False)
class Diagnosis:
    """What was found."""

    findings: list[Finding] = attrs.field(factory=list)
    is_reached: bool = False  # a TCP connection came about
    connections: int = 0

    @property
    def worst(self) -> Severity:
        """The most severe there is."""
        return max((finding.severity for finding in self.findings), default=Severity.OK)


@attrs.define(eq=False)
class _Examination:
    """One run."""

    patient: Patient
    resolver: srv.Resolver
    visitor: Visitor
    tell: Callable[[Finding], None]
    say: Callable[[str], None]
    now: Callable[[], datetime]
    diagnosis: Diagnosis = attrs.field(factory=Diagnosis)
    stage: str = "DNS"

    def found(self, *findings: Finding | None) -> None:
        for finding in findings:
            if finding is not None:
                self.diagnosis.findings.append(finding)
                self.tell(finding)

    def begin(self, stage: str) -> None:
        self.stage = stage
        self.say(stage)

    async def run(self) -> None:
        patient = self.patient
        self.begin("DNS")
        leads = await self._leads()
        starttls_at, direct_at = self._places(leads)
        addresses = await self.resolver.addresses(starttls_at.host)
        for each in leads:
            self.found(
                srv.check_leads(
                    each, host=patient.host, addresses=addresses.addresses, ports=(starttls_at.port, direct_at.port)
                )
            )
        self.found(await srv.check_dane(self.resolver, leads), srv.check_addresses(addresses))
        self.begin("the addresses")
        address = await self._touch(addresses.addresses, (starttls_at.port, direct_at.port))
        if address is None:
            return
        direct_address = address
        if direct_at.host != starttls_at.host:
            others = (await self.resolver.addresses(direct_at.host)).addresses
            direct_address = others[0] if others else address
        self.begin("STARTTLS and direct TLS")
        starttls, direct = await self._ways(
            Way(address=address, port=starttls_at.port, mode=Mode.STARTTLS),
            Way(address=direct_address, port=direct_at.port, mode=Mode.DIRECT_TLS),
        )
        way = starttls.way if starttls.secured or (starttls.clear and not direct.secured) else direct.way
        if not (starttls.clear or direct.secured):
            self.found(reach.check_stream(starttls) or reach.check_stream(direct))
            return
        self.found(
            reach.check_modes(starttls, direct),
            reach.check_alpn(direct),
            *offer.check_starttls(starttls),
            *(reach.check_stream(look) for look in (starttls, direct) if look.stop and look.stop.reason == REDIRECT),
        )
        chosen = starttls if way == starttls.way else direct
        if chosen.stop is not None and chosen.stop.reason != REDIRECT:
            self.found(reach.check_stream(chosen))
        await self._above_tls(way, chosen)
        other = direct if chosen is starttls else starttls
        if other.tls is not None and other.way.port != way.port:
            self.begin("the other port's certificate")
            await self._certificate(other, only_bad=True)
        self.found(reach.check_throttle(self.visitor.refused))
        self.begin("failed logins")
        await self._bans(way)

    async def _above_tls(self, way: Way, first: Look) -> None:
        self.found(reach.check_latency(first))
        offers: dict[int, Offered] = {}
        if first.tls is not None:
            self.begin("the certificate")
            await self._certificate(first)
            self.begin("the versions of TLS")
            versions = {each: await self.visitor.look(way, version=each) for each in certificate.VERSIONS}
            self.found(*certificate.check_versions(versions))
            offers = {version: look.secured for version, look in versions.items() if version >= 0x0303 and look.secured}
            self.found(*offer.check_mechanisms(offers))
        seen = f"read the features at {way}"
        shown = [each for each in (first.clear, first.secured) if each is not None]
        self.found(*offer.check_compression(shown, seen), offer.check_limits(shown[-1], seen, LIMITS))
        self.begin("what is signed")
        await self._signed(way, offers)
        self.begin("the login")
        await self._login(way)

    async def _certificate(self, believing: Look, *, only_bad: bool = False) -> None:
        verifying = await self.visitor.look(believing.way, verify=True)
        found = certificate.check_certificate(verifying, believing, domain=self.patient.domain, now=self.now())
        self.found(*(each for each in found if not only_bad or each.severity > Severity.OK))

    # DNS and TCP.

    async def _leads(self) -> list[srv.Leads]:
        try:
            domain = domain_to_ascii(self.patient.domain)
        except JidError:  # an address: there is nothing to ask
            return []
        found: dict[str, srv.Leads] = {}

        async def follow(service: srv.Service) -> None:
            found[service] = await srv.follow(self.resolver, domain, service)

        async with trio.open_nursery() as nursery:
            for service in srv.SERVICES:
                nursery.start_soon(follow, service)
        return [found[service] for service in srv.SERVICES]

    def _places(self, leads: list[srv.Leads]) -> tuple[HostPort, HostPort]:
        """Return where to begin with STARTTLS and where with TLS."""
        patient = self.patient
        if patient.port is not None:
            return HostPort(patient.host, patient.port), HostPort(patient.host, patient.port)
        places = [HostPort(patient.host, STARTTLS_PORT), HostPort(patient.host, DIRECT_TLS_PORT)]
        if patient.host == patient.domain:
            for number, each in enumerate(leads):
                if each.targets:
                    record = each.targets[0][0]
                    places[number] = HostPort(record.host, record.port)
        return places[0], places[1]

    async def _touch(self, addresses: tuple[str, ...], ports: tuple[int, int]) -> str | None:
        """Connect to every address; return the first that answers."""
        touched: dict[str, Look] = {}

        async def touch(address: str) -> None:
            look = await self.visitor.touch(Way(address=address, port=ports[0], mode=Mode.CLEAR))
            if look.connect_seconds is None and ports[1] != ports[0]:
                other = await self.visitor.touch(Way(address=address, port=ports[1], mode=Mode.CLEAR))
                look = other if other.connect_seconds is not None else look
            touched[address] = look

        async with trio.open_nursery() as nursery:  # at once: addresses that swallow everything cost one timeout
            for address in addresses:
                nursery.start_soon(touch, address)
        every = [touched[address] for address in addresses]
        families: dict[str, list[Look]] = {}
        for look in every:
            families.setdefault(reach.family_of(look), []).append(look)
        answering = [look for look in every if look.connect_seconds is not None]
        for family, looks in families.items():
            others = any(look not in looks for look in answering)
            self.found(reach.check_family(family, looks, other_answers=others))
        self.diagnosis.is_reached = bool(answering)
        return answering[0].way.address if answering else None

    async def _ways(self, starttls: Way, direct: Way) -> tuple[Look, Look]:
        """Look at both, without a PROXY header and, as a check of its own, with one."""
        looks = [await self.visitor.look(way) for way in (starttls, direct)]
        works = next((look for look in looks if look.secured), None) or next(
            (look for look in looks if look.clear), None
        )
        plain = works or next((look for look in looks if look.stop and look.stop.step is not Step.CONNECT), looks[0])
        self.begin("the PROXY protocol")
        headed = await self.visitor.look(attrs.evolve(plain.way, proxied=True))
        if works is None and not (headed.clear or headed.secured):
            other = direct if plain.way == starttls else starttls
            headed = await self.visitor.look(attrs.evolve(other, proxied=True))
        self.found(proxied.check_proxy_protocol(plain, headed))
        if works is None and (headed.clear or headed.secured):
            looks = [
                headed if way.mode is headed.way.mode else await self.visitor.look(attrs.evolve(way, proxied=True))
                for way in (starttls, direct)
            ]
        return looks[0], looks[1]

    # What takes a name, a password, or leave.

    async def _signed(self, way: Way, offers: dict[int, Offered]) -> None:
        jid = self.patient.jid
        mechanism = scram.choose(offers[max(offers)].mechanisms) if offers else None
        if jid is None or jid.local is None:
            self.found(signed.not_asked("no --jid is given"))
            return
        if mechanism is None:
            self.found(signed.not_asked("no SCRAM mechanism is offered above TLS"))
            return
        version = max(offers)
        first = await self._ask(way, jid.local, mechanism, version, "n")
        if first is None:
            self.found(signed.not_asked("the connection ended before the answer"))
            return
        self.found(*signed.check_server_first(first, offers[version], certificate.VERSIONS[version]))
        answers = {}
        for each, offered in offers.items():
            if not any(name.endswith("-PLUS") for name in offered.mechanisms):
                chosen = scram.choose(offered.mechanisms)
                answer = await self._ask(way, jid.local, chosen, each, "y") if chosen else None
                if answer is not None:
                    answers[each] = answer
        if answers and first.challenge is not None:
            self.found(signed.check_gs2_y(answers))

    async def _ask(self, way: Way, user: str, mechanism: str, version: int, flag: str) -> scram.ServerFirst | None:
        async with self.visitor.visit(way, version=version) as (client, look):
            if look.stop is not None or look.secured is None:
                return None
            try:
                return await scram.ask(client, user, mechanism, gs2_flag=flag)
            except PeerError:
                return None

    async def _login(self, way: Way) -> None:
        jid, password = self.patient.jid, self.patient.password
        if jid is None or jid.local is None or password is None:
            self.found(login.not_tried("there was no login"))
            return
        async with self.visitor.visit(way, verify=True) as (client, look):
            if look.stop is not None or look.tls is None:
                unproven = look.stop is None or look.stop.tls is not None
                why = "without TLS and a certificate that is valid no password is sent"
                self.found(login.not_tried(why if unproven or not look.stop else f"the server {look.stop.text}"))
                return
            try:
                await login.log_in(client, look, jid.local, password, self.found)
            except PeerError as error:
                self.found(login.not_tried(f"the connection ended: {error}"))

    async def _bans(self, way: Way) -> None:
        if not self.patient.ban_tries:
            self.found(bans.not_tried())
            return
        try:
            self.found(await bans.try_bans(self.visitor, way, self.patient.ban_tries))
        except PeerError as error:
            self.found(attrs.evolve(bans.not_tried(), seen=f"tried, and the server behaved oddly: {error}"))


async def examine(
    patient: Patient,
    authorities: Authorities,
    *,
    tell: Callable[[Finding], None],
    say: Callable[[str], None] = lambda stage: None,
    seconds_max: float = SECONDS_MAX,
    step_seconds_max: float | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Diagnosis:
    """Examine ``patient``; ``tell`` gets each finding as it is made, ``say`` what is looked at now.

    Raises: UsageProblem for a name server that is no address; HandshakeRefused for a domain that is no name.
    """
    visitor = Visitor(domain=patient.domain, authorities=authorities, now=now)
    if step_seconds_max is not None:
        visitor.seconds_max = step_seconds_max
    examination = _Examination(patient, srv.Resolver(patient.nameserver), visitor, tell, say, now)
    with trio.move_on_after(seconds_max) as scope:
        await examination.run()
    if scope.cancelled_caught:
        examination.found(
            Finding(
                check="deadline",
                severity=Severity.WARNING,
                finding=f"not all was looked at: {seconds_max:g} s were over at {examination.stage}",
                seen=f"made {visitor.connections} connections",
                consequence="what comes behind it is not known",
            )
        )
    examination.diagnosis.connections = visitor.connections
    return examination.diagnosis
