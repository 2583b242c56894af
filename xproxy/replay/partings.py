"""How peers leave, in words. A stream that is closed in form (RFC 6120 section 4.4) is over; one that just ends is not:
the session may be resumed (XEP-0198 section 5), and what was on its way may be lost.
"""

from collections.abc import Mapping
from typing import Final, Literal

from xproxy.capture.cassette import Event, What

PARTINGS: Final = (What.CLOSE, What.DROP)
Left = Literal["closed", "ended", "reset"]
"""With </stream:stream>; at the end of its input (close_notify, FIN); by RST."""

WAYS: Final[Mapping[Left, str]] = {
    "closed": "closed its stream",
    "ended": "left without </stream:stream>: its connection ended",
    "reset": "left without </stream:stream>: its connection was reset",
}
_RECORDED: Final = {What.CLOSE: "that it closed its stream", What.DROP: "that it left without </stream:stream>"}


def what_of(left: Left) -> What:
    """Return the event that a parting is."""
    return What.CLOSE if left == "closed" else What.DROP


def other_way(event: Event, who: str, left: Left) -> str:
    """Say that ``who`` left in another way than recorded."""
    return f"{_name(event)}: the {who} {WAYS[left]}; recorded was {_RECORDED[event.what]}"


def too_early(event: Event, who: str, left: Left) -> str:
    """Say that ``who`` left where we should have left."""
    return f"{_name(event)}: the {who} {WAYS[left]}; recorded was that we left first"


def stayed(event: Event, who: str, seconds: float) -> str:
    """Say that ``who`` did not leave."""
    return (
        f"{_name(event)} did not come: the {who} was still connected after {seconds:g} s; let it leave, "
        'or write optional="yes" at that parting'
    )


def _name(event: Event) -> str:
    return f"#{event.number} <{event.what.value}/>"
