"""Events -> ECS: what each action is in ECS's words, and which fields it fills.

``SHAPES`` holds what is constant for an action; the JSON Schema is generated from it. ``facts_of`` turns one event into
facts by dotted name; ``assert_never`` makes mypy name the event that was forgotten. Nothing here cleans or nests:
``document.py`` does both for every fact alike. Times of day come with the record, not with the event.

Category and type are only paired as ECS expects them (a stanza error is ``[network] [protocol]`` with outcome failure;
``error`` is no type of that category).
"""

import enum
from typing import Final, assert_never

import attrs

from xproxy.events import EVENT_TYPES, Endpoint, Event, Level
from xproxy.events.account import (
    AccountRemoved,
    FastTokenIssued,
    PasswordChanged,
    RegistrationFailed,
    RegistrationSucceeded,
)
from xproxy.events.capture import CaptureStarted, CaptureStopped, KeylogOpened
from xproxy.events.connection import (
    CloseCause,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionRefused,
    ConnectionStalled,
    DirectionTotals,
    UnsupportedTransport,
    UpstreamConnected,
    UpstreamFailed,
    WayIn,
)
from xproxy.events.journal import (
    JournalCheckpoint,
    JournalFailed,
    JournalGap,
    JournalOpened,
    JournalRecovered,
    KeyRotated,
)
from xproxy.events.proxy import ConfigChanged, LimitReached, ProxyStarted, ProxyStopped
from xproxy.events.s2s import ComponentAuthenticated, ComponentRefused, DialbackResult
from xproxy.events.sasl import (
    ChannelBindingVerdict,
    SaslAborted,
    SaslDowngrade,
    SaslFailed,
    SaslMalformed,
    SaslOffered,
    SaslStarted,
    SaslSucceeded,
    UpstreamTampering,
)
from xproxy.events.session import (
    BindFailed,
    ResourceBound,
    SessionEstablished,
    SessionResumed,
    SessionResumeFailed,
    SmAnomaly,
    SmEnabled,
)
from xproxy.events.stanza import (
    CarbonsForged,
    ClientFailureSuspected,
    IqTimeout,
    IqUnhandled,
    MucJoinFailed,
    RequestFacts,
    StanzaError,
    StanzaFacts,
    StanzaRelayed,
)
from xproxy.events.stream import (
    InspectionLost,
    RedirectOffered,
    StreamClosed,
    StreamError,
    StreamFeatures,
    StreamOpened,
    StreamRestarted,
    StreamViolation,
)
from xproxy.events.tls import (
    CertificateChanged,
    CertificateFacts,
    PlaintextAuthentication,
    StarttlsInjection,
    StarttlsRefused,
    StarttlsRequested,
    StarttlsStripped,
    TlsEstablished,
    TlsFailed,
    TlsPassthrough,
)
from xproxy.record.document import Facts, Value, ip_of, timestamp

CATEGORY_TYPES: Final = {
    "network": frozenset({"access", "allowed", "connection", "denied", "end", "info", "protocol", "start"}),
    "authentication": frozenset({"start", "end", "info"}),
    "session": frozenset({"start", "end", "info"}),
    "configuration": frozenset({"access", "change", "creation", "deletion", "info"}),
    "iam": frozenset({"admin", "change", "creation", "deletion", "group", "info", "user"}),
    "intrusion_detection": frozenset({"allowed", "denied", "info"}),
    "process": frozenset({"access", "change", "end", "info", "start"}),
}
"""The types ECS expects for each category we use."""


class Scope(enum.Enum):
    """What an action belongs to, and so which id its record carries."""

    SESSION = "session"  # has trace.id
    PROXY = "proxy"  # has none
    EITHER = "either"


@attrs.frozen
class Shape:
    """What is constant for the records of one action."""

    category: tuple[str, ...]
    type: tuple[str, ...]
    required: tuple[str, ...] = ()  # always there, beside the envelope: nothing that a peer can leave empty
    outcomes: tuple[str, ...] = ()  # possible event.outcome; empty: the action has none
    scope: Scope = Scope.SESSION


_NETWORK = ("network",)
_PROTOCOL = ("protocol",)
_AUTHENTICATION = ("authentication",)
_SESSION = ("session",)
_IAM = ("iam",)
_DENIED = (("network", "intrusion_detection"), ("protocol", "denied"))
_OK, _NO = ("success",), ("failure",)
_CLIENT = ("source.ip", "source.port", "client.ip", "client.port", "xproxy.listener.ip", "xproxy.listener.port")

