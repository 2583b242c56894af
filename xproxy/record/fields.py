"""Every field a record can have: the one source of documents, of the JSON Schema and of their limits.

A document can only be written through this table (``document.py``), so a key can never come from a peer, every text has
its limit, and what is not listed here cannot be logged. Fields outside ``xmpp.*`` and ``xproxy.*`` are those of ECS
9.4.0 with the same type and array-ness; a test compares them with ECS's own table.
"""

import enum
from typing import Final

import attrs

ECS_VERSION: Final = "9.4.0"
TEXT_BYTES_MAX: Final = 1_024  # Elasticsearch does not index longer keywords (ignore_above of ECS's templates)
SERVER_TEXT_BYTES_MAX: Final = 256  # a server's error texts: enough for a sentence, too little to smuggle
NAME_BYTES_MAX: Final = 512  # "{namespace}name"
JID_BYTES_MAX: Final = 3_071  # three parts of 1 023 octets and two separators (RFC 7622 section 3.1)
SKELETON_BYTES_MAX: Final = 4_096
ITEMS_MAX: Final = 64  # of a list: no server offers so many mechanisms or features


class Type(enum.Enum):
    """ECS field types that are used (their Elasticsearch names)."""

    KEYWORD = "keyword"
    TEXT = "match_only_text"
    LONG = "long"
    BOOLEAN = "boolean"
    DATE = "date"
    IP = "ip"


class Identity(enum.Enum):
    """What a field may tell about a person or a machine: what ``identities.py`` covers, and how."""

    JID = "jid"  # localpart and resource of a user, a room, an occupant; the domain is a server's
    USER = "user"  # a user name, or a JID where one is expected
    RESOURCE = "resource"
    USER_HASH = "user-hash"  # made of a bare JID, never the JID itself
    DEVICE = "device"
    IP = "ip"
    HOST = "host"  # the name of a server, or its address
    TEXT = "text"  # free text that may quote one
    SKELETON = "skeleton"
    OWN = "own"  # of the proxy's configuration: no pseudonyms, but addresses all the same


@attrs.frozen(kw_only=True)
class Field:
    """One leaf of the document tree."""

    name: str  # dotted
    type: Type
    array: bool
    max_bytes: int  # of each text, in UTF-8
    related: str | None  # values are repeated in related.<this>
    meaning: str  # for people; empty: as ECS defines it
    parent: tuple[str, ...]  # path of the object the leaf is in
    key: str  # its name there
    identity: Identity | None  # what it tells of a person or machine

    @property
    def is_custom(self) -> bool:
        """True for our own fields, which ECS does not know."""
        return self.parent[:1] in {("xmpp",), ("xproxy",)}


FIELDS: Final[dict[str, Field]] = {}


def _field(
    name: str,
    type_: Type,
    meaning: str = "",
    *,
    array: bool = False,
    max_bytes: int = TEXT_BYTES_MAX,
    related: str | None = None,
    identity: Identity | None = None,
) -> None:
    assert name not in FIELDS
    *parent, key = name.split(".")
    FIELDS[name] = Field(
        name=name,
        type=type_,
        array=array,
        max_bytes=max_bytes,
        related=related,
        meaning=meaning,
        parent=tuple(parent),
        key=key,
        identity=identity,
    )


_K, _T, _L, _B, _D, _I = Type.KEYWORD, Type.TEXT, Type.LONG, Type.BOOLEAN, Type.DATE, Type.IP
_JID, _USER, _HOST, _OWN = Identity.JID, Identity.USER, Identity.HOST, Identity.OWN

# The envelope.
_field("@timestamp", _D, "UTC, microseconds")
_field("log.level", _K)
_field("message", _T, "a constant sentence for each action; never holds what a peer sent")
_field("ecs.version", _K)
_field("event.id", _K, "<trace.id>-<n>, or <service.ephemeral_id>-<n> for events of the proxy itself")
_field("event.kind", _K)
_field("event.category", _K, array=True)
_field("event.type", _K, array=True)
_field("event.action", _K)
_field("event.outcome", _K)
_field("event.dataset", _K)
_field("event.module", _K)
_field("event.severity", _L, "10 debug, 20 info, 30 warning, 40 error, 50 critical")
_field("event.duration", _L, "nanoseconds")
_field("event.reason", _K)
_field(
    "event.sequence", _L, "index in the journal: the leaf's number in its tree, of ops for debug records, else of sec"
)
_field("trace.id", _K, "the proxied session: both legs, all its streams")
for _name in ("type", "vendor", "product", "version", "hostname"):
    _field(f"observer.{_name}", _K)
