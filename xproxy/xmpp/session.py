"""One proxied session: both directions, their coupling, and nothing of sockets or clocks.

The shell (``xproxy.proxy``) feeds bytes and the time in and carries out the actions that come back. What is decided
here is decided the same way live and offline.

**Two readers.** Each direction has its own ``StreamReader`` and restarts at its own byte, never because of the other:
the server's stream right behind the ``>`` of proceed or success; the client's at an XML declaration or at
a start tag with the root's name, because clients pipeline and send the next header before they have seen the answer.
A server that accepts a login forgets what it has not finished reading. So nothing may stand open around that byte: a
comment, a CDATA section or an element that swallows the next header for us would not do so for the server, and the
whole session could hide in it.

**Two ways of feeding.** Until the session is established the bytes go in piece by piece, each up to a ``>``: so the
end of every element is known to the byte, which the boundaries of TLS and restarts depend on. After that a chunk goes
in whole; the usual chunk costs one parse and one ``Forward``.

**Order.** Observations come before the ``Forward`` of the bytes that made them. A chunk that ends the session is not
forwarded from the piece on that was refused.

**TLS.** ``<starttls/>`` pauses the client before the server can answer; ``<proceed/>`` pauses the server. What stands
behind either is an injection. When TLS is up on both legs nothing learnt in clear is left but the count of attempts,
the name budget and the byte totals.

**The end.** A direction that ended behind its closing tag leaves the other open for ``close_seconds_max``; any other
end is passed on at once and in kind, because an invented clean end would destroy a resumable session (XEP-0198).

**Our own part.** Where TLS does not begin alike on both legs (``LegMode``), one peer speaks with us up to TLS, as
``negotiate`` has it, and the other is not read. Nothing of it is forwarded. When TLS is up, all is as above.

Component and s2s streams, legacy and SASL2 logins are recognised as far as is needed not to disturb them.
"""

import enum
import re
from collections.abc import Iterable
from typing import Final

from lxml import etree

from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import EndOfInput, Event, Level, Side
from xproxy.events.connection import CloseCause, ConnectionClosed, DirectionTotals
from xproxy.events.proxy import LimitReached
from xproxy.events.s2s import ComponentAuthenticated, ComponentRefused
from xproxy.events.session import ResourceBound, SessionEstablished, SessionResumed, SmAnomaly, SmEnabled
from xproxy.events.stanza import ClientFailureSuspected, RequestFacts
from xproxy.events.stream import (
    InspectionLost,
    LossScope,
    RedirectOffered,
    RestartReason,
    StreamClosed,
    StreamError,
    StreamOpened,
    StreamRestarted,
    StreamViolation,
)
from xproxy.events.tls import (
    CertificateChanged,
    StarttlsInjection,
    StarttlsRefused,
    StarttlsRequested,
    StarttlsStripped,
    TlsEstablished,
    TlsFailed,
    TlsPassthrough,
)
from xproxy.jid import Jid
from xproxy.xmpp import auth, negotiate, ns, sasl2
from xproxy.xmpp.actions import (
    Action,
    Close,
    Forward,
    LegMode,
    Observe,
    Pause,
    Progress,
    Resume,
    Send,
    StartTls,
    VerifyName,
    Wake,
)
from xproxy.xmpp.auth import Authentication
from xproxy.xmpp.bind import Binding
from xproxy.xmpp.evidence import CHALLENGE_SECONDS_MAX
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.names import NameTally
from xproxy.xmpp.redact import safe_name
from xproxy.xmpp.s2s import dialback_result
from xproxy.xmpp.sm import StreamManagement, unsigned
from xproxy.xmpp.stanza import element_text, keyed_hash, read_conditions
from xproxy.xmpp.stream import (
    FirstLevelElement,
    Item,
    NameBudget,
    Severity,
    StreamEnd,
    StreamHeader,
    StreamLimit,
    StreamReader,
    Violation,
    pieces,
)
from xproxy.xmpp.traffic import Traffic

_ROOT: Final = f"{{{ns.STREAMS}}}stream"
_STREAM_ERROR: Final = f"{{{ns.STREAMS}}}error"
_STREAM_ERROR_CONDITION: Final = f"{{{ns.STREAM_ERRORS}}}"
_BIND: Final = f"{{{ns.BIND}}}bind"
_COMPRESSED: Final = f"{{{ns.COMPRESS}}}compressed"
_COMPONENT_HANDSHAKE: Final = f"{{{ns.COMPONENT}}}handshake"
_TOO_HIGH: Final = tuple(f"{{{namespace}}}handled-count-too-high" for namespace in ns.SM)
_SEE_OTHER_HOST: Final = f"{_STREAM_ERROR_CONDITION}see-other-host"

_LOGINS: Final = frozenset({ns.SASL, ns.SASL2})
_STANZAS: Final = {f"{{{content}}}{kind}": kind for content in ns.CONTENT for kind in ns.STANZA_KINDS}
_WHITESPACE: Final = b" \t\r\n"
_CARBON: Final = b":carbons:"  # in ns.CARBONS
_TAG_BEGIN: Final = re.compile(rb"<[^!?]")  # of an element or a closing tag: no comment, CDATA section, PI or text
_NS_PER_SECOND: Final = 1_000_000_000
_SILENCE_NS: Final = int(CHALLENGE_SECONDS_MAX * _NS_PER_SECOND)


class Phase(enum.Enum):
    """How far a session has come."""

    OWN_PART = "own-part"  # one peer is led into TLS by us, the other waits
    NEGOTIATING = "negotiating"  # streams, features, login, binding; in clear or inside TLS
    STARTTLS_ASKED = "starttls-asked"  # the client is paused, the server has the word
    SECURING = "securing"  # both legs paused, handshakes under way
    ESTABLISHED = "established"  # stanzas flow
    PASSED_ON = "passed-on"  # relayed undecrypted: nothing is looked at
    CLOSING = "closing"  # one peer ended behind its closing tag
    CLOSED = "closed"  # the relay was told to close


# The members that are compared for each chunk: looked up in their classes they take five times as long.
_CLIENT: Final = Side.CLIENT
_CLOSED: Final = Phase.CLOSED


class _Step(enum.Enum):
    ASK_TLS = enum.auto()
    PROCEED = enum.auto()
    REFUSE_TLS = enum.auto()
    SECURED = enum.auto()
    READY = enum.auto()
    PASS_ON = enum.auto()
    HALF_ENDED = enum.auto()
    CLOSE = enum.auto()


