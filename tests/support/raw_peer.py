"""Peers made of plain blocking sockets: they send exactly the bytes they are told to and keep what they got."""

import contextlib
import hashlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from tests.support.accounts import DOMAIN
from tests.support.ends import is_bare, tells_ends_apart
from tests.support.mint import Leaf

SECONDS_MAX: Final = 20.0

DECLARATION = b"<?xml version='1.0'?>"
CLIENT_HEADER = (
    b"<stream:stream to='xmpp.test' xmlns='jabber:client'"
    b" xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
)
SERVER_HEADER = (
    b"<stream:stream from='xmpp.test' id='fake-stream' xmlns='jabber:client'"
    b" xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
)
STARTTLS_FEATURES = (
    b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
)
SASL_FEATURES = (
    b"<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>"
    b"<mechanism>PLAIN</mechanism></mechanisms></stream:features>"
)
BIND_FEATURES = b"<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>"
STARTTLS = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
PROCEED = b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
AUTH_START, AUTH_END = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>", b"</auth>"
SUCCESS = b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
BIND = b"<iq type='set' id='bind-1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
BOUND = (
    b"<iq type='result' id='bind-1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
    b"<jid>raw@xmpp.test/raw</jid></bind></iq>"
)
CLOSE = b"</stream:stream>"


class RawPeer:
    """One end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(SECONDS_MAX)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.received = bytearray()
        """Everything received since the connection began or TLS was started."""
        self._read = 0
        self.end: str | None = None
        """How the other side ended: "close_notify" (or FIN without TLS), "truncated", "reset"."""

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        self.sock.sendall(data)

    def more(self) -> bool:
        """Receive something; False at the end."""
        try:
            data = self.sock.recv(65_536)
        except ssl.SSLError as error:
            if not is_bare(error):
                raise
            self.end = "truncated"
            return False
        except (ConnectionResetError, BrokenPipeError):
            self.end = "reset"
            return False
        self.received += data
        if not data:
            self.end = "close_notify"
        return bool(data)

    def until(self, marker: bytes) -> bytes:
        """Receive up to and with ``marker`` and return that part."""
        while (found := self.received.find(marker, self._read)) < 0:
            assert self.more(), f"{self.end} before {marker!r}: {bytes(self.received[self._read :])!r}"
        start, self._read = self._read, found + len(marker)
        return bytes(self.received[start : self._read])

    def exactly(self, count: int) -> bytes:
        """Receive ``count`` octets."""
        while len(self.received) - self._read < count:
            assert self.more(), f"{self.end} after {len(self.received) - self._read} of {count} octets"
        start, self._read = self._read, self._read + count
        return bytes(self.received[start : self._read])

    def rest(self) -> bytes:
        """Receive until the other side ends and return what came."""
        while self.more():
            pass
        start, self._read = self._read, len(self.received)
        return bytes(self.received[start:])

    def exchange(self, pieces: list[bytes], count: int) -> bytes:
        """Send ``pieces`` and meanwhile receive ``count`` octets: one thread, since a TLS socket bears no two."""
        self.sock.setblocking(False)
        waiting, start = list(reversed(pieces)), self._read
        try:
            while waiting or len(self.received) - start < count:
                readable, writable, _ = select.select([self.sock], [self.sock] if waiting else [], [], SECONDS_MAX)
                assert readable or writable, f"{len(self.received) - start} of {count} octets after {SECONDS_MAX} s"
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    while True:
                        assert self.more(), self.end
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    while waiting:
                        sent = self.sock.send(waiting[-1])
                        if sent == len(waiting[-1]):
                            waiting.pop()
                        else:
                            waiting[-1] = waiting[-1][sent:]
        finally:
            self.sock.settimeout(SECONDS_MAX)
        return self.exactly(count)

    def start_tls(self, context: ssl.SSLContext, *, server_hostname: str | None = None, server: bool = False) -> None:
        """Go over to TLS; what was received in clear is forgotten."""
        assert self._read == len(self.received), f"octets before TLS: {bytes(self.received[self._read :])!r}"
        self.sock = context.wrap_socket(
            self.sock, server_side=server, server_hostname=server_hostname, suppress_ragged_eofs=False
        )
        self.received, self._read = bytearray(), 0

    @property
    def tls(self) -> ssl.SSLSocket:
        """The TLS socket."""
        assert isinstance(self.sock, ssl.SSLSocket)
        return self.sock

    def certificate_sha256(self) -> str:
        """Return the fingerprint of the certificate the other side showed."""
        octets = self.tls.getpeercert(binary_form=True)
        assert octets
        return hashlib.sha256(octets).hexdigest()

    def half_close(self) -> None:
        """Say that nothing more comes, and go on receiving: close_notify, or FIN where there is no TLS."""
        if not isinstance(self.sock, ssl.SSLSocket):
            self.sock.shutdown(socket.SHUT_WR)
            return
        self.sock.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):  # ours is sent; the other side's is still to come
            self.sock.unwrap()
        self.sock.settimeout(SECONDS_MAX)

    def close(self) -> None:
        """Close the socket: FIN, without close_notify."""
        self.sock.close()

    def reset(self) -> None:
        """Close with RST."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


