"""What the relay is handed for both legs."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from xproxy.config.tls import TlsSettings
from xproxy.config.upstream import UpstreamSettings
from xproxy.errors import FileProblem
from xproxy.events.tls import CertificateFacts, TlsFailure
from xproxy.tls import authority
from xproxy.tls.authority import Authority
from xproxy.tls.facts import spki_pin
from xproxy.tls.failures import HandshakeRefused
from xproxy.tls.names import CertificateNames
from xproxy.tls.service import TlsService
from xproxy.tls.verify import UpstreamIdentity

PROVEN = UpstreamIdentity(certificate=None, names=CertificateNames(dns=("proven.example",)), verdict="ok")
CLAIMED = UpstreamIdentity(certificate=None, names=CertificateNames(dns=("proven.example",)), verdict="untrusted")


@pytest.fixture
def service(tmp_path: Path) -> TlsService:
    return TlsService(TlsSettings(leaves_max=2), UpstreamSettings(domain="configured.example"), tmp_path)


def write_pair(directory: Path, domain: str) -> TlsSettings:
    leaf = trustme.CA().issue_cert(domain)
    leaf.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    leaf.private_key_pem.write_to_path(directory / "key.pem")
    return TlsSettings(certificate_file=directory / "cert.pem", key_file=directory / "key.pem")


async def shown(
    service: TlsService, domain: str | None, server_name: str | None = None, identity: UpstreamIdentity = PROVEN
) -> CertificateFacts:
    """Return what a client sees that asks for ``domain``."""
    context, facts = await service.client_context(
        domain=domain, server_name=server_name, identity=identity, version="TLSv1.3", alpn="xmpp-client"
    )
    assert context.minimum_version is context.maximum_version is ssl.TLSVersion.TLSv1_3
    return facts


async def test_the_leaf_is_for_the_domain_that_was_asked_for(service: TlsService) -> None:
    assert "proven.example" in (await shown(service, "proven.example", "configured.example")).alternative_names
    assert await shown(service, "proven.example") == await shown(service, "proven.example")
    assert service.ca_file is not None
    assert service.ca_file.name == "ca.pem"


@pytest.mark.parametrize(
    ("domain", "server_name"),
    [
        (None, None),
        (None, "192.0.2.1"),
        ("foreign.example", None),
        (None, "configured.example"),
        ("::1", "foreign.example"),
    ],
)
async def test_otherwise_it_is_for_the_first_name_that_may_have_one(
    service: TlsService, domain: str | None, server_name: str | None
) -> None:
    assert "configured.example" in (await shown(service, domain, server_name)).alternative_names


async def test_names_of_a_certificate_that_is_not_proven_get_no_leaf(tmp_path: Path) -> None:
    service = TlsService(TlsSettings(), UpstreamSettings(), tmp_path)
    await shown(service, "proven.example")
    with pytest.raises(HandshakeRefused) as refused:
        await shown(service, "proven.example", identity=CLAIMED)
    assert refused.value.failure is TlsFailure.NO_CERTIFICATE


async def test_too_many_leaves_are_reported(tmp_path: Path) -> None:
    told: list[int] = []
    names = CertificateNames(dns=("*.example.org",))
    identity = UpstreamIdentity(certificate=None, names=names, verdict="ok")
    service = TlsService(TlsSettings(leaves_max=1), UpstreamSettings(), tmp_path, on_leaves_max=told.append)
    await shown(service, "a.example.org", identity=identity)
    with pytest.raises(HandshakeRefused, match="as many as"):
        await shown(service, "b.example.org", identity=identity)
    assert told == [1]
    await shown(service, "a.example.org", identity=identity)


async def test_the_servers_own_files_are_shown_to_everybody(tmp_path: Path) -> None:
    service = TlsService(write_pair(tmp_path, "own.example"), UpstreamSettings(), tmp_path / "state")
    assert service.ca_file is None
    assert (await shown(service, "foreign.example", identity=CLAIMED)).alternative_names == ("own.example",)
    assert not (tmp_path / "state").exists()  # no authority is made that nobody needs


async def test_a_reload_shows_the_new_files(tmp_path: Path) -> None:
    service = TlsService(write_pair(tmp_path, "old.example"), UpstreamSettings(), tmp_path)
    write_pair(tmp_path, "new.example")
    assert (await shown(service, None)).alternative_names == ("old.example",)  # not before it is told to
    service.reload()
    assert (await shown(service, None)).alternative_names == ("new.example",)


async def test_a_bad_reload_keeps_everything(tmp_path: Path) -> None:
    service = TlsService(write_pair(tmp_path, "old.example"), UpstreamSettings(), tmp_path)
    before = await shown(service, None)
    (tmp_path / "key.pem").write_text("nothing")
    with pytest.raises(FileProblem, match=r"key\.pem"):
        service.reload()
    assert await shown(service, None) == before


@pytest.mark.parametrize(("verify", "mode"), [("full", ssl.CERT_REQUIRED), ("none", ssl.CERT_NONE)])
def test_the_server_is_verified_as_configured(tmp_path: Path, verify: str, mode: ssl.VerifyMode) -> None:
    ca_file = tmp_path / "upstream-ca.pem"
    trustme.CA().cert_pem.write_to_path(ca_file)
    upstream = UpstreamSettings(verify=verify, ca_file=ca_file)  # type: ignore[arg-type]
    service = TlsService(TlsSettings(), upstream, tmp_path)
    context = service.server_context(top_version=0x0303, alpn=("xmpp-client",))
    assert context.verify_mode is mode
    assert context.maximum_version is ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1


async def test_the_configured_domain_has_its_leaf_before_others_fill_the_room(tmp_path: Path) -> None:
    """A wildcard certificate lets strangers have leaves for any name below it."""
    service = TlsService(TlsSettings(leaves_max=2), UpstreamSettings(domain="configured.example"), tmp_path)
    wildcard = UpstreamIdentity(certificate=None, names=CertificateNames(dns=("*.strangers.example",)), verdict="ok")
    await shown(service, "a.strangers.example", identity=wildcard)
    with pytest.raises(HandshakeRefused):
        await shown(service, "b.strangers.example", identity=wildcard)
    assert "configured.example" in (await shown(service, "configured.example", identity=wildcard)).alternative_names


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


async def test_a_leaf_is_renewed_while_it_runs_and_keeps_its_key(tmp_path: Path) -> None:
    clock = Clock()
    service = TlsService(TlsSettings(), UpstreamSettings(domain="configured.example"), tmp_path, now=clock)
    certificate_file = tmp_path / "leaves" / "configured.example.pem"
    shown_before = await shown(service, "configured.example")
    pin = spki_pin(x509.load_pem_x509_certificates(certificate_file.read_bytes())[0])
    clock.now += timedelta(days=365)
    assert await shown(service, "configured.example") == shown_before
    clock.now += timedelta(days=5)
    shown_after = await shown(service, "configured.example")
    assert shown_after.sha256 != shown_before.sha256
    assert shown_after == await shown(service, "configured.example")
    assert spki_pin(x509.load_pem_x509_certificates(certificate_file.read_bytes())[0]) == pin


async def test_a_leaf_that_cannot_be_renewed_is_shown_until_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    service = TlsService(TlsSettings(), UpstreamSettings(domain="configured.example"), tmp_path, now=clock)
    before = await shown(service, "configured.example")

    def full(path: Path, data: bytes, *, mode: int) -> None:
        raise FileProblem(f"cannot write {path}: No space left on device", path=path)

    monkeypatch.setattr(authority, "write_file", full)
    clock.now += timedelta(days=370)
    assert await shown(service, "configured.example") == before
    assert await shown(service, "configured.example") == before
    assert caplog.text.count("is not renewed and ends on") == 1, "once an hour, not once a client"
    clock.now += timedelta(days=27)
    with pytest.raises(HandshakeRefused, match="No space left"):
        await shown(service, "configured.example")
    monkeypatch.undo()
    assert await shown(service, "configured.example") != before


async def test_a_ca_of_other_domains_is_said_at_the_start(tmp_path: Path) -> None:
    Authority.open_(tmp_path, domains=("other.example",))
    with pytest.raises(FileProblem) as caught:
        TlsService(TlsSettings(), UpstreamSettings(domain="configured.example"), tmp_path)
    assert "other.example" in str(caught.value)
    assert "certs init --domain configured.example" in str(caught.value)


async def test_names_that_the_ca_may_not_sign_for_get_no_leaf(tmp_path: Path) -> None:
    Authority.open_(tmp_path, domains=("configured.example",))
    service = TlsService(TlsSettings(), UpstreamSettings(domain="configured.example"), tmp_path)
    # The server's name is proven, but the client is shown what may be shown: it decides.
    assert "configured.example" in (await shown(service, "proven.example")).alternative_names
    without = TlsService(TlsSettings(), UpstreamSettings(), tmp_path)
    with pytest.raises(HandshakeRefused, match=r"may certify configured\.example only"):
        await shown(without, "proven.example")
