"""``xproxy status``, ``sessions``, ``reload``, ``drain``, ``log-level``: a running proxy, over its control socket."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import click

from xproxy.cli.output import is_terminal, make_console, print_json
from xproxy.cli.state import find_state
from xproxy.control.address import SOCKET_FILE
from xproxy.control.client import ControlClient, NoProxy, wait_for_end
from xproxy.control.words import LEVELS, SORTS
from xproxy.errors import EXIT_NO, EXIT_OK

WAIT_SECONDS: Final = 0.5  # between two looks at a drain
WATCH_SECONDS: Final = 1.0
LINES_AROUND: Final = 6  # of the table on a screen: head, rule, foot

_EPILOG = """
The proxy is the one whose state directory is given by --state, else by XPROXY_STATE or the configuration (-c, else
./xproxy.toml, else /etc/xproxy/xproxy.toml), else the default one of this user, else /var/lib/xproxy. Only root and the
user it runs as may ask.
"""

_PATH: Final = click.Path(path_type=Path)
F = TypeVar("F", bound=Callable[..., Any])


def proxy_options(command: F) -> F:
    """Give ``command`` the options that name a running proxy."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="JSON also on a terminal; piped it is JSON anyway."),
        click.option("-c", "--config", "config_file", metavar="FILE", type=_PATH, help="The proxy's configuration."),
        click.option("--state", metavar="DIR", type=_PATH, help="The proxy's state directory."),
    ):
        command = option(command)
    return command


def find_proxy(state: Path | None, config_file: Path | None) -> ControlClient:
    """Return the client for the proxy that is meant.

    Raises:
        ConfigProblems, FileProblem: no ``state`` is given, and the configuration does not say which it is.
    """
    return ControlClient(find_state(SOCKET_FILE, config_file) if state is None else state)


# status -------------------------------------------------------------------------------------------------------------


@click.command(epilog=_EPILOG)
@proxy_options
def status(state: Path | None, config_file: Path | None, as_json: bool) -> int:
    """How the running proxy is: green, or red and why.

    Exit codes: 0 green, 1 red (records do not reach the journal or the log, or the server cannot be reached and
    clients are refused), 3 no proxy runs there.
    """
    document = find_proxy(state, config_file).get("/v1/status")
    if as_json or not is_terminal(sys.stdout):
        print_json(document)
    else:
        _print_status(document)
    return EXIT_OK if document["health"] == "green" else EXIT_NO


def _print_status(document: dict[str, Any]) -> None:
    from rich.text import Text

    console = make_console()
    red = document["health"] != "green"
    console.print(
        Text.assemble(
            (document["health"], "bold red" if red else "bold green"),
            f"  xproxy {document['version']}, {document['state']}, process {document['pid']}, "
            f"up {duration(document['uptime_seconds'])}",
        )
    )
    for problem in document["problems"]:
        console.print(Text(f"  {problem}", style="red"), soft_wrap=True)
    journal, log, sessions, names = document["journal"], document["log"], document["sessions"], document["names"]
    upstream, descriptors = document["upstream"], document["descriptors"]
    rows = [
        ("listens on", ", ".join(document["listeners"]) or "-"),
        ("server", f"{upstream['address'] or '-'}, verify {upstream['verify']}"),
        ("clients see", "certificates of the local CA" if document["certificate"] == "ca" else "the files given"),
        ("identities", document["identities"]),
        ("sessions", f"{sessions['now']} of {sessions['max']}"),
        ("log", f"{log['path'] or 'standard output'}, level {log['level']}, {log['waiting']} records wait"),
        ("XML names", f"{names['now']} of {names['max']}"),
        ("descriptors", f"{descriptors['now']} of {descriptors['max']}"),
        ("memory", size(document["resident_bytes"]) if document["resident_bytes"] is not None else "-"),
    ]
    if journal is not None:
        rows.insert(5, ("journal", f"{journal['entries']} entries, {journal['waiting']} records wait"))
    if log["level"] != log["configured_level"]:
        rows.insert(7, ("", f"level {log['configured_level']} comes back with the next reload or restart"))
    if document["drain_seconds_left"] is not None:
        rows.insert(5, ("", f"draining, {document['drain_seconds_left']:.0f} s are left"))
    for name, value in rows:
        console.print(Text.assemble((f"  {name:<12}", "dim"), value), soft_wrap=True)


# sessions -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Column:
    """One column of the table of sessions."""

    head: str
    of: Callable[[dict[str, Any]], str]
    right: bool = False
    chars: int = 0  # shown on terminals of at least this width
    grows: bool = False


