"""``xproxy cassette``: captures made into cassettes, and cassettes kept in order."""

import sys
from pathlib import Path
from typing import Final

import click

from xproxy import __version__
from xproxy.capture.cassette import REDACTION, Cassette
from xproxy.capture.cassette_xml import read_cassette, render_cassette
from xproxy.capture.make import make_cassette
from xproxy.capture.node import Node
from xproxy.cli.output import make_console, replace_file
from xproxy.errors import EXIT_NO, UsageProblem
from xproxy.replay.cassette_diff import diff_cassettes
from xproxy.replay.passwords import read_lines
from xproxy.replay.scrub import Scrubber
from xproxy.replay.strip import strip_cassette

_FILE: Final = click.Path(path_type=Path, dir_okay=False)

_EPILOG = """\b
Examples:
  xproxy cassette make captures/*.xcap.jsonl -o tests/cassettes/login.xmpp.xml
  xproxy cassette fmt --check tests/cassettes/*.xmpp.xml      in a pre-commit hook
  xproxy cassette diff old.xmpp.xml new.xmpp.xml
"""


@click.group(epilog=_EPILOG)
def cassette() -> None:
    """Cassettes: recorded conversations that are kept beside the tests, read in reviews, and replayed.

    `xproxy run --capture DIR --capture-bodies` records, `xproxy cassette make` makes a cassette of it, `xproxy replay
    server` and `xproxy replay client` play it.
    """


@cassette.command()
@click.argument("captures", nargs=-1, required=True, type=_FILE)
@click.option("-o", "--out", type=_FILE, metavar="FILE", help="Where to write. [default: standard output]")
@click.option("--password", "passwords", multiple=True, metavar="NAME=VALUE",
              help="A password that was used: nothing is written if it still occurs anywhere. Other users of the "
              "machine see it in the list of processes; --password-file keeps it from them.")  # fmt: skip
@click.option("--password-file", type=_FILE, metavar="FILE", help="The same, one a line.")
def make(captures: tuple[Path, ...], out: Path | None, passwords: tuple[str, ...], password_file: Path | None) -> None:
    """Make a cassette of captured sessions.

    What may differ from one replay to the next becomes a placeholder: ids, resources, times. Secrets are left out, and
    so is what people write unless the capture was made with --capture-bodies.
    """
    made = make_cassette(captures, by=f"xproxy {__version__}")
    data = render_cassette(made.cassette)
    _check_secrets(data, passwords, password_file)
    for note in made.notes:
        click.echo(f"xproxy: {note}", err=True)
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    replace_file(out, data)
    counts = f"{len(made.cassette.sessions)} sessions, {len(made.cassette.events)} events"
    click.echo(f"{out}: {counts}", err=True)


def _check_secrets(data: bytes, passwords: tuple[str, ...], file: Path | None) -> None:
    """Refuse to write what holds a known secret.

    Raises:
        UsageProblem: it does.
        FileProblem: the file of passwords cannot be read, or others may read it too.
    """
    lines = list(passwords)
    if file is not None:
        lines += [line for _, line in read_lines(file)]
    for number, line in enumerate(data.decode().splitlines(), 1):
        for given in lines:
            name, equals, value = given.partition("=")
            if Scrubber([value if equals else name]).finds(line):
                raise UsageProblem(
                    f"line {number} of the cassette would hold the password of {name if equals else 'an account'}",
                    "nothing was written; record again with another text there, or edit the capture",
                )


@cassette.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
def check(files: tuple[Path, ...]) -> None:
    """Check cassettes: every problem with file and line. Exit code 2 if there is one."""
    problems: list[UsageProblem] = []
    for path in files:
        try:
            found = read_cassette(path)
        except UsageProblem as problem:
            problems.append(problem)
            continue
        click.echo(f"{path}: ok, {len(found.sessions)} sessions, {len(found.events)} events")
    if problems:
        for other in problems[:-1]:
            click.echo(f"xproxy: {other}", err=True)
        raise problems[-1]


@cassette.command(short_help="Write cassettes as they would be written anew: layout, order.")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit code 1 if a file would change.")
@click.pass_context
def fmt(ctx: click.Context, files: tuple[Path, ...], only_check: bool) -> None:
    """Write cassettes as they would be written anew: layout, order of attributes, the present version."""
    changed = 0
    for path in files:
        data = render_cassette(read_cassette(path))
        if data == path.read_bytes():
            continue
        changed += 1
        if not only_check:
            replace_file(path, data)
        click.echo(f"{path}: {'would be changed' if only_check else 'changed'}")
    if changed and only_check:
        ctx.exit(EXIT_NO)


@cassette.command(short_help="Take out of cassettes what should not be in them.")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--bodies/--keep-bodies", default=True, show_default=True, help="Take out what people write too.")
@click.option("--secret", "secrets", multiple=True, metavar="TEXT", help="Take this out wherever it stands.")
def redact(files: tuple[Path, ...], bodies: bool, secrets: tuple[str, ...]) -> None:
    """Take out of cassettes what should not be in them: in its place comes ${any}, which matches anything."""
    for path in files:
        old = read_cassette(path)
        new = strip_cassette(old, bodies=bodies, secrets=secrets)
        data = render_cassette(new)
        if data == path.read_bytes():
            click.echo(f"{path}: nothing to take out")
            continue
        replace_file(path, data)
        click.echo(f"{path}: {_count(old, new)} values taken out")


def _count(old: Cassette, new: Cassette) -> int:
    assert new.meta.redaction == REDACTION
    pairs = zip(old.events, new.events, strict=True)
    return sum(_values(a.stanza) != _values(b.stanza) for a, b in pairs)


def _values(node: Node | None) -> tuple[object, ...]:
    return () if node is None else tuple((each.attributes, each.text) for each in node.iter())


@cassette.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@click.pass_context
def diff(ctx: click.Context, old: Path, new: Path) -> None:
    """Say what is different between two cassettes, stanza by stanza. Exit code 1 if anything is."""
    lines = list(diff_cassettes(read_cassette(old), read_cassette(new)))
    console = make_console()
    styles = {"-": "red", "+": "green", "@": "cyan"}
    for line in lines:
        console.print(line, style=styles.get(line[:1]), soft_wrap=True)
    if lines:
        ctx.exit(EXIT_NO)
