"""All decoders together: which one is chosen, that none keeps or raises anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xproxy.xmpp.sasl import Challenge, Decoder, Identity, decoder_for
from xproxy.xmpp.sasl.anonymous import AnonymousDecoder
from xproxy.xmpp.sasl.cram_md5 import CramMd5Decoder
from xproxy.xmpp.sasl.digest_md5 import DigestMd5Decoder
from xproxy.xmpp.sasl.external import ExternalDecoder
from xproxy.xmpp.sasl.hashed_token import HashedTokenDecoder
from xproxy.xmpp.sasl.oauth import OAuthBearerDecoder, XOAuth2Decoder
from xproxy.xmpp.sasl.opaque import OpaqueDecoder
from xproxy.xmpp.sasl.plain import PlainDecoder
from xproxy.xmpp.sasl.scram import ScramDecoder

MECHANISMS = [
    "PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "DIGEST-MD5", "EXTERNAL", "ANONYMOUS", "X-UNKNOWN", "CRAM-MD5",
    "OAUTHBEARER", "X-OAUTH2", "HT-SHA-256-NONE", "HT-SHA-256-ENDP",
]  # fmt: skip

names = st.text(alphabet="abcdefgh.@-\u00fc", min_size=1, max_size=12)
secrets = st.text(alphabet="QXZ019#\u265e", min_size=8, max_size=24)  # no letter that a name or a repr could hold
cuts = st.integers(min_value=0, max_value=80)


@pytest.mark.parametrize(
    ("mechanism", "decoder"),
    [
        ("PLAIN", PlainDecoder),
        ("plain", PlainDecoder),
        ("DIGEST-MD5", DigestMd5Decoder),
        ("EXTERNAL", ExternalDecoder),
        ("ANONYMOUS", AnonymousDecoder),
        ("SCRAM-SHA-1", ScramDecoder),
        ("SCRAM-SHA-1-PLUS", ScramDecoder),
        ("SCRAM-SHA-224", ScramDecoder),
        ("SCRAM-SHA-256", ScramDecoder),
        ("SCRAM-SHA-384", ScramDecoder),
        ("SCRAM-SHA-512-PLUS", ScramDecoder),
        ("SCRAM-SHA3-512", ScramDecoder),
        ("SCRAM", OpaqueDecoder),
        ("GSSAPI", OpaqueDecoder),
        ("LOGIN", OpaqueDecoder),
        ("CRAM-MD5", CramMd5Decoder),
        ("OAUTHBEARER", OAuthBearerDecoder),
        ("OAUTH10A", OpaqueDecoder),
        ("X-OAUTH2", XOAuth2Decoder),
        ("HT-SHA-256-ENDP", HashedTokenDecoder),
        ("HT-SHA-512-NONE", HashedTokenDecoder),
        ("HT-SHA-256-NEWB", OpaqueDecoder),
        ("HT", OpaqueDecoder),
        ("", OpaqueDecoder),
        ("PLAIN ", OpaqueDecoder),
    ],
)
def test_decoder_for(mechanism: str, decoder: type[Decoder]) -> None:
    assert type(decoder_for(mechanism)) is decoder


def test_plus_is_seen_in_the_name() -> None:
    assert decoder_for("SCRAM-SHA-512-PLUS").response(b"n,,n=u,r=x", 0).problem == "gs2-flag"
    assert decoder_for("SCRAM-SHA-512").response(b"n,,n=u,r=x", 0).problem is None


def test_each_attempt_has_a_decoder_of_its_own() -> None:
    assert decoder_for("PLAIN") is not decoder_for("PLAIN")


@pytest.mark.parametrize("mechanism", ["ANONYMOUS", "X-UNKNOWN"])
def test_what_is_not_read_tells_nothing(mechanism: str) -> None:
    decoder = decoder_for(mechanism)
    assert decoder.response(b"sirhc@example.com", 0) == Identity()  # the trace of RFC 4505 section 4
    assert decoder.challenge(b"anything", 1) == Challenge()


@pytest.mark.parametrize(
    ("mechanism", "message"),
    [
        ("PLAIN", b"\0user\0x"),
        ("SCRAM-SHA-1", b"n,,n=user,r=x"),
        ("DIGEST-MD5", b'username="user"'),
        ("CRAM-MD5", b"user b913a602c7eda7a495b4e6e7334d3890"),
        ("X-OAUTH2", b"\0user\0x"),
        ("HT-SHA-256-NONE", b"user\0x"),
    ],
)
def test_an_empty_initial_response_does_not_hide_the_message_behind_it(mechanism: str, message: bytes) -> None:
    decoder = decoder_for(mechanism)
    assert decoder.response(b"", 0).authcid is None
    assert decoder.challenge(b"", 1) == Challenge()
    assert decoder.response(message, 1).authcid == "user"


def told(mechanism: str, *messages: bytes) -> str:
    """Everything that is left of a dialogue after it: what was returned, and the decoder itself."""
    decoder = decoder_for(mechanism)
    left = [repr(decoder), repr(getattr(decoder, "__dict__", {}))]
    for step, message in enumerate(messages):
        for answer in (decoder.response(message, step), decoder.challenge(message, step + 1)):
            left += [repr(answer), str(answer), repr(decoder.__dict__)]
    return "\n".join(left)


@given(st.sampled_from(MECHANISMS), st.lists(st.binary(max_size=60), max_size=4))
def test_any_octets_are_read_without_an_exception(mechanism: str, messages: list[bytes]) -> None:
    assert told(mechanism, *messages)


@given(names, names, secrets, cuts)
def test_canary_plain(authzid: str, authcid: str, password: str, cut: int) -> None:
    message = f"{authzid}\0{authcid}\0{password}".encode()
    assert password not in told("PLAIN", message)
    for mechanism in MECHANISMS:  # sent under the wrong name, or cut short, or with a field missing
        if mechanism not in ("PLAIN", "EXTERNAL"):
            assert password not in told(mechanism, message)
        assert password not in told(mechanism, f"{authcid}\0{password}".encode(), f"\0{password}".encode())
    assert password not in told("PLAIN", message[:cut], message[cut:])


@given(names, names, secrets, st.permutations(["r", "s", "p", "v", "c", "h"]), st.sampled_from(MECHANISMS), cuts)
def test_canary_scram(authzid: str, authcid: str, secret: str, order: list[str], mechanism: str, cut: int) -> None:
    secret_fields = ",".join(f"{letter}={secret}" for letter in order)
    first = f"n,a={authzid},n={authcid},{secret_fields}".encode()
    final = secret_fields.encode()
    left = told("SCRAM-SHA-256", first, final, f"e={secret}".encode())
    assert secret not in left
    assert secret not in told("SCRAM-SHA-256", final, first)
    if mechanism != "EXTERNAL":  # its whole message is a name
        assert secret not in told(mechanism, first, final)
    assert secret not in told("SCRAM-SHA-256", first[:cut], final)


@given(names, secrets, st.booleans(), cuts)
def test_canary_digest_md5(user: str, secret: str, quoted: bool, cut: int) -> None:
    value = f'"{secret}"' if quoted else secret
    directives = ",".join(f"{key}={value}" for key in ("nonce", "cnonce", "nc", "response", "digest-uri", "password"))
    message = f'charset=utf-8,username="{user}",{directives}'.encode()
    assert secret not in told("DIGEST-MD5", message, message)
    assert secret not in told("DIGEST-MD5", message[:cut])
    assert secret not in told("DIGEST-MD5", message[cut:])


@given(names, secrets, cuts)
def test_canary_tokens(user: str, secret: str, cut: int) -> None:
    for mechanism, message in (
        ("OAUTHBEARER", f"n,a={user},\1host=h\1port=5222\1auth=Bearer {secret}\1\1"),
        ("OAUTHBEARER", f"n,,\1auth=Bearer {secret}\1x={secret}\1\1"),
        ("OAUTHBEARER", f"n,{secret},\1auth=Bearer {secret}\1\1"),
        ("X-OAUTH2", f"\0{user}\0{secret}"),
        ("HT-SHA-256-ENDP", f"{user}\0{secret}"),
        ("HT-SHA-256-NONE", f"{user}\0{secret}\0{secret}"),
        ("HT-SHA-256-NONE", f"\0{secret}"),
        ("CRAM-MD5", f"{user} {secret}"),
    ):
        octets = message.encode()
        assert secret not in told(mechanism, octets, octets)
        assert secret not in told(mechanism, octets[:cut], octets[cut:])
    status = f'{{"status": "{secret}", "scope": "{secret}"}}'
    assert secret not in told("OAUTHBEARER", b"n,,\1auth=Bearer x\1\1", status.encode(), secret.encode())


@given(secrets, st.sampled_from(["ANONYMOUS", "X-UNKNOWN", "X-OAUTH2", "OAUTHBEARER", "HT-SHA-256-NONE", "CRAM-MD5"]))
def test_canary_opaque(secret: str, mechanism: str) -> None:
    assert secret not in told(mechanism, secret.encode(), f"u\0{secret}".encode(), f"u {secret}".encode())
