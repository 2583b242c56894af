"""One attempt after the other."""

import base64

import attrs
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
    auth.offered(offer)
    if end_points is not None:
        for side, end_point in zip(Side, end_points, strict=True):
            auth.secured(tls(side, end_point=end_point))
    return auth, auth.auth(element("auth", payload, mechanism=mechanism), 0, clear=False, starttls_offered=False)


def test_scram_from_start_to_success() -> None:
    auth, events = begin(b"n,,n=juliet,r=nonce")
    assert auth.in_progress
    (started,) = events
    assert isinstance(started, SaslStarted)
    assert (started.authcid, started.gs2_flag, started.offered, started.encoding) == ("juliet", "n", True, "strict")
    assert auth.challenge(element("challenge", b"r=nonce1,s=c2FsdA==,i=4096")) == []
    assert auth.response(element("response", b"c=biws,r=nonce1,p=cHJvb2Y=")) == []
    (done,) = auth.success(7)
    assert isinstance(done, SaslSucceeded)
    assert (done.authcid, done.rounds, done.iterations, done.duration_ns) == ("juliet", 1, 4096, 7)
    assert auth.succeeded
    assert not auth.in_progress


def test_an_identity_that_comes_with_the_response_is_in_the_outcome() -> None:
    auth, events = begin(None, "DIGEST-MD5")
    assert isinstance(events[0], SaslStarted)
    assert events[0].initial_response_bytes is None
    auth.challenge(element("challenge", b'realm="r",nonce="n",qop="auth",charset=utf-8,algorithm=md5-sess'))
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
    assert auth.challenge(element("challenge", "???")) == [
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
    assert auth.response(element("response", b"x")) == auth.challenge(element("challenge", b"x")) == []
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