_field("service.name", _K)
_field("service.node.name", _K)
_field("service.ephemeral_id", _K, "this run of the proxy")
for _name in ("user", "hosts", "hash"):
    _field(f"related.{_name}", _K, array=True)
_field("related.ip", _I, array=True)
_field("process.pid", _L)

# Who talks to whom. The client's address is the source, the upstream server the destination.
for _peer in ("source", "client", "destination", "server"):
    _field(f"{_peer}.ip", _I, related="ip", identity=Identity.IP)
    _field(f"{_peer}.port", _L)
    _field(f"{_peer}.address", _K, related="hosts" if _peer in {"destination", "server"} else None, identity=_HOST)
    _field(f"{_peer}.bytes", _L)
    if _peer in {"destination", "server"}:
        _field(f"{_peer}.domain", _K, related="hosts", identity=_HOST)
_field("network.transport", _K)
_field("network.protocol", _K)
_field("network.type", _K)
_field("network.bytes", _L)
_field("user.name", _K, related="user", identity=_USER)
_field("user.domain", _K, related="hosts", identity=_JID)
_field("user.hash", _K, "keyed hash of the bare JID, with pseudonyms only", related="hash", identity=Identity.USER_HASH)
_field("error.code", _K, "a condition of RFC 6120 as sent, a TLS failure, or an errno")
_field("error.type", _K, "type of a stanza error, as sent")
_field(
    "error.message",
    _T,
    "the server's own text, or ours; never a client's",
    max_bytes=SERVER_TEXT_BYTES_MAX,
    identity=Identity.TEXT,
)

# TLS of one leg: see xproxy.leg. Without it: the client leg.
_field("tls.established", _B)
_field("tls.resumed", _B)
_field("tls.version", _K)
_field("tls.version_protocol", _K)
_field("tls.cipher", _K)
_field("tls.next_protocol", _K)
_field("tls.client.server_name", _K, related="hosts", identity=_HOST)
_field("tls.server.hash.sha256", _K, related="hash")
_field("tls.server.x509.subject.common_name", _K, array=True, identity=_HOST)
_field("tls.server.x509.issuer.distinguished_name", _K, identity=_OWN)
_field("tls.server.x509.serial_number", _K)
_field("tls.server.x509.not_before", _D)
_field("tls.server.x509.not_after", _D)
_field("tls.server.x509.alternative_names", _K, array=True, identity=_HOST)

