import itertools
import ssl
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.handshake import shake
from xproxy.errors import FileProblem
from xproxy.events.tls import TlsFailure
from xproxy.tls import files as tls_files
from xproxy.tls.authority import Authority, LeavesMaxReached, may_mint, read_ca_certificate, stored_leaves
from xproxy.tls.contexts import TLS_1_3, ClientLegContexts
from xproxy.tls.facts import spki_pin
from xproxy.tls.failures import HandshakeRefused
from xproxy.tls.names import CertificateNames

NOW = datetime.now(UTC).replace(microsecond=0)


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def state(tmp_path):
    return tmp_path / "made" / "state"


@pytest.fixture
def authority(state, clock):
    return Authority.open_(state, clock)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def certificate_in(path):
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def test_first_use_makes_a_ca_with_the_right_modes(authority, state):
    authority.leaf("example.org")
    assert mode(state) == 0o700
    assert mode(state / "leaves") == 0o700
    assert mode(state / "ca.pem") == 0o644
    for name in ("ca.key", "leaf.key", "leaves/example.org.pem", ".lock"):
        assert mode(state / name) == 0o600
    assert sorted(path.name for path in state.iterdir()) == [".lock", "ca.key", "ca.pem", "leaf.key", "leaves"]
    assert authority.certificate_path == state / "ca.pem"
    assert authority.certificate == read_ca_certificate(state)


def test_second_use_finds_it_again(authority, state, clock):
    leaf = authority.leaf("example.org")
    again = Authority.open_(state, clock)
    assert again.certificate == authority.certificate
    assert again.leaf("example.org").facts == leaf.facts


def test_two_installations_have_different_names(tmp_path, clock):
    first, second = (Authority.open_(tmp_path / name, clock) for name in "ab")
    assert first.certificate.subject != second.certificate.subject


def test_the_ca_is_a_ca_for_servers_only(authority):
    extensions = authority.certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign


def test_the_leaf(authority):
    leaf = authority.leaf("Example.ORG.")
    certificate = certificate_in(leaf.cert_path)
    names = CertificateNames.from_certificate(certificate)
    assert names == CertificateNames(
        dns=("example.org",), srv=("_xmpp-client.example.org",), xmpp=("example.org",), addresses=()
    )
    extensions = certificate.extensions
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert timedelta(days=300) < lifetime <= timedelta(days=397)
    assert leaf.facts.subject_common_name == "example.org"
    assert b"PRIVATE" not in leaf.cert_path.read_bytes()
    assert "PRIVATE" not in repr(leaf)


def test_international_names_stand_in_the_form_each_name_type_has(authority):
    leaf = authority.leaf("Bücher.example")
    assert leaf is authority.leaf("xn--bcher-kva.example")
    names = CertificateNames.from_certificate(certificate_in(leaf.cert_path))
    assert names.dns == ("xn--bcher-kva.example",)
    assert names.srv == ("_xmpp-client.xn--bcher-kva.example",)
    assert names.xmpp == ("bücher.example",)
    assert names.cover("bücher.example")


LONG = ".".join(["a" * 60, "b" * 60, "c" * 60, "d" * 60])


