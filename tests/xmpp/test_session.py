"""The session core, told as dialogues."""

import pytest
from lxml import etree

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
from xproxy.events import EndOfInput, Side
from xproxy.events.connection import CloseCause
from xproxy.events.proxy import LimitReached
from xproxy.events.sasl import ChannelBindingVerdict, SaslFailed, SaslStarted, SaslSucceeded
from xproxy.events.session import (
    BindFailed,
    ResourceBound,
    SessionEstablished,
    SessionResumed,
    SessionResumeFailed,
    SmAnomaly,
    SmEnabled,
)
from xproxy.events.stanza import ClientFailureSuspected, StanzaError, StanzaRelayed
from xproxy.events.stream import (
    InspectionLost,
    LossScope,
    RedirectOffered,
    StreamError,
    StreamRestarted,
    StreamViolation,
)
from xproxy.events.tls import PlaintextAuthentication, StarttlsInjection, StarttlsRefused, TlsFailed, TlsFailure
from xproxy.xmpp.actions import Close, Forward, LegMode, Pause, Resume, StartTls, VerifyName, Wake
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.names import NameTally
from xproxy.xmpp.session import Phase

SM = "xmlns='urn:xmpp:sm:3'"
STANZA_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas"


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@pytest.fixture(params=["whole", "bytes"])
def talk(request: pytest.FixtureRequest) -> Dialogue:
    return Dialogue() if request.param == "whole" else Dialogue(chunks=byte_by_byte)


def before_tls(talk: Dialogue) -> Dialogue:
    return talk.client(DECLARED_HEADER).server(SERVER_HEADER + FEATURES_TLS)


def inside_tls(talk: Dialogue) -> Dialogue:
    before_tls(talk).client(STARTTLS).server(PROCEED).secured()
    talk.client(HEADER).server(SERVER_HEADER + FEATURES_SASL)
    talk.seen()
    return talk


def test_a_login_from_the_first_byte_to_the_session(talk: Dialogue) -> None:
    before_tls(talk)
    assert talk.actions_seen() == ["stream-opened", "stream-opened", "stream-features"]
    talk.client(STARTTLS)
    assert talk.actions_seen() == ["starttls-requested"]
    assert talk.actions[-1] == Pause(Side.CLIENT)
    talk.server(PROCEED)
    assert talk.actions[-2:] == [Pause(Side.SERVER), StartTls(domain="example.org")]
    talk.secured()
    assert talk.actions_seen() == ["tls-established", "tls-established"]
    talk.client(HEADER).server(SERVER_HEADER + FEATURES_SASL).client(PLAIN).server(SUCCESS)
    assert talk.one(SaslStarted).authcid == "juliet"
    assert talk.one(SaslSucceeded).mechanism == "PLAIN"
    assert talk.actions_seen() == [
        "stream-opened",
        "stream-opened",
        "stream-features",
        "sasl-offered",
        "sasl-started",
        "sasl-succeeded",
    ]
    talk.client(HEADER).server(SERVER_HEADER + FEATURES_BIND).client(BIND).server(BOUND)
    assert str(talk.one(ResourceBound).jid) == "juliet@example.org/balcony"
    assert talk.one(SessionEstablished).how == "bind"
    assert talk.actions_seen() == ["stream-features", "resource-bound", "session-established"]
    assert talk.session.phase is Phase.ESTABLISHED
    assert talk.forwarded == talk.said


def test_no_secret_of_the_login_is_in_any_event(talk: Dialogue) -> None:
    inside_tls(talk).client(PLAIN)
    shown = repr(talk.events)
    assert "capulet-canary" not in shown
    assert "AGp1bGlldABjYXB1bGV0LWNhbmFyeQ" not in shown


def test_auth_header_bind_and_ping_in_one_write(talk: Dialogue) -> None:
    """Clients pipeline: nothing of the server is waited for."""
    inside_tls(talk)
    ping = "<iq type='get' id='p1'><ping xmlns='urn:xmpp:ping'/></iq>"
    talk.client(PLAIN + HEADER + BIND + ping)
    talk.server(SUCCESS + SERVER_HEADER + FEATURES_BIND + BOUND + "<iq type='result' id='p1'/>")
    assert talk.actions_seen() == [
        "sasl-started",
        "sasl-succeeded",
        "stream-features",
        "resource-bound",
        "session-established",
    ]
    assert talk.forwarded == talk.said


def test_a_pipelined_restart_says_so() -> None:
    talk = inside_tls(Dialogue(policy=StreamPolicy(debug_events=True)))
    talk.client(PLAIN + HEADER)
    assert talk.one(StreamRestarted).pipelined
    talk.seen()
    talk.server(SUCCESS + SERVER_HEADER)
    assert not talk.one(StreamRestarted).pipelined


