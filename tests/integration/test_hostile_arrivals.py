"""A crowd that does at the ways in what it should not: nothing is left of it, others come in, and all of it is told."""

import contextlib
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import StartProxy
from tests.support.proxy_process import ProxyProcess, at
from xproxy.events import Endpoint
from xproxy.proxy.proxy_protocol import SIGNATURE_V2, render_local, render_v1, render_v2

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CLIENT, DIALLED = Endpoint("192.0.2.7", 56_324), Endpoint("198.51.100.1", 5222)
GREETING = b"\x05\x01\x00"
REQUEST = GREETING + b"\x05\x01\x00\x01\x7f\x00\x00\x01"
BEGINNINGS = {
    "proxy": [
        render_v1(CLIENT, DIALLED),
        render_v2(CLIENT, DIALLED),
        render_local(),
        b"PROXY UNKNOWN\r\n",
        SIGNATURE_V2,
    ],
    "socks5": [GREETING, REQUEST + struct.pack("!H", 5222), b"\x04\x01", b"\x05\xff" + bytes(255), GREETING * 9],
}
CONNECTIONS = 700
AT_ONCE = 200


def misbehave(sock: socket.socket, scheme: str, rng: random.Random) -> None:
    """Say something, in one way or another, and stay or leave."""
    said = bytearray(rng.choice(BEGINNINGS[scheme]))
    match rng.randrange(6):
        case 0:
            said = said[: rng.randint(0, len(said))]
        case 1 if said:
            said[rng.randrange(len(said))] ^= 1 << rng.randrange(8)
        case 2:
            said = bytearray(rng.randbytes(rng.randint(1, 3_000)))
        case 3:
            said += rng.randbytes(rng.randint(1, 20_000))
        case _:
            pass
    with contextlib.suppress(BlockingIOError, ConnectionError):
        sock.send(said)
    match rng.randrange(4):
        case 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        case 1:
            sock.close()
        case 2:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
        case _:
            pass


def descriptors(proxy: ProxyProcess) -> int:
    return len(os.listdir(f"/proc/{proxy.process.pid}/fd"))


@contextlib.contextmanager
def listening_server(hello: bytes) -> Iterator[tuple[int, threading.Event]]:
    """A server that takes every connection, and tells when one of them began with ``hello``."""
    heard = threading.Event()

    def serve(listening: socket.socket) -> None:
        kept = []
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listening.accept()
                kept.append(sock)
                threading.Thread(target=listen_to, args=(sock,), daemon=True).start()

    def listen_to(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65_536):
                if data.startswith(hello):
                    heard.set()

    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1], heard
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("scheme", ["proxy", "socks5"])
def test_nothing_is_left_of_a_hostile_crowd(start_proxy: StartProxy, tmp_path: Path, scheme: str) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    hello = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='xmpp.test'>"
    with listening_server(hello) as (port, heard):
        # A directory of its own: octets that are no XML are cut out of captures, which then cannot be judged.
        captures = ("--capture", str(tmp_path / "captures"))
        proxy = start_proxy(port, *captures, listen=[f"{scheme}://127.0.0.1:0"], domain="xmpp.test")
        before, resident = descriptors(proxy), proxy.resident_bytes()
        crowd: list[socket.socket] = []
        for _ in range(CONNECTIONS):
            sock = socket.create_connection(("127.0.0.1", proxy.port))
            sock.setblocking(False)
            crowd.append(sock)
            misbehave(sock, scheme, rng)
            if len(crowd) > AT_ONCE:
                crowd.pop(rng.randrange(len(crowd))).close()
        # In the middle of it somebody comes in as he should, from an address of his own.
        with socket.create_connection(("127.0.0.1", proxy.port), 20, source_address=("127.0.0.2", 0)) as client:
            if scheme == "proxy":
                client.sendall(render_v2(Endpoint("203.0.113.5", 9), DIALLED))
            else:
                client.sendall(REQUEST + struct.pack("!H", port))
                answer = b""
                while len(answer) < 12:
                    answer += client.recv(12 - len(answer))
                assert answer[:4] == b"\x05\x00\x05\x00"
            client.sendall(hello)
            assert heard.wait(20), f"seed {seed}"
        for sock in crowd:
            sock.close()
        deadline = time.monotonic() + 30
        while descriptors(proxy) > before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert descriptors(proxy) <= before, f"descriptors are left, seed {seed}"
        assert proxy.resident_bytes() < resident + 30_000_000
        proxy.stop()
    reasons = Counter(at(record, "event.reason") for record in proxy.records() if at(record, "event.reason"))
    print(reasons)
    assert "internal error" not in proxy.stderr()
    wanted = "proxy-header-malformed" if scheme == "proxy" else "socks-malformed"
    assert reasons[wanted] > CONNECTIONS / 20, reasons
