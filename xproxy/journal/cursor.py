"""Where a reader of the journal stands, kept over restarts.

A reader that must miss nothing and repeat little keeps a cursor: the index of the next entry, and the leaf hash of the
one before, so that a cursor of another log, or of this one before it was rolled back, is noticed.
"""

import os
from pathlib import Path
from typing import Final, Protocol

import attrs
import orjson

from xproxy import system
from xproxy.errors import FileProblem
from xproxy.journal.format import Entry
from xproxy.journal.tree import leaf_hash

CURSOR_FORMAT: Final = "xproxy-cursor"
CURSOR_VERSION: Final = 1


class CursorProblem(FileProblem):
    """A cursor is none, or one of another history."""


class HasEntries(Protocol):
    """What a cursor is checked against."""

    durable: int

    def read_stored(self, index: int, count_max: int = ...) -> list[bytes]:
        """Return durable entries."""


@attrs.frozen(kw_only=True)
class Cursor:
    """How far a reader of one log has come."""

    origin: str
    next_index: int
    last_leaf: bytes | None  # hash of entry next_index - 1; None at the very beginning

    @classmethod
    def start(cls, origin: str) -> "Cursor":
        """Return the cursor of a reader that has read nothing."""
        return cls(origin=origin, next_index=0, last_leaf=None)

    def after(self, entry: Entry) -> "Cursor":
        """Return the cursor of who has dealt with ``entry`` and all before it."""
        return attrs.evolve(self, next_index=entry.index + 1, last_leaf=leaf_hash(entry.to_bytes()))

    @classmethod
    def load(cls, path: Path) -> "Cursor | None":
        """Read the cursor file; None if there is none yet.

        Raises:
            CursorProblem: it is none, or of a version that this program does not know.
            FileProblem: it cannot be read.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="read the cursor", path=path) from error
        hint = "delete it to read from the beginning again"
        try:
            json = orjson.loads(data)
            if json["format"] != CURSOR_FORMAT:
                raise ValueError("no cursor")
            version = json["version"]
            if version != CURSOR_VERSION:
                message = f"the cursor {path} is of version {version}, this program knows {CURSOR_VERSION}"
                raise CursorProblem(message, "use the program that wrote it, or delete it", path=path)
            leaf = json["last_leaf"]
            cursor = cls(
                origin=str(json["origin"]),
                next_index=int(json["next_index"]),
                last_leaf=None if leaf is None else bytes.fromhex(leaf),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CursorProblem(f"{path} is no cursor", hint, path=path) from error
        if cursor.next_index < 0 or (cursor.last_leaf is None) != (cursor.next_index == 0):
            raise CursorProblem(f"{path} is no cursor", hint, path=path)
        return cursor

    def save(self, path: Path) -> None:
        """Write the cursor file: the new one or the old, whole, also after a crash. Raises: FileProblem."""
        json = {
            "format": CURSOR_FORMAT,
            "version": CURSOR_VERSION,
            "origin": self.origin,
            "next_index": self.next_index,
            "last_leaf": None if self.last_leaf is None else self.last_leaf.hex(),
        }
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(orjson.dumps(json, option=orjson.OPT_APPEND_NEWLINE))
                file.flush()
                system.sync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise FileProblem.from_os_error(error, doing="write the cursor", path=path) from error

    def check(self, reader: HasEntries, origin: str, path: Path) -> None:
        """Check that this is a place in the log that ``reader`` reads and that is called ``origin``.

        Raises: CursorProblem: it is of another log, or of entries that are not there any more.
        """
        if self.origin != origin:
            raise CursorProblem(f"the cursor {path} is of the log {self.origin}, this is {origin}", path=path)
        if self.next_index > reader.durable:
            message = f"the cursor {path} stands behind entry {self.next_index - 1}, the log has {reader.durable}"
            raise CursorProblem(message, "the journal was rolled back: see xproxy log verify", path=path)
        if self.next_index:
            (last,) = reader.read_stored(self.next_index - 1, 1)
            if leaf_hash(last) != self.last_leaf:
                message = f"entry {self.next_index - 1} is not the one that the cursor {path} has seen"
                raise CursorProblem(message, "the journal was written anew: see xproxy log verify", path=path)