SHAPES: Final[dict[type[Event], Shape]] = {
    ConnectionAccepted: Shape(_NETWORK, ("connection", "start"), _CLIENT, _OK),
    ConnectionRefused: Shape(_NETWORK, ("connection", "denied"), (*_CLIENT, "event.reason"), _NO, Scope.PROXY),
    ConnectionStalled: Shape(
        _NETWORK, ("connection", "info"), ("xproxy.leg", "xproxy.stall.waiting_bytes", "event.duration")
    ),
    ConnectionClosed: Shape(
        _NETWORK,
        ("connection", "end"),
        (
            "event.duration",
            "event.reason",
            "xproxy.initiator",
            "source.bytes",
            "destination.bytes",
            "network.bytes",
            "xproxy.from_client.stanzas",
            "xproxy.from_server.stanzas",
        ),
        ("success", "failure"),
    ),
    UpstreamConnected: Shape(
        _NETWORK,
        ("connection", "start"),
        (
            "destination.address",
            "destination.ip",
            "destination.port",
            "xproxy.upstream.local.ip",
            "xproxy.upstream.local.port",
            "xproxy.upstream.tls",
            "xproxy.upstream.via",
            "event.duration",
        ),
        _OK,
        Scope.EITHER,  # a probe is the proxy's own
    ),
    UpstreamFailed: Shape(
        _NETWORK,
        ("connection", "end"),
        ("destination.address", "destination.port", "event.reason", "event.duration", "xproxy.upstream.tried"),
        _NO,
        Scope.EITHER,
    ),
    UnsupportedTransport: Shape(_NETWORK, ("connection", "denied"), ("xproxy.first_bytes",), _NO),
    TlsEstablished: Shape(
        _NETWORK, _PROTOCOL, ("xproxy.leg", "tls.established", "tls.version", "tls.cipher", "event.duration"), _OK
    ),
    TlsFailed: Shape(
        _NETWORK,
        _PROTOCOL,
        ("xproxy.leg", "tls.established", "event.reason", "error.code", "event.duration"),
        _NO,
    ),
    TlsPassthrough: Shape(
        ("network", "intrusion_detection"),
        ("protocol", "allowed"),
        (
            "xproxy.tls.passthrough",
            "xproxy.tls.ja4",
            "xproxy.tls.direct",
            "xproxy.passthrough.stage",
            "xproxy.passthrough.refusal",
            "xproxy.passthrough.refused",
            "xproxy.passthrough.expires",
        ),
    ),
    StarttlsRequested: Shape(_NETWORK, _PROTOCOL, ("xmpp.starttls.trailing_whitespace_bytes",)),
    StarttlsRefused: Shape(_NETWORK, _PROTOCOL, ("xmpp.starttls.answer",), _NO),
    StarttlsInjection: Shape(*_DENIED, ("xmpp.sent_by", "xmpp.starttls.octets"), _NO),
    StarttlsStripped: Shape(("network", "intrusion_detection"), ("protocol", "info"), ("xmpp.domain",)),
    PlaintextAuthentication: Shape(_AUTHENTICATION, ("info",), ("xmpp.starttls.offer",)),
    CertificateChanged: Shape(
        ("network", "intrusion_detection"),
        ("protocol", "info"),
        ("xmpp.domain", "tls.server.hash.sha256", "xproxy.tls.previous_sha256"),
    ),
    StreamOpened: Shape(_NETWORK, ("protocol", "start"), ("xmpp.sent_by", "xmpp.stream.has_id")),
    StreamRestarted: Shape(_NETWORK, _PROTOCOL, ("xmpp.sent_by", "event.reason", "xmpp.stream.pipelined")),
    StreamFeatures: Shape(_NETWORK, _PROTOCOL, ("xmpp.starttls.offer",)),
    StreamError: Shape(_NETWORK, _PROTOCOL, ("xmpp.sent_by", "xmpp.error.condition_known"), _NO),
    StreamClosed: Shape(_NETWORK, ("protocol", "end"), ("xmpp.sent_by",)),
    StreamViolation: Shape(*_DENIED, ("xmpp.sent_by", "xmpp.violation.kind", "xmpp.violation.offset"), _NO),
    InspectionLost: Shape(
        ("network", "intrusion_detection"),
        ("protocol", "info"),
        (
            "xmpp.sent_by",
            "xmpp.inspection.scope",
            "xmpp.inspection.offset",
            "xmpp.inspection.policy",
            "event.reason",
        ),
        _NO,
    ),
    RedirectOffered: Shape(
        _NETWORK, _PROTOCOL, ("xmpp.redirect.mechanism", "xmpp.redirect.before_tls")
    ),
    SaslOffered: Shape(_AUTHENTICATION, ("info",), ("xmpp.sasl.profile",)),
    SaslStarted: Shape(
        _AUTHENTICATION, ("start",), ("xmpp.sasl.profile", "xmpp.sasl.attempt"), ("unknown",)
    ),
    SaslSucceeded: Shape(
        _AUTHENTICATION, ("end",), ("xmpp.sasl.attempt", "xmpp.sasl.rounds", "event.duration"), _OK
    ),
    SaslFailed: Shape(
        _AUTHENTICATION,
        ("end",),
        ("xmpp.sasl.attempt", "xmpp.sasl.rounds", "xmpp.error.condition_known", "event.duration"),
        _NO,
    ),
    SaslAborted: Shape(_AUTHENTICATION, ("end",), ("xmpp.sasl.attempt", "event.duration"), _NO),
    SaslMalformed: Shape(_AUTHENTICATION, ("info",), ("xmpp.sasl.problem", "xmpp.sasl.step"), _NO),
    ChannelBindingVerdict: Shape(
        _AUTHENTICATION,
        ("info",),
        ("xmpp.sasl.gs2_flag", "xproxy.channel_binding.prediction", "event.reason"),
    ),
    SaslDowngrade: Shape(("authentication", "intrusion_detection"), ("info",), ("xmpp.sasl.downgrade.kind",)),
    UpstreamTampering: Shape(
        ("authentication", "intrusion_detection"),
        ("info",),
        ("xproxy.tampering.kind", "xproxy.tampering.expected", "xproxy.tampering.signed"),
    ),
    ResourceBound: Shape(_SESSION, ("start",), ("xmpp.jid", "xmpp.jid_source"), _OK),
    BindFailed: Shape(_SESSION, ("start",), ("xmpp.error.condition_known",), _NO),
    SessionEstablished: Shape(_SESSION, ("start",), ("xmpp.session.how", "event.duration"), _OK),
    SmEnabled: Shape(_SESSION, ("info",), ("xmpp.sm.resumable",), _OK),
    SessionResumed: Shape(_SESSION, ("start",), ("xmpp.sm.id_hash",), _OK),
    SessionResumeFailed: Shape(_SESSION, ("start",), (), _NO),
    SmAnomaly: Shape(_SESSION, ("info",), ("xmpp.sent_by", "xmpp.sm.anomaly"), _NO),
    RegistrationSucceeded: Shape(_IAM, ("user", "creation"), ("event.duration",), _OK),
    RegistrationFailed: Shape(
        _IAM, ("user", "info"), ("event.duration", "xmpp.request.purpose", "xmpp.error.condition_known"), _NO
    ),
    PasswordChanged: Shape(_IAM, ("user", "change"), ("event.duration",), _OK),
    AccountRemoved: Shape(_IAM, ("user", "deletion"), ("event.duration",), _OK),
    FastTokenIssued: Shape(_IAM, ("user", "info"), ("xmpp.fast.requested",), _OK),
    IqTimeout: Shape(
        _NETWORK,
        _PROTOCOL,
        ("xmpp.request.sent_by", "xmpp.request.responder", "xmpp.request.age_ns", "xmpp.request.threshold_ns"),
        _NO,
    ),
    IqUnhandled: Shape(_NETWORK, _PROTOCOL, ("xmpp.sent_by", "xmpp.stanza.kind"), _NO),
    MucJoinFailed: Shape(_NETWORK, _PROTOCOL, ("xmpp.muc.kind", "xmpp.muc.by_actor", "event.reason"), _NO),
    ClientFailureSuspected: Shape(
        _NETWORK,
        _PROTOCOL,
        ("xmpp.suspicion.kind", "xmpp.suspicion.confidence", "xmpp.suspicion.occurrences"),
        ("unknown",),
    ),
    CarbonsForged: Shape(
        ("network", "intrusion_detection"), ("protocol", "info"), ("xmpp.sent_by", "xmpp.carbons.direction")
    ),
    DialbackResult: Shape(
        _AUTHENTICATION,
        ("info",),
        ("xmpp.sent_by", "xmpp.dialback.element", "xmpp.dialback.verdict"),
        ("success", "failure"),
    ),
    ComponentAuthenticated: Shape(_AUTHENTICATION, ("end",), ("event.duration",), _OK),
    ComponentRefused: Shape(_AUTHENTICATION, ("end",), ("xmpp.error.condition_known",), _NO),
    StanzaError: Shape(
        _NETWORK,
        _PROTOCOL,
        ("xmpp.sent_by", "xmpp.stanza.kind", "xmpp.error.condition_known", "xmpp.stanza.skeleton"),
        _NO,
    ),
    StanzaRelayed: Shape(_NETWORK, _PROTOCOL, ("xmpp.sent_by", "xmpp.stanza.kind", "xmpp.stanza.octets")),
    ProxyStarted: Shape(
        ("process",),
        ("start",),
        ("process.pid", "xproxy.upstream.address", "xproxy.upstream.verify", "xproxy.descriptors_max"),
        _OK,
        Scope.PROXY,
    ),
    ProxyStopped: Shape(
        ("process",), ("end",), ("event.reason", "xproxy.sessions_aborted"), ("success", "failure"), Scope.PROXY
    ),
    ConfigChanged: Shape(("configuration",), ("change",), (), ("success", "failure"), Scope.PROXY),
    CaptureStarted: Shape(
        ("configuration",), ("change",), ("xproxy.capture.directory", "xproxy.capture.bodies"), _OK, Scope.PROXY
    ),
    CaptureStopped: Shape(
        ("configuration",),
        ("change",),
        ("event.reason", "xproxy.capture.sessions", "xproxy.capture.sessions_lost", "xproxy.capture.bytes"),
        ("success", "failure"),
        Scope.PROXY,
    ),
    KeylogOpened: Shape(("configuration",), ("change",), ("xproxy.keylog.path",), _OK, Scope.PROXY),
    LimitReached: Shape(
        _NETWORK, ("info",), ("xproxy.limit.name", "xproxy.limit.value", "xproxy.limit.closes"), scope=Scope.EITHER
    ),
    JournalOpened: Shape(
        ("process",),
        ("info",),
        (
            "xproxy.journal.stream",
            "xproxy.journal.origin",
            "xproxy.journal.vkey",
            "xproxy.journal.segment",
            "xproxy.journal.index",
        ),
        _OK,
        Scope.PROXY,
    ),
    JournalCheckpoint: Shape(
        ("process",), ("info",), ("xproxy.journal.size",), scope=Scope.PROXY
    ),
    JournalRecovered: Shape(
        ("process",), ("info",), ("xproxy.journal.stream", "xproxy.journal.segment"), _OK, Scope.PROXY
    ),
    JournalGap: Shape(
        ("process",),
        ("info",),
        (
            "event.reason",
            "event.duration",
            "xproxy.journal.stream",
            "xproxy.journal.missing_records",
            "xproxy.journal.since",
        ),
        _NO,
        Scope.PROXY,
    ),
    JournalFailed: Shape(("process",), ("info",), ("event.reason", "xproxy.journal.stream"), _NO, Scope.PROXY),
    KeyRotated: Shape(
        ("configuration",),
        ("change",),
        ("xproxy.journal.stream", "xproxy.journal.vkey", "xproxy.journal.previous_vkey"),
        _OK,
        Scope.PROXY,
    ),
}  # fmt: skip

