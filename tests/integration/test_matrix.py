"""Each server with each client, directly and through xproxy: the same comes of it, and the log says what happened.

What Prosody does with slixmpp and go-sendxmpp stands in test_slixmpp.py and test_go_sendxmpp.py; here is the rest.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.support.accounts import DOMAIN, MODES, PASSWORDS
from tests.support.canary import Canary
from tests.support.ejabberd import Ejabberd
from tests.support.golden import check_golden
from tests.support.gosendxmpp import GoSendXmpp
from tests.support.mint import Mint
from tests.support.profanity import Profanity
from tests.support.prosody import Prosody
from tests.support.proxy_process import ProxyProcess, Record, action, at, only
from tests.support.slix import Outcome, SlixDriver
from tests.support.xmppjs import XmppJs

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PROSODY = pytest.param("prosody", marks=pytest.mark.integration("prosody"))
EJABBERD = pytest.param("ejabberd", marks=pytest.mark.integration("ejabberdctl", "erl"))
SERVERS = (PROSODY, EJABBERD)

WRONG = "canary-wrong-password"
ROOM_PASSWORD = "canary-password-of-the-room"
BODIES = ["canary-body: the first «grüße» & <more>", "canary-body: the answer"]


NOBODY = "canary-password-of-nobody"  # who has no account


def account(user: str, password: str | None = None) -> dict[str, str]:
    """Return what a client needs to know."""
    return {"user": user, "password": password or PASSWORDS[user]}


@attrs.frozen
class Way:
    """How to reach the server: directly, or through the proxy."""

    port: int
    ca_file: Path


@attrs.frozen
class Both:
    """One scenario without and with the proxy."""

    direct: Outcome
    proxied: Outcome
    sessions: list[list[Record]]

    def check_same(self) -> None:
        """The application got the same."""
        assert "timeout" not in self.direct.final
        assert self.proxied.final == self.direct.final
        assert self.proxied.logins == self.direct.logins


@attrs.frozen
class Stage:
    """A server and the proxies before it."""

    server: Prosody | Ejabberd
    proxies: dict[str, ProxyProcess]
    mint: Mint
    canary: Canary

    def play(self, mode: str, connections: int, scenario: Callable[[Way], Outcome]) -> Both:
        """Play ``scenario`` directly, then through the proxy, and wait until the proxy has closed its sessions."""
        proxy = self.proxies[mode]
        for label, secret in (("a password", WRONG), ("nobody's", NOBODY), ("a room's password", ROOM_PASSWORD)):
            self.canary.register(label, secret)
        for body in BODIES:
            self.canary.register("a message body", body)
        direct = scenario(Way(self.server.port(mode), self.mint.ca_file))
        mark = proxy.mark()
        proxied = scenario(Way(proxy.port, proxy.ca_file))
        for secret in direct.secrets + proxied.secrets:
            self.canary.register_payload("a SASL payload or SM id", secret)
        return Both(direct, proxied, proxy.sessions(after=mark, count=connections))


@pytest.fixture
def server(request: pytest.FixtureRequest) -> str:
    """The name of the server under test."""
    return str(request.param)


@pytest.fixture
def stage(request: pytest.FixtureRequest, server: str, mint: Mint, canary: Canary) -> Stage:
    """The server under test."""
    proxies = request.getfixturevalue("proxies" if server == "prosody" else "ejabberd_proxies")
    return Stage(request.getfixturevalue(server), proxies, mint, canary)


def established(sessions: list[list[Record]]) -> list[Any]:
    """Return the user of each established session."""
    return [at(only(session, "session-established"), "user.name") for session in sessions]


def up_to(name: str, sessions: list[list[Record]]) -> list[list[Record]]:
    """Return each session's records up to the first of that action."""
    return [session[: next(n for n, record in enumerate(session, 1) if action(record) == name)] for session in sessions]


# --- slixmpp ------------------------------------------------------------------------------------------------------


def slixmpp(slix: SlixDriver, scenario: str, mode: str, *clients: dict[str, str], **job: Any) -> Any:
    """Return a scenario for slixmpp."""
    return lambda way: slix.play(
        scenario,
        port=way.port,
        ca_file=str(way.ca_file),
        mode=mode,
        domain=DOMAIN,
        clients=list(clients),
        bodies=BODIES,
        room_password=ROOM_PASSWORD,
        **job,
    )


