"""Byte for byte: what one leg received is what the other sent, whatever is sent and however it is cut."""

import base64
import contextlib
import random
import ssl
import threading
from collections.abc import Callable, Iterator

import attrs
import pytest

from tests.support.accounts import DOMAIN
from tests.support.canary import Canary
from tests.support.mint import Mint
from tests.support.proxy_process import ProxyProcess, action, actions, at, only, running_xproxy
from tests.support.raw_peer import (
    AUTH_END,
    AUTH_START,
    BIND,
    BIND_FEATURES,
    BOUND,
    CLIENT_HEADER,
    CLOSE,
    DECLARATION,
    PROCEED,
    SASL_FEATURES,
    SERVER_HEADER,
    STARTTLS,
    STARTTLS_FEATURES,
    SUCCESS,
    RawPeer,
    client_context,
    connect,
    greet,
    log_in,
    scripted_server,
    serve_login,
    server_context,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PASSWORD = "canary-password-of-raw"
PAYLOAD = base64.b64encode(b"\0raw\0" + PASSWORD.encode())
BODY = "canary-body: raw"
StartProxy = Callable[..., ProxyProcess]


@pytest.fixture(autouse=True)
def _canaries(canary: Canary) -> None:
    canary.register("the raw peer's password", PASSWORD)
    canary.register_payload("the raw peer's payload", PAYLOAD.decode())
    canary.register("the raw peer's message body", BODY)


@pytest.fixture(scope="module")
def server_tls(mint: Mint) -> ssl.SSLContext:
    return server_context(mint.leaf(DOMAIN, label="raw-server"))


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut ``data`` at random places, short pieces more often than long ones."""
    pieces = []
    while data:
        length = min(len(data), rng.choice((1, 1, 2, 3, 7, 20, 200, 5_000)))
        pieces.append(data[:length])
        data = data[length:]
    return pieces


# Each line: who speaks, what. Odd but lawful spelling: nothing of it may be normalised on the way.
CLEAR = [
    ("client", b"<?xml  version = \"1.0\"  encoding='utf-8' ?>\n"),
    ("client", CLIENT_HEADER.replace(b" version", b"\n\t  version")),
    ("server", DECLARATION + b"\n" + SERVER_HEADER),
    ("server", STARTTLS_FEATURES.replace(b"<required/>", b"<required ></required>")),
    ("client", STARTTLS.replace(b"/>", b"  ></starttls>")),
    ("server", PROCEED.replace(b"'", b'"')),
]
ENCRYPTED = [
    ("client", CLIENT_HEADER.replace(b"'", b'"')),
    ("server", SERVER_HEADER),
    ("server", SASL_FEATURES),
    ("client", AUTH_START + PAYLOAD + AUTH_END),
    ("server", SUCCESS),
    ("client", DECLARATION + CLIENT_HEADER),
    ("server", DECLARATION + SERVER_HEADER + BIND_FEATURES),
    ("client", BIND),
    ("server", BOUND),
    ("client", b"\n  \n <message to='a@xmpp.test'  ><body>canary-body: raw &#x20;&amp;\xc3\xa4<![CDATA[<x>]]></body>"
               b"</message>"),
    ("server", b"<presence\n/><iq type='get' id='1'><q xmlns='urn:x' xmlns:y='urn:y'"
               b" y:z='\xf0\x9f\x98\x80&gt;'/></iq> \r\n"),
    ("client", b"<iq type=\"error\" id='1'><error type='cancel'><undefined-condition"
               b" xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"),
    ("server", b"<message><body>" + b"canary-body: raw" * 2_000 + b"</body></message>"),
    ("client", b"  " + CLOSE),
    ("server", CLOSE + b"\n"),
]  # fmt: skip


def speak(peer: RawPeer, me: str, lines: list[tuple[str, bytes]], rng: random.Random) -> None:
    """Send my lines cut at random, and demand the other side's lines byte for byte."""
    for who, data in lines:
        if who == me:
            for piece in cut(data, rng):
                peer.send(piece)
        else:
            assert peer.exactly(len(data)) == data


@pytest.mark.parametrize("seed", range(4))
def test_every_phase_crosses_unchanged_however_it_is_cut(
    start_proxy: StartProxy, server_tls: ssl.SSLContext, seed: int
) -> None:
    def script(peer: RawPeer) -> None:
        rng = random.Random(seed + 1_000)
        speak(peer, "server", CLEAR, rng)
        peer.start_tls(server_tls, server=True)
        speak(peer, "server", ENCRYPTED, rng)
        assert peer.rest() == b""

    with scripted_server(script) as server:
        proxy = start_proxy(server.port)
        rng = random.Random(seed)
        client = connect(proxy.port)
        speak(client, "client", CLEAR, rng)
        client.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
        speak(client, "client", ENCRYPTED, rng)
        client.close()
        server.join()
    session = proxy.session()
    only(session, "session-established")
    only(session, "stanza-error")
    assert at(only(session, "connection-closed"), "event.reason") == "stream-closed"


def logged_in(
    start_proxy: StartProxy,
    server_tls: ssl.SSLContext,
    play_server: Callable[[RawPeer], None],
    play_client: Callable[[RawPeer], None],
) -> tuple[ProxyProcess, list[dict[str, object]]]:
    """Log a raw client in at a raw server through a proxy, let both play on, and return the session's records."""

    def script(peer: RawPeer) -> None:
        serve_login(peer, server_tls, direct=True)
        play_server(peer)

    with scripted_server(script) as server:
        proxy = start_proxy(server.port)
        client = connect(proxy.port)
        log_in(client, client_context(proxy.ca_file), PAYLOAD, direct=True)
        play_client(client)
        client.close()
        server.join()
    return proxy, proxy.session()


def test_ten_thousand_pipelined_stanzas(start_proxy: StartProxy, server_tls: ssl.SSLContext) -> None:
    """Both ways at once, in writes of every size; each tenth is an error and must be logged, once, in order."""

    def stanza(n: int) -> bytes:
        if n % 10:
            return b"<message id='m%d' to='x@xmpp.test'><body>canary-body: raw %d</body></message>" % (n, n)
        return (
            b"<message id='m%d' type='error' from='e%d@xmpp.test'><error type='cancel'>"
            b"<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>" % (n, n)
        )

    stream = b"".join(stanza(n) for n in range(10_000))

    def play(peer: RawPeer) -> None:
        assert peer.exchange(cut_large(stream), len(stream)) == stream

    def play_server(peer: RawPeer) -> None:
        play(peer)
        peer.send(CLOSE)
        peer.rest()

    def play_client(peer: RawPeer) -> None:
        play(peer)
        assert peer.until(CLOSE) == CLOSE

    _, session = logged_in(start_proxy, server_tls, play_server, play_client)
    for side in ("client", "server"):
        senders = [
            at(r, "xmpp.stanza.from") for r in session if action(r) == "stanza-error" and at(r, "xmpp.sent_by") == side
        ]
        assert senders == [f"e{n}@xmpp.test" for n in range(0, 10_000, 10)]
    closed = only(session, "connection-closed")
    # From the client also the bind request; from the server its result.
    assert at(closed, "xproxy.from_client.stanzas") == at(closed, "xproxy.from_server.stanzas") == 10_001
    assert at(closed, "xproxy.from_client.errors") == at(closed, "xproxy.from_server.errors") == 1_000


def cut_large(data: bytes) -> list[bytes]:
    """Cut into pieces of 1 to 60 000 octets."""
    rng = random.Random(7)
    pieces, start = [], 0
    while start < len(data):
        length = rng.choice((1, 50, 1_000, 16_384, 60_000))
        pieces.append(data[start : start + length])
        start += length
    return pieces


def test_a_stanza_of_900_kib(start_proxy: StartProxy, server_tls: ssl.SSLContext) -> None:
    body = b"canary-body: raw" * (900 * 1024 // 16)
    stanza = b"<message><body>" + body + b"</body></message>"
    after = b"<presence/>"

    def play_server(peer: RawPeer) -> None:
        assert peer.exactly(len(stanza)) == stanza
        peer.send(stanza + after)
        peer.rest()

    def play_client(peer: RawPeer) -> None:
        peer.send(stanza)
        assert peer.exactly(len(stanza + after)) == stanza + after

    _, session = logged_in(start_proxy, server_tls, play_server, play_client)
    assert "inspection-lost" not in actions(session)
    # Twice the size at which Prosody and ejabberd give up, so it is announced, once a direction.
    limits = [at(record, "xproxy.limit.name") for record in session if action(record) == "limit-reached"]
    assert limits == ["stream.stanza_bytes_warn"] * 2


def test_a_stanza_above_the_limit_closes_the_session(start_proxy: StartProxy, server_tls: ssl.SSLContext) -> None:
    got: list[int] = []

    def play_server(peer: RawPeer) -> None:
        got.append(len(peer.rest()))

    def play_client(peer: RawPeer) -> None:
        with contextlib.suppress(ssl.SSLError, ConnectionError):  # the sockets may take it all before it is refused
            peer.send(b"<message><body>" + b"canary-body: raw" * 200_000)
        peer.rest()

    _, session = logged_in(start_proxy, server_tls, play_server, play_client)
    names = [at(record, "xproxy.limit.name") for record in session if action(record) == "limit-reached"]
    assert "stream.stanza_bytes_max" in names
    assert at(session[-1], "event.reason") == "limit-reached"
    assert got[0] <= 1_048_576


def test_a_stanza_split_at_every_byte(start_proxy: StartProxy, server_tls: ssl.SSLContext) -> None:
    """One connection; the stanza is sent once for each place it can be cut at, each part in its own TLS record."""
    stanza = "<message to='x@xmpp.test'><body>canary-body: raw ä€😀</body><!-- -->\n</message>".replace(
        "<!-- -->", ""
    ).encode()
    count = len(stanza) - 1

    def play_server(peer: RawPeer) -> None:
        for _ in range(count):
            got = peer.exactly(len(stanza))
            assert got == stanza
            peer.send(got[:1])  # the next one only when this one is through, so that each cut is seen as a cut
            peer.send(got[1:])

    def play_client(peer: RawPeer) -> None:
        for place in range(1, len(stanza)):
            peer.send(stanza[:place])
            peer.send(stanza[place:])
            assert peer.exactly(len(stanza)) == stanza

    _, session = logged_in(start_proxy, server_tls, play_server, play_client)
    closed = only(session, "connection-closed")
    assert at(closed, "xproxy.from_client.stanzas") == count + 1
    assert at(closed, "xproxy.from_server.stanzas") == count + 1


@pytest.mark.parametrize("slow", ["client", "server"])
def test_a_slow_reader_does_not_fill_our_memory(start_proxy: StartProxy, server_tls: ssl.SSLContext, slow: str) -> None:
    """64 MB for a peer that does not read: the sender is stopped, our memory is not their buffer, nothing is lost."""
    stanza = b"<message><body>" + b"canary-body: raw" * 4_000 + b"</body></message>"
    count = 1_000
    grown: list[int] = []
    proxies: list[ProxyProcess] = []

    def start(*args: object, **options: object) -> ProxyProcess:
        proxies.append(start_proxy(*args, **options))
        return proxies[-1]

    def play(peer: RawPeer, reader: bool) -> None:
        if not reader:
            for _ in range(count):
                peer.send(stanza)
            assert peer.exactly(2) == b"ok"
            return
        proxy = proxies[0]
        before = proxy.resident_bytes()
        settled = threading.Event()
        for _ in range(10):  # until nothing moves any more: the sender stands, the proxy has what it will have
            settled.wait(0.05)
        grown.append(proxy.resident_bytes() - before)
        for _ in range(count):
            assert peer.exactly(len(stanza)) == stanza
        peer.send(b"ok")

    def play_server(peer: RawPeer) -> None:
        play(peer, slow == "server")
        peer.rest()

    logged_in(start, server_tls, play_server, lambda peer: play(peer, slow == "client"))
    assert grown[0] < 16 * 2**20


@pytest.mark.parametrize("sender", ["client", "server"])
def test_two_hundred_thousand_comments_between_stanzas(
    start_proxy: StartProxy, server_tls: ssl.SSLContext, sender: str
) -> None:
    """Recorded once; inspection goes on; memory does not grow with them."""
    comments = b"<!--x-->" * 200_000
    error = (
        b"<message type='error' from='late@xmpp.test'><error type='cancel'>"
        b"<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    )
    stream = b"<presence/>" + comments + error

    def play(peer: RawPeer, sends: bool) -> None:
        if sends:
            peer.send(stream)
            assert peer.exactly(2) == b"  "
        else:
            assert peer.exactly(len(stream)) == stream
            peer.send(b"  ")

    def play_server(peer: RawPeer) -> None:
        play(peer, sender == "server")
        peer.rest()

    proxy, session = logged_in(start_proxy, server_tls, play_server, lambda peer: play(peer, sender == "client"))
    kinds = [at(record, "xmpp.violation.kind") for record in session if action(record) == "stream-violation"]
    assert kinds == ["comment"]
    assert at(only(session, "stanza-error"), "xmpp.stanza.from") == "late@xmpp.test"
    assert proxy.log_file.stat().st_size < 100_000


@pytest.mark.parametrize("in_clear", [True, False], ids=["clear", "tls"])
def test_half_close_with_data_pending(start_proxy: StartProxy, server_tls: ssl.SSLContext, in_clear: bool) -> None:
    """A client that says goodbye and then FIN (with TLS: close_notify) still gets all that the server has to say.

    A bare FIN on a TLS leg is another matter: OpenSSL 3 takes it for an attack and will not write on that leg again.
    """
    half_closed = threading.Event()
    pending = b"<message><body>" + b"canary-body: raw" * 40_000 + b"</body></message>"
    error = b"<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"

    def play_server(peer: RawPeer) -> None:
        peer.until(CLOSE)
        assert half_closed.wait(20)
        peer.send(pending + CLOSE if not in_clear else error + CLOSE)

    def play_client(peer: RawPeer) -> None:
        peer.send(CLOSE)
        peer.half_close()
        half_closed.set()
        assert peer.until(CLOSE) == (pending + CLOSE if not in_clear else error + CLOSE)

    if not in_clear:
        _, session = logged_in(start_proxy, server_tls, play_server, play_client)
        assert at(session[-1], "event.reason") == "stream-closed"
        return

    def script(peer: RawPeer) -> None:
        greet(peer, STARTTLS_FEATURES)
        play_server(peer)

    with scripted_server(script) as server:
        proxy = start_proxy(server.port)
        client = connect(proxy.port)
        client.send(DECLARATION + CLIENT_HEADER)
        client.until(b"</stream:features>")
        play_client(client)
        client.close()
        session = proxy.session()
    assert at(only(session, "stream-error"), "error.code") == "host-unknown"


def test_a_client_that_resets_while_a_send_to_it_waits(start_proxy: StartProxy, server_tls: ssl.SSLContext) -> None:
    stanza = b"<message><body>" + b"canary-body: raw" * 4_000 + b"</body></message>"
    flowing = threading.Event()

    def play_server(peer: RawPeer) -> None:
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            for n in range(2_000):
                peer.send(stanza)
                if n == 20:
                    flowing.set()
            raise AssertionError("128 MB went to a client that reads nothing")

    def play_client(peer: RawPeer) -> None:
        assert flowing.wait(20)
        peer.reset()

    _, session = logged_in(start_proxy, server_tls, play_server, play_client)
    closed = session[-1]
    assert at(closed, "event.reason") == "client-ended"
    assert at(closed, "xproxy.from_client.end") == "reset"


PLACES = range(len(CLEAR) + len(ENCRYPTED))
ENDINGS = [(who, how, line) for who in ("client", "server") for how in ("fin", "reset") for line in PLACES]


class Leaving(Exception):  # noqa: N818 - nothing is wrong
    """A peer leaves its dialogue early."""


def converse(peer: RawPeer, me: str, tls: Callable[[RawPeer], None], leave: tuple[str, str, int] | None) -> None:
    """Play my part; if it is me who leaves, leave before that line."""
    rng = random.Random(3)
    lines = CLEAR + ENCRYPTED
    for number, line in enumerate(lines):
        if number == len(CLEAR):
            tls(peer)
        if leave is not None and (leave[0], leave[2]) == (me, number):
            if leave[1] == "fin":
                peer.close()
            else:
                peer.reset()
            raise Leaving
        speak(peer, me, [line], rng)
    peer.rest()


@attrs.frozen
class EndingStage:
    """One proxy and one server for all endings."""

    proxy: ProxyProcess
    plans: list[tuple[str, str, int]]  # the last one is played


@pytest.fixture(scope="module")
def ending_stage(
    tmp_path_factory: pytest.TempPathFactory, mint: Mint, canary: Canary, server_tls: ssl.SSLContext
) -> Iterator[EndingStage]:
    plans: list[tuple[str, str, int]] = []

    def script(peer: RawPeer) -> None:
        with contextlib.suppress(Leaving, AssertionError, OSError):  # one of the two leaves: that is the point
            converse(peer, "server", lambda peer: peer.start_tls(server_tls, server=True), plans[-1])

    with (
        scripted_server(script) as server,
        running_xproxy(
            tmp_path_factory.mktemp("endings"),
            canary=canary,
            upstream=f"127.0.0.1:{server.port}",
            upstream_ca=mint.ca_file,
            domain=DOMAIN,
        ) as proxy,
    ):
        yield EndingStage(proxy, plans)


@pytest.mark.parametrize(("who", "how", "line"), ENDINGS)
def test_a_peer_that_leaves_at_any_point_ends_the_session(
    ending_stage: EndingStage, who: str, how: str, line: int
) -> None:
    """Before each line of the dialogue, by FIN and by RST: both legs end, for the right cause, without a traceback."""
    proxy = ending_stage.proxy
    plan = (who, how, line)
    ending_stage.plans.append(plan)
    mark = proxy.mark()
    client = connect(proxy.port)
    with contextlib.suppress(Leaving, AssertionError, OSError):
        context = client_context(proxy.ca_file)
        converse(client, "client", lambda peer: peer.start_tls(context, server_hostname=DOMAIN), plan)
    if who == "server":
        client.rest()
        client.close()
    session = proxy.session(after=mark)
    closed = session[-1]
    assert action(closed) == "connection-closed"
    said_goodbye = line == len(PLACES) - 1  # only the server's closing tag is missing
    expected = {f"{who}-ended", *(["stream-closed", "client-ended"] if said_goodbye else [])}
    if (who, line) == ("client", len(CLEAR) - 1):  # not read since <starttls/>: missed when its hello is
        expected = {"tls-failed"}
    if plan == ("server", "reset", 0):  # perhaps before the proxy knew that it was connected
        expected.add("upstream-failed")
    assert closed["event"]["reason"] in expected
    if not said_goodbye and closed["event"]["reason"] != "upstream-failed":
        assert at(closed, "xproxy.initiator") == who
