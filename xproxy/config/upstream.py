"""[upstream]: the real server behind the proxy."""

import enum
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import attrs

from xproxy.config.address import HostPort
from xproxy.config.setting import setting
from xproxy.jid import is_ip_address

DNS_PORT: Final = 53  # RFC 1035 section 4.2


class UpstreamFrom(enum.Enum):
    """What says where a session's server is, when it is not one address for all."""

    SRV = "srv"
    """The DNS, asked for the XMPP domain that the client names (RFC 6120 section 3.2, XEP-0368)."""

    ORIGINAL = "original"
    """The packet filter that redirected the connection to us: its original destination."""

    def __str__(self) -> str:
        """Return the word of the configuration."""
        return self.value


UpstreamAddress = HostPort | UpstreamFrom

UpstreamTls = Literal["same", "starttls", "direct", "none"]
UpstreamProxyProtocol = Literal["none", "v1", "v2"]


def parse_upstream(text: str) -> UpstreamAddress:
    """Return what ``--upstream`` says: ``HOST:PORT``, ``srv`` or ``original``.

    Raises:
        ValueError: with a sentence that says what to write instead.
    """
    for word in UpstreamFrom:
        if text.lower() == word.value:
            return word
    return HostPort.from_text(text)


def parse_nameserver(text: str) -> HostPort:
    """Return the name server in ``text``: ``192.0.2.53``, ``192.0.2.53:5353``, ``[2001:db8::53]:53``.

    Raises:
        ValueError: with a sentence that says what to write instead.
    """
    server = HostPort(text.strip("[]"), DNS_PORT) if is_ip_address(text) else None
    if server is None:
        with suppress(ValueError):
            server = HostPort.from_text(text)
    if server is None or not server.port or not is_ip_address(server.host):
        raise ValueError(
            f"{text!r} is no address of a name server: write its IP address, such as 192.0.2.53 or [2001:db8::53]:5353"
        )
    return server


@attrs.frozen(kw_only=True)
class UpstreamSettings:
    """The real server behind the proxy, and how far it is believed."""

    address: UpstreamAddress | None = setting(
        None,
        "HOST:PORT, srv or original",
        "the server every client is connected to; srv: the one the DNS names for the client's domain; original: the "
        "one it dialled before a packet filter redirected it to us; needed to run",
        example="xmpp.example.org:5222",
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
    tls: UpstreamTls = setting(
        "same",
        "same, starttls, direct or none",
        "how TLS begins on the server's side: as the client began it (with srv: as the SRV record says), or always "
        "alike; none: in clear, which is for a server on this machine",
    )
    clear_anywhere: bool = setting(
        False,
        "true or false",
        "with tls = none, also to servers on other machines: everybody on the way reads along",
    )
    proxy_protocol: UpstreamProxyProtocol = setting(
        "none",
        "none, v1 or v2",
        "tell the server the client's address ahead of everything else; only for a server that expects it there",
    )
    domains: tuple[str, ...] | None = setting(
        None,
        "list of XMPP domains",
        "with address = srv, the domains that clients may be connected to; without it 'domain' alone; "
        '["*"]: any, which makes an open proxy: whoever can connect here is taken wherever he wants',
        example="example.org",
    )
    private_addresses: bool = setting(
        False,
        "true or false",
        'with domains = ["*"], also to servers in this machine and its private networks: a stranger who owns a domain '
        "chooses its addresses",
    )
    nameservers: tuple[HostPort, ...] | None = setting(
        None,
        "list of ADDRESS[:PORT]",
        "whom srv asks; without it the servers of /etc/resolv.conf",
        example="192.0.2.53:53",
    )
    lookup_seconds_max: float = setting(
        4.0, "seconds", "for one question to the DNS; two of them and a connection fit into connect_seconds_max"
    )
    lookup_entries_max: int = setting(1_000, "answers", "kept; the one not used longest goes, each has under 8 KiB")
    lookup_ttl_seconds_max: float = setting(
        86_400.0, "seconds", "an answer is kept as long as it says, but not longer than this"
    )
    lookup_negative_seconds_max: float = setting(
        60.0, "seconds", "the same for 'there is none' (RFC 2308): a record that was just made is soon found"
    )
    refuse_while_down: bool = setting(
        False,
        "true or false",
        "while the server is down, refuse clients at accept, so that they try the next of their servers; a probe sees "
        "when it is up again",
    )
    down_after_failures: int = setting(
        1, "failures", "of sessions in a row, after which it counts as down; each has tried every address"
    )
    probe_seconds_min: float = setting(1.0, "seconds", "until the first probe; doubled after each that fails")
    probe_seconds_max: float = setting(30.0, "seconds", "between two probes at most: so late a server is noticed")
