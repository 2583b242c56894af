"""``xproxy doctor`` at real servers: configured to have a finding it is made, with the setting it names it is gone.

What neither Prosody 0.12.3 nor ejabberd 23.01 can be made to say is in tests/doctor, with a scripted server; which that
is stands in tests/support/crooked.py.
"""

import contextlib
import datetime
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.support.accounts import DOMAIN, PASSWORDS
from tests.support.canary import Canary
from tests.support.dns import host, not_offered, running_dns, srv
from tests.support.ejabberd import Ejabberd, running_ejabberd
from tests.support.examining import Found, examined
from tests.support.mint import Leaf, Mint
from tests.support.nameserver import NameServer
from tests.support.prosody import Prosody, running_prosody
from tests.support.proxy_process import ProxyProcess
from xproxy.config.address import HostPort
from xproxy.doctor.findings import Severity
from xproxy.jid import Jid

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PROSODY = pytest.mark.integration("prosody")
EJABBERD = pytest.mark.integration("ejabberdctl", "erl")
SERVERS = [pytest.param("prosody", marks=PROSODY), pytest.param("ejabberd", marks=EJABBERD)]
COMMUNITY = Path("/usr/lib/prosody/modules/mod_c2s_conn_throttle")

OK, NOTE, WARNING, PROBLEM = Severity
ALICE: Mapping[str, Any] = {"jid": Jid.from_text(f"alice@{DOMAIN}"), "password": PASSWORDS["alice"]}
ABSENT = None

Server = Prosody | Ejabberd


@attrs.frozen
class Ward:
    """Starts servers and examines them."""

    directory: Path
    mint: Mint
    nameserver: HostPort

    def leaf(self) -> Leaf:
        """A good certificate; ejabberd bears no end beyond 49 days."""
        return self.mint.leaf(DOMAIN, label="doctor", not_after=_in_days(30))

    @contextlib.contextmanager
    def server(self, kind: str, changes: Mapping[str, str] | None = None, leaf: Leaf | None = None) -> Iterator[Server]:
        """Run one with these changes of its configuration."""
        count = len(list(self.directory.iterdir()))
        directory = self.directory / f"{kind}-{count}"
        directory.mkdir()
        run: Any = running_prosody if kind == "prosody" else running_ejabberd
        with run(
            directory, domain=DOMAIN, leaf=leaf or self.leaf(), passwords=PASSWORDS, changes=changes or {}
        ) as server:
            yield server

    async def examine(self, port: int, **more: Any) -> Found:
        """Examine what listens there."""
        given = {"domain": DOMAIN, "ca_file": self.mint.ca_file, "nameserver": self.nameserver, **more}
        return await examined(port, **given)


def _in_days(days: int) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)


@pytest.fixture
async def ward(tmp_path: Path, mint: Mint, nursery: trio.Nursery) -> Ward:
    """A directory, an authority, a name server that knows nothing."""
    directory = tmp_path / "servers"
    directory.mkdir()
    return Ward(directory, mint, await nursery.start(NameServer().serve))


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("mode", ["starttls", "direct-tls"])
async def test_a_server_as_it_should_be_has_no_problem(ward: Ward, kind: str, mode: str) -> None:
    with ward.server(kind) as server:
        found = await ward.examine(server.port(mode), **ALICE)
    severities = {each.check: each.severity for each in found.diagnosis.findings}
    assert severities == {
        "dns-xmpp-client": NOTE,
        "dns-xmpps-client": OK,
        "address": OK,
        "ipv4": OK,
        "proxy-protocol": WARNING,
        "direct-tls": NOTE,
        **({"starttls": OK} if mode == "starttls" else {"alpn": OK}),
        "latency": OK,
        "certificate": OK,
        "certificate-days": OK,
        "tls-versions": OK,
        "mechanisms": OK,
        "channel-binding": WARNING,
        "stanza-limit": NOTE,
        "signed-offer": OK,
        "signed-tls-version": OK,
        **({"gs2-y": OK, "software": OK} if kind == "prosody" else {}),
        "login": OK,
        "redirect": OK,
        "bans": NOTE,
    }


# --- settings: with the one the finding is made, with the other, which it names, it is not ------------------------


