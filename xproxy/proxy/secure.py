"""TLS on the legs of one session: look at the ClientHello, secure the server leg, then the client leg.

The server decides. Its handshake comes first, with the name and ALPN the client asked for and no version above the
client's; the client's handshake is then pinned to the version and ALPN the server chose, so that both legs have one
version (XEP-0515) and a client that works directly works through us. The ClientHello is only peeked at: OpenSSL reads
it again.

Where the legs begin differently, ALPN belongs to the leg that begins with TLS (XEP-0368): a client's offer is answered
by us, a server is offered ``xmpp-client``. A server leg that stays in clear leaves the choice of version to the client.

**Waiting for the hello** asks the kernel for a count of octets (SO_RCVLOWAT), so a hello that comes byte by byte costs
a handful of wake-ups. A wake-up with fewer octets than asked for means that no more will come: it is never waited
again, since FIN makes a socket readable for ever. The mark goes back to 1 before TLS takes over. Where waiting does not
honour the mark, a hello that is not whole is looked at again after a pause, and the end is asked for by poll.

**Injections.** Behind ``<starttls/>`` at most 16 octets of whitespace are taken away (RFC 6120 section 5.3.3 forbids
them, real clients send them); the server may send nothing at all between ``<proceed/>`` and our ClientHello.
"""

import fcntl
import socket
import ssl
import struct
import termios
from typing import Final, Protocol

import trio

from xproxy.config.sessions import SessionLimits
from xproxy.events import Side
from xproxy.events.connection import ServerTls
from xproxy.events.tls import (
    CertificateFacts,
    StarttlsInjection,
    TlsEstablished,
    TlsFailed,
    TlsFailure,
    TlsPassthrough,
)
from xproxy.jid import is_ip_address
from xproxy.proxy.flow import Flow, Leg
from xproxy.proxy.passthrough import PassthroughMemory, begin_event, refusal_of
from xproxy.proxy.peek import waiting_at
from xproxy.proxy.transport import TLS_FIRST_BYTE
from xproxy.tls.facts import certificate_facts, tls_established
from xproxy.tls.failures import HandshakeRefused, failure_of
from xproxy.tls.hello import ClientHello, HelloIncomplete, HelloMalformed, parse_client_hello
from xproxy.tls.verify import UpstreamIdentity, server_name_for

