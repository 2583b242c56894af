"""EXTERNAL. Vector: XEP-0178 section 3 (authzid of a client)."""

import base64

import pytest

from xproxy.xmpp.sasl import Challenge, Identity
from xproxy.xmpp.sasl.external import ExternalDecoder


@pytest.mark.parametrize(
    ("payload", "want"),
    [
        (b"", Identity()),  # "=": the certificate says who
        (base64.b64decode("anVsaWV0QGV4YW1wbGUuY29t"), Identity(authzid="juliet@example.com")),
        (b"conference.example.org", Identity(authzid="conference.example.org")),
        (b"\xff", Identity(authzid="\\xff", problem="utf-8")),
        (b"x" * 4000, Identity(problem="too-long")),
        (b"\0user\0s3cret", Identity(problem="structure")),
    ],
)
def test_the_message_is_the_authzid(payload: bytes, want: Identity) -> None:
    decoder = ExternalDecoder()
    assert decoder.response(payload, 0) == want
    assert decoder.response(b"other", 1) == Identity()
    assert decoder.challenge(b"", 1) == Challenge()