@attrs.frozen(kw_only=True)
class Case:
    """A finding of a server."""

    check: str
    severity: Severity
    with_it: Mapping[str, str]  # what is changed so that the server has it
    fix: str | None  # stands in what the finding says of this server, and
    without_it: Mapping[str, str]  # as it is changed then
    mended: Severity | None  # how severe it is then; None: there is no such finding
    patient: Mapping[str, Any] = attrs.field(factory=dict)
    mended_at: str = "starttls_port"


_P_OPTIONAL = {"c2s_require_encryption = true": "c2s_require_encryption = false"}
_P_SSL = f'VirtualHost "{DOMAIN}"\n    ssl = {{ '
_P_STORAGE = 'storage = "internal"'
_P_NO_PLUS = {_P_STORAGE: f'{_P_STORAGE}\ndisable_sasl_mechanisms = {{ "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS" }}'}


def _p_ssl(options: str) -> dict[str, str]:
    return {_P_SSL: f"{_P_SSL}{options}, "}


PROSODY_CASES = {
    "starttls-optional": Case(
        check="starttls",
        severity=WARNING,
        with_it=_P_OPTIONAL,
        fix="c2s_require_encryption = true",
        without_it={},
        mended=OK,
    ),
    "no-starttls": Case(
        check="starttls",
        severity=PROBLEM,
        with_it=_P_OPTIONAL | {'"tls", ': ""},
        fix='modules_enabled = { "tls" }',
        without_it={},
        mended=OK,
    ),
    "scram-in-clear": Case(
        check="mechanisms-in-clear",
        severity=WARNING,
        with_it=_P_OPTIONAL,
        fix="c2s_require_encryption = true",
        without_it={},
        mended=ABSENT,
    ),
    "plain-in-clear": Case(
        check="mechanisms-in-clear",
        severity=PROBLEM,
        with_it={
            "c2s_require_encryption = true": "c2s_require_encryption = false\nallow_unencrypted_plain_auth = true"
        },
        fix="c2s_require_encryption = true  allow_unencrypted_plain_auth = false",
        without_it={
            "c2s_require_encryption = true": "c2s_require_encryption = true\nallow_unencrypted_plain_auth = false"
        },
        mended=ABSENT,
    ),
    "channel-binding": Case(
        check="channel-binding",
        severity=WARNING,
        with_it={},
        fix='ssl = { protocol = "tlsv1_3" }',
        without_it=_p_ssl('protocol = "tlsv1_3"'),
        mended=OK,
    ),
    "binding-clients-refused": Case(
        check="gs2-y",
        severity=WARNING,
        with_it=_P_NO_PLUS,
        fix='ssl = { protocol = "tlsv1_3" }',
        without_it=_P_NO_PLUS | _p_ssl('protocol = "tlsv1_3"'),
        mended=OK,
        patient=ALICE,
    ),
    "only-tls-1.3": Case(
        check="tls-versions",
        severity=WARNING,
        with_it=_p_ssl('protocol = "tlsv1_3"'),
        fix='ssl = { protocol = "tlsv1_2+" }',
        without_it=_p_ssl('protocol = "tlsv1_2+"'),
        mended=OK,
    ),
    "only-tls-1.2": Case(
        check="tls-versions",
        severity=NOTE,
        with_it=_p_ssl('protocol = "tlsv1_2"'),
        fix='ssl = { protocol = "tlsv1_2+" }',
        without_it=_p_ssl('protocol = "tlsv1_2+"'),
        mended=OK,
    ),
    "old-tls": Case(
        check="tls-old",
        severity=WARNING,
        with_it=_p_ssl('protocol = "tlsv1+", ciphers = "DEFAULT@SECLEVEL=0"'),
        fix='ssl = { protocol = "tlsv1_2+" }',
        without_it=_p_ssl('protocol = "tlsv1_2+", ciphers = "DEFAULT@SECLEVEL=0"'),
        mended=ABSENT,
    ),
    "no-login": Case(
        check="mechanisms",
        severity=PROBLEM,
        with_it={'"saslauth", ': ""},
        fix='modules_enabled = { "saslauth" }',
        without_it={},
        mended=OK,
    ),
    "no-resumption": Case(
        check="redirect",
        severity=OK,
        with_it={'"smacks", ': ""},
        fix='modules_enabled = { "smacks" }',
        without_it={},
        mended=OK,
        patient=ALICE,
    ),
}

