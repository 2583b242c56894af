"""[journal]: the log that proves itself, under the state directory."""

import attrs

from xproxy.config.setting import setting

MEBIBYTE = 1024 * 1024


@attrs.frozen(kw_only=True)
class JournalSettings:
    """How the journal is cut into files and how much of the disk it may count on."""

    segment_bytes_max: int = setting(
        64 * MEBIBYTE, "bytes", "of one file; about 60 000 records: what a start reads, and what retention will remove"
    )
    segment_seconds_max: int = setting(3_600, "seconds", "a file is closed at this age, also when it is small")
    heartbeat_seconds: int = setting(
        60, "seconds", "a signed record comes this often even when nothing happens: silence is then a failure"
    )
    records_max: int = setting(
        65_536, "records", "waiting for the disk, about 64 MiB; above three quarters no session is read"
    )
    ballast_bytes: int = setting(
        64 * MEBIBYTE, "bytes", "kept free for the end: given up when the disk is full, so that this can be recorded"
    )
