"""Anchors: signed notes that were kept elsewhere, where who writes the log cannot change them.

A note says: so many entries have this root. A log that was cut below it, or written anew, does not.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import orjson

from xproxy.errors import FileProblem
from xproxy.journal.note import Checkpoint, Note, NoteProblem, note_from_lines, parse_note


@attrs.frozen(kw_only=True)
class Anchor:
    """A note that was kept elsewhere."""

    note: Note
    checkpoint: Checkpoint
    source: str


def load_anchors(path: Path) -> list[Anchor]:
    """Read a file of notes: bare ones one after another, or journal-checkpoint records as JSON Lines.

    Raises:
        FileProblem: it cannot be read, or holds none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="read the anchor", path=path) from error
    return parse_anchors(data, str(path), path)


def parse_anchors(data: bytes, source: str, path: Path) -> list[Anchor]:
    """``load_anchors`` of what was read already. Raises: FileProblem."""
    hint = "an anchor is a signed note as `xproxy log keys show` prints it, or journal-checkpoint records (JSON Lines)"
    notes: list[Note] = []
    try:
        if data.lstrip()[:1] == b"{":
            for line in data.splitlines():
                if b"journal-checkpoint" not in line:
                    continue
                document = orjson.loads(line)
                if document["event"]["action"] == "journal-checkpoint":
                    notes.extend(notes_of_heartbeat(document))
        else:
            # Notes stand one behind another, with or without an empty line between: a note begins after the
            # signature lines of the one before.
            text = data.decode().replace("\r\n", "\n").strip("\n") + "\n"
            notes.extend(parse_note(part.encode()) for part in _split_notes(text))
        anchors = [Anchor(note=note, checkpoint=note.checkpoint, source=source) for note in notes]
    except (NoteProblem, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileProblem(f"the anchor {source} cannot be read: {error}", hint, path=path) from error
    if not anchors:
        raise FileProblem(f"the anchor {source} holds no note", hint, path=path)
    return anchors


def _split_notes(text: str) -> Iterator[str]:
    part: list[str] = []
    for line in text.split("\n"):
        is_signature = line.startswith("— ")
        if part and part[-1].startswith("— ") and not is_signature:
            yield "\n".join(part) + "\n"
            part = []
            if line == "":
                continue
        if part or line:
            part.append(line)
    if part and any(part):
        yield "\n".join(part).rstrip("\n") + "\n"


def notes_of_heartbeat(document: dict[str, Any]) -> Iterator[Note]:
    """Yield the notes in a journal-checkpoint record. Raises: NoteProblem, KeyError, TypeError."""
    journal = document["xproxy"]["journal"]
    for name in ("note", "ops_note"):
        if lines := journal.get(name):
            yield note_from_lines(lines)
