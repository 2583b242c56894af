"""The fake server, asked by a scripted client of ours: what matches, and what each kind of change is called."""

import pytest

from tests.replay.conftest import PASSWORD, QUICK, Play, Stage
from xproxy.peer.client import Client, Mode
from xproxy.peer.errors import LoginFailed, StanzaFailed

ROSTER = "<iq type='get' id='{}'><query xmlns='jabber:iq:roster'/></iq>"


async def log_in(stage: Stage, **options: object) -> Client:
    client = stage.client(**options)
    await client.connect()
    await client.enter("juliet", PASSWORD, "balcony")
    return client


async def converse(client: Client, *, body: str = "I am.", leave: bool = True) -> str:
    assert await client.roster() == {"romeo@example.test": "Romeo"}
    await client.send_presence()
    message = await client.expect("message")
    await client.send(f"<message to='romeo@example.test/garden' type='chat' id='m1'><body>{body}</body></message>")
    if leave:
        await client.close()
    return "".join(message.itertext())


@pytest.mark.parametrize(("tls", "mode"), [("starttls", Mode.STARTTLS), ("direct", Mode.DIRECT_TLS)])
async def test_what_was_recorded_matches(tls: str, mode: Mode, play: Play, sample: str) -> None:
    async with play(sample.replace('tls="starttls"', f'tls="{tls}"')) as stage:
        client = await log_in(stage, mode=mode)
        assert client.jid == "juliet@example.test/balcony"
        assert await converse(client) == "Art thou there?"
    assert stage.report is not None
    assert stage.report.failures == ()
    assert stage.report.exit_code == 0
    assert dict(stage.report.cases[0].properties)["xproxy.matched"] == "3"


