"""sd_listen_fds(3) and sd_notify(3), against the descriptors and datagrams they are made of."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from xproxy.control.systemd import Notifier, take_passed_sockets
from xproxy.errors import EnvironmentProblem

PASSING = """
import os, socket, sys
kind = sys.argv[1]
os.closerange(3, 20)
if kind == "tcp":
    made = [socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))]
elif kind == "not listening":
    made = [socket.socket()]
elif kind == "udp":
    made = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
elif kind == "unix":
    made = [socket.socket(socket.AF_UNIX)]
elif kind == "file":
    made = [open("/dev/null")]
else:
    made = []
assert [each.fileno() for each in made] == list(range(3, 3 + len(made)))
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2], LISTEN_FDNAMES="clients")
from xproxy.control.systemd import take_passed_sockets
from xproxy.errors import EnvironmentProblem
try:
    for passed in take_passed_sockets(os.environ, os.getpid()):
        print(passed.name, passed.sock.getsockname()[0], passed.sock.getblocking(), passed.sock.get_inheritable())
except EnvironmentProblem as problem:
    print(problem)
print({name for name in os.environ if name.startswith("LISTEN_")})
"""


def pass_to_child(kind: str, count: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PASSING, kind, count], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.slow
def test_sockets_are_taken_with_their_names() -> None:
    assert pass_to_child("tcp", "2") == ["clients 127.0.0.1 False False", "unknown 127.0.0.1 False False", "set()"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count", "words"),
    [
        ("not listening", "1", "descriptor 3 (clients), passed by the service manager, is not a listening TCP socket"),
        ("udp", "1", "is not a listening TCP socket"),
        ("unix", "1", "is not a listening TCP socket"),
        ("file", "1", "is no socket: in the .socket unit write ListenStream="),
        ("none", "1", "cannot be used: Bad file descriptor"),
        ("none", "-1", "LISTEN_FDS is '-1', which is no number of sockets"),
        ("none", "99999", "no number of sockets"),
    ],
)
def test_what_is_no_listener_is_refused(kind: str, count: str, words: str) -> None:
    problem, left = pass_to_child(kind, count)
    assert words in problem
    assert left == "set()"


def test_what_was_passed_to_another_process_is_left_alone() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "OTHER": "x"}
    assert take_passed_sockets(environment, os.getpid()) == []
    assert environment == {"OTHER": "x"}
    assert take_passed_sockets({}, os.getpid()) == []


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """An address, and the socket there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = str(tmp_path / "notify") if request.param == "path" else f"@xproxy-test-{os.getpid()}"
        sock.bind(name.replace("@", "\0") if name.startswith("@") else name)
        sock.settimeout(5)
        yield name, sock


def test_the_manager_hears_of_every_step(manager: tuple[str, socket.socket]) -> None:
    name, sock = manager
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier.from_environment(environment, os.getpid())
    assert environment == {}
    assert notifier.watchdog_seconds == 10.0
    notifier.ready("running")
    notifier.reloading()
    notifier.alive()
    notifier.status("3 sessions")
    notifier.stopping("draining", 60.5)
    assert sock.recv(4_096) == b"READY=1\nSTATUS=running"
    reloading, microseconds = sock.recv(4_096).split(b"\nMONOTONIC_USEC=")
    assert reloading == b"RELOADING=1"
    assert int(microseconds) > 0
    assert sock.recv(4_096) == b"WATCHDOG=1"
    assert sock.recv(4_096) == b"STATUS=3 sessions"
    assert sock.recv(4_096) == b"STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=60500000"


def test_without_a_manager_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier.from_environment({"WATCHDOG_USEC": "1000"}, os.getpid())
    notifier.ready("x")
    assert notifier.watchdog_seconds is None
    assert caplog.text == ""


@pytest.mark.parametrize("period", ["", "0", "x", "-1"])
def test_a_watchdog_that_is_none_is_not_fed(period: str) -> None:
    assert Notifier.from_environment({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": period}, 1).watchdog_seconds is None


def test_a_watchdog_for_another_process_is_not_fed() -> None:
    environment = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    assert Notifier.from_environment(environment, 2).watchdog_seconds is None


def test_a_manager_that_cannot_be_reached_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(str(tmp_path / "none"))
    notifier.ready("x")
    notifier.alive()
    assert caplog.text.count("the service manager cannot be told at") == 1


def test_an_address_of_another_kind_is_said(caplog: pytest.LogCaptureFixture) -> None:
    Notifier.from_environment({"NOTIFY_SOCKET": "vsock:2:1234"}, 1).ready("x")
    assert "NOTIFY_SOCKET is neither a path nor an abstract socket" in caplog.text


def test_a_manager_that_does_not_read_stops_nobody_and_hears_it_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its queue has room for a few datagrams (net.unix.max_dgram_qlen): what does not fit must not be lost."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        notifier = Notifier(str(tmp_path / "notify"))
        for _ in range(2_000):
            notifier.alive()
        notifier.ready("running")
        notifier.stopping("draining", 1)
        heard = [sock.recv(4_096)]
        while not heard[-1].startswith(b"STOPPING=1"):
            notifier.flush()
            heard.append(sock.recv(4_096))
        assert [each for each in heard if not each.startswith(b"WATCHDOG=1")] == [
            b"READY=1\nSTATUS=running",
            b"STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=1000000",
        ]
    assert caplog.text == ""


def test_problems_are_of_the_environment() -> None:
    with pytest.raises(EnvironmentProblem):
        take_passed_sockets({"LISTEN_PID": "7", "LISTEN_FDS": "x"}, 7)
