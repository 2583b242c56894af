"""Stream management on both ends (XEP-0198)."""

import pytest
import trio
import trio.testing

from tests.peer.conftest import Open
from tests.support.peer import PASSWORDS, Place
from xproxy.peer import words
from xproxy.peer.client import Client
from xproxy.peer.errors import ResumeFailed, StreamFailed
from xproxy.peer.sm import AckedTooMuch, SmState, parse_h
from xproxy.xmpp import ns


def test_acks_empty_the_queue() -> None:
    sm = SmState("id")
    for stanza in (b"1", b"2", b"3"):
        sm.on_sent(stanza)
    sm.on_ack(2)
    sm.on_ack(2)
    assert list(sm.unacked) == [b"3"]
    with pytest.raises(AckedTooMuch) as caught:
        sm.on_ack(4)
    assert (caught.value.h, caught.value.sent) == (4, 3)
    with pytest.raises(AckedTooMuch):
        sm.on_ack(1)  # h never goes back


def test_h_wraps() -> None:
    sm = SmState("id", received=2**32 - 1, acked=2**32 - 1)
    sm.on_received()
    assert sm.h == 0
    sm.on_sent(b"1")
    sm.on_ack(0)
    assert not sm.unacked


@pytest.mark.parametrize(("text", "h"), [("0", 0), ("4294967295", 4294967295), ("4294967296", None), ("-1", None)])
def test_h_as_text(text: str, h: int | None) -> None:
    assert parse_h(text) == h
    assert parse_h(None) is None
    assert parse_h("٣") is None
    assert parse_h("") is None


def state_of(client: Client) -> SmState:
    assert client.sm is not None
    return client.sm


async def lost(place: Place, client: Client, *, reset: bool = False) -> None:
    """The client loses its connection, and the server has noticed."""
    client.drop(reset=reset)
    session = next(s for s in place.server.sessions.values() if str(s.jid) == client.jid)
    while session.outlet is not None:
        await trio.testing.wait_all_tasks_blocked()


async def test_counters(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        await juliet.enable_sm()
        for index in range(12):
            await juliet.send_message("echo@example.test", str(index))
            await juliet.expect("message")
        await juliet.request_ack()
        session = next(iter(place.server.sessions.values()))
        assert session.sm is not None
        assert state_of(juliet).received == session.sm.sent == 12
        assert session.sm.received == state_of(juliet).sent == 12
        assert not state_of(juliet).unacked
        assert len(session.sm.unacked) < 5  # it asked by itself


@pytest.mark.parametrize("reset", [False, True])
async def test_resumption_brings_what_was_missed(place: Place, reset: bool) -> None:
    async with place.entered("juliet") as juliet, place.entered("romeo") as romeo:
        await juliet.enable_sm()
        await lost(place, juliet, reset=reset)
        for body in ("one", "two"):
            await romeo.send_message("juliet@example.test/test", body)
        await romeo.ping()
        await juliet.resume()
        bodies = [words.text_of(await juliet.expect("message")) for _ in range(2)]
        assert bodies == ["one", "two"]
        assert juliet.jid == "juliet@example.test/test"
        await juliet.ping()


async def test_resumption_sends_again_what_the_server_lacks(place: Place) -> None:
    async with place.entered("juliet") as juliet, place.entered("romeo") as romeo:
        await juliet.enable_sm()
        await lost(place, juliet)
        state_of(juliet).on_sent(words.message(to="romeo@example.test/test", body="sent into the void"))
        await juliet.resume()
        assert words.text_of(await romeo.expect("message")) == "sent into the void"
        await juliet.request_ack()
        assert not state_of(juliet).unacked


async def test_resumption_while_the_old_connection_is_still_there(place: Place) -> None:
    async with place.entered("juliet") as old, place.client() as new:
        await old.enable_sm()
        new.sm, new._credentials, new.jid = old.sm, old._credentials, old.jid
        await new.resume()
        with pytest.raises(StreamFailed) as caught:
            await old.receive()
        assert caught.value.condition == "conflict"
        await new.ping()


async def test_a_session_lost_by_the_server(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        await juliet.enable_sm()
        place.server.drop("juliet@example.test/test")
        with pytest.raises(Exception, match="connection ended"):
            await juliet.receive()
        await juliet.resume()
        await juliet.ping()


async def test_a_closed_session_cannot_be_resumed(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        await juliet.enable_sm()
        await juliet.close()
        with pytest.raises(ResumeFailed) as caught:
            await juliet.resume()
        assert caught.value.condition == "item-not-found"
        await juliet.bind("again")  # the way goes on as without


async def test_an_unknown_session_and_that_of_another(place: Place) -> None:
    async with place.entered("juliet") as juliet, place.client() as thief:
        await juliet.enable_sm()
        await thief.login("romeo", PASSWORDS["romeo"])
        for previd in (state_of(juliet).id, "none"):
            await thief.send(f"<resume xmlns='{ns.SM3}' previd='{previd}' h='0'/>")
            answer = await thief.receive()
            assert answer.tag == f"{{{ns.SM3}}}failed"
            assert words.condition_of(answer, ns.STANZA_ERRORS) == "item-not-found"


async def test_a_session_that_waited_too_long(open_place: Open) -> None:
    place = await open_place(resume_seconds_max=-1.0)
    async with place.entered("juliet") as juliet:
        await juliet.enable_sm()
        juliet.drop()
        with pytest.raises(ResumeFailed) as caught:
            await juliet.resume()
        assert caught.value.condition == "item-not-found"


async def test_without_resumption_a_lost_session_is_gone(place: Place) -> None:
    async with place.entered("juliet") as juliet, place.entered("romeo") as romeo:
        await juliet.enable_sm(resume=False)
        assert state_of(juliet).id is None
        juliet.drop()
        while len(place.server.sessions) > 1:
            await romeo.ping()


async def test_too_much_acknowledged(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        await juliet.enable_sm()
        await juliet.send(f"<a xmlns='{ns.SM3}' h='1'/>")
        with pytest.raises(StreamFailed) as caught:
            await juliet.receive()
        assert caught.value.condition == "undefined-condition"


async def test_too_much_acknowledged_at_resumption(place: Place) -> None:
    async with place.entered("juliet") as juliet:
        await juliet.enable_sm()
        await lost(place, juliet)
        state_of(juliet).received = 7
        with pytest.raises(StreamFailed) as caught:
            await juliet.resume()
        assert caught.value.condition == "undefined-condition"


async def test_enable_twice_and_before_bind(place: Place) -> None:
    async with place.client() as juliet:
        await juliet.login("juliet", PASSWORDS["juliet"])
        with pytest.raises(ResumeFailed) as caught:
            await juliet.enable_sm()
        assert caught.value.condition == "unexpected-request"
        await juliet.bind()
        await juliet.enable_sm()
        with pytest.raises(ResumeFailed) as caught:
            await juliet.enable_sm()
        assert caught.value.condition == "unexpected-request"