@pytest.mark.parametrize("domain", ["example.org", "bücher.example", "localhost", "under_score.example", LONG])
def test_openssl_and_python_find_it_strictly_valid(authority, domain):
    leaf = authority.leaf(domain)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", authority.certificate_path]
    done = subprocess.run([*command, leaf.cert_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    client = ssl.create_default_context(cafile=str(authority.certificate_path))
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13's default
    name = CertificateNames.from_certificate(certificate_in(leaf.cert_path)).dns[0]
    handshake = shake(client, ClientLegContexts().get(leaf, version=TLS_1_3, alpn=None), name=name)
    assert handshake.client_error is handshake.server_error is None


@pytest.mark.parametrize(
    ("domain", "failure"),
    [
        ("192.0.2.1", TlsFailure.NO_CERTIFICATE),
        ("[2001:db8::1]", TlsFailure.NO_CERTIFICATE),
        ("a..b", TlsFailure.BAD_NAME),
        ("../../etc/passwd", TlsFailure.BAD_NAME),
        ("a/b", TlsFailure.BAD_NAME),
        ("*.example.org", TlsFailure.BAD_NAME),
        ("a\0b", TlsFailure.BAD_NAME),
        ("", TlsFailure.BAD_NAME),
    ],
)
def test_what_gets_no_certificate(authority, state, domain, failure):
    with pytest.raises(HandshakeRefused) as caught:
        authority.leaf(domain)
    assert caught.value.failure is failure
    assert list((state / "leaves").iterdir()) == []


def test_a_leaf_is_renewed_in_its_last_month_and_keeps_its_key(authority, state, clock):
    first = authority.leaf("example.org")
    clock.now = NOW + timedelta(days=365)
    assert authority.leaf("example.org") is first
    clock.now = NOW + timedelta(days=367)
    second = authority.leaf("example.org")
    assert second.facts.sha256 != first.facts.sha256
    certificates = [x509.load_pem_x509_certificates(leaf.chain_pem)[0] for leaf in (first, second)]
    assert spki_pin(certificates[0]) == spki_pin(certificates[1])
    assert second.facts == Authority.open_(state, clock).leaf("example.org").facts
    assert [path.name for path in (state / "leaves").iterdir()] == ["example.org.pem"]


def test_a_leaf_never_outlives_the_ca(authority, clock):
    clock.now = authority.certificate.not_valid_after_utc - timedelta(days=10)
    leaf = authority.leaf("example.org")
    assert leaf.facts.not_after == authority.facts.not_after
    clock.now += timedelta(days=1)
    assert authority.leaf("example.org").facts == leaf.facts  # making it anew would gain nothing


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_leaf_that_cannot_be_read_is_made_anew(authority, state, clock, content):
    path = authority.leaf("example.org").cert_path
    path.write_bytes(content)
    leaf = Authority.open_(state, clock).leaf("example.org")
    assert certificate_in(path).issuer == authority.certificate.subject
    assert leaf.facts.issuer is not None


def test_a_leaf_of_another_ca_or_name_is_made_anew(authority, state, clock, tmp_path):
    path = authority.leaf("example.org").cert_path
    for foreign in (
        Authority.open_(tmp_path / "other", clock).leaf("example.org").cert_path,
        authority.leaf("other.example").cert_path,
    ):
        path.write_bytes(foreign.read_bytes())
        leaf = Authority.open_(state, clock).leaf("example.org")
        assert leaf.facts.alternative_names[0] == "example.org"
        certificate_in(path).verify_directly_issued_by(authority.certificate)


def test_leaves_max(state, clock):
    authority = Authority.open_(state, clock, leaves_max=2)
    authority.leaf("a.example")
    authority.leaf("b.example")
    with pytest.raises(LeavesMaxReached) as caught:
        authority.leaf("c.example")
    assert caught.value.value == 2
    assert "leaves_max" in str(caught.value)
    clock.now += timedelta(days=370)
    assert authority.leaf("a.example")  # renewal is no new one
    assert [path.name for path, _ in stored_leaves(state)] == ["a.example.pem", "b.example.pem"]


def test_many_threads_get_one_leaf(state, clock):
    authorities = [Authority.open_(state, clock) for _ in range(2)]
    barrier = threading.Barrier(8)

    def get(authority):
        barrier.wait(10)
        return authority.leaf("example.org").facts.sha256

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(get, authorities * 4))) == 1


def test_two_first_uses_at_once_make_one_ca(state, clock):
    barrier = threading.Barrier(4)

    def open_(_):
        barrier.wait(10)
        return Authority.open_(state, clock).facts.sha256

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(open_, range(4)))) == 1


def test_after_a_crash_at_any_step_it_goes_on(tmp_path, clock, monkeypatch):
    """Fail the Nth operation on the disk for N = 1, 2, ... until nothing fails."""
    for nth in itertools.count(1):
        state = tmp_path / str(nth)
        left = nth

        def failing(real):
            def call(*args, **kwargs):
                nonlocal left
                left -= 1
                if left == 0:
                    raise OSError(28, "No space left on device")
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in ("open", "fsync", "fchmod"):
                patch.setattr(tls_files.os, name, failing(getattr(tls_files.os, name)))
            patch.setattr(tls_files.Path, "replace", failing(tls_files.Path.replace))
            try:
                Authority.open_(state, clock).leaf("example.org")
            except FileProblem as problem:
                failed = problem
            else:
                break
        assert "No space left" in str(failed)
        assert Authority.open_(state, clock).leaf("example.org")
        assert not list(state.rglob(".*.*"))  # no leftovers
    assert nth > 10