# XMPP.
_field("xmpp.jid", _K, "the best known address of the client", max_bytes=JID_BYTES_MAX, identity=_JID)
_field("xmpp.jid_source", _K, "how far it is proven: stream-from, sasl-claimed, sasl-success, bind-result, resumed")
_field("xmpp.domain", _K, "the XMPP domain the event is about", related="hosts", identity=_HOST)
_field("xmpp.delegate", _K, "XMPPStreamDelegate methods that an XMPPFramework app sees called for it", array=True)
_field("xmpp.sent_by", _K, "direction: who sent it, client or server")
_field("xmpp.stream.to", _K, "as sent", max_bytes=JID_BYTES_MAX, identity=_JID)
_field("xmpp.stream.from", _K, "as sent", max_bytes=JID_BYTES_MAX, identity=_JID)
_field("xmpp.stream.has_id", _B)
_field("xmpp.stream.version", _K)
_field("xmpp.stream.lang", _K)
_field("xmpp.stream.type", _K, "c2s, s2s or component, by the content namespace")
_field("xmpp.stream.content_namespace", _K, max_bytes=NAME_BYTES_MAX)
_field("xmpp.stream.xml_declaration", _B)
_field("xmpp.stream.pipelined", _B, "sent before the answer that allows it was seen")
_field("xmpp.stream.features", _K, "{namespace}name of each", array=True, max_bytes=NAME_BYTES_MAX)
_field("xmpp.stream.stanza_bytes_max", _L, "XEP-0478")
_field("xmpp.stream.idle_seconds_max", _L, "XEP-0478")
_field("xmpp.starttls.offer", _K, "none, offered or required")
_field("xmpp.starttls.answer", _K, "{namespace}name of what came instead of proceed", max_bytes=NAME_BYTES_MAX)
_field("xmpp.starttls.octets", _L, "octets found between cleartext and TLS")
_field("xmpp.starttls.trailing_whitespace_bytes", _L)
_field("xmpp.error.condition_known", _B, "error.code is one the standard defines")
_field("xmpp.error.application_conditions", _K, "{namespace}name", array=True, max_bytes=NAME_BYTES_MAX)
_field("xmpp.error.by", _K, "who says it raised the error", max_bytes=JID_BYTES_MAX, identity=_JID)
_field("xmpp.error.legacy_code", _K)
_field("xmpp.error.text_bytes", _L, "length of the error's text, whoever wrote it")
_field("xmpp.violation.kind", _K)
_field("xmpp.violation.offset", _L, "octets of that direction before the place it was noticed")
_field("xmpp.inspection.scope", _K, "element or stream")
_field("xmpp.inspection.offset", _L)
_field("xmpp.inspection.octets", _L, "of the element that was not inspected")
_field("xmpp.inspection.policy", _K, "what was done: relay or close")
_field("xmpp.redirect.mechanism", _K)
_field("xmpp.redirect.target", _K, related="hosts", identity=_HOST)
_field("xmpp.redirect.before_tls", _B)
_field("xmpp.sasl.profile", _K)
_field("xmpp.sasl.offered", _K, "mechanisms in the order sent", array=True, max_bytes=128)
_field("xmpp.sasl.channel_bindings_offered", _K, "XEP-0440", array=True, max_bytes=128)
_field("xmpp.sasl.mechanism", _K, "as sent, may be unregistered", max_bytes=128)
_field("xmpp.sasl.mechanism_offered", _B)
_field("xmpp.sasl.attempt", _L, "on this connection, from 1")
_field("xmpp.sasl.authcid", _K, "as claimed, verbatim", related="user", identity=_USER)
_field("xmpp.sasl.authzid", _K, "as claimed, verbatim", max_bytes=JID_BYTES_MAX, identity=_USER)
_field("xmpp.sasl.gs2_flag", _K, "n, y or p (RFC 5802 section 6)")
_field("xmpp.sasl.channel_binding", _K, "the type the client bound to", max_bytes=128)
_field("xmpp.sasl.initial_response_bytes", _L)
_field("xmpp.sasl.encoding", _K, "of the payload: strict, whitespace, noncanonical or invalid base64")
_field("xmpp.sasl.rounds", _L, "challenges sent by the server")
_field("xmpp.sasl.iterations", _L, "SCRAM's iteration count")
_field("xmpp.sasl.problem", _K)
_field("xmpp.sasl.step", _L, "0: the initial response")
_field(
    "xmpp.sasl.user_agent_hash",
    _K,
    "keyed hash of the device's id (XEP-0388)",
    related="hash",
    identity=Identity.DEVICE,
)
_field("xmpp.sasl.software", _K, "the client program's own name (XEP-0388)", max_bytes=512)
_field("xmpp.sasl.inline", _K, "{namespace}name of what was asked for with it", array=True, max_bytes=NAME_BYTES_MAX)
_field("xmpp.sasl.tasks", _K, "done besides, such as a second factor (XEP-0388)", array=True, max_bytes=128)
_field(
    "xmpp.sasl.authorization_id", _K, "what the server says the login is for", max_bytes=JID_BYTES_MAX, identity=_JID
)
_field("xmpp.sasl.downgrade.kind", _K, "plain-without-tls, weaker-than-offered, weaker-than-before, offer-shrunk")
_field("xmpp.sasl.downgrade.previous", _K, "mechanism the same user and client used before", max_bytes=128)
_field("xmpp.sasl.downgrade.missing", _K, "mechanisms offered before and not now", array=True, max_bytes=128)
_field("xmpp.fast.used", _B, "a token in place of the password (XEP-0484)")
_field("xmpp.fast.invalidated", _B, "and it is not to be valid any more")
_field("xmpp.fast.requested", _B, "the client asked for the token")
_field("xmpp.fast.mechanism", _K, "the mechanism a token is wanted for", max_bytes=128)
_field("xmpp.fast.expires", _D, "as the server says")
_field("xmpp.bind.resource_requested", _K, identity=Identity.RESOURCE)
_field("xmpp.session.how", _K, "bind or resume")
_field("xmpp.sm.id_hash", _K, "keyed hash of the resumption id; joins resumed sessions", related="hash")
_field("xmpp.sm.resumable", _B)
_field("xmpp.sm.max_seconds", _L)
_field("xmpp.sm.has_location", _B)
_field("xmpp.sm.client_handled", _L, "h of <resume/>")
_field("xmpp.sm.server_handled", _L, "h of <resumed/>, <failed/>")
_field("xmpp.sm.anomaly", _K)
_field("xmpp.sm.handled", _L)
_field("xmpp.sm.sent", _L)
_field("xmpp.stanza.kind", _K, "iq, message, presence; other for an unknown first-level element")
_field("xmpp.stanza.type", _K, "as sent")
_field("xmpp.stanza.id_hash", _K, "keyed hash of the id")
_field("xmpp.stanza.to", _K, "as sent", max_bytes=JID_BYTES_MAX, identity=_JID)
_field("xmpp.stanza.from", _K, "as sent", max_bytes=JID_BYTES_MAX, identity=_JID)
_field("xmpp.stanza.payloads", _K, "{namespace}name of each child", array=True, max_bytes=NAME_BYTES_MAX)
_field("xmpp.stanza.octets", _L)
_field("xmpp.stanza.unhandled", _K, "{namespace}name that no part of the app handled", max_bytes=NAME_BYTES_MAX)
_field(
    "xmpp.stanza.skeleton",
    _K,
    "names, allow-listed values and lengths",
    max_bytes=SKELETON_BYTES_MAX,
    identity=Identity.SKELETON,
)
_field("xmpp.request.sent_by", _K, "of the request this stanza answers: client or server")
_field("xmpp.request.type", _K)
_field("xmpp.request.payload", _K, "{namespace}name of its first child", max_bytes=NAME_BYTES_MAX)
_field("xmpp.request.age_ns", _L)
_field("xmpp.request.purpose", _K, "what it is for, where known: register, roster-get, block, upload-slot ...")
_field("xmpp.request.fields", _K, "of a registration: names of the fields filled in", array=True, max_bytes=64)
_field("xmpp.request.late", _B, "it had been given up: its iq-timeout is in the log")
_field("xmpp.request.responder", _K, "who is to answer: client or server")
_field("xmpp.request.id_hash", _K, "keyed hash of the id")
_field("xmpp.request.peer", _K, "who is to answer, as sent", max_bytes=JID_BYTES_MAX, identity=_JID)
_field("xmpp.request.threshold_ns", _L, "how long was waited for the answer")
_field("xmpp.muc.kind", _K, "join-refused, kicked, banned or removed")
_field("xmpp.muc.room", _K, "as sent", max_bytes=JID_BYTES_MAX, identity=_JID)
_field("xmpp.muc.status_codes", _K, "XEP-0045 section 15.6", array=True, max_bytes=8)
_field("xmpp.muc.by_actor", _B, "somebody did it, and is named in the stanza")
_field("xmpp.suspicion.kind", _K)
_field("xmpp.suspicion.confidence", _K, "low, medium or high")
_field("xmpp.suspicion.payload", _K, "{namespace}name of what was delivered last", max_bytes=NAME_BYTES_MAX)
_field("xmpp.suspicion.fingerprint", _K, "of its structure, never its content", related="hash")
_field("xmpp.suspicion.delay_ns", _L, "from delivery to the end")
_field("xmpp.suspicion.occurrences", _L, "how often this shape was followed by this")
_field("xmpp.carbons.direction", _K, "sent or received: what it claims to be a copy of")
_field("xmpp.dialback.element", _K, "result: on the stream; verify: on a key")
_field("xmpp.dialback.verdict", _K, "valid, invalid or error")
_field("xmpp.dialback.from", _K, "as sent", max_bytes=JID_BYTES_MAX, identity=_JID)
_field("xmpp.dialback.to", _K, "as sent", max_bytes=JID_BYTES_MAX, identity=_JID)

