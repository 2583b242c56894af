"""One proxied session: both directions, their coupling, and nothing of sockets or clocks.

The shell (``xproxy.proxy``) feeds bytes and the time in and carries out the actions that come back. What is decided
here is decided the same way live and offline.

**Two readers.** Each direction has its own ``StreamReader`` and restarts at its own byte, never because of the other:
the server's stream right behind the ``>`` of proceed or success; the client's at an XML declaration or at
a start tag with the root's name, because clients pipeline and send the next header before they have seen the answer.
A server that accepts a login forgets what it has not finished reading. So nothing may stand open around that byte: a
comment, a CDATA section or an element that swallows the next header for us would not do so for the server, and the
whole session could hide in it.

**Two ways of feeding.** Until the session is established the bytes go in piece by piece, each up to a ``>``, or a
complete element at once: so the end of every element is known to the byte, which the boundaries of TLS and restarts
depend on. After that a chunk goes in whole; the usual chunk costs one parse and one ``Forward``.

**Order.** Observations come before the ``Forward`` of the bytes that made them. A chunk that ends the session is not
forwarded from the piece or element on that was refused.

**The end.** A direction that ended behind its closing tag leaves the other open for ``close_seconds_max``; any other
end is passed on at once and in kind, because an invented clean end would destroy a resumable session (XEP-0198).

**What is said** is understood by the ``Conversation``, the way into TLS by ``IntoTls``. Here is what follows from both:
feeding, restarts, what is lost, ends. They and the session act on one ``Course``, and none calls another back.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import EndOfInput, Side
from xproxy.events.connection import CloseCause, ConnectionClosed
from xproxy.events.session import SessionEstablished
from xproxy.events.stream import RestartReason, StreamClosed, StreamViolation
from xproxy.events.tls import TlsEstablished, TlsFailed, TlsPassthrough
from xproxy.xmpp import negotiate
from xproxy.xmpp.actions import Action, Forward, LegMode, Progress
from xproxy.xmpp.conversation import ROOT, Conversation
from xproxy.xmpp.course import NS_PER_SECOND, Course
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
from xproxy.xmpp.inspection import Inspection
from xproxy.xmpp.into_tls import IntoTls
from xproxy.xmpp.items import FirstLevelElement, Item, StreamEnd, StreamHeader, StreamLimit, Violation
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.names import NameBudget, NameTally
from xproxy.xmpp.phases import FIRST, Step
from xproxy.xmpp.phases import Phase as Phase
from xproxy.xmpp.stream import StreamReader

_CARBON: Final = b":carbons:"  # in ns.CARBONS

# The members that are compared for each chunk: looked up in their classes they take five times as long.
_CLIENT: Final = Side.CLIENT
_CLOSED: Final = Phase.CLOSED


class Session:
    """The core of one session. Not thread-safe; anything it raises is a bug."""

    __slots__ = (
        "_begun_at_ns",
        "_client",
        "_conversation",
        "_course",
        "_inspection",
        "_into_tls",
        "_limits",
        "_names",
        "_policy",
        "_server",
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
        names = NameBudget(limits, strangers)
        self._names = names
        self._limits = limits
        self._policy = policy
        self._begun_at_ns = at_ns
        self._client = Direction(Side.CLIENT, StreamReader(limits=limits, names=names))
        self._server = Direction(Side.SERVER, StreamReader(limits=limits, names=names))
        self._conversation = Conversation(
            client=self._client,
            server=self._server,
            limits=limits,
            policy=policy,
            memory=memory if memory is not None else Memory(),
        )
        self._course = Course(
            FIRST[mode],
            end_due_ns=at_ns + int(policy.negotiation_seconds_max * NS_PER_SECOND),
            records_max=limits.records_before_login_max,
            debug=policy.debug_events,
        )
        self._into_tls = IntoTls(
            course=self._course,
            client=self._client,
            server=self._server,
            conversation=self._conversation,
            policy=policy,
            mode=mode,
            at_ns=at_ns,
        )
        self._inspection = Inspection(course=self._course, client=self._client, server=self._server, policy=policy)

    @property
    def established(self) -> bool:
        """Stanzas may flow: fast feeding and full name allowance from here on."""
        return self._course.established

    @property
    def next_tick_ns(self) -> int | None:
        """When to call ``tick``: may be early, never late."""
        return self._course.next_tick_ns

    @property
    def left_at_certificate(self) -> bool:
        """The client went without a word inside TLS: it may not accept our certificate."""
        return self._into_tls.left_at_certificate

    @property
    def phase(self) -> Phase:
        """How far the session has come."""
        return self._course.phase

    # Inputs ----------------------------------------------------------------------------------------------------

    def receive(self, side: Side, data: bytes, at_ns: int) -> list[Action]:
        """Take ``data``, read from ``side`` at ``at_ns`` (UTC ns), and say what to do."""
        direction = self._client if side is _CLIENT else self._server
        direction.bytes += len(data)
        course = self._course
        if course.phase is _CLOSED:
            return []
        if direction.opaque:
            return [Forward(data)]
        if not course.established:
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
            if course.cause is not None:  # closed
                return course.taken()
        if reader.fed_whole:
            direction.last_item = None
            if side is not _CLIENT:  # nobody asks for the client's
                direction.last_chunk = data
        if not course.actions:  # the usual chunk: nothing to say about it
            return [Forward(data)]
        return course.taken(data)

    @property
    def is_costly(self) -> bool:
        """Whether each piece up to a ``>`` is looked at before it is fed: a chunk may take 2 us an octet."""
        return not self.established and not (self._client.opaque and self._server.opaque)

    def renew_parsers(self) -> None:
        """Go on with new parsers: the dictionary of XML names was replaced. For sessions that are not costly."""
        for direction in (self._client, self._server):
            direction.reader.renew_parser()

    def open_server_stream(self, domain: str, at_ns: int) -> list[Action]:
        """With ``LegMode.DIRECT_TO_CLEAR``: the client's hello asks for ``domain``; lead the server into TLS."""
        if not self._course.is_over:
            self._into_tls.begin_own_part(domain, at_ns)
        return self._course.taken()

    def tls_established(self, facts: TlsEstablished, at_ns: int) -> list[Action]:
        """TLS is up on the leg that ``facts`` name; the server leg, if it gets TLS, is reported first."""
        self._into_tls.established(facts, at_ns)
        return self._course.taken()

    def tls_passed_on(self, facts: TlsPassthrough, at_ns: int) -> list[Action]:
        """There will be no TLS of ours: the client's and the server's go through as they come, and so does the rest.

        The server ends sessions that do not log in, as it does without us; here nobody can tell.
        """
        self._into_tls.passed_on(facts)
        return self._course.taken()

    def tls_failed(self, failure: TlsFailed, at_ns: int) -> list[Action]:
        """A handshake failed, a peer gave TLS up, or the server's certificate does not cover the stream's ``to``."""
        if self._course.is_over:
            return []
        self._course.observe(failure)
        self._course.close(CloseCause.TLS_FAILED, failure.leg)
        return self._course.taken()

    def end_of_input(self, side: Side, how: EndOfInput, at_ns: int) -> list[Action]:
        """``side`` will send no more. Told a second time of the same side, it is gone altogether."""
        direction = self._client if side is Side.CLIENT else self._server
        other = self._server if side is Side.CLIENT else self._client
        again = direction.end is not None
        direction.end = direction.end or how
        if self._course.is_over:
            return []
        if not again and not direction.opaque:
            for item in direction.reader.finish():
                self._item(direction, item, at_ns)
            if self._course.is_over:
                return self._course.taken()
        if self._course.phase is Phase.PASSED_ON:
            return self._end_passed_on(side, how, at_ns, is_first=not again and other.end is None)
        if direction.closing_tag and not again and not other.closing_tag and other.end is None:
            if self._course.phase is not Phase.CLOSING:
                self._course.step(Step.HALF_ENDED)
            self._course.end_after(at_ns, self._policy.close_seconds_max)
            self._arm()
            return self._course.taken()
        if direction is self._client and other.end is None:
            self._into_tls.judge_silence(how, at_ns)
        if direction is self._client and self.established and not direction.closing_tag:
            gone = self._conversation.traffic.client_gone(
                at_ns, other.last_stanza(), other.last_at_ns, self._inspection.refused_at_ns
            )
            self._course.observe_all(gone)
        self._course.close(self._cause_of_end(direction, other), self._course.first_closing or side, how)
        return self._course.taken()

    def _cause_of_end(self, direction: Direction, other: Direction) -> CloseCause:
        if self._conversation.had_stream_error or direction.closing_tag or other.closing_tag:
            return self._conversation.cause_of_closing()
        return CloseCause.CLIENT_ENDED if direction is self._client else CloseCause.SERVER_ENDED

    def _end_passed_on(self, side: Side, how: EndOfInput, at_ns: int, *, is_first: bool) -> list[Action]:
        """The end of a TLS we cannot see into: behind a FIN the answer of the other side may be under way."""
        if is_first and how is EndOfInput.CLOSE_NOTIFY:
            self._course.first_closing = side
            self._course.end_after(at_ns, self._policy.close_seconds_max)
            self._arm()
        else:
            self._close_passed_on(self._course.first_closing or side, how)
        return self._course.taken()

    def _close_passed_on(self, first: Side, how: EndOfInput) -> None:
        self._course.close(CloseCause.CLIENT_ENDED if first is Side.CLIENT else CloseCause.SERVER_ENDED, first, how)

    def tick(self, at_ns: int) -> list[Action]:
        """The time ``next_tick_ns`` has come."""
        course = self._course
        if course.next_tick_ns is None or at_ns < course.next_tick_ns or course.is_over:
            return []
        if course.end_due_ns is not None and course.end_due_ns <= at_ns:
            if course.phase is Phase.PASSED_ON and course.first_closing is not None:
                self._close_passed_on(course.first_closing, EndOfInput.TRUNCATED)
            elif course.phase is Phase.CLOSING:
                course.close(self._conversation.cause_of_closing(), course.first_closing)
            else:
                course.close(CloseCause.NEGOTIATION_TIMEOUT, None)
            return course.taken()
        course.observe_all(self._conversation.overdue(at_ns))
        course.await_tick(self._conversation.next_due_ns())
        return course.taken()

    def _arm(self) -> None:
        self._course.arm(self._conversation.next_due_ns())

    def close(self, cause: CloseCause, at_ns: int) -> list[Action]:
        """The proxy ends the session."""
        if not self._course.is_over:
            self._course.close(cause, None)
        return self._course.taken()

    def closed(self, at_ns: int) -> ConnectionClosed:
        """Both legs are gone: the last record of the session."""
        return ConnectionClosed(
            initiator=self._course.initiator,
            cause=self._course.cause or CloseCause.INTERNAL_ERROR,
            duration_ns=at_ns - self._begun_at_ns,
            from_client=self._client.totals(at_ns),
            from_server=self._server.totals(at_ns),
        )

    def progress(self) -> Progress:
        """How far the session has come, for whoever looks on."""
        return Progress(phase=self._course.phase.value, mechanism=self._conversation.login.mechanism)

    # Feeding until the session is established -------------------------------------------------------------------

    def _receive_exactly(self, direction: Direction, data: bytes, at_ns: int) -> list[Action]:
        if self._course.phase is Phase.OWN_PART:
            return self._receive_own(direction, data, at_ns)
        done = 0
        while done < len(data):
            items, end = self._feed_exactly(direction, data, done)
            for item in items:
                self._item(direction, item, at_ns)
                if self._course.is_over:
                    break
            self._bound_strangers(direction)
            if self._course.is_over:
                return self._course.taken(data[:done])
            done = end
            if self._course.phase is Phase.STARTTLS_ASKED and direction is self._client:
                return self._into_tls.hold_client(data, done)
            if self._course.phase is Phase.SECURING:
                return self._into_tls.hold_server(data, done)
            if self.established or direction.opaque:  # the rest goes the fast way
                actions = self._course.taken(data[:done])
                if done < len(data):
                    direction.bytes -= len(data) - done
                    actions += self.receive(direction.side, data[done:], at_ns)
                return actions
        return self._course.taken(data)

    def _feed_exactly(self, direction: Direction, data: bytes, at: int) -> tuple[Sequence[Item | Lost], int]:
        login = self._conversation.login
        return direction.feed_exactly(
            data,
            at,
            # What a client says behind <starttls/> is held, piece by piece; in our own part it is ours to answer.
            one=direction is self._server or self._course.phase is Phase.NEGOTIATING,
            login=login.in_progress,
            logged_in=login.succeeded,
            held_bytes_max=self._names.stanza_bytes_max,
        )

    def _bound_strangers(self, direction: Direction) -> None:
        """Close where a peer goes on making records before its login, or requests of which we lose track."""
        if self.established or self._course.is_over:
            return
        limits = self._limits
        if self._course.records_left < 0:
            self._end_at_limit(direction, "stream.records_before_login_max", limits.records_before_login_max)
        elif self._conversation.traffic.has_forgotten:
            # The answer to one would be taken for that to another, a login perhaps.
            self._end_at_limit(direction, "stream.pending_requests_max", limits.pending_requests_max)

    def _end_at_limit(self, direction: Direction, limit: str, value: int) -> None:
        self._inspection.limit(
            direction, StreamLimit(limit=limit, value=value, offset=direction.reader.offset, closes=True)
        )

    def _receive_own(self, direction: Direction, data: bytes, at_ns: int) -> list[Action]:
        """Answer the peer that is ours to lead into TLS. Nothing of what it says is forwarded."""
        done = 0
        while done < len(data):
            items, done = self._feed_exactly(direction, data, done)
            for item in items:
                self._own_item(direction, item, at_ns)
                self._bound_strangers(direction)
                if self._course.is_over:
                    return self._course.taken()
                if self._course.phase is Phase.SECURING:
                    return self._into_tls.leave_own_part(direction, data[done:])
        return self._course.taken()

    def _own_item(self, direction: Direction, item: Item | Lost, at_ns: int) -> None:
        if not isinstance(item, StreamHeader | FirstLevelElement | StreamEnd):
            self._item(direction, item, at_ns)  # it has broken a rule, and that ends it
            return
        name = str(item.element.tag) if isinstance(item, FirstLevelElement) else None
        if name is not None:
            direction.last_name, direction.last_at_ns = name, at_ns
        if name not in (negotiate.STARTTLS, negotiate.PROCEED, negotiate.FAILURE):
            self._item(direction, item, at_ns)
            if self._course.is_over:
                return
        self._into_tls.answer(direction, item)

    # What the readers saw --------------------------------------------------------------------------------------

    def _item(self, direction: Direction, item: Item | Lost, at_ns: int) -> None:
        match item:
            case FirstLevelElement():
                self._conclude(direction, self._conversation.element(direction, item, at_ns), at_ns)
            case StreamHeader():
                self._header(direction, item)
            case StreamEnd():
                direction.closing_tag = True
                self._course.first_closing = self._course.first_closing or direction.side
                self._course.observe(StreamClosed(sent_by=direction.side))
            case Violation():
                self._inspection.violation(direction, item, at_ns)
            case StreamLimit():
                self._inspection.limit(direction, item)
            case Lost():
                self._inspection.lost(direction, item.reason, item.offset)

    def _header(self, direction: Direction, header: StreamHeader) -> None:
        side, conversation = direction.side, self._conversation
        if header.name != ROOT:
            self._course.observe(StreamViolation(sent_by=side, kind="not-a-stream", offset=header.offset))
            self._course.close(CloseCause.STREAM_VIOLATION, side)
            return
        pipelined = side is Side.CLIENT and conversation.login.in_progress
        self._course.observe(direction.header_seen(header, pipelined=pipelined))
        if side is Side.CLIENT:
            to = header.attributes.get("to")
            conversation.addressed_to(to or self._policy.domain)
            conversation.success_at_ns = None
            if conversation.secure and to:
                self._into_tls.compare_name(to)

    # What follows from what they said ---------------------------------------------------------------------------

    def _conclude(self, direction: Direction, findings: Iterable[Finding], at_ns: int) -> None:
        for finding in findings:
            match finding:
                case Due():
                    self._arm()
                case Ready():
                    self._ready(finding, at_ns)
                case Lost():
                    self._inspection.lost(direction, finding.reason, finding.offset)
                case TlsAsked():
                    self._into_tls.asked()
                case TlsGranted():
                    self._into_tls.granted(finding.offset)
                case OtherAnswer():
                    self._into_tls.answered(finding.name)
                case LoggedIn():
                    self._logged_in(finding, at_ns)
                case LoggedInAtOnce():
                    self._names.logged_in()
                case Unreadable():
                    self._inspection.unreadable(finding.reason, finding.offset)
                case _:
                    self._course.observe(finding)

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
            self._inspection.lost(client, "open-at-restart", client.reader.offset)
        elif success.security_layer:
            self._inspection.unreadable("security-layer", success.offset)

    def _ready(self, ready: Ready, at_ns: int) -> None:
        """Stanzas may flow. Chunks go in whole from here on."""
        if self._course.phase is not Phase.NEGOTIATING:
            return
        self._course.step(Step.READY)
        self._names.logged_in()
        self._server.reader.count_names_in(self._names.relayed_to_client())
        self._course.established = self._conversation.established = True
        self._course.end_due_ns = self._conversation.success_at_ns = None
        self._course.await_tick(self._conversation.next_due_ns())
        established = SessionEstablished(how=ready.how, jid=ready.jid, duration_ns=at_ns - self._begun_at_ns)
        self._course.observe(established)
        for direction in (self._client, self._server):
            for item in direction.reader.feed(bytes(direction.held)):  # no new header may begin any more
                self._item(direction, item, at_ns)
            direction.held.clear()
            direction.reader.expect_whole()
            direction.last_item = None  # with its tree would stay the parser of the login, 10 KiB
        self._server.last_item = ready.stanza
