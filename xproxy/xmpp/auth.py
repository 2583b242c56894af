"""SASL as RFC 6120 section 6 frames it: one attempt after the other on one connection.

Payloads are decoded and dropped within the call that sees them. What remains is what an operator may know: which
mechanism, who claimed to log in, how many rounds, how it ended and, where TLS ends at a proxy, why it had to end so.
"""

import re
from typing import Final

import attrs
from lxml import etree

from xproxy.events import Event
from xproxy.events.sasl import (
    ChannelBindingVerdict,
    SaslAborted,
    SaslFailed,
    SaslMalformed,
    SaslOffered,
    SaslStarted,
    SaslSucceeded,
)
from xproxy.events.tls import PlaintextAuthentication, TlsEstablished
from xproxy.xmpp import ns
from xproxy.xmpp.sasl import Decoder, Identity, decode_base64, decoder_for
from xproxy.xmpp.stanza import read_conditions

PROFILE: Final = "rfc6120"
AUTH: Final = f"{{{ns.SASL}}}auth"
RESPONSE: Final = f"{{{ns.SASL}}}response"
ABORT: Final = f"{{{ns.SASL}}}abort"
CHALLENGE: Final = f"{{{ns.SASL}}}challenge"
SUCCESS: Final = f"{{{ns.SASL}}}success"
FAILURE: Final = f"{{{ns.SASL}}}failure"

BROKEN_BY_PROXY: Final = "channel-binding-broken-by-proxy"
_END_POINT: Final = "tls-server-end-point"  # RFC 5929 section 4: the only binding that can cross
_NOBODY: Final = Identity()
_NAME: Final = re.compile(r"[A-Za-z0-9_\-]{1,20}")  # sasl-mech, RFC 4422 section 3.1, in either case
_NO_NAME: Final = "?"  # what stands where a mechanism's name should be might be anything, also a payload


@attrs.define(kw_only=True)
class _Attempt:
    mechanism: str
    number: int
    started_at_ns: int
    decoder: Decoder
    identity: Identity = _NOBODY
    responses: int = 0  # messages of the client seen, the initial response included
    rounds: int = 0
    iterations: int | None = None
    predicted_to_fail: bool = False
    aborted: bool = False


