"""go-sendxmpp and Prosody, directly and through xproxy.

Rows of the matrix that do not apply: drop and resume (0.5.7 has no XEP-0198), -PLUS (it logs in by PLAIN only). It
always leaves by closing TCP, so there is no closing tag from the client.
"""

import attrs
import pytest

from tests.support.accounts import DOMAIN, MODES, PASSWORDS
from tests.support.canary import Canary
from tests.support.golden import check_golden
from tests.support.gosendxmpp import GoSendXmpp
from tests.support.mint import Mint
from tests.support.prosody import Prosody
from tests.support.proxy_process import ProxyProcess, at, only

pytestmark = pytest.mark.integration

BODY = "canary-body: go-sendxmpp says «hello» & more"
SELF = f"gopher@{DOMAIN}"


@attrs.frozen
class Stage:
    """Makes clients for either way."""

    prosody: Prosody
    proxies: dict[str, ProxyProcess]
    mint: Mint
    canary: Canary
    tool: type[GoSendXmpp]

    def clients(self, mode: str, user: str = "gopher", password: str | None = None) -> tuple[GoSendXmpp, GoSendXmpp]:
        """Return the direct and the proxied client."""
        password = password or PASSWORDS[user]
        self.canary.register(f"password of {user}", password)
        self.canary.register("a message body", BODY)
        proxy = self.proxies[mode]
        direct = self.tool(
            port=self.prosody.port(mode),
            ca_file=self.mint.ca_file,
            mode=mode,
            user=user,
            domain=DOMAIN,
            password=password,
        )
        return direct, attrs.evolve(direct, port=proxy.port, ca_file=proxy.ca_file)


@pytest.fixture
def stage(
    prosody: Prosody, proxies: dict[str, ProxyProcess], mint: Mint, canary: Canary, go_sendxmpp: type[GoSendXmpp]
) -> Stage:
    return Stage(prosody, proxies, mint, canary, go_sendxmpp)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("user", "password", "status"),
    [
        pytest.param("gopher", PASSWORDS["gopher"], 0, id="login"),
        pytest.param("gopher", "canary-wrong-password", 1, id="wrong-password"),
        pytest.param("nobody", "canary-password-of-nobody", 1, id="unknown-user"),
    ],
)
def test_a_login_ends_the_same(stage: Stage, mode: str, user: str, password: str, status: int) -> None:
    direct, proxied = stage.clients(mode, user, password)
    want = direct.send(f"nobody@{DOMAIN}", BODY)
    proxy = stage.proxies[mode]
    mark = proxy.mark()
    got = proxied.send(f"nobody@{DOMAIN}", BODY)
    assert want.final["status"] == status
    assert got == want
    name = {0: "login", 1: "unknown-user" if user == "nobody" else "wrong-password"}[status]
    check_golden(f"go-sendxmpp-{name}-{mode}", [proxy.session(after=mark)])


@pytest.mark.parametrize("mode", MODES)
def test_roster_and_disco_are_answered_the_same(stage: Stage, mode: str) -> None:
    direct, proxied = stage.clients(mode)
    want = direct.ask()
    proxy = stage.proxies[mode]
    mark = proxy.mark()
    got = proxied.ask()
    assert want.final["answers"] == {
        "go-roster": ["result", f"friend@{DOMAIN}"],
        "go-server": ["result"],
        "go-nobody": ["error", "service-unavailable"],
    }
    assert got == want
    check_golden(f"go-sendxmpp-ask-{mode}", [proxy.session(after=mark)])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("sender", "receiver"), [("gopher", "gretel"), ("gretel", "gopher")])
def test_a_message_arrives(stage: Stage, mode: str, sender: str, receiver: str) -> None:
    """Both ways, and with either of the two behind the proxy."""
    senders, receivers = stage.clients(mode, sender), stage.clients(mode, receiver)
    proxy = stage.proxies[mode]
    mark = proxy.mark()
    for send_by, receive_by in ((0, 0), (1, 1), (0, 1), (1, 0)):
        with receivers[receive_by].listening() as listener:
            sent = senders[send_by].send(listener.jid(), BODY)
            assert sent.final["status"] == 0
            listener.wait("stdout", BODY)
    for session in proxy.sessions(after=mark, count=4):
        only(session, "session-established")


@pytest.mark.parametrize("mode", MODES)
def test_a_client_that_does_not_trust_our_ca_is_explained(stage: Stage, mode: str) -> None:
    _, proxied = stage.clients(mode)
    proxy = stage.proxies[mode]
    mark = proxy.mark()
    outcome = attrs.evolve(proxied, ca_file=stage.mint.ca_file).send(SELF, BODY)
    assert outcome.final["status"] == 1
    assert "certificate signed by unknown authority" in str(outcome.final["complaint"])
    failed = only(proxy.session(after=mark), "tls-failed")
    assert at(failed, "error.code") == "client-rejected-certificate"
