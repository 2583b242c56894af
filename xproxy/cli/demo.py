"""``xproxy demo``: see what the log looks like without a server at hand."""

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Literal

import click
import trio
from rich.text import Text

from xproxy.cli.output import choose_format, make_console
from xproxy.demo import SCENES, Document, Scene, run_demo
from xproxy.errors import FileProblem
from xproxy.events import Level
from xproxy.log.view import render
from xproxy.record.recorder import Record


@click.command()
@click.option("--dir", "directory", metavar="DIR", type=click.Path(path_type=Path), help="Where the log and the "
              "certificates are left. [default: a fresh directory for temporary files]")  # fmt: skip
@click.option("--log-format", metavar="auto|human|json", type=click.Choice(["auto", "human", "json"]), default="auto",
              help="What standard output shows; auto: the human view on a terminal, JSON Lines when piped. "
              "[default: auto]")  # fmt: skip
def demo(directory: Path | None, log_format: Literal["auto", "human", "json"]) -> None:
    """An embedded server, the proxy before it, and scripted clients.

    A login with messages, a wrong password, a request that earns an error, a client that drops and resumes: the events
    appear as they happen. Nothing outside this machine is touched.
    """
    is_human = choose_format(log_format, sys.stdout) == "human"
    console = make_console()
    narrator = console if is_human else make_console(stderr=True)

    def show(line: bytes, document: Document) -> None:
        if is_human:
            level = Level[document["log"]["level"].upper()]
            record = Record(document=document, level=level, action=document["event"]["action"])
            console.print(render(record, console), soft_wrap=True)
        else:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()

    def narrate(number: int, scene: Scene) -> None:
        # With JSON on standard output the headings are for whoever watches standard error.
        narrator.print(
            Text.assemble("\n" if is_human else "", (f"{number}/{len(SCENES)} {scene.title}", "bold cyan")),
            Text(f"    {scene.about}", style="dim"),
            sep="\n",
            soft_wrap=True,
        )

    log_path = trio.run(partial(run_demo, directory or _fresh_directory(), show=show, narrate=narrate))
    click.echo(f"xproxy: the log is {log_path}", err=True)
    click.echo("xproxy: next, in front of a server of yours: xproxy run --upstream HOST:5222 --domain DOMAIN", err=True)


def _fresh_directory() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="xproxy-demo-"))
    except OSError as error:
        where = Path(tempfile.gettempdir())
        raise FileProblem.from_os_error(error, doing="make a directory in", path=where, hint="use --dir") from error
