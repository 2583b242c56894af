"""A process that writes a journal as fast as it can and reports what is durable.

Each line of standard output is "<event.sequence> <number of the record>", written when the record was delivered.
"""

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from xproxy.config.journal import JournalSettings
from xproxy.events.common import Level
from xproxy.journal.stored import StoredRecord
from xproxy.journal.writer import open_journal
from xproxy.record.recorder import Observer, ProxyRecorder, Record


def main() -> None:
    """Write until killed: ``STATE FIRST_NUMBER``."""
    state, number = Path(sys.argv[1]), int(sys.argv[2])

    def deliver(records: Sequence[Record]) -> None:
        lines = [
            f"{record.document['event']['sequence']} {record.document['n']}\n"
            for record in records
            if isinstance(record, StoredRecord) and record.level >= Level.INFO and "n" in record.document
        ]
        os.write(1, "".join(lines).encode())

    journal = open_journal(
        state,
        settings=JournalSettings(
            segment_bytes_max=2_097_152, segment_seconds_max=3_600, heartbeat_seconds=1, ballast_bytes=0
        ),
        on_failure="stop",
        recorder=ProxyRecorder(observer=Observer(version="0", hostname="gw1", boot_id="5f" * 16)),
        deliver=deliver,
    )
    journal.start()
    pause = threading.Event()
    while True:
        turn = []
        for _ in range(50):
            level = Level.DEBUG if number % 7 == 0 else Level.INFO
            event = {"id": f"{'ab' * 16}-{number}", "action": "stream-opened"}
            turn.append(Record({"event": event, "n": number, "filler": "x" * (number % 900)}, level, "stream-opened"))
            number += 1
        journal.put_nowait(turn)
        if number % 10_000 == 0:
            journal.rotate_keys()
        while journal.waiting_count > 2_000:
            pause.wait(0.001)


if __name__ == "__main__":
    main()
