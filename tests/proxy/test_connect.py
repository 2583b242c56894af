"""The connection to the server, and why none came about."""

import errno
import socket

import pytest
import trio

from xproxy.events.connection import UpstreamFailure
from xproxy.proxy import connect
from xproxy.proxy.connect import ConnectFailed, Upstream, open_upstream


async def test_a_plain_socket_that_does_not_block() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        sock, seconds = await open_upstream(Upstream(host="127.0.0.1", port=port), seconds_max=5)
        with sock:
            assert sock.getpeername() == ("127.0.0.1", port)
            assert sock.gettimeout() == 0.0
            assert 0 <= seconds < 5


@pytest.mark.parametrize(
    ("raised", "reason", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), UpstreamFailure.UNKNOWN_HOST, None),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), UpstreamFailure.REFUSED, "ECONNREFUSED"),
        (OSError(errno.ENETUNREACH, "x"), UpstreamFailure.UNREACHABLE, "ENETUNREACH"),
        (TimeoutError(errno.ETIMEDOUT, "x"), UpstreamFailure.TIMEOUT, "ETIMEDOUT"),
        (OSError(errno.EMFILE, "x"), UpstreamFailure.OTHER, "EMFILE"),
    ],
)
async def test_each_failure_has_a_reason(
    monkeypatch: pytest.MonkeyPatch, raised: OSError, reason: UpstreamFailure, code: str | None
) -> None:
    async def fail(host: str, port: int) -> None:
        # As trio does: one error from the group of what each address answered.
        raise OSError("all attempts failed") from ExceptionGroup("all", [raised])

    monkeypatch.setattr(connect.trio, "open_tcp_stream", fail)
    with pytest.raises(ConnectFailed) as failed:
        await open_upstream(Upstream(host="xmpp.example", port=5222), seconds_max=5)
    failure = failed.value.failure
    assert (failure.host, failure.port) == ("xmpp.example", 5222)
    assert (failure.reason, failure.errno) == (reason, code)


async def test_silence_has_a_limit(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    async def hang(host: str, port: int) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(connect.trio, "open_tcp_stream", hang)
    with pytest.raises(ConnectFailed) as failed:
        await open_upstream(Upstream(host="192.0.2.1", port=5222), seconds_max=8)
    assert failed.value.failure.reason is UpstreamFailure.TIMEOUT
    assert failed.value.failure.seconds == pytest.approx(8)
