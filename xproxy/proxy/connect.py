"""The TCP connection to the server."""

import errno
import socket
from collections.abc import Iterator

import attrs
import trio

from xproxy.events.connection import UpstreamFailed, UpstreamFailure

_UNREACHABLE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL, errno.EACCES}
)


@attrs.frozen(kw_only=True)
class Upstream:
    """Where the server is, as configured."""

    host: str
    port: int


@attrs.define(eq=False)
class ConnectFailed(Exception):  # noqa: N818 - a fact for the session's task, which records it
    """No connection came about."""

    failure: UpstreamFailed


async def open_upstream(upstream: Upstream, *, seconds_max: float) -> tuple[socket.socket, float]:
    """Connect and return the non-blocking socket, which the caller closes, and the seconds it took.

    All addresses of the host are tried, the next after 250 ms of silence (RFC 8305).

    Raises:
        ConnectFailed: none answered within ``seconds_max``.
    """
    begun = trio.current_time()
    try:
        with trio.fail_after(seconds_max):
            stream = await trio.open_tcp_stream(upstream.host, upstream.port)
    except (OSError, trio.TooSlowError) as error:
        reason, code = _reason_of(error)
        raise ConnectFailed(
            UpstreamFailed(
                host=upstream.host,
                port=upstream.port,
                reason=reason,
                errno=code,
                seconds=trio.current_time() - begun,
            )
        ) from error
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock, trio.current_time() - begun


def _reason_of(error: BaseException) -> tuple[UpstreamFailure, str | None]:
    causes = list(_leaves(error))
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return UpstreamFailure.UNKNOWN_HOST, None
        if isinstance(cause, trio.TooSlowError):
            return UpstreamFailure.TIMEOUT, None
    codes = [cause.errno for cause in causes if isinstance(cause, OSError) and cause.errno is not None]
    names = [errno.errorcode.get(code, str(code)) for code in codes]
    if errno.ECONNREFUSED in codes:  # one address said so in words; another of the host may just be off
        return UpstreamFailure.REFUSED, "ECONNREFUSED"
    if errno.ETIMEDOUT in codes:
        return UpstreamFailure.TIMEOUT, "ETIMEDOUT"
    if _UNREACHABLE.intersection(codes):
        return UpstreamFailure.UNREACHABLE, names[0]
    return UpstreamFailure.OTHER, names[0] if names else None


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    """The errors behind ``error``: trio raises one OSError from the group of what each address answered."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    elif error is not None:
        yield error
        yield from _leaves(error.__cause__)
