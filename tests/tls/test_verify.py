import ssl
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.handshake import shake
from tests.support.mint import Mint
from xproxy.errors import FileProblem
from xproxy.events.tls import TlsFailure
from xproxy.tls.contexts import ServerLegContexts
from xproxy.tls.failures import HandshakeRefused, classify
from xproxy.tls.verify import Authorities, judge_upstream, refused_certificate, server_name_for, verify_upstream


@pytest.fixture(scope="module")
def mint(tmp_path_factory):
    return Mint(tmp_path_factory.mktemp("mint"))


def connect(leaf, *, ca_file, verify):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(leaf.certificate, leaf.key)
    contexts = ServerLegContexts.load(ca_file, verify=verify)
    return shake(contexts.get(top_version=0x0304, alpn=()), server, name="example.org"), contexts


def judged(leaf, *, ca_file, domain="example.org", at=None):
    """Return the verdict with verification off."""
    handshake, contexts = connect(leaf, ca_file=ca_file, verify=False)
    assert handshake.client_error is None
    identity = judge_upstream(handshake.client, domain, authorities=contexts.authorities, now=at or datetime.now(UTC))
    assert identity.certificate is not None
    assert identity.certificate.sha256 == leaf.sha256
    assert identity.is_proven == (identity.verdict == "ok")
    return identity.verdict


def verified(leaf, *, ca_file, domain="example.org"):
    """Return the verdict with verification on, "ok" or what it failed for."""
    handshake, _ = connect(leaf, ca_file=ca_file, verify=True)
    if isinstance(handshake.client_error, ssl.SSLCertVerificationError):
        assert refused_certificate(handshake.client).sha256 == leaf.sha256
        return classify(handshake.client_error.verify_code)[1]
    try:
        identity = verify_upstream(handshake.client, domain)
    except HandshakeRefused as refused:
        return refused.failure.value.removeprefix("certificate-")
    assert identity.is_proven
    return identity.verdict


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        (lambda mint: mint.leaf("example.org"), "ok"),
        (lambda mint: mint.leaf("*.example.org", "example.org"), "ok"),
        (lambda mint: mint.leaf("other.example"), "name-mismatch"),
        (lambda mint: mint.expired("example.org"), "expired"),
        (lambda mint: mint.expired("other.example"), "expired"),
        (lambda mint: mint.self_signed("example.org"), "self-signed"),
        (
            lambda mint: mint.leaf("example.org", label="later", not_after=datetime.now(UTC) + timedelta(days=40)),
            "not-yet-valid",
        ),
    ],
    ids=["right", "wildcard", "other-name", "expired", "expired-other-name", "self-signed", "not-yet-valid"],
)
def test_with_verification_off_the_verdict_is_the_same(mint, make, verdict):
    leaf = make(mint)
    assert verified(leaf, ca_file=mint.ca_file) == verdict
    assert judged(leaf, ca_file=mint.ca_file) == verdict


def test_an_unknown_authority(mint, tmp_path):
    leaf = mint.leaf("example.org")
    other = Mint(tmp_path).ca_file
    assert verified(leaf, ca_file=other) == "untrusted"
    assert judged(leaf, ca_file=other) == "untrusted"
    assert judged(mint.expired("example.org"), ca_file=other) == "untrusted"


def test_a_self_signed_certificate_that_is_listed_is_trusted(mint):
    leaf = mint.self_signed("example.org")
    assert verified(leaf, ca_file=leaf.certificate) == "ok"
    assert judged(leaf, ca_file=leaf.certificate) == "ok"
    assert judged(leaf, ca_file=leaf.certificate, at=datetime.now(UTC) + timedelta(days=9)) == "expired"


def test_a_servers_own_certificate_that_is_listed_is_trusted(mint, tmp_path):
    leaf = mint.leaf("example.org")
    only = tmp_path / "only.pem"
    only.write_text(leaf.certificate.read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
    assert verified(leaf, ca_file=only) == "ok"
    assert judged(leaf, ca_file=only) == "ok"


def test_the_systems_authorities_know_no_test_ca(mint):
    leaf = mint.leaf("example.org")
    assert verified(leaf, ca_file=None) == "untrusted"
    assert judged(leaf, ca_file=None) == "untrusted"


def test_without_a_name_nothing_is_verified(mint):
    leaf = mint.leaf("example.org")
    assert judged(leaf, ca_file=mint.ca_file, domain=None) == "off"
    handshake, _ = connect(leaf, ca_file=mint.ca_file, verify=True)
    with pytest.raises(HandshakeRefused) as caught:
        verify_upstream(handshake.client, None)
    assert caught.value.failure is TlsFailure.NO_NAME


def test_a_later_name_is_compared_again(mint):
    handshake, _ = connect(mint.leaf("example.org", "chat.example"), ca_file=mint.ca_file, verify=True)
    identity = verify_upstream(handshake.client, "example.org")
    identity.check_covers("chat.example")
    with pytest.raises(HandshakeRefused) as caught:
        identity.check_covers("other.example")
    assert caught.value.failure is TlsFailure.CERTIFICATE_NAME_MISMATCH
    assert "other.example" not in str(caught.value)


def test_an_unread_chain_is_off():
    class Nothing:
        def getpeercert(self, *, binary_form):
            return None

    authorities = Authorities(path=None, certificates=())
    identity = judge_upstream(Nothing(), "example.org", authorities=authorities, now=datetime.now(UTC))
    assert (identity.verdict, identity.certificate, identity.is_proven) == ("off", None, False)
    assert refused_certificate(Nothing()) is None


def test_certificates_that_cannot_be_parsed_are_off():
    class Odd:
        def get_unverified_chain(self):
            return [b"\x30\x00"]

    authorities = Authorities(path=None, certificates=())
    identity = judge_upstream(Odd(), "example.org", authorities=authorities, now=datetime.now(UTC))
    assert identity.verdict == "off"
    assert identity.certificate is not None


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("example.org", "example.org"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("example.org.", "example.org"),
        ("192.0.2.1", None),
        ("[2001:db8::1]", None),
        (None, None),
    ],
)
def test_server_name(domain, name):
    assert server_name_for(domain) == name


@pytest.mark.parametrize("domain", ["a..b", "a" * 70 + ".example", "", "a b", "a\0b", ".a", "a" + ".example" * 40])
def test_a_name_that_is_no_name(domain):
    with pytest.raises(HandshakeRefused) as caught:
        server_name_for(domain)
    assert caught.value.failure is TlsFailure.BAD_NAME


def test_authorities_that_cannot_be_read(tmp_path):
    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.write_text("nothing")
    for path, words in ((missing, "No such file"), (empty, "no certificate"), (tmp_path, "directory")):
        with pytest.raises(FileProblem, match=words) as caught:
            Authorities.load(path)
        assert caught.value.path == path
        assert str(path) in str(caught.value)
        assert caught.value.hint
