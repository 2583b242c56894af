"""Clients that refuse our certificate: remembered for a time, relayed undecrypted, never silently."""

import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio

from tests.support.ends import tells_ends_apart
from tests.support.late_alert import alert_record
from tests.support.proxying import (
    PROCEED,
    STARTTLS,
    Certified,
    Rig,
    certified,
    directly_secured,
    proxying,
    receive_all,
    receive_exactly,
    receive_some,
    send_all,
    send_until_full,
    wrap,
)
from xproxy.config.listen import ListenAddress, ListenKind, ListenSettings
from xproxy.config.policy import PolicySettings
from xproxy.config.sessions import SessionLimits
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import EndOfInput, Endpoint, Side
from xproxy.events.connection import CloseCause, ConnectionClosed
from xproxy.events.stanza import ClientFailureSuspected
from xproxy.events.tls import TlsEstablished, TlsFailed, TlsFailure, TlsPassthrough
from xproxy.proxy.passthrough import PassthroughMemory
from xproxy.proxy.proxy_protocol import render_local, render_v2
from xproxy.proxy.seams import NewSession
from xproxy.tls.hello import ClientHello
from xproxy.xmpp.actions import LegMode
from xproxy.xmpp.names import NameTally
from xproxy.xmpp.session import Session

SECOND = 1_000_000_000
POLICY = PolicySettings(
    on_client_reject="passthrough", passthrough_seconds=60, passthrough_max=4, passthrough_per_address_max=2
)
HELLO = ClientHello(
    server_name="localhost", alpn=("xmpp-client",), versions=(0x0304,), top_version=0x0304, ja4="t13d0000xx_a_b"
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits_reached() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def memory(clock: Clock, limits_reached: list[tuple[str, int]]) -> PassthroughMemory:
    return PassthroughMemory(POLICY, wall_ns=clock, on_limit=lambda limit, value: limits_reached.append((limit, value)))


def hello(name: str | None = "localhost", ja4: str = HELLO.ja4) -> ClientHello:
    return attrs.evolve(HELLO, server_name=name, ja4=ja4)


def test_nobody_is_let_through_before_it_refused(memory: PassthroughMemory) -> None:
    assert memory.admit("192.0.2.1", HELLO) is None
    assert memory.snapshot() == ()


def test_a_client_that_refused_is_let_through_until_the_stated_time(memory: PassthroughMemory, clock: Clock) -> None:
    remembered = memory.remember("192.0.2.1", HELLO, "unknown_ca")
    assert remembered is not None
    assert remembered.expires_at_ns == clock.now + 60 * SECOND
    for count in (1, 2):
        clock.now += 29 * SECOND
        admitted = memory.admit("192.0.2.1", HELLO)
        assert admitted is not None
        assert (admitted.sessions, admitted.refusal) == (count, "unknown_ca")
        assert admitted.expires_at_ns == remembered.expires_at_ns, "use does not make it longer"
    assert memory.snapshot() == (admitted,)
    clock.now += 2 * SECOND
    assert memory.admit("192.0.2.1", HELLO) is None
    assert memory.snapshot() == ()


def test_a_clock_that_was_set_back_behind_the_refusal_ends_it(memory: PassthroughMemory, clock: Clock) -> None:
    memory.remember("192.0.2.1", HELLO, "unknown_ca")
    clock.now -= SECOND
    assert memory.snapshot() == ()
    assert memory.admit("192.0.2.1", HELLO) is None


@pytest.mark.parametrize(
    ("address", "other"),
    [
        ("192.0.2.2", HELLO),
        ("192.0.2.1", hello("example.org")),
        ("192.0.2.1", hello(None)),
        ("192.0.2.1", hello(ja4="t13d0000yy_a_b")),
    ],
)
def test_another_address_name_or_kind_of_hello_is_another_client(
    memory: PassthroughMemory, address: str, other: ClientHello
) -> None:
    memory.remember("192.0.2.1", HELLO, "unknown_ca")
    assert memory.admit(address, other) is None


def test_names_are_compared_without_case_and_final_dot(memory: PassthroughMemory) -> None:
    memory.remember("192.0.2.1", hello("LocalHost."), "unknown_ca")
    assert memory.admit("192.0.2.1", HELLO)


def test_a_name_longer_than_any_host_name_is_not_kept(memory: PassthroughMemory) -> None:
    assert memory.remember("192.0.2.1", hello("a" * 60_000), "unknown_ca") is None
    assert memory.admit("192.0.2.1", hello("a" * 60_000)) is None


def test_an_address_has_its_own_room_and_its_oldest_makes_way(
    memory: PassthroughMemory, limits_reached: list[tuple[str, int]]
) -> None:
    memory.remember("192.0.2.9", HELLO, "unknown_ca")
    for name in ("a.example", "b.example", "c.example"):
        memory.remember("2001:db8::1", hello(name), "unknown_ca")
    assert [client.key.server_name for client in memory.snapshot()] == ["localhost", "b.example", "c.example"]
    assert limits_reached == [("policy.passthrough_per_address_max", 2)]
    # ... and the /64 that one subscriber has is one address.
    memory.remember("2001:db8::2", hello("d.example"), "unknown_ca")
    assert [client.key.server_name for client in memory.snapshot()] == ["localhost", "c.example", "d.example"]


def test_all_together_are_bounded_too(memory: PassthroughMemory, limits_reached: list[tuple[str, int]]) -> None:
    for number in range(1, 7):
        memory.remember(f"192.0.2.{number}", HELLO, "unknown_ca")
    assert [client.key.address for client in memory.snapshot()] == [f"192.0.2.{number}" for number in (3, 4, 5, 6)]
    assert limits_reached == [("policy.passthrough_max", 4)] * 2


def test_a_second_refusal_takes_no_more_room(memory: PassthroughMemory, clock: Clock) -> None:
    for _ in range(5):
        clock.now += SECOND
        memory.remember("192.0.2.1", HELLO, "unknown_ca")
    (client,) = memory.snapshot()
    assert client.refused_at_ns == clock.now


def test_the_default_policy_lets_nobody_through(clock: Clock) -> None:
    memory = PassthroughMemory(PolicySettings(), wall_ns=clock)
    assert memory.remember("192.0.2.1", HELLO, "unknown_ca") is None
    assert memory.admit("192.0.2.1", HELLO) is None


# Through the proxy ------------------------------------------------------------------------------------------------

BRISK = SessionLimits(close_seconds_max=0.2)


@asynccontextmanager
async def passing(
    tmp_path: Path, memory: PassthroughMemory, new_session: NewSession | None = None
) -> AsyncIterator[tuple[Rig, Certified, ssl.SSLContext]]:
    """A proxy that lets through who refuses it, and a client's context that trusts the real server alone."""
    tls = certified(tmp_path)
    distrustful = tells_ends_apart(ssl.create_default_context(cafile=str(tmp_path / "real-ca.pem")))
    with trio.fail_after(20):
        async with proxying(contexts=tls.contexts, limits=BRISK, passthrough=memory, new_session=new_session) as rig:
            yield rig, tls, distrustful


def real_core(mode: LegMode, at_ns: int, strangers: NameTally) -> Session:
    return Session(
        limits=StreamLimits(),
        policy=StreamPolicy(close_seconds_max=0.5, correlation_key=bytes(32)),
        mode=mode,
        at_ns=at_ns,
        strangers=strangers,
    )


async def refuse(rig: Rig, tls: Certified, context: ssl.SSLContext) -> TlsFailed:
    """Connect as a client that does not trust the proxy; return the record of it."""
    client = await rig.connect()
    async with trio.open_nursery() as nursery:

        async def try_it() -> None:
            with pytest.raises(ssl.SSLCertVerificationError):
                await wrap(client, context, "localhost")

        nursery.start_soon(try_it)
        server = await wrap(await rig.accept(), tls.server)
    with server:
        failed = await rig.channel.wait_for(TlsFailed)
        await rig.channel.wait_for(ConnectionClosed)
    rig.channel.events.clear()
    return failed


def certificate_of(tls: ssl.SSLSocket) -> bytes:
    octets = tls.getpeercert(binary_form=True)
    assert octets
    return octets


async def test_first_it_fails_then_it_is_relayed_undecrypted_then_decrypted_again(
    tmp_path: Path, memory: PassthroughMemory, clock: Clock
) -> None:
    async with passing(tmp_path, memory, real_core) as (rig, tls, distrustful):
        failed = await refuse(rig, tls, distrustful)
        assert (failed.reason, failed.alert) == (TlsFailure.CLIENT_REJECTED_CERTIFICATE, "unknown_ca")

        trusting = attrs.evolve(tls, client=distrustful)
        client, server = await directly_secured(rig, trusting)
        with client, server:
            begin = await rig.channel.wait_for(TlsPassthrough)
            assert (begin.stage, begin.refusal, begin.server_name) == ("begin", "unknown_ca", "localhost")
            assert begin.expires_at_ns == clock.now + 60 * SECOND
            assert begin.from_client_bytes is None
            await send_all(client, b"ping")
            assert await receive_exactly(server, 4) == b"ping"
            await send_all(server, b"pong")
            assert await receive_exactly(client, 4) == b"pong"
            # The client ends in form; the server's answer still comes through.
            with pytest.raises(ssl.SSLWantReadError):
                client.unwrap()
            socket.socket.shutdown(client, socket.SHUT_WR)
            assert await receive_all(server) == b""
            server.unwrap()
            server.close()
            with pytest.raises(ssl.SSLZeroReturnError):  # close_notify, after our own
                await receive_some(client)
        end = await rig.channel.wait_for(TlsPassthrough, 2)
        closed = await rig.channel.wait_for(ConnectionClosed)
        assert end == attrs.evolve(
            begin,
            stage="end",
            from_client_bytes=closed.from_client.bytes,
            from_server_bytes=closed.from_server.bytes,
        )
        assert end.from_client_bytes is not None
        assert end.from_client_bytes > 300, "TLS itself went through"
        assert closed.cause is CloseCause.CLIENT_ENDED
        assert rig.channel.events[-1] is closed
        assert not rig.channel.of(TlsEstablished, TlsFailed)

        clock.now += 61 * SECOND
        rig.channel.events.clear()
        await refuse(rig, tls, distrustful)


async def test_under_starttls_the_hello_goes_to_the_server_untouched(tmp_path: Path, memory: PassthroughMemory) -> None:
    async with passing(tmp_path, memory) as (rig, tls, distrustful):
        await refuse(rig, tls, distrustful)
        client, server = await rig.pair(b"<stream>")
        with client, server:
            await send_all(client, STARTTLS)
            await receive_exactly(server, len(STARTTLS))
            await send_all(server, PROCEED)
            await receive_exactly(client, len(PROCEED))
            ends: dict[str, ssl.SSLSocket] = {}

            async def secure_client() -> None:
                ends["client"] = await wrap(client, distrustful, "localhost")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(secure_client)
                ends["server"] = await wrap(server, tls.server)
            with ends["client"] as secured, ends["server"] as securing:
                await send_all(secured, b"x" * 500_000)
                assert await receive_exactly(securing, 500_000) == b"x" * 500_000
        await rig.channel.wait_for(ConnectionClosed)
        both = [event for event in rig.channel.of(TlsPassthrough) if isinstance(event, TlsPassthrough)]
        assert [(event.stage, event.direct) for event in both] == [("begin", False), ("end", False)]


@pytest.mark.parametrize("side", [Side.CLIENT, Side.SERVER])
async def test_a_reset_stays_a_reset(tmp_path: Path, memory: PassthroughMemory, side: Side) -> None:
    async with passing(tmp_path, memory) as (rig, tls, distrustful):
        await refuse(rig, tls, distrustful)
        client, server = await directly_secured(rig, attrs.evolve(tls, client=distrustful))
        with client, server:
            ours, theirs = (client, server) if side is Side.CLIENT else (server, client)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ours.close()
            with pytest.raises((ConnectionResetError, ssl.SSLError)):
                await receive_all(theirs)
        closed = await rig.channel.wait_for(ConnectionClosed)
        assert closed.initiator is side
        totals = closed.from_client if side is Side.CLIENT else closed.from_server
        assert totals.end is EndOfInput.RESET


async def test_a_bare_fin_is_passed_on_and_does_not_hold_the_session(tmp_path: Path, memory: PassthroughMemory) -> None:
    async with passing(tmp_path, memory, real_core) as (rig, tls, distrustful):
        await refuse(rig, tls, distrustful)
        client, server = await directly_secured(rig, attrs.evolve(tls, client=distrustful))
        with client, server:
            client.close()
            with pytest.raises(ssl.SSLEOFError):  # no close_notify is invented
                await receive_some(server)
            closed = await rig.channel.wait_for(ConnectionClosed)  # though the server never ends
        assert (closed.cause, closed.initiator) == (CloseCause.CLIENT_ENDED, Side.CLIENT)


async def test_a_client_that_closes_at_our_certificate_counts_as_one_that_refuses(
    tmp_path: Path, memory: PassthroughMemory
) -> None:
    """As slixmpp and Node.js do."""
    async with passing(tmp_path, memory) as (rig, tls, distrustful):
        client = await rig.connect()
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                with pytest.raises(ssl.SSLWantReadError):
                    distrustful.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
                await send_all(client, outgoing.read())
                await receive_some(client)
                client.close()

            nursery.start_soon(leave)
            server = await wrap(await rig.accept(), tls.server)
        with server:
            failed = await rig.channel.wait_for(TlsFailed)
            await rig.channel.wait_for(ConnectionClosed)
        assert (failed.leg, failed.reason, failed.alert) == (Side.CLIENT, TlsFailure.CLOSED, None)
        assert failed.detail is not None
        assert "shown our certificate" in failed.detail
        (client_kept,) = memory.snapshot()
        assert client_kept.refusal == "closed"


async def test_a_client_that_leaves_behind_the_handshake_without_a_word_counts_too(
    tmp_path: Path, memory: PassthroughMemory
) -> None:
    """As Node.js does, which looks at the verdict only then."""
    async with passing(tmp_path, memory, real_core) as (rig, tls, _):
        client, server = await directly_secured(rig, tls)
        with server:
            await rig.channel.wait_for(TlsEstablished, 2)
            client.close()
            suspected = await rig.channel.wait_for(ClientFailureSuspected)
            await rig.channel.wait_for(ConnectionClosed)
        assert suspected.kind == "left-after-tls"
        assert [kept.refusal for kept in memory.snapshot()] == ["closed"]


@pytest.mark.parametrize("how", ["spoke", "server-first", "reset"])
async def test_other_ends_behind_the_handshake_are_no_refusal(
    tmp_path: Path, memory: PassthroughMemory, how: str
) -> None:
    async with passing(tmp_path, memory, real_core) as (rig, tls, _):
        client, server = await directly_secured(rig, tls)
        with client, server:
            await rig.channel.wait_for(TlsEstablished, 2)
            if how == "spoke":
                await send_all(client, b"<?xml version='1.0'?>")
                await receive_some(server)
            if how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            (server if how == "server-first" else client).close()
            await rig.channel.wait_for(ConnectionClosed)
        assert not rig.channel.of(ClientFailureSuspected)
        assert memory.snapshot() == ()


async def test_a_failure_of_the_server_leg_lets_nobody_through(tmp_path: Path, memory: PassthroughMemory) -> None:
    async with passing(tmp_path, memory) as (rig, _, distrustful):
        client = await rig.connect()
        with client:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            with pytest.raises(ssl.SSLWantReadError):
                distrustful.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
            await send_all(client, outgoing.read())
            (await rig.accept()).close()
            failed = await rig.channel.wait_for(TlsFailed)
            assert failed.leg is Side.SERVER
        assert memory.snapshot() == ()


@pytest.mark.parametrize(
    ("number", "name", "reason"),
    [
        (48, "unknown_ca", TlsFailure.CLIENT_REJECTED_CERTIFICATE),
        (46, "certificate_unknown", TlsFailure.CLIENT_REJECTED_CERTIFICATE),
        (42, "bad_certificate", TlsFailure.CLIENT_REJECTED_CERTIFICATE),
        (45, "certificate_expired", TlsFailure.CLIENT_REJECTED_CERTIFICATE),
        (43, "unsupported_certificate", TlsFailure.CLIENT_REJECTED_CERTIFICATE),
        (80, "internal_error", TlsFailure.PEER_ALERT),
    ],
)
async def test_an_alert_behind_the_handshake_has_its_name_and_counts(
    tmp_path: Path, memory: PassthroughMemory, number: int, name: str, reason: TlsFailure
) -> None:
    """With TLS 1.3 a client may judge our certificate when our side is done already (RFC 8446 section 4.4.4)."""
    async with passing(tmp_path, memory) as (rig, tls, _):
        tls.client.keylog_filename = str(tmp_path / "keys")
        client, server = await directly_secured(rig, tls)
        with server:
            await rig.channel.wait_for(TlsEstablished, 2)
            alert = alert_record(client, tmp_path / "keys", number)
            with socket.socket(fileno=client.detach()) as raw:
                await send_all(raw, alert)
                failed = await rig.channel.wait_for(TlsFailed)
                closed = await rig.channel.wait_for(ConnectionClosed)
        assert (failed.leg, failed.reason, failed.alert) == (Side.CLIENT, reason, name)
        assert failed.after_handshake
        assert failed.certificate is not None
        assert failed.ja4 is not None
        assert (closed.cause, closed.initiator) == (CloseCause.TLS_FAILED, Side.CLIENT)
        expected = [name] if reason is TlsFailure.CLIENT_REJECTED_CERTIFICATE else []
        assert [kept.refusal for kept in memory.snapshot()] == expected


async def test_an_alert_of_the_server_is_the_server_s(tmp_path: Path, memory: PassthroughMemory) -> None:
    async with passing(tmp_path, memory) as (rig, tls, _):
        tls.server.num_tickets = 0  # they would come first, and be numbered
        tls.server.keylog_filename = str(tmp_path / "keys")
        client, server = await directly_secured(rig, tls)
        with client:
            await rig.channel.wait_for(TlsEstablished, 2)
            alert = alert_record(server, tmp_path / "keys", 80)
            with socket.socket(fileno=server.detach()) as raw:
                await send_all(raw, alert)
                failed = await rig.channel.wait_for(TlsFailed)
        assert (failed.leg, failed.reason, failed.alert) == (Side.SERVER, TlsFailure.PEER_ALERT, "internal_error")
        assert failed.certificate is not None
        assert memory.snapshot() == ()


async def test_a_fin_waits_for_what_a_slow_peer_has_not_taken(tmp_path: Path, memory: PassthroughMemory) -> None:
    async with passing(tmp_path, memory, real_core) as (rig, tls, distrustful):
        await refuse(rig, tls, distrustful)
        client, server = await directly_secured(rig, attrs.evolve(tls, client=distrustful))
        with client, server:
            sent = await send_until_full(client, b"x" * 50_000_000)
            assert sent > 100_000
            assert rig.waiting_bytes(Side.SERVER) > 0
            socket.socket.shutdown(client, socket.SHUT_WR)
            assert len(await receive_exactly(server, sent)) == sent
            with pytest.raises(ssl.SSLEOFError):  # a bare FIN, and only behind the last octet
                await receive_some(server)
        await rig.channel.wait_for(ConnectionClosed)


@asynccontextmanager
async def behind_balancer(
    tmp_path: Path, memory: PassthroughMemory
) -> AsyncIterator[tuple[Rig, Certified, ssl.SSLContext]]:
    """The same, behind a balancer that says first whose connection it brings."""
    tls = certified(tmp_path)
    distrustful = tells_ends_apart(ssl.create_default_context(cafile=str(tmp_path / "real-ca.pem")))
    listen = ListenSettings(addresses=(ListenAddress("127.0.0.1", 0, ListenKind.PROXY_PROTOCOL),))
    with trio.fail_after(20):
        async with proxying(contexts=tls.contexts, limits=BRISK, passthrough=memory, listen=listen) as rig:
            yield rig, tls, distrustful


def client_at(ip: str) -> bytes:
    return render_v2(Endpoint(ip, 40_000), Endpoint("198.51.100.1", 5223))


async def ends_as(rig: Rig, tls: Certified, context: ssl.SSLContext, header: bytes) -> type[TlsFailed | TlsPassthrough]:
    """Bring a client behind ``header`` that does not trust the proxy; return what the log has of it."""
    rig.channel.events.clear()
    client = await rig.connect()
    await send_all(client, header)
    async with trio.open_nursery() as nursery:

        async def try_it() -> None:
            with suppress(ssl.SSLError):
                (await wrap(client, context, "localhost")).close()
            client.close()

        nursery.start_soon(try_it)
        with suppress(OSError):
            (await wrap(await rig.accept(), tls.server)).close()
    await rig.channel.wait_for(ConnectionClosed)
    return type(rig.channel.of(TlsFailed, TlsPassthrough)[0])  # type: ignore[return-value]


async def test_a_refusal_is_learnt_for_the_real_client_behind_a_balancer(
    tmp_path: Path, memory: PassthroughMemory
) -> None:
    """The key is who the PROXY header names: clients of one balancer do not share a fate."""
    async with behind_balancer(tmp_path, memory) as there:
        assert await ends_as(*there, client_at("192.0.2.7")) is TlsFailed
        assert [client.key.address for client in memory.snapshot()] == ["192.0.2.7"]
        assert await ends_as(*there, client_at("192.0.2.8")) is TlsFailed
        assert await ends_as(*there, client_at("192.0.2.7")) is TlsPassthrough


@pytest.mark.parametrize("header", [render_local(), b"PROXY UNKNOWN\r\n"])
async def test_nobody_is_let_through_for_a_client_that_the_balancer_does_not_name(
    tmp_path: Path, memory: PassthroughMemory, header: bytes
) -> None:
    async with behind_balancer(tmp_path, memory) as there:
        assert await ends_as(*there, header) is TlsFailed
        assert memory.snapshot() == ()
        assert await ends_as(*there, header) is TlsFailed
