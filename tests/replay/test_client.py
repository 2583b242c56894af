"""The fake client, against the fake server: each is the other's judge."""

import attrs
import pytest

from tests.replay.conftest import PASSWORD, QUICK, Play, Stage
from xproxy.capture.cassette import Cassette, numbered
from xproxy.capture.cassette_xml import parse_cassette
from xproxy.config.replay import ReplaySettings
from xproxy.replay.client import play_cassette
from xproxy.replay.report import Report


async def against(stage: Stage, cassette: Cassette | str, **options: object) -> Report:
    if isinstance(cassette, str):
        cassette = parse_cassette(cassette.encode(), "client.xmpp.xml")
    address = stage.listening.address
    given = {
        "tls": stage.trust.client,
        "passwords": {account.name: PASSWORD for account in cassette.accounts},
        "settings": QUICK,
        **options,
    }
    return await play_cassette(cassette, host=address.host, port=address.port, **given)  # type: ignore[arg-type]


async def test_both_ends_of_one_cassette_agree(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        report = await against(stage, sample)
    assert report.failures == ()
    assert stage.kinds == []
    assert dict(report.cases[0].properties)["xproxy.matched"] == "2"


async def test_with_the_pauses_of_the_recording_too(play: Play, sample: str) -> None:
    paced = attrs.evolve(QUICK, pace="recorded")
    async with play(sample, settings=paced) as stage:
        report = await against(stage, sample, settings=paced)
    assert (report.failures, stage.kinds) == ((), [])


async def test_direct_tls_is_played_as_recorded(play: Play, sample: str) -> None:
    sample = sample.replace('tls="starttls"', 'tls="direct"')
    async with play(sample) as stage:
        report = await against(stage, sample)
    assert (report.failures, stage.kinds) == ((), [])


async def test_what_the_server_says_otherwise_is_a_mismatch(play: Play, sample: str) -> None:
    async with play(sample.replace("Art thou there?", "Art thou gone?")) as stage:
        report = await against(stage, sample)
    (failure,) = report.failures
    assert failure.kind.value == "Mismatch"
    assert "/message/body: expected 'Art thou there?', got 'Art thou gone?'" in failure.message
    assert stage.kinds == []


@pytest.mark.slow
async def test_what_the_server_no_longer_says_is_missing(play: Play, sample: str) -> None:
    parsed = parse_cassette(sample.encode())
    less = attrs.evolve(parsed, events=numbered(event for event in parsed.events if event.number != 6))
    async with play(less, settings=attrs.evolve(QUICK, step_seconds=2)) as stage:
        report = await against(stage, sample)
    (failure,) = report.failures
    assert failure.kind.value == "MissingStanza"
    assert failure.message.startswith("#6 <message")
    assert report.exit_code == 1


async def test_a_server_may_say_more_unless_it_is_told_not_to(play: Play, sample: str) -> None:
    more = sample.replace("<body>Art thou there?</body>", "<body>Art thou there?</body><new xmlns='n'/>")
    async with play(more) as stage:
        report = await against(stage, sample)
    assert report.failures == ()
    async with play(more) as stage:
        report = await against(stage, sample, contains=False)
    assert [failure.kind.value for failure in report.failures] == ["Mismatch"]


async def test_a_feature_that_is_gone_is_missing(play: Play, sample: str) -> None:
    feature = '<features stage="session"><ver xmlns="urn:xmpp:features:rosterver"/></features>'
    with_feature = sample.replace('sm="no"/>', f'sm="no">{feature}</session>')
    async with play(with_feature) as stage:
        report = await against(stage, with_feature)
    assert report.failures == ()
    async with play(sample) as stage:
        report = await against(stage, with_feature)
    (failure,) = report.failures
    assert failure.kind.value == "MissingStanza"
    assert "urn:xmpp:features:rosterver" in failure.message


async def test_a_wrong_password_is_a_failed_login(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        report = await against(stage, sample, passwords={"juliet": "canary-wrong"})
    assert [failure.kind.value for failure in report.failures] == ["Auth"]
    assert report.exit_code == 4
    assert stage.kinds == ["Auth"]
    assert "canary" not in repr(report) + repr(stage.report)


@pytest.mark.slow
async def test_an_untrusted_certificate_is_a_tls_failure(play: Play, sample: str) -> None:
    import ssl

    async with play(sample) as stage:
        report = await against(stage, sample, tls=ssl.create_default_context())
    assert [failure.kind.value for failure in report.failures] == ["Tls"]
    assert report.exit_code == 3


REFUSED = """<cassette xmlns="urn:xproxy:cassette" version="2"><account name="juliet" jid="juliet@example.test"/>
<session name="juliet" account="juliet" domain="example.test" mechanism="PLAIN" mechanisms="PLAIN"
refused="not-authorized"/>
<script><connect in="juliet"/><login in="juliet"/><close in="juliet" by="client"/></script></cassette>"""


async def test_a_recorded_refusal_is_a_refusal_again(play: Play) -> None:
    async with play(REFUSED) as stage:
        report = await against(stage, REFUSED)
    assert (report.failures, stage.kinds) == ((), [])


TALK = """<cassette xmlns="urn:xproxy:cassette" version="2">
<account name="juliet" jid="juliet@example.test"/><account name="romeo" jid="romeo@example.test"/>
<session name="juliet" account="juliet" domain="example.test" mechanisms="SCRAM-SHA-1"/>
<session name="romeo" account="romeo" domain="example.test" mechanisms="SCRAM-SHA-1"/>
<script>
<connect in="juliet"/><login in="juliet"/><connect in="romeo"/><login in="romeo"/>
<client in="juliet"><message xmlns="jabber:client" id="${id:1}" to="${jid:romeo}"><body>Romeo?</body></message></client>
<server in="romeo"><message xmlns="jabber:client" id="${id:1}" from="${jid:juliet}" to="${jid:romeo}">
<body>Romeo?</body></message></server>
<client in="romeo"><message xmlns="jabber:client" id="${id:2}" to="${jid:juliet}"><body>Here.</body></message></client>
<server in="juliet"><message xmlns="jabber:client" id="${id:2}" from="${jid:romeo}" to="${jid:juliet}">
<body>Here.</body></message></server>
<close in="juliet" by="client"/><close in="romeo" by="client"/>
</script></cassette>"""


async def test_two_sessions_talk_to_each_other(play: Play) -> None:
    async with play(TALK) as stage:
        report = await against(stage, TALK)
    assert (report.failures, stage.kinds) == ((), [])


RESUME = """<cassette xmlns="urn:xproxy:cassette" version="2"><account name="juliet" jid="juliet@example.test"/>
<session name="juliet" account="juliet" domain="example.test" mechanisms="SCRAM-SHA-1" sm="resume"/>
<script>
<connect in="juliet"/><login in="juliet"/>
<client in="juliet"><presence xmlns="jabber:client"/></client>
<drop in="juliet" by="client"/>
<connect in="juliet"/><resume in="juliet"/>
<server in="juliet"><message xmlns="jabber:client" from="romeo@example.test"><body>There?</body></message></server>
<client in="juliet"><message xmlns="jabber:client" to="romeo@example.test"><body>Yes.</body></message></client>
<close in="juliet" by="client"/>
</script></cassette>"""


async def test_a_session_is_resumed(play: Play) -> None:
    async with play(RESUME) as stage:
        report = await against(stage, RESUME)
    assert (report.failures, stage.kinds) == ((), [])


async def test_a_session_is_resumed_with_what_it_was_offered_before(play: Play) -> None:
    only = RESUME.replace('mechanisms="SCRAM-SHA-1"', 'mechanism="SCRAM-SHA-512" mechanisms="SCRAM-SHA-512"')
    async with play(only) as stage:
        report = await against(stage, only)
    assert (report.failures, stage.kinds) == ((), [])


REGISTER = """<cassette xmlns="urn:xproxy:cassette" version="2"><account name="juliet" jid="juliet@example.test"/>
<session name="juliet" account="juliet" domain="example.test" mechanisms="SCRAM-SHA-1">
<features stage="login"><register xmlns="http://jabber.org/features/iq-register"/></features></session>
<script>
<connect in="juliet"/>
<client in="juliet"><iq xmlns="jabber:client" type="set" id="${id:1}"><query xmlns="jabber:iq:register">
<username>juliet</username><password>${secret:juliet}</password></query></iq></client>
<server in="juliet"><iq xmlns="jabber:client" type="result" id="${id:1}"/></server>
<login in="juliet"/>
<client in="juliet"><presence xmlns="jabber:client"/></client>
<close in="juliet" by="client"/>
</script></cassette>"""


async def test_an_account_is_registered_before_login(play: Play) -> None:
    async with play(REGISTER) as stage:
        report = await against(stage, REGISTER)
    assert (report.failures, stage.kinds) == ((), [])


QUIET = """<cassette xmlns="urn:xproxy:cassette" version="2"><account name="juliet" jid="juliet@example.test"/>
<session name="juliet" account="juliet" domain="example.test" mechanisms="SCRAM-SHA-1"/>
<script>
<connect in="juliet"/><login in="juliet"/>
{}
<client in="juliet"><presence xmlns="jabber:client"/></client>
<close in="juliet" by="client"/>
</script></cassette>"""


@pytest.mark.slow
async def test_silence_can_be_asked_for(play: Play) -> None:
    expect = '<expect-none in="juliet" from="client" for="0.2"/>'
    slow = attrs.evolve(QUICK, pace="recorded", gap_seconds_max=0.4)
    server = parse_cassette(QUIET.format(expect).encode())
    async with play(server) as stage:
        report = await against(stage, QUIET.format(""))
    assert stage.kinds[:1] == ["Unexpected"]  # at once is too early
    assert report.failures == ()
    timed = QUIET.format("").replace('<login in="juliet"/>', '<login in="juliet" t="0"/>')
    timed = timed.replace('<client in="juliet">', '<client in="juliet" t="300">')
    async with play(server) as stage:
        report = await against(stage, timed, settings=slow)
    assert (report.failures, stage.kinds) == ((), [])


async def test_nobody_listening_is_the_environment(sample: str) -> None:
    from tests.support.ports import free_ports
    from xproxy.errors import AddressProblem

    (port,) = free_ports(1)
    with pytest.raises(AddressProblem, match="cannot connect"):
        await play_cassette(
            parse_cassette(sample.encode()), host="127.0.0.1", port=port, tls=None, passwords={"juliet": "x"},
            settings=ReplaySettings(),
        )  # fmt: skip


ANSWERS = """<cassette xmlns="urn:xproxy:cassette" version="2"><account name="juliet" jid="juliet@example.test"/>
<session name="juliet" account="juliet" domain="example.test" mechanisms="SCRAM-SHA-1"/>
<script>
<connect in="juliet"/><login in="juliet"/>
<client in="juliet"><iq xmlns="jabber:client" type="get" id="${id:1}"><query xmlns="jabber:iq:roster"/></iq></client>
<client in="juliet"><iq xmlns="jabber:client" type="set" id="${id:2}"><enable xmlns="urn:xmpp:carbons:2"/></iq></client>
<server in="juliet"><iq xmlns="jabber:client" type="result" id="${id:1}"><query xmlns="jabber:iq:roster"/></iq></server>
<server in="juliet"><iq xmlns="jabber:client" type="result" id="${id:2}"/></server>
<close in="juliet" by="client"/>
</script></cassette>"""


async def test_an_answer_is_not_taken_for_that_to_a_request_not_yet_sent() -> None:
    from datetime import UTC, datetime

    from xproxy.capture.node import parse
    from xproxy.events import Side
    from xproxy.replay.playback import Playback

    made = Playback(parse_cassette(ANSWERS.encode()), Side.CLIENT, lambda: datetime.now(UTC), {}, contains=True)
    for event in made.cassette.events[:3]:
        made.happened(event, event.stanza and made.render(event))
    # With more allowed than was recorded it would fit the other, empty answer too.
    id_ = made.bindings.values["id:1"]
    taken = made.take("juliet", parse(f"<iq type='result' id='{id_}'><query xmlns='jabber:iq:roster'/></iq>"))
    assert taken.event is not None
    assert taken.event.number == 5
    assert made.findings == []
