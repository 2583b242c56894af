"""Is there an XMPP server, over which ways, and how fast is it?"""

from typing import Final

from xproxy.doctor.findings import Finding, Fix, Severity, quoted
from xproxy.doctor.look import Look
from xproxy.doctor.stop import POLICY_CONDITIONS, Step, Stop
from xproxy.events.tls import TlsFailure
from xproxy.peer.client import Mode

SLOW_SECONDS: Final = 3.0
"""XMPPFramework gives up 10 s after it connected without the first octet; through xproxy the server is asked twice."""

_NO_CERTIFICATE: Final = "handshake_failure"
"""What OpenSSL's servers say that have none, or none for our ciphers (RFC 8446 section 6.2)."""

HOST_CONDITIONS: Final = frozenset({"host-unknown", "host-gone", "improper-addressing"})


def family_of(look: Look) -> str:
    """Return "IPv6" or "IPv4"."""
    return "IPv6" if ":" in look.way.address else "IPv4"


def check_family(family: str, looks: list[Look], *, other_answers: bool) -> Finding:
    """Say whether TCP connections to the addresses of one family come about; one look an address."""
    reached = [look for look in looks if look.connect_seconds is not None]
    failed = [look for look in looks if look.connect_seconds is None]
    seen = f"connected to {', '.join(f'{look.way.address} port {look.way.port}' for look in looks)}"
    check = family.lower()
    why = "; ".join(f"{look.way.address} {look.stop.text}" for look in failed if look.stop)
    if not failed:
        milliseconds = min(look.connect_seconds or 0.0 for look in reached) * 1_000
        return Finding(
            check=check,
            severity=Severity.OK,
            finding=f"TCP over {family} takes {milliseconds:.1f} ms",
            seen=seen,
        )
    return Finding(
        check=check,
        severity=Severity.WARNING if reached or other_answers else Severity.PROBLEM,
        finding=f"over {family} the server does not answer everywhere: {why}" if reached else f"over {family}: {why}",
        seen=seen,
        consequence="every session waits until another address answers (250 ms each)"
        if reached or other_answers
        else "every client is closed without a byte, and upstream-failed says why",
        fixes=(
            Fix("Prosody", 'c2s_ports = { 5222 }  interfaces = { "*", "::" }'),
            Fix("ejabberd", 'listen: - {port: 5222, ip: "::", module: ejabberd_c2s, starttls: true}'),
            Fix("xproxy", "--upstream ADDRESS:PORT with an address that answers"),
        ),
    )


def check_stream(look: Look) -> Finding | None:
    """Say what is wrong where a connection came about and no features did; None where they did."""
    stop = look.stop
    if stop is None or stop.step is Step.CONNECT:
        return None
    seen = f"opened a stream to {look.way}"
    if stop.reason == "see-other-host":
        return redirected(look, "before any login")
    if stop.reason in HOST_CONDITIONS:
        return Finding(
            check="stream",
            severity=Severity.PROBLEM,
            finding=f"the server {stop.text}: it does not serve this domain",
            seen=seen,
            consequence="clients of this domain get the same answer through xproxy",
            fixes=(
                Fix("xproxy", "--domain: the part behind the @ of the addresses, which may differ from the host"),
                Fix("Prosody", 'VirtualHost "<the domain>"'),
                Fix("ejabberd", 'hosts: ["<the domain>"]'),
            ),
        )
    if stop.reason in POLICY_CONDITIONS:
        return Finding(
            check="stream",
            severity=Severity.PROBLEM,
            finding=f"the server {stop.text}",
            seen=seen,
            consequence="this address is shut out: behind xproxy everybody would be, for all come from its address",
            fixes=_UNBAN,
        )
    if stop.reason == "not-xmpp":
        return Finding(
            check="stream",
            severity=Severity.PROBLEM,
            finding=f"what listens there {stop.text}",
            seen=seen,
            consequence="no client can talk to it; xproxy records stream-violation and closes",
            fixes=(Fix("xproxy", "--upstream with the port of client connections: 5222, or 5223 for direct TLS"),),
        )
    if stop.reason == "injection":
        return Finding(
            check="stream",
            severity=Severity.PROBLEM,
            finding=f"the server {stop.text}: octets that would be taken for ones above TLS (CVE-2011-0411)",
            seen=seen,
            consequence="xproxy takes it for an attack, of the server or of somebody before it: both sides are closed, "
            "and starttls-injection is an alarm",
            fixes=(Fix("Prosody", "update it"), Fix("ejabberd", "update it")),
        )
    if stop.tls is TlsFailure.PEER_ALERT and stop.alert == _NO_CERTIFICATE:
        return Finding(
            check="stream",
            severity=Severity.PROBLEM,
            finding=f"the server {stop.text}: it has no certificate for this domain, or no cipher in common with us",
            seen=seen,
            consequence="no client gets further, here as through xproxy",
            fixes=(
                Fix("Prosody", 'ssl = { certificate = "<fullchain.pem>", key = "<privkey.pem>" }, or: '
                    "prosodyctl --root cert import <domain> <directory>; then: prosodyctl check certs"),
                Fix("ejabberd", 'certfiles: ["<fullchain.pem>", "<privkey.pem>"]'),
            ),
        )  # fmt: skip
    return Finding(
        check="stream",
        severity=Severity.PROBLEM,
        finding=f"the server {stop.text} at {stop.step.value}",
        seen=seen,
        consequence="clients get as far, and no farther, through xproxy",
    )


