"""What a stream holds between its header and its closing tag: first-level elements, read in three ways.

* **The shortest way** (``feed_whole``) is for what most chunks of an established stream are: complete elements behind
  an element. With the stream's tags around them they are a document, well-formed if and only if they are complete, and
  one parser reads it for all sessions (whole.py). So a stream between two elements needs no parser, and what parses is
  in the processor's caches: with 500 sessions that halves the time. What is not all right there (a chunk that ends
  inside an element, text between elements, a comment, anything the parser has to say) is not judged there: it is read
  again, by the short way. Before that, in a login, only a chunk that is one element goes this way: its end is exact.
* **The short way** (``_feed_quickly``) feeds a chunk, its last ``>`` separately. Only if that one octet completes an
  element is the chunk's end a boundary: a tag such as ``<a b='<c/>`` looks complete and is not. White space at a
  boundary is counted, not fed, because a tree grows by it; anywhere else it may be part of a tag.
* **The careful way** (``_feed_carefully``) is taken when anything looks odd: an error, a namespace error in the log
  (lxml does not raise them), a full log, an element too deep. The chunk's items are taken back, a new parser gets the
  stream's header and all octets since the last boundary up to each ``>``, and elements that were handed out before
  are not again. So the refused element is known exactly.
* **Skipping** (recovery.py): libxml2 stops at depth 256, expat does not. Where expat takes the refused element it finds
  its end, and a parser with the header goes on there. Where it refuses as well, so did the server: the stream is over.
"""

import enum
from typing import Final

import attrs
from lxml import etree

from xproxy.config.stream import StreamLimits
from xproxy.xmpp.bounds import Bounds
from xproxy.xmpp.header import Header
from xproxy.xmpp.items import FirstLevelElement, Item, StreamEnd, StreamLimit, Tally, Violation
from xproxy.xmpp.parser import (
    BOUNDARY,
    ENDED,
    LOG_FULL,
    LOG_RENEW,
    QUIET,
    REFUSED,
    StreamParser,
    locate,
)
from xproxy.xmpp.prolog import WHITE
from xproxy.xmpp.recovery import ElementSkip, Refused, is_accepted
from xproxy.xmpp.tags import may_be_one, prefix_of
from xproxy.xmpp.violation import Severity, ViolationKind
from xproxy.xmpp.whole import Wrapping, read_elements, read_whole, wrapping_of

_GT: Final = 0x3E
_RESTED_MAX: Final = 4  # complete chunks in a row, and the stream lets go of its parser; a new one costs 5 us
_RETAINED_BYTES: Final = 16_384  # above it, data that ends inside an element is cut behind a likely end
_RETAINED_BYTES_MAX: Final = 65_536  # above it, the exact end of the last element is looked for
_EXACT: Final = (BOUNDARY, ENDED)

_dict_size = etree.memory_debugger.dict_size  # type: ignore[attr-defined]


class State(enum.Enum):
    """Where reading stands."""

    OPEN = enum.auto()
    SKIPPING = enum.auto()  # inside an element that libxml2 refused
    ENDED = enum.auto()  # behind the closing tag
    BROKEN = enum.auto()


_OPEN: Final = State.OPEN


@attrs.define
class _Skipped:
    """The element that is skipped over."""

    skip: ElementSkip
    kind: ViolationKind
    refused_at: int


