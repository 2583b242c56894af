"""The control socket over a real AF_UNIX socket: who may, what is answered, and what a hostile request costs."""

import errno
import json
import os
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from xproxy.config.control import ControlSettings
from xproxy.control.address import control_socket
from xproxy.control.router import Document, Refused, Request, Router
from xproxy.control.server import ControlServer, open_control_socket
from xproxy.errors import EnvironmentProblem, FileProblem
from xproxy.events.proxy import ConfigChanged


@attrs.define(eq=False)
class Rig:
    """A server with a few resources, and what it recorded."""

    path: Path
    server: ControlServer
    noted: list[ConfigChanged]
    hold: trio.Event
    noticed: trio.Event  # something was recorded

    async def connect(self) -> trio.SocketStream:
        return trio.SocketStream(await self._connected())

    async def _connected(self) -> trio.socket.SocketType:
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        await sock.connect(str(self.path))
        return sock

    async def send(self, data: bytes) -> tuple[int, dict[str, Any]]:
        """Send octets and read the answer to its end."""
        stream = await self.connect()
        async with stream:
            with trio.fail_after(5):
                with suppress(trio.BrokenResourceError):  # it has answered already
                    await stream.send_all(data)
                return await answer_on(stream)

    async def ask(self, method: str, target: str, body: object = None) -> tuple[int, dict[str, Any]]:
        data = b"" if body is None else json.dumps(body).encode()
        return await self.send(request(method, target, data))


def request(method: str, target: str, body: bytes = b"") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: xproxy\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def answer_on(stream: trio.SocketStream) -> tuple[int, dict[str, Any]]:
    data = bytearray()
    try:
        async for chunk in stream:
            data += chunk
    except trio.BrokenResourceError:
        pass  # it closed while we were still sending; what it said is here
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    assert head.count(b"HTTP/1.1") == 1, data
    return int(head.split()[1]), json.loads(body)


@asynccontextmanager
async def serving(directory: Path, **settings: Any) -> AsyncIterator[Rig]:
    router, hold, noticed = Router(), trio.Event(), trio.Event()
    noted: list[ConfigChanged] = []

    def note(event: ConfigChanged) -> None:
        noted.append(event)
        noticed.set()

    async def echo(request: Request) -> Document:
        request.only("text", "seconds")
        return {
            "text": request.text("text"),
            "seconds": request.number("seconds"),
            "name": request.parts.get("name"),
            "uid": request.caller.uid,
            "pid": request.caller.pid,
        }

    async def fail(request: Request) -> Document:
        raise ZeroDivisionError("s3cret")

    async def refuse(request: Request) -> Document:
        raise Refused(409, "it is there already", "choose another name")

    async def problem(request: Request) -> Document:
        raise EnvironmentProblem("the disk is full", "make room")

    async def wait(request: Request) -> Document:
        await hold.wait()
        return {"waited": True}

    router.read("/v1/echo", echo)
    router.read("/v1/things/{name}", echo)
    router.read("/v1/fail", fail)
    router.read("/v1/wait", wait)
    router.change("PUT", "/v1/echo", echo, what="echo")
    router.change("POST", "/v1/fail", fail, what="fail")
    router.change("POST", "/v1/refuse", refuse, what="refuse")
    router.change("POST", "/v1/problem", problem, what="problem")
    path = control_socket(directory)
    server = ControlServer(router, ControlSettings(**settings), note)
    with open_control_socket(path) as listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, listener)
            yield Rig(path=path, server=server, noted=noted, hold=hold, noticed=noticed)
            await server.close()
    assert not path.exists()


async def test_an_answer_is_json_and_names_who_asked(tmp_path: Path) -> None:
    async with serving(tmp_path) as rig:
        assert await rig.ask("GET", "/v1/echo?text=a%20b&seconds=2.5") == (
            200,
            {"text": "a b", "seconds": 2.5, "name": None, "uid": os.geteuid(), "pid": os.getpid()},
        )
        assert (await rig.ask("GET", "/v1/things/x%2Fy"))[1]["name"] == "x%2Fy"
        assert rig.noted == []


