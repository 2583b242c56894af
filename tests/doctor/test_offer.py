"""What a server offers, and what the diagnosis makes of it. What Debian's servers offer: tests/integration."""

import pytest

from tests.doctor.conftest import Examine
from tests.support.crooked import REQUIRED, mechanisms
from xproxy.doctor.findings import Severity
from xproxy.xmpp import ns

SCRAM = mechanisms("SCRAM-SHA-1", "PLAIN")


def bindings(*types: str) -> str:
    inside = "".join(f"<channel-binding type='{each}'/>" for each in types)
    return f"<sasl-channel-binding xmlns='{ns.SASL_CB}'>{inside}</sasl-channel-binding>"


def limits(octets: int) -> str:
    return f"<limits xmlns='{ns.LIMITS}'><max-bytes>{octets}</max-bytes><idle-seconds>840</idle-seconds></limits>"


@pytest.mark.parametrize(
    ("clear", "severity", "word"),
    [
        (REQUIRED, Severity.OK, "required"),
        (f"<starttls xmlns='{ns.TLS}'/>", Severity.WARNING, "not required"),
        ("", Severity.PROBLEM, "not offered"),
    ],
)
async def test_starttls(examine: Examine, clear: str, severity: Severity, word: str) -> None:
    found = await examine(clear=clear)
    assert found.severity("starttls") is severity
    assert word in found["starttls"].finding


@pytest.mark.parametrize(
    ("offered", "severity"),
    [(("PLAIN", "SCRAM-SHA-1"), Severity.PROBLEM), (("SCRAM-SHA-1",), Severity.WARNING)],
)
async def test_logins_in_clear(examine: Examine, offered: tuple[str, ...], severity: Severity) -> None:
    found = await examine(clear=REQUIRED + mechanisms(*offered))
    assert found.severity("mechanisms-in-clear") is severity


async def test_no_logins_in_clear(examine: Examine) -> None:
    assert (await examine()).all("mechanisms-in-clear") == []


async def test_end_point_binding_is_mended_by_the_servers_own_certificate(examine: Examine) -> None:
    offered = mechanisms("SCRAM-SHA-1-PLUS", "SCRAM-SHA-1") + bindings("tls-server-end-point", "tls-exporter")
    finding = (await examine(secured=offered))["channel-binding"]
    assert finding.severity is Severity.WARNING
    assert "tls-server-end-point, tls-exporter" in finding.finding
    assert [fix.where for fix in finding.fixes] == ["xproxy", "ejabberd", "Prosody"]


async def test_binding_to_the_session_alone_is_not(examine: Examine) -> None:
    offered = mechanisms("SCRAM-SHA-1-PLUS", "SCRAM-SHA-1") + bindings("tls-exporter")
    finding = (await examine(secured=offered))["channel-binding"]
    assert [fix.where for fix in finding.fixes] == ["ejabberd", "Prosody"]


async def test_nothing_binds(examine: Examine) -> None:
    assert (await examine()).severity("channel-binding") is Severity.OK


async def test_external(examine: Examine) -> None:
    found = await examine(secured=mechanisms("EXTERNAL", "SCRAM-SHA-1"))
    assert found.severity("external") is Severity.WARNING
    assert (await examine()).all("external") == []


async def test_no_scram(examine: Examine) -> None:
    assert (await examine(secured=mechanisms("PLAIN"))).severity("scram") is Severity.NOTE
    assert (await examine()).all("scram") == []


async def test_no_mechanism(examine: Examine) -> None:
    assert (await examine(secured="<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>")).severity("mechanisms") is (
        Severity.PROBLEM
    )


async def test_sasl2_with_bound_tokens(examine: Examine) -> None:
    offered = (
        f"{SCRAM}<authentication xmlns='{ns.SASL2}'><mechanism>SCRAM-SHA-1</mechanism><inline>"
        f"<fast xmlns='{ns.FAST}'><mechanism>HT-SHA-256-%s</mechanism></fast></inline></authentication>"
    )
    bound, free = [await examine(secured=offered % kind) for kind in ("EXPR", "NONE")]
    assert bound.severity("sasl2") is free.severity("sasl2") is Severity.OK
    assert bound.severity("fast") is Severity.WARNING
    assert free.all("fast") == []
    assert (await examine()).all("sasl2") == []


async def test_compression(examine: Examine) -> None:
    offered = f"{SCRAM}<compression xmlns='http://jabber.org/features/compress'><method>zlib</method></compression>"
    assert (await examine(secured=offered)).severity("compression") is Severity.WARNING
    assert (await examine()).all("compression") == []


@pytest.mark.parametrize(
    ("offered", "severity", "word"),
    [
        ("", Severity.NOTE, "not known"),
        (limits(262_144), Severity.OK, "262144"),
        (limits(10_485_760), Severity.WARNING, "10485760"),
        (limits(-1), Severity.NOTE, "not known"),
    ],
)
async def test_limits(examine: Examine, offered: str, severity: Severity, word: str) -> None:
    found = await examine(secured=SCRAM + offered)
    assert found.severity("stanza-limit") is severity
    assert word in found["stanza-limit"].finding
