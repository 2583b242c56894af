"""The fake client: says to a server under test what clients once said, and checks that it says what a server once said.

Each session of the cassette is a peer/client.py with a task that reads. What is said waits for everything the server
said before it in the recording, in all sessions: one client's message is the consequence of another's. TLS, SASL,
binding, stream management and pings are live; the features the server offers after login have to hold those recorded.
"""

import contextlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs
import trio
from lxml import etree

from xproxy.capture.cassette import Cassette, Event, Session, What
from xproxy.capture.node import Node, NotXmpp, from_element, one_line
from xproxy.config.address import HostPort
from xproxy.config.replay import ReplaySettings
from xproxy.errors import AddressProblem
from xproxy.events import Side
from xproxy.peer import words
from xproxy.peer.client import Client, Mode
from xproxy.peer.errors import (
    Disconnected,
    LoginFailed,
    PeerError,
    PeerTimeout,
    ResumeFailed,
    StanzaFailed,
    StreamFailed,
    TlsRefused,
)
from xproxy.replay.engine import Engine, one_error
from xproxy.replay.match import Context, matches
from xproxy.replay.partings import WAYS, Left
from xproxy.replay.report import FailureKind, Report
from xproxy.replay.wire import is_ping, is_replayed_feature, to_wire
from xproxy.xmpp import ns

NAME: Final = "xproxy replay client"
MECHANISMS: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN")  # else the best that both know
_MODES: Final = {"starttls": Mode.STARTTLS, "direct": Mode.DIRECT_TLS, "none": Mode.CLEAR}
_WRONG: Final = "-wrong"  # behind the right password, where a refused login was recorded


@attrs.define(eq=False)
class _Player:
    """One session."""

    session: Session
    client: Client
    reader: trio.CancelScope | None = None
    read: trio.Event = attrs.field(factory=trio.Event)  # set when there is nothing more to read
    logged_in: bool = False
    parted: bool = False  # we said the closing tag, or dropped


