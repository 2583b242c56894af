"""What does the journal cost?

    python bench/bench_journal.py [--state DIR] [--seconds S] [--json]

Measures on a real disk, with records as the recorder makes them (a failed login, all known; 1.7 KiB of JSON):

* saturated: durable records a second when as many are put as fit;
* paced at 500/s, 5 000/s and 20 000/s: what ``put_nowait`` costs the relay's thread, and how long a record takes until
  it is durable and signed (delivered);
* verify and read: how fast the log made above is proven and read again.

The relay's thread is played by this one: it sleeps between puts as the event loop would.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.samples import CERTIFICATE, CLIENT, LISTENER, LOCAL, SERVER
from xproxy.config.journal import JournalSettings
from xproxy.events import Side
from xproxy.events.connection import ConnectionAccepted, UpstreamConnected
from xproxy.events.sasl import SaslFailed
from xproxy.events.stream import StreamOpened
from xproxy.events.tls import TlsEstablished
from xproxy.journal.format import JOURNAL_DIRECTORY
from xproxy.journal.verify import bytes_to_verify, verify_journal
from xproxy.journal.writer import Journal, open_journal
from xproxy.record.recorder import Observer, ProxyRecorder, Record, SessionRecorder

OBSERVER = Observer(version="0.1.0", hostname="gw1.example.org", boot_id="5f" * 16)


def make_records(count: int) -> list[Record]:
    """Return ``count`` records of failed logins, each of its own document."""
    recorder = SessionRecorder(trace_id="ab" * 16, observer=OBSERVER)
    now = time.time_ns()
    for event in (
        ConnectionAccepted(client=CLIENT, listener=LISTENER),
        UpstreamConnected(host="xmpp.example.org", server=SERVER, local=LOCAL, seconds=0.01),
        StreamOpened(
            sent_by=Side.CLIENT,
            to="example.org",
            from_="romeo@example.org",
            has_id=False,
            version="1.0",
            lang="en",
            content_namespace="jabber:client",
            xml_declaration=True,
        ),
        TlsEstablished(
            leg=Side.CLIENT,
            direct=False,
            version="1.3",
            cipher="TLS_AES_256_GCM_SHA384",
            server_name="example.org",
            alpn=None,
            ja4="t13d1516h2_8daaf6152771_b186095e22b6",
            resumed=False,
            certificate=CERTIFICATE,
            verify="ok",
            seconds=0.03,
        ),
    ):
        recorder.record(event, now)
    failed = SaslFailed(
        mechanism="SCRAM-SHA-256",
        attempt=1,
        authcid="romeo",
        authzid=None,
        condition="not-authorized",
        condition_known=True,
        application_condition=None,
        text="Unable to authorize you with the authentication credentials you've sent.",
        text_bytes=72,
        cause=None,
        rounds=2,
        iterations=10_000,
        duration_ns=9_876_543,
    )
    return [recorder.record(failed, now + number) for number in range(count)]


@attrs.define
class Deliveries:
    """Counts and times what comes out."""

    count: int = 0
    times: list[tuple[int, int]] = attrs.Factory(list)  # records so far, when (perf_counter_ns)
    wanted: int = 0
    reached: threading.Event = attrs.Factory(threading.Event)

    def take(self, records: Sequence[Record]) -> None:
        """Be delivered to."""
        self.count += len(records)
        self.times.append((self.count, time.perf_counter_ns()))
        if self.count >= self.wanted:
            self.reached.set()

    def expect(self, count: int) -> None:
        """Wait for ``count`` more from now on."""
        self.times.clear()
        self.wanted = self.count + count
        self.reached.clear()


def open_(state: Path, deliveries: Deliveries) -> Journal:
    """Open a journal that delivers to ``deliveries``."""
    return open_journal(
        state,
        settings=JournalSettings(),
        on_failure="degrade",
        recorder=ProxyRecorder(observer=OBSERVER),
        deliver=deliveries.take,
    )


def saturated(state: Path, seconds: float) -> dict[str, Any]:
    """Put as fast as the high mark allows."""
    deliveries = Deliveries()
    journal = open_(state, deliveries)
    journal.start()
    records = make_records(10_000)
    turn = [records[start : start + 100] for start in range(0, len(records), 100)]
    deliveries.expect(10**12)
    before = deliveries.count
    put_ns = puts = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for some in turn:
            while journal.waiting_count > 20_000:
                time.sleep(0.001)
            at = time.perf_counter_ns()
            journal.put_nowait(some)
            put_ns += time.perf_counter_ns() - at
            puts += 1
    durable = deliveries.count - before
    journal.close()
    return {"records_per_second": round(durable / elapsed), "submit_us_per_record": put_ns / puts / 100 / 1000}


def paced(state: Path, rate: int, seconds: float) -> dict[str, Any]:
    """Put ``rate`` records a second, evenly."""
    deliveries = Deliveries()
    journal = open_(state, deliveries)
    journal.start()
    count = int(rate * seconds)
    records = make_records(min(count, 5_000))
    time.sleep(0.05)
    deliveries.expect(count)
    base = deliveries.count
    put_at: list[int] = []
    costs: list[int] = []
    gc.collect()
    gc.disable()
    start = time.perf_counter_ns()
    for number in range(count):
        due = start + number * 1_000_000_000 // rate
        while (left := due - time.perf_counter_ns()) > 0:
            time.sleep(left / 1e9 if left > 60_000 else 0)
        before = time.perf_counter_ns()
        journal.put_nowait([records[number % len(records)]])
        after = time.perf_counter_ns()
        put_at.append(before)
        costs.append(after - before)
    deliveries.reached.wait(30)
    gc.enable()
    durable: list[int] = []
    position = 0
    for so_far, at in deliveries.times:
        while position < min(so_far - base, count):
            durable.append(at - put_at[position])
            position += 1
    commits = len(deliveries.times)
    journal.close()
    durable.sort()
    costs.sort()
    return {
        "rate": rate,
        "submit_us_p50": costs[len(costs) // 2] / 1000,
        "submit_us_mean": statistics.fmean(costs) / 1000,
        "submit_us_p99": costs[len(costs) * 99 // 100] / 1000,
        "durable_ms_p50": durable[len(durable) // 2] / 1e6,
        "durable_ms_p99": durable[len(durable) * 99 // 100] / 1e6,
        "durable_ms_max": durable[-1] / 1e6,
        "records_per_commit": round(count / commits, 1),
    }


def verify(state: Path) -> dict[str, Any]:
    """Prove the whole log."""
    journal = state / JOURNAL_DIRECTORY
    size = bytes_to_verify(journal)
    start = time.perf_counter()
    report = verify_journal(journal)
    elapsed = time.perf_counter() - start
    entries = sum(stream.size for stream in report.streams)
    return {
        "verdict": report.verdict.value,
        "entries": entries,
        "entries_per_second": round(entries / elapsed),
        "mb_per_second": round(size / elapsed / 1e6),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, help="where the journal is written: the disk that is measured")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    options = parser.parse_args()
    if options.quick:
        options.seconds = 0.2
    with tempfile.TemporaryDirectory(dir=options.state) as directory:
        results: dict[str, Any] = {"record_bytes": len(make_records(1)[0].to_json()) - 1}
        paths = {name: Path(directory) / name for name in ("saturated", "paced")}
        for path in paths.values():
            path.mkdir()
        results["saturated"] = saturated(paths["saturated"], options.seconds)
        results["verify"] = verify(paths["saturated"])
        for rate in (500, 5_000, 20_000):
            results[f"paced_{rate}"] = paced(paths["paced"], rate, options.seconds)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for name, result in results.items():
        if not isinstance(result, dict):
            print(f"{name:14} {result}")
            continue
        print(
            f"{name:14} "
            + "  ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in result.items()
            )
        )


if __name__ == "__main__":
    main()
