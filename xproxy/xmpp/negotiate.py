"""What is settled before the first login: stream features and the way into TLS.

STARTTLS is mirrored: the server decides, we follow (RFC 6120 section 5.4). This module knows the dialogue;
``session`` knows the bytes around it, because what stands behind ``<starttls/>`` and ``<proceed/>`` matters as
much as they do (section 5.3.3, and the CVE-2011-0411 class of attacks).

**Our own words.** Where TLS does not begin alike on both legs there is nobody to mirror: one leg begins in clear, the
other does not. There, and only there, the proxy speaks: as the receiving entity to a client that begins in clear
(``Receiving``), as the initiating entity to a server that does (``Initiating``). It says what leads into TLS and no
more; when TLS is up the peers begin their streams anew (section 5.4.3.3), and from then on all bytes are theirs.
"""

import enum
import re
from typing import Final
from xml.sax.saxutils import quoteattr

import attrs
from lxml import etree

from xproxy.events.sasl import SaslOffered
from xproxy.events.stream import StreamFeatures
from xproxy.xmpp import ns, sasl2
from xproxy.xmpp.redact import safe_name
from xproxy.xmpp.stanza import element_text
from xproxy.xmpp.stream import FirstLevelElement, StreamEnd, StreamHeader

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


class Then(enum.Enum):
    """What follows our words."""

    GO_ON = enum.auto()  # the peer has the word
    SECURE = enum.auto()  # TLS
    END = enum.auto()  # nothing more: both legs are closed


@attrs.frozen
class Answer:
    """What we say to the peer that spoke."""

    data: bytes
    then: Then = Then.GO_ON
    refused: str | None = None  # why it ends: a kind of stream violation, or the name of what came instead of TLS


_STARTTLS_REQUIRED: Final = (
    f"<stream:features><starttls xmlns='{ns.TLS}'><required/></starttls></stream:features>".encode()
)
_VERSION_1: Final = re.compile(r"0*[1-9][0-9]{0,8}\.[0-9]{1,9}")  # and above
_STARTTLS: Final = f"<starttls xmlns='{ns.TLS}'/>".encode()
_PROCEED: Final = f"<proceed xmlns='{ns.TLS}'/>".encode()
_CLOSING_TAG: Final = b"</stream:stream>"


def render_header(*, content: str, to: str | None, from_: str | None, stream_id: str | None = None) -> bytes:
    """Return a stream header of ours (RFC 6120 section 4.7), with the prefix that clients look for by its letters."""
    attributes = {"xmlns": content, "xmlns:stream": ns.STREAMS, "id": stream_id, "from": from_, "to": to}
    said = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items() if value is not None)
    return f"<?xml version='1.0'?><stream:stream{said} version='1.0'>".encode()


def _stream_error(condition: str) -> bytes:
    return f"<stream:error><{condition} xmlns='{ns.STREAM_ERRORS}'/></stream:error>".encode() + _CLOSING_TAG


class Receiving:
    """The receiving entity's part before TLS, towards a client that begins in clear.

    STARTTLS is all there is, and it is required: a login in clear is never taken.
    """

    def __init__(self, stream_id: str) -> None:
        """``stream_id`` is to be unpredictable (RFC 6120 section 4.7.3)."""
        self._stream_id = stream_id
        self._opened = False

    def answer(self, item: StreamHeader | FirstLevelElement | StreamEnd) -> Answer:
        """Answer what the client said."""
        match item:
            case StreamHeader():
                return self._header(item)
            case StreamEnd():
                return Answer(_CLOSING_TAG, Then.END)
            case FirstLevelElement() if item.element.tag == STARTTLS:
                return Answer(_PROCEED, Then.SECURE)
            case FirstLevelElement():
                # RFC 6120 section 5.3.1: where it is required nothing else is to be done before it.
                return Answer(_stream_error("policy-violation"), Then.END, refused="starttls-not-asked-for")

    def _header(self, header: StreamHeader) -> Answer:
        if self._opened:  # a stream begins anew behind TLS or a login, and there was neither
            return Answer(_stream_error("policy-violation"), Then.END, refused="starttls-not-asked-for")
        self._opened = True
        content = header.namespaces.get(None)
        own = render_header(
            content=content if content in ns.CONTENT else ns.CLIENT,
            to=header.attributes.get("from"),
            from_=header.attributes.get("to"),
            stream_id=self._stream_id,
        )
        if not _VERSION_1.fullmatch(header.attributes.get("version", "")):
            # RFC 6120 section 4.7.5: without version 1.0 there are no features, so there is no way into TLS.
            return Answer(own + _stream_error("unsupported-version"), Then.END, refused="unsupported-version")
        return Answer(own + _STARTTLS_REQUIRED)


class Initiating:
    """The initiating entity's part before TLS, towards a server that begins in clear."""

    def __init__(self) -> None:
        self._asked = False

    def begin(self, domain: str) -> bytes:
        """Return our header, for ``domain``."""
        return render_header(content=ns.CLIENT, to=domain, from_=None)

    def answer(self, item: StreamHeader | FirstLevelElement | StreamEnd) -> Answer:
        """Answer what the server said. Anything but the way into TLS ends it (RFC 6120 section 5.4.2)."""
        if isinstance(item, StreamHeader):
            return Answer(b"")
        if isinstance(item, StreamEnd):
            return Answer(_CLOSING_TAG, Then.END)
        name = str(item.element.tag)
        if name == FEATURES and not self._asked and item.element.find(STARTTLS) is not None:
            self._asked = True
            return Answer(_STARTTLS)
        if name == PROCEED and self._asked:
            return Answer(b"", Then.SECURE)
        return Answer(_CLOSING_TAG, Then.END, refused=safe_name(name))
