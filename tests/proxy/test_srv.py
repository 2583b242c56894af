"""The way by SRV records."""

import random
from collections import Counter
from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from xproxy.config.upstream import UpstreamTls
from xproxy.events.connection import ServerTls, UpstreamFailure, Via
from xproxy.proxy.route import Asked, Candidate, NoCandidate
from xproxy.proxy.srv import LookupFailed, Service, Srv, SrvRoute, ascii_domain, in_order

DOMAIN = "example.org"


def record(
    host: str, priority: int = 10, weight: int = 5, *, tls: ServerTls = ServerTls.STARTTLS, port: int = 5222
) -> Srv:
    return Srv(priority=priority, weight=weight, host=host, port=port, tls=tls)


def hosts(records: list[Srv]) -> list[str]:
    return [each.host for each in records]


class Dns:
    """Knows what it is told: a host is its own address in 127.0.0.0/8 unless ``addresses`` says otherwise."""

    def __init__(
        self,
        *,
        clear: list[Srv] | Service | UpstreamFailure = Service.UNKNOWN,
        direct: list[Srv] | Service | UpstreamFailure = Service.UNKNOWN,
        addresses: dict[str, list[str] | UpstreamFailure] | None = None,
    ) -> None:
        self.known = {ServerTls.STARTTLS: clear, ServerTls.DIRECT: direct}
        self.known_addresses = addresses or {}
        self.asked: list[str] = []

    async def services(self, domain: str, kind: ServerTls) -> list[Srv] | Service:
        await trio.lowlevel.checkpoint()
        self.asked.append(f"{kind.value} {domain}")
        answer = self.known[kind]
        if isinstance(answer, UpstreamFailure):
            raise LookupFailed(answer)
        return answer

    async def addresses(self, host: str) -> list[str]:
        await trio.lowlevel.checkpoint()
        self.asked.append(host)
        answer = self.known_addresses.get(host, ["127.0.0.1"])
        if isinstance(answer, UpstreamFailure):
            raise LookupFailed(answer)
        return answer


def route(
    dns: Dns,
    *domains: str,
    tls: UpstreamTls = "same",
    private: bool = False,
    clear_anywhere: bool = False,
    randbelow: Callable[[int], int] = lambda n: 0,
) -> SrvRoute:
    return SrvRoute(
        names=dns,
        randbelow=randbelow,
        domains=frozenset(domains or (DOMAIN,)),
        tls=tls,
        private_addresses=private,
        clear_anywhere=clear_anywhere,
    )


async def found(route: SrvRoute, domain: str | None = DOMAIN, *, direct: bool = False) -> list[Candidate | NoCandidate]:
    return [each async for each in route.candidates(Asked(direct=direct, domain=domain))]


async def the_reason(route: SrvRoute, domain: str | None = DOMAIN) -> UpstreamFailure:
    (place,) = await found(route, domain)
    assert isinstance(place, NoCandidate)
    return place.reason


# The order ------------------------------------------------------------------------------------------------------------


def test_priorities_come_before_weights() -> None:
    records = [record("c", 20, 100), record("a", 5, 0), record("b", 10, 1)]
    assert hosts(in_order(records, random.Random(1).randrange)) == ["a", "b", "c"]


def test_weights_are_shares() -> None:
    """RFC 2782: the chance to be first is the share in the sum of the weights."""
    rng = random.Random(2782)
    records = [record("light", weight=1), record("heavy", weight=3)]
    first = Counter(in_order(records, rng.randrange)[0].host for _ in range(4_000))
    # A number from 0 to 4: 0 and 1 are the light one's, 2 to 4 the heavy one's, as the RFC's own algorithm has it.
    assert 0.36 < first["light"] / 4_000 < 0.44


def test_weight_zero_is_seldom_first_and_never_left_out() -> None:
    rng = random.Random(0)
    records = [record("heavy", weight=99), record("zero", weight=0)]
    orders = Counter(tuple(hosts(in_order(records, rng.randrange))) for _ in range(4_000))
    assert 0 < orders["zero", "heavy"] < 100
    assert sum(orders.values()) == 4_000


