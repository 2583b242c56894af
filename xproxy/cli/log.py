"""``xproxy log``: reading the journal, proving it, giving it away, its keys, its size."""

import ipaddress
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import attrs
import click
from rich.console import Console
from rich.text import Text

from xproxy.cli.output import is_terminal, make_console, print_json, progress_bar
from xproxy.cli.state import state_option
from xproxy.errors import EXIT_NO, EXIT_OK, EnvironmentProblem, FileProblem, UsageProblem
from xproxy.events import Level
from xproxy.journal.format import JOURNAL_DIRECTORY, EntryType, FormatProblem, new_key_of
from xproxy.journal.note import VerifierKey
from xproxy.journal.policy import Policy
from xproxy.journal.query import Network, Query, StoredEntry, matching, merge, read_last, read_matching
from xproxy.journal.reader import (
    BATCH_COUNT_MAX,
    JournalDamaged,
    JournalMissing,
    Segment,
    StreamPlace,
    StreamReader,
    journal_directory,
    stream_places,
)
from xproxy.journal.tiles import TileWriter
from xproxy.journal.verify import (
    Anchor,
    Finding,
    Report,
    Severity,
    StreamReport,
    Verdict,
    bytes_to_verify,
    is_being_written,
    load_anchors,
    parse_anchors,
    verify_journal,
)
from xproxy.log.view import render

EXIT_INCOMPLETE: Final = 4  # of log verify: nothing was tampered with, and something is not there or not signed
FOLLOW_SECONDS: Final = 3_600.0  # of one wait; then the next
ROTATE_SECONDS_MAX: Final = 90.0  # a running writer looks once a minute
DAY_SECONDS: Final = 86_400.0
RATE_SECONDS_MIN: Final = 60.0  # less says nothing about days
UNTIL_SLACK_NS: Final = 60_000_000_000  # a record may have waited so long for the disk

_EPILOG = """
The journal lies in STATE/journal. It can be read while a proxy writes it; only what is durable is shown.

Exit codes of verify: 0 intact, 1 tampered with, 2 usage, 3 environment, 4 incomplete or not sealed.
"""

