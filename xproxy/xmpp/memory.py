"""What one session leaves for the next to compare with: is the server still the one that was there before?

Kept per domain, bounded, least recently used first out; lives as long as the process. A domain is only remembered for
what its server has shown, so clients cannot fill it with names of their own making faster than a server answers them.
"""

from collections import OrderedDict
from typing import Final

import attrs

DOMAINS_MAX: Final = 1_000  # a large hosting server has some hundreds
CERTIFICATES_MAX: Final = 4  # servers behind one address may differ; a new one among them is still news


@attrs.define
class _Known:
    starttls: bool = False
    certificates: list[str] = attrs.Factory(list)  # SHA-256, the latest last


class DomainMemory:
    """Shared by the sessions of a proxy. Not thread-safe."""

    def __init__(self, domains_max: int = DOMAINS_MAX) -> None:
        self._domains_max = domains_max
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def is_starttls_missing(self, domain: str, *, offered: bool) -> bool:
        """Remember an offer in clear; tell whether ``domain`` had one before and now has none."""
        if not offered:
            known = self._known.get(domain)
            return known is not None and known.starttls
        self._of(domain).starttls = True
        return False

    def previous_certificate(self, domain: str, sha256: str) -> str | None:
        """Remember a certificate; return the one seen last where this one is new to a known domain."""
        seen = self._of(domain).certificates
        if sha256 in seen:
            seen.remove(sha256)
            seen.append(sha256)
            return None
        previous = seen[-1] if seen else None
        seen.append(sha256)
        del seen[:-CERTIFICATES_MAX]
        return previous

    def _of(self, domain: str) -> _Known:
        known = self._known.pop(domain, None) or _Known()
        self._known[domain] = known
        if len(self._known) > self._domains_max:
            self._known.popitem(last=False)
        return known
