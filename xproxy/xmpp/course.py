"""Where a session stands, and what the input at hand leads to: the state that the parts of a session act on."""

from collections.abc import Iterable
from typing import Final

from xproxy.events import EndOfInput, Event, Level, Side
from xproxy.events.connection import CloseCause
from xproxy.xmpp.actions import Action, Close, Forward, Observe, Wake
from xproxy.xmpp.phases import NEXT, Phase, Step

NS_PER_SECOND: Final = 1_000_000_000


class Course:
    """The phase, the end's deadline, and the actions of one input in their order."""

    __slots__ = (
        "_debug",
        "_follows",
        "actions",
        "cause",
        "end_due_ns",
        "established",
        "first_closing",
        "initiator",
        "next_tick_ns",
        "phase",
        "records_left",
    )

    def __init__(self, phase: Phase, *, end_due_ns: int, records_max: int, debug: bool) -> None:
        """``records_max`` are those a stranger may make, ``debug``: whether debug events are wanted."""
        self.phase = phase
        self.established = False  # stanzas may flow
        self.end_due_ns: int | None = end_due_ns
        self.next_tick_ns: int | None = end_due_ns  # may be early, never late
        self.records_left = records_max
        self._debug = debug
        self.cause: CloseCause | None = None  # the session is closed
        self.initiator: Side | None = None
        self.first_closing: Side | None = None  # whose closing tag came first
        self.actions: list[Action] = []  # what this input made us observe ...
        self._follows: list[Action] = []  # ... and what follows its bytes

    @property
    def is_over(self) -> bool:
        """Whether the relay was told to close."""
        return self.phase is Phase.CLOSED

    def step(self, step: Step) -> None:
        """Go on to the next phase."""
        self.phase = NEXT[self.phase, step]

    def close(self, cause: CloseCause, initiator: Side | None, how: EndOfInput = EndOfInput.TRUNCATED) -> None:
        """End the session."""
        self.step(Step.CLOSE)
        self.cause = cause
        self.initiator = initiator
        self.next_tick_ns = None
        self._follows.append(Close(cause=cause, initiator=initiator, how=how))

    # Deadlines --------------------------------------------------------------------------------------------------

    def end_after(self, at_ns: int, seconds: float) -> None:
        """The session is to end ``seconds`` after ``at_ns``, if nothing changes that. Arm it."""
        self.end_due_ns = at_ns + int(seconds * NS_PER_SECOND)

    def await_tick(self, due_ns: int | None) -> None:
        """Wait for the end's deadline or for ``due_ns``, whichever comes first."""
        self.next_tick_ns = self._first(due_ns)

    def arm(self, due_ns: int | None) -> None:
        """See that ``tick`` comes in time. The relay is told of an earlier deadline, never of a later one."""
        first_ns = self._first(due_ns)
        if first_ns is not None and (self.next_tick_ns is None or first_ns < self.next_tick_ns):
            self.next_tick_ns = first_ns
            self.actions.append(Wake())

    def _first(self, due_ns: int | None) -> int | None:
        if due_ns is None or self.end_due_ns is None:
            return due_ns or self.end_due_ns
        return min(due_ns, self.end_due_ns)

    # The turn ---------------------------------------------------------------------------------------------------

    def observe(self, event: Event) -> None:
        """Record ``event``, if somebody wants it."""
        if event.level > Level.DEBUG:
            self.records_left -= 1
        elif not self._debug:
            return
        self.actions.append(Observe(event))

    def observe_all(self, events: Iterable[Event]) -> None:
        """Record ``events`` in their order."""
        for event in events:
            self.observe(event)

    def follow(self, *actions: Action) -> None:
        """Do ``actions`` when the bytes of this input are sent."""
        self._follows += actions

    def take_back(self) -> None:
        """Do nothing of what was to follow."""
        self._follows.clear()

    def taken(self, data: bytes = b"") -> list[Action]:
        """Return the turn's actions in order: observations, the bytes, what follows them."""
        actions = self.actions
        if data:
            actions.append(Forward(data))
        actions += self._follows
        self.actions = []
        self._follows = []
        return actions
