"""What one session leaves for the next: is the server still the one it was, and whose session goes on here?

Bounded, least recently used first out; lives as long as the process. Everything in it was shown by a server, so clients
cannot fill it with names of their own making faster than a server answers them.
"""

from collections import OrderedDict
from typing import Final

import attrs

from xproxy.jid import Jid

DOMAINS_MAX: Final = 1_000  # a large hosting server has some hundreds
CERTIFICATES_MAX: Final = 4  # servers behind one address may differ; a new one among them is still news

RESUMABLE_MAX: Final = 20_000  # sessions whose streams may be resumed: twice what one process holds at once


@attrs.define
class _Known:
    starttls: bool = False
    certificates: list[str] = attrs.Factory(list)  # SHA-256, the latest last


class Memory:
    """Shared by the sessions of a proxy. Not thread-safe."""

    def __init__(self, *, domains_max: int = DOMAINS_MAX, resumable_max: int = RESUMABLE_MAX) -> None:
        self._domains_max = domains_max
        self._resumable_max = resumable_max
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._resumable: OrderedDict[str, Jid] = OrderedDict()

    def resumable(self, id_hash: str, jid: Jid) -> None:
        """Remember whose session the stream management id (its hash) resumes: ``<resumed/>`` does not say."""
        self._resumable[id_hash] = jid
        if len(self._resumable) > self._resumable_max:
            self._resumable.popitem(last=False)

    def resumed(self, id_hash: str) -> Jid | None:
        """Return whose session it is; an id may be resumed again and again (XEP-0198 section 5)."""
        jid = self._resumable.get(id_hash)
        if jid is not None:
            self._resumable.move_to_end(id_hash)
        return jid

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
