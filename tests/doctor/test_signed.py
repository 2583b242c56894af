"""What a server signs (XEP-0474, XEP-0515): asked with a name alone. No Debian server signs anything."""

import pytest

from tests.doctor.conftest import Examine
from tests.support.crooked import mechanisms
from tests.support.peer import DOMAIN
from xproxy.doctor.findings import Severity
from xproxy.jid import Jid
from xproxy.xmpp.sasl.downgrade import expected_h

PATIENT = {"jid": Jid.from_text(f"juliet@{DOMAIN}")}
OFFERED = ("SCRAM-SHA-1", "PLAIN")


async def test_nothing_is_signed(examine: Examine) -> None:
    found = await examine(patient=PATIENT)
    assert found.severity("signed-offer") is found.severity("signed-tls-version") is Severity.OK
    assert "does not sign" in found["signed-offer"].finding
    assert found.all("scram-iterations") == []


async def test_without_a_name_it_is_not_asked(examine: Examine) -> None:
    found = await examine()
    assert found.severity("signed-offer") is Severity.NOTE
    assert found.all("signed-tls-version") == []


@pytest.mark.parametrize(
    ("signed", "severity"),
    [
        (expected_h(OFFERED, None, "SHA-1"), Severity.OK),
        (expected_h(("SCRAM-SHA-1-PLUS", *OFFERED), None, "SHA-1"), Severity.PROBLEM),
        ("AAAA", Severity.PROBLEM),
    ],
)
async def test_the_signed_offer(examine: Examine, signed: str, severity: Severity) -> None:
    found = await examine(patient=PATIENT, secured=mechanisms(*OFFERED), first=f",i=4096,h={signed}")
    assert found.severity("signed-offer") is severity


@pytest.mark.parametrize(("signed", "severity"), [("0304", Severity.OK), ("0303", Severity.PROBLEM)])
async def test_the_signed_version(examine: Examine, signed: str, severity: Severity) -> None:
    found = await examine(patient=PATIENT, first=f",i=4096,t={signed}")
    assert found.severity("signed-tls-version") is severity


async def test_too_few_iterations(examine: Examine) -> None:
    found = await examine(patient=PATIENT, first=",i=1000")
    assert found.severity("scram-iterations") is Severity.WARNING


async def test_a_malformed_challenge(examine: Examine) -> None:
    found = await examine(patient=PATIENT, first=",i=many")
    assert found.severity("scram-challenge") is Severity.PROBLEM


async def test_no_scram_to_ask_with(examine: Examine) -> None:
    found = await examine(patient=PATIENT, secured=mechanisms("PLAIN"))
    assert "no SCRAM mechanism" in found["signed-offer"].finding
