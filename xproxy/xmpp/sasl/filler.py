"""A SASL payload without its secrets: same length, same shape, and the decoder reads the same from both.

What stays is what the log knows: names, the gs2 header, iterations, ``h`` and ``t`` where they are public, the error of
a refusal. Everything else becomes filler octet by octet, separators and the keys of fields apart. Which is which is the
decoders' business, so each payload is read by a decoder before and after; where the answers differ, nothing is kept.
"""

import copy
import json
import re
from collections.abc import Callable
from functools import partial
from typing import Final

import attrs

from xproxy.xmpp.sasl import Challenge, Decoder, Identity, decoder_for
from xproxy.xmpp.sasl.digest_md5 import DIRECTIVE, WANTED
from xproxy.xmpp.sasl.downgrade import hash_octets
from xproxy.xmpp.sasl.gs2 import CHANNEL_BINDINGS, read_gs2_header
from xproxy.xmpp.sasl.hashed_token import binding_suffix
from xproxy.xmpp.sasl.oauth import STATUSES
from xproxy.xmpp.sasl.octets import NAME_OCTETS_MAX
from xproxy.xmpp.sasl.scram import SERVER_ERRORS, is_hash

_FIELD: Final = re.compile(rb"[A-Za-z]=")
_DIGEST: Final = re.compile(rb" [0-9a-fA-F]{32}\Z")
_NOT_SEPARATOR: Final = re.compile(rb"[^\0\x01]")


class PayloadFiller:
    """Fills the payloads of one attempt, in their order. A new attempt takes a new one."""

    def __init__(self, mechanism: str) -> None:
        """``mechanism``: its name as sent."""
        self._fillers = _fillers_of(mechanism.upper())
        self._said = False  # the client has said something: of what follows no decoder reads anything
        self._challenged = False
        self._once = mechanism.upper() == "EXTERNAL"  # an empty message is a message there
        self._before = decoder_for(mechanism)
        self._after = decoder_for(mechanism)
        self._responses = 0
        self._challenges = 0

    def response(self, payload: bytes) -> bytes:
        """Return what stands for a message of the client."""
        step, self._responses = self._responses, self._responses + 1
        fill = self._fillers.later if self._said else self._fillers.response
        self._said = self._said or bool(payload) or self._once
        return self._fill(payload, fill, lambda decoder, octets: decoder.response(octets, step))

    def challenge(self, payload: bytes) -> bytes:
        """Return what stands for a challenge, or for the data that came with success."""
        self._challenges += 1
        step = self._challenges
        is_refusal = payload.startswith((b"e=", b"{"))
        fill = self._fillers.challenge if is_refusal or not self._challenged else self._fillers.later
        self._challenged = self._challenged or bool(payload)
        return self._fill(payload, fill, lambda decoder, octets: decoder.challenge(octets, step))

    def _fill(
        self,
        payload: bytes,
        fill: Callable[[bytes], bytes],
        read: Callable[[Decoder, bytes], Identity | Challenge],
    ) -> bytes:
        was, before = copy.deepcopy(self._after), read(self._before, payload)
        filled = fill(payload)
        assert len(filled) == len(payload), "a filler keeps the length"
        if read(self._after, filled) == before:
            return filled
        self._after = was
        nothing = blank(payload)
        read(self._after, nothing)
        return nothing


def blank(payload: bytes) -> bytes:
    """Return filler for all of ``payload`` but its separators, NUL and ``%x01``."""
    return _NOT_SEPARATOR.sub(b"x", payload)


Fill = Callable[[bytes], bytes]


@attrs.frozen
class _Fillers:
    """What fills the messages of a mechanism."""

    response: Fill  # the client's first that is not empty
    challenge: Fill  # the server's first, or a refusal
    later: Fill


def _fillers_of(mechanism: str) -> _Fillers:
    if mechanism in ("PLAIN", "X-OAUTH2"):
        return _Fillers(_plain, blank, blank)
    if mechanism.startswith("SCRAM-"):
        return _Fillers(_scram_client, partial(_scram_server, hash_octets(mechanism)), _fields)
    if mechanism == "DIGEST-MD5":
        return _Fillers(_directives, _directives, blank)
    if mechanism == "CRAM-MD5":
        return _Fillers(_cram_md5, blank, blank)
    if mechanism == "EXTERNAL":
        return _Fillers(_external, blank, blank)
    if mechanism == "OAUTHBEARER":
        return _Fillers(_oauth, _oauth_error, blank)
    if binding_suffix(mechanism) is not None:
        return _Fillers(_hashed_token, blank, blank)
    return _Fillers(blank, blank, blank)


def _name(octets: bytes) -> bytes:
    """Keep what can be a name."""
    return octets if len(octets) <= NAME_OCTETS_MAX else blank(octets)


def _external(payload: bytes) -> bytes:
    # NUL is not allowed, and is what the message of another mechanism would have: that one holds a password.
    return blank(payload) if b"\0" in payload else _name(payload)


