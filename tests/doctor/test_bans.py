"""Do failed logins ban? At ejabberd, with mod_fail2ban: tests/integration/test_doctor.py."""

import pytest

from tests.doctor.conftest import Examine
from tests.support.crooked import mechanisms, stream_error
from xproxy.doctor.findings import Severity
from xproxy.xmpp import ns

REFUSAL = f"<failure xmlns='{ns.SASL}'><not-authorized/></failure>"
PLAIN = mechanisms("PLAIN")


@pytest.mark.parametrize(
    ("at_login", "severity", "word"),
    [
        (REFUSAL, Severity.OK, "3 failed logins did not ban"),
        (stream_error("policy-violation"), Severity.PROBLEM, "after 1 failed login the server shuts"),
        ("</stream:stream>", Severity.PROBLEM, "it hangs up"),
        (None, Severity.NOTE, "was not refused"),  # who lets anybody in
        ("<nonsense/>", Severity.NOTE, "was not refused"),
        ("<<", Severity.NOTE, "not known"),
    ],
)
async def test_what_comes_of_wrong_passwords(
    examine: Examine, at_login: str | None, severity: Severity, word: str
) -> None:
    found = await examine(
        patient={"ban_tries": 3}, secured=PLAIN, at_login=at_login, step=0.5 if word == "not known" else 10.0
    )
    assert found.severity("bans") is severity
    assert word in found["bans"].finding


async def test_with_scram_alone(examine: Examine) -> None:
    """The scripted server answers no proof: silence is no refusal."""
    found = await examine(patient={"ban_tries": 1}, secured=mechanisms("SCRAM-SHA-1"), step=1.0)
    assert found.severity("bans") is Severity.NOTE
    assert "behaved oddly" in found["bans"].seen


async def test_it_is_not_tried_unasked(examine: Examine) -> None:
    found = await examine(secured=PLAIN)
    assert found.severity("bans") is Severity.NOTE
    assert "not tried" in found["bans"].seen
