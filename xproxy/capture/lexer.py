"""The octets of one direction, cut into what stands on the stream's first level.

No parser: the session core has one, and its word counts. This one knows just enough of XML's surface (where a tag, a
comment, a CDATA section ends, how deep it is) to say which octets belong together, so that they can be looked at one by
one and put back in the same place. Whatever it takes for XML that the core refuses is the caller's to handle: it stops
asking. Time is linear in the octets however they are cut: what was searched is not searched again.

A *unit* is a stream header with all that stands before it, a first-level element, a closing tag, or what stands between
them: white space, text, a comment. Header means: the root's start tag, also where it comes again behind a restart.
"""

import enum
import re
from typing import Final

import attrs

WHITE: Final = b" \t\r\n"


class Kind(enum.Enum):
    """What a token is."""

    TEXT = enum.auto()
    CDATA = enum.auto()
    COMMENT = enum.auto()
    PI = enum.auto()
    START = enum.auto()
    EMPTY = enum.auto()  # <a/>
    END = enum.auto()
    OTHER = enum.auto()  # <!DOCTYPE and the like: no XMPP


class UnitKind(enum.Enum):
    """What a unit is."""

    HEADER = enum.auto()
    ELEMENT = enum.auto()
    CLOSING_TAG = enum.auto()
    BETWEEN = enum.auto()


@attrs.frozen
class Token:
    """A piece of markup, or the text up to the next; ``start`` and ``end`` count in the unit."""

    kind: Kind
    start: int
    end: int


@attrs.frozen
class Unit:
    """Octets that belong together."""

    kind: UnitKind
    octets: bytes
    tokens: tuple[Token, ...]


_QUOTE_OR_END: Final = re.compile(rb"['\">]")
_NAME: Final = re.compile(rb"</?([^\s/>]*)")
_DELIMITED: Final = (
    (b"<!--", b"-->", Kind.COMMENT),
    (b"<![CDATA[", b"]]>", Kind.CDATA),
    (b"<?", b"?>", Kind.PI),
)


class Lexer:
    """One direction. ``reset`` where a new document begins without a sign in the octets: when TLS is up."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.reset()

    def reset(self) -> None:
        """Begin anew; what was not complete is forgotten."""
        self._buffer.clear()
        self._tokens: list[Token] = []
        self._root: bytes | None = None  # the raw name of the stream's root
        self._depth = 0  # open elements; 1: only the root
        self._at = 0  # where the next token begins
        self._searched = 0  # up to here its end was looked for
        self._quote = b""  # ... and this attribute value is open there

    def resume(self) -> None:
        """Begin anew inside a stream whose beginning is not known."""
        self.reset()
        self._root = b"stream:stream"
        self._depth = 1

    @property
    def waiting(self) -> int:
        """How many octets wait for the rest of their unit."""
        return len(self._buffer)

    def rest(self) -> Unit:
        """Return what is not complete, with the tokens that are, and begin anew: a header, or of no kind."""
        declares = self._depth == 1 and self._buffer.startswith(b"<?xml")
        kind = UnitKind.HEADER if declares or self._depth == 0 else UnitKind.BETWEEN
        unit = Unit(kind, bytes(self._buffer), tuple(self._tokens))
        self.reset()
        return unit

    def feed(self, data: bytes) -> list[Unit]:
        """Take the next octets; return the units that are complete now, in order and without a gap."""
        buffer = self._buffer
        buffer += data
        units: list[Unit] = []
        while self._at < len(buffer):
            if buffer[self._at] != 0x3C:
                end = buffer.find(b"<", max(self._at, self._searched))
                if end < 0 and not self._is_white_between():
                    self._searched = len(buffer)
                    break
                kind, end = Kind.TEXT, end if end >= 0 else len(buffer)
            else:
                kind, end = self._markup()
                if end < 0:
                    break
            token = Token(kind, self._at, end)
            self._tokens.append(token)
            self._at = self._searched = end
            self._quote = b""
            finished = self._step(token)
            if finished is not None:
                units.append(Unit(finished, bytes(buffer[:end]), tuple(self._tokens)))
                del buffer[:end]
                self._tokens = []
                self._at = self._searched = 0
        return units

    def _is_white_between(self) -> bool:
        """White space on the first level is complete as it is: nobody waits with a keepalive for what follows it."""
        return self._depth == 1 and self._at == 0 and not self._buffer.strip(WHITE)

    def _markup(self) -> tuple[Kind, int]:
        """Return the kind of the token that begins here and where it ends; -1: it is not complete."""
        buffer, at = self._buffer, self._at
        second = buffer[at + 1 : at + 2]
        if second == b"!" or second == b"?":
            for begin, end, kind in _DELIMITED:
                if buffer.startswith(begin, at):
                    found = buffer.find(end, max(at + len(begin), self._searched - len(end) + 1))
                    self._searched = len(buffer)
                    return kind, found + len(end) if found >= 0 else -1
                if begin.startswith(buffer[at:]):
                    return kind, -1
            return Kind.OTHER, buffer.find(b">", at) + 1 or -1
        position = max(self._searched, at + 1)
        while position < len(buffer):
            if self._quote:
                found = buffer.find(self._quote, position)
                if found < 0:
                    break
                position, self._quote = found + 1, b""
                continue
            match = _QUOTE_OR_END.search(buffer, position)
            if match is None:
                break
            position = match.end()
            if match[0] == b">":
                if second == b"/":
                    return Kind.END, position
                return (Kind.EMPTY if buffer[position - 2] == 0x2F else Kind.START), position
            self._quote = bytes(match[0])
        self._searched = len(buffer)
        return Kind.START, -1

    def _step(self, token: Token) -> UnitKind | None:
        """Follow a token; return what is complete behind it."""
        kind = token.kind
        if self._depth > 1:
            if kind is Kind.START:
                self._depth += 1
            elif kind is Kind.END:
                self._depth -= 1
            return UnitKind.ELEMENT if self._depth == 1 else None
        if kind is Kind.START or kind is Kind.EMPTY:
            name = self._name(token)
            if self._depth == 0 or name == self._root:
                self._root = name
                self._depth = 1
                return UnitKind.HEADER
            if kind is Kind.EMPTY:
                return UnitKind.ELEMENT
            self._depth = 2
            return None
        if kind is Kind.PI and self._depth == 1 and self._buffer[token.start : token.end].split()[0] == b"<?xml":
            self._depth = 0  # a declaration: the header follows
            return None
        if self._depth == 0:
            return None
        return UnitKind.CLOSING_TAG if kind is Kind.END else UnitKind.BETWEEN

    def _name(self, token: Token) -> bytes:
        match = _NAME.match(self._buffer, token.start, token.end)
        return bytes(match[1]) if match is not None else b""
