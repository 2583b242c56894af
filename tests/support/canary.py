"""Secrets used in tests, and the search for them in everything a proxy writes.

Register a secret before its proxy stops: tests/support/proxy_process.py then searches each log, stderr
and state file, so no test can forget it. A hit names label and place, not the secret.
"""

import base64
import binascii
import html
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

_OCTETS_MIN = 6  # shorter ones would be found by chance


@attrs.define
class Canary:
    """The secrets of one test session."""

    _forms: dict[bytes, str] = attrs.field(factory=dict, repr=False)

    def __len__(self) -> int:
        """Return how many byte patterns are searched for."""
        return len(self._forms)

    def register(self, label: str, secret: str | bytes) -> None:
        """Look for ``secret`` from now on: as it is, as hex, escaped, and inside Base64 at each alignment."""
        octets = secret.encode() if isinstance(secret, str) else secret
        assert len(octets) >= _OCTETS_MIN, f"the canary {label} is too short to be searched for"
        for form in _forms_of(octets):
            self._forms[form] = label

    def register_payload(self, label: str, payload: str) -> None:
        """Look for a Base64 SASL payload, and for what it decodes to."""
        if len(payload) < _OCTETS_MIN:
            return
        self._forms[payload.encode()] = label
        try:
            octets = base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError):
            self.register(label, payload)
            return
        if len(octets) >= _OCTETS_MIN:
            self.register(label, octets)

    def hits(self, octets: bytes) -> list[str]:
        """Return the labels of the secrets found in ``octets``."""
        return sorted({label for form, label in self._forms.items() if form in octets})

    def search(self, paths: Iterable[Path]) -> list[str]:
        """Return "path: label" for each secret found in these files and in all files below these directories."""
        # Zeros at the end are room that the journal keeps, tens of megabytes of it.
        return [f"{path}: {label}" for path in _files(paths) for label in self.hits(path.read_bytes().rstrip(b"\0"))]


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (inner for inner in sorted(path.rglob("*")) if inner.is_file())
        elif path.is_file():
            yield path


def _forms_of(octets: bytes) -> Iterator[bytes]:
    yield octets
    yield octets.hex().encode()
    yield octets.hex().upper().encode()
    for start in range(3):
        # The octets before it are unknown: drop the characters they share bits with, at both ends.
        encoded = base64.b64encode(bytes(start) + octets)
        first = (start * 8 + 5) // 6
        last = (start + len(octets)) * 8 // 6
        yield encoded[first:last]
        yield base64.urlsafe_b64encode(bytes(start) + octets)[first:last]
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return
    yield html.escape(text).encode()
    yield json.dumps(text)[1:-1].encode()
    yield repr(text)[1:-1].encode()
