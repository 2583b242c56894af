import base64
import random

from hypothesis import assume, given
from hypothesis import strategies as st

from xproxy.capture.spelling import refuse, respell
from xproxy.xmpp.sasl.base64 import decode_base64

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
TEXTS = st.lists(
    st.one_of(st.text(alphabet=LETTERS, min_size=1, max_size=9), st.sampled_from(["=", "==", " ", "\n", "\t"]))
).map("".join)


@given(TEXTS, st.randoms())
def test_other_octets_in_the_same_spelling(text: str, rng: random.Random) -> None:
    data, encoding = decode_base64(text)
    assume(data is not None)
    assert data is not None
    other = rng.randbytes(len(data))
    assert [char for char in text if char in "= \n\t"] == [char for char in respell(text, other) if char in "= \n\t"]
    assert decode_base64(respell(text, other)) == (other, encoding)
    assert respell(text, data) == text


@given(TEXTS.map(lambda text: text + "!"), st.sampled_from(["", "password", "a b=c"]))
def test_what_is_no_base64_says_nothing_and_is_none(text: str, more: str) -> None:
    refused = refuse(text + more)
    assert len(refused) == len(text + more)
    assert decode_base64(refused)[0] is None
    assert not set(refused) - set("! \t\r\n=>")


def test_a_payload_is_replaced_where_it_stands() -> None:
    text = (
        " "
        + base64.b64encode(b"\0juliet\0secret").decode()[:10]
        + "\n"
        + base64.b64encode(b"\0juliet\0secret").decode()[10:]
    )
    assert decode_base64(respell(text, b"\0juliet\0xxxxxx")) == (b"\0juliet\0xxxxxx", "whitespace")
