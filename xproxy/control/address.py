"""Where the control socket is, and how to reach a path that is too long for an address.

``sun_path`` has 108 bytes on Linux and 104 on macOS with the closing NUL (unix(7)), and a state directory deep in a
home or a test's directory has more. On Linux the directory is then opened and named ``/proc/self/fd/N``; elsewhere it
is an error that says what to do.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from xproxy.errors import FileProblem

SOCKET_FILE: Final = "control.sock"
SUN_PATH_BYTES: Final = 103  # what fits everywhere, without the NUL

_DESCRIPTORS: Final = Path("/proc/self/fd")


def control_socket(state: Path) -> Path:
    """Return the path of the control socket of the proxy whose state directory is ``state``."""
    return state / SOCKET_FILE


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """Give a name of ``path`` that fits into an address, valid inside the block.

    Raises:
        FileProblem: there is none.
        OSError: the directory cannot be opened.
    """
    if len(os.fsencode(path)) <= SUN_PATH_BYTES:
        yield str(path)
        return
    if not _DESCRIPTORS.is_dir():
        raise FileProblem(
            f"the path of the control socket is too long: {path} has more than {SUN_PATH_BYTES} bytes",
            "choose a shorter state directory with --state DIR",
            path=path,
        )
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"{_DESCRIPTORS}/{directory}/{path.name}"
    finally:
        os.close(directory)


def is_socket(path: Path) -> bool:
    """Return whether there is a socket at ``path`` itself, not behind a link."""
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False
