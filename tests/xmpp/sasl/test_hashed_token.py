"""HT-*: XEP-0484, draft-schmaus-kitten-sasl-ht-08 section 3.1."""

import pytest

from xproxy.xmpp.sasl import Challenge, Identity
from xproxy.xmpp.sasl.hashed_token import BINDINGS, HashedTokenDecoder, binding_suffix

TOKEN = bytes(range(32))  # holds a NUL: the first one counts


@pytest.mark.parametrize("suffix", BINDINGS)
def test_name_and_binding_are_read_and_the_token_is_not(suffix: str) -> None:
    decoder = HashedTokenDecoder(mechanism=f"HT-SHA-256-{suffix}")
    assert decoder.response(b"juliet\0" + TOKEN, 0) == Identity(authcid="juliet", channel_binding=BINDINGS[suffix])
    assert decoder.challenge(TOKEN, 1) == Challenge()
    assert decoder.response(b"romeo\0" + TOKEN, 1) == Identity()


@pytest.mark.parametrize(
    ("payload", "want"),
    [
        (b"juliet@capulet.example\0" + TOKEN, Identity(authcid="juliet@capulet.example")),
        ("\u03c0\0".encode() + TOKEN, Identity(authcid="\u03c0")),
        (b"\xff\0" + TOKEN, Identity(authcid="\\xff", problem="utf-8")),
        (b"u" * 4000 + b"\0" + TOKEN, Identity(problem="too-long")),
        (b"juliet\0", Identity(problem="structure")),
        (b"\0" + TOKEN, Identity(problem="structure")),
        (b"\0user\0s3cret", Identity(problem="structure")),
        (b"s3cret", Identity(problem="structure")),
    ],
)
def test_messages(payload: bytes, want: Identity) -> None:
    assert HashedTokenDecoder(mechanism="HT-SHA-256-NONE").response(payload, 0) == want


@pytest.mark.parametrize(
    ("mechanism", "suffix"),
    [
        ("HT-SHA-256-ENDP", "ENDP"),
        ("HT-SHA3-512-UNIQ", "UNIQ"),
        ("ht-sha-256-expr", "EXPR"),
        ("HT-BLAKE2B-512-NONE", "NONE"),
        ("HT-SHA-256", None),
        ("SCRAM-SHA-1-NONE", None),
        ("", None),
    ],
)
def test_the_binding_is_in_the_name(mechanism: str, suffix: str | None) -> None:
    assert binding_suffix(mechanism) == suffix
