"""Which files of a stream are log: the newest segment's open entry says so, and the ones before it in turn.

Every file that looks like a part of the log must be accounted for: in the chain, or named as torn by a segment of it.
What a crash left behind the log of an old segment must be what the next one found there.
"""

import hashlib
import os
from pathlib import Path

import attrs

from xproxy.errors import FileProblem
from xproxy.journal.findings import Findings, Kind, Severity
from xproxy.journal.format import (
    NOTES_SUFFIX,
    SEGMENT_SUFFIX,
    FormatProblem,
    OldSegment,
    SegmentName,
    SegmentOpen,
    parse_notes,
)
from xproxy.journal.note import Note
from xproxy.journal.reader import Progress, read_open, segment_names
from xproxy.journal.scan import CHUNK_BYTES


@attrs.frozen
class Snapshot:
    """What there was of a stream when the verification began: a writer may go on meanwhile."""

    names: list[SegmentName]
    files: list[str]
    size: int  # of the newest note

    @classmethod
    def take(cls, directory: Path) -> "Snapshot":
        names = segment_names(directory)
        try:
            files = os.listdir(directory)
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="read the journal", path=directory) from error
        size = 0
        for name in reversed(names):
            try:
                notes, _ = parse_notes((directory / name.notes_file).read_bytes())
            except (OSError, FormatProblem):
                continue
            if notes:
                size = notes[-1].checkpoint.size
                break
        return cls(names, files, size)


@attrs.frozen(kw_only=True)
class Link:
    """A segment in the chain. What the next one says of it, if there is one."""

    name: SegmentName
    opened: SegmentOpen | None  # None: it cannot be read, ``problem`` says why
    problem: str | None
    successor: SegmentOpen | None
    is_newest: bool

    @property
    def said(self) -> OldSegment | None:
        return None if self.successor is None else self.successor.previous


