"""Clients that do as they like: a fake server says what was wrong, and neither crashes nor hangs."""

import attrs
import pytest
import trio

from tests.replay.conftest import PASSWORD, QUICK, Play, Stage
from xproxy.capture.cassette_xml import parse_cassette
from xproxy.errors import UsageProblem
from xproxy.peer.client import Client, Mode
from xproxy.peer.errors import PeerError
from xproxy.replay.playback import FINDINGS_MAX
from xproxy.replay.server import serve_cassette


async def entered(stage: Stage) -> Client:
    client = stage.client()
    await client.connect()
    await client.enter("juliet", PASSWORD, "balcony")
    return client


@pytest.mark.slow
@pytest.mark.parametrize(
    "octets",
    [
        b"</message>",
        b"<message><!-- hidden --></message>",
        b"<message><?pi x?></message>",
        b"<message>&undefined;</message>",
        b"<!DOCTYPE x><message/>",
        b"<nonza xmlns='nobody:knows'/>",
        b"<iq/>",
        b"<iq type='result' id='never-asked'/>",
        b"<iq type='get' id='' to='nobody@'><query xmlns='jabber:iq:version'/></iq>",
        b"<presence><a" + b"><a" * 150 + b">" + b"</a>" * 151 + b"</presence>",
        b"<message to='" + b"x" * 60_000 + b"'/>",
        b"<message>" + b"<body>b</body>" * 2_000 + b"</message>",
        b"<presence " + b" ".join(b"a%d='1'" % number for number in range(500)) + b"/>",
        b"\xff\xfe",
        b"<a xmlns='urn:xmpp:sm:3' h='99'/>",
        b"<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>",
        b"<enable xmlns='urn:xmpp:sm:3'/>",
    ],
)
async def test_whatever_a_client_says_there_is_a_report(octets: bytes, play: Play, sample: str) -> None:
    async with play(sample) as stage:
        client = await entered(stage)
        await client.send(octets)
        with trio.move_on_after(0.1):
            try:
                while True:
                    await client.receive()
            except PeerError:
                pass
        client.drop()
    assert stage.report is not None
    assert stage.report.exit_code == 1
    assert stage.kinds


async def test_a_flood_is_told_as_much_as_anybody_reads(play: Play, sample: str) -> None:
    async with play(sample, settings=attrs.evolve(QUICK, step_seconds=3)) as stage:
        client = await entered(stage)
        for number in range(30):
            await client.send(b"".join(b"<message to='n%d@x'/>" % (number * 20 + each) for each in range(20)))
        await client.close()
    assert stage.report is not None
    assert len(stage.report.failures) == FINDINGS_MAX


async def test_connections_that_come_to_nothing_do_not_disturb(play: Play, sample: str) -> None:
    from tests.replay.test_server import converse

    async with play(sample, settings=attrs.evolve(QUICK, step_seconds=3)) as stage:
        address = stage.listening.address
        for first in (b"", b"\x16\x03\x01\x00\x05nope!", b"GET / HTTP/1.0\r\n\r\n", b"<?xml version='1.0'?><x>"):
            stream = await trio.open_tcp_stream(address.host, address.port)
            await stream.send_all(first) if first else None
            await stream.aclose()
        half = stage.client()
        await half.connect()
        half.drop(reset=True)
        await converse(await entered(stage))
    assert stage.kinds == []


@pytest.mark.slow
async def test_a_second_login_of_one_recorded_is_unexpected(play: Play, sample: str) -> None:
    from tests.replay.test_server import converse

    async with play(sample, settings=attrs.evolve(QUICK, step_seconds=2)) as stage:
        first = await entered(stage)
        with pytest.raises(PeerError):
            await entered(stage)
        await converse(first)
    assert stage.kinds == ["Unexpected"]


async def test_a_login_in_clear_is_played_where_one_was_recorded(play: Play, sample: str) -> None:
    from tests.replay.test_server import converse

    async with play(sample.replace('tls="starttls"', 'tls="none"')) as stage:
        client = stage.client(mode=Mode.CLEAR)
        await client.connect()
        await client.enter("juliet", PASSWORD, "balcony")
        await converse(client)
    assert stage.kinds == []


async def test_sessions_at_two_domains_are_refused(sample: str) -> None:
    other = '<session name="other" domain="other.test"/><script>'
    cassette = parse_cassette(sample.replace("<script>", other).encode())
    with pytest.raises(UsageProblem, match="a cassette for each domain"):
        await serve_cassette(cassette, tls=None, passwords={})
