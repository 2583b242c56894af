"""The fake server: says to clients under test what a server once said, and checks that they say what clients once said.

It is peer/server.py, one live XMPP server, with three things changed: it offers what was offered when the cassette was
recorded, what it says comes from the script, and what clients say is looked up there. TLS, SASL, resource binding,
stream management and pings are live.

Which session of the cassette a connection is: known when it binds (or resumes). It is the first one of that account
that has not begun, and where several would do the one whose client asked for the same resource. A client that talks
before it logs in (registration) is the first session whose script does so too.
"""

import functools
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import attrs
import trio
from lxml import etree

from xproxy.capture.cassette import Cassette, Event, Session, What
from xproxy.capture.node import Node, NotXmpp, from_element, render
from xproxy.config.address import HostPort
from xproxy.config.replay import ReplaySettings
from xproxy.errors import AddressProblem, UsageProblem
from xproxy.events import Side
from xproxy.jid import Jid
from xproxy.peer import auth, words
from xproxy.peer import session as peer_session
from xproxy.peer.connection import Connection
from xproxy.peer.server import Server
from xproxy.peer.session import Outlet
from xproxy.replay.bindings import CannotRender
from xproxy.replay.engine import Engine, one_error
from xproxy.replay.match import filled
from xproxy.replay.partings import Left
from xproxy.replay.playback import Playback
from xproxy.replay.report import FailureKind, Report
from xproxy.replay.wire import is_ping, is_ping_answer, is_replayed_feature, to_wire
from xproxy.xmpp import ns

# Played by scramp or by us; -PLUS cannot be, for the recorded binding is another connection's.
MECHANISMS: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN")
NAME: Final = "xproxy replay server"
_TLS: Final = "TLS could not be established"
_LOGIN: Final = "the client's login was refused"
_STREAM: Final = "the client's stream was refused"
_TLS_MODES: Final = {"none": "in clear", "starttls": "by STARTTLS", "direct": "by direct TLS"}
_CAME_DIRECT: Final = "the client came by direct TLS alone, recorded was by STARTTLS"
_CAME_CLEAR: Final = "the client came in clear, recorded was by direct TLS"
_WHY: Final[Mapping[Left | None, str]] = {
    "closed": "the client left",
    "ended": "the client left, without </stream:stream>",
    "reset": "the client left, by a reset",
}
_KINDS: Final = {
    _TLS: FailureKind.TLS,
    _LOGIN: FailureKind.AUTH,
    _STREAM: FailureKind.STREAM,
    _CAME_DIRECT: FailureKind.MISMATCH,
    _CAME_CLEAR: FailureKind.MISMATCH,
}


