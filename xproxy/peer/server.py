"""A small XMPP server for one domain: enough of RFC 6120 and 6121 for real clients to log in and talk.

STARTTLS and direct TLS on one port (told apart by the first byte), PLAIN and SCRAM, resource binding, fixed rosters,
ping, service discovery, messages and requests between its own users, an echo service at ``echo@domain``, stanza and
stream errors, stream management with resumption (XEP-0198). It stores nothing: no offline messages, no subscriptions;
messages that a session had not acknowledged when its time to resume was over are lost with it.
"""

import copy
import functools
import re
import secrets
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import attrs
import trio
from lxml import etree

from xproxy.config.address import HostPort
from xproxy.config.stream import StreamLimits
from xproxy.jid import Jid, JidError
from xproxy.peer import auth, services, words
from xproxy.peer.connection import Connection, StreamRefused
from xproxy.peer.services import StanzaRefused
from xproxy.peer.session import Outlet, Session
from xproxy.peer.wire import Wire
from xproxy.xmpp import ns

CONNECTIONS_MAX: Final = 20_000  # above it new ones are closed at once
ECHO_USER: Final = "echo"
_PRIORITY: Final = re.compile(r"[+-]?[0-9]{1,3}")  # RFC 6121 section 4.7.2.3: -128 to 127
LIMITS: Final = StreamLimits(stanza_bytes_warn=1_048_576)  # 1 MiB a stanza, as the proxy


def _new_token() -> str:
    return secrets.token_urlsafe(12)


