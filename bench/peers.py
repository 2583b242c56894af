"""The two ends of a bench: a server that logs anybody in and echoes, and clients that log in and send messages.

Each runs as a process of its own, so that only the proxy between them is measured. Both are a plain epoll loop. The
XMPP is as much as a proxy's core needs to see an established stream; the clients wait for each echo before they send
the next message, so there is one message in flight a session.

    python bench/peers.py serve CERTIFICATE KEY      prints its port
    python bench/peers.py load PORT SESSIONS         logs in, prints "ready"; then each line "N" sends N messages in
                                                     all and prints "seconds p50_us p99_us version"
"""

import select
import socket
import ssl
import sys
import time
from collections.abc import Callable

NS = b"xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'"
CLIENT_HEADER = b"<stream:stream to='localhost' " + NS + b">"
SERVER_HEADER = b"<?xml version='1.0'?><stream:stream id='s1' from='localhost' " + NS + b">"
LOGIN_FEATURES = (
    b"<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>"
    b"</stream:features>"
)
AUTH = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHVzZXIAYmVuY2g=</auth>"
SUCCESS = b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
BIND_FEATURES = b"<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>"
BIND = b"<iq type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
BOUND = (
    b"<iq type='result' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>user@localhost/bench</jid></bind>"
    b"</iq>"
)
MESSAGE_BYTES = 230
_HEAD = b"<message from='user@localhost/bench' to='user@localhost/bench' type='chat' id='m0001'><body>"
_TAIL = b"</body></message>"
MESSAGE = _HEAD + b"x" * (MESSAGE_BYTES - len(_HEAD) - len(_TAIL)) + _TAIL

assert len(MESSAGE) == MESSAGE_BYTES

SERVER_SCRIPT = (
    (CLIENT_HEADER, SERVER_HEADER + LOGIN_FEATURES),
    (AUTH, SUCCESS),
    (CLIENT_HEADER, SERVER_HEADER + BIND_FEATURES),
    (BIND, BOUND),
)


def serve(certificate: str, key: str) -> None:
    """Log in whoever comes, then echo."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["xmpp-client"])
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], flush=True)
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    epoll.register(sys.stdin.fileno(), select.EPOLLIN)
    connections: dict[int, tuple[ssl.SSLSocket, list[bytes]]] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    tls = context.wrap_socket(sock, server_side=True)
                except OSError:
                    continue
                tls.setblocking(False)
                connections[tls.fileno()] = (tls, [])
                epoll.register(tls.fileno(), select.EPOLLIN)
            elif fd == sys.stdin.fileno():
                return  # the bench has gone
            else:
                tls, state = connections[fd]
                if not _answer(tls, state):
                    epoll.unregister(fd)
                    del connections[fd]
                    tls.close()


def _answer(tls: ssl.SSLSocket, state: list[bytes]) -> bool:
    """Answer what came; ``state`` holds what came of an unfinished step and, as its length, how many are done."""
    try:
        data = tls.recv(65_536)
        if not data:
            return False
        if len(state) == len(SERVER_SCRIPT):
            tls.send(data)
            return True
        wanted, answer = SERVER_SCRIPT[len(state)]
        if data == wanted:
            state.append(data)
            tls.send(answer)
            return True
    except ssl.SSLWantReadError:
        return True
    except OSError:
        return False
    print("the server did not understand:", data[:80], file=sys.stderr)
    return False


def load(port: int, sessions: int) -> None:
    """Log ``sessions`` clients in, then send messages as told on standard input."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["xmpp-client"])
    clients = [_log_in(context, port) for _ in range(sessions)]
    print("ready", flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        delays = sorted(_exchange(clients, int(line)))
        seconds = time.perf_counter() - begun
        p50, p99 = (delays[int(len(delays) * share)] * 1e6 for share in (0.5, 0.99))
        print(f"{seconds:.6f} {p50:.1f} {p99:.1f} {clients[0].version()}", flush=True)


def _log_in(context: ssl.SSLContext, port: int) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tls = context.wrap_socket(sock, server_hostname="localhost")
    tls.settimeout(20)
    for words, answer in SERVER_SCRIPT:
        tls.sendall(words)
        received = b""
        while len(received) < len(answer):
            part = tls.recv(65_536)
            if not part:
                raise SystemExit("the connection ended during log-in")
            received += part
        assert received == answer, received
    tls.setblocking(False)
    return tls


def _exchange(clients: list[ssl.SSLSocket], messages: int) -> list[float]:
    """Send ``messages`` in all, one in flight a client, and return the time each took to come back."""
    epoll = select.epoll()
    clock: Callable[[], float] = time.perf_counter
    sent_at: dict[int, float] = {}
    received: dict[int, int] = {}
    by_fd = {client.fileno(): client for client in clients}
    delays: list[float] = []
    left = messages
    for fd, client in by_fd.items():
        epoll.register(fd, select.EPOLLIN)
        client.send(MESSAGE)
        sent_at[fd], received[fd] = clock(), 0
        left -= 1
    while len(delays) < messages:
        for fd, _ in epoll.poll():
            client = by_fd[fd]
            try:
                data = client.recv(65_536)
            except ssl.SSLWantReadError:
                continue
            if not data:
                raise SystemExit("a connection ended")
            received[fd] += len(data)
            if received[fd] < MESSAGE_BYTES:
                continue
            delays.append(clock() - sent_at[fd])
            if left > 0:
                left -= 1
                client.send(MESSAGE)
                sent_at[fd], received[fd] = clock(), 0
    epoll.close()
    return delays


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        load(int(sys.argv[2]), int(sys.argv[3]))