class Chain:
    """The segments of one stream, as they name each other."""

    def __init__(
        self, directory: Path, snapshot: Snapshot, findings: Findings, *, is_live: bool, progress: Progress
    ) -> None:
        self._directory = directory
        self._snapshot = snapshot
        self._findings = findings
        self._is_live = is_live
        self._progress = progress
        self.has_hole = False  # a segment that holds log is not there

    def check_files(self) -> None:
        """Every file that looks like a part of the log must be one."""
        serials: dict[int, SegmentName] = {}
        present = set(self._snapshot.files)
        for file in sorted(present):
            if not file.endswith((SEGMENT_SUFFIX, NOTES_SUFFIX)):
                continue
            name = SegmentName.from_file(file)
            if name is None:
                self._findings.tampered(Kind.FOREIGN_FILE, f"{file!r} is no name of a segment")
            elif file == name.notes_file and name.segment_file not in present:
                self._findings.tampered(Kind.DELETED, f"there are notes, and no {name.segment_file}", segment=name)
            elif serials.setdefault(name.serial, name) != name:
                other = serials[name.serial].segment_file
                self._findings.tampered(Kind.FOREIGN_FILE, f"{file} and {other} have one serial", segment=name)

    def follow(self) -> list[Link]:
        """Return the segments that hold log in order, by what each says of the one before."""
        names = list(self._snapshot.names)
        opens: dict[SegmentName, SegmentOpen | str] = {}
        for name in names:
            try:
                opens[name] = read_open(self._directory / name.segment_file)[0]
            except FormatProblem as problem:
                opens[name] = str(problem)
        chain: list[Link] = []
        accounted: set[SegmentName] = set()
        successor: SegmentOpen | None = None
        # Newer than the newest that can be read: a start that came to nothing, or damage.
        while names and isinstance(opens[names[-1]], str):
            name = names.pop()
            accounted.add(name)
            self._judge_unreadable_newest(name, str(opens[name]), is_only=not names)
        current = names[-1] if names else None
        while current is not None:
            name, is_newest = current, not chain
            accounted.add(name)
            found = opens.get(name)
            if found is None:
                # The file is not there. Go on with what is.
                assert successor is not None
                self._findings.tampered(
                    Kind.DELETED,
                    f"the segment is not there, though {successor.name.stem} goes on from it",
                    segment=name,
                    index=name.first_index,
                    end_index=successor.name.first_index,
                )
                self.has_hole = True
                current, successor = self._next_older(names, accounted, name), None
                continue
            if isinstance(found, str):
                chain.append(Link(name=name, opened=None, problem=found, successor=successor, is_newest=is_newest))
                current, successor = self._next_older(names, accounted, name), None
                continue
            chain.append(Link(name=name, opened=found, problem=None, successor=successor, is_newest=is_newest))
            self._judge_torn(found, accounted)
            previous = found.previous
            if previous is None:
                if name.first_index != 0:
                    self._findings.tampered(Kind.DELETED, "it is not the first, and names none before", segment=name)
                current = None
            elif previous.name.serial >= name.serial or previous.name.first_index > name.first_index:
                self._findings.tampered(
                    Kind.REORDERED, f"it names {previous.name.stem} as the one before", segment=name
                )
                current, successor = self._next_older(names, accounted, name), None
            else:
                current, successor = previous.name, found
        for extra in self._snapshot.names:
            if extra not in accounted:
                self._findings.tampered(Kind.FOREIGN_FILE, "no other segment knows of it", segment=extra)
        chain.reverse()
        return chain

    def _next_older(
        self, names: list[SegmentName], accounted: set[SegmentName], name: SegmentName
    ) -> SegmentName | None:
        older = [each for each in names if each.serial < name.serial and each not in accounted]
        return older[-1] if older else None

    def _judge_unreadable_newest(self, name: SegmentName, problem: str, *, is_only: bool) -> None:
        notes = self._parse_notes_leniently(name)
        if notes and self._was_being_begun(name):
            return
        if notes:
            size = notes[-1].checkpoint.size
            self._findings.tampered(
                Kind.MODIFIED,
                f"{problem}, though a note was signed over entries up to {size}",
                segment=name,
                index=name.first_index,
                end_index=max(size, name.first_index + 1),
            )
        elif not self._is_live:
            what = "the log was never begun" if is_only else "a start came to nothing, and no other followed"
            self._findings.add(Kind.TORN, Severity.INCOMPLETE, f"{problem}: {what}", segment=name)

    def _was_being_begun(self, name: SegmentName) -> bool:
        """Return whether a writer has begun ``name`` since it was looked at: it comes behind the snapshot."""
        if not self._is_live:
            return False
        try:
            read_open(self._directory / name.segment_file)
        except FormatProblem:
            return False
        return True

    def _judge_torn(self, opened: SegmentOpen, accounted: set[SegmentName]) -> None:
        """Check the segments that ``opened`` says hold no log."""
        for old in opened.torn:
            accounted.add(old.name)
            self.check_tail(old, opened.name)
            self._findings.add(
                Kind.TORN,
                Severity.NOTICE,
                f"a segment without log, named by {opened.name.stem}"
                + ("" if old.file_bytes is None else f": {old.file_bytes} bytes"),
                segment=old.name,
            )
            notes = self._parse_notes_leniently(old.name)
            if notes and notes[-1].checkpoint.size > opened.name.first_index:
                self._findings.tampered(
                    Kind.TRUNCATED, "a note was signed in a segment that is no log", segment=old.name
                )

    def _parse_notes_leniently(self, name: SegmentName) -> list[Note]:
        try:
            return parse_notes((self._directory / name.notes_file).read_bytes())[0]
        except (OSError, FormatProblem):
            return []

    def check_tail(self, old: OldSegment, by: SegmentName) -> None:
        """Compare what stands behind the log in an old segment with what was found there when the next began."""
        path = self._directory / old.name.segment_file
        expected = old.file_bytes
        if expected is None:
            return  # a write failed there: what the disk has is anybody's guess
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                found = hashlib.sha256()
                file.seek(old.log_bytes)
                while data := file.read(CHUNK_BYTES):
                    found.update(data)
                    self._progress(len(data))
        except FileNotFoundError:
            self._findings.tampered(Kind.DELETED, f"{by.stem} names it, and it is not there", segment=old.name)
            return
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="read", path=path) from error
        if size != expected:
            kind = Kind.TRUNCATED if size < expected else Kind.MODIFIED
            self._findings.tampered(kind, f"the file has {size} bytes, not {expected}", segment=old.name)
        elif old.tail_sha256 is not None and found.digest() != old.tail_sha256:
            self._findings.tampered(
                Kind.MODIFIED, "what a crash left behind its last entry was changed", segment=old.name
            )
        elif old.tail_sha256 is None and size > old.log_bytes:
            self._findings.tampered(Kind.MODIFIED, "bytes stand behind the last entry", segment=old.name)
