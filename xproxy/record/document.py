"""Facts by dotted name -> a nested document, cleaned and within its limits.

This is the choke point: whatever reaches a record passes ``write_facts``. A name that is not in the table of fields is
a mistake of ours (``KeyError``), a value that is too long, too large or malformed is cut and named in
``xproxy.truncated``; None and empty texts and lists are left out.

Documents share what does not change between the records of a session, so **a document must never be changed**.
``write_facts`` itself copies each object on its first write.
"""

import functools
import ipaddress
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from xproxy.record.clean import clean, clean_integer
from xproxy.record.fields import FIELDS, ITEMS_MAX, Field, Type

Document = dict[str, Any]
Value = str | int | Sequence[str] | None
Facts = Mapping[str, Value]


def write_facts(document: Document, facts: Facts) -> None:
    """Add ``facts`` to ``document``; objects below its top level are replaced, not changed."""
    written: dict[tuple[str, ...], Document] = {(): document}
    truncated: list[str] = []
    for name, value in facts.items():
        if value is None:
            continue
        field = FIELDS[name]
        kept, was_cut = _prepare(field, value)
        if was_cut:
            truncated.append(name)
        if kept is None:
            continue
        parent = field.parent
        (written.get(parent) or _own(document, parent, written))[field.key] = kept
        if field.related is not None:
            _relate(document, field.related, kept, written)
    if truncated:
        own = _own(document, ("xproxy",), written)
        own["truncated"] = [*own.get("truncated", ()), *truncated]


def _own(document: Document, path: tuple[str, ...], written: dict[tuple[str, ...], Document]) -> Document:
    """Return the object at ``path`` after making sure that it is ours to change."""
    if (known := written.get(path)) is not None:
        return known
    above = _own(document, path[:-1], written)
    own = above[path[-1]] = dict(above.get(path[-1], ()))
    written[path] = own
    return own


def _relate(document: Document, group: str, value: str, written: dict[tuple[str, ...], Document]) -> None:
    related = document.get("related", {})
    # A host given as an address is in related.ip already.
    if value in related.get(group, ()) or (group == "hosts" and value in related.get("ip", ())):
        return
    own = _own(document, ("related",), written)
    own[group] = [*own.get(group, ()), value]


def _prepare(field: Field, value: Any) -> tuple[Any, bool]:
    match field.type:
        case Type.KEYWORD | Type.TEXT | Type.DATE:
            if not field.array:
                text, was_cut = clean(value, field.max_bytes)
                return text or None, was_cut
            cleaned = [clean(item, field.max_bytes) for item in value[:ITEMS_MAX]]
            was_cut = len(value) > ITEMS_MAX or any(cut for _, cut in cleaned)
            return [text for text, _ in cleaned if text] or None, was_cut
        case Type.LONG:
            return clean_integer(value)
        case Type.BOOLEAN:
            return bool(value), False
        case Type.IP:
            return ip_of(value), False


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
