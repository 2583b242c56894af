"""The demo: an embedded XMPP server, the real proxy before it, and two clients that go through it.

Everything is what ``xproxy run`` would run: its own certificate authority (the clients trust STATE/ca.pem), an upstream
whose certificate is verified (the server's own authority), records in a file. Only the peers are ours. What is shown
live is read back from that file, so what the demo shows is what the log holds.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import orjson
import trio

from xproxy import app
from xproxy.config.address import HostPort
from xproxy.config.listen import ListenAddress, ListenSettings
from xproxy.config.log import LogSettings
from xproxy.config.settings import Settings
from xproxy.config.state import StateSettings
from xproxy.config.upstream import UpstreamSettings
from xproxy.errors import EnvironmentProblem, FileProblem
from xproxy.peer.client import Client, Mode, trusting
from xproxy.peer.errors import LoginFailed, PeerError, StanzaFailed
from xproxy.peer.server import Server
from xproxy.tls.authority import Authority

DOMAIN: Final = "verona.example"
PASSWORDS: Final = {"juliet": "wherefore-art-thou", "romeo": "but-soft"}  # of this demo's own server alone
WRONG_PASSWORD: Final = "a-rose-by-any-other-name"
WHEREFORE: Final = "O Romeo, Romeo! wherefore art thou Romeo?"
SHALL_I: Final = "Shall I hear more, or shall I speak at this?"
MY_SWEET: Final = "Romeo! My sweet?"
LOG_NAME: Final = "records.jsonl"
RECORDS_SECONDS_MAX: Final = 10.0  # for records of what has already happened; it takes milliseconds
POLL_SECONDS: Final = 0.01  # a person sees no difference


@attrs.frozen(kw_only=True)
class Scene:
    """One thing that is shown."""

    title: str
    about: str  # what to look for in the records
    play: Callable[["Stage"], Awaitable[None]]
    sessions: int  # connections that it opens and ends


Document = dict[str, Any]
Show = Callable[[bytes, Document], None]
"""Takes a record: its line in the log, and what that line holds."""
Narrate = Callable[[int, Scene], None]
"""Takes a scene that begins and its number, from 1."""


@attrs.frozen(kw_only=True)
class Stage:
    """Where the clients find the proxy."""

    host: str
    port: int
    trust: ssl.SSLContext
    server: Server

    def client(self, mode: Mode = Mode.STARTTLS) -> Client:
        """A client that will connect to the proxy."""
        return Client(host=self.host, port=self.port, domain=DOMAIN, tls=self.trust, mode=mode)


async def login_and_talk(stage: Stage) -> None:
    """Two ways to log in, and a chat."""
    async with stage.client() as juliet, stage.client(Mode.DIRECT_TLS) as romeo:
        await juliet.enter("juliet", PASSWORDS["juliet"], "balcony", mechanism="SCRAM-SHA-256")
        await romeo.enter("romeo", PASSWORDS["romeo"], "garden", mechanism="PLAIN")
        await juliet.roster()
        await juliet.send_message(f"romeo@{DOMAIN}/garden", WHEREFORE)
        await romeo.expect("message")
        await romeo.send_message(f"juliet@{DOMAIN}/balcony", SHALL_I)
        await juliet.expect("message")
        await juliet.close()
        await romeo.close()


async def wrong_password(stage: Stage) -> None:
    """A login that fails."""
    async with stage.client() as romeo:
        with contextlib.suppress(LoginFailed):
            await romeo.login("romeo", WRONG_PASSWORD, mechanism="SCRAM-SHA-1")
        await romeo.close()


async def stanza_error(stage: Stage) -> None:
    """A request that is answered with an error."""
    async with stage.client() as juliet:
        await juliet.enter("juliet", PASSWORDS["juliet"], "balcony")
        with contextlib.suppress(StanzaFailed):
            await juliet.ping(to=f"romeo@{DOMAIN}/mantua")
        await juliet.close()


async def drop_and_resume(stage: Stage) -> None:
    """A connection that is lost and a session that goes on."""
    async with stage.client() as romeo, stage.client() as juliet:
        jid = await romeo.enter("romeo", PASSWORDS["romeo"], "garden")
        await romeo.enable_sm()
        await juliet.enter("juliet", PASSWORDS["juliet"], "balcony")
        romeo.drop(reset=True)
        await juliet.send_message(jid, MY_SWEET)
        await juliet.ping()  # the server has the message now
        await romeo.resume()
        await romeo.expect("message")
        await romeo.close()
        await juliet.close()


SCENES: Final = (
    Scene(
        title="Two clients log in and talk",
        about="juliet by STARTTLS and SCRAM-SHA-256, romeo by direct TLS and PLAIN; each line bears its session's id",
        play=login_and_talk,
        sessions=2,
    ),
    Scene(
        title="A wrong password",
        about="sasl-failed says who tried, how, and what the server answered; never the password",
        play=wrong_password,
        sessions=1,
    ),
    Scene(
        title="A request that earns an error",
        about="juliet pings a resource that is not there; stanza-error names the request it answers",
        play=stanza_error,
        sessions=1,
    ),
    Scene(
        title="A connection is lost, the session goes on",
        about="romeo's connection is reset; he comes back, resumes, and gets the message that was sent meanwhile",
        play=drop_and_resume,
        sessions=3,
    ),
)


async def run_demo(directory: Path, *, show: Show, narrate: Narrate) -> Path:
    """Play all scenes; ``directory`` (made if missing) holds everything afterwards. Return the log's path.

    Raises:
        XproxyError: this machine does not let us: no loopback port, a directory that cannot be written ...
    """
    log_path = _prepare(directory)
    try:
        await _run_demo(directory, log_path, show, narrate)
    except BaseExceptionGroup as group:
        # What ends the demo is one thing: an error, Ctrl-C, or a reader of our output that left.
        lone: BaseException = group
        while isinstance(lone, BaseExceptionGroup) and len(lone.exceptions) == 1:
            lone = lone.exceptions[0]
        raise lone from lone.__cause__
    return log_path


def _prepare(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="make the demo's directory", path=directory) from error
    if (log_path := directory / LOG_NAME).exists():
        raise FileProblem(f"{log_path} is there already", "name a directory without a demo's log", path=log_path)
    return log_path


async def _run_demo(directory: Path, log_path: Path, show: Show, narrate: Narrate) -> None:
    async with trio.open_nursery() as nursery:
        server = Server(domain=DOMAIN, passwords=PASSWORDS, tls=_server_tls(directory / "server"))
        upstream: HostPort = await nursery.start(server.serve)
        stopped = trio.Event()
        settings = Settings(
            listen=ListenSettings(addresses=(ListenAddress("127.0.0.1", 0),)),
            upstream=UpstreamSettings(address=upstream, domain=DOMAIN, ca_file=directory / "server" / "ca.pem"),
            log=LogSettings(path=log_path, format="json"),
            state=StateSettings(directory=directory / "state"),
        )
        running: app.Running = await nursery.start(partial(_run_proxy, settings, stopped))
        endpoint = running.listeners[0]
        assert running.ca_file is not None
        stage = Stage(host=endpoint.ip, port=endpoint.port, trust=trusting(running.ca_file), server=server)
        with log_path.open("rb") as log:
            records = Follower(log.read, show)
            await records.until("proxy-started", 1)
            sessions = 0
            for number, scene in enumerate(SCENES, 1):
                narrate(number, scene)
                async with _live(records):
                    await _play(scene, stage, log_path)
                sessions += scene.sessions
                await records.until("connection-closed", sessions)
            running.stop("finished")
            await stopped.wait()
            records.read()
        nursery.cancel_scope.cancel()


async def _run_proxy(settings: Settings, stopped: trio.Event, *, task_status: trio.TaskStatus[app.Running]) -> None:
    await app.run(settings, task_status=task_status)
    stopped.set()


async def _play(scene: Scene, stage: Stage, log_path: Path) -> None:
    try:
        await scene.play(stage)
    except (PeerError, OSError) as error:
        raise EnvironmentProblem(
            f"the demo's clients could not play {scene.title!r}: {error}", f"{log_path} holds what happened so far"
        ) from error


def _server_tls(directory: Path) -> ssl.SSLContext:
    """The embedded server's certificate, by an authority of its own in ``directory``."""
    leaf = Authority.open_(directory).leaf(DOMAIN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.cert_path, leaf.key_path)
    return context


