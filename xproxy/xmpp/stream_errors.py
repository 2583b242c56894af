"""Stream errors (RFC 6120 section 4.9), and what some of them say besides."""

from typing import Final

from lxml import etree

from xproxy.events import Event, Side
from xproxy.events.session import SmAnomaly
from xproxy.events.stream import RedirectOffered, StreamError
from xproxy.xmpp import ns
from xproxy.xmpp.sm import unsigned
from xproxy.xmpp.stanza import Conditions, element_text, read_conditions

STREAM_ERROR: Final = f"{{{ns.STREAMS}}}error"

_SEE_OTHER_HOST: Final = f"{{{ns.STREAM_ERRORS}}}see-other-host"
_TOO_HIGH: Final = tuple(f"{{{namespace}}}handled-count-too-high" for namespace in ns.SM)


def read_stream_error(element: etree._Element, *, sent_by: Side, server_text: bool) -> tuple[Conditions, StreamError]:
    """Return what is wrong, and the event that says so; ``server_text``: whether the server's words may be logged."""
    facts = read_conditions(
        element,
        namespace=ns.STREAM_ERRORS,
        known=ns.STREAM_CONDITIONS,
        keep_text=server_text and sent_by is Side.SERVER,
    )
    return facts, StreamError(
        sent_by=sent_by,
        condition=facts.condition,
        condition_known=facts.condition_known,
        application_condition=next(iter(facts.application_conditions), None),
        text=facts.text,
        text_bytes=facts.text_bytes,
    )


def read_consequences(element: etree._Element, *, sent_by: Side, before_tls: bool) -> list[Event]:
    """Return what the error tells of another host (section 4.9.3.19) or of stanza counts (XEP-0198 section 4)."""
    events: list[Event] = []
    elsewhere = element.find(_SEE_OTHER_HOST)
    if elsewhere is not None and sent_by is Side.SERVER:
        target = element_text(elsewhere)
        events.append(RedirectOffered(mechanism="see-other-host", target=target, before_tls=before_tls))
    for too_high in element.iterchildren(*_TOO_HIGH):
        handled, sent = unsigned(too_high.get("h")), unsigned(too_high.get("send-count"))
        events.append(SmAnomaly(sent_by=sent_by.other, kind="handled-count-too-high", handled=handled, sent=sent))
    return events
