"""The local certificate authority: made on first use, it mints one leaf a domain for clients that trust it.

    STATE/ca.pem              0644  the CA's certificate: what clients are given to trust
    STATE/ca.key              0600  its key
    STATE/leaf.key            0600  the one key of all leaves, so that pins of the public key survive renewal
    STATE/leaves/DOMAIN.pem   0600  leaf and CA certificate
    STATE/.lock               0600  held while anything above is written

Every write is a rename, keys before certificates. So a crash leaves either nothing, or a key without a certificate,
and that is continued: a CA certificate made again for the same key and name is trusted wherever the first one is. The
opposite, ``ca.pem`` without its key, is refused with a sentence: nobody but the operator knows where the key went.

Certificates keep to RFC 5280 as OpenSSL's ``-x509_strict`` and Python 3.13's defaults check it. The CA may sign leaves
only (pathlen 0) and bears the start of its key's hash in its name, so that two installations are never confused.

**Name constraints** (RFC 5280 section 4.2.1.10). A CA that was made for certain domains says so in its certificate,
critically: whoever steals its key can then impersonate these domains and those below them, and no other, to clients
that compare dNSNames. Addresses are excluded, since a constraint on names says nothing about them. SRVName and xmppAddr
stay unconstrained: a subtree of type otherName would be proper (RFC 4985 section 4), but OpenSSL ("unsupported name
constraint type"), NSS and others then refuse every leaf. Constraints cannot be added later: clients trust the CA's
first form.
"""

import contextlib
import fcntl
import hashlib
import ipaddress
import logging
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from xproxy.config.state import make_state_directory
from xproxy.errors import EnvironmentProblem, FileProblem
from xproxy.events.tls import CertificateFacts, TlsFailure
from xproxy.jid import JidError, domain_to_ascii, enforce_domainpart
from xproxy.tls.credential import LeafFiles, ServerFiles
from xproxy.tls.facts import facts_of
from xproxy.tls.failures import HandshakeRefused
from xproxy.tls.files import is_key_of, parse_certificates, parse_key, read_file, render_key, write_file
from xproxy.tls.names import CertificateNames, encode_srv_name, encode_xmpp_addr

__all__ = [
    "Authority",
    "LeafFiles",
    "LeavesMaxReached",
    "ServerFiles",
    "may_mint",
    "permitted_domains",
    "read_ca_certificate",
    "stored_leaves",
]

log = logging.getLogger(__name__)

CA_DAYS: Final = 3650
LEAF_DAYS: Final = 396  # browsers and Apple's platforms refuse more than 397 or 398
LEAF_RENEWAL_DAYS: Final = 30
RETRY: Final = timedelta(hours=1)  # after a renewal that failed, or gained nothing
CLOCK_SKEW: Final = timedelta(hours=1)  # a client's clock may be behind ours
LEAVES_MAX: Final = 1_000
COMMON_NAME_CHARS_MAX: Final = 64  # RFC 5280 appendix A, ub-common-name
_ALL_ADDRESSES: Final = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_FILE_NAME_CHARS_MAX: Final = 200  # a file's name has at most 255 octets, a domain 253


class LeavesMaxReached(EnvironmentProblem):
    """The state directory holds as many leaves as it may."""

    def __init__(self, value: int, directory: Path) -> None:
        super().__init__(
            f"cannot make another certificate: {directory} holds {value}, as many as tls.leaves_max allows",
            "raise tls.leaves_max, or remove the leaves of domains that are gone",
        )
        self.value = value


def may_mint(domain: str, configured_domain: str | None, upstream_certificate_names: CertificateNames | None) -> bool:
    """Return whether a leaf for ``domain`` may be made: it is ``--domain``, or the verified server bears the name.

    ``upstream_certificate_names``: those of a certificate that was *verified*, else None. Without this rule, who can
    reach the proxy could have certificates made for any name, signed by an authority that people trust.
    """
    try:
        name = domain_to_ascii(domain)
        if configured_domain is not None and name == domain_to_ascii(configured_domain):
            return True
    except JidError:
        return False
    return upstream_certificate_names is not None and upstream_certificate_names.cover(domain)


