"""One direction of a connection: octets in, stream headers and first-level elements out.

lxml's pull parser reads the live stream, one parser a stream, with a depth counter; when the depth returns to one, a
first-level element (RFC 6120 section 4.1) is complete and handed out. Nothing here decides: what a conforming server
would refuse is a ``Violation``, and the session has the policy. What it leaves to others: which root, which elements,
when a stream may restart, what any of it means.

What must hold:

* The octets seen are the octets a server sees. expat, which the servers use, is the judge (tests/support/judge.py):
  same elements, same refusals. The exceptions are RFC 6120 section 11.1's restrictions, which are said.
* A refused element costs only itself, and a refused stream is latched: lxml would begin a *new document* with the next
  feed after an error, and a peer could tell us any story.
* The cut of the octets changes no item but the offsets and sizes that are a chunk's.
* Memory and time are bounded by the limits, whatever comes.

How it goes:

* **The shortest way** (``_feed_whole``) is for what most chunks of an established stream are: complete elements behind
  an element. With the stream's tags around them they are a document, well-formed if and only if they are complete, and
  one parser reads it for all sessions (whole.py). So a stream between two elements needs no parser, and what parses is
  in the processor's caches: with 500 sessions that halves the time. What is not all right there (a chunk that ends
  inside an element, text between elements, a comment, anything the parser has to say) is not judged there: it is read
  again, by the short way.
* **The short way** (``_feed_open``) feeds a chunk, its last ``>`` separately. Only if that one octet completes an
  element is the chunk's end a boundary: a tag such as ``<a b='<c/>`` looks complete and is not. White space at a
  boundary is counted, not fed, because a tree grows by it; anywhere else it may be part of a tag.
* **The careful way** (``_feed_careful``) is taken when anything looks odd: an error, a namespace error in the log (lxml
  does not raise them), a full log, an element too deep. The chunk's items are taken back, a new parser gets the
  stream's header and all octets since the last boundary up to each ``>``, and elements that were handed out before
  are not again. So the refused element is known exactly.
* **Skipping** (recovery.py): libxml2 stops at depth 256, expat does not. Where expat takes the refused element it finds
  its end, and a parser with the header goes on there. Where it refuses as well, so did the server: the stream is over.
* **Cleaning**: at the next feed the elements handed out are emptied and all but the last are removed. The last stays:
  libxml2 remembers its neighbouring text node, and a peer can write behind it with white space and ``&#32;`` if that
  node is taken away. (lxml's documentation forbids it; a heap corruption was measured.)
* **Names** (names.py) are interned for the life of the process, so feeds are sliced and the dictionary is measured
  after each. A start tag is parsed when it is complete, all its names at once: attributes of an unfinished tag are
  counted.

Doubt: libxml2 looks at a tag when it is complete, expat at every octet. A peer that sends half a tag which is wrong
already is refused by the server before we notice. Nothing can hide in it: it is no element, and the server's stream
error is seen.
"""

import enum
import re
from collections.abc import Iterator
from typing import Final

import attrs
from lxml import etree

from xproxy.config.stream import StreamLimits
from xproxy.xmpp.names import NameBudget as NameBudget
from xproxy.xmpp.ns import STREAMS
from xproxy.xmpp.prolog import WHITE, scan_prolog
from xproxy.xmpp.recovery import ElementSkip, Refused, is_accepted
from xproxy.xmpp.violation import Severity as Severity
from xproxy.xmpp.violation import ViolationKind as ViolationKind
from xproxy.xmpp.whole import Wrapping, read_stanza, read_whole, wrapping_of


@attrs.frozen(kw_only=True)
class StreamHeader:
    """A stream opened (RFC 6120 section 4.2). Names are Clark names, ``{namespace}local``."""

    name: str
    attributes: dict[str, str]
    namespaces: dict[str | None, str]
    xml_declaration: bool
    offset: int  # octets of this direction up to and with the header's ">"


@attrs.define(hash=True)  # frozen in fact: making a frozen one takes twice the time
class FirstLevelElement:
    """A child of the stream's root is complete: a stanza or a nonza.

    ``element`` may be read until the next feed, then it is emptied. ``offset`` is where the element ended if the fed
    data ended there (a piece always does), else the end of the data that completed it. ``octets`` are those since the
    last element's end; of several that ended in one feed the first bears them all and the others have 0.
    """

    element: etree._Element
    offset: int
    octets: int


@attrs.frozen
class StreamEnd:
    """The closing tag of the stream (RFC 6120 section 4.4)."""

    offset: int


@attrs.frozen(kw_only=True)
class Violation:
    """A rule was broken. Never holds the octets."""

    kind: ViolationKind
    severity: Severity
    offset: int  # where it was noticed; of a lost element: its end
    octets: int | None = None  # of a lost element


@attrs.frozen(kw_only=True)
class StreamLimit:
    """A limit was reached. With ``closes`` the reader is broken and the session has to end."""

    limit: str  # the key in the configuration
    value: int
    offset: int
    closes: bool