@attrs.define(eq=False, kw_only=True)
class ReplayServer(Server):
    """The server of one replay."""

    engine: Engine
    _names: dict[Connection, str] = attrs.field(init=False, factory=dict)  # the cassette's session of a connection
    _live: dict[str, peer_session.Session] = attrs.field(init=False, factory=dict)  # by the cassette's name
    _by_jid: dict[Jid, str] = attrs.field(init=False, factory=dict)
    _refused: dict[str, str] = attrs.field(init=False, factory=dict)  # logins and handshakes that failed
    _open: set[Connection] = attrs.field(init=False, factory=set)
    _mechanisms: dict[Connection, str] = attrs.field(init=False, factory=dict)  # tried last
    _managed: set[str] = attrs.field(init=False, factory=set)  # sessions that enabled stream management
    _entered: set[str] = attrs.field(init=False, factory=set)  # sessions that came at all
    _left: dict[str, Left] = attrs.field(init=False, factory=dict)  # how a session's client left last

    # What is offered.

    @property
    def _cassette(self) -> Cassette:
        return self.engine.cassette

    def _next_session(self, user: str | None = None) -> Session | None:
        """Return the first session that has not logged in (of ``user``)."""
        taken = set(self._live)
        for session in self._cassette.sessions:
            account = None if session.account is None else self._cassette.account(session.account).user
            if session.name not in taken and not self._is_gone(session.name) and user in (None, account):
                return session
        return None

    def _is_gone(self, name: str) -> bool:
        return self.engine.playback.next_of(name, What.CONNECT, What.LOGIN) is None

    def offered(self, connection: Connection) -> Sequence[str]:
        """Return what was offered, as far as it can be played; everything of ours where that is nothing."""
        session = self._session_of(connection)
        names = () if session is None else session.mechanisms
        return tuple(name for name in names if name in MECHANISMS) or auth.MECHANISMS

    def _session_of(self, connection: Connection) -> Session | None:
        if (name := self._names.get(connection)) is not None:
            return self._cassette.session(name)
        return self._next_session() or self._next_resumed()

    def _next_resumed(self) -> Session | None:
        """Return the first session that is to be resumed: it is offered what it was offered before."""
        playback = self.engine.playback
        return next((each for each in self._cassette.sessions if playback.next_of(each.name, What.RESUME)), None)

    def login_features(self, connection: Connection) -> str:
        """Return the recorded features before login, but for those that are live."""
        self._open.add(connection)
        self.engine.wake()
        session = self._session_of(connection)
        return "" if session is None else _features(session.login_features, self.engine.playback)

    def session_features(self, user: str) -> str:
        """Return the recorded features after login."""
        session = self._next_session(user) or next(
            (each for each in self._cassette.sessions if self._user_of(each) == user), None
        )
        inside = "" if session is None else _features(session.session_features, self.engine.playback)
        sm = f"<sm xmlns='{ns.SM3}'/>" if session is not None and session.sm != "no" and ns.SM3 not in inside else ""
        return f"<bind xmlns='{ns.BIND}'/>{sm}{inside}"

    def _user_of(self, session: Session) -> str | None:
        return None if session.account is None else self._cassette.account(session.account).user

    # Who comes.

    def takes_opening(self, connection: Connection, *, is_tls: bool) -> bool:
        """Take what the recorded port took.

        Clients try one after the other (slixmpp begins with direct TLS at a port that it was told): with both open they
        would come in another way than they had to when they were recorded.
        """
        modes = {session.tls for session in self._cassette.sessions}
        as_recorded = "direct" in modes if is_tls else modes != {"direct"}
        if as_recorded or self.tls is None or self.engine.settings.lenient:
            return True
        if (session := self._session_of(connection)) is not None:
            self._refused.setdefault(session.name, _CAME_DIRECT if is_tls else _CAME_CLEAR)
        self.engine.wake()
        return False

    def check_login(self, connection: Connection, mechanism: str) -> None:
        """Refuse the login that was refused when it was recorded."""
        self._mechanisms[connection] = mechanism
        session = self._session_of(connection)
        if session is not None and session.refused is not None:
            self._enter(connection, session.name)
            if (event := self.engine.playback.next_of(session.name, What.LOGIN)) is not None:
                self.engine.happened(event)
            raise auth.SaslRefused(session.refused)

    def on_login_refused(self, connection: Connection, condition: str) -> None:
        """Remember who could not log in: that is why the rest did not come."""
        session = self._session_of(connection)
        if session is not None and session.refused is None:
            self._refused[session.name] = f"{_LOGIN}: {condition}"

    def on_tls_refused(self, connection: Connection, reason: str) -> None:
        """Remember who did not take the certificate."""
        session = self._session_of(connection)
        if session is not None:
            self._refused.setdefault(session.name, f"{_TLS}: {reason}")
        self.engine.wake()

    def on_stream_refused(self, connection: Connection, condition: str) -> None:
        """Remember whose stream was no good."""
        session = self._session_of(connection)
        if session is not None:
            self._refused.setdefault(session.name, f"{_STREAM}: {condition}")

    async def take_before_login(self, connection: Connection, element: etree._Element) -> bool:
        """Take a stanza of the script's before login (XEP-0077 section 3.1)."""
        playback = self.engine.playback
        session = self._session_of(connection)
        if session is None or playback.next_of(session.name, What.STANZA, What.LOGIN) is None:
            return False
        self._enter(connection, session.name)
        await self._take(session.name, element)
        await self.engine.say_due(_Voice(self))
        return True

    async def say_early(self, name: str, data: bytes) -> bool:
        """Send to a session that is not logged in; False: it is not there."""
        for connection, session in self._names.items():
            if session == name and connection in self._open:
                await connection.send_early(data)
                return True
        return False

    def _enter(self, connection: Connection, name: str) -> None:
        """The connection is this session."""
        if self._names.get(connection) == name:
            return
        if name not in self._entered:
            self._entered.add(name)
            self._compare_tls(connection, self._cassette.session(name))
        self._names[connection] = name
        self._open.add(connection)
        if (event := self.engine.playback.next_of(name, What.CONNECT)) is not None:
            self.engine.happened(event)

    def bind(self, jid: Jid, outlet: Outlet) -> peer_session.Session | None:
        """A client has logged in: find its session."""
        assert isinstance(outlet, Connection)
        playback = self.engine.playback
        name = self._names.get(outlet)
        waiting = [
            each
            for each in self._cassette.sessions
            if (each.name == name if name is not None else self._user_of(each) == jid.local)
            and each.name not in self._live
            and playback.next_of(each.name, What.LOGIN) is not None
        ]
        chosen = next((each for each in waiting if each.resource == jid.resource), waiting[0] if waiting else None)
        if chosen is None:
            first = next((each for each in self._cassette.sessions if self._user_of(each) == jid.local), None)
            known = first or self._cassette.sessions[0]
            playback.note(FailureKind.UNEXPECTED, known.name, f"{jid.bare} logged in once more than was recorded")
            return None
        self._compare_mechanism(outlet, chosen)
        session = super().bind(jid, outlet)
        if session is None:
            return None
        if (reason := self._refused.pop(chosen.name, None)) not in (None, _CAME_DIRECT, _CAME_CLEAR):
            playback.remark(chosen.name, f"{reason}, before it went well")
        self._live[chosen.name] = session
        self._by_jid[session.jid] = chosen.name
        playback.bindings.jids[chosen.name] = str(session.jid)
        self._enter(outlet, chosen.name)
        if (event := playback.next_of(chosen.name, What.LOGIN)) is not None:
            self.engine.happened(event)
        return session

    def _compare_mechanism(self, connection: Connection, session: Session) -> None:
        used, recorded = self._mechanisms.get(connection), session.mechanism
        if used is None or recorded in (None, used):
            return
        if recorded in self.offered(connection):
            message = f"the client logged in by {used}, recorded was {recorded}, which was offered too"
            met = attrs.evolve(self.engine.playback.session(session.name), mechanism=used)
            self.engine.playback.fact(FailureKind.MISMATCH, session.name, message, met=met)
        else:
            message = f"the client logged in by {used}: {recorded}, which was recorded, cannot be played"
            self.engine.playback.remark(session.name, message)

    def _compare_tls(self, connection: Connection, session: Session) -> None:
        used, recorded = connection.tls_mode, session.tls
        if used == recorded:
            return
        message = f"the client came {_TLS_MODES[used]}, recorded was {_TLS_MODES[recorded]}"
        if self.tls is None:
            self.engine.playback.remark(session.name, f"{message}; no TLS was offered")
        else:
            met = attrs.evolve(self.engine.playback.session(session.name), tls=used)
            self.engine.playback.fact(FailureKind.MISMATCH, session.name, message, met=met)

    def on_resumed(self, session: peer_session.Session) -> None:
        """A session goes on: connected and resumed."""
        name = self._by_jid[session.jid]
        assert isinstance(session.outlet, Connection)
        self._enter(session.outlet, name)
        if (event := self.engine.playback.next_of(name, What.RESUME)) is not None:
            self.engine.happened(event)

    def find_resumable(self, user: str, sm_id: str) -> peer_session.Session | None:
        """Return the session, if a resumption was recorded."""
        found = super().find_resumable(user, sm_id)
        if found is None or self.engine.playback.next_of(self._by_jid[found.jid], What.RESUME) is None:
            return None
        return found

    # Stanzas.

    async def take(self, session: peer_session.Session, element: etree._Element, kind: str) -> None:
        """Look up what a client says."""
        await self._take(self._by_jid[session.jid], element)

    async def _take(self, name: str, element: etree._Element) -> None:
        playback = self.engine.playback
        try:
            live = from_element(element)
        except NotXmpp as error:
            playback.note(FailureKind.STREAM, name, str(error))
            return
        pings = (
            self._is_for_us(name, live)
            and is_ping(live)
            and not any(_is_same_ping(event, live) for event in playback.pending(name))
        )
        if not pings:
            taken = playback.take(name, live)
            if taken.event is None and live.tag == f"{{{ns.CLIENT}}}iq" and live.get("type") in ("get", "set"):
                # Nobody waits for an answer that will not come.
                await self._deliver(name, words.error_reply(element, "service-unavailable"))
        else:
            playback.ignored += 1
            answer = words.iq(
                "result", id_=live.get("id"), from_=live.attributes.get("to"), to=playback.bindings.jids.get(name)
            )
            await self._deliver(name, answer)
        self.engine.wake(name)

    def _is_for_us(self, name: str, live: Node) -> bool:
        """Whether a stanza is for the server, or the account at it: a ping of anybody else is the script's."""
        bare = self.engine.playback.bindings.jids.get(name, "").partition("/")[0]
        return live.get("to") in ("", self.domain, bare)

    async def _deliver(self, name: str, data: bytes) -> None:
        if (session := self._live.get(name)) is not None:
            await session.deliver(data)
        else:
            await self.say_early(name, data)

    def takes_nonza(self, session: peer_session.Session, element: etree._Element) -> bool:
        """Client state indication (XEP-0352) says when a person looks at the screen: no part of a script."""
        return ns.qname(element.tag).namespace == ns.CSI

    def grants_sm(self, session: peer_session.Session, *, wants_resume: bool) -> Literal["no", "yes", "resume"]:
        """Grant what was granted."""
        name = self._by_jid[session.jid]
        granted = self._cassette.session(name).sm
        self._managed.add(name)
        if granted == "no":
            message = "<enable/> of stream management was not recorded"
            self.engine.playback.fact(FailureKind.UNEXPECTED, name, message)  # what to grant is not known
        elif granted == "resume" and not wants_resume:
            message = "the client enabled stream management without resumption, recorded was with it"
            met = attrs.evolve(self.engine.playback.session(name), sm="yes")
            self.engine.playback.fact(FailureKind.MISMATCH, name, message, met=met)
        return granted

    # Partings.

    def on_closed(self, session: peer_session.Session) -> None:
        """The client closed its stream in form; what it was faster than it still gets, before our closing tag."""
        self._say_rest(self._by_jid[session.jid], session)

    def _say_rest(self, name: str, session: peer_session.Session) -> None:
        """Say what is due to a client that leaves: whether it left just before or just after that is an accident."""
        playback = self.engine.playback
        while (event := playback.due(name)) is not None and event.what is not What.QUIET:
            stanza = None
            if event.what is What.STANZA:
                try:
                    stanza = playback.render(event)
                except CannotRender:
                    return  # the engine says so
                data = to_wire(stanza)
                if session.sm is not None:
                    session.sm.on_sent(data)
                if session.outlet is not None:
                    session.outlet.say(data)
            playback.happened(event, stanza)

    def on_connection_ended(self, connection: Connection) -> None:
        """The connection is over."""
        self._open.discard(connection)
        self._mechanisms.pop(connection, None)
        name = self._names.pop(connection, None)
        if name is None:
            self.engine.wake()
            self._fail_refused()
            return
        playback = self.engine.playback
        if connection.left is not None:
            self._left[name] = connection.left
            if connection.left != "closed" and (session := self._live.get(name)) is not None:
                self._say_rest(name, session)
            if name not in self._refused and not playback.missing_before_parting(name):
                playback.part(name, connection.left)
        if playback.next_of(name, What.CONNECT) is None:  # it does not come back
            self._close_case(name, _WHY.get(self._left.get(name), "the client left"))
        self.engine.wake(name)

    def _fail_refused(self) -> None:
        """Without a client that tries again, a login that failed is the end of its session.

        What failed before that may have been anybody: something that looked whether the port is open.
        """
        for name, reason in list(self._refused.items()):
            if not self._open and reason.startswith(_LOGIN):
                self._close_case(name, "")

    def _close_case(self, name: str, why: str) -> None:
        playback = self.engine.playback
        if (excuse := self.excuse(name)) is not None:
            playback.note(excuse[0], name, excuse[1])
        elif playback.missing(name):
            playback.note_missing(name, why)
        elif (left := self._left.get(name)) is not None:
            playback.note_unsaid(name, left)
        playback.skip_rest(name)
        self.engine.wake(name)

    def excuse(self, name: str) -> tuple[FailureKind, str] | None:
        """Return why a session never came to its stanzas, where that is known."""
        reason = self._refused.pop(name, None)
        if reason is None:
            return None
        if reason in (_CAME_DIRECT, _CAME_CLEAR):
            playback = self.engine.playback
            tls: Literal["direct", "starttls"] = "direct" if reason == _CAME_DIRECT else "starttls"
            playback.met[name] = attrs.evolve(playback.session(name), tls=tls)
        return _KINDS[reason.partition(":")[0]], reason

    def is_busy(self) -> bool:
        """Whether somebody is connected, or was and may come back."""
        return bool(self._open) or self.engine.somebody_came

    async def see_off(self) -> None:
        """Wait for what should not come, then end what is still open."""
        playback = self.engine.playback
        settings = self.engine.settings
        seconds = settings.step_seconds if playback.awaits_parting else settings.linger_seconds
        with trio.move_on_after(seconds):
            await self.engine.until(lambda: not self._open)
        for name in self._names.values():
            playback.stayed(name, seconds)
            playback.skip_rest(name)
        for session in list(self._live.values()):
            if isinstance(session.outlet, Connection):
                session.outlet.close_stream()
        with trio.move_on_after(settings.close_seconds_max):
            await self.engine.until(lambda: not self._open)
        for name in list(self._refused):
            self._close_case(name, "")
        for name in self._live:
            if name not in self._managed and self._cassette.session(name).sm != "no":
                message = "the client did not enable stream management, which was recorded"
                met = attrs.evolve(playback.session(name), sm="no")
                playback.fact(FailureKind.MISSING, name, message, met=met)


