"""XMPPStreamDelegate. The selectors are those of XMPPFramework 4.1 (7d4dd1f2), Core/XMPPStream.h, in their order."""

import attrs
import pytest

from tests.support.samples import FULL
from xproxy.events import EVENT_TYPES, Event, Side
from xproxy.events.account import RegistrationFailed
from xproxy.events.connection import CloseCause, ConnectionClosed
from xproxy.events.delegates import METHODS, Observable, delegates_of
from xproxy.events.session import BindFailed, ResourceBound, SmAnomaly
from xproxy.events.stanza import ClientFailureSuspected, StanzaRelayed
from xproxy.events.stream import StreamClosed, StreamFeatures, StreamOpened
from xproxy.events.tls import TlsEstablished, TlsFailed, TlsFailure

HEADER = """
    xmppStreamWillConnect:
    xmppStream:socketDidConnect: xmppStreamDidStartNegotiation: xmppStream:willSecureWithSettings:
    xmppStream:didReceiveTrust:completionHandler: xmppStreamDidSecure: xmppStreamDidConnect: xmppStreamDidRegister:
    xmppStream:didNotRegister: xmppStreamDidAuthenticate: xmppStream:didNotAuthenticate: xmppStreamWillBind:
    xmppStream:alternativeResourceForConflictingResource: xmppStream:willReceiveIQ: xmppStream:willReceiveMessage:
    xmppStream:willReceivePresence: xmppStreamDidFilterStanza: xmppStream:didReceiveIQ: xmppStream:didReceiveMessage:
    xmppStream:didReceivePresence: xmppStream:didReceiveError: xmppStream:willSendIQ: xmppStream:willSendMessage:
    xmppStream:willSendPresence: xmppStream:didSendIQ: xmppStream:didSendMessage: xmppStream:didSendPresence:
    xmppStream:didFailToSendIQ:error: xmppStream:didFailToSendMessage:error: xmppStream:didFailToSendPresence:error:
    xmppStreamDidChangeMyJID: xmppStreamWasToldToDisconnect: xmppStreamDidSendClosingStreamStanza:
    xmppStreamConnectDidTimeout: xmppStreamWasToldToAbortConnect: xmppStreamDidDisconnect:withError:
    xmppStream:didReceiveP2PFeatures: xmppStream:willSendP2PFeatures: xmppStream:didRegisterModule:
    xmppStream:willUnregisterModule: xmppStream:didSendCustomElement: xmppStream:didReceiveCustomElement:
"""
SELECTORS = HEADER.split()
ACTIONS = {event_type.action for event_type in EVENT_TYPES}
BY_SELECTOR = {method.selector: method for method in METHODS}


def sample(event_type: type[Event], **changes: object) -> Event:
    return attrs.evolve(next(event for event in FULL if isinstance(event, event_type)), **changes)  # type: ignore[arg-type]


def relayed(sent_by: Side, kind: str) -> Event:
    event = sample(StanzaRelayed)
    assert isinstance(event, StanzaRelayed)
    return attrs.evolve(event, sent_by=sent_by, stanza=attrs.evolve(event.stanza, kind=kind))


def closed(cause: CloseCause, initiator: Side | None, stanzas: int) -> Event:
    event = sample(ConnectionClosed)
    assert isinstance(event, ConnectionClosed)
    totals = attrs.evolve(event.from_client, stanzas=stanzas)
    return attrs.evolve(event, cause=cause, initiator=initiator, from_client=totals)


MORE: list[Event] = [
    *(relayed(side, kind) for side in Side for kind in ("iq", "message", "presence", "other")),
    sample(TlsFailed, leg=Side.CLIENT, reason=TlsFailure.CLIENT_REJECTED_CERTIFICATE),
    sample(TlsFailed, leg=Side.CLIENT, reason=TlsFailure.CLOSED),
    sample(TlsEstablished, leg=Side.SERVER),
    sample(StreamFeatures, starttls="offered"),
    sample(StreamClosed, sent_by=Side.CLIENT),
    sample(SmAnomaly, kind="enable-failed"),
    sample(ResourceBound, resource_requested="garden"),
    sample(ResourceBound, resource_requested=None),
    sample(BindFailed, condition="not-allowed"),
    sample(RegistrationFailed, purpose="password-change"),
    sample(ClientFailureSuspected, kind="challenge-unanswered"),
    closed(CloseCause.CLIENT_ENDED, Side.CLIENT, 0),
    closed(CloseCause.CLIENT_ENDED, Side.CLIENT, 3),
    closed(CloseCause.SERVER_ENDED, Side.SERVER, 3),
    closed(CloseCause.SHUTDOWN, None, 3),
]


