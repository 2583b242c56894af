"""``xproxy capture``: captured sessions, and capturing in a running proxy."""

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import attrs
import click
from rich.text import Text

from xproxy.capture.again import redacted_again
from xproxy.capture.content import is_of_older_rules
from xproxy.capture.elements import Element, Elements
from xproxy.capture.lexer import UnitKind
from xproxy.capture.pcapng import file_header, packets
from xproxy.capture.trace import SUFFIX, Closed, Conn, Gap, Lost, Meta, TraceLine, Xml, read_trace
from xproxy.capture.transcript import Entry, Style, transcript
from xproxy.cli.capture_files import CaptureFile, read_from, size_of, some_captures_in
from xproxy.cli.control import find_proxy, proxy_options
from xproxy.cli.output import is_terminal, make_console, print_json, progress_bar
from xproxy.errors import EXIT_OK, FileProblem, UsageProblem
from xproxy.events import Side

_STYLES: Final[dict[Style, str]] = {
    "client": "bold green",
    "server": "bold cyan",
    "proxy": "bold magenta",
    "note": "yellow",
    "tag": "blue",
    "text": "",
    "comment": "dim",
}
_PATH: Final = click.Path(path_type=Path)
_NS: Final = 1_000_000_000


@click.group()
def capture() -> None:
    """Captured sessions: read, count, redact, export them; start and stop capturing in a running proxy.

    `xproxy run --capture DIR` writes a file for each session; `xproxy replay` plays them.
    """


# show ---------------------------------------------------------------------------------------------------------------


@capture.command(short_help="Print what was said, by both sides, each element indented.")
@click.argument("file", type=_PATH)
@click.option("--session", type=int, metavar="N", help="Only the N-th session of the file.")
def show(file: Path, session: int | None) -> int:
    """Print what was said, by both sides, each element indented; in colour on a terminal."""
    if is_terminal(sys.stdout):
        console = make_console()
        for entry in _entries(file, session):
            console.print(_render(entry), soft_wrap=True)
    else:
        for entry in _entries(file, session):
            click.echo(_render(entry).plain)
    return EXIT_OK


def _entries(file: Path, session: int | None) -> Iterator[Entry]:
    found = False
    for entry in transcript(read_trace(file)):
        if session is None or entry.session == session:
            found = True
            yield entry
    if not found:
        raise UsageProblem(f"{file} has no session {session}" if session is not None else f"{file} has no session")


def _render(entry: Entry) -> Text:
    text = Text()
    for number, row in enumerate(entry.lines):
        if number == 0:
            text.append(f"{entry.session:>3} {entry.t_ns / _NS:>10.3f} ", style="dim")
            text.append(f"{entry.arrow.text:<4}", style=_STYLES[entry.arrow.style])
        else:
            text.append("\n" + " " * 19)
        for span in row:
            text.append(span.text, style=_STYLES[span.style])
    return text


# stats --------------------------------------------------------------------------------------------------------------


@attrs.define
class _Counted:
    """What a file holds."""

    redaction: str = ""
    sessions: int = 0
    whole: int = 0
    lines: int = 0
    bytes: int = 0
    seconds: float = 0.0
    octets: Counter[Side] = attrs.Factory(Counter)
    opaque: Counter[Side] = attrs.Factory(Counter)  # of these: in directions that nobody looked into
    kinds: Counter[str] = attrs.Factory(Counter)
    lossy: int = 0


@capture.command()
@click.argument("captures", nargs=-1, required=True, type=_PATH, metavar="FILE|DIR...")
@click.option("--json", "as_json", is_flag=True, help="JSON also on a terminal; piped it is JSON anyway.")
def stats(captures: tuple[Path, ...], as_json: bool) -> int:
    """Count sessions, octets and elements."""
    files = some_captures_in(captures)
    counted = {}
    with progress_bar("counting", size_of(files)) as advance:
        for each in files:
            count = _count(each, read_from(each, read_trace(each.path, on_bytes=advance)))
            if count.lines:
                counted[each.path] = count
    if as_json or not is_terminal(sys.stdout):
        print_json([_counted_document(file, count) for file, count in counted.items()])
        return EXIT_OK
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("sessions", "whole", "seconds", "client", "server", "stanzas", "redaction", "file"):
        is_text = name in ("file", "redaction")
        table.add_column(
            name, justify="left" if is_text else "right", no_wrap=True, min_width=20 if name == "file" else None
        )
    for file, count in counted.items():
        stanzas = sum(count.kinds[name] for name in ("message", "presence", "iq"))
        table.add_row(
            str(count.sessions),
            str(count.whole),
            f"{count.seconds:.1f}",
            f"{count.octets[Side.CLIENT]:,}",
            f"{count.octets[Side.SERVER]:,}",
            str(stanzas),
            Text(count.redaction + (" (older)" if is_of_older_rules(count.redaction) else "")),
            Text(file.name),
        )
    make_console().print(table)
    if any(is_of_older_rules(count.redaction) for count in counted.values()):
        click.echo("older: the rules of now take out more; xproxy capture redact FILE -o NEW applies them")
    return EXIT_OK


def _count(file: CaptureFile, lines: Iterable[TraceLine]) -> _Counted:
    count = _Counted()
    elements = Elements()
    broken: set[int] = set()
    for line in lines:
        count.lines += 1
        match line:
            case Meta():
                count.redaction = line.redaction
                continue
            case Conn():
                count.sessions += 1
            case Xml():
                count.octets[line.sent_by] += len(line.data)
                count.opaque[line.sent_by] += len(line.data) if line.phase == "opaque" else 0
                count.lossy += line.extra.lossy
            case Gap() | Lost():
                broken.add(line.session)
            case Closed():
                count.whole += line.session not in broken
                count.seconds += line.t_ns / _NS
        for element in elements.of(line):
            count.kinds[_kind(element)] += 1
    count.bytes = size_of([file])
    return count


