"""What the server answers itself: requests to the domain and to a user's own account."""

from collections.abc import Iterable
from typing import Final

from lxml import etree

from xproxy.peer import words
from xproxy.xmpp import ns

ROSTER: Final = "jabber:iq:roster"  # RFC 6121 section 2
PING: Final = "urn:xmpp:ping"  # XEP-0199
DISCO_INFO: Final = "http://jabber.org/protocol/disco#info"  # XEP-0030
DISCO_ITEMS: Final = "http://jabber.org/protocol/disco#items"
VERSION: Final = "jabber:iq:version"  # XEP-0092

_FEATURES: Final = (DISCO_INFO, DISCO_ITEMS, PING, VERSION, ROSTER)


class StanzaRefused(Exception):  # noqa: N818 - it names what the server does
    """The stanza is answered with this condition (RFC 6120 section 8.3.3)."""

    def __init__(self, condition: str) -> None:
        super().__init__(condition)
        self.condition = condition


def check_request(stanza: etree._Element) -> str:
    """Return the type of an iq that follows RFC 6120 section 8.2.3.

    Raises:
        StanzaRefused: it does not.
    """
    kind = stanza.get("type", "")
    if kind not in ("get", "set", "result", "error") or stanza.get("id") is None:
        raise StanzaRefused("bad-request")
    if kind in ("get", "set") and len(stanza) != 1:
        raise StanzaRefused("bad-request")
    return kind


def answer_account(stanza: etree._Element, *, roster: Iterable[tuple[str, str]]) -> str:
    """Answer a request to the user's own account: return what stands in the result.

    Raises:
        StanzaRefused: it is answered with an error.
    """
    name = ns.qname(stanza[0].tag)
    if name.namespace == ROSTER:
        if stanza.get("type") != "get":
            raise StanzaRefused("not-allowed")  # the rosters of this server are fixed
        items = "".join(f"<item{words.attributes(jid=jid, name=label, subscription='both')}/>" for jid, label in roster)
        return f"<query xmlns='{ROSTER}'>{items}</query>"
    if name.namespace == ns.SESSION:
        return ""  # RFC 3921 section 3: nothing to do, since RFC 6121
    return answer_domain(stanza)


def answer_domain(stanza: etree._Element) -> str:
    """Answer a request to the domain: return what stands in the result.

    Raises:
        StanzaRefused: it is answered with an error.
    """
    namespace = ns.qname(stanza[0].tag).namespace
    if namespace == ns.SESSION:
        return ""
    if namespace not in (PING, DISCO_INFO, DISCO_ITEMS, VERSION):
        raise StanzaRefused("service-unavailable")
    if stanza.get("type") != "get":
        raise StanzaRefused("feature-not-implemented")
    if namespace in (DISCO_INFO, DISCO_ITEMS) and stanza[0].get("node") is not None:
        raise StanzaRefused("item-not-found")  # XEP-0030 section 7
    match namespace:
        case "http://jabber.org/protocol/disco#info":
            features = "".join(f"<feature var='{feature}'/>" for feature in _FEATURES)
            return f"<query xmlns='{namespace}'><identity category='server' type='im' name='xproxy'/>{features}</query>"
        case "http://jabber.org/protocol/disco#items":
            return f"<query xmlns='{namespace}'/>"
        case "jabber:iq:version":
            return f"<query xmlns='{namespace}'><name>xproxy peer</name><version>1</version></query>"
        case _:
            return ""
