"""The ports to listen on, and the name of the server. Nobody is connected to."""

import errno
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

import attrs
import trio

from xproxy.check.finding import Finding, fine, problem, unknown, warning
from xproxy.config.address import HostPort
from xproxy.config.check import Place
from xproxy.config.known import NotKnown
from xproxy.config.listen import ListenAddress, ListenKind
from xproxy.config.settings import Settings
from xproxy.config.upstream import UpstreamFrom, UpstreamSettings
from xproxy.control.client import ControlClient
from xproxy.errors import XproxyError
from xproxy.proxy.original import make_transparent
from xproxy.proxy.route import Asked, Candidate, Route
from xproxy.proxy.srv import ANY_DOMAIN
from xproxy.proxy.way_out import make_route, served_domains

LOOKUP_SECONDS_MAX: Final = 10.0
ASK_SECONDS_MAX: Final = 2.0  # the proxy that may run here already

_TCP_LISTEN: Final = "0A"  # state in /proc/net/tcp


# Ports --------------------------------------------------------------------------------------------------------------


def check_ports(settings: Settings, place: Place) -> Iterator[Finding]:
    """Yield whether each address can be listened on; if not, who does."""
    where = place("listen", "addresses")
    wanted = settings.listen.addresses
    try:
        running = running_proxy(settings.state.directory)
    except NotKnown:
        running = None
    for address in wanted:
        # As the listener does: [::] takes IPv4 too, unless that has a listener of its own.
        is_dual = address.host == "::" and all((each.host, each.port) != ("0.0.0.0", address.port) for each in wanted)
        yield from check_port(address, where, running, is_dual=is_dual)


def running_proxy(state: Path) -> tuple[int, frozenset[str]] | None:
    """Return process id and listeners of the proxy that runs with ``state``; None: none that we may ask."""
    try:
        status = ControlClient(state, seconds_max=ASK_SECONDS_MAX).get("/v1/status")
        return int(status["pid"]), frozenset(map(str, status["listeners"]))
    except (XproxyError, KeyError, TypeError, ValueError):
        return None


def check_port(
    address: ListenAddress, where: str, running: tuple[int, frozenset[str]] | None, *, is_dual: bool = False
) -> Iterator[Finding]:
    """Yield whether ``address`` can be listened on. ``running``: the proxy that runs already."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        yield problem("ports", where, f"cannot listen on {address}: {address.host} is not known here",
                      "name an address of this machine, 0.0.0.0 or [::] for all of them")  # fmt: skip
        return
    for family, kind, protocol, _, sockaddr in dict.fromkeys(found):
        error = _try_to_bind(family, kind, protocol, sockaddr, address.kind, is_dual=is_dual)
        if error is not None:
            yield _port_problem(address, error, where, running)
            return
    yield fine("ports", where, f"{address} can be listened on")


def _try_to_bind(
    family: int, kind: int, protocol: int, sockaddr: object, way: ListenKind, *, is_dual: bool
) -> OSError | None:
    """Bind and let go; nobody can connect meanwhile, since nothing listens."""
    try:
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_dual else 1)
            if way is ListenKind.TPROXY:
                make_transparent(sock)
            sock.bind(sockaddr)  # type: ignore[arg-type]  # as getaddrinfo made it
    except OSError as error:
        return error
    return None


def _port_problem(
    address: ListenAddress, error: OSError, where: str, running: tuple[int, frozenset[str]] | None
) -> Finding:
    if error.errno == errno.EADDRINUSE:
        holders = holders_of(address.port)
        if running is not None and (running[0] in (pid for pid, _ in holders) or str(address.address) in running[1]):
            return fine("ports", where, f"{address} is listened on by the xproxy that runs now (process {running[0]})")
        if any(pid == 1 for pid, _ in holders):
            return fine("ports", where, f"{address} is held by the service manager, which passes it on (xproxy.socket)")
        who = ", ".join(f"{name} (process {pid})" for pid, name in holders) or "another program"
        return problem(
            "ports", where, f"cannot listen on {address}: {who} has this port",
            "stop it, or choose another port (port 0: any free one)",
        )  # fmt: skip
    if error.errno == errno.EACCES:
        return problem("ports", where, f"cannot listen on {address}: ports below 1024 are for root",
                       "choose another port, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit")  # fmt: skip
    if error.errno == errno.EPERM:
        return problem("ports", where, f"cannot listen on {address}: taking connections to others' addresses needs "
                       "CAP_NET_ADMIN", "AmbientCapabilities=CAP_NET_ADMIN in the unit")  # fmt: skip
    hint = "name an address of this machine, 0.0.0.0 or [::] for all of them"
    return problem("ports", where, f"cannot listen on {address}: {error.strerror or error}", hint)


def holders_of(port: int) -> list[tuple[int, str]]:
    """Return who listens on ``port``: process id and name, as far as we may see (proc(5))."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(table, port)}
    if not inodes:
        return []
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found: list[tuple[int, str]] = []
    for process in _processes():
        try:
            if any(os.readlink(link) in wanted for link in (process / "fd").iterdir()):
                found.append((int(process.name), (process / "comm").read_text().strip()))
        except OSError:
            continue  # another user's, or gone
    return found


