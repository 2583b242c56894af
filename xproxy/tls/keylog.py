"""The file of TLS session keys (NSS key log format, draft-ietf-tls-keylogfile): for looking into packets in a test.

OpenSSL appends to it from each context of both legs. It is made here with mode 0600 before any context opens it, for
OpenSSL would make it readable by whom the umask allows.
"""

import os
import stat
from pathlib import Path

from xproxy.errors import FileProblem


def make_keylog(path: Path) -> None:
    """Make the file, or see that the one that is there is a file only its owner can read.

    Raises:
        FileProblem: it cannot be made, or others may read it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="make the file of TLS keys", path=path) from error
    if not stat.S_ISREG(status.st_mode):
        raise FileProblem(f"the file of TLS keys {path} is no file", "name another with --keylog FILE", path=path)
    if status.st_mode & 0o077:
        raise FileProblem(
            f"others may read the file of TLS keys {path}", f"run chmod 600 {path}, or name another", path=path
        )
