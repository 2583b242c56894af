"""What stanzas mean for an operator, told as dialogues."""

import pytest

from tests.support.dialogue import (
    BIND,
    BOUND,
    FEATURES_BIND,
    FEATURES_SASL,
    HEADER,
    PLAIN,
    SECOND,
    SERVER_HEADER,
    SUCCESS,
    Dialogue,
)
from xproxy.events import EndOfInput, Event, Side
from xproxy.events.account import PasswordChanged, RegistrationFailed, RegistrationSucceeded
from xproxy.events.session import SmAnomaly
from xproxy.events.stanza import (
    CarbonsForged,
    ClientFailureSuspected,
    IqTimeout,
    IqUnhandled,
    MucJoinFailed,
    StanzaError,
)
from xproxy.xmpp.actions import LegMode, Observe
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.session import Phase

PING = "<iq type='get' id='p1'{to}><ping xmlns='urn:xmpp:ping'/></iq>"
STANZAS = "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'"


@pytest.fixture
def talk() -> Dialogue:
    return Dialogue().log_in()


def ticked(talk: Dialogue, seconds: float) -> list[Event]:
    """The events of the deadlines that pass within ``seconds``."""
    return [action.event for action in talk.after(seconds) if isinstance(action, Observe)]


# Requests --------------------------------------------------------------------------------------------------------


def test_a_request_of_the_client_that_nobody_answers(talk: Dialogue) -> None:
    talk.client(PING.format(to=" to='example.org'"))
    assert ticked(talk, 29) == []
    (timeout,) = ticked(talk, 1)
    assert isinstance(timeout, IqTimeout)
    assert (timeout.request.sent_by, timeout.request.payload) == (Side.CLIENT, "{urn:xmpp:ping}ping")
    assert (timeout.peer, timeout.threshold_ns, timeout.request.purpose) == ("example.org", 30 * SECOND, "ping")
    assert ticked(talk, 400) == []  # told once


def test_a_request_to_the_client_that_it_does_not_answer_is_evidence_against_it(talk: Dialogue) -> None:
    talk.server(PING.format(to=" from='example.org'"))
    timeout, suspected = ticked(talk, 30)
    assert isinstance(timeout, IqTimeout)
    assert isinstance(suspected, ClientFailureSuspected)
    assert (suspected.kind, suspected.payload) == ("request-unanswered", "{urn:xmpp:ping}ping")


def test_an_answer_in_time_needs_no_word(talk: Dialogue) -> None:
    talk.client(PING.format(to="")).server("<iq type='result' id='p1'/>")
    assert ticked(talk, 400) == []


def test_a_late_error_says_that_it_is_late(talk: Dialogue) -> None:
    talk.client(PING.format(to=""))
    ticked(talk, 31)
    talk.server(f"<iq type='error' id='p1'><error type='cancel'><service-unavailable {STANZAS}/></error></iq>")
    request = talk.one(StanzaError).request
    assert request is not None
    assert request.late
    assert talk.session.closed(talk.now).from_server.late_answers == 1


def test_an_answer_to_nothing_is_counted(talk: Dialogue) -> None:
    talk.server("<iq type='result' id='never-asked'/>").client("<iq type='result' id='nor-this'/>")
    closed = talk.session.closed(talk.now)
    assert (closed.from_server.orphan_answers, closed.from_client.orphan_answers) == (1, 1)


def test_an_earlier_deadline_is_told_to_the_relay(talk: Dialogue) -> None:
    """A plain list of one Forward is not looked at twice."""
    talk.after(400)  # the deadlines of the login are gone
    data = PING.format(to="").encode()
    assert len(talk.session.receive(Side.CLIENT, data, talk.now)) == 2
    assert len(talk.session.receive(Side.CLIENT, data.replace(b"p1", b"p2"), talk.now)) == 1


def test_what_no_part_of_an_app_handled(talk: Dialogue) -> None:
    talk.server("<iq type='get' id='v' from='example.org'><query xmlns='jabber:iq:version'/></iq>")
    talk.client(
        "<iq type='error' id='v' to='example.org'><query xmlns='jabber:iq:version'/>"
        f"<error type='cancel' code='501'><feature-not-implemented {STANZAS}/></error></iq>"
    )
    unhandled = talk.one(IqUnhandled)
    assert unhandled.payload == "{jabber:iq:version}query"
    assert "stanza-error" not in talk.actions_seen()


# What apps cannot see --------------------------------------------------------------------------------------------