@pytest.mark.parametrize("server", [EJABBERD], indirect=True)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "scenario", "clients", "connections"),
    [
        ("login", "login", [account("alice")], 1),
        ("wrong-password", "login", [account("alice", WRONG)], 1),
        ("unknown-user", "login", [account("nobody", NOBODY)], 1),
        ("messages", "messages", [account("alice"), account("bob")], 2),
        ("roster", "roster", [account("alice")], 1),
        ("disco", "disco", [account("alice")], 1),
        ("resume", "resume", [account("alice"), account("bob")], 3),
    ],
)
def test_slixmpp_at_ejabberd(
    stage: Stage,
    slix: SlixDriver,
    mode: str,
    name: str,
    scenario: str,
    clients: list[dict[str, str]],
    connections: int,
) -> None:
    both = stage.play(mode, connections, slixmpp(slix, scenario, mode, *clients))
    both.check_same()
    assert len(both.proxied.secrets) == len(both.direct.secrets) > 0
    check_golden(f"slixmpp-{name}-ejabberd-{mode}", both.sessions)


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_slixmpp_in_a_room(stage: Stage, slix: SlixDriver, server: str) -> None:
    """Refused for want of a password, for a nick that is taken, for not being a member; kicked, banned, kept out."""
    both = stage.play("starttls", 2, slixmpp(slix, "muc", "starttls", account("bob"), account("alice")))
    both.check_same()
    assert both.direct.final["steps"] == {
        "made": {"presence": "available", "codes": ["201"]},
        "locked": "result",
        "no password": {"refused": "not-authorized", "type": "auth"},
        "nick taken": {"refused": "conflict", "type": "cancel"},
        "let in": {"presence": "available", "codes": []},
        "kick": "result",
        "kicked": {"presence": "unavailable", "codes": ["307"]},
        "closed": "result",
        "not a member": {"refused": "registration-required", "type": "auth"},
        "opened": "result",
        "let in again": {"presence": "available", "codes": []},
        "ban": "result",
        "banned": {"presence": "unavailable", "codes": ["301"]},
        "outcast": {"refused": "forbidden", "type": "auth"},
        "left": {"presence": "unavailable", "codes": []},
    }
    check_golden(f"slixmpp-muc-{server}", both.sessions)


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_slixmpp_makes_an_account_changes_its_password_and_removes_it(
    stage: Stage, slix: SlixDriver, server: str
) -> None:
    clients = [account("newcomer", f"canary-password-{number}-of-newcomer") for number in (1, 2)]
    for client in clients:
        stage.canary.register("a newcomer's password", client["password"])
    both = stage.play("direct-tls", 2, slixmpp(slix, "register", "direct-tls", *clients))
    both.check_same()
    assert both.direct.final == {
        "ends": ["session", "session"],
        "registered": {"answer": "result"},
        "changed": "result",
        "left": "closed",
        "removed": "result" if server == "prosody" else "unanswered",
    }
    check_golden(f"slixmpp-register-{server}", both.sessions)


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_slixmpp_is_refused_an_account_that_is_taken(stage: Stage, slix: SlixDriver, server: str) -> None:
    both = stage.play("starttls", 1, slixmpp(slix, "register-refused", "starttls", account("alice")))
    both.check_same()
    assert both.direct.final["registered"] == {"answer": "error", "condition": "conflict", "type": "cancel"}
    check_golden(f"slixmpp-register-refused-{server}", both.sessions)


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_slixmpp_uses_carbons_blocking_and_is_refused_an_upload_slot(
    stage: Stage, slix: SlixDriver, server: str
) -> None:
    """Prosody has no upload service here; ejabberd's takes less than is asked for (XEP-0363 section 5)."""
    clients = (account("alice"), account("alice"), account("bob"))
    both = stage.play("starttls", 3, slixmpp(slix, "services", "starttls", *clients))
    both.check_same()
    steps = both.direct.final["steps"]
    assert steps["copy"] == "sent"
    assert steps["to the blocked"].startswith("not-acceptable")
    assert steps["slot"]["condition"] == ("not-allowed" if server == "prosody" else "not-acceptable")
    check_golden(f"slixmpp-services-{server}", both.sessions)


@pytest.mark.parametrize("server", [EJABBERD], indirect=True)
@pytest.mark.parametrize("mode", MODES)
def test_slixmpp_tries_to_bind_at_ejabberd_over_tls_1_2(stage: Stage, slix: SlixDriver, mode: str) -> None:
    """ejabberd offers -PLUS for three hashes; each needs tls-unique, which cannot cross, and slixmpp falls back."""
    both = stage.play(mode, 1, slixmpp(slix, "login", mode, account("alice"), tls_max="1.2"))
    assert both.direct.logins == [{"mechanisms": ["SCRAM-SHA-512-PLUS"], "failures": [], "tls": "TLSv1.2"}]
    assert both.proxied.final == both.direct.final
    assert both.proxied.logins[0]["mechanisms"][-1] == "SCRAM-SHA-512"
    (session,) = both.sessions
    verdicts = [record for record in session if action(record) == "channel-binding-verdict"]
    assert {at(record, "xproxy.channel_binding.prediction") for record in verdicts} >= {"fails"}
    refused = [record for record in session if action(record) == "sasl-failed"]
    assert refused
    assert {at(record, "xproxy.cause") for record in refused} == {"channel-binding-broken-by-proxy"}
    assert {at(record, "xmpp.sasl.channel_binding") for record in verdicts if at(record, "xmpp.sasl.gs2_flag") == "p"}
    check_golden(f"slixmpp-login-tls12-ejabberd-{mode}", both.sessions)


