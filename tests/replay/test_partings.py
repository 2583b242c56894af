"""How clients and servers leave, and how sessions are made: told apart, reported, let pass only where that is said."""

import attrs
import pytest
import trio

from tests.replay.conftest import PASSWORD, QUICK, Play, Stage
from tests.replay.test_client import RESUME, TALK, against
from tests.replay.test_server import converse, log_in
from xproxy.capture.cassette import Session, What, numbered
from xproxy.capture.cassette_xml import parse_cassette, render_cassette
from xproxy.peer.client import Client, Mode
from xproxy.peer.errors import PeerError

LENIENT = attrs.evolve(QUICK, lenient=True)
SHORT = attrs.evolve(QUICK, step_seconds=0.5)
CLOSED = '<close in="juliet" by="client"/>'
DROPPED = '<drop in="juliet" by="client"/>'


def messages(stage: Stage) -> list[str]:
    assert stage.report is not None
    return [failure.message for failure in stage.report.failures]


async def leave(client: Client, how: str) -> None:
    if how == "closed":
        await client.close()
    else:
        client.drop(reset=how == "reset")


# Clients that leave.


@pytest.mark.parametrize(("recorded", "how"), [(CLOSED, "closed"), (DROPPED, "ended"), (DROPPED, "reset")])
async def test_a_client_that_leaves_as_recorded_matches(recorded: str, how: str, play: Play, sample: str) -> None:
    async with play(sample.replace(CLOSED, recorded)) as stage:
        client = await log_in(stage)
        await converse(client, leave=False)
        await leave(client, how)
    assert messages(stage) == []


@pytest.mark.parametrize(
    ("recorded", "how", "said"),
    [
        (CLOSED, "ended", "#8 <close/>: the client left without </stream:stream>: its connection ended"),
        (CLOSED, "reset", "#8 <close/>: the client left without </stream:stream>: its connection was reset"),
        (DROPPED, "closed", "#8 <drop/>: the client closed its stream"),
    ],
)
async def test_a_client_that_leaves_in_another_way_is_a_mismatch(
    recorded: str, how: str, said: str, play: Play, sample: str
) -> None:
    sample = sample.replace(CLOSED, recorded)
    async with play(sample) as stage:
        client = await log_in(stage)
        await converse(client, leave=False)
        await leave(client, how)
    (failure,) = stage.report.failures  # type: ignore[union-attr]
    assert failure.kind.value == "Mismatch"
    assert failure.message.startswith(said)
    assert failure.line is not None
    assert sample.splitlines()[failure.line - 1].strip() == recorded


async def test_an_optional_parting_may_be_of_either_kind(play: Play, sample: str) -> None:
    async with play(sample.replace(CLOSED, CLOSED.replace("/>", ' optional="yes"/>'))) as stage:
        client = await log_in(stage)
        await converse(client, leave=False)
        client.drop()
    assert messages(stage) == []


async def test_what_is_let_pass_is_said_all_the_same(play: Play, sample: str) -> None:
    async with play(sample, settings=LENIENT) as stage:
        client = await log_in(stage)
        await converse(client, leave=False)
        client.drop(reset=True)
    assert messages(stage) == []
    assert stage.report is not None
    (note,) = stage.report.cases[0].notes
    assert "its connection was reset; recorded was that it closed its stream" in note


@pytest.mark.slow
async def test_a_client_that_does_not_leave_is_missed(play: Play, sample: str) -> None:
    settings = attrs.evolve(QUICK, step_seconds=0.5, close_seconds_max=0.1)
    async with play(sample, settings=settings) as stage:
        client = await log_in(stage)
        await converse(client, leave=False)
        with pytest.raises(PeerError):
            await client.receive()
    (said,) = messages(stage)
    assert said.startswith("#8 <close/> did not come: the client was still connected after 0.5 s")
    assert stage.kinds == ["MissingStanza"]


