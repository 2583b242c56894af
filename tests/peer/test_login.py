"""Server and client log in to each other."""

import pytest

from tests.support.peer import PASSWORDS, Place
from xproxy.peer.client import Mode


@pytest.mark.parametrize("mode", [Mode.STARTTLS, Mode.DIRECT_TLS])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"])
async def test_login(place: Place, mode: Mode, mechanism: str) -> None:
    async with place.client(mode=mode) as client:
        assert mechanism in client.mechanisms
        assert client.tls_version == "TLSv1.3"
        await client.login("juliet", PASSWORDS["juliet"], mechanism=mechanism)
        assert await client.bind("balcony") == "juliet@example.test/balcony"
        await client.ping()
        await client.close()
    assert not place.server.sessions
