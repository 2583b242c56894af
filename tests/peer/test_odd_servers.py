"""The client before servers that do not do as they should: each has its exception."""

import pytest
import trio

from tests.support.peer import DOMAIN, Trust
from xproxy.peer.client import Client, Mode
from xproxy.peer.errors import Disconnected, LoginFailed, PeerError, StreamFailed, TlsRefused
from xproxy.xmpp import ns

HEADER = (
    f"<?xml version='1.0'?><stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}' id='1' version='1.0'>"
).encode()
FEATURES = b"<stream:features/>"
PLAIN_ONLY = f"<stream:features><mechanisms xmlns='{ns.SASL}'><mechanism>%s</mechanism></mechanisms></stream:features>"
SUCCESS = f"<success xmlns='{ns.SASL}'/>".encode()
PROCEED = f"<proceed xmlns='{ns.TLS}'/>".encode()


async def before(nursery: trio.Nursery, trust: Trust, *answers: bytes, mode: Mode = Mode.CLEAR) -> Client:
    """Return a client before a server that gives these answers, one to each thing it hears, and hangs up."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port: int = listener.socket.getsockname()[1]

    async def serve() -> None:
        async with listener, await listener.accept() as stream:
            for answer in answers:
                if not await stream.receive_some():
                    return
                await stream.send_all(answer)
            await stream.send_eof()
            async for _ in stream:
                pass

    nursery.start_soon(serve)
    return Client(host="127.0.0.1", port=port, domain=DOMAIN, tls=trust.client, mode=mode)


@pytest.mark.parametrize(
    ("answers", "mode", "expected"),
    [
        ([], Mode.CLEAR, "the connection ended while waiting"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], Mode.CLEAR, "the stream failed: "),
        ([HEADER + b"<message/>"], Mode.CLEAR, "the stream failed: bad-format"),
        ([HEADER + b"</stream:stream>"], Mode.CLEAR, "the stream was closed"),
        ([HEADER + FEATURES, f"<failure xmlns='{ns.TLS}'/>".encode()], Mode.STARTTLS, "starttls-refused"),
        ([HEADER + FEATURES, PROCEED + b"<stream:features/>"], Mode.STARTTLS, "more in clear"),
        ([HEADER + FEATURES, PROCEED, b"no TLS at all, just text"], Mode.STARTTLS, "TLS could not be established"),
        ([b"no TLS at all, just text"], Mode.DIRECT_TLS, "TLS could not be established"),
        ([], Mode.DIRECT_TLS, "TLS could not be established"),
    ],
)
async def test_connecting(nursery: trio.Nursery, trust: Trust, answers: list[bytes], mode: Mode, expected: str) -> None:
    client = await before(nursery, trust, *answers, mode=mode)
    with pytest.raises(PeerError, match=expected):
        await client.connect()


async def test_the_first_octets_tell_what_it_is_that_is_no_xmpp(nursery: trio.Nursery, trust: Trust) -> None:
    client = await before(nursery, trust, b"HTTP/1.1 400 Bad Request\r\n" + b"x" * 100, mode=Mode.CLEAR)
    with pytest.raises(StreamFailed):
        await client.connect()
    assert client.opening.startswith(b"HTTP/1.1 400")
    assert len(client.opening) == 64


async def test_a_redirect_says_where_to(nursery: trio.Nursery, trust: Trust) -> None:
    elsewhere = (
        f"<stream:error><see-other-host xmlns='{ns.STREAM_ERRORS}'>[2001:db8::1]:9222</see-other-host></stream:error>"
    ).encode()
    client = await before(nursery, trust, HEADER + elsewhere, mode=Mode.CLEAR)
    with pytest.raises(StreamFailed) as failed:
        await client.connect()
    assert (failed.value.condition, failed.value.content) == ("see-other-host", "[2001:db8::1]:9222")


async def test_what_goes_first_is_made_of_the_addresses(nursery: trio.Nursery, trust: Trust) -> None:
    heard = trio.Event()
    got = bytearray()
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port: int = listener.socket.getsockname()[1]

    async def serve() -> None:
        async with listener, await listener.accept() as stream:
            got.extend(await stream.receive_some())
            heard.set()

    nursery.start_soon(serve)
    client = Client(
        host="127.0.0.1", port=port, domain=DOMAIN, preface=lambda us, them: f"{us[0]} to {them[0]} {them[1]}".encode()
    )
    await client.connect_only()
    await heard.wait()
    client.drop()
    assert bytes(got) == f"127.0.0.1 to 127.0.0.1 {port}".encode()


async def test_a_server_that_does_not_know_the_password(nursery: trio.Nursery, trust: Trust) -> None:
    features = (PLAIN_ONLY % "SCRAM-SHA-1").encode()
    async with await before(nursery, trust, HEADER + features, SUCCESS) as client:
        with pytest.raises(LoginFailed) as caught:
            await client.login("juliet", "canary")
        assert caught.value.condition == "server-not-authentic"


async def test_no_mechanism_in_common(nursery: trio.Nursery, trust: Trust) -> None:
    async with await before(nursery, trust, HEADER + (PLAIN_ONLY % "X-OTHER").encode()) as client:
        with pytest.raises(LoginFailed) as caught:
            await client.login("juliet", "canary")
        assert caught.value.condition == "no-common-mechanism"


async def test_a_failure_with_text(nursery: trio.Nursery, trust: Trust) -> None:
    failure = f"<failure xmlns='{ns.SASL}'><text>Not today</text><account-disabled/></failure>".encode()
    async with await before(nursery, trust, HEADER + (PLAIN_ONLY % "PLAIN").encode(), failure) as client:
        with pytest.raises(LoginFailed, match=r"account-disabled \(Not today\)") as caught:
            await client.login("juliet", "canary")
        assert caught.value.text == "Not today"


async def test_a_stream_error_with_text(nursery: trio.Nursery, trust: Trust) -> None:
    error = (
        f"<stream:error><host-gone xmlns='{ns.STREAM_ERRORS}'/>"
        f"<text xmlns='{ns.STREAM_ERRORS}'>Moved</text></stream:error></stream:stream>"
    ).encode()
    async with await before(nursery, trust, HEADER + FEATURES, error) as client:
        await client.send("<presence/>")
        with pytest.raises(StreamFailed) as caught:
            await client.receive()
        assert (caught.value.condition, caught.value.text) == ("host-gone", "Moved")
        with pytest.raises(Disconnected):
            await client.receive()


async def test_a_client_without_a_context(nursery: trio.Nursery, trust: Trust) -> None:
    client = await before(nursery, trust, mode=Mode.DIRECT_TLS)
    client.tls = None
    with pytest.raises(TlsRefused, match="no TLS context"):
        await client.connect()
    with pytest.raises(Disconnected, match="not connected"):
        await client.receive()