async def two(stage: Stage) -> tuple[Client, Client]:
    juliet, romeo = stage.client(), stage.client()
    for client, user in ((juliet, "juliet"), (romeo, "romeo")):
        await client.connect()
        await client.enter(user, PASSWORD, mechanism="SCRAM-SHA-1")
    return juliet, romeo


@pytest.mark.parametrize("how", ["closed", "ended"])
async def test_a_client_that_leaves_before_the_server_said_everything_is_reported(how: str, play: Play) -> None:
    async with play(TALK) as stage:
        juliet, romeo = await two(stage)
        await juliet.send(f"<message id='a' to='{romeo.jid}'><body>Romeo?</body></message>")
        await romeo.expect("message")
        await leave(juliet, how)  # without waiting for the answer
        await trio.testing.wait_all_tasks_blocked(0.02)
        await romeo.send(f"<message id='b' to='{juliet.jid}'><body>Here.</body></message>")
        await romeo.close()
    assert stage.report is not None
    (failure,) = (each for each in stage.report.failures if each.kind.value == "Stream")
    assert failure.message.startswith("#8 <message")
    assert "was not said: the client" in failure.message
    assert stage.kinds == (["Stream"] if how == "closed" else ["Mismatch", "Stream"])


async def test_what_a_client_left_a_moment_too_early_for_it_still_gets(play: Play, sample: str) -> None:
    """Whether its closing tag came just before or just after our last word is an accident."""
    order = parse_cassette(sample.encode())
    events = [event for event in order.events if event.number != 7]  # the server has the last word
    async with play(attrs.evolve(order, events=numbered(events))) as stage:
        client = await log_in(stage)
        await client.roster()
        await client.send(b"<presence/></stream:stream>")
        message = await client.expect("message")
    assert "".join(message.itertext()) == "Art thou there?"
    assert messages(stage) == []


@pytest.mark.slow
async def test_what_waits_for_a_parting_that_does_not_come_is_reported(play: Play) -> None:
    """Of another session too: what a server says to one client may be that another left."""
    gone = '<presence xmlns="jabber:client" type="unavailable" from="${jid:juliet}" to="${jid:romeo}"/>'
    closed = '<close in="romeo" by="client"/>'
    cassette = TALK.replace(closed, f'<server in="romeo">{gone}</server>{closed}')
    async with play(cassette, settings=SHORT) as stage:
        juliet, romeo = await two(stage)
        await juliet.send(f"<message id='a' to='{romeo.jid}'><body>Romeo?</body></message>")
        await romeo.send(f"<message id='b' to='{juliet.jid}'><body>Here.</body></message>")
    assert messages(stage) == ["#9 <close/> did not come: nothing came"]


@pytest.mark.slow
async def test_what_is_missing_only_because_of_another_session_says_so(play: Play) -> None:
    async with play(TALK, settings=SHORT) as stage:
        await two(stage)  # juliet says nothing, so romeo has nothing to answer
    of_juliet, of_romeo = messages(stage)
    assert of_juliet.startswith("#5 <message")
    assert of_juliet.endswith("did not come: nothing came for 0.5 s")
    assert of_romeo == "#7 and what follows could not come: #5 of juliet did not"


async def test_when_nobody_comes_no_session_passes(play: Play) -> None:
    async with play(TALK, settings=attrs.evolve(QUICK, total_seconds=0.1)) as stage:
        pass
    assert stage.kinds == ["Timeout", "Timeout"]
    assert stage.report is not None
    assert stage.report.exit_code == 5


# Servers that leave.


def by_server(sample: str, what: str) -> str:
    return sample.replace(CLOSED, f'<{what} in="juliet" by="server"/>')


@pytest.mark.parametrize("what", ["close", "drop"])
async def test_a_server_that_leaves_as_recorded_matches(what: str, play: Play, sample: str) -> None:
    async with play(by_server(sample, what)) as stage:
        report = await against(stage, by_server(sample, what))
    assert (report.failures, stage.kinds) == ((), [])


