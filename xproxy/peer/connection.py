"""One client's connection to the server, from the first byte to the last (RFC 6120 sections 4 to 7)."""

from typing import TYPE_CHECKING, Final, Literal, assert_never

import trio
from lxml import etree

from xproxy.jid import Jid, JidError
from xproxy.peer import auth, words
from xproxy.peer.errors import TlsRefused
from xproxy.peer.session import Session
from xproxy.peer.sm import AckedTooMuch, SmState, parse_h
from xproxy.peer.wire import Wire
from xproxy.xmpp import ns
from xproxy.xmpp.stream import (
    FirstLevelElement,
    Item,
    StreamEnd,
    StreamHeader,
    StreamLimit,
    Violation,
    ViolationKind,
)

if TYPE_CHECKING:
    from xproxy.peer.server import Server

NEGOTIATION_SECONDS_MAX: Final = 60.0
CLOSE_SECONDS_MAX: Final = 2.0  # from our closing tag to the peer's
OUTBOX_BYTES_HIGH: Final = 1_048_576  # above it whoever sends to this client is not read
LOGIN_TRIES_MAX: Final = 5  # RFC 6120 section 6.4.5: no more than 5, no fewer than 2

_RESTRICTED: Final = {ViolationKind.COMMENT, ViolationKind.PROCESSING_INSTRUCTION, ViolationKind.DTD}
_NO_FORMAT: Final = {ViolationKind.TEXT, ViolationKind.NESTED_ROOT}


class StreamRefused(Exception):  # noqa: N818 - it names what the server does
    """The server ends the stream with this error (RFC 6120 section 4.9.3)."""

    def __init__(self, condition: str, *, inside: str = "") -> None:
        super().__init__(condition)
        self.condition = condition
        self.inside = inside


class PeerLeft(Exception):  # noqa: N818 - as above
    """The client closed its stream, or its connection."""

    def __init__(self, *, in_form: bool) -> None:
        super().__init__(in_form)
        self.in_form = in_form


