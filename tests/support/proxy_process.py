"""The real ``xproxy run`` as a subprocess: started on port 0, its log read, stopped by SIGTERM, and then judged.

Whatever a test does, at the stop every record is checked against the published schema, the numbering of records is
checked for gaps, stderr for tracebacks, the journal is verified and compared with the log, and all it wrote is searched
for every canary (tests/support/canary.py). What all proxies of a test run recorded together is asked of
``delegates_seen``.
"""

import difflib
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests.support.canary import Canary
from xproxy.journal.query import Query, read_matching
from xproxy.journal.reader import StreamReader, journal_directory
from xproxy.journal.verify import Verdict, verify_journal
from xproxy.replay.golden import comparable
from xproxy.replay.offline import replay

Record = dict[str, Any]

START_SECONDS_MAX: Final = 20.0
STOP_SECONDS_MAX: Final = 45.0  # the drain takes 30 s where a session does not end by itself
_POLL_SECONDS: Final = 0.01
CAPTURES: Final = "captures"  # each session that a proxy relays is captured, and replayed when it has stopped

SEARCHED_BYTES_MAX: Final = 4_194_304  # of a capture: what is larger says the same thing again and again

_running: list["ProxyProcess"] = []
_delegates: set[str] = set()  # of the proxies that have ended


def at(record: Record, path: str) -> Any:
    """Return the value at a dotted path of a document, None where there is none."""
    value: Any = record
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value


def action(record: Record) -> str:
    """Return event.action."""
    return str(record["event"]["action"])


def actions(records: list[Record]) -> list[str]:
    """Return each record's event.action."""
    return [action(record) for record in records]


def only(records: list[Record], name: str, **fields: Any) -> Record:
    """Return the one record of that action (and with these values; ``__`` in a name stands for a dot)."""
    found = [
        record
        for record in records
        if action(record) == name and all(at(record, path.replace("__", ".")) == want for path, want in fields.items())
    ]
    assert len(found) == 1, f"{len(found)} records {name} {fields} among {actions(records)}"
    return found[0]


def delegates_seen() -> set[str]:
    """Return all values of xmpp.delegate in the records of all proxies that ran in this test run so far."""
    return _delegates.union(*(_delegates_in(proxy.records()) for proxy in _running))


def _delegates_in(records: list[Record]) -> set[str]:
    return {selector for record in records for selector in at(record, "xmpp.delegate") or ()}