@pytest.mark.parametrize(("says", "recorded"), [("close", "drop"), ("drop", "close")])
async def test_a_server_that_leaves_in_another_way_is_a_mismatch(
    says: str, recorded: str, play: Play, sample: str
) -> None:
    async with play(by_server(sample, says)) as stage:
        report = await against(stage, by_server(sample, recorded))
    (failure,) = report.failures
    assert failure.kind.value == "Mismatch"
    assert failure.message.startswith(f"#8 <{recorded}/>: the server ")
    assert "recorded was that it" in failure.message


@pytest.mark.slow
async def test_a_server_that_does_not_leave_is_missed(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        settings = attrs.evolve(QUICK, step_seconds=0.5)
        report = await against(stage, by_server(sample, "close"), settings=settings)
    (failure,) = report.failures
    assert failure.message.startswith("#8 <close/> did not come: the server was still connected after 0.5 s")


# How a session is made.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recorded", "mode", "said"),
    [
        ("starttls", Mode.DIRECT_TLS, "the client came by direct TLS alone, recorded was by STARTTLS"),
        ("direct", Mode.STARTTLS, "the client came in clear, recorded was by direct TLS"),
    ],
)
async def test_a_client_that_only_knows_another_way_to_tls_is_a_mismatch(
    recorded: str, mode: Mode, said: str, play: Play, sample: str
) -> None:
    async with play(sample.replace('tls="starttls"', f'tls="{recorded}"'), settings=SHORT) as stage:
        with pytest.raises(PeerError):
            await log_in(stage, mode=mode)
    assert messages(stage) == [said]
    assert stage.kinds == ["Mismatch"]
    assert stage.report is not None
    assert stage.report.exit_code == 1


async def test_a_client_that_tries_direct_tls_first_comes_in_as_recorded(play: Play, sample: str) -> None:
    """slixmpp does so at a port that it was told, and had to fall back when it was recorded."""
    async with play(sample) as stage:
        with pytest.raises(PeerError):
            await stage.client(mode=Mode.DIRECT_TLS).connect()
        await converse(await log_in(stage))
    assert messages(stage) == []


async def test_where_it_is_lenient_another_way_to_tls_is_noted(play: Play, sample: str) -> None:
    async with play(sample, settings=LENIENT) as stage:
        await converse(await log_in(stage, mode=Mode.DIRECT_TLS))
    assert messages(stage) == []
    assert stage.report is not None
    assert stage.report.cases[0].notes == ("the client came by direct TLS, recorded was by STARTTLS",)


async def test_tls_where_the_recording_had_none_is_a_mismatch(play: Play, sample: str) -> None:
    async with play(sample.replace('tls="starttls"', 'tls="none"')) as stage:
        await converse(await log_in(stage))
    assert messages(stage) == ["the client came by STARTTLS, recorded was in clear"]


async def test_another_mechanism_where_the_recorded_one_cannot_be_played_is_noted(play: Play, sample: str) -> None:
    async with play(sample.replace('mechanism="SCRAM-SHA-256"', 'mechanism="DIGEST-MD5"')) as stage:
        await converse(await log_in(stage))
    assert messages(stage) == []
    assert stage.report is not None
    (note,) = stage.report.cases[0].notes
    assert note.endswith("DIGEST-MD5, which was recorded, cannot be played")


