"""The Extensible SASL Profile (XEP-0388), with what rides on it: Bind 2 (XEP-0386), FAST (XEP-0484), XEP-0198.

Pure reading: an element in, facts out. Nothing here remembers, and no fact can hold a payload, a token or an id that a
thief could use. The two functions that return octets (``payload_of`` and ``initial_response``) are for the decoder of
the mechanism, which drops them.

What differs from the profile of RFC 6120:

* The initial response is an element. Absent: none; empty: zero octets. "=" means nothing special any more.
* Success ends the exchange without a restart: ``<features/>`` follows on the same stream, and what was asked for inline
  (a resource, a resumption) is answered within ``<success/>``.
* ``<continue/>`` asks for a task (a second factor, an upgrade of the stored password). Its data is as secret as any
  payload.
"""

import re
from collections.abc import Iterable
from typing import Final

import attrs
from lxml import etree

from xproxy.jid import Jid, JidError
from xproxy.xmpp import ns
from xproxy.xmpp.redact import child_names, safe_name
from xproxy.xmpp.sasl import Encoding, decode_base64
from xproxy.xmpp.sm import unsigned
from xproxy.xmpp.stanza import (
    ADDRESS_CHARS_MAX,
    NAMES_MAX,
    TEXT_OCTETS_MAX,
    Conditions,
    element_text,
    keyed_hash,
    own_text,
    read_conditions,
)

PROFILE: Final = "xep-0388"
AUTHENTICATION: Final = f"{{{ns.SASL2}}}authentication"
AUTHENTICATE: Final = f"{{{ns.SASL2}}}authenticate"
CHALLENGE: Final = f"{{{ns.SASL2}}}challenge"
RESPONSE: Final = f"{{{ns.SASL2}}}response"
SUCCESS: Final = f"{{{ns.SASL2}}}success"
FAILURE: Final = f"{{{ns.SASL2}}}failure"
CONTINUE: Final = f"{{{ns.SASL2}}}continue"
NEXT: Final = f"{{{ns.SASL2}}}next"
TASK_DATA: Final = f"{{{ns.SASL2}}}task-data"
ABORT: Final = f"{{{ns.SASL2}}}abort"

MECHANISMS_MAX: Final = 64  # no server offers half as many
MECHANISM_CHARS_MAX: Final = 128  # RFC 4422 allows 20; as sent, since the wrong ones are what one wants to see
SOFTWARE_CHARS_MAX: Final = 128  # a program's name and version
TAG_CHARS_MAX: Final = 128  # becomes part of the resource

_INITIAL_RESPONSE: Final = f"{{{ns.SASL2}}}initial-response"
_ADDITIONAL_DATA: Final = f"{{{ns.SASL2}}}additional-data"
_USER_AGENT: Final = f"{{{ns.SASL2}}}user-agent"
_TEXT: Final = f"{{{ns.SASL2}}}text"
# XEP-0386 and XEP-0484 spell it -identity in their examples.
_IDENTIFIERS: Final = (f"{{{ns.SASL2}}}authorization-identifier", f"{{{ns.SASL2}}}authorization-identity")
_BINDS: Final = (f"{{{ns.BIND2}}}bind", f"{{{ns.BIND2_OLD}}}bind")
_BOUNDS: Final = (f"{{{ns.BIND2}}}bound", f"{{{ns.BIND2_OLD}}}bound")
_RESUMES: Final = tuple(f"{{{namespace}}}resume" for namespace in sorted(ns.SM))
_RESUMEDS: Final = tuple(f"{{{namespace}}}resumed" for namespace in sorted(ns.SM))
_FAILEDS: Final = tuple(f"{{{namespace}}}failed" for namespace in sorted(ns.SM))
_TRUE: Final = frozenset({"true", "1"})
_DATE_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+\-]\d{2}:\d{2})", re.ASCII)


