"""The way into TLS: STARTTLS between the peers, our own part where the legs differ, and what the relay reports of it.

**TLS.** ``<starttls/>`` pauses the client before the server can answer; ``<proceed/>`` pauses the server. What stands
behind either is an injection. When TLS is up on both legs nothing learnt in clear is left but the count of attempts,
the name budget and the byte totals.

**Our own part.** Where TLS does not begin alike on both legs (``LegMode``), one peer speaks with us up to TLS, as
``negotiate`` has it, and the other is not read. Nothing of it is forwarded. When TLS is up, all is as between peers.
"""

from xproxy.config.stream import StreamPolicy
from xproxy.events import EndOfInput, Side
from xproxy.events.connection import CloseCause
from xproxy.events.stream import StreamViolation
from xproxy.events.tls import (
    StarttlsInjection,
    StarttlsRefused,
    StarttlsRequested,
    TlsEstablished,
    TlsPassthrough,
)
from xproxy.xmpp import negotiate
from xproxy.xmpp.actions import Action, LegMode, Pause, Resume, Send, StartTls, VerifyName
from xproxy.xmpp.conversation import Conversation, silence
from xproxy.xmpp.course import Course
from xproxy.xmpp.direction import Direction
from xproxy.xmpp.items import FirstLevelElement, StreamEnd, StreamHeader
from xproxy.xmpp.phases import Phase, Step
from xproxy.xmpp.stanza import keyed_hash