@attrs.define(eq=False, kw_only=True)
class Server:
    """One domain. ``serve`` runs it."""

    domain: str
    passwords: Mapping[str, str] = attrs.field(repr=False)
    tls: ssl.SSLContext | None = None  # for the server's side; None: no TLS
    tls_required: bool = True  # no login in clear
    mechanisms: Sequence[str] = auth.MECHANISMS
    rosters: Mapping[str, Mapping[str, str]] = attrs.Factory(dict)  # user -> bare JID -> name; else everybody here
    on_conflict: Literal["replace", "refuse", "rename"] = "replace"  # RFC 6120 section 7.7.2.2
    resume_seconds_max: float = 300.0
    limits: StreamLimits = LIMITS
    token: Callable[[], str] = attrs.field(default=_new_token, repr=False)  # makes stream, resource and SM ids
    accounts: auth.Accounts = attrs.field(init=False, repr=False)
    sessions: dict[Jid, Session] = attrs.field(init=False, factory=dict)  # by full JID, the hibernating ones too
    _connections: set[Connection] = attrs.field(init=False, factory=set)
    _requests: dict[str, trio.MemorySendChannel[etree._Element]] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        """Derive what the fields say."""
        self.tls_required = self.tls_required and self.tls is not None
        self.accounts = auth.Accounts(self.domain, self.passwords)

    # Running.

    async def serve(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        task_status: trio.TaskStatus[HostPort] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled. Reports the address it listens on."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        async with trio.open_nursery() as nursery:
            await nursery.start(
                functools.partial(trio.serve_listeners, self._serve_connection, listeners, handler_nursery=nursery)
            )
            name = listeners[0].socket.getsockname()
            task_status.started(HostPort(name[0], name[1]))

    async def _serve_connection(self, transport: trio.SocketStream) -> None:
        wire = Wire(transport, limits=self.limits)
        if len(self._connections) >= CONNECTIONS_MAX:
            wire.drop()
            return
        connection = Connection(self, wire)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    # What a test or a demo does to its clients.

    def drop(self, jid: str) -> None:
        """Lose the connection of the session ``jid`` (full) without a word."""
        outlet = self.sessions[Jid.from_text(jid)].outlet
        assert isinstance(outlet, Connection)
        outlet.lose()

    def end(self, jid: str, condition: str) -> None:
        """End the stream of the session ``jid`` (full) with an error; the session is over."""
        session = self.sessions[Jid.from_text(jid)]
        self.remove(session)
        if session.outlet is not None:
            session.outlet.end(condition)

    def end_all(self, condition: str = "system-shutdown") -> None:
        """End every stream with an error."""
        for jid in list(self.sessions):
            self.end(str(jid), condition)

    async def push(self, jid: str, stanza: str) -> None:
        """Send any ``stanza`` to the session ``jid`` (full), as it is."""
        await self.sessions[Jid.from_text(jid)].deliver(stanza.encode())

    async def request(self, jid: str, inside: str, *, type_: str = "get") -> etree._Element:
        """Send a request of the domain to the session ``jid`` (full); return the answer, result or error."""
        id_ = self.token()
        send, receive = trio.open_memory_channel[etree._Element](1)
        self._requests[id_] = send
        try:
            stanza = words.iq(type_, id_=id_, from_=self.domain, to=jid, inside=inside)
            await self.sessions[Jid.from_text(jid)].deliver(stanza)
            return await receive.receive()
        finally:
            del self._requests[id_]

    async def ping(self, jid: str) -> bool:
        """Ping the session ``jid`` (full); True when it answered with a result (XEP-0199 section 4.1)."""
        return (await self.request(jid, f"<ping xmlns='{services.PING}'/>")).get("type") == "result"

    # What a connection asks.

    def is_ours(self, domain: str) -> bool:
        """Whether ``domain`` is the one served."""
        try:
            return Jid.from_text(domain) == Jid(None, self.domain)
        except JidError:
            return False

    def bind(self, jid: Jid, outlet: Outlet) -> Session | None:
        """Make a session for the full JID ``jid``; None: the resource is taken and stays so."""
        if (old := self.sessions.get(jid)) is not None:
            if self.on_conflict == "refuse":
                return None
            if self.on_conflict == "rename":
                jid = attrs.evolve(jid, resource=f"{jid.resource}-{self.token()}")
            else:
                self.remove(old)
                if old.outlet is not None:
                    old.outlet.end("conflict")
        session = self.sessions[jid] = Session(jid, outlet, self.remove)
        return session

    def find_resumable(self, user: str, sm_id: str) -> Session | None:
        """Return the session of ``user`` with that resumption id."""
        self._forget_expired()
        for session in self.sessions.values():
            if session.sm is not None and session.sm.id == sm_id and session.jid.local == user:
                return session
        return None

    def on_connection_lost(self, session: Session, connection: Connection) -> None:
        """The connection is gone: the session waits for its client, or goes too."""
        if session.outlet is not connection:
            return  # resumed elsewhere
        session.outlet = None
        if session.sm is not None and session.sm.id is not None:
            session.hibernated_until = trio.current_time() + self.resume_seconds_max
            self._forget_expired()
        else:
            self.remove(session)

    # Where a server of another kind decides otherwise (replay/server.py).

    def takes_opening(self, connection: Connection, *, is_tls: bool) -> bool:
        """Whether a connection may begin so: with TLS (XEP-0368), or in clear; False: it is closed."""
        return True

    def offered(self, connection: Connection) -> Sequence[str]:
        """Return the mechanisms that a connection may log in with."""
        return self.mechanisms

    def login_features(self, connection: Connection) -> str:
        """Return features before login, besides TLS and SASL."""
        return ""

    def session_features(self, user: str) -> str:
        """Return the features once ``user`` is logged in."""
        return f"<bind xmlns='{ns.BIND}'/><session xmlns='{ns.SESSION}'><optional/></session><sm xmlns='{ns.SM3}'/>"

    def check_login(self, connection: Connection, mechanism: str) -> None:
        """Say whether anybody may log in at all.

        Raises:
            SaslRefused: not now.
        """

    async def take_before_login(self, connection: Connection, element: etree._Element) -> bool:
        """Take a stanza before login; False: it ends the stream."""
        return False

    def grants_sm(self, session: Session, *, wants_resume: bool) -> Literal["no", "yes", "resume"]:
        """Whether the session may have stream management, and may resume, if it wants to."""
        return "resume"

    def takes_nonza(self, session: Session, element: etree._Element) -> bool:
        """Take a first-level element that is no stanza; False: it ends the stream."""
        return False

    def on_tls_refused(self, connection: Connection, reason: str) -> None:
        """TLS could not be established."""

    def on_login_refused(self, connection: Connection, condition: str) -> None:
        """An attempt to log in failed."""

    def on_stream_refused(self, connection: Connection, condition: str) -> None:
        """The client's stream is ended with an error."""

    def on_resumed(self, session: Session) -> None:
        """A session goes on over a new connection."""

    def on_closed(self, session: Session) -> None:
        """The client said its closing tag."""

    def on_connection_ended(self, connection: Connection) -> None:
        """The connection is over, with a session or without."""

    def remove(self, session: Session) -> None:
        """The session is over."""
        session.sm = None
        if self.sessions.get(session.jid) is session:
            del self.sessions[session.jid]

    def _forget_expired(self) -> None:
        now = trio.current_time()
        for session in [s for s in self.sessions.values() if s.hibernated_until is not None]:
            if session.hibernated_until is not None and session.hibernated_until < now:
                self.remove(session)

    # Stanzas (RFC 6120 section 8 and 10, RFC 6121 section 8).

    async def take(self, session: Session, element: etree._Element, kind: str) -> None:
        """Answer or pass on a stanza of ``session``.

        Raises:
            StreamRefused: the stream ends.
        """
        stanza = copy.deepcopy(element)  # without its parent it does not bear the stream's namespaces along
        stanza.tail = None
        etree.cleanup_namespaces(stanza)
        if stanza.get("from", str(session.jid)) not in (str(session.jid), str(session.jid.bare)):
            raise StreamRefused("invalid-from")  # RFC 6120 section 8.1.2.1
        stanza.set("from", str(session.jid))
        try:
            if kind == "iq":
                services.check_request(stanza)
            try:
                to = session.jid.bare if (text := stanza.get("to")) is None else Jid.from_text(text)
            except JidError:
                raise StanzaRefused("jid-malformed") from None
            match kind:
                case "iq":
                    await self._take_iq(session, stanza, to)
                case "message":
                    await self._take_message(session, stanza, to)
                case _:
                    await self._take_presence(session, stanza, to)
        except StanzaRefused as refused:
            if not _answers(stanza, kind):
                await session.deliver(words.error_reply(stanza, refused.condition))

    async def _take_iq(self, session: Session, stanza: etree._Element, to: Jid) -> None:
        is_request = stanza.get("type") in ("get", "set")
        if not is_request and (waiting := self._requests.get(stanza.get("id", ""))) is not None:
            waiting.send_nowait(stanza)
            return
        if to == session.jid.bare and is_request:
            inside = services.answer_account(stanza, roster=self._roster(session.jid))
        elif to == Jid(None, self.domain) and is_request:
            inside = services.answer_domain(stanza)
        else:
            await self._route(stanza, to)
            return
        id_, from_ = stanza.get("id", ""), stanza.get("to")
        await session.deliver(words.iq("result", id_=id_, to=str(session.jid), from_=from_, inside=inside))

    async def _take_message(self, session: Session, stanza: etree._Element, to: Jid) -> None:
        if to.domain == self.domain and to.local == ECHO_USER and ECHO_USER not in self.accounts:
            if stanza.get("type") != "error":
                stanza.set("to", str(session.jid))
                stanza.set("from", str(to))
                await session.deliver(words.render(stanza))
            return
        if to.resource is not None and to in self.sessions:
            await self.sessions[to].deliver(words.render(stanza))
            return
        if to.resource is not None and stanza.get("type") in ("groupchat", "headline", "error"):
            raise StanzaRefused("service-unavailable")
        # To the account, or to a resource that is gone: its available resources (RFC 6121 sections 8.5.2.1, 8.5.3.2.1).
        self._check_is_here(to)
        receivers = [s for s in self._sessions_of(to) if s.is_available and s.priority >= 0]
        if not receivers:
            raise StanzaRefused("service-unavailable")
        for receiver in receivers:
            await receiver.deliver(words.render(stanza))

    async def _take_presence(self, session: Session, stanza: etree._Element, to: Jid) -> None:
        if stanza.get("to") is not None:
            await self._route(stanza, to)
            return
        session.is_available = stanza.get("type") is None
        text = words.text_of(stanza.find("{*}priority"))
        session.priority = int(text) if _PRIORITY.fullmatch(text) else 0
        for other in self._sessions_of(session.jid):
            if other.is_available:
                stanza.set("to", str(other.jid.bare))
                await other.deliver(words.render(stanza))

    async def _route(self, stanza: etree._Element, to: Jid) -> None:
        self._check_is_here(to)
        if (receiver := self.sessions.get(to)) is None:
            raise StanzaRefused("service-unavailable")  # RFC 6121 sections 8.5.1, 8.5.3.2.3
        await receiver.deliver(words.render(stanza))

    def _check_is_here(self, to: Jid) -> None:
        if to.domain != self.domain:
            raise StanzaRefused("remote-server-not-found")  # this server knows no others

    def _sessions_of(self, jid: Jid) -> list[Session]:
        return [session for session in self.sessions.values() if session.jid.bare == jid.bare]

    def _roster(self, jid: Jid) -> list[tuple[str, str]]:
        assert jid.local is not None
        if (fixed := self.rosters.get(jid.local)) is not None:
            return list(fixed.items())
        others = [user for user in self.accounts if user != jid.local]
        return [(f"{user}@{self.domain}", user) for user in (*others, ECHO_USER)]


def _answers(stanza: etree._Element, kind: str) -> bool:
    """Whether a stanza is itself an answer, or presence: never answered with an error (RFC 6120 section 8.3.1)."""
    return kind == "presence" or stanza.get("type") in ("error", "result")