async def test_a_login_that_was_refused_before_one_went_well_is_noted(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        client = stage.client()
        await client.connect()
        with pytest.raises(PeerError, match="not-authorized"):
            await client.login("juliet", "canary-wrong")
        await client.enter("juliet", PASSWORD, "balcony")
        await converse(client)
    assert messages(stage) == []
    assert stage.report is not None
    assert stage.report.cases[0].notes == ("the client's login was refused: not-authorized, before it went well",)


async def test_stream_management_without_the_recorded_resumption_is_a_mismatch(play: Play, sample: str) -> None:
    async with play(sample.replace('sm="no"', 'sm="resume"')) as stage:
        client = await log_in(stage)
        await client.enable_sm(resume=False)
        await converse(client)
    assert messages(stage) == ["the client enabled stream management without resumption, recorded was with it"]


async def test_a_server_without_the_recorded_resumption_is_a_mismatch(play: Play, sample: str) -> None:
    async with play(sample.replace('sm="no"', 'sm="yes"')) as stage:
        report = await against(stage, sample.replace('sm="no"', 'sm="resume"'))
    assert [failure.message for failure in report.failures] == [
        "the server enabled stream management without resumption, recorded was with it"
    ]
    assert stage.kinds == []


async def test_a_mechanism_that_is_no_longer_offered_is_missing(play: Play, sample: str) -> None:
    less = sample.replace('mechanism="SCRAM-SHA-256" mechanisms="SCRAM-SHA-256 PLAIN"', 'mechanisms="PLAIN"')
    async with play(less) as stage:
        report = await against(stage, sample)
    (failure,) = report.failures
    assert failure.kind.value == "MissingStanza"
    assert failure.message == "the server does not offer a login by SCRAM-SHA-256, as it did when recorded"
    async with play(sample) as stage:
        report = await against(stage, less, contains=False)
    assert [failure.message for failure in report.failures] == [
        "the server offers a login by SCRAM-SHA-256, which was not recorded"
    ]


async def test_a_feature_before_login_that_is_gone_is_missing(play: Play, sample: str) -> None:
    feature = '<features stage="login"><register xmlns="http://jabber.org/features/iq-register"/></features>'
    with_feature = sample.replace('sm="no"/>', f'sm="no">{feature}</session>')
    async with play(with_feature) as stage:
        report = await against(stage, with_feature)
    assert report.failures == ()
    async with play(sample) as stage:
        report = await against(stage, with_feature)
    (failure,) = report.failures
    assert "iq-register" in failure.message
    assert "before login" in failure.message


async def test_a_parting_between_two_connections_is_compared_too(play: Play) -> None:
    async with play(RESUME) as stage:
        report = await against(stage, RESUME)
    assert (report.failures, stage.kinds) == ((), [])
    early = RESUME.replace('<drop in="juliet" by="client"/>', '<close in="juliet" by="client"/>')
    async with play(early, settings=SHORT) as stage:
        await against(stage, RESUME)
    assert messages(stage)[0].startswith("#4 <close/>: the client left without </stream:stream>: its connection was")


# Taken over.


async def test_accept_takes_over_how_a_session_was_made_and_left(play: Play, sample: str) -> None:
    from xproxy.replay.engine import Engine

    engines: list[Engine] = []
    recorded = sample.replace('sm="no"', 'sm="resume"').replace('tls="starttls"', 'tls="none"')
    async with play(recorded, on_played=engines.append) as stage:
        client = stage.client()
        await client.connect()
        await client.login("juliet", PASSWORD, mechanism="PLAIN")
        await client.bind("balcony")
        await client.enable_sm(resume=False)
        await converse(client, leave=False)
        client.drop()
    assert len(messages(stage)) == 4
    new = parse_cassette(render_cassette(engines[0].accepted()))
    session: Session = new.sessions[0]
    assert (session.tls, session.mechanism, session.sm) == ("starttls", "PLAIN", "yes")
    assert new.events[-1].what is What.DROP


async def test_a_value_given_up_is_named_at_its_line(play: Play, sample: str) -> None:
    sample = sample.replace("<body>I am.</body>", "<body>${any:(?:a|aa)*[^a]}</body>")
    async with play(sample, settings=attrs.evolve(QUICK, match_seconds_max=0.05)) as stage:
        await converse(await log_in(stage), body="a" * 4_000)
    (first, _) = stage.report.failures  # type: ignore[union-attr]
    assert first.message.startswith("${any:(?:a|aa)*[^a]} was given up: it took more than 0.05 s on 4000 characters")
    assert first.line is not None
    assert sample.splitlines()[first.line - 1].strip() == '<client in="juliet" t="120">'
