"""What the peers say to each other, element by element: features, logins, binding, resumption, stanzas.

Each part of the protocol is an object of its own (``negotiate``, ``auth``, ``sm``, ``bind``, ``traffic``, ``s2s``);
here is only which element goes to which, and what one learns from the other. What follows for the session is returned
in order (``findings``): nothing here knows of octets, phases or legs.

Component and s2s streams, legacy and SASL2 logins are recognised as far as is needed not to disturb them.
"""

from collections.abc import Sequence
from typing import Final

from lxml import etree

from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import Event, Side
from xproxy.events.connection import CloseCause
from xproxy.events.s2s import ComponentAuthenticated, ComponentRefused
from xproxy.events.session import ResourceBound, SessionResumed, SmEnabled
from xproxy.events.stanza import ClientFailureSuspected, RequestFacts
from xproxy.events.tls import CertificateChanged, StarttlsStripped, TlsEstablished
from xproxy.jid import Jid
from xproxy.xmpp import auth, negotiate, ns, sasl2
from xproxy.xmpp.auth import Authentication
from xproxy.xmpp.bind import Binding
from xproxy.xmpp.direction import STANZAS, Direction
from xproxy.xmpp.evidence import CHALLENGE_SECONDS_MAX
from xproxy.xmpp.findings import (
    Due,
    Finding,
    LoggedIn,
    LoggedInAtOnce,
    Lost,
    OtherAnswer,
    Ready,
    TlsAsked,
    TlsGranted,
    Unreadable,
)
from xproxy.xmpp.items import FirstLevelElement
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.redact import safe_name
from xproxy.xmpp.s2s import dialback_result
from xproxy.xmpp.sm import StreamManagement
from xproxy.xmpp.stream_errors import STREAM_ERROR, read_consequences, read_stream_error
from xproxy.xmpp.traffic import Traffic

ROOT: Final = f"{{{ns.STREAMS}}}stream"

_BIND: Final = f"{{{ns.BIND}}}bind"
_COMPRESSED: Final = f"{{{ns.COMPRESS}}}compressed"
_COMPONENT_HANDSHAKE: Final = f"{{{ns.COMPONENT}}}handshake"
_LOGINS: Final = frozenset({ns.SASL, ns.SASL2})
_SILENCE_NS: Final = int(CHALLENGE_SECONDS_MAX * 1_000_000_000)
_CLIENT: Final = Side.CLIENT  # looked up in its class it takes five times as long
_DUE: Final = Due()


