"""Stanzas between clients and what the server says itself (RFC 6120 section 8, RFC 6121 section 8)."""

import pytest
import trio

from tests.peer.conftest import Open
from tests.support.peer import PASSWORDS, Place
from xproxy.peer import words
from xproxy.peer.client import Client
from xproxy.peer.errors import Disconnected, PeerTimeout, StanzaFailed, StreamFailed
from xproxy.xmpp import ns

DISCO_INFO = "http://jabber.org/protocol/disco#info"


def body_of(message: object) -> str:
    return words.text_of(words.child(message, ns.CLIENT, "body"))  # type: ignore[arg-type]


async def say_and_hear(client: Client, body: str) -> str:
    await client.send_message("echo@example.test", body)
    return body_of(await client.expect("message"))


async def test_messages_both_ways(place: Place) -> None:
    async with place.entered("juliet") as juliet, place.entered("romeo", "garden") as romeo:
        await juliet.send_message("romeo@example.test/garden", "Art thou not <Romeo> & a Montague?")
        message = await romeo.expect("message")
        assert message.get("from") == "juliet@example.test/test"
        assert body_of(message) == "Art thou not <Romeo> & a Montague?"
        await romeo.send_message(message.get("from", ""), "Neither, fair saint")
        assert body_of(await juliet.expect("message")) == "Neither, fair saint"


async def test_messages_to_an_account_reach_its_available_resources(place: Place) -> None:
    async with place.entered("juliet") as juliet, place.entered("romeo", "a") as a, place.entered("romeo", "b") as b:
        await a.send_presence()
        await a.expect("presence")
        await juliet.send_message("romeo@example.test", "one")
        assert body_of(await a.expect("message")) == "one"
        await juliet.send_message("romeo@example.test/gone", "two")
        assert body_of(await a.expect("message")) == "two"
        await b.ping()
        assert not b.backlog


async def test_a_message_nobody_takes_comes_back(place: Place) -> None:
    async with place.entered("juliet") as juliet, place.entered("romeo"):
        for to in ("romeo@example.test", "tybalt@example.test", "tybalt@example.test/gone"):
            id_ = await juliet.send_message(to, "hello?")
            message = await juliet.expect("message")
            assert (message.get("type"), message.get("id"), message.get("from")) == ("error", id_, to)
            assert message.find("{*}error/{*}service-unavailable") is not None


