"""``[upstream]`` -> the route that sessions take."""

from collections.abc import Callable
from typing import assert_never

from xproxy.config.address import HostPort
from xproxy.config.upstream import UpstreamFrom, UpstreamSettings
from xproxy.proxy.resolve import open_resolver
from xproxy.proxy.route import FixedRoute, OriginalRoute, Route
from xproxy.proxy.srv import ANY_DOMAIN, SrvRoute, ascii_domain


def make_route(settings: UpstreamSettings, randbelow: Callable[[int], int]) -> Route:
    """Return the route that ``settings``, which have been checked, ask for. ``randbelow`` draws among SRV records.

    Raises:
        EnvironmentProblem: the DNS is to be asked, and nobody says who answers.
    """
    match settings.address:
        case HostPort():
            return FixedRoute(server=settings.address, tls=settings.tls, clear_anywhere=settings.clear_anywhere)
        case UpstreamFrom.ORIGINAL:
            return OriginalRoute(tls=settings.tls, clear_anywhere=settings.clear_anywhere)
        case UpstreamFrom.SRV:
            return SrvRoute(
                names=open_resolver(settings),
                randbelow=randbelow,
                domains=frozenset(
                    domain if domain == ANY_DOMAIN else ascii_domain(domain) for domain in served_domains(settings)
                ),
                tls=settings.tls,
                clear_anywhere=settings.clear_anywhere,
                private_addresses=settings.private_addresses,
            )
        case None:
            raise AssertionError("load(need_upstream=True) has seen to it")
        case _:
            assert_never(settings.address)


def served_domains(settings: UpstreamSettings) -> tuple[str, ...]:
    """Return the domains that clients may name, as configured."""
    own = () if settings.domain is None else (settings.domain,)
    return tuple(dict.fromkeys(own + (settings.domains or ())))
