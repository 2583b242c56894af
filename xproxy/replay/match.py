"""Is this the stanza that was recorded? And if it is not: how near is it, and where does it differ?

An expectation is a stanza with placeholders (capture/placeholder.py); they, x:strict and x:skip are the only tolerance
in values. For the children of an element there are three rules:

* where an element holds text beside elements, and in XHTML: everything in order;
* of the children in ``_SETS``, which a server may list in any order (it was seen: Prosody lists disco in another order
  after a restart): as multisets;
* else: elements of one name in their order, names in any.

Nothing may be missing and nothing more may be there. With ``contains``, for what a live server says to the fake client,
more children may be there in the stanza itself and among those of ``_SETS``: a server with one more module is still
right; everything that was recorded has to be there all the same.

``matches`` and ``differences`` agree: one is true exactly where the other is empty.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import attrs

from xproxy.capture.node import Node, render
from xproxy.capture.placeholder import Placeholder, parse_template
from xproxy.replay.bindings import Bindings, Scope
from xproxy.xmpp import ns

_DISCO_INFO: Final = "{http://jabber.org/protocol/disco#info}"
_DISCO_ITEMS: Final = "{http://jabber.org/protocol/disco#items}"
_PUBSUB: Final = "{http://jabber.org/protocol/pubsub}"
_PUBSUB_OWNER: Final = "{http://jabber.org/protocol/pubsub#owner}"
_ROSTER: Final = f"{{{ns.ROSTER}}}"
_BLOCKING: Final = f"{{{ns.BLOCKING}}}"
_FORM: Final = f"{{{ns.DATA_FORM}}}"
_MUC_USER: Final = f"{{{ns.MUC_USER}}}"
_SASL: Final = f"{{{ns.SASL}}}"

# Parent -> names of the children that may come in any order.
_SETS: Final[Mapping[str, frozenset[str]]] = {
    f"{_DISCO_INFO}query": frozenset({f"{_DISCO_INFO}identity", f"{_DISCO_INFO}feature", f"{_FORM}x"}),
    f"{_DISCO_ITEMS}query": frozenset({f"{_DISCO_ITEMS}item"}),
    f"{_ROSTER}query": frozenset({f"{_ROSTER}item"}),
    f"{_ROSTER}item": frozenset({f"{_ROSTER}group"}),
    f"{_BLOCKING}blocklist": frozenset({f"{_BLOCKING}item"}),
    f"{_BLOCKING}block": frozenset({f"{_BLOCKING}item"}),
    f"{_BLOCKING}unblock": frozenset({f"{_BLOCKING}item"}),
    f"{_PUBSUB}affiliations": frozenset({f"{_PUBSUB}affiliation"}),
    f"{_PUBSUB}subscriptions": frozenset({f"{_PUBSUB}subscription"}),
    f"{_PUBSUB_OWNER}affiliations": frozenset({f"{_PUBSUB_OWNER}affiliation"}),
    f"{_PUBSUB_OWNER}subscriptions": frozenset({f"{_PUBSUB_OWNER}subscription"}),
    f"{_FORM}x": frozenset({f"{_FORM}field"}),
    f"{_FORM}item": frozenset({f"{_FORM}field"}),
    f"{_MUC_USER}x": frozenset({f"{_MUC_USER}status"}),
    f"{_SASL}mechanisms": frozenset({f"{_SASL}mechanism"}),
}
_ORDERED_NAMESPACES: Final = frozenset({"http://www.w3.org/1999/xhtml"})
_STEPS_MAX: Final = 20_000  # elements looked at in one comparison; a peer can send many that are nearly equal
_NEARLY: Final = 0.99  # the score of what has all that was recorded, in another order
_PAIRS_MAX: Final = 4_096  # above it the nearest pairs are not looked for, only equal places


@attrs.define
class _Budget:
    """How much may still be looked at in one comparison."""

    left: int = _STEPS_MAX


@attrs.define
class Context:
    """What a comparison needs to know. For one comparison: its budget is spent over all that is tried in it."""

    bindings: Bindings
    scope: Scope
    now: datetime
    contains: bool = False
    budget: _Budget = attrs.field(factory=_Budget)

    def trial(self) -> "Context":
        """Return a context whose bindings can be thrown away."""
        return Context(self.bindings.copy(), self.scope, self.now, self.contains, self.budget)

    def keep(self, trial: "Context") -> None:
        """Take over what a trial found out."""
        self.bindings = trial.bindings


def could_match(expected: Node, live: Node) -> bool:
    """Whether nothing that has no placeholder speaks against it: cheap, and binds nothing. True is no promise."""
    if expected.tag != live.tag:
        return False
    if expected.skip or not expected.strict:
        return True
    if expected.attributes.keys() != live.attributes.keys():
        return False
    for name, value in expected.attributes.items():
        if "${" not in value and value != live.attributes[name]:
            return False
    wanted, found = expected.content, live.content
    if len(wanted) == 1 == len(found):
        want, have = wanted[0], found[0]
        if isinstance(want, str) or isinstance(have, str):
            return isinstance(want, str) and ("${" in want or want == have)
        return could_match(want, have)
    return True


def matches(expected: Node, live: Node, context: Context) -> bool:
    """Whether ``live`` is what was expected. Binds what is new in it, and nothing at all where it is not."""
    if not could_match(expected, live):
        return False
    trial = context.trial()
    if not _matches(expected, live, trial, 0):
        return False
    context.keep(trial)
    return True


def wildness(node: Node) -> int:
    """Return how many values of an expectation are open: of two that fit, the one with fewer is meant."""
    return sum(
        isinstance(part, Placeholder)
        for each in node.iter()
        for value in (*each.attributes.values(), *(item for item in each.content if isinstance(item, str)))
        for part in parse_template(value)
        if isinstance(part, Placeholder) and part.is_wild
    ) + sum(2 * each.skip + (not each.strict) for each in node.iter())


def _matches(expected: Node, live: Node, context: Context, depth: int) -> bool:
    context.budget.left -= 1
    if expected.tag != live.tag:
        return False
    if expected.skip:
        return True
    return _attributes_match(expected, live, context) and _content_matches(expected, live, context, depth)


def _attributes_match(expected: Node, live: Node, context: Context) -> bool:
    if len(live.attributes) != len(expected.attributes) and expected.strict:
        return False
    for name, value in expected.attributes.items():
        found = live.attributes.get(name)
        if found is None or not context.bindings.takes(value, found, context.scope, context.now):
            return False
    return True


def _allows_more(expected: Node, context: Context, depth: int) -> bool:
    return not expected.strict or (context.contains and (depth == 0 or expected.tag in _SETS))


def _is_ordered(node: Node) -> bool:
    return node.is_mixed or node.namespace in _ORDERED_NAMESPACES


def _content_matches(expected: Node, live: Node, context: Context, depth: int) -> bool:
    if _is_ordered(expected) or _is_ordered(live):
        return _sequence_matches(expected, live, context, depth)
    if not context.bindings.takes(expected.text, live.text, context.scope, context.now):
        return False
    more = _allows_more(expected, context, depth)
    free = _SETS.get(expected.tag, frozenset())
    wanted, found = _by_tag(expected.children), _by_tag(live.children)
    if not more and found.keys() - wanted.keys():
        return False
    # The plain ones first: they bind ids that the sets can then be told apart by.
    for tag in sorted(wanted, key=lambda tag: tag in free):
        if tag in free:
            if not _set_matches(wanted[tag], found.get(tag, []), context, depth + 1, more=more):
                return False
        elif not _list_matches(wanted[tag], found.get(tag, []), context, depth + 1, more=more):
            return False
    return True


def _sequence_matches(expected: Node, live: Node, context: Context, depth: int) -> bool:
    if len(expected.content) != len(live.content):
        return False
    for want, have in zip(expected.content, live.content, strict=True):
        if isinstance(want, str):
            if not isinstance(have, str) or not context.bindings.takes(want, have, context.scope, context.now):
                return False
        elif isinstance(have, str) or not _matches(want, have, context, depth + 1):
            return False
    return True


def _by_tag(children: Sequence[Node]) -> dict[str, list[Node]]:
    grouped: dict[str, list[Node]] = {}
    for child in children:
        grouped.setdefault(child.tag, []).append(child)
    return grouped


def _list_matches(wanted: Sequence[Node], found: Sequence[Node], context: Context, depth: int, *, more: bool) -> bool:
    if len(found) < len(wanted) or (len(found) > len(wanted) and not more):
        return False
    at = 0
    for want in wanted:
        while True:
            if at == len(found):
                return False
            trial = context.trial()
            at += 1
            if _matches(want, found[at - 1], trial, depth):
                context.keep(trial)
                break
            if not more:
                return False
    return True


def _set_matches(wanted: Sequence[Node], found: Sequence[Node], context: Context, depth: int, *, more: bool) -> bool:
    if len(found) < len(wanted) or (len(found) > len(wanted) and not more):
        return False
    # What has no placeholder is found by its value; only the rest has to be tried out.
    literal = [want for want in wanted if _is_plain(want)]
    open_ = sorted((want for want in wanted if not _is_plain(want)), key=wildness)
    rest = list(found)
    unequal: list[Node] = []
    for want in literal:
        if want in rest:
            rest.remove(want)
        else:
            unequal.append(want)  # a set inside it may still be in another order
    for want in unequal:
        at = next((index for index, have in enumerate(rest) if _same(want, have, context, depth)), None)
        if at is None:
            return False
        del rest[at]
    return _assign(open_, rest, context, depth)


def _same(want: Node, have: Node, context: Context, depth: int) -> bool:
    return _matches(want, have, context.trial(), depth)


def _is_plain(node: Node) -> bool:
    return all(
        "${" not in value
        for each in node.iter()
        for value in (*each.attributes.values(), *(item for item in each.content if isinstance(item, str)))
    )


def _assign(wanted: Sequence[Node], found: list[Node], context: Context, depth: int) -> bool:
    """Find for each one another; goes back where a choice was wrong, up to _STEPS_MAX."""
    if not wanted:
        return True
    for index, have in enumerate(found):
        if context.budget.left < 0:
            return False
        trial = context.trial()
        if _matches(wanted[0], have, trial, depth) and _assign(
            wanted[1:], found[:index] + found[index + 1 :], trial, depth
        ):
            context.keep(trial)
            return True
    return False


# Explaining.


@attrs.frozen(kw_only=True)
class Difference:
    """One place where two stanzas differ."""

    path: str  # /iq/query/item[2]@jid
    what: Literal["value", "missing", "extra", "order"]
    expected: str | None  # as in the cassette, what is known put in
    live: str | None  # as it may be shown

    def __str__(self) -> str:
        """Return it as a line."""
        match self.what:
            case "value":
                return f"{self.path}: expected {self.expected!r}, got {self.live!r}"
            case "missing":
                return f"{self.path}: missing {self.expected}"
            case "extra":
                return f"{self.path}: not recorded {self.live}"
            case _:
                return f"{self.path}: in another order"


@attrs.define
class _Tally:
    hits: int = 0
    total: int = 0
    found: list[Difference] = attrs.field(factory=list)


def differences(expected: Node, live: Node, context: Context, shown: Node | None = None) -> list[Difference]:
    """Return where they differ, in document order; empty where they match. Nothing is bound.

    ``shown``: ``live`` with hidden content, of the same shape, from which values are quoted.
    """
    if matches(expected, live, context.trial()):
        return []
    context = attrs.evolve(context, budget=_Budget())
    tally = _Tally()
    _compare(expected, live, shown or live, context.trial(), tally, f"/{live.local}", 0)
    return tally.found or [Difference(path=f"/{live.local}", what="order", expected=None, live=None)]


def score(expected: Node, live: Node, context: Context) -> float:
    """Return how near they are: 1.0 for a match, the share of names, attributes and texts that are equal."""
    if matches(expected, live, context.trial()):
        return 1.0
    tally = _Tally()
    _compare(expected, live, live, attrs.evolve(context, budget=_Budget()).trial(), tally, "", 0)
    return min(tally.hits / tally.total, _NEARLY)


def _compare(expected: Node, live: Node, shown: Node, context: Context, tally: _Tally, path: str, depth: int) -> None:
    tally.total += 1
    context.budget.left -= 1
    if expected.tag != live.tag:
        tally.found.append(Difference(path=path, what="value", expected=expected.tag, live=live.tag))
        tally.total += _facts(expected)
        return
    tally.hits += 1
    if expected.skip:
        return
    for name, value in sorted(expected.attributes.items()):
        tally.total += 1
        where = f"{path}@{name.rpartition('}')[2]}"
        known = context.bindings.render(value, context.scope, context.now, lenient=True)
        if name not in live.attributes:
            tally.found.append(Difference(path=where, what="missing", expected=repr(known), live=None))
        elif context.bindings.takes(value, live.attributes[name], context.scope, context.now):
            tally.hits += 1
        else:
            tally.found.append(Difference(path=where, what="value", expected=known, live=shown.attributes[name]))
    for name in sorted(live.attributes.keys() - expected.attributes.keys()):
        if expected.strict:
            tally.total += 1
            where = f"{path}@{name.rpartition('}')[2]}"
            tally.found.append(Difference(path=where, what="extra", expected=None, live=repr(shown.attributes[name])))
    _compare_content(expected, live, shown, context, tally, path, depth)


def _compare_content(
    expected: Node, live: Node, shown: Node, context: Context, tally: _Tally, path: str, depth: int
) -> None:
    if expected.text or live.text:
        tally.total += 1
        if context.bindings.takes(expected.text, live.text, context.scope, context.now):
            tally.hits += 1
        else:
            known = context.bindings.render(expected.text, context.scope, context.now, lenient=True)
            tally.found.append(Difference(path=path, what="value", expected=known, live=shown.text))
    more = _allows_more(expected, context, depth) and not (_is_ordered(expected) or _is_ordered(live))
    free = _SETS.get(expected.tag, frozenset())
    wanted, found, twins = _by_tag(expected.children), _by_tag(live.children), _by_tag(shown.children)
    for tag in [*wanted, *(tag for tag in found if tag not in wanted)]:
        wants, haves = wanted.get(tag, []), found.get(tag, [])
        pairs, missing, extra = _pair(wants, haves, context, depth + 1, free=tag in free)
        if tag not in free and [want for want, _ in pairs] != sorted(want for want, _ in pairs):
            what = f"{path}/{haves[0].local}"
            tally.found.append(Difference(path=what, what="order", expected=None, live=None))
        for want, have in pairs:
            number = f"[{have + 1}]" if len(haves) > 1 else ""
            inner = f"{path}/{haves[have].local}{number}"
            _compare(wants[want], haves[have], twins[tag][have], context, tally, inner, depth + 1)
        for want in missing:
            tally.total += 1 + _facts(wants[want])
            text = render(_known(wants[want], context), parent_namespace=expected.namespace)
            tally.found.append(Difference(path=path, what="missing", expected=_short(text), live=None))
        for have in [] if more else extra:
            tally.total += 1 + _facts(haves[have])
            text = render(twins[tag][have], parent_namespace=live.namespace)
            tally.found.append(Difference(path=path, what="extra", expected=None, live=_short(text)))


def _pair(
    wants: Sequence[Node], haves: Sequence[Node], context: Context, depth: int, *, free: bool
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Pair expected and live children of one name: those that match first, then the nearest, then by place."""
    open_wants, open_haves = list(range(len(wants))), list(range(len(haves)))
    pairs: list[tuple[int, int]] = []
    if len(wants) * len(haves) <= _PAIRS_MAX and context.budget.left > 0:
        for want in list(open_wants):
            for have in open_haves:
                trial = context.trial()
                if _matches(wants[want], haves[have], trial, depth):
                    context.keep(trial)
                    pairs.append((want, have))
                    open_wants.remove(want)
                    open_haves.remove(have)
                    break
        if len(open_wants) != len(open_haves) or free:
            ranked = sorted(
                (-_nearness(wants[want], haves[have], context, depth), want, have) for want in open_wants
                 for have in open_haves
            )  # fmt: skip
            for nearness, want, have in ranked:
                if want in open_wants and have in open_haves and -nearness >= 0.5:
                    pairs.append((want, have))
                    open_wants.remove(want)
                    open_haves.remove(have)
    if not free and len(open_wants) == len(open_haves):
        pairs += zip(open_wants, open_haves, strict=True)
        open_wants, open_haves = [], []
    return sorted(pairs, key=lambda pair: pair[1]), open_wants, open_haves


def _nearness(want: Node, have: Node, context: Context, depth: int) -> float:
    tally = _Tally()
    _compare(want, have, have, context.trial(), tally, "", depth)
    return tally.hits / tally.total


def _facts(node: Node) -> int:
    return sum(1 + len(each.attributes) + bool(each.text) for each in node.iter())


def _known(node: Node, context: Context) -> Node:
    return filled(node, context.bindings, context.scope, context.now, lenient=True)


def filled(node: Node, bindings: Bindings, scope: Scope, now: datetime, *, lenient: bool = False) -> Node:
    """Return the stanza with its placeholders filled in.

    Raises:
        CannotRender: as Bindings.render.
    """
    return Node(
        node.tag,
        {name: bindings.render(value, scope, now, lenient=lenient) for name, value in node.attributes.items()},
        tuple(
            bindings.render(item, scope, now, lenient=lenient)
            if isinstance(item, str)
            else filled(item, bindings, scope, now, lenient=lenient)
            for item in node.content
        ),
        node.line,
    )


def _short(text: str, chars_max: int = 200) -> str:
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"
