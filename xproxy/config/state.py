"""[state]: what xproxy keeps between runs, and what it finds there: the directory, a key, with pseudonyms another."""

import contextlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from xproxy import system
from xproxy.config.setting import setting
from xproxy.errors import FileProblem

CORRELATION_KEY_FILE = "correlation.key"
IDENTITY_KEY_FILE = "identities.key"
CORRELATION_KEY_BYTES = 32  # HMAC-SHA-256: as long as its output (RFC 2104 section 3)


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


def make_state_directory(directory: Path) -> None:
    """Make ``directory``, mode 0700, if it is not there.

    One that is there keeps its mode: it may be somebody's home. Only one that anybody may write to is refused, for
    there others could put a key of theirs in place of ours.

    Raises:
        FileProblem: it cannot be made or used.
    """
    hint = "choose another with --state DIR"
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        status = directory.stat()
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="make the state directory", path=directory, hint=hint) from error
    if not stat.S_ISDIR(status.st_mode):
        raise FileProblem(f"the state directory {directory} is not a directory", hint, path=directory)
    if status.st_mode & stat.S_IWOTH:
        message = f"anybody may write to the state directory {directory}"
        raise FileProblem(message, f"run chmod o-w {directory}, or {hint}", path=directory)
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise FileProblem(f"cannot write to the state directory {directory}", hint, path=directory)


def read_correlation_key(directory: Path, random: Callable[[int], bytes]) -> bytes:
    """Return the key of the hashes of stanza and stream management ids, made once from ``random``.

    It is there whole or not at all, also after a crash, and two processes that start at once get the same.

    Raises:
        FileProblem: it cannot be made or read, or is not a key.
    """
    path = directory / CORRELATION_KEY_FILE
    try:
        if not path.exists():
            _create_once(path, random(CORRELATION_KEY_BYTES))
        key = path.read_bytes()
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="make or read the correlation key", path=path) from error
    if len(key) != CORRELATION_KEY_BYTES:
        raise FileProblem(
            f"the correlation key {path} has {len(key)} bytes, not {CORRELATION_KEY_BYTES}",
            "restore it, or delete it to get a new one: hashes of ids then no longer match those of earlier records",
            path=path,
        )
    return key


def read_identity_key(directory: Path, new: Callable[[], bytes]) -> bytes:
    """Return the file of the key of pseudonyms, made once from ``new()``. What is in it is the recorder's business.

    Raises:
        FileProblem: it cannot be made or read.
    """
    path = directory / IDENTITY_KEY_FILE
    try:
        if not path.exists():
            _create_once(path, new())
        return path.read_bytes()
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="make or read the key of pseudonyms", path=path) from error


def replace_identity_key(directory: Path, data: bytes) -> None:
    """Put ``data`` in place of the key of pseudonyms: afterwards the old one is nowhere.

    Raises:
        FileProblem: it cannot be written; the old one is still there.
    """
    path = directory / IDENTITY_KEY_FILE
    try:
        temporary = _write_beside(path, data)
        try:
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="replace the key of pseudonyms", path=path) from error


def _create_once(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, mode 0600, unless it exists by then."""
    temporary = _write_beside(path, data)
    try:
        # Unlike a rename, a link never replaces the key of somebody who was first.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _write_beside(path: Path, data: bytes) -> Path:
    """Write ``data`` to a new file beside ``path``, mode 0600, and return it; on a failure there is none."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            system.sync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        system.sync(directory)
    finally:
        os.close(directory)
