"""Passwords of a cassette's accounts: from options, a file, the environment. None of them is ever printed."""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from xproxy.capture.cassette import Cassette
from xproxy.errors import FileProblem, UsageProblem

VARIABLE: Final = "XPROXY_PASSWORD_"  # and the account's name in capitals


def collect_passwords(
    cassette: Cassette, given: Iterable[str], file: Path | None, environment: Mapping[str, str]
) -> dict[str, str]:
    """Return the password of each account that logs in; options beat the file, which beats the environment.

    Raises:
        UsageProblem: one is missing, or no NAME=VALUE.
        FileProblem: as ``read_lines``.
    """
    found = {
        account.name: environment[name]
        for account in cassette.accounts
        if (name := variable_of(account.name)) in environment
    }
    if file is not None:
        for number, line in read_lines(file):
            found |= [_pair(line, f"{file}:{number}", cassette)]
    for text in given:
        found |= [_pair(text, "--password", cassette)]
    needed = {session.account for session in cassette.sessions if session.account is not None}
    if missing := sorted(needed - found.keys()):
        name = missing[0]
        raise UsageProblem(
            f"there is no password for {', '.join(missing)}",
            f"add --password {name}=VALUE, a line {name}=VALUE in a --password-file, or set {variable_of(name)}; "
            "it is of the replay alone, any will do that the other side uses too",
        )
    return found


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a file of passwords with their numbers, without comments and empty ones.

    Raises:
        FileProblem: it cannot be read, or others may read it too (as ssh, and the proxy with its file of TLS keys).
    """
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
                raise FileProblem(
                    f"others may read the passwords in {file} (mode {stat.S_IMODE(status.st_mode):04o})",
                    f"run chmod 600 {file}, also in a job that checked it out: git keeps no such mode",
                    path=file,
                )
            text = opened.read().decode()
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="read the passwords", path=file) from error
    except UnicodeDecodeError:
        raise FileProblem(f"the passwords in {file} are no UTF-8", "write NAME=VALUE lines", path=file) from None
    lines = enumerate(text.splitlines(), 1)
    return [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]


def variable_of(account: str) -> str:
    """Return the environment variable that may hold an account's password."""
    return VARIABLE + re.sub(r"[^A-Z0-9]", "_", account.upper())


def _pair(text: str, where: str, cassette: Cassette) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    known = [account.name for account in cassette.accounts]
    if not equals or not value or name not in known:
        # Not the text: it may be a password without its name.
        raise UsageProblem(
            f"{where}: expected NAME=VALUE with NAME one of {', '.join(known) or 'no account at all'}",
            "the names are those of the <account> elements of the cassette",
        )
    return name, value
