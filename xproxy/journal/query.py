"""Which records of the journal one wants to see, and in which order those of two streams stand.

A filter looks at the stored bytes first where it can: finding a session in a million records must not mean to read a
million JSON documents.

**Order.** Each stream is in the order of its indexes. An ``ops`` entry is tied to how many entries ``sec``
had durable when it was made; it is shown behind those, before all later ones. Clocks play no part.
"""

import fnmatch
import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import orjson

from xproxy.events import Level
from xproxy.journal.format import Entry, EntryType
from xproxy.journal.reader import BATCH_COUNT_MAX, StreamReader
from xproxy.log.filters import level_from_name
from xproxy.record.document import Document, timestamp
from xproxy.record.recorder import Record

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_RECORDS = frozenset({EntryType.EVENT, EntryType.CONTROL})
_JID_FIELDS = (
    ("xmpp", "jid"),
    ("xmpp", "sasl", "authzid"),
    ("xmpp", "stanza", "from"),
    ("xmpp", "stanza", "to"),
    ("xmpp", "stream", "from"),
)


@attrs.frozen(kw_only=True)
class StoredEntry:
    """A record as it was found."""

    stream: str  # "sec", "ops"
    index: int
    time_ns: int
    tie: int | None
    document: Document
    payload: bytes = attrs.field(repr=False)  # the JSON as stored, without line end

    @property
    def record(self) -> Record:
        """The record, to be rendered."""
        document = self.document
        return Record(document, level_from_name(document["log"]["level"]), document["event"]["action"])


@attrs.frozen(kw_only=True)
class Query:
    """What a record must be. None or nothing: anything."""

    since_ns: int | None = None
    until_ns: int | None = None
    actions: tuple[str, ...] = ()  # names, or patterns such as sasl-*
    level: Level = Level.DEBUG  # and above
    jid: str | None = None  # bare, full, or a domain
    network: Network | None = None
    trace: str | None = None  # a trace.id or its beginning
    _needle: bytes | None = attrs.field(init=False, repr=False)
    _since: str | None = attrs.field(init=False, repr=False)
    _until: str | None = attrs.field(init=False, repr=False)

    @_needle.default
    def _find_needle(self) -> bytes | None:
        """Return what stands in the stored bytes of every record that matches."""
        if self.trace:
            return f'"{self.trace}'.encode()
        if len(self.actions) == 1 and not _is_pattern(self.actions[0]):
            return f'"action":"{self.actions[0]}"'.encode()
        if self.network is not None and self.network.num_addresses == 1:
            return f'"{self.network.network_address}"'.encode()
        return None

    @_since.default
    def _write_since(self) -> str | None:
        return None if self.since_ns is None else timestamp(self.since_ns)

    @_until.default
    def _write_until(self) -> str | None:
        return None if self.until_ns is None else timestamp(self.until_ns)

    def may_match(self, payload: bytes) -> bool:
        """Return False if ``payload`` cannot be a record that matches."""
        return self._needle is None or self._needle in payload

    def matches(self, document: Document) -> bool:
        """Return whether the record is wanted."""
        time = document["@timestamp"]
        if (self._since is not None and time < self._since) or (self._until is not None and time > self._until):
            return False
        if level_from_name(document["log"]["level"]) < self.level:
            return False
        action = document["event"]["action"]
        if self.actions and not any(fnmatch.fnmatchcase(action, pattern) for pattern in self.actions):
            return False
        if self.trace is not None and not str(_get(document, ("trace", "id")) or "").startswith(self.trace):
            return False
        if self.network is not None and not any(map(self._is_inside, _get(document, ("related", "ip")) or ())):
            return False
        return self.jid is None or self._concerns_jid(document, self.jid.lower())

    def _is_inside(self, text: str) -> bool:
        assert self.network is not None
        try:
            return ipaddress.ip_address(text) in self.network
        except ValueError:
            return False

    def _concerns_jid(self, document: Document, wanted: str) -> bool:
        for path in _JID_FIELDS:
            jid = _get(document, path)
            if not isinstance(jid, str):
                continue
            full = jid.lower()
            bare = full.partition("/")[0]
            if wanted in (full, bare) or ("@" not in wanted and wanted == bare.rpartition("@")[2]):
                return True
        return False


def read_matching(reader: StreamReader, stream: str, query: Query, start: int, end: int) -> Iterator[StoredEntry]:
    """Yield the records of ``stream`` that match, of the entries ``start`` to ``end``.

    Raises: JournalDamaged; FileProblem.
    """
    index = start
    while index < end:
        batch = reader.read(index, min(BATCH_COUNT_MAX, end - index))
        if not batch:
            return
        yield from matching(batch, stream, query)
        index += len(batch)


def matching(batch: Sequence[Entry], stream: str, query: Query) -> Iterator[StoredEntry]:
    """Yield the records among ``batch`` that match."""
    for entry in batch:
        if entry.type not in _RECORDS or entry.is_sealed or not query.may_match(entry.payload):
            continue
        document = orjson.loads(entry.payload)
        if query.matches(document):
            yield StoredEntry(
                stream=stream,
                index=entry.index,
                time_ns=entry.time_ns,
                tie=entry.tie,
                document=document,
                payload=entry.payload,
            )


def read_last(reader: StreamReader, stream: str, query: Query, count: int) -> list[StoredEntry]:
    """Return the last ``count`` durable records that match, in order. Raises: JournalDamaged; FileProblem."""
    found: list[StoredEntry] = []
    end, step = reader.durable, max(64, count)
    while end > 0 and len(found) < count:
        start = max(0, end - step)
        found = [*read_matching(reader, stream, query, start, end), *found]
        end, step = start, min(step * 2, 65_536)
    return found[-count:] if count else []


def merge(sec: Iterator[StoredEntry], ops: Iterator[StoredEntry]) -> Iterator[StoredEntry]:
    """Yield both in the order in which they were made."""
    waiting = next(ops, None)
    for entry in sec:
        while waiting is not None and (waiting.tie or 0) <= entry.index:
            yield waiting
            waiting = next(ops, None)
        yield entry
    if waiting is not None:
        yield waiting
        yield from ops


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _get(document: Document, path: tuple[str, ...]) -> Any:
    value: Any = document
    for key in path:
        if not isinstance(value, dict) or (value := value.get(key)) is None:
            return None
    return value
