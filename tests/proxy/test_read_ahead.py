"""What a client begins with, read ahead where the server depends on it; and the header that tells the server of it."""

import socket
import ssl
import struct

import attrs
import pytest
import trio

from tests.support.dialogue import DECLARED_HEADER, HEADER
from tests.support.proxying import Rig, proxying, receive_all, receive_exactly, send_all
from xproxy.config.address import HostPort
from xproxy.config.sessions import SessionLimits
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.config.upstream import UpstreamProxyProtocol
from xproxy.events.connection import (
    CloseCause,
    ConnectionClosed,
    ServerTls,
    UpstreamConnected,
    UpstreamFailed,
    UpstreamFailure,
    Via,
)
from xproxy.events.proxy import LimitReached
from xproxy.events.stream import StreamViolation
from xproxy.events.tls import TlsFailed, TlsFailure
from xproxy.proxy.route import Asked, Candidate, Candidates, NoCandidate
from xproxy.xmpp.actions import LegMode
from xproxy.xmpp.names import NameTally
from xproxy.xmpp.session import Session

IMPATIENT = SessionLimits(header_seconds_max=0.1, close_seconds_max=0.1)


@attrs.define
class ByDomain:
    """A route that takes each domain to one server, and remembers what was asked."""

    server: HostPort | None
    asked: list[Asked] = attrs.Factory(list)

    needs_domain = True

    def server_tls(self, *, direct: bool) -> ServerTls:
        raise AssertionError

    async def candidates(self, asked: Asked) -> Candidates:
        self.asked.append(asked)
        if self.server is None:
            yield NoCandidate(host=asked.domain or "", port=0, reason=UpstreamFailure.DOMAIN_NOT_ALLOWED)
            return
        host, port = self.server.host, self.server.port
        yield Candidate(host=host, address=host, port=port, tls=ServerTls.STARTTLS, via=Via.SRV)


def real_core(mode: LegMode, at_ns: int, strangers: NameTally) -> Session:
    return Session(limits=StreamLimits(), policy=StreamPolicy(), mode=mode, at_ns=at_ns, strangers=strangers)


async def closed(rig: Rig) -> CloseCause:
    return (await rig.channel.wait_for(ConnectionClosed)).cause


async def test_the_header_is_read_ahead_and_then_relayed_as_it_came() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, trio.fail_after(10):
        server.setblocking(False)
        route = ByDomain(HostPort("127.0.0.1", server.getsockname()[1]))
        async with proxying(route=route, new_session=real_core) as rig:
            with await rig.connect() as client:
                said = DECLARED_HEADER.encode()
                for start in range(0, len(said), 20):
                    await send_all(client, said[start : start + 20])
                    await trio.testing.wait_all_tasks_blocked()
                await trio.lowlevel.wait_readable(server)
                with server.accept()[0] as accepted:
                    accepted.setblocking(False)
                    assert await receive_exactly(accepted, len(said)) == said
                    assert route.asked == [Asked(direct=False, domain="example.org")]
                    connected = await rig.channel.wait_for(UpstreamConnected)
                    assert connected.domain == "example.org"


@pytest.mark.parametrize(
    ("said", "domain"),
    [(HEADER, "example.org"), (HEADER.replace("to='example.org'", ""), "configured.example")],
    ids=["named", "configured"],
)
async def test_which_domain_it_is(said: str, domain: str) -> None:
    route = ByDomain(None)
    with trio.fail_after(10):
        async with proxying(route=route, new_session=real_core, domain="configured.example") as rig:
            with await rig.connect() as client:
                await send_all(client, said.encode())
                assert await receive_all(client) == b""
            failed = await rig.channel.wait_for(UpstreamFailed)
            assert (failed.reason, failed.domain) == (UpstreamFailure.DOMAIN_NOT_ALLOWED, domain)
            assert await closed(rig) is CloseCause.UPSTREAM_FAILED


