"""[control]: the socket by which a running proxy is asked and told (STATE/control.sock)."""

import attrs

from xproxy.config.setting import setting


@attrs.frozen(kw_only=True)
class ControlSettings:
    """The control socket, and what one who may use it can keep busy by mistake."""

    enabled: bool = setting(
        True, "true or false", "false where the state directory's file system has no sockets; signals remain"
    )
    request_bytes_max: int = setting(65_536, "bytes", "of a request's body; the largest one we send has under 1 KiB")
    request_seconds_max: float = setting(
        10.0,
        "seconds",
        "for a request to arrive, and again for its answer to be taken; both are at once on one machine",
    )
    connections_max: int = setting(32, "connections", "at once; each command is one, for as long as its answer takes")
