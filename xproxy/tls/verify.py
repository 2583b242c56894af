"""Is the server who the client asked for? (RFC 6120 section 13.7.2, RFC 7590, RFC 9525)

OpenSSL verifies the chain during the handshake; the names are compared here afterwards, against the XMPP domain and
never against the host we connected to (``names.py`` has the rules). Nothing is sent before that.

With ``verify = "none"`` OpenSSL lets any certificate pass and does not tell what it thought of it. So that the log can
still say it, the chain as received is judged once more by ``cryptography``'s verifier, with the same authorities and
without the demands that it makes on top of RFC 5280 (a web browser's). That judgement serves the log alone. It is made
in the order in which OpenSSL would have spoken: trust, then dates, then names. Where the chain cannot be read, or there
is no name to compare with, it is "off".
"""

import contextlib
import functools
import re
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification

from xproxy.errors import FileProblem
from xproxy.events.tls import CertificateFacts, TlsFailure
from xproxy.jid import JidError, domain_to_ascii, is_ip_address
from xproxy.tls.facts import CERTIFICATES_REMEMBERED_MAX, certificate_facts
from xproxy.tls.failures import HandshakeRefused, classify
from xproxy.tls.files import UNREADABLE, load_certificate, parse_certificates, read_file
from xproxy.tls.names import CertificateNames

__all__ = [
    "Authorities",
    "UpstreamIdentity",
    "classify",
    "judge_upstream",
    "refused_certificate",
    "server_name_for",
    "verify_upstream",
]

OFF: Final = "off"
OK: Final = "ok"

_PEM_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_HASHED_NAME: Final = re.compile(r"[0-9a-f]{8}\.\d+")  # openssl rehash: how a directory of authorities is searched


@attrs.frozen(kw_only=True)
class UpstreamIdentity:
    """Who the server says it is, and whether that is proven."""

    certificate: CertificateFacts | None
    names: CertificateNames
    verdict: str
    """"ok", or with verification off what it would have said, or "off" where that is not known."""

    @property
    def is_proven(self) -> bool:
        """Whether the chain and the name were found valid: only then do the names allow minting."""
        return self.verdict == OK

    def check_covers(self, domain: str) -> None:
        """Compare again, with the name of a stream that came later.

        Raises: HandshakeRefused with CERTIFICATE_NAME_MISMATCH.
        """
        if not _cover(self.names, domain):
            raise _name_mismatch()


@functools.lru_cache(maxsize=256)  # the domains of one server, and some mistaken ones
def _cover(names: CertificateNames, domain: str) -> bool:
    return names.cover(domain)


@attrs.frozen(kw_only=True, eq=False)
class Authorities:
    """Whom we trust to sign the server's certificate."""

    path: Path | None  # None: the system's
    _certificates: tuple[x509.Certificate, ...] | None = attrs.field(repr=False)

    @classmethod
    def load(cls, path: Path | None) -> Self:
        """Read the authorities in the PEM file ``path``, or without it those OpenSSL takes by default.

        Raises: FileProblem about ``path``. A system without authorities is not an error: it trusts nobody.
        """
        if path is None:
            return cls(path=None, certificates=None)
        what = "the file of authorities"
        return cls(path=path, certificates=tuple(parse_certificates(read_file(path, what=what), path=path, what=what)))

    def load_into(self, context: ssl.SSLContext) -> None:
        """Make ``context`` trust them: each by itself, be it a root, an intermediate or the server's own."""
        if self._certificates is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            context.load_verify_locations(cadata=b"".join(_der_of_x509(each) for each in self._certificates))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN

    @functools.cached_property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """The certificates. The system's are read when first asked for (50 ms): only ``judge_upstream`` asks."""
        return tuple(dict.fromkeys(_system_authorities())) if self._certificates is None else self._certificates

    @functools.cached_property
    def store(self) -> verification.Store | None:
        """The same for ``cryptography``; None if there are none."""
        return verification.Store(list(self.certificates)) if self.certificates else None


def _system_authorities() -> Iterator[x509.Certificate]:
    paths = ssl.get_default_verify_paths()
    files = [Path(paths.cafile)] if paths.cafile else []
    if paths.capath:
        files.extend(path for path in Path(paths.capath).iterdir() if _HASHED_NAME.fullmatch(path.name))
    for path in files:
        # One bad certificate among the system's is no reason to know none.
        with contextlib.suppress(FileProblem):
            for block in _PEM_BLOCK.findall(read_file(path, what="the authority")):
                with contextlib.suppress(FileProblem):
                    yield from parse_certificates(block, path=path, what="the authority")


def server_name_for(domain: str | None) -> str | None:
    """Return what to send as SNI for the XMPP domain ``domain``: its A-labels, or None for an address or for None.

    Raises: HandshakeRefused with BAD_NAME for what is no host name.
    """
    if domain is None or is_ip_address(domain):
        return None
    try:
        return domain_to_ascii(domain)
    except JidError as error:
        raise HandshakeRefused(TlsFailure.BAD_NAME, str(error)) from error