@attrs.define(eq=False)
class Authority:
    """The CA of one state directory. Usable from several threads, and by several processes on one directory."""

    directory: Path
    certificate: x509.Certificate
    permitted: tuple[str, ...]  # domains that the CA may sign for, with those below them; none: any
    _key: ec.EllipticCurvePrivateKey = attrs.field(repr=False)
    _leaf_key: ec.EllipticCurvePrivateKey = attrs.field(repr=False)
    _now: Callable[[], datetime]
    _leaves_max: int
    # Renewal, leaf, end; by name in A-labels.
    _leaves: dict[str, tuple[datetime, LeafFiles, datetime]] = attrs.field(factory=dict, repr=False)
    _mutex: threading.Lock = attrs.field(factory=threading.Lock, repr=False)

    @classmethod
    def open_(
        cls,
        directory: Path,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        leaves_max: int = LEAVES_MAX,
        domains: tuple[str, ...] = (),
    ) -> Self:
        """Return the CA in ``directory``, made now if there is none. Nothing needs closing.

        ``now`` returns aware datetimes. ``domains``: a CA that is made now may sign for these and those below alone;
        in A-labels.

        Raises: FileProblem: unreadable, unwritable, expired, or files that do not belong together.
        """
        make_state_directory(directory)
        make_state_directory(directory / "leaves")
        with _locked(directory):
            certificate, key = _open_ca(directory, now(), domains)
            leaf_key = _open_key(directory / "leaf.key", "the leaf key")
        return cls(directory, certificate, permitted_domains(certificate), key, leaf_key, now, leaves_max)

    @property
    def certificate_path(self) -> Path:
        """The CA certificate's file, the one to give to clients."""
        return self.directory / "ca.pem"

    @property
    def facts(self) -> CertificateFacts:
        """The CA certificate's facts."""
        return facts_of(self.certificate)

    @property
    def leaf_key_path(self) -> Path:
        """The file of the key that all leaves share."""
        return self.directory / "leaf.key"

    def permits(self, domain: str) -> bool:
        """Return whether the CA's own certificate lets it sign for ``domain``, a valid one."""
        if not self.permitted:
            return True
        name = domain_to_ascii(domain)
        return any(name == each or name.endswith(f".{each}") for each in self.permitted)

    def kept_leaf(self, domain: str) -> LeafFiles | None:
        """Return the certificate for ``domain`` if it is at hand and need not be renewed: no file is touched."""
        known = self._leaves.get(domain_to_ascii(domain))
        return known[1] if known is not None and self._now() < known[0] else None

    def leaf(self, domain: str) -> LeafFiles:
        """Return the certificate for ``domain``, made or renewed if needed. Whether it may exist: ``may_mint``.

        Mostly a look into memory; the first time and at renewal a file is read, or written and synced (milliseconds).
        What cannot be renewed, for a disk is full, is shown until its end.

        Raises:
            HandshakeRefused: NO_CERTIFICATE for an address or what the CA may not sign for, BAD_NAME for no name.
            LeavesMaxReached, FileProblem.
        """
        try:
            name = domain_to_ascii(domain)
        except JidError as error:
            if error.reason == "address":
                raise HandshakeRefused(
                    TlsFailure.NO_CERTIFICATE, "the local CA certifies names, not addresses"
                ) from None
            raise HandshakeRefused(TlsFailure.BAD_NAME, str(error)) from None
        if not self.permits(name):
            only = ", ".join(self.permitted)
            raise HandshakeRefused(
                TlsFailure.NO_CERTIFICATE, f"the local CA may certify {only} only (xproxy certs show)"
            )
        now = self._now()
        with self._mutex:
            if (known := self._leaves.get(name)) and now < known[0]:
                return known[1]
            try:
                with _locked(self.directory):
                    certificate, leaf = self._read_or_mint(name, now)
            except FileProblem as problem:
                if known is None or now >= known[2]:
                    raise
                log.error("the certificate for %s is not renewed and ends on %s: %s", name, known[2].date(), problem)
                self._leaves[name] = now + RETRY, known[1], known[2]
                return known[1]
            renewal = certificate.not_valid_after_utc - timedelta(days=LEAF_RENEWAL_DAYS)
            # An authority in its last month gives leaves that are due at once: keep those for a while all the same.
            self._leaves[name] = max(renewal, now + RETRY), leaf, certificate.not_valid_after_utc
            return leaf

    def _read_or_mint(self, name: str, now: datetime) -> tuple[x509.Certificate, LeafFiles]:
        path = self.directory / "leaves" / _file_name(name)
        try:
            chain = parse_certificates(read_file(path, what="the leaf"), path=path, what="the leaf")
        except FileProblem:
            chain = []
        if not chain or not self._is_usable(chain[0], name, now):
            if not path.exists():
                self._check_room()
            chain = [self._mint(name, now)]
        chain_pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in (chain[0], self.certificate))
        if not path.exists() or path.read_bytes() != chain_pem:
            write_file(path, chain_pem, mode=0o600)
        return chain[0], LeafFiles(
            cert_path=path,
            key_path=self.leaf_key_path,
            facts=facts_of(chain[0]),
            chain_pem=chain_pem,
            key_pem=render_key(self._leaf_key),
        )

    def _is_usable(self, certificate: x509.Certificate, name: str, now: datetime) -> bool:
        """Whether a stored leaf is ours, for this name and key, and not due for renewal."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        due = certificate.not_valid_after_utc - timedelta(days=LEAF_RENEWAL_DAYS)
        limit = min(certificate.not_valid_after_utc, self.certificate.not_valid_after_utc)
        is_last = certificate.not_valid_after_utc == self.certificate.not_valid_after_utc  # renewal gains nothing
        in_date = certificate.not_valid_before_utc <= now < (limit if is_last else due)
        names = CertificateNames.from_certificate(certificate)
        return in_date and is_key_of(self._leaf_key, certificate) and name in names.dns

    def _check_room(self) -> None:
        directory = self.directory / "leaves"
        count = sum(1 for _ in directory.glob("*.pem"))
        if count >= self._leaves_max:
            raise LeavesMaxReached(self._leaves_max, directory)

    def _mint(self, name: str, now: datetime) -> x509.Certificate:
        # A subject may be empty if the subjectAltName is critical (RFC 5280 section 4.1.2.6).
        fits = len(name) <= COMMON_NAME_CHARS_MAX
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if fits else [])
        names = [x509.DNSName(name), encode_srv_name(name), encode_xmpp_addr(_u_labels(name))]
        authority_key = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            _builder(subject, self.certificate.subject, self._leaf_key.public_key())
            .not_valid_before(max(now - CLOCK_SKEW, self.certificate.not_valid_before_utc))
            .not_valid_after(min(now + timedelta(days=LEAF_DAYS), self.certificate.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName(names), critical=not fits)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_key), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )


def read_ca_certificate(directory: Path) -> x509.Certificate:
    """Return the CA certificate of the state directory ``directory``; nothing is made.

    Raises: FileProblem, with what to do if there is none.
    """
    path, what = directory / "ca.pem", "the CA certificate"
    if not path.exists():
        raise FileProblem(f"there is no CA in {directory}", "xproxy certs init makes one", path=path)
    return parse_certificates(read_file(path, what=what), path=path, what=what)[0]


def stored_leaves(directory: Path) -> list[tuple[Path, x509.Certificate]]:
    """Return the leaves in the state directory ``directory``, by file name; what cannot be read is left out."""
    found = []
    for path in sorted((directory / "leaves").glob("*.pem")):
        with contextlib.suppress(FileProblem):
            found.append((path, parse_certificates(read_file(path, what="the leaf"), path=path, what="the leaf")[0]))
    return found


def permitted_domains(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the domains that the CA ``certificate`` may sign for, with those below them; none: any."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(tree.value for tree in constraints.permitted_subtrees or () if isinstance(tree, x509.DNSName))


def _open_ca(
    directory: Path, now: datetime, domains: tuple[str, ...]
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate_path, key_path = directory / "ca.pem", directory / "ca.key"
    if certificate_path.exists() and not key_path.exists():
        raise FileProblem(
            f"the CA certificate {certificate_path} has no key: {key_path} is missing",
            f"put the key back, or move {certificate_path} away to have a new CA made for clients to trust",
            path=key_path,
        )
    key = _open_key(key_path, "the CA key")
    if not certificate_path.exists():
        write_file(certificate_path, _make_ca(key, now, domains).public_bytes(Encoding.PEM), mode=0o644)
    certificate = read_ca_certificate(directory)
    check_ca(certificate, key, now, certificate_path, key_path)
    return certificate, key


def check_ca(certificate: x509.Certificate, key: PrivateKeyTypes, now: datetime, path: Path, key_path: Path) -> None:
    """Check that an authority is one, is in date, and has this key. Raises: FileProblem."""
    again = f"move {path} and {key_path} away and run xproxy certs init for a new CA, which clients must then trust"
    if not is_key_of(key, certificate):
        raise FileProblem(f"the CA certificate {path} and the key {key_path} do not belong together", again, path=path)
    if now >= certificate.not_valid_after_utc:
        expiry = certificate.not_valid_after_utc
        raise FileProblem(f"the CA certificate {path} expired on {expiry:%Y-%m-%d}", again, path=path)
    if now < certificate.not_valid_before_utc:
        start = certificate.not_valid_before_utc
        raise FileProblem(
            f"the CA certificate {path} is valid only from {start:%Y-%m-%d %H:%M} UTC",
            "check this machine's clock",
            path=path,
        )
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        is_ca = False
    if not is_ca:
        raise FileProblem(f"the certificate {path} is not that of an authority", again, path=path)


def _open_key(path: Path, what: str) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        write_file(path, render_key(ec.generate_private_key(ec.SECP256R1())), mode=0o600)
    key = parse_key(read_file(path, what=what), path=path, what=what)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FileProblem(f"{what} {path} is not an elliptic curve key", "move it away to have one made", path=path)
    return key


def _make_ca(key: ec.EllipticCurvePrivateKey, now: datetime, domains: tuple[str, ...]) -> x509.Certificate:
    key_hash = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "xproxy"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, f"xproxy local CA {key_hash}"),
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = _builder(name, name, key.public_key())
    if domains:
        builder = builder.add_extension(
            x509.NameConstraints(
                permitted_subtrees=[x509.DNSName(domain) for domain in domains],
                excluded_subtrees=[x509.IPAddress(network) for network in _ALL_ADDRESSES],
            ),
            critical=True,
        )
    return (
        builder.not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _u_labels(name: str) -> str:
    try:
        return enforce_domainpart(name)
    except JidError:
        return name  # an "xn--" label that decodes to nothing valid; a certificate may bear it as it is


def _file_name(name: str) -> str:
    """Return the file's name for ``name``, which is LDH labels and underscores: nothing a path could trip over."""
    stem = name if len(name) <= _FILE_NAME_CHARS_MAX else hashlib.sha256(name.encode()).hexdigest()
    return f"{stem}.pem"


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory against other processes (and threads: each opening is a holder of its own)."""
    path = directory / ".lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="write in the state directory, at", path=path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
