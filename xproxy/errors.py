"""What can go wrong outside of us, said so that the reader can mend it.

A peer that behaves oddly is an event, never an exception, and our own mistakes are assertions. What is left is the
world: a file, an address, a key in the configuration. Each of these errors says what was attempted, where, what was
found, and, as ``hint``, what to do. ``xproxy/cli`` prints both and ends with ``exit_code``; a traceback is for bugs.
"""

import errno
from pathlib import Path
from typing import ClassVar, Self

import attrs

EXIT_OK = 0
EXIT_NO = 1  # the answer to the question asked is no
EXIT_USAGE = 2  # as click's own usage errors
EXIT_ENVIRONMENT = 3


class XproxyError(Exception):
    """Base of every error that is shown to the operator as a sentence.

    ``message``: doing what, to what, finding what, without a final full stop. ``hint``: what to do, or None.
    Subclasses add facts as attributes and only exist where a caller acts differently.
    """

    exit_code: ClassVar[int] = EXIT_ENVIRONMENT

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return message and hint in one line."""
        return f"{self.message}: {self.hint}" if self.hint else self.message


class UsageProblem(XproxyError):  # noqa: N818 - it is shown as a sentence, not as a type
    """The command line or the configuration asks for something that cannot be."""

    exit_code: ClassVar[int] = EXIT_USAGE


class EnvironmentProblem(XproxyError):  # noqa: N818 - as above
    """The request was fine, the machine is not as it must be: a port is taken, a host is unknown, a disk is full."""


class FileProblem(EnvironmentProblem):
    """A file or directory cannot be used: missing, unreadable, not what it should hold."""

    def __init__(self, message: str, hint: str | None = None, *, path: Path) -> None:
        super().__init__(message, hint)
        self.path = path

    @classmethod
    def from_os_error(cls, error: OSError, *, doing: str, path: Path, hint: str | None = None) -> Self:
        """Translate ``error``, met while ``doing`` ("read the CA file") to ``path``."""
        what = error.strerror or str(error)
        return cls(f"cannot {doing} {path}: {what}", hint or _hint_for(error), path=path)


class AddressProblem(EnvironmentProblem):
    """A network address cannot be used: taken, not ours, or a name that does not resolve."""

    def __init__(self, message: str, hint: str | None = None, *, address: str) -> None:
        super().__init__(message, hint)
        self.address = address


@attrs.frozen(kw_only=True)
class ConfigProblem:
    """One thing wrong in the configuration."""

    where: str  # "xproxy.toml:12", "--listen", "environment variable XPROXY_LISTEN"
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        """Return ``where: message: hint``."""
        return ": ".join(part for part in (self.where, self.message, self.hint) if part)


class ConfigProblems(UsageProblem):
    """Everything wrong in the configuration, found in one pass."""

    def __init__(self, problems: list[ConfigProblem]) -> None:
        assert problems
        count = len(problems)
        super().__init__(f"the configuration has {count} problem{'s' if count > 1 else ''}")
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """Return one problem a line."""
        return "\n".join(str(problem) for problem in self.problems)


def find_problem(error: BaseException) -> XproxyError | None:
    """Return the operator's problem in ``error``, which may be a group that nurseries made around it.

    None if there is anything else in the group: a bug must not hide behind a sentence.
    """
    if isinstance(error, XproxyError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = [find_problem(each) for each in error.exceptions]
        if all(found):
            return found[0]
    return None


def _hint_for(error: OSError) -> str | None:
    match error:
        case FileNotFoundError():
            return "check the path"
        case PermissionError():
            return "check owner and permissions, or run xproxy as the user who may"
        case IsADirectoryError():
            return "name a file, not a directory"
        case NotADirectoryError() | FileExistsError():
            return "name a directory"
        case OSError(errno=errno.ENXIO):
            return "start the program that reads it first"
        case _:
            return None
