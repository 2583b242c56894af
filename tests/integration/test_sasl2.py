"""SASL2, Bind 2 and FAST: @xmpp/client and a server made for it, directly and through xproxy."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.accounts import DOMAIN, PASSWORDS
from tests.support.canary import Canary
from tests.support.golden import check_golden
from tests.support.mint import Mint
from tests.support.proxy_process import ProxyProcess, Record, action, at, only
from tests.support.raw_peer import scripted_server, server_context
from tests.support.sasl2 import FAST, MECHANISM, Sasl2Server
from tests.support.slix import Outcome
from tests.support.xmppjs import XmppJs

pytestmark = [pytest.mark.integration("node"), pytest.mark.slow]

StartProxy = Callable[..., ProxyProcess]

ALICE = {"user": "alice", "password": PASSWORDS["alice"]}


def play(
    xmpp_js: type[XmppJs], mint: Mint, canary: Canary, start_proxy: StartProxy, *, takes_tokens: bool
) -> tuple[Outcome, Outcome, list[list[Record]]]:
    """Log in twice, the second time with the token of the first, directly and through a proxy."""
    canary.register("a password", PASSWORDS["alice"])
    server = Sasl2Server(
        server_context(mint.leaf(DOMAIN, label="sasl2")), DOMAIN, "alice", PASSWORDS["alice"], takes_tokens=takes_tokens
    )
    with scripted_server(server.script) as running:
        proxy = start_proxy(running.port)

        def once(port: int, ca_file: Path) -> Outcome:
            client = xmpp_js(port=port, mode="direct-tls", ca_file=ca_file, domain=DOMAIN)
            return client.play("fast", ALICE, ALICE)

        direct = once(running.port, mint.ca_file)
        proxied = once(proxy.port, proxy.ca_file)
        sessions = proxy.sessions(count=2)
    for secret in (*direct.secrets, *proxied.secrets):
        canary.register_payload("a SASL payload or token", secret)
    for token in server.tokens:
        canary.register("a FAST token", token)
    return direct, proxied, sessions


@pytest.mark.parametrize("takes_tokens", [True, False], ids=["fresh", "stale"])
def test_a_login_with_a_token_ends_the_same(
    xmpp_js: type[XmppJs], mint: Mint, canary: Canary, start_proxy: StartProxy, takes_tokens: bool
) -> None:
    """Bound in the same round trip; a stale token is refused, and the password tried on the same stream."""
    direct, proxied, sessions = play(xmpp_js, mint, canary, start_proxy, takes_tokens=takes_tokens)
    assert proxied.final == direct.final
    assert proxied.logins == direct.logins
    assert direct.final == {
        "first": {"end": "session", "jid": f"alice@{DOMAIN}/xmppjs-0"},
        "token": True,
        "second": {"end": "session", "jid": f"alice@{DOMAIN}/xmppjs-1"},
        "left": ["offline", "offline"],
    }
    assert direct.logins == [
        {"mechanisms": [MECHANISM], "failures": []},
        {"mechanisms": [FAST], "failures": []}
        if takes_tokens
        else {"mechanisms": [FAST, MECHANISM], "failures": ["credentials-expired"]},
    ]
    check_golden(f"xmppjs-fast-{'fresh' if takes_tokens else 'stale'}", sessions)
    for session in sessions:
        assert at(only(session, "session-established"), "xmpp.session.how") == "sasl2"
    causes = [at(record, "xproxy.cause") for record in sessions[1] if action(record) == "sasl-failed"]
    assert causes == ([] if takes_tokens else ["stale-token"])
