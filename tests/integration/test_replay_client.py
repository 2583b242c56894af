"""The clients of cassettes recorded at Prosody and at ejabberd, played to fresh ones of both."""

import datetime
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support import ejabberd as ejabberd_support
from tests.support import prosody as prosody_support
from tests.support.accounts import DOMAIN, PASSWORDS
from tests.support.canary import Canary
from tests.support.ejabberd import running_ejabberd
from tests.support.mint import Mint
from tests.support.prosody import running_prosody
from tests.support.replaying import SCENARIOS, cassette_of, replay_client
from xproxy.capture.cassette_xml import read_cassette
from xproxy.events import Side

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROSTERS = {"alice": {f"friend@{DOMAIN}": "Friend", f"bob@{DOMAIN}": "Bob"}}


@contextmanager
def fresh(server: str, directory: Path, mint: Mint, without: str | None = None) -> Iterator[int]:
    """Run a server that knows nothing yet but its accounts; give its port."""
    directory.mkdir(parents=True)
    with ExitStack() as stack:
        if server == "prosody":
            if reason := prosody_support.missing():
                pytest.skip(reason)
            running = running_prosody(
                directory,
                domain=DOMAIN,
                leaf=mint.leaf(DOMAIN, label="fresh-prosody"),
                passwords=PASSWORDS,
                rosters=ROSTERS,
                changes={} if without is None else {'{ "s2s", "offline" }': f'{{ "s2s", "offline", "{without}" }}'},
            )
            yield stack.enter_context(running).starttls_port
        else:
            if reason := ejabberd_support.missing():
                pytest.skip(reason)
            not_after = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=20)
            leaf = mint.leaf(DOMAIN, label="fresh-ejabberd", not_after=not_after)
            changes = {} if without is None else {f"  {without}: {{}}\n": ""}
            running_one = running_ejabberd(directory, domain=DOMAIN, leaf=leaf, passwords=PASSWORDS, changes=changes)
            yield stack.enter_context(running_one).starttls_port


def with_room_options(cassette: Path, directory: Path) -> Path:
    """Say by hand what no capture holds of the option next to a room's password: ejabberd takes 1 and 0 alone."""
    before, option, rest = cassette.read_text().partition('<field var="muc#roomconfig_passwordprotectedroom">')
    first, _, second = rest.partition(option)
    first, second = (part.replace("${any}", sample, 1) for part, sample in ((first, "${any=1}"), (second, "${any=0}")))
    path = directory / cassette.name
    path.write_text(before + option + first + option + second)
    return path


@pytest.mark.parametrize("server", ["prosody", "ejabberd"])
def test_every_server_stanza_matches(server: str, tmp_path: Path, mint: Mint, canary: Canary) -> None:
    with fresh(server, tmp_path / "server", mint) as port:
        for scenario in SCENARIOS:
            cassette = cassette_of(server, scenario)
            if server == "ejabberd" and scenario == "slix-muc":
                cassette = with_room_options(cassette, tmp_path)
            replay = replay_client(tmp_path / scenario, cassette, canary, port=port, ca_file=mint.ca_file)
            assert replay.failures == [], scenario
            assert replay.code == 0
            assert replay.matched() >= sum(
                event.stanza is not None and event.side is Side.SERVER and not event.optional
                for event in read_cassette(cassette).events
            )


@pytest.mark.parametrize(
    ("server", "module", "scenario", "missing"),
    [
        ("prosody", "carbons", "profanity", "urn:xmpp:carbons:2"),
        ("prosody", "smacks", "slix-login", "urn:xmpp:sm:3"),
        ("ejabberd", "mod_carboncopy", "profanity", "urn:xmpp:carbons:2"),
    ],
)
def test_with_a_module_switched_off_the_missing_stanza_is_named(
    server: str, module: str, scenario: str, missing: str, tmp_path: Path, mint: Mint, canary: Canary
) -> None:
    with fresh(server, tmp_path / "server", mint, without=module) as port:
        cassette = cassette_of(server, scenario)
        replay = replay_client(tmp_path / "replay", cassette, canary, port=port, ca_file=mint.ca_file)
    assert replay.code == 1
    assert any(missing in failure["message"] + failure["detail"] for failure in replay.failures)
    assert {"MissingStanza", "Mismatch"} & set(replay.kinds)


def test_a_wrong_password_is_a_failed_login(tmp_path: Path, mint: Mint, canary: Canary) -> None:
    with fresh("prosody", tmp_path / "server", mint) as port:
        cassette = cassette_of("prosody", "slix-login")
        wrong = ("--password", "alice=canary-wrong-password")
        replay = replay_client(tmp_path / "replay", cassette, canary, *wrong, port=port, ca_file=mint.ca_file)
    assert replay.kinds == ["Auth"]
    assert replay.code == 4
