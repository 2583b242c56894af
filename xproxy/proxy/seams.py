"""What the relay is handed: the shapes of its collaborators, so that it knows none of their modules."""

from collections.abc import Callable
from typing import Protocol

from xproxy.events import EndOfInput, Endpoint, Event, Side
from xproxy.events.connection import CloseCause, ConnectionClosed, UpstreamFailure
from xproxy.events.tls import TlsEstablished, TlsFailed, TlsPassthrough
from xproxy.record.document import Document
from xproxy.record.recorder import Record
from xproxy.xmpp.actions import Action, LegMode, Progress, VerifyName
from xproxy.xmpp.names import NameTally


class SessionCore(Protocol):
    """What decides about one session: ``xproxy.xmpp.session.Session``."""

    @property
    def next_tick_ns(self) -> int | None:
        """When to call ``tick``; None: never, as it stands."""

    @property
    def left_at_certificate(self) -> bool:
        """Whether the client went without a word inside TLS."""

    @property
    def is_costly(self) -> bool:
        """Whether what peers send takes long to look at, up to 2 us an octet; once it does not, it never does again."""

    def receive(self, side: Side, data: bytes, at_ns: int) -> list[Action]:
        """Take bytes."""

    def renew_parsers(self) -> None:
        """Go on with new parsers: the dictionary of XML names was replaced. For sessions that are not costly."""

    def open_server_stream(self, domain: str, at_ns: int) -> list[Action]:
        """The server begins in clear and the client with TLS, asking for ``domain``."""

    def tls_established(self, facts: TlsEstablished, at_ns: int) -> list[Action]:
        """TLS is up on a leg; the server's is told first."""

    def tls_passed_on(self, facts: TlsPassthrough, at_ns: int) -> list[Action]:
        """There will be no TLS of ours: everything is relayed as it comes."""

    def tls_failed(self, failure: TlsFailed, at_ns: int) -> list[Action]:
        """TLS failed on a leg."""

    def end_of_input(self, side: Side, how: EndOfInput, at_ns: int) -> list[Action]:
        """A peer will send no more; told a second time, it also takes no more."""

    def tick(self, at_ns: int) -> list[Action]:
        """``next_tick_ns`` has come."""

    def close(self, cause: CloseCause, at_ns: int) -> list[Action]:
        """The proxy ends the session."""

    def closed(self, at_ns: int) -> ConnectionClosed:
        """Both legs are gone, or the totals so far are asked for: nothing changes by it."""

    def progress(self) -> Progress:
        """How far the session has come."""


class Recorder(Protocol):
    """Makes records of events: ``xproxy.record.SessionRecorder`` and ``ProxyRecorder``."""

    def record(self, event: Event, at_ns: int) -> Record:
        """Return the record of ``event``, seen at ``at_ns`` (UTC ns)."""


class SessionNotes(Recorder, Protocol):
    """Makes the records of one session: ``xproxy.record.SessionRecorder``."""

    def known(self) -> Document:
        """Return what its records say of the session by now: who, from where, how far proven."""


class Channel(Protocol):
    """Takes records away: ``xproxy.log.channel.RecordChannel``."""

    @property
    def is_full(self) -> bool:
        """Whether the high mark is passed: no leg is read until it is not."""

    def put_nowait(self, records: list[Record]) -> None:
        """Take ``records``. Never blocks and never drops."""

    async def wait_not_full(self) -> None:
        """Return when ``is_full`` is False."""


class Answer(Protocol):
    """Tells a client that waits for it, before it speaks, what became of its request: SOCKS5's reply."""

    def connected(self, local: Endpoint | None) -> None:
        """The client may speak; ``local``: our end of the connection to the server, None if there is none yet."""

    def failed(self, failure: UpstreamFailure) -> None:
        """There is no connection to the server."""


NewSession = Callable[[LegMode, int, NameTally], SessionCore]  # mode, time of accept, names of the client's address
NewRecorder = Callable[[str], SessionNotes]  # trace id


class Tap(Protocol):
    """Sees what sessions are told: ``xproxy.capture.service``."""

    def session(
        self, trace_id: str, recorder: SessionNotes, new_session: NewSession
    ) -> tuple[SessionNotes, NewSession]:
        """Return what the session ``trace_id`` is to use in place of these; the same where it is not looked at."""


VerifyUpstreamName = Callable[[VerifyName], TlsFailed | None]
