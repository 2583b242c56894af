"""What stands for a payload: the decoder reads the same, and no secret is in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xproxy.xmpp.sasl import decoder_for
from xproxy.xmpp.sasl.filler import PayloadFiller

HASH = "4+r3mTfqRM4NgkdnkW4jAw5Hl9g="  # of an offer, SHA-1
CLIENT = [
    ("PLAIN", b"\0juliet\0r0m30myr0m30", b"\0juliet\0xxxxxxxxxxxx"),
    ("PLAIN", b"admin@h\0juliet\0s\0t", b"admin@h\0juliet\0x\0x"),
    ("PLAIN", b"juliet\0secret", b"xxxxxx\0xxxxxx"),
    ("X-OAUTH2", b"\0juliet\0ya29.token", b"\0juliet\0xxxxxxxxxx"),
    ("SCRAM-SHA-1", b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", b"n,,n=user,r=" + b"x" * 24),
    ("SCRAM-SHA-1", b"y,a=adm,n=u=2Cv,r=abc,x=y", b"y,a=adm,n=u=2Cv,r=xxx,x=x"),
    ("SCRAM-SHA-1-PLUS", b"p=tls-exporter,,n=u,r=abc", b"p=tls-exporter,,n=u,r=xxx"),
    ("SCRAM-SHA-1-PLUS", b"p=my-proof,,n=u,r=abc", b"p=xxxxxxxx,,n=u,r=xxx"),
    ("SCRAM-SHA-1", b"n,,n=user,secret", b"n,,n=user,xxxxxx"),
    ("SCRAM-SHA-1", b"n,,m=ext,n=u,r=1", b"n,,m=xxx,n=u,r=x"),
    ("SCRAM-SHA-1", b"n,secret,n=u,r=1", b"n,xxxxxx,n=u,r=x"),
    ("SCRAM-SHA-1", b"hunter2", b"xxxxxxx"),
    ("DIGEST-MD5", b'username="j",realm="h",nonce="a,b",response=0f,qop=auth',
     b'username="j",realm="h",nonce="xxx",response=xx,qop=auth'),
    ("DIGEST-MD5", b'username="j\\"k",nonce="\\"", junk secret', b'username="j\\"k",nonce="xx"xxxxxxxxxxxxx'),
    ("CRAM-MD5", b"tim b913a602c7eda7a495b4e6e7334d3890", b"tim " + b"0" * 32),
    ("CRAM-MD5", b"tim hunter2", b"xxxxxxxxxxx"),
    ("EXTERNAL", b"juliet@h", b"juliet@h"),
    ("EXTERNAL", b"\0juliet\0secret", b"\0xxxxxx\0xxxxxx"),
    ("OAUTHBEARER", b"n,a=j@h,\x01host=h\x01auth=Bearer tok\x01\x01", b"n,a=j@h,\x01host=x\x01auth=xxxxxxxxxx\x01\x01"),
    ("HT-SHA-256-NONE", b"juliet\0token", b"juliet\0xxxxx"),
    ("HT-SHA-256-NONE", b"token", b"xxxxx"),
    ("GSSAPI", b"\x60\x82secret", b"xxxxxxxx"),
    ("LOGIN", b"juliet", b"xxxxxx"),
]  # fmt: skip
SERVER = [
    ("SCRAM-SHA-1", b"r=abc,s=QSXCR+Q6sek8bf92,i=4096", b"r=xxx,s=xxxxxxxxxxxxxxxx,i=4096"),
    ("SCRAM-SHA-1", f"r=a,s=b,i=4096,h={HASH},t=0304".encode(), f"r=x,s=x,i=4096,h={HASH},t=0304".encode()),
    ("SCRAM-SHA-1", b"r=a,s=b,i=4096,i=9,h=c2FsdA==,t=zz", b"r=x,s=x,i=4096,i=x,h=xxxxxxxx,t=xx"),
    ("SCRAM-SHA-1", b"e=unknown-user", b"e=unknown-user"),
    ("SCRAM-SHA-1", b"e=juliet has no such", b"e=xxxxxxxxxxxxxxxxxx"),
    ("DIGEST-MD5", b'realm="h",nonce="n",qop="auth",charset=utf-8', b'realm="h",nonce="x",qop="auth",charset=utf-8'),
    ("OAUTHBEARER", b'{"status":"invalid_token","scope":"s"}', b'{"status":"invalid_token"}            '),
    ("OAUTHBEARER", b'{"status":"juliet","scope":"s"}', b'{"status":""}                  '),
    ("OAUTHBEARER", b"[1]", b"xxx"),
    ("CRAM-MD5", b"<1896.697@h>", b"xxxxxxxxxxxx"),
]  # fmt: skip


@pytest.mark.parametrize(("mechanism", "payload", "filled"), CLIENT)
def test_a_message_of_the_client(mechanism: str, payload: bytes, filled: bytes) -> None:
    assert PayloadFiller(mechanism).response(payload) == filled
    assert decoder_for(mechanism).response(payload, 0) == decoder_for(mechanism).response(filled, 0)


@pytest.mark.parametrize(("mechanism", "payload", "filled"), SERVER)
def test_a_message_of_the_server(mechanism: str, payload: bytes, filled: bytes) -> None:
    filler, before, after = PayloadFiller(mechanism), decoder_for(mechanism), decoder_for(mechanism)
    first = b"n,,n=u,r=abc"  # what makes a challenge one
    for decoder in (before, after):
        decoder.response(first, 0)
    filler.response(first)
    assert filler.challenge(payload) == filled
    assert before.challenge(payload, 1) == after.challenge(filled, 1)


def test_of_later_messages_nothing_stays() -> None:
    filler = PayloadFiller("SCRAM-SHA-256")
    filler.response(b"n,,n=user,r=abc")
    filler.challenge(b"r=abcdef,s=c2FsdA==,i=4096")
    assert filler.response(b"c=biws,r=abcdef,p=dHzbZapW") == b"c=xxxx,r=xxxxxx,p=xxxxxxxx"
    assert filler.challenge(b"v=6rriTRBi23WpRR/wtup+") == b"v=xxxxxxxxxxxxxxxxxxxx"


def test_what_comes_behind_the_first_message_is_nobodys_name() -> None:
    for mechanism in ("PLAIN", "EXTERNAL", "CRAM-MD5", "DIGEST-MD5", "HT-SHA-256-NONE", "OAUTHBEARER"):
        filler = PayloadFiller(mechanism)
        filler.response(b"x")
        assert filler.response(b"\0secret\0x") == b"\0xxxxxx\0x"
        assert filler.response(b"secret") == b"xxxxxx"


@given(
    st.sampled_from(["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "DIGEST-MD5", "CRAM-MD5", "OAUTHBEARER", "EXTERNAL",
                     "HT-SHA-256-ENDP", "X-OAUTH2", "GSSAPI"]),
    st.lists(
        st.tuples(st.booleans(), st.one_of(st.binary(max_size=40), st.sampled_from([p for _, p, _ in CLIENT + SERVER])))
    ),
)  # fmt: skip
def test_whatever_is_said_the_decoder_reads_the_same_from_both(
    mechanism: str, messages: list[tuple[bool, bytes]]
) -> None:
    filler, before, after = PayloadFiller(mechanism), decoder_for(mechanism), decoder_for(mechanism)
    for step, (by_client, payload) in enumerate(messages):
        filled = filler.response(payload) if by_client else filler.challenge(payload)
        assert len(filled) == len(payload)
        if by_client:
            assert before.response(payload, step) == after.response(filled, step)
        else:
            assert before.challenge(payload, step) == after.challenge(filled, step)
