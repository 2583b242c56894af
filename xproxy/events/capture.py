"""Copies of traffic and of TLS keys that the proxy makes when it is told to: said loudly, for whoever reads the log."""

import attrs

from xproxy.events.common import EventBase, Level


@attrs.frozen(kw_only=True)
class CaptureStarted(EventBase):
    """Sessions are captured from now on: what they say is written to files, without secrets."""

    action = "capture-started"
    level = Level.WARNING
    message = "Sessions are captured."

    directory: str
    bodies: bool  # True: what people say to each other is in the captures
    jid: str | None = None  # only sessions of this account
    net: str | None = None  # only clients of this network
    actions: tuple[str, ...] = ()  # only sessions in which one of these is recorded
    by_uid: int | None = None  # who asked for it at the control socket
    by_pid: int | None = None


@attrs.frozen(kw_only=True)
class CaptureStopped(EventBase):
    """Sessions are not captured any more; those under way are cut off. Traffic goes on."""

    action = "capture-stopped"
    level = Level.WARNING
    message = "Sessions are no longer captured."

    reason: str  # "asked", "shutdown", "size-limit", "disk", "internal-error"
    problem: str | None = None  # the system's words
    sessions: int  # with a file
    sessions_lost: int  # cut off by a limit, or because the disk was too slow
    bytes: int
    by_uid: int | None = None
    by_pid: int | None = None


@attrs.frozen(kw_only=True)
class KeylogOpened(EventBase):
    """The keys of all TLS sessions are written to a file: whoever has it and the packets can read everything."""

    action = "keylog-opened"
    level = Level.WARNING
    message = "TLS session keys are written to a file."

    path: str
