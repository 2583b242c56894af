"""[log]: where records go and which are shown."""

from typing import Literal

import attrs

from xproxy.config.setting import setting


@attrs.frozen(kw_only=True)
class LogSettings:
    """Where records go and which of them."""

    path: str = setting(
        "-",
        "path or -",
        "-: standard output; a path: JSON Lines are appended there (0600), and a terminal shows the human view as well",
    )
    format: Literal["auto", "human", "json"] = setting(
        "auto", "auto, human or json", "what standard output shows; auto: human on a terminal, JSON Lines when piped"
    )
    level: Literal["debug", "info", "warning", "error", "critical"] = setting(
        "info", "level", "records below it are not written; debug adds a record a stanza; read anew on SIGHUP"
    )
    server_text: bool = setting(
        True, "true or false", "the server's own error texts, cleaned and cut to 256 bytes; a client's are never logged"
    )
    records_max: int = setting(
        65_536, "records", "records waiting for the writer, about 64 MiB; above three quarters no session is read"
    )
