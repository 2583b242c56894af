"""Traps that only a real server sets: pipelined logins, deep stanzas from another user, stanzas it will not take."""

import base64

import pytest

from tests.support.accounts import DOMAIN, MODES, PASSWORDS
from tests.support.canary import Canary
from tests.support.mint import Mint
from tests.support.prosody import STANZA_BYTES_MAX, Prosody
from tests.support.proxy_process import ProxyProcess, action, actions, at, only
from tests.support.raw_peer import (
    AUTH_END,
    AUTH_START,
    CLIENT_HEADER,
    CLOSE,
    DECLARATION,
    PROCEED,
    STARTTLS,
    RawPeer,
    client_context,
    connect,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PING = b"<iq type='get' id='ping-1' to='xmpp.test'><ping xmlns='urn:xmpp:ping'/></iq>"
BODY = "canary-body: to the victim"


def payload(canary: Canary, user: str) -> bytes:
    """Return the PLAIN payload of an account."""
    made = base64.b64encode(b"\0" + user.encode() + b"\0" + PASSWORDS[user].encode())
    canary.register_payload(f"payload of {user}", made.decode())
    canary.register("a message body", BODY)
    return made


def bind(resource: str) -> bytes:
    """Return a bind request."""
    return (
        b"<iq type='set' id='bind-1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>%s</resource></bind></iq>"
        % resource.encode()
    )


def secured(port: int, mode: str, ca_file: object) -> RawPeer:
    """Connect and go over to TLS."""
    client = connect(port)
    if mode == "starttls":
        client.send(DECLARATION + CLIENT_HEADER)
        client.until(b"</stream:features>")
        client.send(STARTTLS)
        client.until(PROCEED)
    client.start_tls(client_context(ca_file), server_hostname=DOMAIN)  # type: ignore[arg-type]
    return client


def available(port: int, ca_file: object, user: str, payload: bytes) -> RawPeer:
    """Log in step by step, become available, and take the own presence back."""
    client = secured(port, "direct-tls", ca_file)
    for said, answered in (
        (CLIENT_HEADER, b"</stream:features>"),
        (AUTH_START + payload + AUTH_END, b"/>"),
        (CLIENT_HEADER, b"</stream:features>"),
        (bind(user), b"</iq>"),
        (b"<presence/>", b"<presence"),
        (PING, b"ping-1"),
    ):
        client.send(said)
        client.until(answered)
    return client


@pytest.mark.parametrize("mode", MODES)
def test_a_login_pipelined_into_one_write(
    prosody: Prosody, proxies: dict[str, ProxyProcess], mint: Mint, canary: Canary, mode: str
) -> None:
    """Header, auth, header, bind, ping in one write: Prosody takes it, so it must work through us, seen whole."""
    everything = CLIENT_HEADER + AUTH_START + payload(canary, "piper") + AUTH_END + CLIENT_HEADER + bind("piped") + PING
    proxy = proxies[mode]
    mark = proxy.mark()
    answers = []
    for port, ca_file in ((prosody.port(mode), mint.ca_file), (proxy.port, proxy.ca_file)):
        client = secured(port, mode, ca_file)
        client.send(everything)
        got = client.until(b"ping-1")
        answers.append([name in got for name in (b"<success", b"piper@xmpp.test/piped", b"ping-1")])
        client.close()
    assert answers == [[True, True, True]] * 2
    session = proxy.session(after=mark)
    assert at(only(session, "sasl-succeeded"), "xmpp.sasl.authcid") == "piper"
    assert at(only(session, "resource-bound"), "xmpp.jid") == "piper@xmpp.test/piped"
    assert "stream-violation" not in actions(session)
    assert "inspection-lost" not in actions(session)
    assert at(session[-1], "xproxy.from_client.stanzas") == 2


def test_a_deep_headline_from_another_user_neither_blinds_nor_ends_the_session(
    prosody: Prosody, proxies: dict[str, ProxyProcess], mint: Mint, canary: Canary
) -> None:
    """lxml stops at depth 256; the element is skipped and named, and what comes after it is logged as before."""
    proxy = proxies["direct-tls"]
    mark = proxy.mark()
    victim = available(proxy.port, proxy.ca_file, "victim", payload(canary, "victim"))
    mallory = available(prosody.direct_tls_port, mint.ca_file, "mallory", payload(canary, "mallory"))
    to = b"to='victim@xmpp.test/victim'"
    deep = b"<message type='headline' %s><x xmlns='urn:deep'>" % to + b"<x>" * 300 + b"</x>" * 300 + b"</x></message>"
    for _ in range(3):
        mallory.send(deep)
    mallory.send(b"<message %s id='after'><body>%s</body></message>" % (to, BODY.encode()))
    victim.until(BODY.encode())
    mallory.send(
        b"<message %s type='error' id='late'><error type='cancel'>"
        b"<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>" % to
    )
    victim.until(b"item-not-found")
    victim.send(PING.replace(b"ping-1", b"ping-2"))
    victim.until(b"ping-2")
    mallory.close()
    victim.send(b"</stream:stream>")
    victim.rest()
    victim.close()
    assert victim.received.count(b"urn:deep") == 3  # relayed as they came
    session = proxy.session(after=mark)
    lost = [record for record in session if action(record) == "inspection-lost"]
    assert [at(record, "xmpp.inspection.scope") for record in lost] == ["element"] * 3
    assert {at(record, "xmpp.inspection.policy") for record in lost} == {"relay"}
    error = only(session, "stanza-error")
    assert at(error, "xmpp.stanza.from") == "mallory@xmpp.test/mallory"
    assert at(session[-1], "event.reason") == "stream-closed"


@pytest.mark.parametrize("mode", MODES)
def test_a_stanza_the_server_will_not_take_ends_as_it_does_directly(
    prosody: Prosody, proxies: dict[str, ProxyProcess], mint: Mint, canary: Canary, mode: str
) -> None:
    """Prosody's own limit: its stream error crosses, and the record says whose it is."""
    proxy = proxies[mode]
    mark = proxy.mark()
    huge = b"<message to='nobody@xmpp.test'><body>" + b"x" * (STANZA_BYTES_MAX + 8_192) + b"</body></message>"
    ends = []
    for port, ca_file in ((prosody.port(mode), mint.ca_file), (proxy.port, proxy.ca_file)):
        client = secured(port, mode, ca_file)
        for said, answered in (
            (CLIENT_HEADER, b"</stream:features>"),
            (AUTH_START + payload(canary, "piper") + AUTH_END, b"/>"),
            (CLIENT_HEADER, b"</stream:features>"),
            (bind("huge"), b"</iq>"),
        ):
            client.send(said)
            client.until(answered)
        client.send(huge)
        ends.append(client.until(CLOSE))
        client.close()
    assert [b"policy-violation" in end for end in ends] == [True, True]
    session = proxy.session(after=mark)
    error = only(session, "stream-error")
    assert at(error, "xmpp.sent_by") == "server"
    assert at(error, "error.code") == "policy-violation"


@pytest.mark.parametrize("apart", [False, True], ids=["one-write", "two-writes"])
def test_a_closing_tag_said_twice(
    prosody: Prosody, proxies: dict[str, ProxyProcess], mint: Mint, canary: Canary, apart: bool
) -> None:
    """As slixmpp does when an application disconnects after a failed login: the answer comes all the same."""
    proxy = proxies["direct-tls"]
    mark = proxy.mark()
    ends = []
    for port, ca_file in ((prosody.direct_tls_port, mint.ca_file), (proxy.port, proxy.ca_file)):
        client = available(port, ca_file, "piper", payload(canary, "piper"))
        for said in (CLOSE, CLOSE) if apart else (CLOSE + CLOSE,):
            client.send(said)
        ends.append(client.rest().endswith(CLOSE))
        client.close()
    assert ends == [True, True]
    session = proxy.session(after=mark)
    assert at(session[-1], "event.reason") == "stream-closed"
    assert "inspection-lost" not in actions(session)


def test_a_host_the_server_does_not_serve(proxies: dict[str, ProxyProcess]) -> None:
    proxy = proxies["starttls"]
    mark = proxy.mark()
    client = connect(proxy.port)
    client.send(CLIENT_HEADER.replace(b"xmpp.test", b"else.test"))
    assert b"host-unknown" in client.until(CLOSE)
    client.close()
    session = proxy.session(after=mark)
    assert at(only(session, "stream-error"), "error.code") == "host-unknown"
    assert at(session[-1], "event.reason") == "stream-error"


@pytest.mark.parametrize("opening", [b"<![CDATA[", b"<!-- ", b"<?x "])
def test_a_session_cannot_hide_in_what_prosody_forgets(
    proxies: dict[str, ProxyProcess], canary: Canary, opening: bytes
) -> None:
    """Prosody drops its parser at success and with it what stood open: the new stream is none inside a comment."""
    proxy = proxies["direct-tls"]
    mark = proxy.mark()
    client = secured(proxy.port, "direct-tls", proxy.ca_file)
    client.send(CLIENT_HEADER)
    client.until(b"</stream:features>")
    client.send(AUTH_START + payload(canary, "piper") + AUTH_END + opening)
    client.until(b"/>")
    client.send(CLIENT_HEADER + bind("hidden"))
    assert b"hidden" not in client.rest()
    session = proxy.session(after=mark)
    assert at(only(session, "inspection-lost"), "xmpp.sent_by") == "client"
    assert at(session[-1], "event.reason") == "inspection-lost"
