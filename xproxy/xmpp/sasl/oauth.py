"""Tokens in place of passwords: OAUTHBEARER (RFC 7628) and X-OAUTH2 (Google, ejabberd).

    OAUTHBEARER  gs2-header kvsep "host=" ... kvsep "port=" ... kvsep "auth=Bearer " token kvsep kvsep   (kvsep %x01)
    X-OAUTH2     [authzid] NUL user NUL token

Of OAUTHBEARER nothing behind the first kvsep is read but where a key begins: the token could stand under any of them.
"""

import contextlib
import json
from typing import Final

from xproxy.xmpp.sasl.gs2 import read_gs2_header
from xproxy.xmpp.sasl.identity import Challenge, Identity
from xproxy.xmpp.sasl.opaque import NO_CHALLENGE, NO_IDENTITY
from xproxy.xmpp.sasl.plain import PlainDecoder

_SEPARATOR: Final = b"\x01"
STATUSES: Final = frozenset({"invalid_request", "invalid_token", "insufficient_scope"})  # RFC 6750 section 3.1
_JSON_OCTETS_MAX: Final = 8_192  # status, scope and one address: a few hundred


class OAuthBearerDecoder:
    """Reads the client's first message, and the status of the challenge that says why it was refused."""

    def __init__(self) -> None:
        self._done = False

    def response(self, payload: bytes, step: int) -> Identity:
        """Return the authzid of the gs2 header; OAUTHBEARER has no authcid, the token says who it is."""
        if self._done or not payload:
            return NO_IDENTITY
        self._done = True
        head, separator, rest = payload.partition(_SEPARATOR)
        header, behind = read_gs2_header(head)
        if not separator or behind or header.gs2_flag is None:
            return Identity(problem="structure")
        problem = header.problem
        if not payload.endswith(_SEPARATOR * 2) or not any(
            pair.startswith(b"auth=") for pair in rest.split(_SEPARATOR)
        ):
            problem = problem or "structure"
        return Identity(
            authzid=header.authzid,
            gs2_flag=header.gs2_flag,
            channel_binding=header.channel_binding,
            problem=problem,
        )

    def challenge(self, payload: bytes, step: int) -> Challenge:
        """Return the status of a refusal (RFC 7628 section 3.2.2) as ``server_error``."""
        if not payload:
            return NO_CHALLENGE
        status = None
        if len(payload) <= _JSON_OCTETS_MAX:
            # Deeply nested input ends in a RecursionError; neither exception may leave, they hold the input.
            with contextlib.suppress(ValueError, RecursionError):
                answer = json.loads(payload)
                status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(status, str):
            return Challenge(problem="structure")
        return Challenge(server_error=status if status in STATUSES else "other")


class XOAuth2Decoder(PlainDecoder):
    """Reads the one message of X-OAUTH2: the grammar of PLAIN, with a token for the password."""
