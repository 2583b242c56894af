"""One attempt after the other."""

import base64

import attrs
import pytest
from lxml import etree

from tests.support.dialogue import tls
from xproxy.events import Event, Side
from xproxy.events.sasl import (
    ChannelBindingVerdict,
    SaslFailed,
    SaslMalformed,
    SaslOffered,
    SaslStarted,
    SaslSucceeded,
)
from xproxy.xmpp.auth import Authentication

SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
OFFER = SaslOffered(profile="rfc6120", mechanisms=("SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"))


def element(name: str, payload: bytes | str | None = None, **attributes: str) -> etree._Element:
    made = etree.Element(f"{{{SASL}}}{name}", attributes)
    if payload is not None:
        made.text = payload if isinstance(payload, str) else base64.b64encode(payload).decode()
    return made


def begin(
    payload: bytes | str | None,
    mechanism: str = "SCRAM-SHA-1",
    *,
    end_points: tuple[str, str] | None = ("aa", "aa"),
    offer: SaslOffered | None = OFFER,
) -> tuple[Authentication, list[Event]]:
    auth = Authentication(server_text=True)
    auth.offered(() if offer is None else (offer,), "example.org")
    if end_points is not None:
        for side, end_point in zip(Side, end_points, strict=True):
            auth.secured(tls(side, end_point=end_point))
    return auth, auth.auth(element("auth", payload, mechanism=mechanism), 0, starttls_offered=False)


def test_scram_from_start_to_success() -> None:
    auth, events = begin(b"n,,n=juliet,r=nonce")
    assert auth.in_progress
    (started,) = events
    assert isinstance(started, SaslStarted)
    assert (started.authcid, started.gs2_flag, started.offered, started.encoding) == ("juliet", "n", True, "strict")
    assert auth.challenge(element("challenge", b"r=nonce1,s=c2FsdA==,i=4096"), 0) == []
    assert auth.response(element("response", b"c=biws,r=nonce1,p=cHJvb2Y=")) == []
    (done,) = auth.success(7)
    assert isinstance(done, SaslSucceeded)
    assert (done.authcid, done.rounds, done.iterations, done.duration_ns) == ("juliet", 1, 4096, 7)
    assert auth.succeeded
    assert not auth.in_progress


@pytest.mark.parametrize("payload", ["AGFkbWk=bgB4", "AGFkbWluAHg="[:-1], "element"])
def test_what_servers_read_differently_is_a_claim_and_no_success(payload: str) -> None:
    """Prosody goes on behind padding, others stop or shift: by one reading it is admin, by another somebody else."""
    auth, _ = begin(None)
    made = element("auth", b"\0admin\0x" if payload == "element" else payload, mechanism="PLAIN")
    if payload == "element":
        etree.SubElement(made, "x").text = "AG1hbGxvcnkAeA=="
    started = auth.auth(made, 0, starttls_offered=False)[0]
    assert isinstance(started, SaslStarted)
    assert started.authcid == "admin"
    done = auth.success(7)[-1]
    assert isinstance(done, SaslSucceeded)
    assert (done.mechanism, done.authcid) == ("PLAIN", None)


def test_an_identity_that_comes_with_the_response_is_in_the_outcome() -> None:
    auth, events = begin(None, "DIGEST-MD5")
    assert isinstance(events[0], SaslStarted)
    assert events[0].initial_response_bytes is None
    offered = b'realm="r",nonce="n",qop="auth,auth-conf",charset=utf-8,algorithm=md5-sess'
    auth.challenge(element("challenge", offered), 0)
    response = b'username="juliet",realm="r",nonce="n",nc=00000001,cnonce="c",qop=auth-conf,response=0,charset=utf-8'
    auth.response(element("response", response))
    (done,) = auth.success(0)
    assert isinstance(done, SaslSucceeded)
    assert done.authcid == "juliet"
    assert auth.security_layer  # qop=auth-conf: what follows is ciphertext


def test_payloads_that_are_no_base64_are_told_at_their_step() -> None:
    auth, events = begin("=abc")
    assert [event for event in events if isinstance(event, SaslMalformed)] == [
        SaslMalformed(mechanism="SCRAM-SHA-1", kind="base64", step=0)
    ]
    assert auth.challenge(element("challenge", "???"), 0) == [
        SaslMalformed(mechanism="SCRAM-SHA-1", kind="base64", step=1)
    ]
    assert auth.response(element("response", "???")) == [SaslMalformed(mechanism="SCRAM-SHA-1", kind="base64", step=1)]


def verdict(flag: bytes, **how: object) -> ChannelBindingVerdict | None:
    _, events = begin(flag + b",,n=j,r=n", **how)  # type: ignore[arg-type]
    return next((event for event in events if isinstance(event, ChannelBindingVerdict)), None)


def test_verdicts() -> None:
    end_point, exporter = b"p=tls-server-end-point", b"p=tls-exporter"
    told = {
        "own certificate": verdict(end_point),
        "another certificate": verdict(end_point, end_points=("aa", "bb")),
        "exporter": verdict(exporter),
        "y before -PLUS": verdict(b"y"),
    }
    assert {name: made and made.prediction for name, made in told.items()} == {
        "own certificate": "succeeds",
        "another certificate": "fails",
        "exporter": "fails",
        "y before -PLUS": "fails",
    }
    assert verdict(b"n") is None
    assert verdict(b"y", offer=attrs.evolve(OFFER, mechanisms=("SCRAM-SHA-1",))) is None  # agreed: nothing to judge
    assert verdict(exporter, end_points=None) is None  # no TLS: there is nothing to bind to