@attrs.frozen
class _Voice:
    """Says what is due through the server's sessions."""

    server: ReplayServer

    def can(self, event: Event) -> bool:
        """Whether the session is there, or was and is kept by stream management."""
        if event.what is What.QUIET:
            return True
        return event.session in self.server._live or event.session in self.server._names.values()

    async def make(self, event: Event) -> None:
        """Say it."""
        server, playback = self.server, self.server.engine.playback
        session = server._live.get(event.session)
        match event.what:
            case What.STANZA:
                stanza = playback.render(event)
                playback.happened(event, stanza)
                await server._deliver(event.session, to_wire(stanza))
            case What.CLOSE | What.DROP:
                playback.happened(event)
                if session is not None and isinstance(session.outlet, Connection):
                    if event.what is What.CLOSE:
                        session.outlet.close_stream()
                    else:
                        session.outlet.lose()
            case _:
                raise AssertionError(f"{event.what} is the client's")


def _features(features: Sequence[Node], playback: Playback) -> str:
    """Return what is offered, with its placeholders filled in; those that nothing is known for stay as they are."""
    scope = ("", Side.SERVER.value)
    said = []
    for feature in features:
        if is_replayed_feature(feature):
            try:
                live = filled(feature, playback.bindings, scope, playback.clock())
            except CannotRender:
                live = filled(feature, playback.bindings, scope, playback.clock(), lenient=True)
            said.append(render(live))
    return "".join(said)