class Conversation:
    """The dialogue of one session."""

    __slots__ = (
        "_binding",
        "_client",
        "_features",
        "_handshake_at_ns",
        "_jid",
        "_memory",
        "_policy",
        "_server",
        "_sm",
        "domain",
        "established",
        "had_stream_error",
        "login",
        "secure",
        "success_at_ns",
        "traffic",
    )

    def __init__(
        self, *, client: Direction, server: Direction, limits: StreamLimits, policy: StreamPolicy, memory: Memory
    ) -> None:
        """``memory`` is what earlier sessions have seen."""
        self._client = client
        self._server = server
        self._policy = policy
        self._memory = memory
        self.login = Authentication(server_text=policy.server_text, key=policy.correlation_key, memory=memory)
        self._sm = StreamManagement(key=policy.correlation_key, client=client, server=server)
        self.traffic = Traffic(policy=policy, memory=memory, limits=limits)
        self._binding = Binding(server_text=policy.server_text)
        self._jid: Jid | None = None  # as bound or resumed
        self._features: negotiate.Features | None = None
        self._handshake_at_ns: int | None = None  # a component's
        self.domain: str | None = policy.domain
        self.secure = False
        self.established = False
        self.had_stream_error = False
        self.success_at_ns: int | None = None  # the login succeeded, and the client has not begun its next stream

    # What the session tells -------------------------------------------------------------------------------------

    def begin_inside_tls(self) -> None:
        """Nothing learnt in clear survives (RFC 6120 section 5.4.3.3)."""
        self.secure = True
        self._features = None
        self._binding = Binding(server_text=self._policy.server_text)
        self.login.forget()
        self._jid = None
        self.traffic.forget()

    def leg_secured(self, facts: TlsEstablished) -> list[Event]:
        """TLS is up on a leg; return what is to be said of the server's certificate."""
        self.login.secured(facts)
        domain = facts.server_name or self.domain
        if facts.leg is Side.CLIENT or domain is None or facts.certificate is None:
            return []
        previous = self._memory.previous_certificate(domain, facts.certificate.sha256)
        if previous is None:
            return []
        return [CertificateChanged(domain=domain, previous_sha256=previous, certificate=facts.certificate)]

    def addressed_to(self, domain: str | None) -> None:
        """The client's stream is for ``domain``."""
        self.domain = domain
        self.traffic.know(domain=domain)

    def cause_of_closing(self) -> CloseCause:
        """Return why a stream ends that was closed by a closing tag or an error."""
        return CloseCause.STREAM_ERROR if self.had_stream_error else CloseCause.STREAM_CLOSED

    # Deadlines --------------------------------------------------------------------------------------------------

    def next_due_ns(self) -> int | None:
        """When to call ``overdue`` again."""
        silences = (self.login.challenged_at_ns, self.success_at_ns)
        dues = (
            self.traffic.next_due_ns,
            self._sm.next_due_ns,
            *(None if since is None else since + _SILENCE_NS for since in silences),
        )
        return min((due for due in dues if due is not None), default=None)

    def overdue(self, at_ns: int) -> list[Event]:
        """Return what should have been said by now."""
        return [*self.traffic.unanswered(at_ns), *self._sm.overdue(at_ns), *self._silences(at_ns)]

    def _silences(self, at_ns: int) -> list[Event]:
        """A client that has the word in a login and does not take it has refused something without saying so.

        XMPPFramework stays silent behind a challenge of few iterations and behind a success whose proof is wrong.
        """
        events: list[Event] = []
        challenged_ns, success_ns = self.login.challenged_at_ns, self.success_at_ns
        if challenged_ns is not None and challenged_ns + _SILENCE_NS <= at_ns:
            self.login.challenged_at_ns = None
            events.append(silence("challenge-unanswered", at_ns - challenged_ns))
        if success_ns is not None and success_ns + _SILENCE_NS <= at_ns:
            self.success_at_ns = None
            events.append(silence("success-ignored", at_ns - success_ns))
        return events

    # Elements ---------------------------------------------------------------------------------------------------

    def element(self, direction: Direction, item: FirstLevelElement, at_ns: int) -> Sequence[Finding]:
        """``direction`` says ``item``."""
        element = item.element
        name = element.tag
        assert isinstance(name, str), "comments and processing instructions are no elements"
        direction.last_name = name
        direction.last_at_ns = at_ns
        side = direction.side
        if not self.established and side is _CLIENT and next(element.iter(ROOT), None) is not None:
            return [Lost("nested-root", item.offset)]  # to the server it may be a new stream
        kind = STANZAS.get(name)
        if kind is None:
            return self._nonza(direction, item, name, at_ns)
        direction.last_item = item
        type_ = element.get("type")
        if type_ == "error":
            direction.errors += 1
        events: Sequence[Finding]
        if kind == "message":
            direction.messages += 1
            events = self.traffic.message(side, item, type_, direction.may_be_carbon)
        elif kind == "presence":
            direction.presences += 1
            events = self.traffic.presence(side, item)
        else:
            direction.iqs += 1
            return self._iq(direction, item, at_ns)
        if not self.established and side is not _CLIENT and type_ != "error":
            # Only a live session is sent messages and presence. An error may be the client's own stanza, sent back.
            return [*events, Ready("observed", None, stanza=item)]
        return events

    def _iq(self, direction: Direction, item: FirstLevelElement, at_ns: int) -> list[Finding]:
        element, side = item.element, direction.side
        findings: list[Finding] = []
        if element.get("type") in ("get", "set"):
            if not self.established and direction is self._client:
                self._binding.requested(element, at_ns)
                findings += self.login.legacy(element, at_ns, starttls_offered=self._is_starttls_offered())
            findings += self.traffic.request(side, item, at_ns, established=self.established)
            findings.append(_DUE)
            return findings
        request = self.traffic.request_answered(side, item, at_ns)
        if request is None:
            direction.orphan_answers += 1
        elif request.late:
            direction.late_answers += 1
        if not self.established and direction is self._server:
            answered = self._login_answered(element, request, at_ns)
            if answered is not None:
                return answered
        return [*self.traffic.answer(side, item, request)]

    def _login_answered(
        self, element: etree._Element, request: RequestFacts | None, at_ns: int
    ) -> list[Finding] | None:
        """The server answers binding or a legacy login; None: it does not."""
        if request is not None and request.purpose == "legacy-auth" and auth.may_end_legacy(element):
            findings: list[Finding] = [*self.login.legacy_ended(element, at_ns)]
            if element.get("type") == "result":
                findings.append(Ready("iq-auth", None))
            return findings
        event = self._binding.answered(element, request, at_ns)
        if event is None:
            return None
        if not isinstance(event, ResourceBound):
            return [event]
        self._belongs_to(event.jid)
        return [event, Ready("bind", event.jid)]

    def _belongs_to(self, jid: Jid) -> None:
        self._jid = jid
        self.traffic.know(jid=jid)

    def _nonza(self, direction: Direction, item: FirstLevelElement, name: str, at_ns: int) -> Sequence[Finding]:
        """A first-level element that is no stanza."""
        namespace, _, local = name.rpartition("}")
        namespace = namespace[1:]
        if namespace in ns.SM:
            direction.acks += local in ("a", "r")
            findings = self._stream_management(direction, local, item.element, at_ns)
            return [*findings, *self.traffic.relayed(direction.side, item)]
        if name == STREAM_ERROR:
            return self._stream_error(direction, item.element, at_ns)
        if name == _COMPRESSED and direction is self._server:
            return [Unreadable("compression", item.offset)]
        if namespace == ns.DIALBACK:
            return self._dialback(direction, item.element)
        if self.established and namespace not in _LOGINS:  # a login is seen wherever it is tried
            return self.traffic.relayed(direction.side, item)
        if direction is self._client:
            return self._client_nonza(name, item.element, at_ns)
        return self._server_nonza(name, item, at_ns)

    def _client_nonza(self, name: str, element: etree._Element, at_ns: int) -> Sequence[Finding]:
        if name == negotiate.STARTTLS:
            return [] if self.secure else [TlsAsked()]
        if name == auth.AUTH:
            self._client.restarted = False
            return self.login.auth(element, at_ns, starttls_offered=self._is_starttls_offered())
        if name == sasl2.AUTHENTICATE:
            starttls_offered = self._is_starttls_offered()
            findings: list[Finding] = [*self.login.authenticate(element, at_ns, starttls_offered=starttls_offered)]
            for inline in sasl2.stream_management(element):
                findings += self._stream_management(self._client, ns.qname(inline.tag).localname, inline, at_ns)
            return findings
        if name in (auth.RESPONSE, sasl2.RESPONSE):
            return self.login.response(element)
        if name == sasl2.NEXT:
            self.login.next_task(element)
        elif name in (auth.ABORT, sasl2.ABORT):
            return self.login.abort(at_ns)
        elif name == _COMPONENT_HANDSHAKE:
            self._handshake_at_ns = at_ns
        return []

    def _server_nonza(self, name: str, item: FirstLevelElement, at_ns: int) -> Sequence[Finding]:
        element = item.element
        if name == negotiate.PROCEED:
            return [TlsGranted(item.offset)]
        if name == negotiate.FEATURES:
            return self._features_seen(element)
        findings: list[Finding] = [] if self.secure else [OtherAnswer(safe_name(name))]
        if name in (auth.CHALLENGE, sasl2.CHALLENGE):
            findings += self.login.challenge(element, at_ns)
            findings.append(_DUE)
        elif name == sasl2.CONTINUE:
            self.login.continue_(at_ns)
            findings.append(_DUE)
        elif name == auth.SUCCESS:
            expected = self.login.in_progress
            findings += self.login.success(at_ns)
            layer = self.login.security_layer
            findings.append(LoggedIn(offset=item.offset, expected=expected, security_layer=layer))
        elif name == sasl2.SUCCESS:
            findings += self._logged_in_at_once(element, at_ns)
        elif name == auth.FAILURE:
            findings += self.login.failure(element, at_ns)
        elif name == sasl2.FAILURE:
            findings += self.login.failure2(element, at_ns)
        elif name == _COMPONENT_HANDSHAKE:
            begun_ns = self._handshake_at_ns if self._handshake_at_ns is not None else at_ns
            findings += [
                ComponentAuthenticated(domain=self.domain, duration_ns=at_ns - begun_ns),
                Ready("component", None),
            ]
        return findings

    def _features_seen(self, element: etree._Element) -> list[Finding]:
        features = self._features = negotiate.read_features(element)
        findings: list[Finding] = [features.seen]
        domain, is_clear = self.domain, not self.secure and not self.login.succeeded
        if (
            domain is not None
            and is_clear
            and self._memory.is_starttls_missing(domain, offered=features.starttls_offered)
        ):
            findings.append(StarttlsStripped(domain=domain))
        findings += features.offers
        findings += self.login.offered(features.offers, self.domain)
        if self.login.succeeded and self._client.content == ns.SERVER and _BIND not in features.seen.features:
            # s2s streams bind nothing (RFC 6120 section 7 is for clients)
            findings.append(Ready("sasl-external", None))
        return findings

    def _is_starttls_offered(self) -> bool:
        return self._features is not None and self._features.starttls_offered

    def _logged_in_at_once(self, element: etree._Element, at_ns: int) -> list[Finding]:
        """SASL2: no restart, and what was asked for inline is answered within (XEP-0388 section 2.6.1)."""
        success = sasl2.read_success(element, key=self._policy.correlation_key)
        findings: list[Finding] = [*self.login.success2(success, at_ns), LoggedInAtOnce()]
        if success.bound and success.jid is not None and success.jid.resource is not None:
            self._belongs_to(success.jid)
            findings.append(ResourceBound(jid=success.jid, resource_requested=None, duration_ns=None))
        for inline in sasl2.stream_management(element):
            findings += self._stream_management(self._server, ns.qname(inline.tag).localname, inline, at_ns)
        if success.bound:
            findings.append(Ready("sasl2", self._jid))
        return findings

    def _stream_management(
        self, direction: Direction, local: str, element: etree._Element, at_ns: int
    ) -> list[Finding]:
        if direction is self._client:
            return [*self._sm.from_client(local, element, at_ns), _DUE]
        events = self._sm.from_server(local, element, at_ns, before_tls=not self.secure)
        findings: list[Finding] = [*events, _DUE]
        for event in events:
            if isinstance(event, SmEnabled) and event.id_hash is not None and self._jid is not None:
                self._memory.resumable(event.id_hash, self._jid)
            elif isinstance(event, SessionResumed):
                jid = self._memory.resumed(event.id_hash)
                if jid is not None:
                    self._belongs_to(jid)
                findings.append(Ready("resume", jid))
        return findings

    def _dialback(self, direction: Direction, element: etree._Element) -> list[Finding]:
        """Server dialback (XEP-0220): a verdict of the receiving server lets stanzas flow."""
        verdict = dialback_result(element, sent_by=direction.side)
        if verdict is None:
            return []
        if verdict.element == "result" and verdict.verdict == "valid" and direction is self._server:
            return [verdict, Ready("dialback", None)]
        return [verdict]

    def _stream_error(self, direction: Direction, element: etree._Element, at_ns: int) -> list[Finding]:
        self.had_stream_error = True
        from_server = direction is self._server
        facts, error = read_stream_error(element, sent_by=direction.side, server_text=self._policy.server_text)
        findings: list[Finding] = [error]
        if from_server and not self.secure:
            findings.append(OtherAnswer(STREAM_ERROR))
        if from_server and not self.established and self._client.content == ns.COMPONENT:
            begun_ns = self._handshake_at_ns
            findings.append(
                ComponentRefused(
                    domain=self.domain,
                    condition=facts.condition,
                    condition_known=facts.condition_known,
                    duration_ns=None if begun_ns is None else at_ns - begun_ns,
                )
            )
        findings += read_consequences(element, sent_by=direction.side, before_tls=not self.secure)
        return findings


def silence(kind: str, delay_ns: int) -> ClientFailureSuspected:
    """Return that a client stayed silent where it had the word, for ``delay_ns``."""
    return ClientFailureSuspected(kind=kind, confidence="medium", payload=None, fingerprint=None, delay_ns=delay_ns)
