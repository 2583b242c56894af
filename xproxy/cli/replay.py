"""``xproxy replay``: recorded sessions again, offline or against the living."""

import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import click
import trio

from xproxy.cli.main import LazyCommand, LazyGroup
from xproxy.cli.report import emit, report_options, stamped
from xproxy.config.address import HostPort
from xproxy.config.state import default_state_directory
from xproxy.errors import AddressProblem, FileProblem, UsageProblem
from xproxy.replay.report import Report

F = TypeVar("F", bound=Callable[..., Any])
_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_EPILOG = """\b
Exit codes: 0 everything matched, 1 something differs, is missing or too much, 2 usage or a bad cassette, 3 environment
(cannot listen, cannot connect, TLS), 4 a login failed, 5 nobody came, 6 nothing was replayed.
"""

COMMANDS: Final = {
    "server": LazyCommand("xproxy.cli.replay_live", "server", "Play the server of a cassette to clients under test."),
    "client": LazyCommand("xproxy.cli.replay_live", "client", "Play the clients of a cassette to a server under test."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, epilog=_EPILOG)
def replay() -> None:
    """Recorded sessions again: against clients, against servers."""
