"""Whatever one client sends, the server goes on serving the others."""

import random
import socket
import struct

import pytest
import trio

from tests.support.peer import DOMAIN, PASSWORDS, Place
from xproxy.peer import words
from xproxy.xmpp import ns

HEADER = words.stream_header(to=DOMAIN)


async def say(place: Place, data: bytes, *, reset: bool = False) -> bytes:
    """Connect, send ``data``, close; return what the server said."""
    stream = await trio.open_tcp_stream(place.address.host, place.address.port)
    said = b""
    try:
        await stream.send_all(data)
        if reset:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return said
        await stream.send_eof()
        with trio.fail_after(5):
            async for chunk in stream:
                said += chunk
    except trio.BrokenResourceError:
        pass  # the server hung up with octets unread
    finally:
        await stream.aclose()
    return said


async def check_alive(place: Place) -> None:
    async with place.entered("romeo", "alive") as romeo:
        await romeo.ping()
        await romeo.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x16",
        b"\x16\x03\x01\x02\x00garbage" + bytes(600),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(5_000),
        b"<" * 5_000,
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]>" + HEADER,
        HEADER + b"&undefined;",
        HEADER + b"\xff\xfe<auth/>",
        HEADER + b"<a>" * 400,
        HEADER + b"".join(b"<n%d/>" % index for index in range(400)),
        HEADER + b"</stream:stream>",
        HEADER + b"</stream:stream>more",
        HEADER + HEADER,
        HEADER + f"<starttls xmlns='{ns.TLS}'/>".encode(),
        HEADER + f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>".encode() + b"A" * 200_000,
        HEADER + f"<resume xmlns='{ns.SM3}' previd='' h='x'/>".encode(),
    ],
)
async def test_odd_beginnings(place: Place, data: bytes) -> None:
    await say(place, data)
    await say(place, data, reset=True)
    await check_alive(place)


async def test_noise(place: Place) -> None:
    """Seeded cuts and repeats of a sound dialogue."""
    rng = random.Random(198)
    sound = (
        HEADER + f"<auth xmlns='{ns.SASL}' mechanism='SCRAM-SHA-1'>biwsbj1qdWxpZXQscj1hYmM=</auth>".encode() + HEADER
    )
    for _ in range(60):
        data = bytearray(sound)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randrange(20)]
                case _:
                    data[at:at] = data[at : at + rng.randrange(40)]
        await say(place, bytes(data), reset=rng.random() < 0.2)
    await check_alive(place)


@pytest.mark.parametrize(
    "stanza",
    [
        "<presence><priority>--5</priority></presence>",
        "<presence><priority>٣</priority></presence>",
        "<presence type='subscribe' to='tybalt@example.test'/>",
        "<message/>",
        "<message to='example.test'/>",
        "<message to='romeo@example.test/a/b/c'><body/></message>",
        "<message to='&#x202e;@example.test'/>",
        "<iq type='result' id='x'/>",
        "<iq type='error' id='x' to='example.test'/>",
        "<iq type='get' id='&lt;&quot;&apos;'><x xmlns=''/></iq>",
        "<iq type='set' id='x' to='echo@example.test'><x xmlns='urn:x'/></iq>",
        "<iq type='set' id='x'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
        "<message xmlns:stream='urn:other' to='echo@example.test'><stream:x/></message>",
        "<a xmlns='urn:xmpp:sm:3' h='0'/>",
        "<r xmlns='urn:xmpp:sm:3'/>",
        f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'/>",
        words.stream_header(to=DOMAIN).decode(),
    ],
)
async def test_odd_stanzas(place: Place, stanza: str) -> None:
    async with place.client() as client:
        await client.enter("juliet", PASSWORDS["juliet"])
        await client.send(stanza)
    await check_alive(place)


@pytest.mark.parametrize("reset", [False, True])
async def test_clients_that_vanish_in_every_phase(place: Place, reset: bool) -> None:
    for steps in range(5):
        client = place.client()
        await client.connect()
        if steps > 0:
            await client.login("juliet", PASSWORDS["juliet"])
        if steps > 1:
            await client.bind("x")
        if steps > 2:
            await client.enable_sm()
        if steps > 3:
            await client.send_message("echo@example.test", "x" * 500_000)
        client.drop(reset=reset)
    await check_alive(place)