_TRUST: Final = {
    "stream-from": "claimed",
    "sasl-claimed": "claimed",
    "sasl-success": "proven",
    "bind-result": "bound",
    "resumed": "resumed",
}

COLUMNS: Final = (
    Column("trace", lambda row: (row["trace_id"] or "")[:8], chars=160),
    Column("client", lambda row: row["client"] or "-"),
    Column("way in", lambda row: row["way_in"], chars=210),
    Column("listener", lambda row: row["listener"] or "-", chars=230),
    Column("jid", lambda row: row["jid"] or "-", grows=True),
    Column("who says", lambda row: _TRUST.get(row["jid_source"] or "", "-"), chars=100),
    Column("domain", lambda row: row["domain"] or "-", chars=250),
    Column("phase", lambda row: row["phase"]),
    Column("tls", lambda row: f"{row['tls']['client'] or '-'}/{row['tls']['server'] or '-'}", chars=135),
    Column("mechanism", lambda row: row["mechanism"] or "-", chars=150),
    Column("upstream", lambda row: row["upstream"] or "-", chars=190),
    Column("age", lambda row: duration(row["age_seconds"]), right=True),
    Column("idle", lambda row: duration(row["idle_seconds"]), right=True, chars=100),
    Column("from client", lambda row: _traffic(row["from_client"]), right=True, chars=125),
    Column("from server", lambda row: _traffic(row["from_server"]), right=True, chars=125),
    Column("waiting", lambda row: _waiting(row), right=True, chars=170),
)


@click.command(epilog=_EPILOG)
@proxy_options
@click.option(
    "--watch", is_flag=True, help="Again and again, until Ctrl-C: a live table, or piped a line of JSON each."
)
@click.option("--interval", type=click.FloatRange(min=0.1), default=WATCH_SECONDS, show_default=True, metavar="SECONDS",
              help="Of --watch.")  # fmt: skip
@click.option("--sort", type=click.Choice(SORTS), default="age", show_default=True,
              help="Most first; texts alphabetically.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Show at most N. [default: all; with --watch "
              "as many as the terminal has lines]")  # fmt: skip
def sessions(
    state: Path | None,
    config_file: Path | None,
    as_json: bool,
    watch: bool,
    interval: float,
    sort: str,
    limit: int | None,
) -> int:
    """Who is connected: from where, as whom, how far, how much.

    "who says" is how far the JID is proven: claimed by the client alone, proven by a login, bound or resumed by the
    server. Traffic is bytes and stanzas. A narrow terminal gets fewer columns; --json has all. JIDs and addresses are
    shown as records hold them (--identities of the proxy).
    """
    client = find_proxy(state, config_file)
    as_json = as_json or not is_terminal(sys.stdout)

    def ask(limit: int | None) -> dict[str, Any]:
        return client.get("/v1/sessions", {"sort": sort, "limit": limit})

    if watch and not as_json:
        _watch(ask, interval, limit)
    elif as_json:
        while True:
            print_json(ask(limit)) if not watch else _print_line(ask(limit))
            if not watch:
                break
            time.sleep(interval)
    else:
        console = make_console()
        console.print(_table(ask(limit), console.width))
    return EXIT_OK


def _print_line(document: dict[str, Any]) -> None:
    import orjson

    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


