"""Facts by dotted name -> a nested document, cleaned and within its limits.

This is the choke point: whatever reaches a record passes ``write_facts``. A name that is not in the table of fields is
a mistake of ours (``KeyError``), a value that is too long, too large or malformed is cut and named in
``xproxy.truncated``; None and empty texts and lists are left out.

Documents share what does not change between the records of a session, so **a document must never be changed**.
``write_facts`` itself copies each object on its first write.
"""

import functools
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import attrs

from xproxy.record.clean import clean, clean_integer
from xproxy.record.fields import FIELDS, ITEMS_MAX, Field, Type

Document = dict[str, Any]
Value = str | int | Sequence[str] | None
Facts = Mapping[str, Value]


def write_facts(document: Document, facts: Facts, own: Mapping[str, Document] = MappingProxyType({})) -> None:
    """Add ``facts`` to ``document``; objects below its top level are replaced, not changed.

    ``own``: objects in ``document``, by dotted path, that nobody else has yet: they are written to.
    """
    written: dict[str, Document] = {"": document, **own}
    truncated: list[str] = []
    for name, value in facts.items():
        if value is None:
            continue
        prepare, parent, key, related = _WRITERS[name]
        kept = prepare(value)
        if type(kept) is _Cut:
            truncated.append(name)
            kept = kept.kept
        if kept is None:
            continue
        (written.get(parent) or _own(document, parent, written))[key] = kept
        if related is not None:
            _relate(document, related, kept, written)
    if truncated:
        xproxy = written.get("xproxy") or _own(document, "xproxy", written)
        xproxy["truncated"] = [*xproxy.get("truncated", ()), *truncated]


def _own(document: Document, path: str, written: dict[str, Document]) -> Document:
    """Return the object at ``path`` (dotted, not empty), which was not written to before, made ours to change."""
    above_path, key = _PLACES[path]
    above = written.get(above_path)
    if above is None:
        above = _own(document, above_path, written)
    there = above.get(key)
    own = written[path] = above[key] = {} if there is None else there.copy()
    return own


def _relate(document: Document, group: str, value: str, written: dict[str, Document]) -> None:
    related = document.get("related", {})
    # A host given as an address is in related.ip already.
    if value in related.get(group, ()) or (group == "hosts" and value in related.get("ip", ())):
        return
    own = written.get("related") or _own(document, "related", written)
    own[group] = [*own.get(group, ()), value]


@attrs.frozen
class _Cut:
    """What is left of a value that was too much."""

    kept: Any


def _texts(max_bytes: int) -> Callable[[str], Any]:
    def prepare(value: str) -> Any:
        text, was_cut = clean(value, max_bytes)
        return (text or None) if not was_cut else _Cut(text or None)

    return prepare


def _lists(max_bytes: int) -> Callable[[Sequence[str]], Any]:
    def prepare(value: Sequence[str]) -> Any:
        cleaned = [clean(item, max_bytes) for item in value[:ITEMS_MAX]]
        kept = [text for text, _ in cleaned if text] or None
        was_cut = len(value) > ITEMS_MAX or any(cut for _, cut in cleaned)
        return kept if not was_cut else _Cut(kept)

    return prepare


def _integer(value: int) -> Any:
    number, was_cut = clean_integer(value)
    return number if not was_cut else _Cut(number)


def _preparer(field: Field) -> Callable[[Any], Any]:
    """Return what makes of a value what is written: None where nothing is, ``_Cut`` where some of it is missing."""
    match field.type:
        case Type.KEYWORD | Type.TEXT | Type.DATE:
            return _lists(field.max_bytes) if field.array else _texts(field.max_bytes)
        case Type.LONG:
            return _integer
        case Type.BOOLEAN:
            return bool
        case Type.IP:
            return ip_of


@functools.lru_cache(maxsize=1024)
def ip_of(text: str) -> str | None:
    """Return ``text`` as an address of type ``ip`` (without zone), or None when it is none."""
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def timestamp(at_ns: int) -> str:
    """Return ``at_ns`` (UTC, ns since the epoch) as RFC 3339 with microseconds and Z."""
    seconds, ns = divmod(at_ns, 1_000_000_000)
    return f"{_second(seconds)}.{ns // 1000:06d}Z"


@functools.lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


_WRITERS: Final = {
    field.name: (_preparer(field), ".".join(field.parent), field.key, field.related) for field in FIELDS.values()
}

_PLACES: Final = {
    ".".join(path[:depth]): (".".join(path[: depth - 1]), path[depth - 1])
    for path in {*(field.parent for field in FIELDS.values()), ("related",)}
    for depth in range(1, len(path) + 1)
}
"""Of each object its parent's path and its name there."""
