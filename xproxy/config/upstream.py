"""[upstream]: the real server behind the proxy."""

from pathlib import Path
from typing import Literal

import attrs

from xproxy.config.address import HostPort
from xproxy.config.setting import setting


@attrs.frozen(kw_only=True)
class UpstreamSettings:
    """The real server behind the proxy, and how far it is believed."""

    address: HostPort | None = setting(
        None, "HOST:PORT", "the server every client is connected to; needed to run", example="xmpp.example.org:5222"
    )
    domain: str | None = setting(
        None,
        "XMPP domain",
        "the name to verify and to present where a client names none; without it each stream's own 'to' is used",
        example="example.org",
    )
    verify: Literal["full", "none"] = setting(
        "full",
        "full or none",
        "full: the certificate must be valid for the XMPP domain; none: any is taken, and every session's log says so",
    )
    ca_file: Path | None = setting(
        None,
        "PEM file",
        "who may sign the server's certificate; without it the system's authorities",
        example="/etc/xproxy/upstream-ca.pem",
    )
