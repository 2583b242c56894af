"""What is taken out of a session before it is written down, octet for octet.

Works on whole units (``xproxy.capture.lexer``), for what a text means depends on the element around it and on what came
before: the mechanism of a login is in another element than its payload. The rules:

* Tags stay, comments and instructions stay as such; every octet that goes is replaced by one other.
* SASL payloads: base64 stays base64 in the same spelling; behind it the names, the gs2 header, ``i``, ``h`` and ``t``
  stay, the rest is filler (``xproxy.xmpp.sasl.filler``).
* Ids of stream management, of the stream, of a device: an alias of the same length, the same for the same id, in all
  captures made with one key.
* An error's text stays as far as the log has just told it.
* What else stays is ``xproxy.capture.content``'s business.

So the session core, fed with what comes out, says the same as with what went in. Where octets are no XML to it, that
cannot be known: then the reader is asked with both (``is_read_alike``), and what it would read otherwise is blanked and
said to be lost.
"""

import base64
import codecs
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from xproxy.capture.content import FIELD, Content, Rule
from xproxy.capture.lexer import Kind, Token, Unit, UnitKind
from xproxy.capture.mask import characters, decoded, hide_text, hide_verbatim, spelt
from xproxy.capture.spelling import refuse, respell
from xproxy.config.stream import StreamLimits
from xproxy.events import Side
from xproxy.xmpp import auth, sasl2
from xproxy.xmpp.names import NameBudget
from xproxy.xmpp.sasl import decode_base64
from xproxy.xmpp.sasl.base64 import TEXT_CHARS_MAX
from xproxy.xmpp.sasl.filler import PayloadFiller
from xproxy.xmpp.stanza import TEXT_OCTETS_MAX
from xproxy.xmpp.stream import FirstLevelElement, Item, StreamHeader, StreamReader

_UNBOUND: Final = "?"  # what a prefix stands for that was never declared
_XML: Final = "http://www.w3.org/XML/1998/namespace"
# What can be a name, and is read as one; it stays, as it does in the log.
_NAME: Final = re.compile(rb"</?((?:[\w.\-:\x80-\xff]+(?=[\s/>=]|\Z))?)")
_ATTRIBUTE: Final = re.compile(rb"""[\s]([^\s=/>'"<]+)[\s]*=[\s]*("[^"]*"|'[^']*')""")
_INSTRUCTION: Final = re.compile(rb"<\?[\w.\-:\x80-\xff]*[^\w.\-:\x80-\xff?]?")  # and what ends its target
_DECLARATION: Final = re.compile(rb"<\?xml[ \t\r\n?]")
_DECLARED: Final = re.compile(
    rb"""(?P<name>[ \t\r\n](?:version|encoding|standalone)[ \t\r\n]*=[ \t\r\n]*)"""
    rb"""(?P<quote>["'])(?P<value>(?:(?!(?P=quote))[^<>])*)(?P=quote)"""
)
_DECLARED_VALUE: Final = re.compile(rb"[\w.:\-]{0,16}")  # anything else is refused, whatever it is
_ODD: Final = re.compile(rb"[&<>\r\n\t\x80-\xff\x00-\x1f]")  # in an id: no alias would be read as the same
_WORD: Final = re.compile(rb"[^ \t\r\n]+")
_BY_MARKUP: Final = re.compile(rb"""([<>/=:!?'"\s\-.\[\]&;,])""")
_MARKUP: Final = frozenset(bytes([octet]) for octet in b"<>/=:!?'\" \t\r\n\v\f-.[]&;,")
_NO_NAME: Final = bytes.maketrans(b"#$%()*+@\\^`{|}~", b"," * 15)
"""What no name may hold stays that, whichever it was: else filler would mend a tag."""
_BEGINS: Final = (b"<!--", b"<![CDATA[", b"<?")
_DECLARATION_BEGINS: Final = (b"<?xml ", b"<?xml\t", b"<?xml\r", b"<?xml\n")
_STARTS: Final = frozenset({auth.AUTH, sasl2.AUTHENTICATE})
_ENDS: Final = frozenset({auth.SUCCESS, auth.FAILURE, sasl2.SUCCESS, sasl2.FAILURE})
_DEPTH_MAX: Final = 256  # libxml2 stops there; what is deeper is not looked at
_PRIVATE_FIELDS_MAX: Final = 64  # of forms, by name
_COLLECTED_OCTETS_MAX: Final = 6 * TEXT_CHARS_MAX  # of a payload: longer ones are no base64 to the log either


