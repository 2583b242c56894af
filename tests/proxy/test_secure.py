"""The way into TLS: waiting for a ClientHello, what may stand before it, and what fails."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from cryptography import x509

from tests.support.proxying import (
    PROCEED,
    STARTTLS,
    Rig,
    both_secured,
    certified,
    directly_secured,
    proxying,
    receive_all,
    receive_exactly,
    receive_some,
    send_all,
    wrap,
)
from xproxy import system
from xproxy.config.sessions import SessionLimits
from xproxy.events import Side
from xproxy.events.connection import CloseCause, ConnectionClosed, UpstreamConnected
from xproxy.events.tls import StarttlsInjection, TlsEstablished, TlsFailed, TlsFailure
from xproxy.proxy import secure
from xproxy.proxy.secure import NotTls, peek_hello
from xproxy.tls.facts import spki_pin
from xproxy.tls.hello import HelloIncomplete, HelloMalformed

IMPATIENT = SessionLimits(close_seconds_max=0.1)


def hello(*, padding: int = 0) -> bytes:
    """Return a real ClientHello for "localhost"; ``padding`` octets are added as an extension (RFC 7685)."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    body = bytearray(outgoing.read()[9:])
    at = 2 + 32
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    extensions = bytes(body[at + 2 :])
    while padding > 0:
        size = min(padding, 60_000)
        extensions += b"\x00\x15" + size.to_bytes(2, "big") + bytes(size)
        padding -= size
    body = body[:at] + len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + bytes(body)
    records = [message[start : start + 16_384] for start in range(0, len(message), 16_384)]
    return b"".join(b"\x16\x03\x01" + len(each).to_bytes(2, "big") + each for each in records)