@attrs.define(eq=False, kw_only=True)
class ReplayClients:
    """All clients of one replay: the engine's voice."""

    engine: Engine
    host: str
    port: int
    tls: ssl.SSLContext | None
    nursery: trio.Nursery
    _players: dict[str, _Player] = attrs.field(init=False, factory=dict)

    def can(self, event: Event) -> bool:
        """Whether the session is there; one can always connect."""
        return event.what in (What.CONNECT, What.QUIET) or event.session in self._players

    async def make(self, event: Event) -> None:
        """Do what the client of the recording did."""
        playback, engine = self.engine.playback, self.engine
        try:
            with trio.fail_after(engine.settings.step_seconds):
                await self._make(event)
        except (trio.TooSlowError, PeerTimeout):
            message = f"the server did not answer within {engine.settings.step_seconds:g} s: <{event.what.value}>"
            self._fail(event, FailureKind.TIMEOUT, message)
        except TlsRefused as refused:
            unknown = "CERTIFICATE_VERIFY_FAILED" in refused.reason
            hint = "; name the file of who signed the server's certificate (--ca, or ca=)" if unknown else ""
            self._fail(event, FailureKind.TLS, f"{refused}{hint}")
        except LoginFailed as failed:
            self._fail(event, FailureKind.AUTH, str(failed))
        except (StanzaFailed, ResumeFailed) as failed:
            self._fail(event, FailureKind.MISMATCH, f"<{event.what.value}>: {failed}")
        except (StreamFailed, Disconnected) as failed:
            if playback.state(event).value == "pending" or not playback.missing(event.session):
                self._fail(event, FailureKind.STREAM, f"#{event.number}: {failed}")

    def _fail(self, event: Event, kind: FailureKind, message: str) -> None:
        playback = self.engine.playback
        playback.note(kind, event.session, message, event)
        playback.skip_rest(event.session)

    async def _make(self, event: Event) -> None:
        playback = self.engine.playback
        match event.what:
            case What.CONNECT:
                await self._connect(event)
            case What.LOGIN:
                await self._log_in(self._players[event.session], event)
            case What.RESUME:
                await self._resume(self._players[event.session], event)
            case What.STANZA:
                player = self._players[event.session]
                stanza = playback.render(event)
                playback.happened(event, stanza)
                await player.client.send(to_wire(stanza))
                if not player.logged_in:
                    await self._hear_early(player)
            case What.CLOSE:
                await self._close(self._players[event.session], event)
            case What.DROP:
                player = self._players[event.session]
                player.parted = True
                playback.happened(event)
                self._stop_reading(player)
                # RST: a server that learns of it at once keeps what comes for the resumption.
                player.client.drop(reset=True)
            case What.QUIET:
                raise AssertionError("the engine keeps quiet by itself")

    # Coming.

    async def _connect(self, event: Event) -> None:
        session = self.engine.cassette.session(event.session)
        playback = self.engine.playback
        player = self._players.get(event.session)
        if player is not None and playback.next_of(event.session, What.LOGIN, What.RESUME) is not None:
            after = playback.next_of(event.session, What.LOGIN, What.RESUME)
            if after is not None and after.what is What.RESUME:
                playback.happened(event)  # resuming connects by itself
                return
        client = Client(
            host=self.host,
            port=self.port,
            domain=session.domain,
            tls=self.tls,
            mode=_MODES[session.tls],
            wait_seconds_max=self.engine.settings.total_seconds,
            answers_pings=False,
        )
        try:
            await client.connect()
        except OSError as error:
            address = str(HostPort(self.host, self.port))
            what = error.strerror or str(error)
            raise AddressProblem(
                f"cannot connect to {address}: {what}", "is the server running, and listening there?", address=address
            ) from error
        self._players[event.session] = _Player(session, client)
        playback.happened(event)
        self._check_features(session, client, session.login_features, "before login")
        self._check_mechanisms(session, client)

    async def _log_in(self, player: _Player, event: Event) -> None:
        session, playback, client = player.session, self.engine.playback, player.client
        assert session.account is not None
        account = self.engine.cassette.account(session.account)
        password = self.engine.passwords[account.name]
        can = session.mechanism in MECHANISMS and session.mechanism in client.mechanisms
        mechanism = session.mechanism if can else None
        if session.refused is not None:
            await self._be_refused(player, event, account.user, password + _WRONG, mechanism)
            return
        await client.login(account.user, password, mechanism=mechanism)
        self._check_features(session, client, session.session_features, "after login")
        jid = await client.bind(session.resource)
        playback.bindings.jids[session.name] = jid
        if session.sm != "no":
            await client.enable_sm(resume=session.sm == "resume")
            if session.sm == "resume" and (client.sm is None or client.sm.id is None):
                message = "the server enabled stream management without resumption, recorded was with it"
                met = attrs.evolve(playback.session(session.name), sm="yes")
                playback.fact(FailureKind.MISMATCH, session.name, message, event, met=met)
        playback.happened(event)
        player.logged_in = True
        self._read_on(player)

    async def _be_refused(self, player: _Player, event: Event, user: str, password: str, mechanism: str | None) -> None:
        try:
            await player.client.login(user, password, mechanism=mechanism)
        except LoginFailed as failed:
            if failed.condition != player.session.refused:
                message = f"the login was refused with {failed.condition}, not with {player.session.refused}"
                self.engine.playback.note(FailureKind.MISMATCH, event.session, message, event)
            self.engine.playback.happened(event)
            self._read_on(player)
            return
        message = f"a login with a wrong password succeeded; recorded was {player.session.refused}"
        self._fail(event, FailureKind.AUTH, message)

    def _check_features(self, session: Session, client: Client, wanted: Sequence[Node], when: str) -> None:
        playback = self.engine.playback
        assert client.features is not None
        offered = [each for each in from_element(client.features).children if is_replayed_feature(each)]
        context = Context(playback.bindings, (session.name, Side.SERVER.value), self.engine.clock(), contains=True)
        for want in wanted:
            found = next((each for each in offered if matches(want, each, context)), None)
            if found is None:
                message = f"the server does not offer {one_line(want)} {when}, as it did when recorded"
                playback.fact(FailureKind.MISSING, session.name, message)
            else:
                offered.remove(found)
        if not playback.contains:
            for more in offered:
                message = f"the server offers {one_line(more)} {when}, which was not recorded"
                playback.fact(FailureKind.UNEXPECTED, session.name, message)

    def _check_mechanisms(self, session: Session, client: Client) -> None:
        if session.account is None:
            return
        playback = self.engine.playback
        for name in session.mechanisms:
            if name not in client.mechanisms:
                message = f"the server does not offer a login by {name}, as it did when recorded"
                playback.fact(FailureKind.MISSING, session.name, message)
        if not playback.contains:
            for name in client.mechanisms:
                if name not in session.mechanisms and not name.endswith("-PLUS"):
                    message = f"the server offers a login by {name}, which was not recorded"
                    playback.fact(FailureKind.UNEXPECTED, session.name, message)
        if session.mechanism is not None and session.mechanism not in MECHANISMS:
            playback.remark(session.name, f"{session.mechanism}, which was recorded, cannot be played: by another")

    async def _resume(self, player: _Player, event: Event) -> None:
        if player.reader is not None:
            self._stop_reading(player)
            await player.read.wait()
        if player.client.sm is None:
            self._fail(event, FailureKind.MISMATCH, "<resume>: the server had not enabled stream management")
            return
        player.client.wait_seconds_max = self.engine.settings.step_seconds
        await player.client.resume()
        player.client.wait_seconds_max = self.engine.settings.total_seconds
        player.parted = False
        self.engine.playback.happened(event)
        self._read_on(player)

    # Hearing.

    async def _hear_early(self, player: _Player) -> None:
        """Before login nothing reads on its own: hear what the script has up to our next word."""
        playback = self.engine.playback
        while True:
            event = next(iter(playback.pending(player.session.name)), None)
            if event is None or playback.is_ours(event) or event.what is not What.STANZA:
                return
            await self._take(player, await player.client.receive())

    def _read_on(self, player: _Player) -> None:
        player.reader, player.read = trio.CancelScope(), trio.Event()
        self.nursery.start_soon(self._read, player, player.reader, player.read)

    def _stop_reading(self, player: _Player) -> None:
        if player.reader is not None:
            player.reader.cancel()

    async def _read(self, player: _Player, scope: trio.CancelScope, read: trio.Event) -> None:
        name = player.session.name
        with scope:
            try:
                while True:
                    await self._take(player, await player.client.receive())
            except StreamFailed as failed:
                self._stream_failed(player, failed)
                left = await self._hear_end(player) if failed.by_peer else None
            except Disconnected as gone:
                left = gone.how
            except PeerError:
                left = None
            self._ended(player, left)
        read.set()
        self.engine.wake(name)

    async def _hear_end(self, player: _Player) -> Left | None:
        """Behind its stream error: does the server close its stream (RFC 6120 section 4.9.1.1)?"""
        try:
            with trio.fail_after(self.engine.settings.close_seconds_max):
                await player.client.expect(lambda _: False)
        except Disconnected as gone:
            return gone.how
        except (PeerError, trio.TooSlowError):
            pass
        return None

    async def _take(self, player: _Player, element: etree._Element) -> None:
        name, playback = player.session.name, self.engine.playback
        try:
            live = from_element(element)
        except NotXmpp as error:
            playback.note(FailureKind.STREAM, name, str(error))
            return
        scripted = any(
            event.stanza is not None and event.side is Side.SERVER and is_ping(event.stanza)
            for event in playback.pending(name)
        )
        if is_ping(live) and not scripted:
            playback.ignored += 1
            await self._answer(player, words.iq("result", id_=live.get("id"), to=live.attributes.get("from")))
        else:
            taken = playback.take(name, live)
            if taken.event is None and live.local == "iq" and live.get("type") in ("get", "set"):
                await self._answer(player, words.error_reply(element, "service-unavailable"))
        self.engine.wake(name)

    async def _answer(self, player: _Player, data: bytes) -> None:
        with contextlib.suppress(PeerError):  # the reader learns of it
            await player.client.send(data)

    def _stream_failed(self, player: _Player, failed: StreamFailed) -> None:
        """A stream error may be the recorded one."""
        name, playback = player.session.name, self.engine.playback
        for event in playback.pending(name):
            if event.side is Side.SERVER and event.stanza is not None and _is_stream_error(event.stanza, failed):
                playback.happened(event, event.stanza)
                return
        if not player.parted:
            playback.note(FailureKind.STREAM, name, str(failed))

    def _ended(self, player: _Player, left: Left | None) -> None:
        """The server ended the stream: in reply to us, as recorded, or before its time."""
        name, playback = player.session.name, self.engine.playback
        if player.parted:
            return
        if playback.missing_before_parting(name):
            playback.note_missing(name, f"the server {WAYS[left or 'closed']}")
        elif left is not None:
            playback.part(name, left)
        if playback.next_of(name, What.CONNECT) is not None:
            return
        if playback.unsaid(name):
            playback.note_unsaid(name, left or "closed")
        playback.skip_rest(name)

    # Leaving.

    async def _close(self, player: _Player, event: Event) -> None:
        player.parted = True
        self.engine.playback.happened(event)
        if player.client.sm is not None:
            # As clients do whose reader is ahead of their script: what is not acknowledged ejabberd returns to who sent
            # it, and its request may come only behind our closing tag.
            await player.client.acknowledge()
        await player.client.send_close()
        if player.reader is not None:
            with trio.move_on_after(self.engine.settings.close_seconds_max):
                await player.read.wait()
            self._stop_reading(player)
        player.client.drop()

    def is_busy(self) -> bool:
        """There is always a server that should answer."""
        return True

    async def see_off(self) -> None:
        """Wait for what should not come, then leave."""
        playback, settings = self.engine.playback, self.engine.settings
        open_ = [player for player in self._players.values() if not player.parted and player.reader is not None]
        seconds = settings.step_seconds if playback.awaits_parting else settings.linger_seconds
        if open_:
            with trio.move_on_after(seconds):
                await self.engine.until(lambda: all(player.read.is_set() for player in open_))
        for player in self._players.values():
            self._stop_reading(player)
            if not player.parted:
                playback.stayed(player.session.name, seconds)
                with trio.move_on_after(settings.close_seconds_max):
                    with contextlib.suppress(PeerError):
                        await player.client.close()
            with contextlib.suppress(Disconnected):
                player.client.drop()