def test_nothing_but_weights_of_zero() -> None:
    assert hosts(in_order([record("a", weight=0), record("b", weight=0)], lambda n: 0)) == ["a", "b"]


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 65_535)), max_size=20), st.randoms(use_true_random=False))
def test_each_record_has_its_turn_once(pairs: list[tuple[int, int]], rng: random.Random) -> None:
    records = [record(str(number), priority, weight) for number, (priority, weight) in enumerate(pairs)]
    ordered = in_order(records, rng.randrange)
    assert sorted(hosts(ordered)) == sorted(hosts(records))
    assert [each.priority for each in ordered] == sorted(each.priority for each in records)


# The candidates -------------------------------------------------------------------------------------------------------


async def test_both_kinds_are_mixed_and_each_keeps_its_tls() -> None:
    dns = Dns(
        clear=[record("first", 1), record("third", 3)],
        direct=[record("second", 2, tls=ServerTls.DIRECT, port=443)],
        addresses={"second": ["127.0.0.2", "::1"]},
    )
    assert await found(route(dns)) == [
        Candidate(
            host="first", address="127.0.0.1", port=5222, tls=ServerTls.STARTTLS, via=Via.SRV, priority=1, weight=5
        ),
        Candidate(
            host="second", address="127.0.0.2", port=443, tls=ServerTls.DIRECT, via=Via.SRV, priority=2, weight=5
        ),
        Candidate(host="second", address="::1", port=443, tls=ServerTls.DIRECT, via=Via.SRV, priority=2, weight=5),
        Candidate(
            host="third", address="127.0.0.1", port=5222, tls=ServerTls.STARTTLS, via=Via.SRV, priority=3, weight=5
        ),
    ]


async def test_a_name_is_looked_up_when_its_turn_comes() -> None:
    dns = Dns(clear=[record("first", 1), record("second", 2)])
    candidates = route(dns).candidates(Asked(direct=False, domain=DOMAIN))
    await anext(candidates)
    assert dns.asked[-1] == "first"
    await candidates.aclose()
    assert "second" not in dns.asked


@pytest.mark.parametrize(
    ("tls", "asked", "kind"),
    [
        ("starttls", [f"starttls {DOMAIN}"], ServerTls.STARTTLS),
        ("direct", [f"direct {DOMAIN}"], ServerTls.DIRECT),
        ("none", [f"starttls {DOMAIN}"], ServerTls.NONE),
    ],
)
async def test_one_kind_if_told_so(tls: UpstreamTls, asked: list[str], kind: ServerTls) -> None:
    dns = Dns(clear=[record("clear")], direct=[record("direct", tls=ServerTls.DIRECT)])
    (candidate,) = await found(route(dns, tls=tls))
    assert isinstance(candidate, Candidate)
    assert dns.asked[:-1] == asked
    assert candidate.tls is kind


async def test_without_any_record_the_domain_itself_is_tried() -> None:
    assert await found(route(Dns())) == [
        Candidate(host=DOMAIN, address="127.0.0.1", port=5222, tls=ServerTls.STARTTLS, via=Via.FALLBACK)
    ]


@pytest.mark.parametrize(
    ("clear", "direct", "reason"),
    [
        (Service.NOT_OFFERED, Service.NOT_OFFERED, UpstreamFailure.NOT_OFFERED),
        (Service.NOT_OFFERED, Service.UNKNOWN, UpstreamFailure.NOT_OFFERED),
        (UpstreamFailure.LOOKUP_TIMEOUT, UpstreamFailure.LOOKUP_TIMEOUT, UpstreamFailure.LOOKUP_TIMEOUT),
        (Service.UNKNOWN, UpstreamFailure.LOOKUP_FAILED, UpstreamFailure.LOOKUP_FAILED),
    ],
)
async def test_no_way_to_the_domain(
    clear: Service | UpstreamFailure, direct: Service | UpstreamFailure, reason: UpstreamFailure
) -> None:
    assert await the_reason(route(Dns(clear=clear, direct=direct))) is reason


async def test_direct_tls_that_is_not_offered_leaves_the_rest() -> None:
    (fallback,) = await found(route(Dns(direct=Service.NOT_OFFERED)))
    assert isinstance(fallback, Candidate)
    assert fallback.via is Via.FALLBACK
    (other,) = await found(route(Dns(direct=Service.NOT_OFFERED, clear=[record("a")])))
    assert isinstance(other, Candidate)