async def test_errors_are_not_answered(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        await juliet.send("<message type='error' to='tybalt@example.test'><body>x</body></message>")
        await juliet.send("<iq type='result' id='unasked' to='tybalt@example.test/gone'/>")
        await juliet.send("<presence to='tybalt@example.test/gone'/>")
        await juliet.ping()
        assert not juliet.backlog


async def test_echo(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        id_ = await juliet.send_message("echo@example.test", "Romeo")
        message = await juliet.expect("message")
        assert (message.get("id"), message.get("from"), body_of(message)) == (id_, "echo@example.test", "Romeo")


async def test_roster(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        assert await juliet.roster() == {"romeo@example.test": "romeo", "echo@example.test": "echo"}


async def test_a_fixed_roster(open_place: Open) -> None:
    place = await open_place(rosters={"juliet": {"nurse@example.test": "Nurse"}})
    async with place.entered("juliet") as juliet:
        assert await juliet.roster() == {"nurse@example.test": "Nurse"}


async def test_pings_both_ways(place: Place) -> None:
    async with place.entered("juliet") as juliet, place.entered("romeo") as romeo, trio.open_nursery() as nursery:
        assert juliet.jid is not None
        answers: list[bool] = []

        async def ping() -> None:
            answers.append(await place.server.ping("romeo@example.test/test"))
            await place.server.push("romeo@example.test/test", "<message><body>done</body></message>")

        nursery.start_soon(ping)
        assert body_of(await romeo.expect("message")) == "done"
        assert answers == [True]
        await juliet.ping()
        await juliet.ping(to="example.test")


async def test_one_client_asks_another(place: Place) -> None:
    async with place.entered("juliet") as juliet, place.entered("romeo") as romeo, trio.open_nursery() as nursery:
        nursery.start_soon(juliet.ping, romeo.jid)
        with trio.move_on_after(5) as scope:
            async with place.entered("juliet", "other") as other:
                await other.send_message("romeo@example.test/test", "last")
                await romeo.expect("message")
        assert not scope.cancelled_caught


async def test_disco(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        answer = await juliet.request(f"<query xmlns='{DISCO_INFO}'/>", to="example.test")
        assert "urn:xmpp:ping" in [feature.get("var") for feature in answer.iter(f"{{{DISCO_INFO}}}feature")]


@pytest.mark.parametrize(
    ("inside", "to", "type_", "condition", "kind"),
    [
        (f"<query xmlns='{DISCO_INFO}'/>", "romeo@example.test/gone", "get", "service-unavailable", "cancel"),
        (f"<query xmlns='{DISCO_INFO}' node='x'/>", "example.test", "get", "item-not-found", "cancel"),
        (f"<query xmlns='{DISCO_INFO}'/>", "example.test", "set", "feature-not-implemented", "cancel"),
        ("<query xmlns='urn:example:unknown'/>", None, "get", "service-unavailable", "cancel"),
        ("<ping xmlns='urn:xmpp:ping'/>", "other.test", "get", "remote-server-not-found", "cancel"),
        ("<ping xmlns='urn:xmpp:ping'/>", "@example.test", "get", "jid-malformed", "modify"),
        ("<ping xmlns='urn:xmpp:ping'/>", None, "ask", "bad-request", "modify"),
        ("", None, "get", "bad-request", "modify"),
        ("<query xmlns='jabber:iq:roster'/>", None, "set", "not-allowed", "cancel"),
    ],
)
async def test_stanza_errors(place: Place, inside: str, to: str | None, type_: str, condition: str, kind: str) -> None:
    async with place.entered("juliet") as juliet:
        with pytest.raises(StanzaFailed) as caught:
            await juliet.request(inside, to=to, type_=type_)
        assert (caught.value.condition, caught.value.kind) == (condition, kind)
        await juliet.ping()


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        ("<message from='romeo@example.test'/>", "invalid-from"),
        ("<message", "not-well-formed"),
        ("<!-- x -->", "restricted-xml"),
        ("<unknown xmlns='urn:example:x'/>", "unsupported-stanza-type"),
        ("<dialogue/>", "unsupported-stanza-type"),
        ("text<message/>", "bad-format"),
    ],
)
async def test_stream_errors(place: Place, sent: str, condition: str) -> None:
    async with place.entered("juliet") as juliet:
        await juliet.send(sent + "<message></iq>" if sent == "<message" else sent)
        with pytest.raises(StreamFailed) as caught:
            await juliet.receive()
        assert caught.value.condition == condition
        with pytest.raises(Disconnected):
            await juliet.receive()
    assert not place.server.sessions


async def test_a_stanza_that_is_too_long(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        # The server hangs up with the rest unread, so its last words may be lost in the reset.
        with pytest.raises((StreamFailed, Disconnected)):
            await say_and_hear(juliet, "x" * 1_100_000)


async def test_a_long_stanza_comes_back_whole(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        assert await say_and_hear(juliet, "x" * 900_000) == "x" * 900_000


async def test_a_reader_that_is_slow_holds_up_the_writer(place: Place) -> None:
    """Bounded memory: who sends faster than the receiver reads is not read."""
    async with place.entered("juliet") as juliet, place.entered("romeo") as romeo:
        sent = 0
        with trio.move_on_after(0.2):
            while True:
                await juliet.send(words.message(to="romeo@example.test/test", body=f"{sent} " + "x" * 200_000))
                sent += 1
        assert sent < 200  # 40 MB; it stops at about 10 (sockets' buffers and one outbox)
        for index in range(sent):
            assert body_of(await romeo.expect("message")).startswith(f"{index} ")


async def test_the_server_ends_a_session(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        assert juliet.jid is not None
        place.server.end(juliet.jid, "policy-violation")
        with pytest.raises(StreamFailed) as caught:
            await juliet.receive()
        assert caught.value.condition == "policy-violation"


async def test_the_server_shuts_down(place: Place) -> None:
    async with place.entered("juliet") as juliet, place.entered("romeo") as romeo:
        place.server.end_all()
        for client in (juliet, romeo):
            with pytest.raises(StreamFailed) as caught:
                await client.receive()
            assert caught.value.condition == "system-shutdown"


async def test_patience_ends(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        juliet.wait_seconds_max = 0.01
        with pytest.raises(PeerTimeout, match=r"waiting for message"):
            await juliet.expect("message")


async def test_nobody_listens(place: Place) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(OSError, match=r"refused"):
        await Client(host="127.0.0.1", port=port, domain="example.test").connect()


async def test_passwords_are_where_they_belong(place: Place) -> None:
    assert PASSWORDS["juliet"] not in repr(place.server)
