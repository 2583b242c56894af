"""Certificates that only a hostile server shows; the others: tests/integration/test_doctor.py."""

import datetime
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.crooked import Crooked
from tests.support.examining import examined
from tests.support.mint import Mint
from tests.support.peer import DOMAIN
from xproxy.config.address import HostPort
from xproxy.doctor.findings import Severity

pytestmark = pytest.mark.slow

TODAY = datetime.datetime.now(datetime.UTC)


def context_of(
    directory: Path, *, name: str, alternatives: Sequence[str], begin: datetime.datetime, end: datetime.datetime
) -> ssl.SSLContext:
    """Return a server's context with a certificate of these names, self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in alternatives]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "both.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_all_that_is_wrong_with_one_is_said_at_once(
    nursery: trio.Nursery, nameserver: HostPort, tmp_path: Path
) -> None:
    """As Debian's ejabberd.pem: self-signed, for no domain. To trust it alone would be half of it."""
    end = TODAY + datetime.timedelta(days=99)
    context = context_of(tmp_path, name="ejabberd", alternatives=["other.example"], begin=TODAY, end=end)
    port: int = await nursery.start(Crooked(tls=context).serve)
    found = await examined(port, domain=DOMAIN, ca_file=None, nameserver=nameserver)
    assert found["certificate"].finding == f"the certificate is self-signed, for other.example; nor is it for {DOMAIN}"
    settings = [fix.setting for fix in found["certificate"].fixes]
    assert 'certfiles: ["<a certificate for the domain, with its key>"]' in settings
    assert settings[-1].startswith("--upstream-ca FILE")
    trusted = await examined(port, domain=DOMAIN, ca_file=tmp_path / "both.pem", nameserver=nameserver)
    assert trusted["certificate"].finding == f"the certificate is for other.example, not for {DOMAIN}"


@pytest.mark.parametrize(
    ("name", "alternatives", "begin", "end"),
    [
        ("\x1b[2J\u202e", [DOMAIN], TODAY, TODAY + datetime.timedelta(days=9)),
        ("many", [f"h{number}.example" for number in range(2_000)], TODAY, TODAY + datetime.timedelta(days=9)),
        (
            "long over",
            [DOMAIN],
            datetime.datetime(1950, 1, 1, tzinfo=datetime.UTC),
            datetime.datetime(1951, 1, 1, tzinfo=datetime.UTC),
        ),
        ("to come", [DOMAIN], TODAY + datetime.timedelta(days=9), TODAY + datetime.timedelta(days=99)),
        ("for ever", [DOMAIN], TODAY, datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)),
    ],
)
async def test_odd_certificates(
    nursery: trio.Nursery,
    nameserver: HostPort,
    tmp_path: Path,
    name: str,
    alternatives: list[str],
    begin: datetime.datetime,
    end: datetime.datetime,
) -> None:
    context = context_of(tmp_path, name=name, alternatives=alternatives, begin=begin, end=end)
    port: int = await nursery.start(Crooked(tls=context).serve)
    found = await examined(port, domain=DOMAIN, ca_file=None, nameserver=nameserver)
    assert found.severity("certificate") is Severity.PROBLEM
    for finding in found.diagnosis.findings:
        assert finding.finding.isprintable()
        assert len(finding.finding) < 1_000


@pytest.mark.parametrize(
    ("domain", "certified"),
    [("bücher.test", "xn--bcher-kva.test"), ("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")],
)
async def test_domains_that_are_no_plain_names(
    nursery: trio.Nursery, nameserver: HostPort, tmp_path: Path, domain: str, certified: str
) -> None:
    """A domain beyond ASCII, and one that is an address, for which there is no SNI."""
    mint = Mint(tmp_path)
    leaf = mint.leaf(certified)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate, leaf.key)
    port: int = await nursery.start(Crooked(tls=context).serve)
    found = await examined(port, domain=domain, ca_file=mint.ca_file, nameserver=nameserver)
    assert found.severity("certificate") is Severity.OK
    assert domain in found["certificate"].finding
