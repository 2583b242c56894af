"""What a command says when the proxy cannot be asked, and what it gets when it can."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.control.test_server import serving
from xproxy import __version__
from xproxy.control.address import control_socket
from xproxy.control.client import ControlClient, ControlRefused, NoProxy, wait_for_end
from xproxy.errors import EXIT_ENVIRONMENT, EXIT_NO


async def test_it_asks_and_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as rig:
        client = ControlClient(tmp_path)
        assert (await in_thread(lambda: client.get("/v1/echo", {"text": "ö&=", "seconds": None})))["text"] == "ö&="
        assert (await in_thread(lambda: client.put("/v1/echo", {"text": "x"})))["text"] == "x"
        assert await in_thread(client.process) == os.getpid()
        assert len(rig.noted) == 1


async def test_a_refusal_keeps_the_words_of_the_proxy(tmp_path: Path) -> None:
    async with serving(tmp_path):
        with pytest.raises(ControlRefused) as refused:
            await in_thread(lambda: ControlClient(tmp_path).post("/v1/refuse"))
    assert (refused.value.status, refused.value.exit_code) == (409, EXIT_NO)
    assert str(refused.value) == "it is there already: choose another name"


async def test_a_path_longer_than_an_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    os.mkdir(deep)
    async with serving(tmp_path):
        os.rename(control_socket(tmp_path), control_socket(deep))
        assert "pid" in await in_thread(lambda: ControlClient(deep).get("/v1/echo"))
        os.rename(control_socket(deep), control_socket(tmp_path))


def test_without_a_proxy_it_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(NoProxy, match=f"no xproxy runs with the state directory {tmp_path}: start it, or") as error:
        ControlClient(tmp_path).get("/v1/status")
    assert error.value.exit_code == EXIT_ENVIRONMENT


def test_a_socket_that_a_dead_proxy_left_is_told(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(control_socket(tmp_path)))
    dead.close()
    with pytest.raises(NoProxy, match="has ended without a goodbye"):
        ControlClient(tmp_path).get("/v1/status")


ODD_ANSWERS = {
    "another program": (b"220 mail ESMTP\r\n\r\n", NoProxy, "is not xproxy, or has just ended"),
    "nothing": (b"", NoProxy, "is not xproxy, or has just ended"),
    "half": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", NoProxy, "is not xproxy, or has just ended"),
    "no json": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", NoProxy, "is not xproxy, or has just ended"),
    "another version": (
        b"HTTP/1.1 404 \r\nServer: xproxy/9.9.9\r\nContent-Length: 2\r\n\r\n{}",
        ControlRefused,
        f"the running xproxy is version 9.9.9 and does not know /v1/status: this command is version {__version__}",
    ),
    "the same version": (
        f'HTTP/1.1 404 \r\nServer: xproxy/{__version__}\r\nContent-Length: 15\r\n\r\n{{"error": "no"}}'.encode(),
        ControlRefused,
        "^no$",
    ),
}


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(control_socket(tmp_path)))
        sock.listen()
        yield sock


@pytest.mark.parametrize("name", ODD_ANSWERS)
def test_an_odd_answer_is_a_sentence(tmp_path: Path, listener: socket.socket, name: str) -> None:
    answer, kind, words = ODD_ANSWERS[name]

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4_096)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(kind, match=words):
        ControlClient(tmp_path).get("/v1/status")
    thread.join()


def test_silence_is_given_up(tmp_path: Path, listener: socket.socket) -> None:
    with pytest.raises(NoProxy, match="does not answer"):
        ControlClient(tmp_path, seconds_max=0.05).get("/v1/status")


AS_NOBODY = """
import os, sys
from pathlib import Path
from xproxy.control.client import ControlClient
os.setgroups([]); os.setgid(65534); os.setuid(65534)
ControlClient(Path(sys.argv[1])).get("/v1/status")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_users_proxy_is_told_as_such(tmp_path: Path, listener: socket.socket) -> None:
    control_socket(tmp_path).chmod(0o600)  # and pytest's directory is closed to others, as a state directory is
    tried = subprocess.run([sys.executable, "-c", AS_NOBODY, tmp_path], capture_output=True, text=True, check=False)
    assert f"EnvironmentProblem: no permission for {control_socket(tmp_path)}: run this as the user" in tried.stderr


def test_the_end_of_a_process_is_waited_for() -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "0.05"], {})
    assert not wait_for_end(pid, 0.001)
    assert wait_for_end(pid, 10)
    os.waitpid(pid, 0)
    assert wait_for_end(pid, 0)


async def in_thread(ask):  # type: ignore[no-untyped-def]
    """Run the blocking client while trio serves."""
    with trio.fail_after(10):
        return await trio.to_thread.run_sync(ask)
