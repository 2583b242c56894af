"""What a client begins with, looked at without taking it: whoever reads next sees it as if nobody had."""

import contextlib
import socket
from typing import Final

import trio

from xproxy.xmpp.opening import Opening, OpeningRefused, read_opening

_TAG_END: Final = b">"


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
    seen = 0
    try:
        while True:
            # As many as have been seen are there for ever; the kernel is to wait for more, or a short wake-up says
            # that there will not be more (as in secure.peek_hello).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
            await trio.lowlevel.wait_readable(sock)
            data = sock.recv(bytes_max, socket.MSG_PEEK)
            if len(data) <= seen:
                raise HeaderCut(ended=True)
            if _TAG_END in data[seen:] and (opening := read_opening(data)) is not None:
                return opening
            seen = len(data)
            if seen >= bytes_max:
                raise HeaderCut(ended=False)
    finally:
        with contextlib.suppress(OSError):  # the connection is gone; whatever comes next says so
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


__all__ = ["HeaderCut", "Opening", "OpeningRefused", "peek_opening"]
