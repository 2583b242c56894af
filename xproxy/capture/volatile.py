"""What of a recorded stanza may be another value next time, and the placeholder that stands for it.

The rules are data, and were measured: the same client scripts were run twice against the same server, aligned, and the
places that differ listed. What no rule names is compared to the letter.

* ids (bound, never two alike): the id of each stanza and what refers to one, node and item ids that a server makes,
  addresses of upload slots;
* addresses: the full JID of a session of the cassette, wherever it stands; rooms with a random name;
* times; numbers that count; state that a server keeps beyond the session (roster version, avatar hash);
* secrets (capture/hide.py): the password of an account where it is one, else anything;
* with a capture that was made without bodies: everything that the capture left out.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import attrs

from xproxy.capture.hide import is_body, is_secret_attribute, is_secret_field, is_secret_text
from xproxy.capture.node import Node
from xproxy.capture.placeholder import escape, with_sample
from xproxy.xmpp import ns

_PUBSUB: Final = "http://jabber.org/protocol/pubsub"
_CONTENT: Final = frozenset({ns.CLIENT, ns.SERVER, ns.COMPONENT})

# (namespace, element, attribute) -> kind of placeholder.
_ATTRIBUTES: Final[Mapping[tuple[str, str, str], str]] = {
    **{(content, kind, "id"): "id" for content in _CONTENT for kind in ns.STANZA_KINDS},
    ("urn:xmpp:sid:0", "stanza-id", "id"): "id",
    ("urn:xmpp:sid:0", "origin-id", "id"): "id",
    ("urn:xmpp:occupant-id:0", "occupant-id", "id"): "id",
    ("urn:xmpp:mam:2", "result", "id"): "id",
    ("urn:xmpp:mam:2", "result", "queryid"): "id",
    ("urn:xmpp:mam:2", "query", "queryid"): "id",
    ("urn:xmpp:mam:2", "fin", "queryid"): "id",
    ("urn:xmpp:mam:2", "start", "id"): "id",
    ("urn:xmpp:mam:2", "end", "id"): "id",
    ("urn:xmpp:mam:2", "start", "timestamp"): "time",
    ("urn:xmpp:mam:2", "end", "timestamp"): "time",
    ("http://jabber.org/protocol/rsm", "first", "index"): "int",
    ("urn:xmpp:delay", "delay", "stamp"): "time",
    ("jabber:x:delay", "x", "stamp"): "time",
    ("urn:xmpp:idle:1", "idle", "since"): "time",
    ("jabber:iq:last", "query", "seconds"): "int",
    (ns.ROSTER, "query", "ver"): "any",
    (_PUBSUB, "item", "id"): "id",
    (f"{_PUBSUB}#event", "item", "id"): "id",
    (f"{_PUBSUB}#event", "retract", "id"): "id",
    (_PUBSUB, "subscription", "subid"): "id",
    ("http://jabber.org/protocol/commands", "command", "sessionid"): "id",
    ("http://jabber.org/protocol/ibb", "open", "sid"): "id",
    ("http://jabber.org/protocol/ibb", "data", "sid"): "id",
    ("http://jabber.org/protocol/ibb", "close", "sid"): "id",
    ("urn:xmpp:jingle:1", "jingle", "sid"): "id",
    ("urn:xmpp:jingle-message:0", "propose", "id"): "id",
    ("urn:xmpp:jingle-message:0", "proceed", "id"): "id",
    ("urn:xmpp:jingle-message:0", "accept", "id"): "id",
    ("urn:xmpp:receipts", "received", "id"): "id",
    ("urn:xmpp:chat-markers:0", "received", "id"): "id",
    ("urn:xmpp:chat-markers:0", "displayed", "id"): "id",
    ("urn:xmpp:chat-markers:0", "acknowledged", "id"): "id",
    ("urn:xmpp:message-correct:0", "replace", "id"): "id",
    ("urn:xmpp:message-retract:1", "retract", "id"): "id",
    ("urn:xmpp:reactions:0", "reactions", "id"): "id",
    ("urn:xmpp:reply:0", "reply", "id"): "id",
    (ns.UPLOAD, "put", "url"): "url",
    (ns.UPLOAD, "get", "url"): "url",
    ("urn:xmpp:extdisco:2", "service", "expires"): "time",
    ("eu.siacs.conversations.axolotl", "key", "rid"): "any",
    ("eu.siacs.conversations.axolotl", "header", "sid"): "any",
}
# (namespace, element) -> kind of placeholder for its text.
_TEXTS: Final[Mapping[tuple[str, str], str]] = {
    **{(content, "thread"): "id" for content in _CONTENT},
    ("http://jabber.org/protocol/rsm", "first"): "id",
    ("http://jabber.org/protocol/rsm", "last"): "id",
    ("http://jabber.org/protocol/rsm", "before"): "id",
    ("http://jabber.org/protocol/rsm", "after"): "id",
    ("http://jabber.org/protocol/rsm", "count"): "int",
    ("urn:xmpp:time", "utc"): "time",
    ("vcard-temp:x:update", "photo"): "any",
    ("eu.siacs.conversations.axolotl", "payload"): "any",
    ("eu.siacs.conversations.axolotl", "key"): "any",
    ("eu.siacs.conversations.axolotl", "iv"): "any",
    ("urn:xmpp:omemo:2", "payload"): "any",
    ("urn:xmpp:omemo:2", "key"): "any",
    ("urn:xmpp:sce:1", "rpad"): "any",
    ("urn:xmpp:openpgp:0", "openpgp"): "any",
    ("jabber:x:encrypted", "x"): "any",
    (ns.UPLOAD, "header"): "any",
}
_FILLER: Final = re.compile(r"x+")  # what a capture puts in the place of what it leaves out
_LONG_FILLER: Final = re.compile(r"x{4,}")  # ... with bodies: of secrets alone, and these are not as short
_FORM_VALUE: Final = f"{{{ns.DATA_FORM}}}value"
# A localpart that nobody typed: a UUID, or at least 16 hex digits.
_RANDOM_LOCALPART: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{16,64}", re.IGNORECASE
)
_TOKEN_CHARS_MIN: Final = 8  # shorter ones are found by chance inside other text


@attrs.define
class Templates:
    """Turns stanzas into expectations, one after the other, in the order of the script."""

    hidden: bool  # the capture was made without bodies
    jids: Callable[[str], list[tuple[str, str]]]
    """Says for a session: (full JID, session) of all that are known there, its own first."""
    _ids: dict[tuple[str, str], int] = attrs.field(factory=dict)
    _tokens: dict[str, str] = attrs.field(factory=dict)  # random localparts -> their placeholder
    left_out: int = 0  # left out by the capture, so that anything matches

    def apply(self, node: Node, session: str, *, password_of: str | None = None) -> Node:
        """Return the expectation. ``password_of``: the account whose registration this is (XEP-0077)."""
        self._learn_tokens(node)
        return self._node(node, session, password_of, secret=False)

    def _node(self, node: Node, session: str, password_of: str | None, *, secret: bool) -> Node:
        inside = secret or is_secret_field(node)
        attributes = {name: self._attribute(node, name, value, session) for name, value in node.attributes.items()}
        content = tuple(
            self._text(node, item, session, password_of, secret=inside)
            if isinstance(item, str)
            else self._node(item, session, password_of, secret=inside)
            for item in node.content
        )
        return Node(node.tag, attributes, content)

    def _attribute(self, node: Node, name: str, value: str, session: str) -> str:
        if is_secret_attribute(node.tag, name):
            kind = _ATTRIBUTES.get((node.namespace, node.local, name), "any")
            return self._id(kind, value) if kind == "url" else "${any}"
        kind = _ATTRIBUTES.get((node.namespace, node.local, name), "")
        if kind:
            return self._of_kind(kind, value)
        if name not in ("id", "from", "to", "type", "jid") and self._is_left_out(value):
            self.left_out += 1
            return "${any}"
        return self._literal(value, session)

    def _is_left_out(self, value: str, node: Node | None = None) -> bool:
        """Whether the capture left a value out, and has filler in its place."""
        if self.hidden or (node is not None and node.tag == _FORM_VALUE):
            return _FILLER.fullmatch(value.strip()) is not None
        return (node is None or not is_body(node)) and _LONG_FILLER.fullmatch(value) is not None

    def _text(self, node: Node, value: str, session: str, password_of: str | None, *, secret: bool) -> str:
        if secret or is_secret_text(node):
            is_password = node.namespace == ns.REGISTER and node.local == "password"
            return f"${{secret:{password_of}}}" if is_password and password_of is not None else "${any}"
        kind = _TEXTS.get((node.namespace, node.local), "")
        if self._is_left_out(value, node):
            self.left_out += 1
            return "${any}"
        return self._of_kind(kind, value) if kind else self._literal(value, session)

    def _of_kind(self, kind: str, value: str) -> str:
        if kind in ("id", "url") or not value:
            return self._id(kind, value)
        return "${time}" if kind == "time" else with_sample(kind, value)  # a time is sent as that of the replay

    def _id(self, kind: str, value: str) -> str:
        if not value:
            return value
        number = self._ids.setdefault((kind, value), 1 + sum(each == kind for each, _ in self._ids))
        return f"${{{kind}:{number}}}"

    def _literal(self, value: str, session: str) -> str:
        """Escape, and put placeholders for the addresses in it."""
        found: list[tuple[str, str]] = [(jid, f"${{jid:{name}}}") for jid, name in self.jids(session)]
        found += self._tokens.items()
        parts: list[tuple[bool, str]] = [(False, value)]
        for text, placeholder in found:
            parts = [
                piece for done, part in parts for piece in ([(True, part)] if done else _split(part, text, placeholder))
            ]
        return "".join(part if done else escape(part) for done, part in parts)

    def _learn_tokens(self, node: Node) -> None:
        for each in node.iter():
            for name in ("to", "from", "jid"):
                local = each.get(name).partition("@")[0] if "@" in each.get(name) else ""
                if len(local) >= _TOKEN_CHARS_MIN and _RANDOM_LOCALPART.fullmatch(local) and local not in self._tokens:
                    self._tokens[local] = self._id("id", local)


def _split(part: str, text: str, placeholder: str) -> Iterator[tuple[bool, str]]:
    pieces = part.split(text)
    for index, piece in enumerate(pieces):
        if index:
            yield True, placeholder
        if piece:
            yield False, piece
