"""The stream ``ops``: debug records, durable within a second, dropped and counted where they are in the way.

It begins with the first debug record. Its failures never touch ``sec``: what could not be written is counted, and the
next heartbeat of ``sec`` says so (journal-gap); after ``RETRY_SECONDS`` it is tried again.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from xproxy.events import Event
from xproxy.events.journal import JournalGap
from xproxy.journal.failures import Gap, reason_of
from xproxy.journal.format import OpenReason
from xproxy.journal.stored import append_record, opened
from xproxy.journal.stream import CommitFailed, StreamLog
from xproxy.record.recorder import Record

COMMIT_SECONDS: Final = 1.0  # until a debug record is durable
COMMIT_BYTES: Final = 1_048_576  # or until so much waits
RETRY_SECONDS: Final = 60.0

logger = logging.getLogger(__name__)


class DebugStream:
    """The stream ops of a running journal. For the writer thread."""

    def __init__(
        self,
        *,
        open_: Callable[[], StreamLog],
        record: Callable[[Event], Record],
        sec_size: Callable[[], int],
        wall_ns: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        """``sec_size``: how many entries of the other stream are durable: what entries are tied to."""
        self._open = open_
        self._record = record
        self._sec_size = sec_size
        self._wall_ns = wall_ns
        self._monotonic = monotonic
        self.log: StreamLog | None = None  # once it was opened
        self.commit_at: float | None = None  # set while something waits
        self._retry_at = 0.0
        self._pending: list[Record] = []
        self._gap: Gap | None = None

    def settle(self) -> None:
        """At a start, where there is such a stream: name what a crash has left of it."""
        try:
            self.log = self._open()
        except OSError as error:
            self._failed(error)
            return
        recovered = self.log.recovered
        if (recovered is None or not recovered.was_closed) and self.ready() is not None:
            self.commit()

    def ready(self) -> StreamLog | None:
        """Return the log with a live segment; None: it cannot be written now."""
        if self._monotonic() < self._retry_at:
            return None
        try:
            if self.log is None:
                self.log = self._open()
            log = self.log
            if not log.is_live:
                reason = log.next_reason
                log.begin()
                if reason in (OpenReason.CREATED, OpenReason.STARTED):
                    append_record(log, self._record(opened(log)), self._sec_size())
        except (OSError, CommitFailed) as error:
            self._failed(error)
            return None
        return log

    def append(self, records: list[Record]) -> Sequence[Record]:
        """Append ``records``; return them with their numbers, or as they are if they had to be dropped."""
        log = self.ready()
        if log is None:
            self.drop(records, "not-writable")
            return records
        tie = self._sec_size()
        self._pending += records
        if self.commit_at is None:
            self.commit_at = self._monotonic() + COMMIT_SECONDS
        return [append_record(log, record, tie) for record in records]

    def is_due(self, now: float) -> bool:
        """Return whether what waits is to be committed."""
        if self.log is None or self.commit_at is None:
            return False
        return now >= self.commit_at or self.log.pending_bytes >= COMMIT_BYTES

    def commit(self) -> None:
        """Make what waits durable, or drop it."""
        assert self.log is not None
        try:
            self.log.commit()
        except CommitFailed as failed:
            self.segment_failed(failed)
        else:
            self.committed()

    def committed(self) -> None:
        """Everything that waited is durable."""
        self._pending, self.commit_at = [], None

    def segment_failed(self, failed: CommitFailed) -> None:
        """The live segment has ended."""
        pending = self._pending
        self.committed()
        if not failed.kept:
            self.drop(pending, reason_of(failed.error)[0])
        self._failed(failed)

    def drop(self, records: Sequence[Record], reason: str) -> None:
        """Count ``records`` as missing."""
        if records and self._gap is None:
            self._gap = Gap(self._wall_ns(), reason)
        for record in records:
            assert self._gap is not None
            self._gap.add(record)

    def take_gap(self) -> JournalGap | None:
        """Return what was dropped since the last call."""
        gap, self._gap = self._gap, None
        return gap.to_event("ops", self._wall_ns()) if gap is not None else None

    def _failed(self, error: OSError | CommitFailed) -> None:
        cause = error.error if isinstance(error, CommitFailed) else error
        logger.error("debug records cannot be written to the journal: %s", cause)
        self._retry_at = self._monotonic() + RETRY_SECONDS
