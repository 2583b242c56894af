import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from xproxy.events import Side
from xproxy.events.stanza import RequestFacts
from xproxy.jid import Jid
from xproxy.xmpp.pending import KEY_CHARS_MAX, PendingRequests

WITHOUT_ID_MAX = 3

ACCOUNT = Jid.from_text("juliet@example.com/balcony")


def iq(
    id_: str | None = "1", *, to: str | None = None, from_: str | None = None, type_: str = "get", payload: str = "p"
) -> etree._Element:
    element = etree.Element("{jabber:client}iq", type=type_)
    for name, value in (("id", id_), ("to", to), ("from", from_)):
        if value is not None:
            element.set(name, value)
    element.append(etree.Comment("c"))
    if payload:
        etree.SubElement(element, f"{{u:x}}{payload}")
    return element


def known(limit: int = 10) -> PendingRequests:
    pending = PendingRequests(limit, WITHOUT_ID_MAX)
    pending.know(domain="example.com", account=ACCOUNT)
    return pending


def test_an_answer_tells_its_request_and_age() -> None:
    pending = known()
    pending.sent(Side.CLIENT, iq("1", to="a@b/c"), 100)
    assert len(pending) == 1
    assert pending.answered(Side.SERVER, iq("1", from_="a@b/c", type_="error"), 350) == RequestFacts(
        sent_by=Side.CLIENT, type="get", payload="{u:x}p", age_ns=250
    )
    assert len(pending) == 0
    assert pending.answered(Side.SERVER, iq("1", from_="a@b/c"), 400) is None


def test_a_request_without_payload() -> None:
    pending = known()
    pending.sent(Side.CLIENT, iq(payload="", type_="set"), 0)
    answer = pending.answered(Side.SERVER, iq(), 0)
    assert answer is not None
    assert (answer.type, answer.payload) == ("set", None)


def test_the_server_asks_and_the_client_answers() -> None:
    pending = known()
    pending.sent(Side.SERVER, iq("1", from_="a@b/c", to="juliet@example.com/balcony"), 0)
    assert pending.answered(Side.SERVER, iq("1", from_="a@b/c"), 1) is None  # the client's ids are another matter
    assert pending.answered(Side.CLIENT, iq("1", to="x@y"), 1) is None
    answer = pending.answered(Side.CLIENT, iq("1", to="a@b/c"), 1)
    assert answer is not None
    assert answer.sent_by is Side.SERVER


@pytest.mark.parametrize(
    ("asked", "answered"), [("A@B.Example/c", "a@b.example/c"), ("a b", "a b"), ("\uff41@b", "a@b")]
)
def test_spellings_of_one_address_are_one_peer(asked: str, answered: str) -> None:
    pending = known()
    pending.sent(Side.CLIENT, iq(to=asked), 0)
    assert pending.answered(Side.SERVER, iq(from_=answered), 0) is not None


@pytest.mark.parametrize(("asked", "answered"), [("a@b/c", "a@b/C"), ("a@b", "a@b/c"), ("a@b", None), (None, "a@b")])
def test_another_peer_answers_nothing(asked: str | None, answered: str | None) -> None:
    pending = known()
    pending.sent(Side.CLIENT, iq(to=asked), 0)
    assert pending.answered(Side.SERVER, iq(from_=answered), 0) is None


HOME = [None, "", "example.com", "Juliet@Example.com", "juliet@example.com/balcony"]


@pytest.mark.parametrize("asked", HOME)
@pytest.mark.parametrize("answered", HOME)
@pytest.mark.parametrize("known_first", [True, False])
def test_the_own_server_and_account_have_several_names(
    asked: str | None, answered: str | None, known_first: bool
) -> None:
    pending = known() if known_first else PendingRequests(10, WITHOUT_ID_MAX)
    pending.sent(Side.CLIENT, iq(to=asked), 0)
    pending.know(domain="example.com", account=ACCOUNT)
    assert pending.answered(Side.SERVER, iq(from_=answered), 0) is not None


def test_before_the_account_is_known_any_address_answers_for_home() -> None:
    """A bind result may come from the account's own address, and it is what first tells that address."""
    pending = PendingRequests(10, WITHOUT_ID_MAX)
    pending.know(domain="example.com")
    pending.sent(Side.CLIENT, iq("bind"), 0)
    assert pending.answered(Side.SERVER, iq("bind", from_="juliet@example.com"), 0) is not None


@pytest.mark.parametrize("id_", [None, ""])
def test_requests_without_id_are_answered_in_order(id_: str | None) -> None:
    pending = PendingRequests(10, WITHOUT_ID_MAX)
    pending.sent(Side.CLIENT, iq(id_, to="other@x", payload="other"), 0)
    pending.sent(Side.CLIENT, iq(id_, payload="first"), 0)
    pending.sent(Side.CLIENT, iq(id_, payload="second"), 0)
    pending.know(account=ACCOUNT)
    answers = [pending.answered(Side.SERVER, iq(id_), 0) for _ in range(3)]
    assert [answer and answer.payload for answer in answers] == ["{u:x}first", "{u:x}second", None]
    assert len(pending) == 1


