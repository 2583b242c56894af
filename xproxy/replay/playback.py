"""How far a replay has come: which events happened, which may be sent now, what a stanza that came was.

No I/O and no clock: the engine (server.py, client.py) tells what came and what it sent, and asks what is next.

Two parties: *we* play one side of the cassette, *they* are under test. What we say waits for what they said before it
(the causal barrier); what they say may come early, for they need not wait for us. In detail:

* **Ours.** An event of ours is due when everything of the same session before it has happened, and everything of theirs
  in *all* sessions before it: what a server says to one client may be the consequence of what another client did. The
  answer to a request (iq result or error) only waits for its own session.
* **Theirs.** A stanza may be any event of theirs that has not happened yet (the window), with one rule of order: what
  lies in one lane keeps its order. Messages and presences of a client are one lane; those of a server are a lane for
  each sender and kind, for a server delivers each sender's stanzas in order and no others; requests and answers have
  none, for they are told apart by their ids (slixmpp's requests were seen to come in another order each run).
  ``order="any"`` takes an event out of its lane, ``order="strict"`` makes it a wall: everything before it first,
  everything behind it after.
* Of several events that fit, the one with the fewest open values is taken, then the earliest.
* What fits nothing is compared with what is nearest. If that is near enough it is taken for it, so that one changed
  stanza is one failure and the conversation goes on; else it is unexpected.
* A stanza that came before its turn is a failure only when what it overtook comes at all; otherwise that is missing.
* ``optional`` events need not happen; what would answer them is then not sent.

How a session is made and left is compared too (``fact``, ``part``): who closed its stream, and whether with the closing
tag or without. A parting that is ``optional`` may be of the other kind, or not be at all.
"""

import enum
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final, Literal

import attrs

from xproxy.capture.cassette import Cassette, Event, Session, What
from xproxy.capture.hide import HIDDEN, hide
from xproxy.capture.node import Node, one_line
from xproxy.capture.placeholder import BOUND, Placeholder, parse_template
from xproxy.config.replay import ReplaySettings
from xproxy.events import Side
from xproxy.replay import partings
from xproxy.replay.bindings import Bindings, Scope
from xproxy.replay.match import Context, Difference, could_match, differences, filled, matches, score, wildness
from xproxy.replay.partings import PARTINGS, WAYS, Left, what_of
from xproxy.replay.patience import Patience
from xproxy.replay.report import FailureKind
from xproxy.replay.report import one_line as one_line_of

NEAR: Final = 0.5  # the least score at which a stanza is taken for the changed one
CANDIDATES_MAX: Final = 200  # events a stanza that fits none is compared with
HISTORY: Final = 5  # events shown of each side
FINDINGS_MAX: Final = 100  # per replay; a peer gone wild is told enough by then
NAMED_MAX: Final = 5  # missing stanzas that a message names
NOTED_MAX: Final = 20  # things let pass that a case of the report names


