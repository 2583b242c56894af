"""Base64 with other octets behind it, spelt as it was: padding, white space and what is odd about it stay."""

import base64
import re
from typing import Final

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_VALUES: Final = {octet: value for value, octet in enumerate(_ALPHABET)}
_WHITE: Final = re.compile(r"[ \t\r\n\f\b]")
_UNUSED_BITS: Final = {2: 0x0F, 3: 0x03}  # of the last letter, by the letters of the last group


def respell(text: str, payload: bytes) -> str:
    """Return ``text`` with its letters replaced so that it is read as ``payload``, which is as long as what it was.

    ``text`` is what ``xproxy.xmpp.sasl.base64`` can read. Bits that belong to no octet stay as they were: whether they
    are zero is what tells the canonical spelling.
    """
    letters = list(text)
    run: list[int] = []
    rest = payload

    def close() -> None:
        nonlocal rest
        size = len(run) * 6 // 8
        octets, rest = rest[:size], rest[size:]
        encoded = base64.b64encode(octets)[: len(run)]
        for at, octet in zip(run, encoded, strict=True):
            letters[at] = chr(octet)
        unused = _UNUSED_BITS.get(len(run) % 4)
        if unused is not None:
            last = run[-1]
            kept = _VALUES[ord(text[last])] & unused
            letters[last] = chr(_ALPHABET[_VALUES[ord(letters[last])] | kept])
        run.clear()

    for at, letter in enumerate(text):
        if letter == "=":
            close()
        elif not _WHITE.match(letter):
            run.append(at)
    close()
    assert not rest, "the payload is as long as it was"
    return "".join(letters)


def refuse(text: str) -> str:
    """Return what is no base64 either, in place of a text that is none."""
    return "".join(letter if letter in " \t\r\n=>" else "!" for letter in text)