def test_all_42_methods_in_the_order_of_the_header() -> None:
    assert [method.selector for method in METHODS] == SELECTORS
    assert [method.number for method in METHODS] == list(range(1, 43))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.selector)
def test_each_method_names_what_carries_it_or_why_nothing_does(method) -> None:
    assert set(method.actions) <= ACTIONS
    assert method.actions or (method.observable is Observable.NO and method.where)


@pytest.mark.parametrize("event", [*FULL, *MORE])
def test_an_event_names_methods_that_name_its_action(event: Event) -> None:
    for selector in delegates_of(event):
        assert event.action in BY_SELECTOR[selector].actions
        assert BY_SELECTOR[selector].observable is not Observable.NO


def test_every_method_and_action_of_the_table_is_produced_by_some_event() -> None:
    produced = {(selector, event.action) for event in [*FULL, *MORE] for selector in delegates_of(event)}
    wanted = {
        (method.selector, action)
        for method in METHODS
        if method.observable is not Observable.NO
        for action in method.actions
    }
    # Errors are stanzas too: one kind of each is enough here. iq-unhandled tells that it returned NO, afterwards.
    missing = {pair for pair in wanted - produced if pair[1] != "stanza-error"}
    assert missing == {("xmppStream:didReceiveIQ:", "iq-unhandled")}


@pytest.mark.parametrize(
    ("event", "selectors"),
    [
        (sample(StreamOpened), ["xmppStreamDidStartNegotiation:"]),
        (sample(StreamOpened, xml_declaration=False), []),
        (sample(StreamOpened, sent_by=Side.SERVER), []),
        (sample(StreamFeatures), []),  # STARTTLS comes first
        (sample(StreamFeatures, starttls="none"), ["xmppStreamDidConnect:"]),
        (sample(StreamFeatures, starttls="none", features=("{urn:ietf:params:xml:ns:xmpp-bind}bind",)), []),
        (relayed(Side.SERVER, "message"), ["xmppStream:willReceiveMessage:", "xmppStream:didReceiveMessage:"]),
        (relayed(Side.CLIENT, "presence"), ["xmppStream:didSendPresence:"]),
        (sample(ResourceBound), ["xmppStreamWillBind:"]),
        (sample(ResourceBound, resource_requested="x"), ["xmppStreamWillBind:", "xmppStreamDidChangeMyJID:"]),
        (sample(RegistrationFailed, purpose="password-change"), []),  # XMPPRegistrationDelegate hears of that
        (
            closed(CloseCause.CLIENT_ENDED, Side.CLIENT, 0),
            ["xmppStreamConnectDidTimeout:", "xmppStreamWasToldToAbortConnect:", "xmppStreamDidDisconnect:withError:"],
        ),
        (closed(CloseCause.SHUTDOWN, None, 3), ["xmppStreamDidDisconnect:withError:"]),
    ],
)
def test_who_hears_of_what(event: Event, selectors: list[str]) -> None:
    assert list(delegates_of(event)) == selectors


TRUST = "xmppStream:didReceiveTrust:completionHandler:"


@pytest.mark.parametrize(
    ("reason", "shown", "asked"),
    [
        (TlsFailure.CLIENT_REJECTED_CERTIFICATE, True, True),
        (TlsFailure.CLOSED, True, True),
        (TlsFailure.CLOSED, False, False),
        (TlsFailure.TIMEOUT, True, False),
    ],
)
def test_an_app_was_asked_about_a_certificate_that_it_refused_or_ran_from(
    reason: TlsFailure, shown: bool, asked: bool
) -> None:
    event = sample(TlsFailed, leg=Side.CLIENT, reason=reason)
    if not shown:
        event = attrs.evolve(event, certificate=None)
    assert (TRUST in delegates_of(event)) is asked