@attrs.define(kw_only=True, eq=False)
class ProxyProcess:
    """A running proxy."""

    directory: Path
    process: "subprocess.Popen[bytes]"
    log_file: Path
    state: Path
    canary: Canary
    ports: tuple[int, ...] = ()
    rotated: list[Path] = attrs.field(factory=list)
    """Earlier log files, moved away by a test, oldest first."""

    @property
    def port(self) -> int:
        """The first listener's port."""
        return self.ports[0]

    @property
    def ca_file(self) -> Path:
        """The proxy's CA certificate."""
        return self.state / "ca.pem"

    @property
    def stderr_file(self) -> Path:
        """What the proxy said on stderr."""
        return self.directory / "stderr"

    def records(self) -> list[Record]:
        """Return all records written so far; a line still being written is left for the next call."""
        octets = b"".join(path.read_bytes() for path in [*self.rotated, self.log_file] if path.exists())
        return [json.loads(line) for line in octets.splitlines(keepends=True) if line.endswith(b"\n")]

    def mark(self) -> int:
        """Return a place in the log, for the ``after`` of other methods."""
        return len(self.records())

    def wait_record(
        self,
        name: str,
        *,
        after: int = 0,
        where: Callable[[Record], bool] = lambda record: True,
        seconds_max: float = 15.0,
    ) -> Record:
        """Wait for a record of that action."""
        deadline = time.monotonic() + seconds_max
        while True:
            records = self.records()[after:]
            for record in records:
                if action(record) == name and where(record):
                    return record
            assert time.monotonic() < deadline, f"no {name} among {actions(records)}; stderr: {self.stderr()[-2_000:]}"
            assert self.process.poll() is None, f"xproxy ended: {self.stderr()[-4_000:]}"
            time.sleep(_POLL_SECONDS)

    def sessions(self, *, after: int = 0, count: int = 1, seconds_max: float = 15.0) -> list[list[Record]]:
        """Wait until ``count`` sessions have been closed and return the records of each, in order of their start."""
        deadline = time.monotonic() + seconds_max
        while True:
            found: dict[str, list[Record]] = {}
            for record in self.records()[after:]:
                if trace := at(record, "trace.id"):
                    found.setdefault(trace, []).append(record)
            if sum(action(records[-1]) == "connection-closed" for records in found.values()) >= count:
                assert len(found) == count, f"{len(found)} sessions instead of {count}: " + "; ".join(
                    str(actions(records)) for records in found.values()
                )
                return list(found.values())
            assert time.monotonic() < deadline, "sessions are not over: " + "; ".join(
                str(actions(records)) for records in found.values()
            )
            time.sleep(_POLL_SECONDS)

    def session(self, *, after: int = 0, seconds_max: float = 15.0) -> list[Record]:
        """Wait until the one session after that place is closed and return its records."""
        return self.sessions(after=after, count=1, seconds_max=seconds_max)[0]

    def stderr(self) -> str:
        """Return what was said on stderr."""
        return self.stderr_file.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def resident_bytes(self) -> int:
        """Return the process's resident memory, in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * 4_096

    def stop(self) -> None:
        """End by SIGTERM and judge what it leaves."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"xproxy did not end within {STOP_SECONDS_MAX} s of SIGTERM") from None
        self.judge()
        assert status == 0, f"xproxy ended with status {status}: {self.stderr()[-4_000:]}"
        assert action(self.records()[-1]) == "proxy-stopped"

    def kill(self) -> None:
        """End it now, whatever it does."""
        self.process.kill()
        self.process.wait()

    def judge(self) -> None:
        """Check everything it wrote: schema, numbering, journal, tracebacks, canaries."""
        records = self.records()
        _delegates.update(_delegates_in(records))
        check_schema(records)
        check_numbering(records + _not_mirrored(self.state))
        check_journal(self.state, records, ended_in_form=self.process.returncode == 0)
        check_captures(self.directory / CAPTURES, records, ended_in_form=self.process.returncode == 0)
        for file in (self.directory / CAPTURES).glob("*"):
            if file.stat().st_size > SEARCHED_BYTES_MAX:
                os.truncate(file, SEARCHED_BYTES_MAX)
        assert "Traceback" not in self.stderr(), self.stderr()
        hits = self.canary.search([self.directory])
        assert not hits, hits


def check_schema(records: list[Record]) -> None:
    """Validate each record against ``xproxy events --schema``."""
    validator = _validator()
    problems = [
        f"{action(record)} at {error.json_path}: {error.message}"
        for record in records
        for error in validator.iter_errors(record)
    ]
    assert not problems, "\n".join(problems[:20])


def check_numbering(records: list[Record]) -> None:
    """Each session's (and the proxy's own) event.id goes up by one from 1: nothing was dropped or doubled."""
    numbers: dict[str, list[int]] = {}
    for record in records:
        origin, _, number = record["event"]["id"].rpartition("-")
        numbers.setdefault(origin, []).append(int(number))
    for origin, unsorted in numbers.items():
        got = sorted(unsorted)
        assert got == list(range(got[0], got[0] + len(got))), f"records of {origin} are numbered {got}"
        assert got[0] in (0, 1), f"records of {origin} begin with number {got[0]}"


def _not_mirrored(state: Path) -> list[Record]:
    """What the stream of debug records says of itself; its numbers are its own, so it stays in the journal."""
    directory = journal_directory(state) / "ops"
    if not directory.exists():
        return []
    with StreamReader(directory) as reader:
        entries = read_matching(reader, "ops", Query(), 0, reader.refresh())
        return [entry.document for entry in entries if entry.document["log"]["level"] != "debug"]


def check_journal(state: Path, records: list[Record], *, ended_in_form: bool) -> None:
    """Verify the journal as ``xproxy log verify`` does; each record of the log is the one with its number there."""
    journal = journal_directory(state)
    report = verify_journal(journal)
    if ended_in_form:
        assert (report.verdict, report.findings) == (Verdict.INTACT, ()), report.findings
    else:
        assert report.verdict is not Verdict.TAMPERED, report.findings
    assert not report.is_live
    with StreamReader(journal / "sec") as reader:
        query = Query()
        stored = {entry.index: entry.document for entry in read_matching(reader, "sec", query, 0, reader.refresh())}
    for record in records:
        if record["log"]["level"] != "debug":
            assert stored[record["event"]["sequence"]] == record


