"""An examination by ``xproxy.doctor``, and what it found, by the name of the check."""

from pathlib import Path
from typing import Any

import attrs

from xproxy.doctor.examine import Diagnosis, Patient, examine
from xproxy.doctor.findings import Finding, Severity
from xproxy.tls.verify import Authorities


@attrs.frozen
class Found:
    """What was found."""

    diagnosis: Diagnosis

    def __getitem__(self, check: str) -> Finding:
        """Return the only finding of ``check``."""
        found = self.all(check)
        assert len(found) == 1, [(each.check, each.finding) for each in self.diagnosis.findings]
        return found[0]

    def all(self, check: str) -> list[Finding]:
        """Return the findings of ``check``."""
        return [each for each in self.diagnosis.findings if each.check == check]

    def severity(self, check: str) -> Severity:
        """Return the severity of the only finding of ``check``."""
        return self[check].severity


async def examined(
    port: int | None,
    *,
    domain: str,
    ca_file: Path | None,
    host: str = "127.0.0.1",
    seconds_max: float = 60.0,
    step_seconds_max: float | None = 5.0,
    **more: Any,
) -> Found:
    """Examine what listens at ``port``; ``more``: of ``Patient``."""
    patient = Patient(host=host, port=port, domain=domain, **more)
    heard: list[Finding] = []
    diagnosis = await examine(
        patient,
        Authorities.load(ca_file),
        tell=heard.append,
        seconds_max=seconds_max,
        step_seconds_max=step_seconds_max,
    )
    assert heard == diagnosis.findings
    assert all(each.finding and each.seen for each in heard)
    return Found(diagnosis)