def _kind(element: Element) -> str:
    if element.is_stanza:
        name = element.unit.octets.lstrip()[1:].split(b">", 1)[0].split(None, 1)[0]
        return name.rstrip(b"/").rpartition(b":")[2].decode()
    return "nonza" if element.unit.kind is UnitKind.ELEMENT else element.unit.kind.name.lower().replace("_", "-")


def _counted_document(file: Path, count: _Counted) -> dict[str, Any]:
    return {
        "file": str(file),
        "redaction": count.redaction,
        "redaction_is_older": is_of_older_rules(count.redaction),
        "bytes": count.bytes,
        "lines": count.lines,
        "sessions": count.sessions,
        "whole_sessions": count.whole,
        "seconds": round(count.seconds, 3),
        "octets": {side.value: count.octets[side] for side in Side},
        "opaque_octets": {side.value: count.opaque[side] for side in Side},
        "elements": dict(sorted(count.kinds.items())),
        "lossy_lines": count.lossy,
    }


# redact -------------------------------------------------------------------------------------------------------------


@capture.command(short_help="Take out of a capture what is not in it by default.")
@click.argument("file", type=_PATH)
@click.option("-o", "--output", type=_PATH, metavar="FILE", required=True, help="Where to; must not exist, 0600.")
def redact(file: Path, output: Path) -> int:
    """Take out of a capture what is not in it by default, for one that was made with --capture-bodies.

    The records of its sessions stay the same.
    """
    with _new_file(output) as out, progress_bar("redacting", size_of([CaptureFile(file, is_named=True)])) as advance:
        for line in redacted_again(file, on_bytes=advance):
            out.write(line)
    return EXIT_OK


# export -------------------------------------------------------------------------------------------------------------


@capture.command(short_help="Write captures as packets, for Wireshark.")
@click.argument("captures", nargs=-1, required=True, type=_PATH, metavar="FILE|DIR...")
@click.option("--pcapng", type=_PATH, metavar="FILE", required=True, help="Packets, for Wireshark and tshark. Must not "
              "exist, 0600.")  # fmt: skip
def export(captures: tuple[Path, ...], pcapng: Path) -> int:
    """Write captures as packets: synthetic TCP on port 5222, in clear, one element a segment.

    What was said before TLS and inside it are two conversations. The comment of a packet names trace id and line.
    """
    files = some_captures_in(captures)
    with _new_file(pcapng) as out, progress_bar("exporting", size_of(files)) as advance:
        out.write(file_header())
        for each in files:
            for packet in packets(read_from(each, read_trace(each.path, on_bytes=advance))):
                out.write(packet)
    return EXIT_OK


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that is not there, 0600; whatever goes wrong, no half of it stays."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise FileProblem(f"{path} exists", "name another, or remove it first", path=path) from error
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="write", path=path) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except OSError as error:
        path.unlink(missing_ok=True)
        raise FileProblem.from_os_error(error, doing="write", path=path) from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


# A running proxy ----------------------------------------------------------------------------------------------------


@capture.command()
@proxy_options
@click.argument("directory", required=False, type=_PATH, metavar="[DIR]")
@click.option("--jid", metavar="J", help="Only sessions of this account.")
@click.option("--ip", "net", metavar="NET", help="Only clients of this address or network.")
@click.option("--on", "actions", metavar="ACTION,...", help="Only sessions in which one of these is recorded.")
@click.option("--bodies", is_flag=True, help="Also what people say to each other; the log says so.")
def start(
    state: Path | None,
    config_file: Path | None,
    as_json: bool,
    directory: Path | None,
    jid: str | None,
    net: str | None,
    actions: str | None,
    bodies: bool,
) -> int:
    """Capture the sessions that begin from now on, into DIR. What is not given is as configured."""
    asked = {
        "directory": None if directory is None else str(directory.absolute()),
        "jid": jid,
        "net": net,
        "actions": actions,
        "bodies": bodies or None,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    answer = find_proxy(state, config_file).post("/v1/capture/start", given)
    return _print_status(answer, as_json=as_json)


@capture.command()
@proxy_options
def stop(state: Path | None, config_file: Path | None, as_json: bool) -> int:
    """Stop capturing. Sessions under way are cut off."""
    answer = find_proxy(state, config_file).post("/v1/capture/stop")
    return _print_status(answer, as_json=as_json)


@capture.command()
@proxy_options
def status(state: Path | None, config_file: Path | None, as_json: bool) -> int:
    """Say what is captured, and how much so far."""
    return _print_status(find_proxy(state, config_file).get("/v1/capture"), as_json=as_json)


def _print_status(answer: dict[str, Any], *, as_json: bool) -> int:
    if as_json or not is_terminal(sys.stdout):
        print_json(answer)
        return EXIT_OK
    if answer["directory"] is None:
        click.echo("nothing is captured")
        return EXIT_OK
    filters = [f"{name} {answer[name]}" for name in ("jid", "net") if answer[name]]
    filters += [f"when {', '.join(answer['actions'])}"] if answer["actions"] else []
    click.echo(f"capturing into {answer['directory']}" + (f" ({'; '.join(filters)})" if filters else ""))
    if answer["bodies"]:
        click.echo("what people say to each other is in the captures")
    click.echo(
        f"{answer['sessions']} sessions in *{SUFFIX}, {answer['bytes']:,} bytes; {answer['sessions_now']} looked at "
        f"now, {answer['sessions_lost']} cut off"
    )
    return EXIT_OK
