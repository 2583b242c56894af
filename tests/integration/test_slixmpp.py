"""slixmpp and Prosody, directly and through xproxy: the application gets the same, and the log says what happened."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from tests.support.accounts import MODES, PASSWORDS
from tests.support.canary import Canary
from tests.support.golden import check_golden
from tests.support.mint import Mint
from tests.support.prosody import Prosody
from tests.support.proxy_process import ProxyProcess, at, only
from tests.support.slix import Outcome, SlixDriver

pytestmark = pytest.mark.integration

ALICE = {"user": "alice", "password": PASSWORDS["alice"]}
BOB = {"user": "bob", "password": PASSWORDS["bob"]}
WRONG = {"user": "alice", "password": "canary-wrong-password"}
NOBODY = {"user": "nobody", "password": "canary-password-of-nobody"}
BODIES = ["canary-body: alice schreibt «grüße» & <more>", "canary-body: bob answers"]


@attrs.frozen
class Scenario:
    """What is played, by whom, and how many connections it takes."""

    name: str
    play: str
    clients: tuple[dict[str, str], ...]
    connections: int


SCENARIOS = (
    Scenario("login", "login", (ALICE,), 1),
    Scenario("wrong-password", "login", (WRONG,), 1),
    Scenario("unknown-user", "login", (NOBODY,), 1),
    Scenario("messages", "messages", (ALICE, BOB), 2),
    Scenario("roster", "roster", (ALICE,), 1),
    Scenario("disco", "disco", (ALICE,), 1),
    Scenario("resume", "resume", (ALICE, BOB), 3),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@attrs.frozen
class Both:
    """One scenario without and with the proxy."""

    direct: Outcome
    proxied: Outcome
    sessions: list[list[dict[str, Any]]]


@attrs.frozen
class Stage:
    """Plays scenarios both ways."""

    prosody: Prosody
    proxies: dict[str, ProxyProcess]
    slix: SlixDriver
    mint: Mint
    canary: Canary

    def play(self, scenario: Scenario, mode: str, *, tls_max: str | None = None) -> Both:
        """Play it directly, then through the proxy, and wait until the proxy has closed its sessions."""
        proxy = self.proxies[mode]
        common = {
            "mode": mode,
            "domain": self.prosody.domain,
            "clients": list(scenario.clients),
            "bodies": BODIES,
            "tls_max": tls_max,
        }
        for client in scenario.clients:
            self.canary.register("a password", client["password"])
        for body in BODIES:
            self.canary.register("a message body", body)
        direct = self.slix.play(scenario.play, port=self.prosody.port(mode), ca_file=str(self.mint.ca_file), **common)
        mark = proxy.mark()
        proxied = self.slix.play(scenario.play, port=proxy.port, ca_file=str(proxy.ca_file), **common)
        for secret in direct.secrets + proxied.secrets:
            self.canary.register_payload("a SASL payload or SM id", secret)
        return Both(direct, proxied, proxy.sessions(after=mark, count=scenario.connections))


@pytest.fixture
def stage(prosody: Prosody, proxies: dict[str, ProxyProcess], slix: SlixDriver, mint: Mint, canary: Canary) -> Stage:
    return Stage(prosody, proxies, slix, mint, canary)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_outcome_is_the_same_and_the_log_is_as_agreed(stage: Stage, scenario: Scenario, mode: str) -> None:
    both = stage.play(scenario, mode)
    assert "timeout" not in both.direct.final
    assert both.proxied.final == both.direct.final
    assert both.proxied.logins == both.direct.logins
    assert len(both.proxied.secrets) == len(both.direct.secrets) > 0
    check_golden(f"slixmpp-{scenario.name}-{mode}", both.sessions)


def test_the_scenarios_end_as_their_names_say(stage: Stage) -> None:
    """So that two equal failures do not pass for success."""
    finals = {name: stage.play(BY_NAME[name], "starttls").proxied.final for name in ("login", "wrong-password")}
    assert finals["login"] == {"end": "session", "jid": "alice@xmpp.test/slix-0", "left": "closed"}
    assert finals["wrong-password"] == {"end": "refused", "jid": None, "left": "closed"}
    assert stage.play(BY_NAME["resume"], "direct-tls").proxied.final == {
        "end": "resumed",
        "same_jid": True,
        "received": [True, True],
        "left": ["closed", "closed"],
    }


@pytest.mark.parametrize("mode", MODES)
def test_a_client_limited_to_tls_1_2_logs_in_with_1_2_on_both_legs(stage: Stage, mode: str) -> None:
    """And the listed difference: tls-unique cannot cross, so the -PLUS attempt fails, and slixmpp falls back."""
    both = stage.play(BY_NAME["login"], mode, tls_max="1.2")
    assert both.direct.logins == [{"mechanisms": ["SCRAM-SHA-1-PLUS"], "failures": [], "tls": "TLSv1.2"}]
    assert both.proxied.final == both.direct.final
    assert both.proxied.logins == [
        {
            "mechanisms": ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"],
            "failures": [["SCRAM-SHA-1-PLUS", "malformed-request"]],  # so Prosody calls a binding that differs
            "tls": "TLSv1.2",
        }
    ]
    (session,) = both.sessions
    for leg in ("client", "server"):
        assert at(only(session, "tls-established", xproxy__leg=leg), "tls.version") == "1.2"
    verdict = only(session, "channel-binding-verdict")
    assert at(verdict, "xproxy.channel_binding.prediction") == "fails"
    assert at(verdict, "xmpp.sasl.channel_binding") == "tls-unique"
    failed = only(session, "sasl-failed")
    assert at(failed, "xproxy.cause") == "channel-binding-broken-by-proxy"
    check_golden(f"slixmpp-login-tls12-{mode}", both.sessions)


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_password_over_tls_1_2_is_refused_as_it_is_directly(stage: Stage, mode: str) -> None:
    both = stage.play(BY_NAME["wrong-password"], mode, tls_max="1.2")
    assert both.proxied.final == both.direct.final
    want = ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"]
    assert both.direct.logins[0]["failures"] == [[mechanism, "not-authorized"] for mechanism in want]
    # The listed difference: the binding is refused before the password is looked at.
    assert both.proxied.logins[0]["failures"] == [
        ["SCRAM-SHA-1-PLUS", "malformed-request"],
        *([mechanism, "not-authorized"] for mechanism in want[1:]),
    ]
    (session,) = both.sessions
    causes = [at(record, "xproxy.cause") for record in session if record["event"]["action"] == "sasl-failed"]
    assert causes == ["channel-binding-broken-by-proxy", "wrong-credentials", "wrong-credentials"]


def test_a_resumed_session_is_joined_to_the_lost_one(stage: Stage) -> None:
    both = stage.play(BY_NAME["resume"], "starttls")
    lost, _, resumed = both.sessions
    enabled = at(only(lost, "sm-enabled"), "xmpp.sm.id_hash")
    assert enabled
    assert at(only(resumed, "session-resumed"), "xmpp.sm.id_hash") == enabled
    closed = only(lost, "connection-closed")
    assert at(closed, "xproxy.initiator") == "client"
    assert at(closed, "xproxy.from_client.end") == "reset"


@pytest.mark.parametrize("mode", MODES)
def test_a_client_that_does_not_trust_our_ca_says_so_and_so_does_the_log(stage: Stage, mode: str) -> None:
    proxy = stage.proxies[mode]
    mark = proxy.mark()
    outcome = stage.slix.play(
        "login",
        port=proxy.port,
        mode=mode,
        domain=stage.prosody.domain,
        clients=[ALICE],
        ca_file=str(stage.mint.ca_file),  # the server's CA, not the proxy's
    )
    assert outcome.final["jid"] is None
    assert outcome.logins[-1] == {"error": "SSLCertVerificationError"}
    failed = only(proxy.session(after=mark), "tls-failed")
    assert at(failed, "xproxy.leg") == "client"
    # asyncio closes the connection before its alert is sent, so there is only the close to be seen.
    assert at(failed, "error.code") == "closed"


def test_debug_records_hold_no_more_secrets_than_others(stage: Stage, start_proxy: Callable[..., ProxyProcess]) -> None:
    """Every stanza has a record then; the search at the proxy's stop covers them."""
    mode = "direct-tls"
    proxy = start_proxy(stage.prosody.port(mode), "--log-level", "debug")
    talking = attrs.evolve(stage, proxies={mode: proxy})
    for name in ("messages", "resume"):
        both = talking.play(BY_NAME[name], mode)
        assert both.proxied.final == both.direct.final
    relayed = [record for record in proxy.records() if record["event"]["action"] == "stanza-relayed"]
    assert {at(record, "xmpp.stanza.kind") for record in relayed} >= {"message", "iq"}
    assert {at(record, "xmpp.sent_by") for record in relayed} == {"client", "server"}
