"""Connections: accepted, refused, joined to the upstream, closed."""

import enum

import attrs

from xproxy.events.common import EndOfInput, Endpoint, EventBase, Level, Side


class WayIn(enum.Enum):
    """What stands between a client's connection and its first XMPP byte."""

    PLAIN = "plain"  # nothing
    PROXY_PROTOCOL = "proxy-protocol"  # a balancer's header
    SOCKS5 = "socks5"  # the client's own request (RFC 1928)
    REDIRECT = "redirect"  # a firewall rule turned the connection to us (REDIRECT, DNAT)
    TPROXY = "tproxy"  # a firewall rule handed it to us with its destination untouched


@attrs.frozen(kw_only=True)
class ConnectionAccepted(EventBase):
    """A client connected to a listener, and the way in (PROXY header, SOCKS5 request, redirection) was in order."""

    action = "connection-accepted"
    level = Level.INFO
    message = "A client connected."

    client: Endpoint  # the real one: a balancer's header says who
    listener: Endpoint  # our end of its connection, or of the balancer's
    way: WayIn = WayIn.PLAIN
    balancer: Endpoint | None = None  # who the connection comes from, if not from the client itself
    dialled: Endpoint | None = None  # the address the client dialled, where that is known not to be ``listener``
    destination: str | None = None  # HOST:PORT the client wants to be taken to


class RefusalReason(enum.Enum):
    """Why a connection was closed before it was a session."""

    SESSIONS_MAX = "sessions-max"
    SESSIONS_PER_ADDRESS_MAX = "sessions-per-address-max"
    NAMES_PER_ADDRESS_MAX = "names-per-address-max"
    DESCRIPTORS = "descriptors"
    NAMES_TOTAL_MAX = "names-total-max"
    DRAINING = "draining"
    UPSTREAM_DOWN = "upstream-down"
    HEADERS_MAX = "headers-max"  # too many have not sent their PROXY header or SOCKS request yet
    HEADERS_PER_CLIENT_MAX = "headers-per-client-max"
    PROXY_HEADER_UNTRUSTED = "proxy-header-untrusted"  # of a network that is not trusted; nothing was read
    PROXY_HEADER_MISSING = "proxy-header-missing"  # something else came
    PROXY_HEADER_MALFORMED = "proxy-header-malformed"
    PROXY_HEADER_OVERSIZED = "proxy-header-oversized"
    PROXY_HEADER_TIMEOUT = "proxy-header-timeout"
    SOCKS_UNTRUSTED = "socks-untrusted"
    SOCKS_MALFORMED = "socks-malformed"
    SOCKS_UNSUPPORTED = "socks-unsupported"  # a command, an address type or an authentication that is not for us
    SOCKS_TIMEOUT = "socks-timeout"
    NOT_REDIRECTED = "not-redirected"  # who connects to us directly has no original destination
    DESTINATION_LOOP = "destination-loop"  # it leads to ourselves
    DESTINATION_REFUSED = "destination-refused"  # not a host or port that is served or allowed


@attrs.frozen(kw_only=True)
class ConnectionRefused(EventBase):
    """A client was turned away before it was a session: a limit, its way in, a server that is down, or draining."""

    action = "connection-refused"
    level = Level.WARNING
    message = "A client was turned away at accept."

    client: Endpoint  # as far as is known: behind a balancer whose header was refused it is the balancer
    listener: Endpoint
    reason: RefusalReason
    limit: int | None = None  # the value of the limit that was reached
    detail: str | None = None  # what was wrong: a constant phrase
    way: WayIn = WayIn.PLAIN
    balancer: Endpoint | None = None
    destination: str | None = None


@attrs.frozen(kw_only=True)
class ConnectionStalled(EventBase):
    """A peer has not taken bytes for a long time; the other side is not read meanwhile."""

    action = "connection-stalled"
    level = Level.WARNING
    message = "A peer does not take the bytes sent to it."

    leg: Side
    waiting_bytes: int
    seconds: float


class ServerTls(enum.Enum):
    """How TLS begins on the server leg."""

    STARTTLS = "starttls"  # the stream begins in clear (RFC 6120 section 5)
    DIRECT = "direct"  # from the first byte (XEP-0368)
    NONE = "none"  # never: the leg stays in clear


class Via(enum.Enum):
    """What led to the server of a session."""

    CONFIGURED = "configured"
    ORIGINAL = "original"  # the address the client dialled before it was redirected
    SRV = "srv"
    FALLBACK = "fallback"  # the domain has no SRV record: its own addresses (RFC 6120 section 3.2.2)