_E_FAIL2BAN = {"modules:": "modules:\n  mod_fail2ban: {c2s_max_auth_failures: 3}"}
_E_TOP = "loglevel: info"

EJABBERD_CASES = {
    "starttls-optional": Case(
        check="starttls",
        severity=WARNING,
        with_it={"starttls_required: true": "starttls_required: false"},
        fix="starttls_required: true",
        without_it={},
        mended=OK,
    ),
    "no-starttls": Case(
        check="starttls",
        severity=PROBLEM,
        with_it={"starttls: true, starttls_required: true": "starttls: false"},
        fix="starttls: true",
        without_it={},
        mended=OK,
    ),
    "plain-in-clear": Case(
        check="mechanisms-in-clear",
        severity=PROBLEM,
        with_it={"starttls_required: true": "starttls_required: false"},
        fix="starttls_required: true",
        without_it={},
        mended=ABSENT,
    ),
    "channel-binding": Case(
        check="channel-binding",
        severity=WARNING,
        with_it={},
        fix="disable_sasl_mechanisms: [SCRAM-SHA-1-PLUS, SCRAM-SHA-256-PLUS, SCRAM-SHA-512-PLUS]",
        without_it={
            _E_TOP: f"{_E_TOP}\ndisable_sasl_mechanisms: [SCRAM-SHA-1-PLUS, SCRAM-SHA-256-PLUS, SCRAM-SHA-512-PLUS]"
        },
        mended=OK,
    ),
    "old-tls": Case(
        check="tls-old",
        severity=WARNING,
        with_it={_E_TOP: f'{_E_TOP}\nc2s_protocol_options: [no_sslv3]\nc2s_ciphers: "DEFAULT@SECLEVEL=0"'},
        fix="c2s_protocol_options: [no_sslv3, no_tlsv1, no_tlsv1_1]",
        without_it={
            _E_TOP: f"{_E_TOP}\nc2s_protocol_options: [no_sslv3, no_tlsv1, no_tlsv1_1]\n"
            'c2s_ciphers: "DEFAULT@SECLEVEL=0"'
        },
        mended=ABSENT,
    ),
    "only-tls-1.3": Case(
        check="tls-versions",
        severity=WARNING,
        with_it={_E_TOP: f"{_E_TOP}\nc2s_protocol_options: [no_tlsv1, no_tlsv1_1, no_tlsv1_2]"},
        fix="c2s_protocol_options without no_tlsv1_2",
        without_it={_E_TOP: f"{_E_TOP}\nc2s_protocol_options: [no_tlsv1, no_tlsv1_1]"},
        mended=OK,
    ),
    "only-tls-1.2": Case(
        check="tls-versions",
        severity=NOTE,
        with_it={_E_TOP: f"{_E_TOP}\nc2s_protocol_options: [no_tlsv1, no_tlsv1_1, no_tlsv1_3]"},
        fix="c2s_protocol_options without no_tlsv1_3",
        without_it={_E_TOP: f"{_E_TOP}\nc2s_protocol_options: [no_tlsv1, no_tlsv1_1]"},
        mended=OK,
    ),
    "compression": Case(
        check="compression",
        severity=WARNING,
        with_it={"starttls_required: true": "starttls_required: true, zlib: true"},
        fix="zlib: false",
        without_it={"starttls_required: true": "starttls_required: true, zlib: false"},
        mended=ABSENT,
        patient=ALICE,
    ),
    "proxy-protocol": Case(
        check="proxy-protocol",
        severity=WARNING,
        with_it={},
        fix="use_proxy_protocol: true",
        without_it={},
        mended=OK,
        mended_at="proxied_port",
    ),
    "bans": Case(
        check="bans",
        severity=PROBLEM,
        with_it=_E_FAIL2BAN,
        fix="access_rules: {never_banned: {allow: xproxy}}  modules: {mod_fail2ban: {access: never_banned}}",
        without_it={
            "modules:": "modules:\n  mod_fail2ban: {c2s_max_auth_failures: 3, access: never_banned}",
            "acl: {": "acl: {xproxy: {ip: 127.0.0.1}, ",
            "access_rules:": "access_rules:\n  never_banned: {allow: xproxy}",
        },
        mended=OK,
        patient={"ban_tries": 5},
    ),
    "no-resumption": Case(
        check="redirect",
        severity=OK,
        with_it={"  mod_stream_mgmt: {resend_on_timeout: false}\n": ""},
        fix="mod_stream_mgmt: {}",
        without_it={},
        mended=OK,
        patient=ALICE,
    ),
}


