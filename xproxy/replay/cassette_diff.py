"""Where two cassettes differ: events that only one has, and what is different in those that both have."""

import difflib
from collections.abc import Iterator
from datetime import UTC, datetime

from xproxy.capture.cassette import Cassette, Event
from xproxy.capture.node import Node, one_line
from xproxy.capture.placeholder import escape
from xproxy.replay.bindings import Bindings
from xproxy.replay.match import Context, differences

_NO_TIME = datetime(2026, 1, 1, tzinfo=UTC)  # placeholders are compared as text: nothing asks for the time


def diff_cassettes(one: Cassette, other: Cassette) -> Iterator[str]:
    """Yield lines: "- " only in ``one``, "+ " only in ``other``, "@ " what is different in both."""
    for what in ("accounts", "sessions"):
        left, right = getattr(one, what), getattr(other, what)
        yield from (f"- {what[:-1]} {each.name}" for each in left if each not in right)
        yield from (f"+ {what[:-1]} {each.name}" for each in right if each not in left)
    keys = [[_key(event) for event in cassette.events] for cassette in (one, other)]
    matcher = difflib.SequenceMatcher(a=keys[0], b=keys[1], autojunk=False)
    for tag, a_start, a_end, b_start, b_end in matcher.get_opcodes():
        lefts, rights = one.events[a_start:a_end], other.events[b_start:b_end]
        if tag == "equal":
            for left, right in zip(lefts, rights, strict=True):
                yield from _compare(left, right)
        else:
            yield from (f"- {_show(event)}" for event in lefts)
            yield from (f"+ {_show(event)}" for event in rights)


def _key(event: Event) -> tuple[str, ...]:
    stanza = event.stanza
    inside = () if stanza is None else (stanza.tag, stanza.get("type"), *(child.tag for child in stanza.children))
    return (event.what.value, event.side.value, event.session, *inside)


def _show(event: Event) -> str:
    what = event.what.value if event.stanza is None else one_line(event.stanza)
    return f"#{event.number} {event.side.value} {event.session}: {what}"


def _compare(left: Event, right: Event) -> Iterator[str]:
    if (left.order, left.optional, left.seconds) != (right.order, right.optional, right.seconds):
        yield f"@ #{left.number} -> #{right.number} order, optional or for: differs"
    if left.stanza is not None and right.stanza is not None and left.stanza != right.stanza:
        context = Context(Bindings(), ("", ""), _NO_TIME)
        found = differences(_literally(left.stanza), right.stanza, context)
        if not found:
            yield f"@ #{left.number} -> #{right.number}: x:strict, x:skip or the order of elements differs"
        for difference in found:
            yield f"@ #{left.number} -> #{right.number} {difference}"


def _literally(node: Node) -> Node:
    return Node(
        node.tag,
        {name: escape(value) for name, value in node.attributes.items()},
        tuple(escape(item) if isinstance(item, str) else _literally(item) for item in node.content),
    )
