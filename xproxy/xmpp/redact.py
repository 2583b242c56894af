"""A stanza without its content: the skeleton, and names that are safe to print.

    <iq type=error id={12} from={20}><query xmlns=jabber:iq:register><password>{9}</password></query>...

What is printed comes from a table, everything else is a length in UTF-8 octets in braces:

* Text: never, only its length. No hashes either: short text could be guessed.
* Attribute values: only where the table below names the element *and* the attribute *and* the value is of the kind
  the table names. An attribute that is standard anywhere in XMPP shows its name and the length of its value; the
  names of all others are not printed, they are counted: ``+2{31}`` is two attributes with 31 octets of values.
* Element names: yes, in any namespace. They are what tells an operator which extension failed, and a program's author
  chose them, not its user. Since a peer may still put anything into a name, what is not in ``KNOWN_NAMESPACES`` is cut
  short (namespace 64 characters, name 32), and in all of them whatever does not print, turns the line around or could
  be taken for the skeleton's own punctuation becomes ``\\xNN``.
* Comments and processing instructions: ``<!{n}>``.

A namespace is printed where it differs from the parent's: whole the first time, then as ``xmlns=#n``, the n-th one that
this skeleton printed. The content namespace of clients is not printed. Depth, children per element and the whole
length are bounded, a cut shows as an ellipsis. The renderer knows no wrapper (carbons, archive, forwarding, an error's
echo of the request): whatever stands inside is treated by the same table.
"""

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Final

from lxml import etree

from xproxy.jid import Jid, JidError
from xproxy.xmpp import ns

SKELETON_CHARS_MAX: Final = 2_048  # a presence with MUC, caps and vCard hash takes about 500
DEPTH_MAX: Final = 10  # an error that echoes a forwarded message with a data form has eight
CHILDREN_MAX: Final = 16
NAME_CHARS_MAX: Final = 64  # the longest name in the XEPs has under 40
UNKNOWN_NAMESPACE_CHARS_MAX: Final = 64
UNKNOWN_NAME_CHARS_MAX: Final = 32
NAMESPACE_CHARS_MAX: Final = 128

ELLIPSIS: Final = "…"


def safe_name(tag: object) -> str:
    """Return an element's name as ``{namespace}name``, cut and cleaned; "?" for a comment or the like."""
    if not isinstance(tag, str):
        return "?"
    namespace, local = _safe_parts(tag)
    return f"{{{namespace}}}{local}" if namespace else local


def child_names(element: etree._Element, names_max: int) -> tuple[str, ...]:
    """Return the safe names of the first ``names_max`` child elements."""
    names: list[str] = []
    for child in element:
        if len(names) == names_max:
            break
        if isinstance(child.tag, str):
            names.append(safe_name(child.tag))
    return tuple(names)


def skeleton(element: etree._Element) -> str:
    """Return ``element`` as names, allow-listed attribute values and lengths; at most SKELETON_CHARS_MAX characters."""
    writer = _Writer()
    with contextlib.suppress(_Full):
        writer.element(element, ns.CLIENT, 1)
    return writer.text()


def domain_of(address: str) -> str | None:
    """Return the domainpart of an address, None where it is none."""
    try:
        return Jid.from_text(address).domain
    except JidError:
        return None


def is_legacy_code(text: str) -> bool:
    """Return whether ``text`` is an error code of XEP-0086 or a status code of XEP-0045: three digits."""
    return _CODE.fullmatch(text) is not None


_Rule = Callable[[str], str | None]
"""Returns what to print for a value, or None to print its length."""

_CODE: Final = re.compile(r"[0-9]{3}")
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_MECHANISM: Final = re.compile(r"[A-Z0-9_\-]{1,20}")  # sasl-mech, RFC 4422 section 3.1
_UNSAFE: Final = re.compile(r"[^!#-;=?-z|~\u00a1-\U0010ffff]")  # also without < > { } " and space


def _one_of(*values: str) -> _Rule:
    allowed = frozenset(values)
    return lambda value: value if value in allowed else None


def _matches(pattern: re.Pattern[str]) -> _Rule:
    return lambda value: value if pattern.fullmatch(value) else None


def _domain(value: str) -> str | None:
    domain = domain_of(value)
    return None if domain is None else _clean(domain, NAMESPACE_CHARS_MAX)


_code: Final = _matches(_CODE)
_number: Final = _matches(_NUMBER)
_feature: Final = _one_of(*ns.KNOWN_NAMESPACES)
_flag: Final = _one_of("true", "false", "1", "0")

