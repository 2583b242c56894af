"""The limits of one direction: octets of an element that is not complete, and names."""

from xproxy.config.stream import StreamLimits
from xproxy.xmpp.items import StreamLimit
from xproxy.xmpp.names import NameBudget


class Bounds:
    """How much may still come. The names of an unfinished tag are bounded before the parser interns them.

    A start tag is parsed when it is complete, all its names at once: its attributes are counted as their octets come.
    Before the login the nodes of an element count too, since a tree takes many times the octets, and so does each ``>``
    in its text, since up to there it is fed by itself.
    """

    __slots__ = ("_attributes", "_limits", "_quotes", "_warned", "markup_octets", "names", "octets_free")

    def __init__(self, limits: StreamLimits, names: NameBudget) -> None:
        self._limits = limits
        self.names = names
        self.octets_free = min(limits.stanza_bytes_warn, names.stanza_bytes_max)  # below it there is nothing to say
        self.renew()

    def forget(self) -> None:
        """What was open is not, or is read again."""
        self._attributes = 0  # "=" and quotes of what may be an unfinished tag
        self._quotes = 0

    def renew(self) -> None:
        """An element begins: nothing is open."""
        self.forget()
        self._warned = False
        self.markup_octets = 0  # what the tags and attributes of the element count for beside themselves

    @property
    def counts_attributes(self) -> bool:
        """Whether a tag may be open."""
        return self._attributes > 0

    def count_attributes(self, data: bytes, *, may_be_tag: bool) -> None:
        """``data`` was fed and the parser told nothing (``may_be_tag``), or did."""
        each = self.names.markup_octets
        if each or may_be_tag:
            quotes = data.count(b"'") + data.count(b'"')
            self.markup_octets += each * data.count(b">") + each // 2 * quotes
        if may_be_tag:
            self._attributes += data.count(b"=")
            self._quotes += quotes
        else:
            self.forget()

    @property
    def has_too_many_names(self) -> bool:
        """Whether the names, those to be expected of an open tag included, are used up."""
        names = self.names
        return names.used > names.max or min(self._attributes, self._quotes // 2) > names.max

    def reached(self, octets: int, offset: int) -> StreamLimit | None:
        """Return the limit that an element of ``octets`` so far reaches, at ``offset``. A warning is said once."""
        names = self.names
        if octets + self.markup_octets > names.stanza_bytes_max:
            return StreamLimit(limit=names.stanza_limit, value=names.stanza_bytes_max, offset=offset, closes=True)
        if names.renewals is None and self.has_too_many_names:
            return StreamLimit(limit=names.limit, value=names.max, offset=offset, closes=True)
        warn = self._limits.stanza_bytes_warn
        if octets > warn and not self._warned:
            self._warned = True
            return StreamLimit(limit="stream.stanza_bytes_warn", value=warn, offset=offset, closes=False)
        return None
