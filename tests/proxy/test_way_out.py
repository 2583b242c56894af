"""The settings choose the route."""

import secrets

import pytest

from xproxy.config.address import HostPort
from xproxy.config.upstream import UpstreamFrom, UpstreamSettings
from xproxy.proxy.route import FixedRoute, OriginalRoute
from xproxy.proxy.srv import SrvRoute
from xproxy.proxy.way_out import make_route, served_domains


def test_one_server() -> None:
    fixed = make_route(UpstreamSettings(address=HostPort("xmpp", 5222), tls="direct"), secrets.randbelow)
    assert fixed == FixedRoute(server=HostPort("xmpp", 5222), tls="direct")


def test_the_original_destination() -> None:
    settings = UpstreamSettings(address=UpstreamFrom.ORIGINAL, tls="none", clear_anywhere=True)
    assert make_route(settings, secrets.randbelow) == OriginalRoute(tls="none", clear_anywhere=True)


def test_the_dns() -> None:
    settings = UpstreamSettings(
        address=UpstreamFrom.SRV,
        domain="Bücher.example",
        domains=("example.org.", "[::1]", "*"),
        tls="starttls",
        private_addresses=True,
        nameservers=(HostPort("192.0.2.53", 53),),
    )
    route = make_route(settings, secrets.randbelow)
    assert isinstance(route, SrvRoute)
    assert route.domains == {"xn--bcher-kva.example", "example.org", "::1", "*"}
    assert (route.tls, route.private_addresses, route.needs_domain) == ("starttls", True, True)


@pytest.mark.parametrize(
    ("domain", "domains", "want"),
    [(None, None, ()), ("a", None, ("a",)), ("a", ("b", "a"), ("a", "b")), (None, ("*",), ("*",))],
)
def test_the_domains_that_are_served(
    domain: str | None, domains: tuple[str, ...] | None, want: tuple[str, ...]
) -> None:
    assert served_domains(UpstreamSettings(domain=domain, domains=domains)) == want
