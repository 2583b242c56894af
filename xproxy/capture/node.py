"""A stanza as a value: Clark names, attributes, content; and that value as XML again, in one line or indented.

Two stanzas that mean the same are equal: a namespace counts, its prefix does not; the order of attributes does not;
``<a/>`` is ``<a></a>``; pieces of text that touch are one; white space between elements, where there is no other text,
is layout. Everything else is content, white space inside text included.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final
from xml.sax.saxutils import escape

import attrs
from lxml import etree

from xproxy.xmpp import ns

XML: Final = "http://www.w3.org/XML/1998/namespace"
_WHITE: Final = " \t\r\n"
_FIRST: Final = ("type", "id", "from", "to")  # of the attributes, in this order; the others by name
_KEEPS_WHITE: Final = frozenset({"http://www.w3.org/1999/xhtml"})  # white space between its elements separates words


class NotXmpp(ValueError):  # noqa: N818 - it names what was found
    """A comment or processing instruction inside a stanza (RFC 6120 section 11.1)."""


@attrs.frozen
class Node:
    """An element. ``content`` holds text and elements in order; no two texts touch, none is empty."""

    tag: str
    attributes: Mapping[str, str] = attrs.field(factory=dict)
    content: "tuple[str | Node, ...]" = ()
    line: int | None = attrs.field(default=None, eq=False)  # where it stands in its file
    strict: bool = True  # in an expectation, x:strict="no": more children and attributes may be there
    skip: bool = False  # in an expectation, x:skip="yes": whatever is inside

    @property
    def namespace(self) -> str:
        """The namespace, "" for none."""
        return ns.qname(self.tag).namespace or ""

    @property
    def local(self) -> str:
        """The local name."""
        return ns.qname(self.tag).localname

    @property
    def children(self) -> "tuple[Node, ...]":
        """The child elements."""
        return tuple(item for item in self.content if isinstance(item, Node))

    @property
    def text(self) -> str:
        """The text directly inside, joined."""
        return "".join(item for item in self.content if isinstance(item, str))

    @property
    def is_mixed(self) -> bool:
        """Whether there is text beside elements: its white space is content then."""
        return any(isinstance(item, str) for item in self.content) and any(
            isinstance(item, Node) for item in self.content
        )

    def get(self, name: str, default: str = "") -> str:
        """Return an attribute's value."""
        return self.attributes.get(name, default)

    def child(self, namespace: str, local: str) -> "Node | None":
        """The first child of that name."""
        return next((child for child in self.children if child.tag == f"{{{namespace}}}{local}"), None)

    def iter(self) -> "Iterator[Node]":
        """Yield this element and all below it, in document order."""
        yield self
        for child in self.children:
            yield from child.iter()


def make(
    tag: str,
    attributes: Mapping[str, str] | None = None,
    content: "tuple[str | Node, ...]" = (),
    *,
    line: int | None = None,
    strict: bool = True,
    skip: bool = False,
) -> Node:
    """Return a node with its content in order: texts joined, layout dropped."""
    joined: list[str | Node] = []
    for item in content:
        if isinstance(item, str) and joined and isinstance(joined[-1], str):
            joined[-1] += item
        elif item != "":
            joined.append(item)
    has_elements = any(isinstance(item, Node) for item in joined) and ns.qname(tag).namespace not in _KEEPS_WHITE
    if has_elements and not any(isinstance(item, str) and item.strip(_WHITE) for item in joined):
        joined = [item for item in joined if isinstance(item, Node)]
    return Node(tag, dict(attributes or {}), tuple(joined), line, strict, skip)


def from_element(element: etree._Element) -> Node:
    """Return the element as a value, without its tail.

    Raises:
        NotXmpp: there is a comment or a processing instruction in it.
    """
    if not isinstance(element.tag, str):
        raise NotXmpp("comments and processing instructions are not allowed inside a stanza")
    content: list[str | Node] = [element.text or ""]
    for child in element:
        content.append(from_element(child))
        content.append(child.tail or "")
    attributes = {str(name): str(value) for name, value in element.attrib.items()}
    return make(str(element.tag), attributes, tuple(content), line=element.sourceline)


class NotWellFormedError(ValueError):
    """Octets are no well-formed XML.

    Attributes:
        line: where, counted from 1; None where libxml2 does not say.
    """

    def __init__(self, message: str, line: int | None) -> None:
        self.line = line
        super().__init__(f"no well-formed XML: {message}")


