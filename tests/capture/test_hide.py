"""What of a live stanza is shown beside what was expected: the kinds of secrets that captures are searched for."""

import pytest
from lxml import etree

from tests.capture.test_content import CONTENT, LOGINS, SECRET, SECRETS
from xproxy.capture.hide import hide
from xproxy.capture.node import Node, from_element


def node_of(text: str) -> Node:
    (element,) = etree.fromstring(f"<s xmlns='jabber:client'>{text}</s>")
    return from_element(element)


def texts_of(node: Node) -> list[str]:
    own = [*node.attributes.values(), *(item for item in node.content if isinstance(item, str))]
    return own + [text for item in node.content if isinstance(item, Node) for text in texts_of(item)]


@pytest.mark.parametrize("kind", SECRETS)
def test_canary_no_secret_of_a_live_stanza_is_shown(kind: str) -> None:
    hidden = hide(node_of(SECRETS[kind]), bodies=False)
    assert not any(SECRET in text for text in texts_of(hidden))


@pytest.mark.parametrize("kind", [kind for kind in LOGINS if kind != "EXTERNAL"])
def test_canary_no_login_is_shown(kind: str) -> None:
    hidden = hide(node_of(LOGINS[kind]), bodies=False)
    assert not any(SECRET in text or "QXZ" in text for text in texts_of(hidden))


def test_what_is_no_secret_stays() -> None:
    for text in (
        "<message to='a@b'><body>hello</body><thread>t</thread></message>",
        "<iq type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#info' node='n'/></iq>",
        "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='v'/></presence>",
        "<iq type='result' id='1'><query xmlns='jabber:iq:roster' ver='1'><item jid='a@b' name='n'/></query></iq>",
        "<message><hash xmlns='urn:xmpp:hashes:2' algo='sha-256'>h</hash></message>",
    ):
        node = node_of(text)
        assert hide(node, bodies=False) == node


def test_what_people_write_goes_with_bodies_alone() -> None:
    node = node_of(CONTENT["XHTML"])
    assert any(SECRET in text for text in texts_of(hide(node, bodies=False)))
    assert not any(SECRET in text for text in texts_of(hide(node, bodies=True)))