# --- go-sendxmpp --------------------------------------------------------------------------------------------------


def go(tool: type[GoSendXmpp], mode: str, user: str, password: str | None = None) -> Callable[[Way], GoSendXmpp]:
    """Return what makes a go-sendxmpp for a way."""
    return lambda way: tool(
        port=way.port,
        ca_file=way.ca_file,
        mode=mode,
        user=user,
        domain=DOMAIN,
        password=password or PASSWORDS[user],
    )


@pytest.mark.integration("go-sendxmpp")
@pytest.mark.parametrize("server", [EJABBERD], indirect=True)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "user", "password", "status"),
    [
        ("login", "gopher", None, 0),
        ("wrong-password", "gopher", WRONG, 1),
        ("unknown-user", "nobody", NOBODY, 1),
    ],
)
def test_go_sendxmpp_at_ejabberd(
    stage: Stage, go_sendxmpp: type[GoSendXmpp], mode: str, name: str, user: str, password: str | None, status: int
) -> None:
    client = go(go_sendxmpp, mode, user, password)
    both = stage.play(mode, 1, lambda way: client(way).send(f"nobody@{DOMAIN}", BODIES[0]))
    both.check_same()
    assert both.direct.final["status"] == status
    check_golden(f"go-sendxmpp-{name}-ejabberd-{mode}", both.sessions)


@pytest.mark.integration("go-sendxmpp")
@pytest.mark.parametrize("server", [EJABBERD], indirect=True)
@pytest.mark.parametrize("mode", MODES)
def test_go_sendxmpp_asks_at_ejabberd(stage: Stage, go_sendxmpp: type[GoSendXmpp], mode: str) -> None:
    client = go(go_sendxmpp, mode, "gopher")
    both = stage.play(mode, 1, lambda way: client(way).ask())
    both.check_same()
    assert [answer[0] for answer in both.direct.final["answers"].values()] == ["result", "result", "error"]
    check_golden(f"go-sendxmpp-ask-ejabberd-{mode}", both.sessions)


@pytest.mark.integration("go-sendxmpp")
@pytest.mark.parametrize("server", [EJABBERD], indirect=True)
@pytest.mark.parametrize("mode", MODES)
def test_go_sendxmpp_sends_a_message_at_ejabberd(stage: Stage, go_sendxmpp: type[GoSendXmpp], mode: str) -> None:
    gopher, gretel = (go(go_sendxmpp, mode, user) for user in ("gopher", "gretel"))

    def talk(way: Way) -> Outcome:
        with gretel(way).listening() as listener:
            sent = gopher(way).send(listener.jid(), BODIES[0])
            listener.wait("stdout", BODIES[0][:20])
        return sent

    both = stage.play(mode, 2, talk)
    both.check_same()
    assert established(both.sessions) == ["gretel", "gopher"]


# --- profanity ----------------------------------------------------------------------------------------------------


def prof(
    tool: type[Profanity], directory: Path, mode: str, user: str, password: str | None = None
) -> Callable[[Way], Profanity]:
    """Return what makes a profanity for a way."""
    return lambda way: tool(
        directory=directory,
        port=way.port,
        ca_file=way.ca_file,
        mode=mode,
        user=user,
        domain=DOMAIN,
        password=password or PASSWORDS[user],
    )


@pytest.mark.integration("profanity", "openssl")
@pytest.mark.parametrize("server", SERVERS, indirect=True)
@pytest.mark.parametrize("mode", MODES)
def test_profanity_logs_in(
    stage: Stage, profanity_tool: type[Profanity], tmp_path: Path, server: str, mode: str
) -> None:
    client = prof(profanity_tool, tmp_path, mode, "alice")
    both = stage.play(mode, 1, lambda way: client(way).login())
    both.check_same()
    assert both.direct.final["jid"] == f"alice@{DOMAIN}/profanity-alice"
    assert established(both.sessions) == ["alice"]
    # What it asks for after the login comes in an order of its own.
    check_golden(f"profanity-login-{server}-{mode}", up_to("session-established", both.sessions))


