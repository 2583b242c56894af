"""What came instead of what was recorded, taken into the cassette."""

from datetime import UTC, datetime

import attrs
import pytest

from tests.replay.conftest import PASSWORD, SAMPLE, Play
from xproxy.capture.cassette import Cassette, numbered
from xproxy.capture.cassette_xml import parse_cassette, read_cassette, render_cassette
from xproxy.capture.node import parse
from xproxy.events import Side
from xproxy.replay.accept import accepted
from xproxy.replay.cassette_diff import diff_cassettes
from xproxy.replay.playback import Playback
from xproxy.replay.strip import strip_cassette

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def playback(cassette: Cassette) -> Playback:
    made = Playback(cassette, Side.SERVER, lambda: NOW, {"juliet": PASSWORD})
    made.bindings.jids["juliet"] = "juliet@example.test/balcony"
    for event in cassette.events[:2]:
        made.happened(event)
    return made


def say(made: Playback, *stanzas: str) -> None:
    for stanza in stanzas:
        made.take("juliet", parse(stanza))
        while (event := made.due()) is not None:
            made.happened(event, made.render(event))


ROSTER = "<iq type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq>"
MESSAGE = "<message to='romeo@example.test/garden' type='chat' id='m1'><body>{}</body></message>"


def changes(made: Playback) -> list[str]:
    made.note_missing("juliet", "the client left")
    new = accepted(made)
    assert parse_cassette(render_cassette(new)) == new
    return list(diff_cassettes(made.cassette, new))


def test_nothing_changes_where_everything_matched() -> None:
    made = playback(read_cassette(SAMPLE))
    say(made, ROSTER, "<presence/>", MESSAGE.format("I am."))
    assert made.findings == []
    assert changes(made) == []


def test_a_changed_text_is_taken_and_placeholders_stay() -> None:
    made = playback(read_cassette(SAMPLE))
    say(made, ROSTER, "<presence/>", MESSAGE.format("It costs ${any}."))
    assert changes(made) == ["@ #7 -> #7 /message/body: expected 'I am.', got 'It costs $${any}.'"]


def test_a_stanza_that_did_not_come_goes() -> None:
    made = playback(read_cassette(SAMPLE))
    say(made, ROSTER, "<presence/>")
    (line,) = changes(made)
    assert line.startswith("- #7 client juliet: <message")


def test_a_new_stanza_comes_in_where_it_came() -> None:
    made = playback(read_cassette(SAMPLE))
    say(made, ROSTER, "<iq type='get' id='v1' to='juliet@example.test/balcony'><query xmlns='jabber:iq:version'/></iq>")
    say(made, "<presence/>", MESSAGE.format("I am."))
    assert changes(made) == [
        '+ #5 client juliet: <iq type="get" id="v1" to="${jid:juliet}"><query xmlns="jabber:iq:version"/></iq>'
    ]


def test_secrets_are_not_taken() -> None:
    made = playback(read_cassette(SAMPLE))
    register = "<iq type='set' id='v1'><query xmlns='jabber:iq:register'><password>canary-x</password></query></iq>"
    say(made, ROSTER, register)
    assert b"canary" not in render_cassette(accepted(made))


def test_bodies_are_not_taken_where_the_cassette_holds_none() -> None:
    hidden = strip_cassette(read_cassette(SAMPLE), bodies=True)
    assert hidden.meta.bodies == "hidden"
    assert b"Art thou there" not in render_cassette(hidden)
    made = playback(hidden)
    say(made, ROSTER, "<presence/>", MESSAGE.format("anything"), MESSAGE.format("canary-body"))
    assert made.findings
    assert "canary" not in repr(made.findings)
    assert b"canary" not in render_cassette(accepted(made))


def test_known_secrets_are_taken_out_wherever_they_stand() -> None:
    cassette = read_cassette(SAMPLE)
    stripped = strip_cassette(cassette, bodies=False, secrets=["Art thou there?"])
    assert b"Art thou" not in render_cassette(stripped)
    assert b"I am." in render_cassette(stripped)
    assert strip_cassette(stripped, bodies=False, secrets=["Art thou there?"]) == stripped


@pytest.mark.slow
async def test_an_accepted_cassette_matches_what_it_was_made_of(play: Play) -> None:
    from tests.replay.test_client import against

    recorded = read_cassette(SAMPLE)
    other = parse_cassette(render_cassette(recorded).replace(b"I am.", b"Gone."))
    async with play(recorded) as stage:
        await against(stage, other)
    assert stage.kinds == ["Mismatch"]
    made = playback(recorded)
    say(made, ROSTER, "<presence/>", MESSAGE.format("Gone."))
    async with play(attrs.evolve(accepted(made), events=numbered(accepted(made).events))) as stage:
        await against(stage, other)
    assert stage.kinds == []


def test_the_address_of_an_upload_is_not_listed_with_what_is_bound() -> None:
    cassette = parse_cassette(SAMPLE.read_bytes().replace(b">I am.<", b">see ${url:1}<"))
    made = playback(cassette)
    made.bindings.values["url:1"] = "https://upload.example/canary-token/f"
    say(made, ROSTER, "<presence/>", MESSAGE.format("see elsewhere"))
    (finding,) = made.findings
    assert dict(finding.bindings)["url:1"] == "[hidden]"