_PATH: Final = click.Path(path_type=Path)
_RELATIVE: Final = re.compile(r"(\d+)\s*([smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

json_option = click.option("--json", "as_json", is_flag=True, help="JSON also on a terminal; piped it is JSON anyway.")


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on
    """A time, UTC unless it says otherwise: ISO 8601, or how long ago (90s, 15m, 2h, 3d, 1w)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return nanoseconds since the epoch."""
        if isinstance(value, int):
            return value
        text = str(value).strip()
        if found := _RELATIVE.fullmatch(text.removesuffix(" ago")):
            return time.time_ns() - int(found[1]) * _UNITS[found[2]] * 1_000_000_000
        try:
            if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
                text = f"{datetime.now(UTC).date().isoformat()}T{text:0>5}"
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{value!r} is no time: give 2026-11-23T10:00, 10:00 (today, UTC), or how long ago: 15m", param)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1_000


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class NetworkType(click.ParamType):  # type: ignore[type-arg]
    """An IP address, or a network as 192.0.2.0/24."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        """Return the network; an address is one of a single address."""
        try:
            return ipaddress.ip_network(value, strict=False)
        except ValueError:
            self.fail(f"{value!r} is no IP address and no network", param)


def filter_options(command: Any) -> Any:
    """Give ``command`` the options that make a Query."""
    options = (
        click.option("--since", type=Moment(), metavar="TIME", help="ISO 8601 (UTC), or how long ago: 15m, 2h, 3d."),
        click.option("--until", type=Moment(), metavar="TIME", help="As --since."),
        click.option("--jid", metavar="JID", help="A bare or full JID, or a domain; as client, sender or recipient."),
        click.option("--ip", "network", type=NetworkType(), metavar="ADDRESS", help="An address, or 192.0.2.0/24."),
        click.option("--trace", metavar="ID", help="A trace.id or its beginning: one session."),
        click.option("--action", "actions", multiple=True, metavar="ACTION", help="Such as sasl-failed, or sasl-*; "
                     "may be given several times."),
        click.option("--level", type=click.Choice([level.name.lower() for level in Level]), default="info",
                     show_default=True, help="And above; debug shows the stream ops too."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def make_query(filters: dict[str, Any]) -> Query:
    """Return what the options of ``filter_options`` ask for."""
    return Query(
        since_ns=filters["since"],
        until_ns=filters["until"],
        jid=filters["jid"],
        network=filters["network"],
        trace=filters["trace"],
        actions=filters["actions"],
        level=Level[filters["level"].upper()],
    )


@click.group(epilog=_EPILOG)
def log() -> None:
    """The journal: the log that proves itself."""


# Reading --------------------------------------------------------------------------------------------------------------


@log.command()
@state_option(JOURNAL_DIRECTORY)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0), default=20, show_default=True, help="How many of the last.")
@filter_options
@json_option
def tail(state: Path, follow: bool, lines: int, as_json: bool, **filters: Any) -> None:
    """Show the last records, and with -f those that come."""
    query = make_query(filters)
    with ExitStack() as stack:
        readers = _open_readers(stack, state, query)
        newest = [each for each in readers if each.is_newest]
        show = _Printer(as_json=as_json)
        last: list[StoredEntry] = []
        for stream in ("sec", "ops"):
            of_stream: list[StoredEntry] = []
            for each in reversed(readers):
                if each.stream == stream and len(of_stream) < lines:
                    of_stream = read_last(each.reader, stream, query, lines - len(of_stream)) + of_stream
            last = list(merge(iter(last), iter(of_stream))) if last else of_stream
        show.all(last[-lines:] if lines else [])
        positions = {each.stream: each.reader.durable for each in newest}
        while follow:
            _wait_for_more(newest, positions)
            found: dict[str, list[StoredEntry]] = {"sec": [], "ops": []}
            for each in newest:
                while batch := each.reader.read(positions[each.stream]):
                    positions[each.stream] += len(batch)
                    found[each.stream] += matching(batch, each.stream, query)
            show.all(merge(iter(found["sec"]), iter(found["ops"])))


@log.command()
@state_option(JOURNAL_DIRECTORY)
@filter_options
@json_option
def show(state: Path, as_json: bool, **filters: Any) -> None:
    """Show records, oldest first: all, or those that the options choose."""
    query = make_query(filters)
    with ExitStack() as stack:
        readers = _open_readers(stack, state, query)
        printer = _Printer(as_json=as_json)
        printer.all(_all_matching(readers, query))


@attrs.frozen
class _OpenReader:
    stream: str
    reader: StreamReader
    is_newest: bool

    def matching(self, query: Query) -> Iterator[StoredEntry]:
        reader = self.reader
        # The entry is written after the event it tells of.
        start = 0 if query.since_ns is None else reader.first_at(query.since_ns)
        end = reader.durable if query.until_ns is None else reader.end_at(query.until_ns + UNTIL_SLACK_NS)
        return read_matching(reader, self.stream, query, start, end)


def _all_matching(readers: list[_OpenReader], query: Query) -> Iterator[StoredEntry]:
    """Yield what matches of both streams, in the order in which it was made."""

    def of_stream(stream: str) -> Iterator[StoredEntry]:
        for each in readers:
            if each.stream == stream:
                yield from each.matching(query)

    return merge(of_stream("sec"), of_stream("ops"))


def _open_readers(stack: ExitStack, state: Path, query: Query) -> list[_OpenReader]:
    """Open what ``query`` asks for: ``ops`` only where debug records are wanted."""
    places = stream_places(journal_directory(state))
    if not places:
        raise _nothing_yet(state)
    readers = []
    for place in places:
        if place.stream == "ops" and query.level > Level.DEBUG:
            continue
        reader = stack.enter_context(StreamReader(place.path))
        reader.refresh()
        readers.append(_OpenReader(place.stream, reader, _is_newest(place, places)))
    return readers


def _is_newest(place: StreamPlace, places: list[StreamPlace]) -> bool:
    return not any(other.stream == place.stream and other.generation > place.generation for other in places)


def _nothing_yet(state: Path) -> JournalMissing:
    return JournalMissing(f"the journal under {state} has no entry yet", "start xproxy run first", path=state)


def _wait_for_more(readers: list[_OpenReader], positions: dict[str, int]) -> None:
    """Wait until a stream has more than was read of it. ``sec`` is looked at often, for it has heartbeats."""
    while True:
        if any(each.reader.refresh() > positions[each.stream] for each in readers):
            return
        readers[0].reader.wait(positions[readers[0].stream], FOLLOW_SECONDS if len(readers) == 1 else 0.5)


class _Printer:
    """Prints records: lines for people on a terminal, JSON Lines otherwise."""

    def __init__(self, *, as_json: bool) -> None:
        self._is_human = is_terminal(sys.stdout) and not as_json
        self._console = make_console()
        self._day = ""

    def all(self, entries: Iterator[StoredEntry] | list[StoredEntry]) -> None:
        if not self._is_human:
            write = sys.stdout.buffer.write
            for entry in entries:
                write(entry.payload + b"\n")
            sys.stdout.buffer.flush()
            return
        for entry in entries:
            day = entry.document["@timestamp"][:10]
            if day != self._day:
                self._day = day
                self._console.print(Text(day, style="dim underline"))
            self._console.print(render(entry.record, self._console), soft_wrap=True)


# Verifying ------------------------------------------------------------------------------------------------------------


@log.command(epilog=_EPILOG)
@state_option(JOURNAL_DIRECTORY)
@click.option("--anchor", "anchor_texts", multiple=True, metavar="NOTE|FILE", help="A signed note that was kept "
              "elsewhere, or a file of notes or of journal-checkpoint records; several may be given.")  # fmt: skip
@click.option("--policy", "policy_file", type=_PATH, metavar="FILE", help="The keys to trust (`xproxy log keys show "
              "--policy` prints such a file; keep it elsewhere).")  # fmt: skip
@json_option
@click.pass_context
def verify(
    ctx: click.Context, state: Path, anchor_texts: tuple[str, ...], policy_file: Path | None, as_json: bool
) -> None:
    """Prove that the journal is what was signed, or say what is not.

    Every record is hashed again and compared with the signed notes. Only an anchor, a note that was kept elsewhere,
    tells whether the newest part was cut off or all was written anew by who has the key.
    """
    journal = journal_directory(state)
    anchors = [anchor for text in anchor_texts for anchor in _read_anchor(text)]
    policy = None if policy_file is None else Policy.load(policy_file)
    started = time.monotonic()
    with progress_bar("verifying", bytes_to_verify(journal)) as progress:
        report = verify_journal(journal, anchors=anchors, policy=policy, progress=progress)
    seconds = time.monotonic() - started
    if is_terminal(sys.stdout) and not as_json:
        _print_report(report, make_console(), seconds, has_policy=policy is not None)
    else:
        print_json(report_to_json(report))
    ctx.exit(exit_code_of(report))


def exit_code_of(report: Report) -> int:
    """Return what ``log verify`` ends with."""
    return {Verdict.INTACT: EXIT_OK, Verdict.TAMPERED: EXIT_NO, Verdict.INCOMPLETE: EXIT_INCOMPLETE}[report.verdict]


def _read_anchor(text: str) -> list[Anchor]:
    if "\n" in text.strip():
        return parse_anchors(text.encode(), "the anchor", Path("--anchor"))
    return load_anchors(Path(text))


def report_to_json(report: Report) -> dict[str, Any]:
    """Return what ``log verify --json`` prints."""
    return {
        "verdict": report.verdict.value,
        "being_written": report.is_live,
        "streams": [
            {
                "stream": stream.name,
                "origin": stream.origin,
                "entries": stream.size,
                "signed_entries": stream.signed_size,
                "root": None if stream.root is None else stream.root.hex(),
                "segments": stream.segments,
                "bytes": stream.octets,
                "notes": stream.notes,
                "keys": [{"from_entry": max(0, each.from_size - 1), "vkey": str(each.key)} for each in stream.keys],
                "key_trusted_by": stream.trusted_by,
                "anchored_entries": stream.anchored_size,
            }
            for stream in report.streams
        ],
        "findings": [finding.to_json() for finding in report.findings],
    }


_SEVERITIES: Final = {
    Severity.NOTICE: ("notice", "dim"),
    Severity.INCOMPLETE: ("incomplete", "yellow"),
    Severity.TAMPERED: ("TAMPERED", "bold red"),
}
_VERDICTS: Final = {
    Verdict.INTACT: ("intact", "bold green", "every entry is what was signed"),
    Verdict.INCOMPLETE: ("incomplete", "bold yellow", "what is there is what was signed; not all is there or signed"),
    Verdict.TAMPERED: ("TAMPERED WITH", "bold red", "this is not what was signed"),
}


def _print_report(report: Report, console: Console, seconds: float, *, has_policy: bool) -> None:
    def line(*parts: Any) -> None:
        console.print(Text.assemble(*parts), soft_wrap=True)

    for stream in report.streams:
        _print_stream(stream, line)
    for finding in report.findings:
        word, style = _SEVERITIES[finding.severity]
        line((f"{word:<10} ", style), _where(finding), finding.message, (f" ({finding.kind.value})", "dim"))
    word, style, meaning = _VERDICTS[report.verdict]
    records = sum(stream.size for stream in report.streams)
    live = ", as far as it was when this began: a proxy is writing it" if report.is_live else ""
    line((word, style), f": {meaning}{live}")
    line((f"{records} entries in {seconds:.1f} s, {records / max(seconds, 1e-6):,.0f} a second", "dim"))
    if any(stream.trusted_by is None for stream in report.streams) and not has_policy:
        line(
            (
                "No policy and no anchor told which key is the right one: the keys above were taken from the log "
                "itself. Who has such a key, or could put one there, could have written all of it.",
                "yellow",
            )
        )


def _print_stream(stream: StreamReport, line: Any) -> None:
    line((f"{stream.name:<8}", "bold"), f"{stream.origin}")
    line(f"        {stream.size} entries in {_segments(stream.segments)}, {stream.notes} notes, {_size(stream.octets)}")
    for number, each in enumerate(stream.keys):
        since = "" if len(stream.keys) == 1 else f", from entry {max(0, each.from_size - 1)}"
        line(f"        {'key' if number == 0 else '   '}  {each.key}", (since, "dim"))
    if stream.trusted_by == "policy":
        line("        the key is the policy's")
    elif stream.trusted_by == "sec":
        line("        sec vouches for the key")
    if stream.anchored_size:
        line(f"        the anchor fits, and with it the first {stream.anchored_size} entries")


def _segments(count: int) -> str:
    return f"{count} segment{'' if count == 1 else 's'}"


def _where(finding: Finding) -> str:
    parts = [finding.stream]
    if finding.index is not None:
        last = finding.index if finding.end_index is None else finding.end_index - 1
        parts.append(f"entry {finding.index}" if last <= finding.index else f"entries {finding.index} to {last}")
    if finding.segment is not None:
        parts.append(f"segment {finding.segment}")
    return ", ".join(parts) + ": "


# Giving away ----------------------------------------------------------------------------------------------------------


@log.command()
@state_option(JOURNAL_DIRECTORY)
@click.option("--tiles", type=_PATH, metavar="DIR", help="As C2SP tlog-tiles into a new directory: others' programs "
              "can verify these, Go's x/mod/sumdb for one.")  # fmt: skip
@click.option("--ndjson", metavar="FILE|-", help="All records of both streams as JSON Lines; - is standard output.")
@click.option("--stream", "name", metavar="STREAM", help="Which stream goes into the tiles: sec, ops, or an other "
              "generation such as sec.g2. [default: the newest of sec]")  # fmt: skip
def export(state: Path, tiles: Path | None, ndjson: str | None, name: str | None) -> None:
    """Write the journal in a form that others read. What no note covers is not exported."""
    if (tiles is None) == (ndjson is None):
        raise UsageProblem("say what to export", "give --tiles DIR or --ndjson FILE, one of them")
    places = stream_places(journal_directory(state))
    if not places:
        raise _nothing_yet(state)
    if tiles is not None:
        _export_tiles(_choose_place(places, name), tiles)
    else:
        assert ndjson is not None
        _export_ndjson(state, ndjson)


def _choose_place(places: list[StreamPlace], name: str | None) -> StreamPlace:
    if name is None:
        found = [place for place in places if place.stream == "sec" and _is_newest(place, places)]
    else:
        found = [place for place in places if place.path.name == name]
    if not found:
        raise UsageProblem(
            f"there is no stream {name or 'sec'}", "there are: " + ", ".join(p.path.name for p in places)
        )
    return found[0]


def _export_tiles(place: StreamPlace, directory: Path) -> None:
    with StreamReader(place.path) as reader:
        size = reader.refresh()
        note = reader.note
        if note is None:
            raise JournalMissing(f"the stream {place.path.name} has no entry yet", path=place.path)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(directory.iterdir()):
                raise UsageProblem(f"{directory} is not empty", "name a new directory for the tiles")
            writer = TileWriter(directory)
            with progress_bar("exporting", _log_bytes(reader.segments)) as progress:
                while batch := reader.read_stored(writer.size, min(BATCH_COUNT_MAX, size - writer.size)):
                    writer.add(batch)
                    progress(sum(map(len, batch)))
            if writer.root() != note.checkpoint.root:
                message = f"the entries of {place.path.name} are not those that were signed; nothing is exported"
                raise JournalDamaged(message, "xproxy log verify says which", path=place.path)
            writer.finish(note.to_bytes())
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="write the tiles to", path=directory) from error
        vkey = _keys_of(reader)[-1][1]
    click.echo(f"Wrote {size} entries to {directory}; they are signed with {vkey}", err=True)


def _export_ndjson(state: Path, name: str) -> None:
    query = Query()
    with ExitStack() as stack:
        readers = _open_readers(stack, state, query)
        entries = _all_matching(readers, query)
        if name == "-":
            for entry in entries:
                sys.stdout.buffer.write(entry.payload + b"\n")
            sys.stdout.buffer.flush()
            return
        path, count = Path(name), 0
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        total = sum(_log_bytes(each.reader.segments) for each in readers)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file, progress_bar("exporting", total) as progress:
                    for entry in entries:
                        file.write(entry.payload + b"\n")
                        progress(len(entry.payload))
                        count += 1
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="write", path=path) from error
    click.echo(f"Wrote {count} records to {path}", err=True)


# Keys -----------------------------------------------------------------------------------------------------------------


@log.group()
def keys() -> None:
    """The keys that sign the journal."""


@keys.command("show")
@state_option(JOURNAL_DIRECTORY)
@click.option("--policy", "as_policy", is_flag=True, help="Print a policy file for verify: keep it off this host.")
@click.option("--anchor", "as_anchor", is_flag=True, help="Print the newest signed notes: anchors for verify.")
@json_option
def keys_show(state: Path, as_policy: bool, as_anchor: bool, as_json: bool) -> None:
    """Show each stream's verifier keys, and the newest signed note.

    These are public. Kept where this host cannot write, they are what makes the journal evidence.
    """
    described = _describe_keys(state)
    if as_policy:
        click.echo("# The keys of an xproxy journal, for `xproxy log verify --policy`.")
        for stream in described:
            click.echo(f"log {stream['keys'][-1]['vkey']}")
        click.echo("quorum none")
    elif as_anchor:
        click.echo("\n".join(stream["note"] for stream in described if stream["note"]), nl=False)
    elif is_terminal(sys.stdout) and not as_json:
        for stream in described:
            click.echo(f"{stream['stream']:<8}{stream['origin']}, {stream['entries']} entries")
            for each in stream["keys"]:
                click.echo(f"        key from entry {each['from_entry']}: {each['vkey']}")
            for text in (stream["note"] or "").splitlines():
                click.echo(f"            {text}")
    else:
        print_json(described)


@keys.command("rotate", short_help="Exchange the signing keys: the old vouches for the new.")
@state_option(JOURNAL_DIRECTORY)
@click.option("--wait", "wait_seconds", type=click.FloatRange(0), default=ROTATE_SECONDS_MAX, show_default=True,
              metavar="SECONDS", help="How long a running proxy may take: it looks once a minute.")  # fmt: skip
@click.pass_context
def keys_rotate(ctx: click.Context, state: Path, wait_seconds: float) -> None:
    """Exchange the signing keys: the old key vouches for the new one and is then destroyed.

    What was signed before can from then on not be signed anew by anybody, short of a copy of the old key. A running
    proxy does it itself when it is asked so; without one it is done here.
    """
    journal = journal_directory(state)
    before = {stream["stream"]: stream["keys"][-1]["vkey"] for stream in _describe_keys(state)}
    if not before:
        raise _nothing_yet(state)
    if is_being_written(journal):
        from xproxy.journal.writer import request_rotation

        request_rotation(state)
        click.echo("asked the running proxy for it; it looks once a minute, and on SIGHUP", err=True)
        is_done = _wait_for_keys(state, before, wait_seconds)
    else:
        _rotate_offline(state, wait_seconds)
        is_done = _wait_for_keys(state, before, 0)
    for stream in _describe_keys(state):
        click.echo(f"{stream['stream']:<8}{stream['keys'][-1]['vkey']}")
    if not is_done:
        click.echo("xproxy: the keys are not exchanged yet", err=True)
        ctx.exit(EXIT_NO)


def _wait_for_keys(state: Path, before: dict[str, str], seconds: float) -> bool:
    """Return whether every stream came to have another key."""
    end = time.monotonic() + seconds
    while True:
        after = {stream["stream"]: stream["keys"][-1]["vkey"] for stream in _describe_keys(state)}
        if all(after.get(stream) != vkey for stream, vkey in before.items()):
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(min(0.25, seconds))


def _rotate_offline(state: Path, seconds: float) -> None:
    """Take the writer's place for a moment. Raises: JournalLocked; FileProblem."""
    import secrets
    import socket

    from xproxy import __version__
    from xproxy.config.journal import JournalSettings
    from xproxy.journal.writer import open_journal
    from xproxy.record.recorder import Observer, ProxyRecorder

    observer = Observer(version=__version__, hostname=socket.gethostname(), boot_id=secrets.token_hex(16))
    journal = open_journal(
        state,
        settings=JournalSettings(),
        on_failure="stop",
        recorder=ProxyRecorder(observer=observer),
        deliver=lambda records: None,
    )
    before = journal.vkey
    end = time.monotonic() + seconds
    try:
        journal.rotate_keys()
        journal.start()
        while journal.vkey == before and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        lost = journal.close()
    if lost:
        raise EnvironmentProblem(f"{lost} records could not be written to the journal", "see xproxy log verify")


def _describe_keys(state: Path) -> list[dict[str, Any]]:
    places = stream_places(journal_directory(state))
    described = []
    for place in places:
        with StreamReader(place.path) as reader:
            size, note = reader.refresh(), reader.note
            if note is None:
                continue
            described.append(
                {
                    "stream": place.path.name,
                    "origin": note.checkpoint.origin,
                    "entries": size,
                    "keys": [{"from_entry": index, "vkey": str(key)} for index, key in _keys_of(reader)],
                    "note": note.to_text(),
                }
            )
    return described


def _keys_of(reader: StreamReader) -> list[tuple[int, VerifierKey]]:
    """Return the keys that the log names, each with the entry that brought it. None of it is verified.

    Segments name the key in force; only one in which it was exchanged must be read.
    """
    found: list[tuple[int, VerifierKey]] = []

    def add(index: int, key: VerifierKey) -> None:
        if not found or found[-1][1] != key:
            found.append((index, key))

    segments = reader.segments
    for number, segment in enumerate(segments):
        add(segment.first_index, segment.opened.vkey)
        is_newest = number + 1 == len(segments)
        if is_newest or segments[number + 1].opened.vkey != segment.opened.vkey:
            for index, key in _rotations_in(reader, segment):
                add(index, key)
    return found


def _rotations_in(reader: StreamReader, segment: Segment) -> Iterator[tuple[int, VerifierKey]]:
    index = segment.first_index
    end = reader.durable if segment.end_index is None else segment.end_index
    while batch := reader.read(index, min(BATCH_COUNT_MAX, max(0, end - index))):
        for entry in batch:
            if entry.type is EntryType.CONTROL:
                try:
                    if (key := new_key_of(entry)) is not None:
                        yield entry.index, key
                except FormatProblem as problem:
                    raise JournalDamaged(f"entry {entry.index}: {problem}", path=segment.path) from problem
        index += len(batch)


# Size -----------------------------------------------------------------------------------------------------------------


@log.command(short_help="How much there is, how fast it grows, and when the disk is full.")
@state_option(JOURNAL_DIRECTORY)
@json_option
def stats(state: Path, as_json: bool) -> None:
    """How much there is, how fast it grows, and when the disk will be full."""
    journal = journal_directory(state)
    now = time.time()
    streams = []
    for place in stream_places(journal):
        with StreamReader(place.path) as reader:
            size = reader.refresh()
            streams.append(_measure(place.path.name, reader.segments, size, now))
    disk = os.statvfs(journal)
    free, total = disk.f_bavail * disk.f_frsize, (disk.f_blocks - disk.f_bfree + disk.f_bavail) * disk.f_frsize
    per_day = sum(stream["bytes_per_day"] or 0.0 for stream in streams)
    is_known = any(stream["bytes_per_day"] is not None for stream in streams)
    described = {
        "streams": streams,
        "disk": {
            "free_bytes": free,
            "used_percent": round(100.0 * (1 - free / total), 1) if total else None,
            "days_until_full": round(free / per_day, 1) if is_known and per_day > 0 else None,
        },
        "being_written": is_being_written(journal),
    }
    if is_terminal(sys.stdout) and not as_json:
        _print_stats(described)
    else:
        print_json(described)


def _measure(name: str, segments: tuple[Segment, ...], size: int, now: float) -> dict[str, Any]:
    """Describe one stream. The rate is that of the last day, by segments, or since the first if that is younger."""
    starts = [segment.time_ns / 1e9 for segment in segments]
    sizes = [_bytes_of(segment) for segment in segments]
    begin = max(now - DAY_SECONDS, min(starts, default=now))
    seconds = now - begin
    octets = records = 0.0
    for number, segment in enumerate(segments):
        end = starts[number + 1] if number + 1 < len(segments) else now
        length = max(end - starts[number], 1e-9)
        share = min(1.0, max(0.0, (end - max(starts[number], begin)) / length))
        last = size if segment.end_index is None else min(segment.end_index, size)
        octets += sizes[number] * share
        records += max(0, last - segment.first_index) * share
    is_known = seconds >= RATE_SECONDS_MIN
    return {
        "stream": name,
        "entries": size,
        "segments": len(segments),
        "bytes": sum(sizes),
        "since": None if not starts else datetime.fromtimestamp(min(starts), UTC).isoformat(timespec="seconds"),
        "measured_seconds": round(seconds),
        "entries_per_second": round(records / seconds, 6) if is_known else None,
        "bytes_per_day": round(octets / seconds * DAY_SECONDS) if is_known else None,
    }


def _bytes_of(segment: Segment) -> int:
    """Return what a segment takes on the disk: the room made ahead of the newest counts."""
    try:
        return segment.path.stat().st_blocks * 512
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="look at", path=segment.path) from error


