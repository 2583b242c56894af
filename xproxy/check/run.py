"""All checks, in the order in which one would mend what they find."""

import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs

from xproxy.check.certificates import check_certificates
from xproxy.check.finding import Finding, Severity, fine, problem
from xproxy.check.machine import check_clock, check_descriptors, check_disk
from xproxy.check.network import check_ports, check_server
from xproxy.check.state import check_state
from xproxy.config.load import LookedThrough, look_through
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
    findings = [*_config_findings(looked), *_findings(looked)]
    findings.sort(key=lambda finding: TOPICS.index(finding.topic))
    return Report(file=looked.file, findings=tuple(findings))


def _config_findings(looked: LookedThrough) -> Iterator[Finding]:
    for each in looked.problems:
        yield _config_finding(each)
    if not looked.problems:
        name = str(looked.file) if looked.file is not None else "no file"
        yield fine("config", name, f"the configuration is read from {name}" if looked.file else "there is no file")


def _config_finding(each: ConfigProblem) -> Finding:
    return problem("config", each.where, each.message, each.hint)


def _findings(looked: LookedThrough) -> Iterator[Finding]:
    settings, place, refused = looked.settings, looked.place, looked.refused
    now_ns = time.time_ns()
    state_known = "state" not in refused
    if not {"tls", "upstream"} & refused and state_known:
        now = datetime.fromtimestamp(now_ns / 1e9, UTC)
        yield from check_certificates(settings.tls, settings.upstream, settings.state.directory, place, now)
    if state_known and "log" not in refused:
        yield from check_state(settings, place, os.geteuid())
    if "sessions" not in refused:
        yield from check_descriptors(settings, place)
    if state_known:
        if "journal" not in refused:
            yield from check_disk(settings, place)
        yield from check_clock(settings, now_ns)
    if "listen" not in refused:
        yield from check_ports(settings, place)
    if "upstream" not in refused:
        yield from check_server(settings.upstream, place)
