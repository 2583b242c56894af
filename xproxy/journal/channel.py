"""The way of the records in a running proxy: first the journal, then whoever looks on.

    relay -> journal (durable, numbered) -> live view and mirror (xproxy/log/channel.py)

So the mirror has the same ``event.sequence`` as the journal, and nobody ever sees a record that the journal does not
have, except while it cannot be written and the policy is to go on; such a record has no number. Traffic waits for the
slower of the two.
"""

from collections.abc import Sequence

from xproxy.journal.writer import Journal
from xproxy.log.channel import RecordChannel
from xproxy.record.recorder import Record


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
