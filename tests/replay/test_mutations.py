"""No tolerance where none is said: every cassette of tests/vectors, each of its stanzas, each place of it.

Each attribute, text and element is changed, dropped and doubled; each mutation is either caught, or its place holds a
placeholder, which is then counted under its kind. The share is printed (``pytest -rP``). How sessions are made and left
is test_session_mutations.py's; a cassette that has nothing else (a login) is there alone.
"""

import collections
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from xproxy.capture.cassette_xml import read_cassette
from xproxy.capture.node import Node, make, render
from xproxy.capture.placeholder import Placeholder, parse_template
from xproxy.replay.bindings import Bindings
from xproxy.replay.match import Context, differences, filled, matches

VECTORS = Path(__file__).parent.parent / "vectors" / "cassettes"
CASSETTES = sorted(VECTORS.rglob("*.xmpp.xml"))
NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
CAUGHT_SHARE_MIN = 0.9  # measured: 0.97 and more of those recorded, 0.947 of the shortest sample


def mutations(expected: Node, live: Node, path: str) -> Iterator[tuple[str, Node, str]]:
    """Yield (what was done, the mutated stanza, the value of the expectation at that place)."""
    for name, value in live.attributes.items():
        wanted = expected.attributes[name]
        changed = live.attributes | {name: _changed(value)}
        yield f"{path}@{name} changed", make(live.tag, changed, live.content), wanted
        dropped = {key: each for key, each in live.attributes.items() if key != name}
        yield f"{path}@{name} dropped", make(live.tag, dropped, live.content), ""
    yield f"{path}@new added", make(live.tag, {**live.attributes, "new": "1"}, live.content), ""
    yield f"{path} renamed", make(live.tag + "-x", live.attributes, live.content), ""
    moved = live.tag.replace("}", "-x}") if live.tag.startswith("{") else f"{{x}}{live.tag}"
    yield f"{path} moved to another namespace", make(moved, live.attributes, live.content), ""
    yield f"{path} with one element more", make(live.tag, live.attributes, (*live.content, make("{x}more"))), ""
    for index, item in enumerate(live.content):
        twin = expected.content[index]
        before, behind = live.content[:index], live.content[index + 1 :]
        if isinstance(item, str):
            assert isinstance(twin, str)
            yield f"{path} text changed", make(live.tag, live.attributes, (*before, _changed(item), *behind)), twin
            yield f"{path} text dropped", make(live.tag, live.attributes, (*before, *behind)), twin
        else:
            assert isinstance(twin, Node)
            place = f"{path}/{item.local}"
            yield f"{place} dropped", make(live.tag, live.attributes, (*before, *behind)), ""
            yield f"{place} doubled", make(live.tag, live.attributes, (*before, item, item, *behind)), ""
            for what, inner, wanted in mutations(twin, item, place):
                yield what, make(live.tag, live.attributes, (*before, inner, *behind)), wanted


def _changed(value: str) -> str:
    return f"{value}~"


def kinds_in(wanted: str) -> list[str]:
    return [part.kind for part in parse_template(wanted) if isinstance(part, Placeholder)]


def has_stanzas(path: Path) -> bool:
    return any(event.stanza is not None for event in read_cassette(path).events)


WITH_STANZAS = [path for path in CASSETTES if has_stanzas(path)]


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_STANZAS, ids=lambda path: f"{path.parent.name}/{path.name.partition('.')[0]}")
def test_each_mutation_is_caught_or_its_place_is_said_to_be_volatile(path: Path) -> None:
    cassette = read_cassette(path)
    bindings = Bindings(
        jids={session.name: f"{session.name}@{session.domain}/bound" for session in cassette.sessions},
        secrets={account.name: "a-password" for account in cassette.accounts},
    )
    caught, volatile = 0, collections.Counter[str]()
    for event in cassette.events:
        if event.stanza is None:
            continue
        scope = (event.session, event.side.value)
        before = bindings.copy()
        live = filled(event.stanza, bindings, scope, NOW)
        assert matches(event.stanza, live, Context(before.copy(), scope, NOW)), render(live)
        for what, mutated, wanted in mutations(event.stanza, live, f"#{event.number} /{live.local}"):
            context = Context(before.copy(), scope, NOW)
            if not matches(event.stanza, mutated, context):
                caught += 1
                assert differences(event.stanza, mutated, Context(before.copy(), scope, NOW)), what
                continue
            kinds = kinds_in(wanted)
            assert kinds, f"{what} was not noticed: {render(mutated)}"
            volatile[kinds[0]] += 1
    total = caught + volatile.total()
    assert total >= 10
    share = caught / total
    listed = ", ".join(f"{kind} {count}" for kind, count in volatile.most_common())
    print(
        f"{path.relative_to(VECTORS)}: {caught} of {total} mutations caught ({share:.1%}); volatile: {listed or 'none'}"
    )
    assert share >= CAUGHT_SHARE_MIN
