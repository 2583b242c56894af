"""TLS on both legs of one session: look at the ClientHello, secure the server leg, then the client leg.

The server decides. Its handshake comes first, with the name and ALPN the client asked for and no version above the
client's; the client's handshake is then pinned to the version and ALPN the server chose, so that both legs have one
version (XEP-0515) and a client that works directly works through us. The ClientHello is only peeked at: OpenSSL reads
it again.

**Waiting for the hello** asks the kernel for a count of octets (SO_RCVLOWAT), so a hello that comes byte by byte costs
a handful of wake-ups. A wake-up with fewer octets than asked for means that no more will come: it is never waited
again, since FIN makes a socket readable for ever. The mark goes back to 1 before TLS takes over.

**Injections.** Behind ``<starttls/>`` at most 16 octets of whitespace are taken away (RFC 6120 section 5.3.3 forbids
them, real clients send them); the server may send nothing at all between ``<proceed/>`` and our ClientHello.
"""

import contextlib
import fcntl
import socket
import ssl
import struct
import termios
from typing import Final, Protocol

import attrs
import trio

from xproxy.config.sessions import SessionLimits
from xproxy.events import Endpoint, Side
from xproxy.events.tls import StarttlsInjection, TlsEstablished, TlsFailed, TlsFailure
from xproxy.proxy.flow import Flow
from xproxy.proxy.transport import TLS_FIRST_BYTE
from xproxy.tls.hello import ClientHello, HelloIncomplete, HelloMalformed, parse_client_hello

_WHITESPACE: Final = frozenset(b" \t\r\n")
_WHITESPACE_MAX: Final = 16  # octets tolerated between <starttls/> and the ClientHello


class SecureFailed(Exception):  # noqa: N818 - a fact for the session's task, which records it
    """No TLS came about. ``event`` says why."""

    def __init__(self, event: TlsFailed | StarttlsInjection) -> None:
        super().__init__(type(event).__name__)
        self.event = event


@attrs.frozen(kw_only=True)
class HelloFailed(Exception):  # noqa: N818 - says what the peer sent
    """What came is no whole ClientHello. ``injected``: octets that are not TLS, behind a STARTTLS request."""

    reason: TlsFailure
    detail: str | None = None
    injected: int | None = None


async def peek_hello(sock: socket.socket, *, bytes_max: int, after_starttls: bool) -> ClientHello:
    """Return what the ClientHello waiting in ``sock`` says, without taking it.

    Raises:
        HelloFailed: none came, or no whole one.
    """
    needed = 1
    whitespace = 0
    try:
        while True:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, needed)
            await trio.lowlevel.wait_readable(sock)
            data = sock.recv(bytes_max, socket.MSG_PEEK)
            if after_starttls:
                blank = _leading_whitespace(data)
                if blank and whitespace + blank <= _WHITESPACE_MAX:
                    whitespace += len(sock.recv(blank))
                    needed = 1
                    continue
                if data and data[0] != TLS_FIRST_BYTE:
                    raise HelloFailed(reason=TlsFailure.NOT_TLS, injected=waiting_octets(sock))
            if len(data) < needed:
                raise HelloFailed(reason=TlsFailure.TRUNCATED_HELLO if data else TlsFailure.CLOSED)
            try:
                return parse_client_hello(data)
            except HelloIncomplete as incomplete:
                if incomplete.needed > bytes_max:
                    raise HelloFailed(reason=TlsFailure.HELLO_TOO_LARGE) from None
                needed = max(incomplete.needed, len(data) + 1)  # waiting for what is there would spin
            except HelloMalformed as malformed:
                raise HelloFailed(reason=malformed.failure, detail=malformed.reason) from None
    except OSError as error:
        raise HelloFailed(reason=TlsFailure.CLOSED, detail=type(error).__name__) from None
    finally:
        _reset_low_mark(sock)


def _reset_low_mark(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the connection is gone; whatever comes next says so
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


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


class Contexts(Protocol):
    """Makes the TLS contexts of both legs: filled in by ``xproxy.tls``."""


class Securing:
    """The way into TLS of one session."""

    def __init__(
        self,
        *,
        flow: Flow,
        contexts: Contexts | None,
        limits: SessionLimits,
        direct: bool,
        domain: str | None,
        listener: Endpoint,
    ) -> None:
        self._flow = flow
        self._contexts = contexts
        self._limits = limits
        self._direct = direct
        self._domain = domain
        self._listener = listener
        self._begun = trio.current_time()
        self._leg = Side.CLIENT  # the leg that is at work
        self._hello: ClientHello | None = None

    async def secure_server(self) -> TlsEstablished:
        """Look at the ClientHello and shake hands with the server.

        Raises:
            SecureFailed: the handshake failed, or something stood before TLS that is not TLS.
        """
        raise SecureFailed(self.failure(TlsFailure.NO_CERTIFICATE))

    async def secure_client(self) -> TlsEstablished:
        """Shake hands with the client, in the version and with the ALPN answer of the server.

        Raises:
            SecureFailed: the handshake failed.
        """
        raise SecureFailed(self.failure(TlsFailure.NO_CERTIFICATE))

    def failure(self, reason: TlsFailure, detail: str | None = None) -> TlsFailed:
        """Return the failure of the leg that is at work."""
        hello = self._hello
        return TlsFailed(
            leg=self._leg,
            direct=self._direct,
            reason=reason,
            detail=detail,
            server_name=hello.server_name if hello is not None else None,
            alpn=hello.alpn if hello is not None else (),
            ja4=hello.ja4 if hello is not None else None,
            seconds=trio.current_time() - self._begun,
        )
