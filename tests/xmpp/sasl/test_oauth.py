"""OAUTHBEARER: RFC 7628 section 4. X-OAUTH2: what Google's clients send (XMPPFramework, Adium)."""

import pytest

from xproxy.xmpp.sasl import Challenge, Identity
from xproxy.xmpp.sasl.oauth import OAuthBearerDecoder, XOAuth2Decoder

RFC_7628 = (
    b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01"
    b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"
)
REFUSED = (
    b'{"status":"invalid_token","scope":"example_scope",'
    b'"openid-configuration":"https://example.com/.well-known/openid-configuration"}'
)


def test_the_dialogue_of_the_rfc() -> None:
    decoder = OAuthBearerDecoder()
    assert decoder.response(RFC_7628, 0) == Identity(authzid="user@example.com", gs2_flag="n")
    assert decoder.challenge(REFUSED, 1) == Challenge(server_error="invalid_token")
    assert decoder.response(b"\x01", 1) == Identity()  # the dummy answer of section 3.2.3


@pytest.mark.parametrize(
    ("payload", "want"),
    [
        (b"n,,\x01auth=Bearer x\x01\x01", Identity(gs2_flag="n")),
        (b"y,,\x01auth=Bearer x\x01\x01", Identity(gs2_flag="y")),
        (
            b"p=tls-exporter,,\x01auth=Bearer x\x01\x01",
            Identity(gs2_flag="p", channel_binding="tls-exporter"),
        ),
        (b"n,a=a=2Cb,\x01auth=Bearer x\x01\x01", Identity(authzid="a,b", gs2_flag="n")),
        (b"n,a=a=b,\x01auth=Bearer x\x01\x01", Identity(authzid="a=b", gs2_flag="n", problem="saslname")),
        (b"n,a=\xff,\x01auth=Bearer x\x01\x01", Identity(authzid="\\xff", gs2_flag="n", problem="utf-8")),
        (b"n,,\x01auth=Bearer x\x01", Identity(gs2_flag="n", problem="structure")),
        (b"n,,\x01host=h\x01\x01", Identity(gs2_flag="n", problem="structure")),
        (b"n,,\x01\x01", Identity(gs2_flag="n", problem="structure")),
        (b"n,,auth=Bearer x\x01\x01", Identity(problem="structure")),
        (b"n,a=u\x01auth=Bearer x\x01\x01", Identity(problem="structure")),
        (b"n,,", Identity(problem="structure")),
        (b"auth=Bearer x", Identity(problem="structure")),
        (b"Bearer x,y,\x01\x01", Identity(problem="structure")),
        (b"\0user\0s3cret", Identity(problem="structure")),
        (b"\x01", Identity(problem="structure")),
        (b"", Identity()),
    ],
)
def test_responses(payload: bytes, want: Identity) -> None:
    assert OAuthBearerDecoder().response(payload, 0) == want


@pytest.mark.parametrize(
    ("payload", "want"),
    [
        (b"", Challenge()),
        (b'{"status": "insufficient_scope"}', Challenge(server_error="insufficient_scope")),
        (b'{"status": "something new"}', Challenge(server_error="other")),
        (b'{"status": 401}', Challenge(problem="structure")),
        (b'["status"]', Challenge(problem="structure")),
        (b"not json", Challenge(problem="structure")),
        (b"\xff\xfe", Challenge(problem="structure")),
        (b"[" * 8_000, Challenge(problem="structure")),
        (b'{"status": "invalid_token", "x": "' + b"x" * 9_000 + b'"}', Challenge(problem="structure")),
    ],
)
def test_refusals(payload: bytes, want: Challenge) -> None:
    assert OAuthBearerDecoder().challenge(payload, 1) == want


def test_x_oauth2_is_plain_with_a_token() -> None:
    assert XOAuth2Decoder().response(b"\0romeo@example.org\0ya29.token", 0) == Identity(authcid="romeo@example.org")
    assert XOAuth2Decoder().response(b"romeo\0ya29.token", 0) == Identity(problem="structure")
