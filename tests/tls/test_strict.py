"""What others' strictest checks say of our certificates, with and without name constraints in the CA."""

import shutil
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from tests.support.handshake import shake
from xproxy.events.tls import TlsFailure
from xproxy.tls import authority as authority_module
from xproxy.tls.authority import Authority
from xproxy.tls.contexts import TLS_1_3, ClientLegContexts
from xproxy.tls.failures import HandshakeRefused
from xproxy.tls.names import CertificateNames, encode_srv_name

# One subdomain, for a component, and one name of other letters.
DOMAINS = ["example.org", "conference.example.org", "xn--bcher-kva.example"]
CONSTRAINTS: dict[str, tuple[str, ...]] = {"any": (), "constrained": ("example.org", "xn--bcher-kva.example")}


@pytest.fixture(params=CONSTRAINTS.values(), ids=CONSTRAINTS.keys())
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> Authority:
    return Authority.open_(tmp_path / "state", domains=request.param)


@pytest.fixture
def constrained(tmp_path: Path) -> Authority:
    return Authority.open_(tmp_path / "state", domains=("example.org",))


def stolen(authority: Authority, name: str) -> Path:
    """Return a leaf for ``name`` as a thief of the CA's key would make it: nothing of ours stands in his way."""
    path = authority.directory / "stolen.pem"
    certificate = authority._mint(name, datetime.now(UTC))
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return path


# Each says whether the leaf in a file is valid for a name under the CA in another.


def openssl(ca: Path, leaf: Path, name: str, _: Path) -> bool:
    command = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-purpose", "sslserver", "-auth_level", "2"]
    return _says_yes([*command, "-verify_hostname", name, "-CAfile", str(ca), str(leaf)])


def rust(ca: Path, leaf: Path, name: str, _: Path) -> bool:
    """The verifier of the cryptography package, by the rules of the CA/Browser forum."""
    authorities = Store(x509.load_pem_x509_certificates(ca.read_bytes()))
    verifier = PolicyBuilder().store(authorities).build_server_verifier(x509.DNSName(name))
    try:
        verifier.verify(x509.load_pem_x509_certificates(leaf.read_bytes())[0], [])
    except VerificationError:
        return False
    return True


def gnutls(ca: Path, leaf: Path, name: str, _: Path) -> bool:
    command = ["certtool", "--verify", "--verify-profile", "high", "--verify-purpose", "1.3.6.1.5.5.7.3.1"]
    return _says_yes([*command, "--verify-hostname", name, "--load-ca-certificate", str(ca), "--infile", str(leaf)])


def nss(ca: Path, leaf: Path, name: str, scratch: Path) -> bool:
    """certutil judges chain, constraints and use (V: a TLS server); it compares no name."""
    database = f"sql:{scratch}"
    _run(["certutil", "-N", "--empty-password", "-d", database])
    _run(["certutil", "-A", "-d", database, "-n", "ca", "-t", "C,,", "-i", str(ca)])
    _run(["certutil", "-A", "-d", database, "-n", "leaf", "-t", ",,", "-i", str(leaf)])
    return _says_yes(["certutil", "-V", "-d", database, "-n", "leaf", "-u", "V", "-e", "-l"])


VERIFIERS: dict[str, tuple[str, Callable[[Path, Path, str, Path], bool]]] = {
    "openssl": ("openssl", openssl),
    "cryptography": ("sh", rust),
    "gnutls": ("certtool", gnutls),
    "nss": ("certutil", nss),
}


@pytest.fixture(params=VERIFIERS.values(), ids=VERIFIERS.keys())
def verifies(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path, Path, str], bool]:
    program, verifier = request.param
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return lambda ca, leaf, name: verifier(ca, leaf, name, scratch)