def test_what_nobody_began_is_reported_all_the_same() -> None:
    auth = Authentication(server_text=True)
    assert auth.response(element("response", b"x")) == auth.challenge(element("challenge", b"x"), 0) == []
    failure = element("failure")
    etree.SubElement(failure, f"{{{SASL}}}temporary-auth-failure")
    (failed,) = auth.failure(failure, 0)
    assert isinstance(failed, SaslFailed)
    assert (failed.mechanism, failed.attempt, failed.condition) == (None, 0, "temporary-auth-failure")
    (odd,) = auth.success(0)
    assert isinstance(odd, SaslMalformed)
    assert odd.kind == "success-without-auth"


def test_an_unknown_condition_is_data() -> None:
    auth, _ = begin(b"n,,n=juliet,r=nonce")
    failure = element("failure")
    etree.SubElement(failure, f"{{{SASL}}}bad-protocol")
    etree.SubElement(failure, "{urn:example}own")
    (failed,) = auth.failure(failure, 0)
    assert isinstance(failed, SaslFailed)
    assert (failed.condition, failed.condition_known) == ("bad-protocol", False)
    assert failed.application_condition == "{urn:example}own"


def nested(text: str, child: str, tail: str) -> etree._Element:
    made = element("auth", text, mechanism="PLAIN")
    inner = etree.SubElement(made, "x")
    inner.text, inner.tail = child, tail
    return made


def test_an_element_inside_a_message_is_no_part_of_it_and_is_reported() -> None:
    """ejabberd reads the character data of <auth/> itself; what an element in it says must not name another user."""
    auth = Authentication(server_text=True)
    pretended, real = (base64.b64encode(b"\0" + name + b"\0abcd").decode() for name in (b"victim", b"attacker"))
    started, malformed, *_ = auth.auth(nested("", pretended, real), 0, starttls_offered=False)
    assert isinstance(started, SaslStarted)
    assert started.authcid == "attacker"
    assert isinstance(malformed, SaslMalformed)
    assert malformed.kind == "element-inside"


def test_a_comment_inside_a_message_is_passed_over() -> None:
    auth = Authentication(server_text=True)
    text = base64.b64encode(b"\0juliet\0abcd").decode()
    made = element("auth", text[:4], mechanism="PLAIN")
    made.append(etree.Comment("canary"))
    made[0].tail = text[4:]
    started, *_ = auth.auth(made, 0, starttls_offered=False)
    assert isinstance(started, SaslStarted)
    assert started.authcid == "juliet"


PLAIN_OF = {name: b"\0" + name.encode() + b"\0abcd" for name in ("victim", "attacker", "third")}


def test_a_verdict_on_one_of_two_attempts_at_once_names_nobody() -> None:
    """Which of them a server judges depends on the server and the network: a record must not say that victim got in."""
    auth, _ = begin(PLAIN_OF["attacker"], "PLAIN")
    events = auth.auth(element("auth", PLAIN_OF["victim"], mechanism="PLAIN"), 0, starttls_offered=False)
    assert [event.kind for event in events if isinstance(event, SaslMalformed)] == ["overlapping"]
    (succeeded,) = auth.success(0)
    assert isinstance(succeeded, SaslSucceeded)
    assert succeeded.authcid is None
    assert succeeded.attempt == 2


def test_and_it_stays_so_until_the_login() -> None:
    auth, _ = begin(PLAIN_OF["attacker"], "PLAIN")
    auth.auth(element("auth", PLAIN_OF["third"], mechanism="PLAIN"), 0, starttls_offered=False)
    (failed,) = auth.failure(element("failure"), 0)
    assert isinstance(failed, SaslFailed)
    assert failed.authcid is None
    assert auth.in_progress, "another verdict is due"
    auth.auth(element("auth", PLAIN_OF["victim"], mechanism="PLAIN"), 0, starttls_offered=False)
    (succeeded,) = auth.success(0)
    assert isinstance(succeeded, SaslSucceeded)
    assert succeeded.authcid is None
    assert not auth.in_progress


def test_a_mechanism_that_cannot_be_one_is_not_shown() -> None:
    payload = base64.b64encode(PLAIN_OF["victim"]).decode()
    for wrong in (f"PLAIN {payload}", payload + "=", "x" * 41, ""):
        _, events = begin(None, wrong)
        started, malformed = events
        assert isinstance(started, SaslStarted)
        assert started.mechanism == "?"
        assert isinstance(malformed, SaslMalformed)
        assert malformed.kind == "mechanism"


def test_a_login_is_one_whichever_attempt_it_was() -> None:
    auth, _ = begin(PLAIN_OF["attacker"], "PLAIN")
    auth.auth(element("auth", PLAIN_OF["victim"], mechanism="PLAIN"), 0, starttls_offered=False)
    auth.failure(element("failure"), 0)
    (succeeded,) = auth.success(0)
    assert isinstance(succeeded, SaslSucceeded)
    assert (succeeded.mechanism, succeeded.authcid) == ("?", None)
