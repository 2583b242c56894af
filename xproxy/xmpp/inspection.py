"""What could not be inspected and which limits were reached: what is said of it, and what policy lets go on.

Before the session is established nobody is relayed blindly. Afterwards a refused element costs only itself; where the
rest of a direction cannot be read, ``on_inspection_lost_client`` and ``on_inspection_lost_server`` decide.
"""

from xproxy.config.stream import StreamPolicy
from xproxy.events import Side
from xproxy.events.connection import CloseCause
from xproxy.events.proxy import LimitReached
from xproxy.events.stream import InspectionLost, LossScope, StreamViolation
from xproxy.xmpp.course import Course
from xproxy.xmpp.direction import Direction
from xproxy.xmpp.items import StreamLimit, Violation
from xproxy.xmpp.violation import Severity


class Inspection:
    """The eyes of one session."""

    __slots__ = ("_client", "_course", "_policy", "_server", "refused_at_ns")

    def __init__(self, *, course: Course, client: Direction, server: Direction, policy: StreamPolicy) -> None:
        self._course = course
        self._client = client
        self._server = server
        self._policy = policy
        self.refused_at_ns: int | None = None  # the server sent what is no XML to us, and perhaps not to the client

    def violation(self, direction: Direction, item: Violation, at_ns: int) -> None:
        """``direction`` broke a rule."""
        kind = item.kind.value
        self._course.observe(StreamViolation(sent_by=direction.side, kind=kind, offset=item.offset))
        if item.severity is Severity.NOTE:
            return
        if direction is self._server:
            self.refused_at_ns = at_ns
        scope = LossScope.ELEMENT if item.severity is Severity.ELEMENT else LossScope.STREAM
        self._lose(direction, scope, kind, item.offset, item.octets, self._policy_of(direction, scope))

    def lost(self, direction: Direction, reason: str, offset: int) -> None:
        """The rest of ``direction`` must not be read as what it seems to be."""
        self._lose(direction, LossScope.STREAM, reason, offset, None, self._policy_of(direction, LossScope.STREAM))

    def unreadable(self, reason: str, offset: int) -> None:
        """Both peers agreed on something we cannot read: from here on bytes pass unseen, loudly.

        Also before the session is established, where one peer's oddity alone would close it: compression comes before
        binding (XEP-0138), and neither peer hides behind what both have asked for. ``offset`` is the server's.
        """
        policy = self._policy.on_inspection_lost_server
        self._observe(self._server, LossScope.STREAM, reason, offset, None, policy)
        self._observe(self._client, LossScope.STREAM, reason, self._client.reader.offset, None, policy)
        if policy == "close":
            self._course.close(CloseCause.INSPECTION_LOST, Side.SERVER)
            return
        self._client.opaque = self._server.opaque = True
        self._course.end_due_ns = None  # a deadline needs eyes

    def limit(self, direction: Direction, item: StreamLimit) -> None:
        """``direction`` reached a limit."""
        self._course.observe(
            LimitReached(
                limit=item.limit, value=item.value, sent_by=direction.side, offset=item.offset, closes=item.closes
            )
        )
        if item.closes:
            self._course.close(CloseCause.LIMIT_REACHED, None)

    def _policy_of(self, direction: Direction, scope: LossScope) -> str:
        if not self._course.established:
            return "close"
        if scope is LossScope.ELEMENT:
            return "relay"
        if direction is self._client:
            return self._policy.on_inspection_lost_client
        return self._policy.on_inspection_lost_server

    def _lose(
        self, direction: Direction, scope: LossScope, reason: str, offset: int, octets: int | None, policy: str
    ) -> None:
        self._observe(direction, scope, reason, offset, octets, policy)
        if policy == "close":
            self._course.close(CloseCause.INSPECTION_LOST, direction.side)
        elif scope is LossScope.STREAM:
            direction.opaque = True

    def _observe(
        self, direction: Direction, scope: LossScope, reason: str, offset: int, octets: int | None, policy: str
    ) -> None:
        self._course.observe(
            InspectionLost(
                sent_by=direction.side, scope=scope, reason=reason, offset=offset, octets=octets, policy=policy
            )
        )