async def _check(ward: Ward, kind: str, name: str, case: Case) -> None:
    with ward.server(kind, case.with_it) as server:
        found = await ward.examine(server.starttls_port, **case.patient)
    finding = found[case.check]
    assert finding.severity is case.severity, finding
    settings = [fix.setting for fix in finding.fixes if fix.where.lower() == kind]
    assert case.fix is None or any(case.fix in setting for setting in settings), settings
    with ward.server(kind, case.without_it) as server:
        mended = await ward.examine(getattr(server, case.mended_at), **case.patient)
    after = mended.all(case.check)
    assert [each.severity for each in after] == ([] if case.mended is None else [case.mended]), after
    assert all(each.finding != finding.finding for each in after), name


@PROSODY
@pytest.mark.parametrize("name", PROSODY_CASES)
async def test_a_finding_at_prosody_and_its_mending(ward: Ward, name: str) -> None:
    await _check(ward, "prosody", name, PROSODY_CASES[name])


@EJABBERD
@pytest.mark.parametrize("name", EJABBERD_CASES)
async def test_a_finding_at_ejabberd_and_its_mending(ward: Ward, name: str) -> None:
    await _check(ward, "ejabberd", name, EJABBERD_CASES[name])


# --- certificates -------------------------------------------------------------------------------------------------


BAD_CERTIFICATES: Mapping[str, tuple[Callable[[Mint], Leaf], str, Severity, str]] = {
    "expired": (lambda mint: mint.expired(DOMAIN), "certificate", PROBLEM, "has expired"),
    "self-signed": (lambda mint: mint.self_signed(DOMAIN), "certificate", PROBLEM, "self-signed"),
    "of-another-name": (
        lambda mint: mint.leaf("other.test", label="other", not_after=_in_days(30)),
        "certificate",
        PROBLEM,
        "is for other.test, not for",
    ),
    "of-an-authority-nobody-knows": (
        lambda mint: Mint(_fresh(mint.directory / "stranger")).leaf(DOMAIN, not_after=_in_days(30)),
        "certificate",
        PROBLEM,
        "not trusted",
    ),
    "nearly-over": (
        lambda mint: mint.leaf(DOMAIN, label="nearly", not_after=_in_days(5)),
        "certificate-days",
        WARNING,
        "for 4 days",
    ),
}


