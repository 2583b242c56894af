"""What the wire tells about an app that cannot tell it itself: unhandled requests, missing answers, last stanzas.

An XMPP client library answers for the app that uses it, and swallows much of what it could report. Here is only how the
evidence is read; when to look is the session's business.
"""

import hashlib
from typing import Final

from lxml import etree

from xproxy.events.stanza import IqUnhandled, RequestFacts, StanzaFacts
from xproxy.xmpp import ns
from xproxy.xmpp.redact import safe_name

FINGERPRINT_ELEMENTS_MAX: Final = 256  # a stanza has seldom more than fifty
FINGERPRINT_DEPTH_MAX: Final = 12

ANSWER_SECONDS: Final = 30.0  # XMPPFramework's modules wait so long for most answers
CRASH_SECONDS_MAX: Final = 2.0  # from a stanza to the end of the connection that it may have caused
REFUSED_XML_SECONDS_MAX: Final = 0.25  # a parser that refuses its input closes at once
CHALLENGE_SECONDS_MAX: Final = 10.0  # SCRAM with many iterations takes seconds on an old phone

# How long XMPPFramework's modules wait, by the payload's namespace (its classes' default timeouts).
_ANSWER_SECONDS: Final = {
    ns.PING: 30.0,
    "http://jabber.org/protocol/disco#info": 30.0,
    "jabber:iq:privacy": 30.0,
    ns.BLOCKING: 30.0,
    "urn:xmpp:push:0": 30.0,
    ns.ROSTER: 60.0,
    ns.MUC: 60.0,
    "http://jabber.org/protocol/muc#admin": 60.0,
    "http://jabber.org/protocol/muc#owner": 60.0,
    "urn:xmpp:mam:2": 60.0,
    ns.UPLOAD: 60.0,
    ns.REGISTER: 60.0,
    "vcard-temp": 600.0,
}

_IQ: Final = f"{{{ns.CLIENT}}}iq"
_ERROR: Final = f"{{{ns.CLIENT}}}error"
_NOT_IMPLEMENTED: Final = f"{{{ns.STANZA_ERRORS}}}feature-not-implemented"


def answer_seconds(payload: str | None) -> float:
    """Return after how long a request counts as not answered; ``payload`` is "{namespace}name" of its first child."""
    return _ANSWER_SECONDS.get(ns.qname(payload).namespace or "", ANSWER_SECONDS)


def iq_unhandled(element: etree._Element, *, stanza: StanzaFacts, request: RequestFacts | None) -> IqUnhandled | None:
    """Return that no part of a client's app handled a request; None where the error is of another kind.

    XMPPFramework answers with error type cancel, code 501, ``feature-not-implemented`` and an echo of the request's
    child. The legacy code beside the echo is what tells it from an app that refuses on purpose.
    """
    if element.tag != _IQ or element.get("type") != "error":
        return None
    error = element.find(_ERROR)
    if error is None or error.get("code") != "501" or error.get("type") != "cancel":
        return None
    if error.find(_NOT_IMPLEMENTED) is None:
        return None
    echo = next((child for child in element if isinstance(child.tag, str) and child.tag != _ERROR), None)
    payload = safe_name(echo.tag) if echo is not None else (request.payload if request is not None else None)
    return IqUnhandled(stanza=stanza, payload=payload, request=request)


def fingerprint(element: etree._Element) -> str:
    """Return 16 hex digits that stand for the structure of a stanza: its element names and how they nest.

    Two stanzas of one shape have the same one, whatever they say and whoever sent them. Nothing of their content, their
    attributes or their addresses goes in.
    """
    shape = hashlib.sha256()
    count = 0

    def add(node: etree._Element, depth: int) -> None:
        nonlocal count
        if count >= FINGERPRINT_ELEMENTS_MAX or not isinstance(node.tag, str):
            return
        count += 1
        shape.update(f"<{node.tag}".encode("utf-8", "surrogatepass"))
        if depth < FINGERPRINT_DEPTH_MAX:
            for child in node:
                add(child, depth + 1)
        shape.update(b">")

    add(element, 1)
    return shape.hexdigest()[:16]
