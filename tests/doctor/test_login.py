"""What shows above a login. ``location=`` and see-other-host: no Debian server sends them to clients."""

import pytest

from tests.doctor.conftest import Examine
from tests.support.crooked import mechanisms, stream_error
from tests.support.peer import DOMAIN
from xproxy.doctor.findings import Severity
from xproxy.jid import Jid
from xproxy.xmpp import ns

PASSWORD = "canary-doctor-password"
PATIENT = {"jid": Jid.from_text(f"juliet@{DOMAIN}"), "password": PASSWORD}
PLAIN = mechanisms("PLAIN")


async def test_no_login_nothing_known(examine: Examine) -> None:
    assert (await examine()).severity("redirect") is Severity.NOTE


async def test_a_login_that_stays(examine: Examine) -> None:
    found = await examine(patient=PATIENT, secured=PLAIN)
    assert found.severity("login") is found.severity("redirect") is Severity.OK
    assert "no location=" in found["redirect"].finding
    assert found["software"].finding == 'the server calls itself "crooked 1"'


async def test_a_place_to_resume_at(examine: Examine) -> None:
    found = await examine(patient=PATIENT, secured=PLAIN, enabled=" id='1' resume='true' location='other.example:9222'")
    assert found.severity("redirect") is Severity.WARNING
    assert '"other.example:9222"' in found["redirect"].finding


async def test_a_redirect_at_the_login(examine: Examine) -> None:
    found = await examine(patient=PATIENT, secured=PLAIN, at_login=stream_error("see-other-host", "other.example"))
    assert found.severity("redirect") is Severity.WARNING
    assert "at the login" in found["redirect"].finding


async def test_a_redirect_before_any_login(examine: Examine) -> None:
    found = await examine(at_header=stream_error("see-other-host", "other.example:9222"))
    assert [each.severity for each in found.all("redirect")] == [Severity.PROBLEM, Severity.NOTE]
    assert '"other.example:9222" before any login' in found.all("redirect")[0].finding


async def test_a_refused_password(examine: Examine) -> None:
    refusal = f"<failure xmlns='{ns.SASL}'><not-authorized/><text>no\x1b such</text></failure>".replace("\x1b", "")
    found = await examine(patient=PATIENT, secured=PLAIN, at_login=refusal)
    assert found.severity("login") is Severity.PROBLEM
    assert "not-authorized" in found["login"].finding


@pytest.mark.parametrize("secured", [PLAIN])
async def test_no_password_is_sent_to_who_is_not_proven(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, secured: str
) -> None:
    """The certificate is for another domain: the patient's is not in it."""
    patient = {**PATIENT, "jid": Jid.from_text("juliet@other.test"), "domain": "other.test"}
    found = await examine(patient=patient, secured=secured)
    assert found.severity("certificate") is Severity.PROBLEM
    assert "no password is sent" in found["redirect"].finding
    assert found.all("login") == []


async def test_a_server_that_asks_for_billions_of_iterations(examine: Examine) -> None:
    """They would take hours in which nothing else runs, the deadline neither."""
    found = await examine(patient=PATIENT, first=",i=4294967295", secured=mechanisms("SCRAM-SHA-1"))
    assert "too-many-iterations" in found["login"].finding


async def test_the_password_is_in_no_finding(examine: Examine) -> None:
    found = await examine(patient=PATIENT, secured=PLAIN)
    assert PASSWORD not in repr(found)