def _fresh(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return directory


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("name", BAD_CERTIFICATES)
async def test_certificates(ward: Ward, kind: str, name: str) -> None:
    make, check, severity, word = BAD_CERTIFICATES[name]
    with ward.server(kind, leaf=make(ward.mint)) as server:
        found = await ward.examine(server.starttls_port)
    assert found[check].severity is severity
    assert word in found[check].finding
    # What does not hang on the certificate is found out all the same.
    assert found.severity("tls-versions") is OK


# --- what needs more than a setting -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SERVERS)
async def test_the_server_of_another_domain(ward: Ward, kind: str) -> None:
    with ward.server(kind) as server:
        found = await ward.examine(server.starttls_port, domain="elsewhere.test")
    assert found.severity("stream") is PROBLEM
    assert "does not serve this domain" in found["stream"].finding


@EJABBERD
async def test_behind_a_proxy_header_all_else_is_found_too(ward: Ward) -> None:
    with ward.server("ejabberd") as server:
        assert isinstance(server, Ejabberd)
        for port in (server.proxied_port, server.proxied_direct_port):
            found = await ward.examine(port, **ALICE)
            assert found.severity("proxy-protocol") is OK
            assert found.severity("certificate") is found.severity("login") is OK
            assert found.severity("tls-versions") is OK


@PROSODY
async def test_a_server_without_a_certificate(ward: Ward) -> None:
    """Prosody offers STARTTLS all the same, as it is after its installation."""
    with ward.server("prosody", {"ssl = { certificate": "no_ssl = { certificate"}) as server:
        found = await ward.examine(server.starttls_port)
    stream, tls = found["stream"], found["direct-tls"]
    assert stream.severity is PROBLEM
    assert "handshake_failure): it has no certificate for this domain" in stream.finding
    assert any("prosodyctl --root cert import" in fix.setting for fix in stream.fixes if fix.where == "Prosody")
    assert "STARTTLS, which is offered" in tls.finding
    assert "in clear" not in tls.consequence
    assert "nothing is encrypted" not in tls.consequence


@PROSODY
async def test_a_port_for_direct_tls_alone(ward: Ward) -> None:
    with ward.server("prosody") as server:
        found = await ward.examine(server.direct_tls_port)
    assert "only direct TLS works" in found["direct-tls"].finding


@PROSODY
@pytest.mark.skipif(not COMMUNITY.exists(), reason="Debian package prosody-modules is not installed")
async def test_a_limit_of_connections_is_not_taken_for_something_else(ward: Ward) -> None:
    """mod_c2s_conn_throttle turns us away in the middle: what could not be seen is said to be unknown."""
    with ward.server("prosody", {'"carbons"': '"carbons", "c2s_conn_throttle"'}) as server:
        found = await ward.examine(server.starttls_port)
    assert found.severity("throttle") is PROBLEM
    assert found.severity("tls-versions") is NOTE
    assert "not known" in found["tls-versions"].finding
    assert found.all("channel-binding") == []
    with ward.server("prosody") as server:
        assert (await ward.examine(server.starttls_port)).all("throttle") == []


@PROSODY
@pytest.mark.skipif(not COMMUNITY.exists(), reason="Debian package prosody-modules is not installed")
async def test_a_server_that_falls_silent_above_tls(ward: Ward) -> None:
    """Debian's mod_sasl2 is for a later Prosody: 0.12.3 fails in it while it makes its features."""
    with ward.server("prosody", {'"carbons"': '"carbons", "sasl2"'}) as server:
        found = await ward.examine(server.starttls_port, step_seconds_max=1.0)
    assert found.severity("stream") is PROBLEM
    assert "says nothing within 1 s at opening the stream above TLS" in found["stream"].finding
    assert found.severity("certificate") is found.severity("starttls") is OK
    assert found.all("mechanisms") == []


@PROSODY
@pytest.mark.skipif(not COMMUNITY.exists(), reason="Debian package prosody-modules is not installed")
async def test_logins_by_certificate(ward: Ward) -> None:
    """mod_auth_ccert offers EXTERNAL."""
    host = f'VirtualHost "{DOMAIN}"'
    external = {host: f'{host}\n    authentication = "ccert"\n    certificate_match = "xmppaddr"'}
    disabled = {**external, 'storage = "internal"': 'storage = "internal"\ndisable_sasl_mechanisms = { "EXTERNAL" }'}
    with ward.server("prosody", external) as server:
        found = await ward.examine(server.starttls_port)
    assert found.severity("external") is WARNING
    assert 'disable_sasl_mechanisms = { "EXTERNAL" }' in [fix.setting for fix in found["external"].fixes]
    assert found.severity("scram") is NOTE
    with ward.server("prosody", disabled) as server:
        assert (await ward.examine(server.starttls_port)).all("external") == []


@PROSODY
async def test_both_families(ward: Ward, nursery: trio.Nursery) -> None:
    table = {("both.test", "A"): ("127.0.0.1",), ("both.test", "AAAA"): ("::1",)}
    nameserver: HostPort = await nursery.start(NameServer(table).serve)
    for interfaces, severity in (('{ "127.0.0.1" }', WARNING), ('{ "127.0.0.1", "::1" }', OK)):
        with ward.server("prosody", {'{ "127.0.0.1" }': interfaces}) as server:
            found = await ward.examine(server.starttls_port, host="both.test", nameserver=nameserver)
        assert found.severity("ipv6") is severity
        assert found.severity("ipv4") is OK


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_password_that_is_wrong(ward: Ward, kind: str) -> None:
    with ward.server(kind) as server:
        found = await ward.examine(server.starttls_port, jid=ALICE["jid"], password="canary-wrong-password")
    assert found.severity("login") is PROBLEM
    assert "canary-wrong-password" not in repr(found)


@pytest.mark.parametrize("kind", SERVERS)
async def test_failed_logins_ban_nobody_by_default(ward: Ward, kind: str) -> None:
    with ward.server(kind) as server:
        assert (await ward.examine(server.starttls_port, ban_tries=3)).severity("bans") is OK


# --- through the proxy --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("mode", ["starttls", "direct-tls"])
async def test_through_the_proxy_it_finds_what_it_finds_directly(
    ward: Ward, start_proxy: Callable[..., ProxyProcess], canary: Canary, kind: str, mode: str
) -> None:
    """With the server's own certificate nothing is to be told apart, but how long it takes."""
    canary.register("a password", PASSWORDS["alice"])
    leaf = ward.leaf()
    with ward.server(kind, leaf=leaf) as server:
        port = server.port(mode)
        proxy = start_proxy(port, "--cert", str(leaf.certificate), "--key", str(leaf.key))
        direct, proxied = [_told(await ward.examine(each, **ALICE), each) for each in (port, proxy.port)]
        proxy.stop()
    # Who opens with neither TLS nor XMPP the proxy closes as it sees fit.
    differs = {check for check, told in direct.items() if proxied.get(check) != told}
    assert differs <= {"proxy-protocol", "direct-tls"}, [(direct[each], proxied.get(each)) for each in differs]
    assert proxied.keys() == direct.keys()


def _told(found: Found, port: int) -> dict[str, tuple[Severity, str]]:
    """Return what was said, by check, without ports and times; mechanisms sorted, since Prosody's order is not kept."""
    untimed = re.compile(r"\d+(\.\d+)? ms")
    told = {}
    for each in found.diagnosis.findings:
        text = untimed.sub("some ms", each.finding.replace(str(port), "PORT"))
        words = ", ".join(sorted(text.split(", "))) if each.check == "mechanisms" else text
        told[each.check] = (each.severity, words.replace("above TLS are offered: ", ""))
    return told


# --- DNS ----------------------------------------------------------------------------------------------------------


@pytest.mark.integration("prosody", "dnsmasq")
async def test_srv_records_of_a_real_name_server(ward: Ward) -> None:
    assert shutil.which("dnsmasq")
    with ward.server("prosody") as server:
        starttls, direct = server.starttls_port, server.direct_tls_port
        here = (host(f"xmpp.{DOMAIN}", "127.0.0.1"), host(f"other.{DOMAIN}", "127.0.0.2"))
        client = srv(DOMAIN, target=f"xmpp.{DOMAIN}", port=starttls, priority=5)
        with_tls = srv(DOMAIN, target=f"xmpp.{DOMAIN}", port=direct, priority=5, direct=True)
        with running_dns(ward.directory, *here, client, with_tls) as names:
            found = await ward.examine(None, host=DOMAIN, nameserver=HostPort("127.0.0.1", names.port))
        assert found.severity("dns-xmpp-client") is found.severity("dns-xmpps-client") is NOTE
        assert f"STARTTLS is on port {starttls}, direct TLS on port {direct}" in found["direct-tls"].finding
        assert found.severity("certificate") is OK
        away = srv(DOMAIN, target=f"other.{DOMAIN}", port=5222, priority=9)
        # dnsmasq's way to say any type: 52 is TLSA, 3 1 1 and a hash.
        tlsa = f"--dns-rr=_{starttls}._tcp.xmpp.{DOMAIN},52,030101{'ab' * 32}"
        with running_dns(ward.directory, *here, client, away, tlsa, not_offered(DOMAIN, direct=True)) as names:
            found = await ward.examine(starttls, nameserver=HostPort("127.0.0.1", names.port))
        assert found.severity("dns-xmpp-client") is found.severity("dane") is WARNING
        assert f"leads to other.{DOMAIN}:5222, not to 127.0.0.1" in found["dns-xmpp-client"].finding
        assert "decidedly not offered" in found["dns-xmpps-client"].finding
