"""What must hold between settings, and the bounds that a type cannot say."""

import difflib
import ipaddress
from collections.abc import Callable, Container, Iterator
from typing import Protocol

from xproxy.config.address import HostPort
from xproxy.config.destination import parse_destination
from xproxy.config.listen import ListenKind
from xproxy.config.settings import Settings
from xproxy.config.upstream import UpstreamFrom
from xproxy.errors import ConfigProblem
from xproxy.events import EVENT_TYPES
from xproxy.jid import Jid, JidError, domain_to_ascii

# libxml2 gives up at 256 and lxml offers no way to ask for more; what is above must still be skipped in time.
DEPTH_CEILING = 250


HEADER_BYTES_LEAST = 16 + 36  # the PROXY protocol's section 2.2


class Place(Protocol):
    """Where a key got its value: "xproxy.toml:7", "--cert", "default"."""

    def __call__(self, section: str, key: str) -> str:
        """Return the place of one key."""
        ...


def check(settings: Settings, place: Place, *, skip: Container[str] = ()) -> Iterator[ConfigProblem]:
    """Yield what is wrong with settings that are each fine by themselves.

    ``skip``: sections in which a value was refused already; what is left there may be a default nobody asked for.
    """
    for section, check_section in _CHECKS.items():
        if section not in skip:
            yield from check_section(settings, place)


