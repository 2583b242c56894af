"""Requests about the account: what they are for, and how they ended.

``purpose_of`` names a request when it is sent, in words of a closed list. The pending table keeps the word and hands it
back with the answer (``RequestFacts.purpose``), so that a refusal can be told for what it is although the answer names
nothing: an error to a roster fetch, which XMPPFramework swallows, a block or an upload slot refused.

Registration (XEP-0077) has events of its own. Of its forms names are read, never values; errors echo the request, with
the password in it, so nothing but the error itself is read of them.
"""

from typing import Final

from lxml import etree

from xproxy.events import Event, Side
from xproxy.events.account import (
    AccountRemoved,
    FastTokenIssued,
    PasswordChanged,
    RegistrationFailed,
    RegistrationSucceeded,
)
from xproxy.events.stanza import RequestFacts
from xproxy.xmpp import ns
from xproxy.xmpp.sasl2 import Request, Success
from xproxy.xmpp.stanza import element_text, read_error

REGISTER: Final = "register"
REGISTER_FORM: Final = "register-form"
PASSWORD_CHANGE: Final = "password-change"
ACCOUNT_REMOVE: Final = "account-remove"

# XEP-0077 section 14.1 (the schema), and the fields that servers ask for in a data form.
FIELD_NAMES: Final = frozenset(
    {
        "username", "nick", "password", "name", "first", "last", "email", "address", "city", "state", "zip", "phone",
        "url", "date", "misc", "text", "key", "registered", "old_password", "captcha", "ocr", "challenge", "sid",
    }
)  # fmt: skip
OTHER: Final = "other"
FIELDS_MAX: Final = 16

_QUERY: Final = f"{{{ns.REGISTER}}}query"
_FORM: Final = f"{{{ns.DATA_FORM}}}x"
_FIELD: Final = f"{{{ns.DATA_FORM}}}field"
_VALUE: Final = f"{{{ns.DATA_FORM}}}value"

# (name of the payload, type of the request) -> purpose. The type None: of either.
_PURPOSES: Final[dict[tuple[str, str | None], str]] = {
    (f"{{{ns.ROSTER}}}query", "get"): "roster-get",
    (f"{{{ns.ROSTER}}}query", "set"): "roster-set",
    (f"{{{ns.BLOCKING}}}block", "set"): "block",
    (f"{{{ns.BLOCKING}}}unblock", "set"): "unblock",
    (f"{{{ns.BLOCKING}}}blocklist", "get"): "blocklist",
    (f"{{{ns.UPLOAD}}}request", "get"): "upload-slot",
    (f"{{{ns.CARBONS}}}enable", "set"): "carbons-enable",
    (f"{{{ns.CARBONS}}}disable", "set"): "carbons-disable",
    (f"{{{ns.BIND}}}bind", "set"): "bind",
    (f"{{{ns.SESSION}}}session", "set"): "session",
    (f"{{{ns.IQ_AUTH}}}query", "get"): "legacy-auth-form",
    (f"{{{ns.IQ_AUTH}}}query", "set"): "legacy-auth",
    (f"{{{ns.PING}}}ping", "get"): "ping",
    (_QUERY, "get"): REGISTER_FORM,
    (_QUERY, "set"): REGISTER,
    ("{http://jabber.org/protocol/muc#admin}query", "set"): "muc-admin",
    ("{http://jabber.org/protocol/muc#owner}query", "set"): "muc-configure",
    ("{urn:xmpp:push:0}enable", "set"): "push-enable",
    ("{urn:xmpp:push:0}disable", "set"): "push-disable",
    ("{urn:xmpp:mam:2}query", "set"): "archive-query",
}
PURPOSES: Final = frozenset({*_PURPOSES.values(), PASSWORD_CHANGE, ACCOUNT_REMOVE})


def purpose_of(element: etree._Element, *, established: bool) -> str | None:
    """Return what an ``iq`` of type get or set is for; None for what is not in the list.

    ``established``: a session is there. The same form makes an account before it and changes a password in it.
    """
    payload = _payload(element)
    if payload is None:
        return None
    purpose = _PURPOSES.get((str(payload.tag), element.get("type")))
    return _registration(payload, established=established) if purpose == REGISTER else purpose