@pytest.mark.parametrize("name", ["sni.example", None, "127.0.0.1"])
async def test_direct_tls_names_it_in_its_hello(name: str | None) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    route = ByDomain(None)
    with trio.fail_after(10):
        async with proxying(route=route, new_session=real_core, domain="configured.example") as rig:
            with await rig.connect() as client:
                await send_all(client, outgoing.read())
                assert await receive_all(client) == b""
            await closed(rig)
    assert route.asked == [Asked(direct=True, domain="sni.example" if name == "sni.example" else "configured.example")]


@pytest.mark.slow
@pytest.mark.parametrize("said", [b"<", HEADER[:-1].encode(), b"\x16\x03\x01"], ids=["begun", "not-ended", "hello"])
async def test_a_beginning_has_its_time(said: bytes) -> None:
    with trio.fail_after(10):
        async with proxying(route=ByDomain(None), new_session=real_core, limits=IMPATIENT) as rig:
            with await rig.connect() as client:
                await send_all(client, said)
                assert await receive_all(client) == b""
            assert await closed(rig) is CloseCause.NEGOTIATION_TIMEOUT
            assert not rig.channel.of(UpstreamFailed)


async def test_a_beginning_has_its_length() -> None:
    with trio.fail_after(10):
        async with proxying(route=ByDomain(None), new_session=real_core) as rig:
            with await rig.connect() as client:
                await send_all(client, b"<stream:stream a='" + b"x" * 8_192)
                await receive_all(client)
            assert await closed(rig) is CloseCause.LIMIT_REACHED
            (reached,) = rig.channel.of(LimitReached)
            assert isinstance(reached, LimitReached)
            assert reached.limit == "sessions.header_bytes_max"


async def test_what_is_no_header_is_a_violation_of_the_stream() -> None:
    with trio.fail_after(10):
        async with proxying(route=ByDomain(None), new_session=real_core) as rig:
            with await rig.connect() as client:
                await send_all(client, b"<!DOCTYPE a><stream:stream to='example.org'>")
                assert await receive_all(client) == b""
            assert await closed(rig) is CloseCause.INSPECTION_LOST
            assert rig.channel.of(StreamViolation)


async def test_a_hello_that_is_none() -> None:
    with trio.fail_after(10):
        async with proxying(route=ByDomain(None), new_session=real_core) as rig:
            with await rig.connect() as client:
                await send_all(client, b"\x16\x03\x01\x00\x05\x02\x00\x00\x00\x00")
                assert await receive_all(client) == b""
            assert await closed(rig) is CloseCause.TLS_FAILED
            (failed,) = rig.channel.of(TlsFailed)
            assert isinstance(failed, TlsFailed)
            assert failed.reason is TlsFailure.NOT_TLS


@pytest.mark.parametrize("abruptly", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("said", [b"<stream:stream", b"\x16\x03\x01\x00"], ids=["clear", "tls"])
async def test_a_client_that_leaves_within_its_beginning(said: bytes, abruptly: bool) -> None:
    with trio.fail_after(10):
        async with proxying(route=ByDomain(None), new_session=real_core) as rig:
            with await rig.connect() as client:
                await send_all(client, said)
                await trio.testing.wait_all_tasks_blocked()
                if abruptly:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            want = CloseCause.CLIENT_ENDED if said.startswith(b"<") else CloseCause.TLS_FAILED
            assert await closed(rig) is want
            assert not rig.channel.of(UpstreamFailed)


# What the server is told ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_server_hears_of_the_client_before_it_hears_the_client(version: UpstreamProxyProtocol) -> None:
    with trio.fail_after(10):
        async with proxying(proxy_protocol=version) as rig:
            with await rig.connect() as client:
                await send_all(client, b"<hello>")
                with await rig.accept() as server:
                    ours, port = client.getsockname(), rig.address.port
                    if version == "v1":
                        header = f"PROXY TCP4 127.0.0.1 127.0.0.1 {ours[1]} {port}\r\n".encode()
                    else:
                        header = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + socket.inet_aton("127.0.0.1") * 2
                        header += struct.pack("!HH", ours[1], port)
                    assert await receive_exactly(server, len(header) + 7) == header + b"<hello>"
                    connected = await rig.channel.wait_for(UpstreamConnected)
                    assert connected.proxy_protocol == version
