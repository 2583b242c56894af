"""Invariant: no octets make a decoder raise, and none of them tells a password, a proof, a nonce or a token.

The first line of an input names the mechanism; each further line is a message, by turns the client's and the
server's. ``!N`` plants the mechanism's message N with a secret where its secrets stand, ``!N,LENGTH`` the beginning of
it. Everything else is taken as it is: there the secret does not occur.
"""

import base64
import re
import sys

import harness

with harness.instrumented():
    from xproxy.xmpp.sasl import decode_base64, decoder_for

SECRET = b"QXZQXZQXZ"
PLANTS = {
    "PLAIN": (b"\0user\0%s", b"admin@h\0user\0%s", b"\0user\0%s\0%s"),
    "SCRAM": (
        b"n,,n=user,r=%s", b"n,a=z=2Cz,n=us=3Der,r=%s,x=%s", b"c=biws,r=%s,p=%s", b"r=%s,s=%s,i=4096,h=%s,t=1.3",
        b"v=%s", b"e=%s", b"p=tls-exporter,,n=user,r=%s", b"p=%s,,n=user,r=%s", b"y,,m=%s,n=user,r=%s",
    ),
    "DIGEST-MD5": (
        b'charset=utf-8,username="chris",realm="r",nonce="%s",cnonce="%s",response=%s,qop=auth-int',
        b'nonce="%s",username="a\\"b\\\\",authzid=z', b"rspauth=%s",
    ),
    "CRAM-MD5": (b"user b913a602c7eda7a495b4e6e7334d3890", b"<1896.%s@host>"),
    "OAUTHBEARER": (
        b"n,a=user@h,\x01host=h\x01port=5222\x01auth=Bearer %s\x01\x01", b"n,,\x01auth=%s\x01x=%s\x01\x01",
        b'{"status":"invalid_token","scope":"%s"}', b"\x01",
    ),
    "X-OAUTH2": (b"\0user@h\0%s",),
    "HT": (b"user\0%s", b"user\0%s\0%s"),
    "": (b"%s", b"u\0%s", b"n,a=user@host,\x01auth=Bearer %s\x01\x01"),
}  # fmt: skip
PROBLEMS = {None, "structure", "utf-8", "saslname", "extension", "gs2-flag", "qop", "too-long"}
ENCODINGS = {"strict", "whitespace", "noncanonical", "invalid"}
TOLD_CHARS_MAX = 3 * 4 * 3_071 + 500  # three names at most, each octet of them shown as \xNN
WORDS = [
    b"PLAIN\n", b"SCRAM-SHA-1\n", b"SCRAM-SHA-256-PLUS\n", b"DIGEST-MD5\n", b"EXTERNAL\n", b"ANONYMOUS\n",
    b"OAUTHBEARER\n", b"\n!0", b"\n!1", b"\n!2", b"\n!3,7", b"\0", b"n,,n=", b"a=", b",r=", b"=2C", b"=3D", b"m=",
    b'username="', b'realm="', b"authzid=", b"charset=utf-8", b"qop=auth-conf", b'\\"', b",i=4096", b"p=tls-unique,,",
]  # fmt: skip
_PLANT = re.compile(rb"!(\d)(?:,(\d{1,3}))?")


def check(data: bytes) -> None:
    """Judge one attempt to log in, and Base64 of and in each message."""
    if SECRET in data:
        return
    name, *lines = data.split(b"\n")
    mechanism = name.decode("utf-8", "replace")
    decoder = decoder_for(mechanism)
    upper = mechanism.upper()
    family = next((name for name in ("SCRAM", "HT") if upper.startswith(f"{name}-")), upper)
    has_told = False
    for step, line in enumerate(lines):
        message = planted(family, line)
        judge_base64(message)
        if step % 2:
            challenge = decoder.challenge(message, step)
            assert challenge.problem in PROBLEMS
            judge_told(repr(challenge), repr(vars(decoder) if hasattr(decoder, "__dict__") else decoder))
            continue
        identity = decoder.response(message, step)
        assert identity.problem in PROBLEMS
        assert identity.gs2_flag in (None, "n", "y", "p")
        tells = identity.authcid is not None or identity.authzid is not None
        assert not (tells and has_told), "two messages told who it is"
        has_told = has_told or tells
        judge_told(repr(identity), repr(vars(decoder) if hasattr(decoder, "__dict__") else decoder))


def planted(family: str, line: bytes) -> bytes:
    """Return the message that ``line`` stands for."""
    plant = _PLANT.fullmatch(line)
    if plant is None or family in ("EXTERNAL",):  # its whole message is a name
        return line
    messages = PLANTS.get(family, PLANTS[""])
    message = messages[int(plant[1]) % len(messages)].replace(b"%s", SECRET)
    return message if plant[2] is None else message[: int(plant[2])]


def judge_told(*told: str) -> None:
    """What remains of a message."""
    for text in told:
        assert SECRET.decode() not in text, f"a secret was told: {text}"
        assert len(text) <= TOLD_CHARS_MAX


def judge_base64(message: bytes) -> None:
    """Octets come back from Base64; text that is none is called so and does not raise."""
    text = base64.b64encode(message).decode()
    assert decode_base64(text) == (message, "strict"), "Base64 is not read back"
    odd = message.decode("utf-8", "surrogateescape")
    octets, encoding = decode_base64(odd)
    assert encoding in ENCODINGS
    assert (octets is None) == (encoding == "invalid")
    if octets is not None and encoding == "strict" and odd != "=":
        assert base64.b64encode(octets).decode() == odd, "called strict and is not"


if __name__ == "__main__":
    sys.exit(harness.main("sasl", check, words=WORDS, quick=80_000))