class Content:
    """One open stream. Give it what comes until ``state`` says that it is over."""

    __slots__ = (
        "_bounds",
        "_careful",
        "_doubt",
        "_header",
        "_is_boundary",
        "_limits",
        "_namespaces",
        "_parser",
        "_rested",
        "_retained",
        "_root_name",
        "_shallow_bytes",
        "_skipped",
        "_tally",
        "_trouble",
        "_whole_bytes",
        "_wrapping",
        "position",
        "retained_bytes",
        "state",
    )

    def __init__(self, header: Header, *, limits: StreamLimits, bounds: Bounds, tally: Tally, position: int) -> None:
        """Begin behind ``header``; ``position`` octets of this direction came before."""
        self._limits = limits
        self._bounds = bounds
        self._tally = tally
        self._header = header.octets
        self._root_name = header.name
        self._namespaces = header.namespaces
        self._wrapping: Wrapping | None = None
        self._whole_bytes = 0  # up to so many octets are tried as complete elements
        self._shallow_bytes = 7 * (
            limits.depth_max - 1
        )  # of <a></a> so often, and an <a/>: what is shorter is no deeper
        self.position = position
        self.state = State.ENDED if header.is_ended else _OPEN
        tally.octets = 0
        bounds.renew()
        self._parser: StreamParser | None = None
        self._skipped: _Skipped | None = None
        self._forget()
        if not header.is_ended:
            self._parser = header.parser
            self._is_boundary = True

    def _forget(self) -> None:
        """Drop the parser, its tree and all that belongs to them."""
        self._parser = None
        self._rested = 0  # chunks in a row that it was not needed for
        self._skipped = None
        self._is_boundary = False
        self._retained: list[bytes] = []  # all octets since the last boundary that is known exactly
        self.retained_bytes = 0
        self._tally.passed = 0
        self._careful = False
        self._trouble = False
        self._doubt = False
        self._bounds.forget()

    @property
    def at_boundary(self) -> bool:
        """Nothing is open but the stream: what comes next is a first-level element, white space or the end."""
        return self.state is State.ENDED or (self.state is _OPEN and self._is_boundary)

    # Complete elements ------------------------------------------------------------------------------------------

    def expect_whole(self) -> None:
        """From now on most chunks are complete elements."""
        if self._can_wrap():
            self._whole_bytes = self._octets_max()
        self._rest()

    def _octets_max(self) -> int:
        return min(self._bounds.names.slice_bytes, self._bounds.octets_free)

    def _can_wrap(self) -> bool:
        """Whether complete elements can be read apart from their stream."""
        if self._wrapping is None:
            self._wrapping = wrapping_of(self._root_name, self._namespaces, prefix_of(self._header))
        return self._wrapping is not None

    def _rest(self) -> None:
        """Let go of the parser where nothing is open: complete elements do not need it."""
        if self._is_boundary and self._wrapping is not None and not self._careful:
            self._forget()
            self._is_boundary = True

    def feed_whole(self, data: bytes, *, one: bool = False) -> list[Item] | None:
        """The shortest way: complete elements behind an element. None: nothing was done, it is for ``feed``.

        Ask it first: here the elements that were handed out before are emptied. With ``one``, where complete elements
        are not expected yet, it takes a single one and nothing else: where that ends is exact.
        """
        if self._parser is not None and self._parser.is_used:
            self._parser.clean()
        octets = len(data)
        if not self._is_boundary or self._careful:
            return None
        if not 0 < octets <= (self._one_bytes(data) if one else self._whole_bytes):
            return None
        wrapping = self._wrapping
        assert wrapping is not None
        if octets > self._shallow_bytes and data.count(b"<") > self._limits.depth_max:
            return None
        before = _dict_size()
        elements = read_elements(data, wrapping, self._root_name)
        grown = _dict_size() - before
        if grown:
            self._bounds.names.add(grown)
        if elements is None:
            return None
        items: list[Item]
        end = self.position + octets
        if len(elements) == 1:
            self._tally.elements += 1
            items = [FirstLevelElement(elements[0], end, octets)]
        elif one:
            return None
        else:
            self._tally.elements += len(elements)
            items = [FirstLevelElement(element, end, 0) for element in elements]
            items[0] = FirstLevelElement(elements[0], end, octets)
        self.position = end
        if grown:
            self._look_at_names(items)
        if self._parser is not None:
            self._rested += 1
            if self._rested >= _RESTED_MAX:
                self._rest()
        return items

    def _look_at_names(self, items: list[Item]) -> None:
        """Complete elements brought new names."""
        names = self._bounds.names
        if names.used > names.max:
            self._check_limits(items)
            if names.renewals is not None and self.state is _OPEN and self._bounds.has_too_many_names:
                self._skip_open_element(items)

    def _one_bytes(self, data: bytes) -> int:
        """Return how long ``data`` may be to be tried as one element."""
        return self._octets_max() if may_be_one(data) and self._can_wrap() else 0

    def read_again(self, data: bytes) -> list[FirstLevelElement]:
        """Return the elements of ``data`` for a second look, if ``feed_whole`` took it."""
        root = None if self._wrapping is None else read_whole(data, self._wrapping)
        return [] if root is None else [FirstLevelElement(element, self.position, 0) for element in root]

    # Whatever comes ---------------------------------------------------------------------------------------------

    def feed(self, data: bytes, items: list[Item]) -> bytes:
        """Take the next octets; return those behind the end of the stream or of inspection."""
        while data:
            if self.state is _OPEN:
                data = self._feed_carefully(data, items) if self._careful else self._feed_quickly(data, items)
            elif self.state is State.SKIPPING:
                data = self._feed_skipping(data, items)
            else:
                break
        if self._careful and self.state is _OPEN and not self._doubt:
            # A peer that gives one reason for care gives more: stay careful until a part went well.
            self._careful, self._trouble = self._trouble, False
        return data

    def renew_parser(self) -> None:
        """Give up the parser that is at work, and go on with a new one at the same octet."""
        if self._parser is not None and self.state is _OPEN:
            again = self._take_care(b"")
            self._feed_carefully(again, [])  # what it makes was said before

    def finish(self, items: list[Item]) -> None:
        """The input ended: an element that was being skipped was lost."""
        if self._skipped is not None:
            self._lose(items, self._tally.octets, self._skipped.kind)
            self._give_up()

    def cut(self, data: bytes, at: int) -> int:
        """Return where the slice that begins at ``at`` ends: if possible where an element does."""
        end = at + self._bounds.names.slice_bytes
        if self._parser is not None and (end < len(data) or self.retained_bytes >= _RETAINED_BYTES):
            closing = self._parser.last_closing_tag()
            found = -1 if closing is None else data.rfind(closing, at, end)
            if closing is not None and found >= 0:
                return found + len(closing)
        return end

    def _feed_quickly(self, data: bytes, items: list[Item]) -> bytes:
        """The short way: two feeds and a loop. Whatever looks odd is taken back and done again by the careful way."""
        if self._is_boundary and data[0] in WHITE:
            stripped = data.lstrip(WHITE)
            self.position += len(data) - len(stripped)
            if not stripped:
                return b""
            data = stripped
        if self._parser is None and self._wrapping is not None and data == self._wrapping.closing:
            self.position += len(data)
            items.append(StreamEnd(self.position))
            self._close()
            return b""
        body = data if data[-1] not in WHITE else data.rstrip(WHITE) or data
        size = len(body)
        end = self.position + size
        tally, bounds = self._tally, self._bounds
        names = bounds.names
        mark, noted, elements, passed = len(items), tally.noted, tally.elements, tally.passed
        parser = self._parser or self._prime()
        self._rested = 0
        before = _dict_size()
        exact = False
        tally.octets += size
        if body[-1] != _GT:
            step = parser.feed(data, items, end)
        else:
            if body.find(b">") == size - 1:
                step = parser.feed(body, items, end)
                exact = step in _EXACT
            else:
                # The last octet alone: only so is it known that what ended, ended here.
                step = parser.feed(body[:-1], items, end)
                if step < ENDED:
                    last = parser.feed(b">", items, end)
                    if last != QUIET:
                        step = last
                        exact = step in _EXACT
            if size < len(data) and not exact and step < ENDED and parser.feed(data[size:], items, end) == REFUSED:
                step = REFUSED
        log_length = parser.log_length
        if log_length != parser.log_seen and step != REFUSED and not parser.is_log_harmless(None, 0, 0):
            step = REFUSED
        grown = _dict_size() - before
        if (
            step == REFUSED
            or (step == ENDED and not exact)
            or log_length >= LOG_FULL  # it may have swallowed the one that matters
            or (self.retained_bytes >= _RETAINED_BYTES_MAX and passed and not exact)
        ):
            names.add(grown)
            del items[mark:]
            tally.noted, tally.elements, tally.passed = noted, elements, passed
            return self._take_care(data)
        self.position += len(data)
        if exact:
            self._begin_element()
            if step == ENDED:
                self._close()
            elif log_length >= LOG_RENEW:
                self._prime()
        else:
            self._is_boundary = False
            tally.octets += len(data) - size  # white space, inside an element
            self._retained.append(data)
            self.retained_bytes += len(data)
            bounds.count_attributes(data, may_be_tag=step == QUIET)
        if grown:
            names.add(grown)
        octets = tally.octets + bounds.markup_octets
        if names.used > names.max or octets > bounds.octets_free or bounds.counts_attributes:
            self._check_limits(items)
            if names.renewals is not None and self.state is _OPEN and bounds.has_too_many_names:
                if not tally.passed:
                    self._skip_open_element(items)
                else:  # where the element that is open begins is known to the careful way alone
                    return self._take_care(b"")
        return b""

    def _take_care(self, data: bytes) -> bytes:
        """Go back to the last exact boundary and return all octets since, for the careful way."""
        data = b"".join(self._retained) + data
        self.position -= self.retained_bytes
        passed = self._tally.passed
        self._prime()
        self._tally.unsaid = passed
        self._tally.octets = self._bounds.markup_octets = 0
        self._careful = True
        return data

    def _feed_carefully(self, data: bytes, items: list[Item]) -> bytes:
        """Feed up to each ``>``: every boundary is exact, and what is refused is known to be in this element."""
        parser = self._parser or self._prime()
        tally, bounds = self._tally, self._bounds
        start = at = 0  # of the octets since the last boundary, those in ``data``
        while at < len(data):
            if self._is_boundary:
                stripped = len(data) - at - len(data[at:].lstrip(WHITE)) if data[at] in WHITE else 0
                at += stripped
                start = at
                self.position += stripped
                if at == len(data):
                    break
            end = data.find(b">", at) + 1 or len(data)
            piece = data[at:end]
            at = end
            self.position += len(piece)
            tally.octets += len(piece)
            mark, noted, elements = len(items), tally.noted, tally.elements
            before = _dict_size()
            step = parser.feed(piece, items, self.position)
            bounds.names.add(_dict_size() - before)
            log_length = parser.log_length
            if (
                log_length != parser.log_seen
                and step != REFUSED
                and not parser.is_log_harmless(items, mark, self.position)
            ):
                step = REFUSED
            self._doubt = self._doubt or log_length >= LOG_FULL
            if step == REFUSED:
                del items[mark:]
                tally.noted, tally.elements = noted, elements
                return self._refuse(b"".join(self._retained) + data[start:], len(data) - at, parser.refusal, items)
            if step in _EXACT:
                if self._doubt and not is_accepted(self._header, b"".join(self._retained) + data[start:at]):
                    del items[mark:]
                    tally.noted, tally.elements = noted, elements
                    self._break(items, ViolationKind.NAMESPACE, self.position)
                    break
                self._begin_element()
                self._doubt = False
                start = at
                if step == ENDED:
                    self._close()
                    return data[at:]
                if log_length >= LOG_RENEW:
                    parser = self._prime()
                    self._careful = True
            else:
                self._is_boundary = False
                bounds.count_attributes(piece, may_be_tag=step == QUIET)
            self._check_limits(items)
            if self.state is not _OPEN:
                break
        if self.state is not _OPEN:
            return data[at:]
        if not self._is_boundary:
            self._retained.append(data[start:])
            self.retained_bytes += len(data) - start
        if bounds.names.renewals is not None and bounds.has_too_many_names:
            self._skip_open_element(items)
        return b""

    def _begin_element(self) -> None:
        """An element ended at this very octet."""
        self._is_boundary = True
        self._tally.octets = self._tally.passed = 0
        self._bounds.renew()
        if self._retained:
            self._retained = []
            self.retained_bytes = 0

    # What cannot be read ----------------------------------------------------------------------------------------

    def _skip_open_element(self, items: list[Item]) -> None:
        """What others sent used up the names: go on behind the element that is open.

        The names of what was read are known now. It is what may still come in this element that is not looked at.
        """
        names = self._bounds.names
        items.append(StreamLimit(limit=names.limit, value=names.max, offset=self.position, closes=False))
        if not names.renew():
            self._break(items, ViolationKind.NAMES, self.position)
        elif (self._parser is not None and self._parser.depth > 1) or self._bounds.has_too_many_names:
            # It is open; or a tag that is not complete yet brings too many of its own.
            octets = b"".join(self._retained)
            self._tally.octets = len(octets)
            skip = ElementSkip(self._header)
            try:
                rest = skip.feed(octets)
            except Refused:
                rest = b""
            if rest is not None:  # libxml2 took it, and the element is open
                self._break(items, ViolationKind.NOT_WELL_FORMED, self.position)
                return
            self._skip(_Skipped(skip, ViolationKind.NAMES, self.position))

    def _refuse(self, octets: bytes, unread: int, refusal: ViolationKind | None, items: list[Item]) -> bytes:
        """libxml2 refused the element that begins ``octets``; the last ``unread`` of them it has not had."""
        self.position += unread
        index, kind = locate(
            octets[: len(octets) - unread],
            header=self._header,
            root_name=self._root_name,
            depth_max=self._limits.depth_max,
            refusal=refusal,
        )
        refused_at = self.position - len(octets) + index
        try:
            if kind is ViolationKind.NESTED_ROOT:  # a new stream to one reader, an element to another
                raise Refused
            skip = ElementSkip(self._header)
            rest = skip.feed(octets)
        except Refused:
            self._break(items, kind, refused_at)
            return b""
        self._tally.octets = len(octets)
        if rest is None:
            self._skip(_Skipped(skip, kind, refused_at))
            self._check_limits(items)
            return b""
        return self._resume(rest, items, kind)

    def _skip(self, skipped: _Skipped) -> None:
        self._forget()
        self._skipped = skipped
        self.state = State.SKIPPING

    def _feed_skipping(self, data: bytes, items: list[Item]) -> bytes:
        skipped = self._skipped
        assert skipped is not None
        self._tally.octets += len(data)
        self.position += len(data)
        try:
            rest = skipped.skip.feed(data)
        except Refused:
            self._break(items, skipped.kind, skipped.refused_at)
            return b""
        if rest is None:
            self._check_limits(items)
            return b""
        return self._resume(rest, items, skipped.kind)

    def _resume(self, rest: bytes, items: list[Item], kind: ViolationKind) -> bytes:
        """Go on behind an element that was skipped."""
        self.position -= len(rest)
        self._lose(items, self._tally.octets - len(rest), kind)
        self.state = _OPEN
        self._tally.octets = 0
        self._bounds.renew()
        self._prime()
        self._careful = self._trouble = True
        return rest

    def _lose(self, items: list[Item], octets: int, kind: ViolationKind) -> None:
        items.append(Violation(kind=kind, severity=Severity.ELEMENT, offset=self.position, octets=octets))

    # Small steps ------------------------------------------------------------------------------------------------

    def _prime(self) -> StreamParser:
        """Begin a new parser inside the stream that is open."""
        self._forget()
        parser = self._parser = StreamParser(self._tally, depth_max=self._limits.depth_max)
        parser.enter(self._header, self._root_name)
        self._is_boundary = True
        return parser

    def _close(self) -> None:
        self._forget()
        self.state = State.ENDED

    def _check_limits(self, items: list[Item]) -> None:
        limit = self._bounds.reached(self._tally.octets, self.position)
        if limit is not None:
            items.append(limit)
            if limit.closes:
                self._give_up()

    def _break(self, items: list[Item], kind: ViolationKind, offset: int) -> None:
        items.append(Violation(kind=kind, severity=Severity.STREAM, offset=offset))
        self._give_up()

    def _give_up(self) -> None:
        self.state = State.BROKEN
        self._forget()
