"""Files of keys and certificates: a sentence for every way reading can fail, and no half-written file after a crash."""

import contextlib
import os
import secrets
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.utils import CryptographyDeprecationWarning

from xproxy import system
from xproxy.errors import FileProblem

UNREADABLE: Final = (ValueError, TypeError, x509.InvalidVersion)
"""What ``cryptography`` raises for a certificate that OpenSSL may still take."""

FILE_BYTES_MAX: Final = 16 * 1024 * 1024  # a bundle of every public authority is under 1 MiB


def read_file(path: Path, *, what: str) -> bytes:
    """Return the content of ``path``, which is ``what`` ("the CA certificate").

    Raises: FileProblem.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing=f"read {what}", path=path) from error
    if len(data) > FILE_BYTES_MAX:
        raise FileProblem(f"{what} {path} is larger than {FILE_BYTES_MAX} bytes", "name a PEM file", path=path)
    return data


def parse_certificates(data: bytes, *, path: Path, what: str) -> list[x509.Certificate]:
    """Return the certificates in the PEM text ``data`` of ``path``, at least one.

    Raises: FileProblem.
    """
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise FileProblem(
            f"{what} {path} holds no certificate in PEM form",
            "it must have a line -----BEGIN CERTIFICATE-----; DER is converted by openssl x509 -inform DER",
            path=path,
        )
    try:
        with tolerant():
            return x509.load_pem_x509_certificates(data)
    except UNREADABLE as error:
        raise FileProblem(
            f"{what} {path} holds a certificate that cannot be read", "look at it with openssl x509 -text", path=path
        ) from error


def load_certificate(der: bytes) -> x509.Certificate:
    """Return the certificate ``der``. Raises: one of ``UNREADABLE``."""
    with tolerant():
        return x509.load_der_x509_certificate(der)


@contextlib.contextmanager
def tolerant() -> Iterator[None]:
    """Keep quiet about certificates that break RFC 5280 in small ways: some public authorities do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        yield


def parse_key(data: bytes, *, path: Path, what: str) -> PrivateKeyTypes:
    """Return the private key in the PEM text ``data`` of ``path``.

    Raises: FileProblem.
    """
    try:
        return load_pem_private_key(data, password=None)
    except TypeError as error:
        hint = "xproxy asks for no password: decrypt it with openssl pkey and protect the file by its permissions"
        raise FileProblem(f"{what} {path} is encrypted", hint, path=path) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        hint = "it must have a line -----BEGIN PRIVATE KEY-----"
        raise FileProblem(f"{what} {path} holds no private key that can be read", hint, path=path) from error


def render_key(key: PrivateKeyTypes) -> bytes:
    """Return ``key`` as PEM (PKCS #8), not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def is_key_of(key: PrivateKeyTypes, certificate: x509.Certificate) -> bool:
    """Return whether ``certificate`` is for ``key``."""
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        return key.public_key().public_bytes(*spki) == certificate.public_key().public_bytes(*spki)
    except (ValueError, UnsupportedAlgorithm):
        return False


def write_file(path: Path, data: bytes, *, mode: int | None) -> None:
    """Put ``data`` at ``path`` at once: after a crash there is the old file or the new one, never a part.

    ``mode`` None: that of the file that is there, else what the umask leaves.

    Raises: FileProblem.
    """
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}")
    try:
        if mode is None and path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
        made = 0o666 if mode is None else mode
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, made)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if mode is not None:
                    os.fchmod(descriptor, mode)  # whatever the umask
                file.write(data)
                file.flush()
                system.sync(descriptor)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="write", path=path) from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        system.sync(descriptor)
    finally:
        os.close(descriptor)
