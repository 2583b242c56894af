"""Rooms. Vectors: the examples of XEP-0045 sections 7.2, 8.2, 9.1, 10.9."""

import attrs
import pytest
from lxml import etree

from xproxy.events.stanza import MucJoinFailed
from xproxy.xmpp import ns
from xproxy.xmpp.muc import REFUSALS, REMOVALS, join_failed, room_joined

JOIN = "<x xmlns='http://jabber.org/protocol/muc'/>"
REFUSED = MucJoinFailed(
    kind="join-refused",
    reason="password-required",
    room="coven@chat.shakespeare.lit",
    condition="not-authorized",
    condition_known=True,
    type="auth",
    status_codes=(),
    by_actor=False,
    text_bytes=0,
)


def parse(text: str) -> etree._Element:
    return etree.fromstring(f"<s xmlns='jabber:client'>{text}</s>")[0]


def refusal(condition: str, *, echo: str = JOIN, text: str = "") -> etree._Element:
    return parse(
        f"<presence from='coven@chat.shakespeare.lit/thirdwitch' to='hag66@shakespeare.lit/pda' type='error'>{echo}"
        f"<error by='coven@chat.shakespeare.lit' type='auth'><{condition} xmlns='{ns.STANZA_ERRORS}'/>{text}</error>"
        "</presence>"
    )


def leave(
    codes: str, *, jid: str = "pistol@shakespeare.lit/harfleur", within: str = "", own: bool = True
) -> etree._Element:
    statuses = "".join(f"<status code='{code}'/>" for code in [*(["110"] if own else []), *codes.split()])
    return parse(
        "<presence from='harfleur@chat.shakespeare.lit/pistol' to='pistol@shakespeare.lit/harfleur' type='unavailable'>"
        f"<x xmlns='{ns.MUC_USER}'><item affiliation='none' role='none' jid='{jid}'>{within}</item>"
        f"{statuses}</x></presence>"
    )


@pytest.mark.parametrize("condition", REFUSALS)
def test_a_refused_join_says_what_the_condition_means(condition: str) -> None:
    want = attrs.evolve(REFUSED, condition=condition, reason=REFUSALS[condition])
    assert join_failed(refusal(condition)) == want


def test_an_unknown_condition_is_told_as_it_is() -> None:
    failed = join_failed(refusal("too-noisy"))
    assert failed is not None
    assert (failed.reason, failed.condition, failed.condition_known) == ("other", "too-noisy", False)


def test_a_room_that_does_not_echo_is_known_by_the_join() -> None:
    element = refusal("not-authorized", echo="")
    assert join_failed(element) is None
    assert join_failed(element, joining={"elsewhere@chat.shakespeare.lit"}) is None
    assert join_failed(element, joining={"coven@chat.shakespeare.lit"}) == REFUSED


def test_the_text_of_a_room_is_counted_and_not_kept() -> None:
    failed = join_failed(refusal("forbidden", text=f"<text xmlns='{ns.STANZA_ERRORS}'>no witches</text>"))
    assert failed is not None
    assert failed.text_bytes == 10
    assert "witches" not in repr(failed)


@pytest.mark.parametrize("code", REMOVALS)
def test_put_out(code: str) -> None:
    kind, reason = REMOVALS[code]
    failed = join_failed(leave(code, within="<actor nick='Fluellen'/><reason>Avaunt, you cullion!</reason>"))
    assert failed == MucJoinFailed(
        kind=kind,
        reason=reason,
        room="harfleur@chat.shakespeare.lit",
        condition=None,
        condition_known=None,
        type=None,
        status_codes=("110", code),
        by_actor=True,
        text_bytes=20,
    )
    assert "cullion" not in repr(failed)
    assert "Fluellen" not in repr(failed)


def test_a_kick_for_an_error_is_the_services_own() -> None:
    failed = join_failed(leave("307 333"))
    assert failed is not None
    assert (failed.kind, failed.reason, failed.by_actor) == ("removed", "technical", False)


def test_a_room_that_is_destroyed() -> None:
    element = parse(
        "<presence from='heath@chat.shakespeare.lit/firstwitch' type='unavailable'>"
        "<x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/><destroy jid='coven@chat.shakespeare.lit'>"
        "<reason>Macbeth doth come.</reason></destroy></x></presence>"
    )
    failed = join_failed(element)
    assert failed is not None
    assert (failed.kind, failed.reason, failed.room) == ("removed", "room-destroyed", "heath@chat.shakespeare.lit")
    assert "Macbeth" not in repr(failed)


def test_somebody_else_who_is_kicked_is_not_our_affair() -> None:
    element = leave("307", own=False)
    assert join_failed(element) is None
    assert join_failed(element, account="hag66@shakespeare.lit") is None
    assert join_failed(element, account="pistol@shakespeare.lit") is not None


@pytest.mark.parametrize(
    "text",
    [
        "<presence type='unavailable' from='a@b/c'/>",
        "<presence from='a@b/c'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>",
        "<message type='error' from='a@b/c'><x xmlns='http://jabber.org/protocol/muc'/></message>",
        "<presence type='error'/>",
        "<presence type='unavailable' from='a@b/c'><x xmlns='http://jabber.org/protocol/muc#user'/></presence>",
    ],
)
def test_what_is_none_of_it(text: str) -> None:
    assert join_failed(parse(text)) is None


def test_leaving_and_a_new_nick_are_no_removal() -> None:
    assert join_failed(leave("")) is None
    assert join_failed(leave("303")) is None


def test_codes_that_are_none_are_left_out() -> None:
    failed = join_failed(leave("307 s3cret 12"))
    assert failed is not None
    assert failed.status_codes == ("110", "307")


@pytest.mark.parametrize(
    ("text", "room"),
    [
        (f"<presence to='coven@chat.shakespeare.lit/thirdwitch'>{JOIN}</presence>", "coven@chat.shakespeare.lit"),
        (f"<presence to='coven@chat.shakespeare.lit/thirdwitch' type='unavailable'>{JOIN}</presence>", None),
        ("<presence to='coven@chat.shakespeare.lit/thirdwitch'/>", None),
        (f"<presence>{JOIN}</presence>", None),
        (f"<message to='a@b/c'>{JOIN}</message>", None),
    ],
)
def test_which_room_a_presence_asks_for(text: str, room: str | None) -> None:
    assert room_joined(parse(text)) == room
