"""Resource binding (RFC 6120 section 7): what was asked for, what the server gave or why it did not."""

from typing import Final

import attrs
from lxml import etree

from xproxy.events import Event, Side
from xproxy.events.session import BindFailed, ResourceBound
from xproxy.events.stanza import RequestFacts
from xproxy.jid import Jid, JidError
from xproxy.xmpp import ns
from xproxy.xmpp.stanza import element_text, read_error

_BIND: Final = f"{{{ns.BIND}}}bind"
_JID: Final = f"{{{ns.BIND}}}jid"
_RESOURCE: Final = f"{{{ns.BIND}}}resource"


@attrs.define
class _Request:
    resource: str | None
    at_ns: int


class Binding:
    """The dialogue of one stream. A refused client may ask again (section 7.7.2.2)."""

    def __init__(self, *, server_text: bool) -> None:
        """``server_text``: whether the server's own error texts may be logged."""
        self._server_text = server_text
        self._request: _Request | None = None

    def requested(self, element: etree._Element, at_ns: int) -> None:
        """The client sent an ``iq``; of type set it may be a request to bind."""
        bind = element.find(_BIND) if element.get("type") == "set" else None
        if bind is not None:
            resource = bind.find(_RESOURCE)
            self._request = _Request(None if resource is None else element_text(resource) or None, at_ns)

    def answered(self, element: etree._Element, request: RequestFacts | None, at_ns: int) -> Event | None:
        """The server sent an ``iq`` of type result or error; return what it says of the request to bind, if it does.

        COMPAT(XMPPFramework): its second request comes without an id; a result says itself what it is.
        """
        bind = element.find(_BIND)
        asked = self._request
        if asked is None or (bind is None and (request is None or request.payload != _BIND)):
            return None
        if element.get("type") == "error":
            self._request = None
            facts = read_error(element, server_text=self._server_text, sent_by=Side.SERVER)
            return BindFailed(
                condition=facts.condition,
                condition_known=facts.condition_known,
                resource_requested=asked.resource,
                text=facts.text,
                text_bytes=facts.text_bytes,
            )
        jid = _jid(bind.find(_JID) if bind is not None else None)
        if jid is None:
            return None
        self._request = None
        return ResourceBound(jid=jid, resource_requested=asked.resource, duration_ns=at_ns - asked.at_ns)


def _jid(element: etree._Element | None) -> Jid | None:
    try:
        return None if element is None else Jid.from_text(element_text(element))
    except JidError:
        return None
