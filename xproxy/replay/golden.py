"""Records as they are compared: without what is another each time, in an order and a spelling that git can show.

Two forms, both JSON, one record a line, keys sorted, LF:

* ``comparable``: a record of the live log or of an offline replay, without ``event.sequence``, and with keyed hashes
  renumbered in the order of their first appearance in the session (``hash-1``). The two are equal, octet for octet.
* ``golden_lines``: what is kept in a repository and reviewed (``*.events.jsonl``): moreover ids are renumbered (session
  1, record 1-3), ``t_ms`` in place of ``@timestamp`` counts whole milliseconds from the session's first record, and who
  recorded (version, host, run) is left out.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

Document = Mapping[str, Any]

SUFFIX: Final = ".events.jsonl"
_HASHES: Final = (
    ("xmpp", "stanza", "id_hash"),
    ("xmpp", "request", "id_hash"),
    ("xmpp", "sm", "id_hash"),
    ("xmpp", "sasl", "user_agent_hash"),
)
_RECORDER: Final = ("observer", "service", "ecs")
_SORTED: Final = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE


class Renumbered:
    """Keyed hashes of one session by the order of their first appearance."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}

    def apply(self, document: Document) -> dict[str, Any]:
        """Return a copy of ``document`` with its keyed hashes replaced."""
        copied: dict[str, Any] = _copy(document)
        for *path, key in _HASHES:
            parent: Any = copied
            for name in path:
                parent = parent.get(name, {})
            if isinstance(value := parent.get(key), str):
                parent[key] = self._numbers.setdefault(value, f"hash-{len(self._numbers) + 1}")
        related = copied.get("related", {}).get("hash")
        if related:
            copied["related"]["hash"] = sorted(self._numbers.get(value, value) for value in related)
        return copied


def comparable(documents: Iterable[Document]) -> list[bytes]:
    """Return the records of one session as they are compared between live and offline."""
    hashes = Renumbered()
    lines = []
    for document in documents:
        copied = hashes.apply(document)
        copied["event"].pop("sequence", None)
        lines.append(orjson.dumps(copied, option=_SORTED))
    return lines


def golden_lines(documents: Iterable[Document], *, session: int) -> list[bytes]:
    """Return the records of one session as they are kept."""
    hashes = Renumbered()
    lines = []
    begun: datetime | None = None
    for number, document in enumerate(documents, 1):
        when = datetime.fromisoformat(document["@timestamp"])
        begun = when if begun is None else begun
        copied = hashes.apply(document)
        for name in _RECORDER:
            copied.pop(name, None)
        del copied["@timestamp"]
        copied["t_ms"] = (when - begun) // timedelta(milliseconds=1)
        copied["event"].pop("sequence", None)
        copied["event"]["id"] = f"{session}-{number}"
        copied["trace"] = {"id": str(session)}
        lines.append(orjson.dumps(copied, option=_SORTED))
    return lines


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copy(each) for name, each in value.items()}
    return [_copy(each) for each in value] if isinstance(value, list | tuple) else value
