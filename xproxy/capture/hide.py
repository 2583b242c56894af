"""What no file and no screen may show of a stanza: passwords, tokens, addresses that carry a token, and, where the
cassette keeps none, what people write.

``hide`` keeps the shape: same elements, same attributes, same pieces of text, only the values go. So what is hidden can
be shown beside what is compared. What is a secret by its name (``xproxy.capture.content``) goes too: what a live peer
says was not redacted by anybody before.
"""

from collections.abc import Mapping
from typing import Final

from xproxy.capture.content import is_secret_attribute_by_name, is_secret_by_name, is_secret_field_by_name
from xproxy.capture.node import Node
from xproxy.xmpp import ns

HIDDEN: Final = "[hidden]"

_NAMESPACES: Final = frozenset({ns.SASL, ns.SASL2})  # all text below is SASL's
_TEXTS: Final = frozenset(
    {
        f"{{{ns.IQ_AUTH}}}password",
        f"{{{ns.IQ_AUTH}}}digest",
        f"{{{ns.REGISTER}}}password",
        f"{{{ns.REGISTER}}}key",
        f"{{{ns.COMPONENT}}}handshake",
        f"{{{ns.MUC}}}password",
        f"{{{ns.MUC_USER}}}password",
        "{http://jabber.org/protocol/muc#owner}password",
        "{storage:bookmarks}password",
        "{urn:xmpp:bookmarks:1}password",
        f"{{{ns.UPLOAD}}}header",  # Prosody puts a signed token into it
    }
)
_ATTRIBUTES: Final = frozenset(
    {
        (f"{{{sm}}}{element}", attribute)
        for sm in ns.SM
        for element, attribute in (
            ("enabled", "id"),
            ("enabled", "location"),
            ("resume", "previd"),
            ("resumed", "previd"),
        )
    }
    | {
        (f"{{{ns.FAST}}}token", "token"),
        (f"{{{ns.SASL2}}}user-agent", "id"),
        (f"{{{ns.UPLOAD}}}put", "url"),
        ("{urn:xmpp:extdisco:2}service", "password"),
        ("{urn:xmpp:extdisco:2}service", "username"),
        ("{urn:xmpp:extdisco:1}service", "password"),
        ("{urn:xmpp:extdisco:1}service", "username"),
        ("{jabber:x:conference}x", "password"),
    }
)
_FORM_FIELD: Final = f"{{{ns.DATA_FORM}}}field"
_SECRET_FIELDS: Final = frozenset({"password", "muc#roomconfig_roomsecret", "ocr", "secret"})
_BODIES: Final = frozenset(
    {
        f"{{{ns.CLIENT}}}body",
        f"{{{ns.CLIENT}}}subject",
        "{http://www.w3.org/1999/xhtml}body",
        "{jabber:x:encrypted}x",
        "{urn:xmpp:openpgp:0}openpgp",
    }
)


def is_secret_attribute(tag: str, name: str) -> bool:
    """Whether the attribute ``name`` of elements ``tag`` holds a secret."""
    return (tag, name) in _ATTRIBUTES


def is_secret_text(node: Node) -> bool:
    """Whether the text of ``node`` is a secret."""
    return node.namespace in _NAMESPACES or node.tag in _TEXTS


def is_secret_field(node: Node) -> bool:
    """Whether ``node`` is a field of a data form that holds a secret (XEP-0004 section 3.3)."""
    return node.tag == _FORM_FIELD and (node.get("type") == "text-private" or node.get("var") in _SECRET_FIELDS)


def is_body(node: Node) -> bool:
    """Whether ``node`` holds what people write to each other."""
    return node.tag in _BODIES


def hide(node: Node, *, bodies: bool) -> Node:
    """Return ``node`` with secrets hidden, and with ``bodies`` what people write as well."""
    return _hide(node, bodies, hidden=False, depth=0)


def _hide(node: Node, bodies: bool, *, hidden: bool, depth: int) -> Node:
    inside = hidden or _is_sealed(node, depth) or (bodies and is_body(node))
    own = inside or is_secret_text(node)
    attributes: Mapping[str, str] = {
        name: HIDDEN if inside or _is_secret_attribute(node.tag, name) else value
        for name, value in node.attributes.items()
    }
    content = tuple(
        (HIDDEN if own else item) if isinstance(item, str) else _hide(item, bodies, hidden=inside, depth=depth + 1)
        for item in node.content
    )
    return Node(node.tag, attributes, content, node.line, node.strict, node.skip)


def _is_secret_attribute(tag: str, name: str) -> bool:
    return is_secret_attribute(tag, name) or is_secret_attribute_by_name(tag, name)


def _is_sealed(node: Node, depth: int) -> bool:
    """Return whether all inside of ``node`` is secret."""
    if node.tag == _FORM_FIELD:
        return is_secret_field(node) or is_secret_field_by_name(node.get("var"))
    return is_secret_by_name(node.tag, depth)
