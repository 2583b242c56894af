"""The control socket of a running proxy: HTTP/1.1 (h11) over AF_UNIX, JSON in and out.

**Who may.** The socket is 0600 in the state directory, and who connects is asked for by the kernel (SO_PEERCRED): the
user that the proxy runs as, and root. Everybody else gets 403, and a record says that he tried.

**One request a connection.** The answer says ``Connection: close``; what is pipelined behind a request is not read. So
there is no state between requests, and what one client does wrong concerns nobody else. A request must arrive within
``request_seconds_max``, its body within ``request_bytes_max``; an answer must be taken in the same time. Above
``connections_max`` connections the answer is 503 at once, without a word being looked at. What is left of a request is
read, unseen and for a moment, before the connection is closed.

**When.** The socket is made when the journal's lock is held: so one that is there already is that of a process which
died, and is replaced. It answers while the proxy drains and is closed before the journal is: what it changes is in
the log. The file is removed at the end, if it is still ours.
"""

import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import h11
import orjson
import trio

from xproxy import __version__, system
from xproxy.config.control import ControlSettings
from xproxy.control.address import is_socket, short_name
from xproxy.control.reading import Asked, RequestReader
from xproxy.control.router import VERSION, Caller, Document, Outcome, Refused, Request, Resource, Router
from xproxy.errors import FileProblem, XproxyError
from xproxy.events.proxy import ConfigChanged
from xproxy.proxy.diagnose import frames_of

log = logging.getLogger(__name__)

BACKLOG: Final = 16
READ_BYTES: Final = 16_384
ACCEPT_PAUSE_SECONDS: Final = 0.1  # when there is no descriptor at all: as the listener for clients
DRAIN_BYTES_MAX: Final = 262_144  # behind an answer; who sends more than a socket's buffers take is reset
CLOSE_SECONDS_MAX: Final = 1.0  # for answers that are under way at the end


@contextmanager
def open_control_socket(path: Path) -> Iterator[socket.socket]:
    """Listen at ``path``, mode 0600, non-blocking; the journal's lock says that nobody else does. It goes at the end.

    Raises:
        FileProblem: it cannot be made.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        ours = _bind(sock, path)
        try:
            yield sock
        finally:
            with suppress(OSError):
                if _identity(path) == ours:
                    path.unlink()
    finally:
        sock.close()


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells the file at ``path`` from one that takes its place: a file system gives an inode out again."""
    status = path.lstat()
    return status.st_ino, status.st_mtime_ns


def _bind(sock: socket.socket, path: Path) -> tuple[int, int]:
    """Bind and listen; return the identity of the file."""
    hint = "choose another directory with --state DIR, or write enabled = false in [control]"
    try:
        if path.exists() or path.is_symlink():
            if not is_socket(path):
                raise FileProblem(f"{path} is there, and is no socket", "remove it", path=path)
            path.unlink()
        with short_name(path) as name:
            # On Linux the file gets the mode of the socket: there is no moment at which it is open to others.
            with suppress(OSError):
                os.fchmod(sock.fileno(), 0o600)
            sock.bind(name)
        path.chmod(0o600)
        identity = _identity(path)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="make the control socket", path=path, hint=hint) from error
    return identity


