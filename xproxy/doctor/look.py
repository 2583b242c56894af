"""One connection to the server, as far as it goes without a login, and what was seen on it.

A ``Look`` is a value: where it ended early, ``stop`` says at which step and why. What the server shows is read by the
same code the proxy reads it with (features, certificates, failures of TLS), so a finding is what xproxy would meet.
"""

import contextlib
import enum
import errno
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Final

import attrs
import trio
from lxml import etree

from xproxy.config.stream import StreamLimits
from xproxy.doctor.findings import quoted
from xproxy.events import Endpoint, Side
from xproxy.events.tls import TlsEstablished, TlsFailure
from xproxy.peer import words
from xproxy.peer.client import Client, Mode
from xproxy.peer.errors import Disconnected, PeerError, PeerTimeout, StreamFailed, TlsRefused
from xproxy.proxy.proxy_protocol import render_v2
from xproxy.tls.contexts import TLS_1_2, TLS_1_3, ServerLegContexts
from xproxy.tls.facts import tls_established
from xproxy.tls.failures import HandshakeRefused, failure_of
from xproxy.tls.verify import Authorities, UpstreamIdentity, judge_upstream, server_name_for, verify_upstream
from xproxy.xmpp import ns, sasl2
from xproxy.xmpp.negotiate import Features, read_features

STEP_SECONDS_MAX: Final = 8.0  # a step of one connection; XMPPFramework waits 10 s for the first octet and gives up
PARTING_SECONDS_MAX: Final = 1.0  # to say the closing tag to a server that may not read any more
BACKLOG_MAX: Final = 64  # stanzas that come unasked; behind a login a server sends a handful
ALPN: Final = ("xmpp-client",)  # XEP-0368 section 4
POLICY_CONDITIONS: Final = frozenset({"policy-violation", "resource-constraint"})  # RFC 6120 section 4.9.3
LIMITS: Final = StreamLimits()  # the proxy's own: what would break there breaks here


class Step(enum.Enum):
    """How far a connection came."""

    CONNECT = "connecting"
    STREAM = "opening the stream"
    STARTTLS = "asking for STARTTLS"
    TLS = "the TLS handshake"
    SECURED = "opening the stream above TLS"


@attrs.frozen(kw_only=True)
class Way:
    """How to reach the server: an address and how TLS begins there."""

    address: str
    port: int
    mode: Mode
    proxied: bool = False  # a PROXY protocol header goes first

    def __str__(self) -> str:
        """Return it as it is shown."""
        kind = {Mode.STARTTLS: "STARTTLS", Mode.DIRECT_TLS: "direct TLS", Mode.CLEAR: "in clear"}[self.mode]
        return f"{Endpoint(self.address, self.port)} ({kind}{', PROXY header first' if self.proxied else ''})"


@attrs.frozen(kw_only=True)
class Stop:
    """Why a look ended early."""

    step: Step
    reason: str
    """"refused", "unreachable", "silent", "closed", "not-xmpp", "tls", "injection", or a stream error's condition."""
    text: str  # a sentence's end; what the peer said in it is cut, and made harmless in the finding
    content: str | None = None  # of the condition: where a redirect leads
    tls: TlsFailure | None = None

    @property
    def is_silence(self) -> bool:
        """The server says nothing, or hangs up without a word: it waits for something else than XMPP in clear."""
        return self.reason in ("silent", "closed")


