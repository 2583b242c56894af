"""Patterns tried on what a peer sent, with an end to it.

``${any:REGEX}`` is whatever the author of a cassette wrote, and what it is tried on is whatever the peer sent: nested
repetitions, and several ``.*`` in one value, backtrack for ever on the right text, and while they do nothing else runs,
no deadline either. ``re`` cannot be stopped; ``regex`` (the same syntax) looks at the clock while it matches. A value
that has used up its time is given up: it matches nothing any more, and the report says so (``Playback``).
"""

import functools
import time
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    import regex

_COUNTED_SECONDS: Final = 0.001  # faster ones are not counted: there are as many as stanzas


@attrs.define
class Patience:
    """The time that values with placeholders have left, in one replay."""

    seconds_max: float
    given_up: dict[str, int] = attrs.field(factory=dict)  # value -> characters of what it was tried on
    _spent: dict[str, float] = attrs.field(factory=dict)

    def fullmatch(self, value: str, pattern: str, text: str) -> "regex.Match[str] | None":
        """Match the whole of ``text``; None too once ``value``, which ``pattern`` is of, has had its time."""
        if value in self.given_up:
            return None
        spent = self._spent.get(value, 0.0)
        began = time.thread_time()
        try:
            found = _compiled(pattern).fullmatch(text, timeout=self.seconds_max - spent)
        except TimeoutError:
            self.given_up[value] = len(text)
            return None
        if (took := time.thread_time() - began) > _COUNTED_SECONDS:
            self._spent[value] = spent + took
            if spent + took >= self.seconds_max:
                self.given_up[value] = len(text)
        return found


@functools.lru_cache(maxsize=4_096)
def _compiled(pattern: str) -> "regex.Pattern[str]":
    import regex  # here: it is 7 ms of a start, and most who import this module match nothing

    return regex.compile(pattern, regex.DOTALL | regex.VERSION0)
