"""What is settled before the first login: stream features and the way into TLS.

STARTTLS is mirrored: the server decides, we follow (RFC 6120 section 5.4). This module knows the dialogue;
``session`` knows the bytes around it, because what stands behind ``<starttls/>`` and ``<proceed/>`` matters as
much as they do (section 5.3.3, and the CVE-2011-0411 class of attacks).
"""

from typing import Final

import attrs
from lxml import etree

from xproxy.events.sasl import SaslOffered
from xproxy.events.stream import StreamFeatures
from xproxy.xmpp import ns, sasl2
from xproxy.xmpp.redact import safe_name
from xproxy.xmpp.stanza import element_text

TRAILING_WHITESPACE_MAX: Final = 16
"""Octets of whitespace tolerated behind ``<starttls/>``: section 5.3.3 forbids them, real clients send them."""

_WHITESPACE: Final = b" \t\r\n"

STARTTLS: Final = f"{{{ns.TLS}}}starttls"
PROCEED: Final = f"{{{ns.TLS}}}proceed"
FAILURE: Final = f"{{{ns.TLS}}}failure"
FEATURES: Final = f"{{{ns.STREAMS}}}features"

_MECHANISM: Final = f"{{{ns.SASL}}}mechanism"
_CHANNEL_BINDING: Final = f"{{{ns.SASL_CB}}}channel-binding"
_REQUIRED: Final = f"{{{ns.TLS}}}required"


@attrs.frozen(kw_only=True)
class Features:
    """One ``<stream:features/>`` as events, plus what later steps ask of it."""

    seen: StreamFeatures
    offers: tuple[SaslOffered, ...]  # one a profile

    @property
    def starttls_offered(self) -> bool:
        """True where STARTTLS is in the list, required or not."""
        return self.seen.starttls != "none"


def read_features(element: etree._Element) -> Features:
    """Read the features of RFC 6120 section 4.3.2; unknown children are named, never an error."""
    starttls = "none"
    mechanisms: tuple[str, ...] | None = None
    sasl2_mechanisms: tuple[str, ...] | None = None
    bindings: tuple[str, ...] = ()
    stanza_bytes_max: int | None = None
    idle_seconds_max: int | None = None
    names: list[str] = []
    for child in element:
        if not isinstance(child.tag, str):
            continue  # a comment or processing instruction; the reader has reported it
        names.append(safe_name(child.tag))
        match child.tag:
            case "{urn:ietf:params:xml:ns:xmpp-tls}starttls":
                starttls = "required" if child.find(_REQUIRED) is not None else "offered"
            case "{urn:ietf:params:xml:ns:xmpp-sasl}mechanisms":
                mechanisms = tuple(element_text(each).strip() for each in child.iterchildren(_MECHANISM))
            case sasl2.AUTHENTICATION:
                offer = sasl2.read_offer(child)
                sasl2_mechanisms = offer.mechanisms + offer.fast_mechanisms
            case "{urn:xmpp:sasl-cb:0}sasl-channel-binding":
                bindings = tuple(each.get("type", "") for each in child.iterchildren(_CHANNEL_BINDING))
            case "{urn:xmpp:stream-limits:0}limits":
                stanza_bytes_max = _number(child, f"{{{ns.LIMITS}}}max-bytes")
                idle_seconds_max = _number(child, f"{{{ns.LIMITS}}}idle-seconds")
    seen = StreamFeatures(
        features=tuple(names),
        starttls=starttls,
        stanza_bytes_max=stanza_bytes_max,
        idle_seconds_max=idle_seconds_max,
    )
    offers = []
    if mechanisms is not None:
        offers.append(SaslOffered(profile="rfc6120", mechanisms=mechanisms, channel_bindings=bindings))
    if sasl2_mechanisms is not None:
        offers.append(SaslOffered(profile=sasl2.PROFILE, mechanisms=sasl2_mechanisms, channel_bindings=bindings))
    return Features(seen=seen, offers=tuple(offers))


def _number(parent: etree._Element, name: str) -> int | None:
    child = parent.find(name)
    text = element_text(child).strip() if child is not None else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else None


def is_tolerated_behind_starttls(leftover: bytes) -> bool:
    """Tell whether ``leftover`` is at most a little whitespace."""
    return len(leftover) <= TRAILING_WHITESPACE_MAX and not leftover.strip(_WHITESPACE)
