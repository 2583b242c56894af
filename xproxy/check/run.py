"""All checks, in the order in which one would mend what they find."""

import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs

from xproxy.check.certificates import check_authorities, check_certificate
from xproxy.check.finding import Finding, Severity, fine, problem, warning
from xproxy.check.machine import check_clock, check_descriptors, check_disk, check_journal_times
from xproxy.check.network import check_ports, check_server
from xproxy.check.state import check_keys, check_log, check_own_key, check_state
from xproxy.config.check import Place
from xproxy.config.known import as_far_as_known
from xproxy.config.load import LookedThrough, look_through
from xproxy.config.settings import Settings
from xproxy.errors import ConfigProblem, ConfigProblems

TOPICS: Final = ("config", "files", "permissions", "limits", "clock", "ports", "server")


@attrs.frozen(kw_only=True)
class Report:
    """What was found."""

    file: Path | None  # the configuration, if there is any
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Return how many there are of ``severity``."""
        return sum(finding.severity is severity for finding in self.findings)


def run_checks(options: Mapping[str, object], environment: Mapping[str, str], config_file: Path | None) -> Report:
    """Look at everything that ``xproxy run`` with these options would meet. Nothing is changed.

    Raises:
        FileProblem: the configuration file cannot be read, so that nothing is known of what would be run.
    """
    try:
        looked = look_through(options, environment, config_file=config_file, need_upstream=True)
    except ConfigProblems as error:  # no TOML: what it would say is not known
        return Report(file=config_file, findings=tuple(_config_finding(each) for each in error.problems))
    findings = [*_config_findings(looked), *_findings(looked.settings, looked.place)]
    findings.sort(key=lambda finding: TOPICS.index(finding.topic))
    return Report(file=looked.file, findings=tuple(findings))


def _config_findings(looked: LookedThrough) -> Iterator[Finding]:
    for each in looked.problems:
        yield _config_finding(each)
    for each in looked.advice:
        yield warning("config", each.where, each.message, each.hint)
    if not looked.problems:
        name = str(looked.file) if looked.file is not None else "no file"
        yield fine("config", name, f"the configuration is read from {name}" if looked.file else "there is no file")


def _config_finding(each: ConfigProblem) -> Finding:
    return problem("config", each.where, each.message, each.hint)


def _findings(settings: Settings, place: Place) -> Iterator[Finding]:
    """Yield what each check says, as far as the settings it looks at are known."""
    now_ns = time.time_ns()
    now = datetime.fromtimestamp(now_ns / 1e9, UTC)
    uid = os.geteuid()
    for found in (
        check_certificate(settings, place, now),
        check_authorities(settings, place),
        check_state(settings, place, uid),
        check_keys(settings, uid),
        check_own_key(settings, place, uid),
        check_log(settings, place),
        check_descriptors(settings, place),
        check_disk(settings, place),
        check_journal_times(settings, now_ns),
        check_clock(now_ns),
        check_ports(settings, place),
        check_server(settings, place),
    ):
        yield from as_far_as_known(found)
