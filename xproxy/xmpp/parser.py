"""lxml's pull parser on one stream, with a depth counter: octets in, nodes of the first level out, refusals named.

When the depth returns to one, a first-level element (RFC 6120 section 4.1) is complete. Nothing is decided here but
what each event means; which octets to feed, and what follows from a refusal, is ``header``'s and ``content``'s.

**Cleaning**: before the next feed the elements handed out are emptied and all but the last are removed. The last stays:
libxml2 remembers its neighbouring text node, and a peer can write behind it with white space and ``&#32;`` if that node
is taken away. (lxml's documentation forbids it; a heap corruption was measured.)

**After a refusal** the parser is not to be fed again: lxml would begin a *new document*, and a peer could tell us any
story.
"""

from collections.abc import Iterator
from typing import Final

from lxml import etree

from xproxy.xmpp.items import FirstLevelElement, Item, StreamEnd, Tally
from xproxy.xmpp.violation import ViolationKind

# What one feed led to. Plain numbers: this is the hot path.
QUIET: Final = 0  # no event
INSIDE: Final = 1  # something is open besides the stream
BOUNDARY: Final = 2  # after the last event only the stream is open
ENDED: Final = 3  # the stream is closed
REFUSED: Final = 4  # ``refusal`` says why

LOG_RENEW: Final = 64  # entries; libxml2 reports 100 warnings and 100 errors a document, then it is silent
LOG_FULL: Final = 100

_LOCATE_BYTES_MAX: Final = 8_192  # fed one by one to find the very octet that is refused; 5 ms, once a refused element

_KINDS: Final[dict[int, ViolationKind]] = {
    etree.ErrorTypes.ERR_INVALID_CHAR: ViolationKind.BAD_CHARACTER,
    etree.ErrorTypes.ERR_INVALID_ENCODING: ViolationKind.BAD_CHARACTER,
    etree.ErrorTypes.ERR_UNDECLARED_ENTITY: ViolationKind.UNDEFINED_ENTITY,
    etree.ErrorTypes.ERR_RESERVED_XML_NAME: ViolationKind.XML_DECLARATION,
    etree.ErrorTypes.ERR_DOCUMENT_END: ViolationKind.AFTER_END,
    etree.ErrorTypes.ERR_NAME_TOO_LONG: ViolationKind.PARSER_LIMIT,
    etree.ErrorTypes.ERR_RESOURCE_LIMIT: ViolationKind.PARSER_LIMIT,
}


