"""What the first bytes of a connection say it is. Nothing is consumed: the session reads them again."""

import enum
from typing import Final

FIRST_BYTES: Final = 16  # enough for the longest signature below


class Transport(enum.Enum):
    """What a client speaks."""

    XML = "xml"
    TLS = "tls"
    OTHER = "other"


# RFC 8446 section 5.1: a TLS connection begins with a handshake record.
TLS_FIRST_BYTE: Final = 0x16

# An XML stream begins with "<". Whitespace and byte order marks are for the core to judge and record.
_XML_FIRST_BYTES: Final = frozenset(b"< \t\r\n\xef\xfe\xff")

_PROXY_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # PROXY protocol version 2, section 2.2
_SIGNATURES: Final = (
    (b"SSH-", "ssh"),
    (b"PROXY ", "proxy-protocol"),
    (b"\x04", "socks"),
    (b"\x05", "socks"),
    *(
        (method + b" ", "http")
        for method in (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"DELETE", b"PATCH", b"TRACE", b"PRI")
    ),
)


def transport_of(first: bytes) -> tuple[Transport, str]:
    """Return what ``first`` (up to FIRST_BYTES, at least one) begins, and a name for it: see UnsupportedTransport."""
    assert first
    if len(first) > 4 and _PROXY_V2.startswith(first[: len(_PROXY_V2)]):
        return Transport.OTHER, "proxy-protocol"
    if first[0] == TLS_FIRST_BYTE:
        return Transport.TLS, "tls"
    if first[0] in _XML_FIRST_BYTES:
        return Transport.XML, "xml"
    for signature, name in _SIGNATURES:
        if first.startswith(signature):
            return Transport.OTHER, name
    return Transport.OTHER, "unknown"
