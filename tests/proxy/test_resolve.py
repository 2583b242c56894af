"""The DNS as it answers: a real name server, and ones that do not answer as they should."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
import trio

from tests.support import dns as dns_support
from tests.support.dns import NameServer, host, not_offered, running_dns, srv
from xproxy.config.address import HostPort
from xproxy.config.upstream import UpstreamSettings
from xproxy.errors import EnvironmentProblem
from xproxy.events.connection import ServerTls, UpstreamFailure
from xproxy.proxy import resolve
from xproxy.proxy.resolve import BoundedCache, Resolver, open_resolver
from xproxy.proxy.srv import LookupFailed, Service, Srv

CLEAR, DIRECT = ServerTls.STARTTLS, ServerTls.DIRECT

StartDns = Callable[..., NameServer]


@pytest.fixture
def start_dns(tmp_path: Path) -> Iterator[StartDns]:
    """Start a name server."""
    if reason := dns_support.missing():
        pytest.skip(reason)
    with ExitStack() as stack:
        yield lambda *records, **options: stack.enter_context(running_dns(tmp_path, *records, **options))


def resolver(port: int, *, seconds: float = 4.0, **settings: float) -> Resolver:
    return open_resolver(
        UpstreamSettings(
            nameservers=(HostPort("127.0.0.1", port),),
            lookup_seconds_max=seconds,
            **settings,  # type: ignore[arg-type]
        )
    )


@pytest.mark.slow
async def test_records_of_both_kinds(start_dns: StartDns) -> None:
    server = start_dns(
        srv("example.test", target="a.example.test", port=5222, priority=5, weight=7),
        srv("example.test", target="b.example.test", port=5222, priority=10),
        srv("example.test", target="a.example.test", port=443, direct=True),
        host("a.example.test", "127.0.0.9"),
        host("a.example.test", "::1"),
    )
    asking = resolver(server.port)
    clear = await asking.services("example.test", CLEAR)
    assert isinstance(clear, list)
    assert sorted(clear, key=lambda each: each.priority) == [
        Srv(priority=5, weight=7, host="a.example.test", port=5222, tls=CLEAR),
        Srv(priority=10, weight=0, host="b.example.test", port=5222, tls=CLEAR),
    ]
    assert await asking.services("example.test", DIRECT) == [
        Srv(priority=0, weight=0, host="a.example.test", port=443, tls=DIRECT)
    ]
    assert await asking.addresses("a.example.test") == ["::1", "127.0.0.9"]


@pytest.mark.slow
async def test_what_is_not_there(start_dns: StartDns) -> None:
    server = start_dns(not_offered("none.test"), not_offered("none.test", direct=True), host("a.test", "127.0.0.9"))
    asking = resolver(server.port)
    assert await asking.services("none.test", CLEAR) is Service.NOT_OFFERED
    assert await asking.services("none.test", DIRECT) is Service.NOT_OFFERED
    assert await asking.services("a.test", CLEAR) is Service.UNKNOWN  # NXDOMAIN
    assert await asking.addresses("a.test") == ["127.0.0.9"]  # and no AAAA record: NODATA
    with pytest.raises(LookupFailed) as failed:
        await asking.addresses("gone.test")
    assert failed.value.reason is UpstreamFailure.UNKNOWN_HOST


@pytest.mark.slow
async def test_a_server_that_refuses_to_answer(start_dns: StartDns) -> None:
    asking = resolver(start_dns().port)
    with pytest.raises(LookupFailed) as failed:
        await asking.services("elsewhere.example", CLEAR)
    assert failed.value.reason is UpstreamFailure.LOOKUP_FAILED
    with pytest.raises(LookupFailed) as failed:
        await asking.addresses("elsewhere.example")
    assert failed.value.reason is UpstreamFailure.LOOKUP_FAILED


@pytest.mark.slow
async def test_an_answer_is_kept_for_its_time(start_dns: StartDns, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start_dns(srv("example.test", target="a.test", port=5222), local_ttl=30)
    asking = resolver(server.port)
    now = time.time()
    asked = ["SRV _xmpp-client._tcp.example.test"]
    for seconds, times in ((0, 1), (29, 1), (31, 2)):
        monkeypatch.setattr(time, "time", lambda later=now + seconds: later)
        assert isinstance(await asking.services("example.test", CLEAR), list)
        assert server.queries() == asked * times


@pytest.mark.slow
async def test_those_who_ask_the_same_at_once_get_one_answer(start_dns: StartDns) -> None:
    server = start_dns(srv("example.test", target="a.test", port=5222))
    asking = resolver(server.port)
    answers: list[object] = []

    async def ask() -> None:
        answers.append(await asking.services("example.test", CLEAR))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert len(answers) == 50
    assert all(answer == answers[0] for answer in answers)
    assert len(server.queries()) == 1


class Odd:
    """A name server that answers as it is told, or not at all."""

    def __init__(self, answer: Callable[[dns.message.QueryMessage], dns.message.Message | bytes | None]) -> None:
        self.asked = 0
        self.was_asked = trio.Event()
        self._answer = answer

    async def serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.bind(("127.0.0.1", 0))
            task_status.started(sock.getsockname()[1])
            while True:
                data, where = await sock.recvfrom(4_096)
                self.asked += 1
                self.was_asked.set()
                question = dns.message.from_wire(data)
                assert isinstance(question, dns.message.QueryMessage)
                answer = self._answer(question)
                if answer is not None:
                    await sock.sendto(answer if isinstance(answer, bytes) else answer.to_wire(), where)


def with_rcode(rcode: dns.rcode.Rcode) -> Callable[[dns.message.QueryMessage], dns.message.Message]:
    def answer(question: dns.message.QueryMessage) -> dns.message.Message:
        message = dns.message.make_response(question)
        message.set_rcode(rcode)
        return message

    return answer


def records(*texts: str, kind: str = "SRV", ttl: int = 60) -> Callable[[dns.message.QueryMessage], dns.message.Message]:
    def answer(question: dns.message.QueryMessage) -> dns.message.Message:
        message = dns.message.make_response(question)
        if dns.rdatatype.to_text(question.question[0].rdtype) == kind:
            message.answer.append(dns.rrset.from_text(question.question[0].name, ttl, "IN", kind, *texts))
        return message

    return answer


def nothing(question: dns.message.QueryMessage) -> None:
    return None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (with_rcode(dns.rcode.SERVFAIL), UpstreamFailure.LOOKUP_FAILED),
        (with_rcode(dns.rcode.REFUSED), UpstreamFailure.LOOKUP_FAILED),
        (with_rcode(dns.rcode.FORMERR), UpstreamFailure.LOOKUP_FAILED),
        (nothing, UpstreamFailure.LOOKUP_TIMEOUT),
        (lambda question: b"\x00" * 40, UpstreamFailure.LOOKUP_TIMEOUT),  # no answer to this question
    ],
    ids=["servfail", "refused", "formerr", "silence", "rubbish"],
)
@pytest.mark.slow
async def test_each_failure_of_the_dns_has_its_name(
    answer: Callable[[dns.message.QueryMessage], dns.message.Message | bytes | None], reason: UpstreamFailure
) -> None:
    async with trio.open_nursery() as nursery:
        asking = resolver(await nursery.start(Odd(answer).serve), seconds=0.4)
        for ask in (asking.services("example.test", CLEAR), asking.addresses("example.test")):
            with pytest.raises(LookupFailed) as failed:
                await ask
            assert failed.value.reason is reason
        nursery.cancel_scope.cancel()


async def test_so_many_records_are_used_those_of_the_best_priorities() -> None:
    texts = [f"{1_000 - number} 0 5222 a{number}.test." for number in range(1_000)]
    odd = Odd(records(*texts[-40:]))  # what fits a datagram
    async with trio.open_nursery() as nursery:
        asking = resolver(await nursery.start(odd.serve))
        found = await asking.services("example.test", CLEAR)
        assert isinstance(found, list)
        assert [each.priority for each in found] == list(range(1, resolve.RECORDS_USED_MAX + 1))
        nursery.cancel_scope.cancel()


async def test_a_failure_is_asked_again_and_one_that_was_cancelled_too() -> None:
    odd = Odd(with_rcode(dns.rcode.SERVFAIL))
    async with trio.open_nursery() as nursery:
        asking = resolver(await nursery.start(odd.serve))
        for _ in range(2):
            with pytest.raises(LookupFailed):
                await asking.services("example.test", CLEAR)
        assert odd.asked == 2
        nursery.cancel_scope.cancel()


async def test_who_waits_for_somebody_that_is_cancelled_asks_himself() -> None:
    silent = [True]
    odd = Odd(lambda question: None if silent[0] else records("0 0 5222 a.test.")(question))
    async with trio.open_nursery() as nursery:
        asking = resolver(await nursery.start(odd.serve))
        first = trio.CancelScope()
        answers: list[object] = []

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                answers.append(await asking.services("example.test", CLEAR))

        async with trio.open_nursery() as asking_nursery:
            asking_nursery.start_soon(ask, first)
            await odd.was_asked.wait()
            asking_nursery.start_soon(ask, trio.CancelScope())
            await trio.testing.wait_all_tasks_blocked()
            silent[0] = False
            first.cancel()
        assert len(answers) == 1
        nursery.cancel_scope.cancel()


async def test_one_family_does_not_wait_long_for_the_other() -> None:
    """RFC 8305 section 3: an answer is used 50 ms after it came, though the other family's is still under way."""
    odd = Odd(
        lambda question: (
            records("127.0.0.9", kind="A")(question) if question.question[0].rdtype == dns.rdatatype.A else None
        )
    )
    async with trio.open_nursery() as nursery:
        asking = resolver(await nursery.start(odd.serve), seconds=30)
        with trio.fail_after(5):
            assert await asking.addresses("example.test") == ["127.0.0.9"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", ["a..b", "x" * 64, "a" * 300, "\\"])
async def test_a_name_that_is_none_is_not_asked_for(name: str) -> None:
    asking = resolver(9)
    with pytest.raises(LookupFailed) as failed:
        await asking.addresses(name)
    assert failed.value.reason is UpstreamFailure.UNKNOWN_HOST
    assert await asking.services("x" * 64, CLEAR) is Service.UNKNOWN


def answer_to(
    name: str, *, ttl: int | None, negative: bool = False, soa: bool = True, count: int = 1
) -> dns.resolver.Answer:
    question = dns.message.make_query(name, "SRV")
    response = dns.message.make_response(question)
    owner = dns.name.from_text(name)
    if not negative:
        texts = [f"0 0 {port} a.test." for port in range(1, count + 1)]
        response.answer.append(dns.rrset.from_text(owner, ttl or 0, "IN", "SRV", *texts))
    elif soa:
        response.authority.append(dns.rrset.from_text(owner, ttl or 0, "IN", "SOA", f"a. b. 1 2 3 4 {ttl}"))
    response = dns.message.from_wire(response.to_wire())
    assert isinstance(response, dns.message.QueryMessage)
    return dns.resolver.Answer(owner, dns.rdatatype.SRV, dns.rdataclass.IN, response)


def kept_for(answer: dns.resolver.Answer, **bounds: float) -> float | None:
    cache = BoundedCache(entries_max=10, **{"seconds_max": 100.0, "negative_seconds_max": 10.0} | bounds)  # type: ignore[arg-type]
    key = answer.qname, answer.rdtype, answer.rdclass
    cache.put(key, answer)
    kept = cache.get(key)
    return None if kept is None else kept.expiration - time.time()


def test_no_answer_is_kept_for_longer_than_it_may() -> None:
    assert kept_for(answer_to("a.test.", ttl=50)) == pytest.approx(50, abs=1)
    assert kept_for(answer_to("a.test.", ttl=2**31 - 1)) == pytest.approx(100, abs=1)
    assert kept_for(answer_to("a.test.", ttl=0)) is None
    assert kept_for(answer_to("a.test.", ttl=5, negative=True)) == pytest.approx(5, abs=1)
    assert kept_for(answer_to("a.test.", ttl=50, negative=True)) == pytest.approx(10, abs=1)


def test_a_negative_answer_that_does_not_say_for_how_long_is_not_kept() -> None:
    assert kept_for(answer_to("a.test.", ttl=None, negative=True, soa=False)) is None


def test_an_answer_that_is_too_large_is_not_kept() -> None:
    assert kept_for(answer_to("a.test.", ttl=50, count=64)) is not None
    assert kept_for(answer_to("a.test.", ttl=50, count=65)) is None


def test_the_cache_has_room_for_so_many() -> None:
    cache = BoundedCache(entries_max=3, seconds_max=100, negative_seconds_max=10)
    for number in range(10):
        answer = answer_to(f"{number}.test.", ttl=50)
        cache.put((answer.qname, answer.rdtype, answer.rdclass), answer)
    assert len(cache.data) == 3


def test_no_name_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(**_: object) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(resolve.dns.asyncresolver, "Resolver", unreadable)
    with pytest.raises(EnvironmentProblem, match=r"resolv\.conf"):
        open_resolver(UpstreamSettings())
