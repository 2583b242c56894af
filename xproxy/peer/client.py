"""A scripted XMPP client: a test reads as a dialogue.

    async with Client(host="127.0.0.1", port=port, domain="example.test", tls=context) as client:
        await client.login("juliet", "...", mechanism="SCRAM-SHA-256")
        await client.bind("balcony")
        await client.send_message("romeo@example.test", "Art thou not Romeo?")
        answer = await client.expect("message")
        await client.close()

It has no task of its own: what arrives is read while the script waits for something. Pings and requests for
acknowledgement are answered meanwhile, stanzas that are not the awaited one are kept for later waits, in order.
"""

import contextlib
import copy
import enum
import ipaddress
import itertools
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import attrs
import trio
from lxml import etree

from xproxy.config.stream import StreamLimits
from xproxy.peer import auth, services, words
from xproxy.peer.errors import (
    Disconnected,
    LoginFailed,
    PeerTimeout,
    ResumeFailed,
    StanzaFailed,
    StreamFailed,
    TlsRefused,
)
from xproxy.peer.sm import AckedTooMuch, SmState, parse_h
from xproxy.peer.wire import Wire
from xproxy.xmpp import ns
from xproxy.xmpp.stream import FirstLevelElement, Severity, StreamEnd, StreamHeader, StreamLimit, Violation

WAIT_SECONDS_MAX: Final = 10.0
BACKLOG_MAX: Final = 100_000  # stanzas kept for later waits; a script that has not looked at so many never will
LIMITS: Final = StreamLimits(stanza_bytes_max=16 * 1_048_576, stanza_bytes_warn=16 * 1_048_576)


class Mode(enum.Enum):
    """How the connection is secured."""

    STARTTLS = "starttls"  # RFC 6120 section 5; refused by the server: StreamFailed
    DIRECT_TLS = "direct-tls"  # XEP-0368
    CLEAR = "clear"  # even if the server offers TLS


