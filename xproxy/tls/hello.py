"""The client's first words on TLS: a ClientHello, read without TLS (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).

The relay looks at the hello before either handshake, so that the server leg can be set up as the client asked: name,
ALPN, highest version. What is read here decides nothing about trust; OpenSSL reads the same bytes again and is the one
to refuse them. So this parser is exact about lengths, since a wrong length means wrong facts, and tolerant of the rest
(unknown extensions, repeated extensions of which the first counts, names that are no names).

    record    = u8 type (22) | u16 version | u16 length (1..16384) | fragment
    handshake = u8 type (1)  | u24 length  | body, over as many records as it needs

A hello may come in several records and in any number of segments. ``HelloIncomplete.needed`` is a count of octets that
certainly have to come, so waiting for that many never waits for octets a complete hello lacks.
"""

import functools
import hashlib
import struct
from collections.abc import Iterable
from typing import Final

import attrs

from xproxy.events.tls import TlsFailure

HELLO_BYTES_MAX: Final = 65_536
"""In octets, record headers included. Key shares of post-quantum size and a ticket stay under 20 KiB."""

_RECORD_BYTES_MAX: Final = 16_384  # RFC 8446 section 5.1
_RECORDS_MAX: Final = 256
"""A hello that trickles in is read from its start each time: records of one octet would make that quadratic."""
_RECORD_HEADER: Final = 5
_MESSAGE_HEADER: Final = 4
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1

_SERVER_NAME: Final = 0x0000
_SIGNATURE_ALGORITHMS: Final = 0x000D
_ALPN: Final = 0x0010
_SUPPORTED_VERSIONS: Final = 0x002B

GREASE: Final = frozenset(0x0A0A + 0x1010 * index for index in range(16))  # RFC 8701 section 2

_JA4_VERSIONS: Final = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
FINGERPRINTS_REMEMBERED_MAX: Final = 64
"""Clients are of few kinds. As large as hellos may be, no stranger can have more than 4 MiB kept here."""

_ALPHANUMERIC: Final = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


class HelloIncomplete(Exception):  # noqa: N818 - a state of the input, not a fault
    """The hello goes on. ``needed`` is the total count of octets, from its first one, to have before asking again."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


class HelloMalformed(Exception):  # noqa: N818 - says what the peer sent
    """What came is no ClientHello. ``reason`` is our words; ``failure`` is NOT_TLS or HELLO_TOO_LARGE."""

    def __init__(self, reason: str, failure: TlsFailure = TlsFailure.NOT_TLS) -> None:
        super().__init__(reason)
        self.reason = reason
        self.failure = failure


@attrs.frozen(kw_only=True)
class ClientHello:
    """What a client asks for. Octets of a name that are not UTF-8 stand as ``\\xNN``."""

    server_name: str | None  # SNI as sent, not checked to be a name
    alpn: tuple[str, ...]  # in the client's order
    versions: tuple[int, ...]  # 0x0304 is TLS 1.3; without GREASE, in the client's order
    top_version: int
    ja4: str  # FoxIO's fingerprint, e.g. "t13d1516h2_8daaf6152771_e5627efa2ab1"


def parse_client_hello(data: bytes | bytearray | memoryview) -> ClientHello:
    """Return what the ClientHello at the start of ``data`` says. What stands behind it is not looked at.

    Raises:
        HelloIncomplete: so far it is the beginning of one.
        HelloMalformed: it is none, or larger than ``HELLO_BYTES_MAX``.
    """
    return _parse_body(_join_records(bytes(data)))


def _join_records(data: bytes) -> bytes:
    """Return the body of the ClientHello that the handshake records at the start of ``data`` carry."""
    message = b""
    offset = 0
    for _ in range(_RECORDS_MAX):
        # Wrong octets are called wrong as soon as they are seen: who speaks another protocol may wait for an answer.
        header = data[offset : offset + _RECORD_HEADER]
        if header and header[0] != _HANDSHAKE:
            raise HelloMalformed("a record of another type than handshake")
        if len(header) > 1 and header[1] != 3:
            raise HelloMalformed("a record of an unknown protocol version")
        if len(header) < _RECORD_HEADER:
            raise _incomplete(offset + _RECORD_HEADER)
        length = int.from_bytes(header[3:], "big")
        if not 1 <= length <= _RECORD_BYTES_MAX:
            raise HelloMalformed("a record of impossible length")
        offset += _RECORD_HEADER
        fragment = data[offset : offset + length]
        message += fragment
        offset += length
        if message and message[0] != _CLIENT_HELLO:
            raise HelloMalformed("a handshake message other than ClientHello")
        if len(message) >= _MESSAGE_HEADER:
            wanted = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
            if wanted > HELLO_BYTES_MAX:
                raise _too_large()
            if len(message) >= wanted:
                return message[_MESSAGE_HEADER:wanted]
        if len(fragment) < length:
            # All of a record has to come before a TLS engine looks into it, so all of it is certain to come.
            raise _incomplete(offset)
    raise HelloMalformed(f"in more than {_RECORDS_MAX} records", TlsFailure.HELLO_TOO_LARGE)


def _incomplete(needed: int) -> HelloIncomplete | HelloMalformed:
    return HelloIncomplete(needed) if needed <= HELLO_BYTES_MAX else _too_large()


def _too_large() -> HelloMalformed:
    return HelloMalformed(f"larger than {HELLO_BYTES_MAX} octets", TlsFailure.HELLO_TOO_LARGE)


class _Cursor:
    """Reads a vector of TLS's presentation language from front to back (RFC 8446 section 3.4)."""

    __slots__ = ("data", "offset")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    @property
    def at_end(self) -> bool:
        return self.offset == len(self.data)

    def octets(self, count: int) -> bytes:
        end = self.offset + count
        if end > len(self.data):
            raise HelloMalformed("a field goes beyond its end")
        taken = self.data[self.offset : end]
        self.offset = end
        return taken

    def vector(self, length_octets: int) -> bytes:
        return self.octets(int.from_bytes(self.octets(length_octets), "big"))


