"""A record that is too large for the journal -> one that fits and says what it lacks.

The limits of the fields keep every usual record within a few KiB. What is left is a server that fills the lists: 64
names of 1 KiB in a certificate. Then the largest lists and texts go first, whole, and ``xproxy.truncated`` names them.
"""

from typing import Any

import orjson

from xproxy.record.document import Document

_KEPT = frozenset({"@timestamp", "message", "event", "log", "trace", "service", "observer", "ecs"})


def fit(document: Document, bytes_max: int) -> bytes:
    """Return ``document`` as JSON of at most ``bytes_max`` octets, without its largest fields where it must be so."""
    data = orjson.dumps(document)
    if len(data) <= bytes_max:
        # A copy: orjson 3.13 hands out the 8 or 16 KiB that it wrote into, for a record of 1.5, and records wait.
        return bytes(memoryview(data))
    leaves = sorted(_leaves(document, ()), key=lambda leaf: (-leaf[1], leaf[0]))
    names: list[str] = []
    smaller = document
    excess = len(data) - bytes_max
    for path, size in leaves:
        if excess <= 0:
            break
        name = ".".join(path)
        smaller = _without(smaller, path)
        names.append(name)
        excess -= size - len(name) - 3  # what naming it takes
    own = {**smaller.get("xproxy", {})}
    own["truncated"] = [*own.get("truncated", ()), *names]
    data = orjson.dumps({**smaller, "xproxy": own})
    assert len(data) <= bytes_max, "the envelope alone is too large"
    return data


def _leaves(value: Document, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], int]]:
    found: list[tuple[tuple[str, ...], int]] = []
    for key, inner in value.items():
        if not path and key in _KEPT:
            continue
        where = (*path, key)
        if isinstance(inner, dict):
            found += _leaves(inner, where)
        elif isinstance(inner, str | list) and where != ("xproxy", "truncated"):
            found.append((where, len(orjson.dumps(inner))))
    return found


def _without(document: Document, path: tuple[str, ...]) -> Document:
    key, *rest = path
    copy: dict[str, Any] = dict(document)
    if rest and (inner := _without(copy[key], tuple(rest))):
        copy[key] = inner
    else:
        del copy[key]
    return copy
