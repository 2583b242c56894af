"""What a disk that fails is called, and the count of what it did not take."""

import errno
from collections import Counter
from typing import Final

import attrs

from xproxy.events.journal import JournalGap
from xproxy.journal.storage import NO_SPACE
from xproxy.record.recorder import Record

GAP_NAMES_MAX: Final = 64  # of a journal-gap; there are not more actions


@attrs.frozen(kw_only=True)
class Health:
    """Whether records reach the disk."""

    is_ok: bool
    reason: str | None = None  # "no-space", "io-error" ...
    since_ns: int | None = None


@attrs.define
class Gap:
    """Records that did not reach the journal."""

    since_ns: int
    reason: str
    counts: Counter[str] = attrs.Factory(Counter)

    def add(self, record: Record) -> None:
        """Count ``record`` by action and outcome."""
        outcome = record.document["event"].get("outcome")
        self.counts[f"{record.action} {outcome}" if outcome else record.action] += 1

    def to_event(self, stream: str, now_ns: int) -> JournalGap:
        """Return what the journal says of it."""
        return JournalGap(
            stream=stream,
            reason=self.reason,
            records=self.counts.total(),
            counts=tuple(f"{name} {count}" for name, count in self.counts.most_common(GAP_NAMES_MAX)),
            since_ns=self.since_ns,
            duration_ns=max(0, now_ns - self.since_ns),
        )


def reason_of(error: OSError) -> tuple[str, str | None]:
    """Return our word for ``error`` and the system's."""
    code = errno.errorcode.get(error.errno) if error.errno is not None else None
    if error.errno in NO_SPACE:
        return "no-space", code
    match error.errno:
        case errno.EIO:
            return "io-error", code
        case errno.EROFS:
            return "read-only", code
        case errno.EFBIG:
            return "file-too-big", code
        case errno.ESTALE | errno.ENOENT:
            return "directory-gone", code
        case _:
            return "not-writable", code
