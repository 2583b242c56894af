"""The signing key of a stream: made once, kept with its log, exchanged without a moment in which nobody can sign.

``signing.key`` is the key in force (PKCS #8 PEM, not encrypted: who may read it may extend the log, and protecting it
is the file system's work). Rotation has four steps, each durable before the next:

1. ``signing.key.next`` is written: the new key.
2. A ``key-rotated`` record is committed; from here on the new key is in force by the log's own words.
3. The note over it is signed by both keys, and synced.
4. ``signing.key.next`` is renamed over ``signing.key``: the old key is gone, and with it the power to sign anew what it
   signed. (A copy, a backup or a disk's worn-out blocks may still have it.)

A crash after step 1 leaves a key that nobody has heard of; it is thrown away at the next start. A crash after step 2
leaves two keys of which the log names the newer one: the next start signs its first note with both, then goes on with
step 4. A stream's key signs under the stream's origin, so ``sec`` and ``ops`` have their own.
"""

from contextlib import suppress
from pathlib import Path

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from xproxy.journal.format import KEY_FILE, NEXT_KEY_FILE
from xproxy.journal.note import VerifierKey
from xproxy.journal.storage import Storage, write_whole


class KeyLost(Exception):  # noqa: N818 - what happened to it
    """The key in force is not there any more, or is another."""


class SigningKey:
    """A private key and the name it signs under. Never printed."""

    __slots__ = ("_key", "verifier")

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.verifier = VerifierKey(name, key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    @classmethod
    def generate(cls, name: str) -> "SigningKey":
        """Make a new key."""
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, name: str, data: bytes) -> "SigningKey":
        """Read a key. Raises: KeyLost: it is none."""
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyLost("it is no private key in PEM form") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyLost("it is no Ed25519 key")
        return cls(name, key)

    def to_pem(self) -> bytes:
        """Return the key as it is stored."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        """Return the signature of ``data``."""
        return self._key.sign(data)


@attrs.define
class KeyRing:
    """The keys of one stream. ``outgoing`` signs beside ``current`` until a note with both is durable."""

    storage: Storage
    directory: Path
    current: SigningKey
    outgoing: SigningKey | None = None

    @classmethod
    def create(cls, storage: Storage, directory: Path, name: str) -> "KeyRing":
        """Make the first key of a stream. Raises OSError."""
        key = SigningKey.generate(name)
        write_whole(storage, directory / KEY_FILE, key.to_pem())
        return cls(storage, directory, key)

    @classmethod
    def open_(cls, storage: Storage, directory: Path, in_force: VerifierKey) -> "KeyRing":
        """Read the keys of a stream whose log names ``in_force``.

        Raises:
            KeyLost: that key is not there.
            OSError: the disk does not answer.
        """
        current = _read(storage, directory / KEY_FILE, in_force.name)
        next_ = _read(storage, directory / NEXT_KEY_FILE, in_force.name)
        if current is not None and current.verifier == in_force:
            if next_ is not None:
                storage.remove(directory / NEXT_KEY_FILE)  # a rotation that never was
            return cls(storage, directory, current)
        if next_ is not None and next_.verifier == in_force:
            return cls(storage, directory, next_, outgoing=current)
        raise KeyLost(f"the key {in_force} is not in {directory}")

    @property
    def signers(self) -> tuple[SigningKey, ...]:
        """Who signs the next note."""
        return (self.current,) if self.outgoing is None else (self.outgoing, self.current)

    def prepare(self) -> SigningKey:
        """Step 1: return a new key, durable, not in force. Raises OSError."""
        key = SigningKey.generate(self.current.verifier.name)
        write_whole(self.storage, self.directory / NEXT_KEY_FILE, key.to_pem())
        return key

    def bring_into_force(self, key: SigningKey) -> None:
        """Step 2 is done: sign with both."""
        self.current, self.outgoing = key, self.current

    def revert(self) -> None:
        """Step 2 has failed: the new key was never in force."""
        assert self.outgoing is not None
        self.current, self.outgoing = self.outgoing, None

    def finish(self) -> None:
        """Step 3 is done: destroy the old key. Raises OSError; then both go on signing until it works."""
        self.storage.replace(self.directory / NEXT_KEY_FILE, self.directory / KEY_FILE)
        self.outgoing = None
        with suppress(OSError):
            self.storage.sync_directory(self.directory)  # else a crash of the machine brings it back, and step 4 again


def _read(storage: Storage, path: Path, name: str) -> SigningKey | None:
    try:
        return SigningKey.from_pem(name, storage.read(path))
    except (FileNotFoundError, KeyLost):
        return None
