"""PLAIN (RFC 4616): ``[authzid] NUL authcid NUL passwd``.

The password is cut off before any object but the payload itself is built from it. Where the shape is wrong no part can
be told from a password, so nothing is read: ``user NUL password`` is what a sloppy client sends.
"""

from xproxy.xmpp.sasl.identity import Challenge, Identity
from xproxy.xmpp.sasl.octets import read_name
from xproxy.xmpp.sasl.opaque import NO_CHALLENGE, NO_IDENTITY


class PlainDecoder:
    """Reads the one message of PLAIN."""

    def __init__(self) -> None:
        self._done = False

    def response(self, payload: bytes, step: int) -> Identity:
        """Return authcid and authzid of the first message."""
        if self._done:
            return NO_IDENTITY
        self._done = bool(payload)  # after an empty initial response the message may still come
        first = payload.find(b"\0")
        second = payload.find(b"\0", first + 1)
        # A second NUL is missing, or authcid is empty.
        if first < 0 or second <= first + 1:
            return Identity(problem="structure")
        authzid, authzid_problem = read_name(payload[:first])
        authcid, authcid_problem = read_name(payload[first + 1 : second])
        # Prosody takes what follows a third NUL for nothing; the RFC forbids it, and an empty password too.
        tail_problem = "structure" if payload.find(b"\0", second + 1) >= 0 or len(payload) == second + 1 else None
        return Identity(authcid=authcid, authzid=authzid, problem=authcid_problem or authzid_problem or tail_problem)

    def challenge(self, payload: bytes, step: int) -> Challenge:
        """Return an empty challenge: PLAIN has none but the empty one."""
        return NO_CHALLENGE