def check_throttle(refused: tuple[int, Stop] | None) -> Finding | None:
    """Say that the server turned us away in the middle of the examination; None where it did not."""
    if refused is None:
        return None
    number, stop = refused
    return Finding(
        check="throttle",
        severity=Severity.PROBLEM,
        finding=f"connection {number} of this examination was turned away: the server {stop.text}",
        seen="made one connection after the other; what comes after this one may be missing",
        consequence="it limits connections by address, and behind xproxy all come from one",
        fixes=(
            Fix("Prosody", 'take "c2s_conn_throttle" out of modules_enabled, or mod_net_proxy'),
            Fix("ejabberd", "use_proxy_protocol: true on the listener, and xproxy run --upstream-proxy-protocol v2"),
        ),
    )


def redirected(look: Look, when: str) -> Finding:
    """Say that a stream error sends clients elsewhere (RFC 6120 section 4.9.3.19)."""
    assert look.stop is not None
    return Finding(
        check="redirect",
        severity=Severity.PROBLEM,
        finding=f"the server sends clients to {quoted(look.stop.content or 'nowhere')} {when} (see-other-host)",
        seen=f"opened a stream to {look.way}",
        consequence="who follows it leaves xproxy and is in no log but for redirect-offered",
        fixes=(Fix("xproxy", "--upstream with the host it names: put xproxy before that one"),),
    )


def check_latency(look: Look) -> Finding | None:
    """Say how long it takes until a client could log in; None where it never can."""
    if look.seconds is None or look.connect_seconds is None:
        return None
    tls = f", TLS {look.tls.seconds * 1_000:.0f} ms of it" if look.tls else ""
    slow = look.seconds > SLOW_SECONDS
    return Finding(
        check="latency",
        severity=Severity.WARNING if slow else Severity.OK,
        finding=f"from connecting to the offer of mechanisms: {look.seconds * 1_000:.0f} ms{tls}",
        seen=f"timed one connection to {look.way}",
        consequence="XMPPFramework gives up 10 s after it connected, and xproxy connects only then" if slow else "",
    )


def check_modes(starttls: Look, direct: Look) -> Finding:
    """Say which of STARTTLS and direct TLS clients may use through xproxy, which passes on what they begin with."""
    seen = f"tried {starttls.way} and {direct.way}"
    has_starttls, has_direct = starttls.tls is not None, direct.tls is not None
    if has_starttls and has_direct and starttls.way.port == direct.way.port:
        return Finding(
            check="direct-tls",
            severity=Severity.OK,
            finding=f"port {direct.way.port} takes both STARTTLS and direct TLS",
            seen=seen,
        )
    if has_starttls and has_direct:
        return Finding(
            check="direct-tls",
            severity=Severity.NOTE,
            finding=f"STARTTLS is on port {starttls.way.port}, direct TLS on port {direct.way.port}",
            seen=seen,
            consequence="xproxy goes on as the client began: before one of these ports only one kind of client works",
            fixes=_SAME_WAY,
        )
    if has_direct or has_starttls:
        works, fails = ("direct TLS", "STARTTLS") if has_direct else ("STARTTLS", "direct TLS")
        other = starttls if has_direct else direct
        why = other.stop.text if other.stop else "offers none"
        return Finding(
            check="direct-tls",
            severity=Severity.NOTE,
            finding=f"only {works} works; with {fails} port {other.way.port} {why}",
            seen=seen,
            consequence=f"a client that begins with {fails} at xproxy fails at the server too",
            fixes=_SAME_WAY,
        )
    if starttls.stop is not None and starttls.stop.tls is not None:
        return Finding(
            check="direct-tls",
            severity=Severity.NOTE,
            finding="no TLS came about, neither by STARTTLS, which is offered, nor directly",
            seen=seen,
            consequence="xproxy closes such a session, and tls-failed says why",
        )
    return Finding(
        check="direct-tls",
        severity=Severity.NOTE,
        finding="no TLS came about, neither by STARTTLS nor directly",
        seen=seen,
        consequence="clients have what the server has: nothing is encrypted between xproxy and the server",
    )


def check_alpn(direct: Look) -> Finding | None:
    """Say whether the server agrees to "xmpp-client" (XEP-0368 section 4); None without direct TLS."""
    if direct.tls is None or direct.way.mode is not Mode.DIRECT_TLS:
        return None
    chosen = direct.tls.alpn
    if chosen == "xmpp-client":
        return Finding(
            check="alpn",
            severity=Severity.OK,
            finding='the server chooses "xmpp-client" by ALPN',
            seen=f"offered it to {direct.way}",
        )
    return Finding(
        check="alpn",
        severity=Severity.OK,
        finding="the server chooses nothing by ALPN, which XEP-0368 allows",
        seen=f'offered "xmpp-client" to {direct.way}',
        consequence="xproxy chooses nothing either: a port that is shared by ALPN needs a server that knows it",
    )


_SAME_WAY: Final = (
    Fix("xproxy", "--upstream-tls starttls (or direct): xproxy then reaches the server that way whatever clients use"),
    Fix("Prosody", "c2s_ports = { 5222 }  c2s_direct_tls_ports = { 5223 }"),
    Fix("ejabberd", "listen: - {port: 5223, module: ejabberd_c2s, tls: true}"),
)
_UNBAN: Final = (
    Fix("ejabberd", "ejabberdctl unban_ip <the address of xproxy>; for good: use_proxy_protocol: true"),
    Fix("Prosody", "look for the module that limits connections per address, such as mod_c2s_conn_throttle"),
)
