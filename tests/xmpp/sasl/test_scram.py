"""SCRAM. Vectors: RFC 5802 section 5, RFC 7677 section 3, RFC 6120 section 9.1.1."""

import base64

import pytest

from xproxy.xmpp.sasl import Challenge, Identity
from xproxy.xmpp.sasl.scram import SERVER_ERRORS, ScramDecoder

RFC_5802 = (
    b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
    b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
    b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
)
RFC_7677 = (
    b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
)


@pytest.mark.parametrize("messages", [RFC_5802, RFC_7677], ids=["RFC 5802", "RFC 7677"])
@pytest.mark.parametrize("initial_response", [True, False])
def test_a_whole_dialogue(messages: tuple[bytes, bytes, bytes, bytes], initial_response: bool) -> None:
    decoder = ScramDecoder(plus=False)
    if not initial_response:
        assert decoder.challenge(b"", 1) == Challenge()
    first = 0 if initial_response else 1
    assert decoder.response(messages[0], first) == Identity(authcid="user", gs2_flag="n")
    assert decoder.challenge(messages[1], first + 1) == Challenge(iterations=4096)
    assert decoder.response(messages[2], first + 1) == Identity()
    assert decoder.challenge(messages[3], first + 2) == Challenge()


def test_the_example_of_rfc_6120() -> None:
    payload = base64.b64decode("biwsbj1qdWxpZXQscj1vTXNUQUF3QUFBQU1BQUFBTlAwVEFBQUFBQUJQVTBBQQ==")
    assert ScramDecoder(plus=False).response(payload, 0) == Identity(authcid="juliet", gs2_flag="n")


@pytest.mark.parametrize(
    ("message", "want"),
    [
        (b"y,,n=u,r=x", Identity(authcid="u", gs2_flag="y")),
        (b"n,a=admin,n=u,r=x", Identity(authcid="u", authzid="admin", gs2_flag="n")),
        (b"n,a=a=2Cb=3Dc,n=d=2Ce=3Df,r=x", Identity(authcid="d,e=f", authzid="a,b=c", gs2_flag="n")),
        (b"n,,n==3D2C,r=x", Identity(authcid="=2C", gs2_flag="n")),  # unescaped once
        ("n,,n=\u03c0,r=x".encode(), Identity(authcid="\u03c0", gs2_flag="n")),
        (b"n,,n=u,r=x,q=ext", Identity(authcid="u", gs2_flag="n")),
        (b"n,a=u@other.example,n=u,r=x", Identity(authcid="u", authzid="u@other.example", gs2_flag="n")),
        # COMPAT(XMPPFramework): raw names
        (b"n,,n=a=b,r=x", Identity(authcid="a=b", gs2_flag="n", problem="saslname")),
        (b"n,,n=a=2c,r=x", Identity(authcid="a=2c", gs2_flag="n", problem="saslname")),
        (b"n,,n=a,b,r=x", Identity(authcid="a,b", gs2_flag="n", problem="saslname")),
        (b"n,,n=a=2C,,b,r=x", Identity(authcid="a,,,b", gs2_flag="n", problem="saslname")),
        (b"n,,n=,r=x", Identity(gs2_flag="n", problem="structure")),
        (b"n,,n=u", Identity(authcid="u", gs2_flag="n", problem="structure")),
        (b"n,,n=u,secret", Identity(authcid="u", gs2_flag="n", problem="structure")),
        (b"n,,n=u,p=proof,r=x", Identity(authcid="u", gs2_flag="n", problem="structure")),
        (b"n,,r=x,n=u", Identity(gs2_flag="n", problem="structure")),
        (b"n,,", Identity(gs2_flag="n", problem="structure")),
        (b"n,u,n=u,r=x", Identity(authcid="u", gs2_flag="n", problem="structure")),
        (b"n,a=,n=u,r=x", Identity(authcid="u", gs2_flag="n", problem="structure")),
        (b"n,,m=ext,n=u,r=x", Identity(authcid="u", gs2_flag="n", problem="extension")),
        (b"n,,n=\xff,r=x", Identity(authcid="\\xff", gs2_flag="n", problem="utf-8")),
        (b"n,,n=" + b"u" * 4000 + b",r=x", Identity(gs2_flag="n", problem="too-long")),
        (
            b"p=tls-exporter,,n=u,r=x",
            Identity(authcid="u", gs2_flag="p", channel_binding="tls-exporter", problem="gs2-flag"),
        ),
        # no gs2 header: nothing is read
        (b"", Identity(problem="structure")),
        (b"\0user\0s3cret", Identity(problem="structure")),
        (b"n=user,r=x", Identity(problem="structure")),
        (b"n,n=user", Identity(problem="structure")),
        (b"n", Identity(problem="structure")),
        (b"p=dHzbZapWIk4jUhNUte9ytag9zjfMHgsqmmiz7AndVQ,r=x", Identity(problem="structure")),  # a proof, no binding
        (b"F,n,,n=user,r=x", Identity(problem="structure")),
        (b"c=biws,r=x,p=proof", Identity(problem="structure")),
    ],
)  # fmt: skip
def test_client_first(message: bytes, want: Identity) -> None:
    assert ScramDecoder(plus=False).response(message, 0) == want


