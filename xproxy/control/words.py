"""Words that a proxy and those who ask it share. Imports nothing: a command is to answer at once."""

from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
"""Levels of the log, rising."""

SORTS: Final = ("age", "bytes", "client", "idle", "jid", "phase", "stanzas", "waiting")
"""By what sessions can be sorted."""
