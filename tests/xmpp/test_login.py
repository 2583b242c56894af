"""Logins of every profile, told as dialogues: SASL2 with what rides on it, legacy, components, dialback."""

import base64

import pytest

from tests.support.dialogue import (
    DECLARED_HEADER,
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
from xproxy.config.stream import StreamLimits
from xproxy.events import Side
from xproxy.events.account import FastTokenIssued
from xproxy.events.proxy import LimitReached
from xproxy.events.s2s import ComponentAuthenticated, ComponentRefused, DialbackResult
from xproxy.events.sasl import SaslDowngrade, SaslFailed, SaslOffered, SaslStarted, SaslSucceeded, UpstreamTampering
from xproxy.events.session import ResourceBound, SessionEstablished, SessionResumed
from xproxy.events.stanza import ClientFailureSuspected
from xproxy.xmpp.actions import Observe
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.sasl.downgrade import expected_h
from xproxy.xmpp.session import Phase

SASL = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
SASL2 = "xmlns='urn:xmpp:sasl:2'"
FEATURES_SASL2 = (
    f"<stream:features><authentication {SASL2}><mechanism>PLAIN</mechanism><mechanism>SCRAM-SHA-1</mechanism>"
    "<inline><bind xmlns='urn:xmpp:bind:0'/><fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast>"
    "</inline></authentication></stream:features>"
)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def inside_tls(features: str, *, memory: Memory | None = None) -> Dialogue:
    talk = Dialogue(memory=memory).client(DECLARED_HEADER).server(SERVER_HEADER + FEATURES_TLS)
    talk.client(STARTTLS).server(PROCEED).secured().client(HEADER).server(SERVER_HEADER + features)
    return talk


def authenticate(mechanism: str, payload: bytes, inside: str = "") -> str:
    return (
        f"<authenticate {SASL2} mechanism='{mechanism}'><initial-response>{b64(payload)}</initial-response>"
        f"<user-agent id='d4565fa7-canary-agent'><software>Tester</software></user-agent>{inside}</authenticate>"
    )


def test_sasl2_binds_inline_and_issues_a_token() -> None:
    talk = inside_tls(FEATURES_SASL2)
    assert talk.one(SaslOffered).profile == "xep-0388"
    inline = "<bind xmlns='urn:xmpp:bind:0'/><request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"
    talk.client(authenticate("PLAIN", b"\0juliet\0canary-pw", inline))
    started = talk.one(SaslStarted)
    assert (started.profile, started.authcid, started.software) == ("xep-0388", "juliet", "Tester")
    assert started.token_requested == "HT-SHA-256-NONE"
    talk.server(
        f"<success {SASL2}><authorization-identifier>juliet@example.org/balcony</authorization-identifier>"
        "<bound xmlns='urn:xmpp:bind:0'/>"
        "<token xmlns='urn:xmpp:fast:0' token='canary-token' expiry='2026-12-24T00:00:00Z'/>"
        "</success><stream:features/>"
    )
    assert talk.one(SaslSucceeded).authorization_id == "juliet@example.org/balcony"
    assert talk.one(FastTokenIssued).expires == "2026-12-24T00:00:00Z"
    assert str(talk.one(ResourceBound).jid) == "juliet@example.org/balcony"
    assert talk.one(SessionEstablished).how == "sasl2"
    assert "canary" not in repr(talk.events)
    assert talk.close is None  # no restart is due


def test_sasl2_resumes_inline() -> None:
    talk = inside_tls(FEATURES_SASL2)
    talk.client(authenticate("PLAIN", b"\0j\0p", "<resume xmlns='urn:xmpp:sm:3' previd='canary-sm' h='2'/>"))
    talk.server(f"<success {SASL2}><resumed xmlns='urn:xmpp:sm:3' previd='canary-sm' h='5'/></success>")
    assert talk.one(SessionResumed).server_handled == 5
    assert talk.one(SessionEstablished).how == "resume"


def test_a_stale_token_is_no_wrong_password() -> None:
    talk = inside_tls(FEATURES_SASL2)
    talk.client(authenticate("HT-SHA-256-NONE", b"juliet\0mac", "<fast xmlns='urn:xmpp:fast:0'/>"))
    talk.server(f"<failure {SASL2}><not-authorized {SASL}/></failure>")
    failed = talk.one(SaslFailed)
    assert (failed.authcid, failed.cause) == ("juliet", "stale-token")
    talk.client(authenticate("PLAIN", b"\0juliet\0p"))
    assert [event.attempt for event in talk.events if isinstance(event, SaslStarted)] == [1, 2]


def test_a_task_is_done_on_the_way() -> None:
    talk = inside_tls(FEATURES_SASL2).client(authenticate("PLAIN", b"\0j\0p"))
    talk.server(f"<continue {SASL2}><tasks><task>TOTP</task></tasks></continue>")
    talk.client(f"<next {SASL2} task='TOTP'><totp>canary-otp</totp></next>")
    talk.server(f"<success {SASL2}><authorization-identifier>j@example.org</authorization-identifier></success>")
    assert talk.one(SaslSucceeded).tasks == ("TOTP",)
    assert "canary" not in repr(talk.events)


@pytest.mark.parametrize(
    ("condition", "cause"),
    [
        ("not-authorized", "wrong-credentials"),
        ("temporary-auth-failure", "backend-unavailable"),
        ("invalid-mechanism", "mechanism-refused"),
        ("account-disabled", "account-disabled"),
        ("malformed-request", "malformed"),
        ("bad-protocol", None),
    ],
)
def test_causes_are_told_apart(condition: str, cause: str | None) -> None:
    talk = inside_tls(FEATURES_SASL).client(PLAIN).server(f"<failure {SASL}><{condition}/></failure>")
    assert talk.one(SaslFailed).cause == cause


# Downgrades ------------------------------------------------------------------------------------------------------


def login(memory: Memory, mechanism: str, payload: bytes, features: str = FEATURES_SASL) -> Dialogue:
    talk = inside_tls(features, memory=memory)
    return talk.client(f"<auth {SASL} mechanism='{mechanism}'>{b64(payload)}</auth>")


def test_a_user_who_logged_in_by_something_stronger_before() -> None:
    memory = Memory()
    login(memory, "SCRAM-SHA-1", b"n,,n=juliet,r=x").server(SUCCESS)
    assert login(memory, "PLAIN", b"\0juliet\0p").one(SaslDowngrade).previous == "SCRAM-SHA-1"
    assert "sasl-downgrade" not in login(memory, "PLAIN", b"\0romeo\0p").actions_seen()
    restarted = Memory()
    restarted.load(memory.dump())
    assert login(restarted, "PLAIN", b"\0juliet\0p").one(SaslDowngrade).kind == "weaker-than-before"


def test_a_password_in_clear() -> None:
    talk = Dialogue().client(DECLARED_HEADER).server(SERVER_HEADER + FEATURES_SASL).client(PLAIN)
    assert talk.one(SaslDowngrade).kind == "plain-without-tls"


def test_an_offer_that_shrank() -> None:
    memory = Memory()
    inside_tls(FEATURES_SASL, memory=memory)
    shrunk = FEATURES_SASL.replace("<mechanism>SCRAM-SHA-1</mechanism>", "")
    assert inside_tls(shrunk, memory=memory).one(SaslDowngrade).missing == ("SCRAM-SHA-1",)
    assert "sasl-downgrade" not in inside_tls(shrunk, memory=memory).actions_seen()  # told once


def test_an_offer_that_is_not_what_the_server_signed() -> None:
    for signed, tampered in ((("SCRAM-SHA-1", "PLAIN"), False), (("SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"), True)):
        talk = login(Memory(), "SCRAM-SHA-1", b"n,,n=juliet,r=x")
        challenge = f"r=xy,s=c2FsdA==,i=4096,h={expected_h(signed, None, 'SHA-1')}".encode()
        talk.server(f"<challenge {SASL}>{b64(challenge)}</challenge>")
        assert any(isinstance(event, UpstreamTampering) for event in talk.events) is tampered


# Silence ---------------------------------------------------------------------------------------------------------


def test_a_challenge_that_the_client_leaves_unanswered() -> None:
    talk = login(Memory(), "SCRAM-SHA-1", b"n,,n=juliet,r=x")
    talk.server(f"<challenge {SASL}>{b64(b'r=xy,s=c2FsdA==,i=100')}</challenge>")
    assert talk.after(9) == []
    (action,) = talk.after(1)
    assert isinstance(action, Observe)
    assert isinstance(action.event, ClientFailureSuspected)
    assert action.event.kind == "challenge-unanswered"


def test_a_success_that_the_client_does_not_believe() -> None:
    talk = inside_tls(FEATURES_SASL).client(PLAIN).server(SUCCESS)
    (action,) = talk.after(10)
    assert isinstance(action, Observe)
    assert isinstance(action.event, ClientFailureSuspected)
    assert action.event.kind == "success-ignored"


def test_a_client_that_goes_on_is_not_suspect() -> None:
    talk = inside_tls(FEATURES_SASL).client(PLAIN).server(SUCCESS).client(HEADER)
    assert talk.after(20) == []


# Before SASL, and not clients at all -----------------------------------------------------------------------------


def test_a_legacy_login_is_attributed_and_its_password_is_not_shown() -> None:
    talk = Dialogue().client(DECLARED_HEADER).server(SERVER_HEADER)
    query = (
        "<iq type='set'><query xmlns='jabber:iq:auth'><username>juliet</username><password>canary-pw</password>"
        "</query></iq>"
    )
    talk.client(query).server(
        "<iq type='error'><error type='auth'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    )
    assert (talk.one(SaslStarted).profile, talk.one(SaslStarted).authcid) == ("xep-0078", "juliet")
    assert talk.one(SaslFailed).cause == "wrong-credentials"
    talk.client(query).server("<iq type='result'/>")
    assert talk.one(SaslSucceeded).attempt == 2
    assert talk.one(SessionEstablished).how == "iq-auth"
    assert "canary" not in repr(talk.events)


LEGACY_LOGIN = "<iq type='set'{0}><query xmlns='jabber:iq:auth'><username>admin</username></query></iq>"
FORM_ASKED = "<iq type='get'{0}><query xmlns='jabber:iq:register'/></iq>"
FORM = "<iq type='result'{0}><query xmlns='jabber:iq:register'><username/><password/></query></iq>"
REFUSED = (
    "<iq type='error'{0}><error type='auth'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
)


@pytest.mark.parametrize(
    ("asked", "login", "answered"),
    [
        (" id='x'", " id='x'", " id='x'"),
        (" id='x' to='example.org'", " id='x'", " id='x' from='example.org'"),
        (" id='x'", " id='x' to='example.org'", " id='x'"),
        ("", "", ""),
    ],
)
def test_the_answer_to_something_else_is_nobodys_login(asked: str, login: str, answered: str) -> None:
    """Any server that hands out a form before the login would otherwise vouch for whomever the client names."""
    talk = Dialogue().client(DECLARED_HEADER).server(SERVER_HEADER)
    talk.client(FORM_ASKED.format(asked) + LEGACY_LOGIN.format(login)).server(FORM.format(answered))
    assert SaslSucceeded not in {type(event) for event in talk.events}
    talk.server(REFUSED.format(answered))
    assert talk.one(SaslFailed).authcid == "admin"
    # Also where its answer seems to come in the place of the login's.
    talk.client(LEGACY_LOGIN.format(login)).server(FORM.format(answered))
    assert SaslSucceeded not in {type(event) for event in talk.events}
    assert not talk.session.established


@pytest.mark.parametrize("id_", ["", " id='{0}'"])
def test_a_stranger_with_more_requests_than_we_keep_is_closed(id_: str) -> None:
    limits = StreamLimits(pending_requests_max=20, pending_without_id_max=20)
    talk = Dialogue(limits=limits).client(DECLARED_HEADER).server(SERVER_HEADER)
    for number in range(20):
        talk.client(FORM_ASKED.format(id_.format(number)))
    assert LimitReached not in {type(event) for event in talk.events}
    talk.client(LEGACY_LOGIN.format(id_.format("x")))
    assert talk.one(LimitReached).limit == "stream.pending_requests_max"
    assert talk.session.phase is Phase.CLOSED


FLOODS = {
    "auth": PLAIN,
    "abort": f"<abort {SASL}/>",
    "error": "<message type='error'/>",
    "restart": HEADER + "<!-- -->",
}


@pytest.mark.parametrize("element", FLOODS.values(), ids=FLOODS)
def test_a_stranger_makes_few_records(element: str) -> None:
    """Else 22 octets of his make 1.5 KiB of ours, and what matters drowns in them."""
    talk = Dialogue().client(DECLARED_HEADER).server(SERVER_HEADER + FEATURES_SASL)
    talk.client(element * 300)
    maximum = StreamLimits().records_before_login_max
    assert talk.one(LimitReached).limit == "stream.records_before_login_max"
    assert talk.session.phase is Phase.CLOSED
    assert maximum < len(talk.events) < maximum + 8


def as_component(text: str) -> str:
    return text.replace("'jabber:client'", "'jabber:component:accept'")


def test_components() -> None:
    talk = Dialogue().client(as_component(HEADER)).server(as_component(SERVER_HEADER))
    talk.client("<handshake>canary-digest</handshake>").server("<handshake/>")
    assert talk.one(ComponentAuthenticated).domain == "example.org"
    talk = Dialogue().client(as_component(HEADER)).server(as_component(SERVER_HEADER))
    talk.client("<handshake>canary-digest</handshake>")
    talk.server(
        "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
    )
    assert talk.one(ComponentRefused).condition == "not-authorized"
    assert "canary" not in repr(talk.events)


def test_dialback() -> None:
    s2s = " xmlns='jabber:server' xmlns:db='jabber:server:dialback'"
    talk = Dialogue().client(HEADER.replace(" xmlns='jabber:client'", s2s))
    talk.server(SERVER_HEADER.replace(" xmlns='jabber:client'", s2s))
    talk.client("<db:result from='a.example' to='b.example'>canary-key</db:result>")
    talk.server("<db:result from='b.example' to='a.example' type='valid'/>")
    verdict = talk.one(DialbackResult)
    assert (verdict.verdict, verdict.sent_by, verdict.from_) == ("valid", Side.SERVER, "b.example")
    assert talk.one(SessionEstablished).how == "dialback"
    assert "canary" not in repr(talk.events)
