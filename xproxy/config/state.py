"""[state]: what xproxy keeps between runs."""

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from xproxy.config.setting import setting


def default_state_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return $STATE_DIRECTORY (systemd), else $XDG_STATE_HOME/xproxy, else ~/.local/state/xproxy."""
    # systemd gives several directories separated by colons (systemd.exec(5)); the first is ours.
    if from_systemd := environment.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(from_systemd)
    # The XDG base directory specification: a relative path is invalid and to be ignored.
    xdg = Path(environment.get("XDG_STATE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".local" / "state") / "xproxy"


@attrs.frozen(kw_only=True)
class StateSettings:
    """What xproxy keeps between runs: the CA, minted leaves, the correlation key."""

    directory: Path = setting(
        attrs.Factory(default_state_directory),
        "directory",
        "made with mode 0700; $STATE_DIRECTORY, else $XDG_STATE_HOME/xproxy, else ~/.local/state/xproxy",
        example="/var/lib/xproxy",
    )
