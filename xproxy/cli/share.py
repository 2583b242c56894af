"""``xproxy share``: files for the machine that xproxy runs on."""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

import click

from xproxy import share as shared_files
from xproxy.cli.output import is_terminal, make_console, print_json
from xproxy.errors import EXIT_OK, FileProblem, UsageProblem

_EPILOG = """\b
Examples:
  xproxy share list
  xproxy share write xproxy.service /etc/systemd/system
  xproxy share write systemd ./units        all files of a group
  xproxy share write Containerfile -        to standard output
"""
_HIDDEN: Final = ("/home", "/root", "/run/user")  # what ProtectHome= takes from the service


@click.group(epilog=_EPILOG)
def share() -> None:
    """Units, defaults and a container file: list them, write them where they belong."""


@share.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON also on a terminal; piped it is JSON anyway.")
def list_(as_json: bool) -> int:
    """List the files, with where each goes."""
    if as_json or not is_terminal(sys.stdout):
        print_json(
            [
                {"name": each.name, "group": each.group, "place": each.place, "about": each.about}
                for each in shared_files.SHARED
            ]
        )
        return EXIT_OK
    from rich import box
    from rich.table import Table

    table = Table("name", "group", "goes to", "what it is", box=box.SIMPLE_HEAD, pad_edge=False)
    for each in shared_files.SHARED:
        table.add_row(each.name, each.group, each.place, each.about)
    make_console().print(table)
    return EXIT_OK


@share.command(short_help="Write the file NAME, or all files of the group NAME.")
@click.argument("name")
@click.argument("directory", type=click.Path(path_type=Path), default=Path())
@click.option("--program", metavar="PATH", help="Where xproxy is on that machine. [default: where it is here]")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def write(name: str, directory: Path, program: str | None, force: bool) -> int:
    """Write the file NAME, or all files of the group NAME, into DIRECTORY ("." by default; -: standard output)."""
    found = shared_files.find(name)
    if not found:
        names = ", ".join(dict.fromkeys(part for each in shared_files.SHARED for part in (each.group, each.name)))
        raise UsageProblem(f"there is no file {name!r}", f"there are {names}")
    executable = program or find_program()
    texts = {each.name: shared_files.read(each, executable=executable) for each in found}
    if str(directory) == "-":
        sys.stdout.buffer.write(b"".join(texts.values()))
        sys.stdout.flush()
        return EXIT_OK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        there = [directory / each for each in texts if (directory / each).exists()]
        if there and not force:
            raise FileProblem(f"{there[0]} is there already", "--force replaces it", path=there[0])
        for each, text in texts.items():
            (directory / each).write_bytes(text)
            (directory / each).chmod(0o644)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="write into", path=directory) from error
    for file in found:
        click.echo(f"{directory / file.name}: goes to {file.place}", err=True)
    if any(executable.encode() in text for text in texts.values()) and executable.startswith(_HIDDEN):
        click.echo(
            f"xproxy: warning: the service cannot see {executable}, for it has no access to homes (ProtectHome=): "
            "install xproxy elsewhere, such as PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install xproxy",
            err=True,
        )
    return EXIT_OK


def find_program() -> str:
    """Return the path of the program that runs now, as a unit has to write it."""
    here = Path(sys.argv[0])
    if here.name == "xproxy" and os.access(here, os.X_OK):
        return str(here.absolute())
    return shutil.which("xproxy") or shared_files.EXECUTABLE