async def test_a_changed_body_is_a_mismatch_at_its_line(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        await converse(await log_in(stage), body="I am not.")
    assert stage.report is not None
    (failure,) = stage.report.failures
    assert failure.kind.value == "Mismatch"
    assert "/message/body: expected 'I am.', got 'I am not.'" in failure.message
    assert failure.line is not None
    assert sample.splitlines()[failure.line - 1].strip() == '<client in="juliet" t="120">'
    lines = failure.detail.splitlines()
    assert "-  <body>I am.</body>" in lines
    assert "+  <body>I am not.</body>" in lines
    assert any(line.startswith("closest: #7 (") for line in lines)
    assert "  ${jid:juliet} = juliet@example.test/balcony" in lines
    assert stage.report.exit_code == 1


async def test_a_missing_stanza_is_named(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        client = await log_in(stage)
        await client.roster()
        await client.send_presence()
        await client.expect("message")
        await client.close()
    assert stage.report is not None
    (failure,) = stage.report.failures
    assert failure.kind.value == "MissingStanza"
    assert failure.message.startswith("#7 <message")
    assert failure.message.endswith("did not come: the client left")
    assert stage.report.exit_code == 1


@pytest.mark.slow
async def test_a_client_that_stops_talking_misses_a_stanza(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        client = await log_in(stage)
        await client.roster()
        with pytest.raises(Exception):  # noqa: B017, PT011 - the stream is closed, or a message does not come
            await client.expect("message")
    assert stage.kinds[:1] == ["MissingStanza"]


async def test_an_extra_stanza_is_unexpected(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        client = await log_in(stage)
        await converse(client, leave=False)
        await client.send("<message to='nurse@example.test'><subject>x</subject></message>")
        await client.close()
    assert stage.report is not None
    (failure,) = stage.report.failures
    assert failure.kind.value == "Unexpected"
    assert "nurse@example.test" in failure.message


async def test_a_stanza_that_comes_twice_was_consumed(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        client = await log_in(stage)
        await converse(client, leave=False)
        await client.send("<message to='romeo@example.test/garden' type='chat' id='m2'><body>I am.</body></message>")
        await client.close()
    assert stage.report is not None
    (failure,) = stage.report.failures
    assert failure.kind.value == "Unexpected"
    assert "already consumed at #7" in failure.message


async def test_an_unexpected_request_is_answered_so_that_nobody_hangs(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        client = await log_in(stage)
        with pytest.raises(StanzaFailed, match="service-unavailable"):
            await client.request("<query xmlns='jabber:iq:version'/>", to="example.test")
        await converse(client)
    assert stage.kinds == ["Unexpected"]


async def test_stanzas_in_another_order_are_a_mismatch(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        client = await log_in(stage)
        await client.roster()
        await client.send("<message to='romeo@example.test/garden' type='chat' id='m'><body>I am.</body></message>")
        await client.send_presence()
        await client.expect("message")
        await client.close()
    assert stage.report is not None
    (failure,) = stage.report.failures
    assert failure.kind.value == "Mismatch"
    assert failure.message.startswith("#7 <message")
    assert "came before #5 <presence" in failure.message


async def test_marks_and_placeholders_of_features_are_not_sent(play: Play, sample: str) -> None:
    feature = '<features stage="session"><f xmlns="urn:f" x:strict="no" x:skip="yes" v="${any=7}"/></features>'
    begin = sample.index("<session")
    end = sample.index("/>", begin)
    async with play(sample[:end] + f">{feature}</session>" + sample[end + 2 :]) as stage:
        client = stage.client()
        await client.connect()
        await client.login("juliet", PASSWORD)
        assert client.features is not None
        (found,) = client.features.iter("{urn:f}f")
        await client.bind("balcony")
        await converse(client)
    assert dict(found.attrib) == {"v": "7"}
    assert stage.kinds == []


async def test_a_ping_is_answered_without_a_script(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        client = await log_in(stage)
        await client.ping()
        await converse(client)
    assert stage.kinds == []


@pytest.mark.parametrize(
    ("to", "inside"), [("room@example.test/nick", ""), ("other.test", ""), ("example.test", "<more xmlns='urn:x'/>")]
)
async def test_a_ping_of_somebody_else_or_with_more_in_it_is_unexpected(
    to: str, inside: str, play: Play, sample: str
) -> None:
    async with play(sample) as stage:
        client = await log_in(stage)
        await client.send(f"<iq type='get' id='p' to='{to}'><ping xmlns='urn:xmpp:ping'/>{inside}</iq>".encode())
        await converse(client)
    assert stage.kinds == ["Unexpected"]


async def test_a_login_by_another_mechanism_than_recorded_is_a_mismatch(play: Play, sample: str) -> None:
    async with play(sample) as stage:
        client = stage.client()
        await client.connect()
        await client.login("juliet", PASSWORD, mechanism="PLAIN")
        await client.bind("balcony")
        await converse(client)
    assert stage.report is not None
    assert [failure.message for failure in stage.report.failures] == [
        "the client logged in by PLAIN, recorded was SCRAM-SHA-256, which was offered too"
    ]


async def test_stream_management_that_is_no_longer_enabled_is_missing(play: Play, sample: str) -> None:
    async with play(sample.replace('sm="no"', 'sm="yes"')) as stage:
        client = await log_in(stage)
        await converse(client)
    assert stage.report is not None
    assert [failure.message for failure in stage.report.failures] == [
        "the client did not enable stream management, which was recorded"
    ]


async def test_a_wrong_password_is_a_failed_login(play: Play, sample: str) -> None:
    async with play(sample) as stage, stage.client() as client:
        with pytest.raises(LoginFailed, match="not-authorized"):
            await client.login("juliet", "canary-wrong")
        await client.close()
    assert stage.kinds == ["Auth"]
    assert stage.report is not None
    assert stage.report.exit_code == 4
    assert "canary" not in repr(stage.report)


@pytest.mark.slow
async def test_a_certificate_that_is_not_trusted_is_a_tls_failure(play: Play, sample: str) -> None:
    import ssl

    async with play(sample) as stage:
        client = stage.client(tls=ssl.create_default_context())
        with pytest.raises(Exception, match="TLS"):
            await client.connect()
    assert stage.kinds == ["Tls"]
    assert stage.report is not None
    assert stage.report.exit_code == 3


async def test_when_nobody_comes_it_is_a_timeout(play: Play, sample: str) -> None:
    import attrs

    async with play(sample, settings=attrs.evolve(QUICK, total_seconds=0.2)) as stage:
        pass
    assert stage.kinds == ["Timeout"]
    assert stage.report is not None
    assert stage.report.exit_code == 5