def _watch(ask: Callable[[int | None], dict[str, Any]], interval: float, limit: int | None) -> None:
    from rich.live import Live

    console = make_console()

    def look() -> Any:
        shown = limit if limit is not None else max(1, console.height - LINES_AROUND)
        return _table(ask(shown), console.width)

    # The alternate screen is written over from its corner, never cleared in between: it does not flicker.
    with Live(look(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(look(), refresh=True)


def _table(document: dict[str, Any], width: int) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows: Sequence[dict[str, Any]] = document["sessions"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), expand=False)
    columns = [column for column in COLUMNS if width >= column.chars]
    for column in columns:
        table.add_column(
            column.head,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if column.grows else None,
        )
    for row in rows:
        table.add_row(*(Text(column.of(row)) for column in columns))
    total = document["total"]
    words = [f"{total} session{'' if total == 1 else 's'}"]
    if len(rows) < total:
        words.append(f"the first {len(rows)} by {document['sort']}")
    foot = Text(", ".join(words), style="dim")
    passthrough = document["passthrough"]
    warnings = [Text(f"not inspected: {_passthrough(entry)}", style="yellow") for entry in passthrough]
    return Group(table, foot, *warnings)


def _passthrough(entry: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in entry.items() if value is not None)


def _traffic(totals: dict[str, Any]) -> str:
    return f"{size(totals['bytes'])} {totals['stanzas']}"


def _waiting(row: dict[str, Any]) -> str:
    waiting = row["to_client"]["waiting_bytes"] + row["to_server"]["waiting_bytes"]
    return size(waiting) if waiting else "-"


# Changes ------------------------------------------------------------------------------------------------------------


@click.command(epilog=_EPILOG)
@proxy_options
def reload(state: Path | None, config_file: Path | None, as_json: bool) -> int:
    """Read certificates and the log level again, and open the log file again: what SIGHUP does, and what came of it.

    What is bad is kept as it was. Exit codes: 0 all was read, 1 something was kept.
    """
    document = find_proxy(state, config_file).post("/v1/reload")
    if as_json or not is_terminal(sys.stdout):
        print_json(document)
    else:
        if document["reloaded"]:
            click.echo(f"read again: {', '.join(document['reloaded'])}")
        for kept in document["problems"]:
            click.echo(f"{kept['what']} kept as before: {kept['problem']}")
        if document["needs_restart"]:
            click.echo(f"changed, but only read at the start: {', '.join(document['needs_restart'])}")
    return EXIT_NO if document["problems"] else EXIT_OK


@click.command(epilog=_EPILOG)
@proxy_options
@click.option("--seconds", type=click.FloatRange(min=0), metavar="S", help="How long sessions may go on; 0 drops them "
              "now. [default: drain_seconds in [sessions]]")  # fmt: skip
@click.option("--wait", is_flag=True, help="Return when the proxy has ended.")
def drain(state: Path | None, config_file: Path | None, as_json: bool, seconds: float | None, wait: bool) -> int:
    """Take no more clients, let sessions end by themselves, then drop them so that they can resume, and stop.

    Said again with --seconds, the new time counts from now.
    """
    client = find_proxy(state, config_file)
    as_json = as_json or not is_terminal(sys.stdout)
    pid = client.process()
    document = client.post("/v1/drain", {} if seconds is None else {"seconds": seconds})
    if not as_json:
        have = "session has" if document["sessions"] == 1 else "sessions have"
        click.echo(f"draining: {document['sessions']} {have} {document['seconds']:.0f} s")
    if wait:
        _wait_drained(client, pid, quiet=as_json)
        document = {**document, "ended": True}
        if not as_json:
            click.echo("the proxy has ended")
    if as_json:
        print_json(document)
    return EXIT_OK


def _wait_drained(client: ControlClient, pid: int | None, *, quiet: bool) -> None:
    from rich.text import Text

    console = make_console(stderr=True)
    with console.status("") as spinner:
        while not wait_for_end(pid, WAIT_SECONDS):
            try:
                now = client.get("/v1/status")
            except NoProxy:
                if pid is None:
                    return
                continue  # the socket has closed, the journal is being sealed
            if pid is not None and now["pid"] != pid:
                return  # its successor
            if not quiet:
                left = now["drain_seconds_left"] or 0.0
                count = now["sessions"]["now"]
                spinner.update(Text(f"{count} session{'' if count == 1 else 's'}, {left:.0f} s left"))


@click.command("log-level", epilog=_EPILOG)
@proxy_options
@click.argument("level", type=click.Choice(LEVELS), required=False)
def log_level(state: Path | None, config_file: Path | None, as_json: bool, level: str | None) -> int:
    """Show the level of the log, or set it.

    debug also makes sessions that begin from now on tell of each stanza (never of its content). It holds until the next
    reload or restart, which bring back the configured one.
    """
    client = find_proxy(state, config_file)
    document = client.get("/v1/log-level") if level is None else client.put("/v1/log-level", {"level": level})
    if as_json or not is_terminal(sys.stdout):
        print_json(document)
        return EXIT_OK
    words = document["level"] if level is None else f"{document['was']} -> {document['level']}"
    if document["level"] != document["configured"]:
        words += f"; {document['configured']} comes back with the next reload or restart"
    click.echo(words)
    return EXIT_OK


# Words --------------------------------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Return seconds as a person reads them: 0.4s, 12s, 5m07s, 3h05m, 2d04h."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3_600}h{whole % 3_600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3_600:02d}h"


def size(octets: int) -> str:
    """Return a number of bytes as a person reads it: 812 B, 4.2 KiB, 1.3 GiB."""
    value, unit = float(octets), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{octets} B" if unit == "B" else f"{value:.1f} {unit}"
