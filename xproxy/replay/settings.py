"""How a replay goes about it, the same as server and as client."""

from typing import Final, Literal

import attrs

STEP_SECONDS: Final = 5.0  # to the next stanza, once somebody is there: a loaded CI machine takes one or two
TOTAL_SECONDS: Final = 60.0
GAP_SECONDS_MAX: Final = (
    2.0  # with pace "recorded": longer pauses are cut, or a test would wait as long as a person did
)
LINGER_SECONDS: Final = 1.0  # after the last stanza, for what should not come, where no parting was recorded


@attrs.frozen(kw_only=True)
class ReplaySettings:
    """Deadlines and pace."""

    step_seconds: float = STEP_SECONDS
    total_seconds: float = TOTAL_SECONDS
    pace: Literal["fast", "recorded"] = "fast"  # fast: only causes are waited for
    gap_seconds_max: float = GAP_SECONDS_MAX
    linger_seconds: float = LINGER_SECONDS
    unexpected: Literal["fail", "ignore"] = "fail"
