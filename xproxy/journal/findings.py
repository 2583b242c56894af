"""What verification says: findings, what was found of each stream, and the verdict."""

import enum
from typing import Any, Final

import attrs

from xproxy.journal.format import SegmentName
from xproxy.journal.note import VerifierKey

FINDINGS_MAX: Final = 1_000  # of one stream and severity; who has more knows enough


class Severity(enum.IntEnum):
    """What a finding means for the whole."""

    NOTICE = 0
    """Worth knowing; the log itself accounts for it."""
    INCOMPLETE = 1
    """Something is not there, or not signed, that may simply never have been written."""
    TAMPERED = 2
    """The bytes are not what was signed."""


class Kind(enum.Enum):
    """What was found."""

    # tampered
    MODIFIED = "modified"
    DELETED = "deleted"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    ROLLED_BACK = "rolled-back"
    FORKED = "forked"
    BAD_SIGNATURE = "bad-signature"
    UNTRUSTED_KEY = "untrusted-key"
    FOREIGN_FILE = "foreign-file"
    # incomplete
    EMPTY = "empty"
    UNSEALED = "unsealed"
    UNSIGNED = "unsigned"
    SILENCE = "silence"
    KEY_WRAP_MISSING = "key-wrap-missing"
    # either of these two, or a notice
    TORN = "torn"
    UNSIGNED_AT_CRASH = "unsigned-at-crash"
    NEW_GENERATION = "new-generation"


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that was found."""

    kind: Kind
    severity: Severity
    stream: str  # name of its directory
    message: str
    segment: str | None = None
    index: int | None = None  # the first entry it is about
    end_index: int | None = None  # behind the last one

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON would have it."""
        last = None if self.end_index is None else self.end_index - 1
        json = {
            "kind": self.kind.value,
            "severity": self.severity.name.lower(),
            "stream": self.stream,
            "segment": self.segment,
            "first_entry": self.index,
            "last_entry": last,
            "message": self.message,
        }
        return {name: value for name, value in json.items() if value is not None}


class Findings:
    """What was found in one stream, in order."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self.all: list[Finding] = []
        self._counts = dict.fromkeys(Severity, 0)

    def add(
        self,
        kind: Kind,
        severity: Severity,
        message: str,
        *,
        segment: SegmentName | None = None,
        index: int | None = None,
        end_index: int | None = None,
    ) -> None:
        """Add a finding. No number of lesser ones can crowd out a worse one."""
        self._counts[severity] += 1
        if self._counts[severity] > FINDINGS_MAX:
            return
        self.all.append(
            Finding(
                kind=kind,
                severity=severity,
                stream=self._stream,
                segment=None if segment is None else segment.stem,
                index=index,
                end_index=end_index,
                message=message,
            )
        )

    def tampered(self, kind: Kind, message: str, **where: Any) -> None:
        """Add a finding that means the bytes are not what was signed."""
        self.add(kind, Severity.TAMPERED, message, **where)


@attrs.frozen(kw_only=True)
class KeyInForce:
    """A key and the first size of a note that it signs."""

    from_size: int
    key: VerifierKey


@attrs.frozen(kw_only=True)
class StreamReport:
    """What one generation of one stream was found to be."""

    name: str  # of its directory
    origin: str
    size: int  # entries verified
    signed_size: int  # of them covered by a good note
    root: bytes | None  # over signed_size
    segments: int
    octets: int
    notes: int
    keys: tuple[KeyInForce, ...]
    trusted_by: str | None  # "policy", "anchor", "sec" (for ops), None: nothing but the log itself
    anchored_size: int  # of the greatest anchor that fits
    findings: tuple[Finding, ...]


class Verdict(enum.Enum):
    """The answer."""

    INTACT = "intact"
    INCOMPLETE = "incomplete"
    TAMPERED = "tampered"


@attrs.frozen(kw_only=True)
class Report:
    """What the journal was found to be."""

    streams: tuple[StreamReport, ...]
    findings: tuple[Finding, ...]  # of all streams, and of the journal as a whole
    is_live: bool  # a writer has it

    @property
    def verdict(self) -> Verdict:
        """The worst finding decides."""
        worst = max((finding.severity for finding in self.findings), default=Severity.NOTICE)
        match worst:
            case Severity.TAMPERED:
                return Verdict.TAMPERED
            case Severity.INCOMPLETE:
                return Verdict.INCOMPLETE
            case _:
                return Verdict.INTACT
