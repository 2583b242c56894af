"""XMPPFramework's XMPPStreamDelegate, method by method: what the log shows of what an app is told.

An app that uses XMPPFramework hears of its stream through the 42 methods of this protocol. Most of them follow from
something that passes the proxy, so a record can name the method that the app on the other side would see called
(``xmpp.delegate``). It says what the framework does with such bytes, not that the app has it: another client may run.

``METHODS`` is the whole protocol in the order of its header (Core/XMPPStream.h). ``delegates_of`` is the same knowledge
turned round: from an event to the methods it stands for. A test keeps the two together.

What cannot be seen has its nearest evidence: something before the first byte, inside the app, or never sent.
"""

import enum
from typing import Final

import attrs

from xproxy.events import Event, Side
from xproxy.events.account import RegistrationFailed, RegistrationSucceeded
from xproxy.events.connection import CloseCause, ConnectionAccepted, ConnectionClosed
from xproxy.events.sasl import SaslFailed
from xproxy.events.session import BindFailed, ResourceBound, SessionEstablished, SmAnomaly, SmEnabled
from xproxy.events.stanza import ClientFailureSuspected, IqUnhandled, StanzaError, StanzaFacts, StanzaRelayed
from xproxy.events.stream import StreamClosed, StreamError, StreamFeatures, StreamOpened
from xproxy.events.tls import TlsEstablished, TlsFailed, TlsFailure


class Observable(enum.Enum):
    """How far the wire shows that a method is called."""

    YES = "yes"
    PARTLY = "partly"  # the proxy sees what leads to it or follows from it
    NO = "no"


@attrs.frozen
class Method:
    """One method of XMPPStreamDelegate."""

    number: int  # in the header, from 1
    selector: str
    observable: Observable
    actions: tuple[str, ...]  # that carry it; where it is not observable: the nearest evidence
    where: str  # which of those records, or why there is none


def _method(number: int, selector: str, observable: Observable, actions: str, where: str = "") -> Method:
    return Method(number, f"xmppStream{selector}", observable, tuple(actions.split()), where)


_YES, _PARTLY, _NO = Observable.YES, Observable.PARTLY, Observable.NO

_RECEIVED: Final = "xmpp.sent_by server, xmpp.stanza.kind "
_SENT: Final = "xmpp.sent_by client, xmpp.stanza.kind "
_NEVER_SENT: Final = "before sending: what the app changes or drops never reaches the wire"
_NEIGHBOURS: Final = "XEP-0174, between neighbours, not through a server"
_LOST: Final = "what was not sent cannot be seen; with stream management the counters of a resumption tell how many"

