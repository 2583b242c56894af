"""Scripts for the session core that read as the conversation they test.

    talk = Dialogue()
    talk.client("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    assert talk.seen() == [StarttlsRequested(trailing_whitespace=0)]

``client`` and ``server`` feed bytes and check what must always hold: the bytes forwarded are those received unless
the session was closed, and every observation stands before them.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import EndOfInput, Event, Side
from xproxy.events.tls import CertificateFacts, TlsEstablished, TlsPassthrough
from xproxy.xmpp.actions import Action, Close, Forward, LegMode, Observe, Send
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.names import NameTally
from xproxy.xmpp.session import Session

E = TypeVar("E")

SECOND = 1_000_000_000
BEGIN = 1_750_000_000 * SECOND

HEADER = "<stream:stream to='example.org' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
DECLARED_HEADER = "<?xml version='1.0'?>" + HEADER
SERVER_HEADER = (
    "<?xml version='1.0'?><stream:stream id='c0ffee' from='example.org' version='1.0' xml:lang='en'"
    " xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
)
STARTTLS = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
PROCEED = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
FEATURES_TLS = (
    "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
)
FEATURES_SASL = (
    "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1</mechanism>"
    "<mechanism>PLAIN</mechanism></mechanisms></stream:features>"
)
FEATURES_BIND = "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>"
SUCCESS = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
# \0juliet\0capulet-canary
PLAIN = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGp1bGlldABjYXB1bGV0LWNhbmFyeQ==</auth>"
BIND = "<iq type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>balcony</resource></bind></iq>"
BOUND = (
    "<iq type='result' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
    "<jid>juliet@example.org/balcony</jid></bind></iq>"
)


def tls(leg: Side, *, server_name: str | None = "example.org", end_point: str = "aa") -> TlsEstablished:
    """Facts of a leg on which TLS came up."""
    certificate = CertificateFacts(
        sha256="00" * 32,
        subject_common_name=None,
        issuer=None,
        serial_number=None,
        not_before=None,
        not_after=None,
        end_point_hash=end_point,
    )
    return TlsEstablished(
        leg=leg,
        direct=False,
        version="1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        server_name=server_name,
        alpn=None,
        ja4=None,
        resumed=False,
        certificate=certificate,
        verify="ok" if leg is Side.SERVER else None,
        seconds=0.01,
    )


def passed_on() -> TlsPassthrough:
    """Facts of a session that is relayed undecrypted."""
    return TlsPassthrough(
        stage="begin",
        direct=False,
        server_name="example.org",
        ja4="t13d1516h2_8daaf6152771_b186095e22b6",
        refusal="unknown_ca",
        refused_at_ns=BEGIN,
        expires_at_ns=BEGIN + 3_600 * SECOND,
    )


class Dialogue:
    """A session and what came of it so far."""

    def __init__(
        self,
        *,
        limits: StreamLimits | None = None,
        policy: StreamPolicy | None = None,
        mode: LegMode = LegMode.CLEAR,
        memory: Memory | None = None,
        strangers: NameTally | None = None,
        chunks: Callable[[bytes], Iterable[bytes]] = lambda data: [data],
    ) -> None:
        """``chunks`` cuts what is said into what is read."""
        self.now = BEGIN
        self.session = Session(
            limits=limits or StreamLimits(),
            policy=policy or StreamPolicy(),
            mode=mode,
            at_ns=self.now,
            memory=memory,
            strangers=strangers,
        )
        self.events: list[Event] = []
        self.actions: list[Action] = []
        self.sent = {Side.CLIENT: bytearray(), Side.SERVER: bytearray()}  # our own words
        self._forwards = mode in (LegMode.CLEAR, LegMode.DIRECT_TLS)  # False: our own part comes first
        self.forwarded = {Side.CLIENT: bytearray(), Side.SERVER: bytearray()}
        self.said = {Side.CLIENT: bytearray(), Side.SERVER: bytearray()}
        self._chunks = chunks

    def client(self, text: str | bytes) -> "Dialogue":
        """The client says ``text``."""
        return self._say(Side.CLIENT, text)

    def server(self, text: str | bytes) -> "Dialogue":
        """The server says ``text``."""
        return self._say(Side.SERVER, text)

    def secured(self, **facts: Any) -> "Dialogue":
        """TLS comes up on both legs."""
        self._take(self.session.tls_established(tls(Side.SERVER, **facts), self.now), b"", Side.SERVER)
        self._take(self.session.tls_established(tls(Side.CLIENT), self.now), b"", Side.CLIENT)
        self._forwards = True
        return self

    def passed_on(self) -> "Dialogue":
        """There is no TLS of ours: the client is let through undecrypted."""
        self._take(self.session.tls_passed_on(passed_on(), self.now), b"", Side.CLIENT)
        self._forwards = True
        return self

    def opens(self, domain: str = "example.org") -> "Dialogue":
        """The client's hello asks for ``domain``, and the server is to be led into TLS."""
        self._take(self.session.open_server_stream(domain, self.now), b"", Side.CLIENT)
        return self

    def secured_client(self) -> "Dialogue":
        """TLS comes up on the client's leg, the only one to get it."""
        self._take(self.session.tls_established(tls(Side.CLIENT), self.now), b"", Side.CLIENT)
        self._forwards = True
        return self

    def sent_to(self, side: Side) -> str:
        """What we said to ``side`` since the last call."""
        sent, self.sent[side] = self.sent[side], bytearray()
        return sent.decode()

    def ends(self, side: Side, how: EndOfInput = EndOfInput.TRUNCATED) -> list[Action]:
        """``side`` ends its input."""
        return self._take(self.session.end_of_input(side, how, self.now), b"", side)

    def after(self, seconds: float) -> list[Action]:
        """Time passes, and the session is ticked if it asked for that."""
        self.now += int(seconds * SECOND)
        due = self.session.next_tick_ns
        if due is None or due > self.now:
            return []
        return self._take(self.session.tick(self.now), b"", Side.CLIENT)

    def log_in(self) -> "Dialogue":
        """STARTTLS, PLAIN, bind: up to an established session, whose events are then forgotten."""
        self.client(DECLARED_HEADER).server(SERVER_HEADER + FEATURES_TLS).client(STARTTLS).server(PROCEED)
        self.secured()
        self.client(HEADER).server(SERVER_HEADER + FEATURES_SASL).client(PLAIN).server(SUCCESS)
        self.client(HEADER).server(SERVER_HEADER + FEATURES_BIND).client(BIND).server(BOUND)
        assert self.session.established, self.events
        self.seen()
        return self

    def seen(self) -> list[Event]:
        """Events since the last call."""
        events, self.events = self.events, []
        return events

    def actions_seen(self) -> list[str]:
        """Names of the event actions since the last call."""
        return [event.action for event in self.seen()]

    def one(self, kind: type[E]) -> E:
        """The only event of ``kind`` so far (not forgotten by this)."""
        found = [event for event in self.events if isinstance(event, kind)]
        assert len(found) == 1, self.events
        return found[0]

    @property
    def close(self) -> Close | None:
        """The close that was ordered, if one was."""
        return next((action for action in self.actions if isinstance(action, Close)), None)

    def _say(self, side: Side, text: str | bytes) -> "Dialogue":
        data = text.encode() if isinstance(text, str) else text
        self.said[side] += data
        for chunk in self._chunks(data):
            if chunk:
                self._take(self.session.receive(side, chunk, self.now), chunk, side)
        return self

    def _take(self, actions: list[Action], chunk: bytes, side: Side) -> list[Action]:
        forwarded = b""
        for action in actions:
            if isinstance(action, Observe):
                assert not forwarded or not self._completes(actions, action), "an observation behind its bytes"
                self.events.append(action.event)
            elif isinstance(action, Forward):
                forwarded += action.data
            elif isinstance(action, Send):
                assert not self._forwards, "words of ours outside our own part"
                self.sent[action.side] += action.data
        closing = any(isinstance(action, Close) for action in actions)
        if not self._forwards:
            assert not forwarded, "something of our own part was forwarded"
        elif closing or self.close:
            assert chunk.startswith(forwarded)
        else:
            assert forwarded == chunk
        self.forwarded[side] += forwarded
        self.actions += actions
        return actions

    @staticmethod
    def _completes(actions: list[Action], observed: Observe) -> bool:
        """An observation may follow a Forward only where a later Forward of the same turn carries its bytes."""
        place = next(index for index, action in enumerate(actions) if action is observed)
        return not any(isinstance(action, (Forward, Close)) for action in actions[place + 1 :])
