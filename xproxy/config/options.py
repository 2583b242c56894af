"""Which option of ``xproxy run`` and which environment variable set which key of the configuration.

One scheme: ``--log-level`` is ``XPROXY_LOG_LEVEL`` is ``level`` in ``[log]``. The command line beats the environment,
which beats the file.
"""

import attrs


@attrs.frozen
class Option:
    """One key of the configuration that can be set without a file."""

    flag: str  # "--log-level"
    section: str
    key: str

    @property
    def variable(self) -> str:
        """The environment variable: the flag in capitals."""
        return "XPROXY_" + self.flag.removeprefix("--").replace("-", "_").upper()

    @property
    def parameter(self) -> str:
        """The name under which the command line hands it over."""
        return self.flag.removeprefix("--").replace("-", "_")


OPTIONS = (
    Option("--listen", "listen", "addresses"),
    Option("--trusted", "listen", "trusted"),
    Option("--upstream", "upstream", "address"),
    Option("--domain", "upstream", "domain"),
    Option("--upstream-ca", "upstream", "ca_file"),
    Option("--upstream-verify", "upstream", "verify"),
    Option("--upstream-tls", "upstream", "tls"),
    Option("--upstream-proxy-protocol", "upstream", "proxy_protocol"),
    Option("--cert", "tls", "certificate_file"),
    Option("--key", "tls", "key_file"),
    Option("--state", "state", "directory"),
    Option("--log", "log", "path"),
    Option("--log-format", "log", "format"),
    Option("--log-level", "log", "level"),
    Option("--identities", "log", "identities"),
    Option("--capture", "capture", "directory"),
    Option("--capture-jid", "capture", "jid"),
    Option("--capture-ip", "capture", "net"),
    Option("--capture-on", "capture", "actions"),
    Option("--capture-ring", "capture", "ring_bytes"),
    Option("--capture-bodies", "capture", "bodies"),
    Option("--keylog", "tls", "keylog_file"),
)


@attrs.frozen
class Credential:
    """A file that systemd hands over (LoadCredential=, systemd.exec(5)), and the key that names it."""

    name: str  # in $CREDENTIALS_DIRECTORY
    section: str
    key: str


CREDENTIALS = (
    Credential("cert.pem", "tls", "certificate_file"),
    Credential("key.pem", "tls", "key_file"),
    Credential("upstream-ca.pem", "upstream", "ca_file"),
)

CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"  # set by systemd
CONFIG_VARIABLE = "XPROXY_CONFIG"  # as -c
READY_FILE_VARIABLE = "XPROXY_READY_FILE"  # as --ready-file; no key of the configuration: it belongs to one start
