"""CRAM-MD5 (RFC 2195): ``user SP digest``, 32 lower-case hexadecimal digits.

Only what ends in a digest is read: anything else that has a space in it could be ``user password``.
"""

import re
from typing import Final

from xproxy.xmpp.sasl.identity import Challenge, Identity
from xproxy.xmpp.sasl.octets import read_name
from xproxy.xmpp.sasl.opaque import NO_CHALLENGE, NO_IDENTITY

_DIGEST: Final = re.compile(rb" [0-9a-fA-F]{32}\Z")  # COMPAT(upper case): seen from old clients, refused by no server


class CramMd5Decoder:
    """Reads the first message of the client that is not empty: the server speaks first."""

    def __init__(self) -> None:
        self._done = False

    def response(self, payload: bytes, step: int) -> Identity:
        """Return the user in front of the digest."""
        if self._done or not payload:
            return NO_IDENTITY
        self._done = True
        digest = _DIGEST.search(payload)
        if digest is None or digest.start() == 0:
            return Identity(problem="structure")
        authcid, problem = read_name(payload[: digest.start()])  # a name may have spaces: the last one counts
        return Identity(authcid=authcid, problem=problem)

    def challenge(self, payload: bytes, step: int) -> Challenge:
        """Return an empty challenge: what the server sent is what the digest is made of."""
        return NO_CHALLENGE