def _parse_body(body: bytes) -> ClientHello:
    cursor = _Cursor(body)
    legacy_version = int.from_bytes(cursor.octets(2), "big")
    cursor.octets(32)  # random
    cursor.vector(1)  # legacy_session_id
    ciphers = cursor.vector(2)
    cursor.vector(1)  # compression methods
    # Before TLS 1.2 a hello may end here (RFC 5246 section 7.4.1.2).
    extensions = [] if cursor.at_end else _split_extensions(cursor.vector(2))
    if not cursor.at_end:
        raise HelloMalformed("octets behind the extensions")
    first = dict(reversed(extensions))  # of repeated ones the first counts
    versions: tuple[int, ...] = (legacy_version,)
    if _SUPPORTED_VERSIONS in first:
        versions = tuple(_without_grease(_numbers(_Cursor(first[_SUPPORTED_VERSIONS]).vector(1)))) or versions
    alpn = _split_alpn(first[_ALPN]) if _ALPN in first else []
    algorithms = _Cursor(first[_SIGNATURE_ALGORITHMS]).vector(2) if _SIGNATURE_ALGORITHMS in first else b""
    top_version = max(versions)
    return ClientHello(
        server_name=_host_name(first[_SERVER_NAME]) if _SERVER_NAME in first else None,
        alpn=tuple(_text(name) for name in alpn),
        versions=versions,
        top_version=top_version,
        ja4=_ja4(top_version, ciphers, tuple([kind for kind, _ in extensions]), alpn[0] if alpn else b"", algorithms),
    )


def _split_extensions(block: bytes) -> list[tuple[int, bytes]]:
    cursor = _Cursor(block)
    extensions = []
    while not cursor.at_end:
        kind = int.from_bytes(cursor.octets(2), "big")
        extensions.append((kind, cursor.vector(2)))
    return extensions


def _host_name(content: bytes) -> str | None:
    """Return the first host_name of a server_name extension (RFC 6066 section 3)."""
    if not content:
        return None
    names = _Cursor(_Cursor(content).vector(2))
    while not names.at_end:
        kind = names.octets(1)
        name = names.vector(2)
        if kind == b"\0":
            return _text(name)
    return None


def _split_alpn(content: bytes) -> list[bytes]:
    cursor = _Cursor(_Cursor(content).vector(2))
    names = []
    while not cursor.at_end:
        names.append(cursor.vector(1))
    return names


def _numbers(data: bytes) -> list[int]:
    if len(data) % 2:
        raise HelloMalformed("half a number in a list")
    return list(struct.unpack(f">{len(data) // 2}H", data))


def _without_grease(numbers: Iterable[int]) -> list[int]:
    return [number for number in numbers if number not in GREASE]


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")


@functools.lru_cache(maxsize=FINGERPRINTS_REMEMBERED_MAX)
def _ja4(version: int, cipher_octets: bytes, kinds: tuple[int, ...], alpn: bytes, algorithm_octets: bytes) -> str:
    """Return the JA4 fingerprint (FoxIO, technical_details/JA4.md), of lists as they were sent; ``alpn``: the first."""
    ciphers = _without_grease(_numbers(cipher_octets))
    algorithms = _without_grease(_numbers(algorithm_octets))
    extensions = _without_grease(kinds)
    hashed = _hex_list(sorted(kind for kind in extensions if kind not in (_SERVER_NAME, _ALPN)))
    if algorithms:
        hashed += "_" + _hex_list(algorithms)  # in the client's order
    return "t{version}{name}{ciphers:02}{extensions:02}{alpn}_{cipher_hash}_{extension_hash}".format(
        version=_JA4_VERSIONS.get(version, "00"),
        name="d" if _SERVER_NAME in extensions else "i",
        ciphers=min(len(ciphers), 99),
        extensions=min(len(extensions), 99),
        alpn=_ja4_alpn(alpn),
        cipher_hash=_hash12(_hex_list(sorted(ciphers))),
        extension_hash=_hash12(hashed),
    )


def _ja4_alpn(name: bytes) -> str:
    """Return the first and last character of ``name``, or of its hexadecimal form where one of them is no letter."""
    if not name:
        return "00"
    if name[0] in _ALPHANUMERIC and name[-1] in _ALPHANUMERIC:
        return chr(name[0]) + chr(name[-1])
    return name.hex()[0] + name.hex()[-1]


def _hex_list(numbers: list[int]) -> str:
    return ",".join([f"{number:04x}" for number in numbers])


def _hash12(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else "0" * 12
