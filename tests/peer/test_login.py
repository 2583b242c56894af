"""Logging in: both ends, and everything a server may say no to (RFC 6120 sections 4.9.3, 5.4.2.2, 6.5, 7.7)."""

import base64
import ssl
from pathlib import Path

import pytest

from tests.peer.conftest import Open
from tests.support.mint import Mint
from tests.support.peer import DOMAIN, PASSWORDS, Place
from xproxy.peer import auth, words
from xproxy.peer.client import Client, Mode, trusting
from xproxy.peer.errors import Disconnected, LoginFailed, StanzaFailed, StreamFailed, TlsRefused
from xproxy.xmpp import ns

AUTH = f"<auth xmlns='{ns.SASL}' mechanism='%s'>%s</auth>"


async def failure_of(client: Client, sent: str) -> str:
    """Send a nonza of SASL and return the condition of the failure that answers it."""
    await client.send(sent)
    answer = await client.receive()
    assert answer.tag == f"{{{ns.SASL}}}failure"
    return words.condition_of(answer, ns.SASL)


async def hear_the_end(client: Client) -> None:
    """Read until something goes wrong."""
    await client.expect_stream()
    await client.receive()


def encoded(message: str) -> str:
    return base64.b64encode(message.encode()).decode()


@pytest.mark.parametrize("mode", [Mode.STARTTLS, Mode.DIRECT_TLS])
@pytest.mark.parametrize("mechanism", auth.MECHANISMS)
async def test_login(place: Place, mode: Mode, mechanism: str) -> None:
    async with place.client(mode=mode) as client:
        assert mechanism in client.mechanisms
        assert client.tls_version == "TLSv1.3"
        await client.login("juliet", PASSWORDS["juliet"], mechanism=mechanism)
        assert await client.bind("balcony") == "juliet@example.test/balcony"
        await client.ping()
        await client.close()
    assert not place.server.sessions


async def test_the_strongest_mechanism_is_chosen(place: Place) -> None:
    async with place.client() as client:
        assert client.mechanisms == ("SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN")
        await client.enter("juliet", PASSWORDS["juliet"])
        assert client.jid is not None
        assert client.jid.startswith("juliet@example.test/")


async def test_login_in_clear_where_that_is_allowed(open_place: Open) -> None:
    place = await open_place(tls=None)
    async with place.client(mode=Mode.CLEAR, tls=None) as client:
        await client.enter("juliet", PASSWORDS["juliet"])
        assert client.tls_version is None


@pytest.mark.parametrize("mechanism", auth.MECHANISMS)
@pytest.mark.parametrize("user", ["juliet", "tybalt"])
async def test_wrong_password_and_unknown_user_look_the_same(place: Place, mechanism: str, user: str) -> None:
    async with place.client() as client:
        with pytest.raises(LoginFailed) as caught:
            await client.login(user, "wrong", mechanism=mechanism)
        assert caught.value.condition == "not-authorized"
        # The stream is still open, and a second try may succeed (RFC 6120 section 6.4.5).
        await client.enter("juliet", PASSWORDS["juliet"])


async def test_too_many_tries_end_the_stream(place: Place) -> None:
    async with place.client() as client:
        for _ in range(5):
            with pytest.raises(LoginFailed):
                await client.login("juliet", "wrong", mechanism="PLAIN")
        with pytest.raises(StreamFailed) as caught:
            await client.receive()
        assert caught.value.condition == "policy-violation"


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        (AUTH % ("X-NONE", "="), "invalid-mechanism"),
        (AUTH % ("PLAIN", "no base64!"), "incorrect-encoding"),
        (AUTH % ("PLAIN", "AGp1bGlldA"), "incorrect-encoding"),  # no padding
        (AUTH % ("PLAIN", encoded("juliet")), "malformed-request"),
        (AUTH % ("PLAIN", "/w=="), "malformed-request"),  # no UTF-8
        (AUTH % ("PLAIN", encoded(f"romeo@{DOMAIN}\0juliet\0{PASSWORDS['juliet']}")), "invalid-authzid"),
        (AUTH % ("SCRAM-SHA-1", encoded("nonsense")), "malformed-request"),
        (AUTH % ("SCRAM-SHA-1", encoded(f"n,a=romeo@{DOMAIN},n=juliet,r=abc")), "invalid-authzid"),
        (AUTH % ("SCRAM-SHA-256", encoded("p=tls-unique,,n=juliet,r=abc")), "not-authorized"),
        (f"<response xmlns='{ns.SASL}'/>", "malformed-request"),
        (f"<abort xmlns='{ns.SASL}'/>", "aborted"),
    ],
)
async def test_sasl_failures(place: Place, sent: str, condition: str) -> None:
    async with place.client() as client:
        assert await failure_of(client, sent) == condition


async def test_abort_within_an_exchange(place: Place) -> None:
    async with place.client() as client:
        await client.send(AUTH % ("SCRAM-SHA-1", encoded("n,,n=juliet,r=abc")))
        assert (await client.receive()).tag == f"{{{ns.SASL}}}challenge"
        assert await failure_of(client, f"<abort xmlns='{ns.SASL}'/>") == "aborted"


async def test_login_in_clear_needs_encryption(place: Place) -> None:
    async with place.client(mode=Mode.CLEAR) as client:
        assert client.mechanisms == ()
        sent = AUTH % ("PLAIN", encoded(f"\0juliet\0{PASSWORDS['juliet']}"))
        assert await failure_of(client, sent) == "encryption-required"