@attrs.frozen(kw_only=True)
class Offer:
    """``<authentication/>`` in the features (section 2.1)."""

    mechanisms: tuple[str, ...]  # in the order sent
    inline: tuple[str, ...]  # "{namespace}name" of what may ride along
    bind_features: tuple[str, ...]  # what Bind 2 can enable at once: namespaces, unknown ones as "other"
    fast_mechanisms: tuple[str, ...]
    fast_early_data: bool  # tokens may come in TLS 0-RTT data
    upgrades: tuple[str, ...]  # mechanisms the stored password can be upgraded for (XEP-0480)

    @property
    def bind(self) -> bool:
        """Bind 2 is offered."""
        return not set(_BINDS).isdisjoint(self.inline)


@attrs.frozen(kw_only=True)
class UserAgent:
    """``<user-agent/>`` (section 2.4). Its id names a device for ever, so only a keyed hash of it is kept."""

    id_hash: str | None
    software: str | None  # the program's name
    has_device: bool  # the device's name is its owner's


@attrs.frozen(kw_only=True)
class ResumeRequest:
    """``<resume/>`` within the request (XEP-0198 section 9.2)."""

    id_hash: str | None
    handled: int | None  # h


@attrs.frozen(kw_only=True)
class FastRequest:
    """``<fast/>``: the initial response is made of a token (XEP-0484 section 4.4)."""

    count: int | None  # set for TLS 0-RTT data, against replay
    invalidate: bool  # the token is not to be valid any more


@attrs.frozen(kw_only=True)
class Request:
    """``<authenticate/>`` (section 2.4), without its payload."""

    mechanism: str  # as sent
    upgrades: tuple[str, ...]
    user_agent: UserAgent | None
    inline: tuple[str, ...]  # "{namespace}name" of what is asked for beside the login
    bind: bool
    bind_tag: str | None  # becomes part of the resource
    bind_features: tuple[str, ...]  # "{namespace}name" of what is to be enabled at once
    resume: ResumeRequest | None
    fast: FastRequest | None
    token_requested: str | None  # the FAST mechanism a token is wanted for


@attrs.frozen(kw_only=True)
class Success:
    """``<success/>`` (section 2.6.1)."""

    identifier: str | None  # as sent; a full JID where a resource was bound
    jid: Jid | None  # the same, where it is a valid address
    inline: tuple[str, ...]  # "{namespace}name" of the answers
    bound: bool
    resumed_hash: str | None  # of the id of the session that goes on here
    resumed: bool
    resume_failed: str | None  # condition, "" where there is none; None: it did not fail
    server_handled: int | None  # h of <resumed/> or <failed/>
    token_issued: bool
    token_expires: str | None  # XEP-0082 date and time


@attrs.frozen(kw_only=True)
class Continue:
    """``<continue/>``: the mechanism succeeded, and one of these tasks is to be done (section 2.6.3)."""

    tasks: tuple[str, ...]
    text: str | None  # the server's, cut; None where it is not to be kept
    text_bytes: int


@attrs.frozen(kw_only=True)
class TaskData:
    """``<task-data/>``: what it is made of. Its content is a one-time password or a salted one."""

    children: tuple[str, ...]  # "{namespace}name"
    octets: int  # of text


def read_offer(element: etree._Element) -> Offer:
    """Read ``<authentication/>``."""
    inline: tuple[str, ...] = ()
    bind_features: list[str] = []
    fast: etree._Element | None = None
    for within in element.iterchildren(f"{{{ns.SASL2}}}inline"):
        inline += child_names(within, NAMES_MAX)
        for child in within:
            if child.tag in _BINDS:
                bind_features += (
                    var if (var := feature.get("var", "")) in ns.KNOWN_NAMESPACES else "other"
                    for feature in child.iter(*(f"{{{namespace}}}feature" for namespace in (ns.BIND2, ns.BIND2_OLD)))
                )
            elif child.tag == f"{{{ns.FAST}}}fast":
                fast = child
    return Offer(
        mechanisms=_texts(element.iterchildren(f"{{{ns.SASL2}}}mechanism")),
        inline=inline[:NAMES_MAX],
        bind_features=tuple(bind_features[:MECHANISMS_MAX]),
        fast_mechanisms=() if fast is None else _texts(fast.iterchildren(f"{{{ns.FAST}}}mechanism")),
        fast_early_data=fast is not None and fast.get("tls-0rtt") in _TRUE,
        upgrades=_texts(element.iterchildren(f"{{{ns.SASL_UPGRADE}}}upgrade", f"{{{ns.SASL2}}}upgrade")),
    )


