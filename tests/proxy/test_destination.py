"""Where clients may be taken: what is served, what is listed, and never back to us."""

import socket

import pytest

from xproxy.config.address import HostPort
from xproxy.config.listen import ListenSettings
from xproxy.config.upstream import UpstreamAddress, UpstreamFrom
from xproxy.events import Endpoint
from xproxy.events.connection import RefusalReason
from xproxy.proxy.destination import Destinations
from xproxy.proxy.refusal import Refused

NAMES = {"one.example": ["192.0.2.1", "2001:db8::1"], "inside.example": ["10.0.0.1"], "us.example": ["127.0.0.1"]}


@pytest.fixture(autouse=True)
def name_service(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tests, and which of them were asked for."""
    asked = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        if host not in NAMES:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in NAMES[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


async def judge(
    wanted: HostPort,
    upstream: UpstreamAddress,
    domain: str | None = None,
    **settings: tuple[str, ...] | tuple[int, ...],
) -> HostPort | RefusalReason:
    destinations = Destinations(ListenSettings(**settings), upstream, domain)  # type: ignore[arg-type]
    destinations.listen_at([Endpoint("127.0.0.1", 5222), Endpoint("::", 5223)])
    try:
        return await destinations.check_request(wanted)
    except Refused as refused:
        return refused.reason


REFUSED, LOOP = RefusalReason.DESTINATION_REFUSED, RefusalReason.DESTINATION_LOOP
ONE = HostPort("one.example", 15_222)


@pytest.mark.parametrize(
    ("wanted", "domain"),
    [
        (HostPort("one.example", 15_222), None),  # the server by its name and port
        (HostPort("one.example", 5222), None),
        (HostPort("192.0.2.1", 5222), None),  # looked up by the client
        (HostPort("2001:db8::1", 5223), None),
        (HostPort("example.org", 5222), "example.org"),
        (HostPort("xmpp.example.org", 5222), "Example.ORG"),
        (HostPort("xn--bcher-kva.example", 5222), "bücher.example"),
    ],
)
async def test_with_one_server_its_names_may_be_asked_for(wanted: HostPort, domain: str | None) -> None:
    assert await judge(wanted, ONE, domain) == wanted


@pytest.mark.parametrize(
    ("wanted", "domain"),
    [
        (HostPort("one.example", 22), None),
        (HostPort("two.example", 5222), None),
        (HostPort("example.org", 5222), None),
        (HostPort("badexample.org", 5222), "example.org"),
        (HostPort("192.0.2.2", 5222), "example.org"),
        (HostPort("127.0.0.1", 5222), "example.org"),
    ],
)
async def test_with_one_server_nothing_else_may_be_asked_for(wanted: HostPort, domain: str | None) -> None:
    assert await judge(wanted, ONE, domain) is REFUSED


async def test_names_that_strangers_choose_are_not_looked_up_for_nothing(name_service: list[str]) -> None:
    assert await judge(HostPort("slow.example", 5222), ONE, "example.org", destinations=("10.0.0.0/8",)) is REFUSED
    assert await judge(HostPort("slow.example", 5222), UpstreamFrom.SRV) == HostPort("slow.example", 5222)
    assert name_service == []


async def test_what_is_listed_may_be_asked_for_besides() -> None:
    listed = ("Other.Example.", "192.0.2.128/25", "2001:db8:1::7")
    for host in ("other.example", "192.0.2.129", "2001:db8:1::7", "one.example"):
        assert await judge(HostPort(host, 5222), ONE, destinations=listed) == HostPort(host, 5222)
    for host in ("192.0.2.127", "2001:db8:1::8", "x.other.example"):
        assert await judge(HostPort(host, 5222), ONE, destinations=listed) is REFUSED


async def test_with_original_anything_but_ourselves_and_nobody() -> None:
    for host in ("one.example", "192.0.2.9", "unknown.example"):  # connecting will say that it is not known
        assert await judge(HostPort(host, 5222), UpstreamFrom.ORIGINAL) == HostPort(host, 5222)
    for host in ("127.0.0.1", "us.example"):
        assert await judge(HostPort(host, 5222), UpstreamFrom.ORIGINAL) is LOOP
    for host in ("::1", "127.0.0.2", "0.0.0.0"):  # of the listener on all addresses
        assert await judge(HostPort(host, 5223), UpstreamFrom.ORIGINAL) is LOOP
    for host in ("0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"):
        assert await judge(HostPort(host, 5222), UpstreamFrom.ORIGINAL) is REFUSED
    assert await judge(HostPort("192.0.2.9", 80), UpstreamFrom.ORIGINAL) is REFUSED


async def test_with_original_a_name_is_pinned_to_the_address_that_was_allowed() -> None:
    listed = ("2001:db8::/32", "Two.example")
    one = await judge(HostPort("one.example", 5222), UpstreamFrom.ORIGINAL, destinations=listed)
    assert one == HostPort("2001:db8::1", 5222)
    two = await judge(HostPort("two.example", 5222), UpstreamFrom.ORIGINAL, destinations=listed)
    assert two == HostPort("two.example", 5222)
    for host in ("inside.example", "unknown.example", "10.0.0.1"):
        assert await judge(HostPort(host, 5222), UpstreamFrom.ORIGINAL, destinations=listed) is REFUSED


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        (Endpoint("192.0.2.9", 5222), None),
        (Endpoint("192.0.2.9", 80), REFUSED),
        (Endpoint("127.0.0.1", 5222), LOOP),
        (Endpoint("127.0.0.9", 5223), LOOP),
        (Endpoint("255.255.255.255", 5222), REFUSED),
    ],
)
def test_redirected_connections(destination: Endpoint, reason: RefusalReason | None) -> None:
    destinations = Destinations(ListenSettings(), UpstreamFrom.ORIGINAL, None)
    destinations.listen_at([Endpoint("127.0.0.1", 5222), Endpoint("::", 5223)])
    found = None
    try:
        destinations.check_original(destination)
    except Refused as refused:
        found = refused.reason
    assert found is reason
    listed = Destinations(ListenSettings(destinations=("198.51.100.0/24",)), UpstreamFrom.ORIGINAL, None)
    with pytest.raises(Refused):
        listed.check_original(destination)