_ORDERLY = frozenset({CloseCause.STREAM_CLOSED, CloseCause.CLIENT_ENDED, CloseCause.SERVER_ENDED, CloseCause.SHUTDOWN})
_STREAM_TYPES = {"jabber:client": "c2s", "jabber:server": "s2s", "jabber:component:accept": "component"}


def level_name(level: Level) -> str:
    """Return the value of ``log.level``."""
    return level.name.lower()


def dataset_of(event_type: type[Event]) -> str:
    """Return ``event.dataset``: the group of the catalogue the action stands in."""
    return f"xproxy.{group_of(event_type)}"


def group_of(event_type: type[Event]) -> str:
    """Return the group of the catalogue: the module the class is in."""
    return event_type.__module__.rpartition(".")[2]


def facts_of(event: Event) -> Facts:
    """Return what ``event`` says, by dotted field name. None means not known."""
    # The frequent ones stand first: match tries one class after the other.
    match event:
        case StanzaRelayed():
            return {
                "xmpp.sent_by": event.sent_by.value,
                **_stanza(event.stanza),
                **_request(event.answers),
            }
        case StanzaError():
            return {
                "event.outcome": "failure",
                "xmpp.sent_by": event.sent_by.value,
                "error.code": event.condition,
                "error.type": event.type,
                "error.message": event.text,
                "xmpp.error.condition_known": event.condition_known,
                "xmpp.error.application_conditions": event.application_conditions,
                "xmpp.error.by": event.by,
                "xmpp.error.legacy_code": event.code,
                "xmpp.error.text_bytes": event.text_bytes,
                **_stanza(event.stanza),
                "xmpp.stanza.skeleton": event.skeleton,
                **_request(event.request),
            }
        case ConnectionAccepted():
            return {
                "event.outcome": "success",
                **client_facts(event.client, event.listener),
                **_way(event.way, event.balancer, event.destination),
                "xproxy.dialled.ip": event.dialled.ip if event.dialled is not None else None,
                "xproxy.dialled.port": event.dialled.port if event.dialled is not None else None,
            }
        case ConnectionRefused():
            return {
                "event.outcome": "failure",
                "event.reason": event.reason.value,
                **client_facts(event.client, event.listener),
                **_way(event.way, event.balancer, event.destination),
                "error.message": event.detail,
                "xproxy.limit.value": event.limit,
            }
        case ConnectionStalled():
            return {
                "xproxy.leg": event.leg.value,
                "xproxy.stall.waiting_bytes": event.waiting_bytes,
                "event.duration": _ns(event.seconds),
            }
        case ConnectionClosed():
            return {
                "event.outcome": "success" if event.cause in _ORDERLY else "failure",
                "event.reason": event.cause.value,
                "event.duration": event.duration_ns,
                "source.bytes": event.from_client.bytes,
                "client.bytes": event.from_client.bytes,
                "destination.bytes": event.from_server.bytes,
                "server.bytes": event.from_server.bytes,
                "network.bytes": event.from_client.bytes + event.from_server.bytes,
                "xproxy.initiator": event.initiator.value if event.initiator is not None else "proxy",
                **_totals("client", event.from_client),
                **_totals("server", event.from_server),
            }
        case UpstreamConnected():
            return {
                "event.outcome": "success",
                "event.duration": _ns(event.seconds),
                **server_facts(event.host, event.server),
                "xproxy.upstream.local.ip": event.local.ip,
                "xproxy.upstream.local.port": event.local.port,
                "xproxy.upstream.tls": event.tls.value,
                "xproxy.upstream.via": event.via.value,
                "xmpp.domain": event.domain,
                "xproxy.upstream.priority": event.priority,
                "xproxy.upstream.weight": event.weight,
                "xproxy.upstream.proxy_protocol": event.proxy_protocol,
                "xproxy.upstream.probe": event.probe or None,
            }
        case UpstreamFailed():
            return {
                "event.outcome": "failure",
                "event.reason": event.reason.value,
                "event.duration": _ns(event.seconds),
                "error.code": event.errno,
                "destination.ip": ip_of(event.host),  # before the address, which is then no host name
                "destination.address": event.host,
                "destination.port": event.port,
                "server.address": event.host,
                "server.port": event.port,
                "xmpp.domain": event.domain,
                "xproxy.upstream.tried": event.tried,
                "xproxy.upstream.refusing": event.refusing or None,
            }
        case UnsupportedTransport():
            return {"event.outcome": "failure", "xproxy.first_bytes": event.looks_like}
        case TlsEstablished():
            return {
                "event.outcome": "success",
                "event.duration": _ns(event.seconds),
                "xproxy.leg": event.leg.value,
                "tls.established": True,
                "tls.version": event.version,
                "tls.version_protocol": "tls",
                "tls.cipher": event.cipher,
                "tls.resumed": event.resumed,
                "tls.next_protocol": event.alpn,
                "tls.client.server_name": event.server_name,
                **_certificate(event.certificate),
                "xproxy.tls.direct": event.direct,
                "xproxy.tls.ja4": event.ja4,
                "xproxy.tls.verify": event.verify,
            }
        case TlsFailed():
            return {
                "event.outcome": "failure",
                "event.reason": event.reason.value,
                "event.duration": _ns(event.seconds),
                "error.code": event.reason.value,
                "error.message": event.detail,
                "xproxy.leg": event.leg.value,
                "tls.established": False,
                "tls.client.server_name": event.server_name,
                **_certificate(event.certificate),
                "xproxy.tls.direct": event.direct,
                "xproxy.tls.alert": event.alert,
                "xproxy.tls.alpn_offered": event.alpn,
                "xproxy.tls.ja4": event.ja4,
                "xproxy.tls.after_handshake": event.after_handshake or None,
            }
        case TlsPassthrough():
            sent, received = event.from_client_bytes, event.from_server_bytes
            return {
                "xproxy.tls.passthrough": True,
                "xproxy.tls.direct": event.direct,
                "xproxy.tls.ja4": event.ja4,
                "xproxy.tls.alpn_offered": event.alpn,
                "tls.client.server_name": event.server_name,
                "xproxy.passthrough.stage": event.stage,
                "xproxy.passthrough.refusal": event.refusal,
                "xproxy.passthrough.refused": timestamp(event.refused_at_ns),
                "xproxy.passthrough.expires": timestamp(event.expires_at_ns),
                "source.bytes": sent,
                "client.bytes": sent,
                "destination.bytes": received,
                "server.bytes": received,
                "network.bytes": None if sent is None or received is None else sent + received,
            }
        case StarttlsRequested():
            return {"xmpp.starttls.trailing_whitespace_bytes": event.trailing_whitespace}
        case StarttlsRefused():
            return {"event.outcome": "failure", "xmpp.starttls.answer": event.answer}
        case StarttlsInjection():
            return {
                "event.outcome": "failure",
                "xmpp.sent_by": event.sent_by.value,
                "xmpp.starttls.octets": event.octets,
            }
        case StarttlsStripped():
            return {"xmpp.domain": event.domain}
        case PlaintextAuthentication():
            return {
                "xmpp.sasl.mechanism": event.mechanism,
                "xmpp.starttls.offer": "offered" if event.starttls_offered else "none",
            }
        case CertificateChanged():
            return {
                "xmpp.domain": event.domain,
                **_certificate(event.certificate),
                "xproxy.tls.previous_sha256": event.previous_sha256.upper(),
            }
        case StreamOpened():
            return {
                "xmpp.sent_by": event.sent_by.value,
                "xmpp.stream.to": event.to,
                "xmpp.stream.from": event.from_,
                "xmpp.stream.has_id": event.has_id,
                "xmpp.stream.version": event.version,
                "xmpp.stream.lang": event.lang,
                "xmpp.stream.type": _STREAM_TYPES.get(event.content_namespace or ""),
                "xmpp.stream.content_namespace": event.content_namespace,
                "xmpp.stream.xml_declaration": event.xml_declaration,
            }
        case StreamRestarted():
            return {
                "event.reason": event.reason.value,
                "xmpp.sent_by": event.sent_by.value,
                "xmpp.stream.pipelined": event.pipelined,
                "xmpp.stream.to": event.to,
                "xmpp.stream.from": event.from_,
            }
        case StreamFeatures():
            return {
                "xmpp.stream.features": event.features,
                "xmpp.stream.stanza_bytes_max": event.stanza_bytes_max,
                "xmpp.stream.idle_seconds_max": event.idle_seconds_max,
                "xmpp.starttls.offer": event.starttls,
            }
        case StreamError():
            return {
                "event.outcome": "failure",
                "xmpp.sent_by": event.sent_by.value,
                "error.code": event.condition,
                "error.message": event.text,
                "xmpp.error.condition_known": event.condition_known,
                "xmpp.error.application_conditions": _one(event.application_condition),
                "xmpp.error.text_bytes": event.text_bytes,
            }
        case StreamClosed():
            return {"xmpp.sent_by": event.sent_by.value}
        case StreamViolation():
            return {
                "event.outcome": "failure",
                "event.reason": event.kind,
                "xmpp.sent_by": event.sent_by.value,
                "xmpp.violation.kind": event.kind,
                "xmpp.violation.offset": event.offset,
            }
        case InspectionLost():
            return {
                "event.outcome": "failure",
                "event.reason": event.reason,
                "xmpp.sent_by": event.sent_by.value,
                "xmpp.inspection.scope": event.scope.value,
                "xmpp.inspection.offset": event.offset,
                "xmpp.inspection.octets": event.octets,
                "xmpp.inspection.policy": event.policy,
            }
        case RedirectOffered():
            return {
                "xmpp.redirect.mechanism": event.mechanism,
                "xmpp.redirect.target": event.target,
                "xmpp.redirect.before_tls": event.before_tls,
            }
        case SaslOffered():
            return {
                "xmpp.sasl.profile": event.profile,
                "xmpp.sasl.offered": event.mechanisms,
                "xmpp.sasl.channel_bindings_offered": event.channel_bindings,
            }
        case SaslStarted():
            return {
                "event.outcome": "unknown",
                "xmpp.sasl.profile": event.profile,
                "xmpp.sasl.mechanism": event.mechanism,
                "xmpp.sasl.mechanism_offered": event.offered,
                "xmpp.sasl.attempt": event.attempt,
                "xmpp.sasl.authcid": event.authcid,
                "xmpp.sasl.authzid": event.authzid,
                "xmpp.sasl.gs2_flag": event.gs2_flag,
                "xmpp.sasl.channel_binding": event.channel_binding,
                "xmpp.sasl.initial_response_bytes": event.initial_response_bytes,
                "xmpp.sasl.encoding": event.encoding,
                "xmpp.sasl.user_agent_hash": event.user_agent_hash,
                "xmpp.sasl.software": event.software,
                "xmpp.sasl.inline": event.inline,
                "xmpp.fast.used": event.by_token or None,
                "xmpp.fast.invalidated": event.token_invalidated or None,
                "xmpp.fast.mechanism": event.token_requested,
            }
        case SaslSucceeded():
            return {
                "event.outcome": "success",
                "event.duration": event.duration_ns,
                "xmpp.sasl.mechanism": event.mechanism,
                "xmpp.sasl.attempt": event.attempt,
                "xmpp.sasl.authcid": event.authcid,
                "xmpp.sasl.authzid": event.authzid,
                "xmpp.sasl.rounds": event.rounds,
                "xmpp.sasl.iterations": event.iterations,
                "xmpp.sasl.tasks": event.tasks,
                "xmpp.sasl.authorization_id": event.authorization_id,
            }
        case SaslFailed():
            return {
                "event.outcome": "failure",
                "event.duration": event.duration_ns,
                "error.code": event.condition,
                "error.message": event.text,
                "xmpp.error.condition_known": event.condition_known,
                "xmpp.error.application_conditions": _one(event.application_condition),
                "xmpp.error.text_bytes": event.text_bytes,
                "xmpp.sasl.mechanism": event.mechanism,
                "xmpp.sasl.attempt": event.attempt,
                "xmpp.sasl.authcid": event.authcid,
                "xmpp.sasl.authzid": event.authzid,
                "xmpp.sasl.rounds": event.rounds,
                "xmpp.sasl.iterations": event.iterations,
                "xmpp.sasl.tasks": event.tasks,
                "xproxy.cause": event.cause,
            }
        case SaslAborted():
            return {
                "event.outcome": "failure",
                "event.duration": event.duration_ns,
                "event.reason": "aborted",
                "xmpp.sasl.mechanism": event.mechanism,
                "xmpp.sasl.attempt": event.attempt,
                "xmpp.sasl.authcid": event.authcid,
                "xmpp.sasl.rounds": event.rounds,
            }
        case SaslMalformed():
            return {
                "event.outcome": "failure",
                "event.reason": event.kind,
                "xmpp.sasl.mechanism": event.mechanism,
                "xmpp.sasl.problem": event.kind,
                "xmpp.sasl.step": event.step,
            }
        case ChannelBindingVerdict():
            return {
                "event.reason": event.reason,
                "xmpp.sasl.mechanism": event.mechanism,
                "xmpp.sasl.gs2_flag": event.gs2_flag,
                "xmpp.sasl.channel_binding": event.channel_binding,
                "xproxy.channel_binding.end_points_equal": event.end_points_equal,
                "xproxy.channel_binding.prediction": event.prediction,
            }
        case ResourceBound():
            return {
                "event.outcome": "success",
                "event.duration": event.duration_ns,
                "xmpp.jid": str(event.jid),
                "xmpp.jid_source": "bind-result",
                "xmpp.bind.resource_requested": event.resource_requested,
            }
        case BindFailed():
            return {
                "event.outcome": "failure",
                "error.code": event.condition,
                "error.message": event.text,
                "xmpp.error.condition_known": event.condition_known,
                "xmpp.error.text_bytes": event.text_bytes,
                "xmpp.bind.resource_requested": event.resource_requested,
            }
        case SessionEstablished():
            return {
                "event.outcome": "success",
                "event.duration": event.duration_ns,
                "xmpp.session.how": event.how,
            }
        case SmEnabled():
            return {
                "event.outcome": "success",
                "xmpp.sm.id_hash": event.id_hash,
                "xmpp.sm.resumable": event.resumable,
                "xmpp.sm.max_seconds": event.max_seconds,
                "xmpp.sm.has_location": event.has_location,
            }
        case SessionResumed():
            return {
                "event.outcome": "success",
                "event.duration": event.duration_ns,
                "xmpp.sm.id_hash": event.id_hash,
                "xmpp.sm.client_handled": event.client_handled,
                "xmpp.sm.server_handled": event.server_handled,
            }
        case SessionResumeFailed():
            return {
                "event.outcome": "failure",
                "error.code": event.condition,
                "xmpp.sm.id_hash": event.id_hash,
                "xmpp.sm.server_handled": event.server_handled,
            }
        case SmAnomaly():
            return {
                "event.outcome": "failure",
                "event.reason": event.kind,
                "error.code": event.condition,
                "xmpp.sent_by": event.sent_by.value,
                "xmpp.sm.anomaly": event.kind,
                "xmpp.sm.handled": event.handled,
                "xmpp.sm.sent": event.sent,
            }
        case SaslDowngrade():
            return {
                "xmpp.sasl.mechanism": event.mechanism,
                "xmpp.sasl.downgrade.kind": event.kind,
                "xmpp.sasl.downgrade.previous": event.previous,
                "xmpp.sasl.downgrade.missing": event.missing,
            }
        case UpstreamTampering():
            return {
                "xmpp.sasl.mechanism": event.mechanism,
                "xproxy.tampering.kind": event.kind,
                "xproxy.tampering.expected": event.expected,
                "xproxy.tampering.signed": event.signed,
            }
        case RegistrationSucceeded():
            return {
                "event.outcome": "success",
                "event.duration": event.duration_ns,
                "xmpp.request.purpose": "register",
                "xmpp.request.fields": event.fields,
            }
        case RegistrationFailed():
            return {
                "event.outcome": "failure",
                "event.duration": event.duration_ns,
                "error.code": event.condition,
                "error.type": event.type,
                "error.message": event.text,
                "xmpp.error.condition_known": event.condition_known,
                "xmpp.error.application_conditions": event.application_conditions,
                "xmpp.error.legacy_code": event.code,
                "xmpp.error.text_bytes": event.text_bytes,
                "xmpp.request.purpose": event.purpose,
                "xmpp.request.fields": event.fields,
            }
        case PasswordChanged():
            return {
                "event.outcome": "success",
                "event.duration": event.duration_ns,
                "xmpp.request.purpose": "password-change",
            }
        case AccountRemoved():
            return {
                "event.outcome": "success",
                "event.duration": event.duration_ns,
                "xmpp.request.purpose": "account-remove",
            }
        case FastTokenIssued():
            return {
                "event.outcome": "success",
                "xmpp.fast.requested": event.requested,
                "xmpp.fast.mechanism": event.mechanism,
                "xmpp.fast.expires": event.expires,
            }
        case IqTimeout():
            return {
                "event.outcome": "failure",
                **_request(event.request),
                "xmpp.request.responder": event.request.sent_by.other.value,
                "xmpp.request.id_hash": event.id_hash,
                "xmpp.request.peer": event.peer,
                "xmpp.request.threshold_ns": event.threshold_ns,
            }
        case IqUnhandled():
            return {
                "event.outcome": "failure",
                "xmpp.sent_by": "client",
                **_stanza(event.stanza),
                "xmpp.stanza.unhandled": event.payload,
                **_request(event.request),
            }
        case MucJoinFailed():
            return {
                "event.outcome": "failure",
                "event.reason": event.reason,
                "error.code": event.condition,
                "error.type": event.type,
                "xmpp.error.condition_known": event.condition_known,
                "xmpp.error.text_bytes": event.text_bytes,
                "xmpp.muc.kind": event.kind,
                "xmpp.muc.room": event.room,
                "xmpp.muc.status_codes": event.status_codes,
                "xmpp.muc.by_actor": event.by_actor,
            }
        case ClientFailureSuspected():
            return {
                "event.outcome": "unknown",
                "xmpp.suspicion.kind": event.kind,
                "xmpp.suspicion.confidence": event.confidence,
                "xmpp.suspicion.payload": event.payload,
                "xmpp.suspicion.fingerprint": event.fingerprint,
                "xmpp.suspicion.delay_ns": event.delay_ns,
                "xmpp.suspicion.occurrences": event.occurrences,
            }
        case CarbonsForged():
            return {
                "xmpp.sent_by": "server",
                "xmpp.carbons.direction": event.direction,
                **_stanza(event.stanza),
            }
        case DialbackResult():
            return {
                "event.outcome": "success" if event.verdict == "valid" else "failure",
                "error.code": event.condition,
                "xmpp.sent_by": event.sent_by.value,
                "xmpp.dialback.element": event.element,
                "xmpp.dialback.verdict": event.verdict,
                "xmpp.dialback.from": event.from_,
                "xmpp.dialback.to": event.to,
            }
        case ComponentAuthenticated():
            return {"event.outcome": "success", "event.duration": event.duration_ns, "xmpp.domain": event.domain}
        case ComponentRefused():
            return {
                "event.outcome": "failure",
                "event.duration": event.duration_ns,
                "error.code": event.condition,
                "xmpp.error.condition_known": event.condition_known,
                "xmpp.domain": event.domain,
            }
        case ProxyStarted():
            return {
                "event.outcome": "success",
                "process.pid": event.pid,
                "observer.version": event.version,
                "xproxy.listeners": [str(endpoint) for endpoint in event.listeners],
                "xproxy.upstream.address": event.upstream,
                "xproxy.upstream.verify": event.upstream_verify,
                "xproxy.certificate": event.certificate,
                "xproxy.on_client_reject": event.on_client_reject,
                "xproxy.descriptors_max": event.descriptors_max,
                "xproxy.sessions_max": event.sessions_max,
            }
        case ProxyStopped():
            return {
                "event.outcome": "success" if event.sessions_aborted == 0 else "failure",
                "event.reason": event.reason,
                "xproxy.sessions_aborted": event.sessions_aborted,
            }
        case ConfigChanged():
            return {
                "event.outcome": "success" if event.problem is None else "failure",
                "xproxy.config.changed": event.what,
                "xproxy.config.applied": event.applied or None,
                "xproxy.config.kept": event.kept or None,
                "xproxy.config.needs_restart": event.needs_restart or None,
                "xproxy.control.uid": event.by_uid,
                "xproxy.control.pid": event.by_pid,
                "error.message": event.problem,
            }
        case CaptureStarted():
            return {
                "event.outcome": "success",
                "xproxy.capture.directory": event.directory,
                "xproxy.capture.bodies": event.bodies,
                "xproxy.capture.jid": event.jid,
                "xproxy.capture.net": event.net,
                "xproxy.capture.actions": event.actions,
                "xproxy.control.uid": event.by_uid,
                "xproxy.control.pid": event.by_pid,
            }
        case CaptureStopped():
            return {
                "event.outcome": "success" if event.reason in ("asked", "shutdown") else "failure",
                "event.reason": event.reason,
                "error.message": event.problem,
                "xproxy.capture.sessions": event.sessions,
                "xproxy.capture.sessions_lost": event.sessions_lost,
                "xproxy.capture.bytes": event.bytes,
                "xproxy.control.uid": event.by_uid,
                "xproxy.control.pid": event.by_pid,
            }
        case KeylogOpened():
            return {"event.outcome": "success", "xproxy.keylog.path": event.path}
        case LimitReached():
            return {
                "xproxy.limit.name": event.limit,
                "xproxy.limit.value": event.value,
                "xproxy.limit.offset": event.offset,
                "xproxy.limit.closes": event.closes,
                "xmpp.sent_by": event.sent_by.value if event.sent_by is not None else None,
            }
        case JournalOpened():
            return {
                "event.outcome": "success",
                "xproxy.journal.stream": event.stream,
                "xproxy.journal.origin": event.origin,
                "xproxy.journal.vkey": event.vkey,
                "xproxy.journal.segment": event.segment,
                "xproxy.journal.index": event.index,
            }
        case JournalCheckpoint():
            return {
                "xproxy.journal.note": event.note,
                "xproxy.journal.size": event.size,
                "xproxy.journal.ops_note": event.ops_note,
                "xproxy.journal.clock_back_ns": event.clock_back_ns,
            }
        case JournalRecovered():
            return {
                "event.outcome": "success",
                "xproxy.journal.stream": event.stream,
                "xproxy.journal.segment": event.segment,
                "xproxy.journal.unsigned_from": event.unsigned_from,
                "xproxy.journal.unsigned_count": event.unsigned_count,
                "xproxy.journal.torn_bytes": event.torn_bytes,
                "xproxy.journal.torn_segments": event.torn_segments,
            }
        case JournalGap():
            return {
                "event.outcome": "failure",
                "event.reason": event.reason,
                "event.duration": event.duration_ns,
                "xproxy.journal.stream": event.stream,
                "xproxy.journal.missing_records": event.records,
                "xproxy.journal.missing": event.counts,
                "xproxy.journal.since": timestamp(event.since_ns),
            }
        case JournalFailed():
            return {
                "event.outcome": "failure",
                "event.reason": event.reason,
                "error.code": event.error,
                "xproxy.journal.stream": event.stream,
                "xproxy.journal.segment": event.segment,
                "xproxy.journal.index": event.index,
            }
        case KeyRotated():
            return {
                "event.outcome": "success",
                "xproxy.journal.stream": event.stream,
                "xproxy.journal.vkey": event.vkey,
                "xproxy.journal.previous_vkey": event.previous_vkey,
            }
        case _:
            assert_never(event)


