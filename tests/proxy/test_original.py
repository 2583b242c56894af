"""What netfilter says about a connection, without netfilter; with it: tests/integration/test_ways_in.py."""

import ipaddress
import socket
import struct

import pytest

from xproxy.events import Endpoint
from xproxy.proxy import original
from xproxy.proxy.original import is_own_address, make_transparent, original_destination


class Redirected(socket.socket):
    """A socket of which connection tracking says something."""

    says: bytes | int

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes:  # type: ignore[override]
        assert (option, size) == (80, 16 if level == 0 else 28)
        self.asked = level
        if isinstance(self.says, int):
            raise OSError(self.says, "no")
        return self.says


IPV4 = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 5222) + bytes([192, 0, 2, 7]) + bytes(8)
IPV6 = (
    struct.pack("=H", socket.AF_INET6)
    + struct.pack("!HI", 5223, 0)
    + ipaddress.IPv6Address("2001:db8::7").packed
    + struct.pack("=I", 0)
)


@pytest.mark.parametrize(
    ("listener", "says", "level", "destination"),
    [
        (Endpoint("10.0.0.1", 15_222), IPV4, 0, Endpoint("192.0.2.7", 5222)),
        (Endpoint("fd00::1", 15_222), IPV6, 41, Endpoint("2001:db8::7", 5223)),
        (Endpoint("192.0.2.7", 5222), IPV4, 0, None),  # tracked, and not redirected
        (Endpoint("2001:db8::7", 5223), IPV6, 41, None),
        (Endpoint("10.0.0.1", 15_222), 2, 0, None),  # ENOENT
        (Endpoint("fd00::1", 15_222), 92, 41, None),  # ENOPROTOOPT
    ],
)
def test_what_connection_tracking_remembers(
    listener: Endpoint, says: bytes | int, level: int, destination: Endpoint | None
) -> None:
    with Redirected() as sock:
        sock.says = says
        assert original_destination(sock, listener) == destination
        assert sock.asked == level


def test_a_real_connection_that_nobody_redirected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        accepted, _ = server.accept()
        with accepted:
            assert original_destination(accepted, Endpoint(*accepted.getsockname())) is None


def test_elsewhere_than_on_linux_nothing_is_redirected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "_IS_LINUX", False)
    with Redirected() as sock:
        sock.says = IPV4
        assert original_destination(sock, Endpoint("10.0.0.1", 15_222)) is None
        with pytest.raises(OSError, match="TPROXY"):
            make_transparent(sock)


def test_addresses_of_this_machine() -> None:
    for ip in ("127.0.0.1", "127.1.2.3", "::1", "0.0.0.0", "::"):
        assert is_own_address(ip)
    for ip in ("192.0.2.7", "2001:db8::7"):
        assert not is_own_address(ip)
