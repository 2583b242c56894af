"""A TLS alert sent behind the handshake, of any kind: OpenSSL sends those of its own choice only."""

import ssl
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand


def alert_record(tls: ssl.SSLSocket, keys: Path, description: int) -> bytes:
    """Return the record of a fatal alert, as the next and first thing that ``tls`` says inside TLS 1.3.

    ``keys``: the key log of its context. RFC 8446: keys by section 7.3, the record by 5.2, the nonce by 5.3, with
    sequence number 0.
    """
    cipher = tls.cipher()
    assert cipher is not None
    assert cipher[0] == "TLS_AES_256_GCM_SHA384"
    label = "SERVER_TRAFFIC_SECRET_0" if tls.server_side else "CLIENT_TRAFFIC_SECRET_0"
    (line,) = [line for line in keys.read_text().splitlines() if line.startswith(label)]
    secret = bytes.fromhex(line.split()[2])
    body = b"\x02" + bytes((description,)) + b"\x15"  # fatal; the real content type stands behind
    header = b"\x17\x03\x03" + (len(body) + 16).to_bytes(2, "big")
    sealed = AESGCM(_expand(secret, b"key", 32)).encrypt(_expand(secret, b"iv", 12), body, header)
    return header + sealed


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label without context (RFC 8446 section 7.1)."""
    name = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes((len(name),)) + name + b"\0"
    return HKDFExpand(algorithm=hashes.SHA384(), length=length, info=info).derive(secret)