def test_a_restart_with_an_xml_declaration(talk: Dialogue) -> None:
    inside_tls(talk).client(PLAIN).server(SUCCESS)
    talk.client(DECLARED_HEADER + BIND).server(SERVER_HEADER + FEATURES_BIND + BOUND)
    assert talk.session.established
    assert "stream-violation" not in talk.actions_seen()


# STARTTLS ------------------------------------------------------------------------------------------------------


def test_a_little_whitespace_behind_starttls_goes_on_to_the_server() -> None:
    talk = before_tls(Dialogue())
    talk.client(STARTTLS + "\r\n")
    assert talk.close is None
    assert talk.forwarded == talk.said


@pytest.mark.parametrize("extra", ["<auth/>", "\x16\x03\x01", " " * 17])
def test_octets_behind_starttls_are_an_injection(extra: str) -> None:
    talk = before_tls(Dialogue())
    talk.client(STARTTLS + extra)
    assert talk.one(StarttlsInjection) == StarttlsInjection(sent_by=Side.CLIENT, octets=len(extra))
    assert talk.close == Close(cause=CloseCause.STARTTLS_INJECTION, initiator=Side.CLIENT)
    assert STARTTLS.encode() not in talk.forwarded[Side.CLIENT]


@pytest.mark.parametrize("extra", [" ", "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>", "\x16"])
def test_any_octet_behind_proceed_is_an_injection(extra: str) -> None:
    talk = before_tls(Dialogue()).client(STARTTLS)
    talk.server(PROCEED + extra)
    assert talk.one(StarttlsInjection).sent_by is Side.SERVER
    assert talk.close is not None
    assert not any(isinstance(action, StartTls) for action in talk.actions)


def test_a_refusal_of_starttls_gives_the_client_its_voice_back(talk: Dialogue) -> None:
    before_tls(talk).client(STARTTLS)
    talk.server("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>")
    assert talk.one(StarttlsRefused).answer == "{urn:ietf:params:xml:ns:xmpp-tls}failure"
    assert Resume(Side.CLIENT) in talk.actions
    assert talk.forwarded == talk.said


def test_proceed_without_starttls_is_not_obeyed(talk: Dialogue) -> None:
    before_tls(talk).server(PROCEED)
    assert talk.one(StreamViolation).kind == "proceed-without-starttls"
    assert not any(isinstance(action, StartTls) for action in talk.actions)


def test_what_was_offered_in_clear_is_forgotten() -> None:
    talk = Dialogue().client(DECLARED_HEADER).server(SERVER_HEADER + FEATURES_SASL)
    talk.client(STARTTLS).server(PROCEED).secured().client(HEADER + PLAIN)
    assert talk.one(SaslStarted).offered is None


def test_upstream_tls_failure_closes_without_a_closing_tag() -> None:
    talk = before_tls(Dialogue()).client(STARTTLS).server(PROCEED)
    failure = TlsFailed(leg=Side.SERVER, direct=False, reason=TlsFailure.CERTIFICATE_EXPIRED, seconds=0.1)
    actions = talk.session.tls_failed(failure, talk.now)
    assert actions[-1] == Close(cause=CloseCause.TLS_FAILED, initiator=Side.SERVER, how=EndOfInput.TRUNCATED)
    assert not any(isinstance(action, Forward) for action in actions)


def test_direct_tls_for_another_name_is_verified_again() -> None:
    talk = Dialogue(mode=LegMode.DIRECT_TLS).secured(server_name="other.example")
    talk.client(HEADER)
    assert VerifyName("example.org") in talk.actions
    assert talk.actions.index(VerifyName("example.org")) < len(talk.actions) - 1  # before the bytes


def test_direct_tls_for_the_same_name_is_not() -> None:
    talk = Dialogue(mode=LegMode.DIRECT_TLS).secured()
    talk.client(HEADER)
    assert not any(isinstance(action, VerifyName) for action in talk.actions)


# Login ---------------------------------------------------------------------------------------------------------


def test_login_without_tls_is_reported() -> None:
    talk = Dialogue().client(DECLARED_HEADER).server(SERVER_HEADER + FEATURES_SASL).client(PLAIN)
    assert talk.one(PlaintextAuthentication) == PlaintextAuthentication(mechanism="PLAIN", starttls_offered=False)


def test_a_failed_login_and_a_second_try(talk: Dialogue) -> None:
    inside_tls(talk).client(PLAIN)
    talk.server(
        "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/>"
        "<text xml:lang='en'>Unable to authorize you</text></failure>"
    )
    failed = talk.one(SaslFailed)
    assert (failed.condition, failed.condition_known, failed.authcid) == ("not-authorized", True, "juliet")
    assert failed.text == "Unable to authorize you"
    talk.seen()
    talk.client(PLAIN).server(SUCCESS)
    assert talk.one(SaslSucceeded).attempt == 2


