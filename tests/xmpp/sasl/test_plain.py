"""PLAIN. Vectors: RFC 4616 section 4, RFC 6120 section 9.1.2."""

import base64

import pytest

from xproxy.xmpp.sasl import Challenge, Identity
from xproxy.xmpp.sasl.plain import PlainDecoder


@pytest.mark.parametrize(
    ("payload", "want"),
    [
        (b"\0tim\0tanstaaftanstaaf", Identity(authcid="tim")),  # RFC 4616 section 4
        (b"Ursel\0Kurt\0xipj3plmq", Identity(authzid="Ursel", authcid="Kurt")),
        (base64.b64decode("AGp1bGlldAByMG0zMG15cjBtMzA="), Identity(authcid="juliet")),  # RFC 6120 section 9.1.2
        ("j\u00fcrgen@h.example\0\u03c0\0x".encode(), Identity(authzid="j\u00fcrgen@h.example", authcid="\u03c0")),
        (b"\0user\0", Identity(authcid="user", problem="structure")),  # passwd has at least one octet
        (b"\0user\0pass\0word", Identity(authcid="user", problem="structure")),
        (b"\0u\xffser\0pass", Identity(authcid="u\\xffser", problem="utf-8")),
        (b"\xc3\0user\0pass", Identity(authcid="user", authzid="\\xc3", problem="utf-8")),
        (b"\0" + b"u" * 4000 + b"\0pass", Identity(problem="too-long")),
    ],
)
def test_names_are_read_and_the_password_is_not(payload: bytes, want: Identity) -> None:
    assert PlainDecoder().response(payload, 0) == want


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"s3cret",
        b"user\0s3cret",  # one NUL: what stands behind it is a password
        b"\0s3cret",
        b"\0\0s3cret",
        b"user\0\0s3cret",
        b"\0\0user\0s3cret",
    ],
)
def test_a_wrong_shape_tells_no_name_at_all(payload: bytes) -> None:
    assert PlainDecoder().response(payload, 0) == Identity(problem="structure")


def test_only_the_first_message_is_read_whichever_step_it_is() -> None:
    decoder = PlainDecoder()
    assert decoder.response(b"\0tim\0x", 1).authcid == "tim"
    assert decoder.response(b"\0tom\0x", 2) == Identity()
    assert decoder.challenge(b"", 1) == Challenge()