class _Scope:
    """Namespaces, as far as they were declared; a stranger may declare thousands, so none is copied."""

    __slots__ = ("_above", "_own")

    def __init__(self, above: "_Scope | None", own: dict[str, str]) -> None:
        self._above = above
        self._own = own

    def get(self, prefix: str) -> str:
        """Return what ``prefix`` stands for."""
        scope: _Scope | None = self
        while scope is not None:
            if (found := scope._own.get(prefix)) is not None:
                return found
            scope = scope._above
        return _UNBOUND if prefix else ""


_OUTSIDE: Final = _Scope(None, {"xml": _XML})


@attrs.define
class _Open:
    """An element that is open."""

    tag: str
    scope: _Scope
    rule: Rule  # of its text
    sealed: bool  # nothing inside stays
    field: Rule | None = None  # of the values of a form's field
    texts: list[Token] | None = None  # collected for its end


class Alias:
    """Stands for ids: one of the same length, the same each time."""

    def __init__(self, key: bytes) -> None:
        """``key``: who has it can tell whether an alias is that of a given id, and no more."""
        self._key = key

    def of(self, value: bytes) -> bytes:
        """Return the alias of ``value``: ASCII letters and digits."""
        found = b""
        block = 0
        while len(found) < len(value):
            digest = hmac.digest(self._key, b"capture\0%d\0" % block + value, hashlib.sha256)
            found += base64.b64encode(digest, altchars=b"Xx").rstrip(b"=")
            block += 1
        return found[: len(value)]


class _Side:
    """What one direction has said of itself."""

    def __init__(self) -> None:
        self.scope = _OUTSIDE
        self.header = b""  # as it came: held in memory for ``is_read_alike`` alone


class Redactor:
    """One session, both directions: units in, octets of the same length out."""

    def __init__(self, *, bodies: bool, alias: Alias) -> None:
        """``bodies``: keep what people say to each other."""
        self._content = Content(bodies=bodies)
        self._alias = alias
        self._sides = {side: _Side() for side in Side}
        self._attempt: PayloadFiller | None = None
        self._private: set[str] = set()  # fields of forms

    def forget_login(self) -> None:
        """TLS is up: what was said in clear counts no more (RFC 6120 section 5.4.3.3)."""
        self._attempt = None

    def header(self, sent_by: Side) -> bytes:
        """Return the last stream header of a direction, as it came."""
        return self._sides[sent_by].header

    def redact(self, sent_by: Side, unit: Unit, told: frozenset[str] = frozenset()) -> bytes:
        """Return what stands for ``unit``; ``told``: texts that the log has told of it."""
        side = self._sides[sent_by]
        if unit.kind is UnitKind.HEADER:
            side.header = unit.octets
        walk = _Walk(self, side, unit, told)
        walk.go()
        assert len(walk.out) == len(unit.octets), "redaction keeps the length"
        return bytes(walk.out)

    # What the walk asks -------------------------------------------------------------------------------------------

    def begin_attempt(self, mechanism: str) -> None:
        """A login begins."""
        self._attempt = PayloadFiller(mechanism if auth.is_mechanism_name(mechanism) else "?")

    def end_attempt(self) -> None:
        """The server has judged it."""
        self._attempt = None

    def payload(self, tag: str, text: str) -> str:
        """Return what stands for the text of a payload."""
        if tag == auth.AUTH and not text:
            return text
        if tag not in (auth.AUTH, auth.RESPONSE, auth.CHALLENGE, auth.SUCCESS) and text.strip() == "=":
            return text  # SASL2: it is no base64, and says nothing
        data, encoding = decode_base64(text)
        if data is None:
            return refuse(text)
        attempt = self._attempt or PayloadFiller("")
        by_client = tag in (auth.AUTH, auth.RESPONSE, sasl2.RESPONSE) or tag.endswith("}initial-response")
        filled = attempt.response(data) if by_client else attempt.challenge(data)
        if not data:
            return text
        return base64.b64encode(filled).decode() if encoding == "strict" else respell(text, filled)

    def is_private(self, var: str, *, said_so: bool) -> bool:
        """Return whether a form of this session said ``text-private`` of a field of that name: answers need not.

        XEP-0004 section 3.2: the fields of a form of type "submit" may be without a type.
        """
        if said_so and len(self._private) < _PRIVATE_FIELDS_MAX:
            self._private.add(var)
        return said_so or var in self._private

    def alias(self, raw: bytes) -> bytes:
        """Return what stands for an id."""
        return hide_text(raw) if _ODD.search(raw) else self._alias.of(raw)

    @property
    def content(self) -> Content:
        """The tables."""
        return self._content