@pytest.fixture(params=["of-this-system", "portable"], autouse=True)
def _way_to_wait(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's way of waiting for a hello, and the one that does without."""
    if request.param == "portable":
        monkeypatch.setattr(system, "WAKES_AT_LOW_MARK", False)


@pytest.fixture
def wakes(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows with each wait of the module under test."""
    waits: list[object] = []
    wait = trio.lowlevel.wait_readable

    async def counted(sock: socket.socket) -> None:
        waits.append(sock)
        assert len(waits) < 1_000, "it spins"
        await wait(sock)

    monkeypatch.setattr(secure.trio.lowlevel, "wait_readable", counted)
    return waits


def low_mark(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


async def test_the_hello_is_looked_at_and_left(ends: tuple[socket.socket, socket.socket], wakes: list[object]) -> None:
    client, ours = ends
    client.send(data := hello())
    found = await peek_hello(ours, bytes_max=65_536, after_starttls=False)
    assert found.server_name == "localhost"
    assert found.top_version == 0x0304
    assert ours.recv(65_536) == data
    assert len(wakes) <= 3


@pytest.mark.parametrize("size", [1, 4, 5, 100])
async def test_a_hello_cut_short_by_fin_is_never_waited_for_again(
    ends: tuple[socket.socket, socket.socket], wakes: list[object], size: int
) -> None:
    client, ours = ends
    client.send(hello()[:size])
    client.shutdown(socket.SHUT_WR)
    with trio.fail_after(5), pytest.raises(HelloIncomplete):
        await peek_hello(ours, bytes_max=65_536, after_starttls=False)
    assert len(wakes) <= 3
    assert low_mark(ours) == 1


async def test_nothing_at_all_but_fin(ends: tuple[socket.socket, socket.socket]) -> None:
    client, ours = ends
    client.shutdown(socket.SHUT_WR)
    with trio.fail_after(5), pytest.raises(EOFError):
        await peek_hello(ours, bytes_max=65_536, after_starttls=False)


async def test_a_hello_of_49_kb_in_segments(ends: tuple[socket.socket, socket.socket], wakes: list[object]) -> None:
    client, ours = ends
    data = hello(padding=49_000)
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for start in range(0, len(data), 1_000):
                await send_all(client, data[start : start + 1_000])
                await trio.lowlevel.checkpoint()

        nursery.start_soon(send)
        with trio.fail_after(5):
            found = await peek_hello(ours, bytes_max=65_536, after_starttls=False)
    assert found.server_name == "localhost"
    assert len(wakes) <= (12 if system.WAKES_AT_LOW_MARK else 60), "a wake-up a record, not one a segment"
    assert await receive_exactly(ours, len(data)) == data
    assert low_mark(ours) == 1


async def test_a_hello_byte_by_byte(ends: tuple[socket.socket, socket.socket], wakes: list[object]) -> None:
    client, ours = ends
    data = hello()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for octet in data:
                client.send(bytes((octet,)))
                await trio.lowlevel.checkpoint()

        nursery.start_soon(send)
        with trio.fail_after(5):
            assert (await peek_hello(ours, bytes_max=65_536, after_starttls=False)).server_name == "localhost"
    assert len(wakes) <= (4 if system.WAKES_AT_LOW_MARK else 60)


async def test_a_hello_that_stops_half_way_is_looked_at_now_and_then(
    ends: tuple[socket.socket, socket.socket], wakes: list[object]
) -> None:
    """Without a spin, without an end, until somebody loses patience."""
    client, ours = ends
    client.send(hello()[:100])
    with trio.move_on_after(0.4) as waiting:
        await peek_hello(ours, bytes_max=65_536, after_starttls=False)
    assert waiting.cancelled_caught
    assert len(wakes) <= 20
    assert low_mark(ours) == 1


async def test_whitespace_alone_and_later_the_hello(ends: tuple[socket.socket, socket.socket]) -> None:
    client, ours = ends
    client.send(b" ")
    async with trio.open_nursery() as nursery:

        async def send_later() -> None:
            await trio.testing.wait_all_tasks_blocked(0.02)
            client.send(hello())

        nursery.start_soon(send_later)
        with trio.fail_after(5):
            assert (await peek_hello(ours, bytes_max=65_536, after_starttls=True)).server_name == "localhost"


async def test_a_hello_that_is_too_large(ends: tuple[socket.socket, socket.socket]) -> None:
    client, ours = ends
    client.send(hello(padding=5_000))
    with trio.fail_after(5), pytest.raises(HelloMalformed) as raised:
        await peek_hello(ours, bytes_max=4_096, after_starttls=False)
    assert raised.value.failure is TlsFailure.HELLO_TOO_LARGE


async def test_a_little_whitespace_behind_starttls_is_taken_away(ends: tuple[socket.socket, socket.socket]) -> None:
    client, ours = ends
    client.send(b" \r\n" + (data := hello()))
    with trio.fail_after(5):
        assert (await peek_hello(ours, bytes_max=65_536, after_starttls=True)).server_name == "localhost"
    assert ours.recv(65_536) == data


@pytest.mark.parametrize("before", [b" " * 17, b"<auth/>", b" <auth/>"])
async def test_anything_else_behind_starttls_is_an_injection(
    ends: tuple[socket.socket, socket.socket], before: bytes
) -> None:
    client, ours = ends
    client.send(before + hello())
    with trio.fail_after(5), pytest.raises(NotTls):
        await peek_hello(ours, bytes_max=65_536, after_starttls=True)


async def test_a_reset_while_waiting(ends: tuple[socket.socket, socket.socket]) -> None:
    client, ours = ends
    client.send(hello()[:50])
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    with trio.fail_after(5), pytest.raises((OSError, HelloIncomplete)):
        await peek_hello(ours, bytes_max=65_536, after_starttls=False)


# Through the proxy ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def proceeding(
    tmp_path: Path, *, handshake_seconds_max: float = 8.0
) -> AsyncIterator[tuple[Rig, socket.socket, socket.socket]]:
    """A session up to the octet after proceed."""
    tls = certified(tmp_path)
    limits = SessionLimits(handshake_seconds_max=handshake_seconds_max, close_seconds_max=0.1)
    with trio.fail_after(10):
        async with proxying(contexts=tls.contexts, limits=limits) as rig:
            client, server = await rig.pair(b"<stream>")
            with client, server:
                await send_all(client, STARTTLS)
                assert await receive_exactly(server, len(STARTTLS)) == STARTTLS
                await send_all(server, PROCEED)
                assert await receive_exactly(client, len(PROCEED)) == PROCEED
                yield rig, client, server


async def failure(rig: Rig) -> TlsFailed:
    """Wait for the end of the session; return its one failure."""
    closed = await rig.channel.wait_for(ConnectionClosed)
    assert closed.cause is CloseCause.TLS_FAILED
    (event,) = rig.channel.of(TlsFailed)
    assert isinstance(event, TlsFailed)
    return event


async def test_a_client_that_never_says_hello(tmp_path: Path) -> None:
    async with proceeding(tmp_path, handshake_seconds_max=0.3) as (rig, _, _):
        event = await failure(rig)
        assert (event.leg, event.reason) == (Side.CLIENT, TlsFailure.TIMEOUT)


async def test_a_client_that_ends_within_its_hello(tmp_path: Path) -> None:
    async with proceeding(tmp_path) as (rig, client, server):
        await send_all(client, hello()[:100])
        client.shutdown(socket.SHUT_WR)  # closed with <proceed/> unread it would be reset
        event = await failure(rig)
        assert (event.leg, event.reason, event.direct) == (Side.CLIENT, TlsFailure.TRUNCATED_HELLO, False)
        assert await receive_all(server) == b""


async def test_a_server_that_goes_on_in_clear(tmp_path: Path) -> None:
    async with proceeding(tmp_path) as (rig, client, server):
        await send_all(server, b"<more/>")
        await send_all(client, hello())
        closed = await rig.channel.wait_for(ConnectionClosed)
        assert closed.cause is CloseCause.STARTTLS_INJECTION
        (event,) = rig.channel.of(StarttlsInjection)
        assert event == StarttlsInjection(sent_by=Side.SERVER, octets=7)
        assert await receive_all(client) == b""


async def test_words_in_clear_where_the_hello_should_be(tmp_path: Path) -> None:
    async with proceeding(tmp_path) as (rig, client, server):
        await send_all(client, b"<auth/>")
        closed = await rig.channel.wait_for(ConnectionClosed)
        assert closed.cause is CloseCause.STARTTLS_INJECTION
        assert rig.channel.of(StarttlsInjection) == [StarttlsInjection(sent_by=Side.CLIENT, octets=7)]
        assert await receive_all(server) == b""


async def test_a_server_that_cannot_do_tls(tmp_path: Path) -> None:
    async with proceeding(tmp_path) as (rig, client, server):
        await send_all(client, hello())
        assert (await receive_some(server))[0] == 0x16
        await send_all(server, b"what?")
        server.close()
        event = await failure(rig)
        assert event.leg is Side.SERVER
        assert event.ja4 is not None, "the client's hello is known although the server failed"
        assert await receive_all(client) == b""


@pytest.mark.parametrize("names", [("elsewhere.example",)])
async def test_a_server_with_a_certificate_for_others(tmp_path: Path, names: tuple[str, ...]) -> None:
    tls = certified(tmp_path, names=names)
    with trio.fail_after(10):
        async with proxying(contexts=tls.contexts, limits=IMPATIENT) as rig:
            client = await rig.connect()
            with client:
                await send_all(client, hello())
                server = await wrap(await rig.accept(), tls.server)
                with server:
                    event = await failure(rig)
                    assert (event.leg, event.reason) == (Side.SERVER, TlsFailure.CERTIFICATE_NAME_MISMATCH)
                    assert event.certificate is not None
                    assert not rig.channel.of(TlsEstablished)


async def test_a_server_nobody_vouches_for(tmp_path: Path) -> None:
    tls = certified(tmp_path)
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(stranger)
    with trio.fail_after(10):
        async with proxying(contexts=tls.contexts, limits=IMPATIENT) as rig:
            with await rig.connect() as client:
                await send_all(client, hello())
                with pytest.raises(ssl.SSLError):
                    await wrap(await rig.accept(), stranger)
                event = await failure(rig)
                assert (event.leg, event.reason) == (Side.SERVER, TlsFailure.CERTIFICATE_UNTRUSTED)


async def test_a_client_that_rejects_our_certificate(tmp_path: Path) -> None:
    tls = certified(tmp_path)
    with trio.fail_after(10):
        async with proxying(contexts=tls.contexts, limits=IMPATIENT) as rig:
            client = await rig.connect()
            async with trio.open_nursery() as nursery:

                async def reject() -> None:
                    with pytest.raises(ssl.SSLCertVerificationError):
                        await wrap(client, ssl.create_default_context(), "localhost")

                nursery.start_soon(reject)
                server = await wrap(await rig.accept(), tls.server)
            with server:
                event = await failure(rig)
                assert (event.leg, event.reason) == (Side.CLIENT, TlsFailure.CLIENT_REJECTED_CERTIFICATE)
                assert event.alert == "unknown_ca"


async def test_both_legs_have_the_version_and_the_protocol_that_the_server_chose(tmp_path: Path) -> None:
    tls = certified(tmp_path)
    tls.client.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.client.set_alpn_protocols(["unheard-of", "xmpp-client"])
    tls.server.set_alpn_protocols(["unheard-of", "xmpp-client"])
    with trio.fail_after(10):
        async with proxying(contexts=tls.contexts) as rig:
            client, server = await directly_secured(rig, tls)
            with client, server:
                assert client.version() == server.version() == "TLSv1.2"
                assert client.selected_alpn_protocol() == server.selected_alpn_protocol() == "xmpp-client"
                await rig.channel.wait_for(TlsEstablished, 2)
                both = [event for event in rig.channel.of(TlsEstablished) if isinstance(event, TlsEstablished)]
                assert [event.version for event in both] == ["1.2", "1.2"]
                assert both[0].server_name == both[1].server_name == "localhost"
                assert both[1].certificate != both[0].certificate


@pytest.mark.parametrize("dialled", ["127.0.0.1"])
async def test_direct_tls_by_address_is_for_the_configured_domain(tmp_path: Path, dialled: str) -> None:
    """An address, or a name of ours, says nothing about the XMPP domain (XEP-0368)."""
    tls = certified(tmp_path, domain="localhost")
    tls.client.check_hostname = False
    names: list[str | None] = []
    tls.server.sni_callback = lambda _, name, __: names.append(name)
    with trio.fail_after(10):
        async with proxying(contexts=tls.contexts, domain="localhost") as rig:
            client, server = await directly_secured(rig, tls, dialled)
            with client, server:
                assert names == ["localhost"]
                assert client.getpeercert()["subjectAltName"][0] == ("DNS", "localhost")  # type: ignore[index]


async def test_without_certificates_tls_fails_with_a_reason() -> None:
    with trio.fail_after(10):
        async with proxying(limits=IMPATIENT) as rig:
            with await rig.connect() as client:
                await send_all(client, hello())
                await rig.channel.wait_for(UpstreamConnected)
                with await rig.accept():
                    assert (await failure(rig)).reason is TlsFailure.NO_CERTIFICATE


async def test_words_sent_along_with_the_handshake_are_not_stranded(tmp_path: Path) -> None:
    """The client's first words may come in the segment of its Finished; no descriptor reports them again."""
    tls = certified(tmp_path)
    with trio.fail_after(10):
        async with proxying(contexts=tls.contexts) as rig:
            client, server = await rig.pair(b"<stream>")
            await send_all(client, STARTTLS)
            await receive_exactly(server, len(STARTTLS))
            await send_all(server, PROCEED)
            await receive_exactly(client, len(PROCEED))
            client, server = await both_secured(client, server, tls)
            with client, server:
                client.write(b"at once")
                server.write(b"at once too")
                assert await receive_exactly(server, 7) == b"at once"
                assert await receive_exactly(client, 11) == b"at once too"


async def test_a_leaf_that_is_due_is_renewed_for_the_next_handshake_and_sessions_go_on(tmp_path: Path) -> None:
    """A client that pins the public key notices nothing; one that is connected neither."""
    now = datetime.now(UTC) - timedelta(days=370)  # the client's clock is the real one, and the leaf's time 396 days
    tls = certified(tmp_path, now=lambda: now)
    with trio.fail_after(10):
        async with proxying(contexts=tls.contexts) as rig:
            first, first_server = await directly_secured(rig, tls)
            with first, first_server:
                now += timedelta(days=370)
                second, second_server = await directly_secured(rig, tls)
                with second, second_server:
                    shown = [each.getpeercert(binary_form=True) for each in (first, second)]
                    certificates = [x509.load_der_x509_certificate(der) for der in shown if der]
                    assert certificates[0].serial_number != certificates[1].serial_number
                    assert spki_pin(certificates[0]) == spki_pin(certificates[1])
                    assert certificates[1].not_valid_after_utc > now + timedelta(days=390)
                    for client, server in ((first, first_server), (second, second_server)):
                        await send_all(client, b"ping")
                        assert await receive_exactly(server, 4) == b"ping"
