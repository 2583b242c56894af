"""Finding the end of an element that libxml2 refused, with the parser the servers use.

Prosody, ejabberd and slixmpp read their streams with expat. Where expat accepts what libxml2 does not (libxml2 stops at
depth 256 and at names of 50 000 octets), the session goes on and so must the log: expat counts depth until the element
is over. Where expat refuses too, a conforming server ends the stream.

**Whole tokens only.** With an unfinished token expat does one of two bad things. Before 2.6.0 it reads it from its
beginning at every call, and a peer chooses the cuts (CVE-2023-52425). Since then, and in what distributions made of
2.5.0, it waits until the octets have doubled, and an end may be told late ("reparse deferral"; not every CPython can
switch it off). So octets are held until a tag, comment, CDATA section or instruction is complete. Where one ends is
told by quotes and closing marks alone; in anything expat accepts that is where it ends for expat too, and the rest
expat refuses. A refusal may come later than a server's, but nothing can hide until then: no element is complete.
"""

import pyexpat
import re
from typing import Any, Final

# Never part of a namespace name, because no XML document may hold it: nothing can be smuggled over the separator
# (CVE-2022-25236). Prosody uses the same.
_SEPARATOR: Final = "\x01"

_STILL_OPEN: Final = pyexpat.errors.codes[pyexpat.errors.XML_ERROR_NO_ELEMENTS]  # the input ended, the root has not
_CALL_BYTES: Final = 1_048_576  # pyexpat gives expat no more at once

# What is looked for next. A tag without quotes is found at once; of any other markup first the beginning, then the end.
_MARKUP: Final = re.compile(rb"<(?:!--|!\[CDATA\[|\?|[^!?][^>'\"]*>?)")
_IN_TAG: Final = re.compile(rb"[>'\"]")
_IN_VALUE: Final = {b"'": re.compile(rb"'"), b'"': re.compile(rb'"')}
_UNTIL: Final = {b"<!--": re.compile(rb"-->"), b"<![CDATA[": re.compile(rb"\]\]>"), b"<?": re.compile(rb"\?>")}
_MARK_BYTES_MAX: Final = len(b"<![CDATA[")


class Refused(Exception):  # noqa: N818 - a verdict, not a fault
    """expat does not take these octets either."""


class _Found(Exception):  # noqa: N818 - leaves expat's loop as soon as the end is seen
    pass


def _parser() -> Any:
    parser = pyexpat.ParserCreate(encoding="utf-8", namespace_separator=_SEPARATOR)
    if hasattr(parser, "SetReparseDeferralEnabled"):
        parser.SetReparseDeferralEnabled(False)
    return parser


def is_accepted(header: bytes, data: bytes) -> bool:
    """Tell whether expat takes ``data``, which ends with a whole token, behind the stream header ``header``."""
    parser = _parser()
    try:
        parser.Parse(header + data, False)
        parser.Parse(b"", True)  # the end of input: nothing is left unread
    except pyexpat.ExpatError as error:
        return error.code == _STILL_OPEN
    return True


def is_document(data: bytes) -> bool:
    """Tell whether expat takes ``data`` as a whole document."""
    try:
        _parser().Parse(data, True)
    except pyexpat.ExpatError:
        return False
    return True


class _Tokens:
    """Holds octets until they are whole tokens; text goes with the markup behind it. Looks at each octet once."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._seen = 0
        self._sought = _MARKUP

    def add(self, data: bytes) -> None:
        self._held += data

    def take(self, *, one: bool) -> bytes:
        """Return all whole tokens, or only the ``one`` that ends first; empty if there is none."""
        end = 0
        while (found := self._sought.search(self._held, self._seen)) is not None:
            self._seen = found.end()
            mark = found[0]
            if mark.endswith(b">"):
                self._sought, end = _MARKUP, self._seen
                if one:
                    break
            elif self._sought is _MARKUP:
                self._sought = _UNTIL.get(mark, _IN_TAG)
            elif self._sought is _IN_TAG:
                self._sought = _IN_VALUE[mark]
            else:
                self._sought = _IN_TAG
        else:
            self._seen = max(self._seen, len(self._held) - _MARK_BYTES_MAX + 1)  # a mark may be cut
        taken = bytes(self._held[:end])
        del self._held[:end]
        self._seen -= end
        return taken

    def rest(self) -> bytes:
        return bytes(self._held)


class ElementSkip:
    """Finds the end of the first-level element whose octets are fed to it from its beginning.

    ``header`` is the stream's start tag, which ``is_accepted`` already.
    """

    def __init__(self, header: bytes) -> None:
        self._tokens = _Tokens()
        self._parser = _parser()
        self._parser.Parse(header, False)
        self._given = len(header)
        self._depth = 1
        self._end = 0
        self._parser.StartElementHandler = self._started
        self._parser.EndElementHandler = self._ended

    def feed(self, data: bytes) -> bytes | None:
        """Return the octets behind the element's end, or None while it is open. Raises Refused."""
        self._tokens.add(data)
        # Token by token until the element is open: it may be an empty-element tag, and ends where that does.
        while tokens := self._tokens.take(one=(outside := self._depth == 1)):
            try:
                self._give(tokens)
            except _Found:
                end = len(tokens) if outside else tokens.index(b">", self._end - self._given) + 1
                return tokens[end:] + self._tokens.rest()
            except pyexpat.ExpatError as error:
                raise Refused from error
        return None

    def _give(self, tokens: bytes) -> None:
        self._parser.Parse(tokens, False)
        given = self._given + len(tokens)
        unread = given - self._parser.CurrentByteIndex
        if unread >= _CALL_BYTES:  # a token of several calls, deferred: white space doubles it and changes nothing
            self._parser.Parse(b" " * unread, False)
            given += unread
        if self._parser.CurrentByteIndex != given:
            raise Refused  # expat waits for the rest of a character or mark, and whatever comes will be wrong
        self._given = given

    def _started(self, _name: str, _attributes: dict[str, str]) -> None:
        self._depth += 1

    def _ended(self, _name: str) -> None:
        self._depth -= 1
        if self._depth == 1:
            self._end = self._parser.CurrentByteIndex  # of an end tag: its "<"
            raise _Found