def test_the_servers_text_can_be_switched_off() -> None:
    talk = inside_tls(Dialogue(policy=StreamPolicy(server_text=False))).client(PLAIN)
    talk.server("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/><text>why</text></failure>")
    assert talk.one(SaslFailed).text is None
    assert talk.one(SaslFailed).text_bytes == 3


def test_a_comment_inside_auth_hides_nothing(talk: Dialogue) -> None:
    inside_tls(talk)
    talk.client(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGp1bGll<!-- -->"
        "dABjYXB1bGV0LWNhbmFyeQ==</auth>"
    )
    assert talk.one(SaslStarted).authcid == "juliet"


def test_an_aborted_login_is_one_record(talk: Dialogue) -> None:
    inside_tls(talk).client("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'/>")
    talk.client("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
    talk.server("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><aborted/></failure>")
    assert talk.actions_seen() == ["sasl-started", "sasl-aborted"]


def test_a_binding_that_cannot_cross_is_predicted_and_named_as_the_cause() -> None:
    talk = inside_tls(Dialogue())
    # p=tls-exporter,,n=juliet,r=nonce
    talk.client(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1-PLUS'>"
        "cD10bHMtZXhwb3J0ZXIsLG49anVsaWV0LHI9bm9uY2U=</auth>"
    )
    verdict = talk.one(ChannelBindingVerdict)
    assert (verdict.channel_binding, verdict.prediction) == ("tls-exporter", "fails")
    talk.server("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>")
    assert talk.one(SaslFailed).cause == "channel-binding-broken-by-proxy"


def test_the_servers_own_certificate_lets_the_end_point_binding_cross() -> None:
    talk = inside_tls(Dialogue())
    # p=tls-server-end-point,,n=juliet,r=nonce
    talk.client(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1-PLUS'>"
        "cD10bHMtc2VydmVyLWVuZC1wb2ludCwsbj1qdWxpZXQscj1ub25jZQ==</auth>"
    )
    assert talk.one(ChannelBindingVerdict).prediction == "succeeds"


def test_a_refused_bind(talk: Dialogue) -> None:
    inside_tls(talk).client(PLAIN).server(SUCCESS).client(HEADER + BIND)
    talk.server(SERVER_HEADER + FEATURES_BIND)
    talk.server(
        "<iq type='error' id='b1'><error type='cancel'>"
        "<conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    )
    assert talk.one(BindFailed).condition == "conflict"
    assert not talk.session.established
    talk.client(BIND.replace(" id='b1'", "")).server(BOUND.replace(" id='b1'", ""))  # XMPPFramework's second try
    assert talk.session.established


# Established ---------------------------------------------------------------------------------------------------


def test_a_plain_message_costs_one_forward() -> None:
    talk = Dialogue().log_in()
    message = b"<message to='romeo@example.net'><body>art thou not Romeo</body></message>"
    assert talk.session.receive(Side.CLIENT, message, talk.now) == [Forward(message)]


def test_a_stanza_error_with_the_request_it_answers(talk: Dialogue) -> None:
    talk.log_in()
    talk.client(
        "<iq type='get' id='d1' to='nobody@example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
    )
    talk.now += 5_000_000
    talk.server(
        "<iq type='error' id='d1' from='nobody@example.org'><error type='cancel'>"
        "<service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    )
    error = talk.one(StanzaError)
    assert (error.type, error.condition) == ("cancel", "service-unavailable")
    assert error.request is not None
    assert error.request.payload == "{http://jabber.org/protocol/disco#info}query"
    assert error.request.age_ns == 5_000_000


def test_stanzas_are_only_recorded_one_by_one_at_debug() -> None:
    talk = Dialogue(policy=StreamPolicy(debug_events=True)).log_in()
    talk.client("<presence/>")
    assert talk.one(StanzaRelayed).stanza.kind == "presence"


def test_a_second_root_in_an_established_session_is_inspection_lost(talk: Dialogue) -> None:
    talk.log_in()
    talk.client(HEADER)
    talk.client("<presence/></stream:stream>")
    assert talk.one(InspectionLost).reason == "nested-root"


def test_broken_xml_of_the_client_closes_an_established_session(talk: Dialogue) -> None:
    talk.log_in()
    talk.client("<message><body></message>")
    assert talk.one(InspectionLost).scope is LossScope.STREAM
    assert talk.close is not None
    assert talk.close.cause is CloseCause.INSPECTION_LOST


def test_broken_xml_of_the_server_is_relayed_unseen_and_said_aloud(talk: Dialogue) -> None:
    talk.log_in()
    talk.server("<message><body></message>").server("<presence/>")
    lost = talk.one(InspectionLost)
    assert (lost.policy, lost.sent_by) == ("relay", Side.SERVER)
    assert talk.close is None
    assert talk.forwarded == talk.said


def test_broken_xml_before_login_closes(talk: Dialogue) -> None:
    talk.client(DECLARED_HEADER).server(SERVER_HEADER).server("<stream:features></nonsense>")
    assert talk.close is not None


def test_a_stanza_above_the_limit_closes() -> None:
    talk = Dialogue(limits=StreamLimits(stanza_bytes_max=4096, stanza_bytes_warn=2048)).log_in()
    talk.client("<message><body>" + "x" * 5000)
    limits = [event for event in talk.events if isinstance(event, LimitReached)]
    assert limits[-1].closes
    assert talk.close is not None
    assert talk.close.cause is CloseCause.LIMIT_REACHED


def new_names(count: int, word: str) -> str:
    """Elements whose names, and whose namespaces' names, nobody has met."""
    return "".join(f"<{word}{i} xmlns='urn:{word}:{i}'/>" for i in range(count))


@pytest.mark.parametrize("before", ["", "<message><body>a</body></message>", "<message id='1'>"])
def test_new_names_of_another_user_neither_blind_nor_end_the_session(before: str) -> None:
    """One archived message with names enough would end its receiver's session at every login."""
    word = f"nn{len(before)}q"
    size = 1_000
    talk = Dialogue(chunks=lambda data: [data[i : i + size] for i in range(0, len(data), size)]).log_in()
    talk.server(before + "<message>" + new_names(1_200, word) + "</message>" * (1 + before.endswith("'1'>")))
    assert talk.close is None
    reached = talk.one(LimitReached)
    assert (reached.limit, reached.closes, reached.sent_by) == ("stream.names_max", False, Side.SERVER)
    lost = talk.one(InspectionLost)
    assert (lost.scope, lost.reason, lost.policy) == (LossScope.ELEMENT, "too-many-names", "relay")
    talk.seen()
    talk.server(
        "<message type='error' id='e'><error type='cancel'><gone " + f"xmlns='{STANZA_ERRORS}'/></error></message>"
    )
    assert talk.one(StanzaError).sent_by is Side.SERVER
    talk.seen()
    talk.client("<message>" + new_names(300, f"{word}c") + "</message>")
    assert talk.actions_seen() == []
    assert talk.close is None
    assert talk.forwarded == talk.said


def test_one_tag_of_another_user_may_not_bring_all_names() -> None:
    before = etree.memory_debugger.dict_size()
    talk = Dialogue().log_in()
    talk.server("<message " + " ".join(f"tagq{i}=''" for i in range(5_000)) + "/><presence/>")
    assert talk.close is None
    assert talk.one(InspectionLost).scope is LossScope.ELEMENT
    assert etree.memory_debugger.dict_size() - before < 2_000
    assert talk.session.closed(talk.now).from_server.presences == 1


def test_names_without_end_are_relayed_unread_and_the_client_is_still_heard() -> None:
    talk = Dialogue(limits=StreamLimits(names_max=100, names_renewals_max=1, names_before_login_max=64)).log_in()
    for turn in range(3):
        talk.server("<message>" + new_names(150, f"ne{turn}q"))
        talk.server("</message>")
    scopes = [event.scope for event in talk.events if isinstance(event, InspectionLost)]
    assert scopes == [LossScope.ELEMENT, LossScope.STREAM]
    assert [event.closes for event in talk.seen() if isinstance(event, LimitReached)] == [False, False]
    talk.client(
        "<message type='error' id='e'><error type='cancel'><gone " + f"xmlns='{STANZA_ERRORS}'/></error></message>"
    )
    assert talk.one(StanzaError).sent_by is Side.CLIENT
    assert talk.close is None
    assert talk.forwarded == talk.said


def test_names_without_end_close_the_session_where_the_policy_says_so() -> None:
    limits = StreamLimits(names_max=100, names_renewals_max=0, names_before_login_max=64)
    talk = Dialogue(limits=limits, policy=StreamPolicy(on_inspection_lost_server="close")).log_in()
    talk.server("<message>" + new_names(150, "np") + "</message>")
    assert talk.close is not None
    assert talk.close.cause is CloseCause.INSPECTION_LOST


def test_new_names_of_the_client_itself_end_the_session() -> None:
    talk = Dialogue().log_in()
    talk.client("<message>" + new_names(1_200, "nc") + "</message>")
    assert talk.close is not None
    assert talk.close.cause is CloseCause.LIMIT_REACHED


def test_the_names_of_all_strangers_of_an_address_are_counted_together() -> None:
    tally = NameTally(100)
    Dialogue(strangers=tally).client(HEADER).server(SERVER_HEADER).client("<auth>" + new_names(20, "nsa"))
    assert 35 < tally.used <= 50
    Dialogue(strangers=tally).client(HEADER).server(SERVER_HEADER).client("<auth>" + new_names(20, "nsb"))
    last = Dialogue(strangers=tally).client(HEADER).server(SERVER_HEADER).client("<auth>" + new_names(20, "nsc"))
    assert tally.is_spent
    reached = last.one(LimitReached)
    assert (reached.limit, reached.value, reached.closes) == ("sessions.names_per_address_max", 100, True)
    used = tally.used
    known = Dialogue(strangers=tally).log_in()  # what brings no new name is served
    known.client("<message>" + new_names(20, "nsd") + "</message>")
    assert known.close is None
    assert tally.used == used


def test_a_deep_headline_neither_blinds_nor_ends_the_session(talk: Dialogue) -> None:
    talk.log_in()
    talk.server("<message type='headline'>" + "<a>" * 300 + "</a>" * 300 + "</message>")
    assert talk.one(InspectionLost).scope is LossScope.ELEMENT
    talk.seen()
    talk.server(
        "<message type='error' from='example.org'><error type='cancel'>"
        "<forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    )
    assert talk.one(StanzaError).condition == "forbidden"
    assert talk.close is None


def test_an_end_within_a_skipped_element_says_that_it_was_lost(talk: Dialogue) -> None:
    talk.log_in().server("<message type='headline'>" + "<a>" * 300)
    talk.ends(Side.SERVER)
    assert talk.one(InspectionLost).scope is LossScope.ELEMENT


def test_compression_blinds_both_directions_aloud(talk: Dialogue) -> None:
    inside_tls(talk).client(PLAIN).server(SUCCESS).client(HEADER).server(SERVER_HEADER + FEATURES_BIND)
    talk.client("<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>")
    talk.seen()
    talk.server("<compressed xmlns='http://jabber.org/protocol/compress'/>")
    talk.server(b"\x78\x9c\x00").client(b"\x78\x9c\x01")
    assert talk.actions_seen() == ["inspection-lost", "inspection-lost"]
    assert talk.forwarded == talk.said


# Stream management ---------------------------------------------------------------------------------------------


def test_sm_enabled_keeps_only_a_hash_of_the_id(talk: Dialogue) -> None:
    talk.log_in().client(f"<enable {SM} resume='true'/>")
    talk.server(f"<enabled {SM} id='sm-id-canary' resume='true' max='600' location='[2001:db8::1]:5222'/>")
    enabled = talk.one(SmEnabled)
    assert (enabled.resumable, enabled.max_seconds, enabled.has_location) == (True, 600, True)
    assert "sm-id-canary" not in repr(talk.events)
    assert talk.one(RedirectOffered).target == "[2001:db8::1]:5222"


def test_an_acknowledgement_of_more_than_was_sent_is_an_anomaly(talk: Dialogue) -> None:
    talk.log_in().client(f"<enable {SM}/>").server(f"<enabled {SM}/>")
    talk.client("<presence/><presence/>").server(f"<a {SM} h='2'/>")
    assert "sm-anomaly" not in [event.action for event in talk.events]
    talk.server(f"<a {SM} h='3'/>")
    anomaly = talk.one(SmAnomaly)
    assert (anomaly.kind, anomaly.handled, anomaly.sent) == ("handled-count-too-high", 3, 2)


def resume(talk: Dialogue) -> Dialogue:
    inside_tls(talk).client(PLAIN).server(SUCCESS).client(HEADER).server(SERVER_HEADER + FEATURES_BIND)
    talk.seen()
    return talk.client(f"<resume {SM} previd='sm-id-canary' h='4'/>")


def test_a_resumed_session_is_established_without_bind(talk: Dialogue) -> None:
    resume(talk).server(f"<resumed {SM} previd='sm-id-canary' h='7'/>")
    resumed = talk.one(SessionResumed)
    assert (resumed.client_handled, resumed.server_handled) == (4, 7)
    assert talk.one(SessionEstablished).how == "resume"
    talk.client("<presence/>").server(f"<a {SM} h='8'/>")
    assert "sm-anomaly" not in talk.actions_seen()


def test_the_hash_of_an_id_joins_both_sessions() -> None:
    first, second = Dialogue().log_in(), resume(Dialogue())
    first.client(f"<enable {SM} resume='1'/>").server(f"<enabled {SM} id='sm-id-canary' resume='1'/>")
    second.server(f"<resumed {SM} previd='sm-id-canary' h='0'/>")
    assert first.one(SmEnabled).id_hash == second.one(SessionResumed).id_hash


def test_a_resumed_session_is_whose_it_was() -> None:
    memory = Memory()
    first, second = Dialogue(memory=memory).log_in(), Dialogue(memory=memory)
    first.client(f"<enable {SM} resume='1'/>").server(f"<enabled {SM} id='sm-id-canary' resume='1'/>")
    resume(second).server(f"<resumed {SM} previd='sm-id-canary' h='0'/>")
    assert str(second.one(SessionEstablished).jid) == "juliet@example.org/balcony"


def test_a_refused_resumption_goes_on_to_bind(talk: Dialogue) -> None:
    resume(talk)
    talk.server(f"<failed {SM} h='3'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")
    failed = talk.one(SessionResumeFailed)
    assert (failed.condition, failed.server_handled) == ("item-not-found", 3)
    talk.client(BIND).server(BOUND)
    assert talk.session.established


# Errors and ends -----------------------------------------------------------------------------------------------


def test_a_stream_error_names_its_condition_and_the_way_round_the_proxy(talk: Dialogue) -> None:
    talk.client(DECLARED_HEADER).server(SERVER_HEADER)
    talk.server(
        "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>b.example.org:5222</see-other-host>"
        "<text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>moved</text></stream:error></stream:stream>"
    )
    error = talk.one(StreamError)
    assert (error.condition, error.condition_known, error.text) == ("see-other-host", True, "moved")
    assert talk.one(RedirectOffered).before_tls
    talk.ends(Side.SERVER)
    talk.client("</stream:stream>")
    talk.ends(Side.CLIENT)
    assert talk.close is not None
    assert (talk.close.cause, talk.close.initiator) == (CloseCause.STREAM_ERROR, Side.SERVER)


def test_an_end_without_a_closing_tag_is_passed_on_at_once_and_in_kind() -> None:
    for how in EndOfInput:
        talk = Dialogue().log_in()
        talk.after(3)  # long behind the last stanza: nothing to suspect
        assert talk.ends(Side.CLIENT, how) == [Close(cause=CloseCause.CLIENT_ENDED, initiator=Side.CLIENT, how=how)]


def test_behind_a_closing_tag_the_other_side_may_finish(talk: Dialogue) -> None:
    talk.log_in().client("</stream:stream>")
    assert talk.ends(Side.CLIENT) == [Wake()]
    talk.server("<message/></stream:stream>")
    assert talk.forwarded == talk.said
    actions = talk.ends(Side.SERVER, EndOfInput.CLOSE_NOTIFY)
    assert actions == [Close(cause=CloseCause.STREAM_CLOSED, initiator=Side.CLIENT, how=EndOfInput.CLOSE_NOTIFY)]


def test_the_other_side_has_five_seconds_for_that() -> None:
    talk = Dialogue().log_in().client("</stream:stream>")
    talk.ends(Side.CLIENT)
    assert talk.after(4.9) == []
    assert [type(action) for action in talk.after(0.1)] == [Close]


def test_a_peer_that_is_gone_altogether_ends_the_wait() -> None:
    talk = Dialogue().log_in().client("</stream:stream>")
    talk.ends(Side.CLIENT)
    assert [type(action) for action in talk.ends(Side.CLIENT, EndOfInput.RESET)] == [Close]


def test_negotiation_has_a_deadline_and_a_session_has_none() -> None:
    talk = before_tls(Dialogue(policy=StreamPolicy(negotiation_seconds_max=60)))
    assert talk.after(59) == []
    assert talk.after(1) == [Close(cause=CloseCause.NEGOTIATION_TIMEOUT, initiator=None)]
    talk = Dialogue().log_in()
    assert talk.after(400) == []
    assert talk.session.next_tick_ns is None


def test_the_last_record_counts_what_each_side_sent() -> None:
    talk = Dialogue().log_in()
    talk.client("<presence/><message/></stream:stream>")
    talk.ends(Side.CLIENT, EndOfInput.CLOSE_NOTIFY)
    talk.server("</stream:stream>")
    talk.ends(Side.SERVER, EndOfInput.CLOSE_NOTIFY)
    talk.now += 3_000_000
    closed = talk.session.closed(talk.now)
    assert (closed.cause, closed.initiator) == (CloseCause.STREAM_CLOSED, Side.CLIENT)
    assert closed.from_client.bytes == len(talk.said[Side.CLIENT])
    assert closed.from_client.stanzas == 3  # bind, presence, message
    assert closed.from_client.closing_tag
    assert closed.from_client.last_element == "{jabber:client}message"
    assert closed.from_client.last_element_age_ms == 3


def test_a_root_that_is_no_stream_closes(talk: Dialogue) -> None:
    talk.client("<html>")
    assert talk.one(StreamViolation).kind == "not-a-stream"
    assert talk.close is not None


# Streams that are not ours ---------------------------------------------------------------------------------------


def test_a_component_is_relayed_and_its_digest_is_not_shown(talk: Dialogue) -> None:
    header = HEADER.replace("jabber:client", "jabber:component:accept")
    talk.client(header).server(SERVER_HEADER.replace("jabber:client", "jabber:component:accept"))
    talk.client("<handshake>digest-canary</handshake>").server("<handshake/>")
    assert talk.one(SessionEstablished).how == "component"
    assert "digest-canary" not in repr(talk.events)


def test_a_legacy_login_is_a_session(talk: Dialogue) -> None:
    """XEP-0078 knows no bind: without this the negotiation deadline would end the session."""
    talk.client(DECLARED_HEADER).server(SERVER_HEADER)
    talk.client("<iq type='set' id='a'><query xmlns='jabber:iq:auth'><username>j</username></query></iq>")
    talk.server("<iq type='result' id='a'/>")
    assert talk.one(SessionEstablished).how == "iq-auth"


def test_sasl2_with_inline_bind_is_a_session(talk: Dialogue) -> None:
    inside_tls(talk).client("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'/>")
    talk.server(
        "<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>j@example.org/x</authorization-identifier>"
        "<bound xmlns='urn:xmpp:bind:0'/></success>"
    )
    assert talk.one(SessionEstablished).how == "sasl2"
    talk.server("<stream:features/><presence/>").client("<presence/>")
    assert talk.close is None


# A server forgets what it has not finished reading when it accepts a login: what it forgets hides nothing -----------


@pytest.mark.parametrize("opening", ["<x>", "<!-- ", "<![CDATA[", "<?x ", "<x a='", "x"])
@pytest.mark.parametrize("between", ["", HEADER], ids=["plain", "pipelined"])
def test_what_is_left_open_behind_auth_cannot_swallow_the_next_stream(
    talk: Dialogue, opening: str, between: str
) -> None:
    inside_tls(talk).client(PLAIN + between + opening).server(SUCCESS)
    if talk.close is None:
        talk.client(HEADER)
    talk.one(InspectionLost)
    assert talk.close is not None
    assert talk.close.cause is CloseCause.INSPECTION_LOST


@pytest.mark.parametrize(
    ("opening", "closing"),
    [("<x>", "</x>"), ("<![CDATA[", "<![CDATA[]]>"), ("<!--", "<!-- -->"), ("<?x ", "<?x?>"), ("text", "<r/>")],
)
@pytest.mark.parametrize("between", ["", HEADER], ids=["plain", "pipelined"])
def test_nor_where_it_is_closed_before_the_verdict_is_seen(
    talk: Dialogue, opening: str, closing: str, between: str
) -> None:
    inside_tls(talk).client(PLAIN + between + opening)
    for said in (HEADER + BIND, closing):
        if talk.close is None:
            talk.client(said)
    talk.one(InspectionLost)
    assert talk.close is not None


def test_behind_success_comes_a_header(talk: Dialogue) -> None:
    inside_tls(talk).client(PLAIN).server(SUCCESS).client("\n<r xmlns='urn:xmpp:sm:3'/>")
    assert talk.one(InspectionLost).reason == "restart-missing"
    assert talk.close is not None


def test_behind_success_a_client_may_also_leave(talk: Dialogue) -> None:
    inside_tls(talk).client(PLAIN).server(SUCCESS).client("\n</stream:stream>")
    assert talk.close is None


FAILURE = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>"


def test_a_stanza_sent_back_is_no_live_session(talk: Dialogue) -> None:
    """ejabberd bounces a stanza that comes before bind: a stranger could so get the allowance of a user."""
    inside_tls(talk).client("<message to='a@example.org'/>")
    talk.server("<message type='error' from='a@example.org'><error type='cancel'/></message>")
    assert not talk.session.established
    talk.server("<presence type='error' from='a@example.org'><error type='cancel'/></presence>")
    assert not talk.session.established


def test_a_login_is_seen_in_whatever_looks_like_a_session(talk: Dialogue) -> None:
    inside_tls(talk).server("<message from='example.org'/>")
    assert talk.session.established
    talk.client(PLAIN).server(FAILURE)
    assert talk.one(SaslStarted).authcid == "juliet"
    assert talk.one(SaslFailed).authcid == "juliet"


def test_s2s_with_sasl_external_restarts_and_is_a_session(talk: Dialogue) -> None:
    """RFC 6120 section 6.4.6 holds for servers too."""
    ours, theirs = (each.replace("jabber:client", "jabber:server") for each in (HEADER, SERVER_HEADER))
    talk.client(ours).server(theirs + FEATURES_TLS).client(STARTTLS).server(PROCEED).secured()
    talk.client(ours).server(theirs + FEATURES_SASL)
    talk.client("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>").server(SUCCESS)
    talk.client(ours).server(theirs + "<stream:features/>")
    assert talk.session.established
    assert talk.one(SessionEstablished).how == "sasl-external"
    talk.client("<iq type='get' id='1' from='a.example' to='b.example'/>")
    assert talk.close is None


def test_a_client_that_calls_itself_a_server_binds_all_the_same(talk: Dialogue) -> None:
    """A content namespace is the client's word alone; its session begins where the server binds it."""
    talk.client(HEADER.replace("jabber:client", "jabber:server")).server(SERVER_HEADER + FEATURES_SASL)
    talk.client(PLAIN).server(SUCCESS).client(HEADER.replace("jabber:client", "jabber:server"))
    talk.server(SERVER_HEADER + FEATURES_BIND)
    assert not talk.session.established
    talk.client(BIND.replace("<iq", "<iq xmlns='jabber:client'")).server(BOUND)
    assert talk.one(ResourceBound).jid.local == "juliet"


# A client that is let through undecrypted --------------------------------------------------------------------------


def passed_on(talk: Dialogue) -> Dialogue:
    before_tls(talk).client(STARTTLS).server(PROCEED)
    talk.seen()
    return talk.passed_on()


def test_a_session_that_is_passed_on_is_relayed_unseen(talk: Dialogue) -> None:
    passed_on(talk)
    assert talk.actions_seen() == ["tls-passthrough"]
    # Neither XML nor what looks like it is read: not a closing tag, not broken XML, not a login, not a huge stanza.
    talk.client(b"\x16\x03\x01" + PLAIN.encode() + b"</stream:stream>" + b"x" * 3_000)
    talk.server("<!DOCTYPE a>" + SUCCESS + "<a" * 2_000)
    assert talk.seen() == []
    assert talk.close is None
    assert talk.session.phase is Phase.PASSED_ON


def test_nobody_can_tell_whether_it_logs_in_so_there_is_no_deadline(talk: Dialogue) -> None:
    passed_on(talk)
    assert talk.session.next_tick_ns is None
    assert talk.after(100_000) == []


def test_a_fin_leaves_the_other_side_time_to_answer(talk: Dialogue) -> None:
    passed_on(talk)
    assert not any(isinstance(action, Close) for action in talk.ends(Side.CLIENT, EndOfInput.CLOSE_NOTIFY))
    talk.server("the answer to a close_notify")
    talk.ends(Side.SERVER, EndOfInput.CLOSE_NOTIFY)
    assert talk.close == Close(cause=CloseCause.CLIENT_ENDED, initiator=Side.CLIENT, how=EndOfInput.CLOSE_NOTIFY)


def test_but_not_for_ever(talk: Dialogue) -> None:
    passed_on(talk)
    talk.ends(Side.SERVER, EndOfInput.CLOSE_NOTIFY)
    assert talk.after(4.9) == []
    talk.after(0.2)
    assert talk.close == Close(cause=CloseCause.SERVER_ENDED, initiator=Side.SERVER, how=EndOfInput.TRUNCATED)


def test_a_reset_is_passed_on_at_once(talk: Dialogue) -> None:
    passed_on(talk)
    talk.ends(Side.SERVER, EndOfInput.RESET)
    assert talk.close == Close(cause=CloseCause.SERVER_ENDED, initiator=Side.SERVER, how=EndOfInput.RESET)


def test_what_direct_tls_begins_with_is_passed_on_too() -> None:
    talk = Dialogue(mode=LegMode.DIRECT_TLS).passed_on()
    talk.client(b"\x16\x03\x01").server(b"\x16\x03\x03")
    assert talk.actions_seen() == ["tls-passthrough"]


# A client that does not accept our certificate and says so late ----------------------------------------------------


def late_alert() -> TlsFailed:
    reason = TlsFailure.CLIENT_REJECTED_CERTIFICATE
    return TlsFailed(
        leg=Side.CLIENT, direct=False, reason=reason, alert="unknown_ca", after_handshake=True, seconds=0.1
    )


def test_an_alert_behind_the_handshake_ends_the_session_with_its_cause(talk: Dialogue) -> None:
    inside_tls(talk)
    actions = talk.session.tls_failed(late_alert(), talk.now)
    assert actions[-1] == Close(cause=CloseCause.TLS_FAILED, initiator=Side.CLIENT, how=EndOfInput.TRUNCATED)
    assert talk.session.tls_failed(late_alert(), talk.now) == []


@pytest.mark.parametrize("how", [EndOfInput.CLOSE_NOTIFY, EndOfInput.TRUNCATED])
def test_a_client_that_goes_without_a_word_inside_tls_may_not_trust_us(talk: Dialogue, how: EndOfInput) -> None:
    before_tls(talk).client(STARTTLS).server(PROCEED).secured()
    talk.seen()
    talk.ends(Side.CLIENT, how)
    suspected = talk.one(ClientFailureSuspected)
    assert (suspected.kind, suspected.confidence) == ("left-after-tls", "medium")
    assert talk.session.left_at_certificate


def test_one_that_was_reset_or_spoke_or_heard_the_server_end_is_no_evidence(talk: Dialogue) -> None:
    before_tls(talk).client(STARTTLS).server(PROCEED).secured()
    talk.ends(Side.CLIENT, EndOfInput.RESET)
    for spoke in (True, False):
        other = before_tls(Dialogue()).client(STARTTLS).server(PROCEED).secured()
        if spoke:
            other.client("<")
        else:
            other.ends(Side.SERVER)
        other.ends(Side.CLIENT)
        assert not other.session.left_at_certificate
    assert not talk.session.left_at_certificate
