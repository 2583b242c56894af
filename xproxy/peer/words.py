"""What XMPP peers say, as bytes. Text is escaped here and nowhere else."""

from typing import Final
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from xproxy.xmpp import ns

HEADER_CLOSE: Final = b"</stream:stream>"
ERROR_TYPES: Final = {  # RFC 6120 section 8.3.3; where the type is a SHOULD, that one
    "bad-request": "modify",
    "conflict": "cancel",
    "feature-not-implemented": "cancel",
    "item-not-found": "cancel",
    "jid-malformed": "modify",
    "not-allowed": "cancel",
    "not-acceptable": "modify",
    "recipient-unavailable": "wait",
    "remote-server-not-found": "cancel",
    "resource-constraint": "wait",
    "service-unavailable": "cancel",
    "unexpected-request": "modify",
}


def attributes(**values: str | None) -> str:
    """Render attributes, those that are None left out; a trailing underscore of a name is dropped."""
    return "".join(f" {name.rstrip('_')}={quoteattr(value)}" for name, value in values.items() if value is not None)


def escaped(text: str) -> str:
    """Return ``text`` as it can stand between tags."""
    return escape(text)


def stream_header(*, to: str | None = None, from_: str | None = None, id_: str | None = None) -> bytes:
    """The opening tag, with declaration (RFC 6120 section 4.2)."""
    named = attributes(from_=from_, to=to, id_=id_)
    return (
        f"<?xml version='1.0'?><stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}'{named} version='1.0'>"
    ).encode()


def stream_error(condition: str, *, inside: str = "", text: str | None = None) -> bytes:
    """``<stream:error/>``; ``inside`` is XML after the condition (RFC 6120 section 4.9.2)."""
    about = f"<text xmlns='{ns.STREAM_ERRORS}'>{escape(text)}</text>" if text else ""
    return f"<stream:error><{condition} xmlns='{ns.STREAM_ERRORS}'/>{about}{inside}</stream:error>".encode()


def iq(type_: str, *, id_: str, to: str | None = None, from_: str | None = None, inside: str = "") -> bytes:
    """An iq; ``inside`` is XML."""
    named = attributes(type_=type_, id_=id_, from_=from_, to=to)
    return (f"<iq{named}>{inside}</iq>" if inside else f"<iq{named}/>").encode()


def message(*, to: str, body: str, id_: str | None = None, type_: str = "chat") -> bytes:
    """A message with a body."""
    return f"<message{attributes(to=to, type_=type_, id_=id_)}><body>{escape(body)}</body></message>".encode()


def error_reply(stanza: etree._Element, condition: str, *, text: str | None = None) -> bytes:
    """The stanza error that answers ``stanza``: addresses turned round, same id (RFC 6120 section 8.3.1)."""
    kind = ns.qname(stanza.tag).localname
    named = attributes(type_="error", id_=stanza.get("id"), from_=stanza.get("to"), to=stanza.get("from"))
    about = f"<text xmlns='{ns.STANZA_ERRORS}'>{escape(text)}</text>" if text else ""
    return (
        f"<{kind}{named}><error type='{ERROR_TYPES[condition]}'>"
        f"<{condition} xmlns='{ns.STANZA_ERRORS}'/>{about}</error></{kind}>"
    ).encode()


def render(stanza: etree._Element) -> bytes:
    """Return a stanza as it can stand in any stream with jabber:client as default namespace."""
    return etree.tostring(stanza, encoding="unicode", with_tail=False).encode()


def text_of(element: etree._Element | None) -> str:
    """All text inside, also behind comments."""
    return "" if element is None else "".join(element.itertext())


def child(element: etree._Element, namespace: str, local: str) -> etree._Element | None:
    """The first child of that name."""
    return element.find(f"{{{namespace}}}{local}")


def condition_of(error: etree._Element, namespace: str) -> str:
    """The defined condition inside an error element, "undefined-condition" if there is none."""
    for inner in error:
        if isinstance(inner.tag, str):
            name = ns.qname(inner.tag)
            if name.namespace == namespace and name.localname != "text":
                return name.localname
    return "undefined-condition"