def check_captures(directory: Path, records: list[Record], *, ended_in_form: bool) -> None:
    """Replay each capture offline: the records are those of the log, octet for octet."""
    if not directory.is_dir():
        return
    live: dict[str, list[Record]] = {}
    for record in records:
        if trace := at(record, "trace.id"):
            live.setdefault(trace, []).append(record)
    ended = {trace for trace, of_it in live.items() if action(of_it[-1]) == "connection-closed"}
    # Megabytes a second are more than a busy disk takes: such a capture is cut off, and the log says so.
    may_be_cut = any(str(at(record, "xproxy.limit.name")).startswith("capture.") for record in records)
    seen: set[str] = set()
    for file in sorted(directory.iterdir()):
        again: list[Record] = []
        for replayed in replay(file):
            again += [json.loads(record.to_json()) for record in replayed.records]
            assert not replayed.lossy, f"{file.name}: records may differ from line {replayed.line} on"
            assert not (replayed.ended and ended_in_form and not may_be_cut), f"{file.name}: {replayed.ended}"
            seen.add(replayed.trace_id)
        of_then = live.get(trace_of(file), [])
        want, got = comparable(of_then), comparable(again)
        if not ended_in_form or may_be_cut:
            want = want[: len(got)]
        assert got == want, f"{file}\n" + "\n".join(
            difflib.unified_diff(
                [line.decode() for line in want], [line.decode() for line in got], "live", "offline", n=1, lineterm=""
            )
        )
    if ended_in_form and not may_be_cut:
        assert seen == ended, f"captured {len(seen)} of {len(ended)} sessions"


def trace_of(file: Path) -> str:
    """Return the session a capture file is of."""
    return file.name.removesuffix(".xcap.jsonl").rpartition("-")[2]


@functools.cache
def _validator() -> Draft202012Validator:
    printed = subprocess.run([sys.executable, "-m", "xproxy", "events", "--schema"], capture_output=True, check=True)
    return Draft202012Validator(json.loads(printed.stdout))


@contextmanager
def running_xproxy(
    directory: Path,
    *arguments: str,
    canary: Canary,
    upstream: str,
    upstream_ca: Path | None = None,
    domain: str | None = None,
    listeners: int = 1,
    listen: Sequence[str] = (),
    prefix: Sequence[str] = (),
) -> Iterator[ProxyProcess]:
    """Run ``xproxy run`` with its state, log and stderr in ``directory``; more ``arguments`` go to its command line."""
    directory.mkdir(parents=True, exist_ok=True)
    state, log_file, ready_file = directory / "state", directory / "log.jsonl", directory / "ready"
    if not any(argument.startswith(("--capture", "--identities")) for argument in arguments):
        arguments = (*arguments, "--capture", str(directory / CAPTURES))
    command = [
        *(*prefix, sys.executable, "-m", "xproxy", "run"),
        *itertools.chain.from_iterable(("--listen", address) for address in listen or ["127.0.0.1:0"] * listeners),
        *("--upstream", upstream, "--state", str(state), "--log", str(log_file), "--log-format", "json"),
        *("--ready-file", str(ready_file)),
        *(["--upstream-ca", str(upstream_ca)] if upstream_ca else []),
        *(["--domain", domain] if domain else []),
        *arguments,
    ]
    with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
    proxy = ProxyProcess(directory=directory, process=process, log_file=log_file, state=state, canary=canary)
    try:
        _wait_ready(proxy, ready_file)
        addresses = ready_file.read_text().splitlines()
        proxy.ports = tuple(int(address.rpartition(":")[2]) for address in addresses)
        _running.append(proxy)
        try:
            yield proxy
        finally:
            _running.remove(proxy)
    except BaseException:
        if process.poll() is None:
            proxy.kill()
        raise
    if process.returncode is None:
        proxy.stop()
    else:
        proxy.judge()


def _wait_ready(proxy: ProxyProcess, ready_file: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not (ready_file.exists() and ready_file.stat().st_size):
        assert proxy.process.poll() is None, f"xproxy ended before it was ready: {proxy.stderr()}"
        assert time.monotonic() < deadline, f"xproxy was not ready: {proxy.stderr()}"
        time.sleep(_POLL_SECONDS)
