"""What this system offers beyond POSIX, chosen once: Linux has it all, elsewhere there is a portable way.

With ``XPROXY_PORTABLE=1`` in the environment nothing of it is used on Linux either: so the portable ways are tested
where the tests run. What cannot be without Linux (redirected connections, TPROXY) is not affected.

| Linux | elsewhere |
|---|---|
| one epoll for all sessions | a task for each leg (trio on kqueue) |
| SO_RCVLOWAT wakes when a ClientHello is whole | it is looked at again after some milliseconds |
| fdatasync | F_FULLFSYNC where there is one (macOS: fsync leaves data in the drive's cache), else fsync |
| posix_fallocate makes room on the disk ahead | zeros are written |
| TCP_INFO tells RST from FIN, and when a peer last sent | an end without close_notify and without a reason is RST |
| SO_PEERCRED names who asks at the control socket | LOCAL_PEERCRED, LOCAL_PEERPID (macOS); else nobody does |
| memfd_create hands OpenSSL a certificate | a private temporary file, gone at once |
"""

import errno
import fcntl
import os
import select
import socket
import struct
import sys
from types import ModuleType
from typing import Final, Protocol

PORTABLE_VARIABLE: Final = "XPROXY_PORTABLE"
IS_PORTABLE: Final = os.environ.get(PORTABLE_VARIABLE, "") not in ("", "0")
"""Whether Linux's own ways are left alone on purpose."""


def offers(module: ModuleType, name: str) -> bool:
    """Return whether ``module`` has ``name``, which is not everywhere, and whether it is to be used."""
    return not IS_PORTABLE and hasattr(module, name)


WAKES_AT_LOW_MARK: Final = sys.platform == "linux" and not IS_PORTABLE
"""Whether waiting for a socket honours SO_RCVLOWAT (socket(7): poll and epoll do since Linux 2.6.28)."""

_FULL_SYNC: Final = getattr(fcntl, "F_FULLFSYNC", None)  # macOS, fcntl(2)
_NO_FULL_SYNC: Final = (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY)  # a file system that has none, such as a network's
_HAS_DATA_SYNC: Final = offers(os, "fdatasync")


def sync_data(descriptor: int) -> None:
    """Return when the data written to ``descriptor`` survives a crash of the machine. Raises OSError."""
    if _HAS_DATA_SYNC:
        os.fdatasync(descriptor)
    else:
        sync(descriptor)


def sync(descriptor: int) -> None:
    """Return when ``descriptor``, a file or a directory, survives a crash of the machine. Raises OSError."""
    if _FULL_SYNC is not None:
        try:
            fcntl.fcntl(descriptor, _FULL_SYNC)
        except OSError as error:
            if error.errno not in _NO_FULL_SYNC:
                raise
        else:
            return
    os.fsync(descriptor)


_PEER_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of <sys/socket.h>: pid, uid, gid
# macOS, <sys/un.h> and <sys/ucred.h>: level SOL_LOCAL, struct xucred begins with version and uid.
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2
_XUCRED_BYTES: Final = 76
_XUCRED: Final = struct.Struct("=II")
_PID: Final = struct.Struct("=i")


class HasOptions(Protocol):
    """A socket, as far as it is asked for options."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """Return an option."""


def peer_of(sock: HasOptions) -> tuple[int, int] | None:
    """Return pid and uid of the process at the other end of ``sock``, of AF_UNIX; None: the system does not say.

    Raises:
        OSError: the connection is gone.
    """
    if hasattr(socket, "SO_PEERCRED"):
        pid, uid, _ = _PEER_CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        )
        return pid, uid
    if sys.platform == "darwin":
        return peer_on_macos(sock)
    return None


def peer_on_macos(sock: HasOptions) -> tuple[int, int]:
    """As ``peer_of``, where there is no SO_PEERCRED."""
    _, uid = _XUCRED.unpack_from(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES))
    (pid,) = _PID.unpack(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, _PID.size))
    return pid, uid


# Linux says it by POLLRDHUP; where there is none, by POLLHUP, which macOS sets with the peer's FIN.
_ENDED: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


def has_ended(descriptor: int) -> bool:
    """Return whether the peer of the socket ``descriptor`` will send no more, whatever is still to be read."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | _ENDED)
    return any(events & _ENDED for _, events in poll.poll(0))
