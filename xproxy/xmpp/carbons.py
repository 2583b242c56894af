"""Carbons (XEP-0280): a copy may only come from the user's own account.

Section 11: a client that does not check it shows messages nobody sent (CVE-2017-5589 and its kin, 2017). The check is
on the outer ``from``: what is within is anybody's words.
"""

from typing import Final

from lxml import etree

from xproxy.events.stanza import CarbonsForged, StanzaFacts
from xproxy.jid import Jid, JidError
from xproxy.xmpp import ns

_MESSAGE: Final = f"{{{ns.CLIENT}}}message"
_DIRECTIONS: Final = {f"{{{ns.CARBONS}}}sent": "sent", f"{{{ns.CARBONS}}}received": "received"}


def carbons_forged(element: etree._Element, *, stanza: StanzaFacts, account: Jid) -> CarbonsForged | None:
    """Return that a message from the server pretends to be a carbon copy; None where it is none or is genuine.

    ``account``: the user's own address; ``stanza``: the facts of ``element``.
    """
    if element.tag != _MESSAGE:
        return None
    direction = next((_DIRECTIONS[child.tag] for child in element if child.tag in _DIRECTIONS), None)
    if direction is None:
        return None
    from_ = element.get("from")
    if not from_:
        return None  # without an address it is the account's own (RFC 6120 section 8.1.2.1)
    try:
        genuine = Jid.from_text(from_) == account.bare
    except JidError:
        genuine = False
    return None if genuine else CarbonsForged(stanza=stanza, direction=direction)
