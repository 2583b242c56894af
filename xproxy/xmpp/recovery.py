"""Finding the end of an element that libxml2 refused, with the parser the servers use.

Prosody, ejabberd and slixmpp read their streams with expat. Where expat accepts what libxml2 does not (libxml2 stops at
depth 256 and at names of 50 000 octets), the session goes on and so must the log: expat counts depth until the element
is over. Where expat refuses too, a conforming server ends the stream.

expat before 2.6.0 reads an unfinished token from its beginning at every call (CVE-2023-52425). A peer chooses the cuts,
so ``ElementSkip`` bounds the sum: past ``REREAD_BYTES_MAX`` it waits until an eighth of the token has come anew, which
makes the rest linear. The price is that an end may be noticed later, with the octets that follow it.
"""

import pyexpat
from typing import Any, Final

# Never part of a namespace name, because no XML document may hold it: nothing can be smuggled over the separator
# (CVE-2022-25236). Prosody uses the same.
_SEPARATOR: Final = "\x01"

REREAD_BYTES_MAX: Final = 16_777_216  # 16 passes over the largest stanza; about 30 ms


class Refused(Exception):  # noqa: N818 - a verdict, not a fault
    """expat does not take these octets either."""


class _Found(Exception):  # noqa: N818 - leaves expat's loop as soon as the end is seen
    pass


def _parser() -> Any:
    parser = pyexpat.ParserCreate(encoding="utf-8", namespace_separator=_SEPARATOR)
    if hasattr(parser, "SetReparseDeferralEnabled"):  # expat 2.6.0 and later: an end must be told at once
        parser.SetReparseDeferralEnabled(False)
    return parser


def is_accepted(header: bytes, data: bytes) -> bool:
    """Tell whether expat takes ``data`` behind the stream header ``header``."""
    try:
        _parser().Parse(header + data, False)
    except pyexpat.ExpatError:
        return False
    return True


class ElementSkip:
    """Finds the end of the first-level element whose octets are fed to it from its beginning.

    ``header`` is the stream's start tag, which ``is_accepted`` already.
    """

    def __init__(self, header: bytes) -> None:
        self._parser = _parser()
        self._parser.Parse(header, False)
        self._depth = 1
        self._bare = False  # the element's start tag was the last thing seen
        self._given = len(header)
        self._waiting = b""
        self._reread = 0
        self._before = b""  # the last octet given
        self._end = 0
        self._parser.StartElementHandler = self._started
        self._parser.EndElementHandler = self._ended
        self._parser.CharacterDataHandler = self._text

    def feed(self, data: bytes) -> bytes | None:
        """Return the octets behind the element's end, or None while it is open. Raises Refused."""
        block = self._waiting + data
        unfinished = max(0, self._given - max(0, self._parser.CurrentByteIndex))
        if self._reread > REREAD_BYTES_MAX and len(block) * 8 < unfinished:
            self._waiting = block
            return None
        self._reread += unfinished
        self._waiting = b""
        try:
            self._parser.Parse(block, False)
        except _Found:
            return block[self._index(block) :]
        except pyexpat.ExpatError as error:
            raise Refused from error
        self._given += len(block)
        self._before = block[-1:] or self._before
        return None

    def _index(self, block: bytes) -> int:
        at = self._end - self._given
        # For an empty-element tag expat names the octet behind it, for an end tag its "<".
        if self._bare and at > 0 and (self._before + block[max(0, at - 2) : at]).endswith(b"/>"):
            return at
        return block.index(b">", max(at, 0)) + 1

    def _started(self, _name: str, _attributes: dict[str, str]) -> None:
        self._depth += 1
        self._bare = self._depth == 2

    def _ended(self, _name: str) -> None:
        self._depth -= 1
        if self._depth == 1:
            self._end = self._parser.CurrentByteIndex
            raise _Found
        self._bare = False

    def _text(self, _text: str) -> None:
        self._bare = False
