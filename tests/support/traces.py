"""Capture files made by hand."""

from typing import Any

import attrs

from xproxy.capture.content import redaction
from xproxy.capture.trace import (
    Close,
    Closed,
    Conn,
    End,
    Extra,
    Gap,
    Lost,
    Meta,
    NamesSpent,
    Noted,
    OpenServer,
    Said,
    SessionLine,
    Tick,
    Tls,
    Xml,
    meta_line,
    session_line,
)
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import EndOfInput, Endpoint, Side
from xproxy.events.connection import CloseCause, ConnectionAccepted, UpstreamConnected
from xproxy.events.tls import CertificateFacts, TlsEstablished, TlsFailed, TlsFailure
from xproxy.record.recorder import Observer

OBSERVER = Observer(version="0.1.0", hostname="gateway", boot_id="00112233445566778899aabbccddeeff")
META = Meta(tool="xproxy 0.1.0", created="2026-11-25T20:00:00Z", redaction=redaction(bodies=False), observer=OBSERVER)
AT_NS = 1_795_636_800_000_000_000
TRACE_ID = "0123456789abcdef0123456789abcdef"
CLIENT = Endpoint("192.0.2.7", 50_000)
SERVER = Endpoint("198.51.100.1", 5222)
CERTIFICATE = CertificateFacts(
    sha256="ab" * 32,
    subject_common_name="example.org",
    issuer="CN=Test",
    serial_number="01",
    not_before="2026-01-01T00:00:00Z",
    not_after="2027-01-01T00:00:00Z",
    alternative_names=("example.org",),
)
ESTABLISHED = TlsEstablished(
    leg=Side.SERVER,
    direct=False,
    version="1.3",
    cipher="TLS_AES_256_GCM_SHA384",
    server_name="example.org",
    alpn=None,
    ja4=None,
    resumed=False,
    certificate=CERTIFICATE,
    verify="ok",
    seconds=0.004,
)
FAILED = TlsFailed(leg=Side.CLIENT, direct=False, reason=TlsFailure.PEER_ALERT, alert="unknown_ca", seconds=0.01)


def conn(**changes: object) -> Conn:
    """Return the first line of a session."""
    line = Conn(
        session=1,
        n=1,
        t_ns=0,
        line=2,
        at_ns=AT_NS,
        trace_id=TRACE_ID,
        core_t_ns=0,
        mode="clear",
        limits=StreamLimits(),
        policy=StreamPolicy(domain="example.org"),
    )
    return attrs.evolve(line, **changes)  # type: ignore[arg-type]


def cut_off() -> list[SessionLine]:
    """Return another session, whose capture was cut off at once."""
    return [conn(session=2, trace_id="f" * 32), Lost(session=2, n=2, t_ns=5, line=3, why="size-limit")]


def every_kind() -> list[SessionLine]:
    """Return a session with a line of every kind but one, numbered from 1; it would make no sense."""
    accepted = ConnectionAccepted(client=CLIENT, listener=SERVER)
    connected = UpstreamConnected(host="xmpp.example.org", server=SERVER, local=CLIENT, seconds=0.001)
    names = NamesSpent(offset=812, limit="stream.names_max", max=2_000)
    extra = Extra(record_times=((0, 1_500),), answers=(("missing_mechanisms", ["PLAIN"]),), names=names, lossy=True)
    at: dict[str, Any] = {"session": 1, "n": 0, "t_ns": 0, "line": 0}
    lines: list[SessionLine] = [
        conn(),
        Noted(**at, event=accepted),
        Noted(**at, event=connected),
        Xml(**at, sent_by=Side.CLIENT, phase="plain", data="<a>Grüße\n</a>".encode()),
        Xml(**at, sent_by=Side.SERVER, phase="tls", data=b"\xff\x00<", extra=extra),
        Xml(**at, sent_by=Side.SERVER, phase="bound", data=b""),
        Xml(**at, sent_by=Side.CLIENT, phase="opaque", data=b"x" * 70_000),
        Said(**at, to=Side.SERVER, data=b"<starttls/>"),
        OpenServer(**at, domain="example.org"),
        Tls(**at, event=ESTABLISHED, extra=Extra(answers=(("previous_certificate", None),))),
        Tls(**at, event=FAILED),
        Tick(**at),
        Gap(**at, lines=0, bytes=0),
        End(**at, sent_by=Side.SERVER, how=EndOfInput.TRUNCATED),
        Close(**at, cause=CloseCause.SHUTDOWN, extra=Extra(record_times=((0, 7),))),
        Closed(**at),
    ]
    return [attrs.evolve(line, n=n, t_ns=(n - 1) * 1_000, line=n + 1) for n, line in enumerate(lines, 1)]


def render(lines: list[SessionLine], meta: Meta = META) -> bytes:
    """Return the file."""
    return meta_line(meta) + b"".join(map(session_line, lines))