@attrs.frozen(kw_only=True)
class UpstreamConnected(EventBase):
    """The TCP connection to the server is up."""

    action = "upstream-connected"
    level = Level.INFO
    message = "Connected to the server."

    host: str  # as configured, or as the DNS has it
    server: Endpoint
    local: Endpoint  # our end: what the server sees as its client
    seconds: float
    tls: ServerTls = ServerTls.STARTTLS
    via: Via = Via.CONFIGURED
    domain: str | None = None  # the client's, where the server depends on it
    priority: int | None = None  # of the SRV record
    weight: int | None = None
    proxy_protocol: str | None = None  # "v1", "v2": the server was told the client's address
    probe: bool = False  # by the proxy itself: clients are no longer refused at accept


class UpstreamFailure(enum.Enum):
    """Why no TCP connection to the server came about."""

    UNKNOWN_HOST = "unknown-host"  # the name service says that there is no such name, or no address for it
    LOOKUP_TIMEOUT = "lookup-timeout"  # the name service did not answer
    LOOKUP_FAILED = "lookup-failed"  # it answered that it cannot say (SERVFAIL, REFUSED ...)
    NOT_OFFERED = "not-offered"  # the domain's SRV records say that it has no such service (RFC 2782: target ".")
    NO_DOMAIN = "no-domain"  # the server depends on the client's domain, and it named none
    DOMAIN_NOT_ALLOWED = "domain-not-allowed"
    ADDRESS_NOT_ALLOWED = "address-not-allowed"  # a domain of a stranger's choice leads into this network
    CLEAR_NOT_ALLOWED = "clear-not-allowed"  # without TLS, and not on this machine
    LOOP = "loop"  # the server would be this proxy
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    OTHER = "other"


@attrs.frozen(kw_only=True)
class UpstreamFailed(EventBase):
    """The server could not be reached; the client is closed without a byte."""

    action = "upstream-failed"
    level = Level.ERROR
    message = "The server could not be reached."

    host: str
    port: int
    reason: UpstreamFailure
    errno: str | None  # e.g. "ECONNREFUSED"
    seconds: float
    domain: str | None = None  # the client's, where the server depends on it
    tried: int = 1  # addresses
    refusing: bool = False  # by the proxy itself: from now on clients are refused at accept


@attrs.frozen(kw_only=True)
class UnsupportedTransport(EventBase):
    """The first bytes are of another protocol (HTTP, SSH, SOCKS ...): closed without an answer."""

    action = "unsupported-transport"
    level = Level.WARNING
    message = "The first bytes are not XMPP and not TLS."

    looks_like: str  # "http", "ssh", "socks", "proxy-protocol", "unknown"


class CloseCause(enum.Enum):
    """Why the session ended. The first cause wins."""

    STREAM_CLOSED = "stream-closed"  # both closing tags seen, or one and the 5 s that follow it
    CLIENT_ENDED = "client-ended"  # the client's connection ended without its closing tag
    SERVER_ENDED = "server-ended"
    STREAM_ERROR = "stream-error"  # a peer ended its stream with an error
    UPSTREAM_FAILED = "upstream-failed"
    TLS_FAILED = "tls-failed"
    STARTTLS_INJECTION = "starttls-injection"
    STREAM_VIOLATION = "stream-violation"
    INSPECTION_LOST = "inspection-lost"
    LIMIT_REACHED = "limit-reached"
    NEGOTIATION_TIMEOUT = "negotiation-timeout"
    UNSUPPORTED_TRANSPORT = "unsupported-transport"
    SHUTDOWN = "shutdown"
    INTERNAL_ERROR = "internal-error"  # a bug of ours: the diagnostics on stderr have the traceback


@attrs.frozen(kw_only=True)
class DirectionTotals:
    """What one direction carried."""

    bytes: int
    stanzas: int
    messages: int = 0
    presences: int = 0
    iqs: int = 0
    acks: int = 0  # of stream management, and requests for them
    late_answers: int = 0  # to requests that had been given up
    orphan_answers: int = 0  # to requests that nobody sent, or that were forgotten
    errors: int  # stanzas of type "error"
    closing_tag: bool  # </stream:stream> was seen
    end: EndOfInput | None  # how that peer's input ended; None: we closed first
    last_element: str | None  # "{namespace}name" of the last first-level element
    last_element_age_ms: int | None


@attrs.frozen(kw_only=True)
class ConnectionClosed(EventBase):
    """The session is over on both legs."""

    action = "connection-closed"
    level = Level.INFO
    message = "The session ended."

    initiator: Side | None  # who ended it; None: the proxy
    cause: CloseCause
    duration_ns: int
    from_client: DirectionTotals
    from_server: DirectionTotals
