"""What the log may know of a stanza and of an error (RFC 6120 section 8): shapes, addresses, conditions.

Text is read in one place, ``read_conditions``, and leaves it only where the caller vouches that the server wrote it.
Children that are comments or processing instructions are passed over: their ``tag`` is a function.
"""

import hashlib
import hmac
from typing import Final

import attrs
from lxml import etree

from xproxy.events import Side
from xproxy.events.stanza import StanzaFacts
from xproxy.xmpp import ns
from xproxy.xmpp.redact import child_names, domain_of, is_legacy_code, safe_name

TEXT_OCTETS_MAX: Final = 256  # of a server's text: the longest sentence of Prosody or ejabberd is under 120
TYPE_CHARS_MAX: Final = 64  # the longest type of any stanza or error has twelve
ADDRESS_CHARS_MAX: Final = 3_071  # RFC 7622: three parts of at most 1023 octets and two separators
NAMES_MAX: Final = 16  # children that are named; a stanza has seldom more than six

CONDITIONS: Final = ns.STANZA_CONDITIONS


@attrs.frozen(kw_only=True)
class Conditions:
    """The children of an error element: of a stanza, of a stream, of SASL, of stream management."""

    condition: str  # as sent, may be unknown; "" where there is none
    condition_known: bool
    application_conditions: tuple[str, ...]  # "{namespace}name"
    text: str | None  # cut to TEXT_OCTETS_MAX; None where it is not to be kept, or absent
    text_bytes: int  # of all text elements in UTF-8, kept or not


@attrs.frozen(kw_only=True)
class ErrorFacts:
    """A stanza error (RFC 6120 section 8.3.2)."""

    type: str | None
    condition: str
    condition_known: bool
    by: str | None  # the domain that answered; its localpart would be a user
    code: str | None  # legacy number (XEP-0086)
    application_conditions: tuple[str, ...]
    text: str | None
    text_bytes: int


def element_text(element: etree._Element) -> str:
    """Return all text of an element. Its ``.text`` stops at a comment, and a payload can hide behind one."""
    if not len(element):  # no child, comment or instruction
        return element.text or ""
    return "".join(element.itertext())


def own_text(element: etree._Element) -> str:
    """Return the character data of an element itself, as servers read payloads: not what stands in child elements.

    Not ``.text``: that stops at a comment, and what stands behind it would be hidden.
    """
    if not len(element):
        return element.text or ""
    return (element.text or "") + "".join(child.tail or "" for child in element)


def keyed_hash(key: bytes, domain: str, value: str) -> str:
    """Return 16 hex digits that stand for ``value``: HMAC-SHA-256 over ``domain NUL value``.

    For what must be joined but not told, such as ids. Not for what can be guessed by whoever has the key.
    """
    return hmac.digest(key, f"{domain}\0{value}".encode("utf-8", "surrogatepass"), hashlib.sha256).hex()[:16]


def stanza_facts(element: etree._Element, octets: int, key: bytes) -> StanzaFacts:
    """Return what may be said of a first-level element. ``key`` keys the hash of its id."""
    namespace, local = _split(str(element.tag))
    id_ = element.get("id")
    return StanzaFacts(
        kind=local if local in ns.STANZA_KINDS and namespace in ns.CONTENT else "other",
        type=_cut(element.get("type"), TYPE_CHARS_MAX),
        id_hash=None if id_ is None else keyed_hash(key, "stanza", id_),
        to=_cut(element.get("to"), ADDRESS_CHARS_MAX),
        from_=_cut(element.get("from"), ADDRESS_CHARS_MAX),
        payloads=child_names(element, NAMES_MAX),
        octets=octets,
    )


def read_error(element: etree._Element, *, server_text: bool, sent_by: Side, account: str | None = None) -> ErrorFacts:
    """Read the error of a stanza of type "error"; a stanza without one gives condition "".

    Text is kept only where ``server_text`` allows it and the server wrote it: the stanza came from there, and in
    ``from`` stands nobody, the user himself, or the server's domain or one below it. ``account`` is the user's own bare
    JID, for which only the server answers; before it is known no other domain can reach the client.
    """
    error = next((child for child in element if isinstance(child.tag, str) and _split(child.tag) in _ERROR_NAMES), None)
    if error is None:
        return ErrorFacts(
            type=None,
            condition="",
            condition_known=False,
            by=None,
            code=None,
            application_conditions=(),
            text=None,
            text_bytes=0,
        )
    from_ = element.get("from")
    by_server = sent_by is Side.SERVER and _is_the_servers(from_, account)
    conditions = read_conditions(
        error, namespace=ns.STANZA_ERRORS, known=ns.STANZA_CONDITIONS, keep_text=server_text and by_server
    )
    code = error.get("code", "")
    return ErrorFacts(
        type=_cut(error.get("type"), TYPE_CHARS_MAX),
        condition=conditions.condition,
        condition_known=conditions.condition_known,
        by=domain_of(error.get("by", "")),
        code=code if is_legacy_code(code) else None,
        application_conditions=conditions.application_conditions,
        text=conditions.text,
        text_bytes=conditions.text_bytes,
    )


def _is_the_servers(from_: str | None, account: str | None) -> bool:
    if not from_ or from_ == account:
        return True
    if "@" in from_ or "/" in from_:
        return False
    # Anybody may run a domain, and a gateway may quote the message that it could not deliver.
    return account is None or f".{from_}".endswith("." + account.rpartition("@")[2])


def read_conditions(element: etree._Element, *, namespace: str, known: frozenset[str], keep_text: bool) -> Conditions:
    """Read the children of an error element whose conditions are in ``namespace``.

    The text of a condition is never read: ``gone``, ``redirect`` and ``see-other-host`` carry an address there.
    """
    condition: str | None = None
    applications: list[str] = []
    text: str | None = None
    text_bytes = 0
    for child in element:
        if not isinstance(child.tag, str):
            continue
        child_namespace, local = _split(child.tag)
        if child_namespace != namespace:
            if len(applications) < NAMES_MAX:
                applications.append(safe_name(child.tag))
        elif local == "text":
            octets = element_text(child).encode()
            text_bytes += len(octets)
            if text is None and keep_text:
                text = octets[:TEXT_OCTETS_MAX].decode(errors="ignore")
        elif condition is None:
            condition = local
    return Conditions(
        condition=_cut(condition, TYPE_CHARS_MAX) or "",
        condition_known=condition in known,
        application_conditions=tuple(applications),
        text=text,
        text_bytes=text_bytes,
    )


_ERROR_NAMES: Final = frozenset((namespace, "error") for namespace in ns.CONTENT)


def _split(tag: str) -> tuple[str, str]:
    namespace, _, local = tag.rpartition("}")
    return namespace[1:], local


def _cut(text: str | None, chars_max: int) -> str | None:
    if text is None or len(text) <= chars_max:
        return text
    return text[: chars_max - 1] + "…"