_DISCO_INFO: Final = "http://jabber.org/protocol/disco#info"
_MUC_USER: Final = "http://jabber.org/protocol/muc#user"
_MUC_ITEM: Final[Mapping[str, _Rule]] = {
    "affiliation": _one_of("owner", "admin", "member", "none", "outcast"),
    "role": _one_of("moderator", "participant", "visitor", "none"),
}

# Element -> attribute -> how its value may be printed. Every rule names a closed set or a short form that the
# specification prescribes, so that a value out of place stays a length.
_VALUES: Final[Mapping[str, Mapping[str, _Rule]]] = {
    **{
        f"{{{namespace}}}{name}": rules
        for namespace in ns.CONTENT
        for name, rules in {
            "iq": {"type": _one_of("get", "set", "result", "error")},
            "message": {"type": _one_of("normal", "chat", "groupchat", "headline", "error")},
            "presence": {
                "type": _one_of(
                    "unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "error"
                )
            },
            "error": {"type": _one_of(*ns.STANZA_ERROR_TYPES), "code": _code, "by": _domain},
        }.items()
    },
    f"{{{ns.SASL}}}auth": {"mechanism": _matches(_MECHANISM)},
    f"{{{ns.SASL2}}}authenticate": {"mechanism": _matches(_MECHANISM)},
    **{
        f"{{{namespace}}}{name}": rules
        for namespace in ns.SM
        for name, rules in {
            "enable": {"resume": _flag, "max": _number},
            "enabled": {"resume": _flag, "max": _number},
            "resume": {"h": _number},
            "resumed": {"h": _number},
            "failed": {"h": _number},
            "a": {"h": _number},
            "handled-count-too-high": {"h": _number, "send-count": _number},
        }.items()
    },
    f"{{{ns.DIALBACK}}}result": {"type": _one_of("valid", "invalid", "error")},
    f"{{{ns.DIALBACK}}}verify": {"type": _one_of("valid", "invalid", "error")},
    f"{{{_DISCO_INFO}}}identity": {
        "category": _one_of(
            "account", "auth", "authz", "automation", "client", "collaboration", "component", "conference",
            "directory", "gateway", "headline", "hierarchy", "proxy", "pubsub", "server", "store",
        ),  # the registry of XEP-0030
        "type": _one_of("registered", "pc", "phone", "web", "bot", "im", "text", "pep", "service", "leaf"),
    },
    f"{{{_DISCO_INFO}}}feature": {"var": _feature},
    "{jabber:x:data}x": {"type": _one_of("form", "submit", "cancel", "result")},
    "{jabber:x:data}field": {
        "type": _one_of(
            "boolean", "fixed", "hidden", "jid-multi", "jid-single", "list-multi", "list-single", "text-multi",
            "text-private", "text-single",
        ),
        "var": _one_of("FORM_TYPE"),
    },
    "{jabber:iq:roster}item": {
        "subscription": _one_of("none", "to", "from", "both", "remove"),
        "ask": _one_of("subscribe"),
        "approved": _flag,
    },
    f"{{{_MUC_USER}}}item": _MUC_ITEM,
    "{http://jabber.org/protocol/muc#admin}item": _MUC_ITEM,
    f"{{{_MUC_USER}}}status": {"code": _code},
    "{http://jabber.org/protocol/pubsub#errors}unsupported": {
        "feature": _one_of(
            "access-authorize", "access-open", "access-presence", "access-roster", "access-whitelist", "auto-create",
            "auto-subscribe", "collections", "config-node", "config-node-max", "create-and-configure", "create-nodes",
            "delete-items", "delete-nodes", "filtered-notifications", "get-pending", "instant-nodes", "item-ids",
            "last-published", "leased-subscription", "manage-subscriptions", "member-affiliation", "meta-data",
            "modify-affiliations", "multi-collection", "multi-items", "multi-subscribe", "outcast-affiliation",
            "persistent-items", "presence-notifications", "presence-subscribe", "publish", "publish-only-affiliation",
            "publish-options", "publisher-affiliation", "purge-nodes", "retract-items", "retrieve-affiliations",
            "retrieve-default", "retrieve-default-sub", "retrieve-items", "retrieve-subscriptions", "subscribe",
            "subscription-notifications", "subscription-options",
        )  # XEP-0060 section 10
    },
    "{http://jabber.org/protocol/commands}command": {
        "action": _one_of("cancel", "complete", "execute", "next", "prev"),
        "status": _one_of("canceled", "completed", "executing"),
    },
    "{urn:xmpp:jingle:1}jingle": {
        "action": _one_of(
            "content-accept", "content-add", "content-modify", "content-reject", "content-remove", "description-info",
            "security-info", "session-accept", "session-info", "session-initiate", "session-terminate",
            "transport-accept", "transport-info", "transport-reject", "transport-replace",
        )
    },
}  # fmt: skip

