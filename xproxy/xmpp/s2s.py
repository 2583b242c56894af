"""Server dialback (XEP-0220): verdicts. Keys are the text of the elements, and are never read."""

from typing import Final

from lxml import etree

from xproxy.events import Side
from xproxy.events.s2s import DialbackResult
from xproxy.xmpp import ns
from xproxy.xmpp.stanza import ADDRESS_CHARS_MAX, read_conditions

_ELEMENTS: Final = {f"{{{ns.DIALBACK}}}result": "result", f"{{{ns.DIALBACK}}}verify": "verify"}
_ERROR: Final = f"{{{ns.SERVER}}}error"
VERDICTS: Final = frozenset({"valid", "invalid", "error"})


def dialback_result(element: etree._Element, *, sent_by: Side) -> DialbackResult | None:
    """Return the verdict that ``element`` gives; None for what is none, such as a key that is handed over."""
    name = _ELEMENTS.get(str(element.tag))
    verdict = element.get("type")
    if name is None or verdict is None:
        return None
    error = element.find(_ERROR)
    condition = None
    if error is not None:
        condition = read_conditions(
            error, namespace=ns.STANZA_ERRORS, known=ns.STANZA_CONDITIONS, keep_text=False
        ).condition
    return DialbackResult(
        sent_by=sent_by,
        element=name,
        verdict=verdict if verdict in VERDICTS else "other",
        from_=_cut(element.get("from")),
        to=_cut(element.get("to")),
        condition=condition,
    )


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:ADDRESS_CHARS_MAX]
