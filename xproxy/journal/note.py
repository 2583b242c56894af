"""Signed notes and checkpoints, as C2SP has them (signed-note v1.0.0, tlog-checkpoint v1.0.0).

    gw1.example.org/xproxy/5f0c21aa/sec           the origin: which log this is
    20852                                         how many leaves
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=  their root
                                                  an empty line ends the text that is signed
    — gw1.example.org/xproxy/5f0c21aa/sec Az3gr…  one line a signature: base64 of key id (4 octets) | signature

The key's name is the origin. Its id is ``SHA-256(name | LF | type | public key)[:4]``, type 0x01 is Ed25519. A verifier
key as text ("vkey") is ``name+hex(id)+base64(type | public key)``. A note may carry signatures of keys and kinds that
we do not know (witnesses); they are kept, and prove nothing to us.

Parsing is strict, so that one meaning has one spelling: base64 must be the canonical one, numbers have no leading zero,
and nothing may follow. ``note.to_bytes()`` of what was parsed is what was parsed.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from xproxy.journal.tree import HASH_BYTES

ED25519: Final = 0x01
ED25519_PUBLIC_BYTES: Final = 32
KEY_ID_BYTES: Final = 4
NOTE_BYTES_MAX: Final = 65_536  # with every cosignature imaginable
_DASH: Final = "— "  # U+2014 and a space (signed-note, "Format")


class NoteProblem(Exception):  # noqa: N818 - what a note was found to be
    """A note, checkpoint or key is not what it should be, or its signature is wrong."""


@attrs.frozen
class VerifierKey:
    """A public key with the name it signs under."""

    name: str
    public: bytes  # Ed25519, RFC 8032 section 5.1.5
    key_id: bytes = attrs.field(init=False, repr=lambda value: value.hex())

    @key_id.default
    def _derive_id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([ED25519]) + self.public).digest()[:KEY_ID_BYTES]

    @classmethod
    def from_text(cls, text: str) -> "VerifierKey":
        """Read a vkey. Raises: NoteProblem."""
        # Base64 has "+" too: only the first two separate.
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        data = _decode_base64(encoded, "a verifier key")
        if not is_name(name) or len(data) != 1 + ED25519_PUBLIC_BYTES or data[0] != ED25519:
            raise NoteProblem(f"not an Ed25519 verifier key: {text[:200]!r}")
        key = cls(name, data[1:])
        if key.key_id.hex() != key_id:
            raise NoteProblem(f"the id in the verifier key of {name} is {key_id!r}, its key's is {key.key_id.hex()}")
        return key

    def __str__(self) -> str:
        """Return the vkey."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([ED25519]) + self.public).decode()}"

    def verify(self, note: "Note") -> None:
        """Check that ``note`` carries a good signature of this key.

        Raises: NoteProblem: it has none of this key, or a wrong one.
        """
        for signature in note.signatures:
            if signature.name == self.name and signature.key_id == self.key_id:
                try:
                    Ed25519PublicKey.from_public_bytes(self.public).verify(signature.data, note.text.encode())
                except (InvalidSignature, ValueError) as error:
                    raise NoteProblem(f"the signature of {self.name}+{self.key_id.hex()} is wrong") from error
                return
        raise NoteProblem(f"not signed by {self.name}+{self.key_id.hex()}")


class Signer(Protocol):
    """Who can sign."""

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""

    def sign(self, data: bytes) -> bytes:
        """Return the Ed25519 signature of ``data``."""


