"""A record and its place in the journal."""

from typing import Final

import attrs

from xproxy.events import Level
from xproxy.events.journal import (
    JournalCheckpoint,
    JournalFailed,
    JournalGap,
    JournalOpened,
    JournalRecovered,
    KeyRotated,
)
from xproxy.journal.format import PAYLOAD_BYTES_MAX, EntryType
from xproxy.journal.stream import StreamLog
from xproxy.record.fit import fit
from xproxy.record.recorder import Record

CONTROL_ACTIONS: Final = frozenset(
    event.action
    for event in (JournalOpened, JournalCheckpoint, JournalRecovered, JournalGap, JournalFailed, KeyRotated)
)
"""What the journal says of itself: control entries, in ``sec`` whatever their level."""


@attrs.frozen
class StoredRecord(Record):
    """A record with its number, and its JSON as the journal has it."""

    json: bytes = attrs.field(repr=False)

    def to_json(self) -> bytes:
        """Return the stored JSON as a line."""
        return self.json + b"\n"


def append_record(log: StreamLog, record: Record, tie: int | None = None) -> StoredRecord:
    """Append ``record`` to what the next commit of ``log`` writes; return it with its ``event.sequence``."""
    # The document shares parts with others: what is changed is copied.
    document = {**record.document, "event": {**record.document["event"], "sequence": log.size}}
    payload = fit(document, PAYLOAD_BYTES_MAX)
    type_ = EntryType.CONTROL if record.action in CONTROL_ACTIONS else EntryType.EVENT
    log.append(type_, payload, tie)
    return StoredRecord(document, record.level, record.action, payload)


def is_debug(record: Record) -> bool:
    """Return whether ``record`` belongs to the stream ops."""
    return record.level < Level.INFO and record.action not in CONTROL_ACTIONS


def opened(log: StreamLog) -> JournalOpened:
    """Return the event that follows the open entry of a process's first segment."""
    assert log.segment is not None
    return JournalOpened(
        stream=log.stream,
        origin=log.origin,
        vkey=str(log.keys.current.verifier),
        segment=log.segment,
        index=log.size - 1,  # the open entry is there already
    )