def trusting(ca_file: Path | str, *, tls_version_max: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return a context for a client that believes ``ca_file`` alone."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file)
    if tls_version_max is not None:
        context.maximum_version = tls_version_max
    return context


Matches = Callable[[etree._Element], bool]
Preface = Callable[[tuple[str, int], tuple[str, int]], bytes]
"""Makes the first octets of a connection from our address and the peer's: a PROXY protocol header."""


@attrs.define(eq=False, kw_only=True)
class Client:
    """One user's client. Entering it connects; leaving it drops what is still open.

    Every method may raise StreamFailed, Disconnected and PeerTimeout.
    """

    host: str
    port: int
    domain: str
    tls: ssl.SSLContext | None = None
    mode: Mode = Mode.STARTTLS
    wait_seconds_max: float = WAIT_SECONDS_MAX
    answers_pings: bool = True
    tls_name: str | None = attrs.field(default=attrs.Factory(lambda self: self.domain, takes_self=True))
    """SNI, and what the context compares with if it checks names; None: neither."""
    local_address: str | None = None
    """The address to connect from; None: what the system chooses."""
    preface: Preface | None = None
    limits: StreamLimits = LIMITS
    backlog_max: int = BACKLOG_MAX

    jid: str | None = attrs.field(init=False, default=None)  # full, once bound
    features: etree._Element | None = attrs.field(init=False, default=None)
    stream_id: str | None = attrs.field(init=False, default=None)
    sm: SmState | None = attrs.field(init=False, default=None)
    sm_location: str | None = attrs.field(init=False, default=None)  # where to resume, by the server's wish
    backlog: deque[etree._Element] = attrs.field(init=False, factory=deque)  # stanzas that came unawaited

    _wire: Wire | None = attrs.field(init=False, default=None)
    _opening: bytes = attrs.field(init=False, default=b"", repr=False)
    _credentials: tuple[str, str, str | None] | None = attrs.field(init=False, default=None, repr=False)
    _ids: Iterator[int] = attrs.field(init=False, factory=lambda: itertools.count(1), repr=False)

    # Connecting.

    async def __aenter__(self) -> Self:
        """Connect."""
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop the connection if it is still open."""
        if self._wire is not None:
            self.drop()

    @property
    def tls_version(self) -> str | None:
        """The TLS version in use ("TLSv1.3"), None in clear."""
        return None if self._wire is None else self._wire.tls_version

    @property
    def tls_object(self) -> ssl.SSLObject | None:
        """TLS as the standard library has it, None in clear."""
        return None if self._wire is None else self._wire.tls

    @property
    def opening(self) -> bytes:
        """The first octets the peer sent in clear (``Wire.opening``)."""
        return self._opening if self._wire is None else self._wire.opening

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms the server offers, in its order."""
        offered = None if self.features is None else words.child(self.features, ns.SASL, "mechanisms")
        return () if offered is None else tuple(words.text_of(name) for name in offered)

    async def connect(self) -> None:
        """Open the connection and the stream, secure them as ``mode`` says; ``features`` are there afterwards.

        Raises:
            OSError: nobody listens.
            TlsRefused: the handshake failed.
        """
        with self._patience("connecting"):
            await self.connect_only()
            try:
                if self.mode is Mode.DIRECT_TLS:
                    await self.start_tls()
                await self.open_stream()
                if self.mode is Mode.STARTTLS:
                    await self.request_tls()
                    await self.start_tls()
                    await self.open_stream()
            except BaseException:
                self.drop()
                raise

    # The steps of ``connect``, for scripts that look at what is between them, or say something unusual.

    async def connect_only(self) -> None:
        """Open the connection; nothing is said yet but ``preface``.

        Raises:
            OSError: nobody listens.
        """
        self._wire = Wire(await _connect(self.host, self.port, self.local_address), limits=self.limits)
        if self.preface is not None:
            try:
                header = self.preface(*self._wire.addresses)
            except OSError:
                raise Disconnected("connecting") from None
            await self._send_raw(header)

    async def open_stream(self) -> None:
        """Send our header, read the server's and its features."""
        with self._patience("opening the stream"):
            await self._send_raw(words.stream_header(to=self.domain))
            await self.expect_stream()

    async def request_tls(self) -> None:
        """Ask for STARTTLS and wait for the server to proceed.

        Raises:
            StreamFailed: with "starttls-refused".
        """
        with self._patience("asking for TLS"):
            await self._send_raw(f"<starttls xmlns='{ns.TLS}'/>".encode())
            answer = await self._receive()
        if answer.tag != f"{{{ns.TLS}}}proceed":
            raise StreamFailed("starttls-refused")

    async def start_tls(self) -> None:
        """Do the handshake.

        Raises:
            TlsRefused: it failed.
        """
        if self.tls is None:
            raise TlsRefused("this client was given no TLS context")
        with self._patience("making TLS"):
            await self._connected().start_tls(self.tls, server_side=False, name=self.tls_name)

    def expect_restart(self) -> None:
        """The server's next byte begins a new stream. For scripts that do not use ``login``."""
        self._connected().restart()

    async def expect_stream(self) -> None:
        """Read the server's header and features. For scripts that do not use ``connect`` or ``login``."""
        item = await self._next()
        if not isinstance(item, StreamHeader):
            raise StreamFailed("bad-format")
        self.stream_id = item.attributes.get("id")
        features = await self._receive()
        if features.tag != f"{{{ns.STREAMS}}}features":
            raise StreamFailed("bad-format")
        self.features = features

    # Logging in.

    async def login(self, user: str, password: str, *, mechanism: str | None = None) -> None:
        """Authenticate; without ``mechanism`` with the strongest that both know. The stream is open again afterwards.

        Raises:
            LoginFailed: the server refused, or did not prove that it knows the password. The stream is still open.
        """
        with self._patience("logging in"):
            chosen = mechanism or next((name for name in auth.MECHANISMS if name in self.mechanisms), None)
            if chosen is None:
                raise LoginFailed("no-common-mechanism")
            self._credentials = (user, password, mechanism)
            exchange = auth.client_exchange(chosen, user, password)
            await self._send_raw(
                f"<auth xmlns='{ns.SASL}' mechanism='{chosen}'>{auth.encode(exchange.first())}</auth>".encode()
            )
            try:
                await self._authenticate(exchange)
            except auth.SaslRefused as refused:
                raise LoginFailed(refused.condition) from None
            self.expect_restart()
            await self.open_stream()

    async def _authenticate(self, exchange: auth.ClientExchange) -> None:
        while True:
            element = await self._receive()
            match str(element.tag).removeprefix(f"{{{ns.SASL}}}"):
                case "challenge":
                    answer = auth.encode(exchange.respond(auth.decode(words.text_of(element))))
                    await self._send_raw(f"<response xmlns='{ns.SASL}'>{answer}</response>".encode())
                case "success":
                    exchange.finish(auth.decode(words.text_of(element)))
                    return
                case "failure":
                    text = words.text_of(words.child(element, ns.SASL, "text"))
                    raise LoginFailed(words.condition_of(element, ns.SASL), text or None)
                case _:
                    raise StreamFailed("bad-format")

    async def bind(self, resource: str | None = None) -> str:
        """Bind a resource, of the server's choice without ``resource``; return the full JID.

        Raises:
            StanzaFailed: refused.
        """
        wanted = f"<resource>{words.escaped(resource)}</resource>" if resource else ""
        answer = await self.request(f"<bind xmlns='{ns.BIND}'>{wanted}</bind>", type_="set")
        self.jid = words.text_of(answer.find(f".//{{{ns.BIND}}}jid"))
        self._connected().settled()
        return self.jid

    async def enter(
        self, user: str, password: str, resource: str | None = None, *, mechanism: str | None = None
    ) -> str:
        """Log in and bind; return the full JID."""
        await self.login(user, password, mechanism=mechanism)
        return await self.bind(resource)

    # Talking.

    async def send(self, stanza: str | bytes) -> None:
        """Send a stanza, or anything else, as it is. Counted by stream management if it is a stanza."""
        data = stanza.encode() if isinstance(stanza, str) else stanza
        if self.sm is not None and data.startswith((b"<message", b"<iq", b"<presence")):
            self.sm.on_sent(data)
        await self._send_raw(data)

    async def send_message(self, to: str, body: str, *, type_: str = "chat") -> str:
        """Send a message; return its id."""
        id_ = f"m{next(self._ids)}"
        await self.send(words.message(to=to, body=body, id_=id_, type_=type_))
        return id_

    async def send_presence(self) -> None:
        """Become available."""
        await self.send("<presence/>")

    async def receive(self) -> etree._Element:
        """Return the next stanza, what was kept first."""
        return await self.expect(lambda _: True)

    async def expect(self, wanted: str | Matches) -> etree._Element:
        """Return the first stanza that is ``wanted``: a kind ("message"), or a function that says so."""
        matches: Matches = (lambda e: e.tag == f"{{{ns.CLIENT}}}{wanted}") if isinstance(wanted, str) else wanted
        for index, kept in enumerate(self.backlog):
            if matches(kept):
                del self.backlog[index]
                return kept
        with self._patience(f"waiting for {wanted if isinstance(wanted, str) else 'a stanza'}"):
            while not matches(stanza := await self._receive_stanza()):
                self._keep(stanza)
        return stanza

    async def request(self, inside: str, *, to: str | None = None, type_: str = "get") -> etree._Element:
        """Send an iq and return the result.

        Raises:
            StanzaFailed: the answer is an error.
        """
        id_ = f"q{next(self._ids)}"
        await self.send(words.iq(type_, id_=id_, to=to, inside=inside))
        # Prosody and ejabberd answer for the account with either no "from" or the bare JID; the id is ours alone.
        answer = await self.expect(
            lambda e: e.tag == f"{{{ns.CLIENT}}}iq" and e.get("id") == id_ and e.get("type") in ("result", "error")
        )
        if answer.get("type") == "error":
            error = words.child(answer, ns.CLIENT, "error")
            if error is None:
                raise StanzaFailed("undefined-condition", "")
            text = words.text_of(words.child(error, ns.STANZA_ERRORS, "text"))
            raise StanzaFailed(words.condition_of(error, ns.STANZA_ERRORS), error.get("type", ""), text or None)
        return answer

    async def ping(self, to: str | None = None) -> None:
        """Ping the server, or ``to``, and wait for the answer (XEP-0199).

        Raises:
            StanzaFailed: as ``request``.
        """
        await self.request(f"<ping xmlns='{services.PING}'/>", to=to)

    async def roster(self) -> dict[str, str]:
        """Fetch the roster: bare JID -> name.

        Raises:
            StanzaFailed: as ``request``.
        """
        answer = await self.request(f"<query xmlns='{services.ROSTER}'/>")
        return {item.get("jid", ""): item.get("name", "") for item in answer.iter(f"{{{services.ROSTER}}}item")}

    # Stream management (XEP-0198).

    async def enable_sm(self, *, resume: bool = True) -> None:
        """Switch it on.

        Raises:
            ResumeFailed: the server will not.
        """
        wish = " resume='true'" if resume else ""
        await self._send_raw(f"<enable xmlns='{ns.SM3}'{wish}/>".encode())
        with self._patience("enabling stream management"):
            answer = await self._receive_nonza("enabled", "failed")
        if answer.tag != f"{{{ns.SM3}}}enabled":
            raise ResumeFailed(words.condition_of(answer, ns.STANZA_ERRORS))
        can_resume = answer.get("resume") in ("true", "1")
        self.sm = SmState(answer.get("id") if can_resume else None)
        self.sm_location = answer.get("location")

    async def request_ack(self) -> None:
        """Ask how much the server has and wait for the answer."""
        assert self.sm is not None
        await self._send_raw(f"<r xmlns='{ns.SM3}'/>".encode())
        with self._patience("waiting for an acknowledgement"):
            await self._receive_nonza("a")

    async def acknowledge(self) -> None:
        """Say how much came, unasked."""
        assert self.sm is not None
        await self._send_raw(f"<a xmlns='{ns.SM3}' h='{self.sm.h}'/>".encode())

    async def resume(self) -> None:
        """Connect again, log in as before and take the session up; what the server lacks is sent again.

        Raises:
            ResumeFailed: the session is gone; the client is logged in and may bind.
        """
        assert self.sm is not None
        assert self._credentials is not None
        if self._wire is not None:
            self.drop()
        user, password, mechanism = self._credentials
        await self.connect()
        await self.login(user, password, mechanism=mechanism)
        await self._send_raw(f"<resume xmlns='{ns.SM3}' previd='{self.sm.id}' h='{self.sm.h}'/>".encode())
        with self._patience("resuming"):
            answer = await self._receive()
        if answer.tag != f"{{{ns.SM3}}}resumed":
            self.sm = None
            raise ResumeFailed(words.condition_of(answer, ns.STANZA_ERRORS))
        self._connected().settled()
        self._on_ack(answer)
        for stanza in self.sm.unacked:
            await self._send_raw(stanza)

    # Leaving.

    def drop(self, *, reset: bool = False) -> None:
        """Lose the connection: no closing tag, no close_notify; RST instead of FIN if ``reset``."""
        wire, self._wire = self._connected(), None
        self._opening = wire.opening
        wire.drop(reset=reset)

    async def send_close(self) -> None:
        """Say the closing tag and nothing more; somebody else reads the server's."""
        await self._send_raw(words.HEADER_CLOSE)

    async def close(self) -> None:
        """Close the stream in form: our closing tag, the server's, the end (RFC 6120 section 4.4)."""
        with self._patience("closing the stream"):
            await self._send_raw(words.HEADER_CLOSE)
            with contextlib.suppress(Disconnected):  # some servers just hang up
                while not isinstance(await self._next(), StreamEnd):
                    pass
            wire, self._wire = self._connected(), None
            await wire.close()

    # Reading.

    def _connected(self) -> Wire:
        if self._wire is None:
            raise Disconnected("talking: the client is not connected")
        return self._wire

    @contextlib.contextmanager
    def _patience(self, doing: str) -> Iterator[None]:
        with trio.CancelScope(deadline=trio.current_time() + self.wait_seconds_max) as scope:
            try:
                yield
            except trio.BrokenResourceError:
                raise Disconnected(doing) from None
        if scope.cancelled_caught:
            raise PeerTimeout(doing, self.wait_seconds_max)

    async def _send_raw(self, data: bytes) -> None:
        try:
            await self._connected().send(data)
        except trio.BrokenResourceError:
            raise Disconnected("sending") from None

    async def _next(self) -> StreamHeader | FirstLevelElement | StreamEnd:
        while True:
            item = await self._connected().receive()
            match item:
                case None:
                    raise Disconnected("waiting", how="ended")
                case Violation(severity=Severity.NOTE) | StreamLimit(closes=False):
                    continue
                case Violation(kind=kind):
                    raise StreamFailed(kind.value)
                case StreamLimit(limit=limit):
                    raise StreamFailed(limit)
                case _:
                    return item

    async def _receive(self) -> etree._Element:
        """Return the next first-level element, without a stream's error."""
        match await self._next():
            case FirstLevelElement(element=element):
                if element.tag == f"{{{ns.STREAMS}}}error":
                    raise _stream_failed(element)
                return copy.deepcopy(element)  # the reader takes its own back
            case StreamEnd():
                raise Disconnected("waiting: the stream was closed", how="closed")
            case _:
                raise StreamFailed("bad-format")

    async def _receive_stanza(self) -> etree._Element:
        while True:
            element = await self._receive()
            if not await self._is_dealt_with(element):
                return element

    async def _receive_nonza(self, *names: str) -> etree._Element:
        wanted = {f"{{{ns.SM3}}}{name}" for name in names}
        while True:
            element = await self._receive()
            if element.tag in wanted:
                self._on_ack(element)
                return element
            if not await self._is_dealt_with(element):
                self._keep(element)

    def _keep(self, element: etree._Element) -> None:
        if len(self.backlog) >= self.backlog_max:
            raise StreamFailed("too-many-stanzas")
        self.backlog.append(element)

    async def _is_dealt_with(self, element: etree._Element) -> bool:
        """Count a stanza; answer what needs no script."""
        name = ns.qname(element.tag)
        if name.namespace == ns.SM3 and name.localname in ("r", "a"):
            if name.localname == "r" and self.sm is not None:
                await self._send_raw(f"<a xmlns='{ns.SM3}' h='{self.sm.h}'/>".encode())
            elif name.localname == "a":
                self._on_ack(element)
            return True
        if name.namespace == ns.CLIENT and name.localname in ns.STANZA_KINDS:
            if self.sm is not None:
                self.sm.on_received()
            if (
                self.answers_pings
                and element.get("type") == "get"
                and element.find(f"{{{services.PING}}}ping") is not None
            ):
                await self.send(words.iq("result", id_=element.get("id", ""), to=element.get("from")))
                return True
        return False

    def _on_ack(self, element: etree._Element) -> None:
        h = parse_h(element.get("h"))
        if self.sm is not None and h is not None:
            try:
                self.sm.on_ack(h)
            except AckedTooMuch as too_much:
                raise StreamFailed("handled-count-too-high", str(too_much)) from None


def _stream_failed(error: etree._Element) -> StreamFailed:
    condition = words.condition_of(error, ns.STREAM_ERRORS)
    text = words.text_of(words.child(error, ns.STREAM_ERRORS, "text"))
    content = words.text_of(words.child(error, ns.STREAM_ERRORS, condition))
    return StreamFailed(condition, text or None, content=content.strip() or None, by_peer=True)


async def _connect(host: str, port: int, local_address: str | None) -> trio.SocketStream:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return await trio.open_tcp_stream(host, port, local_address=local_address)
    family = trio.socket.AF_INET6 if version == 6 else trio.socket.AF_INET
    sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        if local_address is not None:
            await sock.bind((local_address, 0))
        await sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)