def registration_fields(element: etree._Element) -> tuple[str, ...]:
    """Return the names of the fields that a registration fills in, in their order; unknown ones once as "other"."""
    payload = _payload(element)
    if payload is None or payload.tag != _QUERY:
        return ()
    names: dict[str, None] = {}
    for child in payload:
        if child.tag == _FORM:
            found = [field.get("var", "") for field in child.iterchildren(_FIELD)]
        elif isinstance(child.tag, str):
            namespace, _, local = child.tag.rpartition("}")
            found = [local if namespace[1:] == ns.REGISTER else OTHER]
        else:
            continue
        for name in found:
            if name not in ("FORM_TYPE", "remove"):
                names[name if name in FIELD_NAMES else OTHER] = None
        if len(names) >= FIELDS_MAX:
            break
    return tuple(names)[:FIELDS_MAX]


def registration_ended(
    element: etree._Element, request: RequestFacts | None, *, server_text: bool, account: str | None = None
) -> Event | None:
    """Return how a registration, a change of password or a removal ended; None for any other answer.

    ``element`` is an ``iq`` of type result or error that came from the server and answers ``request``. ``server_text``
    and ``account`` are those of ``read_error``: a gateway one registers with is not the user's own server.
    """
    if request is None or request.sent_by is not Side.CLIENT or request.purpose is None:
        return None
    if request.purpose not in (REGISTER, PASSWORD_CHANGE, ACCOUNT_REMOVE):
        return None
    match element.get("type"), request.purpose:
        case "result", "register":
            return RegistrationSucceeded(fields=request.fields, duration_ns=request.age_ns)
        case "result", "password-change":
            return PasswordChanged(duration_ns=request.age_ns)
        case "result", _:
            return AccountRemoved(duration_ns=request.age_ns)
        case "error", purpose:
            error = read_error(element, server_text=server_text, sent_by=Side.SERVER, account=account)
            return RegistrationFailed(
                purpose=purpose,
                fields=request.fields,
                type=error.type,
                condition=error.condition,
                condition_known=error.condition_known,
                code=error.code,
                application_conditions=error.application_conditions,
                text=error.text,
                text_bytes=error.text_bytes,
                duration_ns=request.age_ns,
            )
    return None


def token_issued(success: Success, request: Request | None) -> FastTokenIssued | None:
    """Return that a token came with a SASL2 success; ``request`` is the login it answers."""
    if not success.token_issued:
        return None
    mechanism = None if request is None else request.token_requested
    return FastTokenIssued(requested=mechanism is not None, mechanism=mechanism, expires=success.token_expires)


def _registration(query: etree._Element, *, established: bool) -> str:
    if query.find(f"{{{ns.REGISTER}}}remove") is not None:
        return ACCOUNT_REMOVE
    form = query.find(_FORM)
    if form is not None:
        match _form_type(form):
            case "jabber:iq:register:changepassword":
                return PASSWORD_CHANGE
            case "jabber:iq:register:cancel":
                return ACCOUNT_REMOVE
            case _:
                return REGISTER
    # XEP-0077 section 3.3: username and password, within a session, and nothing else.
    names = {child.tag for child in query if isinstance(child.tag, str)}
    own = {f"{{{ns.REGISTER}}}username", f"{{{ns.REGISTER}}}password"}
    return PASSWORD_CHANGE if established and names == own else REGISTER


def _form_type(form: etree._Element) -> str:
    for field in form.iterchildren(_FIELD):
        if field.get("var") == "FORM_TYPE":
            value = field.find(_VALUE)
            return "" if value is None else element_text(value).strip()
    return ""


def _payload(element: etree._Element) -> etree._Element | None:
    """Return the first child element: an ``iq`` request has exactly one (RFC 6120 section 8.2.3)."""
    return next((child for child in element if isinstance(child.tag, str)), None)
