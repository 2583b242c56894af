"""A server that signs its offer (XEP-0474) and its TLS version (XEP-0515) behind somebody who changes them.

Debian's servers sign neither, so the server is a script; what it signs is as the XEPs say.
"""

import base64
from collections.abc import Callable

import pytest

from tests.support.accounts import DOMAIN
from tests.support.canary import Canary
from tests.support.mint import Mint
from tests.support.proxy_process import ProxyProcess, actions, at, only
from tests.support.raw_peer import (
    CLIENT_HEADER,
    CLOSE,
    RawPeer,
    client_context,
    connect,
    greet,
    scripted_server,
    server_context,
)
from xproxy.xmpp.sasl.downgrade import expected_h

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MECHANISM = "SCRAM-SHA-256"
SASL = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
ARRIVED = (MECHANISM, "PLAIN")  # what is left of the offer where it reaches us
NONCE = "canary-nonce-of-the-signed-offer"


@pytest.mark.parametrize(
    ("offered", "tls_version", "kinds"),
    [
        (ARRIVED, "0304", []),
        (("SCRAM-SHA-256-PLUS", *ARRIVED), "0304", ["offer"]),
        (ARRIVED, "0303", ["tls-version"]),
    ],
)
def test_what_is_not_as_it_was_signed_is_an_alarm(
    start_proxy: Callable[..., ProxyProcess],
    mint: Mint,
    canary: Canary,
    offered: tuple[str, ...],
    tls_version: str,
    kinds: list[str],
) -> None:
    canary.register("a SCRAM nonce", NONCE)
    features = "".join(f"<mechanism>{name}</mechanism>" for name in ARRIVED)
    first = f"r={NONCE}2,s=c2FsdA==,i=4096,h={expected_h(offered, None, 'SHA-256')},t={tls_version}"

    def server_script(peer: RawPeer) -> None:
        peer.start_tls(server_context(mint.leaf(DOMAIN, label="signed")), server=True)
        greet(peer, f"<stream:features><mechanisms {SASL}>{features}</mechanisms></stream:features>".encode())
        peer.until(b"</auth>")
        peer.send(f"<challenge {SASL}>{base64.b64encode(first.encode()).decode()}</challenge>".encode())
        peer.until(CLOSE)
        peer.send(CLOSE)

    with scripted_server(server_script) as server:
        proxy = start_proxy(server.port)
        peer = connect(proxy.port)
        peer.start_tls(client_context(proxy.ca_file), server_hostname=DOMAIN)
        peer.send(CLIENT_HEADER)
        peer.until(b"</stream:features>")
        initial = base64.b64encode(f"n,,n=alice,r={NONCE}".encode()).decode()
        peer.send(f"<auth {SASL} mechanism='{MECHANISM}'>{initial}</auth>".encode())
        peer.until(b"</challenge>")
        peer.send(CLOSE)
        peer.until(CLOSE)
        peer.close()
        session = proxy.session()
    found = [record for record in session if record["event"]["action"] == "upstream-tampering"]
    assert [at(record, "xproxy.tampering.kind") for record in found] == kinds, actions(session)
    assert all(record["log"]["level"] == "critical" for record in found)
    assert at(only(session, "sasl-started"), "xmpp.sasl.mechanism") == MECHANISM
