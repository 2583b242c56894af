import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from xproxy.events import Side
from xproxy.events.stanza import RequestFacts
from xproxy.xmpp import ns
from xproxy.xmpp.evidence import ANSWER_SECONDS, answer_seconds, fingerprint, iq_unhandled
from xproxy.xmpp.stanza import stanza_facts

REQUEST = RequestFacts(sent_by=Side.SERVER, type="get", payload="{jabber:iq:version}query", age_ns=1)
NOT_IMPLEMENTED = f"<feature-not-implemented xmlns='{ns.STANZA_ERRORS}'/>"


def parse(text: str) -> etree._Element:
    return etree.fromstring(f"<s xmlns='jabber:client'>{text}</s>")[0]


def unhandled(text: str, request: RequestFacts | None = None) -> str | None:
    element = parse(text)
    event = iq_unhandled(element, stanza=stanza_facts(element, 9, b"k"), request=request)
    if event is None:
        return None
    assert event.request is request
    return event.payload or ""


def test_the_answer_that_xmppframework_gives_by_itself() -> None:
    """Core/XMPPStream.m: type cancel, code 501, and the child that nobody handled."""
    text = (
        "<iq to='example.org' type='error' id='v1'><query xmlns='jabber:iq:version'/>"
        f"<error type='cancel' code='501'>{NOT_IMPLEMENTED}</error></iq>"
    )
    assert unhandled(text) == "{jabber:iq:version}query"
    assert unhandled(text, REQUEST) == "{jabber:iq:version}query"


def test_without_an_echo_the_request_says_what_it_was() -> None:
    text = f"<iq type='error' id='v1'><error type='cancel' code='501'>{NOT_IMPLEMENTED}</error></iq>"
    assert unhandled(text, REQUEST) == "{jabber:iq:version}query"
    assert unhandled(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        f"<iq type='error'><error type='cancel'>{NOT_IMPLEMENTED}</error></iq>",  # an app that refuses on purpose
        f"<iq type='error'><error type='modify' code='501'>{NOT_IMPLEMENTED}</error></iq>",
        f"<iq type='error'><error type='cancel' code='501'><forbidden xmlns='{ns.STANZA_ERRORS}'/></error></iq>",
        "<iq type='error'/>",
        f"<iq type='result'><error type='cancel' code='501'>{NOT_IMPLEMENTED}</error></iq>",
        f"<message type='error'><error type='cancel' code='501'>{NOT_IMPLEMENTED}</error></message>",
    ],
)
def test_other_errors_are_not_it(text: str) -> None:
    assert unhandled(text) is None


def test_how_long_an_app_waits() -> None:
    assert answer_seconds("{jabber:iq:roster}query") == 60.0
    assert answer_seconds("{vcard-temp}vCard") == 600.0
    assert answer_seconds("{urn:x}y") == answer_seconds(None) == answer_seconds("query") == ANSWER_SECONDS


def test_one_shape_has_one_fingerprint() -> None:
    one = fingerprint(parse("<message from='a@b' id='1'><body>hello</body><x xmlns='u:x'/></message>"))
    assert one == fingerprint(parse("<message to='c@d'><body>s3cret<!-- c --></body><x xmlns='u:x' y='z'/></message>"))
    assert len(one) == 16
    others = [
        "<message><x xmlns='u:x'/><body/></message>",
        "<message><body><x xmlns='u:x'/></body></message>",
        "<message><body/></message>",
        "<message><body/><x xmlns='u:y'/></message>",
    ]
    assert one not in [fingerprint(parse(text)) for text in others]


@given(st.integers(0, 240), st.integers(0, 400))
def test_any_stanza_has_one(depth: int, width: int) -> None:
    text = f"<message>{'<a>' * depth}{'</a>' * depth}{'<b/>' * width}</message>"
    assert len(fingerprint(parse(text))) == 16
