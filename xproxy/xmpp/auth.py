"""Logins, as RFC 6120 section 6 and XEP-0388 frame them: one attempt after the other on one connection.

Payloads are decoded and dropped within the call that sees them. What remains is what an operator may know: which
mechanism, who claimed to log in, how many rounds, how it ended and why, and whether it is weaker than it should be.

The two profiles differ in how elements are spelt and in what rides on them (``sasl2`` reads that); the attempt is the
same. What an offer or a login is compared with comes from ``Memory``.
"""

import re
from collections.abc import Iterable
from typing import Final

import attrs
from lxml import etree

from xproxy.events import Event, Side
from xproxy.events.sasl import (
    ChannelBindingVerdict,
    SaslAborted,
    SaslDowngrade,
    SaslFailed,
    SaslMalformed,
    SaslOffered,
    SaslStarted,
    SaslSucceeded,
    UpstreamTampering,
)
from xproxy.events.tls import PlaintextAuthentication, TlsEstablished
from xproxy.xmpp import ns, sasl2
from xproxy.xmpp.account import token_issued
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.sasl import Challenge, Decoder, Identity, decode_base64, decode_initial_response, decoder_for
from xproxy.xmpp.sasl.downgrade import TLS_VERSIONS, expected_h, hash_name_of, is_offer_genuine
from xproxy.xmpp.sasl.strength import is_cleartext, strength_of
from xproxy.xmpp.stanza import Conditions, keyed_hash, own_text, read_conditions, read_error

PROFILE: Final = "rfc6120"
LEGACY_PROFILE: Final = "xep-0078"
LEGACY_PLAIN: Final = "IQ-AUTH-PLAIN"  # no names of the registry; they stand where a mechanism's would
LEGACY_DIGEST: Final = "IQ-AUTH-DIGEST"
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

# What stands behind a condition of RFC 6120 section 6.5. For not-authorized it depends on what was shown.
_CAUSES: Final = {
    "aborted": "aborted-by-client",
    "account-disabled": "account-disabled",
    "credentials-expired": "credentials-expired",
    "encryption-required": "mechanism-refused",
    "invalid-authzid": "authzid-refused",
    "invalid-mechanism": "mechanism-refused",
    "mechanism-too-weak": "mechanism-refused",
    "incorrect-encoding": "malformed",
    "malformed-request": "malformed",
    "temporary-auth-failure": "backend-unavailable",
}


@attrs.define(kw_only=True)
class _Attempt:
    profile: str
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
    is_doubtful: bool = False  # servers may have read something else than we did
    by_token: bool = False
    request: sasl2.Request | None = None
    tasks: tuple[str, ...] = ()