@pytest.mark.integration("profanity", "openssl")
@pytest.mark.parametrize("server", SERVERS, indirect=True)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "user", "password"), [("wrong-password", "alice", WRONG), ("unknown-user", "nobody", NOBODY)]
)
def test_profanity_is_refused(
    stage: Stage,
    profanity_tool: type[Profanity],
    tmp_path: Path,
    server: str,
    mode: str,
    name: str,
    user: str,
    password: str,
) -> None:
    client = prof(profanity_tool, tmp_path, mode, user, password)
    both = stage.play(mode, 1, lambda way: client(way).login())
    both.check_same()
    assert both.direct.final["login_failed"]
    assert set(both.direct.logins[0]["failures"]) == {"not-authorized"}
    (session,) = both.sessions
    refused = [record for record in session if action(record) == "sasl-failed"]
    assert [at(record, "xmpp.sasl.mechanism") for record in refused] == both.direct.logins[0]["mechanisms"]
    # Prosody's list of mechanisms has another order each time it starts, but profanity has one of its own.
    check_golden(f"profanity-{name}-{server}-{mode}", both.sessions)


@pytest.mark.integration("profanity", "openssl")
@pytest.mark.parametrize("server", SERVERS, indirect=True)
@pytest.mark.parametrize("mode", MODES)
def test_profanity_sends_a_message(
    stage: Stage, profanity_tool: type[Profanity], tmp_path: Path, server: str, mode: str
) -> None:
    alice, bob = (prof(profanity_tool, tmp_path, mode, user) for user in ("alice", "bob"))

    def talk(way: Way) -> Outcome:
        with bob(way).running() as receiver, alice(way).running() as sender:
            assert receiver.decided()
            assert sender.decided()
            sender.type(f"/msg bob@{DOMAIN} {BODIES[1]}")
            receiver.wait(r"RECV: <message [^>]*>.*" + BODIES[1])
        return attrs.evolve(sender.outcome(), secrets=sender.outcome().secrets + receiver.outcome().secrets)

    both = stage.play(mode, 2, talk)
    both.check_same()
    assert sorted(established(both.sessions)) == ["alice", "bob"]


# --- @xmpp/client -------------------------------------------------------------------------------------------------


def javascript(tool: type[XmppJs], scenario: str, mode: str, *clients: dict[str, str]) -> Callable[[Way], Outcome]:
    """Return a scenario for @xmpp/client."""
    return lambda way: tool(port=way.port, ca_file=way.ca_file, mode=mode, domain=DOMAIN).play(
        scenario, *clients, bodies=BODIES
    )


@pytest.mark.integration("node")
@pytest.mark.parametrize("server", SERVERS, indirect=True)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "scenario", "clients"),
    [
        ("login", "login", [account("alice")]),
        ("wrong-password", "login", [account("alice", WRONG)]),
        ("unknown-user", "login", [account("nobody", NOBODY)]),
        ("disco", "disco", [account("alice")]),
        ("messages", "messages", [account("alice"), account("bob")]),
    ],
)
def test_xmpp_js(
    stage: Stage, xmpp_js: type[XmppJs], server: str, mode: str, name: str, scenario: str, clients: list[dict[str, str]]
) -> None:
    both = stage.play(mode, len(clients), javascript(xmpp_js, scenario, mode, *clients))
    both.check_same()
    if name in ("wrong-password", "unknown-user"):
        assert both.direct.final["condition"] == "not-authorized"
    else:
        assert established(both.sessions) == [client["user"] for client in clients]
    if name == "messages":
        assert both.direct.final["received"] == [True, True]
    # Asked for an acknowledgement as it leaves, it answers behind its own closing tag, or does not: a race.
    check_golden(f"xmppjs-{name}-{server}-{mode}", up_to("stream-closed", both.sessions))


# --- all of it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["login", "wrong-password", "unknown-user"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("server", ["prosody", "ejabberd"])
@pytest.mark.parametrize("client", ["slixmpp", "go-sendxmpp", "profanity", "xmppjs"])
def test_no_cell_of_the_matrix_is_empty(client: str, server: str, mode: str, outcome: str) -> None:
    """Each has been played, directly and through the proxy, and what the log says of it agreed on."""
    elsewhere = server == "prosody" and client in ("slixmpp", "go-sendxmpp")  # test_slixmpp.py, test_go_sendxmpp.py
    name = f"{client}-{outcome}-{mode}" if elsewhere else f"{client}-{outcome}-{server}-{mode}"
    assert (Path(__file__).parents[1] / f"vectors/golden/{name}.json").is_file()