_TLS_FIRST_BYTES: Final = bytes([TLS_FIRST_BYTE])
_WHITESPACE: Final = frozenset(b" \t\r\n")
_WHITESPACE_MAX: Final = 16  # octets tolerated between <starttls/> and the ClientHello
_TOP_VERSION: Final = 0x0304
_VERSION_NAMES: Final = {0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
_ALPN_OF_CLIENTS: Final = "xmpp-client"  # XEP-0368 section 4

# What a server may be offered in the client's name; anything else it might answer with is nothing we relay.
_ALPN_PASSED_ON: Final = frozenset({"xmpp-client", "xmpp-server", "h2", "http/1.1"})


class SecureFailed(Exception):  # noqa: N818 - a fact for the session's task, which records it
    """No TLS came about. ``event`` says why."""

    def __init__(self, event: TlsFailed | StarttlsInjection) -> None:
        super().__init__(type(event).__name__)
        self.event = event


class PassedOn(Exception):  # noqa: N818 - a decision, not a fault
    """No TLS of ours: the ClientHello is still to be read, and both legs are to be relayed as they come."""

    def __init__(self, event: TlsPassthrough) -> None:
        super().__init__(event.refusal)
        self.event = event


class NotTls(Exception):  # noqa: N818 - says what the peer sent
    """What came instead of TLS is none: ``octets`` of it so far."""

    def __init__(self, octets: int) -> None:
        super().__init__(octets)
        self.octets = octets


class Contexts(Protocol):
    """What is needed of ``xproxy.tls.service``: contexts for both legs and a judgement of the server."""

    def server_context(self, *, top_version: int, alpn: tuple[str, ...]) -> ssl.SSLContext:
        """Return a context for our handshake with the server: no version above ``top_version`` (0x0304 is 1.3)."""

    def identify(self, tls: ssl.SSLSocket, domain: str | None) -> UpstreamIdentity:
        """Judge the server after the handshake. Raises HandshakeRefused."""

    def refused_certificate(self, tls: ssl.SSLSocket) -> CertificateFacts | None:
        """Return the certificate that was refused in a handshake that failed."""

    async def client_context(
        self,
        *,
        domain: str | None,
        server_name: str | None,
        identity: UpstreamIdentity | None,
        version: str,
        alpn: str | None,
    ) -> tuple[ssl.SSLContext, CertificateFacts]:
        """Return a context for the client's handshake, of ``version`` ("TLSv1.3") alone, and the certificate in it.

        ``domain``: the stream's; ``server_name``: the client's SNI; ``identity``: None without TLS upstream.

        Raises: HandshakeRefused: there is no certificate.
        """


async def peek_hello(sock: socket.socket, *, bytes_max: int, after_starttls: bool) -> ClientHello:
    """Return what the ClientHello waiting in ``sock`` says, without taking it.

    Raises:
        HelloIncomplete: the client ended within it.
        HelloMalformed: it is none, or larger than ``bytes_max``.
        NotTls: after STARTTLS, something else stands there.
        OSError: the connection failed; EOFError: it ended.
    """
    if (hello := _whole_hello(sock, bytes_max)) is not None:
        return hello
    waiting = waiting_at(sock)
    needed = 1
    whitespace = 0
    try:
        while True:
            is_all = await waiting.wait(needed)
            data = sock.recv(bytes_max, socket.MSG_PEEK)
            if not data:
                raise EOFError
            if len(data) < needed:
                if is_all:  # there will not be more
                    raise HelloIncomplete(needed)
                continue
            if after_starttls and data[0] != TLS_FIRST_BYTE:
                blank = _leading_whitespace(data)
                whitespace += blank
                if not blank or whitespace > _WHITESPACE_MAX:
                    raise NotTls(waiting_octets(sock))
                sock.recv(blank)
                needed = 1
                continue
            try:
                return parse_client_hello(data)
            except HelloIncomplete as incomplete:
                if incomplete.needed > bytes_max:
                    raise HelloMalformed(f"larger than {bytes_max} octets", TlsFailure.HELLO_TOO_LARGE) from None
                needed = max(incomplete.needed, len(data) + 1)  # waiting for what is there would spin
    finally:
        waiting.done()


def _whole_hello(sock: socket.socket, bytes_max: int) -> ClientHello | None:
    """Return what the ClientHello says, if it is there and whole. Raises as ``peek_hello``."""
    try:
        data = sock.recv(bytes_max, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    if data[:1] != _TLS_FIRST_BYTES:
        return None
    try:
        return parse_client_hello(data)
    except HelloIncomplete:
        return None


def _leading_whitespace(data: bytes) -> int:
    count = 0
    while count < len(data) and data[count] in _WHITESPACE:
        count += 1
    return count


def waiting_octets(sock: socket.socket) -> int:
    """How many octets wait to be read (FIONREAD)."""
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0" * 4))[0])


async def shake_hands(sock: ssl.SSLSocket) -> None:
    """Complete the handshake.

    Raises:
        OSError: it failed; ``ssl.SSLError`` and its kind are among them.
    """
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(sock)
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(sock)
        else:
            return


def domain_asked_for(hello: ClientHello, own_names: frozenset[str]) -> str | None:
    """Return the XMPP domain in the client's SNI (XEP-0368 section 2): no address, and no name of ours."""
    name = hello.server_name
    if name is None or is_ip_address(name) or name.lower() in own_names:
        return None
    return name


class Securing:
    """The way into TLS of one session."""

    def __init__(
        self,
        *,
        flow: Flow,
        contexts: Contexts | None,
        limits: SessionLimits,
        direct: bool,
        server_tls: ServerTls,
        domain: str | None,
        own_names: frozenset[str],
        passthrough: PassthroughMemory | None = None,
        client_address: str = "",
    ) -> None:
        """Prepare. ``direct``: TLS is the first the client says; ``server_tls``: how it begins on the server's leg.

        ``domain``: the stream's, or with direct TLS the configured one.
        ``own_names``: hosts that clients dial to reach us; with direct TLS they say nothing about the XMPP domain.
        ``passthrough``: who is let through undecrypted, by ``client_address`` (without port) and hello.
        """
        self._flow = flow
        self._contexts = contexts
        self._limits = limits
        self._direct = direct
        self._server_tls = server_tls
        self._begins_alike = direct is (server_tls is ServerTls.DIRECT) and server_tls is not ServerTls.NONE
        self._domain = domain
        self._own_names = own_names
        self._passthrough = passthrough
        self._client_address = client_address
        self._begun = trio.current_time()
        self._leg = Side.CLIENT  # the leg that is at work
        self._hello: ClientHello | None = None
        self._server_name: str | None = None  # what is sent upstream
        self._certificate: CertificateFacts | None = None
        self._identity: UpstreamIdentity | None = None

    @property
    def identity(self) -> UpstreamIdentity | None:
        """The server's, once its leg is secured."""
        return self._identity

    async def secure_server(self) -> TlsEstablished:
        """Look at the ClientHello and shake hands with the server.

        Raises:
            PassedOn: this client is let through undecrypted.
            SecureFailed: the handshake failed, or something stood before TLS that is not TLS.
        """
        try:
            return await self._secure_server()
        except (OSError, EOFError, ValueError, HelloIncomplete, HelloMalformed, HandshakeRefused) as error:
            raise SecureFailed(self.failure(error)) from None
        except NotTls as injected:
            raise SecureFailed(StarttlsInjection(sent_by=self._leg, octets=injected.octets)) from None

    async def look(self) -> str | None:
        """Look at the ClientHello; return the domain that a client with direct TLS asks for, in letters of the DNS.

        Raises:
            SecureFailed: there is none, or the name is none.
        """
        try:
            await self._look()
            return server_name_for(self._domain)
        except (OSError, EOFError, ValueError, HelloIncomplete, HelloMalformed, HandshakeRefused) as error:
            raise SecureFailed(self.failure(error)) from None

    async def _look(self) -> ClientHello:
        if self._hello is None:
            self._hello = hello = await peek_hello(
                self._flow.client.sock, bytes_max=self._limits.hello_bytes_max, after_starttls=not self._direct
            )
            if self._direct:
                self._domain = domain_asked_for(hello, self._own_names) or self._domain
            if self._contexts is None:
                raise HandshakeRefused(TlsFailure.NO_CERTIFICATE, "this proxy was started without certificates")
        return self._hello

    async def _secure_server(self) -> TlsEstablished:
        flow = self._flow
        hello = await self._look()
        assert self._contexts is not None
        self._leg, self._begun = Side.SERVER, trio.current_time()
        if self._server_tls is ServerTls.STARTTLS and (octets := waiting_octets(flow.server.sock)):
            raise NotTls(octets)  # before a ClientHello a server has nothing to say
        if self._passthrough is not None and (client := self._passthrough.admit(self._client_address, hello)):
            raise PassedOn(begin_event(client, hello, direct=self._direct))
        self._server_name = server_name_for(self._domain)
        context = self._contexts.server_context(
            top_version=min(hello.top_version, _TOP_VERSION),
            alpn=self._alpn_offer(hello),
        )
        tls = self._wrap(flow.server, context, server_name=self._server_name)
        try:
            await shake_hands(tls)
        except ssl.SSLCertVerificationError:
            self._certificate = self._contexts.refused_certificate(tls)
            raise
        der = tls.getpeercert(binary_form=True)
        self._certificate = None if der is None else certificate_facts(der)
        self._identity = identity = self._contexts.identify(tls, self._domain)
        return tls_established(
            tls,
            Side.SERVER,
            direct=self._server_tls is ServerTls.DIRECT,
            seconds=trio.current_time() - self._begun,
            server_name=self._server_name,
            certificate=identity.certificate,
            verify=identity.verdict,
        )

    async def secure_client(self) -> TlsEstablished:
        """Shake hands with the client, in the version and with the ALPN answer of the server.

        Raises:
            SecureFailed: the handshake failed, or, if this is the first look, something that is not TLS stood there.
        """
        try:
            return await self._secure_client()
        except (OSError, EOFError, ValueError, HelloIncomplete, HelloMalformed, HandshakeRefused) as error:
            raise SecureFailed(self.failure(error)) from None
        except NotTls as injected:
            raise SecureFailed(StarttlsInjection(sent_by=self._leg, octets=injected.octets)) from None

    async def _secure_client(self) -> TlsEstablished:
        flow, hello = self._flow, await self._look()
        assert self._contexts is not None
        self._leg, self._begun = Side.CLIENT, trio.current_time()
        self._certificate = None
        context, self._certificate = await self._contexts.client_context(
            domain=self._domain,
            server_name=hello.server_name,
            identity=self._identity,
            version=self._client_version(hello),
            alpn=self._alpn_answer(hello),
        )
        tls = self._wrap(flow.client, context)
        await shake_hands(tls)
        return tls_established(
            tls,
            Side.CLIENT,
            direct=self._direct,
            seconds=trio.current_time() - self._begun,
            server_name=hello.server_name,
            hello=hello,
            certificate=self._certificate,
        )

    def _alpn_offer(self, hello: ClientHello) -> tuple[str, ...]:
        if self._begins_alike:
            return tuple(name for name in hello.alpn if name in _ALPN_PASSED_ON)
        return (_ALPN_OF_CLIENTS,) if self._server_tls is ServerTls.DIRECT else ()

    def _alpn_answer(self, hello: ClientHello) -> str | None:
        if self._begins_alike:
            server = self._flow.server.tls
            assert server is not None
            return server.selected_alpn_protocol()
        return _ALPN_OF_CLIENTS if self._direct and _ALPN_OF_CLIENTS in hello.alpn else None

    def _client_version(self, hello: ClientHello) -> str:
        """The version of the server leg; without TLS there, the highest that client and proxy speak."""
        server = self._flow.server.tls
        if server is not None:
            version = server.version()
            assert version is not None
            return version
        top = min(hello.top_version, _TOP_VERSION)
        if top not in _VERSION_NAMES:
            raise HandshakeRefused(TlsFailure.VERSION, "the client speaks no version from 1.2 on")
        return _VERSION_NAMES[top]

    def _wrap(self, leg: Leg, context: ssl.SSLContext, *, server_name: str | None = None) -> ssl.SSLSocket:
        """Make the socket of ``leg`` a TLS socket, which it keeps whatever comes next."""
        leg.sock.getpeername()  # raises after a reset: wrap_socket would too, but with the descriptor in its hands
        tls = context.wrap_socket(
            leg.sock,
            server_side=leg.side is Side.CLIENT,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
            server_hostname=server_name,
        )
        leg.use(tls)
        return tls

    def given_up(self, error: ssl.SSLError, leg: Side) -> TlsFailed:
        """Return what it means that the peer on ``leg`` sent the alert ``error`` when both handshakes were done."""
        self._leg = leg
        if leg is Side.SERVER:
            self._certificate = self._identity.certificate if self._identity is not None else None
        return self.failure(error, after_handshake=True)

    def learn(self, failure: TlsFailed) -> None:
        """Have the client let through from now on if ``failure`` says that it refused our certificate."""
        if refusal := refusal_of(failure):
            self.learn_refusal(refusal)

    def learn_refusal(self, refusal: str) -> None:
        """Have a client that refused our certificate let through from now on, if that is the policy."""
        if self._server_tls is ServerTls.NONE:  # the server would be shown a TLS that it does not speak
            return
        if self._passthrough is not None and self._hello is not None:
            self._passthrough.remember(self._client_address, self._hello, refusal)

    def failure(self, error: BaseException, *, after_handshake: bool = False) -> TlsFailed:
        """Return what ``error`` means on the leg that is at work."""
        return failure_of(
            error,
            self._leg,
            direct=self._direct if self._leg is Side.CLIENT else self._server_tls is ServerTls.DIRECT,
            seconds=trio.current_time() - self._begun,
            hello=self._hello,
            server_name=self._server_name if self._leg is Side.SERVER else None,
            certificate=self._certificate,
            after_handshake=after_handshake,
        )
