from pathlib import Path

import pytest

from xproxy.config.state import default_state_directory


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({"STATE_DIRECTORY": "/var/lib/xproxy:/var/lib/other", "XDG_STATE_HOME": "/x"}, Path("/var/lib/xproxy")),
        ({"XDG_STATE_HOME": "/x"}, Path("/x/xproxy")),
        ({"XDG_STATE_HOME": "relative"}, Path.home() / ".local/state/xproxy"),
        ({}, Path.home() / ".local/state/xproxy"),
    ],
)
def test_the_state_directory_is_systemds_then_xdgs(environment: dict[str, str], directory: Path) -> None:
    assert default_state_directory(environment) == directory
