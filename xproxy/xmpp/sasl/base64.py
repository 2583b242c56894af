"""Base64 as SASL in XMPP uses it (RFC 6120 sections 6.4.2 and 13.9.1).

Strict is the alphabet *and* the one canonical spelling: ``base64.b64decode(validate=True)`` alone takes ``QUJD=``,
``QR==`` and more. Servers are laxer than the RFC (Prosody skips white space and goes on behind padding), so a second,
tolerant reading keeps the attribution of a login that a server may well accept; how it was spelt is part of the answer.
Nothing here raises, so no exception carries a payload.
"""

import base64
import re
from typing import Final, Literal

Encoding = Literal["strict", "whitespace", "noncanonical", "invalid"]

TEXT_CHARS_MAX: Final = 65_536  # GSSAPI tokens are the longest in use, a few KiB; above this nothing is decoded

_STRICT: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_TOLERANT: Final = re.compile(r"(?:[A-Za-z0-9+/][A-Za-z0-9+/=]*)?")  # one loop: strangers write what it reads
_PADDING: Final = re.compile(r"=+")
_WHITESPACE: Final = re.compile(r"[ \t\r\n\f\b]+")  # what Prosody skips (util-src/encodings.c)


def decode_base64(text: str) -> tuple[bytes | None, Encoding]:
    """Return the octets and how they were spelt; None only with "invalid".

    "=" is data of zero length, and so is "": whether an absent text means "no data at all" depends on the element,
    see ``decode_initial_response``.
    """
    if text in ("", "="):
        return b"", "strict"
    if len(text) > TEXT_CHARS_MAX:
        return None, "invalid"
    if (data := _decode_strict(text)) is not None:
        return data, "strict"
    compact = _WHITESPACE.sub("", text)
    if compact in ("", "="):
        return b"", "whitespace"
    if compact != text and (data := _decode_strict(compact)) is not None:
        return data, "whitespace"
    if (data := _decode_tolerant(compact)) is not None:
        return data, "noncanonical"
    return None, "invalid"


def decode_initial_response(text: str) -> tuple[bytes | None, Encoding | None]:
    """Read the text of ``<auth/>``: like ``decode_base64``, but (None, None) for an absent text.

    An empty ``<auth/>`` has no initial response; a zero-length one is sent as "=" (RFC 6120 section 6.4.2).
    """
    return decode_base64(text) if text else (None, None)


def _decode_strict(text: str) -> bytes | None:
    if _STRICT.fullmatch(text) is None:
        return None
    data = base64.b64decode(text)
    return data if base64.b64encode(data) == text.encode() else None


def _decode_tolerant(text: str) -> bytes | None:
    """Decode each run of letters for itself: unpadded, overpadded, joined, or with bits behind the end."""
    if _TOLERANT.fullmatch(text) is None:
        return None
    runs = [run for run in _PADDING.split(text) if run]
    if any(len(run) % 4 == 1 for run in runs):  # six bits are no octet
        return None
    return b"".join(base64.b64decode(run + "=" * (-len(run) % 4)) for run in runs)
