"""How a session stands now, for whoever looks on: made when it is asked for, from what is counted anyway."""

import logging
import socket

import attrs

from xproxy.events.connection import DirectionTotals
from xproxy.proxy.diagnose import frames_of
from xproxy.proxy.flow import Flow, Leg
from xproxy.proxy.seams import SessionCore
from xproxy.proxy.sockets import seconds_since_data
from xproxy.record.document import Document
from xproxy.xmpp.actions import Progress

log = logging.getLogger(__name__)

_NS = 1_000_000_000
_NOTHING = DirectionTotals(
    bytes=0, stanzas=0, errors=0, closing_tag=False, end=None, last_element=None, last_element_age_ms=None
)


@attrs.frozen(kw_only=True)
class LegSnapshot:
    """One of our two connections."""

    tls_version: str | None  # "1.3"; None: in clear
    waiting_bytes: int  # read from the other leg, not taken by this one yet
    silent_seconds: float | None  # since its peer last sent something; None: the system does not say


@attrs.frozen(kw_only=True)
class SessionSnapshot:
    """One session."""

    known: Document  # as its records say: client, server, xmpp.jid and the like, covered as in records
    way: str  # a value of ``arrival.WayIn``
    phase: str  # "first-byte", "connecting", "passthrough", or that of the core
    mechanism: str | None
    age_seconds: float
    idle_seconds: float | None  # since any peer last sent something
    client: LegSnapshot
    server: LegSnapshot | None
    from_client: DirectionTotals
    from_server: DirectionTotals


def snapshot_of(
    *,
    known: Document,
    way: str,
    age_ns: int,
    sock: socket.socket,
    core: SessionCore | None,
    flow: Flow | None,
    passed_on: bool,
    at_ns: int,
) -> SessionSnapshot:
    """Return how a session stands that was accepted on ``sock`` and has come as far as ``core`` and ``flow``.

    ``passed_on``: it is relayed undecrypted.
    """
    if flow is not None:
        client, server = _leg(flow.client), _leg(flow.server)
    else:
        client = LegSnapshot(tls_version=None, waiting_bytes=0, silent_seconds=seconds_since_data(sock))
        server = None
    progress, closed = None, None
    if core is not None:
        try:
            progress, closed = core.progress(), core.closed(at_ns)
        except Exception as error:  # a bug of ours in one session must not hide all others
            log.error("a session cannot say how it stands: %s", frames_of(error))
    silences = [leg.silent_seconds for leg in (client, server) if leg is not None and leg.silent_seconds is not None]
    if not silences and closed is not None:  # the system does not say: since the last element, keepalives not counted
        ages = (closed.from_client.last_element_age_ms, closed.from_server.last_element_age_ms)
        silences = [age / 1_000 for age in ages if age is not None]
    return SessionSnapshot(
        known=known,
        way=way,
        phase=_phase(progress, flow, passed_on=passed_on),
        mechanism=progress.mechanism if progress is not None else None,
        age_seconds=max(0.0, age_ns / _NS),
        idle_seconds=min(silences, default=None),
        client=client,
        server=server,
        from_client=closed.from_client if closed is not None else _NOTHING,
        from_server=closed.from_server if closed is not None else _NOTHING,
    )


def _phase(progress: Progress | None, flow: Flow | None, *, passed_on: bool) -> str:
    if passed_on:
        return "passthrough"
    if progress is None:
        return "first-byte"
    return progress.phase if flow is not None else "connecting"


def _leg(leg: Leg) -> LegSnapshot:
    version = leg.tls.version() if leg.tls is not None and leg.tls.fileno() >= 0 else None
    return LegSnapshot(
        tls_version=version.removeprefix("TLSv") if version is not None else None,
        waiting_bytes=leg.waiting_bytes(),
        silent_seconds=seconds_since_data(leg.sock),
    )
