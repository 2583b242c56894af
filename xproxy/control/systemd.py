"""What a service manager hands to its service and wants to hear from it: sd_listen_fds(3) and sd_notify(3).

Both are a few lines on top of the environment, and this is all of them that is used: sockets that were opened for us,
and datagrams that say ready, reloading, stopping, alive. Without the variables nothing happens.
"""

import logging
import os
import socket
import stat
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Final, Self

import attrs

from xproxy.errors import EnvironmentProblem

log = logging.getLogger(__name__)

FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START
UNSENT_MAX: Final = 16  # words that the manager has not taken; of more, the oldest are out of date
DESCRIPTORS_MAX: Final = 1_024  # more is no list of listeners


@attrs.frozen
class PassedSocket:
    """A listening socket that was opened for us: by a .socket unit, or whoever speaks the protocol."""

    name: str  # FileDescriptorName=, else "unknown"
    sock: socket.socket


def take_passed_sockets(environment: MutableMapping[str, str], pid: int) -> list[PassedSocket]:
    """Return the sockets that were passed to process ``pid``, and take the variables away: children get none of them.

    They are the caller's to close.

    Raises:
        EnvironmentProblem: what was passed is no listening TCP socket.
    """
    given = {name: environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if given["LISTEN_PID"] != str(pid):  # none, or our parent's
        return []
    if not given["LISTEN_FDS"].isdecimal() or int(given["LISTEN_FDS"]) > DESCRIPTORS_MAX:
        raise EnvironmentProblem(f"LISTEN_FDS is {given['LISTEN_FDS']!r}, which is no number of sockets")
    count = int(given["LISTEN_FDS"])
    names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else []
    passed: list[PassedSocket] = []
    try:
        for number in range(count):
            name = names[number] if number < len(names) else "unknown"
            passed.append(PassedSocket(name, _take(FIRST_DESCRIPTOR + number, name)))
    except BaseException:
        for each in passed:
            each.sock.close()
        raise
    return passed


def _take(descriptor: int, name: str) -> socket.socket:
    what = f"descriptor {descriptor} ({name}), passed by the service manager,"
    hint = "in the .socket unit write ListenStream=ADDRESS:PORT and leave Accept= out"
    try:
        os.set_inheritable(descriptor, False)
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise EnvironmentProblem(f"{what} is no socket", hint)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise EnvironmentProblem(f"{what} cannot be used: {error.strerror or error}", hint) from error
    is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
    if not is_tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise EnvironmentProblem(f"{what} is not a listening TCP socket", hint)
    sock.setblocking(False)
    return sock


class Notifier:
    """Tells the service manager how we are. Without one every call does nothing, and none ever raises."""

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        """``address``: of a datagram socket, a path or "@name" for an abstract one."""
        self._address = address
        self.watchdog_seconds = watchdog_seconds if address is not None else None
        """How often ``alive`` must be said at least; None: nobody waits for it."""
        self._unsent: deque[bytes] = deque(maxlen=UNSENT_MAX)  # in order; the manager's queue was full
        self._has_failed = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str], pid: int) -> Self:
        """Return the notifier that the service manager asks for, and take its variables away: it is for us alone."""
        address = environment.pop("NOTIFY_SOCKET", "") or None
        period, for_pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        if address is not None and address[0] not in "/@":
            log.warning("NOTIFY_SOCKET is neither a path nor an abstract socket: %r; the service manager hears nothing",
                        address)  # fmt: skip
            address = None
        wanted = period.isdecimal() and int(period) > 0 and for_pid in ("", str(pid))  # sd_watchdog_enabled(3)
        return cls(address, int(period) / 1_000_000 if wanted else None)

    def ready(self, status: str) -> None:
        """Listening, or done reloading."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; ``ready`` ends it. Type=notify-reload compares the time with its own order."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}")

    def stopping(self, status: str, seconds: float) -> None:
        """The end has begun and takes at most about ``seconds``."""
        self._send("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        """The loop turns: WatchdogSec= counts anew."""
        if self._unsent:  # it has not taken the last word yet
            self.flush()
        else:
            self._send("WATCHDOG=1")

    def flush(self) -> None:
        """Try again to say what the manager had no room for."""
        while self._unsent and self._address is not None:
            address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                    sock.setblocking(False)  # a manager that does not read must not stop the relay
                    sock.sendto(self._unsent[0], address)
            except BlockingIOError:
                return
            except (OSError, ValueError) as error:
                self._unsent.clear()
                if not self._has_failed:
                    self._has_failed = True
                    log.warning("the service manager cannot be told at %s: %s", self._address, error)
                return
            self._unsent.popleft()

    def _send(self, *assignments: str) -> None:
        if self._address is not None:
            self._unsent.append("\n".join(assignments).encode())
            self.flush()