_XML: Final = "{http://www.w3.org/XML/1998/namespace}"
# Attributes whose name may be printed anywhere; where no rule of the table above holds, with the value's length.
_NAMES: Final = frozenset(
    {
        "action", "affiliation", "algo", "approved", "ask", "block-size", "by", "category", "code", "feature", "from",
        "h", "hash", "id", "jid", "lang", "location", "max", "mechanism", "mode", "name", "namespace", "nick", "node",
        "password", "previd", "resume", "role", "send-count", "sid", "stamp", "status", "subscription", "to", "type",
        "url", "var", "ver", "version",
    }
)  # fmt: skip


class _Full(Exception):  # noqa: N818
    """The skeleton has reached its length. No error: it ends the walk."""


class _Writer:
    """Writes one skeleton."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._room = SKELETON_CHARS_MAX - len(ELLIPSIS)
        self._namespaces: dict[str, int] = {}

    def text(self) -> str:
        return "".join(self._parts)

    def element(self, element: etree._Element, parent_namespace: str, depth: int) -> None:
        tag = element.tag
        if not isinstance(tag, str):
            self._put(f"<!{_length(element.text)}>")
            return
        namespace, local = _safe_parts(tag)
        self._put(f"<{local}")
        if namespace != parent_namespace:
            self._put(f" xmlns={self._namespace(namespace)}")
        self._attributes(element, _VALUES.get(tag, {}))
        text = element.text
        if text is None and len(element) == 0:
            self._put("/>")
            return
        self._put(">")
        if text:
            self._put(_length(text))
        if depth == DEPTH_MAX and len(element):
            self._put(ELLIPSIS)
        else:
            self._children(element, namespace, depth)
        self._put(f"</{local}>")

    def _children(self, element: etree._Element, namespace: str, depth: int) -> None:
        for count, child in enumerate(element):
            if count == CHILDREN_MAX:
                self._put(ELLIPSIS)
                break
            self.element(child, namespace, depth + 1)
            if child.tail:
                self._put(_length(child.tail))

    def _attributes(self, element: etree._Element, rules: Mapping[str, _Rule]) -> None:
        others = 0
        others_octets = 0
        for name, value in element.items():
            name = str(name).removeprefix(_XML)
            if name not in _NAMES:
                others += 1
                others_octets += len(value.encode())
                continue
            rule = rules.get(name)
            printed = rule(value) if rule is not None else None
            self._put(f" {name}={_length(value) if printed is None else printed}")
        if others:
            self._put(f" +{others}{{{others_octets}}}")

    def _namespace(self, namespace: str) -> str:
        if not namespace:
            return '""'
        number = self._namespaces.get(namespace)
        if number is not None:
            return f"#{number}"
        self._namespaces[namespace] = len(self._namespaces) + 1
        return namespace

    def _put(self, text: str) -> None:
        if len(text) > self._room:
            self._parts.append(ELLIPSIS)
            raise _Full
        self._parts.append(text)
        self._room -= len(text)


def _length(text: str | None) -> str:
    return f"{{{len((text or '').encode())}}}"


def _safe_parts(tag: str) -> tuple[str, str]:
    """Return namespace and name of an element, cut and cleaned; the namespace "" where there is none."""
    namespace, _, local = tag.rpartition("}")
    namespace = namespace[1:]
    if namespace in ns.KNOWN_NAMESPACES:
        return namespace, _clean(local, NAME_CHARS_MAX)
    return _clean(namespace, UNKNOWN_NAMESPACE_CHARS_MAX), _clean(local, UNKNOWN_NAME_CHARS_MAX)


def _clean(text: str, chars_max: int) -> str:
    if len(text) > chars_max:
        text = text[: chars_max - 1] + ELLIPSIS
    if text.isascii() and not _UNSAFE.search(text):
        return text
    return "".join(f"\\x{ord(char):02x}" if _UNSAFE.match(char) or not char.isprintable() else char for char in text)