class Authentication:
    """The logins of one connection. Feed it the SASL elements of both directions."""

    def __init__(self, *, server_text: bool, key: bytes = b"", memory: Memory | None = None) -> None:
        """``server_text``: whether the server's own failure texts may be logged. ``key``: for hashes of ids."""
        self._server_text = server_text
        self._key = key
        self._memory = memory if memory is not None else Memory()
        self._count = 0
        self._attempt: _Attempt | None = None
        self._overlapped = False  # a login began before the verdict on another: whose the next verdicts are is unknown
        self._offers: dict[str, SaslOffered] = {}
        self._legs: dict[Side, TlsEstablished] = {}
        self._domain: str | None = None
        self.mechanism: str | None = None  # of the last attempt
        self.succeeded = False
        self.security_layer = False  # DIGEST-MD5 with integrity or confidentiality: ciphertext follows
        self.challenged_at_ns: int | None = None  # the client has the word since then

    @property
    def in_progress(self) -> bool:
        """True between the client's choice and the server's verdict; that of the last, where several may be due."""
        return self._attempt is not None or self._overlapped

    def offered(self, offers: Iterable[SaslOffered], domain: str | None) -> list[Event]:
        """Take what the server of ``domain`` offers in the current stream, one offer a profile."""
        self._offers = {offer.profile: offer for offer in offers}
        self._domain = domain
        if domain is None or self.succeeded:
            return []
        # What is offered depends on TLS: SASL at all, and tls-unique only below 1.3.
        tls = self._legs.get(Side.SERVER)
        events: list[Event] = []
        for offer in self._offers.values():
            missing = self._memory.missing_mechanisms(
                (domain, offer.profile, tls.version if tls is not None else ""), offer.mechanisms
            )
            if missing:
                events.append(SaslDowngrade(kind="offer-shrunk", mechanism=None, previous=None, missing=missing))
        return events

    def forget(self) -> None:
        """Drop what was learnt in clear (RFC 6120 section 5.4.3.3); attempts go on being counted."""
        self._offers = {}
        self.mechanism = None
        self._attempt = None
        self._overlapped = False
        self.challenged_at_ns = None

    def secured(self, facts: TlsEstablished) -> None:
        """Learn about TLS on one leg, for the channel-binding verdict and what the server signs."""
        self._legs[facts.leg] = facts

    # The client's elements ------------------------------------------------------------------------------------------

    def auth(self, element: etree._Element, at_ns: int, *, starttls_offered: bool) -> list[Event]:
        """``<auth/>``: the client chose a mechanism (RFC 6120 section 6.4.2)."""
        attempt, events = self._begin(PROFILE, element, element.get("mechanism", ""), at_ns)
        payload, encoding = decode_initial_response(own_text(element))
        return self._started(attempt, payload, encoding, events, starttls_offered=starttls_offered)

    def authenticate(self, element: etree._Element, at_ns: int, *, starttls_offered: bool) -> list[Event]:
        """``<authenticate/>``: the same in SASL2, with what is asked for besides (XEP-0388 section 2.4)."""
        request = sasl2.read_request(element, key=self._key)
        attempt, events = self._begin(sasl2.PROFILE, None, request.mechanism, at_ns)
        attempt.by_token = request.fast is not None
        attempt.request = request
        payload, encoding = sasl2.initial_response(element)
        return self._started(attempt, payload, encoding, events, starttls_offered=starttls_offered)

    def response(self, element: etree._Element) -> list[Event]:
        """``<response/>`` of either profile: the client answered a challenge (RFC 6120 section 6.4.3)."""
        attempt = self._attempt
        self.challenged_at_ns = None
        if attempt is None:
            return []
        before = attempt.identity
        events = _element_inside(element, attempt)
        payload, encoding = self._payload(attempt, element)
        attempt.is_doubtful |= encoding == "noncanonical"
        problem = self._read_response(attempt, payload)
        if problem is not None:
            events.append(SaslMalformed(mechanism=attempt.mechanism, kind=problem, step=attempt.responses - 1))
        if before.gs2_flag is None:
            events += self._verdict(attempt)
        if before.authcid is None and attempt.identity.authcid is not None:
            events += self._compare_with_before(attempt)
        return events

    def next_task(self, element: etree._Element) -> None:
        """``<next/>``: the client does one of the tasks that were asked for (XEP-0388 section 2.6.3)."""
        self.challenged_at_ns = None
        if self._attempt is not None:
            self._attempt.tasks += (sasl2.read_next(element),)

    def abort(self, at_ns: int) -> list[Event]:
        """``<abort/>``: the client gave up (RFC 6120 section 6.4.4); the server will answer with ``aborted``."""
        attempt = self._attempt
        self.challenged_at_ns = None
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

    # The server's elements ------------------------------------------------------------------------------------------

    def challenge(self, element: etree._Element, at_ns: int) -> list[Event]:
        """``<challenge/>`` of either profile: the server asked for more (RFC 6120 section 6.4.3)."""
        attempt = self._attempt
        if attempt is None:
            return []
        attempt.rounds += 1
        self.challenged_at_ns = at_ns
        events = _element_inside(element, attempt)
        payload, _ = self._payload(attempt, element)
        if payload is None:
            return [*events, SaslMalformed(mechanism=attempt.mechanism, kind="base64", step=attempt.rounds)]
        facts = attempt.decoder.challenge(payload, attempt.rounds)
        if facts.iterations is not None:
            attempt.iterations = facts.iterations
        events += self._check_signed(attempt, facts)
        if facts.problem is not None:
            events.append(SaslMalformed(mechanism=attempt.mechanism, kind=facts.problem, step=attempt.rounds))
        return events

    def continue_(self, at_ns: int) -> None:
        """``<continue/>``: the mechanism succeeded, a task is left (XEP-0388 section 2.6.3)."""
        self.challenged_at_ns = at_ns

    def success(self, at_ns: int) -> list[Event]:
        """``<success/>`` (RFC 6120 section 6.4.6). One that nobody asked for is reported all the same."""
        return self._succeeded(at_ns, None)

    def success2(self, success: sasl2.Success, at_ns: int) -> list[Event]:
        """``<success/>`` of SASL2, and the token that came with it (XEP-0388 section 2.6.1, XEP-0484)."""
        request = self._attempt.request if self._attempt else None
        events = self._succeeded(at_ns, success.identifier)
        token = token_issued(success, request)
        if token is not None:
            events.append(token)
        return events

    def failure(self, element: etree._Element, at_ns: int) -> list[Event]:
        """``<failure/>`` (RFC 6120 section 6.5)."""
        facts = read_conditions(element, namespace=ns.SASL, known=ns.SASL_CONDITIONS, keep_text=self._server_text)
        return self._failed(facts, at_ns)

    def failure2(self, element: etree._Element, at_ns: int) -> list[Event]:
        """``<failure/>`` of SASL2 (XEP-0388 section 2.6.2)."""
        return self._failed(sasl2.read_failure(element, server_text=self._server_text), at_ns)

    # Legacy: before SASL ---------------------------------------------------------------------------------------------

    def legacy(self, element: etree._Element, at_ns: int, *, starttls_offered: bool) -> list[Event]:
        """An ``iq`` of type set from the client before its session; XEP-0078 logs in by one (obsolete)."""
        query = element.find(f"{{{ns.IQ_AUTH}}}query")
        if query is None or element.get("type") != "set":
            return []
        # The digest is SHA-1 over stream id and password: it can be guessed from, so it is kept no more than they are.
        digest = query.find(f"{{{ns.IQ_AUTH}}}digest") is not None
        attempt, events = self._begin(LEGACY_PROFILE, None, LEGACY_DIGEST if digest else LEGACY_PLAIN, at_ns)
        username = query.find(f"{{{ns.IQ_AUTH}}}username")
        attempt.identity = Identity(authcid=None if username is None else own_text(username) or None)
        return self._started(attempt, None, None, events, starttls_offered=starttls_offered)

    def legacy_ended(self, element: etree._Element, at_ns: int) -> list[Event]:
        """The answer to it: a result, or an error (XEP-0078 section 3)."""
        if element.get("type") == "result":
            return self._succeeded(at_ns, None)
        error = read_error(element, server_text=self._server_text, sent_by=Side.SERVER)
        return self._failed(
            Conditions(
                condition=error.condition,
                condition_known=error.condition_known,
                application_conditions=error.application_conditions,
                text=error.text,
                text_bytes=error.text_bytes,
            ),
            at_ns,
        )

    # What both profiles share ---------------------------------------------------------------------------------------

    def _begin(
        self, profile: str, element: etree._Element | None, sent: str, at_ns: int
    ) -> tuple[_Attempt, list[Event]]:
        """Begin an attempt with a mechanism as ``sent``; say what is odd about that."""
        self._count += 1
        self.challenged_at_ns = None
        mechanism = self.mechanism = sent if is_mechanism_name(sent) else _NO_NAME
        # RFC 6120 section 6.4.2: the server drops the handshake that is under way. It may have judged it already.
        self._overlapped = self.in_progress
        attempt = self._attempt = _Attempt(
            profile=profile,
            mechanism=mechanism,
            number=self._count,
            started_at_ns=at_ns,
            decoder=decoder_for(mechanism),
        )
        events: list[Event] = []
        if mechanism is _NO_NAME:
            events.append(SaslMalformed(mechanism=mechanism, kind="mechanism", step=0))
        if self._overlapped:
            events.append(SaslMalformed(mechanism=mechanism, kind="overlapping", step=0))
        if element is not None:
            events += _element_inside(element, attempt)
        return attempt, events

    def _started(
        self,
        attempt: _Attempt,
        payload: bytes | None,
        encoding: str | None,
        events: list[Event],
        *,
        starttls_offered: bool,
    ) -> list[Event]:
        """The first message of an attempt was read as ``payload``; ``events`` is what was odd so far."""
        attempt.is_doubtful |= encoding == "noncanonical"
        problem = self._read_response(attempt, payload) if encoding is not None else None
        request = attempt.request
        identity, mechanism = attempt.identity, attempt.mechanism
        offer = self._offers.get(attempt.profile)
        agent = request.user_agent if request is not None else None
        offered = None if offer is None else mechanism in offer.mechanisms or attempt.by_token
        events.insert(
            0,
            SaslStarted(
                profile=attempt.profile,
                mechanism=mechanism,
                offered=offered,
                attempt=attempt.number,
                authcid=identity.authcid,
                authzid=identity.authzid,
                gs2_flag=identity.gs2_flag,
                channel_binding=identity.channel_binding,
                initial_response_bytes=None if payload is None else len(payload),
                encoding=encoding,
                user_agent_hash=agent.id_hash if agent is not None else None,
                software=agent.software if agent is not None else None,
                inline=request.inline if request is not None else (),
                by_token=attempt.by_token,
                token_invalidated=request is not None and request.fast is not None and request.fast.invalidate,
                token_requested=request.token_requested if request is not None else None,
            ),
        )
        if problem is not None:
            events.append(SaslMalformed(mechanism=mechanism, kind=problem, step=0))
        if Side.CLIENT not in self._legs:
            events.append(PlaintextAuthentication(mechanism=mechanism, starttls_offered=starttls_offered))
            if is_cleartext(mechanism):
                events.append(SaslDowngrade(kind="plain-without-tls", mechanism=mechanism, previous=None))
        events += self._verdict(attempt)
        events += self._compare_with_before(attempt)
        return events

    def _payload(self, attempt: _Attempt, element: etree._Element) -> tuple[bytes | None, str]:
        if attempt.profile == PROFILE:
            return decode_base64(own_text(element))
        return sasl2.payload_of(element)

    def _read_response(self, attempt: _Attempt, payload: bytes | None) -> str | None:
        """Read one client message; return what is wrong with it. The payload dies here."""
        step = attempt.responses
        attempt.responses += 1
        if payload is None:
            return "base64"
        identity = attempt.decoder.response(payload, step)
        attempt.identity = _merge(attempt.identity, identity)
        return identity.problem

    def _succeeded(self, at_ns: int, authorization_id: str | None) -> list[Event]:
        attempt, self._attempt = self._attempt, None
        overlapped, self._overlapped = self._overlapped, False
        self.challenged_at_ns = None
        self.succeeded = True
        if attempt is None and overlapped:
            attempt = _Attempt(
                profile=PROFILE,
                mechanism=_NO_NAME,
                number=self._count,
                started_at_ns=at_ns,
                decoder=decoder_for(_NO_NAME),
            )
        if attempt is None:
            return [SaslMalformed(mechanism="", kind="success-without-auth", step=0)]
        self.security_layer = attempt.identity.security_layer
        if overlapped or attempt.is_doubtful:
            attempt.identity = _NOBODY  # the claim is in sasl-started, the account in what the server binds
        if (user := self._user_key(attempt)) is not None and not attempt.by_token:
            self._memory.logged_in_by(user, attempt.mechanism)
        return [
            SaslSucceeded(
                mechanism=attempt.mechanism,
                attempt=attempt.number,
                authcid=attempt.identity.authcid,
                authzid=attempt.identity.authzid,
                rounds=attempt.rounds,
                iterations=attempt.iterations,
                duration_ns=at_ns - attempt.started_at_ns,
                tasks=attempt.tasks,
                authorization_id=authorization_id,
            )
        ]

    def _failed(self, facts: Conditions, at_ns: int) -> list[Event]:
        attempt, self._attempt = self._attempt, None
        self.challenged_at_ns = None
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
                cause=_cause(attempt, facts.condition),
                rounds=attempt.rounds if attempt else 0,
                iterations=attempt.iterations if attempt else None,
                duration_ns=at_ns - attempt.started_at_ns if attempt else 0,
                tasks=attempt.tasks if attempt else (),
            )
        ]

    # Judgements -----------------------------------------------------------------------------------------------------

    def _verdict(self, attempt: _Attempt) -> list[Event]:
        """Judge the chosen channel binding. Nothing is rewritten; a failure that must come is named before it does."""
        identity, server, client = attempt.identity, self._legs.get(Side.SERVER), self._legs.get(Side.CLIENT)
        binds = identity.gs2_flag == "p" or (attempt.by_token and identity.channel_binding is not None)
        if server is None or client is None or not (binds or identity.gs2_flag == "y"):
            return []
        shown, theirs = _end_point(client), _end_point(server)
        equal = None if shown is None or theirs is None else shown == theirs
        if not binds:
            # RFC 5802 section 6: the client could bind and believes that the server cannot. Mostly it is right.
            offer = self._offers.get(attempt.profile)
            if offer is None or not any(name.endswith("-PLUS") for name in offer.mechanisms):
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
        attempt.predicted_to_fail = prediction == "fails" and binds
        return [
            ChannelBindingVerdict(
                mechanism=attempt.mechanism,
                gs2_flag=identity.gs2_flag or "p",
                channel_binding=identity.channel_binding,
                end_points_equal=equal,
                prediction=prediction,
                reason=reason,
            )
        ]

    def _check_signed(self, attempt: _Attempt, facts: Challenge) -> list[Event]:
        """Compare what the server signs about itself with what arrived here (XEP-0474, XEP-0515)."""
        events: list[Event] = []
        offer = self._offers.get(attempt.profile)
        if facts.h is not None and offer is not None:
            bindings = offer.channel_bindings or None
            if is_offer_genuine(facts.h, offer.mechanisms, bindings, attempt.mechanism) is False:
                hash_name = hash_name_of(attempt.mechanism)
                assert hash_name is not None, "an offer of an unknown hash is not judged"
                expected = expected_h(offer.mechanisms, bindings, hash_name)
                events.append(
                    UpstreamTampering(kind="offer", mechanism=attempt.mechanism, expected=expected, signed=facts.h)
                )
        server = self._legs.get(Side.SERVER)
        if facts.t is not None and server is not None and TLS_VERSIONS.get(facts.t.lower()) != server.version:
            events.append(
                UpstreamTampering(
                    kind="tls-version", mechanism=attempt.mechanism, expected=server.version, signed=facts.t
                )
            )
        return events

    def _compare_with_before(self, attempt: _Attempt) -> list[Event]:
        """Compare with the strongest mechanism by which the same user and the same kind of client got in before."""
        user = self._user_key(attempt)
        previous = None if user is None or attempt.by_token else self._memory.mechanism_before(user)
        strength = strength_of(attempt.mechanism)
        if previous is None or strength is None or strength >= (strength_of(previous) or 0):
            return []
        return [SaslDowngrade(kind="weaker-than-before", mechanism=attempt.mechanism, previous=previous)]

    def _user_key(self, attempt: _Attempt) -> str | None:
        """A keyed hash of user and client program (JA4): what is remembered, and persisted, holds no name."""
        client = self._legs.get(Side.CLIENT)
        if attempt.identity.authcid is None:
            return None
        ja4 = (client.ja4 if client is not None else None) or ""
        return keyed_hash(self._key, "login", f"{attempt.identity.authcid}\0{self._domain or ''}\0{ja4}")