async def test_plain_without_initial_response(place: Place) -> None:
    async with place.client() as client:
        await client.send(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'/>")
        assert (await client.receive()).tag == f"{{{ns.SASL}}}challenge"
        message = encoded(f"\0juliet\0{PASSWORDS['juliet']}")
        await client.send(f"<response xmlns='{ns.SASL}'>{message}</response>")
        assert (await client.receive()).tag == f"{{{ns.SASL}}}success"


async def test_login_pipelined_in_one_write(place: Place) -> None:
    """auth, new header, bind and ping without waiting: what Prosody accepts too."""
    async with place.client() as client:
        await client.send(
            (AUTH % ("PLAIN", encoded(f"\0juliet\0{PASSWORDS['juliet']}"))).encode()
            + words.stream_header(to=DOMAIN)
            + words.iq("set", id_="b", inside=f"<bind xmlns='{ns.BIND}'/>")
            + words.iq("get", id_="p", inside="<ping xmlns='urn:xmpp:ping'/>")
        )
        assert (await client.receive()).tag == f"{{{ns.SASL}}}success"
        client.expect_restart()
        await client.expect_stream()
        assert [(await client.receive()).get("id") for _ in range(2)] == ["b", "p"]


async def test_starttls_injection_is_refused(place: Place) -> None:
    async with place.client(mode=Mode.CLEAR) as client:
        await client.send(f"<starttls xmlns='{ns.TLS}'/><auth xmlns='{ns.SASL}' mechanism='PLAIN'/>")
        assert (await client.receive()).tag == f"{{{ns.TLS}}}failure"
        with pytest.raises(Disconnected):
            await client.receive()


async def test_starttls_twice_is_refused(place: Place) -> None:
    async with place.client() as client:
        await client.send(f"<starttls xmlns='{ns.TLS}'/>")
        assert (await client.receive()).tag == f"{{{ns.TLS}}}failure"


async def test_a_client_that_does_not_trust_us(place: Place, tmp_path: Path) -> None:
    stranger = Mint(tmp_path)
    for mode in (Mode.STARTTLS, Mode.DIRECT_TLS):
        with pytest.raises(TlsRefused, match="certificate verify failed"):
            await place.client(mode=mode, tls=trusting(stranger.ca_file)).connect()


async def test_a_client_of_tls_1_2(place: Place) -> None:
    context = trusting(place.trust.mint.ca_file, tls_version_max=ssl.TLSVersion.TLSv1_2)
    async with place.client(tls=context) as client:
        assert client.tls_version == "TLSv1.2"


@pytest.mark.parametrize(
    ("header", "condition"),
    [
        (words.stream_header(to="other.test"), "host-unknown"),
        (words.stream_header(), "improper-addressing"),
        (words.stream_header(to=DOMAIN).replace(b" version='1.0'>", b">"), "unsupported-version"),
        (words.stream_header(to=DOMAIN).replace(b" version='1.0'>", b" version='2.0'>"), "unsupported-version"),
        (words.stream_header(to=DOMAIN).replace(b"jabber:client", b"jabber:server"), "invalid-namespace"),
        (words.stream_header(to=DOMAIN).replace(b"etherx", b"aether"), "invalid-namespace"),
        (words.stream_header(to=DOMAIN) + b"</message>", "not-well-formed"),
        (words.stream_header(to=DOMAIN) + b"<message/>", "not-authorized"),
    ],
)
async def test_stream_errors_before_login(place: Place, header: bytes, condition: str) -> None:
    client = place.client(mode=Mode.CLEAR)
    try:
        await client.connect_only()
        await client.send(header)
        with pytest.raises(StreamFailed) as caught:
            await hear_the_end(client)
        assert caught.value.condition == condition
    finally:
        client.drop()


async def test_stanzas_before_bind_wait(place: Place) -> None:
    async with place.client() as client:
        await client.login("juliet", PASSWORDS["juliet"])
        with pytest.raises(StanzaFailed) as caught:
            await client.ping()
        assert (caught.value.condition, caught.value.kind) == ("not-allowed", "cancel")
        await client.bind()


async def test_a_resource_that_is_no_resource(place: Place) -> None:
    async with place.client() as client:
        await client.login("juliet", PASSWORDS["juliet"])
        with pytest.raises(StanzaFailed) as caught:
            await client.bind("x" * 1024)
        assert (caught.value.condition, caught.value.kind) == ("bad-request", "modify")


async def test_a_taken_resource_is_taken_over(place: Place) -> None:
    async with place.entered("juliet", "balcony") as old, place.entered("juliet", "balcony") as new:
        with pytest.raises(StreamFailed) as caught:
            await old.receive()
        assert caught.value.condition == "conflict"
        await new.ping()


async def test_a_taken_resource_is_refused(open_place: Open) -> None:
    place = await open_place(on_conflict="refuse")
    async with place.entered("juliet", "balcony"), place.client() as late:
        await late.login("juliet", PASSWORDS["juliet"])
        with pytest.raises(StanzaFailed) as caught:
            await late.bind("balcony")
        assert (caught.value.condition, caught.value.kind) == ("conflict", "cancel")
        assert await late.bind("garden") == "juliet@example.test/garden"


async def test_a_taken_resource_is_renamed(open_place: Open) -> None:
    place = await open_place(on_conflict="rename")
    async with place.entered("juliet", "balcony") as first, place.entered("juliet", "balcony") as second:
        assert first.jid == "juliet@example.test/balcony"
        assert second.jid is not None
        assert second.jid.startswith("juliet@example.test/balcony-")


async def test_no_password_in_an_exception(place: Place) -> None:
    async with place.client() as client:
        with pytest.raises(LoginFailed) as caught:
            await client.login("juliet", "canary-wrong", mechanism="PLAIN")
    assert "canary" not in repr(caught.value) + str(caught.value) + repr(client) + repr(place.server)