@attrs.frozen
class Signature:
    """One signature line."""

    name: str
    key_id: bytes
    data: bytes  # 64 octets for Ed25519; other kinds have other lengths

    def to_line(self) -> str:
        """Return the line without its end."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.data).decode()}"


@attrs.frozen
class Note:
    """A text with signatures. ``text`` ends with a line end."""

    text: str
    signatures: tuple[Signature, ...]

    def to_bytes(self) -> bytes:
        """Return the note as it is stored and handed out."""
        return self.to_text().encode()

    def to_text(self) -> str:
        """Return the note."""
        return f"{self.text}\n" + "".join(f"{signature.to_line()}\n" for signature in self.signatures)

    def to_lines(self) -> tuple[str, ...]:
        """Return a note that is a checkpoint as its lines without the empty one: how records hold it."""
        return (*self.text.splitlines(), *(signature.to_line() for signature in self.signatures))

    @property
    def checkpoint(self) -> "Checkpoint":
        """What is signed. Raises: NoteProblem: it is no checkpoint."""
        return Checkpoint.from_text(self.text)


@attrs.frozen
class Checkpoint:
    """So many leaves, with this root, are the log called ``origin``."""

    origin: str
    size: int
    root: bytes = attrs.field(repr=lambda value: value.hex())

    def to_text(self) -> str:
        """Return the three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def from_text(cls, text: str) -> "Checkpoint":
        """Read the text of a note. Extension lines are refused: no log of ours has any. Raises: NoteProblem."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] or not is_name(lines[0]):
            raise NoteProblem(f"not a checkpoint of three lines: {text[:200]!r}")
        origin, size, root = lines[:3]
        if not (size.isascii() and size.isdecimal()) or (size[0] == "0" and size != "0") or len(size) > 19:
            raise NoteProblem(f"the size in a checkpoint of {origin} is no number: {size[:40]!r}")
        data = _decode_base64(root, f"the root in a checkpoint of {origin}")
        if len(data) != HASH_BYTES:
            raise NoteProblem(f"the root in a checkpoint of {origin} has {len(data)} octets")
        return cls(origin, int(size), data)

    def sign(self, signers: Iterable[Signer]) -> Note:
        """Return the checkpoint as a note signed by each of ``signers``."""
        text = self.to_text()
        data = text.encode()
        return Note(
            text,
            tuple(Signature(each.verifier.name, each.verifier.key_id, each.sign(data)) for each in signers),
        )


def parse_note(data: bytes) -> Note:
    """Read one note, all of ``data``. Raises: NoteProblem."""
    if len(data) > NOTE_BYTES_MAX:
        raise NoteProblem(f"a note of {len(data)} octets is too long")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise NoteProblem("a note is not UTF-8") from error
    # The last empty line separates, the text may hold others.
    body, separator, lines = whole.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise NoteProblem("a note has no signatures, or its last line has no end")
    if any(ord(character) < 0x20 and character != "\n" for character in whole):
        raise NoteProblem("a note holds a control character")
    return Note(body + "\n", tuple(_parse_signature(line) for line in lines[:-1].split("\n")))


def note_from_lines(lines: Sequence[str]) -> Note:
    """Return the checkpoint's note that ``to_lines`` took apart. Raises: NoteProblem."""
    return parse_note("\n".join([*lines[:3], "", *lines[3:], ""]).encode())


def is_name(text: str) -> bool:
    """Return whether ``text`` may be the name of a key: not empty, neither spaces nor plus (signed-note)."""
    return text != "" and text.isprintable() and not any(char.isspace() or char == "+" for char in text)


def _parse_signature(line: str) -> Signature:
    if not line.startswith(_DASH):
        raise NoteProblem(f"not a signature line: {line[:80]!r}")
    name, separator, encoded = line.removeprefix(_DASH).partition(" ")
    if not separator or not is_name(name):
        raise NoteProblem(f"not a signature line: {line[:80]!r}")
    data = _decode_base64(encoded, "a signature")
    if len(data) <= KEY_ID_BYTES:
        raise NoteProblem("a signature is too short")
    return Signature(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


def _decode_base64(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteProblem(f"{what} is not base64") from error
    if base64.b64encode(data).decode() != text:
        raise NoteProblem(f"{what} is not the canonical base64")  # two spellings of one signature
    return data