def _plain(payload: bytes) -> bytes:
    first = payload.find(b"\0")
    second = payload.find(b"\0", first + 1)
    if first < 0 or second <= first + 1:
        return blank(payload)
    return _name(payload[:first]) + b"\0" + _name(payload[first + 1 : second]) + b"\0" + blank(payload[second + 1 :])


def _hashed_token(payload: bytes) -> bytes:
    end = payload.find(b"\0")
    return blank(payload) if end <= 0 else _name(payload[:end]) + b"\0" + blank(payload[end + 1 :])


def _cram_md5(payload: bytes) -> bytes:
    digest = _DIGEST.search(payload)
    return blank(payload) if digest is None else _name(payload[: digest.start()]) + b" " + b"0" * 32


def _scram_client(payload: bytes) -> bytes:
    header, bare = read_gs2_header(payload)
    if header.gs2_flag is None:
        return _fields(payload)
    kept = _gs2(payload[: len(payload) - len(bare)])
    if bare.startswith(b"m="):
        extension, comma, bare = bare.partition(b",")
        kept += _value(extension) + comma
    if not bare.startswith(b"n="):
        return kept + blank(bare)
    fields = bare.split(b",")
    end = 1
    while end < len(fields) and not _FIELD.match(fields[end]):
        end += 1
    if end == len(fields):  # no nonce: what stands behind the first comma could be anything
        end = 1
    name = b",".join(fields[:end])
    return kept + b",".join([name[:2] + _name(name[2:]), *map(_value, fields[end:])])


def _scram_server(hash_size: int | None, payload: bytes) -> bytes:
    error = payload[2:66].partition(b",")[0]
    if payload.startswith(b"e=") and error.decode("ascii", errors="replace") in SERVER_ERRORS:
        return payload[: 2 + len(error)] + _fields(payload[2 + len(error) :])
    found: set[bytes] = set()
    filled = []
    for field in payload.split(b","):
        key, value = field[:2], field[2:]
        # What the decoder reads: it says itself whether the value is what it should be.
        is_public = key in (b"i=", b"h=", b"t=") and key not in found and len(value) <= 128
        if is_public and _reads(key, value, hash_size):
            found.add(key)
            filled.append(field)
        else:
            filled.append(_value(field))
    return b",".join(filled)


def _reads(key: bytes, value: bytes, hash_size: int | None) -> bool:
    match key:
        case b"i=":
            return re.fullmatch(rb"[1-9][0-9]{0,9}", value) is not None
        case b"t=":
            return re.fullmatch(rb"[0-9a-f]{4}", value) is not None
        case _:
            return is_hash(value, hash_size)


def _fields(payload: bytes) -> bytes:
    return b",".join(map(_value, payload.split(b",")))


def _value(field: bytes) -> bytes:
    """Keep the key of ``x=...``; anything else is filler."""
    return field[:2] + blank(field[2:]) if _FIELD.match(field) else blank(field)


def _gs2(header: bytes) -> bytes:
    """Keep a gs2 header, but for a channel binding that is in no registry: what stands there could be a proof."""
    flag, comma, rest = header.partition(b",")
    if flag.startswith(b"p=") and flag[2:].decode("ascii", errors="replace") not in CHANNEL_BINDINGS:
        # Filler of the same kind: a name by RFC 5801, or none.
        is_name = re.fullmatch(rb"[A-Za-z0-9.\-]+", flag[2:]) is not None
        flag = b"p=" + (b"x" if is_name else b"!") * (len(flag) - 2)
    if rest.rstrip(b",") and not rest.startswith(b"a="):
        rest = blank(rest[:-1]) + b","
    return flag + comma + rest


def _directives(payload: bytes) -> bytes:
    filled = bytearray()
    wanted: set[bytes] = set()
    position = 0
    while match := DIRECTIVE.match(payload, position):
        key = match["key"].lower()
        start, end = match.span("token") if match["quoted"] is None else match.span("quoted")
        filled += payload[position:start]
        filled += _name(payload[start:end]) if key in WANTED and key not in wanted else blank(payload[start:end])
        filled += payload[end : match.end()]
        wanted.add(key)
        position = match.end()
    rest = payload[position:]
    return bytes(filled) + (rest if not rest.strip(b" \t\r\n,") else blank(rest))


def _oauth(payload: bytes) -> bytes:
    head, separator, rest = payload.partition(b"\x01")
    header, behind = read_gs2_header(head)
    if not separator or behind or header.gs2_flag is None:
        return blank(payload)
    pairs = [
        key + b"=" + blank(value) if equals and key in (b"auth", b"host", b"port") else blank(pair)
        for pair in rest.split(b"\x01")
        for key, equals, value in [pair.partition(b"=")]
    ]
    return _gs2(head) + separator + b"\x01".join(pairs)


def _oauth_error(payload: bytes) -> bytes:
    try:
        answer = json.loads(payload)
        status = answer.get("status") if isinstance(answer, dict) else None
    except (ValueError, RecursionError):
        status = None
    if not isinstance(status, str):
        return blank(payload)
    said = json.dumps({"status": status if status in STATUSES else ""}, separators=(",", ":")).encode()
    return said.ljust(len(payload)) if len(said) <= len(payload) else blank(payload)
