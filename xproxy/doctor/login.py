"""What shows only above a login: where a session is to be resumed, compression, which software it is."""

from collections.abc import Callable

from xproxy.doctor.findings import Finding, Fix, Severity, quoted
from xproxy.doctor.look import Look, Offered
from xproxy.doctor.offer import check_compression
from xproxy.peer import words
from xproxy.peer.client import Client
from xproxy.peer.errors import LoginFailed, PeerError, ResumeFailed, StanzaFailed, StreamFailed
from xproxy.xmpp import ns

VERSION = "jabber:iq:version"  # XEP-0092


def not_tried(why: str) -> Finding:
    """Say that nothing is known about what is above a login."""
    return Finding(
        check="redirect",
        severity=Severity.NOTE,
        finding=f"whether the server leads clients elsewhere after the login is not known: {why}",
        seen="no login",
        consequence="xproxy records redirect-offered if it does",
        fixes=(Fix("xproxy", "xproxy doctor --jid USER@DOMAIN --login"),),
    )


Tell = Callable[[Finding], None]


async def log_in(client: Client, look: Look, user: str, password: str, tell: Tell) -> None:
    """Log in, bind, ask for resumption, and tell what was found. The password goes nowhere but into the login.

    Raises: PeerError where the connection ends, but for a stream error that redirects.
    """
    try:
        await client.login(user, password)
    except LoginFailed as failed:
        said = f" {quoted(failed.text)}" if failed.text else ""
        tell(
            Finding(
                check="login",
                severity=Severity.PROBLEM,
                finding=f"the login of --jid failed: {quoted(failed.condition)}{said}",
                seen=f"logged in at {look.way}",
                consequence="it would fail through xproxy too",
            )
        )
        return
    except StreamFailed as failed:
        if not _redirects(failed):
            raise
        tell(_elsewhere(failed.content, "at the login (see-other-host)", look))
        return
    tell(Finding(check="login", severity=Severity.OK, finding="the login of --jid works", seen=f"at {look.way}"))
    assert client.features is not None
    above = Offered.from_element(client.features)
    for finding in check_compression([above], "read the features above the login"):
        tell(finding)
    try:
        await client.bind("xproxy-doctor")
        tell(await _resumption(client, above, look))
        await _software(client, tell)
    except StreamFailed as failed:
        if not _redirects(failed):
            raise
        tell(_elsewhere(failed.content, "after the login (see-other-host)", look))
    except StanzaFailed as failed:
        tell(
            Finding(
                check="login",
                severity=Severity.PROBLEM,
                finding=f"no resource can be bound: {quoted(failed.condition)}",
                seen=f"asked for one at {look.way}",
                consequence="nor could it through xproxy",
            )
        )


def _redirects(failed: StreamFailed) -> bool:
    return failed.condition == "see-other-host"


async def _resumption(client: Client, above: Offered, look: Look) -> Finding:
    seen = f"enabled stream management at {look.way} (XEP-0198)"
    if f"{{{ns.SM3}}}sm" not in above.names:
        return Finding(
            check="redirect",
            severity=Severity.OK,
            finding="the server has no stream management, and so leads nobody elsewhere by it",
            seen="read the features above the login",
            consequence="messages on the way are lost when a connection drops, with xproxy as without it",
            fixes=(
                Fix("Prosody", 'modules_enabled = { "smacks" }'),
                Fix("ejabberd", "mod_stream_mgmt: {}"),
            ),
        )
    try:
        await client.enable_sm()
    except ResumeFailed as failed:
        return Finding(
            check="redirect",
            severity=Severity.NOTE,
            finding=f"stream management is offered and refused: {quoted(failed.condition)}",
            seen=seen,
        )
    if client.sm_location:
        return _elsewhere(client.sm_location, "to resume their sessions (location=)", look)
    return Finding(
        check="redirect",
        severity=Severity.OK,
        finding="the server names no other place to resume sessions at (no location=)",
        seen=seen,
    )


def _elsewhere(where: str | None, when: str, look: Look) -> Finding:
    return Finding(
        check="redirect",
        severity=Severity.WARNING,
        finding=f"the server sends clients to {quoted(where or 'nowhere')} {when}",
        seen=f"logged in at {look.way}",
        consequence="who follows it leaves xproxy and is in no log but for redirect-offered (XMPPFramework does not)",
        fixes=(Fix("any server", "let it name the address of xproxy there, or put an xproxy before that host too"),),
    )


async def _software(client: Client, tell: Tell) -> None:
    try:
        answer = await client.request(f"<query xmlns='{VERSION}'/>", to=client.domain)
    except PeerError:  # it need not know, and nothing comes after it
        return
    query = words.child(answer, VERSION, "query")
    if query is None:
        return
    name, version = (words.text_of(words.child(query, VERSION, each)) for each in ("name", "version"))
    tell(
        Finding(
            check="software",
            severity=Severity.OK,
            finding=f"the server calls itself {quoted(f'{name} {version}'.strip())}",
            seen="asked for its version (XEP-0092)",
        )
    )