class State(enum.Enum):
    """What became of an event."""

    PENDING = "pending"
    DONE = "done"
    CHANGED = "changed"  # something near it came in its place
    SKIPPED = "skipped"  # not of this replay, or it answers what never came


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that is wrong."""

    kind: FailureKind
    session: str
    message: str
    event: Event | None = None  # the expectation
    differences: tuple[Difference, ...] = ()
    live: Node | None = attrs.field(default=None, repr=False)  # as it may be shown
    score: float | None = None
    nearest: Event | None = None  # where it was not near enough to be taken for it
    consumed: Event | None = None  # it fits this one, which had happened already
    history: tuple[str, ...] = ()
    bindings: tuple[tuple[str, str], ...] = ()
    acceptable: bool = True  # whether ``accept`` can take it over


@attrs.frozen
class Taken:
    """What a stanza that came was: an event, nothing that matters, or wrong."""

    event: Event | None = None
    finding: Finding | None = None


@attrs.define(eq=False)
class Playback:
    """One replay of one cassette."""

    cassette: Cassette
    ours: Side
    clock: Callable[[], datetime]
    passwords: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    contains: bool = False  # more may be in what they say (see match.py)
    unexpected: Literal["fail", "ignore"] = "fail"
    lenient: bool = False  # how a session is made and left is noted where it differs, and is no failure
    match_seconds_max: float = ReplaySettings().match_seconds_max
    bindings: Bindings = attrs.field(init=False)
    findings: list[Finding] = attrs.field(init=False, factory=list)
    matched: int = attrs.field(init=False, default=0)
    sent: int = attrs.field(init=False, default=0)
    early: int = attrs.field(init=False, default=0)  # stanzas that came before others of theirs
    ignored: int = attrs.field(init=False, default=0)
    dropped_findings: int = attrs.field(init=False, default=0)
    came: dict[int, Node] = attrs.field(init=False, factory=dict, repr=False)  # in place of a changed event, by number
    extra: dict[int, list[tuple[str, Node]]] = attrs.field(init=False, factory=dict, repr=False)  # behind that event
    missed: set[int] = attrs.field(init=False, factory=set)
    noted: list[tuple[str, str]] = attrs.field(init=False, factory=list)  # session, what was let pass
    met: dict[str, Session] = attrs.field(init=False, factory=dict)  # sessions as they were made, where otherwise
    parted: dict[int, What] = attrs.field(init=False, factory=dict)  # what a parting was instead, by number
    _slow: int = attrs.field(init=False, default=0)  # values given up, as far as noted
    _settled: int = attrs.field(init=False, default=0)  # so many events at the beginning have happened
    _last: int = attrs.field(init=False, default=0)  # the event that happened last
    _states: list[State] = attrs.field(init=False)
    _answers: dict[int, int] = attrs.field(init=False)  # of an answer to its request, by number
    _refers: dict[int, frozenset[int]] = attrs.field(init=False)  # of an event to those that brought its ids up
    _overtaken: dict[int, list[Finding]] = attrs.field(init=False, factory=dict)
    _quiet: dict[str, Event] = attrs.field(init=False, factory=dict)
    _history: dict[Side, deque[str]] = attrs.field(init=False)
    _clock_ticks: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        """Set out."""
        self.bindings = Bindings(secrets=dict(self.passwords), patience=Patience(self.match_seconds_max))
        self._states = [
            State.SKIPPED if event.what is What.QUIET and event.side is self.ours else State.PENDING
            for event in self.cassette.events
        ]
        self._answers = _answers_of(self.cassette)
        self._refers = _references_of(self.cassette)
        self._history = {side: deque(maxlen=HISTORY) for side in Side}

    # Who is who.

    @property
    def theirs(self) -> Side:
        """The side under test."""
        return Side.SERVER if self.ours is Side.CLIENT else Side.CLIENT

    def is_ours(self, event: Event) -> bool:
        """Whether we make it happen. Silence of theirs is ours to wait for."""
        return event.side is self.ours if event.what is not What.QUIET else event.side is not self.ours

    def state(self, event: Event) -> State:
        """What became of ``event``."""
        return self._states[event.number - 1]

    def pending(self, session: str | None = None) -> Iterator[Event]:
        """Yield what has not happened, in order."""
        events, states = self.cassette.events, self._states
        while self._settled < len(states) and states[self._settled] is not State.PENDING:
            self._settled += 1  # a long script is not gone through from its beginning each time
        for index in range(self._settled, len(states)):
            if states[index] is State.PENDING and session in (None, events[index].session):
                yield events[index]

    def begun(self, session: str) -> bool:
        """Whether anything of the session happened."""
        return any(self.state(event) is not State.PENDING for event in self.cassette.in_session(session))

    # Ours.

    def due(self, only: str | None = None) -> Event | None:
        """Return the first event of ours that may happen now (in the session ``only``)."""
        blocked: set[str] = set()  # sessions in which something has to happen first
        anything_of_theirs = False
        for event in self.pending():
            if self._waits_for_request(event):
                continue
            if self.is_ours(event):
                free = event.session not in blocked and (not anything_of_theirs or self._is_reply(event))
                wanted = only in (None, event.session)
                if wanted and free and not (event.order == "strict" and (blocked or anything_of_theirs)):
                    return event
                blocked.add(event.session)
                if event.what is What.QUIET or event.order == "strict":
                    return None
            elif not event.optional:
                blocked.add(event.session)
                anything_of_theirs = True
                if event.order == "strict":
                    return None
        return None

    def _waits_for_request(self, event: Event) -> bool:
        """Whether it answers something optional that did not come (yet)."""
        request = self._answers.get(event.number)
        if request is None:
            return False
        asked = self.cassette.events[request - 1]
        return asked.optional and self.state(asked) is State.PENDING

    def _is_reply(self, event: Event) -> bool:
        return event.number in self._answers

    def render(self, event: Event) -> Node:
        """Return the stanza of an event of ours as it is sent now.

        Raises:
            CannotRender: it holds a placeholder nothing is known for.
        """
        assert event.stanza is not None
        return filled(event.stanza, self.bindings, self._scope(event.session, self.ours), self.clock())

    def happened(self, event: Event, stanza: Node | None = None) -> None:
        """An event happened: we made it, or it is theirs and no stanza."""
        self._states[event.number - 1] = State.DONE
        self._last = max(self._last, event.number)
        if stanza is not None:
            self.sent += 1
        self._remember(event.side, event.session, event.number, stanza or event.what.value)

    def next_of(self, session: str, *kinds: What, side: Side | None = None) -> Event | None:
        """Return the session's first pending event of these kinds."""
        for event in self.pending(session):
            if event.what in kinds and side in (None, event.side):
                return event
        return None

    def quiet(self, event: Event) -> None:
        """Their silence begins: what comes until ``happened(event)`` is unexpected."""
        self._quiet[event.session] = event

    def end_quiet(self, event: Event) -> None:
        """It is over."""
        self._quiet.pop(event.session, None)
        self.happened(event)

    # Theirs.

    def take(self, session: str, live: Node) -> Taken:
        """Say which event a stanza of theirs is, and note what is wrong with it."""
        shown = hide(live, bodies=self.cassette.meta.bodies == "hidden")
        taken = self._take(session, live, shown)
        number = taken.event.number if taken.event is not None else None
        if taken.event is None and taken.finding is not None and len(self.findings) < FINDINGS_MAX:
            self.extra.setdefault(self._last, []).append((session, live))
        elif taken.event is not None and taken.finding is not None:
            self.came[taken.event.number] = live
        self._last = max(self._last, number or 0)
        self._remember(self.theirs, session, number, shown)
        self._note_slow(session)
        if taken.finding is not None:
            self._note(taken.finding)
        return taken

    def _take(self, session: str, live: Node, shown: Node) -> Taken:
        if (quiet := self._quiet.get(session)) is not None and self._breaks(quiet, live):
            message = f"{one_line(shown)} came while nothing of the kind may come"
            return Taken(finding=self._finding(FailureKind.UNEXPECTED, session, message, event=quiet, live=shown))
        pending = [event for event in self.pending(session) if event.what is What.STANZA and not self.is_ours(event)]
        fitting = [event for event in pending if self._fits(event, live) and self._may_come(event)]
        if fitting:
            in_turn = [event for event in fitting if not self._overtakes(event, pending)]
            event = min(in_turn or fitting, key=lambda each: (wildness(_stanza(each)), each.number))
            self._bind(event, live)
            self._states[event.number - 1] = State.DONE
            self.matched += 1
            self.early += any(other.number < event.number and not other.optional for other in pending)
            if not in_turn:
                self._overtake(event, pending, shown)
            return Taken(event)
        return self._take_odd(session, live, shown, pending)

    def _take_odd(self, session: str, live: Node, shown: Node, pending: list[Event]) -> Taken:
        nearest, nearness = self._nearest(live, pending)
        doubled = self._consumed(session, live, with_its_id=True)
        if nearest is not None and nearness >= NEAR and doubled is None:
            found = tuple(differences(_stanza(nearest), live, self._context(nearest), shown))
            self._bind_id(nearest, live)
            self._states[nearest.number - 1] = State.CHANGED
            first = found[0] if found else None
            message = f"#{nearest.number} {one_line(_stanza(nearest), 60)}: {first}"
            return Taken(
                nearest,
                self._finding(
                    FailureKind.MISMATCH, session, message, event=nearest, differences=found, live=shown, score=nearness
                ),
            )
        consumed = doubled or self._consumed(session, live, with_its_id=False)
        if self.unexpected == "ignore":
            self.ignored += 1
            return Taken()
        message = f"{one_line(shown)} was not recorded"
        if consumed is not None:
            message = f"{one_line(shown)} came again: it was already consumed at #{consumed.number}"
        found = () if nearest is None else tuple(differences(_stanza(nearest), live, self._context(nearest), shown))
        return Taken(
            finding=self._finding(
                FailureKind.UNEXPECTED,
                session,
                message,
                live=shown,
                differences=found,
                score=nearness if nearest is not None else None,
                nearest=nearest,
                consumed=consumed,
            )
        )

    def _may_come(self, event: Event) -> bool:
        """Whether all ids of ours in it were said already: an answer does not come before its request."""
        return all(self._states[number - 1] is not State.PENDING for number in self._refers.get(event.number, ()))

    def _breaks(self, quiet: Event, live: Node) -> bool:
        return quiet.stanza is None or matches(quiet.stanza, live, self._context(quiet).trial())

    def _context(self, event: Event) -> Context:
        return Context(self.bindings, self._scope(event.session, self.theirs), self.clock(), self.contains)

    @staticmethod
    def _scope(session: str, side: Side) -> Scope:
        return (session, side.value)

    def _fits(self, event: Event, live: Node) -> bool:
        stanza = _stanza(event)
        return could_match(stanza, live) and matches(stanza, live, self._context(event).trial())

    def _bind(self, event: Event, live: Node) -> None:
        context = self._context(event)
        assert matches(_stanza(event), live, context)
        self.bindings = context.bindings

    def _bind_id(self, event: Event, live: Node) -> None:
        """Of a changed request the id is learnt all the same: it has to be answered."""
        context = self._context(event)
        wanted = _stanza(event).attributes.get("id")
        if wanted is not None and "id" in live.attributes:
            context.bindings.takes(wanted, live.attributes["id"], context.scope, context.now)

    def _nearest(self, live: Node, pending: list[Event]) -> tuple[Event | None, float]:
        best: tuple[tuple[bool, float], Event] | None = None
        alike = [event for event in pending if _stanza(event).tag == live.tag and self._may_come(event)]
        for event in alike[:CANDIDATES_MAX]:
            stanza = _stanza(event)
            # Requests are like requests of their type; an answer, result or error, is that to the same request.
            is_answer = self._is_answer_to_same(stanza, live)
            if (
                live.local == "iq"
                and not is_answer
                and (stanza.get("type") != live.get("type") or live.get("type") in ("result", "error"))
            ):
                continue
            rank = (is_answer, score(stanza, live, self._context(event)))
            if best is None or rank > best[0]:
                best = rank, event
        if best is None:
            return None, 0.0
        return best[1], max(best[0][1], NEAR) if best[0][0] else best[0][1]

    def _is_answer_to_same(self, stanza: Node, live: Node) -> bool:
        wanted = stanza.attributes.get("id")
        if live.local != "iq" or wanted is None or live.get("type") not in ("result", "error"):
            return False
        return self.bindings.render(wanted, ("", ""), self.clock(), lenient=True) == live.get("id")

    def _consumed(self, session: str, live: Node, *, with_its_id: bool) -> Event | None:
        """Return the event that already happened and that this stanza would be, with its id or one of its own."""
        for event in reversed(self.cassette.in_session(session)):
            if self.is_ours(event) or event.stanza is None or self.state(event) is not State.DONE:
                continue
            scope = self._scope(session, self.theirs)
            fresh = Bindings(jids=self.bindings.jids, secrets=self.bindings.secrets)
            bindings = self.bindings.copy() if with_its_id else fresh
            if with_its_id and "id" not in live.attributes:
                continue
            if matches(event.stanza, live, Context(bindings, scope, self.clock(), self.contains)):
                return event
        return None

    # Order.

    def _overtakes(self, event: Event, pending: list[Event]) -> bool:
        return bool(self._before(event, pending))

    def _before(self, event: Event, pending: list[Event]) -> list[Event]:
        """Return what of theirs has to come before ``event`` and has not."""
        lane = self._lane(event)
        return [
            other
            for other in pending
            if other.number < event.number
            and not other.optional
            and (event.order == "strict" or other.order == "strict" or (lane is not None and self._lane(other) == lane))
        ]

    @staticmethod
    def _lane(event: Event) -> tuple[str, str] | None:
        stanza = _stanza(event)
        if event.order == "any" or stanza.local == "iq":
            return None
        if event.side is Side.CLIENT:
            return ("client", "")
        return (stanza.local, stanza.get("from"))

    def _overtake(self, event: Event, pending: list[Event], shown: Node) -> None:
        for other in self._before(event, pending):
            message = (
                f"#{event.number} {one_line(shown, 60)} came before #{other.number} {one_line(_stanza(other), 60)}, "
                "which was recorded first"
            )
            finding = self._finding(FailureKind.MISMATCH, event.session, message, event=event, live=shown)
            self._overtaken.setdefault(other.number, []).append(finding)

    def settle_order(self) -> None:
        """At the end: what was overtaken and came all the same came in the wrong order."""
        for number, overtakers in sorted(self._overtaken.items()):
            if self._states[number - 1] is not State.PENDING:
                for finding in overtakers:
                    self._note(finding)
        self._overtaken.clear()

    # The end.

    def missing(self, session: str) -> list[Event]:
        """Return what of theirs should have come in the session and did not: stanzas, and a login."""
        return [
            event
            for event in self.pending(session)
            if not self.is_ours(event)
            and not event.optional
            and event.what in (What.STANZA, What.LOGIN, What.RESUME, What.CONNECT)
        ]

    def note_missing(self, session: str, why: str, *, left: bool = True) -> None:
        """Say of the session what did not come, because its peer ``left``, or while it was there."""
        missing = self.missing(session)
        self.missed |= {event.number for event in missing if event.what is What.STANZA}
        if not missing:
            return
        if not left and (cause := self._cause_elsewhere(missing[0])) is not None:
            event = missing[0]
            message = f"#{event.number} and what follows could not come: #{cause.number} of {cause.session} did not"
            self._note(self._finding(FailureKind.MISSING, session, message, event=event))
            return
        # Who did not come, or log in, said nothing either: that is one thing. Whose a connection is shows at its login.
        logins = [event for event in missing[:2] if event.what in (What.LOGIN, What.RESUME)]
        named = missing[:NAMED_MAX] if missing[0].what is What.STANZA else (logins or missing)[:1]
        for event in named:
            what = f"<{event.what.value}>" if event.stanza is None else one_line(event.stanza)
            self._note(
                self._finding(FailureKind.MISSING, session, f"#{event.number} {what} did not come: {why}", event=event)
            )
        if len(missing) > len(named) and named[0].what is What.STANZA:
            last = missing[-1]
            message = f"and {len(missing) - len(named)} more up to #{last.number} did not come"
            self._note(self._finding(FailureKind.MISSING, session, message, event=last))

    # Coming and leaving.

    def fact(
        self, kind: FailureKind, session: str, message: str, event: Event | None = None, *, met: Session | None = None
    ) -> None:
        """Note that a session was made, or left, otherwise than recorded. ``met``: how it would be right."""
        if met is not None:
            self.met[session] = met
        if self.lenient:
            self.remark(session, message)
        else:
            acceptable = met is not None or (event is not None and event.what in PARTINGS)
            self._note(attrs.evolve(self._finding(kind, session, message, event=event), acceptable=acceptable))

    def session(self, name: str) -> Session:
        """Return a session of the cassette, as far as it was met."""
        return self.met.get(name) or self.cassette.session(name)

    def remark(self, session: str, message: str) -> None:
        """Say what was let pass."""
        if len(self.noted) < NOTED_MAX:
            self.noted.append((session, message))

    def part(self, session: str, left: Left) -> None:
        """They left, for now or for good: was it so?"""
        event = self.next_of(session, What.CONNECT, *PARTINGS)
        if event is None or event.what is What.CONNECT:
            return  # nothing was recorded, or this parting was ours
        who = self.theirs.value
        if self.is_ours(event):
            if self.unsaid(session):
                return  # that is what is said of it (note_unsaid)
            self.fact(FailureKind.MISMATCH, session, partings.too_early(event, who, left), event)
            self.parted[event.number] = what_of(left)
        elif not event.optional and event.what is not what_of(left):
            self.fact(FailureKind.MISMATCH, session, partings.other_way(event, who, left), event)
            self.parted[event.number] = what_of(left)
        self.happened(event)

    def stayed(self, session: str, seconds: float) -> None:
        """They did not leave within ``seconds``."""
        event = self.next_of(session, *PARTINGS)
        if event is not None and not self.is_ours(event) and not event.optional:
            self.missed.add(event.number)
            message = partings.stayed(event, self.theirs.value, seconds)
            self.fact(FailureKind.MISSING, session, message, event)

    @property
    def awaits_parting(self) -> bool:
        """Whether somebody still has to leave."""
        return any(
            event.what in PARTINGS and not event.optional and not self.is_ours(event) for event in self.pending()
        )

    def missing_before_parting(self, session: str) -> bool:
        """Whether what they should have said before their next parting is missing: then that is what is said of it."""
        parting = self.next_of(session, What.CONNECT, *PARTINGS)
        missing = self.missing(session)
        return bool(missing) and (parting is None or missing[0].number < parting.number)

    def unsaid(self, session: str) -> list[Event]:
        """Return what of ours can no longer be said in the session: its peer has left."""
        return [
            event
            for event in self.pending(session)
            if self.is_ours(event)
            and event.what is What.STANZA
            and not event.optional
            and not self._waits_for_request(event)
        ]

    def blocker(self, event: Event) -> Event | None:
        """Return what of theirs an event of ours waits for."""
        for other in self.pending():
            if other.number < event.number and not self.is_ours(other) and not other.optional:
                return other
        return None

    def note_unsaid(self, session: str, left: Left) -> None:
        """Say of the session what its peer did not wait for."""
        unsaid = self.unsaid(session)
        for index, event in enumerate(unsaid[:NAMED_MAX], 1):
            stanza = one_line(_stanza(event))
            message = f"#{event.number} {stanza} was not said: the {self.theirs.value} {WAYS[left]}"
            more = f", and {len(unsaid) - NAMED_MAX} more" if index == NAMED_MAX < len(unsaid) else ""
            self.fact(FailureKind.STREAM, session, message + more, event)

    def _cause_elsewhere(self, event: Event) -> Event | None:
        """Return what of theirs did not come in another session, where their ``event`` would be a consequence.

        We had something to say before it that waits for that.
        """
        ours = next((each for each in self.unsaid(event.session) if each.number < event.number), None)
        cause = None if ours is None else self.blocker(ours)
        return cause if cause is not None and cause.session != event.session else None

    def skip_rest(self, session: str) -> None:
        """The session is over: nothing more happens in it."""
        for event in list(self.pending(session)):
            self._states[event.number - 1] = State.SKIPPED

    @property
    def is_over(self) -> bool:
        """Whether every stanza was said: what is left may happen or not (optional stanzas, partings)."""
        return not any(
            not event.optional and not (event.what in (What.CLOSE, What.DROP) and not self.is_ours(event))
            for event in self.pending()
            if not self._waits_for_request(event)
        )

    def note(self, kind: FailureKind, session: str, message: str, event: Event | None = None) -> None:
        """Note something the engine found."""
        self._note(self._finding(kind, session, message, event=event))

    def _note_slow(self, session: str) -> None:
        """Say which values were given up: what they stand for matches nothing any more."""
        patience = self.bindings.patience
        while self._slow < len(patience.given_up):
            value, chars = list(patience.given_up.items())[self._slow]
            self._slow += 1
            event = next((each for each in self.cassette.events if _holds(each, value)), None)
            message = (
                f"{one_line_of(value)} was given up: it took more than {patience.seconds_max:g} s on {chars} "
                "characters; write it without a repetition inside a repetition, and with fewer of .* in it"
            )
            self._note(
                attrs.evolve(self._finding(FailureKind.MISMATCH, session, message, event=event), acceptable=False)
            )

    def _note(self, finding: Finding) -> None:
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(finding)
        else:
            self.dropped_findings += 1

    def _finding(
        self,
        kind: FailureKind,
        session: str,
        message: str,
        *,
        event: Event | None = None,
        differences: tuple[Difference, ...] = (),
        live: Node | None = None,
        score: float | None = None,
        nearest: Event | None = None,
        consumed: Event | None = None,
    ) -> Finding:
        return Finding(
            kind=kind,
            session=session,
            message=message,
            event=event,
            differences=differences,
            live=live,
            score=score,
            nearest=nearest,
            consumed=consumed,
            history=self._recent(),
            bindings=self._known_bindings(event or nearest),
        )

    def _known_bindings(self, event: Event | None) -> tuple[tuple[str, str], ...]:
        """What the placeholders of an expectation stand for."""
        known = [(f"jid:{session}", jid) for session, jid in self.bindings.jids.items()]
        if event is not None and event.stanza is not None:
            text = repr(event.stanza)
            known += [
                (key, HIDDEN if key.startswith("url:") else value)  # the address of an upload holds what allows it
                for key, value in self.bindings.values.items()
                if f"${{{key}}}" in text
            ]
        return tuple(known)

    def _remember(self, side: Side, session: str, number: int | None, what: Node | str) -> None:
        self._clock_ticks += 1
        text = what if isinstance(what, str) else one_line(hide(what, bodies=self.cassette.meta.bodies == "hidden"), 90)
        place = "" if number is None else f"#{number} "
        self._history[side].append(f"{self._clock_ticks:04d}{side.value[0].upper()} {session}: {place}{text}")

    def _recent(self) -> tuple[str, ...]:
        """The last events of both sides, oldest first."""
        lines = sorted(line for side in Side for line in self._history[side])
        return tuple(f"{line[4]}{line[5:]}" for line in lines)