@pytest.mark.parametrize(
    "home", [(None, None, None), ("example.com", None, "example.com"), (None, "example.com", None)]
)
def test_requests_of_one_id_are_answered_in_order(home: tuple[str | None, str | None, str | None]) -> None:
    """The first answer is not that of the second, whatever name of home each was addressed to."""
    first, second, answer = home
    pending = known()
    pending.sent(Side.CLIENT, iq("1", to=first, payload="a"), 10)
    pending.sent(Side.CLIENT, iq("1", to=second, payload="b"), 20)
    assert len(pending) == 2
    answers = [pending.answered(Side.SERVER, iq("1", from_=answer), 25) for _ in range(3)]
    assert [each and (each.payload, each.age_ns) for each in answers] == [("{u:x}a", 15), ("{u:x}b", 5), None]
    assert len(pending) == 0


def test_an_id_used_again_when_its_request_has_expired_means_the_later_one() -> None:
    pending = known()
    pending.sent(Side.CLIENT, iq("1", payload="a"), 10)
    assert len(pending.expired(10**15)) == 1
    pending.sent(Side.CLIENT, iq("1", payload="b"), 10**15)
    answer = pending.answered(Side.SERVER, iq("1"), 10**15 + 5)
    assert answer is not None
    assert (answer.payload, answer.age_ns) == ("{u:x}b", 5)
    assert len(pending) == 0


def test_the_oldest_of_one_id_goes_at_the_limit() -> None:
    pending = known(limit=2)
    for number in range(4):
        pending.sent(Side.CLIENT, iq("1", payload=f"p{number}"), number)
    assert len(pending) == 2
    answer = pending.answered(Side.SERVER, iq("1"), 9)
    assert answer is not None
    assert answer.payload == "{u:x}p2"


def test_the_oldest_goes_at_the_limit() -> None:
    pending = known(limit=2)
    dropped = [pending.sent(Side.CLIENT, iq(str(n)), 0) for n in range(3)]
    assert dropped == [False, False, True]
    assert pending.sent(Side.SERVER, iq("0"), 0) is False  # the other direction has its own room
    assert pending.answered(Side.SERVER, iq("0"), 0) is None
    assert pending.answered(Side.SERVER, iq("1"), 0) is not None


def test_the_oldest_without_id_goes_at_its_limit() -> None:
    pending = known(limit=2)
    dropped = [pending.sent(Side.CLIENT, iq(None, payload=f"p{n}"), 0) for n in range(WITHOUT_ID_MAX + 1)]
    assert dropped == [False] * WITHOUT_ID_MAX + [True]
    answer = pending.answered(Side.SERVER, iq(None), 0)
    assert answer is not None
    assert answer.payload == "{u:x}p1"


def test_long_ids_and_addresses_are_kept_short_and_still_match() -> None:
    pending = known()
    long_id, long_address = "i" * 100_000, "a" * 100_000
    pending.sent(Side.CLIENT, iq(long_id, to=long_address), 0)
    kept = repr(vars(pending))
    assert len(kept) < 2_000
    assert pending.answered(Side.SERVER, iq(long_id + "x", from_=long_address), 0) is None
    assert pending.answered(Side.SERVER, iq(long_id, from_=long_address + "x"), 0) is None
    assert pending.answered(Side.SERVER, iq(long_id, from_=long_address), 0) is not None
    assert len("i" * KEY_CHARS_MAX) == KEY_CHARS_MAX


def test_clear_forgets_requests_and_addresses() -> None:
    pending = known()
    pending.sent(Side.CLIENT, iq("1"), 0)
    pending.sent(Side.CLIENT, iq(None), 0)
    pending.clear()
    assert len(pending) == 0
    pending.sent(Side.CLIENT, iq("2", to="example.com"), 0)
    pending.know(account=Jid.from_text("romeo@other.example/x"))
    assert pending.answered(Side.SERVER, iq("2"), 0) is None  # example.com is home no more


@given(st.lists(st.tuples(
    st.sampled_from(Side), st.booleans(), st.sampled_from([None, "", "1", "2"]),
    st.sampled_from([None, "example.com", "a@b", "a b", "x" * 200]),
)))  # fmt: skip
def test_any_dialogue_stays_within_its_bounds(steps: list[tuple[Side, bool, str | None, str | None]]) -> None:
    pending = PendingRequests(2, WITHOUT_ID_MAX)
    for at_ns, (side, asks, id_, peer) in enumerate(steps):
        element = iq(id_, to=peer, from_=peer)
        if asks:
            pending.sent(side, element, at_ns)
        else:
            answer = pending.answered(side, element, at_ns)
            assert answer is None or (answer.sent_by is side.other and 0 < answer.age_ns <= at_ns)
        assert len(pending) <= 2 * (2 + WITHOUT_ID_MAX)