def _log_bytes(segments: tuple[Segment, ...]) -> int:
    return sum(_bytes_of(segment) if segment.log_bytes is None else segment.log_bytes for segment in segments)


def _print_stats(described: dict[str, Any]) -> None:
    for stream in described["streams"]:
        click.echo(
            f"{stream['stream']:<8}{stream['entries']} entries in {_segments(stream['segments'])}, "
            f"{_size(stream['bytes'])}, since {stream['since'] or 'never'}"
        )
        if stream["bytes_per_day"] is None:
            click.echo("        too young to tell how fast it grows")
        else:
            hours, rate = stream["measured_seconds"] / 3_600, stream["entries_per_second"]
            speed = f"{rate:,.1f} entries a second" if rate >= 1 else f"{rate * DAY_SECONDS:,.0f} entries a day"
            click.echo(f"        {speed}, {_size(stream['bytes_per_day'])} a day (over the last {hours:.1f} h)")
    disk = described["disk"]
    days = disk["days_until_full"]
    full = "" if days is None else f", full in {days:,.1f} days at this rate"
    click.echo(f"disk    {_size(disk['free_bytes'])} free, {disk['used_percent']} % used{full}")
    if described["being_written"]:
        click.echo("        a proxy is writing it")


def _size(octets: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if octets < 1_024:
            return f"{octets:.0f} {unit}" if unit == "bytes" else f"{octets:.1f} {unit}"
        octets /= 1_024
    return f"{octets:.1f} TiB"