def _listening(table: str, port: int) -> Iterator[str]:
    try:
        lines = Path("/proc/net", table).read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if fields[3] == _TCP_LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]


def _processes() -> Iterable[Path]:
    try:
        return [path for path in Path("/proc").iterdir() if path.name.isdecimal()]
    except OSError:
        return []


# The server ---------------------------------------------------------------------------------------------------------


def check_server(settings: Settings, place: Place) -> Iterator[Finding]:
    """Yield whether the server's name leads anywhere."""
    yield from _check_upstream(settings.upstream, place)


def _check_upstream(settings: UpstreamSettings, place: Place) -> Iterator[Finding]:
    where = place("upstream", "address")
    if settings.address is None:
        return  # said with the configuration
    if settings.address is UpstreamFrom.ORIGINAL:
        yield unknown("server", where, "the server is the one each client has dialled: nothing to look up")
        return
    wanted: dict[str | None, str] = {None: str(settings.address)}
    if settings.address is UpstreamFrom.SRV:
        wanted = {domain: domain for domain in served_domains(settings) if domain != ANY_DOMAIN}
    if not wanted:
        yield unknown("server", where, "the server is looked up for each client's domain: nothing to look up yet",
                      "with --domain D this says where D's server is")  # fmt: skip
        return
    try:
        found = trio.run(_look_up, make_route(settings, secrets.randbelow), settings.tls == "direct", tuple(wanted))
    except XproxyError as error:
        yield problem("server", where, error.message, error.hint)
        return
    is_any_found = any(each.places for each in found.values())
    for domain, name in wanted.items():
        if domain is not None:
            where = place("upstream", "domain" if domain == settings.domain else "domains")
        yield _server_finding(where, name, found[domain], is_srv=domain is not None, is_any_found=is_any_found)


@attrs.define
class _Found:
    """What a look-up came to."""

    places: list[str] = attrs.Factory(list)
    failures: list[str] = attrs.Factory(list)


def _server_finding(where: str, name: str, found: _Found, *, is_srv: bool, is_any_found: bool) -> Finding:
    """Return the finding for one name; as at the start, the proxy does without some, and not without all."""
    if found.places:
        return fine("server", where, f"{name} is at {', '.join(dict.fromkeys(found.places))}")
    if not found.failures:
        return warning("server", where, f"the name service has not answered for {name} in {LOOKUP_SECONDS_MAX:.0f} s",
                       "see /etc/resolv.conf")  # fmt: skip
    hint = "correct the name, and see that this machine's resolver works (getent hosts NAME)"
    if is_srv:
        hint = f"correct the name, and see its SRV records: dig SRV _xmpp-client._tcp.{name}"
    failures = ", ".join(dict.fromkeys(found.failures))
    say = warning if is_any_found else problem
    return say("server", where, f"the server of {name} cannot be looked up: {failures}", hint)


async def _look_up(route: Route, direct: bool, domains: tuple[str | None, ...]) -> dict[str | None, _Found]:
    """Return where the servers are of ``domains``; None: of all."""
    found = {domain: _Found() for domain in domains}

    async def look_up(domain: str | None) -> None:
        async with aclosing(route.candidates(Asked(direct=direct, domain=domain))) as candidates:
            async for candidate in candidates:
                if isinstance(candidate, Candidate):
                    found[domain].places.append(str(HostPort(candidate.address, candidate.port)))
                else:
                    found[domain].failures.append(f"{candidate.host}: {candidate.reason.value}")

    with trio.move_on_after(LOOKUP_SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            for domain in domains:
                nursery.start_soon(look_up, domain)
    return found
