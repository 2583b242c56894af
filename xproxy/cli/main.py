"""The command ``xproxy``: a group whose commands are imported when they are called.

``xproxy --help`` and shell completion must answer at once; lxml, trio and cryptography take a third of a second.
"""

import errno
import importlib
import signal
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import attrs
import click

from xproxy import __version__
from xproxy.errors import EXIT_ENVIRONMENT, find_problem

_EPILOG = """\b
Examples:
  xproxy demo
      everything at once, without a server: see what the log looks like
  xproxy run --upstream xmpp.example.org:5222 --domain example.org
      point a client at 127.0.0.1:5222 and watch it log in
  xproxy doctor xmpp.example.org --domain example.org
      what will break behind xproxy, and the setting of the server that mends it
  xproxy run --listen 0.0.0.0:5222 --upstream 10.0.0.5:5222 --log records.jsonl
      in front of a server; records as JSON Lines in a file
  xproxy log verify
      prove that the journal is what was signed
  xproxy sessions --watch
      who is connected now
  xproxy certs show
      the authority that clients must trust to be looked into
  xproxy config example > xproxy.toml
      every key with default, unit and reason

\b
Exit codes: 0 ok, 1 the answer is no, 2 usage or configuration, 3 environment.

xproxy ends TLS between a client and its server. Use it where you may: on your own traffic, on servers you run, with
the knowledge of those whose traffic it is.
"""

_OUTPUT_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
EXIT_INTERRUPTED = 128 + signal.SIGINT  # as shells report it


@attrs.frozen
class LazyCommand:
    """A command by name: where it lives and the line it has in the group's help."""

    module: str
    attribute: str
    help: str


COMMANDS: Mapping[str, LazyCommand] = {
    "demo": LazyCommand("xproxy.cli.demo", "demo", "An embedded server, the proxy and scripted clients, live."),
    "run": LazyCommand("xproxy.cli.run", "run", "Run the proxy in front of a server."),
    "check": LazyCommand("xproxy.cli.check", "check", "Would run work here? Everything that would not, at once."),
    "doctor": LazyCommand(
        "xproxy.cli.doctor", "doctor", "Look at a server: what will break behind xproxy, and the fix."
    ),
    "status": LazyCommand("xproxy.cli.control", "status", "How a running proxy is: green, or red and why."),
    "sessions": LazyCommand("xproxy.cli.control", "sessions", "Who is connected: from where, as whom, how far."),
    "reload": LazyCommand("xproxy.cli.control", "reload", "Read certificates and the log level again; SIGHUP."),
    "drain": LazyCommand("xproxy.cli.control", "drain", "Let sessions end, then stop."),
    "log-level": LazyCommand("xproxy.cli.control", "log_level", "Show or set the level of a running proxy's log."),
    "log": LazyCommand("xproxy.cli.log", "log", "The journal: read it, prove it, export it; its keys and size."),
    "capture": LazyCommand("xproxy.cli.capture", "capture", "Captured sessions: read, redact, export, start and stop."),
    "cassette": LazyCommand("xproxy.cli.cassette", "cassette", "Recorded conversations: make, check, compare."),
    "replay": LazyCommand("xproxy.cli.replay", "replay", "Recorded sessions again: offline, as server, as client."),
    "config": LazyCommand("xproxy.cli.config", "config", "Every configuration key with default, unit and reason."),
    "certs": LazyCommand("xproxy.cli.certs", "certs", "The proxy's own certificate authority: make, show, export."),
    "share": LazyCommand("xproxy.cli.share", "share", "Files for the machine: a unit, defaults, a container."),
    "events": LazyCommand("xproxy.cli.events", "events", "The catalogue of what is logged, and its JSON Schema."),
}


class ReaderGone(Exception):  # noqa: N818 - what happened
    """Who read our output went away, as in ``| head``: click would end with 1, which says that the answer is no."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and none to list them."""

    def __init__(self, *, lazy: Mapping[str, LazyCommand], **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table: the order in which one meets them."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command."""
        if (lazy := self.lazy.get(cmd_name)) is None:
            return None
        command: click.Command = getattr(importlib.import_module(lazy.module), lazy.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that ``args`` name; say which is meant where none is."""
        if args and args[0] not in self.lazy and (near := get_close_matches(args[0], self.lazy)):
            ctx.fail(f"No such command {args[0]!r}: did you mean {near[0]}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in self.lazy.items()])


@click.group(cls=LazyGroup, lazy=COMMANDS, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """A transparent XMPP logging proxy.

    It stands between unmodified XMPP clients and a server, ends TLS on both sides, passes every byte on as it came, and
    logs connections, logins and stanza errors. It never logs passwords, tokens or message bodies.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. What an operator can mend is a sentence, never a traceback."""
    try:
        code = cli.main(args=arguments, prog_name="xproxy", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except ReaderGone:
        from xproxy.cli.output import exit_quietly_on_broken_pipe

        exit_quietly_on_broken_pipe()
        return 128 + signal.SIGPIPE
    except BaseExceptionGroup as group:
        if group.split(KeyboardInterrupt)[1] is None:
            return EXIT_INTERRUPTED
        return _report(group)
    except Exception as error:
        return _report(error)


def _report(error: BaseException) -> int:
    """Say on stderr what went wrong and return the exit code."""
    if problem := find_problem(error):
        from xproxy.cli.output import print_error

        print_error(problem)
        return problem.exit_code
    if isinstance(error, OSError) and error.errno in _OUTPUT_FULL and error.filename is None:
        click.echo(f"xproxy: cannot write the output: {error.strerror}\n  make room where it goes", err=True)
        return EXIT_ENVIRONMENT
    # A bug: where it happened helps, but the text of an exception may quote what a peer sent.
    from xproxy.proxy.diagnose import frames_of

    click.echo(f"xproxy: internal error, please report it: {frames_of(error)}", err=True)
    return EXIT_ENVIRONMENT
