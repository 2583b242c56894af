"""What is no XMPP server, or a bad one: one clear line, an end in time, little memory, a terminal left alone."""

import contextlib
import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

from tests.doctor.conftest import Examine
from tests.support.crooked import END, HEADER, mechanisms, stream_error
from tests.support.examining import Found, examined
from tests.support.peer import DOMAIN, Trust
from xproxy.config.address import HostPort
from xproxy.doctor.findings import Severity
from xproxy.jid import Jid
from xproxy.xmpp import ns

pytestmark = pytest.mark.slow

Behaviour = Callable[[trio.SocketStream], Awaitable[None]]
PATIENT = {"jid": Jid.from_text(f"juliet@{DOMAIN}"), "password": "canary-doctor-password"}


@contextlib.asynccontextmanager
async def behaving(behaviour: Behaviour) -> AsyncIterator[int]:
    """Serve so on a loopback port."""

    async def connection(stream: trio.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):
                await behaviour(stream)

    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        nursery.start_soon(trio.serve_listeners, connection, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def examine_behaving(
    behaviour: Behaviour, nameserver: HostPort, *, step: float = 10.0, whole: float = 60
) -> Found:
    async with behaving(behaviour) as port:
        return await examined(
            port, domain=DOMAIN, ca_file=None, nameserver=nameserver, step_seconds_max=step, seconds_max=whole
        )


@pytest.mark.parametrize(
    ("opening", "word"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<html>", "speaks HTTP"),
        (b"<html><body>", "speaks HTML"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "speaks SSH"),
        (b"220 mail.example ESMTP\r\n", "speaks SMTP or FTP"),
        (b"* OK IMAP4rev1\r\n", "speaks IMAP"),
        (bytes(range(1, 32)) + b"\xff\x1b]0;owned\x07", "no XMPP"),
        (b"\x1b[2J\x1b[31mred", "no XMPP"),
        (b"<stream:stream xmlns='jabber:client'>", "no XMPP"),
        (f"{HEADER}<message/>".encode(), "no XMPP"),
        (f"{HEADER}<!DOCTYPE lol>".encode(), "hangs up"),
        (f"{HEADER}{END}".encode(), "hangs up"),
    ],
)
async def test_something_else_listens(nameserver: HostPort, opening: bytes, word: str) -> None:
    async def behaviour(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(opening)
        await stream.send_eof()
        async for _ in stream:
            pass

    found = await examine_behaving(behaviour, nameserver)
    finding = found["stream"]
    assert finding.severity is Severity.PROBLEM
    assert word in finding.finding
    assert found.diagnosis.is_reached
    assert all(each.isprintable() for each in (finding.finding, finding.consequence, finding.seen))


async def test_octets_of_a_server_are_escaped_once(nameserver: HostPort) -> None:
    async def behaviour(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b'\x1b[2J "quoted" \xff')
        await stream.send_eof()
        async for _ in stream:
            pass

    finding = (await examine_behaving(behaviour, nameserver))["stream"].finding
    assert finding.endswith(""": "\\u{1b}[2J 'quoted' \\xff\"""")


async def test_more_in_clear_behind_proceed_is_an_attack(nameserver: HostPort) -> None:
    starttls = f"<stream:features><starttls xmlns='{ns.TLS}'/></stream:features>"

    async def behaviour(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all((HEADER + starttls).encode())
        await stream.receive_some()
        await stream.send_all(f"<proceed xmlns='{ns.TLS}'/><stream:features/>".encode())
        async for _ in stream:
            pass

    finding = (await examine_behaving(behaviour, nameserver))["stream"]
    assert "sends more in clear behind <proceed/>" in finding.finding
    assert "starttls-injection" in finding.consequence


async def test_nobody_listens(nameserver: HostPort) -> None:
    with trio.socket.socket() as sock:  # bound, and not listening: nobody else takes the port
        await sock.bind(("127.0.0.1", 0))
        found = await examined(sock.getsockname()[1], domain=DOMAIN, ca_file=None, nameserver=nameserver)
    assert found.severity("ipv4") is Severity.PROBLEM
    assert "refuses connections" in found["ipv4"].finding
    assert not found.diagnosis.is_reached


async def test_a_tarpit(nameserver: HostPort) -> None:
    async def behaviour(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    found = await examine_behaving(behaviour, nameserver, step=0.2)
    assert "says nothing within 0.2 s" in found["stream"].finding


async def test_one_octet_now_and_then(nameserver: HostPort) -> None:
    async def behaviour(stream: trio.SocketStream) -> None:
        for octet in HEADER.encode():
            await stream.send_all(bytes([octet]))
            await trio.sleep(0.02)

    found = await examine_behaving(behaviour, nameserver, step=0.2)
    assert "says nothing within 0.2 s" in found["stream"].finding


async def test_what_hangs_up_at_once(nameserver: HostPort) -> None:
    async def behaviour(stream: trio.SocketStream) -> None:
        return

    assert "hangs up" in (await examine_behaving(behaviour, nameserver))["stream"].finding


@pytest.mark.parametrize(
    ("begin", "flood"),
    [
        ("", "x" * 65_536),
        ("", " " * 65_536),
        (HEADER, " " * 65_536),
        (HEADER[:-1] + " a='", "x" * 65_536),
        (f"{HEADER}<stream:features>", "<mechanism>PLAIN</mechanism>" * 2_000),
        (f"{HEADER}<stream:features><mechanisms xmlns='{ns.SASL}'>", "<mechanism>PLAIN</mechanism>" * 2_000),
        (HEADER, "<stream:features>" * 4_000),
        (f"{HEADER}<!--", "x" * 65_536),
    ],
    ids=["text", "space", "space-in-stream", "attribute", "features", "mechanisms", "depth", "comment"],
)
async def test_a_flood_costs_little(nameserver: HostPort, begin: str, flood: str) -> None:
    async def behaviour(stream: trio.SocketStream) -> None:
        await stream.send_all(begin.encode())
        octets = flood.encode()
        while True:
            await stream.send_all(octets)

    gc.collect()
    tracemalloc.start()
    try:
        found = await examine_behaving(behaviour, nameserver, step=0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["stream"].severity is Severity.PROBLEM
    assert peak < 16 * 1_048_576


async def test_a_flood_behind_the_login(examine: Examine) -> None:
    """What comes instead of the answer to the bind is not kept for ever."""
    success = f"<success xmlns='{ns.SASL}'/>{HEADER}<stream:features><bind xmlns='{ns.BIND}'/></stream:features>"
    found = await examine(
        patient=PATIENT, secured=mechanisms("PLAIN"), at_login=success + "<message><body>x</body></message>" * 10_000
    )
    assert "too-many-stanzas" in found["redirect"].finding


async def test_words_of_the_server_move_no_terminal(examine: Examine) -> None:
    hostile = "\u202egnp.exe\u2028&#x9b;31m"
    found = await examine(secured=mechanisms(hostile, "SCRAM-SHA-1"))
    assert found["mechanisms"].finding.isprintable()
    error = (
        f"<stream:error><policy-violation xmlns='{ns.STREAM_ERRORS}'/><text xmlns='{ns.STREAM_ERRORS}'>{hostile}</text>"
    )
    found = await examine(at_header=f"{error}</stream:error>")
    assert all(each.finding.isprintable() for each in found.diagnosis.findings)


async def test_many_long_mechanisms_are_cut(examine: Examine) -> None:
    found = await examine(secured=mechanisms(*(f"X-{number}-{'y' * 500}" for number in range(60))))
    assert len(found["mechanisms"].finding) < 2_000
    assert "48 more" in found["mechanisms"].finding


async def test_the_deadline_ends_it_and_says_where(nameserver: HostPort) -> None:
    async def behaviour(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    found = await examine_behaving(behaviour, nameserver, step=30, whole=0.2)
    assert found.severity("deadline") is Severity.WARNING
    assert "STARTTLS and direct TLS" in found["deadline"].finding


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (stream_error("host-unknown"), "does not serve this domain"),
        (stream_error("policy-violation"), "policy-violation"),
        (stream_error("made-up-condition"), "made-up-condition"),
        (stream_error("internal-server-error"), "internal-server-error"),
    ],
)
async def test_stream_errors(nameserver: HostPort, trust: Trust, answer: str, word: str) -> None:
    async def behaviour(stream: trio.SocketStream) -> None:
        if (await stream.receive_some()).startswith(b"<?xml"):
            await stream.send_all((HEADER + answer).encode())

    assert word in (await examine_behaving(behaviour, nameserver))["stream"].finding