def _is_stream_error(stanza: Node, failed: StreamFailed) -> bool:
    return stanza.tag == f"{{{ns.STREAMS}}}error" and any(child.local == failed.condition for child in stanza.children)


async def play_cassette(
    cassette: Cassette,
    *,
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    passwords: Mapping[str, str],
    settings: ReplaySettings | None = None,
    contains: bool = True,
    accept: str | None = None,
    on_played: Callable[[Engine], None] = lambda engine: None,
) -> Report:
    """Play the cassette's clients to the server at ``host``; return when it is played out, or a deadline is over.

    ``passwords``: by account name. ``contains``: the server may say more than was recorded, in the places match.py
    names; what was recorded has to be there all the same.

    ``accept``: the command that accepts what came, for the report. ``on_played`` gets the engine at the end.

    Raises:
        AddressProblem: nobody listens there.
    """
    engine = Engine(
        cassette=cassette,
        ours=Side.CLIENT,
        settings=settings or ReplaySettings(),
        passwords=dict(passwords),
        contains=contains,
    )
    async with one_error(), trio.open_nursery() as nursery:
        clients = ReplayClients(engine=engine, host=host, port=port, tls=tls, nursery=nursery)
        try:
            await engine.play(clients, still_busy=clients.is_busy)
            await clients.see_off()
        finally:
            nursery.cancel_scope.cancel()
    report = engine.report(NAME, accept=accept)
    on_played(engine)
    return report
