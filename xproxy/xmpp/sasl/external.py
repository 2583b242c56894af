"""EXTERNAL (RFC 4422 appendix A, XEP-0178): the whole message is the authzid, empty where the certificate says it."""

from xproxy.xmpp.sasl.identity import Challenge, Identity
from xproxy.xmpp.sasl.octets import read_name
from xproxy.xmpp.sasl.opaque import NO_CHALLENGE, NO_IDENTITY


class ExternalDecoder:
    """Reads the one message of EXTERNAL."""

    def __init__(self) -> None:
        self._done = False

    def response(self, payload: bytes, step: int) -> Identity:
        """Return the authzid of the first message."""
        if self._done:
            return NO_IDENTITY
        self._done = True
        # NUL is not allowed, and is what the message of another mechanism would have: that one holds a password.
        if b"\0" in payload:
            return Identity(problem="structure")
        authzid, problem = read_name(payload)
        return Identity(authzid=authzid, problem=problem)

    def challenge(self, payload: bytes, step: int) -> Challenge:
        """Return an empty challenge: EXTERNAL has none but the empty one."""
        return NO_CHALLENGE
