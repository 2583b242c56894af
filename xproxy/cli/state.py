"""Which state directory a command is about: that of the proxy, found as the proxy finds it itself.

``--state``, else XPROXY_STATE or the configuration, else the default one of this user; where that one holds nothing of
the kind, and the service's does, the service's: root on a machine where xproxy is a service means that one.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from xproxy.config.state import default_state_directory
from xproxy.errors import ConfigProblems

SERVICE_STATE: Final = Path("/var/lib/xproxy")  # of the service: looked at when nothing says where
DEFAULT: Final = (
    "Default: $XPROXY_STATE, else that of the configuration ($XPROXY_CONFIG, ./xproxy.toml, /etc/xproxy/xproxy.toml), "
    "else $STATE_DIRECTORY, $XDG_STATE_HOME/xproxy or ~/.local/state/xproxy"
)

F = TypeVar("F", bound=Callable[..., Any])


def configured_state(config_file: Path | None = None) -> Path:
    """Return the state directory that a proxy with this configuration would have.

    What else is wrong in the configuration does not matter: a proxy that runs began with another one.

    Raises:
        ConfigProblems, FileProblem: the configuration does not say which it is.
    """
    from xproxy.config.known import NotKnown
    from xproxy.config.load import look_through

    looked = look_through({}, os.environ, config_file=config_file)
    try:
        return looked.settings.state.directory
    except NotKnown:
        raise ConfigProblems(list(looked.problems)) from None


def find_state(holding: str, config_file: Path | None = None) -> Path:
    """Return the state directory in which there is to be something named ``holding``, whether it is there or not.

    Raises:
        ConfigProblems, FileProblem: as ``configured_state``.
    """
    found = configured_state(config_file)
    if found == default_state_directory(os.environ) and not os.path.lexists(found / holding):
        # Where one may not even look, the error of whoever opens it says so.
        is_there = os.path.lexists(SERVICE_STATE / holding)
        if is_there or (SERVICE_STATE.is_dir() and not os.access(SERVICE_STATE, os.X_OK)):
            return SERVICE_STATE
    return found


def state_option(holding: str | None) -> Callable[[F], F]:
    """Return ``--state`` for a command that looks for something named ``holding``; None: that makes what is not there.

    What is made for the service is made by its own user, or with its directory named: not by accident.
    """
    service = f", else, where that has none, the service's: {SERVICE_STATE}" if holding else ""
    return click.option(
        "--state",
        type=click.Path(path_type=Path, file_okay=False),
        default=configured_state if holding is None else lambda: find_state(holding),
        metavar="DIR",
        help=f"The state directory. {DEFAULT}{service}.",
    )