# What may follow what. A pair that is not here is a bug of ours, not a peer's oddity.
_NEXT: Final = {
    (Phase.NEGOTIATING, _Step.ASK_TLS): Phase.STARTTLS_ASKED,
    (Phase.STARTTLS_ASKED, _Step.PROCEED): Phase.SECURING,
    (Phase.STARTTLS_ASKED, _Step.REFUSE_TLS): Phase.NEGOTIATING,
    (Phase.OWN_PART, _Step.PROCEED): Phase.SECURING,
    (Phase.SECURING, _Step.SECURED): Phase.NEGOTIATING,
    (Phase.SECURING, _Step.PASS_ON): Phase.PASSED_ON,
    (Phase.NEGOTIATING, _Step.READY): Phase.ESTABLISHED,
    (Phase.NEGOTIATING, _Step.HALF_ENDED): Phase.CLOSING,
    (Phase.STARTTLS_ASKED, _Step.HALF_ENDED): Phase.CLOSING,
    (Phase.ESTABLISHED, _Step.HALF_ENDED): Phase.CLOSING,
    **{(phase, _Step.CLOSE): Phase.CLOSED for phase in Phase},
}


_FIRST_PHASE: Final = {
    LegMode.CLEAR: Phase.NEGOTIATING,
    LegMode.DIRECT_TLS: Phase.SECURING,
    LegMode.CLEAR_TO_DIRECT: Phase.OWN_PART,
    LegMode.CLEAR_TO_PLAIN: Phase.OWN_PART,
    LegMode.DIRECT_TO_CLEAR: Phase.OWN_PART,
    LegMode.DIRECT_TO_PLAIN: Phase.SECURING,
}


class _Direction:
    """What one side has sent so far."""

    __slots__ = (
        "acks",
        "bytes",
        "closing_tag",
        "content",
        "end",
        "errors",
        "held",
        "iqs",
        "is_restart_due",
        "last_at_ns",
        "last_chunk",
        "last_item",
        "last_name",
        "late_answers",
        "may_be_carbon",
        "messages",
        "opaque",
        "opened",
        "orphan_answers",
        "presences",
        "reader",
        "restarted",
        "restarting",
        "side",
    )

    def __init__(self, side: Side, reader: StreamReader) -> None:
        self.side = side
        self.reader = reader
        self.held = bytearray()  # the begin of a tag at an element boundary, not fed yet
        self.bytes = 0
        self.messages = 0
        self.presences = 0
        self.iqs = 0
        self.acks = 0  # of stream management, and requests for them
        self.late_answers = 0  # to requests that had been given up
        self.orphan_answers = 0
        self.errors = 0
        self.content: str | None = None  # the content namespace (RFC 6120 section 4.8.2)
        self.opened = False  # a header was seen since the connection or TLS began
        self.restarting: RestartReason | None = None  # why the next header is a restart
        self.restarted = False  # a header came since the last <auth/>
        self.is_restart_due = False  # the login succeeded, and the header has not come
        self.opaque = False  # relayed without being looked at
        self.closing_tag = False
        self.end: EndOfInput | None = None
        self.last_name: str | None = None
        # The last stanza, while it can be read: until the next feed. If it came in a chunk of complete elements, the
        # chunk, to be read again; each stanza's tree kept until the next one costs a quarter of the time with 500
        # sessions, because by then none of it is in the processor's caches.
        self.last_item: FirstLevelElement | None = None
        self.last_chunk: bytes | None = None
        self.may_be_carbon = True  # no message is taken for none without a look
        self.last_at_ns = 0

    def last_stanza(self) -> FirstLevelElement | None:
        """Return the last stanza, if the last feed completed it."""
        if self.last_chunk is not None:
            again = self.reader.read_again(self.last_chunk)
            return next((item for item in reversed(again) if item.element.tag in _STANZAS), None)
        return self.last_item

    @property
    def stanzas(self) -> int:
        """Stanzas of all kinds."""
        return self.messages + self.presences + self.iqs

    def totals(self, at_ns: int) -> DirectionTotals:
        """What ``ConnectionClosed`` says of this direction."""
        name = self.last_name
        return DirectionTotals(
            bytes=self.bytes,
            stanzas=self.stanzas,
            messages=self.messages,
            presences=self.presences,
            iqs=self.iqs,
            acks=self.acks,
            late_answers=self.late_answers,
            orphan_answers=self.orphan_answers,
            errors=self.errors,
            closing_tag=self.closing_tag,
            end=self.end,
            last_element=None if name is None else safe_name(name),
            last_element_age_ms=None if name is None else (at_ns - self.last_at_ns) // 1_000_000,
        )


