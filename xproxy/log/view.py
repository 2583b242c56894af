"""What a person sees live: one line an event.

A terminal can be slow, or stopped with Ctrl-S, and must not hold up traffic or the file. So the view has a thread of
its own and a short queue; when more than ``waiting_max`` records wait, the oldest go and a line says how many.
"""

import errno
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from xproxy.log.channel import OutputGone
from xproxy.record.recorder import Record

WAITING_MAX: Final = 1_000  # more lines than anyone reads while they fly by
CLOSE_SECONDS_MAX: Final = 2.0


class HumanView:
    """An ``Output`` for people. May fall behind, and says so."""

    def __init__(self, console: Console, *, waiting_max: int = WAITING_MAX) -> None:
        """``console``: where to print; colour and width are its business. The view's thread starts at once."""
        self.name = "the terminal"
        self._console = console
        self._waiting_max = waiting_max
        self._changed = threading.Condition()
        self._queue: deque[Record] = deque()
        self._skipped_count = 0
        self._closing = False
        self._problem: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="xproxy-log-view", daemon=True)
        self._thread.start()

    def take(self, records: Sequence[Record]) -> None:
        """Queue ``records`` for printing; the oldest are skipped when too many wait."""
        with self._changed:
            self._queue.extend(records)
            while len(self._queue) > self._waiting_max:
                self._queue.popleft()
                self._skipped_count += 1
            self._changed.notify()

    def flush(self) -> None:
        """Raise OutputGone when the terminal or pipe is gone. Waits for nothing."""
        if (problem := self._problem) is not None:
            what = "nobody reads it any more" if problem.errno == errno.EPIPE else problem.strerror or str(problem)
            raise OutputGone(f"cannot write log {self.name}: {what}")

    def reopen(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Print what waits, unless the terminal takes nothing for CLOSE_SECONDS_MAX."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS_MAX)

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._queue and not self._closing:
                        self._changed.wait()
                    if not self._queue:
                        return
                    skipped, self._skipped_count = self._skipped_count, 0
                    record = self._queue.popleft()
                if skipped:
                    self._console.print(Text(f"{skipped} records not shown", style="dim italic"))
                self._console.print(render(record, self._console.width if self._console.is_terminal else None))
        except OSError as problem:
            self._problem = problem


def render(record: Record, width: int | None) -> Text:
    """Return ``record`` as one line; None: of any length."""
    return Text(f"{record.document['@timestamp']} {record.action}")