def _check_listen(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    listen = settings.listen
    addresses = [address.address for address in listen.addresses if address.port]
    for address in sorted({str(a) for a in addresses if addresses.count(a) > 1}):
        yield ConfigProblem(
            where=place("listen", "addresses"),
            message=f"{address} is listed twice",
            hint="name each address once",
        )
    for entry in listen.addresses:
        if entry.trusted is not None and entry.kind not in (ListenKind.PROXY_PROTOCOL, ListenKind.SOCKS5):
            yield ConfigProblem(
                where=place("listen", "addresses"),
                message=f"{entry} takes everybody, and trusted does nothing there",
                hint='leave trusted away, or write the kind: "proxy-protocol" or "socks5"',
            )
        if entry.kind is ListenKind.PROXY_PROTOCOL and settings.upstream.address is UpstreamFrom.ORIGINAL:
            yield ConfigProblem(
                where=place("listen", "addresses"),
                message=f"{entry}: behind a balancer there is no original destination to go to, it is the balancer's",
                hint="name the server: --upstream HOST:PORT or srv",
            )
    if listen.header_bytes_max < HEADER_BYTES_LEAST:
        yield ConfigProblem(
            where=place("listen", "header_bytes_max"),
            message=f"{listen.header_bytes_max} is out of range",
            hint=f"at least {HEADER_BYTES_LEAST}: a header of version 2 that names IPv6 addresses",
        )
    for port in listen.destination_ports:
        if not 0 < port < 65_536:
            yield ConfigProblem(
                where=place("listen", "destination_ports"),
                message=f"{port} is no port",
                hint="write numbers from 1 to 65535",
            )
    for text in listen.destinations:
        try:
            parse_destination(text)
        except ValueError as error:
            yield ConfigProblem(where=place("listen", "destinations"), message=str(error))


def _check_upstream(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    address, domain = settings.upstream.address, settings.upstream.domain
    if isinstance(address, HostPort) and not address.port:
        yield ConfigProblem(
            where=place("upstream", "address"),
            message=f"{address} has port 0, which no server listens on",
            hint=f"write {address.host}:5222",
        )
    if address in [entry.address for entry in settings.listen.addresses]:
        yield ConfigProblem(
            where=place("upstream", "address"),
            message=f"{address} is also listened on: the proxy would connect to itself",
            hint="give the server another port, or listen on another address",
        )
    if domain and not _is_domain(domain):
        yield ConfigProblem(
            where=place("upstream", "domain"),
            message=f"{domain!r} is no XMPP domain",
            hint="write the part of the JID after the @, such as example.org",
        )
    yield from _check_way_out(settings, place)


def _check_way_out(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    """What the kinds of ``address`` and ``tls`` ask of other keys."""
    upstream = settings.upstream
    is_srv = upstream.address is UpstreamFrom.SRV
    if is_srv and upstream.domain is None and upstream.domains is None:
        yield ConfigProblem(
            where=place("upstream", "address"),
            message="srv without a domain: clients must not choose any server in the world",
            hint='set domain or domains in [upstream], or domains = ["*"] for a proxy that is open to any domain',
        )
    for domain in upstream.domains or ():
        if domain != "*" and not _is_domain(domain):
            yield ConfigProblem(
                where=place("upstream", "domains"),
                message=f"{domain!r} is no XMPP domain",
                hint='write the part of the JID after the @, such as example.org, or "*" for any domain',
            )
    if upstream.tls == "none" and upstream.domain is None and settings.tls.certificate_file is None:
        yield ConfigProblem(
            where=place("upstream", "tls"),
            message="without TLS no server says which names it has, and for none is a certificate made",
            hint="set domain in [upstream], or certificate_file and key_file in [tls]",
        )
    if upstream.refuse_while_down and not (
        isinstance(upstream.address, HostPort | None) or (is_srv and upstream.domain and upstream.domains is None)
    ):
        yield ConfigProblem(
            where=place("upstream", "refuse_while_down"),
            message="there is more than one server, and the others may be up",
            hint="it is for address = HOST:PORT, and for srv with one domain",
        )
    if upstream.probe_seconds_min > upstream.probe_seconds_max:
        yield ConfigProblem(
            where=place("upstream", "probe_seconds_min"),
            message=f"{upstream.probe_seconds_min} is above probe_seconds_max ({upstream.probe_seconds_max})",
            hint="the time between probes grows from the one to the other",
        )


def _is_domain(text: str) -> bool:
    try:
        domain_to_ascii(text)
    except JidError as error:
        return error.reason == "address"  # RFC 6120 section 2.1 allows it, though no certificate is made for one
    return True


def _check_certificate(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    if (settings.tls.certificate_file is None) != (settings.tls.key_file is None):
        has_certificate = settings.tls.certificate_file is not None
        given, missing = ("certificate_file", "--key FILE") if has_certificate else ("key_file", "--cert FILE")
        other = "key_file" if has_certificate else "certificate_file"
        yield ConfigProblem(
            where=place("tls", given),
            message=f"a {'certificate' if has_certificate else 'key'} without its "
            f"{'key' if has_certificate else 'certificate'}",
            hint=f"add {missing} ({other} in [tls]), or give neither to use the local CA",
        )


def _check_policy(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    policy = settings.policy
    if policy.on_client_reject == "passthrough" and settings.upstream.tls == "none":
        yield ConfigProblem(
            where=place("policy", "on_client_reject"),
            message="passthrough cannot be: the server is spoken to in clear (upstream.tls), and the client speaks TLS",
            hint="set on_client_reject to close, or upstream.tls to same, starttls or direct",
        )
    for key in ("passthrough_seconds", "passthrough_max", "passthrough_per_address_max"):
        if (value := getattr(policy, key)) < 1:
            yield ConfigProblem(
                where=place("policy", key),
                message=f"{value} is out of range",
                hint='at least 1; to let nobody through, set on_client_reject to "close"',
            )


def _check_stream(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    limits = settings.stream
    if limits.stanza_bytes_warn > limits.stanza_bytes_max:
        yield ConfigProblem(
            where=place("stream", "stanza_bytes_warn"),
            message=f"{limits.stanza_bytes_warn} is above stanza_bytes_max ({limits.stanza_bytes_max})",
            hint="the warning must come first",
        )
    if limits.depth_max > DEPTH_CEILING:
        yield ConfigProblem(
            where=place("stream", "depth_max"),
            message=f"{limits.depth_max} is out of range",
            hint=f"at most {DEPTH_CEILING}: the XML parser itself stops at 256",
        )
    if limits.names_before_login_max > limits.names_max:
        yield ConfigProblem(
            where=place("stream", "names_before_login_max"),
            message=f"{limits.names_before_login_max} is above names_max ({limits.names_max})",
            hint="a stranger may not introduce more names than a user",
        )


def _check_journal(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    # An open entry and a record must fit, a second must pass, and a batch must not fill the queue.
    for key, least in (
        ("segment_bytes_max", 1_048_576),
        ("segment_seconds_max", 1),
        ("heartbeat_seconds", 1),
        ("records_max", 1_024),
        ("ballast_bytes", 0),
    ):
        if (value := getattr(settings.journal, key)) < least:
            yield ConfigProblem(
                where=place("journal", key), message=f"{value} is out of range", hint=f"at least {least}"
            )


def _check_capture(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    capture = settings.capture
    known = {event_type.action for event_type in EVENT_TYPES}
    for action in capture.trigger_actions:
        if action not in known:
            nearest = difflib.get_close_matches(action, known, 1)
            yield ConfigProblem(
                where=place("capture", "actions"),
                message=f"there is no action {action!r}",
                hint=f"did you mean {nearest[0]}?" if nearest else "`xproxy events` lists them",
            )
    if capture.jid is not None and not _is_bare_jid(capture.jid):
        yield ConfigProblem(
            where=place("capture", "jid"), message=f"{capture.jid!r} is no bare JID", hint="write user@example.org"
        )
    if capture.net is not None and not _is_network(capture.net):
        yield ConfigProblem(
            where=place("capture", "net"),
            message=f"{capture.net!r} is no address and no network",
            hint="write 192.0.2.7 or 2001:db8::/32",
        )
    if capture.directory is not None and settings.log.identities != "clear":
        yield ConfigProblem(
            where=place("capture", "directory"),
            message=f"captures name users and addresses, which identities = {settings.log.identities!r} forbids",
            hint="capture with --identities clear, or not at all",
        )


def _is_bare_jid(text: str) -> bool:
    try:
        jid = Jid.from_text(text)
    except JidError:
        return False
    return jid.local is not None and jid.resource is None


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


_CHECKS: dict[str, Callable[[Settings, Place], Iterator[ConfigProblem]]] = {
    "listen": _check_listen,
    "upstream": _check_upstream,
    "tls": _check_certificate,
    "policy": _check_policy,
    "stream": _check_stream,
    "journal": _check_journal,
    "capture": _check_capture,
}
