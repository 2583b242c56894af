"""What a decoder may tell. Neither class has a field that could hold a payload, a nonce, a salt, a proof or a token."""

from typing import Protocol

import attrs


@attrs.frozen(kw_only=True)
class Identity:
    """What one message of the client said about who logs in; None where it said nothing.

    A mechanism tells it once, in its first message; every later answer is ``Identity()``.
    """

    authcid: str | None = None  # as claimed, verbatim (may contain "@"), up to the decoder's cap
    authzid: str | None = None
    realm: str | None = None  # DIGEST-MD5
    gs2_flag: str | None = None  # "n", "y", "p" (RFC 5801 section 5)
    channel_binding: str | None = None
    """The type behind "p=", or in the name of HT-*; "unregistered" for one that is in no registry."""
    security_layer: bool = False  # after success the stream is wrapped (RFC 4422 section 3.7): inspection ends
    problem: str | None = None
    """The kind of ``SaslMalformed``: "structure", "utf-8", "saslname", "extension", "gs2-flag", "qop", "too-long"."""


@attrs.frozen(kw_only=True)
class Challenge:
    """What one challenge of the server said."""

    iterations: int | None = None  # SCRAM i=
    has_h: bool = False  # XEP-0474: a hash of the offer is signed
    has_t: bool = False  # XEP-0515: the server's TLS version is signed
    h: str | None = None  # that hash in base64, where it has the length of the mechanism's
    t: str | None = None  # that version, four hexadecimal digits
    server_error: str | None = None
    """SCRAM e=, one of RFC 5802 section 7; OAUTHBEARER status, one of RFC 6750 section 3.1; else "other"."""
    problem: str | None = None


class Decoder(Protocol):
    """Reads the messages of one attempt of one mechanism, in order. A new attempt takes a new decoder.

    The payload is not kept, in no case: neither in what is returned nor in the decoder, and nothing is raised.
    """

    def response(self, payload: bytes, step: int) -> Identity:
        """Read a message of the client. ``step`` 0 is the initial response, 1 the first ``<response/>``, and so on."""
        ...

    def challenge(self, payload: bytes, step: int) -> Challenge:
        """Read a challenge, or the data that came with success. ``step`` counts from 1."""
        ...