class StreamParser:
    """One document: a stream from its root, or from the place inside it where reading goes on."""

    __slots__ = (
        "_depth_max",
        "_events",
        "_kept",
        "_parser",
        "_root_name",
        "_tally",
        "depth",
        "is_used",
        "log_seen",
        "refusal",
        "root",
    )

    def __init__(self, tally: Tally, *, depth_max: int, root_name: str = "") -> None:
        """``root_name`` is refused on the first level; it is not known before the root was read."""
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
        self._parser = parser
        self._events: Iterator[tuple[str, etree._Element]] = parser.read_events()
        self._tally = tally
        self._depth_max = depth_max
        self._root_name = root_name
        self._kept: list[etree._Element] = []  # finished nodes of the first level still in the tree, in order
        self.log_seen = 0  # so much of what the parser logged was looked at
        self.is_used = False  # the caller has had a look at the last of what was kept
        self.root: etree._Element | None = None
        self.depth = 0
        self.refusal: ViolationKind | None = None

    def enter(self, header: bytes, root_name: str) -> None:
        """Be inside the stream that ``header``, read before, opened."""
        self._parser.feed(header)
        self._read([], 0)
        self.log_seen = len(self._parser.feed_error_log)
        self._root_name = root_name

    def feed(self, data: bytes, items: list[Item], end: int) -> int:
        """Take octets and say what they led to; what became complete is appended to ``items``, ending at ``end``."""
        try:
            self._parser.feed(data)
            return self._read(items, end)
        except etree.XMLSyntaxError as error:
            self.refusal = _KINDS.get(error.code, ViolationKind.NOT_WELL_FORMED)
            return REFUSED

    def know_root(self, root_name: str) -> None:
        """The root was read: an element of its name inside the stream is refused."""
        self._root_name = root_name

    def _read(self, items: list[Item], end: int) -> int:
        """Follow the parser's events."""
        depth = self.depth
        tally = self._tally
        event = ""
        for event, element in self._events:
            if event == "end":
                depth -= 1
                if depth == 1:
                    self._kept.append(element)
                    self.is_used = True
                    if tally.unsaid:
                        tally.unsaid -= 1
                    else:
                        tally.elements += 1
                        tally.passed += 1
                        items.append(FirstLevelElement(element, end, tally.octets))
                    tally.octets = 0
                elif depth == 0:
                    self._look_for_text(items, end)
                    items.append(StreamEnd(end))
            elif event == "start":
                if depth == 1:
                    self._look_for_text(items, end)
                    if element.tag == self._root_name:
                        self.refusal = ViolationKind.NESTED_ROOT
                        return REFUSED
                elif depth == 0:
                    self.root = element
                elif depth >= self._depth_max:
                    self.refusal = ViolationKind.TOO_DEEP
                    return REFUSED
                depth += 1
            else:
                if depth == 1:
                    self._look_for_text(items, end)
                    self._kept.append(element)
                    self.is_used = True
                    tally.octets = 0
                kind = ViolationKind.COMMENT if event == "comment" else ViolationKind.PROCESSING_INSTRUCTION
                tally.note(items, kind, end)
        self.depth = depth
        if not event:
            return QUIET
        if depth == 1:
            return BOUNDARY
        return INSIDE if depth or self.root is None else ENDED

    def _look_for_text(self, items: list[Item], end: int) -> None:
        """Note character data before a node of the first level: only now is it complete."""
        if self._kept:
            text = self._kept[-1].tail
        else:
            assert self.root is not None
            text = self.root.text
        if text is not None and text.strip(" \t\r\n"):
            self._tally.note(items, ViolationKind.TEXT, end)

    def clean(self) -> None:
        """Empty what was handed out by the last feed.

        The node that ended last stays in the tree: libxml2 remembers the text node at its end, and taking that away
        lets a peer write outside it. Everything before it goes.
        """
        kept = self._kept
        last = kept[-1]
        if len(kept) > 1:
            root = self.root
            assert root is not None
            for element in kept[:-1]:
                root.remove(element)
            del kept[:-1]
        if isinstance(last.tag, str):
            last.clear(keep_tail=True)
        self.is_used = False

    def last_closing_tag(self) -> bytes | None:
        """Return how the last first-level element may have ended, if there was one."""
        if not self._kept or not isinstance(self._kept[-1].tag, str):
            return None
        last = self._kept[-1]
        local = str(last.tag).rpartition("}")[2]
        name = f"{last.prefix}:{local}" if last.prefix else local
        return b"</" + name.encode() + b">"

    @property
    def log_length(self) -> int:
        """How often the parser had something to say without refusing."""
        return len(self._parser.feed_error_log)

    def is_log_harmless(self, items: list[Item] | None, mark: int, offset: int) -> bool:
        """Look at what the parser only logs: namespace errors do not end its work, but a server's.

        A note goes before the items of this feed, at ``mark``; without a list, what would need a note is not harmless.
        """
        entries = list(self._parser.feed_error_log)
        for entry in entries[self.log_seen :]:
            if entry.level < etree.ErrorLevels.ERROR:
                continue
            if entry.type != etree.ErrorTypes.WAR_NS_URI:
                self.refusal = ViolationKind.NAMESPACE
                return False
            if ViolationKind.NAMESPACE_NAME not in self._tally.noted:
                if items is None:
                    return False
                note: list[Item] = []
                self._tally.note(note, ViolationKind.NAMESPACE_NAME, offset)
                items[mark:mark] = note
        self.log_seen = len(entries)
        return True


def locate(
    octets: bytes, *, header: bytes, root_name: str, depth_max: int, refusal: ViolationKind | None
) -> tuple[int, ViolationKind]:
    """Return how many of ``octets``, the last piece octet by octet, it takes to be refused, and why.

    They stand behind ``header``, if there is one. What libxml2 says (``refusal``) depends on how much it was given at
    once. A record must not depend on how the network cut.
    """
    found = refusal or ViolationKind.NOT_WELL_FORMED
    fed = max(octets.rfind(b">", 0, len(octets) - 1) + 1, len(octets) - _LOCATE_BYTES_MAX)
    parser = StreamParser(Tally(), depth_max=depth_max, root_name=root_name)
    if header:
        parser.enter(header, root_name)
    if fed and parser.feed(octets[:fed], [], 0) == REFUSED:
        return fed, parser.refusal or found
    while fed < len(octets):
        fed += 1
        step = parser.feed(octets[fed - 1 : fed], [], 0)
        if step == REFUSED or not parser.is_log_harmless([], 0, 0):
            return fed, parser.refusal or found
    return fed, found
