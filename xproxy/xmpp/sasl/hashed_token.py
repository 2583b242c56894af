"""HT-*, the mechanisms of FAST (XEP-0484, draft-schmaus-kitten-sasl-ht): ``authcid NUL hashed-token``.

    HT-<hash>-<binding>     HT-SHA-256-ENDP, HT-SHA-256-UNIQ, HT-SHA-256-EXPR, HT-SHA-256-NONE

The name says what the token is bound to, there is no gs2 header. Without a binding the hashed token is a bearer secret
that can be replayed; with one it is the input of an off-line guess. It is cut off before anything is built.
"""

from typing import Final

from xproxy.xmpp.sasl.identity import Challenge, Identity
from xproxy.xmpp.sasl.octets import read_name
from xproxy.xmpp.sasl.opaque import NO_CHALLENGE, NO_IDENTITY

PREFIX: Final = "HT-"
BINDINGS: Final[dict[str, str | None]] = {
    "ENDP": "tls-server-end-point",
    "UNIQ": "tls-unique",
    "EXPR": "tls-exporter",
    "NONE": None,
}
"""The last part of a name -> the channel-binding type of RFC 5929 and RFC 9266."""


def binding_suffix(mechanism: str) -> str | None:
    """Return "ENDP", "UNIQ", "EXPR" or "NONE" for a mechanism of FAST; None for any other name."""
    name = mechanism.upper()
    suffix = name.rpartition("-")[2]
    return suffix if name.startswith(PREFIX) and suffix in BINDINGS else None


class HashedTokenDecoder:
    """Reads the one message of HT-*."""

    def __init__(self, *, mechanism: str) -> None:
        """``mechanism``: its name as sent."""
        suffix = binding_suffix(mechanism)
        self._channel_binding = BINDINGS[suffix] if suffix is not None else None
        self._done = False

    def response(self, payload: bytes, step: int) -> Identity:
        """Return the authcid and the binding that the mechanism's name stands for; ``gs2_flag`` stays None."""
        if self._done or not payload:
            return NO_IDENTITY
        self._done = True
        end = payload.find(b"\0")
        if end <= 0 or end == len(payload) - 1:
            # No NUL: all of it could be the token. NUL first: what PLAIN looks like, with a password in it.
            return Identity(channel_binding=self._channel_binding, problem="structure")
        authcid, problem = read_name(payload[:end])
        return Identity(authcid=authcid, channel_binding=self._channel_binding, problem=problem)

    def challenge(self, payload: bytes, step: int) -> Challenge:
        """Return an empty challenge: the one with success is the server's own hashed token."""
        return NO_CHALLENGE
