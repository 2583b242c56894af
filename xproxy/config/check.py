"""What must hold between settings, and the bounds that a type cannot say."""

import difflib
import ipaddress
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from xproxy.config.address import HostPort
from xproxy.config.destination import parse_destination
from xproxy.config.known import as_far_as_known
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


def check(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    """Yield what is wrong with settings that are each fine by themselves; of ``known_settings``, as far as known."""
    for each in _CHECKS:
        yield from as_far_as_known(each(settings, place))


def advise(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    """Yield what works and is not what whoever wrote it can have meant."""
    for each in _ADVICE:
        yield from as_far_as_known(each(settings, place))


# What is wrong, each by itself: one of them stops where it comes upon a value that was refused ------------------------


def _check_listed_once(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    addresses = [address.address for address in settings.listen.addresses if address.port]
    for address in sorted({str(a) for a in addresses if addresses.count(a) > 1}):
        yield ConfigProblem(
            where=place("listen", "addresses"),
            message=f"{address} is listed twice",
            hint="name each address once",
        )


def _check_kinds(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    for entry in settings.listen.addresses:
        if entry.trusted is not None and entry.kind not in (ListenKind.PROXY_PROTOCOL, ListenKind.SOCKS5):
            yield ConfigProblem(
                where=place("listen", "addresses"),
                message=f"{entry} takes everybody, and trusted does nothing there",
                hint='leave trusted away, or write the kind: "proxy-protocol" or "socks5"',
            )


def _check_balanced(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    for entry in settings.listen.addresses:
        if entry.kind is ListenKind.PROXY_PROTOCOL and settings.upstream.address is UpstreamFrom.ORIGINAL:
            yield ConfigProblem(
                where=place("listen", "addresses"),
                message=f"{entry}: behind a balancer there is no original destination to go to, it is the balancer's",
                hint="name the server: --upstream HOST:PORT or srv",
            )


def _check_header_bytes(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    if (value := settings.listen.header_bytes_max) < HEADER_BYTES_LEAST:
        yield ConfigProblem(
            where=place("listen", "header_bytes_max"),
            message=f"{value} is out of range",
            hint=f"at least {HEADER_BYTES_LEAST}: a header of version 2 that names IPv6 addresses",
        )


def _check_ports(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    for port in settings.listen.destination_ports:
        if not 0 < port < 65_536:
            yield ConfigProblem(
                where=place("listen", "destination_ports"),
                message=f"{port} is no port",
                hint="write numbers from 1 to 65535",
            )


def _check_destinations(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    for text in settings.listen.destinations:
        try:
            parse_destination(text)
        except ValueError as error:
            yield ConfigProblem(where=place("listen", "destinations"), message=str(error))


def _check_address(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    address = settings.upstream.address
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


def _check_domain(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    domain = settings.upstream.domain
    if domain and not _is_domain(domain):
        yield ConfigProblem(
            where=place("upstream", "domain"),
            message=f"{domain!r} is no XMPP domain",
            hint="write the part of the JID after the @, such as example.org",
        )


def _check_domain_named(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    upstream = settings.upstream
    if upstream.address is UpstreamFrom.SRV and upstream.domain is None and upstream.domains is None:
        yield ConfigProblem(
            where=place("upstream", "address"),
            message="srv without a domain: clients must not choose any server in the world",
            hint='set domain or domains in [upstream], or domains = ["*"] for a proxy that is open to any domain',
        )


def _check_domains(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    for domain in settings.upstream.domains or ():
        if domain != "*" and not _is_domain(domain):
            yield ConfigProblem(
                where=place("upstream", "domains"),
                message=f"{domain!r} is no XMPP domain",
                hint='write the part of the JID after the @, such as example.org, or "*" for any domain',
            )


def _check_names_in_clear(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    upstream = settings.upstream
    if upstream.tls == "none" and upstream.domain is None and settings.tls.certificate_file is None:
        yield ConfigProblem(
            where=place("upstream", "tls"),
            message="without TLS no server says which names it has, and for none is a certificate made",
            hint="set domain in [upstream], or certificate_file and key_file in [tls]",
        )


def _check_refusing(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    upstream = settings.upstream
    if not upstream.refuse_while_down or isinstance(upstream.address, HostPort | None):
        return
    if upstream.address is not UpstreamFrom.SRV or upstream.domain is None or upstream.domains is not None:
        yield ConfigProblem(
            where=place("upstream", "refuse_while_down"),
            message="there is more than one server, and the others may be up",
            hint="it is for address = HOST:PORT, and for srv with one domain",
        )


def _check_probes(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    upstream = settings.upstream
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


def _check_client_reject(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    if settings.policy.on_client_reject == "passthrough" and settings.upstream.tls == "none":
        yield ConfigProblem(
            where=place("policy", "on_client_reject"),
            message="passthrough cannot be: the server is spoken to in clear (upstream.tls), and the client speaks TLS",
            hint="set on_client_reject to close, or upstream.tls to same, starttls or direct",
        )


def _check_passthrough_seconds(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    if (value := settings.policy.passthrough_seconds) < 1:
        yield ConfigProblem(
            where=place("policy", "passthrough_seconds"),
            message=f"{value:g} is out of range",
            hint='at least 1; to let nobody through, set on_client_reject to "close"',
        )


def _check_stanza_warning(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    limits = settings.stream
    if limits.stanza_bytes_warn > limits.stanza_bytes_max:
        yield ConfigProblem(
            where=place("stream", "stanza_bytes_warn"),
            message=f"{limits.stanza_bytes_warn} is above stanza_bytes_max ({limits.stanza_bytes_max})",
            hint="the warning must come first",
        )


def _check_depth(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    limits = settings.stream
    if limits.depth_max > DEPTH_CEILING:
        yield ConfigProblem(
            where=place("stream", "depth_max"),
            message=f"{limits.depth_max} is out of range",
            hint=f"at most {DEPTH_CEILING}: the XML parser itself stops at 256",
        )


def _check_names(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    limits = settings.stream
    if limits.names_before_login_max > limits.names_max:
        yield ConfigProblem(
            where=place("stream", "names_before_login_max"),
            message=f"{limits.names_before_login_max} is above names_max ({limits.names_max})",
            hint="a stranger may not introduce more names than a user",
        )


def _check_segment_bytes(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    yield from _at_least(place, "journal", "segment_bytes_max", settings.journal.segment_bytes_max, 1_048_576)


def _check_records(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    yield from _at_least(place, "journal", "records_max", settings.journal.records_max, 1_024)


def _at_least(place: Place, section: str, key: str, value: int, least: int) -> Iterator[ConfigProblem]:
    if value < least:
        yield ConfigProblem(where=place(section, key), message=f"{value} is out of range", hint=f"at least {least}")


def _check_actions(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    known = {event_type.action for event_type in EVENT_TYPES}
    for action in settings.capture.trigger_actions:
        if action not in known:
            nearest = difflib.get_close_matches(action, known, 1)
            yield ConfigProblem(
                where=place("capture", "actions"),
                message=f"there is no action {action!r}",
                hint=f"did you mean {nearest[0]}?" if nearest else "`xproxy events` lists them",
            )


def _check_captured_jid(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    if (jid := settings.capture.jid) is not None and not _is_bare_jid(jid):
        yield ConfigProblem(
            where=place("capture", "jid"), message=f"{jid!r} is no bare JID", hint="write user@example.org"
        )


def _check_captured_net(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    if (net := settings.capture.net) is not None and not _is_network(net):
        yield ConfigProblem(
            where=place("capture", "net"),
            message=f"{net!r} is no address and no network",
            hint="write 192.0.2.7 or 2001:db8::/32",
        )


def _check_captured_identities(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    if settings.capture.directory is not None and settings.log.identities != "clear":
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


# What works, and does less than it says -------------------------------------------------------------------------------


def _advise_domains(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    """A list of domains looks like a restriction, and without srv nothing asks it."""
    upstream = settings.upstream
    if upstream.domains is None:
        return
    if isinstance(upstream.address, HostPort):
        yield ConfigProblem(
            where=place("upstream", "domains"),
            message=f"restricts nothing with address = {upstream.address}: every client is taken there, whatever "
            "domain it asks for",
            hint='leave it away (a server refuses domains that are not its own), or write address = "srv"',
        )
    elif upstream.address is UpstreamFrom.ORIGINAL:
        yield ConfigProblem(
            where=place("upstream", "domains"),
            message="restricts nothing with address = original: every client is taken where it was going, whatever "
            "domain it asks for",
            hint="leave it away; destinations in [listen] says to which hosts",
        )


def _advise_name_servers(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    upstream = settings.upstream
    if upstream.nameservers is not None and upstream.address not in (None, UpstreamFrom.SRV):
        yield ConfigProblem(
            where=place("upstream", "nameservers"),
            message=f"nobody asks them with address = {upstream.address}: a name is looked up as this machine does",
            hint='leave it away, or write address = "srv"',
        )


def _advise_private_addresses(settings: Settings, place: Place) -> Iterator[ConfigProblem]:
    upstream = settings.upstream
    if upstream.private_addresses and (upstream.domains is None or "*" not in upstream.domains):
        yield ConfigProblem(
            where=place("upstream", "private_addresses"),
            message="does nothing: servers of domains that are listed may have any address",
            hint='leave it away; it is for domains = ["*"]',
        )


_Check = Callable[[Settings, Place], Iterator[ConfigProblem]]

_CHECKS: Final[tuple[_Check, ...]] = (
    _check_listed_once,
    _check_kinds,
    _check_balanced,
    _check_header_bytes,
    _check_ports,
    _check_destinations,
    _check_address,
    _check_domain,
    _check_domain_named,
    _check_domains,
    _check_names_in_clear,
    _check_refusing,
    _check_probes,
    _check_certificate,
    _check_client_reject,
    _check_passthrough_seconds,
    _check_stanza_warning,
    _check_depth,
    _check_names,
    _check_segment_bytes,
    _check_records,
    _check_actions,
    _check_captured_jid,
    _check_captured_net,
    _check_captured_identities,
)
"""All checks, in the order in which one would mend what they find."""

_ADVICE: Final[tuple[_Check, ...]] = (_advise_domains, _advise_name_servers, _advise_private_addresses)
