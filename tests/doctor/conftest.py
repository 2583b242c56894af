"""A server that says what it is told, and a name server, for every test here."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.support.crooked import Crooked
from tests.support.examining import Found, examined
from tests.support.nameserver import NameServer
from tests.support.peer import DOMAIN, Trust, make_trust
from xproxy.config.address import HostPort

Examine = Callable[..., Awaitable[Found]]


@pytest.fixture(scope="session")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    """A certificate for DOMAIN and who signed it."""
    return make_trust(tmp_path_factory.mktemp("doctor-tls"))


@pytest.fixture
async def nameserver(nursery: trio.Nursery) -> HostPort:
    """A name server that knows no name."""
    address: HostPort = await nursery.start(NameServer().serve)
    return address


@pytest.fixture
def examine(nursery: trio.Nursery, trust: Trust, nameserver: HostPort) -> Examine:
    """Start a crooked server that says this, and examine it; ``patient``: more about the patient."""

    async def run(*, patient: dict[str, Any] | None = None, step: float = 10.0, **says: Any) -> Found:
        port: int = await nursery.start(Crooked(tls=trust.server, **says).serve)
        more = {"domain": DOMAIN, "nameserver": nameserver, **(patient or {})}
        return await examined(port, ca_file=trust.mint.ca_file, step_seconds_max=step, **more)

    return run
