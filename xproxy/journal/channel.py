"""The way of the records in a running proxy: first the journal, then whoever looks on.

    relay -> journal (durable, numbered) -> live view and mirror (xproxy/log/channel.py)

So the mirror has the same ``event.sequence`` as the journal, and nobody ever sees a record that the journal does not
have, except while it cannot be written and the policy is to go on; such a record has no number. Traffic waits for the
slower of the two.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from xproxy.config.journal import JournalSettings
from xproxy.config.policy import OnJournalFailure
from xproxy.journal.writer import Journal, JournalDown, open_journal
from xproxy.log.channel import RecordChannel
from xproxy.record.recorder import ProxyRecorder, Record


class JournalChannel:
    """Takes the records of the relay. For the trio thread."""

    def __init__(self, journal: Journal, mirror: RecordChannel) -> None:
        self._journal = journal
        self._mirror = mirror

    @property
    def journal(self) -> Journal:
        """The journal itself: its health and its size."""
        return self._journal

    @property
    def mirror(self) -> RecordChannel:
        """The way from the journal to who looks on."""
        return self._mirror

    def put_nowait(self, records: Sequence[Record]) -> None:
        """Take ``records``. Never blocks and never drops."""
        self._journal.put_nowait(records)

    @property
    def is_full(self) -> bool:
        """Whether no leg is to be read."""
        return self._journal.is_full or self._mirror.is_full

    async def wait_not_full(self) -> None:
        """Return when ``is_full`` is False."""
        await self._journal.wait_not_full()
        await self._mirror.wait_not_full()

    async def reopen(self) -> None:
        """Reopen what is reopened for log rotation, and look for requests. Raises: OSError."""
        self._journal.poke()
        await self._mirror.reopen()


@contextmanager
def write_journal(
    state: Path,
    settings: JournalSettings,
    on_failure: OnJournalFailure,
    recorder: ProxyRecorder,
    mirror: RecordChannel,
    on_down: Callable[[], None],
) -> Iterator[JournalChannel]:
    """Open the journal under ``state`` and start its writer; at the end everything is durable and sealed.

    ``on_down`` is called when it cannot be written and the policy is to stop: the block is to end.

    Raises:
        JournalLocked: another process writes it.
        FileProblem: it cannot be opened.
        JournalDown: at the end, when it could not be written and the policy is to stop.
    """
    down: list[JournalDown] = []

    def give_up(problem: JournalDown) -> None:
        down.append(problem)
        on_down()

    journal = open_journal(
        state,
        settings=settings,
        on_failure=on_failure,
        recorder=recorder,
        deliver=mirror.put_nowait,
        on_fatal=give_up,
    )
    journal.start()
    try:
        yield JournalChannel(journal, mirror)
    finally:
        journal.close()
    if down:
        raise down[0]
