"""A cassette brought to what a replay met: the changed stanza in place of the recorded one, placeholders kept.

Where a value of the expectation still takes the live value, the expectation stays; else the live value stands there, to
the letter. Stanzas that did not come go; stanzas that were not recorded come in where they came. How a session was made
(TLS, mechanism, stream management) and left is taken over too, features are not. Nothing is accepted that the reader of
the difference does not see: the file is under version control.
"""

from collections.abc import Iterator
from datetime import datetime

import attrs

from xproxy.capture.cassette import Cassette, Event, What, numbered
from xproxy.capture.node import Node
from xproxy.capture.placeholder import escape
from xproxy.replay.bindings import Scope
from xproxy.replay.match import Context
from xproxy.replay.playback import Playback
from xproxy.replay.strip import strip_cassette


def accepted(playback: Playback) -> Cassette:
    """Return the cassette as the replay met it. Secrets in what came are left out, and bodies where it holds none."""
    cassette = playback.cassette
    came = dict(playback.came)
    events: list[Event] = []
    for event in cassette.events:
        live = came.pop(event.number, None)
        if live is not None:
            scope = (event.session, playback.theirs.value)
            events.append(attrs.evolve(event, stanza=merged(event.stanza, live, playback, scope, playback.clock())))
        elif event.number not in playback.missed:
            what = playback.parted.get(event.number)
            events.append(event if what is None else attrs.evolve(event, what=what, side=playback.theirs))
        for session, node in playback.extra.get(event.number, ()):
            scope = (session, playback.theirs.value)
            stanza = merged(None, node, playback, scope, playback.clock())
            events.append(Event(number=0, what=What.STANZA, side=playback.theirs, session=session, stanza=stanza))
    sessions = tuple(playback.session(each.name) for each in cassette.sessions)
    new = attrs.evolve(cassette, sessions=sessions, events=numbered(events))
    return strip_cassette(new, bodies=cassette.meta.bodies == "hidden")


def merged(expected: Node | None, live: Node, playback: Playback, scope: Scope, now: datetime) -> Node:
    """Return ``live`` with the placeholders of ``expected`` where they still hold."""
    context = Context(playback.bindings, scope, now)

    def value(wanted: str | None, found: str) -> str:
        if wanted is not None and context.bindings.copy().takes(wanted, found, scope, now):
            return wanted
        return _known(found, playback)

    if expected is not None and expected.tag != live.tag:
        expected = None
    wanted = {} if expected is None else expected.attributes
    partners = _partners(expected, live)
    content: list[Node | str] = []
    for item in live.content:
        if isinstance(item, str):
            content.append(value(None if expected is None else expected.text, item))
        else:
            content.append(merged(next(partners), item, playback, scope, now))
    return Node(
        live.tag,
        {name: value(wanted.get(name), found) for name, found in live.attributes.items()},
        tuple(content),
        strict=expected is None or expected.strict,
        skip=expected is not None and expected.skip,
    )


def _partners(expected: Node | None, live: Node) -> Iterator[Node | None]:
    """For each child of ``live`` yield the child of ``expected`` it stands for: of the same name, nearest first."""
    rest = [] if expected is None else list(expected.children)
    for child in live.children:
        same = [each for each in rest if each.tag == child.tag]
        chosen = max(same, key=lambda each: _alike(each, child), default=None)
        if chosen is not None:
            rest.remove(chosen)
        yield chosen


def _alike(one: Node, other: Node) -> int:
    return sum(one.attributes.get(name) == value for name, value in other.attributes.items()) + (one.text == other.text)


def _known(found: str, playback: Playback) -> str:
    """Put placeholders for what is known by one: ids, and the addresses of sessions."""
    for session, jid in playback.bindings.jids.items():
        if found == jid:
            return f"${{jid:{session}}}"
    for key, value in playback.bindings.values.items():
        if found == value and len(found) >= 2:
            return f"${{{key}}}"
    return escape(found)
