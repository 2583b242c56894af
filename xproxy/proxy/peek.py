"""What a client begins with, looked at without taking it: whoever reads next sees it as if nobody had."""

import contextlib
import socket
from typing import Final

import trio

from xproxy import system
from xproxy.xmpp.opening import Opening, OpeningRefused, read_opening

__all__ = ["HeaderCut", "Looking", "LowMark", "Opening", "OpeningRefused", "peek_opening", "waiting_at"]

_TAG_END: Final = b">"
_PAUSE_SECONDS_MIN: Final = 0.002  # between two looks at what is not whole: the next segment is close behind
_PAUSE_SECONDS_MAX: Final = 0.05


class HeaderCut(Exception):  # noqa: N818 - says what the client did
    """The client ended within its first stream header (``ended``), or that is longer than is allowed."""

    def __init__(self, *, ended: bool) -> None:
        super().__init__()
        self.ended = ended


async def peek_opening(sock: socket.socket, *, bytes_max: int) -> Opening:
    """Return what the stream header waiting in ``sock`` says.

    Raises:
        HeaderCut: the client ended within it, or it is larger than ``bytes_max``.
        OpeningRefused: it is none.
        OSError: the connection failed.
    """
    waiting = waiting_at(sock)
    seen = 0
    try:
        while True:
            is_all = await waiting.wait(seen + 1)
            data = sock.recv(bytes_max, socket.MSG_PEEK)
            if len(data) <= seen:
                if is_all or not data:
                    raise HeaderCut(ended=True)
                continue
            if _TAG_END in data[seen:] and (opening := read_opening(data)) is not None:
                return opening
            seen = len(data)
            if seen >= bytes_max:
                raise HeaderCut(ended=False)
    finally:
        waiting.done()


def waiting_at(sock: socket.socket) -> "LowMark | Looking":
    """Return this system's way of waiting for more than is there already."""
    return LowMark(sock) if system.WAKES_AT_LOW_MARK else Looking(sock)


class LowMark:
    """Waits for a count of octets, where the kernel does: a hello in many segments costs a handful of wake-ups."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def wait(self, needed: int) -> bool:
        """Return when that many octets are there, or no more will come: True, what is there is all or enough."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, needed)
        await trio.lowlevel.wait_readable(self._sock)
        return True

    def done(self) -> None:
        """Have every octet wake again."""
        with contextlib.suppress(OSError):  # the connection is gone; whatever comes next says so
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


class Looking:
    """Looks again after a pause. The kernel would say at once that there is something: what was peeked at is left."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pause = 0.0

    async def wait(self, needed: int) -> bool:
        """Return when there may be more than last time; True: no more will come."""
        if self._pause:
            await trio.sleep(self._pause)
        await trio.lowlevel.wait_readable(self._sock)
        self._pause = min(2 * self._pause, _PAUSE_SECONDS_MAX) or _PAUSE_SECONDS_MIN
        # Asked before it is looked: so what came before the end is looked at.
        return system.has_ended(self._sock.fileno())

    def done(self) -> None:
        """Nothing was changed."""
