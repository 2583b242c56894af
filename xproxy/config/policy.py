"""[policy]: what happens where watching and talking pull apart."""

from typing import Literal

import attrs

from xproxy.config.setting import setting

OnInspectionLost = Literal["relay", "close"]
OnJournalFailure = Literal["degrade", "stop"]


@attrs.frozen(kw_only=True)
class PolicySettings:
    """What happens when a stream can no longer be inspected, or the log not be written.

    Before login a stream that cannot be inspected is always closed.
    """

    on_inspection_lost_client: OnInspectionLost = setting(
        "close", "relay or close", "a client that cannot be read could hide anything behind it"
    )
    on_inspection_lost_server: OnInspectionLost = setting(
        "relay", "relay or close", "another user's odd stanza must not end its receiver's session; said loudly"
    )
    on_journal_failure: OnJournalFailure = setting(
        "degrade",
        "degrade or stop",
        "the disk is full or broken: degrade goes on, counts what is not kept and says so in the log later; "
        "stop ends the proxy",
    )