@attrs.frozen(kw_only=True)
class Offered:
    """The features of one stream."""

    features: Features
    sasl2: sasl2.Offer | None

    @classmethod
    def from_element(cls, element: etree._Element) -> "Offered":
        """Read ``<stream:features/>``."""
        within = element.find(sasl2.AUTHENTICATION)
        return cls(features=read_features(element), sasl2=None if within is None else sasl2.read_offer(within))

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Of RFC 6120, in the order sent."""
        return next((offer.mechanisms for offer in self.features.offers if offer.profile != sasl2.PROFILE), ())

    @property
    def bindings(self) -> tuple[str, ...]:
        """The advertised channel bindings (XEP-0440); none if none are advertised."""
        return next((offer.channel_bindings for offer in self.features.offers if offer.channel_bindings), ())

    @property
    def names(self) -> tuple[str, ...]:
        """What is offered, "{namespace}name" each."""
        return self.features.seen.features


@attrs.frozen(kw_only=True)
class Look:
    """What was seen on one connection."""

    way: Way
    connect_seconds: float | None = None
    clear: Offered | None = None  # before TLS
    tls: TlsEstablished | None = None
    identity: UpstreamIdentity | None = None
    secured: Offered | None = None  # above TLS
    seconds: float | None = None  # from the first SYN to the last features
    stop: Stop | None = None


@attrs.define(eq=False)
class _Seen:
    """A look that is being had."""

    way: Way
    began: float = attrs.field(factory=trio.current_time)
    step: Step = Step.CONNECT
    connect_seconds: float | None = None
    clear: Offered | None = None
    tls: TlsEstablished | None = None
    identity: UpstreamIdentity | None = None
    secured: Offered | None = None

    def look(self, stop: Stop | None = None) -> Look:
        return Look(
            way=self.way,
            connect_seconds=self.connect_seconds,
            clear=self.clear,
            tls=self.tls,
            identity=self.identity,
            secured=self.secured,
            seconds=None if stop else trio.current_time() - self.began,
            stop=stop,
        )


@attrs.define(eq=False, kw_only=True)
class Visitor:
    """Looks at one domain's server."""

    domain: str
    authorities: Authorities
    seconds_max: float = STEP_SECONDS_MAX
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    connections: int = attrs.field(init=False, default=0)
    refused: "tuple[int, Stop] | None" = attrs.field(init=False, default=None)
    """The first connection that was turned away for a policy, counted from 1, after another had been served."""
    _served: bool = attrs.field(init=False, default=False)
    _verifying: ServerLegContexts = attrs.field(init=False, repr=False)
    _believing: ServerLegContexts = attrs.field(init=False, repr=False)
    _server_name: str | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make what is the same for all connections. Raises HandshakeRefused for a domain that is no name."""
        self._verifying = ServerLegContexts(self.authorities, verify=True)
        self._believing = ServerLegContexts(self.authorities, verify=False)
        self._server_name = server_name_for(self.domain)

    async def look(self, way: Way, *, verify: bool = False, version: int | None = None) -> Look:
        """Look at what is there along ``way``; ``version``: with this version of TLS alone (0x0304 is 1.3)."""
        async with self.visit(way, verify=verify, version=version) as (_, look):
            return look

    async def touch(self, way: Way) -> Look:
        """Make a TCP connection and no more."""
        self.connections += 1
        client, seen = self._client(way, None), _Seen(way)
        try:
            await self._connect(client, seen)
        except (OSError, PeerError) as error:
            return seen.look(_stop(error, seen.step, client))
        finally:
            with contextlib.suppress(PeerError):
                client.drop()
        return seen.look()

    @contextlib.asynccontextmanager
    async def visit(
        self, way: Way, *, verify: bool = False, version: int | None = None
    ) -> AsyncIterator[tuple[Client, Look]]:
        """Look, and go on talking: the client is at the features above TLS unless the look has a ``stop``."""
        self.connections += 1
        client, seen = self._client(way, self._context(way, verify=verify, version=version)), _Seen(way)
        try:
            yield client, await self._approach(client, seen)
        finally:
            await _leave(client)

    def _client(self, way: Way, tls: ssl.SSLContext | None) -> Client:
        return Client(
            host=way.address,
            port=way.port,
            domain=self.domain,
            mode=way.mode,
            tls=tls,
            tls_name=self._server_name,
            wait_seconds_max=self.seconds_max,
            preface=_proxy_header if way.proxied else None,
            limits=LIMITS,
            backlog_max=BACKLOG_MAX,
        )

    def _context(self, way: Way, *, verify: bool, version: int | None) -> ssl.SSLContext:
        alpn = ALPN if way.mode is Mode.DIRECT_TLS else ()
        if version is not None and version < TLS_1_2:
            old = ServerLegContexts(self.authorities, verify=False, minimum_version=version)
            return old.get(top_version=version, alpn=alpn)
        if version is not None:
            only = ServerLegContexts(self.authorities, verify=verify, minimum_version=version)
            return only.get(top_version=version, alpn=alpn)
        return (self._verifying if verify else self._believing).get(top_version=TLS_1_3, alpn=alpn)

    async def _approach(self, client: Client, seen: _Seen) -> Look:
        try:
            await self._go(client, seen)
        except (OSError, PeerError, HandshakeRefused) as error:
            stop = _stop(error, seen.step, client)
            if self._served and self.refused is None and stop.reason in POLICY_CONDITIONS:
                self.refused = self.connections, stop
            return seen.look(stop)
        self._served = True
        return seen.look()

    async def _connect(self, client: Client, seen: _Seen) -> None:
        with trio.CancelScope(deadline=trio.current_time() + self.seconds_max) as scope:
            await client.connect_only()
        if scope.cancelled_caught:
            raise PeerTimeout("connecting", self.seconds_max)
        seen.connect_seconds = trio.current_time() - seen.began

    async def _go(self, client: Client, seen: _Seen) -> None:
        await self._connect(client, seen)
        if client.mode is not Mode.DIRECT_TLS:
            seen.step = Step.STREAM
            seen.clear = await _offered(client)
            if client.mode is Mode.CLEAR or not seen.clear.features.starttls_offered:
                return
            seen.step = Step.STARTTLS
            await client.request_tls()
        seen.step = Step.TLS
        begun = trio.current_time()
        await client.start_tls()
        tls = client.tls_object
        assert tls is not None
        if tls.context.verify_mode is ssl.CERT_REQUIRED:
            seen.identity = verify_upstream(tls, self.domain)
        else:
            seen.identity = judge_upstream(tls, self.domain, authorities=self.authorities, now=self.now())
        seen.tls = tls_established(
            tls,
            Side.SERVER,
            direct=client.mode is Mode.DIRECT_TLS,
            seconds=trio.current_time() - begun,
            server_name=self._server_name,
            certificate=seen.identity.certificate,
            verify=seen.identity.verdict,
        )
        seen.step = Step.SECURED
        seen.secured = await _offered(client)


async def _offered(client: Client) -> Offered:
    await client.open_stream()
    assert client.features is not None
    return Offered.from_element(client.features)


def _proxy_header(us: tuple[str, int], them: tuple[str, int]) -> bytes:
    """Say the truth in it: we are who connects. Nothing is claimed for others."""
    return render_v2(Endpoint(*us), Endpoint(*them))


async def _leave(client: Client) -> None:
    """Say goodbye if anybody listens, and go."""
    with trio.move_on_after(PARTING_SECONDS_MAX, shield=True), contextlib.suppress(PeerError, OSError):
        await client.send(words.HEADER_CLOSE)
    with contextlib.suppress(PeerError):
        client.drop()


def _stop(error: Exception, step: Step, client: Client) -> Stop:
    if step is Step.STREAM and (what := _protocol_of(client.opening)):
        return Stop(step=step, reason="not-xmpp", text=f"speaks {what}")
    match error:
        case PeerTimeout():
            return Stop(step=step, reason="silent", text=f"says nothing within {error.seconds:g} s")
        case Disconnected():
            return Stop(step=step, reason="closed", text="hangs up")
        case TlsRefused():
            return _tls_stop(_cause_of(error), step)
        case HandshakeRefused():
            return _tls_stop(error, step)
        case StreamFailed():
            return _stream_stop(error, step, client.opening)
        case OSError():
            return _connect_stop(error, step)
        case _:
            return Stop(step=step, reason="other", text=f"fails: {type(error).__name__}")


def _cause_of(error: TlsRefused) -> BaseException:
    """The error of OpenSSL behind what trio made of it."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return cause