METHODS: Final[tuple[Method, ...]] = (
    _method(1, "WillConnect:", _NO, "connection-accepted", "before TCP; a connection follows at once"),
    _method(2, ":socketDidConnect:", _YES, "connection-accepted"),
    _method(3, "DidStartNegotiation:", _YES, "stream-opened", "xmpp.sent_by client, xmpp.stream.xml_declaration true"),
    _method(4, ":willSecureWithSettings:", _PARTLY, "tls-established tls-failed", "xproxy.leg client"),
    _method(
        5,
        ":didReceiveTrust:completionHandler:",
        _PARTLY,
        "tls-failed",
        "xproxy.leg client, event.reason client-rejected-certificate, or closed with our certificate in the record: "
        "asked, and it said no",
    ),
    _method(6, "DidSecure:", _YES, "tls-established", "xproxy.leg client"),
    _method(
        7,
        "DidConnect:",
        _YES,
        "stream-features",
        "xmpp.starttls.offer not required, and mechanisms among xmpp.stream.features",
    ),
    _method(8, "DidRegister:", _YES, "registration-succeeded"),
    _method(9, ":didNotRegister:", _YES, "registration-failed", "xmpp.request.purpose register"),
    _method(10, "DidAuthenticate:", _YES, "session-established", "not sasl-succeeded: a resource is bound first"),
    _method(
        11,
        ":didNotAuthenticate:",
        _YES,
        "sasl-failed client-failure-suspected",
        "xmpp.suspicion.kind challenge-unanswered or success-ignored: the app itself refused",
    ),
    _method(12, "WillBind:", _PARTLY, "resource-bound bind-failed", "called before the request that these answer"),
    _method(13, ":alternativeResourceForConflictingResource:", _YES, "bind-failed", "error.code conflict"),
    _method(14, ":willReceiveIQ:", _PARTLY, "stanza-relayed stanza-error", _RECEIVED + "iq"),
    _method(15, ":willReceiveMessage:", _PARTLY, "stanza-relayed stanza-error", _RECEIVED + "message"),
    _method(16, ":willReceivePresence:", _PARTLY, "stanza-relayed stanza-error", _RECEIVED + "presence"),
    _method(
        17, "DidFilterStanza:", _NO, "iq-timeout", "the app dropped it; of a request, no answer comes from the client"
    ),
    _method(
        18, ":didReceiveIQ:", _YES, "stanza-relayed stanza-error iq-unhandled", _RECEIVED + "iq; it returned NO where "
        "the client answers with iq-unhandled",
    ),
    _method(19, ":didReceiveMessage:", _YES, "stanza-relayed stanza-error", _RECEIVED + "message"),
    _method(20, ":didReceivePresence:", _YES, "stanza-relayed stanza-error", _RECEIVED + "presence"),
    _method(
        21,
        ":didReceiveError:",
        _YES,
        "stream-error stanza-relayed",
        "xmpp.sent_by server; also for an element it does not know, xmpp.stanza.kind other",
    ),
    _method(22, ":willSendIQ:", _NO, "stanza-relayed", _NEVER_SENT),
    _method(23, ":willSendMessage:", _NO, "stanza-relayed", _NEVER_SENT),
    _method(24, ":willSendPresence:", _NO, "stanza-relayed", _NEVER_SENT),
    _method(25, ":didSendIQ:", _YES, "stanza-relayed stanza-error iq-unhandled", _SENT + "iq"),
    _method(26, ":didSendMessage:", _YES, "stanza-relayed stanza-error", _SENT + "message"),
    _method(27, ":didSendPresence:", _YES, "stanza-relayed stanza-error", _SENT + "presence"),
    _method(28, ":didFailToSendIQ:error:", _NO, "session-resumed session-resume-failed", _LOST),
    _method(29, ":didFailToSendMessage:error:", _NO, "session-resumed session-resume-failed", _LOST),
    _method(30, ":didFailToSendPresence:error:", _NO, "session-resumed session-resume-failed", _LOST),
    _method(
        31, "DidChangeMyJID:", _YES, "resource-bound", "the resource of xmpp.jid is not xmpp.bind.resource_requested"
    ),
    _method(
        32,
        "WasToldToDisconnect:",
        _PARTLY,
        "connection-closed",
        "xproxy.initiator client after a session: also a crash, or a network that went away",
    ),
    _method(33, "DidSendClosingStreamStanza:", _YES, "stream-closed", "xmpp.sent_by client"),
    _method(
        34,
        "ConnectDidTimeout:",
        _PARTLY,
        "connection-closed",
        "event.reason client-ended or negotiation-timeout before any stanza, within the app's own time",
    ),
    _method(
        35, "WasToldToAbortConnect:", _PARTLY, "connection-closed", "as xmppStreamConnectDidTimeout:, the same bytes"
    ),
    _method(36, "DidDisconnect:withError:", _YES, "connection-closed"),
    _method(37, ":didReceiveP2PFeatures:", _NO, "stream-features", _NEIGHBOURS),
    _method(38, ":willSendP2PFeatures:", _NO, "stream-features", _NEIGHBOURS),
    _method(39, ":didRegisterModule:", _NO, "", "within the app; what a module then asks for is its only trace"),
    _method(40, ":willUnregisterModule:", _NO, "", "within the app"),
    _method(41, ":didSendCustomElement:", _YES, "stanza-relayed", _SENT + "other, if the app registered its name"),
    _method(
        42,
        ":didReceiveCustomElement:",
        _YES,
        "stanza-relayed sm-enabled sm-anomaly",
        _RECEIVED + "other, if the app registered its name, as for stream management",
    ),
)  # fmt: skip

_SELECTORS: Final = {method.number: method.selector for method in METHODS}

