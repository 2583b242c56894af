"""A fake server for every test here: TLS by a test CA, the sample cassette, a scripted client."""

import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.support.peer import DOMAIN, Trust, make_trust
from xproxy.capture.cassette import Cassette
from xproxy.capture.cassette_xml import parse_cassette
from xproxy.config.replay import ReplaySettings
from xproxy.peer.client import Client
from xproxy.peer.errors import Disconnected
from xproxy.replay.engine import Engine
from xproxy.replay.report import Report
from xproxy.replay.server import Listening, serve_cassette

SAMPLE = Path(__file__).parent.parent / "vectors" / "cassettes" / "v2.xmpp.xml"
PASSWORD = "canary-juliet"
QUICK = ReplaySettings(step_seconds=2, total_seconds=10, linger_seconds=0.1)


@pytest.fixture(scope="session")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    """A certificate for DOMAIN and who signed it."""
    return make_trust(tmp_path_factory.mktemp("replay-tls"))


@attrs.define
class Stage:
    """A fake server that runs, and its report when it is done."""

    listening: Listening
    trust: Trust
    report: Report | None = None
    clients: list[Client] = attrs.field(factory=list)

    def client(self, **options: Any) -> Client:
        """A client, not connected."""
        address = self.listening.address
        given = {"domain": DOMAIN, "tls": self.trust.client, "answers_pings": False, **options}
        self.clients.append(Client(host=address.host, port=address.port, **given))
        return self.clients[-1]

    @property
    def kinds(self) -> list[str]:
        """What failed."""
        assert self.report is not None
        return [failure.kind.value for failure in self.report.failures]


class Play:
    """Starts a fake server; when the block ends, its report is there."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    @contextlib.asynccontextmanager
    async def __call__(
        self,
        cassette: Cassette | str,
        *,
        settings: ReplaySettings = QUICK,
        passwords: dict[str, str] | None = None,
        on_played: Callable[[Engine], None] = lambda engine: None,
    ) -> AsyncIterator[Stage]:
        if isinstance(cassette, str):
            cassette = parse_cassette(cassette.encode(), "test.xmpp.xml")
        given = {account.name: PASSWORD for account in cassette.accounts} if passwords is None else passwords
        async with trio.open_nursery() as nursery:
            stage: Stage | None = None

            async def run(task_status: trio.TaskStatus[Listening]) -> None:
                serve = functools.partial(
                    serve_cassette, cassette, tls=self._trust.server, passwords=given, settings=settings
                )
                report = await serve(on_played=on_played, task_status=task_status)
                assert stage is not None
                stage.report = report

            stage = Stage(await nursery.start(run), self._trust)
            yield stage
        for client in stage.clients:
            with contextlib.suppress(Disconnected):
                client.drop()


@pytest.fixture
def play(trust: Trust) -> Play:
    """Start fake servers."""
    return Play(trust)


@pytest.fixture
def sample() -> str:
    """The sample cassette."""
    return SAMPLE.read_text()