class ControlServer:
    """Answers on the control socket."""

    def __init__(self, router: Router, settings: ControlSettings, note: Callable[[ConfigChanged], None]) -> None:
        """``note`` records what was changed, and by whom."""
        self._router = router
        self._settings = settings
        self._note = note
        self._connections = 0
        self._own_uid = os.geteuid()
        self._closing = trio.Event()
        self._closed = trio.Event()
        self._closed.set()  # it does not serve yet

    async def serve(
        self, sock: socket.socket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer at ``sock``, which the caller closes, until ``close``, or until cancelled."""
        self._closed = trio.Event()
        try:
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(self._accept, sock, connections)
                    task_status.started()
                    await self._closing.wait()
                    accepting.cancel_scope.cancel()
                connections.cancel_scope.deadline = trio.current_time() + CLOSE_SECONDS_MAX
        finally:
            self._closed.set()

    async def close(self) -> None:
        """Accept no more, and return when what was asked before is answered, at the latest after a moment."""
        self._closing.set()
        await self._closed.wait()

    async def _accept(self, sock: socket.socket, connections: trio.Nursery) -> None:
        """Accept; with the descriptor that is kept for it when the sessions have all others: then one is asked most."""
        reserve: int | None = None
        try:
            while True:
                if reserve is None:
                    reserve = _open_reserve()
                await trio.lowlevel.wait_readable(sock)
                connection = _accept_one(sock)
                if connection is None and reserve is not None:
                    os.close(reserve)
                    reserve = None
                    connection = _accept_one(sock)
                if connection is None:  # whatever it is, the proxy does not end for it
                    await trio.sleep(ACCEPT_PAUSE_SECONDS)
                    continue
                connections.start_soon(self._connection, trio.SocketStream(trio.socket.from_stdlib_socket(connection)))
        finally:
            if reserve is not None:
                os.close(reserve)

    async def _connection(self, stream: trio.SocketStream) -> None:
        self._connections += 1
        try:
            await self._serve_one(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # whoever asked has gone
        except Exception as error:  # a bug of ours: neither the proxy nor the others end for it
            log.error("a request on the control socket failed: %s", frames_of(error))
        finally:
            self._connections -= 1
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await stream.aclose()

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        reader = RequestReader(self._settings.request_bytes_max)
        caller = caller_of(stream.socket)
        try:
            if self._connections > self._settings.connections_max:
                raise Refused(503, f"more than {self._settings.connections_max} connections", "try again")
            if caller.uid is not None and caller.uid not in (0, self._own_uid):
                self._note(_changed("control-socket", caller, problem="not permitted"))
                raise Refused(403, "the control socket is for root and the user that xproxy runs as")
            asked: Asked | None = None
            with trio.move_on_after(self._settings.request_seconds_max):
                asked = await _read(reader, stream)
            if asked is None:
                raise Refused(408, f"the request did not arrive within {self._settings.request_seconds_max:g} s")
            resource, parts = self._router.find(asked.method, asked.path)
            status, document = await self._answer(
                resource,
                Request(
                    method=asked.method,
                    path=asked.path,
                    caller=caller,
                    parts=parts,
                    query=asked.query,
                    body=asked.body,
                ),
            )
        except Refused as refused:
            status, document = refused.status, _error(refused)
        except EOFError:
            return
        with trio.move_on_after(self._settings.request_seconds_max):
            await _send(reader.connection, stream, status, document)
        with trio.move_on_after(CLOSE_SECONDS_MAX):
            await _drain(stream)

    async def _answer(self, resource: Resource, request: Request) -> tuple[int, Document]:
        """Have the request carried out; what changes something is recorded, whatever comes of it."""
        problem: str | None = "it was not finished"
        outcome: Outcome | None = None
        try:
            answer = await resource.handler(request)
            if isinstance(answer, Outcome):
                outcome, problem = answer, answer.problem
                return 200, answer.document
            problem = None
            return 200, answer
        except Refused as refused:
            problem = refused.message
            raise
        except XproxyError as error:
            problem = str(error)
            raise Refused(500, error.message, error.hint) from error
        except Exception as error:
            problem = "an internal error"
            log.error("%s %s failed: %s", request.method, resource.path, frames_of(error))
            raise Refused(500, "an internal error", "please report what xproxy said on stderr") from error
        finally:
            if resource.what is not None:
                self._note(_changed(resource.what, request.caller, problem=problem, outcome=outcome))


def _open_reserve() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _accept_one(sock: socket.socket) -> socket.socket | None:
    try:
        return sock.accept()[0]
    except OSError as error:  # no descriptor, or it has gone again
        if not isinstance(error, BlockingIOError) and error.errno not in (errno.EMFILE, errno.ENFILE):
            log.warning("the control socket cannot take a connection: %s", error)
        return None


def caller_of(sock: trio.socket.SocketType) -> Caller:
    """Return who is at the other end. Where the system does not say, the modes of file and directory are the guard."""
    peer = system.peer_of(sock)
    return Caller(pid=None, uid=None) if peer is None else Caller(pid=peer[0], uid=peer[1])


def _changed(what: str, caller: Caller, *, problem: str | None, outcome: Outcome | None = None) -> ConfigChanged:
    return ConfigChanged(
        what=(what,),
        applied=outcome.applied if outcome is not None else (),
        kept=outcome.kept if outcome is not None else (),
        problem=problem,
        needs_restart=outcome.needs_restart if outcome is not None else (),
        by_uid=caller.uid,
        by_pid=caller.pid,
    )


def _error(refused: Refused) -> Document:
    return {"error": refused.message, "hint": refused.hint, "version": __version__, "api": VERSION}


async def _read(reader: RequestReader, stream: trio.SocketStream) -> Asked:
    while True:
        asked = reader.feed(await stream.receive_some(READ_BYTES))
        if asked is not None:
            return asked
        if reader.wants_continue:
            await stream.send_all(reader.connection.send(h11.InformationalResponse(status_code=100, headers=[])))


async def _drain(stream: trio.SocketStream) -> None:
    """Read, unseen, what is left of a request: to close before would be a reset, which takes the answer with it."""
    left = DRAIN_BYTES_MAX
    while left > 0 and (data := await stream.receive_some(READ_BYTES)):
        left -= len(data)


async def _send(http: h11.Connection, stream: trio.SocketStream, status: int, document: Document) -> None:
    if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    body = orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
    headers = [
        ("Server", f"xproxy/{__version__}"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    data = http.send(h11.Response(status_code=status, headers=headers))
    with suppress(h11.LocalProtocolError):  # the answer to HEAD has a head alone (RFC 9110 section 9.3.2)
        data += http.send(h11.Data(data=body))
    await stream.send_all(data)
    try:
        await stream.send_eof()
    except OSError as error:  # trio translates what is broken; a peer that has shut down both ways is ENOTCONN
        if error.errno != errno.ENOTCONN:
            raise
