"""Running a StreamReader over chunks, and holding what it says against the judge."""

import itertools
from collections.abc import Iterable

import attrs

from tests.support.judge import Node, Restricted, judge, tree_of
from xproxy.config.stream import StreamLimits
from xproxy.xmpp.stream import (
    FirstLevelElement,
    Item,
    NameBudget,
    Severity,
    StreamEnd,
    StreamHeader,
    StreamLimit,
    StreamReader,
    Violation,
    ViolationKind,
    pieces,
)

HEADER = (
    b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
    b" to='im.example' version='1.0'>"
)

# What ends inspection although expat goes on: the reader may stop there, and has to say so.
_STOPS = {Restricted.DTD, Restricted.NESTED_ROOT, Restricted.DECLARATION, Restricted.UTF_16}

# Octets that finish whatever may be open: libxml2 looks at a tag when it is complete, expat at every octet.
_COMPLETIONS = (
    b"<probe/>",
    b"'/><probe/>",
    b'"/><probe/>',
    b"/><probe/>",
    b"--><probe/>",
    b"]]></a><probe/>",
    b"?><b/>",
)


def new_reader(*, logged_in: bool = True, whole: bool = False, **limits: int) -> StreamReader:
    """A reader with its own name budget. ``whole``: it expects complete elements, as in an established stream."""
    stream_limits = StreamLimits(**limits)
    names = NameBudget(stream_limits)
    if logged_in:
        names.logged_in()
    reader = StreamReader(limits=stream_limits, names=names)
    if whole:
        reader.expect_whole()
    return reader


@attrs.frozen
class Reading:
    """What a reader said. ``elements`` were copied before the next feed, as their validity demands."""

    items: list[Item]
    elements: list[Node]

    @property
    def violations(self) -> list[tuple[str, Severity]]:
        return [(item.kind.value, item.severity) for item in self.items if isinstance(item, Violation)]

    @property
    def lost(self) -> int:
        return sum(isinstance(item, Violation) and item.severity is Severity.ELEMENT for item in self.items)

    @property
    def broken(self) -> bool:
        return any(
            (isinstance(item, Violation) and item.severity is Severity.STREAM)
            or (isinstance(item, StreamLimit) and item.closes)
            for item in self.items
        )

    @property
    def ended(self) -> bool:
        return any(isinstance(item, StreamEnd) for item in self.items)

    @property
    def story(self) -> list[object]:
        """What must be the same in every cut: all but the offsets that are a chunk's."""
        told: list[object] = []
        elements = iter(self.elements)
        for item in self.items:
            match item:
                case FirstLevelElement():
                    told.append(next(elements))
                case StreamHeader():
                    told.append(item)
                case StreamEnd():
                    told.append("end")
                case Violation(severity=Severity.NOTE):
                    told.append((item.kind, item.severity))
                case Violation():
                    told.append(item)
                case StreamLimit():
                    told.append((item.limit, item.closes))
        return told


def read(chunks: Iterable[bytes], reader: StreamReader | None = None) -> Reading:
    """Feed ``chunks`` and return what was said."""
    reader = reader or new_reader()
    items: list[Item] = []
    elements: list[Node] = []
    for chunk in chunks:
        for item in reader.feed(chunk):
            items.append(item)
            if isinstance(item, FirstLevelElement):
                elements.append(tree_of(item.element))
    return Reading(items, elements)


def read_ones(chunks: Iterable[bytes]) -> Reading:
    """Read ``chunks`` as they are read in a login: each is tried as one element, else fed piece by piece."""
    reader = new_reader()
    items: list[Item] = []
    elements: list[Node] = []
    for chunk in chunks:
        one = reader.feed_one(chunk)
        for said in [one] if one is not None else (reader.feed(piece) for piece in pieces(chunk)):
            items += said
            elements += [tree_of(item.element) for item in said if isinstance(item, FirstLevelElement)]
    return Reading(items, elements)


def disagreement(chunks: list[bytes]) -> str | None:
    """Return in what reader and judge differ over one document, or None."""
    data = b"".join(chunks)
    verdict = judge(data)
    seen = read(chunks)
    header = data.find(b">", data.find(b"stream")) + 1
    for cut in (chunks, [data[:header], data[header:]]):
        for one, other in itertools.zip_longest(seen.story, read(cut, new_reader(whole=True)).story):
            if one != other:
                return f"{one!r}, where complete elements are expected {other!r}"
        for one, other in itertools.zip_longest(seen.story, read_ones(cut).story):
            if one != other:
                return f"{one!r}, where one element is tried {other!r}"
    kinds = {kind for kind, _ in seen.violations}
    if ViolationKind.SPACE_BEFORE_DECLARATION.value in kinds:
        return None  # expat refuses, the reader goes on and says so: no way to hide
    if any(limit for limit in seen.items if isinstance(limit, StreamLimit) and limit.closes):
        return None  # limits are not the judge's
    expected = [node for index, node in enumerate(verdict.elements) if index not in verdict.unread]
    if verdict.restricted & _STOPS:
        if not verdict.refused and not seen.broken:
            return f"not said: {verdict.restricted & _STOPS}"
        return None if seen.elements == expected[: len(seen.elements)] else "other elements"
    if seen.elements != expected:
        if len(seen.elements) > len(expected) and not data.isascii() and verdict.refused:
            return None  # names of XML 1.0's fifth edition: libxml2 knows it, expat does not
        return f"{len(seen.elements)} elements seen, {len(expected)} expected"
    if seen.lost != len(verdict.unread):
        return f"{seen.lost} elements lost, {len(verdict.unread)} expected"
    if ViolationKind.AFTER_END.value in kinds and verdict.ended:
        return None  # expat takes a comment there, RFC 6120 section 11.1 does not
    unread = verdict.restricted & {Restricted.DEEP, Restricted.LONG_NAME}  # notes inside are lost with the element
    for kind, restricted in _NOTES if verdict.root is not None else ():
        if restricted in verdict.restricted and kind.value not in kinds and not verdict.refused and not unread:
            return f"not noted: {kind}"
    if verdict.root is None and not verdict.refused and not seen.elements:
        return None  # expat waits for the end of a literal that cannot stand there
    if not verdict.refused:
        if seen.broken and not _is_lost(data):
            return f"the reader stopped: {seen.violations}"
        if seen.ended != verdict.ended:
            return "end of the stream"
        return None
    if not seen.broken and data.isascii():
        for completion in _COMPLETIONS:
            later = read([*chunks, completion])
            if len(later.elements) > len(seen.elements):
                return f"goes on after {completion!r} where expat does not"
    return None


def _is_lost(data: bytes) -> bool:
    """Whether expat, which waits for the rest of a character or of "<![CDATA[", will refuse whatever comes."""
    return all(judge(data + more + b" " * 8).refused for more in (b"", b"a/>", *_COMPLETIONS))


_NOTES = (
    (ViolationKind.BYTE_ORDER_MARK, Restricted.BYTE_ORDER_MARK),
    (ViolationKind.COMMENT, Restricted.COMMENT),
    (ViolationKind.PROCESSING_INSTRUCTION, Restricted.PROCESSING_INSTRUCTION),
)