Item = StreamHeader | FirstLevelElement | StreamEnd | Violation | StreamLimit


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut ``data`` behind every ``>``. The rest, if any, comes last."""
    start = 0
    while (end := data.find(b">", start) + 1) > 0:
        yield data[start:end]
        start = end
    if start < len(data):
        yield data[start:]


_STREAM: Final = f"{{{STREAMS}}}stream"
_LT: Final = 0x3C
_GT: Final = 0x3E
_RESTED_MAX: Final = 4  # complete chunks in a row, and the stream lets go of its parser; a new one costs 5 us
_RETAINED_BYTES: Final = 16_384  # above it, data that ends inside an element is cut behind a likely end
_RETAINED_BYTES_MAX: Final = 65_536  # above it, the exact end of the last element is looked for
_LOCATE_BYTES_MAX: Final = 8_192  # fed one by one to find the very octet that is refused; 5 ms, once a refused element
_LOG_RENEW: Final = 64  # entries; libxml2 reports 100 warnings and 100 errors a document, then it is silent
_LOG_FULL: Final = 100
_HEADER_BEHIND_MAX: Final = 72  # octets of a start tag that tell whether it is a stream's
_HEADER_BEHIND: Final = re.compile(rb"<(?:[^\s<>/:!?]{1,64}:)?stream[\s/>]|<\?xml")

# What one reading of the parser's events led to. Plain numbers: this is the hot path.
_QUIET: Final = 0  # no event
_INSIDE: Final = 1  # something is open besides the stream
_BOUNDARY: Final = 2  # after the last event only the stream is open
_ENDED: Final = 3  # the stream is closed
_REFUSED: Final = 4  # ``_refusal`` says why
_EXACT: Final = (_BOUNDARY, _ENDED)

_KINDS: Final[dict[int, ViolationKind]] = {
    etree.ErrorTypes.ERR_INVALID_CHAR: ViolationKind.BAD_CHARACTER,
    etree.ErrorTypes.ERR_INVALID_ENCODING: ViolationKind.BAD_CHARACTER,
    etree.ErrorTypes.ERR_UNDECLARED_ENTITY: ViolationKind.UNDEFINED_ENTITY,
    etree.ErrorTypes.ERR_RESERVED_XML_NAME: ViolationKind.XML_DECLARATION,
    etree.ErrorTypes.ERR_DOCUMENT_END: ViolationKind.AFTER_END,
    etree.ErrorTypes.ERR_NAME_TOO_LONG: ViolationKind.PARSER_LIMIT,
    etree.ErrorTypes.ERR_RESOURCE_LIMIT: ViolationKind.PARSER_LIMIT,
}

_dict_size = etree.memory_debugger.dict_size  # type: ignore[attr-defined]


class _Mode(enum.Enum):
    FRESH = enum.auto()  # before the root's start tag is complete
    OPEN = enum.auto()
    SKIPPING = enum.auto()  # inside an element that libxml2 refused
    ENDED = enum.auto()  # behind the closing tag
    BROKEN = enum.auto()


_OPEN: Final = _Mode.OPEN


class StreamReader:
    """One direction of one connection over all its streams.

    In negotiation feed each of ``pieces(data)``: element ends are exact, and ``opens_stream`` can tell of a new header
    before it is fed. Afterwards feed what comes. When the input ends, ask ``finish``.
    """

    __slots__ = (
        "_attributes",
        "_behind",
        "_boundary",
        "_careful",
        "_declared",
        "_depth",
        "_doubt",
        "_events",
        "_expects_whole",
        "_header",
        "_kept",
        "_limits",
        "_log_seen",
        "_markup_octets",
        "_mode",
        "_names",
        "_namespaces",
        "_noted",
        "_octets",
        "_octets_free",
        "_parser",
        "_passed",
        "_position",
        "_prolog",
        "_quotes",
        "_refusal",
        "_refused_at",
        "_rested",
        "_retained",
        "_retained_bytes",
        "_root",
        "_root_name",
        "_shallow_bytes",
        "_skip",
        "_trouble",
        "_unsaid",
        "_used",
        "_warned",
        "_white_before",
        "_whole_bytes",
        "_wrapping",
        "elements",
        "fed_whole",
    )

    def __init__(self, *, limits: StreamLimits, names: NameBudget) -> None:
        self._limits = limits
        self._octets_free = min(limits.stanza_bytes_warn, names.stanza_bytes_max)  # below it there is nothing to say
        self._names = names
        self._position = 0  # octets of this direction that were looked at
        self._expects_whole = False
        self.fed_whole = False  # the last feed was of complete elements, and their trees are the caller's alone
        self._shallow_bytes = 7 * (
            limits.depth_max - 1
        )  # of <a></a> so often, and an <a/>: what is shorter is no deeper
        self._reset()

    def _reset(self) -> None:
        self.elements = 0  # first-level elements seen in this stream
        self._mode = _Mode.FRESH
        self._prolog = b""  # held until the root begins
        self._white_before = False
        self._declared = False
        self._header = b""  # from the root's "<" to its ">"
        self._root_name = ""
        self._behind = b""  # the last tag behind the closing tag, as far as it came
        self._namespaces: dict[str | None, str] = {}
        self._wrapping: Wrapping | None = None
        self._whole_bytes = 0  # up to so many octets are tried as complete elements
        self._noted: frozenset[ViolationKind] = frozenset()
        self._octets = 0  # since the last boundary
        self._markup_octets = 0  # what its tags and attributes count for besides; before login
        self._warned = False
        self._unsaid = 0  # first-level elements the careful parser meets again: they were returned before
        self._forget()

    def _forget(self) -> None:
        """Drop the parser, its tree and all that belongs to them."""
        self._parser: etree.XMLPullParser | None = None
        self._events: Iterator[tuple[str, etree._Element]] = iter(())
        self._rested = 0  # chunks in a row that it was not needed for
        self._root: etree._Element | None = None
        self._depth = 0
        self._kept: list[etree._Element] = []  # finished nodes of the first level still in the tree, in order
        self._used = False  # the caller has had a look at the last of them
        self._log_seen = 0
        self._refusal: ViolationKind | None = None
        self._refused_at = 0
        self._skip: ElementSkip | None = None
        self._boundary = False
        self._retained: list[bytes] = []  # all octets since the last boundary that is known exactly
        self._retained_bytes = 0
        self._passed = 0  # first-level elements returned that end inside ``_retained``
        self._careful = False
        self._trouble = False
        self._doubt = False
        self._attributes = 0  # "=" and quotes since the last event: the names of an unfinished tag are not yet counted
        self._quotes = 0

    @property
    def offset(self) -> int:
        """Octets given so far, over all streams of this direction."""
        return self._position

    @property
    def broken(self) -> bool:
        """Nothing more is seen until ``restart``."""
        return self._mode is _Mode.BROKEN

    @property
    def at_boundary(self) -> bool:
        """Nothing is open but the stream: what comes next is a first-level element, white space or the end."""
        if self._mode is _Mode.OPEN:
            return self._boundary
        return self._mode is _Mode.ENDED or (self._mode is _Mode.FRESH and not self._prolog and not self._retained)

    def count_names_in(self, names: NameBudget) -> None:
        """Count new names in ``names`` from now on."""
        self._names = names

    def expect_whole(self) -> None:
        """The stream is established: from now on most chunks are complete elements."""
        self._expects_whole = True
        if self._mode is _OPEN:
            self._wrap()
            self._rest()

    def read_again(self, data: bytes) -> list[FirstLevelElement]:
        """Return the elements of ``data`` for a second look, if feeding it left ``fed_whole``."""
        root = None if self._wrapping is None else read_whole(data, self._wrapping)
        return [] if root is None else [FirstLevelElement(element, self._position, 0) for element in root]

    def _wrap(self) -> None:
        name = _NAME.match(self._header)
        assert name is not None, "it was read"
        prefix = name[1].rpartition(b":")[0].decode()
        self._wrapping = wrapping_of(self._root_name, self._namespaces, prefix or None)
        if self._wrapping is not None:
            self._whole_bytes = min(self._names.slice_bytes, self._octets_free)

    def _rest(self) -> None:
        """Let go of the parser where nothing is open: complete elements do not need it."""
        if self._boundary and self._wrapping is not None and not self._careful:
            self._forget()
            self._boundary = True

    def restart(self) -> None:
        """The next octet begins a new document: after proceed, success, compressed, TLS. The offset goes on."""
        self._reset()

    def opens_stream(self, piece: bytes) -> bool:
        """Tell whether ``piece``, met at a boundary, is an XML declaration or a start tag with the root's name."""
        piece = piece.lstrip(WHITE)
        if not self._root_name or not piece.startswith(b"<"):
            return False
        if piece.startswith(b"<?xml"):
            return piece[5:6] in (b" ", b"\t", b"\r", b"\n")
        return _start_tag_name(piece, self._namespaces) == self._root_name

    def finish(self) -> list[Item]:
        """Return what the end of the input leaves to say: an element that was being skipped was lost."""
        if self._mode is not _Mode.SKIPPING:
            return []
        items: list[Item] = []
        self._lose(items, self._octets)
        self._mode = _Mode.BROKEN
        return items

    def feed(self, data: bytes) -> list[Item]:
        """Take the next octets, in any cut, and return what became complete, in order. Never raises."""
        if self._used:
            self._clean()
        if self._boundary and 0 < len(data) <= self._whole_bytes and not self._careful:
            whole = self._feed_whole(data)
            if whole is not None:
                self.fed_whole = True
                return whole
        self.fed_whole = False
        if b"\0" in data:
            return self._feed_null(data)
        items: list[Item] = []
        if (
            self._mode is _OPEN
            and not self._careful
            and 0 < len(data) <= self._names.slice_bytes
            and self._retained_bytes < _RETAINED_BYTES
        ):
            data = self._feed_open(data, items)
            if data:
                self._feed_part(data, items)
            return items
        self._feed_slices(data, items)
        return items

    def _feed_null(self, data: bytes) -> list[Item]:
        """Stop at a NUL, which no XML in UTF-8 holds: libxml2 takes it for the end of its buffer now and then."""
        items: list[Item] = []
        at = data.index(b"\0")
        if self._mode is _Mode.FRESH and not self._retained and (self._prolog + data[:at]).lstrip(WHITE) in (b"", b"<"):
            self._feed_slices(data, items)  # UTF-16, perhaps
            return items
        self._feed_slices(data[:at], items)
        self._position += len(data) - at
        if self._mode is not _Mode.BROKEN:
            self._break(items, ViolationKind.BAD_CHARACTER, self._position - len(data) + at + 1)
        return items

    def _feed_slices(self, data: bytes, items: list[Item]) -> None:
        at = 0
        while at < len(data):
            end = self._cut(data, at)
            self._feed_part(data[at:end], items)
            at = end

    def _feed_part(self, part: bytes, items: list[Item]) -> None:
        while part:
            match self._mode:
                case _Mode.OPEN:
                    part = self._feed_careful(part, items) if self._careful else self._feed_open(part, items)
                case _Mode.FRESH:
                    part = self._feed_fresh(part, items)
                case _Mode.SKIPPING:
                    part = self._feed_skipping(part, items)
                case _Mode.ENDED:
                    part = self._feed_ended(part, items)
                case _Mode.BROKEN:
                    self._position += len(part)
                    part = b""
        if self._careful and self._mode is _OPEN and not self._doubt:
            # A peer that gives one reason for care gives more: stay careful until a part went well.
            self._careful, self._trouble = self._trouble, False

    def _cut(self, data: bytes, at: int) -> int:
        """Return where the slice that begins at ``at`` ends: if possible where an element does."""
        end = at + self._names.slice_bytes
        if self._kept and (end < len(data) or self._retained_bytes >= _RETAINED_BYTES):
            last = self._kept[-1]
            if isinstance(last.tag, str):
                local = last.tag.rpartition("}")[2]
                name = f"{last.prefix}:{local}" if last.prefix else local
                closing = b"</" + name.encode() + b">"
                found = data.rfind(closing, at, end)
                if found >= 0:
                    return found + len(closing)
        return end

    def _feed_whole(self, data: bytes) -> list[Item] | None:
        """The shortest way: complete elements behind an element. None: nothing was done, it is for another way."""
        octets = len(data)
        if (
            data[0] != _LT
            or data[-1] != _GT
            or b"\0" in data
            or (b"!" in data and b"<!" in data)  # one octet is found much faster than two
            or (b"?" in data and b"<?" in data)
            or (octets > self._shallow_bytes and data.count(b"<") > self._limits.depth_max)
        ):
            return None
        wrapping = self._wrapping
        assert wrapping is not None
        end = self._position + octets
        before = _dict_size()
        stanza = read_stanza(data, wrapping)
        items: list[Item] | None
        if stanza is not None and stanza.tag != self._root_name:
            items = [FirstLevelElement(stanza, end, octets)]
        else:
            items = self._read_several(data, wrapping, end)
            if items is None:
                self._names.add(_dict_size() - before)
                return None
        self.elements += len(items)
        self._position = end
        names = self._names
        grown = _dict_size() - before
        if grown:
            names.add(grown)
        if names.used > names.max:
            self._check_limits(items)
            if names.renewals is not None and self._mode is _OPEN and self._has_too_many_names():
                self._skip_open_element(items)
        if self._parser is not None:
            self._rested += 1
            if self._rested >= _RESTED_MAX:
                self._rest()
        return items

    def _read_several(self, data: bytes, wrapping: Wrapping, end: int) -> list[Item] | None:
        root = read_whole(data, wrapping)
        if root is None or root.text is not None:
            return None
        items: list[Item] = []
        octets = len(data)
        for element in root:
            if element.tail is not None or element.tag == self._root_name:
                return None
            items.append(FirstLevelElement(element, end, octets))
            octets = 0
        return items

    def _feed_open(self, data: bytes, items: list[Item]) -> bytes:
        """The short way: two feeds and a loop. Whatever looks odd is taken back and done again by the careful way."""
        if self._boundary and data[0] in WHITE:
            stripped = data.lstrip(WHITE)
            self._position += len(data) - len(stripped)
            if not stripped:
                return b""
            data = stripped
        body = data if data[-1] not in WHITE else data.rstrip(WHITE) or data
        size = len(body)
        end = self._position + size
        mark, noted, elements, passed = len(items), self._noted, self.elements, self._passed
        parser = self._parser or self._prime()
        self._rested = 0
        before = _dict_size()
        exact = False
        self._octets += size
        try:
            if body[-1] != _GT:
                parser.feed(data)
                step = self._read(items, end)
            elif body.find(b">") == size - 1:
                parser.feed(body)
                step = self._read(items, end)
                exact = step in _EXACT
            else:
                # The last octet alone: only so is it known that what ended, ended here.
                parser.feed(body[:-1])
                step = self._read(items, end)
                if step < _ENDED:
                    parser.feed(b">")
                    last = self._read(items, end)
                    if last != _QUIET:
                        step = last
                        exact = step in _EXACT
            if not exact and size < len(data) and step < _ENDED and body[-1] == _GT:
                parser.feed(data[size:])
        except etree.XMLSyntaxError:
            step = _REFUSED
        log_length = len(parser.feed_error_log)
        if log_length != self._log_seen and step != _REFUSED and not self._log_is_harmless(None, 0):
            step = _REFUSED
        grown = _dict_size() - before
        if (
            step == _REFUSED
            or (step == _ENDED and not exact)
            or log_length >= _LOG_FULL  # it may have swallowed the one that matters
            or (self._retained_bytes >= _RETAINED_BYTES_MAX and passed and not exact)
        ):
            self._names.add(grown)
            del items[mark:]
            self._noted, self.elements, self._passed = noted, elements, passed
            return self._take_care(data)
        self._position += len(data)
        if exact:
            self._boundary = True
            self._octets = self._markup_octets = self._passed = 0
            self._warned = False
            if self._retained:
                self._retained = []
                self._retained_bytes = 0
            if step == _ENDED:
                self._close()
            elif log_length >= _LOG_RENEW:
                self._prime()
        else:
            self._boundary = False
            self._octets += len(data) - size  # white space, inside an element
            self._retained.append(data)
            self._retained_bytes += len(data)
            self._count_attributes(data, step)
        if grown:
            self._names.add(grown)
        octets = self._octets + self._markup_octets
        if self._names.used > self._names.max or octets > self._octets_free or self._attributes:
            self._check_limits(items)
            if self._names.renewals is not None and self._mode is _OPEN and self._has_too_many_names():
                if not self._passed:
                    self._skip_open_element(items)
                else:  # where the element that is open begins is known to the careful way alone
                    return self._take_care(b"")
        return b""

    def _read(self, items: list[Item], end: int) -> int:
        """Follow the parser's events; elements that ended are returned with ``end``."""
        depth = self._depth
        event = ""
        for event, element in self._events:
            if event == "end":
                depth -= 1
                if depth == 1:
                    self._kept.append(element)
                    self._used = True
                    if self._unsaid:
                        self._unsaid -= 1
                    else:
                        self.elements += 1
                        self._passed += 1
                        items.append(FirstLevelElement(element, end, self._octets))
                    self._octets = 0
                elif depth == 0:
                    self._look_for_text(items, end)
                    items.append(StreamEnd(end))
            elif event == "start":
                if depth == 1:
                    self._look_for_text(items, end)
                    if element.tag == self._root_name:
                        self._refusal = ViolationKind.NESTED_ROOT
                        return _REFUSED
                elif depth == 0:
                    self._root = element
                elif depth >= self._limits.depth_max:
                    self._refusal = ViolationKind.TOO_DEEP
                    return _REFUSED
                depth += 1
            else:
                if depth == 1:
                    self._look_for_text(items, end)
                    self._kept.append(element)
                    self._used = True
                    self._octets = 0
                kind = ViolationKind.COMMENT if event == "comment" else ViolationKind.PROCESSING_INSTRUCTION
                self._note(items, kind, end)
        self._depth = depth
        if not event:
            return _QUIET
        if depth == 1:
            return _BOUNDARY
        return _INSIDE if depth or self._root is None else _ENDED

    def _take_care(self, data: bytes) -> bytes:
        """Go back to the last exact boundary and return all octets since, for the careful way."""
        data = b"".join(self._retained) + data
        self._position -= self._retained_bytes
        passed = self._passed
        self._prime()
        self._unsaid = passed
        self._octets = self._markup_octets = 0
        self._careful = True
        return data

    def _feed_careful(self, data: bytes, items: list[Item]) -> bytes:
        """Feed up to each ``>``: every boundary is exact, and what is refused is known to be in this element."""
        parser = self._parser or self._prime()
        start = at = 0  # of the octets since the last boundary, those in ``data``
        while at < len(data):
            if self._boundary:
                stripped = len(data) - at - len(data[at:].lstrip(WHITE)) if data[at] in WHITE else 0
                at += stripped
                start = at
                self._position += stripped
                if at == len(data):
                    break
            end = data.find(b">", at) + 1 or len(data)
            piece = data[at:end]
            at = end
            self._position += len(piece)
            self._octets += len(piece)
            mark, noted, elements = len(items), self._noted, self.elements
            before = _dict_size()
            try:
                parser.feed(piece)
                step = self._read(items, self._position)
            except etree.XMLSyntaxError as error:
                self._refusal = _KINDS.get(error.code, ViolationKind.NOT_WELL_FORMED)
                step = _REFUSED
            self._names.add(_dict_size() - before)
            log_length = len(parser.feed_error_log)
            if log_length != self._log_seen and step != _REFUSED and not self._log_is_harmless(items, mark):
                step = _REFUSED
            self._doubt = self._doubt or log_length >= _LOG_FULL
            if step == _REFUSED:
                del items[mark:]
                self._noted, self.elements = noted, elements
                return self._refuse(b"".join(self._retained) + data[start:], len(data) - at, items)
            if step in _EXACT:
                if self._doubt and not is_accepted(self._header, b"".join(self._retained) + data[start:at]):
                    del items[mark:]
                    self._noted, self.elements = noted, elements
                    self._break(items, ViolationKind.NAMESPACE)
                    break
                self._retained = []
                self._retained_bytes = self._octets = self._markup_octets = self._passed = 0
                self._warned = self._doubt = False
                self._boundary = True
                start = at
                if step == _ENDED:
                    self._close()
                    return data[at:]
                if log_length >= _LOG_RENEW:
                    parser = self._prime()
                    self._careful = True
            else:
                self._boundary = False
                self._count_attributes(piece, step)
            self._check_limits(items)
            if self._mode is not _OPEN:
                break
        if self._mode is not _OPEN:
            return data[at:]
        if not self._boundary:
            self._retained.append(data[start:])
            self._retained_bytes += len(data) - start
        if self._names.renewals is not None and self._has_too_many_names():
            self._skip_open_element(items)
        return b""

    def _skip_open_element(self, items: list[Item]) -> None:
        """What others sent used up the names: go on behind the element that is open.

        The names of what was read are known now. It is what may still come in this element that is not looked at.
        """
        names = self._names
        items.append(StreamLimit(limit=names.limit, value=names.max, offset=self._position, closes=False))
        if not names.renew():
            self._break(items, ViolationKind.NAMES)
        elif self._depth > 1 or self._has_too_many_names():  # of its own: a tag that is not complete yet
            octets = b"".join(self._retained)
            self._octets = len(octets)
            skip = ElementSkip(self._header)
            try:
                rest = skip.feed(octets)
            except Refused:
                rest = b""
            if rest is not None:  # libxml2 took it, and the element is open
                self._break(items, ViolationKind.NOT_WELL_FORMED)
                return
            self._forget()
            self._skip = skip
            self._refusal, self._refused_at = ViolationKind.NAMES, self._position
            self._mode = _Mode.SKIPPING

    def _refuse(self, octets: bytes, unread: int, items: list[Item]) -> bytes:
        """libxml2 refused the element that begins ``octets``; the last ``unread`` of them it has not had."""
        self._position += unread
        noted, elements = self._noted, self.elements
        index, kind = self._locate(octets[: len(octets) - unread])
        self._noted, self.elements = noted, elements
        refused_at = self._position - len(octets) + index
        try:
            if kind is ViolationKind.NESTED_ROOT:  # a new stream to one reader, an element to another
                raise Refused
            skip = ElementSkip(self._header)
            rest = skip.feed(octets)
        except Refused:
            self._break(items, kind, refused_at)
            return b""
        self._octets = len(octets)
        if rest is None:
            self._forget()
            self._skip = skip
            self._refusal = kind
            self._refused_at = refused_at
            self._mode = _Mode.SKIPPING
            self._check_limits(items)
            return b""
        return self._resume(rest, items, kind)

    def _locate(self, octets: bytes) -> tuple[int, ViolationKind]:
        """Return how many of ``octets``, the last piece octet by octet, it takes to be refused, and why.

        What libxml2 says depends on how much it was given at once. A record must not depend on how the network cut.
        """
        refusal = self._refusal or ViolationKind.NOT_WELL_FORMED
        fed = max(octets.rfind(b">", 0, len(octets) - 1) + 1, len(octets) - _LOCATE_BYTES_MAX)
        parser = self._prime() if self._header else self._begin()
        try:
            if fed:
                parser.feed(octets[:fed])
            while fed < len(octets):
                fed += 1
                parser.feed(octets[fed - 1 : fed])
                if self._read([], 0) == _REFUSED or not self._log_is_harmless([], 0):
                    return fed, self._refusal or refusal
        except etree.XMLSyntaxError as error:
            return fed, _KINDS.get(error.code, ViolationKind.NOT_WELL_FORMED)
        return fed, refusal

    def _feed_skipping(self, data: bytes, items: list[Item]) -> bytes:
        assert self._skip is not None
        self._octets += len(data)
        self._position += len(data)
        try:
            rest = self._skip.feed(data)
        except Refused:
            self._break(items, self._refusal or ViolationKind.NOT_WELL_FORMED, self._refused_at)
            return b""
        if rest is None:
            self._check_limits(items)
            return b""
        return self._resume(rest, items, self._refusal)

    def _resume(self, rest: bytes, items: list[Item], kind: ViolationKind | None) -> bytes:
        """Go on behind an element that was skipped."""
        self._refusal = kind
        self._position -= len(rest)
        self._lose(items, self._octets - len(rest))
        self._mode = _Mode.OPEN
        self._octets = 0
        self._warned = False
        self._prime()
        self._careful = self._trouble = True
        return rest

    def _lose(self, items: list[Item], octets: int) -> None:
        kind = self._refusal or ViolationKind.NOT_WELL_FORMED
        items.append(Violation(kind=kind, severity=Severity.ELEMENT, offset=self._position, octets=octets))

    def _feed_fresh(self, data: bytes, items: list[Item]) -> bytes:
        if not self._retained:
            data = self._feed_prolog(data, items)
        parser = self._parser or self._begin()
        at = 0
        while at < len(data):
            end = data.find(b">", at) + 1 or len(data)
            piece = data[at:end]
            at = end
            self._position += len(piece)
            self._octets += len(piece)
            self._retained.append(piece)
            mark = len(items)
            before = _dict_size()
            try:
                parser.feed(piece)
                step = self._read(items, self._position)
            except etree.XMLSyntaxError as error:
                self._refusal = _KINDS.get(error.code, ViolationKind.NOT_WELL_FORMED)
                step = _REFUSED
            self._names.add(_dict_size() - before)
            if step == _REFUSED or not self._log_is_harmless(items, mark):
                del items[mark:]
                octets = b"".join(self._retained)
                index, kind = self._locate(octets)
                self._break(items, kind, self._position - len(octets) + index)
                return data[at:]
            self._count_attributes(piece, step)
            self._check_limits(items)
            if self._mode is _Mode.BROKEN:
                return data[at:]
            if self._root is not None:
                items[mark:] = self._open_stream(self._root, items[mark:], step)
                return data[at:]
        return b""

    def _feed_prolog(self, data: bytes, items: list[Item]) -> bytes:
        """Judge what stands before the root; return the octets from the root's ``<`` on."""
        start = self._position
        self._position += len(data)
        if not self._prolog:
            stripped = data.lstrip(WHITE)
            self._white_before = self._white_before or len(stripped) < len(data)
            start += len(data) - len(stripped)
            data = stripped
            if not data:
                return b""
        held = self._prolog + data
        start -= len(self._prolog)
        bytes_max = self._limits.prolog_bytes_max
        prolog = scan_prolog(held[: bytes_max + 1], white_before=self._white_before)
        if prolog.refusal is not None:
            self._break(items, prolog.refusal, start)
            return b""
        if prolog.end is None and len(held) > bytes_max:
            self._stop(items, "stream.prolog_bytes_max", bytes_max)
            return b""
        if prolog.end is None:
            self._prolog = held
            return b""
        self._position = start + prolog.end
        self._prolog = b""
        self._declared = prolog.declared
        for kind in prolog.notes:
            self._note(items, kind, self._position)
        between = held[prolog.skip : prolog.end].lstrip(WHITE)
        if between:
            mark = len(items)
            parser = self._parser or self._begin()
            try:
                parser.feed(between)
                step = self._read(items, self._position)
            except etree.XMLSyntaxError as error:
                self._refusal = _KINDS.get(error.code, ViolationKind.NOT_WELL_FORMED)
                step = _REFUSED
            if step == _REFUSED or not self._log_is_harmless(items, mark):
                self._position += len(held) - prolog.end
                self._break(items, self._refusal or ViolationKind.NOT_WELL_FORMED, start)
                return b""
        return held[prolog.end :]

    def _open_stream(self, root: etree._Element, later: list[Item], step: int) -> list[Item]:
        """The root's start tag is complete; ``later`` was read with it."""
        items: list[Item] = []
        self._header = b"".join(self._retained)
        self._retained = []
        self._octets = self._markup_octets = 0
        self._warned = False
        self._root_name = name = str(root.tag)
        self._namespaces = dict(root.nsmap)
        items.append(
            StreamHeader(
                name=name,
                attributes={str(key): str(value) for key, value in root.attrib.items()},
                namespaces=self._namespaces,
                xml_declaration=self._declared,
                offset=self._position,
            )
        )
        if root.getroottree().docinfo.internalDTD is not None:
            # The prolog's scan refuses a DOCTYPE; this is for the one it might not know.
            self._break(items, ViolationKind.DTD)
            return items
        if not is_accepted(self._header, b""):
            self._break(items, ViolationKind.NOT_WELL_FORMED)
            return items
        if name != _STREAM:
            self._note(items, ViolationKind.NOT_A_STREAM, self._position)
        items += later
        self._mode = _Mode.OPEN
        self._boundary = True
        if self._expects_whole:
            self._wrap()
        if step == _ENDED:  # <stream:stream/>
            self._close()
        return items

    def _feed_ended(self, data: bytes, items: list[Item]) -> bytes:
        """Behind the closing tag: noted and passed over. A stream that begins anew ends inspection.

        The stream is over: to a server's parser whatever follows is an error or nothing, so it hides nothing.
        COMPAT(slixmpp 1.17): it closes twice where an application disconnects behind a refused login.
        COMPAT(@xmpp/client 0.14, profanity 0.13): they answer acknowledgement requests and send iqs there.
        """
        held = self._behind + data
        begin = self._position - len(self._behind)
        self._position += len(data)
        text = held.lstrip(WHITE)
        if text:
            self._note(items, ViolationKind.AFTER_END, begin + len(held) - len(text))
        header = _HEADER_BEHIND.search(held)
        if header is not None:
            self._break(items, ViolationKind.AFTER_END, begin + header.end())
            return b""
        tag = held.rfind(b"<")
        self._behind = held[tag : tag + _HEADER_BEHIND_MAX] if tag >= 0 else b""
        return b""

    # --- small steps ---

    def _begin(self) -> etree.XMLPullParser:
        """Begin a new parser."""
        self._forget()
        parser = self._parser = _new_parser()
        self._events = parser.read_events()
        return parser

    def _prime(self) -> etree.XMLPullParser:
        """Begin a new parser inside the stream that is open."""
        parser = self._begin()
        parser.feed(self._header)
        self._read([], 0)
        self._log_seen = len(parser.feed_error_log)
        self._boundary = True
        return parser

    def _close(self) -> None:
        self._forget()
        self._mode = _Mode.ENDED

    def _clean(self) -> None:
        """Empty what was returned by the last feed.

        The node that ended last stays in the tree: libxml2 remembers the text node at its end, and taking that away
        lets a peer write outside it. Everything before it goes.
        """
        kept = self._kept
        last = kept[-1]
        if len(kept) > 1:
            root = self._root
            assert root is not None
            for element in kept[:-1]:
                root.remove(element)
            del kept[:-1]
        if isinstance(last.tag, str):
            last.clear(keep_tail=True)
        self._used = False

    def _look_for_text(self, items: list[Item], end: int) -> None:
        """Note character data before a node of the first level: only now is it complete."""
        if self._kept:
            text = self._kept[-1].tail
        else:
            assert self._root is not None
            text = self._root.text
        if text is not None and text.strip(" \t\r\n"):
            self._note(items, ViolationKind.TEXT, end)

    def _log_is_harmless(self, items: list[Item] | None, mark: int) -> bool:
        """Look at what the parser only logs: namespace errors do not end its work, but a server's.

        A note goes before the items of this feed, at ``mark``; without a list, what would need a note is not harmless.
        """
        assert self._parser is not None
        entries = list(self._parser.feed_error_log)
        for entry in entries[self._log_seen :]:
            if entry.level < etree.ErrorLevels.ERROR:
                continue
            if entry.type != etree.ErrorTypes.WAR_NS_URI:
                self._refusal = ViolationKind.NAMESPACE
                return False
            if ViolationKind.NAMESPACE_NAME not in self._noted:
                if items is None:
                    return False
                note: list[Item] = []
                self._note(note, ViolationKind.NAMESPACE_NAME, self._position)
                items[mark:mark] = note
        self._log_seen = len(entries)
        return True

    def _note(self, items: list[Item], kind: ViolationKind, offset: int) -> None:
        if kind not in self._noted:
            self._noted |= {kind}
            items.append(Violation(kind=kind, severity=Severity.NOTE, offset=offset))

    def _count_attributes(self, data: bytes, step: int) -> None:
        """Count what takes room: a tree, and the names of a start tag, interned all at once when it is complete."""
        markup_octets = self._names.markup_octets
        if markup_octets or step == _QUIET:
            quotes = data.count(b"'") + data.count(b'"')
            self._markup_octets += markup_octets * data.count(b"<") + markup_octets // 2 * quotes
        if step == _QUIET:
            self._attributes += data.count(b"=")
            self._quotes += quotes
        else:
            self._attributes = self._quotes = 0

    def _check_limits(self, items: list[Item]) -> None:
        limits, names = self._limits, self._names
        if self._octets + self._markup_octets > names.stanza_bytes_max:
            self._stop(items, names.stanza_limit, names.stanza_bytes_max)
        elif names.renewals is None and self._has_too_many_names():
            self._stop(items, names.limit, names.max)
        elif self._octets > limits.stanza_bytes_warn and not self._warned:
            self._warned = True
            items.append(
                StreamLimit(
                    limit="stream.stanza_bytes_warn",
                    value=limits.stanza_bytes_warn,
                    offset=self._position,
                    closes=False,
                )
            )

    def _has_too_many_names(self) -> bool:
        names = self._names
        return names.used > names.max or min(self._attributes, self._quotes // 2) > names.max

    def _stop(self, items: list[Item], limit: str, value: int) -> None:
        items.append(StreamLimit(limit=limit, value=value, offset=self._position, closes=True))
        self._mode = _Mode.BROKEN
        self._forget()

    def _break(self, items: list[Item], kind: ViolationKind, offset: int | None = None) -> None:
        offset = self._position if offset is None else offset
        items.append(Violation(kind=kind, severity=Severity.STREAM, offset=offset))
        self._mode = _Mode.BROKEN
        self._forget()


def _new_parser() -> etree.XMLPullParser:
    # The encoding is forced, or a declaration chooses the decoder; never resolve_entities=False, which makes the
    # pull parser begin a new document at an undefined entity; no huge_tree, so that libxml2's own limits hold.
    parser = etree.XMLPullParser(
        events=("start", "end", "comment", "pi"),
        encoding="utf-8",
        resolve_entities="internal",
        no_network=True,
        huge_tree=False,
        load_dtd=False,
        collect_ids=False,
    )
    # libxml2 does not look at the first four octets until there are more. A line feed before the root is harmless.
    parser.feed(b"\n\n\n\n")
    return parser


_NAME: Final = re.compile(rb"<([^ \t\r\n/>=]+)")
_ATTRIBUTE: Final = re.compile(rb"""[ \t\r\n]+([^ \t\r\n=/>]+)[ \t\r\n]*=[ \t\r\n]*("[^"<]*"|'[^'<]*')""")


def _start_tag_name(tag: bytes, namespaces: dict[str | None, str]) -> str | None:
    """Return the Clark name of a start tag inside ``namespaces``; the tag may be cut at a ``>`` in an attribute."""
    match = _NAME.match(tag)
    if match is None:
        return None
    prefix, colon, local = match[1].rpartition(b":")
    declaration = b"xmlns:" + prefix if colon else b"xmlns"
    namespace = namespaces.get(prefix.decode("utf-8", "replace") if colon else None, "")
    at = match.end()
    while (attribute := _ATTRIBUTE.match(tag, at)) is not None:
        if attribute[1] == declaration:
            namespace = attribute[2][1:-1].decode("utf-8", "replace")
        at = attribute.end()
    name = local.decode("utf-8", "replace")
    return f"{{{namespace}}}{name}" if namespace else name
