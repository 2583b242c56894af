"""[log]: where records go and which are shown."""

from pathlib import Path
from typing import Literal

import attrs

from xproxy.config.setting import setting


@attrs.frozen(kw_only=True)
class LogSettings:
    """Where records go and which of them."""

    path: Path | None = setting(
        None,
        "path",
        "JSON Lines are appended to this file (0600), a terminal shows the human view as well; "
        "without it, or with -, records go to standard output",
        example="/var/log/xproxy/records.jsonl",
    )
    format: Literal["auto", "human", "json"] = setting(
        "auto", "auto, human or json", "what standard output shows; auto: human on a terminal, JSON Lines when piped"
    )
    level: Literal["debug", "info", "warning", "error", "critical"] = setting(
        "info", "level", "records below it are not written; debug adds a record a stanza; read anew on SIGHUP"
    )
    identities: Literal["clear", "pseudonym", "omit"] = setting(
        "clear",
        "clear, pseudonym or omit",
        "who is who: pseudonym makes keyed hashes of users and resources and cuts addresses to /24 and /48, its key is "
        "replaced every month; omit leaves JIDs and addresses out; both leave out error texts",
    )
    server_text: bool = setting(
        True, "true or false", "the server's own error texts, cleaned and cut to 256 bytes; a client's are never logged"
    )
    records_max: int = setting(
        65_536, "records", "records waiting for the writer, about 64 MiB; above three quarters no session is read"
    )
