"""Certificates made for one test run: a CA, leaves for a domain, and the broken ones. Nothing is kept."""

import datetime
from pathlib import Path

import attrs
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@attrs.frozen(kw_only=True)
class Leaf:
    """A certificate chain and its key, as PEM files."""

    certificate: Path
    key: Path
    sha256: str  # of the leaf's DER, lower-case hex


@attrs.frozen
class Mint:
    """A certificate authority that lives in ``directory``."""

    directory: Path
    _ca: trustme.CA = attrs.field(factory=lambda: trustme.CA(key_type=trustme.KeyType.ECDSA))

    @property
    def ca_file(self) -> Path:
        """The CA certificate, written on first use."""
        path = self.directory / "test-ca.pem"
        if not path.exists():
            self._ca.cert_pem.write_to_path(str(path))
        return path

    def leaf(self, *names: str, label: str = "leaf", not_after: datetime.datetime | None = None) -> Leaf:
        """Mint a leaf for ``names`` (dNSName), until ``not_after``; ``label`` names the files."""
        made = self._ca.issue_cert(
            *names,
            key_type=trustme.KeyType.ECDSA,
            not_before=None if not_after is None else not_after - datetime.timedelta(days=30),
            not_after=not_after,
        )
        certificate, key = self.directory / f"{label}.pem", self.directory / f"{label}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return Leaf(certificate=certificate, key=key, sha256=fingerprint(certificate))

    def expired(self, *names: str) -> Leaf:
        """Mint a leaf whose time was over a day ago."""
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        return self.leaf(*names, label="expired", not_after=yesterday)

    def self_signed(self, name: str) -> Leaf:
        """Mint a leaf for ``name`` that is its own issuer."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        certificate, key_path = self.directory / "self-signed.pem", self.directory / "self-signed.key"
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Leaf(certificate=certificate, key=key_path, sha256=fingerprint(certificate))


def fingerprint(certificate: Path) -> str:
    """Return SHA-256 over the DER of the first certificate in a PEM file, lower-case hex."""
    return x509.load_pem_x509_certificates(certificate.read_bytes())[0].fingerprint(hashes.SHA256()).hex()