@pytest.mark.parametrize(
    ("message", "want"),
    [
        (b"p=tls-exporter,,n=u,r=x", Identity(authcid="u", gs2_flag="p", channel_binding="tls-exporter")),
        (b"p=tls-unique,a=z,n=u,r=x", Identity(authcid="u", authzid="z", gs2_flag="p", channel_binding="tls-unique")),
        (b"p=x-new,,n=u,r=x", Identity(authcid="u", gs2_flag="p", channel_binding="unregistered")),
        (b"p=,,n=u,r=x", Identity(authcid="u", gs2_flag="p", problem="structure")),
        (b"p=no spaces,,n=u,r=x", Identity(authcid="u", gs2_flag="p", problem="structure")),
        (b"n,,n=u,r=x", Identity(authcid="u", gs2_flag="n", problem="gs2-flag")),
        (b"y,,n=u,r=x", Identity(authcid="u", gs2_flag="y", problem="gs2-flag")),
    ],
)
def test_client_first_with_channel_binding(message: bytes, want: Identity) -> None:
    assert ScramDecoder(plus=True).response(message, 0) == want


@pytest.mark.parametrize(
    ("message", "want"),
    [
        (b"r=x,s=y,i=10000,h=aGFzaA==", Challenge(iterations=10_000, has_h=True)),
        (b"r=x,s=y,i=1,h=z,t=1.3", Challenge(iterations=1, has_h=True, has_t=True)),
        (b"r=x,s=y,i=4096,hello,there", Challenge(iterations=4096)),
        (b"m=ext,r=x,s=y,i=4096", Challenge(iterations=4096, problem="extension")),
        (b"r=x,s=y,i=0", Challenge(problem="structure")),
        (b"r=x,s=y,i=4096,i=1", Challenge(iterations=4096)),
        (b"r=x,s=y,i=04096", Challenge(problem="structure")),
        (b"r=x,s=y,i=99999999999", Challenge(problem="structure")),
        (b"r=x,s=y,i=\xd9\xa1", Challenge(problem="structure")),
        (b"r=x,i=4096", Challenge(iterations=4096, problem="structure")),
        (b"i=4096,r=x,s=y", Challenge(iterations=4096, problem="structure")),
        (b"", Challenge(problem="structure")),
        (b"\xff\0", Challenge(problem="structure")),
        (b"e=invalid-proof", Challenge(server_error="invalid-proof")),
        (b"e=unknown-user,x=y", Challenge(server_error="unknown-user")),
        (b"e=" + b"\xff" * 100, Challenge(server_error="other")),
    ],
)
def test_server_first(message: bytes, want: Challenge) -> None:
    decoder = ScramDecoder(plus=False)
    decoder.response(b"n,,n=u,r=x", 0)
    assert decoder.challenge(message, 1) == want


def test_server_errors_are_those_of_the_rfc() -> None:
    assert len(SERVER_ERRORS) == 11