class _Walk:
    """One unit."""

    def __init__(self, redactor: Redactor, side: _Side, unit: Unit, told: frozenset[str]) -> None:
        self._redactor = redactor
        self._content = redactor.content
        self._side = side
        self._unit = unit
        self._octets = unit.octets
        self._told = told
        self._open: list[_Open] = []
        self.out = bytearray(unit.octets)

    def go(self) -> None:
        end = 0
        for token in self._unit.tokens:
            end = token.end
            match token.kind:
                case Kind.TEXT | Kind.CDATA:
                    self._text(token)
                case Kind.START | Kind.EMPTY:
                    self._start(token)
                case Kind.END:
                    self._end(token)
                case Kind.COMMENT:
                    if not self._content.bodies:
                        self._put(token.start + 4, token.end - 3, hide_verbatim)
                case Kind.PI:
                    self._instruction(token)
                case Kind.OTHER:
                    self._cut(token.start, token.end)
        if end < len(self._octets):
            self._cut(end, len(self._octets))

    def _put(self, start: int, end: int, fill: Callable[[bytes], bytes]) -> None:
        if start < end:
            self.out[start:end] = fill(self._octets[start:end])

    def _cut(self, start: int, end: int) -> None:
        """Markup that is not complete, or none of XMPP's: its punctuation stays, and the begin that says what it is."""
        octets = self._octets[start:end]
        if octets[:1] != b"<":
            self._hide(Kind.TEXT, start, end)
            return
        if any(begin.startswith(octets) for begin in (*_DECLARATION_BEGINS, *_BEGINS)):
            return
        for begin in (*_DECLARATION_BEGINS, *_BEGINS):
            if octets.startswith(begin):
                self._put(start + len(begin), end, hide_verbatim)
                return
        if octets.startswith(b"<!"):
            skipped = 9 if octets.startswith(b"<!DOCTYPE") else 2
            self._put(start + skipped, end, _keep_markup)
            return
        # Names stay here too: before the login the session looks at a tag as far as its first ">".
        name = _NAME.match(octets)
        at = start + (name.end() if name is not None else 0)
        for attribute in _ATTRIBUTE.finditer(self._octets, at, end):
            if attribute[1] == b"xmlns" or attribute[1].startswith(b"xmlns:"):
                self._put(at, attribute.start(), _keep_markup)
                at = attribute.end()
        self._put(at, end, _keep_markup)

    def _instruction(self, token: Token) -> None:
        target = _INSTRUCTION.match(self._octets, token.start, token.end)
        assert target is not None, "it begins so"
        if self._unit.kind is UnitKind.HEADER and _DECLARATION.match(self._octets, token.start, token.end):
            self._declaration(token.start + 5, token.end - 2)
            return
        if not self._content.bodies:
            self._put(target.end(), token.end - 2, hide_verbatim)

    def _declaration(self, start: int, end: int) -> None:
        at = start
        for declared in _DECLARED.finditer(self._octets, start, end):
            self._put(at, declared.start(), _hide_words)
            if _DECLARED_VALUE.fullmatch(declared["value"]) is None:
                self._put(declared.start("value"), declared.end("value"), hide_verbatim)
            at = declared.end()
        self._put(at, end, _hide_words)

    # Elements -------------------------------------------------------------------------------------------------------

    def _start(self, token: Token) -> None:
        octets = self._octets
        name = _NAME.match(octets, token.start, token.end)
        assert name is not None, "it begins so"
        is_header = self._unit.kind is UnitKind.HEADER
        above = _OUTSIDE if is_header else self._open[-1].scope if self._open else self._side.scope
        depth = len(self._open)
        if depth >= _DEPTH_MAX:
            self._put(name.end(), token.end - 1, _keep_markup)
            if token.kind is Kind.START:
                self._open.append(_Open("?", above, Rule.HIDE, True))
            return
        found = list(_ATTRIBUTE.finditer(octets, name.end(), token.end))
        own: dict[str, str] = {}
        for attribute in found:
            if attribute[1] == b"xmlns" or attribute[1].startswith(b"xmlns:"):
                own[attribute[1].partition(b":")[2].decode(errors="replace")] = decoded(attribute[2][1:-1])
        scope = _Scope(above, own) if own else above
        tag = _clark(name[1], scope)
        parent = self._open[-1] if self._open else None
        rule = self._content.text(tag, depth, None if parent is None else parent.tag)
        sealed = parent is not None and (parent.sealed or parent.rule in (Rule.PAYLOAD, Rule.SEAL))
        opened = _Open(tag, scope, Rule.HIDE if sealed else rule, sealed)
        self._attributes(tag, found, opened, name.end(), token)
        if is_header:
            self._side.scope = scope
            return
        self._open.append(opened)
        if token.kind is Kind.EMPTY:
            self._closed(self._open.pop())

    def _attributes(
        self, tag: str, found: Iterable[re.Match[bytes]], opened: _Open, behind_name: int, token: Token
    ) -> None:
        at = behind_name
        mechanism = ""
        var = kind = b""
        for attribute in found:
            self._put(at, attribute.start(1), _keep_markup)  # what is no attribute there
            name = attribute[1].decode(errors="replace")
            start, end = attribute.start(2) + 1, attribute.end(2) - 1
            raw = self._octets[start:end]
            if name == "mechanism":
                mechanism = decoded(raw)
            elif name == "var":
                var = raw
            elif name == "type":
                kind = raw
            match self._content.attribute(tag, name, raw):
                case Rule.HIDE:
                    self._put(start, end, hide_text)
                case Rule.ALIAS:
                    self._put(start, end, self._redactor.alias)
                case Rule.MECHANISM if not auth.is_mechanism_name(decoded(raw)):
                    self._put(start, end, _bang)
            at = attribute.end()
        self._put(at, token.end - (2 if token.kind is Kind.EMPTY else 1), _keep_markup)
        if tag == FIELD and (field := decoded(var)) != "FORM_TYPE":
            is_private = self._redactor.is_private(field, said_so=decoded(kind) == "text-private")
            opened.field = self._content.field(field, is_private=is_private)
        if not self._open and tag in _STARTS:
            self._redactor.begin_attempt(mechanism)

    def _end(self, token: Token) -> None:
        name = _NAME.match(self._octets, token.start, token.end)
        assert name is not None, "it begins so"
        self._put(name.end(), token.end - 1, _keep_markup)
        if self._open:
            self._closed(self._open.pop())

    def _closed(self, closed: _Open) -> None:
        if closed.rule is Rule.PAYLOAD:
            self._payload(closed)
        elif closed.texts:
            self._error_text(closed.texts)
        if not self._open and closed.tag in _ENDS:
            self._redactor.end_attempt()

    # Text -----------------------------------------------------------------------------------------------------------

    def _text(self, token: Token) -> None:
        start, end = (token.start + 9, token.end - 3) if token.kind is Kind.CDATA else (token.start, token.end)
        opened = self._open[-1] if self._open else None
        rule = Rule.HIDE if opened is None else opened.rule
        if opened is not None and rule is Rule.FIELD:
            field = self._open[-2].field
            rule = self._content.form_type(self._octets[start:end]) if field is None else field
        elif opened is not None and rule is Rule.VALUE:
            rule = Rule.KEEP if self._content.is_value(opened.tag, self._octets[start:end]) else Rule.HIDE
        if opened is not None and (rule is Rule.PAYLOAD or rule is Rule.IF_TOLD):
            if opened.texts is None:
                opened.texts = []
            opened.texts.append(Token(token.kind, start, end))
        elif rule is not Rule.KEEP:
            self._hide(token.kind, start, end)

    def _hide(self, kind: Kind, start: int, end: int) -> None:
        if not self._open:  # between elements it matters where white space ends
            # A stream may begin so, a restarted one too, and says it only with its header; or it is cut off in it.
            begin = self._octets[start : min(end, start + len(codecs.BOM_UTF8))]
            if codecs.BOM_UTF8.startswith(begin):
                start += len(begin)
            self._put(start, end, _hide_words)
            return
        self._put(start, end, hide_verbatim if kind is Kind.CDATA else hide_text)

    def _payload(self, closed: _Open) -> None:
        texts = closed.texts or []
        if sum(token.end - token.start for token in texts) > _COLLECTED_OCTETS_MAX:
            for token in texts:
                self._put(token.start, token.end, _bang)
            return
        letters = [letter for token in texts for letter in self._letters(token)]
        text = "".join(char for char, _, _ in letters)
        for (old, start, end), new in zip(letters, self._redactor.payload(closed.tag, text), strict=True):
            if old != new:
                self.out[start:end] = spelt(new, self._octets[start:end])

    def _letters(self, token: Token) -> list[tuple[str, int, int]]:
        found = characters(self._octets[token.start : token.end], verbatim=token.kind is Kind.CDATA)
        return [(char, token.start + start, token.start + end) for char, start, end in found]

    def _error_text(self, texts: list[Token]) -> None:
        """Keep what the log has told; of a long text that is its begin."""
        told = b""
        if self._told:
            told = "".join(char for token in texts for char, _, _ in self._letters(token)).encode()[:TEXT_OCTETS_MAX]
        shown = bool(told) and told.decode(errors="ignore") in self._told
        kept = 0
        for token in texts:
            until = token.start
            if shown and kept < TEXT_OCTETS_MAX:
                for char, _, end in self._letters(token):
                    if kept >= TEXT_OCTETS_MAX:
                        break
                    kept += len(char.encode())
                    until = end
            self._hide(token.kind, until, token.end)


