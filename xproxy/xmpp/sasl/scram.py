"""SCRAM, the whole family (RFC 5802, RFC 7677; SHA-224 to SHA3-512 and -PLUS differ in nothing that is read here).

    client-first   gs2-cbind-flag "," ["a=" saslname] "," ["m=" ...] "n=" saslname ",r=" nonce [",x=" ...]
    server-first   ["m=" ...] "r=" nonce ",s=" salt ",i=" iterations [",h=" ...] [",t=" ...]

Of it the header, ``a``, ``n`` and ``i`` are read. Nonce, salt, proof and verifier are never taken out of the payload:
together they allow a dictionary attack on the password.
"""

import re
from typing import Final

from xproxy.xmpp.sasl.identity import Challenge, Identity
from xproxy.xmpp.sasl.octets import read_name
from xproxy.xmpp.sasl.opaque import NO_CHALLENGE, NO_IDENTITY

_CHANNEL_BINDING: Final = re.compile(rb"[A-Za-z0-9.\-]+")  # cb-name, RFC 5801 section 5
# RFC 5056 section 7 registry, and RFC 9266. Another name is not told: base64 fits the grammar of cb-name too, and
# a client-final that begins with its proof, ``p=...``, must not come out as a binding.
CHANNEL_BINDINGS: Final = frozenset({"tls-unique", "tls-server-end-point", "tls-unique-for-telnet", "tls-exporter"})
UNREGISTERED: Final = "unregistered"
_ATTRIBUTE: Final = re.compile(rb"[A-Za-z]=")
_ESCAPE: Final = re.compile(r"=(2C|3D)?")
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

    def __init__(self, *, plus: bool) -> None:
        self._plus = plus
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
        return _read_server_first(payload)

    def _read_client_first(self, payload: bytes) -> Identity:
        flag, comma, rest = payload.partition(b",")
        authzid_field, second_comma, bare = rest.partition(b",")
        gs2_flag = flag[:1].decode() if flag in (b"n", b"y") or flag.startswith(b"p=") else None
        if gs2_flag is None or not comma or not second_comma:
            # Not a gs2 header: what stands where is anybody's guess, so nothing is read.
            return Identity(problem="structure")

        problems: list[str | None] = []
        channel_binding = None
        if gs2_flag == "p" and _CHANNEL_BINDING.fullmatch(flag, 2):
            channel_binding = flag[2:].decode()
            channel_binding = channel_binding if channel_binding in CHANNEL_BINDINGS else UNREGISTERED
        elif gs2_flag == "p":
            problems.append("structure")
        if self._plus != (gs2_flag == "p"):
            problems.append("gs2-flag")  # RFC 5802 section 6: "p" with -PLUS, and only then

        authzid = None
        if authzid_field.startswith(b"a="):
            authzid, problem = _read_saslname(authzid_field[2:])
            problems.append(problem)
        elif authzid_field:
            problems.append("structure")

        if bare.startswith(b"m="):  # a mandatory extension: no server knows any (RFC 5802 section 5.1)
            problems.append("extension")
            bare = bare.partition(b",")[2]
        authcid, problem = _read_user(bare)
        problems.append(problem)
        return Identity(
            authcid=authcid,
            authzid=authzid,
            gs2_flag=gs2_flag,
            channel_binding=channel_binding,
            problem=next(filter(None, problems), None),
        )


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
        return _read_saslname(fields[0][2:])[0], "structure"
    name, problem = _read_saslname(b",".join(fields[:end])[2:])
    if name is None or not fields[end].startswith(b"r="):
        problem = problem or "structure"
    return name, problem


def _read_saslname(octets: bytes) -> tuple[str | None, str | None]:
    """Undo ``=2C`` and ``=3D`` (RFC 5802 section 5.1). Any other "=", or a raw comma, stays and is a problem."""
    text, problem = read_name(octets)
    if text is None:
        return None, problem or "structure"
    if "," in text or any(match[1] is None for match in _ESCAPE.finditer(text)):
        problem = problem or "saslname"
    return _ESCAPE.sub(lambda match: {"2C": ",", "3D": "=", None: "="}[match[1]], text), problem


def _read_server_first(payload: bytes) -> Challenge:
    iterations = None
    seen = bytearray()
    for field in payload.split(b","):
        if not _ATTRIBUTE.match(field):
            continue
        seen += field[:1]
        if field.startswith(b"i=") and iterations is None and _ITERATIONS.fullmatch(field, 2):
            iterations = int(field[2:])
    problem = None
    if seen.startswith(b"m"):
        problem = "extension"
    elif not seen.startswith(b"rsi") or iterations is None:
        problem = "structure"
    return Challenge(iterations=iterations, has_h=b"h" in seen, has_t=b"t" in seen, problem=problem)
