"""The writer: one thread that takes records from the relay, makes them durable, and only then passes them on.

    relay --put_nowait--> inbox --(thread)--> sec / ops --deliver--> live view and mirror

**Group commit.** What waits is taken as one batch (at most ``BATCH_RECORDS_MAX``), appended, written, synced, signed.
While the disk works the next batch gathers; after a commit the thread lingers for ``LINGER_SECONDS`` unless much waits
already, so that under a light load a commit is shared and the relay's ``put_nowait`` need not wake anybody.

**What is promised.** A record handed to ``deliver`` with an ``event.sequence`` is durable and signed (``sec``),
whatever happens to process or machine afterwards. Records of ``sec`` are never dropped: while the disk is slow the
inbox fills and traffic waits. Records of ``ops`` (debug) are made durable within a second, and are dropped, counted,
when the inbox is half full, the disk nearly full, or ``ops`` cannot be written; a ``journal-gap`` in ``sec`` says how
many. They are delivered before they are durable, and their numbers, should that commit fail, are given again.

**When the disk fails.** The failed segment has ended (stream.py). The batch goes to a new one at once, behind a
``journal-failed`` record; if there is no space, the ballast is given up first. Does that fail too, the journal is
*down*: ``health`` is red, stderr says so, and every ``RETRY_SECONDS`` a new segment is tried.

* ``degrade``: records pass on to ``deliver`` without a number and are counted by action and outcome; when the journal
  is up again its first record is ``journal-gap`` with these counts.
* ``stop``: nothing is given up: the batch is held, the inbox fills, and ``on_fatal`` ends the process, which at its
  end still tries once more.

**Heartbeat.** Each ``heartbeat_seconds`` a ``journal-checkpoint`` record carries the newest signed notes of both
streams, so whoever has a copy of the records is a witness. It comes at once when the wall clock was set back.

**One writer.** ``open_journal`` takes the lock (lock.py) and holds it until ``close``.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, Protocol

from xproxy.config.journal import JournalSettings
from xproxy.errors import EnvironmentProblem, FileProblem
from xproxy.events import Event, Level
from xproxy.events.journal import (
    JournalCheckpoint,
    JournalFailed,
    JournalRecovered,
    KeyRotated,
)
from xproxy.events.proxy import LimitReached
from xproxy.journal.debug import DebugStream
from xproxy.journal.failures import Gap, Health, reason_of
from xproxy.journal.format import (
    JOURNAL_DIRECTORY,
    ORIGIN_FILE,
    CloseReason,
    OpenReason,
    stream_directory,
)
from xproxy.journal.inbox import Inbox
from xproxy.journal.lock import WriterLock
from xproxy.journal.note import is_name
from xproxy.journal.recovery import HistoryLost
from xproxy.journal.room import Room
from xproxy.journal.storage import NO_SPACE, Disk, Guarded, Storage, write_whole
from xproxy.journal.stored import CONTROL_ACTIONS, append_record, is_debug, opened
from xproxy.journal.stream import CommitFailed, StreamLog
from xproxy.record.recorder import Record

LINGER_SECONDS: Final = 0.01  # 100 commits a second at most; a record that finds the thread idle does not wait for it
LINGER_RECORDS_MAX: Final = 256  # waiting: then there is no linger
BATCH_RECORDS_MAX: Final = 4_096  # about 4 MiB: what one failed write makes us do again
RETRY_SECONDS_MIN: Final = 0.25
RETRY_SECONDS_MAX: Final = 30.0
SPACE_SECONDS: Final = 5.0  # between two looks at the disk
ATTEMPTS: Final = 3  # as it is; a new segment; a new segment in the ballast's room
CLOSE_SECONDS_MAX: Final = 10.0
ROTATE_FILE: Final = "rotate-keys"  # its presence asks the process that writes to exchange the keys

logger = logging.getLogger(__name__)


class JournalDown(EnvironmentProblem):
    """The journal cannot be written, and the policy is to stop."""


class Recorder(Protocol):
    """Makes records of the journal's own events. Thread-safe: ``xproxy.record.ProxyRecorder``."""

    def record(self, event: Event, at_ns: int) -> Record:
        """Return the record of ``event``."""