def may_end_legacy(element: etree._Element) -> bool:
    """Return whether an ``iq`` can be the answer to a legacy login: an error, or a result that holds nothing.

    XEP-0078 section 3.1, example 5. A result with something in it answers something else.
    """
    empty = f"{{{ns.IQ_AUTH}}}query"
    return element.get("type") == "error" or all(child.tag == empty and not len(child) for child in element)


def is_mechanism_name(text: str) -> bool:
    """Return whether ``text`` can be told as the name of a mechanism: anything else could be a payload."""
    return _NAME.fullmatch(text) is not None


def _element_inside(element: etree._Element, attempt: _Attempt) -> list[Event]:
    """A message holds character data and nothing else; servers differ in what they make of an element in it."""
    if any(isinstance(child.tag, str) for child in element):
        attempt.is_doubtful = True
        return [SaslMalformed(mechanism=attempt.mechanism, kind="element-inside", step=attempt.responses)]
    return []


def _end_point(facts: TlsEstablished) -> str | None:
    return facts.certificate.end_point_hash if facts.certificate else None


def _cause(attempt: _Attempt | None, condition: str) -> str | None:
    """Say in one word what is behind a refusal; None where the condition does not tell."""
    if attempt is not None and attempt.predicted_to_fail:
        return BROKEN_BY_PROXY
    if attempt is not None and attempt.by_token and condition in ("not-authorized", "credentials-expired"):
        return "stale-token"  # XEP-0484 section 4.6: the client is to drop it and use its password
    if condition == "not-authorized":
        return "wrong-credentials"  # or an unknown user: servers do not tell which, on purpose
    return _CAUSES.get(condition)


def _merge(old: Identity, new: Identity) -> Identity:
    """A later message may add to what is known, never take from it."""
    if old is _NOBODY and new.problem is None:
        return new
    return attrs.evolve(
        new,
        authcid=new.authcid if new.authcid is not None else old.authcid,
        authzid=new.authzid if new.authzid is not None else old.authzid,
        gs2_flag=new.gs2_flag if new.gs2_flag is not None else old.gs2_flag,
        channel_binding=new.channel_binding if new.channel_binding is not None else old.channel_binding,
        security_layer=new.security_layer or old.security_layer,
        problem=None,
    )
