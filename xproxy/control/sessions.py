"""The sessions of a running proxy as documents, sorted and cut: ``GET /v1/sessions``.

What the log may not hold of a session (``--identities``), this does not show either: who and where come from the
session's recorder, covered and cleaned as in its records.

A thousand sessions in one go would stop the relay for some 30 ms, so it is let through after each ``SLICE``. Measured:
1 000 were listed in 0.14 s, and of 300 round trips through the proxy meanwhile the longest took 6 ms.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import trio

from xproxy.control.router import Document, Refused
from xproxy.control.words import SORTS
from xproxy.events.connection import DirectionTotals
from xproxy.proxy.passthrough import PassedClient
from xproxy.proxy.snapshot import LegSnapshot, SessionSnapshot
from xproxy.record.document import Facts, timestamp, write_facts

SLICE: Final = 32  # sessions between two checkpoints: about a millisecond

Row = dict[str, Any]

_KEYS: Final[Mapping[str, Callable[[Row], Any]]] = {
    "age": lambda row: -row["age_seconds"],
    "idle": lambda row: -(row["idle_seconds"] or 0.0),
    "bytes": lambda row: -(row["from_client"]["bytes"] + row["from_server"]["bytes"]),
    "stanzas": lambda row: -(row["from_client"]["stanzas"] + row["from_server"]["stanzas"]),
    "waiting": lambda row: -(row["to_client"]["waiting_bytes"] + row["to_server"]["waiting_bytes"]),
    "jid": lambda row: (row["jid"] is None, row["jid"] or ""),
    "client": lambda row: _address_key(row["client"]),
    "phase": lambda row: (row["phase"], -row["age_seconds"]),
}
"""Of each order: most first, addresses by number, other texts alphabetically; what is not known last."""
assert _KEYS.keys() == set(SORTS)


async def list_sessions(snapshots: Iterable[SessionSnapshot], *, sort: str, limit: int | None) -> Document:
    """Return the sessions, at most ``limit``, and how many there are.

    Raises:
        Refused: there is no such order.
    """
    if sort not in _KEYS:
        raise Refused(400, f"sessions cannot be sorted by {sort!r}", f"one of {', '.join(SORTS)}")
    rows: list[Row] = []
    for number, snapshot in enumerate(snapshots, 1):
        rows.append(row_of(snapshot))
        if number % SLICE == 0:
            await trio.lowlevel.checkpoint()
    rows.sort(key=_KEYS[sort])
    return {"total": len(rows), "sort": sort, "sessions": rows if limit is None else rows[:limit]}


def row_of(snapshot: SessionSnapshot) -> Row:
    """Return one session as a document."""
    known = snapshot.known
    xproxy, xmpp = known.get("xproxy", {}), known.get("xmpp", {})
    server = known.get("server", {})
    return {
        "trace_id": known.get("trace", {}).get("id"),
        "client": _endpoint(known.get("client", {})),
        "listener": _endpoint(xproxy.get("listener", {})),
        "way_in": snapshot.way,
        "jid": xmpp.get("jid"),
        "jid_source": xmpp.get("jid_source"),
        "domain": server.get("domain"),
        "phase": snapshot.phase,
        "tls": {
            "client": snapshot.client.tls_version,
            "server": snapshot.server.tls_version if snapshot.server is not None else None,
        },
        "mechanism": snapshot.mechanism,
        "upstream": _endpoint(server),
        "upstream_verify": xproxy.get("upstream", {}).get("verify"),
        "age_seconds": round(snapshot.age_seconds, 3),
        "idle_seconds": snapshot.idle_seconds,
        "from_client": _totals(snapshot.from_client),
        "from_server": _totals(snapshot.from_server),
        "to_client": _leg(snapshot.client),
        "to_server": _leg(snapshot.server),
    }


def passed_row(client: PassedClient, cover: Callable[[Facts], Facts]) -> Row:
    """Return a client that is let through undecrypted; ``cover`` does to identities what is done in records."""
    key = client.key
    facts: Facts = {"client.ip": key.address, "tls.client.server_name": key.server_name, "xproxy.tls.ja4": key.ja4}
    known: dict[str, Any] = {}
    write_facts(known, cover(facts))  # what a client said is cleaned there
    return {
        "client": known.get("client", {}).get("ip"),
        "server_name": known.get("tls", {}).get("client", {}).get("server_name"),
        "ja4": known.get("xproxy", {}).get("tls", {}).get("ja4"),
        "refusal": client.refusal,
        "refused_at": timestamp(client.refused_at_ns),
        "expires_at": timestamp(client.expires_at_ns),
        "sessions": client.sessions,
    }


def _address_key(endpoint: str | None) -> tuple[int, bytes, int]:
    """Return by what ``endpoint`` is sorted: IPv4, IPv6, unknown; then by number."""
    if endpoint is None:
        return (9, b"", 0)
    host, _, port = endpoint.rpartition(":")
    address = ipaddress.ip_address(host.strip("[]"))
    return (address.version, address.packed, int(port))


def _endpoint(known: Mapping[str, Any]) -> str | None:
    ip, port = known.get("ip"), known.get("port")
    if ip is None:
        return None
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _totals(totals: DirectionTotals) -> Row:
    return {"bytes": totals.bytes, "stanzas": totals.stanzas, "errors": totals.errors}


def _leg(leg: LegSnapshot | None) -> Row:
    return {
        "waiting_bytes": leg.waiting_bytes if leg is not None else 0,
        "silent_seconds": leg.silent_seconds if leg is not None else None,
    }