# The proxy.
_field("xproxy.leg", _K, "our connection to the client, or to the server")
_field("xproxy.listener.ip", _I, "our end of the client's connection, or of its balancer's", identity=Identity.IP)
_field("xproxy.listener.port", _L)
_field("xproxy.way", _K, "how the client came in: proxy-protocol, socks5, redirect or tproxy; absent: directly")
_field(
    "xproxy.balancer.ip", _I, "where the connection comes from, which is not the client itself", identity=Identity.IP
)
_field("xproxy.balancer.port", _L)
_field("xproxy.dialled.ip", _I, "the address the client dialled, where it is not xproxy.listener", identity=Identity.IP)
_field("xproxy.dialled.port", _L)
_field("xproxy.requested", _K, "HOST:PORT the client wants to be taken to", identity=_HOST)
_field(
    "xproxy.upstream.local.ip",
    _I,
    "our end of the server leg: what the server sees as its client",
    identity=Identity.IP,
)
_field("xproxy.upstream.local.port", _L)
_field("xproxy.upstream.address", _K, "as configured", identity=_OWN)
_field("xproxy.upstream.tls", _K, "how TLS begins on the server leg: starttls, direct or none")
_field("xproxy.upstream.via", _K, "what led to the server: configured, original, srv or fallback (no SRV record)")
_field("xproxy.upstream.priority", _L, "of the SRV record")
_field("xproxy.upstream.weight", _L, "of the SRV record")
_field("xproxy.upstream.tried", _L, "addresses that were tried")
_field("xproxy.upstream.proxy_protocol", _K, "version of the header that told the server the client's address")
_field("xproxy.upstream.refusing", _B, "clients are refused at accept from now on, until the server is up again")
_field("xproxy.upstream.probe", _B, "by the proxy itself: clients are let in again")
_field("xproxy.upstream.verify", _K, "of the configuration (full, none), or this session's verdict: ok, off, ...")
_field("xproxy.tls.direct", _B, "TLS from the first byte (XEP-0368)")
_field("xproxy.tls.ja4", _K, "fingerprint of the client's TLS hello", related="hash")
_field("xproxy.tls.verify", _K, "verdict on the server's certificate")
_field("xproxy.tls.alert", _K, "name of the TLS alert")
_field("xproxy.tls.after_handshake", _B, "given up by the peer when our side of the handshake was done")
_field("xproxy.tls.passthrough", _B, "the session is relayed undecrypted")
_field("xproxy.tls.alpn_offered", _K, "protocols the client offered", array=True, max_bytes=255)
_field("xproxy.tls.end_point_hash", _K, "tls-server-end-point data (RFC 5929 section 4), hex")
_field("xproxy.on_client_reject", _K, "close; or passthrough: who refuses our certificate is relayed undecrypted")
_field("xproxy.passthrough.stage", _K, "begin or end")
_field("xproxy.passthrough.refusal", _K, "the alert with which the client refused our certificate, or closed")
_field("xproxy.passthrough.refused", _D, "when it did")
_field("xproxy.passthrough.expires", _D, "sessions that begin later are decrypted again")
_field("xproxy.tls.previous_sha256", _K, "certificate of the last session to that domain", related="hash")
_field("xproxy.channel_binding.end_points_equal", _B)
_field("xproxy.channel_binding.prediction", _K, "succeeds, fails or unknown")
_field("xproxy.tampering.kind", _K, "what was changed on the way: offer (XEP-0474) or tls-version (XEP-0515)")
_field("xproxy.tampering.expected", _K, "computed from what arrived")
_field("xproxy.tampering.signed", _K, "what the server signed")
_field("xproxy.cause", _K, "what the proxy knows about the reason")
_field("xproxy.initiator", _K, "who ended the session: client, server or proxy")
_field("xproxy.first_bytes", _K, "protocol the first bytes look like")
_field("xproxy.stall.waiting_bytes", _L)
for _peer in ("client", "server"):
    _field(f"xproxy.from_{_peer}.stanzas", _L)
    _field(f"xproxy.from_{_peer}.messages", _L)
    _field(f"xproxy.from_{_peer}.presences", _L)
    _field(f"xproxy.from_{_peer}.iqs", _L)
    _field(f"xproxy.from_{_peer}.acks", _L, "of stream management, and requests for them")
    _field(f"xproxy.from_{_peer}.late_answers", _L, "to requests that had been given up")
    _field(f"xproxy.from_{_peer}.orphan_answers", _L, "to requests that nobody sent, or that were forgotten")
    _field(f"xproxy.from_{_peer}.errors", _L, "stanzas of type error")
    _field(f"xproxy.from_{_peer}.closing_tag", _B)
    _field(f"xproxy.from_{_peer}.end", _K, "close_notify, truncated or reset; absent: we closed first")
    _field(f"xproxy.from_{_peer}.last_element", _K, "{namespace}name", max_bytes=NAME_BYTES_MAX)
    _field(f"xproxy.from_{_peer}.last_element_age_ms", _L)
