"""``xproxy replay`` as a process, and the clients that play the scenarios of tests/vectors/cassettes.

The cassettes there were recorded once, through ``xproxy run --capture DIR --capture-bodies``, of these very scenarios
at Prosody 0.12.3 and ejabberd 23.01 (Debian 12), and made by ``xproxy cassette make``.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.support.accounts import DOMAIN, PASSWORDS
from tests.support.canary import Canary
from tests.support.gosendxmpp import GoSendXmpp
from tests.support.profanity import Profanity
from tests.support.slix import SlixDriver
from tests.support.xmppjs import XmppJs
from xproxy.capture.cassette import Cassette
from xproxy.capture.cassette_xml import read_cassette
from xproxy.peer.client import Client, trusting

VECTORS: Final = Path(__file__).parent.parent / "vectors" / "cassettes"
ALL_PASSWORDS: Final = PASSWORDS | {"newbie": "canary-password-of-newbie"}  # registers itself
ROOM_PASSWORD: Final = "canary-password-of-hall"
BODIES: Final = ("hello", "and back")
_START_SECONDS_MAX: Final = 20.0
_END_SECONDS_MAX: Final = 60.0
_POLL_SECONDS: Final = 0.02


def cassette_of(server: str, scenario: str) -> Path:
    """Return the cassette of a scenario recorded at "prosody" or "ejabberd"."""
    return VECTORS / server / f"{scenario}.xmpp.xml"


@attrs.define(eq=False)
class Replay:
    """A running, or finished, ``xproxy replay``."""

    process: "subprocess.Popen[str]"
    directory: Path
    canary: Canary
    port: int = 0
    code: int | None = None
    report: dict[str, Any] = attrs.field(factory=dict)

    @property
    def ca_file(self) -> Path:
        """What clients must trust."""
        return self.directory / "state" / "ca.pem"

    def finish(self) -> "Replay":
        """Wait for its end, read its report, look for secrets in all it wrote."""
        if self.code is None:
            out, err = self.process.communicate(timeout=_END_SECONDS_MAX)
            self.code = self.process.returncode
            (self.directory / "stdout").write_text(out)
            (self.directory / "stderr").write_text(err)
            assert "Traceback" not in err, err
            assert "internal error" not in err, err
            self.report = json.loads(out) if out else {}
            written = ("stdout", "stderr", "junit.xml", "state")
            hits = self.canary.search(self.directory / name for name in written)
            assert not hits, hits
        return self

    @property
    def failures(self) -> list[dict[str, Any]]:
        """All failures of all sessions."""
        return [failure for case in self.finish().report["cases"] for failure in case["failures"]]

    @property
    def kinds(self) -> list[str]:
        """Their kinds."""
        return [failure["kind"] for failure in self.failures]

    def matched(self) -> int:
        """How many stanzas of the peers under test matched."""
        return sum(int(case["properties"]["xproxy.matched"]) for case in self.finish().report["cases"])


def passwords_of(cassette: Cassette) -> list[str]:
    """Return the options that give a cassette's accounts their passwords."""
    given = [f"{account.name}={ALL_PASSWORDS[account.user]}" for account in cassette.accounts]
    return [part for pair in given for part in ("--password", pair)]


