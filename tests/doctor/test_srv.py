"""Where DNS leads, with a small name server; with dnsmasq: tests/integration/test_doctor.py."""

from typing import Any

import dns.rcode
import pytest
import trio

from tests.support.crooked import Crooked
from tests.support.examining import Found, examined
from tests.support.nameserver import NameServer
from tests.support.peer import DOMAIN, Trust
from xproxy.config.address import HostPort
from xproxy.doctor.findings import Severity
from xproxy.doctor.srv import Resolver, check_addresses, check_leads, follow
from xproxy.errors import UsageProblem

CLIENT, DIRECT = f"_xmpp-client._tcp.{DOMAIN}", f"_xmpps-client._tcp.{DOMAIN}"


async def checked(nursery: trio.Nursery, server: NameServer, **at: Any) -> tuple[Severity, str]:
    """Return severity and text of what is said about the SRV records for STARTTLS."""
    resolver = Resolver(await nursery.start(server.serve), seconds_max=0.3)
    leads = await follow(resolver, DOMAIN, "xmpp-client")
    given = {"host": "192.0.2.1", "addresses": ("192.0.2.1",), "ports": (5222,), **at}
    finding = check_leads(leads, **given)
    return finding.severity, finding.finding


@pytest.mark.parametrize(
    ("server", "severity", "word"),
    [
        (NameServer(), Severity.NOTE, "no SRV records"),
        (NameServer({(CLIENT, "SRV"): ("0 0 0 .",)}), Severity.NOTE, "decidedly not offered"),
        (
            NameServer({(CLIENT, "SRV"): ("5 0 5222 xmpp.example.test.",), ("xmpp.example.test", "A"): ("192.0.2.1",)}),
            Severity.NOTE,
            "the server itself",
        ),
        (
            NameServer({(CLIENT, "SRV"): ("5 0 5269 xmpp.example.test.",), ("xmpp.example.test", "A"): ("192.0.2.1",)}),
            Severity.WARNING,
            "leads to xmpp.example.test:5269",
        ),
        (
            NameServer(
                {
                    (CLIENT, "SRV"): ("9 0 5222 b.example.test.", "5 0 5222 a.example.test."),
                    ("a.example.test", "A"): ("192.0.2.1",),
                    ("b.example.test", "AAAA"): ("2001:db8::2",),
                }
            ),
            Severity.WARNING,
            "leads to b.example.test:5222",
        ),
        (NameServer(rcode=dns.rcode.SERVFAIL), Severity.WARNING, "SERVFAIL"),
        (NameServer(rcode=dns.rcode.REFUSED), Severity.WARNING, "not known"),
        (NameServer(silent=True), Severity.WARNING, "no answer within 0.3 s"),
    ],
)
async def test_what_the_records_mean(nursery: trio.Nursery, server: NameServer, severity: Severity, word: str) -> None:
    found = await checked(nursery, server)
    assert found[0] is severity
    assert word in found[1]


async def test_an_answer_with_hundreds_of_records_is_cut(nursery: trio.Nursery) -> None:
    records = tuple(f"{number} 0 5222 h{number}.example.test." for number in range(20))
    server = NameServer({(CLIENT, "SRV"): records})
    resolver = Resolver(await nursery.start(server.serve), seconds_max=0.3)
    leads = await follow(resolver, DOMAIN, "xmpp-client")
    assert [record.priority for record, _ in leads.targets] == list(range(16))


async def test_a_name_server_is_an_address() -> None:
    with pytest.raises(UsageProblem, match="no address"):
        Resolver(HostPort("ns.example", 53))


async def test_addresses(nursery: trio.Nursery) -> None:
    server = NameServer({("h.example.test", "A"): ("192.0.2.1",), ("h.example.test", "AAAA"): ("2001:db8::1",)})
    resolver = Resolver(await nursery.start(server.serve))
    answer = await resolver.addresses("h.example.test")
    assert answer.addresses == ("2001:db8::1", "192.0.2.1")
    assert check_addresses(answer).severity is Severity.OK
    assert check_addresses(await resolver.addresses("other.example.test")).severity is Severity.PROBLEM


async def test_the_systems_names(nursery: trio.Nursery) -> None:
    answer = await Resolver(None).addresses("localhost")
    assert "127.0.0.1" in answer.addresses
    assert (await Resolver(None).addresses("::1")).addresses == ("::1",)
    missing = await Resolver(None, seconds_max=2).addresses("nobody.invalid")
    assert missing.addresses == ()
    assert check_addresses(missing).severity is Severity.PROBLEM


async def found_at_domain(
    nursery: trio.Nursery, trust: Trust, records: dict[tuple[str, str], tuple[str, ...]]
) -> Found:
    port: int = await nursery.start(Crooked(tls=trust.server).serve)
    told = {
        (name.replace("PORT", str(port)), kind): tuple(each.replace("PORT", str(port)) for each in values)
        for (name, kind), values in records.items()
    }
    nameserver: HostPort = await nursery.start(NameServer(told).serve)
    return await examined(
        None, host=DOMAIN, domain=DOMAIN, ca_file=trust.mint.ca_file, nameserver=nameserver, step_seconds_max=1.0
    )


async def test_without_a_port_dns_says_where_to_look(nursery: trio.Nursery, trust: Trust) -> None:
    found = await found_at_domain(
        nursery,
        trust,
        {
            (CLIENT, "SRV"): ("5 0 PORT xmpp.example.test.",),
            (DIRECT, "SRV"): ("5 0 PORT xmpp.example.test.",),
            ("xmpp.example.test", "A"): ("127.0.0.1",),
        },
    )
    assert found.severity("direct-tls") is Severity.OK
    assert found.severity("dns-xmpp-client") is found.severity("dns-xmpps-client") is Severity.NOTE
    assert found.severity("certificate") is Severity.OK


async def test_certificates_bound_by_dns(nursery: trio.Nursery, trust: Trust) -> None:
    table = {
        (CLIENT, "SRV"): ("5 0 PORT xmpp.example.test.",),
        ("xmpp.example.test", "A"): ("127.0.0.1",),
    }
    assert (await found_at_domain(nursery, trust, table)).all("dane") == []
    table["_PORT._tcp.xmpp.example.test", "TLSA"] = ("3 1 1 " + "ab" * 32,)
    assert (await found_at_domain(nursery, trust, table)).severity("dane") is Severity.WARNING


async def test_a_host_without_an_address_ends_it(nursery: trio.Nursery, trust: Trust) -> None:
    found = await found_at_domain(nursery, trust, {})
    assert found.severity("address") is Severity.PROBLEM
    assert not found.diagnosis.is_reached


async def test_ipv4_alone_answers(nursery: trio.Nursery, trust: Trust) -> None:
    """The AAAA record leads nowhere: whoever connects waits for it."""
    found = await found_at_domain(
        nursery,
        trust,
        {
            (CLIENT, "SRV"): ("5 0 PORT xmpp.example.test.",),
            ("xmpp.example.test", "A"): ("127.0.0.1",),
            ("xmpp.example.test", "AAAA"): ("::1",),
        },
    )
    assert found.severity("ipv4") is Severity.OK
    assert found.severity("ipv6") is Severity.WARNING
