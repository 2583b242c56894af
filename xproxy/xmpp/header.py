"""The begin of a stream: what stands before the root, and the root's start tag, which is the stream's header.

What a conforming server would refuse there ends inspection: there is no element yet that could be lost alone.
"""

from collections.abc import Sequence
from typing import Final

import attrs
from lxml import etree

from xproxy.config.stream import StreamLimits
from xproxy.xmpp.bounds import Bounds
from xproxy.xmpp.items import Item, StreamHeader, StreamLimit, Tally, Violation
from xproxy.xmpp.ns import STREAMS
from xproxy.xmpp.parser import ENDED, QUIET, REFUSED, StreamParser, locate
from xproxy.xmpp.prolog import WHITE, scan_prolog
from xproxy.xmpp.recovery import is_accepted, is_document
from xproxy.xmpp.tags import closing_tag_of
from xproxy.xmpp.violation import Severity, ViolationKind
from xproxy.xmpp.whole import read_header

_STREAM: Final = f"{{{STREAMS}}}stream"

_dict_size = etree.memory_debugger.dict_size  # type: ignore[attr-defined]


@attrs.frozen(kw_only=True)
class Header:
    """The root is open."""

    octets: bytes  # from its "<" to its ">"
    name: str
    namespaces: dict[str | None, str]
    parser: StreamParser | None  # which has read it, if it was one of this stream
    is_ended: bool  # <stream:stream/>


class HeaderReader:
    """Reads up to and with the header of one stream. ``header`` is there when it was read, or ``is_broken`` says no."""

    __slots__ = (
        "_bounds",
        "_declared",
        "_limits",
        "_parser",
        "_prolog",
        "_retained",
        "_tally",
        "_white_before",
        "header",
        "is_broken",
        "position",
    )

    def __init__(self, limits: StreamLimits, bounds: Bounds, tally: Tally, position: int) -> None:
        """``position`` octets of this direction came before."""
        self._limits = limits
        self._bounds = bounds
        self._tally = tally
        self._prolog = b""  # held until the root begins
        self._white_before = False
        self._declared = False
        self._parser: StreamParser | None = None
        self._retained: list[bytes] = []  # of the header
        self.position = position
        self.header: Header | None = None
        self.is_broken = False

    @property
    def held(self) -> bytes | None:
        """What came besides white space, while it is not known whether the root begins; None when it does."""
        return None if self._retained else self._prolog

    def feed(self, data: bytes, items: list[Item]) -> bytes:
        """Take the next octets; return those that are not for the header."""
        if not self._retained:
            data = self._feed_prolog(data, items)
        at = 0
        while at < len(data):
            end = data.find(b">", at) + 1 or len(data)
            if not self._read_whole(data[at:end], items):
                self._feed_piece(data[at:end], items)
            at = end
            if self.is_broken or self.header is not None:
                break
        return data[at:]

    def _feed_prolog(self, data: bytes, items: list[Item]) -> bytes:
        """Judge what stands before the root; return the octets from the root's ``<`` on."""
        start = self.position
        self.position += len(data)
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
            self._limit(
                items,
                StreamLimit(limit="stream.prolog_bytes_max", value=bytes_max, offset=self.position, closes=True),
            )
            return b""
        if prolog.end is None:
            self._prolog = held
            return b""
        self.position = start + prolog.end
        self._prolog = b""
        self._declared = prolog.declared
        for kind in prolog.notes:
            self._tally.note(items, kind, self.position)
        between = held[prolog.skip : prolog.end].lstrip(WHITE)
        if between:
            mark = len(items)
            parser = self._parser = self._parser or StreamParser(self._tally, depth_max=self._limits.depth_max)
            step = parser.feed(between, items, self.position)
            if step == REFUSED or not parser.is_log_harmless(items, mark, self.position):
                self.position += len(held) - prolog.end
                self._break(items, parser.refusal or ViolationKind.NOT_WELL_FORMED, start)
                return b""
        return held[prolog.end :]

    def _read_whole(self, tag: bytes, items: list[Item]) -> bool:
        """The shortest way: ``tag`` is the header, and with its closing tag a document: it needs no parser of its own.

        What is not plainly right is read as if this had not been tried.
        """
        bounds, octets = self._bounds, len(tag)
        if self._parser is not None or octets > bounds.octets_free or b"\0" in tag or not tag.endswith(b">"):
            return False
        before = _dict_size()
        root = read_header(tag)
        bounds.names.add(_dict_size() - before)
        if root is None or bounds.has_too_many_names:
            return False
        self.position += octets
        self._open(tag, root, items)
        return True

    def _feed_piece(self, piece: bytes, items: list[Item]) -> None:
        """Feed up to a ``>``, which may be the header's."""
        bounds, tally = self._bounds, self._tally
        parser = self._parser = self._parser or StreamParser(tally, depth_max=self._limits.depth_max)
        self.position += len(piece)
        tally.octets += len(piece)
        self._retained.append(piece)
        mark = len(items)
        before = _dict_size()
        step = parser.feed(piece, items, self.position)
        bounds.names.add(_dict_size() - before)
        if step == REFUSED or not parser.is_log_harmless(items, mark, self.position):
            del items[mark:]
            octets = b"".join(self._retained)
            index, kind = locate(
                octets, header=b"", root_name="", depth_max=self._limits.depth_max, refusal=parser.refusal
            )
            self._break(items, kind, self.position - len(octets) + index)
            return
        bounds.count_attributes(piece, may_be_tag=step == QUIET)
        limit = bounds.reached(tally.octets, self.position)
        if limit is not None:
            self._limit(items, limit)
        if parser.root is not None and not self.is_broken:
            later = items[mark:]  # read with the root's start tag
            del items[mark:]
            self._open(b"".join(self._retained), parser.root, items, parser, later, is_ended=step == ENDED)

    def _open(
        self,
        tag: bytes,
        root: etree._Element,
        items: list[Item],
        parser: StreamParser | None = None,
        later: Sequence[Item] = (),
        *,
        is_ended: bool = False,
    ) -> None:
        """The root's start tag is complete."""
        header = Header(octets=tag, name=str(root.tag), namespaces=dict(root.nsmap), parser=parser, is_ended=is_ended)
        items.append(
            StreamHeader(
                name=header.name,
                attributes={str(key): str(value) for key, value in root.attrib.items()},
                namespaces=header.namespaces,
                xml_declaration=self._declared,
                offset=self.position,
            )
        )
        if parser is not None and root.getroottree().docinfo.internalDTD is not None:
            # The prolog's scan refuses a DOCTYPE; this is for the one it might not know.
            self._break(items, ViolationKind.DTD, self.position)
            return
        if not (is_accepted(tag, b"") if parser is not None else is_document(tag + (closing_tag_of(tag) or b""))):
            self._break(items, ViolationKind.NOT_WELL_FORMED, self.position)
            return
        if header.name != _STREAM:
            self._tally.note(items, ViolationKind.NOT_A_STREAM, self.position)
        items += later
        if parser is not None:
            parser.know_root(header.name)
        self.header = header

    def _limit(self, items: list[Item], limit: StreamLimit) -> None:
        items.append(limit)
        self.is_broken = limit.closes

    def _break(self, items: list[Item], kind: ViolationKind, offset: int) -> None:
        items.append(Violation(kind=kind, severity=Severity.STREAM, offset=offset))
        self.is_broken = True
