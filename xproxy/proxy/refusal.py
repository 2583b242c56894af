"""Why somebody does not come in, on the way to the record of it."""

import attrs

from xproxy.config.address import HostPort
from xproxy.events.connection import RefusalReason


@attrs.frozen
class Refusal:
    """What is said about one that is turned away."""

    reason: RefusalReason
    limit: int | None = None  # the value of the limit that was reached
    detail: str | None = None  # a constant phrase


@attrs.define(eq=False)
class Refused(Exception):  # noqa: N818 - a fact for the listener, which records it
    """The way in ends here."""

    reason: RefusalReason
    limit: int | None = None
    detail: str | None = None
    destination: HostPort | None = None  # where the client wanted to go

    @property
    def refusal(self) -> Refusal:
        """What it says."""
        return Refusal(self.reason, self.limit, self.detail)
