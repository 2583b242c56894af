"""[sessions]: how many sessions there may be, and how long each step of one may take."""

from typing import Final

import attrs

from xproxy.config.setting import setting

DESCRIPTORS_OWN: Final = 64
"""Open files for ourselves: log, journal, epoll, listeners, certificates, name look-ups. Each session has two."""


@attrs.frozen(kw_only=True)
class SessionLimits:
    """Limits of sessions: their number, and the time for what a peer may keep us waiting for."""

    sessions_max: int = setting(
        10_000, "sessions", "two descriptors and about 80 KiB each; the number one machine was tested with"
    )
    sessions_per_address_max: int = setting(
        1_000, "sessions", "one client address (IPv6: one /64) cannot take them all; a NAT or a test rig fits in"
    )
    first_byte_seconds_max: float = setting(
        20.0, "seconds", "the client speaks first, at once; whoever only connects holds a descriptor for nothing"
    )
    header_seconds_max: float = setting(
        20.0, "seconds", "with upstream srv, from the first byte until the stream header or the ClientHello is whole"
    )
    header_bytes_max: int = setting(
        8_192, "bytes", "with upstream srv, up to the end of the first stream header; those of clients have under 400"
    )
    hello_bytes_max: int = setting(
        65_536, "bytes", "a ClientHello is 0.3 to 2 KiB, with post-quantum keys and ECH under 4"
    )
    connect_seconds_max: float = setting(
        8.0, "seconds", "three SYNs (0, 1, 3 s) and a margin; clients themselves give up after 10 to 30"
    )
    handshake_seconds_max: float = setting(
        20.0, "seconds", "from the word to begin until TLS is up on both legs; a slow mobile link needs 5"
    )
    negotiation_seconds_max: float = setting(
        300.0, "seconds", "from accept until the session is established; Prosody's c2s_timeout, people type passwords"
    )
    stall_seconds_warn: float = setting(
        30.0, "seconds", "a peer that takes no byte this long is reported; the other side is not read meanwhile"
    )
    stall_seconds_max: float = setting(180.0, "seconds", "then the session is closed; Prosody's send_timeout")
    close_seconds_max: float = setting(
        5.0, "seconds", "for sending what was read before the end and ending TLS in form; Prosody's c2s_close_timeout"
    )
    keepalive_seconds: int = setting(
        300, "seconds", "TCP keepalive on both legs after this silence; finds dead peers, keeps NAT entries alive"
    )
    drain_seconds: float = setting(
        30.0, "seconds", "sessions may end by themselves before they are dropped so that clients can resume"
    )
    names_per_address_max: int = setting(
        20_000,
        "names",
        "new XML names that strangers of one client address (IPv6: one /64) may bring; 50 would fill names_total_max",
    )
    names_total_max: int = setting(
        1_000_000,
        "names",
        "about 150 bytes each; above it they are given up and logins under way end, or the proxy drains and exits",
    )