def _clark(raw: bytes, scope: _Scope) -> str:
    prefix, _, local = raw.decode(errors="replace").rpartition(":")
    namespace = scope.get(prefix)
    return f"{{{namespace}}}{local}" if namespace else local


def _hide_words(octets: bytes) -> bytes:
    return _WORD.sub(lambda word: _hide_word(word[0]), octets)


def _hide_word(octets: bytes) -> bytes:
    """Hide text between elements, but not the end of a comment: the parser may wait for it behind a broken begin."""
    return b"-->".join(map(hide_text, octets.split(b"-->")))


def _bang(octets: bytes) -> bytes:
    """Return what is no base64 and no name of a mechanism."""
    return re.sub(rb"[^>]", b"!", octets)


def _keep_markup(octets: bytes) -> bytes:
    """Return filler for what could be anything, but for the octets that markup is made of and those that are wrong."""
    parts = _BY_MARKUP.split(octets.translate(_NO_NAME))
    return b"".join(part if part in _MARKUP else hide_verbatim(part) for part in parts if part)


class _NoBudget(NameBudget):
    """Names cost nothing here: the session has paid for them."""

    __slots__ = ()

    def add(self, count: int) -> None:
        """Count nothing."""


def is_read_alike(header: bytes, before: bytes, after: bytes, limits: StreamLimits) -> bool:
    """Return whether the reader of a stream opened by ``header``, or of one that begins here, says the same of both."""
    return _verdict(header, before, limits) == _verdict(header, after, limits)


def _verdict(header: bytes, octets: bytes, limits: StreamLimits) -> list[object]:
    names = _NoBudget(limits)
    names.logged_in()
    reader = StreamReader(limits=limits, names=names)
    reader.feed(header)
    return [_without_content(item) for item in (*reader.feed(octets), *reader.finish())]


def _without_content(item: Item) -> object:
    match item:
        case FirstLevelElement():
            return (str(item.element.tag), item.offset, item.octets)
        case StreamHeader():
            return (item.name, item.offset)
    return item
