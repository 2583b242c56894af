from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from tests.support.mint import Mint
from xproxy.errors import FileProblem
from xproxy.tls.credential import ServerFiles


@pytest.fixture
def mint(tmp_path):
    return Mint(tmp_path)


@pytest.fixture
def leaf(mint):
    return mint.leaf("example.org")


def problem(certificate, key, **kwargs):
    with pytest.raises(FileProblem) as caught:
        ServerFiles.load(certificate, key, **kwargs)
    return str(caught.value)


def test_a_good_pair(leaf):
    files = ServerFiles.load(leaf.certificate, leaf.key)
    assert files.facts.sha256 == leaf.sha256
    assert (files.cert_path, files.key_path) == (leaf.certificate, leaf.key)
    assert "PRIVATE" not in repr(files)


def test_every_problem_is_told_at_once(tmp_path):
    certificate, key = tmp_path / "missing.pem", tmp_path / "missing.key"
    message = problem(certificate, key)
    assert str(certificate) in message
    assert str(key) in message


def test_a_key_of_another_certificate(mint, leaf):
    other = mint.leaf("example.org", label="other")
    message = problem(leaf.certificate, other.key)
    assert "does not belong" in message
    assert str(leaf.certificate) in message
    assert str(other.key) in message


def test_a_chain_in_the_wrong_order(mint, leaf):
    leaf.certificate.write_bytes(mint.ca_file.read_bytes() + leaf.certificate.read_bytes())
    assert "first" in problem(leaf.certificate, leaf.key)


def test_an_expired_certificate(mint):
    leaf = mint.expired("example.org")
    assert "expired on" in problem(leaf.certificate, leaf.key)


def test_a_certificate_of_the_future(leaf):
    message = problem(leaf.certificate, leaf.key, now=lambda: datetime(1999, 1, 1, tzinfo=UTC))
    assert "clock" in message


def test_the_clock_is_the_callers(leaf):
    later = datetime.now(UTC) + timedelta(days=365 * 2000)  # trustme gives a thousand years
    assert "expired" in problem(leaf.certificate, leaf.key, now=lambda: later)


def test_files_exchanged(leaf):
    message = problem(leaf.key, leaf.certificate)
    assert "no certificate" in message
    assert "no private key" in message


def test_a_directory(tmp_path, leaf):
    assert "directory" in problem(tmp_path, leaf.key)


def test_a_broken_certificate(leaf):
    leaf.certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert str(leaf.certificate) in problem(leaf.certificate, leaf.key)


def test_an_encrypted_key(leaf):
    key = ec.generate_private_key(ec.SECP256R1())
    leaf.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")))
    message = problem(leaf.certificate, leaf.key)
    assert "encrypted" in message
    assert "openssl pkey" in message