class IntoTls:
    """How one session gets into TLS."""

    __slots__ = (
        "_begun_at_ns",
        "_client",
        "_conversation",
        "_course",
        "_own",
        "_policy",
        "_server",
        "_silent_since",
        "_verified_name",
        "left_at_certificate",
    )

    def __init__(
        self,
        *,
        course: Course,
        client: Direction,
        server: Direction,
        conversation: Conversation,
        policy: StreamPolicy,
        mode: LegMode,
        at_ns: int,
    ) -> None:
        self._course = course
        self._client = client
        self._server = server
        self._conversation = conversation
        self._policy = policy
        self._begun_at_ns = at_ns
        self._own: negotiate.Receiving | negotiate.Initiating | None = None
        if mode in (LegMode.CLEAR_TO_DIRECT, LegMode.CLEAR_TO_PLAIN):
            # Unpredictable, and the same in a replay with the same key.
            self._own = negotiate.Receiving(keyed_hash(policy.correlation_key, "stream", str(at_ns)))
        elif mode is LegMode.DIRECT_TO_CLEAR:
            self._own = negotiate.Initiating()
        self._verified_name: str | None = None  # the name the server's certificate was compared with
        self._silent_since: tuple[int, int] | None = None  # TLS is up on the client leg: octets so far, and when
        self.left_at_certificate = False  # the client went without a word inside TLS: it may not accept our certificate

    # Between the peers ------------------------------------------------------------------------------------------

    def asked(self) -> None:
        """``<starttls/>``: the server decides."""
        if self._course.phase is Phase.NEGOTIATING:
            self._course.step(Step.ASK_TLS)

    def granted(self, offset: int) -> None:
        """``<proceed/>``, which ended at ``offset``."""
        if self._course.phase is Phase.STARTTLS_ASKED:
            self._course.step(Step.PROCEED)
        else:
            self._course.observe(StreamViolation(sent_by=Side.SERVER, kind="proceed-without-starttls", offset=offset))

    def answered(self, answer: str) -> None:
        """Anything but proceed leaves the stream in clear (RFC 6120 section 5.4.2.2); the client is read again."""
        course = self._course
        if course.phase is Phase.STARTTLS_ASKED:
            course.observe(StarttlsRefused(answer=answer))
            course.step(Step.REFUSE_TLS)
            course.follow(Resume(Side.CLIENT))

    def hold_client(self, data: bytes, done: int) -> list[Action]:
        """Behind ``<starttls/>``: a little whitespace goes on to the server, anything else is an injection."""
        leftover = data[done:]
        if not self._is_tolerated(leftover):
            return self._injected(Side.CLIENT, len(leftover))
        self._course.follow(Pause(Side.CLIENT))
        return self._course.taken(data)

    def hold_server(self, data: bytes, done: int) -> list[Action]:
        """Behind ``<proceed/>`` there must be nothing at all."""
        if done < len(data):
            return self._injected(Side.SERVER, len(data) - done)
        self._course.follow(Pause(Side.SERVER), StartTls(domain=self._conversation.domain))
        return self._course.taken(data)

    def _is_tolerated(self, leftover: bytes) -> bool:
        """The client asked for TLS; tell whether what stands behind it is no more than white space."""
        tolerated = negotiate.is_tolerated_behind_starttls(leftover)
        self._course.observe(StarttlsRequested(trailing_whitespace=len(leftover) if tolerated else 0))
        return tolerated

    def _injected(self, sent_by: Side, octets: int) -> list[Action]:
        """Neither parse nor forward what was smuggled in (CVE-2011-0411), nor the chunk it came in."""
        self._course.observe(StarttlsInjection(sent_by=sent_by, octets=octets))
        self._course.close(CloseCause.STARTTLS_INJECTION, sent_by)
        return self._course.taken()

    # Our own part -----------------------------------------------------------------------------------------------

    def begin_own_part(self, domain: str, at_ns: int) -> None:
        """The client's hello asks for ``domain``: lead the server into TLS."""
        assert isinstance(self._own, negotiate.Initiating), self._course.phase
        self._conversation.addressed_to(domain)
        # The client waits for its own handshake meanwhile, and will not do so for ever.
        self._course.end_after(at_ns, self._policy.own_part_seconds_max)
        self._course.arm(self._conversation.next_due_ns())
        self._course.follow(Send(Side.SERVER, self._own.begin(domain)))

    def answer(self, direction: Direction, item: StreamHeader | FirstLevelElement | StreamEnd) -> None:
        """Answer the peer that is ours to lead into TLS."""
        assert self._own is not None
        answer = self._own.answer(item)
        if answer.data:
            self._course.follow(Send(direction.side, answer.data))
        if answer.then is negotiate.Then.SECURE:
            self._course.step(Step.PROCEED)
        elif answer.then is negotiate.Then.END:
            self._end_own_part(direction, answer.refused)

    def _end_own_part(self, direction: Direction, refused: str | None) -> None:
        """The peer did not let itself be led into TLS."""
        if refused is None or self._conversation.had_stream_error:
            cause = self._conversation.cause_of_closing()
        elif direction is self._client:
            self._course.observe(StreamViolation(sent_by=Side.CLIENT, kind=refused, offset=direction.reader.offset))
            cause = CloseCause.STREAM_VIOLATION
        else:
            self._course.observe(StarttlsRefused(answer=refused))
            cause = CloseCause.TLS_FAILED
        self._course.close(cause, direction.side)

    def leave_own_part(self, direction: Direction, leftover: bytes) -> list[Action]:
        """What stands behind ``<starttls/>`` and ``<proceed/>`` is judged as it is between two peers."""
        course = self._course
        if not (self._is_tolerated(leftover) if direction is self._client else not leftover):
            course.take_back()
            return self._injected(direction.side, len(leftover))
        course.end_after(self._begun_at_ns, self._policy.negotiation_seconds_max)
        course.follow(Pause(direction.side), StartTls(domain=self._conversation.domain))
        return course.taken()

    # What the relay reports -------------------------------------------------------------------------------------

    def established(self, facts: TlsEstablished, at_ns: int) -> None:
        """TLS is up on a leg."""
        course = self._course
        assert course.phase is Phase.SECURING, course.phase
        course.observe(facts)
        course.observe_all(self._conversation.leg_secured(facts))
        if facts.leg is Side.SERVER:
            self._verified_name = facts.server_name
        else:
            self._begin_inside()
            course.step(Step.SECURED)
            self._silent_since = self._client.bytes, at_ns

    def passed_on(self, facts: TlsPassthrough) -> None:
        """There will be no TLS of ours."""
        course = self._course
        assert course.phase is Phase.SECURING, course.phase
        course.observe(facts)
        self._begin_inside()
        course.step(Step.PASS_ON)
        self._client.opaque = self._server.opaque = True
        course.end_due_ns = course.next_tick_ns = None

    def _begin_inside(self) -> None:
        """Nothing learnt in clear survives (RFC 6120 section 5.4.3.3)."""
        self._conversation.begin_inside_tls()
        for direction in (self._client, self._server):
            direction.begin_inside_tls()

    def compare_name(self, to: str) -> None:
        """A stream inside TLS is for ``to``: the certificate was judged by the SNI (RFC 6120 section 13.7.2)."""
        if to != self._verified_name:
            self._verified_name = to
            self._course.actions.append(VerifyName(to))

    def judge_silence(self, how: EndOfInput, at_ns: int) -> None:
        """A client that goes when TLS is up, without a word inside it, may have judged our certificate only then.

        COMPAT(Node.js 20): it looks at the verdict when its side of the handshake is done and closes without an alert;
        with TLS 1.2 our side is done by then.
        """
        if self._silent_since is None or how is EndOfInput.RESET:
            return
        octets, since_ns = self._silent_since
        if self._client.bytes == octets:
            self.left_at_certificate = True
            self._course.observe(silence("left-after-tls", at_ns - since_ns))