async def test_one_kind_that_is_not_answered_leaves_the_other() -> None:
    (candidate,) = await found(route(Dns(direct=UpstreamFailure.LOOKUP_TIMEOUT, clear=[record("a")])))
    assert isinstance(candidate, Candidate)


async def test_direct_tls_alone_has_no_fallback() -> None:
    assert await the_reason(route(Dns(), tls="direct")) is UpstreamFailure.NOT_OFFERED


async def test_a_server_that_is_unknown_leaves_the_next() -> None:
    dns = Dns(clear=[record("gone", 1), record("here", 2)], addresses={"gone": UpstreamFailure.UNKNOWN_HOST})
    first, second = await found(route(dns))
    assert first == NoCandidate(host="gone", port=5222, reason=UpstreamFailure.UNKNOWN_HOST)
    assert isinstance(second, Candidate)


# Which domains --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["EXAMPLE.org", "example.org.", "Example.Org"])
async def test_a_domain_is_a_name_of_the_dns(domain: str) -> None:
    (candidate,) = await found(route(Dns()), domain)
    assert isinstance(candidate, Candidate)


async def test_letters_beyond_ascii() -> None:
    dns = Dns()
    await found(route(dns, ascii_domain("bücher.example")), "Bücher.example")
    assert "starttls xn--bcher-kva.example" in dns.asked


@pytest.mark.parametrize("domain", ["other.example", "sub.example.org", "example.org.evil.example", "127.0.0.1"])
async def test_other_domains_are_not_even_asked_for(domain: str) -> None:
    dns = Dns()
    assert await the_reason(route(dns), domain) is UpstreamFailure.DOMAIN_NOT_ALLOWED
    assert dns.asked == []


@pytest.mark.parametrize("domain", [None, "a..b", "a@example.org", "x" * 64 + ".example", ""])
async def test_no_domain(domain: str | None) -> None:
    assert await the_reason(route(Dns(), "*"), domain) is UpstreamFailure.NO_DOMAIN


PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "192.168.1.1",
    "169.254.1.1",
    "::1",
    "fd00::1",
    "fe80::1",
    "0.0.0.0",
    "::ffff:10.0.0.1",
]


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_strangers_domain_leads_into_no_private_network(address: str) -> None:
    dns = Dns(clear=[record("trap")], addresses={"trap": [address]})
    assert await the_reason(route(dns, "*"), "stranger.example") is UpstreamFailure.ADDRESS_NOT_ALLOWED
    for allowed in (route(dns, "*", private=True), route(dns, "*", "stranger.example")):
        (candidate,) = await found(allowed, "stranger.example")
        assert isinstance(candidate, Candidate)


async def test_a_strangers_domain_leads_to_public_addresses() -> None:
    dns = Dns(clear=[record("a")], addresses={"a": ["9.9.9.9", "2620:fe::fe", "::ffff:9.9.9.9", "64:ff9b::909:909"]})
    assert all(isinstance(each, Candidate) for each in await found(route(dns, "*"), "stranger.example"))


@pytest.mark.parametrize("domain", ["127.0.0.1", "[::1]", "8.8.8.8"])
async def test_an_address_is_no_domain_unless_it_is_listed(domain: str) -> None:
    assert await the_reason(route(Dns(), "*"), domain) is UpstreamFailure.DOMAIN_NOT_ALLOWED
    dns = Dns()
    (candidate,) = await found(route(dns, ascii_domain(domain)), domain)
    assert isinstance(candidate, Candidate)
    assert (candidate.address, candidate.via) == (domain.strip("[]"), Via.FALLBACK)
    assert dns.asked == []


async def test_in_clear_only_to_this_machine() -> None:
    dns = Dns(clear=[record("a")], addresses={"a": ["9.9.9.9"]})
    assert await the_reason(route(dns, tls="none")) is UpstreamFailure.CLEAR_NOT_ALLOWED
    (candidate,) = await found(route(dns, tls="none", clear_anywhere=True))
    assert isinstance(candidate, Candidate)
