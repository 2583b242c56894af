"""Does the server take a PROXY header? ejabberd, which can need one: tests/integration/test_doctor.py."""

import pytest

from tests.doctor.conftest import Examine
from xproxy.doctor.findings import Severity


@pytest.mark.parametrize(
    ("header", "severity", "word"),
    [
        ("refused", Severity.WARNING, "takes no PROXY protocol header"),
        ("needed", Severity.OK, "wants a PROXY protocol header"),
        ("taken", Severity.WARNING, "with and without"),
    ],
)
async def test_proxy_protocol(examine: Examine, header: str, severity: Severity, word: str) -> None:
    found = await examine(header=header)
    assert found.severity("proxy-protocol") is severity
    assert word in found["proxy-protocol"].finding
    # Everything else is seen whichever it is.
    assert found.severity("starttls") is found.severity("certificate") is Severity.OK
    assert found.severity("direct-tls") is Severity.OK
