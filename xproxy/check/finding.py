"""What a check found."""

import enum

import attrs

from xproxy.errors import XproxyError


class Severity(enum.Enum):
    """How much it matters."""

    PROBLEM = "problem"  # the proxy would not start, or not do what it is told
    WARNING = "warning"  # it would run, and one day or under load be in trouble
    OK = "ok"  # looked at, and as it should be
    UNKNOWN = "unknown"  # cannot be looked at from here


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that was looked at."""

    severity: Severity
    topic: str  # "config", "files", "permissions", "limits", "clock", "ports", "server"
    where: str  # "xproxy.toml:7", "--cert", a path
    message: str
    hint: str | None = None  # what to write or do instead


def problem(topic: str, where: str, message: str, hint: str | None = None) -> Finding:
    """Return what keeps the proxy from doing what it is told."""
    return Finding(severity=Severity.PROBLEM, topic=topic, where=where, message=message, hint=hint)


def warning(topic: str, where: str, message: str, hint: str | None = None) -> Finding:
    """Return what will be trouble."""
    return Finding(severity=Severity.WARNING, topic=topic, where=where, message=message, hint=hint)


def fine(topic: str, where: str, message: str) -> Finding:
    """Return what is as it should be."""
    return Finding(severity=Severity.OK, topic=topic, where=where, message=message)


def unknown(topic: str, where: str, message: str, hint: str | None = None) -> Finding:
    """Return what cannot be looked at from here."""
    return Finding(severity=Severity.UNKNOWN, topic=topic, where=where, message=message, hint=hint)


def from_error(topic: str, where: str, error: XproxyError) -> Finding:
    """Return the problem that ``error`` says."""
    return problem(topic, where, error.message, error.hint)
