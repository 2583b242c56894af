"""Does the server take a PROXY protocol header, so that it sees clients' own addresses behind xproxy?

The header that is sent says the truth: it names us. Nothing is claimed for others' addresses.
"""

from typing import Final

from xproxy.doctor.findings import Finding, Fix, Severity
from xproxy.doctor.look import Look
from xproxy.doctor.stop import POLICY_CONDITIONS

_ACCEPT: Final = (
    Fix(
        "Prosody",
        'modules_enabled = { "net_proxy" }  proxy_port_mappings = { [15222] = "c2s" }  proxy_ports = { 15222 }  '
        'proxy_trusted_proxies = { "127.0.0.1", "::1" }  (community module mod_net_proxy)',
    ),
    Fix("ejabberd", 'listen: - {port: 15222, ip: "127.0.0.1", module: ejabberd_c2s, use_proxy_protocol: true}'),
    Fix("xproxy", "then: --upstream-proxy-protocol v2"),
)


def check_proxy_protocol(plain: Look, headed: Look) -> Finding | None:
    """Compare a connection without and with a header of version 2; None where neither shows an XMPP server."""
    seen = f"connected to {plain.way} without a header and with one of version 2"
    takes_plain, takes_header = (look.clear or look.secured for look in (plain, headed))
    if headed.stop is not None and headed.stop.reason in POLICY_CONDITIONS:
        return Finding(
            check="proxy-protocol",
            severity=Severity.NOTE,
            finding=f"whether the server takes a PROXY protocol header is not known: it {headed.stop.text}",
            seen=seen,
            consequence="if not, all clients come from xproxy's address to it",
        )
    if takes_plain and not takes_header:
        why = headed.stop.text if headed.stop else "does not answer"
        return Finding(
            check="proxy-protocol",
            severity=Severity.WARNING,
            finding=f"the server takes no PROXY protocol header: with one it {why}",
            seen=seen,
            consequence="to it all clients come from xproxy's address: what it bans or limits by address, it bans or "
            "limits for everybody, and its log has one address",
            fixes=_ACCEPT,
        )
    if takes_header and not takes_plain:
        why = plain.stop.text if plain.stop else "does not answer"
        return Finding(
            check="proxy-protocol",
            severity=Severity.OK,
            finding=f"the server wants a PROXY protocol header: without one it {why}",
            seen=seen,
            consequence="xproxy must send one, and the server then sees clients' own addresses",
            fixes=(Fix("xproxy", "--upstream-proxy-protocol v2"),),
        )
    if takes_header and takes_plain:
        return Finding(
            check="proxy-protocol",
            severity=Severity.WARNING,
            finding="the server takes connections with and without a PROXY protocol header from here",
            seen=seen,
            consequence="whoever reaches it past xproxy may claim any address",
            fixes=(
                Fix("Prosody", 'proxy_trusted_proxies = { "<the address of xproxy>" }'),
                Fix("ejabberd", 'ip: "127.0.0.1" on the listener with use_proxy_protocol'),
            ),
        )
    return None
