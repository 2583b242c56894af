"""Carbons. Vectors: XEP-0280 examples 11 to 13 and section 11."""

import pytest
from lxml import etree

from xproxy.events.stanza import CarbonsForged
from xproxy.jid import Jid
from xproxy.xmpp.carbons import carbons_forged
from xproxy.xmpp.stanza import stanza_facts

ACCOUNT = Jid("romeo", "montague.example", "home")


def carbon(from_: str, direction: str = "received", namespace: str = "urn:xmpp:carbons:2") -> etree._Element:
    attribute = f"from='{from_}'" if from_ else ""
    return etree.fromstring(
        f"<s xmlns='jabber:client'><message xmlns='jabber:client' {attribute} to='romeo@montague.example/home'>"
        f"<{direction} xmlns='{namespace}'><forwarded xmlns='urn:xmpp:forward:0'>"
        "<message xmlns='jabber:client' from='juliet@capulet.example/balcony'><body>s3cret</body></message>"
        f"</forwarded></{direction}></message></s>"
    )[0]


def check(element: etree._Element) -> CarbonsForged | None:
    return carbons_forged(element, stanza=stanza_facts(element, 99, b"k"), account=ACCOUNT)


@pytest.mark.parametrize("from_", ["romeo@montague.example", "ROMEO@Montague.example", ""])
def test_a_copy_from_the_own_account_is_genuine(from_: str) -> None:
    assert check(carbon(from_)) is None


@pytest.mark.parametrize(
    "from_",
    [
        "mallory@evil.example",
        "mallory@evil.example/romeo@montague.example",
        "romeo@montague.example/garden",  # section 11: the bare address
        "montague.example",
        "romeo@@montague.example",
        "juliet@capulet.example/balcony",
    ],
)
@pytest.mark.parametrize("direction", ["sent", "received"])
def test_any_other_is_forged(from_: str, direction: str) -> None:
    forged = check(carbon(from_, direction))
    assert forged is not None
    assert forged.direction == direction
    assert forged.stanza.from_ == from_
    assert "s3cret" not in repr(forged)


def test_what_is_no_copy() -> None:
    assert check(carbon("mallory@evil.example", namespace="urn:xmpp:carbons:1")) is None
    assert check(carbon("mallory@evil.example", "private")) is None
    presence = etree.fromstring("<presence xmlns='jabber:client'><sent xmlns='urn:xmpp:carbons:2'/></presence>")
    assert check(presence) is None
