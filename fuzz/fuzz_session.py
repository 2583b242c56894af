"""Invariant: whatever two peers say, in any order and any cut, the session relays it unchanged or closes, and no
record of it tells a secret.

That is: nothing is raised. The bytes forwarded are those received, all of them while the session is open and a prefix
of them when it closes; nothing comes behind a Close; observations stand before their bytes. No secret planted in a
SASL payload, a stream management id, a stanza's id or its content is in the repr of an event or in its record. Every
record is valid by the JSON schema.

An input is a script, a line a step; a line of another kind is nothing:

    O flags       at the start: d debug events, c close on lost inspection, D direct TLS, k small limits, v names differ
                  ; where the legs' TLS does not begin alike: X clear to direct, Z clear to plain, B direct to clear, H
                  direct to plain
    C text        the client says it; ``S`` the server; ``" text"`` the last speaker goes on in a new line
    A name        the client begins SASL mechanism NAME, with a secret; ``R`` it responds, ``Q`` the server challenges,
                  ``Y`` the server accepts
    P number      an element of ``PLANTS`` with secrets in it
    T, F, U       TLS comes up on both legs, or fails, or the client is let through undecrypted
    E side how    C or S ends its input: c close_notify, t truncated, r reset
    W seconds     time passes
    / size        octets of each read from here on; 0 is all at once
    N             the session is over and the next one begins, with what is remembered

The rules of the relay hold: a side that is paused is not heard. In our own part of a session nothing is forwarded, and
only there we say something ourselves.
"""

import base64
import functools
import re
import sys
from typing import Any

import harness

with harness.instrumented():
    from tests.support import dialogue
    from tests.support.canary import Canary
    from tests.support.strategies import FRAGMENTS
    from xproxy.config.stream import StreamLimits, StreamPolicy
    from xproxy.events import EndOfInput, Endpoint, Event, Side
    from xproxy.events.connection import CloseCause, ConnectionAccepted, ServerTls, UpstreamConnected
    from xproxy.events.sasl import SaslStarted
    from xproxy.events.tls import TlsFailed, TlsFailure
    from xproxy.record.recorder import Observer, SessionRecorder
    from xproxy.record.schema import event_schema
    from xproxy.xmpp import ns
    from xproxy.xmpp.actions import Action, Close, Forward, LegMode, Observe, Pause, Resume, Send, StartTls, VerifyName
    from xproxy.xmpp.memory import Memory
    from xproxy.xmpp.session import Phase, Session

import jsonschema
import orjson
from lxml import etree

SECRET = "QXZqxzQXZ"
STEPS_MAX = 120
RECORD_BYTES_MAX = 65_536
ENDS = {"c": EndOfInput.CLOSE_NOTIFY, "t": EndOfInput.TRUNCATED, "r": EndOfInput.RESET}
MODES = {
    "D": LegMode.DIRECT_TLS,
    "X": LegMode.CLEAR_TO_DIRECT,
    "Z": LegMode.CLEAR_TO_PLAIN,
    "B": LegMode.DIRECT_TO_CLEAR,
    "H": LegMode.DIRECT_TO_PLAIN,
}
PAUSED = {
    LegMode.CLEAR: (),
    LegMode.DIRECT_TLS: (Side.CLIENT, Side.SERVER),
    LegMode.CLEAR_TO_DIRECT: (Side.SERVER,),
    LegMode.CLEAR_TO_PLAIN: (Side.SERVER,),
    LegMode.DIRECT_TO_CLEAR: (Side.CLIENT,),
    LegMode.DIRECT_TO_PLAIN: (Side.CLIENT, Side.SERVER),
}
ADDRESS = Endpoint("192.0.2.1", 5222)
OBSERVER = Observer(version="0", hostname="gw1", boot_id="b" * 32)

