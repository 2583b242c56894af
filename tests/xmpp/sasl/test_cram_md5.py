"""CRAM-MD5. Vector: RFC 2195 section 2."""

import pytest

from xproxy.xmpp.sasl import Challenge, Identity
from xproxy.xmpp.sasl.cram_md5 import CramMd5Decoder

DIGEST = b"b913a602c7eda7a495b4e6e7334d3890"


def test_the_dialogue_of_the_rfc() -> None:
    decoder = CramMd5Decoder()
    assert decoder.response(b"", 0) == Identity()
    assert decoder.challenge(b"<1896.697170952@postoffice.reston.mci.net>", 1) == Challenge()
    assert decoder.response(b"tim " + DIGEST, 1) == Identity(authcid="tim")
    assert decoder.response(b"tom " + DIGEST, 2) == Identity()


@pytest.mark.parametrize(
    ("payload", "want"),
    [
        (b"two words " + DIGEST, Identity(authcid="two words")),
        ("\u03c0 ".encode() + DIGEST, Identity(authcid="\u03c0")),
        (b"tim " + DIGEST.upper(), Identity(authcid="tim")),
        (b"\xff " + DIGEST, Identity(authcid="\\xff", problem="utf-8")),
        (b"u" * 4000 + b" " + DIGEST, Identity(problem="too-long")),
        (b" " + DIGEST, Identity(problem="structure")),
        (DIGEST, Identity(problem="structure")),
        (b"tim", Identity(problem="structure")),
        (b"tim s3cret", Identity(problem="structure")),
        (b"tim " + DIGEST + b"\n", Identity(problem="structure")),
        (b"tim " + DIGEST[:-1], Identity(problem="structure")),
        (b"\0user\0s3cret", Identity(problem="structure")),
    ],
)
def test_responses(payload: bytes, want: Identity) -> None:
    assert CramMd5Decoder().response(payload, 1) == want
