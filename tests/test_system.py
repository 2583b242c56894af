"""What Linux has and others have not: the ways that do without, and that they can be asked for."""

import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from xproxy import system

ASK = """
import os, select, socket, sys, time
from xproxy import system
from xproxy.proxy.plane import new_plane
print(type(new_plane(channel=None, wall_ns=time.time_ns)).__name__, system.WAKES_AT_LOW_MARK,
      *(system.offers(module, name) for module, name in
        ((select, "epoll"), (socket, "TCP_INFO"), (os, "memfd_create"), (os, "fdatasync"), (os, "posix_fallocate"))))
"""


def ask(value: str | None) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != system.PORTABLE_VARIABLE}
    if value is not None:
        environment[system.PORTABLE_VARIABLE] = value
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it asks what Linux offers")
@pytest.mark.parametrize("value", [None, "", "0", "1"])
def test_the_environment_chooses_the_portable_ways(value: str | None) -> None:
    if value == "1":
        assert ask(value) == ["WaitReadablePlane", *["False"] * 6]
    else:
        assert ask(value) == ["EpollPlane", *["True"] * 6]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


class Syncs:
    """Stands in for fsync, fdatasync and macOS's F_FULLFSYNC, and keeps what was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, full: int | None = None) -> None:
        self.calls: list[str] = []
        self.full_error = full
        monkeypatch.setattr(os, "fsync", lambda _: self.calls.append("fsync"))
        monkeypatch.setattr(os, "fdatasync", lambda _: self.calls.append("fdatasync"), raising=False)
        monkeypatch.setattr(fcntl, "fcntl", self.full_sync)

    def full_sync(self, _: int, command: int) -> int:
        self.calls.append(f"fcntl {command}")
        if self.full_error is not None:
            raise OSError(self.full_error, os.strerror(self.full_error))
        return 0


def test_linux_syncs_data_by_fdatasync_and_the_rest_by_fsync(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_HAS_DATA_SYNC", True)
    monkeypatch.setattr(system, "_FULL_SYNC", None)
    syncs = Syncs(monkeypatch)
    system.sync_data(file)
    system.sync(file)
    assert syncs.calls == ["fdatasync", "fsync"]


@pytest.mark.parametrize(
    ("refusal", "calls"),
    [
        (None, ["fcntl 51"]),
        (errno.ENOTSUP, ["fcntl 51", "fsync"]),
        (errno.ENOTTY, ["fcntl 51", "fsync"]),
    ],
)
def test_macos_empties_the_drive_s_cache_where_it_can(
    file: int, monkeypatch: pytest.MonkeyPatch, refusal: int | None, calls: list[str]
) -> None:
    monkeypatch.setattr(system, "_HAS_DATA_SYNC", False)
    monkeypatch.setattr(system, "_FULL_SYNC", 51)  # F_FULLFSYNC of <sys/fcntl.h>
    syncs = Syncs(monkeypatch, full=refusal)
    system.sync_data(file)
    assert syncs.calls == calls


def test_a_disk_that_fails_is_not_asked_a_second_time(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_HAS_DATA_SYNC", False)
    monkeypatch.setattr(system, "_FULL_SYNC", 51)
    syncs = Syncs(monkeypatch, full=errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        system.sync_data(file)
    assert syncs.calls == ["fcntl 51"]


def test_the_end_of_a_peer_shows_behind_what_it_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    with client, ours:
        assert not system.has_ended(ours.fileno())
        client.send(b"unread")
        assert not system.has_ended(ours.fileno())
        client.shutdown(socket.SHUT_WR)
        select.select([ours], [], [], 5)
        assert system.has_ended(ours.fileno())
        assert ours.recv(10) == b"unread"


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="there is no SO_PEERCRED")
def test_who_is_at_the_other_end_on_linux() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert system.peer_of(one) == (os.getpid(), os.getuid())


def test_who_is_at_the_other_end_on_macos() -> None:
    """By the layouts of its headers: struct xucred, and a pid_t."""

    def getsockopt(level: int, option: int, size: int) -> bytes:
        assert level == 0  # SOL_LOCAL
        if option == 1:  # LOCAL_PEERCRED
            assert size == 4 + 4 + 2 + 2 + 16 * 4
            return struct.pack("=IIhxx16I", 0, 501, 1, 20, *[0] * 15)
        assert (option, size) == (2, 4)  # LOCAL_PEERPID
        return struct.pack("=i", 4711)

    assert system.peer_on_macos(SimpleNamespace(getsockopt=getsockopt)) == (4711, 501)


DEPRIVED = """
import os, pkgutil, select, socket, types, importlib, sys
import trio, trio._core._io_epoll
trio._core._io_epoll.select = types.SimpleNamespace(**vars(select))  # trio itself stays on Linux
for module, names in (
    (select, "epoll EPOLLIN EPOLLOUT EPOLLERR EPOLLHUP EPOLLET"),
    (os, "fdatasync posix_fallocate memfd_create MFD_CLOEXEC eventfd pipe2 sched_getaffinity O_TMPFILE posix_fadvise"),
    (socket, "SO_PEERCRED TCP_INFO TCP_KEEPIDLE TCP_USER_TIMEOUT TCP_QUICKACK SOCK_CLOEXEC SOCK_NONBLOCK SO_DOMAIN"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
import xproxy
for module in pkgutil.walk_packages(xproxy.__path__, "xproxy."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from xproxy.cli.main import main
sys.exit(main(["demo", "--dir", sys.argv[1], "--log-format", "json"]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are missing by themselves")
def test_where_they_are_missing_everything_is_imported_and_the_demo_runs(tmp_path: Path) -> None:
    """As on macOS: names that only Linux has are gone, not just left alone."""
    done = subprocess.run(
        [sys.executable, "-c", DEPRIVED, str(tmp_path / "demo")],
        env=os.environ | {system.PORTABLE_VARIABLE: "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "session-resumed" in done.stdout
    assert "Traceback" not in done.stderr
