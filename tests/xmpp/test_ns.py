from lxml import etree

from xproxy.xmpp import ns


def test_a_name_has_two_parts() -> None:
    assert ns.qname("{jabber:client}iq") == ("jabber:client", "iq")
    assert ns.qname("iq") == (None, "iq")
    assert ns.qname(etree.Comment("x").tag) == (None, "")


def test_a_namespace_may_hold_a_brace() -> None:
    """lxml's own QName raises for it, and its parser takes some of them."""
    assert ns.qname("{urn:x}y}enable") == ("urn:x}y", "enable")