def verify_upstream(tls: ssl.SSLSocket | ssl.SSLObject, domain: str | None) -> UpstreamIdentity:
    """Return the identity of the server at the end of a handshake in which OpenSSL verified the chain.

    Raises: HandshakeRefused with NO_NAME where ``domain`` is None, with CERTIFICATE_NAME_MISMATCH where the certificate
    is for others.
    """
    assert tls.context.verify_mode is ssl.CERT_REQUIRED
    if domain is None:
        raise HandshakeRefused(TlsFailure.NO_NAME, "the stream names no domain and none is configured")
    der = tls.getpeercert(binary_form=True)
    assert der is not None  # CERT_REQUIRED
    identity = UpstreamIdentity(certificate=certificate_facts(der), names=_names_of(der), verdict=OK)
    identity.check_covers(domain)
    return identity


def judge_upstream(
    tls: ssl.SSLSocket | ssl.SSLObject, domain: str | None, *, authorities: Authorities, now: datetime
) -> UpstreamIdentity:
    """Return the identity of the server at the end of a handshake in which nothing was verified. Never raises.

    ``authorities``: whom verification would have trusted. ``now``: aware.
    """
    chain = _received_chain(tls)
    if not chain:
        return UpstreamIdentity(certificate=None, names=CertificateNames(), verdict=OFF)
    return UpstreamIdentity(
        certificate=certificate_facts(chain[0]),
        names=_names_of(chain[0]),
        verdict=_judge(chain, domain, authorities, now),
    )


def refused_certificate(tls: ssl.SSLSocket | ssl.SSLObject) -> CertificateFacts | None:
    """Return the server's certificate after a handshake in which it was refused, or None if none came.

    OpenSSL keeps the chain it tried to build, and CPython shows it only through the object below ``SSLSocket``.
    """
    low: Any = getattr(tls, "_sslobj", None)
    try:
        chain = low.get_verified_chain()
        return certificate_facts(_der_of(chain[0])) if chain else None
    except (AttributeError, ValueError, ssl.SSLError):
        return None


@functools.lru_cache(maxsize=CERTIFICATES_REMEMBERED_MAX)
def _names_of(der: bytes) -> CertificateNames:
    """Answers are remembered: a server shows the same certificate every time, and parsing it takes 100 us."""
    try:
        return CertificateNames.from_certificate(load_certificate(der))
    except UNREADABLE:
        return CertificateNames()


def _name_mismatch() -> HandshakeRefused:
    return HandshakeRefused(TlsFailure.CERTIFICATE_NAME_MISMATCH, "the certificate is for other names")


def _received_chain(tls: ssl.SSLSocket | ssl.SSLObject) -> list[bytes]:
    """Return the certificates the server sent, its own first, as DER."""
    # Public since Python 3.13, and there it returns DER; before, the object below has the same method.
    source: Any = tls if hasattr(tls, "get_unverified_chain") else getattr(tls, "_sslobj", None)
    try:
        return [_der_of(certificate) for certificate in source.get_unverified_chain() or ()]
    except (AttributeError, ValueError, ssl.SSLError):
        der = tls.getpeercert(binary_form=True)
        return [der] if der else []


def _der_of_x509(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _der_of(certificate: Any) -> bytes:
    if isinstance(certificate, bytes):
        return certificate
    encoded = certificate.public_bytes(ssl._ssl.ENCODING_DER)  # type: ignore[attr-defined]
    assert isinstance(encoded, bytes)
    return encoded


def _judge(chain: list[bytes], domain: str | None, authorities: Authorities, now: datetime) -> str:
    try:
        leaf, *others = [load_certificate(der) for der in chain]
        return _judge_parsed(leaf, others, domain, authorities, now)
    except UNREADABLE:
        return OFF


def judge_certificates(
    chain: list[x509.Certificate], domain: str | None, authorities: Authorities, now: datetime
) -> str:
    """Return what a client that trusts ``authorities`` would say to ``chain``, the server's certificate first.

    One of "ok" ("off" where ``domain`` is None), "name-mismatch", "expired", "not-yet-valid", "self-signed",
    "untrusted".
    """
    try:
        return _judge_parsed(chain[0], chain[1:], domain, authorities, now)
    except UNREADABLE:
        return OFF


def _judge_parsed(
    leaf: x509.Certificate,
    others: list[x509.Certificate],
    domain: str | None,
    authorities: Authorities,
    now: datetime,
) -> str:
    if not _is_trusted(leaf, others, authorities, now):
        # Was it the date? Then it held when the server's certificate was fresh.
        if leaf.not_valid_after_utc < now or now < leaf.not_valid_before_utc:
            fresh = leaf.not_valid_before_utc + timedelta(seconds=1)
            if _is_trusted(leaf, others, authorities, fresh):
                return "expired" if leaf.not_valid_after_utc < now else "not-yet-valid"
        return "self-signed" if _is_self_signed(leaf) else "untrusted"
    if domain is None:
        return OFF
    return OK if CertificateNames.from_certificate(leaf).cover(domain) else "name-mismatch"


def _is_self_signed(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_trusted(leaf: x509.Certificate, others: list[x509.Certificate], authorities: Authorities, at: datetime) -> bool:
    if leaf in authorities.certificates:
        return leaf.not_valid_before_utc <= at <= leaf.not_valid_after_utc
    if authorities.store is None:
        return False
    permissive = verification.ExtensionPolicy.permit_all()
    # The one thing the library insists on, and OpenSSL too: what signs others says that it may.
    signs = permissive.require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    verifier = (
        verification.PolicyBuilder()
        .store(authorities.store)
        .time(at)
        .extension_policies(ca_policy=signs, ee_policy=permissive)
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, others)
    except (verification.VerificationError, ValueError, UnsupportedAlgorithm):
        return False
    return True
