"""What should not be in a cassette taken out of one that is there."""

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from xproxy.capture.cassette import REDACTION, Cassette
from xproxy.capture.hide import HIDDEN, hide
from xproxy.capture.node import Node
from xproxy.capture.placeholder import is_literal, parse_template
from xproxy.replay.scrub import Scrubber

_ANY: Final = "${any}"


def strip_cassette(cassette: Cassette, *, bodies: bool, secrets: Sequence[str] = ()) -> Cassette:
    """Return the cassette with ``${any}`` in place of its secrets, of ``bodies``, and of values that hold ``secrets``.

    Placeholders stay: they hold nothing.
    """
    scrub = Scrubber(secrets)
    stripped = cassette.with_stanzas(lambda node: _strip(node, hide(node, bodies=bodies), scrub.finds))
    meta = attrs.evolve(cassette.meta, redaction=REDACTION, bodies="hidden" if bodies else cassette.meta.bodies)
    return attrs.evolve(stripped, meta=meta)


def _strip(node: Node, hidden: Node, finds: Callable[[str], bool]) -> Node:
    def value(old: str, new: str) -> str:
        return _ANY if (new == HIDDEN and _holds_something(old)) or finds(old) else old

    return Node(
        node.tag,
        {name: value(old, hidden.attributes[name]) for name, old in node.attributes.items()},
        tuple(
            value(item, twin) if isinstance(item, str) and isinstance(twin, str)
            else _strip(item, twin, finds) if isinstance(item, Node) and isinstance(twin, Node)
            else item
            for item, twin in zip(node.content, hidden.content, strict=True)
        ),
        node.line,
        node.strict,
        node.skip,
    )  # fmt: skip


def _holds_something(value: str) -> bool:
    return is_literal(value) or any(isinstance(part, str) for part in parse_template(value))