class Journal:
    """The journal of a running proxy. Made by ``open_journal``."""

    def __init__(
        self,
        *,
        directory: Path,
        base: str,
        settings: JournalSettings,
        on_failure: Literal["degrade", "stop"],
        recorder: Recorder,
        deliver: Callable[[Sequence[Record]], None],
        on_fatal: Callable[[JournalDown], None],
        storage: Storage,
        lock: WriterLock,
        wall_ns: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self.directory = directory
        self._base = base
        self._settings = settings
        self._on_failure = on_failure
        self._recorder = recorder
        self._deliver = deliver
        self._on_fatal = on_fatal
        self._storage = storage
        self._lock = lock
        self._wall_ns = wall_ns
        self._monotonic = monotonic
        self._inbox = Inbox(records_max=settings.records_max)
        self._sec: StreamLog | None = None
        self._ops = DebugStream(
            open_=lambda: self._open_stream("ops"),
            record=self._record,
            sec_size=lambda: self.durable_size,
            wall_ns=wall_ns,
            monotonic=monotonic,
        )
        self._room = Room(storage, directory, settings.ballast_bytes)
        self._own: deque[Event] = deque()  # of ours, for the next batch
        self._held: list[Record] = []  # policy stop: the batch that could not be written
        self._logged: list[Record] = []  # log, but no note covers them yet
        self._out: list[Record] = []  # to be delivered at the end of this turn
        self._health = Health(is_ok=True)
        self._gap: Gap | None = None
        self._taken_count = 0  # from the inbox, not settled yet
        self._lost_count = 0  # of sec, that no journal-gap could be written for
        self._retry_at = 0.0
        self._retry_seconds = RETRY_SECONDS_MIN
        self._is_fatal = False
        self._space_at = 0.0
        self._heartbeat_at = 0.0
        self._wall_seen = 0
        self._clock_back_ns = 0
        self._rotate = threading.Event()
        self._poked = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    # For the relay's thread ---------------------------------------------------------------------------------------

    def put_nowait(self, records: Sequence[Record]) -> None:
        """Hand over the records of one turn, in order. Never blocks, never drops."""
        self._inbox.put_nowait(records)

    @property
    def is_full(self) -> bool:
        """Whether the disk is too far behind: no leg is to be read."""
        return self._inbox.is_full

    @property
    def waiting_count(self) -> int:
        """Records that are not durable yet."""
        return self._inbox.waiting_count

    @property
    def records_max(self) -> int:
        """How many may wait."""
        return self._inbox.records_max

    async def wait_not_full(self) -> None:
        """Return when ``is_full`` is False."""
        await self._inbox.wait_not_full()

    @property
    def health(self) -> Health:
        """Whether records reach the disk. From any thread."""
        return self._health

    @property
    def vkey(self) -> str:
        """The verifier key of ``sec``. From any thread."""
        assert self._sec is not None
        return str(self._sec.keys.current.verifier)

    @property
    def durable_size(self) -> int:
        """How many entries of ``sec`` are durable. From any thread."""
        return self._sec.durable_size if self._sec is not None else 0

    def rotate_keys(self) -> None:
        """Exchange the signing keys, soon. From any thread."""
        self._rotate.set()
        self._inbox.wake()

    def poke(self) -> None:
        """Look now for what is otherwise looked for at each heartbeat: requests in the directory. From any thread."""
        self._poked.set()
        self._inbox.wake()

    def start(self) -> None:
        """Start the thread. Inside trio, ``wait_not_full`` works from then on."""
        assert self._thread is None
        self._inbox.attach()
        self._heartbeat_at = self._monotonic() + self._settings.heartbeat_seconds
        # Daemon: a disk that hangs must not keep the interpreter from ending; close() waits and reports.
        self._thread = threading.Thread(target=self._run, name="xproxy-journal", daemon=True)
        self._thread.start()

    def close(self, seconds_max: float = CLOSE_SECONDS_MAX) -> int:
        """Write what is left, seal both streams, end the thread, release the lock. Idempotent.

        Returns how many records are not in the journal; more than 0 has been said on stderr.
        """
        self._closing.set()
        self._inbox.wake()
        if self._thread is None:
            self._run()
        else:
            self._thread.join(seconds_max)
            if self._thread.is_alive():
                # It keeps the lock until the process has ended: it may yet write.
                logger.error("the journal %s does not answer; it is left as after a crash", self.directory)
                return self._lost_count + self.waiting_count
        self._lock.release()
        lost = self._lost_count + self.waiting_count
        if lost:
            logger.error("%d records are not in the journal %s", lost, self.directory)
        return lost

    # The writer thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing.is_set() or not self._inbox.is_empty or self._held:
                self._turn()
                if self._held and self._closing.is_set():
                    break  # that was the last attempt
        except Exception as error:
            # A mistake of ours: nothing may be written on top of a state nobody understands.
            logger.critical("the journal's writer failed", exc_info=True)
            self._give_up(JournalDown(f"the journal's writer failed: {error!r}", "this is a mistake in xproxy"))
            return
        self._finish()

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        batch: list[Record] = []
        if self._held:  # nothing more is taken: the inbox is to fill
            self._closing.wait(max(0.0, self._retry_at - self._monotonic()))
        else:
            self._inbox.wait(self._seconds_to_wait())
            batch = self._inbox.take(BATCH_RECORDS_MAX)
            self._taken_count += len(batch)
        if self._closing.is_set():
            self._retry_at = 0.0
        self._watch_clock()
        now = self._monotonic()
        if now >= self._space_at:
            self._watch_space(now)
        if self._poked.is_set():
            self._poked.clear()
            self._look_for_requests()
        if now >= self._heartbeat_at:
            self._heartbeat(now)
        if batch or self._own or self._held or self._logged or not self._health.is_ok:
            self._store(batch)
        if self._rotate.is_set() and self._health.is_ok:
            self._rotate.clear()
            self._rotate_streams()
        if self._ops.is_due(now) or (self._closing.is_set() and self._ops.commit_at is not None):
            self._ops.commit()
        self._close_full_segments()
        if not self._held:
            self._inbox.done(self._taken_count)
            self._taken_count = 0
            if batch and self._inbox.waiting_count < LINGER_RECORDS_MAX:
                self._closing.wait(LINGER_SECONDS)

    def _seconds_to_wait(self) -> float:
        if self._closing.is_set() or self._poked.is_set():
            return 0.0
        until = self._heartbeat_at
        if self._ops.commit_at is not None:
            until = min(until, self._ops.commit_at)
        if not self._health.is_ok:
            until = min(until, self._retry_at)
        elif self._own or self._rotate.is_set():
            return 0.0
        return max(0.0, until - self._monotonic())

    # sec ----------------------------------------------------------------------------------------------------------

    def _store(self, batch: list[Record]) -> None:
        """Make ``batch`` durable, and what waits of our own; or go down."""
        whole, ops = batch, []
        if any(record.level < Level.INFO for record in batch):
            ops = [record for record in batch if is_debug(record)]
            batch = [record for record in batch if not is_debug(record)]
        if self._health.is_ok:
            if (failed := self._attempt([*self._take_own(), *batch])) is not None:
                self._go_down(failed, batch)
        elif self._monotonic() >= self._retry_at:
            self._try_again(batch)
        else:
            self._store_while_down(batch)
        if ops:
            self._append_ops(ops)
            # The streams were served one after the other; who looks on gets them as they came.
            place = {record.document["event"]["id"]: number for number, record in enumerate(whole)}
            self._out.sort(key=lambda record: place.get(record.document["event"]["id"], -1))
        out, self._out = self._out, []
        if out:
            self._deliver(out)

    def _attempt(self, waiting: list[Record]) -> CommitFailed | None:
        """Append and commit ``waiting``, with new segments where one fails. Returns why it cannot be."""
        sec = self._sec
        assert sec is not None
        keep = any(record.action in CONTROL_ACTIONS for record in waiting)
        failure: CommitFailed | None = None
        for _ in range(ATTEMPTS):
            stored: list[Record] = []
            try:
                if not sec.is_live:
                    sec.begin()
                stored = [append_record(sec, record) for record in waiting]
                sec.commit(keep_note=keep)
            except CommitFailed as failed:
                failure = failed
                if failed.kept and stored:
                    self._logged += stored
                    waiting = []
                waiting = [*self._segment_failed(sec, failed), *waiting]
                keep = True
            else:
                self._out += self._logged
                self._out += stored
                self._logged = []
                return None
        return failure

    def _segment_failed(self, log: StreamLog, failed: CommitFailed) -> list[Record]:
        """Say that a segment has ended; make room if that is what is missing. Returns the record of it."""
        reason, code = reason_of(failed.error)
        logger.error("the journal's segment %s has ended: %s; a new one is begun", log.segment, failed.error)
        if failed.error.errno in NO_SPACE:
            self._room.drop_ballast()
        event = JournalFailed(stream=log.stream, reason=reason, error=code, segment=log.segment, index=log.size)
        return [self._record(event)]

    def _record(self, event: Event) -> Record:
        return self._recorder.record(event, self._wall_ns())

    def _take_own(self) -> list[Record]:
        own: list[Record] = []
        while self._own:
            own.append(self._record(self._own.popleft()))
        return own

    # Down ---------------------------------------------------------------------------------------------------------

    def _go_down(self, failed: CommitFailed, batch: list[Record]) -> None:
        reason, _ = reason_of(failed.error)
        now_ns = self._wall_ns()
        self._health = Health(is_ok=False, reason=reason, since_ns=now_ns)
        self._retry_seconds = RETRY_SECONDS_MIN
        self._retry_at = self._monotonic() + self._retry_seconds
        if self._deliver_logged():
            batch = []
        if self._on_failure == "stop":
            logger.critical("the journal %s cannot be written (%s): xproxy stops", self.directory, failed.error)
            self._held = batch
            self._give_up(
                JournalDown(
                    f"the journal {self.directory} cannot be written: {failed.error.strerror or failed.error}",
                    "make room or mend the disk; policy.on_journal_failure = degrade would have gone on without it",
                )
            )
            return
        logger.critical(
            "the journal %s cannot be written (%s): traffic goes on, records are counted, not kept",
            self.directory,
            failed.error,
        )
        self._gap = Gap(now_ns, reason)
        self._store_while_down(batch)

    def _store_while_down(self, batch: list[Record]) -> None:
        if self._on_failure == "stop":
            self._held += batch
            return
        assert self._gap is not None
        for record in batch:
            self._gap.add(record)
        self._out += batch

    def _deliver_logged(self) -> bool:
        """Pass on what is log and durable, only unsigned; return whether there was any: all that was attempted."""
        logged, self._logged = self._logged, []
        self._out += logged
        return bool(logged)

    def _try_again(self, batch: list[Record]) -> None:
        now_ns = self._wall_ns()
        reason = self._health.reason or "unknown"
        waiting = self._take_own()
        if self._gap is not None and self._gap.counts:
            waiting.append(self._record(self._gap.to_event("sec", now_ns)))
        failed = self._attempt([*waiting, *self._held, *batch])
        if failed is not None:
            self._retry_seconds = min(self._retry_seconds * 2, RETRY_SECONDS_MAX)
            self._retry_at = self._monotonic() + self._retry_seconds
            if self._deliver_logged():
                self._held, batch = [], []
                if self._gap is not None:
                    self._gap = Gap(now_ns, reason)
            self._store_while_down(batch)
            return
        self._held = []
        self._gap = None
        self._health = Health(is_ok=True)
        logger.warning("the journal %s can be written again (it was %s)", self.directory, reason)

    def _give_up(self, problem: JournalDown) -> None:
        if not self._is_fatal:
            self._is_fatal = True
            self._inbox.in_trio(self._on_fatal, problem)

    # ops ----------------------------------------------------------------------------------------------------------

    def _append_ops(self, records: list[Record]) -> None:
        if (reason := self._why_no_ops()) is not None:
            self._ops.drop(records, reason)
            self._out += records
        else:
            self._out += self._ops.append(records)

    def _why_no_ops(self) -> str | None:
        if self._inbox.waiting_count > self._inbox.records_max // 2:
            return "queue"
        if self._room.is_nearly_full:
            return "disk-nearly-full"
        return self._health.reason

    # Now and then -------------------------------------------------------------------------------------------------

    def _heartbeat(self, now: float) -> None:
        self._heartbeat_at = now + self._settings.heartbeat_seconds
        self._watch_place()
        sec, ops = self._sec, self._ops.log
        assert sec is not None
        if (gap := self._ops.take_gap()) is not None:
            self._own.append(gap)
        if self._ops.commit_at is not None:
            self._ops.commit()
        if self._health.is_ok and (note := sec.note) is not None:
            sec.keep_newest_note()
            ops_note = ops.note if ops is not None else None
            if ops is not None:
                ops.keep_newest_note()
            self._own.append(
                JournalCheckpoint(
                    note=note.to_lines(),
                    size=note.checkpoint.size,
                    ops_note=ops_note.to_lines() if ops_note is not None else (),
                    clock_back_ns=self._clock_back_ns or None,
                )
            )
        self._clock_back_ns = 0
        self._look_for_requests()
        if self._health.is_ok:
            self._room.make_ballast()

    def _watch_place(self) -> None:
        """See whether what is written still has a name: if not, nobody will ever find it."""
        if not self._health.is_ok:
            return
        try:
            self._lock.check_place()
        except OSError as error:
            logger.critical("the journal %s was removed or moved away while it was written", self.directory)
            for log in (self._sec, self._ops.log):
                if log is not None:
                    log.discard()
            self._go_down(CommitFailed(error, kept=False), [])

    def _watch_clock(self) -> None:
        now = self._wall_ns()
        if now < self._wall_seen:
            self._clock_back_ns = max(self._clock_back_ns, self._wall_seen - now)
            self._heartbeat_at = 0.0
        self._wall_seen = now

    def _watch_space(self, now: float) -> None:
        self._space_at = now + SPACE_SECONDS
        if (mark := self._room.look()) is not None:
            self._own.append(LimitReached(limit="journal.disk_used_percent", value=mark, closes=False))

    def _close_full_segments(self) -> None:
        for log in (self._sec, self._ops.log):
            if log is None or not log.is_live:
                continue
            if log.segment_bytes >= self._settings.segment_bytes_max:
                self._seal(log, CloseReason.SIZE)
            elif log.segment_age_seconds >= self._settings.segment_seconds_max:
                self._seal(log, CloseReason.AGE)

    def _seal(self, log: StreamLog, reason: CloseReason) -> None:
        try:
            log.seal(reason)
        except CommitFailed as failed:
            self._segment_failed_late(log, failed)
        else:
            if log is self._ops.log:
                self._ops.committed()

    def _segment_failed_late(self, log: StreamLog, failed: CommitFailed) -> None:
        """A segment has ended where no record waits."""
        if log is self._ops.log:
            self._ops.segment_failed(failed)
            return
        reason, code = reason_of(failed.error)
        logger.error("the journal's segment %s has ended: %s", log.segment, failed.error)
        if failed.error.errno in NO_SPACE:
            self._room.drop_ballast()
        self._own.append(JournalFailed(stream="sec", reason=reason, error=code, segment=log.segment, index=log.size))

    def _look_for_requests(self) -> None:
        try:
            self._storage.remove(self.directory / ROTATE_FILE)
        except OSError:
            return  # not there
        self._rotate.set()

    def _rotate_streams(self) -> None:
        assert self._sec is not None
        if self._ops.log is None and self._has_ops():
            self._ops.ready()
        for log in (self._sec, self._ops.log):
            if log is None:
                continue
            try:
                self._rotate_key(log)
            except CommitFailed as failed:
                self._segment_failed_late(log, failed)
            except OSError as error:
                logger.error("the signing key of %s could not be exchanged: %s", log.stream, error)

    def _rotate_key(self, log: StreamLog) -> None:
        """Exchange the key of one stream (keys.py says in which steps). Raises: CommitFailed, OSError."""
        if not log.is_live:
            log.begin()
        old = log.keys.current.verifier
        new = log.keys.prepare()
        event = KeyRotated(stream=log.stream, vkey=str(new.verifier), previous_vkey=str(old))
        is_sec = log is self._sec
        stored = append_record(log, self._record(event), None if is_sec else self.durable_size)
        log.keys.bring_into_force(new)
        try:
            log.commit(keep_note=True)
        except CommitFailed as failed:
            if not failed.kept:
                log.keys.revert()
            raise
        if is_sec:
            self._deliver([stored])
        else:  # its number would be taken for one of sec
            self._ops.committed()
        logger.warning("the journal's stream %s is now signed with %s", log.stream, new.verifier)

    # Start and end ------------------------------------------------------------------------------------------------

    def open_streams(self) -> None:
        """Recover, begin the first segment, say so in it. Once, before ``start``. Raises OSError, CommitFailed."""
        self._room.make_ballast()
        try:
            self._open_streams()
        except (OSError, CommitFailed) as error:
            cause = error.error if isinstance(error, CommitFailed) else error
            if cause.errno not in NO_SPACE or not self._room.drop_ballast():
                raise
            self._own.clear()
            self._open_streams()

    def _open_streams(self) -> None:
        self._sec = self._open_stream("sec")
        log = self._sec
        log.begin()
        stored: list[Record] = [append_record(log, self._record(opened(log)))]
        stored += [append_record(log, record) for record in self._take_own()]
        log.commit(keep_note=True)
        self._deliver(stored)
        if self._has_ops():
            self._ops.settle()

    def _has_ops(self) -> bool:
        """Whether there are debug records of another process."""
        try:
            return stream_directory("ops", 1) in self._storage.names(self.directory)
        except OSError:
            return False

    def _open_stream(self, stream: str) -> StreamLog:
        log, problem = StreamLog.open_(
            storage=self._storage,
            journal=self.directory,
            stream=stream,
            base=self._base,
            wall_ns=self._wall_ns,
            monotonic=self._monotonic,
        )
        if problem is not None:
            reason = "history-lost" if isinstance(problem, HistoryLost) else "key-lost"
            logger.critical("the journal's stream %s: %s; a new log is begun: %s", stream, problem, log.origin)
            self._own.append(JournalFailed(stream=stream, reason=reason, error=type(problem).__name__))
        if (recovered := log.recovered) is not None and not recovered.was_closed:
            unsigned = recovered.unsigned_from
            self._own.append(
                JournalRecovered(
                    stream=stream,
                    segment=(recovered.previous or recovered.torn[-1]).name.segment_file,
                    unsigned_from=unsigned,
                    unsigned_count=recovered.tree.size - unsigned if unsigned is not None else 0,
                    torn_bytes=recovered.torn_bytes,
                    torn_segments=tuple(old.name.segment_file for old in recovered.torn),
                )
            )
        return log

    def _finish(self) -> None:
        """Seal what is live: what comes after was never promised."""
        self._watch_place()
        if self._own or self._logged:
            self._store([])
        for log in (self._ops.log, self._sec):
            if log is None:
                continue
            if not log.is_live and self._health.is_ok and log.next_reason is OpenReason.ROTATED:
                # The last segment was full just now. One more says that this was the end: were it missing, verify.py
                # could not tell an orderly stop from a newest segment that somebody removed.
                try:
                    log.begin()
                except CommitFailed as failed:
                    self._segment_failed_late(log, failed)
            if log.is_live:
                self._seal(log, CloseReason.STOPPED)
        if self._gap is not None:
            self._lost_count += self._gap.counts.total()


def open_journal(
    state: Path,
    *,
    settings: JournalSettings,
    on_failure: Literal["degrade", "stop"],
    recorder: Recorder,
    deliver: Callable[[Sequence[Record]], None],
    on_fatal: Callable[[JournalDown], None] = lambda problem: None,
    storage: Storage | None = None,
    wall_ns: Callable[[], int] = time.time_ns,
    monotonic: Callable[[], float] = time.monotonic,
) -> Journal:
    """Open the journal under the state directory ``state`` for writing: lock, recover, begin a segment.

    ``deliver`` gets the records once they are durable, in order, in the writer's thread (those made here: in the
    caller's). ``on_fatal`` is called once, in trio's thread, when the policy is to stop.

    Raises:
        JournalLocked: another process writes it.
        FileProblem: it cannot be written.
    """
    storage = storage if storage is not None else Disk()
    directory = state / JOURNAL_DIRECTORY
    try:
        storage.make_directory(directory)
        storage.sync_directory(state)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="make the journal", path=directory) from error
    lock = WriterLock.take(directory, now=datetime.fromtimestamp(wall_ns() / 1e9, UTC))
    storage = Guarded(storage, lock.check_place)
    try:
        journal = Journal(
            directory=directory,
            base=_read_base(storage, directory),
            settings=settings,
            on_failure=on_failure,
            recorder=recorder,
            deliver=deliver,
            on_fatal=on_fatal,
            storage=storage,
            lock=lock,
            wall_ns=wall_ns,
            monotonic=monotonic,
        )
        journal.open_streams()
    except (OSError, CommitFailed) as error:
        lock.release()
        cause = error.error if isinstance(error, CommitFailed) else error
        hint = "make room on that disk" if cause.errno in NO_SPACE else None
        raise FileProblem.from_os_error(cause, doing="open the journal", path=directory, hint=hint) from error
    except BaseException:
        lock.release()
        raise
    return journal


def request_rotation(state: Path) -> None:
    """Ask the process that writes the journal under ``state`` to exchange its keys: at its next heartbeat, or SIGHUP.

    Raises: FileProblem.
    """
    path = state / JOURNAL_DIRECTORY / ROTATE_FILE
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="ask for new keys in", path=path) from error


def _read_base(storage: Storage, directory: Path) -> str:
    """Return the base of the origins, made once: this host, and eight digits that nobody else has."""
    path = directory / ORIGIN_FILE
    if ORIGIN_FILE in storage.names(directory):
        base = storage.read(path).decode(errors="replace").strip()
        if is_name(base):
            return base
        raise FileProblem(f"{path} does not hold the name of a log", "restore it from a backup", path=path)
    host = "".join(
        char if char.isascii() and (char.isalnum() or char in "-._") else "-" for char in socket.gethostname()
    )
    base = f"{host or 'localhost'}/xproxy/{secrets.token_hex(4)}"
    write_whole(storage, path, base.encode() + b"\n")
    return base
