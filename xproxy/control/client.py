"""The other end of the control socket: what ``xproxy sessions``, ``reload`` and the like ask with.

Blocking, one request a connection. What can be wrong is a sentence that says what to do: no proxy runs with this state
directory, it is another user's, it is of another version, it does not answer.
"""

import contextlib
import os
import select
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import h11
import orjson

from xproxy import __version__, system
from xproxy.control.address import control_socket, is_socket, short_name
from xproxy.errors import EXIT_NO, EnvironmentProblem

ANSWER_SECONDS_MAX: Final = 60.0  # a reload may wait for a disk
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024  # 10 000 sessions are 8 MiB

_READ_BYTES: Final = 65_536


class NoProxy(EnvironmentProblem):
    """No proxy answers there."""


class ControlRefused(EnvironmentProblem):
    """The proxy said no."""

    exit_code = EXIT_NO

    def __init__(self, message: str, hint: str | None, *, status: int) -> None:
        super().__init__(message, hint)
        self.status = status


class ControlClient:
    """Asks the proxy whose state directory is ``state``."""

    def __init__(self, state: Path, *, seconds_max: float = ANSWER_SECONDS_MAX) -> None:
        self._state = state
        self._path = control_socket(state)
        self._seconds_max = seconds_max

    def get(self, path: str, query: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return the document at ``path``; parameters that are None are not sent.

        Raises:
            NoProxy: nobody answers.
            ControlRefused: the answer is no.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return self._ask("GET", f"{path}?{urlencode(given)}" if given else path, None)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Change something. Raises as ``get``."""
        return self._ask("POST", path, body or {})

    def put(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Set something. Raises as ``get``."""
        return self._ask("PUT", path, body)

    def process(self) -> int | None:
        """Return the process id of the proxy, where the system tells. Raises: NoProxy."""
        with self._connect() as sock:
            peer = system.peer_of(sock)
            return None if peer is None else peer[0] or None  # 0: in a container whose processes cannot be seen here

    def _ask(self, method: str, target: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        data = b"" if body is None else orjson.dumps(body)
        headers = [
            ("Host", "xproxy"),
            ("User-Agent", f"xproxy/{__version__}"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(data))),
            ("Connection", "close"),
        ]
        http = h11.Connection(h11.CLIENT)
        with self._connect() as sock:
            try:
                head = http.send(h11.Request(method=method, target=target, headers=headers))
                sock.sendall(b"".join(part for part in (head, http.send(h11.Data(data=data))) if part))
                http.send(h11.EndOfMessage())
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has answered already, and that is more to the point
            except TimeoutError as error:
                raise self._silent() from error
            return self._read(http, sock, target)

    def _read(self, http: h11.Connection, sock: socket.socket, target: str) -> dict[str, Any]:
        deadline = time.monotonic() + self._seconds_max
        status, version, answer = 0, "", bytearray()
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    sock.settimeout(max(0.001, deadline - time.monotonic()))
                    http.receive_data(sock.recv(_READ_BYTES))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                    version = dict(event.headers).get(b"server", b"").decode("ascii", "replace")
                elif isinstance(event, h11.Data):
                    answer += event.data
                    if len(answer) > ANSWER_BYTES_MAX:
                        raise h11.RemoteProtocolError("it does not end")
                elif isinstance(event, h11.EndOfMessage):
                    break
                elif isinstance(event, h11.ConnectionClosed):
                    raise h11.RemoteProtocolError("it ended at once")
            document = orjson.loads(answer)
        except TimeoutError as error:
            raise self._silent() from error
        except (OSError, h11.RemoteProtocolError, orjson.JSONDecodeError) as error:
            raise NoProxy(
                f"what answers at {self._path} is not xproxy, or has just ended: {error}", "see whether it still runs"
            ) from error
        if status == 200 and isinstance(document, dict):
            return document
        raise _refusal(status, document if isinstance(document, dict) else {}, version, target)

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._seconds_max)
        try:
            with short_name(self._path) as name:
                sock.connect(name)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise self._unreachable(error) from error
            raise
        return sock

    def _unreachable(self, error: OSError) -> EnvironmentProblem:
        hint = "start it, or name its state directory with --state DIR (or -c FILE)"
        match error:
            case PermissionError():
                return EnvironmentProblem(
                    f"no permission for {self._path}",
                    f"run this as the user that xproxy runs as{_owner(self._path)}, or as root",
                )
            case FileNotFoundError() | NotADirectoryError():
                return NoProxy(f"no xproxy runs with the state directory {self._state}", hint)
            case ConnectionRefusedError() if is_socket(self._path):
                return NoProxy(f"the xproxy with the state directory {self._state} has ended without a goodbye", hint)
            case TimeoutError() | BlockingIOError():
                return self._silent()
            case _:
                return NoProxy(f"cannot ask xproxy at {self._path}: {error.strerror or error}", hint)

    def _silent(self) -> NoProxy:
        return NoProxy(
            f"the xproxy at {self._path} does not answer",
            "it may be very busy or stopped; see its log and its CPU time",
        )


def wait_for_end(pid: int | None, seconds: float) -> bool:
    """Wait until process ``pid`` has ended, at most ``seconds``; return whether it has."""
    if pid is None:
        time.sleep(seconds)
        return False
    if not hasattr(os, "pidfd_open"):
        return _wait_by_signal(pid, seconds)
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return _wait_by_signal(pid, seconds)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def _wait_by_signal(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        if (left := deadline - time.monotonic()) <= 0:
            return False
        time.sleep(min(0.05, left))


def _refusal(status: int, document: Mapping[str, Any], server: str, target: str) -> EnvironmentProblem:
    theirs = server.removeprefix("xproxy/") or "unknown"
    if status in (404, 405) and theirs != __version__:
        return ControlRefused(
            f"the running xproxy is version {theirs} and does not know {target.partition('?')[0]}",
            f"this command is version {__version__}: use the command of the same version, or restart the proxy",
            status=status,
        )
    hint = document.get("hint")
    return ControlRefused(
        str(document.get("error") or f"the proxy answered {status}"),
        hint if isinstance(hint, str) else None,
        status=status,
    )


def _owner(path: Path) -> str:
    with contextlib.suppress(OSError, KeyError, ImportError):
        import pwd

        for place in (path, path.parent):
            with contextlib.suppress(PermissionError):
                return f" ({pwd.getpwuid(place.lstat().st_uid).pw_name})"
    return ""