def read_request(element: etree._Element, *, key: bytes) -> Request:
    """Read ``<authenticate/>``. ``key`` keys the hashes of the device's id and of the session to resume."""
    bind = _first(element, _BINDS)
    resume = _first(element, _RESUMES)
    fast = _first(element, (f"{{{ns.FAST}}}fast",))
    token = _first(element, (f"{{{ns.FAST}}}request-token",))
    tag = None if bind is None else _first(bind, tuple(f"{{{namespace}}}tag" for namespace in (ns.BIND2, ns.BIND2_OLD)))
    upgrade = element.get("upgrade")  # XEP-0388 before 1.0
    upgrades = () if upgrade is None else (upgrade[:MECHANISM_CHARS_MAX],)
    return Request(
        mechanism=element.get("mechanism", "")[:MECHANISM_CHARS_MAX],
        upgrades=upgrades + _texts(element.iterchildren(f"{{{ns.SASL_UPGRADE}}}upgrade")),
        user_agent=_read_user_agent(element, key),
        inline=_extensions(element),
        bind=bind is not None,
        bind_tag=None if tag is None else element_text(tag).strip()[:TAG_CHARS_MAX] or None,
        bind_features=() if bind is None else _extensions(bind, ns.BIND2, ns.BIND2_OLD),
        resume=None
        if resume is None
        else ResumeRequest(id_hash=_sm_hash(resume, key), handled=unsigned(resume.get("h"))),
        fast=None
        if fast is None
        else FastRequest(count=unsigned(fast.get("count")), invalidate=fast.get("invalidate") in _TRUE),
        token_requested=None if token is None else token.get("mechanism", "")[:MECHANISM_CHARS_MAX],
    )


def read_success(element: etree._Element, *, key: bytes) -> Success:
    """Read ``<success/>``. ``key`` keys the hash of the session that was resumed."""
    identifier = _first(element, _IDENTIFIERS)
    text = None if identifier is None else element_text(identifier).strip()[:ADDRESS_CHARS_MAX] or None
    resumed = _first(element, _RESUMEDS)
    failed = _first(element, _FAILEDS)
    answer = resumed if resumed is not None else failed
    token = _first(element, (f"{{{ns.FAST}}}token",))
    expiry = "" if token is None else token.get("expiry", "")
    return Success(
        identifier=text,
        jid=_jid(text),
        inline=_extensions(element),
        bound=_first(element, _BOUNDS) is not None,
        resumed=resumed is not None,
        resumed_hash=None if resumed is None else _sm_hash(resumed, key),
        resume_failed=None
        if failed is None
        else read_conditions(failed, namespace=ns.STANZA_ERRORS, known=ns.STANZA_CONDITIONS, keep_text=False).condition,
        server_handled=None if answer is None else unsigned(answer.get("h")),
        token_issued=token is not None,
        token_expires=expiry if _DATE_TIME.fullmatch(expiry) else None,
    )


def stream_management(element: etree._Element) -> list[etree._Element]:
    """Return the XEP-0198 elements within ``<authenticate/>`` or ``<success/>``, those within Bind 2 included.

    They mean what they mean on the stream itself: enable and resume; enabled, resumed and failed.
    """
    places = [element, *(child for child in element if child.tag in _BINDS or child.tag in _BOUNDS)]
    return [
        child
        for place in places
        for child in place
        if isinstance(child.tag, str) and ns.qname(child.tag).namespace in ns.SM
    ]


def read_failure(element: etree._Element, *, server_text: bool) -> Conditions:
    """Read ``<failure/>`` (section 2.6.2): conditions are those of RFC 6120, the text may be in either namespace."""
    facts = read_conditions(element, namespace=ns.SASL, known=ns.SASL_CONDITIONS, keep_text=server_text)
    own_text = _first(element, (_TEXT,))
    if own_text is None:
        return facts
    octets = element_text(own_text).encode()
    text_name = safe_name(_TEXT)
    return attrs.evolve(
        facts,
        application_conditions=tuple(name for name in facts.application_conditions if name != text_name),
        text=octets[:TEXT_OCTETS_MAX].decode(errors="ignore") if server_text and facts.text is None else facts.text,
        text_bytes=facts.text_bytes + len(octets),
    )