class Connection:
    """Negotiates, then carries one session's stanzas."""

    def __init__(self, server: "Server", wire: Wire) -> None:
        self._server = server
        self._wire = wire
        self._header_is_sent = False
        self._user: str | None = None
        self._tries = 0
        self._outbox = bytearray()
        self._said = trio.Event()
        self._room = trio.Event()
        self._ending = False
        self._lost = False  # drop without a word at the end
        self.tls_mode: Literal["none", "starttls", "direct"] = "none"
        self.left: Literal["closed", "ended", "reset"] | None = None
        """How the client left: with </stream:stream>, at the end of its input, by RST. None: we ended it, or nobody."""
        self._scope: trio.CancelScope | None = None

    # The session's outlet.

    def say(self, data: bytes) -> None:
        """Queue ``data``; nothing more is taken after the closing tag."""
        if not self._ending:
            self._outbox += data
            self._said.set()

    async def has_room(self) -> None:
        """Return when the client has read enough, or is gone."""
        while len(self._outbox) > OUTBOX_BYTES_HIGH and not self._ending:
            await self._room.wait()

    async def send_early(self, data: bytes) -> None:
        """Send ``data`` before there is a session, from the connection's own task."""
        await self._wire.send(data)

    def end(self, condition: str, *, inside: str = "") -> None:
        """End the stream with an error."""
        self.say(words.stream_error(condition, inside=inside))
        self.close_stream()

    def lose(self) -> None:
        """Drop the connection without a word (RST): what a failing network does."""
        self._lost = True
        if self._scope is not None:
            self._scope.cancel()

    def close_stream(self) -> None:
        """Say the closing tag; the client has CLOSE_SECONDS_MAX for its own."""
        self.say(words.HEADER_CLOSE)
        self._ending = True
        self._room.set()
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + CLOSE_SECONDS_MAX)

    # The life of the connection.

    async def run(self) -> None:
        """Serve the client until it or the server ends the connection."""
        session: Session | None = None
        try:
            with trio.CancelScope() as self._scope:
                session = await self._begin()
                if session is not None:
                    self._wire.settled()
                    await self._converse(session)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # an abrupt end is a way to leave; a session that can wait does
        except TlsRefused as refused:
            self._server.on_tls_refused(self, refused.reason)
        finally:
            self._ending = True
            self._room.set()
            if session is not None:
                self._server.on_connection_lost(session, self)
            self._server.on_connection_ended(self)
            if self._lost:
                self._wire.drop(reset=True)
            else:
                await self._wire.close()

    async def _begin(self) -> Session | None:
        try:
            with trio.move_on_after(NEGOTIATION_SECONDS_MAX):
                return await self._negotiate()
            raise StreamRefused("connection-timeout")
        except PeerLeft as left:
            if left.in_form:
                await self._wire.send(words.HEADER_CLOSE)
        except StreamRefused as refused:
            self._server.on_stream_refused(self, refused.condition)
            if not self._header_is_sent:  # RFC 6120 section 4.9.1.2
                await self._send_header(None)
            await self._wire.send(words.stream_error(refused.condition, inside=refused.inside) + words.HEADER_CLOSE)
        return None

    async def _receive(self) -> etree._Element:
        """Return the next first-level element."""
        item = await self._next()
        if isinstance(item, StreamHeader):
            raise StreamRefused("bad-format")
        return item.element

    async def _next(self) -> StreamHeader | FirstLevelElement:
        try:
            item: Item | None = await self._wire.receive()
        except trio.BrokenResourceError:
            self.left = "reset"
            raise PeerLeft(in_form=False) from None
        match item:
            case None:
                self.left = "ended"
                raise PeerLeft(in_form=False)
            case StreamEnd():
                self.left = "closed"
                raise PeerLeft(in_form=True)
            case StreamLimit(closes=False):
                return await self._next()
            case StreamLimit():
                raise StreamRefused("policy-violation")
            case Violation(kind=kind):
                raise StreamRefused(_condition_for(kind))
            case StreamHeader() | FirstLevelElement():
                return item
            case _:
                assert_never(item)

    # Negotiation (RFC 6120 section 4.3).

    async def _negotiate(self) -> Session:
        is_tls = self._server.tls is not None and await self._wire.starts_with_tls()
        if not self._server.takes_opening(self, is_tls=is_tls):
            raise PeerLeft(in_form=False)
        if is_tls:
            assert self._server.tls is not None
            await self._wire.start_tls(self._server.tls, server_side=True)
            self.tls_mode = "direct"
        while True:
            await self._open_stream()
            if (session := await self._negotiate_stream()) is not None:
                return session
            self._wire.restart()
            self._header_is_sent = False

    async def _open_stream(self) -> None:
        header = await self._next()
        if not isinstance(header, StreamHeader):
            raise StreamRefused("bad-format")
        if header.name != f"{{{ns.STREAMS}}}stream" or header.namespaces.get(None) != ns.CLIENT:
            raise StreamRefused("invalid-namespace")
        await self._send_header(header.attributes.get("from"))
        if (to := header.attributes.get("to")) is None:
            raise StreamRefused("improper-addressing")
        if not self._server.is_ours(to):
            raise StreamRefused("host-unknown")
        if not header.attributes.get("version", "0").startswith("1."):
            raise StreamRefused("unsupported-version")
        await self._wire.send(f"<stream:features>{self._features()}</stream:features>".encode())

    async def _send_header(self, to: str | None) -> None:
        self._header_is_sent = True
        # The client's address is only repeated where nobody can read it along (RFC 6120 section 4.7.2).
        await self._wire.send(
            words.stream_header(
                from_=self._server.domain, to=to if self._wire.is_secure else None, id_=self._server.token()
            )
        )

    @property
    def _may_log_in(self) -> bool:
        return self._wire.is_secure or not self._server.tls_required

    def _features(self) -> str:
        if self._user is not None:
            return self._server.session_features(self._user)
        features = self._server.login_features(self)
        if self._server.tls is not None and not self._wire.is_secure:
            required = "<required/>" if self._server.tls_required else ""
            features += f"<starttls xmlns='{ns.TLS}'>{required}</starttls>"
        if self._may_log_in:
            names = "".join(f"<mechanism>{name}</mechanism>" for name in self._server.offered(self))
            features += f"<mechanisms xmlns='{ns.SASL}'>{names}</mechanisms>"
        return features

    async def _negotiate_stream(self) -> Session | None:
        """Go on until the stream restarts (None) or a session is bound or resumed."""
        while True:
            element = await self._receive()
            name = ns.qname(element.tag)
            if name.namespace == ns.TLS and name.localname == "starttls":
                await self._start_tls()
                return None
            if name.namespace == ns.SASL:
                if await self._authenticate(element, name.localname):
                    return None
            elif self._user is None:
                # RFC 6120 section 4.9.3.12: anything else before login.
                if not (self._may_log_in and await self._server.take_before_login(self, element)):
                    raise StreamRefused("not-authorized")
            elif name.namespace == ns.SM3:
                if (session := await self._answer_sm(element, name.localname, self._user)) is not None:
                    return session
            elif name.namespace == ns.CLIENT and name.localname in ns.STANZA_KINDS:
                if (session := await self._bind(element, self._user)) is not None:
                    return session
            else:
                raise StreamRefused("unsupported-stanza-type")

    async def _start_tls(self) -> None:
        self._wire.skip_white()  # COMPAT(go-sendxmpp 0.5.6): a line end follows <starttls/>
        if self._server.tls is None or self._wire.is_secure or self._wire.has_unread:
            # RFC 6120 section 5.4.2.2: failure, and the connection ends. Octets behind <starttls/> are an injection.
            await self._wire.send(f"<failure xmlns='{ns.TLS}'/>".encode())
            raise PeerLeft(in_form=True)
        await self._wire.send(f"<proceed xmlns='{ns.TLS}'/>".encode())
        await self._wire.start_tls(self._server.tls, server_side=True)
        self.tls_mode = "starttls"

    async def _authenticate(self, element: etree._Element, what: str) -> bool:
        """Play one SASL attempt; True when it succeeded."""
        if what not in ("auth", "abort", "response"):
            raise StreamRefused("unsupported-stanza-type")
        try:
            last_words = await self._attempt(element, what)
        except auth.SaslRefused as refused:
            self._server.on_login_refused(self, refused.condition)
            await self._wire.send(f"<failure xmlns='{ns.SASL}'><{refused.condition}/></failure>".encode())
            self._tries += 1
            if self._tries >= LOGIN_TRIES_MAX:
                raise StreamRefused("policy-violation") from None
            return False
        inside = f">{auth.encode(last_words)}</success>" if last_words else "/>"
        await self._wire.send(f"<success xmlns='{ns.SASL}'{inside}".encode())
        return True

    async def _attempt(self, element: etree._Element, what: str) -> bytes:
        if not self._may_log_in:
            raise auth.SaslRefused("encryption-required")
        if what != "auth" or self._user is not None:
            raise auth.SaslRefused("aborted" if what == "abort" else "malformed-request")
        mechanism = element.get("mechanism", "")
        if mechanism not in self._server.offered(self):
            raise auth.SaslRefused("invalid-mechanism")
        self._server.check_login(self, mechanism)
        exchange = auth.server_exchange(mechanism, self._server.accounts)
        text = words.text_of(element)
        # Without an initial response the server begins with an empty challenge (RFC 4422 section 5).
        message = auth.decode(text) if text else await self._challenge(b"")
        while True:
            answer = exchange.step(message)
            if exchange.user is not None:
                self._user = exchange.user
                return answer
            message = await self._challenge(answer)

    async def _challenge(self, challenge: bytes) -> bytes:
        inside = f">{auth.encode(challenge)}</challenge>" if challenge else "/>"
        await self._wire.send(f"<challenge xmlns='{ns.SASL}'{inside}".encode())
        element = await self._receive()
        match str(element.tag).removeprefix(f"{{{ns.SASL}}}"):
            case "response":
                return auth.decode(words.text_of(element))
            case "abort":
                raise auth.SaslRefused("aborted")
            case _:
                raise auth.SaslRefused("malformed-request")

    async def _answer_sm(self, element: etree._Element, what: str, user: str) -> Session | None:
        """Resume, or say why not (XEP-0198 sections 3 and 5)."""
        if what != "resume":
            await self._wire.send(_sm_failed("unexpected-request"))
            return None
        session = self._server.find_resumable(user, element.get("previd", ""))
        h = parse_h(element.get("h"))
        if session is None or h is None:
            await self._wire.send(_sm_failed("item-not-found" if session is None else "bad-request"))
            return None
        if session.outlet is not None:
            session.outlet.end("conflict")
        try:
            session.resume(self, h)
        except AckedTooMuch as too_much:
            self._server.remove(session)
            raise _handled_too_high(too_much) from None
        self._server.on_resumed(session)
        return session

    async def _bind(self, element: etree._Element, user: str) -> Session | None:
        """Bind a resource (RFC 6120 section 7); anything else has to wait."""
        bind = words.child(element, ns.BIND, "bind")
        if bind is None or element.get("type") != "set" or element.get("id") is None:
            await self._wire.send(words.error_reply(element, "not-allowed"))
            return None
        wanted = words.text_of(words.child(bind, ns.BIND, "resource"))
        try:
            jid = Jid.from_text(f"{user}@{self._server.domain}/{wanted or self._server.token()}")
        except JidError:
            await self._wire.send(words.error_reply(element, "bad-request"))
            return None
        session = self._server.bind(jid, self)
        if session is None:
            await self._wire.send(words.error_reply(element, "conflict"))
            return None
        inside = f"<bind xmlns='{ns.BIND}'><jid>{words.escaped(str(session.jid))}</jid></bind>"
        self.say(words.iq("result", id_=element.get("id", ""), inside=inside))
        return session

    # The conversation.

    async def _converse(self, session: Session) -> None:
        async with trio.open_nursery() as nursery:
            assert self._scope is not None
            nursery.start_soon(self._write)
            try:
                await self._read(session)
            except PeerLeft as left:
                if not left.in_form:
                    nursery.cancel_scope.cancel()
                    return
                # A session closed in form is over: there is nothing to come back to (XEP-0198 section 5).
                self._server.on_closed(session)
                self._server.remove(session)
                self.close_stream()
            except StreamRefused as refused:
                self._server.on_stream_refused(self, refused.condition)
                self._server.remove(session)
                self.end(refused.condition, inside=refused.inside)
            self._said.set()

    async def _read(self, session: Session) -> None:
        while True:
            element = await self._receive()
            if self._ending:
                continue  # nothing is answered after our closing tag; only theirs is waited for
            name = ns.qname(element.tag)
            if name.namespace == ns.CLIENT and name.localname in ns.STANZA_KINDS:
                if session.sm is not None:
                    session.sm.on_received()
                await self._server.take(session, element, name.localname)
            elif name.namespace == ns.SM3:
                self._take_sm(session, element, name.localname)
            elif self._server.takes_nonza(session, element):
                pass
            else:
                raise StreamRefused("unsupported-stanza-type")

    def _take_sm(self, session: Session, element: etree._Element, what: str) -> None:
        match what:
            case "enable" if session.sm is None:
                wants_resume = element.get("resume") in ("true", "1")
                if (granted := self._server.grants_sm(session, wants_resume=wants_resume)) == "no":
                    self.say(_sm_failed("unexpected-request"))
                    return
                can_resume = wants_resume and granted == "resume"
                session.sm = SmState(self._server.token() if can_resume else None)
                about = words.attributes(
                    id_=session.sm.id,
                    resume="true" if can_resume else None,
                    max=str(int(self._server.resume_seconds_max)) if can_resume else None,
                )
                self.say(f"<enabled xmlns='{ns.SM3}'{about}/>".encode())
            case "r" if session.sm is not None:
                self.say(f"<a xmlns='{ns.SM3}' h='{session.sm.h}'/>".encode())
            case "a" if session.sm is not None:
                if (h := parse_h(element.get("h"))) is None:
                    raise StreamRefused("policy-violation")
                try:
                    session.on_ack(h)
                except AckedTooMuch as too_much:
                    raise _handled_too_high(too_much) from None
            case "enable" | "resume":
                self.say(_sm_failed("unexpected-request"))
            case _:
                raise StreamRefused("unsupported-stanza-type")

    async def _write(self) -> None:
        """Send what was said, together what was said together."""
        while True:
            await self._said.wait()
            self._said = trio.Event()
            while self._outbox:
                data, self._outbox = bytes(self._outbox), bytearray()
                try:
                    await self._wire.send(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    assert self._scope is not None
                    self._scope.cancel()
                    return
                self._room.set()
                self._room = trio.Event()
            if self._ending:
                return


def _condition_for(kind: ViolationKind) -> str:
    if kind in _RESTRICTED:
        return "restricted-xml"
    if kind in _NO_FORMAT:
        return "bad-format"
    if kind is ViolationKind.NOT_A_STREAM:
        return "invalid-namespace"
    if kind is ViolationKind.ENCODING:
        return "unsupported-encoding"
    return "policy-violation" if kind is ViolationKind.TOO_DEEP else "not-well-formed"


def _sm_failed(condition: str) -> bytes:
    return f"<failed xmlns='{ns.SM3}'><{condition} xmlns='{ns.STANZA_ERRORS}'/></failed>".encode()


def _handled_too_high(too_much: AckedTooMuch) -> StreamRefused:
    about = f"h='{too_much.h}' send-count='{too_much.sent}'"
    return StreamRefused("undefined-condition", inside=f"<handled-count-too-high xmlns='{ns.SM3}' {about}/>")