async def test_a_change_is_recorded_with_who_asked_whatever_comes_of_it(tmp_path: Path) -> None:
    who = {"by_uid": os.geteuid(), "by_pid": os.getpid()}
    async with serving(tmp_path) as rig:
        assert (await rig.ask("PUT", "/v1/echo", {"text": "x"}))[0] == 200
        assert (await rig.ask("PUT", "/v1/echo", {"txet": "x"}))[0] == 400
        assert await rig.ask("POST", "/v1/refuse") == (409, ANY_ERROR("it is there already", "choose another name"))
        assert await rig.ask("POST", "/v1/problem") == (500, ANY_ERROR("the disk is full", "make room"))
        assert (await rig.ask("POST", "/v1/fail"))[0] == 500
        assert rig.noted == [
            ConfigChanged(what=("echo",), **who),
            ConfigChanged(what=("echo",), problem="unknown parameter 'txet'", **who),
            ConfigChanged(what=("refuse",), problem="it is there already", **who),
            ConfigChanged(what=("problem",), problem="the disk is full: make room", **who),
            ConfigChanged(what=("fail",), problem="an internal error", **who),
        ]


class ANY_ERROR:  # noqa: N801 - reads as a value
    """Equal to an error document with these words."""

    def __init__(self, error: str, hint: str | None) -> None:
        self.wanted = (error, hint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and (other["error"], other["hint"]) == self.wanted

    __hash__ = None  # type: ignore[assignment]


async def test_a_bug_in_a_handler_is_an_answer_without_its_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as rig:
        status, document = await rig.ask("GET", "/v1/fail")
        assert (status, document["error"]) == (500, "an internal error")
        assert (await rig.ask("GET", "/v1/echo"))[0] == 200  # and it goes on
    assert "GET /v1/fail failed" in caplog.text
    assert "s3cret" not in caplog.text


MALFORMED: dict[str, tuple[bytes, int, str]] = {
    "no http": (b"\x16\x03\x01\x02\x00 hello\r\n\r\n", 400, "not HTTP/1.1"),
    "no version": (b"GET /v1/echo\r\n\r\n", 400, "not HTTP/1.1"),
    "no host": (b"GET /v1/echo HTTP/1.1\r\n\r\n", 400, "not HTTP/1.1"),
    "unknown path": (request("GET", "/v1/none"), 404, "there is no /v1/none"),
    "unknown version": (request("GET", "/v2/echo"), 404, "there is no /v2/echo"),
    "method": (request("DELETE", "/v1/echo"), 405, "takes GET, PUT, not DELETE"),
    "no json": (request("PUT", "/v1/echo", b"{"), 400, "no JSON"),
    "no utf-8": (request("PUT", "/v1/echo", b'{"text": "\xff"}'), 400, "no JSON"),
    "no object": (request("PUT", "/v1/echo", b"[]"), 400, "no JSON object"),
    "deep": (request("PUT", "/v1/echo", b"[" * 60_000), 400, "no JSON"),
    "no number": (request("GET", "/v1/echo?seconds=x"), 400, "seconds must be a number"),
    "nan": (request("GET", "/v1/echo?seconds=nan"), 400, "seconds must be a number"),
    "true": (request("PUT", "/v1/echo", b'{"seconds": true}'), 400, "seconds must be a number"),
    "negative": (request("PUT", "/v1/echo", b'{"seconds": -1}'), 400, "from 0 to"),
    "no text": (request("PUT", "/v1/echo", b'{"text": 1}'), 400, "text must be text"),
    "parameters": (request("GET", "/v1/echo?" + "a=1&" * 100), 400, "path cannot be read"),
    "bracket": (request("GET", "http://[/v1/echo"), 400, "path cannot be read"),
    "body": (request("PUT", "/v1/echo", b" " * 70_000), 413, "more than 65536 bytes"),
    "length that lies": (
        b"PUT /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b" " * 70_000,
        413,
        "more than",
    ),
    "chunks": (
        b"PUT /v1/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"400\r\n%s\r\n" % (b" " * 1024) * 70,
        413,
        "more than",
    ),
    "two lengths": (
        b"PUT /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        400,
        "not HTTP/1.1",
    ),
    "header": (b"GET /v1/echo HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000, 431, "not HTTP/1.1"),
    "connect": (b"CONNECT /v1/echo HTTP/1.1\r\nHost: x\r\n\r\n", 405, "takes GET, PUT, not CONNECT"),
    "upgrade": (
        b"PATCH /v1/echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        405,
        "takes GET, PUT, not PATCH",
    ),
    "header without end": (b"GET /" + b"x" * 70_000, 431, "not HTTP/1.1"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_request_is_an_answer_and_nothing_more(tmp_path: Path, name: str) -> None:
    data, status, words = MALFORMED[name]
    async with serving(tmp_path) as rig:
        got, document = await rig.send(data)
        assert (got, words in document["error"]) == (status, True), document
        assert (await rig.ask("GET", "/v1/echo"))[0] == 200


async def test_a_request_byte_by_byte_is_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path) as rig, await rig.connect() as stream:
        for octet in request("PUT", "/v1/echo", b'{"text": "x"}'):
            await stream.send_all(bytes([octet]))
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            status, document = await answer_on(stream)
        assert (status, document["text"]) == (200, "x")


async def test_head_is_answered_with_a_head(tmp_path: Path) -> None:
    async with serving(tmp_path) as rig, await rig.connect() as stream:
        await stream.send_all(b"HEAD /v1/echo HTTP/1.1\r\nHost: x\r\n\r\n")
        with trio.fail_after(5):
            answer = b"".join([chunk async for chunk in stream])
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert answer.endswith(b"\r\n\r\n")


async def test_a_client_that_asks_first_is_told_to_go_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as rig, await rig.connect() as stream:
        await stream.send_all(b"PUT /v1/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 13\r\n\r\n")
        with trio.fail_after(5):
            assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 100")
            await stream.send_all(b'{"text": "x"}')
            assert (await answer_on(stream))[1]["text"] == "x"


async def test_what_is_pipelined_is_not_carried_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as rig:
        assert (await rig.send(request("PUT", "/v1/echo", b"{}") * 3))[0] == 200
        assert len(rig.noted) == 1


async def test_what_is_not_read_of_a_request_costs_nobody_the_answer(tmp_path: Path) -> None:
    """Closed with octets unread, a socket is reset (unix(7)), and its peer reads an error in place of the end."""
    async with serving(tmp_path) as rig, await rig.connect() as stream:
        with trio.fail_after(5):
            await stream.send_all(b"no request\r\n\r\n" + bytes(50_000))
            answer = b"".join([chunk async for chunk in stream])
            await stream.send_all(bytes(50_000))
        assert answer.startswith(b"HTTP/1.1 400 ")


async def test_a_slow_request_is_given_up(tmp_path: Path) -> None:
    async with serving(tmp_path, request_seconds_max=0.05) as rig, await rig.connect() as stream:
        await stream.send_all(b"GET /v1/echo HTTP/1.1\r\n")
        with trio.fail_after(5):
            status, document = await answer_on(stream)
        assert (status, "did not arrive within 0.05 s" in document["error"]) == (408, True)


async def test_who_takes_no_answer_is_given_up(tmp_path: Path) -> None:
    """An answer larger than the socket's buffers; the client never reads."""
    big = "x" * 60_000
    async with serving(tmp_path, request_seconds_max=0.05) as rig:
        stream = await rig.connect()
        rig_socket = stream.socket
        rig_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        await stream.send_all(request("PUT", "/v1/echo", json.dumps({"text": big}).encode()))
        with trio.fail_after(5):
            await rig.noticed.wait()
            await rig.server.close()  # returns: nobody is waited for
        await stream.aclose()


async def test_above_the_limit_of_connections_others_are_turned_away(tmp_path: Path) -> None:
    async with serving(tmp_path, connections_max=2) as rig:
        held = [await rig.connect() for _ in range(2)]
        await trio.testing.wait_all_tasks_blocked()
        status, document = await rig.ask("GET", "/v1/echo")
        assert (status, document["error"]) == (503, "more than 2 connections")
        for stream in held:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await rig.ask("GET", "/v1/echo"))[0] == 200


async def test_a_client_that_leaves_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path) as rig:
        for data in (b"", b"GET /v1", request("GET", "/v1/echo")):
            stream = await rig.connect()
            if data:
                await stream.send_all(data)
            await stream.aclose()
        assert (await rig.ask("GET", "/v1/echo"))[0] == 200
    assert caplog.text == ""


async def test_an_accept_that_fails_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [errno.EPROTO, errno.EMFILE, errno.EMFILE, errno.ENOMEM, errno.ECONNABORTED]
    accept = socket.socket.accept

    def fail_first(sock: socket.socket) -> Any:
        if left:
            raise OSError(left.pop(), "by the test")
        return accept(sock)

    async with serving(tmp_path, request_seconds_max=5.0) as rig:
        monkeypatch.setattr("socket.socket.accept", fail_first)
        assert (await rig.ask("GET", "/v1/echo"))[0] == 200
        assert left == []
        monkeypatch.undo()


async def test_what_was_asked_before_the_end_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as rig:
        answers: list[int] = []

        async def ask() -> None:
            answers.append((await rig.ask("GET", "/v1/wait"))[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(rig.server.close)
            await trio.testing.wait_all_tasks_blocked()
            rig.hold.set()
        assert answers == [200]


# The file ------------------------------------------------------------------------------------------------------------


async def test_the_socket_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with serving(tmp_path) as rig:
            assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


async def test_a_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(control_socket(tmp_path)))
    dead.close()
    async with serving(tmp_path) as rig:
        assert (await rig.ask("GET", "/v1/echo"))[0] == 200


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_not_touched(tmp_path: Path, kind: str) -> None:
    path, other = control_socket(tmp_path), tmp_path / "other"
    other.write_text("keep")
    if kind == "file":
        path.write_text("mine")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(other)
    with pytest.raises(FileProblem, match="is there, and is no socket: remove it"), open_control_socket(path):
        pass
    assert other.read_text() == "keep"
    assert path.is_symlink() or path.exists()


async def test_a_successors_socket_is_left_alone(tmp_path: Path) -> None:
    path = control_socket(tmp_path)
    with open_control_socket(path):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


async def test_a_path_longer_than_an_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with open_control_socket(control_socket(deep)):
        assert stat.S_ISSOCK(control_socket(deep).stat().st_mode)
    assert not control_socket(deep).exists()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = control_socket(tmp_path / "none")
    with pytest.raises(FileProblem, match=r"cannot make the control socket .*control\.sock: No such file"):
        open_control_socket(path).__enter__()


AS_NOBODY = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
except PermissionError:
    sys.exit("no permission")
try:
    s.sendall(b"PUT /v1/echo HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
except BrokenPipeError:
    pass  # it has answered already
print(s.makefile().read())
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that anybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="xproxy-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_another_user_is_refused_and_recorded(open_directory: Path) -> None:
    """By the mode of the file; and where that is open, by the kernel's word about who asks."""
    async with serving(open_directory) as rig:
        run = [sys.executable, "-c", AS_NOBODY, str(rig.path)]
        closed = await trio.run_process(run, capture_stdout=True, capture_stderr=True, check=False)
        assert b"no permission" in closed.stderr
        assert rig.noted == []
        os.chmod(rig.path, 0o666)
        opened = await trio.run_process(run, capture_stdout=True)
        assert b"403" in opened.stdout
        assert b"for root and the user that xproxy runs as" in opened.stdout
        (noted,) = rig.noted
        assert (noted.what, noted.problem, noted.by_uid) == (("control-socket",), "not permitted", 65534)