@contextmanager
def replay_server(
    directory: Path, cassette: Path, canary: Canary, *arguments: str, passwords: Mapping[str, str] | None = None
) -> Iterator[Replay]:
    """Run ``xproxy replay server``; at the end of the block it is waited for."""
    directory.mkdir(parents=True, exist_ok=True)
    ready = directory / "ready"
    ready.unlink(missing_ok=True)
    command = [
        *(sys.executable, "-m", "xproxy", "replay", "server", str(cassette), "--listen", "127.0.0.1:0"),
        *("--state", str(directory / "state"), "--ready-file", str(ready), "--format", "json"),
        *("--junit", str(directory / "junit.xml")),
        *(
            passwords_of(read_cassette(cassette))
            if passwords is None
            else [part for name, value in passwords.items() for part in ("--password", f"{name}={value}")]
        ),
        *arguments,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    replay = Replay(process, directory, canary)
    try:
        deadline = time.monotonic() + _START_SECONDS_MAX
        while not (ready.exists() and ready.stat().st_size):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "xproxy replay server did not start"
            time.sleep(_POLL_SECONDS)
        replay.port = int(ready.read_text().rpartition(":")[2])
        yield replay
        replay.finish()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def replay_client(directory: Path, cassette: Path, canary: Canary, *arguments: str, port: int, ca_file: Path) -> Replay:
    """Run ``xproxy replay client`` to its end."""
    directory.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "xproxy", "replay", "client", str(cassette), "--connect", f"127.0.0.1:{port}"),
            *("--ca", str(ca_file), "--format", "json", *passwords_of(read_cassette(cassette)), *arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Replay(process, directory, canary).finish()


# The scenarios. Each takes where to connect and returns what the client made of it.

Play = Callable[["Place"], Any]


@attrs.frozen(kw_only=True)
class Place:
    """Where a client connects, and with what."""

    port: int
    ca_file: Path
    directory: Path
    slix: SlixDriver | None = None
    bodies: tuple[str, ...] = BODIES
    password: str | None = None  # instead of the right one

    def secret(self, user: str) -> str:
        """Return the password of ``user``."""
        return self.password or ALL_PASSWORDS[user]


def slix(scenario: str, *users: str) -> Play:
    """Return a slixmpp scenario."""

    def play(place: Place) -> Any:
        assert place.slix is not None
        return place.slix.play(
            scenario,
            port=place.port,
            ca_file=str(place.ca_file),
            mode="starttls",
            domain=DOMAIN,
            clients=[{"user": user, "password": place.secret(user)} for user in users],
            bodies=list(place.bodies),
            room_password=ROOM_PASSWORD,
        ).final

    return play


def profanity(place: Place) -> Any:
    """profanity logs in, asks what it asks, leaves."""
    return (
        Profanity(
            directory=place.directory / "profanity",
            port=place.port,
            mode="starttls",
            ca_file=place.ca_file,
            user="alice",
            domain=DOMAIN,
            password=place.secret("alice"),
        )
        .login()
        .final
    )


def _go(place: Place) -> GoSendXmpp:
    return GoSendXmpp(
        port=place.port,
        mode="starttls",
        ca_file=place.ca_file,
        user="gopher",
        domain=DOMAIN,
        password=place.secret("gopher"),
    )


def go(place: Place) -> Any:
    """go-sendxmpp sends a message."""
    return _go(place).send(f"alice@{DOMAIN}", "hi there").final


def go_raw(place: Place, order: tuple[int, ...] = (0, 1)) -> Any:
    """go-sendxmpp sends two messages as they are."""
    messages = [
        f"<message to='alice@{DOMAIN}' type='chat' id='go-{number}'><body>{body}</body></message>"
        for number, body in enumerate(("first", "second"))
    ]
    return _go(place).send(f"alice@{DOMAIN}", "".join(messages[index] for index in order), raw=True).final


def js(place: Place) -> Any:
    """Two @xmpp/client talk to each other."""
    users = [{"user": user, "password": place.secret(user)} for user in ("alice", "bob")]
    return _js(place).play("messages", *users, bodies=["x1", "x2"]).final


def js_login(place: Place) -> Any:
    """@xmpp/client logs in and leaves."""
    return _js(place).play("login", {"user": "alice", "password": place.secret("alice")}).final


def _js(place: Place) -> XmppJs:
    return XmppJs(port=place.port, mode="starttls", ca_file=place.ca_file, domain=DOMAIN)


def muc_talk(place: Place) -> Any:
    """Two clients of ours talk in a room and leave it."""
    return trio.run(_talk_in_a_room, place)


async def _talk_in_a_room(place: Place) -> list[str]:
    trust = trusting(place.ca_file)

    def client() -> Client:
        return Client(host="127.0.0.1", port=place.port, domain=DOMAIN, tls=trust)

    room = f"talk@rooms.{DOMAIN}"
    join = "<presence to='{}/{}'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
    heard: list[str] = []

    async def hear(who: Client, body: str) -> None:
        message = await who.expect(lambda stanza: stanza.findtext("{jabber:client}body") == body)
        heard.append(message.get("from", "").rpartition("/")[2])

    async def until(who: Client, nick: str, kind: str | None = None) -> None:
        await who.expect(
            lambda stanza: (
                stanza.tag == "{jabber:client}presence"
                and stanza.get("from") == f"{room}/{nick}"
                and stanza.get("type") == kind
            )
        )

    async with client() as alice, client() as bob:
        await alice.enter("alice", place.secret("alice"), "desk", mechanism="SCRAM-SHA-1")
        await bob.enter("bob", place.secret("bob"), "desk", mechanism="SCRAM-SHA-1")
        await alice.send(join.format(room, "a"))
        await until(alice, "a")
        await alice.request(
            "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>",
            to=room,
            type_="set",
        )
        await bob.send(join.format(room, "b"))
        await until(bob, "b")
        await until(alice, "b")
        for who, body in ((alice, place.bodies[0]), (bob, place.bodies[1])):
            await who.send_message(room, body, type_="groupchat")
            for other in (alice, bob):
                await hear(other, body)
        await bob.send(f"<presence type='unavailable' to='{room}/b'/>")
        await until(bob, "b", "unavailable")
        await until(alice, "b", "unavailable")
        await alice.send(f"<presence type='unavailable' to='{room}/a'/>")
        await until(alice, "a", "unavailable")
        await alice.close()
        await bob.close()
    return heard


SCENARIOS: Final[Mapping[str, Play]] = {
    "slix-login": slix("login", "alice"),
    "slix-disco": slix("disco", "alice"),
    "slix-messages": slix("messages", "alice", "bob"),
    "slix-resume": slix("resume", "alice", "bob"),
    "slix-muc": slix("muc", "alice", "bob"),
    "slix-register": slix("register", "newbie", "newbie"),
    "muc-talk": muc_talk,
    "profanity": profanity,
    "go": go,
    "go-raw": go_raw,
    "js": js,
}