class Follower:
    """Shows records as they come into the log."""

    def __init__(self, read_more: Callable[[], bytes], show: Show) -> None:
        self._read_more = read_more
        self._show = show
        self._rest = b""
        self._seen: dict[str, int] = {}

    def read(self) -> None:
        """Show what is new."""
        *lines, self._rest = (self._rest + self._read_more()).split(b"\n")
        for line in lines:
            document: Document = orjson.loads(line)
            action = document["event"]["action"]
            self._seen[action] = self._seen.get(action, 0) + 1
            self._show(line, document)

    async def follow(self) -> None:
        """Show what comes until cancelled."""
        while True:
            self.read()
            await trio.sleep(POLL_SECONDS)

    async def until(self, action: str, count: int) -> None:
        """Show what comes until there were ``count`` records of ``action``.

        Raises:
            EnvironmentProblem: they do not come.
        """
        with trio.move_on_after(RECORDS_SECONDS_MAX):
            while True:
                self.read()
                if self._seen.get(action, 0) >= count:
                    return
                await trio.sleep(POLL_SECONDS)
        raise EnvironmentProblem(
            f"the log shows {self._seen.get(action, 0)} of {count} records {action} after {RECORDS_SECONDS_MAX:.0f} s",
            "the machine is very busy, or its disk is full",
        )


@contextlib.asynccontextmanager
async def _live(records: Follower) -> AsyncIterator[None]:
    """Show records while the body runs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(records.follow)
        yield
        nursery.cancel_scope.cancel()
