"""DIGEST-MD5. Vector: RFC 2831 section 4 (the IMAP example)."""

import pytest

from xproxy.xmpp.sasl import Challenge, Identity
from xproxy.xmpp.sasl.digest_md5 import DigestMd5Decoder

RFC_2831 = (
    b'charset=utf-8,username="chris",realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",nc=00000001,'
    b'cnonce="OA6MHXh6VqTrRk",digest-uri="imap/elwood.innosoft.com",'
    b"response=d388dad90d4bbd760a152321f2143af7,qop=auth"
)


def test_the_dialogue_of_the_rfc() -> None:
    decoder = DigestMd5Decoder()
    assert decoder.response(b"", 0) == Identity()
    assert decoder.challenge(b'realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",qop="auth"', 1) == Challenge()
    assert decoder.response(RFC_2831, 1) == Identity(authcid="chris", realm="elwood.innosoft.com")
    assert decoder.challenge(b"rspauth=ea40f60335c427b5527b84dbabcdfffd", 2) == Challenge()
    assert decoder.response(b"", 2) == Identity()
    assert decoder.response(RFC_2831, 3) == Identity()


@pytest.mark.parametrize(
    ("payload", "want"),
    [
        (b'username="a\\"b\\\\c"', Identity(authcid='a"b\\c')),
        (b'username="a,b=c",realm=""', Identity(authcid="a,b=c")),
        (b"username=token", Identity(authcid="token")),
        (b' USERNAME = "u" ,, \t authzid="z" , ', Identity(authcid="u", authzid="z")),
        (b'username="\xfc"', Identity(authcid="\u00fc")),  # without charset: ISO 8859-1
        ('charset=utf-8,username="\u03c0"'.encode(), Identity(authcid="\u03c0")),
        (b'charset="UTF-8",username="\xc3"', Identity(authcid="\\xc3", problem="utf-8")),
        (b'username="u",qop=auth-int', Identity(authcid="u", security_layer=True)),
        (b'username="u",qop="auth-conf"', Identity(authcid="u", security_layer=True)),
        (b'username="u",username="v"', Identity(authcid="u", problem="structure")),
        (b'realm="r"', Identity(realm="r", problem="structure")),
        (b'username=""', Identity(problem="structure")),
        (b'username="u",response', Identity(authcid="u", problem="structure")),
        (b'username="u"x,realm="r"', Identity(problem="structure")),
        (b'username="open', Identity(problem="structure")),
        (b'username="u",nonce="open', Identity(authcid="u", problem="structure")),
        (b'username="' + b"u" * 4000 + b'"', Identity(problem="too-long")),
        (b"\0user\0s3cret", Identity(problem="structure")),
        (b"\xff\xfe", Identity(problem="structure")),
    ],
)
def test_directives(payload: bytes, want: Identity) -> None:
    decoder = DigestMd5Decoder()
    decoder.challenge(b'realm="r",realm="s",nonce="n",qop="auth, auth-int,auth-conf"', 1)
    assert decoder.response(payload, 1) == want


@pytest.mark.parametrize("challenge", [None, b'nonce="n"', b'nonce="n",qop="auth"', b"", b"qop=auth-int-not"])
def test_a_security_layer_that_was_not_offered_is_none(challenge: bytes | None) -> None:
    """ejabberd takes any qop and applies none: a client must not make us look away by its word alone."""
    decoder = DigestMd5Decoder()
    if challenge is not None:
        decoder.challenge(challenge, 1)
    assert decoder.response(b'username="u",qop=auth-conf', 1) == Identity(authcid="u", problem="qop")


def test_a_long_list_is_read_in_one_pass() -> None:
    """A pattern that backtracks would take minutes for this."""
    assert DigestMd5Decoder().response(b'a="' + b"\\" * 49_000, 1).problem == "structure"
    assert DigestMd5Decoder().response(b" ," * 24_000 + b"!", 1).problem == "structure"
    assert DigestMd5Decoder().response(b"a=" + b" " * 49_000 + b"!", 1).problem == "structure"
    assert DigestMd5Decoder().response(b"a=" + b" " * 49_000 + b'"', 1).problem == "structure"
