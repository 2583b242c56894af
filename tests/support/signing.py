"""Signing keys for tests, made when they are needed."""

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from xproxy.journal.note import VerifierKey


@attrs.frozen
class Key:
    """A ``Signer`` with a key in memory."""

    verifier: VerifierKey
    private: Ed25519PrivateKey = attrs.field(repr=False)

    @classmethod
    def make(cls, name: str, seed: bytes | None = None) -> "Key":
        """Return a key that signs as ``name``: a new one, or the one that ``seed`` (32 octets) gives."""
        private = Ed25519PrivateKey.from_private_bytes(seed) if seed else Ed25519PrivateKey.generate()
        return cls(VerifierKey(name, private.public_key().public_bytes_raw()), private)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of ``data``."""
        return self.private.sign(data)
