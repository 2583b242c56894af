"""SCRAM, the whole family (RFC 5802, RFC 7677; SHA-224 to SHA3-512 and -PLUS differ in nothing that is read here).

    client-first   gs2-cbind-flag "," ["a=" saslname] "," ["m=" ...] "n=" saslname ",r=" nonce [",x=" ...]
    server-first   ["m=" ...] "r=" nonce ",s=" salt ",i=" iterations [",h=" ...] [",t=" ...]

Of it the header, ``a``, ``n`` and ``i`` are read, and ``h`` and ``t`` (XEP-0474, XEP-0515) where they have the shape
of a hash and of a version: what they say is public. Nonce, salt, proof and verifier are never taken out of the
payload: together they allow a dictionary attack on the password.
"""

import re
from typing import Final

import attrs

from xproxy.xmpp.sasl.base64 import decode_base64
from xproxy.xmpp.sasl.gs2 import read_gs2_header, read_saslname
from xproxy.xmpp.sasl.identity import Challenge, Identity
from xproxy.xmpp.sasl.opaque import NO_CHALLENGE, NO_IDENTITY

_ATTRIBUTE: Final = re.compile(rb"[A-Za-z]=")
_VERSION: Final = re.compile(rb"[0-9a-f]{4}")  # XEP-0515 section 4.1
_ITERATIONS: Final = re.compile(rb"[1-9][0-9]{0,9}")  # posit-number, RFC 5802 section 7; ten digits exceed any server

SERVER_ERRORS: Final = frozenset(  # server-error-value, RFC 5802 section 7
    {
        "invalid-encoding",
        "extensions-not-supported",
        "invalid-proof",
        "channel-bindings-dont-match",
        "server-does-support-channel-binding",
        "channel-binding-not-supported",
        "unsupported-channel-binding-type",
        "unknown-user",
        "invalid-username-encoding",
        "no-resources",
        "other-error",
    }
)


class ScramDecoder:
    """Reads client-first, which may be the initial response or the first response, and server-first."""

    def __init__(self, *, plus: bool, hash_octets: int | None = None) -> None:
        """``hash_octets``: the length of the mechanism's hash; without it ``h`` is seen, and not read."""
        self._plus = plus
        self._hash_octets = hash_octets
        self._first_seen = False
        self._challenge_seen = False

    def response(self, payload: bytes, step: int) -> Identity:
        """Return what client-first says; of client-final nothing is read."""
        if self._first_seen:
            return NO_IDENTITY
        self._first_seen = bool(payload)  # after an empty initial response client-first may still come
        return self._read_client_first(payload)

    def challenge(self, payload: bytes, step: int) -> Challenge:
        """Return iterations and extensions of server-first, or the error of server-final."""
        if not self._first_seen and not payload:
            return NO_CHALLENGE  # the empty challenge that asks for client-first (RFC 4422 section 3)
        if payload.startswith(b"e="):
            error = payload[2:66].partition(b",")[0].decode("ascii", errors="replace")
            return Challenge(server_error=error if error in SERVER_ERRORS else "other")
        if self._challenge_seen:
            return NO_CHALLENGE
        self._challenge_seen = True
        return _read_server_first(payload, self._hash_octets)

    def _read_client_first(self, payload: bytes) -> Identity:
        header, bare = read_gs2_header(payload)
        if header.gs2_flag is None:
            return header
        problems = [header.problem]
        if self._plus != (header.gs2_flag == "p"):
            problems.insert(0, "gs2-flag")  # RFC 5802 section 6: "p" with -PLUS, and only then

        if bare.startswith(b"m="):  # a mandatory extension: no server knows any (RFC 5802 section 5.1)
            problems.append("extension")
            bare = bare.partition(b",")[2]
        authcid, problem = _read_user(bare)
        problems.append(problem)
        return attrs.evolve(header, authcid=authcid, problem=next(filter(None, problems), None))


def _read_user(bare: bytes) -> tuple[str | None, str | None]:
    """Return the name in ``n=...,r=...`` and the problem."""
    if not bare.startswith(b"n="):
        return None, "structure"
    fields = bare.split(b",")
    end = 1
    # COMPAT(XMPPFramework): sends names raw. A piece that is no attribute belongs to a name with a comma.
    while end < len(fields) and not _ATTRIBUTE.match(fields[end]):
        end += 1
    if end == len(fields):
        # No r= : the pieces behind the first comma could be anything.
        return read_saslname(fields[0][2:])[0], "structure"
    name, problem = read_saslname(b",".join(fields[:end])[2:])
    if name is None or not fields[end].startswith(b"r="):
        problem = problem or "structure"
    return name, problem


def _read_server_first(payload: bytes, hash_octets: int | None) -> Challenge:
    iterations = h = t = None
    seen = bytearray()
    for field in payload.split(b","):
        if not _ATTRIBUTE.match(field):
            continue
        seen += field[:1]
        if field.startswith(b"i=") and iterations is None and _ITERATIONS.fullmatch(field, 2):
            iterations = int(field[2:])
        elif field.startswith(b"h=") and h is None and is_hash(field[2:], hash_octets):
            h = field[2:].decode()
        elif field.startswith(b"t=") and t is None and _VERSION.fullmatch(field, 2):
            t = field[2:].decode()
    problem = None
    if seen.startswith(b"m"):
        problem = "extension"
    elif not seen.startswith(b"rsi") or iterations is None:
        problem = "structure"
    return Challenge(iterations=iterations, has_h=b"h" in seen, has_t=b"t" in seen, h=h, t=t, problem=problem)


def is_hash(octets: bytes, length: int | None) -> bool:
    """Return whether this is the base64 of ``length`` octets. Anything else could be a salt in the wrong place."""
    if length is None or len(octets) != (length + 2) // 3 * 4:
        return False
    data, encoding = decode_base64(octets.decode("ascii", errors="replace"))
    return encoding == "strict" and data is not None and len(data) == length