def client_facts(client: Endpoint, listener: Endpoint) -> dict[str, Value]:
    """Return who the client is and which address it dialled."""
    return {
        "source.ip": client.ip,
        "source.port": client.port,
        "source.address": client.ip,
        "client.ip": client.ip,
        "client.port": client.port,
        "client.address": client.ip,
        "network.type": "ipv6" if ":" in client.ip else "ipv4",
        "xproxy.listener.ip": listener.ip,
        "xproxy.listener.port": listener.port,
    }


def _way(way: WayIn, balancer: Endpoint | None, destination: str | None) -> dict[str, Value]:
    """How a client came in; nothing to say for a plain connection."""
    return {
        "xproxy.way": way.value if way is not WayIn.PLAIN else None,
        "xproxy.balancer.ip": balancer.ip if balancer is not None else None,
        "xproxy.balancer.port": balancer.port if balancer is not None else None,
        "xproxy.requested": destination,
    }


def server_facts(host: str, server: Endpoint) -> dict[str, Value]:
    """Return which server is behind the proxy: ``host`` as configured, and its address."""
    return {
        "destination.ip": server.ip,  # before the address, which is then no host name
        "destination.port": server.port,
        "destination.address": host,
        "server.ip": server.ip,
        "server.port": server.port,
        "server.address": host,
    }


