"""One connection to the server, as far as it goes without a login, and what was seen on it.

A ``Look`` is a value: where it ended early, ``stop`` says at which step and why. What the server shows is read by the
same code the proxy reads it with (features, certificates, failures of TLS), so a finding is what xproxy would meet.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Final

import attrs
import trio
from lxml import etree

from xproxy.config.stream import StreamLimits
from xproxy.doctor.stop import POLICY_CONDITIONS, Step, Stop, stop_of
from xproxy.events import Endpoint, Side
from xproxy.events.tls import TlsEstablished
from xproxy.peer import words
from xproxy.peer.client import Client, Mode
from xproxy.peer.errors import PeerError, PeerTimeout
from xproxy.proxy.proxy_protocol import render_v2
from xproxy.tls.contexts import TLS_1_2, TLS_1_3, ServerLegContexts
from xproxy.tls.facts import tls_established
from xproxy.tls.failures import HandshakeRefused
from xproxy.tls.verify import Authorities, UpstreamIdentity, judge_upstream, server_name_for, verify_upstream
from xproxy.xmpp import sasl2
from xproxy.xmpp.negotiate import Features, read_features

STEP_SECONDS_MAX: Final = 8.0  # a step of one connection; XMPPFramework waits 10 s for the first octet and gives up
PARTING_SECONDS_MAX: Final = 1.0  # to say the closing tag to a server that may not read any more
BACKLOG_MAX: Final = 64  # stanzas that come unasked; behind a login a server sends a handful
ALPN: Final = ("xmpp-client",)  # XEP-0368 section 4
LIMITS: Final = StreamLimits()  # the proxy's own: what would break there breaks here


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
            return seen.look(stop_of(error, seen.step, client.opening))
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
            stop = stop_of(error, seen.step, client.opening)
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
