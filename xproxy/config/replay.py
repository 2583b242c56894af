"""How ``xproxy replay server`` and ``client`` and the pytest plugin go about it: deadlines, pace, limits.

No section of the configuration file: a replay is told by options (--step-seconds ...) and by the marker of a test.
"""

from typing import Literal

import attrs

from xproxy.config.setting import setting


@attrs.frozen(kw_only=True)
class ReplaySettings:
    """Deadlines, pace, and what is let pass."""

    step_seconds: float = setting(
        5.0, "seconds", "to the next stanza, once somebody is there; a loaded CI machine takes one or two"
    )
    total_seconds: float = setting(
        60.0, "seconds", "for the whole replay, and for the first peer to come: clients are started after the server"
    )
    linger_seconds: float = setting(
        1.0, "seconds", "after the last stanza, for what should not come, where no parting was recorded"
    )
    close_seconds_max: float = setting(
        2.0, "seconds", "from our closing tag to the peer's; clients, ejabberd and Prosody answer at once"
    )
    gap_seconds_max: float = setting(
        2.0, "seconds", 'with pace "recorded" longer pauses are cut, or a test would wait as long as a person did'
    )
    pace: Literal["fast", "recorded"] = setting("fast", "fast or recorded", "fast: only causes are waited for")
    unexpected: Literal["fail", "ignore"] = setting(
        "fail", "fail or ignore", "what to do about stanzas that were not recorded"
    )
    lenient: bool = setting(
        False,
        "true or false",
        "true: how a session is made and left (TLS, SASL mechanism, stream management, features, parting) is noted in "
        "the report where it differs, and is no failure",
    )
    match_seconds_max: float = setting(
        1.0,
        "seconds of CPU",
        "for one value with placeholders in the whole replay, counted where it takes more than 1 ms: a pattern that "
        "backtracks without end would hold up everything, and one of use takes microseconds",
    )