def read_continue(element: etree._Element, *, server_text: bool) -> Continue:
    """Read ``<continue/>``."""
    tasks = _first(element, (f"{{{ns.SASL2}}}tasks",))
    text = _first(element, (_TEXT,))
    octets = b"" if text is None else element_text(text).encode()
    return Continue(
        tasks=() if tasks is None else _texts(tasks.iterchildren(f"{{{ns.SASL2}}}task")),
        text=octets[:TEXT_OCTETS_MAX].decode(errors="ignore") if server_text and octets else None,
        text_bytes=len(octets),
    )


def read_next(element: etree._Element) -> str:
    """Return the task that ``<next/>`` chooses; "" where it names none."""
    return element.get("task", "")[:MECHANISM_CHARS_MAX]


def read_task_data(element: etree._Element) -> TaskData:
    """Read ``<task-data/>``: its shape."""
    return TaskData(children=child_names(element, NAMES_MAX), octets=len(element_text(element).encode()))


def initial_response(element: etree._Element) -> tuple[bytes | None, Encoding | None]:
    """Return the octets of ``<initial-response/>``, for the decoder alone; (None, None) where there is none."""
    child = _first(element, (_INITIAL_RESPONSE,))
    return (None, None) if child is None else payload_of(child)


def additional_data(element: etree._Element) -> tuple[bytes | None, Encoding | None]:
    """Return the octets that came with ``<success/>`` or ``<continue/>``, for the decoder alone."""
    child = _first(element, (_ADDITIONAL_DATA,))
    return (None, None) if child is None else payload_of(child)


def payload_of(element: etree._Element) -> tuple[bytes | None, Encoding]:
    """Return the octets of ``<challenge/>`` or ``<response/>``, for the decoder alone.

    The XEP's own examples are indented; that is "whitespace", and "=" is data in no spelling.
    """
    text = own_text(element)
    return (None, "invalid") if text.strip() == "=" else decode_base64(text)


def _read_user_agent(element: etree._Element, key: bytes) -> UserAgent | None:
    agent = _first(element, (_USER_AGENT,))
    if agent is None:
        return None
    id_ = agent.get("id")
    software = _first(agent, (f"{{{ns.SASL2}}}software",))
    return UserAgent(
        id_hash=keyed_hash(key, "user-agent", id_) if id_ else None,
        software=None if software is None else element_text(software).strip()[:SOFTWARE_CHARS_MAX] or None,
        has_device=_first(agent, (f"{{{ns.SASL2}}}device",)) is not None,
    )


def _sm_hash(element: etree._Element, key: bytes) -> str | None:
    # The same hash as on a stream of its own, so that the session before it is found: see StreamManagement.
    previd = element.get("previd")
    return keyed_hash(key, "sm", previd) if previd else None


def _first(element: etree._Element, names: tuple[str, ...]) -> etree._Element | None:
    return next(element.iterchildren(*names), None)


def _extensions(element: etree._Element, *own: str) -> tuple[str, ...]:
    """Return the names of the children that belong to another specification than the element itself."""
    own_namespaces = own or (ns.SASL2,)
    names = [
        safe_name(child.tag)
        for child in element
        if isinstance(child.tag, str) and ns.qname(child.tag).namespace not in own_namespaces
    ]
    return tuple(names[:NAMES_MAX])


def _texts(elements: Iterable[etree._Element]) -> tuple[str, ...]:
    texts = (element_text(element).strip()[:MECHANISM_CHARS_MAX] for element in elements)
    return tuple(text for text in texts if text)[:MECHANISMS_MAX]


def _jid(text: str | None) -> Jid | None:
    if text is None:
        return None
    try:
        return Jid.from_text(text)
    except JidError:
        return None