def _tls_stop(error: BaseException, step: Step) -> Stop:
    if isinstance(error, TlsRefused):  # nothing of OpenSSL's is behind it
        return Stop(step=step, reason="injection", text="sends more in clear behind <proceed/>", tls=TlsFailure.OTHER)
    failed = failure_of(error, Side.SERVER, direct=False, seconds=0.0)
    told = failed.alert or failed.detail
    return Stop(
        step=step,
        reason="tls",
        text=f"fails at TLS: {failed.reason.value}" + (f" ({told})" if told else ""),
        tls=failed.reason,
    )


def _stream_stop(error: StreamFailed, step: Step, opening: bytes) -> Stop:
    if error.by_peer:
        known = error.condition in ns.STREAM_CONDITIONS | ns.STREAM_CONDITIONS_LEGACY
        said = f" {quoted(error.text)}" if error.text else ""
        return Stop(
            step=step,
            reason=error.condition if known else "other",
            text=f"answers with the stream error {error.condition if known else quoted(error.condition)}{said}",
            content=error.content,
        )
    if error.condition == "starttls-refused":
        return Stop(step=step, reason=error.condition, text="offers STARTTLS and refuses it")
    return Stop(
        step=step,
        reason="not-xmpp",
        text=f"sends what is no XMPP ({error.condition}): {quoted(_as_text(opening))}",
    )


def _as_text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")


_PROTOCOLS: Final = (
    (b"HTTP/", "HTTP"),
    (b"<!DOCTYPE html", "HTML"),
    (b"<html", "HTML"),
    (b"SSH-", "SSH"),
    (b"220 ", "SMTP or FTP"),
    (b"220-", "SMTP or FTP"),
    (b"* OK", "IMAP"),
    (b"+OK", "POP3"),
    (b"\x15\x03", "TLS from the first octet on"),
    (b"\x16\x03", "TLS from the first octet on"),
)


def _protocol_of(opening: bytes) -> str | None:
    """Name what the first octets are; None for what is not known."""
    return next((name for start, name in _PROTOCOLS if opening.lower().startswith(start.lower())), None)


_REFUSED: Final = frozenset({errno.ECONNREFUSED})
_RESET: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})


def _connect_stop(error: OSError, step: Step) -> Stop:
    if error.errno in _REFUSED:
        return Stop(step=step, reason="refused", text="refuses connections: nothing listens there")
    if error.errno in _RESET:
        return Stop(step=step, reason="closed", text="resets the connection")
    words_ = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return Stop(step=step, reason="unreachable", text=f"cannot be reached: {error.strerror or words_}")
