"""What strangers may cost, and where they may hide: each with its record, against the running proxy."""

import base64
import ssl
from collections.abc import Callable

import pytest

from tests.support.accounts import DOMAIN, PASSWORDS
from tests.support.canary import Canary
from tests.support.mint import Mint
from tests.support.proxy_process import ProxyProcess, action, actions, at, only
from tests.support.raw_peer import (
    AUTH_END,
    AUTH_START,
    CLIENT_HEADER,
    DECLARATION,
    SASL_FEATURES,
    STARTTLS_FEATURES,
    RawPeer,
    client_context,
    connect,
    greet,
    scripted_server,
    server_context,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

StartProxy = Callable[..., ProxyProcess]


def opened(proxy: ProxyProcess) -> RawPeer:
    """Connect and get the features."""
    client = connect(proxy.port)
    client.send(DECLARATION + CLIENT_HEADER)
    client.until(b"</stream:features>")
    return client


def wait_for_the_end(peer: RawPeer) -> None:
    """As a server: offer STARTTLS and look on."""
    greet(peer, STARTTLS_FEATURES)
    peer.rest()


@pytest.mark.parametrize(
    "data",
    [
        b"".join(b"<n%d/>" % n for n in range(500)),
        b"<x " + b" ".join(b"a%d=''" % n for n in range(500)) + b"/>",
        b"<x>" + b"".join(b"<n%d>" % n for n in range(150)),
    ],
    ids=["elements", "attributes", "nested"],
)
def test_a_stranger_may_teach_us_few_names(start_proxy: StartProxy, data: bytes) -> None:
    """Names live as long as the process: the budget of a connection that has not logged in is small."""
    with scripted_server(wait_for_the_end) as server:
        proxy = start_proxy(server.port)
        client = opened(proxy)
        client.send(data)
        client.rest()
        client.close()
        session = proxy.session()
    limit = only(session, "limit-reached")
    assert at(limit, "xproxy.limit.name") == "stream.names_before_login_max"
    assert at(session[-1], "event.reason") == "limit-reached"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]>" + CLIENT_HEADER, "dtd"),
        (b"\xff\xfe<\0", None),
        (DECLARATION.replace(b"'?>", b"' encoding='latin-1'?>") + CLIENT_HEADER, "encoding"),
    ],
    ids=["doctype", "utf-16", "latin-1"],
)
def test_a_stream_that_is_none_is_closed_and_named(start_proxy: StartProxy, data: bytes, kind: str | None) -> None:
    """Restricted XML (RFC 6120 section 11.1): not one octet of it is in the log."""
    with scripted_server(lambda peer: peer.rest() and None) as server:
        proxy = start_proxy(server.port)
        client = connect(proxy.port)
        client.send(data)
        client.rest()
        client.close()
        session = proxy.session()
    if kind is None:
        assert "unsupported-transport" in actions(session) or "stream-violation" in actions(session)
        return
    assert kind in [at(record, "xmpp.violation.kind") for record in session if action(record) == "stream-violation"]
    assert at(session[-1], "event.reason") == "inspection-lost"


def test_a_payload_does_not_hide_behind_a_comment(start_proxy: StartProxy, mint: Mint, canary: Canary) -> None:
    """The user is known all the same, and the trick is named."""
    payload = base64.b64encode(b"\0victim\0" + PASSWORDS["victim"].encode())
    canary.register_payload("the victim's payload", payload.decode())
    context = server_context(mint.leaf(DOMAIN, label="comment"))

    def script(peer: RawPeer) -> None:
        peer.start_tls(context, server=True)
        greet(peer, SASL_FEATURES)
        peer.until(AUTH_END)
        peer.send(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>")
        peer.rest()

    with scripted_server(script) as server:
        proxy = start_proxy(server.port)
        client = connect(proxy.port)
        client.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
        client.send(CLIENT_HEADER)
        client.until(b"</stream:features>")
        client.send(AUTH_START + payload[:4] + b"<!-- hidden -->" + payload[4:] + AUTH_END)
        client.until(b"</failure>")
        client.close()
        session = proxy.session()
    assert at(only(session, "sasl-started"), "xmpp.sasl.authcid") == "victim"
    assert at(only(session, "sasl-failed"), "xmpp.sasl.authcid") == "victim"
    assert {"sasl-malformed", "stream-violation"} & set(actions(session))


def test_a_client_hello_of_49_kb_octet_by_octet(proxies: dict[str, ProxyProcess]) -> None:
    """A lawful one: it costs a few wake-ups, and the handshake goes through."""
    proxy = proxies["direct-tls"]
    mark = proxy.mark()
    context = client_context(proxy.ca_file)
    context.set_alpn_protocols([f"x-{n:0>200}" for n in range(240)] + ["xmpp-client"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=DOMAIN)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    assert len(hello) > 48_000
    client = connect(proxy.port)
    for octet in hello:
        client.send(bytes((octet,)))
    while True:
        seen = len(client.received)
        assert client.more()
        incoming.write(bytes(client.received[seen:]))
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            pass
    client.send(outgoing.read())
    proxy.wait_record("tls-established", after=mark, where=lambda record: at(record, "xproxy.leg") == "client")
    client.close()
    session = proxy.session(after=mark)
    assert at(only(session, "tls-established", xproxy__leg="client"), "tls.version") == "1.3"