_opened: list[RawPeer] = []


def connect(port: int) -> RawPeer:
    """Connect to a loopback port."""
    peer = RawPeer(socket.create_connection(("127.0.0.1", port), timeout=SECONDS_MAX))
    _opened.append(peer)
    return peer


def close_all() -> None:
    """Close whatever ``connect`` opened: a failed test leaves no socket behind."""
    while _opened:
        _opened.pop().close()


def client_context(ca_file: Path) -> ssl.SSLContext:
    """Return a verifying client's context that trusts ``ca_file`` only."""
    context = tells_ends_apart(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.load_verify_locations(ca_file)
    return context


def server_context(leaf: Leaf) -> ssl.SSLContext:
    """Return a server's context that shows ``leaf``."""
    context = tells_ends_apart(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    context.load_cert_chain(leaf.certificate, leaf.key)
    return context


@attrs.define
class ScriptedServer:
    """Plays ``script`` with each connection, each in a thread; what a script raises comes out of ``join``."""

    port: int
    _threads: list[threading.Thread] = attrs.field(factory=list)
    _errors: list[BaseException] = attrs.field(factory=list)

    def join(self) -> None:
        """Wait for the scripts of all connections so far."""
        for thread in list(self._threads):
            thread.join(timeout=2 * SECONDS_MAX)
            assert not thread.is_alive(), "a server script does not end"
        if self._errors:
            raise self._errors[0]


@contextmanager
def scripted_server(script: Callable[[RawPeer], None]) -> Iterator[ScriptedServer]:
    """Serve on a loopback port until the block ends; joins what was started unless the block failed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = ScriptedServer(listener.getsockname()[1])

        def play(sock: socket.socket) -> None:
            peer = RawPeer(sock)
            try:
                script(peer)
            except BaseException as error:
                server._errors.append(error)
                peer.reset()
            else:
                peer.close()

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=play, args=(sock,), daemon=True)
                server._threads.append(thread)
                thread.start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield server
            server.join()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(timeout=SECONDS_MAX)


def greet(peer: RawPeer, features: bytes) -> bytes:
    """As a server: take the client's header (with or without declaration), answer with ours and ``features``."""
    got = peer.until(b"version='1.0'>")
    peer.send(DECLARATION + SERVER_HEADER + features)
    return got


def serve_login(peer: RawPeer, context: ssl.SSLContext, *, direct: bool = False) -> None:
    """As a server: STARTTLS (or direct TLS), PLAIN, bind; every login is good."""
    if not direct:
        greet(peer, STARTTLS_FEATURES)
        peer.until(STARTTLS)
        peer.send(PROCEED)
    peer.start_tls(context, server=True)
    greet(peer, SASL_FEATURES)
    peer.until(AUTH_END)
    peer.send(SUCCESS)
    greet(peer, BIND_FEATURES)
    peer.until(BIND)
    peer.send(BOUND)


def log_in(peer: RawPeer, context: ssl.SSLContext, payload: bytes, *, direct: bool = False) -> None:
    """As a client: STARTTLS (or direct TLS), PLAIN with ``payload`` (Base64), bind."""
    if not direct:
        peer.send(DECLARATION + CLIENT_HEADER)
        peer.until(b"</stream:features>")
        peer.send(STARTTLS)
        peer.until(b"/>")
    peer.start_tls(context, server_hostname=DOMAIN)
    peer.send(CLIENT_HEADER)
    peer.until(b"</stream:features>")
    peer.send(AUTH_START + payload + AUTH_END)
    peer.until(b"/>")
    peer.send(CLIENT_HEADER)
    peer.until(b"</stream:features>")
    peer.send(BIND)
    peer.until(b"</iq>")
