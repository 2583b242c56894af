"""A peer server that runs, and clients for it."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs

from tests.support.mint import Mint
from xproxy.config.address import HostPort
from xproxy.peer.client import Client, trusting
from xproxy.peer.server import Server

DOMAIN = "example.test"
PASSWORDS = {"juliet": "canary-juliet", "romeo": "canary-romeo"}


@attrs.frozen(kw_only=True)
class Trust:
    """Both ends' TLS contexts."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    mint: Mint


def make_trust(directory: Path) -> Trust:
    """Mint a certificate for DOMAIN, into ``directory``."""
    mint = Mint(directory)
    leaf = mint.leaf(DOMAIN)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(leaf.certificate, leaf.key)
    return Trust(server=server, client=trusting(mint.ca_file), mint=mint)


@attrs.frozen(kw_only=True)
class Place:
    """A server that runs, and how to reach it."""

    server: Server
    address: HostPort
    trust: Trust

    def client(self, **options: Any) -> Client:
        """A client for the server, not connected."""
        given = {"domain": DOMAIN, "tls": self.trust.client, **options}
        return Client(host=self.address.host, port=self.address.port, **given)

    @contextlib.asynccontextmanager
    async def entered(self, user: str, resource: str = "test", **options: Any) -> AsyncIterator[Client]:
        """A client that is logged in and bound."""
        async with self.client(**options) as client:
            await client.enter(user, PASSWORDS[user], resource)
            yield client
