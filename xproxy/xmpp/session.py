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
forwarded from the piece or element on that was refused.

**TLS.** ``<starttls/>`` pauses the client before the server can answer; ``<proceed/>`` pauses the server. What stands
behind either is an injection. When TLS is up on both legs nothing learnt in clear is left but the count of attempts,
the name budget and the byte totals.

**The end.** A direction that ended behind its closing tag leaves the other open for ``close_seconds_max``; any other
end is passed on at once and in kind, because an invented clean end would destroy a resumable session (XEP-0198).

**Our own part.** Where TLS does not begin alike on both legs (``LegMode``), one peer speaks with us up to TLS, as
``negotiate`` has it, and the other is not read. Nothing of it is forwarded. When TLS is up, all is as above.

**What is said** is understood by the ``Conversation``. Here is what follows from it: phases, restarts, ends, deadlines.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import EndOfInput, Event, Level, Side
from xproxy.events.connection import CloseCause, ConnectionClosed
from xproxy.events.proxy import LimitReached
from xproxy.events.session import SessionEstablished
from xproxy.events.stream import InspectionLost, LossScope, RestartReason, StreamClosed, StreamViolation
from xproxy.events.tls import (
    StarttlsInjection,
    StarttlsRefused,
    StarttlsRequested,
    TlsEstablished,
    TlsFailed,
    TlsPassthrough,
)
from xproxy.xmpp import negotiate
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
from xproxy.xmpp.conversation import ROOT, Conversation, silence
from xproxy.xmpp.direction import Direction
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
from xproxy.xmpp.items import FirstLevelElement, Item, StreamEnd, StreamHeader, StreamLimit, Violation
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.names import NameBudget, NameTally
from xproxy.xmpp.phases import FIRST, NEXT, Step
from xproxy.xmpp.phases import Phase as Phase
from xproxy.xmpp.stanza import keyed_hash
from xproxy.xmpp.stream import StreamReader
from xproxy.xmpp.violation import Severity

_CARBON: Final = b":carbons:"  # in ns.CARBONS
_NS_PER_SECOND: Final = 1_000_000_000

# The members that are compared for each chunk: looked up in their classes they take five times as long.
_CLIENT: Final = Side.CLIENT
_CLOSED: Final = Phase.CLOSED


