"""What must hold whatever is said, and however the network cuts it."""

import random
from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.dialogue import (
    BIND,
    BOUND,
    DECLARED_HEADER,
    FEATURES_BIND,
    FEATURES_SASL,
    FEATURES_TLS,
    HEADER,
    PLAIN,
    PROCEED,
    SERVER_HEADER,
    STARTTLS,
    SUCCESS,
    Dialogue,
)
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import EndOfInput, Event, Side
from xproxy.xmpp.session import Phase

_ERROR = (
    "<iq type='error' id='d1'><error type='cancel'>"
    "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
)
_CLIENT_LINES = [
    DECLARED_HEADER,
    HEADER,
    STARTTLS,
    PLAIN,
    BIND,
    "<presence/>",
    "<iq type='get' id='d1'><query xmlns='jabber:iq:roster'/></iq>",
    "<message to='a@b'><body>hi &amp; bye</body></message>",
    "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
    "<resume xmlns='urn:xmpp:sm:3' previd='p' h='1'/>",
    "<a xmlns='urn:xmpp:sm:3' h='9'/>",
    "<!-- c -->",
    "<?pi x?>",
    " \n",
    "</stream:stream>",
    "<message><body>",
    "</message>",
    "<b:x/>",
]
_SERVER_LINES = [
    SERVER_HEADER,
    FEATURES_TLS,
    FEATURES_SASL,
    FEATURES_BIND,
    PROCEED,
    SUCCESS,
    BOUND,
    _ERROR,
    "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>",
    "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>cj1hLHM9YixpPTQwOTY=</challenge>",
    "<enabled xmlns='urn:xmpp:sm:3' id='x' resume='true'/>",
    "<resumed xmlns='urn:xmpp:sm:3' previd='p' h='1'/>",
    "<presence/>",
    "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
    "</stream:stream>",
    "<message>" + "<a>" * 260 + "</a>" * 260 + "</message>",
    " ",
]
_LINES = st.lists(
    st.one_of(
        st.tuples(st.just(Side.CLIENT), st.sampled_from(_CLIENT_LINES).map(str.encode)),
        st.tuples(st.just(Side.SERVER), st.sampled_from(_SERVER_LINES).map(str.encode)),
        st.tuples(st.sampled_from(list(Side)), st.binary(max_size=40)),
    ),
    max_size=25,
)
_POLICY = StreamPolicy(debug_events=True)


def _cutter(seed: int) -> Callable[[bytes], list[bytes]]:
    rng = random.Random(seed)

    def cut(data: bytes) -> list[bytes]:
        pieces = []
        while data:
            size = rng.choice((1, 2, 3, 7, 40, 1000))
            pieces.append(data[:size])
            data = data[size:]
        return pieces

    return cut


def _play(lines: list[tuple[Side, bytes]], logged_in: bool, **how: Any) -> Dialogue:
    talk = Dialogue(policy=_POLICY, **how)
    if logged_in:
        talk.log_in()
    for side, line in lines:
        if talk.close is not None:
            break
        (talk.client if side is Side.CLIENT else talk.server)(line)
        if talk.session.phase is Phase.SECURING:
            talk.secured()
    return talk


def _comparable(event: Event) -> dict[str, Any]:
    """Offsets and sizes are known to the chunk only once the session is established."""
    told = attrs.asdict(event)
    for place in (told, told.get("stanza") or {}):
        for name in ("offset", "octets"):
            place.pop(name, None)
    return {"action": event.action, **told}


@example(lines=[(Side.CLIENT, b"\x01\x00")], logged_in=False, seed=926528)
@given(lines=_LINES, logged_in=st.booleans(), seed=st.integers(0, 2**32))
def test_splitting_never_changes_what_is_seen(lines: list[tuple[Side, bytes]], logged_in: bool, seed: int) -> None:
    lines = [*lines, *((side, b"<z/> ") for side in Side)]  # a parser may wait for more before it judges
    whole = _play(lines, logged_in)
    split = _play(lines, logged_in, chunks=_cutter(seed))
    assert [_comparable(event) for event in split.events] == [_comparable(event) for event in whole.events]
    assert (split.close is None) == (whole.close is None)


@given(lines=_LINES, logged_in=st.booleans(), seed=st.integers(0, 2**32))
def test_any_dialogue_is_relayed_unchanged_or_closed(
    lines: list[tuple[Side, bytes]], logged_in: bool, seed: int
) -> None:
    talk = _play(lines, logged_in, chunks=_cutter(seed))
    for side in Side:
        assert talk.said[side].startswith(talk.forwarded[side])
        if talk.close is None:
            assert talk.said[side] == talk.forwarded[side]
    talk.ends(Side.CLIENT, EndOfInput.RESET)
    talk.ends(Side.SERVER, EndOfInput.RESET)
    talk.session.closed(talk.now)


@given(
    data=st.lists(st.tuples(st.sampled_from(list(Side)), st.binary(max_size=300)), max_size=8), logged_in=st.booleans()
)
def test_any_bytes_at_all_are_survived(data: list[tuple[Side, bytes]], logged_in: bool) -> None:
    _play(data, logged_in, limits=StreamLimits(stanza_bytes_max=500, stanza_bytes_warn=200))
