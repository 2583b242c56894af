"""The state directory, the keys in it, and the other files the proxy would write: owners and modes.

Where one may not even look, ``os.path`` says that nothing is there; ``Path`` would raise.
"""

import glob
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from xproxy.check.finding import Finding, fine, problem, unknown, warning
from xproxy.config.check import Place
from xproxy.config.settings import Settings
from xproxy.config.state import CORRELATION_KEY_BYTES, CORRELATION_KEY_FILE, IDENTITY_KEY_FILE
from xproxy.control.address import SOCKET_FILE, is_socket
from xproxy.journal.format import JOURNAL_DIRECTORY

TOPIC: Final = "permissions"


def check_state(settings: Settings, place: Place, uid: int) -> Iterator[Finding]:
    """Yield whether the user ``uid`` can use the state directory, and who else."""
    state = settings.state.directory
    where = place("state", "directory")
    if uid == 0:
        yield unknown(
            TOPIC, where, "root may read and write everything: what the service's user may not is not seen",
            "run this as the user that xproxy will run as: setpriv --reuid=xproxy --regid=xproxy --init-groups ...",
        )  # fmt: skip
    yield from _check_directory(state, where, uid)


def _check_directory(state: Path, where: str, uid: int) -> Iterator[Finding]:
    try:
        status = state.stat()
    except FileNotFoundError:
        yield _can_be_made(state, where)
        return
    except OSError as error:
        yield problem(TOPIC, where, f"cannot look at the state directory {state}: {error.strerror}", _CHOOSE)
        return
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode):
        yield problem(TOPIC, where, f"the state directory {state} is not a directory", _CHOOSE)
    elif mode & stat.S_IWOTH:
        yield problem(TOPIC, where, f"anybody may write to the state directory {state}", f"run chmod o-w {state}")
    elif not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        yield problem(TOPIC, where, f"cannot write to the state directory {state}, which is {_owner(status.st_uid)}'s",
                      f"run chown {_owner(uid)} {state}, or {_CHOOSE}")  # fmt: skip
    else:
        if mode & 0o077:
            yield warning(TOPIC, where, f"others may enter the state directory {state} (mode {mode:04o})",
                          f"run chmod 700 {state}: the log and its keys are nobody else's business",
                          )  # fmt: skip
        if status.st_uid not in (uid, 0):  # root's reach does not make them ours
            owner = _owner(status.st_uid)
            yield warning(TOPIC, where, f"the state directory {state} is {owner}'s, who can exchange CA and log",
                          f"run as {owner}, or run chown {_owner(uid)} {state}")  # fmt: skip
        yield fine(TOPIC, where, f"the state directory {state} can be written")
    path = state / SOCKET_FILE
    if os.path.exists(path) and not is_socket(path):
        yield problem(TOPIC, str(path), f"{path} is there, and is no socket", "remove it")


_CHOOSE: Final = "choose another with --state DIR"


def _can_be_made(state: Path, where: str) -> Finding:
    parent = next(each for each in state.absolute().parents if os.path.exists(each))
    if not os.path.isdir(parent) or not os.access(parent, os.W_OK | os.X_OK):
        return problem(TOPIC, where, f"the state directory {state} is not there and cannot be made in {parent}",
                       f"make it (install -d -m 700 -o USER {state}), or {_CHOOSE}")  # fmt: skip
    return fine(TOPIC, where, f"the state directory {state} will be made")


def check_keys(settings: Settings, uid: int) -> Iterator[Finding]:
    """Yield which keys the user ``uid`` could not read, and which others could."""
    yield from _check_correlation_key(settings.state.directory)
    for path, what in _keys_of(settings):
        yield from _check_key(path, what, str(path), uid)


def check_own_key(settings: Settings, place: Place, uid: int) -> Iterator[Finding]:
    """Yield the same of the key that was named."""
    if settings.tls.key_file is not None:
        yield from _check_key(settings.tls.key_file, "the server's key", place("tls", "key_file"), uid, ours=False)


def _keys_of(settings: Settings) -> Iterator[tuple[Path, str]]:
    state = settings.state.directory
    yield state / CORRELATION_KEY_FILE, "the key of hashes in records"
    for name in sorted(glob.glob("*/*.key", root_dir=state / JOURNAL_DIRECTORY)):
        yield state / JOURNAL_DIRECTORY / name, "a key that signs the journal"
    if settings.tls.certificate_file is None:
        yield state / "ca.key", "the CA's key"
        yield state / "leaf.key", "the key of the CA's leaves"
    if settings.log.identities == "pseudonym":
        yield state / IDENTITY_KEY_FILE, "the key of pseudonyms"


def _check_correlation_key(state: Path) -> Iterator[Finding]:
    path = state / CORRELATION_KEY_FILE
    try:
        size = path.stat().st_size
    except OSError:
        return
    if size != CORRELATION_KEY_BYTES:
        yield problem(TOPIC, str(path), f"{path} has {size} bytes, not {CORRELATION_KEY_BYTES}",
                      "restore it, or delete it to get a new one")  # fmt: skip


def _check_key(path: Path, what: str, where: str, uid: int, *, ours: bool = True) -> Iterator[Finding]:
    try:
        status = path.stat()
    except OSError:
        return  # it will be made, or was reported where it is read
    mode = stat.S_IMODE(status.st_mode)
    # Debian lets the group ssl-cert read the keys of servers: for those a group is somebody's decision.
    open_to = mode & (0o077 if ours else 0o027)
    if open_to:
        who = "anybody" if mode & stat.S_IROTH else "the group"
        yield problem(TOPIC, where, f"{who} may use {what} {path} (mode {mode:04o})", f"run chmod 600 {path}")
    if not os.access(path, os.R_OK):
        yield problem(TOPIC, where, f"cannot read {what} {path}, which is {_owner(status.st_uid)}'s",
                      f"run chown {_owner(uid)} {path}, or have systemd hand it over (LoadCredential=)")  # fmt: skip
    elif ours and uid != 0 and status.st_uid != uid:
        yield warning(TOPIC, where, f"{what} {path} is {_owner(status.st_uid)}'s", f"run chown {_owner(uid)} {path}")


def check_log(settings: Settings, place: Place) -> Iterator[Finding]:
    """Yield whether the log file can be written."""
    path = settings.log.path
    if path is None:
        return
    where = place("log", "path")
    directory = path.absolute().parent
    if os.path.isdir(path):
        yield problem(TOPIC, where, f"the log file {path} is a directory", "name a file")
    elif os.path.exists(path):
        if not os.access(path, os.W_OK):
            yield problem(TOPIC, where, f"cannot write to the log file {path}, which is {_owner(path.stat().st_uid)}'s",
                          "change its owner, or name another")  # fmt: skip
        else:
            yield fine(TOPIC, where, f"the log file {path} can be written")
    elif not os.path.isdir(directory):
        yield problem(TOPIC, where, f"the log file {path} cannot be made: there is no directory {directory}",
                      f"make it: install -d -m 750 -o USER {directory}")  # fmt: skip
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield problem(TOPIC, where, f"the log file {path} cannot be made: no permission in {directory}",
                      "change the directory's owner, or name another file")  # fmt: skip
    else:
        yield fine(TOPIC, where, f"the log file {path} can be made")


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