_RECEIVE: Final = {
    "iq": (_SELECTORS[14], _SELECTORS[18]),
    "message": (_SELECTORS[15], _SELECTORS[19]),
    "presence": (_SELECTORS[16], _SELECTORS[20]),
    "other": (_SELECTORS[21], _SELECTORS[42]),  # the one or the other: whether its name was registered
}
_SEND: Final = {
    "iq": (_SELECTORS[25],),
    "message": (_SELECTORS[26],),
    "presence": (_SELECTORS[27],),
    "other": (_SELECTORS[41],),
}
_LOGIN_FEATURES: Final = frozenset(
    {
        "{urn:ietf:params:xml:ns:xmpp-sasl}mechanisms",
        "{http://jabber.org/features/iq-auth}auth",
    }
)
_REFUSED_BY_THE_APP: Final = frozenset({"challenge-unanswered", "success-ignored"})
_NONE: Final[tuple[str, ...]] = ()
# Selectors that are looked up for every session, made once.
_ACCEPTED: Final = (_SELECTORS[2],)
_OPENED: Final = (_SELECTORS[3],)
_SECURED: Final = (_SELECTORS[4], _SELECTORS[6])
_ESTABLISHED: Final = (_SELECTORS[10],)


def delegates_of(event: Event) -> tuple[str, ...]:
    """Return the selectors of the methods that an XMPPFramework app sees called for ``event``, in their order."""
    match event:
        case StanzaRelayed() | StanzaError():
            return _of_stanza(event.sent_by, event.stanza)
        case IqUnhandled():
            return _SEND["iq"]
        case ConnectionAccepted():
            return _ACCEPTED
        case StreamOpened(sent_by=Side.CLIENT, xml_declaration=True):
            return _OPENED  # it sends the declaration once a connection, and the method is called as often
        case TlsEstablished(leg=Side.CLIENT):
            return _SECURED
        case TlsFailed(leg=Side.CLIENT):
            # By an alert, or by going when it was shown the certificate.
            went = event.reason is TlsFailure.CLOSED and event.certificate is not None
            rejected = went or event.reason is TlsFailure.CLIENT_REJECTED_CERTIFICATE
            return (_SELECTORS[4], _SELECTORS[5]) if rejected else (_SELECTORS[4],)
        case StreamFeatures() if event.starttls != "required" and not _LOGIN_FEATURES.isdisjoint(event.features):
            return (_SELECTORS[7],)
        case RegistrationSucceeded():
            return (_SELECTORS[8],)
        case RegistrationFailed(purpose="register"):
            return (_SELECTORS[9],)
        case SessionEstablished():
            return _ESTABLISHED
        case SaslFailed():
            return (_SELECTORS[11],)
        case ClientFailureSuspected() if event.kind in _REFUSED_BY_THE_APP:
            return (_SELECTORS[11],)
        case ResourceBound():
            changed = event.resource_requested is not None and event.resource_requested != event.jid.resource
            return (_SELECTORS[12], _SELECTORS[31]) if changed else (_SELECTORS[12],)
        case BindFailed():
            conflict = event.condition == "conflict"
            return (_SELECTORS[12], _SELECTORS[13]) if conflict else (_SELECTORS[12],)
        case StreamError(sent_by=Side.SERVER):
            return (_SELECTORS[21],)
        case SmEnabled() | SmAnomaly(kind="enable-failed"):
            return (_SELECTORS[42],)
        case StreamClosed(sent_by=Side.CLIENT):
            return (_SELECTORS[33],)
        case ConnectionClosed():
            return _of_close(event)
    return _NONE


def _of_stanza(sent_by: Side, stanza: StanzaFacts) -> tuple[str, ...]:
    return (_RECEIVE if sent_by is Side.SERVER else _SEND).get(stanza.kind, _NONE)


def _of_close(event: ConnectionClosed) -> tuple[str, ...]:
    ended = _SELECTORS[36]
    if event.cause in (CloseCause.CLIENT_ENDED, CloseCause.NEGOTIATION_TIMEOUT) and not event.from_client.stanzas:
        return (_SELECTORS[34], _SELECTORS[35], ended)
    if event.initiator is Side.CLIENT:
        return (_SELECTORS[32], ended)
    return (ended,)
