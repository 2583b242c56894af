"""Where sessions' servers are."""

import socket

import pytest
import trio

from xproxy.config.address import HostPort
from xproxy.config.upstream import UpstreamTls
from xproxy.events.connection import ServerTls, UpstreamFailure, Via
from xproxy.proxy.route import (
    Asked,
    Candidate,
    Candidates,
    FixedRoute,
    NoCandidate,
    OriginalRoute,
    in_turn,
    server_tls,
)

CLEAR, DIRECT = Asked(direct=False), Asked(direct=True)


class Names(trio.abc.HostnameResolver):
    """A name service."""

    def __init__(self, error: Exception | None = None, **known: list[str]) -> None:
        self.error = error
        self.known = known

    async def getaddrinfo(  # type: ignore[override]
        self, host: bytes, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if self.error is not None:
            raise self.error
        return [(0, type, 0, "", (address, port)) for address in self.known[host.decode()]]

    async def getnameinfo(self, sockaddr: tuple[str, int], flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def all_of(found: Candidates) -> list[Candidate | NoCandidate]:
    return [each async for each in found]


@pytest.mark.parametrize(
    ("setting", "of_clear", "of_direct"),
    [
        ("same", ServerTls.STARTTLS, ServerTls.DIRECT),
        ("starttls", ServerTls.STARTTLS, ServerTls.STARTTLS),
        ("direct", ServerTls.DIRECT, ServerTls.DIRECT),
        ("none", ServerTls.NONE, ServerTls.NONE),
    ],
)
def test_how_tls_begins_upstream(setting: UpstreamTls, of_clear: ServerTls, of_direct: ServerTls) -> None:
    assert (server_tls(setting, direct=False), server_tls(setting, direct=True)) == (of_clear, of_direct)


async def test_a_fixed_name_is_all_of_its_addresses() -> None:
    trio.socket.set_custom_hostname_resolver(Names(xmpp=["2001:db8::1", "2001:db8::2", "192.0.2.1"]))
    found = await all_of(FixedRoute(server=HostPort("xmpp", 5222)).candidates(CLEAR))
    assert [each.address for each in found if isinstance(each, Candidate)] == [
        "2001:db8::1",
        "192.0.2.1",
        "2001:db8::2",
    ]
    assert {(each.host, each.port) for each in found} == {("xmpp", 5222)}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), UpstreamFailure.UNKNOWN_HOST),
        (socket.gaierror(socket.EAI_AGAIN, "nobody answers"), UpstreamFailure.LOOKUP_FAILED),
        (UnicodeError("label too long"), UpstreamFailure.UNKNOWN_HOST),
    ],
)
async def test_a_fixed_name_that_leads_nowhere(error: Exception, reason: UpstreamFailure) -> None:
    trio.socket.set_custom_hostname_resolver(Names(error))
    found = await all_of(FixedRoute(server=HostPort("xmpp", 5222)).candidates(CLEAR))
    assert found == [NoCandidate(host="xmpp", port=5222, reason=reason)]


@pytest.mark.parametrize(("address", "is_allowed"), [("127.0.0.9", True), ("::1", True), ("192.0.2.1", False)])
async def test_without_tls_only_to_this_machine(address: str, is_allowed: bool) -> None:
    for route in (
        FixedRoute(server=HostPort(address, 5222), tls="none"),
        OriginalRoute(tls="none"),
    ):
        (found,) = await all_of(route.candidates(Asked(direct=False, destination=HostPort(address, 5222))))
        if is_allowed:
            assert isinstance(found, Candidate)
            assert found.tls is ServerTls.NONE
        else:
            assert found == NoCandidate(host=address, port=5222, reason=UpstreamFailure.CLEAR_NOT_ALLOWED)


async def test_without_tls_anywhere_if_told_so() -> None:
    route = FixedRoute(server=HostPort("192.0.2.1", 5222), tls="none", clear_anywhere=True)
    (found,) = await all_of(route.candidates(DIRECT))
    assert isinstance(found, Candidate)


async def test_the_original_destination() -> None:
    asked = Asked(direct=True, destination=HostPort("192.0.2.7", 5223))
    assert await all_of(OriginalRoute().candidates(asked)) == [
        Candidate(host="192.0.2.7", address="192.0.2.7", port=5223, tls=ServerTls.DIRECT, via=Via.ORIGINAL)
    ]


def test_families_take_turns() -> None:
    assert in_turn(["a:1", "a:2", "a:1", "1", "2", "3"]) == ["a:1", "1", "a:2", "2", "3"]
    assert in_turn(["1", "2"]) == ["1", "2"]
    assert in_turn([]) == []
