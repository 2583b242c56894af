"""Dialback. Vectors: XEP-0220 section 2."""

import pytest
from lxml import etree

from xproxy.events import Side
from xproxy.events.s2s import DialbackResult
from xproxy.xmpp import ns
from xproxy.xmpp.s2s import dialback_result

KEY = "b4835385f37fe2895af6c196b59097b16862406db80559900d96bf6fa7d23df3"


def parse(text: str) -> etree._Element:
    return etree.fromstring(f"<s xmlns='jabber:server' xmlns:db='{ns.DIALBACK}'>{text}</s>")[0]


@pytest.mark.parametrize("element", ["result", "verify"])
@pytest.mark.parametrize(("type_", "verdict"), [("valid", "valid"), ("invalid", "invalid"), ("VALID", "other")])
def test_a_verdict(element: str, type_: str, verdict: str) -> None:
    got = dialback_result(
        parse(f"<db:{element} from='target.tld' to='sender.tld' type='{type_}' id='D60'>{KEY}</db:{element}>"),
        sent_by=Side.SERVER,
    )
    assert got == DialbackResult(
        sent_by=Side.SERVER, element=element, verdict=verdict, from_="target.tld", to="sender.tld", condition=None
    )
    assert KEY not in repr(got)


def test_an_error_says_which() -> None:
    got = dialback_result(
        parse(
            "<db:result from='target.tld' to='sender.tld' type='error'><error type='cancel'>"
            f"<item-not-found xmlns='{ns.STANZA_ERRORS}'/></error></db:result>"
        ),
        sent_by=Side.CLIENT,
    )
    assert got is not None
    assert (got.verdict, got.condition) == ("error", "item-not-found")


def test_a_key_that_is_handed_over_is_no_verdict() -> None:
    for text in (f"<db:result from='sender.tld' to='target.tld'>{KEY}</db:result>", "<result type='valid'/>"):
        assert dialback_result(parse(text), sent_by=Side.CLIENT) is None