def _certificate(certificate: CertificateFacts | None) -> dict[str, Value]:
    if certificate is None:
        return {}
    return {
        "tls.server.hash.sha256": certificate.sha256.upper(),  # ECS wants hashes here in upper case
        "tls.server.x509.subject.common_name": _one(certificate.subject_common_name),
        "tls.server.x509.issuer.distinguished_name": certificate.issuer,
        "tls.server.x509.serial_number": certificate.serial_number,
        "tls.server.x509.not_before": certificate.not_before,
        "tls.server.x509.not_after": certificate.not_after,
        "tls.server.x509.alternative_names": certificate.alternative_names,
        "xproxy.tls.end_point_hash": certificate.end_point_hash,
    }


def _stanza(stanza: StanzaFacts) -> dict[str, Value]:
    return {
        "xmpp.stanza.kind": stanza.kind,
        "xmpp.stanza.type": stanza.type,
        "xmpp.stanza.id_hash": stanza.id_hash,
        "xmpp.stanza.to": stanza.to,
        "xmpp.stanza.from": stanza.from_,
        "xmpp.stanza.payloads": stanza.payloads,
        "xmpp.stanza.octets": stanza.octets,
    }


def _request(request: RequestFacts | None) -> dict[str, Value]:
    if request is None:
        return {}
    return {
        "xmpp.request.sent_by": request.sent_by.value,
        "xmpp.request.type": request.type,
        "xmpp.request.payload": request.payload,
        "xmpp.request.age_ns": request.age_ns,
        "xmpp.request.purpose": request.purpose,
        "xmpp.request.fields": request.fields,
        "xmpp.request.late": request.late or None,
    }


def _totals(side: str, totals: DirectionTotals) -> dict[str, Value]:
    prefix = f"xproxy.from_{side}"
    return {
        f"{prefix}.stanzas": totals.stanzas,
        f"{prefix}.messages": totals.messages,
        f"{prefix}.presences": totals.presences,
        f"{prefix}.iqs": totals.iqs,
        f"{prefix}.acks": totals.acks or None,
        f"{prefix}.late_answers": totals.late_answers or None,
        f"{prefix}.orphan_answers": totals.orphan_answers or None,
        f"{prefix}.errors": totals.errors,
        f"{prefix}.closing_tag": totals.closing_tag,
        f"{prefix}.end": totals.end.value if totals.end is not None else None,
        f"{prefix}.last_element": totals.last_element,
        f"{prefix}.last_element_age_ms": totals.last_element_age_ms,
    }


def _one(item: str | None) -> tuple[str, ...]:
    return () if item is None else (item,)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


assert SHAPES.keys() == set(EVENT_TYPES), "every event has a shape"