class Authentication:
    """The logins of one connection. Feed it the SASL elements of both directions."""

    def __init__(self, *, server_text: bool) -> None:
        """``server_text``: whether the server's own failure texts may be logged."""
        self._server_text = server_text
        self._count = 0
        self._attempt: _Attempt | None = None
        self._overlapped = False  # <auth/> came before the verdict on another: whose the next verdicts are is unknown
        self._offered: SaslOffered | None = None
        self._end_points: dict[str, str | None] = {}
        self.succeeded = False
        self.security_layer = False  # DIGEST-MD5 with integrity or confidentiality: ciphertext follows

    @property
    def in_progress(self) -> bool:
        """True between the client's choice and the server's verdict; that of the last, where several may be due."""
        return self._attempt is not None or self._overlapped

    def offered(self, offer: SaslOffered | None) -> None:
        """Remember what the server offers in the current stream."""
        self._offered = offer

    def forget(self) -> None:
        """Drop what was learnt in clear (RFC 6120 section 5.4.3.3); attempts go on being counted."""
        self._offered = None
        self._attempt = None
        self._overlapped = False

    def secured(self, facts: TlsEstablished) -> None:
        """Learn the certificate of one leg, for the channel-binding verdict."""
        self._end_points[facts.leg.value] = facts.certificate.end_point_hash if facts.certificate else None

    def auth(self, element: etree._Element, at_ns: int, *, clear: bool, starttls_offered: bool) -> list[Event]:
        """The client chose a mechanism (section 6.4.2). ``clear``: without TLS on the client leg."""
        self._count += 1
        sent = element.get("mechanism", "")
        mechanism = sent if _NAME.fullmatch(sent) else _NO_NAME
        # Section 6.4.2: the server drops the handshake that is under way. It may have judged it already, however.
        self._overlapped = self.in_progress
        attempt = self._attempt = _Attempt(
            mechanism=mechanism, number=self._count, started_at_ns=at_ns, decoder=decoder_for(mechanism)
        )
        events: list[Event] = []
        if mechanism is _NO_NAME:
            events.append(SaslMalformed(mechanism=mechanism, kind="mechanism", step=0))
        if self._overlapped:
            events.append(SaslMalformed(mechanism=mechanism, kind="overlapping", step=0))
        text = _text(element, attempt, events)
        size: int | None = None
        encoding: str | None = None
        if text:
            problem, size, encoding = self._read_response(attempt, text)
            if problem is not None:
                events.append(SaslMalformed(mechanism=mechanism, kind=problem, step=0))
        identity = attempt.identity
        started = SaslStarted(
            profile=PROFILE,
            mechanism=mechanism,
            offered=None if self._offered is None else mechanism in self._offered.mechanisms,
            attempt=attempt.number,
            authcid=identity.authcid,
            authzid=identity.authzid,
            gs2_flag=identity.gs2_flag,
            channel_binding=identity.channel_binding,
            initial_response_bytes=size,
            encoding=encoding,
        )
        events.insert(0, started)
        if clear:
            events.append(PlaintextAuthentication(mechanism=mechanism, starttls_offered=starttls_offered))
        events += self._verdict(attempt)
        return events

    def response(self, element: etree._Element) -> list[Event]:
        """The client answered a challenge (section 6.4.3)."""
        attempt = self._attempt
        if attempt is None:
            return []
        before = attempt.identity.gs2_flag
        events: list[Event] = []
        problem, _, _ = self._read_response(attempt, _text(element, attempt, events))
        if problem is not None:
            events.append(SaslMalformed(mechanism=attempt.mechanism, kind=problem, step=attempt.responses - 1))
        if before is None:
            events += self._verdict(attempt)
        return events

    def challenge(self, element: etree._Element) -> list[Event]:
        """The server asked for more (section 6.4.3)."""
        attempt = self._attempt
        if attempt is None:
            return []
        attempt.rounds += 1
        events: list[Event] = []
        payload, _ = decode_base64(_text(element, attempt, events))
        if payload is None:
            return [*events, SaslMalformed(mechanism=attempt.mechanism, kind="base64", step=attempt.rounds)]
        facts = attempt.decoder.challenge(payload, attempt.rounds)
        if facts.iterations is not None:
            attempt.iterations = facts.iterations
        if facts.problem is not None:
            events.append(SaslMalformed(mechanism=attempt.mechanism, kind=facts.problem, step=attempt.rounds))
        return events

    def abort(self, at_ns: int) -> list[Event]:
        """The client gave up (section 6.4.4); the server will answer with ``aborted``."""
        attempt = self._attempt
        if attempt is not None:
            attempt.aborted = True
        return [
            SaslAborted(
                mechanism=attempt.mechanism if attempt else None,
                attempt=self._count,
                authcid=attempt.identity.authcid if attempt else None,
                rounds=attempt.rounds if attempt else 0,
                duration_ns=at_ns - attempt.started_at_ns if attempt else 0,
            )
        ]

    def success(self, at_ns: int) -> list[Event]:
        """The server accepted (section 6.4.6). A success nobody asked for is reported all the same."""
        attempt, self._attempt = self._attempt, None
        overlapped, self._overlapped = self._overlapped, False
        self.succeeded = True
        if attempt is None and overlapped:
            attempt = _Attempt(
                mechanism=_NO_NAME, number=self._count, started_at_ns=at_ns, decoder=decoder_for(_NO_NAME)
            )
        if attempt is None:
            return [SaslMalformed(mechanism="", kind="success-without-auth", step=0)]
        self.security_layer = attempt.identity.security_layer
        if overlapped:
            attempt.identity = _NOBODY
        return [
            SaslSucceeded(
                mechanism=attempt.mechanism,
                attempt=attempt.number,
                authcid=attempt.identity.authcid,
                authzid=attempt.identity.authzid,
                rounds=attempt.rounds,
                iterations=attempt.iterations,
                duration_ns=at_ns - attempt.started_at_ns,
            )
        ]

    def failure(self, element: etree._Element, at_ns: int) -> list[Event]:
        """The server refused (section 6.5)."""
        attempt, self._attempt = self._attempt, None
        facts = read_conditions(element, namespace=ns.SASL, known=ns.SASL_CONDITIONS, keep_text=self._server_text)
        if attempt is not None and self._overlapped:
            attempt.identity = _NOBODY
        if attempt is not None and attempt.aborted and facts.condition == "aborted":
            return []  # the answer to <abort/>, which is recorded
        return [
            SaslFailed(
                mechanism=attempt.mechanism if attempt else None,
                attempt=attempt.number if attempt else self._count,
                authcid=attempt.identity.authcid if attempt else None,
                authzid=attempt.identity.authzid if attempt else None,
                condition=facts.condition,
                condition_known=facts.condition_known,
                application_condition=next(iter(facts.application_conditions), None),
                text=facts.text,
                text_bytes=facts.text_bytes,
                cause=BROKEN_BY_PROXY if attempt and attempt.predicted_to_fail else None,
                rounds=attempt.rounds if attempt else 0,
                iterations=attempt.iterations if attempt else None,
                duration_ns=at_ns - attempt.started_at_ns if attempt else 0,
            )
        ]

    def _read_response(self, attempt: _Attempt, text: str) -> tuple[str | None, int | None, str]:
        """Decode one client message: (problem, octets, encoding). The payload dies here."""
        payload, encoding = decode_base64(text)
        step = attempt.responses
        attempt.responses += 1
        if payload is None:
            return "base64", None, encoding
        identity = attempt.decoder.response(payload, step)
        attempt.identity = _merge(attempt.identity, identity)
        return identity.problem, len(payload), encoding

    def _verdict(self, attempt: _Attempt) -> list[Event]:
        """Judge the chosen channel binding. Nothing is rewritten; a failure that must come is named before it does."""
        identity = attempt.identity
        if identity.gs2_flag not in ("p", "y") or not self._end_points:
            return []
        client, server = self._end_points.get("client"), self._end_points.get("server")
        equal = None if client is None or server is None else client == server
        if identity.gs2_flag == "y":
            # RFC 5802 section 6: the client could bind and believes that the server cannot. Mostly it is right.
            plus = self._offered is not None and any(name.endswith("-PLUS") for name in self._offered.mechanisms)
            if not plus:
                return []
            prediction, reason = "fails", "the server offers -PLUS and must refuse a client that thinks otherwise"
        elif identity.channel_binding != _END_POINT:
            prediction, reason = "fails", "this binding belongs to one TLS session, and TLS ends at the proxy"
        elif equal is None:
            prediction, reason = "unknown", "the certificate of a leg is not known"
        elif equal:
            prediction, reason = "succeeds", "both legs show the same certificate"
        else:
            prediction, reason = "fails", "the legs show different certificates"
        attempt.predicted_to_fail = prediction == "fails" and identity.gs2_flag == "p"
        return [
            ChannelBindingVerdict(
                mechanism=attempt.mechanism,
                gs2_flag=identity.gs2_flag,
                channel_binding=identity.channel_binding,
                end_points_equal=equal,
                prediction=prediction,
                reason=reason,
            )
        ]


def _text(element: etree._Element, attempt: _Attempt, events: list[Event]) -> str:
    """Return the character data of a message itself, as servers read it; an element in it is reported.

    Not ``.text``: that stops at a comment, and what stands behind it would be hidden.
    """
    if any(isinstance(child.tag, str) for child in element):
        events.append(SaslMalformed(mechanism=attempt.mechanism, kind="element-inside", step=attempt.responses))
    return (element.text or "") + "".join(child.tail or "" for child in element)


def _merge(old: Identity, new: Identity) -> Identity:
    """A later message may add to what is known, never take from it."""
    return attrs.evolve(
        new,
        authcid=new.authcid if new.authcid is not None else old.authcid,
        authzid=new.authzid if new.authzid is not None else old.authzid,
        gs2_flag=new.gs2_flag if new.gs2_flag is not None else old.gs2_flag,
        channel_binding=new.channel_binding if new.channel_binding is not None else old.channel_binding,
        security_layer=new.security_layer or old.security_layer,
        problem=None,
    )
