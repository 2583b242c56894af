"""[policy]: what happens where watching and talking pull apart."""

from typing import Literal

import attrs

from xproxy.config.setting import setting

OnInspectionLost = Literal["relay", "close"]
OnJournalFailure = Literal["degrade", "stop"]
OnClientReject = Literal["close", "passthrough"]


@attrs.frozen(kw_only=True)
class PolicySettings:
    """What happens when a stream cannot be inspected, the log not be written, or a client does not accept us.

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
    on_client_reject: OnClientReject = setting(
        "close",
        "close or passthrough",
        "a client refuses our certificate: close has it fail until it trusts us; passthrough relays its later "
        "connections undecrypted for a while and records each as tls-passthrough: nothing else is known of them",
    )
    passthrough_seconds: float = setting(
        3_600.0,
        "seconds",
        "from the refusal on; afterwards the client is asked again, which costs it one failed connection an hour",
    )
    passthrough_max: int = setting(
        1_000, "clients", "remembered at once, about 1 KiB each; above it the oldest makes room and is asked again"
    )
    passthrough_per_address_max: int = setting(
        16, "clients", "of one address (IPv6: one /64): kinds of client times domains; keeps a stranger to his own room"
    )