def _stanza(event: Event) -> Node:
    assert event.stanza is not None
    return event.stanza


def _holds(event: Event, value: str) -> bool:
    return event.stanza is not None and any(
        value in each.attributes.values() or value in each.content for each in event.stanza.iter()
    )


def _answers_of(cassette: Cassette) -> dict[int, int]:
    """Map each iq result and error to the request of the other side that it answers."""
    requests: dict[tuple[str, Side, str], int] = {}
    answers: dict[int, int] = {}
    for event in cassette.events:
        stanza = event.stanza
        if event.what is not What.STANZA or stanza is None or stanza.local != "iq" or "id" not in stanza.attributes:
            continue
        if stanza.get("type") in ("get", "set"):
            requests[event.session, event.side, stanza.get("id")] = event.number
        else:
            other = Side.SERVER if event.side is Side.CLIENT else Side.CLIENT
            request = requests.get((event.session, other, stanza.get("id")))
            if request is not None:
                answers[event.number] = request
    return answers


def _references_of(cassette: Cassette) -> dict[int, frozenset[int]]:
    """Map each stanza to the stanzas of the other side in which its ids stand first."""
    first: dict[str, Event] = {}
    found: dict[int, frozenset[int]] = {}
    for event in cassette.events:
        if event.stanza is None or event.what is not What.STANZA:
            continue
        keys = {
            part.key
            for node in event.stanza.iter()
            for value in (*node.attributes.values(), *(item for item in node.content if isinstance(item, str)))
            for part in parse_template(value)
            if isinstance(part, Placeholder) and part.kind in BOUND
        }
        origins = [first.setdefault(key, event) for key in sorted(keys)]
        numbers = frozenset(origin.number for origin in origins if origin.side is not event.side)
        if numbers:
            found[event.number] = numbers
    return found