def read_xml(data: bytes) -> etree._Element:
    """Return the root of the document that ``data`` spells; nothing is fetched, no entity is expanded.

    A namespace name that is no valid URI, which peers do send, is taken as it stands: it breaks no rule of
    well-formedness (XML Namespaces section 7), and expat and the peers read it too.

    Raises:
        NotWellFormedError: at the first error.
    """
    # lxml alone judges by the last thing that libxml2 said: the name above is then an error or none, as the next line
    # has it, and a prefix never declared passes before a warning. So it reads on, and what it noted is judged here.
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False, collect_ids=False, recover=True
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise NotWellFormedError(str(error.msg), error.lineno or None) from None
    except ValueError as error:  # a declared encoding in text, or a NUL
        raise NotWellFormedError(str(error), None) from None
    for entry in parser.error_log:
        if entry.level >= etree.ErrorLevels.ERROR and entry.type != etree.ErrorTypes.WAR_NS_URI:
            raise NotWellFormedError(entry.message, entry.line or None)
    if root is None:  # typed as if it could not be
        raise NotWellFormedError("there is no element", None)
    return root


def parse(text: str | bytes) -> Node:
    """Return the stanza that ``text`` spells; jabber:client where it names no namespace.

    Raises:
        ValueError: it is not one well-formed element.
    """
    octets = text.encode() if isinstance(text, str) else text
    # One line, so that line numbers are those of the text.
    wrapped = f"<w xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}'>".encode() + octets + b"</w>"
    root = read_xml(wrapped)
    if len(root) != 1 or root.text or root[0].tail:
        raise ValueError("not exactly one element")
    return from_element(root[0])


# Writing.


def attribute_order(name: str) -> tuple[int, str]:
    """Sort key of attributes: type, id, from, to, then by name."""
    return (_FIRST.index(name), "") if name in _FIRST else (len(_FIRST), name)


_ATTRIBUTE_ESCAPES: Final = {'"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
_TEXT_ESCAPES: Final = {"\r": "&#13;"}  # a parser would make a line feed of it (XML 1.0 section 2.11)


def quoted(value: str) -> str:
    """Return an attribute's value as it stands in XML, with its quotes."""
    return f'"{escape(value, _ATTRIBUTE_ESCAPES)}"'


def render(node: Node, *, parent_namespace: str = ns.CLIENT) -> str:
    """Return the element in one line, as it can be sent below a parent of that default namespace."""
    opening, inner = _start(node, parent_namespace)
    if not node.content:
        return f"<{opening}/>"
    inside = "".join(
        escape(item, _TEXT_ESCAPES) if isinstance(item, str) else render(item, parent_namespace=inner)
        for item in node.content
    )
    return f"<{opening}>{inside}</{node.local}>"


def render_pretty(node: Node, *, parent_namespace: str = ns.CLIENT, indent: int = 0) -> Iterator[str]:
    """Yield the lines of the element, indented by two spaces a level; never inside mixed content."""
    margin = "  " * indent
    opening, inner = _start(node, parent_namespace)
    if not node.content:
        yield f"{margin}<{opening}/>"
    elif node.namespace in _KEEPS_WHITE or any(isinstance(item, str) for item in node.content):
        yield from (margin + render(node, parent_namespace=parent_namespace)).split("\n")
    else:
        yield f"{margin}<{opening}>"
        for child in node.children:
            yield from render_pretty(child, parent_namespace=inner, indent=indent + 1)
        yield f"{margin}</{node.local}>"


def _start(node: Node, parent_namespace: str) -> tuple[str, str]:
    """Return what stands between the angle brackets of the start tag, and the namespace inside."""
    parts = [node.local]
    if node.namespace != parent_namespace:
        parts.append(f"xmlns={quoted(node.namespace)}")
    prefixes: dict[str, str] = {}
    named: list[tuple[str, str]] = []
    for name, value in node.attributes.items():
        if not name.startswith("{"):
            named.append((name, value))
            continue
        namespace, local = ns.qname(name)
        if namespace == XML:
            named.append((f"xml:{local}", value))
        else:
            prefix = prefixes.setdefault(namespace or "", f"ns{len(prefixes) + 1}")
            named.append((f"{prefix}:{local}", value))
    parts += [f"xmlns:{prefix}={quoted(namespace)}" for namespace, prefix in prefixes.items()]
    parts += [f"{name}={quoted(value)}" for name, value in sorted(named, key=lambda pair: attribute_order(pair[0]))]
    if not node.strict:
        parts.append('x:strict="no"')
    if node.skip:
        parts.append('x:skip="yes"')
    return " ".join(parts), node.namespace


def one_line(node: Node, chars_max: int = 100) -> str:
    """Return the start of the element for a message: enough to know which it is."""
    text = re.sub(r"\s+", " ", render(node))
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"