class Session:
    """The core of one session. Not thread-safe; anything it raises is a bug."""

    __slots__ = (
        "_begun_at_ns",
        "_cause",
        "_client",
        "_conversation",
        "_debug",
        "_end_due_ns",
        "_first_closing",
        "_initiator",
        "_limits",
        "_names",
        "_own",
        "_phase",
        "_policy",
        "_records_left",
        "_refused_at_ns",
        "_server",
        "_silent_since",
        "_then",
        "_turn",
        "_verified_name",
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
        self._policy = policy
        self._debug = policy.debug_events
        self._client = Direction(Side.CLIENT, StreamReader(limits=limits, names=names))
        self._server = Direction(Side.SERVER, StreamReader(limits=limits, names=names))
        self._conversation = Conversation(
            client=self._client,
            server=self._server,
            policy=policy,
            memory=memory if memory is not None else Memory(),
            limits=limits,
        )
        self._phase: Phase = FIRST[mode]
        self._own: negotiate.Receiving | negotiate.Initiating | None = None
        if mode in (LegMode.CLEAR_TO_DIRECT, LegMode.CLEAR_TO_PLAIN):
            # Unpredictable, and the same in a replay with the same key.
            self._own = negotiate.Receiving(keyed_hash(policy.correlation_key, "stream", str(at_ns)))
        elif mode is LegMode.DIRECT_TO_CLEAR:
            self._own = negotiate.Initiating()
        self._begun_at_ns = at_ns
        self._verified_name: str | None = None  # the name the server's certificate was compared with
        self._silent_since: tuple[int, int] | None = None  # TLS is up on the client leg: octets so far, and when
        self.left_at_certificate = False  # the client went without a word inside TLS: it may not accept our certificate
        self._refused_at_ns: int | None = None  # the server sent what is no XML to us, and perhaps not to the client
        self._cause: CloseCause | None = None
        self._initiator: Side | None = None
        self._first_closing: Side | None = None  # whose closing tag came first
        self._turn: list[Action] = []  # what this input made us observe ...
        self._then: list[Action] = []  # ... and what follows its bytes
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
        conversation = self._conversation
        if side is not _CLIENT:
            # To look for a carbon in an element takes ten times as long as to see that the octets cannot hold one: its
            # namespace would be written out, or with a character reference.
            direction.may_be_carbon = (
                not reader.fed_whole
                or _CARBON in data
                or (b"&" in data and b"&#" in data)
                or direction.declares_carbons
            )
        for item in items:
            if type(item) is FirstLevelElement:
                findings = conversation.element(direction, item, at_ns)
                if findings:
                    self._conclude(direction, findings, at_ns)
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
        self._conversation.addressed_to(domain)
        # The client waits for its own handshake meanwhile, and will not do so for ever.
        self._end_due_ns = at_ns + int(self._policy.own_part_seconds_max * _NS_PER_SECOND)
        self._arm()
        self._then.append(Send(Side.SERVER, self._own.begin(domain)))
        return self._taken()

    def tls_established(self, facts: TlsEstablished, at_ns: int) -> list[Action]:
        """TLS is up on the leg that ``facts`` name; the server leg, if it gets TLS, is reported first."""
        assert self._phase is Phase.SECURING, self._phase
        self._observe(facts)
        self._observe_all(self._conversation.leg_secured(facts))
        if facts.leg is Side.SERVER:
            self._verified_name = facts.server_name
        else:
            self._begin_inside_tls()
            self._step(Step.SECURED)
            self._silent_since = self._client.bytes, at_ns
        return self._taken()

    def tls_passed_on(self, facts: TlsPassthrough, at_ns: int) -> list[Action]:
        """There will be no TLS of ours: the client's and the server's go through as they come, and so does the rest.

        The server ends sessions that do not log in, as it does without us; here nobody can tell.
        """
        assert self._phase is Phase.SECURING, self._phase
        self._observe(facts)
        self._begin_inside_tls()
        self._step(Step.PASS_ON)
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
                self._step(Step.HALF_ENDED)
            self._end_due_ns = at_ns + int(self._policy.close_seconds_max * _NS_PER_SECOND)
            self._arm()
            return self._taken()
        if direction is self._client and other.end is None:
            self._judge_silence(how, at_ns)
        if direction is self._client and self.established and not direction.closing_tag:
            gone = self._conversation.traffic.client_gone(
                at_ns, other.last_stanza(), other.last_at_ns, self._refused_at_ns
            )
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
            self._observe(silence("left-after-tls", at_ns - since_ns))

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
                self._close(self._cause_of_closing(), self._first_closing, EndOfInput.TRUNCATED)
            else:
                self._close(CloseCause.NEGOTIATION_TIMEOUT, None, EndOfInput.TRUNCATED)
            return self._taken()
        self._observe_all(self._conversation.overdue(at_ns))
        self.next_tick_ns = self._next_due_ns()
        return self._taken()

    def _next_due_ns(self) -> int | None:
        dues = (self._end_due_ns, self._conversation.next_due_ns())
        return min((due for due in dues if due is not None), default=None)

    def _arm(self) -> None:
        """See that ``tick`` comes in time. The relay is told of an earlier deadline, never of a later one."""
        due_ns = self._next_due_ns()
        if due_ns is not None and (self.next_tick_ns is None or due_ns < self.next_tick_ns):
            self.next_tick_ns = due_ns
            self._turn.append(Wake())

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
        return Progress(phase=self._phase.value, mechanism=self._conversation.login.mechanism)

    @property
    def phase(self) -> Phase:
        """How far the session has come."""
        return self._phase

    # Feeding until the session is established -------------------------------------------------------------------

    def _receive_exactly(self, direction: Direction, data: bytes, at_ns: int) -> list[Action]:
        if self._phase is Phase.OWN_PART:
            return self._receive_own(direction, data, at_ns)
        done = 0
        while done < len(data):
            items, end = self._feed_exactly(direction, data, done)
            for item in items:
                self._item(direction, item, at_ns)
                if self._over():
                    break
            self._bound_strangers(direction)
            if self._over():
                return self._taken(data[:done])
            done = end
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

    def _feed_exactly(self, direction: Direction, data: bytes, at: int) -> tuple[Sequence[Item | Lost], int]:
        login = self._conversation.login
        return direction.feed_exactly(
            data,
            at,
            one=self._phase is Phase.NEGOTIATING or direction is self._server,  # else it is held or ours to answer
            login=login.in_progress,
            logged_in=login.succeeded,
            held_bytes_max=self._names.stanza_bytes_max,
        )

    def _bound_strangers(self, direction: Direction) -> None:
        """Close where a peer goes on making records before its login, or requests of which we lose track."""
        if self.established or self._over():
            return
        limits = self._limits
        if self._records_left < 0:
            self._end_at_limit(direction, "stream.records_before_login_max", limits.records_before_login_max)
        elif self._conversation.traffic.has_forgotten:
            # The answer to one would be taken for that to another, a login perhaps.
            self._end_at_limit(direction, "stream.pending_requests_max", limits.pending_requests_max)

    def _end_at_limit(self, direction: Direction, limit: str, value: int) -> None:
        self._limit(direction, StreamLimit(limit=limit, value=value, offset=direction.reader.offset, closes=True))

    def _receive_own(self, direction: Direction, data: bytes, at_ns: int) -> list[Action]:
        """Answer the peer that is ours to lead into TLS. Nothing of what it says is forwarded."""
        done = 0
        while done < len(data):
            items, done = self._feed_exactly(direction, data, done)
            for item in items:
                self._own_item(direction, item, at_ns)
                self._bound_strangers(direction)
                if self._over():
                    return self._taken()
                if self._phase is Phase.SECURING:
                    return self._leave_own_part(direction, data[done:])
        return self._taken()

    def _own_item(self, direction: Direction, item: Item | Lost, at_ns: int) -> None:
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
            self._step(Step.PROCEED)
        elif answer.then is negotiate.Then.END:
            self._end_own_part(direction, answer.refused)

    def _end_own_part(self, direction: Direction, refused: str | None) -> None:
        """The peer did not let itself be led into TLS."""
        if refused is None or self._conversation.had_stream_error:
            cause = self._cause_of_closing()
        elif direction is self._client:
            self._observe(StreamViolation(sent_by=Side.CLIENT, kind=refused, offset=direction.reader.offset))
            cause = CloseCause.STREAM_VIOLATION
        else:
            self._observe(StarttlsRefused(answer=refused))
            cause = CloseCause.TLS_FAILED
        self._close(cause, direction.side, EndOfInput.TRUNCATED)

    def _leave_own_part(self, direction: Direction, leftover: bytes) -> list[Action]:
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
        self._then += [Pause(direction.side), StartTls(domain=self._conversation.domain)]
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
        self._then += [Pause(Side.SERVER), StartTls(domain=self._conversation.domain)]
        return self._taken(data)

    def _injected(self, sent_by: Side, octets: int) -> list[Action]:
        """Neither parse nor forward what was smuggled in (CVE-2011-0411), nor the chunk it came in."""
        self._observe(StarttlsInjection(sent_by=sent_by, octets=octets))
        self._close(CloseCause.STARTTLS_INJECTION, sent_by, EndOfInput.TRUNCATED)
        return self._taken()

    # What the readers saw --------------------------------------------------------------------------------------

    def _item(self, direction: Direction, item: Item | Lost, at_ns: int) -> None:
        match item:
            case FirstLevelElement():
                self._conclude(direction, self._conversation.element(direction, item, at_ns), at_ns)
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
            case Lost():
                self._lost(direction, LossScope.STREAM, item.reason, item.offset)

    def _header(self, direction: Direction, header: StreamHeader) -> None:
        side, conversation = direction.side, self._conversation
        if header.name != ROOT:
            self._observe(StreamViolation(sent_by=side, kind="not-a-stream", offset=header.offset))
            self._close(CloseCause.STREAM_VIOLATION, side, EndOfInput.TRUNCATED)
            return
        pipelined = side is Side.CLIENT and conversation.login.in_progress
        self._observe(direction.header_seen(header, pipelined=pipelined))
        if side is Side.CLIENT:
            to = header.attributes.get("to")
            conversation.addressed_to(to or self._policy.domain)
            conversation.success_at_ns = None
            if conversation.secure and to and to != self._verified_name:
                # The certificate was judged by the SNI; the stream is for another name (RFC 6120 section 13.7.2).
                self._verified_name = to
                self._turn.append(VerifyName(to))

    def _violation(self, direction: Direction, item: Violation, at_ns: int) -> None:
        side, kind = direction.side, item.kind.value
        self._observe(StreamViolation(sent_by=side, kind=kind, offset=item.offset))
        if item.severity is Severity.NOTE:
            return
        if direction is self._server:
            self._refused_at_ns = at_ns
        scope = LossScope.ELEMENT if item.severity is Severity.ELEMENT else LossScope.STREAM
        self._lost(direction, scope, kind, item.offset, item.octets)

    def _lost(
        self, direction: Direction, scope: LossScope, reason: str, offset: int, octets: int | None = None
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

    def _limit(self, direction: Direction, item: StreamLimit) -> None:
        self._observe(
            LimitReached(
                limit=item.limit, value=item.value, sent_by=direction.side, offset=item.offset, closes=item.closes
            )
        )
        if item.closes:
            self._close(CloseCause.LIMIT_REACHED, None, EndOfInput.TRUNCATED)

    # What follows from what they said ---------------------------------------------------------------------------

    def _conclude(self, direction: Direction, findings: Iterable[Finding], at_ns: int) -> None:
        for finding in findings:
            match finding:
                case Due():
                    self._arm()
                case Ready():
                    self._ready(finding, at_ns)
                case Lost():
                    self._lost(direction, LossScope.STREAM, finding.reason, finding.offset)
                case TlsAsked():
                    if self._phase is Phase.NEGOTIATING:
                        self._step(Step.ASK_TLS)
                case TlsGranted():
                    self._tls_granted(finding.offset)
                case OtherAnswer():
                    self._tls_refused(finding.name)
                case LoggedIn():
                    self._logged_in(finding, at_ns)
                case LoggedInAtOnce():
                    self._names.logged_in()
                case Unreadable():
                    self._unreadable(finding.reason, finding.offset)
                case _:
                    self._observe(finding)

    def _tls_granted(self, offset: int) -> None:
        if self._phase is Phase.STARTTLS_ASKED:
            self._step(Step.PROCEED)
        else:
            self._observe(StreamViolation(sent_by=Side.SERVER, kind="proceed-without-starttls", offset=offset))

    def _tls_refused(self, answer: str) -> None:
        """Anything but proceed leaves the stream in clear (RFC 6120 section 5.4.2.2); the client is read again."""
        if self._phase is Phase.STARTTLS_ASKED:
            self._observe(StarttlsRefused(answer=answer))
            self._step(Step.REFUSE_TLS)
            self._then.append(Resume(Side.CLIENT))

    def _logged_in(self, success: LoggedIn, at_ns: int) -> None:
        """Both directions restart now (section 6.4.6): the server's at this byte, the client's where it says so."""
        if self.established and not success.expected:
            return  # nobody asked, and nobody will begin anew
        self._names.logged_in()
        self._server.restarting = RestartReason.SASL
        self._server.reader.restart()
        client = self._client
        client.is_restart_due = not client.restarted
        if client.is_restart_due:
            self._conversation.success_at_ns = at_ns
            self._arm()
        if not client.reader.at_boundary or (client.restarted and client.held):
            self._lost(client, LossScope.STREAM, "open-at-restart", client.reader.offset)
        elif success.security_layer:
            self._unreadable("security-layer", success.offset)

    def _ready(self, ready: Ready, at_ns: int) -> None:
        """Stanzas may flow. Chunks go in whole from here on."""
        if self._phase is not Phase.NEGOTIATING:
            return
        self._step(Step.READY)
        self._names.logged_in()
        self._server.reader.count_names_in(self._names.relayed_to_client())
        self.established = self._conversation.established = True
        self._end_due_ns = self._conversation.success_at_ns = None
        self.next_tick_ns = self._next_due_ns()
        established = SessionEstablished(how=ready.how, jid=ready.jid, duration_ns=at_ns - self._begun_at_ns)
        self._observe(established)
        for direction in (self._client, self._server):
            for item in direction.reader.feed(bytes(direction.held)):  # no new header may begin any more
                self._item(direction, item, at_ns)
            direction.held.clear()
            direction.reader.expect_whole()
            direction.last_item = None  # with its tree would stay the parser of the login, 10 KiB
        self._server.last_item = ready.stanza

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

    def _begin_inside_tls(self) -> None:
        """Nothing learnt in clear survives (RFC 6120 section 5.4.3.3)."""
        self._conversation.begin_inside_tls()
        for direction in (self._client, self._server):
            direction.begin_inside_tls()

    def _over(self) -> bool:
        return self._phase is Phase.CLOSED

    def _step(self, step: Step) -> None:
        self._phase = NEXT[self._phase, step]

    def _close(self, cause: CloseCause, initiator: Side | None, how: EndOfInput) -> None:
        self._step(Step.CLOSE)
        self._cause = cause
        self._initiator = initiator
        self.next_tick_ns = None
        self._then.append(Close(cause=cause, initiator=initiator, how=how))

    def _cause_of_end(self, direction: Direction, other: Direction) -> CloseCause:
        if self._conversation.had_stream_error or direction.closing_tag or other.closing_tag:
            return self._cause_of_closing()
        return CloseCause.CLIENT_ENDED if direction is self._client else CloseCause.SERVER_ENDED

    def _cause_of_closing(self) -> CloseCause:
        return CloseCause.STREAM_ERROR if self._conversation.had_stream_error else CloseCause.STREAM_CLOSED

    def _observe(self, event: Event) -> None:
        if event.level > Level.DEBUG:
            self._records_left -= 1
        elif not self._debug:
            return
        self._turn.append(Observe(event))

    def _observe_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self._observe(event)

    def _taken(self, data: bytes = b"") -> list[Action]:
        """The turn's actions in order: observations, the bytes, what follows them."""
        actions = self._turn
        if data:
            actions.append(Forward(data))
        actions += self._then
        self._turn = []
        self._then = []
        return actions
