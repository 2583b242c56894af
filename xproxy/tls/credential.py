"""A certificate with its key, as one leg's contexts need it.

The octets are kept and not only the paths: an operator's renewal may replace both files at any moment, and until
xproxy is told to read them again every session is to show the certificate that the log says it shows.
"""

import contextlib
import os
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import attrs

from xproxy import system
from xproxy.errors import FileProblem
from xproxy.events.tls import CertificateFacts
from xproxy.tls.facts import facts_of
from xproxy.tls.files import is_key_of, parse_certificates, parse_key, read_file


@attrs.frozen(kw_only=True)
class LeafFiles:
    """The certificate shown to clients, its chain and its key."""

    cert_path: Path
    key_path: Path
    facts: CertificateFacts
    chain_pem: bytes = attrs.field(repr=False)
    key_pem: bytes = attrs.field(repr=False)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Make ``context`` show this certificate.

        Raises: FileProblem if OpenSSL refuses it, for a key it finds too small for one.
        """
        try:
            with _as_file(self.chain_pem + b"\n" + self.key_pem) as path:
                context.load_cert_chain(path)
        except ssl.SSLError as error:
            raise FileProblem(
                f"OpenSSL does not take the certificate {self.cert_path}: {error.reason}",
                "its key or its signature is of a kind that is no longer accepted: have a new one made",
                path=self.cert_path,
            ) from error


class ServerFiles(LeafFiles):
    """The server's own chain and key, so that clients see what they see without us."""

    @classmethod
    def load(cls, cert_path: Path, key_path: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Self:
        """Read both files and check that they belong together and are in date.

        Raises: FileProblem with every fault found, each with its file.
        """
        problems: list[FileProblem] = []
        chain = key = None
        chain_pem = key_pem = b""
        try:
            chain_pem = read_file(cert_path, what="the certificate file")
            chain = parse_certificates(chain_pem, path=cert_path, what="the certificate file")
        except FileProblem as problem:
            problems.append(problem)
        try:
            key_pem = read_file(key_path, what="the key file")
            key = parse_key(key_pem, path=key_path, what="the key file")
        except FileProblem as problem:
            problems.append(problem)
        if chain:
            problems.extend(
                _date_problems(chain[0].not_valid_before_utc, chain[0].not_valid_after_utc, now(), cert_path)
            )
        if chain and key and not is_key_of(key, chain[0]):
            is_reversed = any(is_key_of(key, certificate) for certificate in chain[1:])
            problems.append(
                FileProblem(
                    f"the key {key_path} does not belong to the first certificate in {cert_path}",
                    "put the server's own certificate first"
                    if is_reversed
                    else "name the pair that the server uses; if it was renewed, both files",
                    path=key_path,
                )
            )
        if problems:
            raise _joined(problems)
        assert chain
        files = cls(
            cert_path=cert_path, key_path=key_path, facts=facts_of(chain[0]), chain_pem=chain_pem, key_pem=key_pem
        )
        # OpenSSL has rules of its own; better heard at the start than at the first session.
        files.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        return files


def _date_problems(not_before: datetime, not_after: datetime, now: datetime, path: Path) -> Iterator[FileProblem]:
    if now > not_after:
        yield FileProblem(f"the certificate {path} expired on {not_after:%Y-%m-%d %H:%M} UTC", "renew it", path=path)
    if now < not_before:
        hint = "check this machine's clock"
        yield FileProblem(f"the certificate {path} is valid only from {not_before:%Y-%m-%d %H:%M} UTC", hint, path=path)


def _joined(problems: list[FileProblem]) -> FileProblem:
    if len(problems) == 1:
        return problems[0]
    return FileProblem("; ".join(str(problem) for problem in problems), path=problems[0].path)


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Yield a path under which ``data`` can be read: OpenSSL's loader, as Python has it, reads files only."""
    if system.offers(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        descriptor = os.memfd_create("xproxy-certificate", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
    else:  # not Linux: a private file, gone at once
        import tempfile

        with tempfile.NamedTemporaryFile(prefix="xproxy-") as file:
            file.write(data)
            file.flush()
            yield file.name
