"""``xproxy replay``: recorded sessions again, offline or against the living."""

from typing import Final

import click

from xproxy.cli.main import LazyCommand, LazyGroup

_EPILOG = """
Exit codes: 0 everything matched, 1 something differs, is missing or too much, 2 usage or a bad file, 3 environment
(cannot listen, cannot connect, TLS), 4 a login failed, 5 nobody came, 6 nothing was replayed.
"""

COMMANDS: Final = {
    "offline": LazyCommand("xproxy.cli.replay_offline", "offline", "Captures through the analysis, as in CI."),
    "server": LazyCommand("xproxy.cli.replay_live", "server", "Play the server of a cassette to clients under test."),
    "client": LazyCommand("xproxy.cli.replay_live", "client", "Play the clients of a cassette to a server under test."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, epilog=_EPILOG)
def replay() -> None:
    """Recorded sessions again: through the analysis, against clients, against servers."""
