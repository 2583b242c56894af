import datetime
import hashlib
import ssl
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.handshake import shake
from tests.support.mint import Mint
from xproxy.events import Side
from xproxy.tls.facts import ALTERNATIVE_NAMES_MAX, certificate_facts, facts_of, spki_pin, tls_established
from xproxy.tls.hello import parse_client_hello

RSA_KEY = rsa.generate_private_key(65537, 1024)  # small: nothing verifies it


def certificate(*, key=None, algorithm=None, names=(), common_name="a.example", rsa_padding=None):
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else [])
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Org, with comma")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(0xABC)
        .not_valid_before(datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2060, 1, 2, 3, 4, 5, tzinfo=datetime.UTC))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return builder.sign(key, algorithm, rsa_padding=rsa_padding)


def test_facts():
    made = certificate(algorithm=hashes.SHA256(), names=["a.example", "*.a.example"])
    der = made.public_bytes(Encoding.DER)
    facts = certificate_facts(der)
    assert facts.sha256 == hashlib.sha256(der).hexdigest()
    assert facts.subject_common_name == "a.example"
    assert facts.issuer == "O=Org\\, with comma"
    assert facts.serial_number == "ABC"
    assert facts.not_before == "2026-01-02T03:04:05Z"
    assert facts.not_after == "2060-01-02T03:04:05Z"
    assert facts.alternative_names == ("a.example", "*.a.example")
    assert certificate_facts(bytes(bytearray(der))) is facts  # remembered by content
    assert facts_of(made) is facts


def test_no_common_name_and_very_many_names():
    facts = facts_of(
        certificate(algorithm=hashes.SHA256(), common_name=None, names=[f"n{n}.example" for n in range(200)])
    )
    assert facts.subject_common_name is None
    assert len(facts.alternative_names) == ALTERNATIVE_NAMES_MAX


@pytest.mark.parametrize(
    ("arguments", "digest"),
    [
        ({"algorithm": hashes.SHA256()}, "sha256"),
        ({"algorithm": hashes.SHA384()}, "sha384"),
        ({"algorithm": hashes.SHA512()}, "sha512"),
        ({"key": RSA_KEY, "algorithm": hashes.SHA256()}, "sha256"),
        (
            {
                "key": RSA_KEY,
                "algorithm": hashes.SHA384(),
                "rsa_padding": padding.PSS(padding.MGF1(hashes.SHA384()), 48),
            },
            "sha384",
        ),
    ],
)
def test_end_point_hash_is_made_with_the_signatures_hash(arguments, digest):
    made = certificate(**arguments)
    assert facts_of(made).end_point_hash == hashlib.new(digest, made.public_bytes(Encoding.DER)).hexdigest()


@pytest.mark.parametrize("digest", ["sha1", "md5"])
def test_end_point_hash_of_a_weak_signature_is_sha256(digest, tmp_path):
    # cryptography signs no certificate with these any more; openssl does.
    path = tmp_path / "weak.pem"
    command = ["openssl", "req", "-x509", f"-{digest}", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=a"]
    subprocess.run([*command, "-keyout", tmp_path / "key.pem", "-out", path], check=True, capture_output=True)
    der = ssl.PEM_cert_to_DER_cert(path.read_text())
    assert certificate_facts(der).end_point_hash == hashlib.sha256(der).hexdigest()


def test_no_end_point_hash_where_the_binding_is_undefined():
    assert facts_of(certificate(key=ed25519.Ed25519PrivateKey.generate())).end_point_hash is None


def test_a_certificate_that_cannot_be_parsed_keeps_its_fingerprint():
    facts = certificate_facts(b"\x30\x00")
    assert facts.sha256 == hashlib.sha256(b"\x30\x00").hexdigest()
    assert facts.issuer is None
    assert facts.end_point_hash is None


def test_a_serial_number_of_zero_is_no_reason_for_a_warning(tmp_path):
    path = tmp_path / "zero.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=a", "-set_serial", "0", "-keyout", tmp_path / "key.pem", "-out", path]
    subprocess.run(command, check=True, capture_output=True)
    assert certificate_facts(ssl.PEM_cert_to_DER_cert(path.read_text())).sha256


def test_spki_pin_is_what_openssl_computes(tmp_path):
    made = certificate(algorithm=hashes.SHA256())
    path = tmp_path / "a.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    public = subprocess.run(["openssl", "x509", "-in", path, "-pubkey", "-noout"], check=True, capture_output=True)
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"], input=public.stdout, check=True, capture_output=True
    )
    assert spki_pin(made) == hashlib.sha256(der.stdout).hexdigest()


@pytest.mark.parametrize(("version", "text"), [(ssl.TLSVersion.TLSv1_2, "1.2"), (ssl.TLSVersion.TLSv1_3, "1.3")])
def test_established_on_both_legs(tmp_path, version, text):
    mint = Mint(tmp_path)
    leaf = mint.leaf("example.org")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(leaf.certificate, leaf.key)
    server.set_alpn_protocols(["xmpp-client"])
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(mint.ca_file)
    client.set_alpn_protocols(["xmpp-client"])
    client.maximum_version = version
    handshake = shake(client, server, name="example.org")

    upstream = tls_established(
        handshake.client, Side.SERVER, direct=True, seconds=0.5, server_name="example.org", verify="ok"
    )
    assert (upstream.version, upstream.alpn, upstream.server_name) == (text, "xmpp-client", "example.org")
    assert upstream.cipher.startswith("TLS_" if text == "1.3" else "ECDHE-")
    assert upstream.certificate is not None
    assert upstream.certificate.sha256 == leaf.sha256
    assert (upstream.verify, upstream.ja4, upstream.resumed) == ("ok", None, False)

    hello = parse_client_hello(handshake.from_client)
    downstream = tls_established(
        handshake.server,
        Side.CLIENT,
        direct=False,
        seconds=0.5,
        server_name=hello.server_name,
        hello=hello,
        certificate=upstream.certificate,
    )
    assert (downstream.version, downstream.ja4, downstream.verify) == (text, hello.ja4, None)
    assert downstream.certificate is upstream.certificate
