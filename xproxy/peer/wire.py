"""An XMPP stream over a socket: bytes in, first-level elements out, TLS when asked.

One ``Wire`` lives as long as its TCP connection, over all restarts of the stream. Until ``settled`` it feeds the reader
no further than the next ``>``: whoever restarts the stream does so at the exact byte, however much the peer pipelined.
"""

import contextlib
import socket
import ssl
import struct
from collections import deque
from typing import Final

import trio

from xproxy.config.stream import StreamLimits
from xproxy.peer.errors import TlsRefused
from xproxy.xmpp.prolog import WHITE
from xproxy.xmpp.stream import Item, NameBudget, StreamReader

READ_BYTES_MAX: Final = 65_536
OPENING_BYTES_MAX: Final = 64  # enough to tell HTTP, SMTP or SSH from XMPP
CLOSE_SECONDS_MAX: Final = 2.0  # to send what is left and say close_notify to a peer that may not read any more


class Wire:
    """The socket of one connection and what was read from it. The caller closes it."""

    def __init__(self, transport: trio.SocketStream, *, limits: StreamLimits) -> None:
        self._transport = transport
        self._stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = transport
        self._names = NameBudget(limits)
        self._reader = StreamReader(limits=limits, names=self._names)
        self._items: deque[Item] = deque()
        self._unread = b""
        self._settled = False
        self._sending = trio.Lock()  # a stream takes one sender at a time; who reads may have to answer
        self.opening = b""
        """The first octets that came, at most OPENING_BYTES_MAX, in clear: what it is that is no XMPP."""

    @property
    def addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Our address and port, and the peer's.

        Raises:
            OSError: the connection is gone.
        """
        sock = self._transport.socket
        return sock.getsockname()[:2], sock.getpeername()[:2]

    @property
    def tls(self) -> ssl.SSLObject | None:
        """TLS as the standard library has it, for who asks about certificates and channel bindings; None in clear."""
        if not isinstance(self._stream, trio.SSLStream):
            return None
        inner = self._stream._ssl_object  # trio passes on most of its methods, but not the chain
        assert isinstance(inner, ssl.SSLObject)
        return inner

    @property
    def is_secure(self) -> bool:
        """Whether TLS is up."""
        return isinstance(self._stream, trio.SSLStream)

    @property
    def tls_version(self) -> str | None:
        """The TLS version in use ("TLSv1.3"), None in clear."""
        if not isinstance(self._stream, trio.SSLStream):
            return None
        version: str | None = self._stream.version()
        return version

    @property
    def has_unread(self) -> bool:
        """Whether the peer sent more than was taken so far."""
        return bool(self._items or self._unread)

    def skip_white(self) -> None:
        """Forget white space that came behind the last element: it belongs to no stream."""
        self._unread = self._unread.lstrip(WHITE)

    def settled(self) -> None:
        """No restart comes any more: read whole chunks."""
        self._settled = True
        self._names.logged_in()

    def restart(self) -> None:
        """Expect a new stream from the next byte on, or behind white space that came with the old one."""
        self.skip_white()
        self._reader.restart()

    async def receive(self) -> Item | None:
        """Return the next item, None at the end of input, in form or not. Elements live until the next call.

        Raises:
            trio.BrokenResourceError: the connection was reset.
        """
        while not self._items:
            if not self._unread:
                self._unread = bytes(await self._stream.receive_some(READ_BYTES_MAX))
                if not self._unread:
                    return None
                if not self.is_secure and len(self.opening) < OPENING_BYTES_MAX:
                    self.opening += self._unread[: OPENING_BYTES_MAX - len(self.opening)]
            if self._settled:
                data, self._unread = self._unread, b""
            else:
                cut = self._unread.find(b">") + 1 or len(self._unread)
                data, self._unread = self._unread[:cut], self._unread[cut:]
            self._items.extend(self._reader.feed(data))
        return self._items.popleft()

    async def send(self, data: bytes) -> None:
        """Send all of ``data``.

        Raises:
            trio.BrokenResourceError: the peer is gone.
        """
        async with self._sending:
            await self._stream.send_all(data)

    async def starts_with_tls(self) -> bool:
        """Return whether the peer's first byte is that of a TLS record (XEP-0368). Nothing is taken.

        Raises:
            trio.BrokenResourceError: the connection was reset.
        """
        try:
            return await self._transport.socket.recv(1, socket.MSG_PEEK) == b"\x16"
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def start_tls(self, context: ssl.SSLContext, *, server_side: bool, name: str | None = None) -> None:
        """Do the handshake; the stream begins anew above it (RFC 6120 section 5.4.3.3).

        Raises:
            TlsRefused: it failed, or the peer sent octets in clear after the last word before TLS.
        """
        if self.has_unread:
            raise TlsRefused("there was more in clear after the last word before TLS")
        stream = trio.SSLStream(
            self._transport, context, server_hostname=name, server_side=server_side, https_compatible=True
        )
        try:
            await stream.do_handshake()
        except (trio.BrokenResourceError, ssl.CertificateError) as error:
            cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
            raise TlsRefused(str(cause or error)) from error
        self._stream = stream
        self._reader.restart()

    async def close(self) -> None:
        """Close in form: close_notify, then FIN."""
        with trio.move_on_after(CLOSE_SECONDS_MAX, shield=True), contextlib.suppress(trio.BrokenResourceError):
            await self._stream.aclose()
        self.drop()

    def drop(self, *, reset: bool = False) -> None:
        """Close without a word, as a phone does that leaves the network; with RST if ``reset``."""
        with contextlib.suppress(OSError):
            if reset:
                self._transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.socket.close()
