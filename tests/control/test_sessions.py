"""The list of sessions: order, limit, and that peers' words cannot reach a terminal as they are."""

import json
from typing import Literal

import attrs
import pytest

from xproxy.control.router import Refused
from xproxy.control.sessions import SLICE, list_sessions, passed_row, row_of
from xproxy.control.words import SORTS
from xproxy.events import Endpoint
from xproxy.events.common import Side
from xproxy.events.connection import (
    ConnectionAccepted,
    ConnectionRefused,
    DirectionTotals,
    RefusalReason,
    UpstreamFailed,
    UpstreamFailure,
    WayIn,
)
from xproxy.events.stream import StreamOpened
from xproxy.events.tls import TlsPassthrough
from xproxy.proxy.passthrough import ClientKey, PassedClient
from xproxy.proxy.snapshot import LegSnapshot, SessionSnapshot
from xproxy.record.identities import Identities, IdentityKey
from xproxy.record.recorder import Observer, SessionRecorder

OBSERVER = Observer(version="0", hostname="gw1", boot_id="5f" * 16)
LEG = LegSnapshot(tls_version="1.3", waiting_bytes=0, silent_seconds=1.0)
NOTHING = DirectionTotals(
    bytes=0, stanzas=0, errors=0, closing_tag=False, end=None, last_element=None, last_element_age_ms=None
)


def totals(octets: int = 0, stanzas: int = 0) -> DirectionTotals:
    return attrs.evolve(NOTHING, bytes=octets, stanzas=stanzas)


def recorder(number: int) -> SessionRecorder:
    made = SessionRecorder(trace_id=f"{number:032x}", observer=OBSERVER)
    made.record(ConnectionAccepted(client=Endpoint(f"192.0.2.{number}", 50_000), listener=Endpoint("::1", 5222)), 0)
    return made


def snapshot(number: int) -> SessionSnapshot:
    """The higher the number, the older, the idler, the busier."""
    return SessionSnapshot(
        known=recorder(number).known(),
        way="plain",
        phase="established",
        mechanism=None,
        age_seconds=float(number),
        idle_seconds=float(number),
        client=attrs.evolve(LEG, waiting_bytes=number),
        server=LEG,
        from_client=totals(number, number),
        from_server=totals(),
    )


def opened(to: str, from_: str) -> StreamOpened:
    return StreamOpened(
        sent_by=Side.CLIENT, to=to, from_=from_, has_id=False, version="1.0", lang=None,
        content_namespace="jabber:client", xml_declaration=True,
    )  # fmt: skip


@pytest.mark.parametrize("sort", SORTS)
async def test_every_order_is_one(sort: str) -> None:
    count = SLICE * 2 + 1
    listed = await list_sessions([snapshot(number) for number in range(1, count + 1)], sort=sort, limit=3)
    assert listed["total"] == count
    first, *_ = rows = listed["sessions"]
    assert len(rows) == 3
    if sort in ("client", "jid"):
        assert first["client"] == "192.0.2.1:50000"
    else:
        assert first["client"] == f"192.0.2.{count}:50000"


async def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(Refused, match="cannot be sorted by 'x'"):
        await list_sessions([], sort="x", limit=None)


def test_addresses_and_what_is_not_known() -> None:
    row = row_of(attrs.evolve(snapshot(7), server=None, idle_seconds=None))
    assert (row["client"], row["listener"], row["upstream"]) == ("192.0.2.7:50000", "[::1]:5222", None)
    assert (row["jid"], row["jid_source"], row["tls"]) == (None, None, {"client": "1.3", "server": None})


def test_what_peers_say_is_cleaned() -> None:
    recording = recorder(1)
    recording.record(opened("ex\x1b[2Jample.org", "ro\u202emeo@example.org"), 0)
    row = row_of(attrs.evolve(snapshot(1), known=recording.known()))
    assert (row["domain"], row["jid"]) == ("ex\\u{1b}[2Jample.org", "ro\\u{202e}meo@example.org")
    assert row["jid_source"] == "stream-from"
    passed = PassedClient(
        key=ClientKey(address="192.0.2.1", server_name="ex\x1b[2J", ja4="t13"), refusal="closed", refused_at_ns=0,
        expires_at_ns=1,
    )  # fmt: skip
    assert passed_row(passed, lambda facts: facts)["server_name"] == "ex\\u{1b}[2J"
    assert passed_row(passed, lambda facts: {})["client"] is None


@pytest.mark.parametrize("mode", ["pseudonym", "omit"])
def test_neither_ways_in_nor_out_show_who_it_is(mode: Literal["pseudonym", "omit"]) -> None:
    """A client may name itself wherever a host is asked for: in its hello, its stream header, its SOCKS5 request."""
    who, client, balancer, dialled = "julietsecret@hidden.example", "192.0.2.77", "203.0.113.88", "198.51.100.99"
    identities = Identities(mode, IdentityKey("2026-11", bytes(32)) if mode == "pseudonym" else None)
    recording = SessionRecorder(trace_id=f"{1:032x}", observer=OBSERVER, identities=identities)
    written = b""
    for event in (
        ConnectionAccepted(
            client=Endpoint(client, 50_000),
            listener=Endpoint("127.0.0.1", 5222),
            way=WayIn.PROXY_PROTOCOL,
            balancer=Endpoint(balancer, 40_000),
            dialled=Endpoint(dialled, 5222),
            destination=f"{who}:5222",
        ),
        ConnectionRefused(
            client=Endpoint(client, 50_000),
            listener=Endpoint("127.0.0.1", 5222),
            reason=RefusalReason.DESTINATION_REFUSED,
            limit=None,
            detail="a host that is not served",
            way=WayIn.SOCKS5,
            balancer=Endpoint(balancer, 40_000),
            destination=f"{who}:5222",
        ),
        opened(who, who),
        UpstreamFailed(
            host=who, port=0, reason=UpstreamFailure.NO_DOMAIN, errno=None, seconds=0.0, domain=who, tried=0
        ),
        TlsPassthrough(
            stage="begin", direct=True, server_name=who, alpn=(), ja4="t13", refusal="unknown_ca", refused_at_ns=0,
            expires_at_ns=1,
        ),
    ):  # fmt: skip
        written += recording.record(event, 0).to_json()
    row = row_of(attrs.evolve(snapshot(1), known=recording.known()))
    passed = PassedClient(
        key=ClientKey(address=client, server_name=who, ja4="t13"), refusal="closed", refused_at_ns=0, expires_at_ns=1
    )
    shown = written.decode() + json.dumps([row, passed_row(passed, identities.apply)])
    for text in ("julietsecret", client, balancer, dialled):
        assert text not in shown, text
    assert ("hidden.example" in shown) == (mode == "pseudonym")
    assert ("192.0.2.0" in shown) == (mode == "pseudonym")
