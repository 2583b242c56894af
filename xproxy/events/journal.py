"""The journal about itself. These records are control entries of the journal (``xproxy/journal/format.py``)."""

import attrs

from xproxy.events.common import EventBase, Level


@attrs.frozen(kw_only=True)
class JournalOpened(EventBase):
    """A process began to write a stream of the journal."""

    action = "journal-opened"
    level = Level.INFO
    message = "The journal was opened."

    stream: str  # "sec", "ops"
    origin: str
    vkey: str  # the verifier key in force
    segment: str  # name of the first segment written
    index: int  # of its first leaf


@attrs.frozen(kw_only=True)
class JournalCheckpoint(EventBase):
    """The heartbeat: how long the log is and what it hashes to, signed. Comes each minute, also when nothing happens.

    Whoever keeps this record elsewhere is a witness: the log cannot be cut or written anew below it.
    """

    action = "journal-checkpoint"
    level = Level.INFO
    message = "The journal is signed up to here."

    note: tuple[str, ...]  # the newest signed note, its lines without the empty one
    size: int  # leaves it covers
    ops_note: tuple[str, ...] = ()  # the newest of the stream ops; empty: there is none
    clock_back_ns: int | None = None  # the wall clock was set back by this much since the last one


@attrs.frozen(kw_only=True)
class JournalRecovered(EventBase):
    """A start found that the last process had not closed the journal; what that means was settled."""

    action = "journal-recovered"
    level = Level.WARNING
    message = "The journal was not closed; it was recovered."

    stream: str
    segment: str  # the last one that holds log
    unsigned_from: int | None = None  # first index of records that no note covered at the crash
    unsigned_count: int = 0
    torn_bytes: int = 0  # behind the last whole record, zeros not counted
    torn_segments: tuple[str, ...] = ()  # files that hold no log at all


@attrs.frozen(kw_only=True)
class JournalGap(EventBase):
    """Records are not in the journal; this is what they were."""

    action = "journal-gap"
    level = Level.CRITICAL
    message = "Records are missing in the journal."

    stream: str
    reason: str  # "no-space", "io-error" ...; "queue", "disk-nearly-full" for ops
    records: int
    counts: tuple[str, ...]  # "sasl-failed failure 12", most frequent first
    since_ns: int  # UTC, ns since the epoch
    duration_ns: int


@attrs.frozen(kw_only=True)
class JournalFailed(EventBase):
    """A segment of the journal could not be written any more, or its history is not what was signed."""

    action = "journal-failed"
    level = Level.CRITICAL
    message = "The journal failed."

    stream: str
    reason: str  # "no-space", "io-error", "read-only", "directory-gone", "history-lost", "key-lost" ...
    error: str | None = None  # the system's word for it
    segment: str | None = None
    index: int | None = None  # the log ends before this one there


@attrs.frozen(kw_only=True)
class KeyRotated(EventBase):
    """From here on the journal is signed with another key."""

    action = "key-rotated"
    level = Level.WARNING
    message = "The journal's signing key was exchanged."

    stream: str
    vkey: str  # the new one
    previous_vkey: str
