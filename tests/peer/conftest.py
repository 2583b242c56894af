"""A running peer server for every test here."""

from typing import Any, Protocol

import pytest
import trio

from tests.support.peer import DOMAIN, PASSWORDS, Place, Trust, make_trust
from xproxy.config.address import HostPort
from xproxy.peer.server import Server


@pytest.fixture(scope="session")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    """A certificate for DOMAIN and who signed it."""
    return make_trust(tmp_path_factory.mktemp("peer-tls"))


class Open(Protocol):
    """Starts a server with these options."""

    async def __call__(self, **options: Any) -> Place: ...


@pytest.fixture
def open_place(trust: Trust, nursery: trio.Nursery) -> Open:
    """Start servers that end with the test."""

    async def start(**options: Any) -> Place:
        given = {"domain": DOMAIN, "passwords": PASSWORDS, "tls": trust.server, **options}
        server = Server(**given)
        address: HostPort = await nursery.start(server.serve)
        return Place(server=server, address=address, trust=trust)

    return start


@pytest.fixture
async def place(open_place: Open) -> Place:
    """A server with the defaults."""
    return await open_place()
