"""[capture]: which sessions are written down for replay, where, and how much of them."""

from pathlib import Path

import attrs

from xproxy.config.setting import setting


@attrs.frozen(kw_only=True)
class CaptureSettings:
    """Captures: sessions as they were said, without secrets, one file each."""

    directory: Path | None = setting(
        None,
        "directory",
        "captures are written here (files 0600), one a session; without it nothing is captured until "
        "`xproxy capture start`",
        example="/var/lib/xproxy/captures",
    )
    jid: str | None = setting(
        None, "bare JID", "only sessions of this account, also claimed ones", example="romeo@example.org"
    )
    net: str | None = setting(None, "address or network", "only clients of this network", example="192.0.2.0/24")
    actions: str | None = setting(
        None,
        "event actions, separated by commas",
        "only sessions in which one of these is recorded; what came before it is kept in a ring",
        example="sasl-failed,stanza-error",
    )
    ring_bytes: int = setting(
        1_048_576,
        "bytes",
        "of a session kept in memory until it is known whether it is wanted; a login has 20 KB, an hour of chat 100",
        validator=attrs.validators.ge(4_096),
    )
    bodies: bool = setting(
        False, "true or false", "true: what people say to each other is written too; the log says so. Never secrets"
    )
    session_bytes_max: int = setting(
        67_108_864, "bytes", "of one file; then that capture is cut off, and the session goes on"
    )
    total_bytes_max: int = setting(
        1_073_741_824, "bytes", "of all captures of one run; then capturing ends with a record, and traffic goes on"
    )
    memory_bytes_max: int = setting(
        268_435_456, "bytes", "of all rings together; above it the ring of the session that grows is emptied"
    )
    waiting_bytes_max: int = setting(
        4_194_304,
        "bytes",
        "of a session that wait for an element to be complete: only then it can be redacted. Four of the largest; "
        "a peer that never completes one has its capture cut off",
    )
    queue_bytes_max: int = setting(
        16_777_216, "bytes", "waiting for the disk; a session for which there is no room is cut off, and counted"
    )

    @property
    def trigger_actions(self) -> tuple[str, ...]:
        """The actions one by one."""
        return tuple(part for part in (self.actions or "").replace(",", " ").split() if part)