def test_a_ca_key_without_certificate_is_continued(authority, state, clock):
    (state / "ca.pem").unlink()
    again = Authority.open_(state, clock)
    assert again.certificate.subject == authority.certificate.subject
    assert spki_pin(again.certificate) == spki_pin(authority.certificate)


def broken(state, clock):
    with pytest.raises(FileProblem) as caught:
        Authority.open_(state, clock)
    assert caught.value.hint
    return str(caught.value)


def test_a_ca_without_its_key_is_refused(authority, state, clock):
    (state / "ca.key").unlink()
    message = broken(state, clock)
    assert str(state / "ca.key") in message
    assert not (state / "ca.key").exists()


def test_a_ca_key_of_another_ca_is_refused(authority, state, clock, tmp_path):
    other = Authority.open_(tmp_path / "other", clock)
    (state / "ca.key").write_bytes((other.directory / "ca.key").read_bytes())
    assert "do not belong together" in broken(state, clock)


def test_an_expired_ca_is_refused_with_what_to_do(authority, state, clock):
    clock.now = NOW + timedelta(days=3651)
    message = broken(state, clock)
    assert "expired" in message
    assert "xproxy certs init" in message


def test_a_clock_before_the_ca_is_refused(authority, state, clock):
    clock.now = NOW - timedelta(days=1)
    assert "clock" in broken(state, clock)


def test_a_certificate_that_is_no_authority_is_refused(authority, state, clock):
    leaf = authority.leaf("example.org")
    (state / "ca.pem").write_bytes(leaf.cert_path.read_bytes())
    (state / "ca.key").write_bytes(leaf.key_path.read_bytes())
    assert "not that of an authority" in broken(state, clock)


@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "leaf.key"])
@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_files_of_nonsense_are_named(authority, state, clock, name, content):
    (state / name).write_bytes(content)
    assert str(state / name) in broken(state, clock)


def test_a_key_of_another_kind_is_refused(authority, state, clock):
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", state / "leaf.key"], check=True)
    assert "elliptic" in broken(state, clock)


def test_a_file_where_the_directory_should_be(tmp_path, clock):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in broken(tmp_path / "file", clock)
    assert str(tmp_path / "file") in broken(tmp_path / "file" / "below", clock)


PROVEN = CertificateNames(dns=("example.org", "*.example.net"), xmpp=("bücher.example",))


@pytest.mark.parametrize(
    ("domain", "configured", "proven", "answer"),
    [
        ("example.org", "example.org", None, True),
        ("EXAMPLE.org.", "example.org", None, True),
        ("xn--bcher-kva.example", "bücher.example", None, True),
        ("example.org", None, PROVEN, True),
        ("chat.example.net", None, PROVEN, True),
        ("bücher.example", "other.example", PROVEN, True),
        ("example.org", None, None, False),
        ("example.org", "other.example", None, False),
        ("evil.example", "example.org", PROVEN, False),
        ("a.chat.example.net", None, PROVEN, False),
        ("192.0.2.1", "192.0.2.1", None, False),
        ("a..b", "a..b", PROVEN, False),
    ],
)
def test_may_mint(domain, configured, proven, answer):
    assert may_mint(domain, configured, proven) is answer


def test_trust_survives_a_ca_certificate_made_again(authority, state, clock):
    """Clients that trust the first certificate accept leaves after the second, as the module promises."""
    before = (state / "ca.pem").read_bytes()
    (state / "ca.pem").unlink()
    leaf = Authority.open_(state, clock).leaf("example.org")
    trusted = state.parent / "trusted.pem"
    trusted.write_bytes(before)
    client = ssl.create_default_context(cafile=str(trusted))
    handshake = shake(client, ClientLegContexts().get(leaf, version=TLS_1_3, alpn=None), name="example.org")
    assert handshake.client_error is None