@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAINS)
def test_a_leaf_is_valid(verifies: Callable[[Path, Path, str], bool], authority: Authority, domain: str) -> None:
    assert verifies(authority.certificate_path, authority.leaf(domain).cert_path, domain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bank.example", "notexample.org"])
def test_a_stolen_key_of_a_constrained_ca_is_no_use_elsewhere(
    verifies: Callable[[Path, Path, str], bool], constrained: Authority, name: str
) -> None:
    assert not verifies(constrained.certificate_path, stolen(constrained, name), name)


@pytest.mark.slow
def test_without_constraints_it_would_be(verifies: Callable[[Path, Path, str], bool], tmp_path: Path) -> None:
    """So the refusals of the test before come from the constraints."""
    unconstrained = Authority.open_(tmp_path / "state")
    assert verifies(unconstrained.certificate_path, stolen(unconstrained, "bank.example"), "bank.example")


def test_python_3_13_s_strictness(authority: Authority) -> None:
    client = ssl.create_default_context(cafile=str(authority.certificate_path))
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    for domain in DOMAINS:
        context = ClientLegContexts().get(authority.leaf(domain), version=TLS_1_3, alpn=None)
        handshake = shake(client, context, name=domain)
        assert handshake.client_error is handshake.server_error is None


def test_apple_s_rules(authority: Authority) -> None:
    """Apple: "Requirements for trusted certificates in iOS 13 and macOS 10.15", and the 398 days of 2020."""
    for path, days in ((authority.leaf("example.org").cert_path, 398), (authority.certificate_path, None)):
        certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.key_size >= 256
        assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
        if days is None:
            continue
        lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert lifetime <= timedelta(days=days)
        assert lifetime <= timedelta(days=397)  # and what browsers take
        assert "example.org" in CertificateNames.from_certificate(certificate).dns
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert ExtendedKeyUsageOID.SERVER_AUTH in usage


def test_identifiers_of_the_keys_point_at_each_other(authority: Authority) -> None:
    leaf = x509.load_pem_x509_certificates(authority.leaf("example.org").cert_path.read_bytes())[0]
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    for certificate in (leaf, authority.certificate):
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert issuer.key_identifier == own
    assert leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest != own


def test_the_constraints_of_a_ca(constrained: Authority, tmp_path: Path) -> None:
    extension = constrained.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert extension.critical
    assert extension.value.permitted_subtrees == [x509.DNSName("example.org")]
    assert [str(tree.value) for tree in extension.value.excluded_subtrees or ()] == ["0.0.0.0/0", "::/0"]
    assert constrained.permitted == ("example.org",)
    assert constrained.permits("Conference.Example.ORG")
    assert not constrained.permits("notexample.org")
    with pytest.raises(HandshakeRefused) as refused:
        constrained.leaf("bank.example")
    assert refused.value.failure is TlsFailure.NO_CERTIFICATE
    assert "example.org" in str(refused.value)
    # They stay what they were, whatever is asked for later.
    assert Authority.open_(tmp_path / "state", domains=("bank.example",)).permitted == ("example.org",)


def test_what_a_constraint_on_names_does_not_say(constrained: Authority) -> None:
    """A client that compares xmppAddr or SRVName alone is not protected: the documentation says so."""
    leaf = x509.load_pem_x509_certificates(stolen(constrained, "bank.example").read_bytes())[0]
    names = CertificateNames.from_certificate(leaf)
    assert names.srv == ("_xmpp-client.bank.example",)
    permitted = constrained.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    assert not any(isinstance(tree, x509.OtherName) for tree in permitted.permitted_subtrees or ())


@pytest.mark.slow
@pytest.mark.parametrize("verifier", [openssl, rust, nss], ids=["openssl", "cryptography", "nss"])
def test_a_constraint_on_srv_names_would_have_every_leaf_refused(
    verifier: Callable[[Path, Path, str, Path], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why there is none. A verifier that passes here one day has learnt to judge it."""
    if verifier is nss and shutil.which("certutil") is None:
        pytest.skip("certutil is not installed")
    proper = x509.NameConstraints

    class WithSrvName(proper):
        def __init__(self, permitted_subtrees: list[x509.GeneralName], excluded_subtrees: list[x509.GeneralName]):
            super().__init__([*permitted_subtrees, encode_srv_name("example.org")], excluded_subtrees)

    with monkeypatch.context() as patch:
        patch.setattr(authority_module.x509, "NameConstraints", WithSrvName)
        made = Authority.open_(tmp_path / "state", domains=("example.org",))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert not verifier(made.certificate_path, made.leaf("example.org").cert_path, "example.org", scratch)


def _says_yes(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).returncode == 0


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, check=True, timeout=20)