def test_a_room_that_refuses(talk: Dialogue) -> None:
    talk.client("<presence to='r@rooms.example.org/j'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
    talk.server(
        "<presence type='error' from='r@rooms.example.org/j'>"
        f"<error type='auth'><not-authorized {STANZAS}/></error></presence>"
    )
    failed = talk.one(MucJoinFailed)
    assert (failed.kind, failed.reason, failed.room) == ("join-refused", "password-required", "r@rooms.example.org")


def test_a_forged_carbon(talk: Dialogue) -> None:
    copy = "<message from='{}'><received xmlns='urn:xmpp:carbons:2'/></message>"
    talk.server(copy.format("juliet@example.org"))
    assert talk.actions_seen() == []
    talk.server(copy.format("mallory@example.org"))
    assert talk.one(CarbonsForged).direction == "received"


def test_a_roster_that_is_refused_names_what_was_asked_for(talk: Dialogue) -> None:
    talk.client("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>")
    talk.server(f"<iq type='error' id='r'><error type='wait'><internal-server-error {STANZAS}/></error></iq>")
    request = talk.one(StanzaError).request
    assert request is not None
    assert request.purpose == "roster-get"


def test_registration_before_and_a_password_change_within_a_session() -> None:
    form = "<query xmlns='jabber:iq:register'><username>j</username><password>canary-pw</password></query>"
    talk = Dialogue().client("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>")
    talk.server("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>")
    talk.client(f"<iq type='set'>{form}</iq>")  # COMPAT(XMPPFramework): no id
    talk.server(f"<iq type='error'>{form}<error type='cancel' code='409'><conflict {STANZAS}/></error></iq>")
    assert talk.one(RegistrationFailed).condition == "conflict"
    talk.client(f"<iq type='set'>{form}</iq>").server("<iq type='result'/>")
    assert talk.one(RegistrationSucceeded).fields == ("username", "password")
    assert "canary-pw" not in repr(talk.events)
    talk = Dialogue().log_in().client(f"<iq type='set' id='c'>{form}</iq>").server("<iq type='result' id='c'/>")
    talk.one(PasswordChanged)


# When a client goes ----------------------------------------------------------------------------------------------


def gone(talk: Dialogue) -> ClientFailureSuspected | None:
    talk.seen()
    talk.ends(Side.CLIENT, EndOfInput.RESET)
    return next((event for event in talk.events if isinstance(event, ClientFailureSuspected)), None)


def test_a_client_that_goes_right_behind_a_stanza_twice_is_more_suspect() -> None:
    memory = Memory()
    seen = []
    for _ in range(2):
        talk = Dialogue(memory=memory).log_in().server("<message><x xmlns='urn:example:bad'/></message>")
        talk.now += SECOND
        seen.append(gone(talk))
    first, second = seen
    assert first is not None
    assert second is not None
    assert (first.kind, first.confidence, first.payload) == ("closed-after-stanza", "low", "{urn:example:bad}x")
    assert (second.confidence, second.occurrences) == ("medium", 2)
    assert first.fingerprint == second.fingerprint


def test_a_client_that_goes_later_or_in_form_is_not_suspect() -> None:
    talk = Dialogue().log_in().server("<message/>")
    talk.now += 3 * SECOND
    assert gone(talk) is None
    talk = Dialogue().log_in().server("<message/>").client("</stream:stream>").server("</stream:stream>")
    assert gone(talk) is None


@pytest.mark.parametrize("last", ["<iq type='result' id='x'/>", "<presence from='juliet@example.org/balcony'/>"])
def test_a_program_that_has_what_it_came_for_is_not_suspect(talk: Dialogue, last: str) -> None:
    assert gone(talk.server(last)) is None


def test_a_stanza_that_can_no_longer_be_read_is_not_guessed_at(talk: Dialogue) -> None:
    talk.server("<message/>").server("<message><body>half")
    assert gone(talk) is None


def test_xml_that_we_refuse_too_is_strong_evidence(talk: Dialogue) -> None:
    talk.server("<message>" + "<a>" * 300 + "</a>" * 300 + "</message>")
    suspected = gone(talk)
    assert suspected is not None
    assert (suspected.kind, suspected.confidence) == ("xml-refused", "high")


# Acknowledgements ------------------------------------------------------------------------------------------------


def test_an_acknowledgement_that_is_overdue(talk: Dialogue) -> None:
    talk.client("<enable xmlns='urn:xmpp:sm:3'/>").server("<enabled xmlns='urn:xmpp:sm:3'/>")
    talk.server("<message/><r xmlns='urn:xmpp:sm:3'/>")
    (anomaly,) = ticked(talk, 30)
    assert isinstance(anomaly, SmAnomaly)
    assert (anomaly.kind, anomaly.sent_by, anomaly.sent) == ("ack-overdue", Side.CLIENT, 1)
    talk.server("<r xmlns='urn:xmpp:sm:3'/>").client("<a xmlns='urn:xmpp:sm:3' h='1'/>")
    assert ticked(talk, 400) == []


def test_counts_at_the_end(talk: Dialogue) -> None:
    talk.client("<presence/><message/><message/><r xmlns='urn:xmpp:sm:3'/>")
    totals = talk.session.closed(talk.now).from_client
    assert (totals.presences, totals.messages, totals.iqs, totals.acks, totals.stanzas) == (1, 2, 1, 1, 4)
    assert talk.session.phase is Phase.ESTABLISHED


CARBON = "<message from='mallory@evil.example'><{0}sent {1}><forwarded/></{0}sent></message>"


@pytest.mark.parametrize(
    "namespace",
    ["urn:xmpp:carbons:2", "urn:xmpp:c&#97;rbons:2", "urn:xmpp:carb&#x6f;ns:2", "&#117;rn:xmpp:carbons&#58;2"],
)
@pytest.mark.parametrize("cut", [0, 20, 60])
def test_a_forged_carbon_is_seen_however_its_namespace_is_written(namespace: str, cut: int) -> None:
    stanza = CARBON.format("", f"xmlns='{namespace}'")
    talk = Dialogue().log_in()
    talk.seen()
    for part in filter(None, (stanza[:cut], stanza[cut:])):
        talk.server(part)
    assert [type(event) for event in talk.events].count(CarbonsForged) == 1


def test_a_forged_carbon_whose_namespace_the_header_declares() -> None:
    talk = Dialogue(mode=LegMode.DIRECT_TLS).secured()
    talk.client(HEADER).server(SERVER_HEADER + FEATURES_SASL).client(PLAIN).server(SUCCESS).client(HEADER)
    assert SERVER_HEADER.endswith(">")
    talk.server(SERVER_HEADER[:-1] + " xmlns:c='urn:xmpp:carbons:2'>" + FEATURES_BIND).client(BIND).server(BOUND)
    talk.seen()
    talk.server(CARBON.format("c:", ""))
    assert [type(event) for event in talk.events].count(CarbonsForged) == 1
