"""What one session leaves for the next: is the server still the one it was, does this user log in as before?

Bounded, least recently used first out. Everything in it was shown or accepted by a server, so clients cannot fill it
with names of their own making faster than a server answers them. What is kept over restarts (``dump``, ``load``) names
domains and mechanisms; users are in it as keyed hashes only.
"""

from collections import OrderedDict
from typing import Any, Final, TypeVar

import attrs

from xproxy.jid import Jid

V = TypeVar("V")

MECHANISMS_MAX: Final = 64  # of one offer
DOMAINS_MAX: Final = 1_000  # a large hosting server has some hundreds
CERTIFICATES_MAX: Final = 4  # servers behind one address may differ; a new one among them is still news

RESUMABLE_MAX: Final = 20_000  # sessions whose streams may be resumed: twice what one process holds at once


USERS_MAX: Final = 20_000  # users whose mechanism is remembered: a large server's active ones
SHAPES_MAX: Final = 1_000  # stanza shapes after which clients went away
_VERSION: Final = 1


@attrs.define
class _Known:
    starttls: bool = False
    offers: dict[str, list[str]] = attrs.Factory(dict)  # by profile and TLS version
    certificates: list[str] = attrs.Factory(list)  # SHA-256, the latest last


class Memory:
    """Shared by the sessions of a proxy. Not thread-safe."""

    def __init__(self, *, domains_max: int = DOMAINS_MAX, resumable_max: int = RESUMABLE_MAX) -> None:
        self._domains_max = domains_max
        self._resumable_max = resumable_max
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._resumable: OrderedDict[str, Jid] = OrderedDict()
        self._mechanisms: OrderedDict[str, str] = OrderedDict()  # by user and program, hashed
        self._shapes: OrderedDict[str, int] = OrderedDict()

    def resumable(self, id_hash: str, jid: Jid) -> None:
        """Remember whose session the stream management id (its hash) resumes: ``<resumed/>`` does not say."""
        _put(self._resumable, id_hash, jid, self._resumable_max)

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

    def missing_mechanisms(self, of: tuple[str, str, str], mechanisms: tuple[str, ...]) -> tuple[str, ...]:
        """Remember an offer ``of`` (domain, profile, TLS version); return what the last one had and this has not."""
        domain, profile, tls_version = of
        offers = self._of(domain).offers
        key = f"{profile} {tls_version}"
        missing = tuple(name for name in offers.get(key, ()) if name not in mechanisms)
        offers[key] = list(mechanisms[:MECHANISMS_MAX])
        return missing

    def logged_in_by(self, user: str, mechanism: str) -> None:
        """Remember that ``user`` (a hash) got in by ``mechanism``."""
        _put(self._mechanisms, user, mechanism, USERS_MAX)

    def mechanism_before(self, user: str) -> str | None:
        """Return by what ``user`` (a hash) got in last."""
        return self._mechanisms.get(user)

    def count_shape(self, fingerprint: str) -> int:
        """Return how often clients went away behind a stanza of this shape, this time included."""
        times = self._shapes.get(fingerprint, 0) + 1
        _put(self._shapes, fingerprint, times, SHAPES_MAX)
        return times

    def dump(self) -> dict[str, Any]:
        """Return what outlives the process, fit for JSON. Whose sessions can be resumed is not in it."""
        return {
            "version": _VERSION,
            "domains": {domain: attrs.asdict(known) for domain, known in self._known.items()},
            "mechanisms": dict(self._mechanisms),
        }

    def load(self, dumped: object) -> None:
        """Take over what ``dump`` returned.

        Raises:
            ValueError: it is something else, or of another version; nothing is taken over.
        """
        try:
            known, mechanisms = _read(dumped)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("it is not what this version writes") from error
        for domain, facts in known.items():
            _put(self._known, domain, facts, self._domains_max)
        for user, mechanism in mechanisms.items():
            _put(self._mechanisms, user, mechanism, USERS_MAX)

    def _of(self, domain: str) -> _Known:
        known = self._known.pop(domain, None) or _Known()
        _put(self._known, domain, known, self._domains_max)
        return known


def _put(table: OrderedDict[str, V], key: str, value: V, size_max: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > size_max:
        table.popitem(last=False)


def _read(dumped: Any) -> tuple[dict[str, _Known], dict[str, str]]:
    if dumped["version"] != _VERSION:
        raise TypeError("another version")
    known = {
        str(domain): _Known(
            starttls=bool(facts["starttls"]),
            offers={str(key): [str(name) for name in names] for key, names in facts["offers"].items()},
            certificates=[str(sha256) for sha256 in facts["certificates"]],
        )
        for domain, facts in dumped["domains"].items()
    }
    return known, {str(user): str(mechanism) for user, mechanism in dumped["mechanisms"].items()}
