"""What the log says of a handshake that succeeded, and of certificates."""

import functools
import hashlib
import ssl
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from xproxy.events import Side
from xproxy.events.tls import CertificateFacts, TlsEstablished
from xproxy.tls.failures import failure_of
from xproxy.tls.files import UNREADABLE, load_certificate, tolerant
from xproxy.tls.hello import ClientHello
from xproxy.tls.names import CertificateNames

__all__ = ["certificate_facts", "facts_of", "failure_of", "spki_pin", "tls_established"]

ALTERNATIVE_NAMES_MAX: Final = 64  # certificates of content networks name hundreds of domains
CERTIFICATES_REMEMBERED_MAX: Final = 1024

_VERSIONS: Final = {"TLSv1.3": "1.3", "TLSv1.2": "1.2", "TLSv1.1": "1.1", "TLSv1": "1.0"}


@functools.lru_cache(maxsize=CERTIFICATES_REMEMBERED_MAX)
def certificate_facts(der: bytes) -> CertificateFacts:
    """Return what the log keeps of the certificate ``der``; of one that cannot be parsed only the fingerprint.

    Answers are remembered: parsing costs 50 us and a server shows the same certificate every time.
    """
    sha256 = hashlib.sha256(der).hexdigest()
    try:
        with tolerant():
            return _read(load_certificate(der), sha256, der)
    except UNREADABLE:
        # What OpenSSL takes and cryptography's stricter parser does not: odd times, odd serial numbers.
        return CertificateFacts(
            sha256=sha256, subject_common_name=None, issuer=None, serial_number=None, not_before=None, not_after=None
        )


def facts_of(certificate: x509.Certificate) -> CertificateFacts:
    """Return what the log keeps of ``certificate``."""
    return certificate_facts(certificate.public_bytes(Encoding.DER))


def spki_pin(certificate: x509.Certificate) -> str:
    """Return SHA-256 of the certificate's public key (SubjectPublicKeyInfo), lower-case hex: what apps pin."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def tls_established(
    tls: ssl.SSLSocket | ssl.SSLObject,
    leg: Side,
    *,
    direct: bool,
    seconds: float,
    server_name: str | None,
    hello: ClientHello | None = None,
    certificate: CertificateFacts | None = None,
    verify: str | None = None,
) -> TlsEstablished:
    """Return the event for the finished handshake of ``tls``.

    ``server_name``: SNI received on the client leg, sent on the server leg. ``hello``: on the client leg.
    ``certificate``: the one we showed; on the server leg, without it, the peer's. ``verify``: on the server leg.
    """
    if certificate is None and leg is Side.SERVER and (der := tls.getpeercert(binary_form=True)):
        certificate = certificate_facts(der)
    version = tls.version() or ""
    cipher = tls.cipher()
    return TlsEstablished(
        leg=leg,
        direct=direct,
        version=_VERSIONS.get(version, version),
        cipher=cipher[0] if cipher else "",
        server_name=server_name,
        alpn=tls.selected_alpn_protocol(),
        ja4=hello.ja4 if hello else None,
        resumed=bool(tls.session_reused),
        certificate=certificate,
        verify=verify,
        seconds=seconds,
    )


def _read(certificate: x509.Certificate, sha256: str, der: bytes) -> CertificateFacts:
    common_names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return CertificateFacts(
        sha256=sha256,
        subject_common_name=_attribute_text(common_names[0].value) if common_names else None,
        issuer=certificate.issuer.rfc4514_string(),
        serial_number=f"{certificate.serial_number:X}",
        not_before=_rfc3339(certificate.not_valid_before_utc),
        not_after=_rfc3339(certificate.not_valid_after_utc),
        alternative_names=CertificateNames.from_certificate(certificate).all[:ALTERNATIVE_NAMES_MAX],
        end_point_hash=_end_point_hash(certificate, der),
    )


def _attribute_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _end_point_hash(certificate: x509.Certificate, der: bytes) -> str | None:
    """Return tls-server-end-point (RFC 5929 section 4.1), lower-case hex.

    None where the signature uses no single hash function, Ed25519 for one: the RFC leaves the binding undefined there.
    """
    try:
        algorithm = certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None
    if algorithm is None:
        return None
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    digest = hashes.Hash(algorithm)
    digest.update(der)
    return digest.finalize().hex()