_field("xproxy.limit.name", _K, "the key in the configuration")
_field("xproxy.limit.value", _L)
_field("xproxy.limit.offset", _L, "octets of that direction before the place it was noticed")
_field("xproxy.limit.closes", _B, "the session ends for it")
_field("xproxy.listeners", _K, "HOST:PORT", array=True, identity=_OWN)
_field("xproxy.certificate", _K, "what clients see: ca or files")
_field("xproxy.descriptors_max", _L)
_field("xproxy.sessions_max", _L)
_field("xproxy.sessions_aborted", _L)
_field("xproxy.config.changed", _K, array=True)
_field("xproxy.config.applied", _K, "of a change of several parts, those that were done", array=True)
_field("xproxy.config.kept", _K, "those that were not, and are as before", array=True)
_field("xproxy.config.needs_restart", _K, "keys that differ and are only read at the start", array=True)
_field("xproxy.control.uid", _L, "user id of the process that asked for it at the control socket")
_field("xproxy.control.pid", _L, "its process id")
_field("xproxy.capture.directory", _K, "where captures are written", max_bytes=NAME_BYTES_MAX)
_field("xproxy.capture.bodies", _B, "what people say to each other is in the captures")
_field("xproxy.capture.jid", _K, "only sessions of this account are captured", identity=_JID)
_field("xproxy.capture.net", _K, "only clients of this network", identity=_OWN)
_field("xproxy.capture.actions", _K, "only sessions in which one of these is recorded", array=True)
_field("xproxy.capture.sessions", _L, "that have a file")
_field("xproxy.capture.sessions_lost", _L, "cut off by a limit, or because the disk was too slow")
_field("xproxy.capture.bytes", _L)
_field("xproxy.keylog.path", _K, "the file of TLS session keys", max_bytes=NAME_BYTES_MAX)
_field("xproxy.journal.stream", _K, "sec, or ops for debug records")
_field("xproxy.journal.origin", _K, "which log: the name its keys sign under")
_field("xproxy.journal.vkey", _K, "the verifier key in force (C2SP signed-note)")
_field("xproxy.journal.previous_vkey", _K, "the one before")
_field("xproxy.journal.segment", _K, "name of a segment's file")
_field("xproxy.journal.index", _L, "of an entry: as event.sequence")
_field("xproxy.journal.size", _L, "entries the note covers")
_field("xproxy.journal.note", _K, "a signed note (C2SP), its lines without the empty one", array=True)
_field("xproxy.journal.ops_note", _K, "likewise, of the stream ops", array=True)
_field("xproxy.journal.clock_back_ns", _L, "the wall clock was set back by this much")
_field("xproxy.journal.unsigned_from", _L, "first entry that no note covered at the crash")
_field("xproxy.journal.unsigned_count", _L)
_field("xproxy.journal.torn_bytes", _L, "behind the last whole entry, zeros not counted")
_field("xproxy.journal.torn_segments", _K, "files that hold no log", array=True)
_field("xproxy.journal.missing_records", _L, "that are not in the journal")
_field("xproxy.journal.missing", _K, "action, outcome and count of them", array=True)
_field("xproxy.journal.since", _D, "when the first of them was made")
_field("xproxy.identities.mode", _K, "pseudonym or omit; absent: identities are as they are")
_field("xproxy.identities.key_id", _K, "the month's key of the pseudonyms; of two keys they cannot be compared")
_field("xproxy.truncated", _K, "fields that were cut to their limit", array=True)
