"""[tls]: the certificate that clients see."""

from pathlib import Path

import attrs

from xproxy.config.setting import setting


@attrs.frozen(kw_only=True)
class TlsSettings:
    """The certificate that clients see: the server's own files, or leaves minted by the local CA (STATE/ca.pem)."""

    certificate_file: Path | None = setting(
        None,
        "PEM file",
        "the server's real chain, leaf first; with it tls-server-end-point channel binding survives",
        example="/etc/xproxy/cert.pem",
    )
    key_file: Path | None = setting(
        None, "PEM file", "the key of certificate_file; both or neither", example="/etc/xproxy/key.pem"
    )
    leaves_max: int = setting(1_000, "certificates", "minted leaves kept in the state directory, one a domain")
    keylog_file: Path | None = setting(
        None,
        "file",
        "the keys of every TLS session are appended to this file (0600), for Wireshark; who has it and the packets can "
        "read all, so the log and stderr say it loudly. For tests",
        example="/run/xproxy/keys.log",
    )