_SM = "xmlns='urn:xmpp:sm:3'"
_CLIENT, _SERVER = Side.CLIENT, Side.SERVER
PLANTS = (
    (_SERVER, f"<enabled {_SM} id='%s' resume='true'/>"),
    (_CLIENT, f"<resume {_SM} previd='%s' h='1'/>"),
    (_SERVER, f"<resumed {_SM} previd='%s' h='1'/>"),
    (_CLIENT, "<message id='%s' to='a@b.example' type='chat'><body>%s</body><thread>%s</thread></message>"),
    (_SERVER, "<message id='%s' from='a@b.example/c'><body>%s</body><x xmlns='urn:x' y='%s'>%s</x></message>"),
    (_CLIENT, "<iq type='set' id='%s'><query xmlns='jabber:iq:register'><password>%s</password></query></iq>"),
    (
        _SERVER,
        "<iq type='error' id='%s' from='a@b.example'><query xmlns='jabber:iq:register'><password>%s</password></query>"
        "<error type='cancel' code='%s'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>%s</conflict>"
        "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>%s</text></error></iq>",
    ),
    (
        _CLIENT,
        "<message type='error' id='%s'><body>%s</body><error type='modify' by='%s@b.example'><text"
        " xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>%s</text></error></message>",
    ),
    (
        _CLIENT,
        "<iq type='set' id='%s'><query xmlns='jabber:iq:auth'><username>u</username><password>%s</password>"
        "<digest>%s</digest></query></iq>",
    ),
    (
        _CLIENT,
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>%s</initial-response>"
        "<user-agent id='%s'><software>Tester</software><device>%s</device></user-agent></authenticate>",
    ),
    (
        _SERVER,
        "<success xmlns='urn:xmpp:sasl:2'><additional-data>%s</additional-data>"
        "<token xmlns='urn:xmpp:fast:0' token='%s'/></success>",
    ),
    (_CLIENT, "<presence id='%s'><status>%s</status><!-- %s --><?pi %s?></presence>"),
    (_CLIENT, "<handshake xmlns='jabber:component:accept'>%s</handshake>"),
    (_SERVER, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized>%s</not-authorized></failure>"),
)
# What may stand in a message of a mechanism at any step: where its secrets stand it tells nothing.
RESPONSES = {
    "PLAIN": (b"\0%a\0%s", b"%a@h\0%a\0%s"),
    "SCRAM": (b"n,,n=%a,r=%s", b"p=tls-exporter,,n=%a,r=%s", b"c=biws,r=%s,p=%s", b"y,a=%a,n=%a,r=%s"),
    "DIGEST-MD5": (b'charset=utf-8,username="%a",realm="r",nonce="%s",cnonce="%s",response=%s,qop=auth',),
    "EXTERNAL": (b"%a",),
    "": (b"%s", b"n,a=%a,\x01auth=Bearer %s\x01\x01"),
}
CHALLENGES = (b"r=%s,s=%s,i=4096", b'realm="h",nonce="%s",qop="auth"', b"v=%s", b"e=%s", b"rspauth=%s")

WORDS = [
    *(f"\n{kind} ".encode() for kind in "CSARQYPTFEWN/"),
    b"\n ", b"\nE C c\n", b"\nE S t\n", b"\nE C r\n", b"\nW 400\n", b"\nT\n", b"\nN\n", b"\n/ 1\n", b"\n/ 0\n",
    b"\nC </stream:stream>\n", b"\nS </stream:stream>\n", b"\nA PLAIN romeo\n", b"\nA SCRAM-SHA-1 romeo\n",
    *(f"\nP {number}\n".encode() for number in range(len(PLANTS))),
    *(
        f"\nC {line}\n".encode()
        for line in (dialogue.HEADER, dialogue.DECLARED_HEADER, dialogue.STARTTLS, dialogue.BIND)
    ),
    *(
        f"\nS {line}\n".encode()
        for line in (
            dialogue.SERVER_HEADER, dialogue.FEATURES_TLS, dialogue.FEATURES_SASL, dialogue.FEATURES_BIND,
            dialogue.PROCEED, dialogue.SUCCESS, dialogue.BOUND,
            "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
            "<compressed xmlns='http://jabber.org/protocol/compress'/>", f"<a {_SM} h='4'/>",
        )
    ),
    *FRAGMENTS,
]  # fmt: skip

_CANARY = Canary()
_CANARY.register("planted", SECRET)


def check(data: bytes) -> None:
    """Play one script."""
    if SECRET.encode().lower() in data.lower():
        return
    lines = data.split(b"\n")[:STEPS_MAX]
    flags = lines[0][1:].decode("latin-1") if lines[0].startswith(b"O") else ""
    memory = Memory()
    play = Play(flags, memory)
    for line in lines:
        if line.startswith(b"N"):
            play.finish()
            play = Play(flags, memory)
        else:
            play.step(line)
    play.finish()


class Play:
    """One session, what came of it, and what must hold of that."""

    def __init__(self, flags: str, memory: Memory) -> None:
        self.now = dialogue.BEGIN
        limits = StreamLimits(stanza_bytes_max=700, stanza_bytes_warn=300, depth_max=20) if "k" in flags else None
        lost = "close" if "c" in flags else "relay"
        policy = StreamPolicy(debug_events="d" in flags, on_inspection_lost_client=lost, on_inspection_lost_server=lost)
        mode = next((MODES[flag] for flag in flags if flag in MODES), LegMode.CLEAR)
        self.session = self.begin(limits or StreamLimits(), policy, mode, memory)
        self.is_ours = self.session.phase is Phase.OWN_PART
        self.names_differ = "v" in flags
        self.recorder = SessionRecorder(trace_id="a" * 32, observer=OBSERVER)
        self.has_server_tls = mode.server_tls is not ServerTls.NONE
        self.paused = set(PAUSED[mode])
        self.received = {_CLIENT: 0, _SERVER: 0}
        self.close: Close | None = None
        self.side = _CLIENT
        self.chunk_bytes = 0
        self.mechanism = ""
        self.record(ConnectionAccepted(client=ADDRESS, listener=ADDRESS))
        self.record(UpstreamConnected(host="h.example", server=ADDRESS, local=ADDRESS, seconds=0.1))
        if mode is LegMode.DIRECT_TO_CLEAR:
            self.take(self.session.open_server_stream("example.org", self.now))

    def begin(self, limits: StreamLimits, policy: StreamPolicy, mode: LegMode, memory: Memory) -> Session:
        """Make the core."""
        return Session(limits=limits, policy=policy, mode=mode, at_ns=self.now, memory=memory)

    def step(self, line: bytes) -> None:
        """Do what ``line`` says."""
        kind, rest = line[:1].decode("latin-1"), line[2:]
        match kind:
            case "C" | "S":
                self.side = _CLIENT if kind == "C" else _SERVER
                self.say(self.side, rest)
            case " ":
                self.say(self.side, b"\n" + rest)
            case "A":
                name, _, user = rest.partition(b" ")
                name = bytes(octet for octet in name if octet in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
                payload = _payload(name.decode(), user)
                text = f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{name.decode()}'>{payload}</auth>"
                self.plant(_CLIENT, text)
            case "R":
                payload = _payload(self.mechanism, rest)
                self.plant(_CLIENT, f"<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{payload}</response>")
            case "Q" | "Y":
                message = CHALLENGES[(rest or b"\0")[0] % len(CHALLENGES)].replace(b"%s", SECRET.encode())
                tag = "challenge" if kind == "Q" else "success"
                payload = base64.b64encode(message).decode()
                self.plant(_SERVER, f"<{tag} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{payload}</{tag}>")
            case "P":
                side, text = PLANTS[_number(rest) % len(PLANTS)]
                self.plant(side, text.replace("%s", SECRET))
            case "U":
                self.pass_on()
            case "T" | "F":
                self.secure(fails=kind == "F")
            case "E":
                self.end(_SERVER if rest[:1] == b"S" else _CLIENT, ENDS.get(rest[2:3].decode("latin-1"), ENDS["t"]))
            case "W":
                self.now += min(_number(rest), 100_000) * dialogue.SECOND
                assert self.close is None or self.session.next_tick_ns is None, "a closed session waits"
                self.take(self.session.tick(self.now))
                due = self.session.next_tick_ns  # not every deadline closes: a request may have waited too long
                assert due is None or due > self.now, "a deadline passed and is still waited for"
            case "/":
                self.chunk_bytes = _number(rest)

    def say(self, side: Side, data: bytes) -> None:
        """``side`` sends ``data``; what is left when it is paused is never read."""
        size = self.chunk_bytes or len(data) or 1
        for start in range(0, len(data), size):
            if side in self.paused:
                return
            chunk = data[start : start + size]
            self.received[side] += len(chunk)
            was_closed, is_ours = self.close is not None, self.session.phase is Phase.OWN_PART
            forwarded = self.take(self.session.receive(side, chunk, self.now))
            assert chunk.startswith(forwarded), "other bytes than were received"
            assert not (was_closed and forwarded), "bytes behind a Close"
            assert not (is_ours and forwarded), "what was said to us was forwarded"
            assert is_ours or self.close is not None or forwarded == chunk, "an open session kept bytes back"

    def plant(self, side: Side, text: str) -> None:
        """``side`` sends a first-level element with secrets; inside of another element it would be another thing."""
        direction = self.session._client if side is _CLIENT else self.session._server
        if direction.reader.at_boundary and not direction.held:
            self.say(side, text.encode())

    def secure(self, *, fails: bool) -> None:
        """TLS comes up on both legs, if it was asked for, or does not."""
        if self.session.phase is not Phase.SECURING:
            return
        if not fails:
            if self.has_server_tls:
                assert self.take(self.session.tls_established(dialogue.tls(_SERVER), self.now)) == b""
            assert self.take(self.session.tls_established(dialogue.tls(_CLIENT), self.now)) == b""
            self.paused.clear()
            return
        self.fail_tls()

    def pass_on(self) -> None:
        """The client is let through undecrypted, where the server speaks TLS."""
        if self.session.phase is Phase.SECURING and self.has_server_tls:
            assert self.take(self.session.tls_passed_on(dialogue.passed_on(), self.now)) == b""
            self.paused.clear()

    def fail_tls(self) -> None:
        """The server leg's handshake fails, or its certificate is for another name."""
        failure = TlsFailed(leg=_SERVER, direct=False, reason=next(iter(TlsFailure)), seconds=0.1)
        assert self.take(self.session.tls_failed(failure, self.now)) == b""
        assert self.close is not None

    def end(self, side: Side, how: EndOfInput) -> None:
        """``side`` sends no more. While TLS is being set up the relay reports a failure instead."""
        if self.session.phase is Phase.SECURING:
            self.fail_tls()
        else:
            assert self.take(self.session.end_of_input(side, how, self.now)) == b"", "bytes out of nothing"
        self.paused.add(side)

    def finish(self) -> None:
        """Both legs go, and the last record is made."""
        self.take(self.session.close(CloseCause.SHUTDOWN, self.now))
        assert self.close is not None
        self.take([])
        closed = self.session.closed(self.now)
        assert closed.from_client.bytes == self.received[_CLIENT]
        assert closed.from_server.bytes == self.received[_SERVER]
        self.record(closed)

    def take(self, actions: list[Action]) -> bytes:
        """Carry out ``actions`` as the relay does, and return the bytes forwarded."""
        forwarded = b""
        is_ours = self.is_ours
        self.is_ours = self.session.phase is Phase.OWN_PART
        for index, action in enumerate(actions):
            match action:
                case Observe(event=event):
                    follows = any(isinstance(other, Forward | Close) for other in actions[index + 1 :])
                    assert not forwarded or follows, "an observation behind its bytes"
                    self.record(event)
                case Forward(data=data):
                    assert self.close is None, "bytes behind a Close"
                    forwarded += data
                case Pause(side=side):
                    self.paused.add(side)
                case Resume(side=side):
                    self.paused.discard(side)
                case Send():
                    assert is_ours, "we said something between the peers"
                    assert self.close is None, "words behind a Close"
                    etree.fromstring(_whole(action.data))
                case StartTls():
                    assert self.paused == {_CLIENT, _SERVER}, "TLS with a leg that is read"
                case VerifyName() if self.names_differ and self.close is None:
                    self.fail_tls()
                    return forwarded
                case Close():
                    assert self.close is None, "closed twice"
                    assert self.session.phase is Phase.CLOSED
                    self.close = action
        return forwarded

    def record(self, event: Event) -> None:
        """Judge an event and its record."""
        if isinstance(event, SaslStarted):
            self.mechanism = event.mechanism
        line = self.recorder.record(event, self.now).to_json()
        told = repr(event).encode()
        assert not _CANARY.hits(told), f"a secret was told: {told!r}"
        _judge_line(event.action, line)


def _whole(said: bytes) -> bytes:
    """Return our words as a document: a header may stay open, a closing tag may stand for itself."""
    said = said.replace(b"<?xml version='1.0'?>", b"").replace(b"</stream:stream>", b"")
    header = f"<stream:stream xmlns:stream='{ns.STREAMS}'>".encode()
    return (said if said.startswith(b"<stream:stream") else header + said) + b"</stream:stream>"


@functools.lru_cache(maxsize=20_000)  # scripts begin alike, and validation takes most of the time
def _judge_line(action: str, line: bytes) -> None:
    assert not _CANARY.hits(line), f"a secret was told: {line!r}"
    assert line.count(b"\n") == 1
    assert len(line) <= RECORD_BYTES_MAX, f"a record of {len(line)} octets"
    problem = next(_validator(action).iter_errors(orjson.loads(line)), None)
    assert problem is None, f"{problem.json_path}: {problem.message} in {line!r}"


@functools.cache
def _validator(action: str) -> Any:
    """Return the schema's validator for one action: the same as the whole, which tries each in turn."""
    schema = event_schema()
    schema["allOf"] = [{"$ref": f"#/$defs/{action}"}]
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


def _payload(mechanism: str, user: bytes) -> str:
    """Return a message of ``mechanism`` in Base64: ``user`` where a name stands, the secret where secrets stand."""
    family = "SCRAM" if mechanism.upper().startswith("SCRAM-") else mechanism.upper()
    messages = RESPONSES.get(family, RESPONSES[""])
    message = messages[sum(user) % len(messages)]
    user = bytes(octet for octet in user if octet not in b'"\\,=\0')
    return base64.b64encode(message.replace(b"%a", user).replace(b"%s", SECRET.encode())).decode()


def _number(text: bytes) -> int:
    found = re.match(rb"\d{1,6}", text)
    return int(found[0]) if found else 0


if __name__ == "__main__":
    sys.exit(harness.main("session", check, words=WORDS, quick=2_500))