class Session:
    """The core of one session. Not thread-safe; anything it raises is a bug."""

    __slots__ = (
        "_auth",
        "_begun_at_ns",
        "_binding",
        "_carbons_declared",
        "_cause",
        "_client",
        "_debug",
        "_end_due_ns",
        "_features",
        "_first_closing",
        "_handshake_at_ns",
        "_initiator",
        "_jid",
        "_limits",
        "_memory",
        "_names",
        "_own",
        "_phase",
        "_policy",
        "_records_left",
        "_refused_at_ns",
        "_secure",
        "_server",
        "_silent_since",
        "_sm",
        "_stream_error",
        "_success_at_ns",
        "_then",
        "_traffic",
        "_turn",
        "_verified_name",
        "domain",
        "established",
        "left_at_certificate",
        "next_tick_ns",
    )

    def __init__(
        self,
        *,
        limits: StreamLimits,
        policy: StreamPolicy,
        mode: LegMode,
        at_ns: int,
        memory: Memory | None = None,
        strangers: NameTally | None = None,
    ) -> None:
        """Begin a session that was accepted at ``at_ns``; ``memory`` is what earlier sessions have seen.

        ``strangers`` counts new XML names until the login, together with all others of the client's address.

        With ``LegMode.DIRECT_TLS`` the relay reports TLS on both legs before the first ``receive``, with
        ``DIRECT_TO_PLAIN`` on the client's alone, and with ``DIRECT_TO_CLEAR`` it calls ``open_server_stream`` first.
        """
        self._limits = limits
        self._records_left = limits.records_before_login_max
        names = NameBudget(limits, strangers)
        self._names = names
        self._memory = memory if memory is not None else Memory()
        self._policy = policy
        self._debug = policy.debug_events
        self._client = _Direction(Side.CLIENT, StreamReader(limits=limits, names=names))
        self._server = _Direction(Side.SERVER, StreamReader(limits=limits, names=names))
        self._phase: Phase = _FIRST_PHASE[mode]
        self._own: negotiate.Receiving | negotiate.Initiating | None = None
        if mode in (LegMode.CLEAR_TO_DIRECT, LegMode.CLEAR_TO_PLAIN):
            # Unpredictable, and the same in a replay with the same key.
            self._own = negotiate.Receiving(keyed_hash(policy.correlation_key, "stream", str(at_ns)))
        elif mode is LegMode.DIRECT_TO_CLEAR:
            self._own = negotiate.Initiating()
        self._begun_at_ns = at_ns
        self._auth = Authentication(server_text=policy.server_text, key=policy.correlation_key, memory=self._memory)
        self._sm = StreamManagement(
            key=policy.correlation_key,
            sent_by_client=lambda: self._client.stanzas,
            sent_by_server=lambda: self._server.stanzas,
        )
        self._traffic = Traffic(policy=policy, memory=self._memory, limits=limits)
        self._binding = Binding(server_text=policy.server_text)
        self._jid: Jid | None = None  # as bound or resumed
        self._features: negotiate.Features | None = None
        self._secure = False
        self._carbons_declared = False  # by a header: what is in the stream may be one without saying so
        self._verified_name: str | None = None  # the name the server's certificate was compared with
        self._stream_error = False
        self._success_at_ns: int | None = None  # the login succeeded, and the client has not begun its next stream
        self._handshake_at_ns: int | None = None  # a component's
        self._silent_since: tuple[int, int] | None = None  # TLS is up on the client leg: octets so far, and when
        self.left_at_certificate = False  # the client went without a word inside TLS: it may not accept our certificate
        self._refused_at_ns: int | None = None  # the server sent what is no XML to us, and perhaps not to the client
        self._cause: CloseCause | None = None
        self._initiator: Side | None = None
        self._first_closing: Side | None = None  # whose closing tag came first
        self._turn: list[Action] = []  # what this input made us observe ...
        self._then: list[Action] = []  # ... and what follows its bytes
        self.domain: str | None = policy.domain
        self.established = False  # fast feeding and full name allowance from here on
        self._end_due_ns: int | None = at_ns + int(policy.negotiation_seconds_max * _NS_PER_SECOND)
        self.next_tick_ns: int | None = self._end_due_ns  # may be early, never late

    # Inputs ----------------------------------------------------------------------------------------------------

    def receive(self, side: Side, data: bytes, at_ns: int) -> list[Action]:
        """Take ``data``, read from ``side`` at ``at_ns`` (UTC ns), and say what to do."""
        direction = self._client if side is _CLIENT else self._server
        direction.bytes += len(data)
        if self._phase is _CLOSED:
            return []
        if direction.opaque:
            return [Forward(data)]
        if not self.established:
            return self._receive_exactly(direction, data, at_ns)
        direction.last_item = direction.last_chunk = None
        reader = direction.reader
        items = reader.feed(data)
        if side is not _CLIENT:
            # To look for a carbon in an element takes ten times as long as to see that the octets cannot hold one: its
            # namespace would be written out, or with a character reference.
            direction.may_be_carbon = (
                not reader.fed_whole or _CARBON in data or (b"&" in data and b"&#" in data) or self._carbons_declared
            )
        for item in items:
            if type(item) is FirstLevelElement:
                self._element(direction, item, at_ns)
            else:
                self._item(direction, item, at_ns)
            if self._cause is not None:  # closed
                return self._taken()
        if reader.fed_whole:
            direction.last_item = None
            if side is not _CLIENT:  # nobody asks for the client's
                direction.last_chunk = data
        if not self._turn:  # the usual chunk: nothing to say about it
            return [Forward(data)]
        return self._taken(data)

    @property
    def is_costly(self) -> bool:
        """Whether each piece up to a ``>`` is looked at before it is fed: a chunk may take 2 us an octet."""
        return not self.established and not (self._client.opaque and self._server.opaque)

    def open_server_stream(self, domain: str, at_ns: int) -> list[Action]:
        """With ``LegMode.DIRECT_TO_CLEAR``: the client's hello asks for ``domain``; lead the server into TLS."""
        assert isinstance(self._own, negotiate.Initiating), self._phase
        if self._over():
            return []
        self.domain = domain
        self._traffic.know(domain=domain)
        # The client waits for its own handshake meanwhile, and will not do so for ever.
        self._end_due_ns = at_ns + int(self._policy.own_part_seconds_max * _NS_PER_SECOND)
        self._arm()
        self._then.append(Send(Side.SERVER, self._own.begin(domain)))
        return self._taken()

    def tls_established(self, facts: TlsEstablished, at_ns: int) -> list[Action]:
        """TLS is up on the leg that ``facts`` name; the server leg, if it gets TLS, is reported first."""
        assert self._phase is Phase.SECURING, self._phase
        self._observe(facts)
        self._auth.secured(facts)
        if facts.leg is Side.SERVER:
            self._verified_name = facts.server_name
            self._compare_certificate(facts)
        else:
            self._begin_inside_tls()
            self._step(_Step.SECURED)
            self._silent_since = self._client.bytes, at_ns
        return self._taken()

    def tls_passed_on(self, facts: TlsPassthrough, at_ns: int) -> list[Action]:
        """There will be no TLS of ours: the client's and the server's go through as they come, and so does the rest.

        The server ends sessions that do not log in, as it does without us; here nobody can tell.
        """
        assert self._phase is Phase.SECURING, self._phase
        self._observe(facts)
        self._begin_inside_tls()
        self._step(_Step.PASS_ON)
        self._client.opaque = self._server.opaque = True
        self._end_due_ns = None
        self.next_tick_ns = None
        return self._taken()

    def tls_failed(self, failure: TlsFailed, at_ns: int) -> list[Action]:
        """A handshake failed, a peer gave TLS up, or the server's certificate does not cover the stream's ``to``."""
        if self._over():
            return []
        self._observe(failure)
        self._close(CloseCause.TLS_FAILED, failure.leg, EndOfInput.TRUNCATED)
        return self._taken()

    def end_of_input(self, side: Side, how: EndOfInput, at_ns: int) -> list[Action]:
        """``side`` will send no more. Told a second time of the same side, it is gone altogether."""
        direction = self._client if side is Side.CLIENT else self._server
        other = self._server if side is Side.CLIENT else self._client
        again = direction.end is not None
        direction.end = direction.end or how
        if self._over():
            return []
        if not again and not direction.opaque:
            for item in direction.reader.finish():
                self._item(direction, item, at_ns)
            if self._over():
                return self._taken()
        if self._phase is Phase.PASSED_ON:
            return self._end_passed_on(side, how, at_ns, is_first=not again and other.end is None)
        if direction.closing_tag and not again and not other.closing_tag and other.end is None:
            if self._phase is not Phase.CLOSING:
                self._step(_Step.HALF_ENDED)
            self._end_due_ns = at_ns + int(self._policy.close_seconds_max * _NS_PER_SECOND)
            self._arm()
            return self._taken()
        if direction is self._client and other.end is None:
            self._judge_silence(how, at_ns)
        if direction is self._client and self.established and not direction.closing_tag:
            gone = self._traffic.client_gone(at_ns, other.last_stanza(), other.last_at_ns, self._refused_at_ns)
            self._observe_all(gone)
        self._close(self._cause_of_end(direction, other), self._first_closing or side, how)
        return self._taken()

    def _judge_silence(self, how: EndOfInput, at_ns: int) -> None:
        """A client that goes when TLS is up, without a word inside it, may have judged our certificate only then.

        COMPAT(Node.js 20): it looks at the verdict when its side of the handshake is done and closes without an alert;
        with TLS 1.2 our side is done by then.
        """
        if self._silent_since is None or how is EndOfInput.RESET:
            return
        octets, since_ns = self._silent_since
        if self._client.bytes == octets:
            self.left_at_certificate = True
            self._observe(_silence("left-after-tls", at_ns - since_ns))

    def _end_passed_on(self, side: Side, how: EndOfInput, at_ns: int, *, is_first: bool) -> list[Action]:
        """The end of a TLS we cannot see into: behind a FIN the answer of the other side may be under way."""
        if is_first and how is EndOfInput.CLOSE_NOTIFY:
            self._first_closing = side
            self._end_due_ns = at_ns + int(self._policy.close_seconds_max * _NS_PER_SECOND)
            self._arm()
        else:
            self._close_passed_on(self._first_closing or side, how)
        return self._taken()

    def _close_passed_on(self, first: Side, how: EndOfInput) -> None:
        self._close(CloseCause.CLIENT_ENDED if first is Side.CLIENT else CloseCause.SERVER_ENDED, first, how)

    def tick(self, at_ns: int) -> list[Action]:
        """The time ``next_tick_ns`` has come."""
        if self.next_tick_ns is None or at_ns < self.next_tick_ns or self._over():
            return []
        if self._end_due_ns is not None and self._end_due_ns <= at_ns:
            if self._phase is Phase.PASSED_ON and self._first_closing is not None:
                self._close_passed_on(self._first_closing, EndOfInput.TRUNCATED)
            elif self._phase is Phase.CLOSING:
                cause = CloseCause.STREAM_ERROR if self._stream_error else CloseCause.STREAM_CLOSED
                self._close(cause, self._first_closing, EndOfInput.TRUNCATED)
            else:
                self._close(CloseCause.NEGOTIATION_TIMEOUT, None, EndOfInput.TRUNCATED)
            return self._taken()
        self._observe_all(self._traffic.unanswered(at_ns))
        self._observe_all(self._sm.overdue(at_ns))
        self._observe_all(self._silences(at_ns))
        self.next_tick_ns = self._next_due_ns()
        return self._taken()

    def _next_due_ns(self) -> int | None:
        silences = (self._auth.challenged_at_ns, self._success_at_ns)
        dues = (
            self._end_due_ns,
            self._traffic.next_due_ns,
            self._sm.next_due_ns,
            *(None if since is None else since + _SILENCE_NS for since in silences),
        )
        return min((due for due in dues if due is not None), default=None)

    def _arm(self) -> None:
        """See that ``tick`` comes in time. The relay is told of an earlier deadline, never of a later one."""
        due_ns = self._next_due_ns()
        if due_ns is not None and (self.next_tick_ns is None or due_ns < self.next_tick_ns):
            self.next_tick_ns = due_ns
            self._now(Wake())

    def _silences(self, at_ns: int) -> list[Event]:
        """A client that has the word in a login and does not take it has refused something without saying so.

        XMPPFramework stays silent behind a challenge of few iterations and behind a success whose proof is wrong.
        """
        events: list[Event] = []
        challenged_ns, success_ns = self._auth.challenged_at_ns, self._success_at_ns
        if challenged_ns is not None and challenged_ns + _SILENCE_NS <= at_ns:
            self._auth.challenged_at_ns = None
            events.append(_silence("challenge-unanswered", at_ns - challenged_ns))
        if success_ns is not None and success_ns + _SILENCE_NS <= at_ns:
            self._success_at_ns = None
            events.append(_silence("success-ignored", at_ns - success_ns))
        return events

    def close(self, cause: CloseCause, at_ns: int) -> list[Action]:
        """The proxy ends the session."""
        if not self._over():
            self._close(cause, None, EndOfInput.TRUNCATED)
        return self._taken()

    def closed(self, at_ns: int) -> ConnectionClosed:
        """Both legs are gone: the last record of the session."""
        return ConnectionClosed(
            initiator=self._initiator,
            cause=self._cause or CloseCause.INTERNAL_ERROR,
            duration_ns=at_ns - self._begun_at_ns,
            from_client=self._client.totals(at_ns),
            from_server=self._server.totals(at_ns),
        )

    def progress(self) -> Progress:
        """How far the session has come, for whoever looks on."""
        return Progress(phase=self._phase.value, mechanism=self._auth.mechanism)

    @property
    def phase(self) -> Phase:
        """How far the session has come."""
        return self._phase

    # Feeding until the session is established -------------------------------------------------------------------

    def _receive_exactly(self, direction: _Direction, data: bytes, at_ns: int) -> list[Action]:
        if self._phase is Phase.OWN_PART:
            return self._receive_own(direction, data, at_ns)
        done = 0
        for piece in pieces(data):
            for item in self._feed_exactly(direction, piece):
                self._item(direction, item, at_ns)
                if self._over():
                    break
            self._bound_strangers(direction)
            if self._over():
                return self._taken(data[:done])
            done += len(piece)
            if self._phase is Phase.STARTTLS_ASKED and direction is self._client:
                return self._hold_client(data, done)
            if self._phase is Phase.SECURING:
                return self._hold_server(data, done)
            if self.established or direction.opaque:  # the rest goes the fast way
                actions = self._taken(data[:done])
                if done < len(data):
                    direction.bytes -= len(data) - done
                    actions += self.receive(direction.side, data[done:], at_ns)
                return actions
        return self._taken(data)

    def _feed_exactly(self, direction: _Direction, piece: bytes) -> list[Item]:
        """Feed one piece; a tag at an element boundary is looked at whole first, since it may be a new header."""
        reader = direction.reader
        held = direction.held
        if not direction.opened or not (held or reader.at_boundary):
            return reader.feed(piece)
        items: list[Item] = []
        if not held:
            tag = piece.lstrip(_WHITESPACE)
            if len(tag) < len(piece):
                items = reader.feed(piece[: len(piece) - len(tag)])  # keepalives
            piece = tag
        held += piece
        if held.endswith(b">"):
            if reader.opens_stream(bytes(held)):
                self._restart_by_peer(direction)
            elif direction.is_restart_due and not held.startswith(b"</"):
                # RFC 6120 section 6.4.6: the client begins a new stream; or it leaves.
                self._lost(direction, LossScope.STREAM, "restart-missing", reader.offset)
                return items
            elif direction is self._client and self._auth.in_progress and not _TAG_BEGIN.match(held):
                self._lost(direction, LossScope.STREAM, "no-element-in-login", reader.offset)
                return items
        elif len(held) <= self._names.stanza_bytes_max:
            return items
        items += reader.feed(bytes(held))
        held.clear()
        return items

    def _bound_strangers(self, direction: _Direction) -> None:
        """Close where a peer goes on making records before its login, or requests of which we lose track."""
        if self.established or self._over():
            return
        limits = self._limits
        if self._records_left < 0:
            self._end_at_limit(direction, "stream.records_before_login_max", limits.records_before_login_max)
        elif self._traffic.has_forgotten:  # the answer to one would be taken for that to another, a login perhaps
            self._end_at_limit(direction, "stream.pending_requests_max", limits.pending_requests_max)

    def _end_at_limit(self, direction: _Direction, limit: str, value: int) -> None:
        self._limit(direction, StreamLimit(limit=limit, value=value, offset=direction.reader.offset, closes=True))

    def _receive_own(self, direction: _Direction, data: bytes, at_ns: int) -> list[Action]:
        """Answer the peer that is ours to lead into TLS. Nothing of what it says is forwarded."""
        done = 0
        for piece in pieces(data):
            done += len(piece)
            for item in self._feed_exactly(direction, piece):
                self._own_item(direction, item, at_ns)
                self._bound_strangers(direction)
                if self._over():
                    return self._taken()
                if self._phase is Phase.SECURING:
                    return self._leave_own_part(direction, data[done:])
        return self._taken()

    def _own_item(self, direction: _Direction, item: Item, at_ns: int) -> None:
        own = self._own
        assert own is not None
        if not isinstance(item, StreamHeader | FirstLevelElement | StreamEnd):
            self._item(direction, item, at_ns)  # it has broken a rule, and that ends it
            return
        name = str(item.element.tag) if isinstance(item, FirstLevelElement) else None
        if name is not None:
            direction.last_name, direction.last_at_ns = name, at_ns
        if name not in (negotiate.STARTTLS, negotiate.PROCEED, negotiate.FAILURE):
            self._item(direction, item, at_ns)
            if self._over():
                return
        answer = own.answer(item)
        if answer.data:
            self._then.append(Send(direction.side, answer.data))
        if answer.then is negotiate.Then.SECURE:
            self._step(_Step.PROCEED)
        elif answer.then is negotiate.Then.END:
            self._end_own_part(direction, answer.refused)

    def _end_own_part(self, direction: _Direction, refused: str | None) -> None:
        """The peer did not let itself be led into TLS."""
        if refused is None or self._stream_error:
            cause = CloseCause.STREAM_ERROR if self._stream_error else CloseCause.STREAM_CLOSED
        elif direction is self._client:
            self._observe(StreamViolation(sent_by=Side.CLIENT, kind=refused, offset=direction.reader.offset))
            cause = CloseCause.STREAM_VIOLATION
        else:
            self._observe(StarttlsRefused(answer=refused))
            cause = CloseCause.TLS_FAILED
        self._close(cause, direction.side, EndOfInput.TRUNCATED)

    def _leave_own_part(self, direction: _Direction, leftover: bytes) -> list[Action]:
        """What stands behind ``<starttls/>`` and ``<proceed/>`` is judged as it is between two peers."""
        if direction is self._client:
            tolerated = negotiate.is_tolerated_behind_starttls(leftover)
            self._observe(StarttlsRequested(trailing_whitespace=len(leftover) if tolerated else 0))
        else:
            tolerated = not leftover
        if not tolerated:
            self._then.clear()
            return self._injected(direction.side, len(leftover))
        self._end_due_ns = self._begun_at_ns + int(self._policy.negotiation_seconds_max * _NS_PER_SECOND)
        self._then += [Pause(direction.side), StartTls(domain=self.domain)]
        return self._taken()

    def _hold_client(self, data: bytes, done: int) -> list[Action]:
        """Behind ``<starttls/>``: a little whitespace goes on to the server, anything else is an injection."""
        leftover = data[done:]
        tolerated = negotiate.is_tolerated_behind_starttls(leftover)
        self._observe(StarttlsRequested(trailing_whitespace=len(leftover) if tolerated else 0))
        if not tolerated:
            return self._injected(Side.CLIENT, len(leftover))
        self._then.append(Pause(Side.CLIENT))
        return self._taken(data)

    def _hold_server(self, data: bytes, done: int) -> list[Action]:
        """Behind ``<proceed/>`` there must be nothing at all."""
        if done < len(data):
            return self._injected(Side.SERVER, len(data) - done)
        self._then += [Pause(Side.SERVER), StartTls(domain=self.domain)]
        return self._taken(data)

    def _injected(self, sent_by: Side, octets: int) -> list[Action]:
        """Neither parse nor forward what was smuggled in (CVE-2011-0411), nor the chunk it came in."""
        self._observe(StarttlsInjection(sent_by=sent_by, octets=octets))
        self._close(CloseCause.STARTTLS_INJECTION, sent_by, EndOfInput.TRUNCATED)
        return self._taken()

    # What the readers saw --------------------------------------------------------------------------------------

    def _item(self, direction: _Direction, item: Item, at_ns: int) -> None:
        match item:
            case FirstLevelElement():
                self._element(direction, item, at_ns)
            case StreamHeader():
                self._header(direction, item)
            case StreamEnd():
                direction.closing_tag = True
                self._first_closing = self._first_closing or direction.side
                self._observe(StreamClosed(sent_by=direction.side))
            case Violation():
                self._violation(direction, item, at_ns)
            case StreamLimit():
                self._limit(direction, item)

    def _header(self, direction: _Direction, header: StreamHeader) -> None:
        side = direction.side
        to, from_ = header.attributes.get("to"), header.attributes.get("from")
        if header.name != _ROOT:
            self._observe(StreamViolation(sent_by=side, kind="not-a-stream", offset=header.offset))
            self._close(CloseCause.STREAM_VIOLATION, side, EndOfInput.TRUNCATED)
            return
        if direction.opened:
            pipelined = side is Side.CLIENT and self._auth.in_progress
            reason = direction.restarting or RestartReason.PEER
            self._observe(StreamRestarted(sent_by=side, reason=reason, pipelined=pipelined, to=to, from_=from_))
        else:
            self._observe(
                StreamOpened(
                    sent_by=side,
                    to=to,
                    from_=from_,
                    has_id="id" in header.attributes,
                    version=header.attributes.get("version"),
                    lang=header.attributes.get("{http://www.w3.org/XML/1998/namespace}lang"),
                    content_namespace=header.namespaces.get(None),
                    xml_declaration=header.xml_declaration,
                )
            )
        direction.opened = True
        direction.content = header.namespaces.get(None)
        if ns.CARBONS in header.namespaces.values():
            self._carbons_declared = True
        direction.restarting = None
        direction.closing_tag = False
        direction.is_restart_due = False
        direction.restarted = True
        if side is Side.CLIENT:
            self.domain = to or self._policy.domain
            self._success_at_ns = None
            self._traffic.know(domain=self.domain)
            if self._secure and to and to != self._verified_name:
                # The certificate was judged by the SNI; the stream is for another name (RFC 6120 section 13.7.2).
                self._verified_name = to
                self._now(VerifyName(to))

    def _restart_by_peer(self, direction: _Direction) -> None:
        """A header at an element boundary replaces the stream of its direction (RFC 6120 section 4.3.3)."""
        if direction.restarting is None and (self._auth.in_progress or self._auth.succeeded):
            direction.restarting = RestartReason.SASL
        direction.reader.restart()

    def _violation(self, direction: _Direction, item: Violation, at_ns: int) -> None:
        side, kind = direction.side, item.kind.value
        self._observe(StreamViolation(sent_by=side, kind=kind, offset=item.offset))
        if item.severity is Severity.NOTE:
            return
        if direction is self._server:
            self._refused_at_ns = at_ns
        scope = LossScope.ELEMENT if item.severity is Severity.ELEMENT else LossScope.STREAM
        self._lost(direction, scope, kind, item.offset, item.octets)

    def _lost(
        self, direction: _Direction, scope: LossScope, reason: str, offset: int, octets: int | None = None
    ) -> None:
        """Something was not inspected. Before the session is established nobody is relayed blindly."""
        if not self.established:
            policy = "close"
        elif scope is LossScope.ELEMENT:
            policy = "relay"
        elif direction is self._client:
            policy = self._policy.on_inspection_lost_client
        else:
            policy = self._policy.on_inspection_lost_server
        self._observe(
            InspectionLost(
                sent_by=direction.side, scope=scope, reason=reason, offset=offset, octets=octets, policy=policy
            )
        )
        if policy == "close":
            self._close(CloseCause.INSPECTION_LOST, direction.side, EndOfInput.TRUNCATED)
        elif scope is LossScope.STREAM:
            direction.opaque = True

    def _limit(self, direction: _Direction, item: StreamLimit) -> None:
        self._observe(
            LimitReached(
                limit=item.limit, value=item.value, sent_by=direction.side, offset=item.offset, closes=item.closes
            )
        )
        if item.closes:
            self._close(CloseCause.LIMIT_REACHED, None, EndOfInput.TRUNCATED)

    # First-level elements --------------------------------------------------------------------------------------

    def _element(self, direction: _Direction, item: FirstLevelElement, at_ns: int) -> None:
        element = item.element
        name = element.tag
        assert isinstance(name, str), "comments and processing instructions are no elements"
        direction.last_name = name
        direction.last_at_ns = at_ns
        if not self.established and direction is self._client and next(element.iter(_ROOT), None) is not None:
            self._lost(direction, LossScope.STREAM, "nested-root", item.offset)  # to the server it may be a new stream
            return
        kind = _STANZAS.get(name)
        if kind is None:
            self._nonza(direction, item, name, at_ns)
            return
        direction.last_item = item
        type_ = element.get("type")
        if type_ == "error":
            direction.errors += 1
        if kind == "message":
            direction.messages += 1
            for event in self._traffic.message(direction.side, item, type_, direction.may_be_carbon):
                self._observe(event)
        elif kind == "presence":
            direction.presences += 1
            self._observe_all(self._traffic.presence(direction.side, item))
        else:
            direction.iqs += 1
            self._iq(direction, item, at_ns)
            return
        if not self.established and direction is self._server and type_ != "error":
            # Only a live session is sent messages and presence. An error may be the client's own stanza, sent back.
            self._ready("observed", None, at_ns)
            direction.last_item = item

    def _iq(self, direction: _Direction, item: FirstLevelElement, at_ns: int) -> None:
        element, side = item.element, direction.side
        if element.get("type") in ("get", "set"):
            if not self.established and direction is self._client:
                self._binding.requested(element, at_ns)
                self._observe_all(self._auth.legacy(element, at_ns, starttls_offered=self._is_starttls_offered()))
            self._observe_all(self._traffic.request(side, item, at_ns, established=self.established))
            self._arm()
            return
        request = self._traffic.request_answered(side, item, at_ns)
        if request is None:
            direction.orphan_answers += 1
        elif request.late:
            direction.late_answers += 1
        if not self.established and direction is self._server and self._login_iq(element, request, at_ns):
            return
        self._observe_all(self._traffic.answer(side, item, request))

    def _login_iq(self, element: etree._Element, request: RequestFacts | None, at_ns: int) -> bool:
        """The server answers binding or a legacy login; tell whether that is all there is to say of the stanza."""
        if request is not None and request.purpose == "legacy-auth" and auth.may_end_legacy(element):
            self._observe_all(self._auth.legacy_ended(element, at_ns))
            if element.get("type") == "result":
                self._ready("iq-auth", None, at_ns)
            return True
        event = self._binding.answered(element, request, at_ns)
        if event is None:
            return False
        if isinstance(event, ResourceBound):
            self._belongs_to(event.jid)
            self._observe(event)
            self._ready("bind", event.jid, at_ns)
        else:
            self._observe(event)
        return True

    def _belongs_to(self, jid: Jid) -> None:
        self._jid = jid
        self._traffic.know(jid=jid)

    def _nonza(self, direction: _Direction, item: FirstLevelElement, name: str, at_ns: int) -> None:
        """A first-level element that is no stanza."""
        namespace, _, local = name.rpartition("}")
        namespace = namespace[1:]
        if namespace in ns.SM:
            direction.acks += local in ("a", "r")
            self._stream_management(direction, local, item.element, at_ns)
            self._observe_all(self._traffic.relayed(direction.side, item))
        elif name == _STREAM_ERROR:
            self._stream_error_seen(direction, item.element, at_ns)
        elif name == _COMPRESSED and direction is self._server:
            self._unreadable("compression", item.offset)
        elif namespace == ns.DIALBACK:
            self._dialback(direction, item.element, at_ns)
        elif self.established and namespace not in _LOGINS:  # a login is seen wherever it is tried
            self._observe_all(self._traffic.relayed(direction.side, item))
        elif direction is self._client:
            self._client_nonza(name, item.element, at_ns)
        else:
            self._server_nonza(name, item, at_ns)

    def _client_nonza(self, name: str, element: etree._Element, at_ns: int) -> None:
        if name == negotiate.STARTTLS and not self._secure and self._phase is Phase.NEGOTIATING:
            self._step(_Step.ASK_TLS)
        elif name == auth.AUTH:
            self._client.restarted = False
            starttls_offered = self._is_starttls_offered()
            self._observe_all(self._auth.auth(element, at_ns, starttls_offered=starttls_offered))
        elif name == sasl2.AUTHENTICATE:
            starttls_offered = self._is_starttls_offered()
            self._observe_all(self._auth.authenticate(element, at_ns, starttls_offered=starttls_offered))
            for inline in sasl2.stream_management(element):
                self._stream_management(self._client, ns.qname(inline.tag).localname, inline, at_ns)
        elif name in (auth.RESPONSE, sasl2.RESPONSE):
            self._observe_all(self._auth.response(element))
        elif name == sasl2.NEXT:
            self._auth.next_task(element)
        elif name in (auth.ABORT, sasl2.ABORT):
            self._observe_all(self._auth.abort(at_ns))
        elif name == _COMPONENT_HANDSHAKE:
            self._handshake_at_ns = at_ns

    def _server_nonza(self, name: str, item: FirstLevelElement, at_ns: int) -> None:
        element = item.element
        if self._phase is Phase.STARTTLS_ASKED and name != negotiate.FEATURES:
            if name == negotiate.PROCEED:
                self._step(_Step.PROCEED)
                return
            self._refused(safe_name(name))
        if name == negotiate.PROCEED:
            self._observe(StreamViolation(sent_by=Side.SERVER, kind="proceed-without-starttls", offset=item.offset))
        elif name == negotiate.FEATURES:
            self._features_seen(element, at_ns)
        elif name in (auth.CHALLENGE, sasl2.CHALLENGE):
            self._observe_all(self._auth.challenge(element, at_ns))
            self._arm()
        elif name == sasl2.CONTINUE:
            self._auth.continue_(at_ns)
            self._arm()
        elif name == auth.SUCCESS:
            self._logged_in(item, at_ns)
        elif name == sasl2.SUCCESS:
            self._logged_in2(element, at_ns)
        elif name == auth.FAILURE:
            self._observe_all(self._auth.failure(element, at_ns))
        elif name == sasl2.FAILURE:
            self._observe_all(self._auth.failure2(element, at_ns))
        elif name == _COMPONENT_HANDSHAKE:
            begun_ns = self._handshake_at_ns if self._handshake_at_ns is not None else at_ns
            self._observe(ComponentAuthenticated(domain=self.domain, duration_ns=at_ns - begun_ns))
            self._ready("component", None, at_ns)

    def _features_seen(self, element: etree._Element, at_ns: int) -> None:
        features = self._features = negotiate.read_features(element)
        self._observe(features.seen)
        domain, is_clear = self.domain, not self._secure and not self._auth.succeeded
        if (
            domain is not None
            and is_clear
            and self._memory.is_starttls_missing(domain, offered=features.starttls_offered)
        ):
            self._observe(StarttlsStripped(domain=domain))
        self._observe_all(features.offers)
        self._observe_all(self._auth.offered(features.offers, self.domain))
        if self._auth.succeeded and self._client.content == ns.SERVER and _BIND not in features.seen.features:
            self._ready("sasl-external", None, at_ns)  # s2s streams bind nothing (section 7 is for clients)

    def _is_starttls_offered(self) -> bool:
        return self._features is not None and self._features.starttls_offered

    def _dialback(self, direction: _Direction, element: etree._Element, at_ns: int) -> None:
        """Server dialback (XEP-0220): a verdict of the receiving server lets stanzas flow."""
        verdict = dialback_result(element, sent_by=direction.side)
        if verdict is not None:
            self._observe(verdict)
            if verdict.element == "result" and verdict.verdict == "valid" and direction is self._server:
                self._ready("dialback", None, at_ns)

    def _refused(self, answer: str) -> None:
        """Anything but proceed leaves the stream in clear (RFC 6120 section 5.4.2.2); the client is read again."""
        self._observe(StarttlsRefused(answer=answer))
        self._step(_Step.REFUSE_TLS)
        self._then.append(Resume(Side.CLIENT))

    def _logged_in(self, item: FirstLevelElement, at_ns: int) -> None:
        """Both directions restart now (section 6.4.6): the server's at this byte, the client's where it says so."""
        expected = self._auth.in_progress
        self._observe_all(self._auth.success(at_ns))
        if self.established and not expected:
            return  # nobody asked, and nobody will begin anew
        self._names.logged_in()
        self._server.restarting = RestartReason.SASL
        self._server.reader.restart()
        client = self._client
        client.is_restart_due = not client.restarted
        if client.is_restart_due:
            self._success_at_ns = at_ns
            self._arm()
        if not client.reader.at_boundary or (client.restarted and client.held):
            self._lost(client, LossScope.STREAM, "open-at-restart", client.reader.offset)
            return
        if self._auth.security_layer:
            self._unreadable("security-layer", item.offset)

    def _logged_in2(self, element: etree._Element, at_ns: int) -> None:
        """SASL2: no restart, and what was asked for inline is answered within (XEP-0388 section 2.6.1)."""
        success = sasl2.read_success(element, key=self._policy.correlation_key)
        self._observe_all(self._auth.success2(success, at_ns))
        self._names.logged_in()
        if success.bound and success.jid is not None and success.jid.resource is not None:
            self._belongs_to(success.jid)
            self._observe(ResourceBound(jid=success.jid, resource_requested=None, duration_ns=None))
        for inline in sasl2.stream_management(element):
            self._stream_management(self._server, ns.qname(inline.tag).localname, inline, at_ns)
        if success.bound:
            self._ready("sasl2", self._jid, at_ns)

    def _stream_management(self, direction: _Direction, local: str, element: etree._Element, at_ns: int) -> None:
        if direction is self._client:
            self._observe_all(self._sm.from_client(local, element, at_ns))
            self._arm()
            return
        events = self._sm.from_server(local, element, at_ns, before_tls=not self._secure)
        self._observe_all(events)
        self._arm()
        for event in events:
            if isinstance(event, SmEnabled) and event.id_hash is not None and self._jid is not None:
                self._memory.resumable(event.id_hash, self._jid)
            elif isinstance(event, SessionResumed):
                jid = self._memory.resumed(event.id_hash)
                if jid is not None:
                    self._belongs_to(jid)
                self._ready("resume", jid, at_ns)

    def _stream_error_seen(self, direction: _Direction, element: etree._Element, at_ns: int) -> None:
        from_server = direction is self._server
        facts = read_conditions(
            element,
            namespace=ns.STREAM_ERRORS,
            known=ns.STREAM_CONDITIONS,
            keep_text=from_server and self._policy.server_text,
        )
        self._stream_error = True
        self._observe(
            StreamError(
                sent_by=direction.side,
                condition=facts.condition,
                condition_known=facts.condition_known,
                application_condition=next(iter(facts.application_conditions), None),
                text=facts.text,
                text_bytes=facts.text_bytes,
            )
        )
        if from_server and self._phase is Phase.STARTTLS_ASKED:
            self._refused(_STREAM_ERROR)
        if from_server and not self.established and self._client.content == ns.COMPONENT:
            begun_ns = self._handshake_at_ns
            self._observe(
                ComponentRefused(
                    domain=self.domain,
                    condition=facts.condition,
                    condition_known=facts.condition_known,
                    duration_ns=None if begun_ns is None else at_ns - begun_ns,
                )
            )
        elsewhere = element.find(_SEE_OTHER_HOST)
        if elsewhere is not None and from_server:
            target = element_text(elsewhere)
            self._observe(RedirectOffered(mechanism="see-other-host", target=target, before_tls=not self._secure))
        for too_high in element.iterchildren(*_TOO_HIGH):  # XEP-0198 section 4
            handled, sent = unsigned(too_high.get("h")), unsigned(too_high.get("send-count"))
            self._observe(
                SmAnomaly(sent_by=direction.side.other, kind="handled-count-too-high", handled=handled, sent=sent)
            )

    def _unreadable(self, reason: str, offset: int) -> None:
        """Both peers agreed on something we cannot read: from here on bytes pass unseen, loudly.

        Also before the session is established, where one peer's oddity alone would close it: compression comes before
        binding (XEP-0138), and neither peer hides behind what both have asked for.
        """
        policy = self._policy.on_inspection_lost_server
        for direction in (self._server, self._client):
            self._observe(
                InspectionLost(
                    sent_by=direction.side,
                    scope=LossScope.STREAM,
                    reason=reason,
                    offset=offset if direction is self._server else direction.reader.offset,
                    octets=None,
                    policy=policy,
                )
            )
            direction.opaque = policy == "relay"
        if policy == "close":
            self._close(CloseCause.INSPECTION_LOST, Side.SERVER, EndOfInput.TRUNCATED)
        else:
            self._end_due_ns = None  # a deadline needs eyes

    # Steps -----------------------------------------------------------------------------------------------------

    def _ready(self, how: str, jid: Jid | None, at_ns: int) -> None:
        """Stanzas may flow. Chunks go in whole from here on."""
        if self._phase is not Phase.NEGOTIATING:
            return
        self._step(_Step.READY)
        self._names.logged_in()
        self._server.reader.count_names_in(self._names.relayed_to_client())
        self.established = True
        self._end_due_ns = self._success_at_ns = None
        self.next_tick_ns = self._next_due_ns()
        self._observe(SessionEstablished(how=how, jid=jid, duration_ns=at_ns - self._begun_at_ns))
        for direction in (self._client, self._server):
            for item in direction.reader.feed(bytes(direction.held)):  # no new header may begin any more
                self._item(direction, item, at_ns)
            direction.held.clear()
            direction.reader.expect_whole()
            direction.last_item = None  # with its tree would stay the parser of the login, 10 KiB

    def _begin_inside_tls(self) -> None:
        """Nothing learnt in clear survives (RFC 6120 section 5.4.3.3)."""
        self._secure = True
        self._features = None
        self._binding = Binding(server_text=self._policy.server_text)
        self._auth.forget()
        self._jid = None
        self._traffic.forget()
        for direction in (self._client, self._server):
            direction.reader.restart()
            direction.held.clear()
            direction.opened = False
            direction.restarting = None
            direction.restarted = False
            direction.is_restart_due = False
            direction.closing_tag = False

    def _compare_certificate(self, facts: TlsEstablished) -> None:
        domain = facts.server_name or self.domain
        if domain is None or facts.certificate is None:
            return
        previous = self._memory.previous_certificate(domain, facts.certificate.sha256)
        if previous is not None:
            changed = CertificateChanged(domain=domain, previous_sha256=previous, certificate=facts.certificate)
            self._observe(changed)

    def _over(self) -> bool:
        return self._phase is Phase.CLOSED

    def _step(self, step: _Step) -> None:
        self._phase = _NEXT[self._phase, step]

    def _close(self, cause: CloseCause, initiator: Side | None, how: EndOfInput) -> None:
        self._step(_Step.CLOSE)
        self._cause = cause
        self._initiator = initiator
        self.next_tick_ns = None
        self._then.append(Close(cause=cause, initiator=initiator, how=how))

    def _cause_of_end(self, direction: _Direction, other: _Direction) -> CloseCause:
        if self._stream_error:
            return CloseCause.STREAM_ERROR
        if direction.closing_tag or other.closing_tag:
            return CloseCause.STREAM_CLOSED
        return CloseCause.CLIENT_ENDED if direction is self._client else CloseCause.SERVER_ENDED

    def _observe(self, event: Event) -> None:
        level = event.level
        if level > Level.DEBUG:
            self._records_left -= 1
        elif not self._debug:
            return
        self._turn.append(Observe(event))

    def _observe_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self._observe(event)

    def _now(self, action: Action) -> None:
        """``action`` has its place among the observations, before the bytes."""
        self._turn.append(action)

    def _taken(self, data: bytes = b"") -> list[Action]:
        """The turn's actions in order: observations, the bytes, what follows them."""
        actions = self._turn
        if data:
            actions.append(Forward(data))
        actions += self._then
        self._turn = []
        self._then = []
        return actions


def _silence(kind: str, delay_ns: int) -> ClientFailureSuspected:
    return ClientFailureSuspected(kind=kind, confidence="medium", payload=None, fingerprint=None, delay_ns=delay_ns)
