"""DIGEST-MD5 (RFC 2831, historic by RFC 6331): a list of ``key=value`` with quoted strings.

Read are username, realm, authzid, charset and qop. The rest (nonces, response, digest-uri) stays in the payload: the
response is a hash of the password that can be guessed off line.

Of the challenge qop is read: a security layer comes only where the server offered what the client chose. ejabberd takes
any choice and applies none, so the client's word alone is no reason to stop looking.
"""

import re
from typing import Final

from xproxy.xmpp.sasl.identity import Challenge, Identity
from xproxy.xmpp.sasl.octets import read_name
from xproxy.xmpp.sasl.opaque import NO_CHALLENGE, NO_IDENTITY

# RFC 2831 section 7.1. White space and empty elements are allowed between directives. Nothing is given back ("*+"):
# two loops over white space side by side would take quadratic time over what a stranger writes.
DIRECTIVE: Final = re.compile(
    rb"[ \t\r\n,]*+(?P<key>[A-Za-z0-9\-]++)[ \t\r\n]*+=[ \t\r\n]*+"
    rb'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^ \t\r\n,"]*+))[ \t\r\n]*+(?=,|\Z)',
    re.DOTALL,
)
_REST: Final = re.compile(rb"[ \t\r\n,]*")
_SEPARATOR: Final = re.compile(rb"[ \t\r\n]*,[ \t\r\n]*")
_QUOTED_PAIR: Final = re.compile(rb"\\(.)", re.DOTALL)

WANTED: Final = frozenset({b"username", b"realm", b"authzid", b"charset", b"qop"})
_SECURITY_LAYERS: Final = frozenset({b"auth-int", b"auth-conf"})


class DigestMd5Decoder:
    """Reads the first message of the client that is not empty."""

    def __init__(self) -> None:
        self._done = False
        self._offered: frozenset[bytes] = frozenset()  # security layers

    def response(self, payload: bytes, step: int) -> Identity:
        """Return who logs in. Empty messages (no initial data, or the answer to rspauth) say nothing."""
        if self._done or not payload:
            return NO_IDENTITY
        self._done = True
        wanted, well_formed = _read_directives(payload)
        # Without charset names are ISO 8859-1 (RFC 2831 section 2.1.2).
        charset = "utf-8" if wanted.get(b"charset", b"").lower() == b"utf-8" else "iso-8859-1"
        names = {key: read_name(wanted.get(key, b""), charset) for key in (b"username", b"realm", b"authzid")}
        problem = next((problem for _, problem in names.values() if problem), None)
        chosen = wanted.get(b"qop", b"").lower()
        if chosen in _SECURITY_LAYERS - self._offered:
            problem = problem or "qop"
        if not well_formed or names[b"username"] == (None, None):
            problem = problem or "structure"
        return Identity(
            authcid=names[b"username"][0],
            authzid=names[b"authzid"][0],
            realm=names[b"realm"][0],
            security_layer=chosen in self._offered,
            problem=problem,
        )

    def challenge(self, payload: bytes, step: int) -> Challenge:
        """Return an empty challenge: nothing in it is worth a record; the layers on offer are remembered."""
        qop = _read_directives(payload)[0].get(b"qop")
        if qop is not None and not self._done:
            self._offered = _SECURITY_LAYERS.intersection(_SEPARATOR.split(qop.lower()))
        return NO_CHALLENGE


def _read_directives(payload: bytes) -> tuple[dict[bytes, bytes], bool]:
    """Return the wanted directives, the first of each, and whether all of it was well-formed and said once."""
    wanted: dict[bytes, bytes] = {}
    well_formed = True
    position = 0
    while match := DIRECTIVE.match(payload, position):
        position = match.end()
        key = match["key"].lower()
        if key not in WANTED:
            continue
        if key in wanted:
            well_formed = False
            continue
        quoted = match["quoted"]
        wanted[key] = match["token"] if quoted is None else _QUOTED_PAIR.sub(rb"\1", quoted)
    return wanted, well_formed and _REST.fullmatch(payload, position) is not None
