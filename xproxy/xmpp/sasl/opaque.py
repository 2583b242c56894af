"""Mechanisms that are not read: GSSAPI, NTLM, LOGIN, unregistered ones.

Who logged in is learnt from the bound resource. A wrong guess at an unknown grammar could log a token as a name.
"""

from typing import Final

from xproxy.xmpp.sasl.identity import Challenge, Identity


class OpaqueDecoder:
    """Reads nothing."""

    def response(self, payload: bytes, step: int) -> Identity:
        """Return an empty identity."""
        return NO_IDENTITY

    def challenge(self, payload: bytes, step: int) -> Challenge:
        """Return an empty challenge."""
        return NO_CHALLENGE


NO_IDENTITY: Final = Identity()
NO_CHALLENGE: Final = Challenge()
