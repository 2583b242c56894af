"""Cassettes recorded at Prosody and at ejabberd, played to the clients they were recorded of."""

from pathlib import Path

import pytest

from tests.support import gosendxmpp, profanity, xmppjs
from tests.support.canary import Canary
from tests.support.replaying import SCENARIOS, Place, Replay, cassette_of, go_raw, js_login, replay_server
from tests.support.slix import SlixDriver
from xproxy.capture.cassette_xml import read_cassette
from xproxy.events import Side

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SERVERS = ("prosody", "ejabberd")
TIMES = 3


def skip_without(scenario: str) -> None:
    reason = {
        "profanity": profanity.missing,
        "go": gosendxmpp.missing,
        "go-raw": gosendxmpp.missing,
        "js": xmppjs.missing,
    }
    if scenario in reason and (why := reason[scenario]()):
        pytest.skip(why)


def of_clients(cassette: Path) -> int:
    """How many stanzas clients have to say."""
    return sum(
        event.stanza is not None and event.side is Side.CLIENT and not event.optional
        for event in read_cassette(cassette).events
    )


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_client_stanza_matches_three_times_in_a_row(
    scenario: str, server: str, tmp_path: Path, slix: SlixDriver, canary: Canary
) -> None:
    skip_without(scenario)
    cassette = cassette_of(server, scenario)
    for number in range(TIMES):
        directory = tmp_path / str(number)
        with replay_server(directory, cassette, canary) as replay:
            SCENARIOS[scenario](Place(port=replay.port, ca_file=replay.ca_file, directory=directory, slix=slix))
        assert replay.failures == []
        assert replay.code == 0
        assert replay.matched() >= of_clients(cassette)


@pytest.fixture
def against(tmp_path: Path, slix: SlixDriver, canary: Canary) -> "Against":
    """Play a scenario against a cassette."""
    return Against(tmp_path, slix, canary)


class Against:
    """Plays one scenario against the cassette of another."""

    def __init__(self, directory: Path, slix: SlixDriver, canary: Canary) -> None:
        self._directory = directory
        self._slix = slix
        self._canary = canary

    def __call__(self, cassette: str, play: object, **options: object) -> Replay:
        with replay_server(
            self._directory, cassette_of("prosody", cassette), self._canary, "--step-seconds", "3"
        ) as replay:
            place = Place(
                port=replay.port,
                ca_file=replay.ca_file,
                directory=self._directory,
                slix=self._slix,
                **options,  # type: ignore[arg-type]
            )
            play(place)  # type: ignore[operator]
        return replay


def test_a_changed_body_is_a_mismatch(against: Against) -> None:
    replay = against("slix-messages", SCENARIOS["slix-messages"], bodies=("hallo", "and back"))
    (failure,) = replay.failures
    assert failure["kind"] == "Mismatch"
    assert "/message/body: expected 'hello', got 'hallo'" in failure["message"]
    assert "-  <body>hello</body>" in failure["detail"]
    assert "+  <body>hallo</body>" in failure["detail"]
    line = cassette_of("prosody", "slix-messages").read_text().splitlines()[failure["line"] - 1]
    assert line.strip().startswith('<client in="alice"')
    assert replay.code == 1


def test_a_missing_stanza_is_named(against: Against) -> None:
    replay = against("slix-disco", SCENARIOS["slix-login"])
    assert replay.kinds == ["MissingStanza", "MissingStanza"]
    assert "http://jabber.org/protocol/disco#info" in replay.failures[0]["message"]
    assert "did not come: the client left" in replay.failures[0]["message"]
    assert replay.code == 1


def test_an_extra_stanza_is_unexpected(against: Against) -> None:
    replay = against("slix-login", SCENARIOS["slix-disco"])
    assert replay.kinds == ["Unexpected", "Unexpected"]
    assert "disco#info" in replay.failures[0]["detail"]
    assert replay.code == 1


def test_stanzas_in_another_order_are_a_mismatch(against: Against) -> None:
    skip_without("go")
    replay = against("go-raw", lambda place: go_raw(place, (1, 0)))
    (failure,) = replay.failures
    assert failure["kind"] == "Mismatch"
    assert "which was recorded first" in failure["message"]
    assert replay.code == 1


def test_a_stanza_that_comes_twice_was_consumed(against: Against) -> None:
    skip_without("go")
    replay = against("go-raw", lambda place: go_raw(place, (0, 0, 1)))
    assert replay.kinds == ["Unexpected"]
    assert "already consumed at #" in replay.failures[0]["message"]


@pytest.mark.parametrize(
    ("scenario", "cassette"),
    [("slix-login", "slix-login"), ("profanity", "profanity"), ("go", "go"), ("js-login", "slix-login")],
)
def test_a_wrong_password_is_a_failed_login(scenario: str, cassette: str, against: Against, canary: Canary) -> None:
    skip_without(scenario)
    canary.register("a wrong password", "canary-wrong-password")
    replay = against(cassette, SCENARIOS.get(scenario, js_login), password="canary-wrong-password")
    assert set(replay.kinds) == {"Auth"}
    assert replay.code == 4