def _is_same_ping(event: Event, live: Node) -> bool:
    if event.stanza is None or event.side is not Side.CLIENT:
        return False
    return is_ping(event.stanza) or (is_ping_answer(event.stanza) and event.stanza.get("id") == live.get("id"))


@attrs.frozen(kw_only=True)
class Listening:
    """A fake server that listens."""

    address: HostPort
    server: ReplayServer


async def serve_cassette(
    cassette: Cassette,
    *,
    tls: ssl.SSLContext | None,
    passwords: Mapping[str, str],
    host: str = "127.0.0.1",
    port: int = 0,
    settings: ReplaySettings | None = None,
    accept: str | None = None,
    on_said: Callable[[Engine], None] = lambda engine: None,
    on_played: Callable[[Engine], None] = lambda engine: None,
    task_status: "trio.TaskStatus[Listening]" = trio.TASK_STATUS_IGNORED,
) -> Report:
    """Play the cassette to whoever connects; return when it is played out, or a deadline is over.

    ``passwords``: by account name. Clients must trust who signed ``tls``'s certificate; None: no TLS.

    ``accept``: the command that accepts what came, for the report. ``on_said`` gets the engine when every stanza was
    said, or a deadline was over, and clients may still have to leave; ``on_played`` at the end.

    Raises:
        AddressProblem: cannot listen there.
        UsageProblem: its sessions are at several domains.
    """
    settings = settings or ReplaySettings()
    engine = Engine(cassette=cassette, ours=Side.SERVER, settings=settings, passwords=dict(passwords))
    users = {account.user: passwords[account.name] for account in cassette.accounts if account.name in passwords}
    if len(domains := {session.domain for session in cassette.sessions}) > 1:
        raise UsageProblem(
            f"{cassette.file} has sessions at {', '.join(sorted(domains))}, and a fake server is one of them",
            "make a cassette for each domain",
        )
    clear = any(session.tls == "none" for session in cassette.sessions)
    server = ReplayServer(domain=domains.pop(), passwords=users, tls=tls, tls_required=not clear, engine=engine)
    async with one_error(), trio.open_nursery() as nursery:
        try:
            address: HostPort = await nursery.start(functools.partial(server.serve, host=host, port=port))
        except OSError as error:
            raise _cannot_listen(error, host, port) from error
        except BaseExceptionGroup as group:
            if (os_errors := group.split(OSError)[0]) is None:
                raise
            first = os_errors.exceptions[0]
            assert isinstance(first, OSError)
            raise _cannot_listen(first, host, port) from first
        task_status.started(Listening(address=address, server=server))
        await engine.play(_Voice(server), still_busy=server.is_busy, excuse=server.excuse)
        on_said(engine)
        await server.see_off()
        nursery.cancel_scope.cancel()
    report = engine.report(NAME, accept=accept)
    on_played(engine)
    return report


def _cannot_listen(error: OSError, host: str, port: int) -> AddressProblem:
    address = str(HostPort(host, port))
    what = error.strerror or str(error)
    return AddressProblem(
        f"cannot listen on {address}: {what}", "name another with --listen, port 0 lets the system choose",
        address=address,
    )  # fmt: skip
