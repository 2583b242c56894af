"""Which keys an auditor trusts: a C2SP tlog-policy file, kept where the log's host cannot write.

    # comments and empty lines
    log <vkey> [<url>]        a log by the key that signs it; the key's name is the log's origin
    quorum none               no witness need have signed

Witnesses and groups are in that format, and not yet in xproxy: a policy that asks for them is refused rather than
half followed.
"""

from pathlib import Path
from typing import Final

import attrs

from xproxy.errors import FileProblem
from xproxy.journal.note import NoteProblem, VerifierKey

_SPACE: Final = " \t"


class PolicyProblem(FileProblem):
    """A policy file cannot be followed."""

    exit_code = 2


@attrs.frozen
class Policy:
    """The trusted keys of logs. Several of one log are those that it has had: any of them will do."""

    keys: tuple[VerifierKey, ...]

    def keys_of(self, origin: str) -> tuple[VerifierKey, ...]:
        """Return the trusted keys of the log ``origin``."""
        return tuple(key for key in self.keys if key.name == origin)

    @classmethod
    def load(cls, path: Path) -> "Policy":
        """Read a policy file.

        Raises:
            PolicyProblem: it cannot be followed; the message has the line.
            FileProblem: it cannot be read.
        """
        try:
            lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="read the policy", path=path) from error

        def problem(number: int, what: str, hint: str | None = None) -> PolicyProblem:
            return PolicyProblem(f"{path}:{number}: {what}", hint, path=path)

        keys: list[VerifierKey] = []
        quorums = 0
        for number, line in enumerate(lines, 1):
            if any(ord(character) < 0x20 and character != "\t" for character in line):
                raise problem(number, "a control character")
            words = line.replace("\t", " ").split(" ")
            words = [word for word in words if word]
            if not words or words[0].startswith("#"):
                continue
            match words:
                case ["log", vkey] | ["log", vkey, _]:
                    try:
                        key = VerifierKey.from_text(vkey)
                    except NoteProblem as error:
                        raise problem(number, str(error)) from error
                    if any(known.public == key.public for known in keys):
                        raise problem(number, "this key is there already")
                    keys.append(key)
                case ["quorum", "none"]:
                    quorums += 1
                case ["witness" | "group" | "quorum", *_]:
                    raise problem(number, "witnesses are not supported yet", 'list logs only, and "quorum none"')
                case _:
                    raise problem(number, f"not a line of a policy: {line[:80]!r}")
        if quorums != 1:
            raise problem(len(lines), "there must be one line that says quorum none")
        return cls(tuple(keys))
