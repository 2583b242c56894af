"""Do failed logins ban the address they come from? Found out by failing to log in, only where it was asked for."""

import base64
import secrets

import attrs

from xproxy.doctor.findings import Finding, Fix, Severity, quoted
from xproxy.doctor.look import Look, Visitor, Way
from xproxy.peer.client import Client
from xproxy.peer.errors import Disconnected, LoginFailed, StreamFailed
from xproxy.xmpp import ns

TRIES_MAX = 100  # five times what ejabberd's mod_fail2ban allows by default


def not_tried() -> Finding:
    """Say that it is not known."""
    return Finding(
        check="bans",
        severity=Severity.NOTE,
        finding="whether failed logins ban the address they come from is not known",
        seen="not tried: it may shut this address out",
        consequence="if they do, anybody's wrong passwords shut everybody out behind xproxy, unless the server sees "
        "clients' own addresses (PROXY protocol)",
        fixes=(Fix("xproxy", "xproxy doctor --try-bans 25 tries, with a user that does not exist"),),
    )


async def try_bans(visitor: Visitor, way: Way, tries: int) -> Finding:
    """Fail ``tries`` logins, each on a connection of its own, and see whether the server still answers."""
    user = f"xproxy-doctor-{secrets.token_hex(6)}"
    for number in range(1, tries + 1):
        async with visitor.visit(way) as (client, look):
            if look.stop is not None and number == 1:
                return attrs.evolve(not_tried(), seen=f"tried, and before the first login the server {look.stop.text}")
            if look.stop is not None:
                return _banned(number - 1, look, user)
            try:
                refused = await _fail(client, user, look)
            except StreamFailed as failed:
                if not failed.by_peer:
                    raise
                return _banned_with(number, f"answers with the stream error {quoted(failed.condition)}", way, user)
            except Disconnected:
                return _banned_with(number, "hangs up", way, user)
            if not refused:
                return _unclear(number, way)
    last = await visitor.look(way)
    if last.stop is not None:
        return _banned(tries, last, user)
    return Finding(
        check="bans",
        severity=Severity.OK,
        finding=f"{tries} failed login{'s' if tries != 1 else ''} did not ban this address",
        seen=f"failed to log in as {user}, who does not exist, at {way}",
    )


async def _fail(client: Client, user: str, look: Look) -> bool:
    """Log in with a password that is none; return whether that was refused with ``<failure/>``.

    Raises: PeerError where it is neither refused nor let in.
    """
    mechanisms = look.secured.mechanisms if look.secured else ()
    try:
        if "PLAIN" in mechanisms:
            payload = base64.b64encode(f"\0{user}\0{secrets.token_hex(8)}".encode()).decode()
            await client.send(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{payload}</auth>")
            return bool((await client.receive()).tag == f"{{{ns.SASL}}}failure")
        await client.login(user, secrets.token_hex(8))
    except LoginFailed as failed:
        if failed.condition not in ns.SASL_CONDITIONS | ns.SASL_CONDITIONS_LEGACY:  # it is we who did not go on
            raise
        return True
    return False


def _banned(tries: int, look: Look, user: str) -> Finding:
    assert look.stop is not None
    return _banned_with(tries, look.stop.text, look.way, user)


def _banned_with(tries: int, how: str, way: Way, user: str) -> Finding:
    return Finding(
        check="bans",
        severity=Severity.PROBLEM,
        finding=f"after {tries} failed login{'s' if tries != 1 else ''} the server shuts this address out: it {how}",
        seen=f"failed to log in as {user}, who does not exist, at {way}; this address stays shut out for a while",
        consequence="behind xproxy anybody's wrong passwords shut everybody out",
        fixes=(
            Fix(
                "ejabberd",
                "use_proxy_protocol: true on the listener, and xproxy run --upstream-proxy-protocol v2; or: "
                "acl: {xproxy: {ip: <address of xproxy>}}  access_rules: {never_banned: {allow: xproxy}}  "
                "modules: {mod_fail2ban: {access: never_banned}}",
            ),
            Fix(
                "Prosody",
                "mod_net_proxy, and xproxy run --upstream-proxy-protocol v2; or take the module that limits "
                "addresses out of modules_enabled",
            ),
        ),
    )


def _unclear(number: int, way: Way) -> Finding:
    return Finding(
        check="bans",
        severity=Severity.NOTE,
        finding=f"whether failed logins ban is not known: login {number} of a user that does not exist was not refused",
        seen=f"at {way}",
    )
