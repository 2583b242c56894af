"""Our server before a real client, our client before a real server."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.peer.conftest import Open
from tests.support.peer import DOMAIN, PASSWORDS, Place, Trust
from tests.support.prosody import Prosody, running_prosody
from tests.support.slix import Outcome, SlixDriver, slix_driver
from xproxy.peer import auth, words
from xproxy.peer.client import Client, Mode
from xproxy.peer.errors import LoginFailed, ResumeFailed, StanzaFailed

pytestmark = [pytest.mark.integration, pytest.mark.slow]
needs_prosody = pytest.mark.integration("prosody")

CLIENTS = [{"user": user, "password": PASSWORDS[user]} for user in ("juliet", "romeo")]
BODIES = ["canary body one", "canary body two"]
MODES = ["starttls", "direct-tls"]


@pytest.fixture(scope="module")
def slix() -> Iterator[SlixDriver]:
    """One slixmpp for all tests here."""
    with slix_driver() as driver:
        yield driver


async def play(slix: SlixDriver, place: Place, scenario: str, mode: str, **job: Any) -> Outcome:
    """Let slixmpp play ``scenario`` against our server."""
    given = {
        "port": place.address.port,
        "mode": mode,
        "domain": DOMAIN,
        "ca_file": str(place.trust.mint.ca_file),
        "clients": CLIENTS,
        "bodies": BODIES,
        **job,
    }
    return await trio.to_thread.run_sync(partial(slix.play, scenario, **given))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mechanism", auth.MECHANISMS)
async def test_slixmpp_logs_in(open_place: Open, slix: SlixDriver, mode: str, mechanism: str) -> None:
    place = await open_place(mechanisms=(mechanism,))
    outcome = await play(slix, place, "login", mode)
    assert outcome.final == {"end": "session", "jid": f"juliet@{DOMAIN}/slix-0", "left": "closed"}
    assert outcome.logins[-1]["mechanisms"] == [mechanism]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("user", ["juliet", "tybalt"])
async def test_slixmpp_is_refused(place: Place, slix: SlixDriver, mode: str, user: str) -> None:
    outcome = await play(slix, place, "login", mode, clients=[{"user": user, "password": "wrong"}])
    assert outcome.final["end"] == "refused"
    assert {condition for _, condition in outcome.logins[-1]["failures"]} == {"not-authorized"}


@pytest.mark.parametrize("mode", MODES)
async def test_slixmpp_exchanges_messages(place: Place, slix: SlixDriver, mode: str) -> None:
    outcome = await play(slix, place, "messages", mode)
    assert outcome.final == {
        "ends": ["session", "session"],
        "received": [True, True],
        "left": ["closed", "closed"],
    }


async def test_slixmpp_gets_the_roster(place: Place, slix: SlixDriver) -> None:
    outcome = await play(slix, place, "roster", "starttls")
    assert outcome.final["items"] == {f"romeo@{DOMAIN}": "both", f"echo@{DOMAIN}": "both"}


async def test_slixmpp_gets_a_disco_error(place: Place, slix: SlixDriver) -> None:
    outcome = await play(slix, place, "disco", "starttls")
    assert outcome.final["answers"] == [
        {"answer": "result"},
        {"answer": "error", "condition": "service-unavailable", "type": "cancel"},
    ]


@pytest.mark.parametrize("mode", MODES)
async def test_slixmpp_resumes(place: Place, slix: SlixDriver, mode: str) -> None:
    outcome = await play(slix, place, "resume", mode)
    assert outcome.final == {
        "end": "resumed",
        "same_jid": True,
        "received": [True, True],
        "left": ["closed", "closed"],
    }


@pytest.fixture(scope="module")
def prosody(trust: Trust, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prosody]:
    """A real Prosody."""
    directory: Path = tmp_path_factory.mktemp("prosody")
    leaf = trust.mint.leaf(DOMAIN, label="prosody")
    rosters = {"juliet": {f"romeo@{DOMAIN}": "Romeo"}}
    with running_prosody(directory, domain=DOMAIN, leaf=leaf, passwords=PASSWORDS, rosters=rosters) as running:
        yield running


def client_of(prosody: Prosody, trust: Trust, mode: Mode = Mode.STARTTLS) -> Client:
    return Client(host="127.0.0.1", port=prosody.port(mode.value), domain=DOMAIN, tls=trust.client, mode=mode)


@needs_prosody
@pytest.mark.parametrize("mode", [Mode.STARTTLS, Mode.DIRECT_TLS])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "PLAIN"])  # what internal_hashed of Prosody 0.12 offers
async def test_prosody_lets_us_in(prosody: Prosody, trust: Trust, mode: Mode, mechanism: str) -> None:
    async with client_of(prosody, trust, mode) as client:
        jid = await client.enter("juliet", PASSWORDS["juliet"], "balcony", mechanism=mechanism)
        assert jid == f"juliet@{DOMAIN}/balcony"
        await client.ping()
        assert await client.roster() == {f"romeo@{DOMAIN}": "Romeo"}
        await client.close()


@needs_prosody
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "PLAIN"])
async def test_prosody_refuses_us(prosody: Prosody, trust: Trust, mechanism: str) -> None:
    async with client_of(prosody, trust) as client:
        with pytest.raises(LoginFailed) as caught:
            await client.login("juliet", "wrong", mechanism=mechanism)
        assert caught.value.condition == "not-authorized"


@needs_prosody
async def test_talking_through_prosody(prosody: Prosody, trust: Trust) -> None:
    async with client_of(prosody, trust) as juliet, client_of(prosody, trust) as romeo:
        await juliet.enter("juliet", PASSWORDS["juliet"], "balcony")
        await romeo.enter("romeo", PASSWORDS["romeo"], "garden")
        await juliet.send_message(f"romeo@{DOMAIN}/garden", BODIES[0])
        assert words.text_of((await romeo.expect("message")).find("{*}body")) == BODIES[0]
        with pytest.raises(StanzaFailed) as caught:
            await juliet.ping(to=f"nobody@{DOMAIN}/gone")
        assert (caught.value.condition, caught.value.kind) == ("service-unavailable", "cancel")


@needs_prosody
async def test_resuming_at_prosody(prosody: Prosody, trust: Trust) -> None:
    async with client_of(prosody, trust) as juliet, client_of(prosody, trust) as romeo:
        jid = await juliet.enter("juliet", PASSWORDS["juliet"], "roaming")
        await romeo.enter("romeo", PASSWORDS["romeo"], "garden-2")
        await juliet.enable_sm()
        juliet.drop(reset=True)
        await romeo.send_message(jid, BODIES[1])
        await romeo.ping()
        await juliet.resume()
        assert words.text_of((await juliet.expect("message")).find("{*}body")) == BODIES[1]
        await juliet.request_ack()
        await juliet.close()
        with pytest.raises(ResumeFailed) as caught:
            await juliet.resume()
        assert caught.value.condition == "item-not-found"
