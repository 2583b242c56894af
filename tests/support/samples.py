"""One event of every class: with every field set, and with nothing that may be missing."""

import types
import typing
from typing import Any

import attrs

from xproxy.events import EVENT_TYPES, EndOfInput, Endpoint, Event, Side
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
    RefusalReason,
    ServerTls,
    UnsupportedTransport,
    UpstreamConnected,
    UpstreamFailed,
    UpstreamFailure,
    Via,
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
    LossScope,
    RedirectOffered,
    RestartReason,
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
    TlsFailure,
    TlsPassthrough,
)
from xproxy.jid import Jid

CLIENT = Endpoint("192.0.2.7", 40122)
LISTENER = Endpoint("198.51.100.1", 5222)
BALANCER = Endpoint("198.51.100.9", 50_000)
DIALLED = Endpoint("203.0.113.5", 5222)
SERVER = Endpoint("2001:db8::5", 5222)
LOCAL = Endpoint("2001:db8::1", 51934)
JID = Jid("romeo", "example.org", "orchard")
CERTIFICATE = CertificateFacts(
    sha256="ab" * 32,
    subject_common_name="example.org",
    issuer="CN=Example CA,O=Example",
    serial_number="0A1B2C",
    not_before="2026-01-01T00:00:00Z",
    not_after="2027-01-01T00:00:00Z",
    alternative_names=("example.org", "conference.example.org"),
    end_point_hash="cd" * 32,
)
STANZA = StanzaFacts(
    kind="iq",
    type="error",
    id_hash="0123456789abcdef",
    to="romeo@example.org/orchard",
    from_="nobody@example.org",
    payloads=("{http://jabber.org/protocol/disco#info}query", "{jabber:client}error"),
    octets=412,
)
REQUEST = RequestFacts(
    sent_by=Side.CLIENT,
    type="get",
    payload="{http://jabber.org/protocol/disco#info}query",
    age_ns=12_345_678,
    purpose="roster-get",
    fields=("username", "password"),
    late=True,
)
SKELETON = (
    "<iq type='error' id=4 from=18 to=25><query xmlns='http://jabber.org/protocol/disco#info'/>"
    "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
)
ORIGIN = "gw1/xproxy/5f0c21aa/sec"
VKEY = f"{ORIGIN}+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SEGMENT = "00000000000000004711-000002.xj"
NOTE = (ORIGIN, "20852", "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=", f"— {ORIGIN} x08go/ZJkuBS9UG/")

FULL: tuple[Event, ...] = (
    ConnectionAccepted(
        client=CLIENT,
        listener=LISTENER,
        way=WayIn.PROXY_PROTOCOL,
        balancer=BALANCER,
        dialled=DIALLED,
        destination="xmpp.example.org:5222",
    ),
    ConnectionRefused(
        client=CLIENT,
        listener=LISTENER,
        reason=RefusalReason.SESSIONS_MAX,
        limit=1000,
        detail="a constant phrase",
        way=WayIn.SOCKS5,
        balancer=BALANCER,
        destination="xmpp.example.org:5222",
    ),
    ConnectionStalled(leg=Side.CLIENT, waiting_bytes=65_536, seconds=31.5),
    ConnectionClosed(
        initiator=Side.CLIENT,
        cause=CloseCause.STREAM_CLOSED,
        duration_ns=61_234_567_890,
        from_client=DirectionTotals(
            bytes=4_812,
            stanzas=17,
            errors=1,
            closing_tag=True,
            end=EndOfInput.CLOSE_NOTIFY,
            last_element="{jabber:client}presence",
            last_element_age_ms=15,
        ),
        from_server=DirectionTotals(
            bytes=123_456,
            stanzas=64,
            errors=2,
            closing_tag=True,
            end=EndOfInput.TRUNCATED,
            last_element="{jabber:client}iq",
            last_element_age_ms=12_000,
        ),
    ),
    UpstreamConnected(
        host="xmpp.example.org",
        server=SERVER,
        local=LOCAL,
        seconds=0.0123,
        tls=ServerTls.DIRECT,
        via=Via.SRV,
        domain="example.org",
        priority=5,
        weight=20,
        proxy_protocol="v2",
        probe=True,
    ),
    UpstreamFailed(
        host="xmpp.example.org",
        port=5222,
        reason=UpstreamFailure.REFUSED,
        errno="ECONNREFUSED",
        seconds=0.002,
        domain="example.org",
        tried=3,
        refusing=True,
    ),
    UnsupportedTransport(looks_like="http"),
    TlsEstablished(
        leg=Side.CLIENT,
        direct=True,
        version="1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        server_name="example.org",
        alpn="xmpp-client",
        ja4="t13d1516h2_8daaf6152771_b186095e22b6",
        resumed=False,
        certificate=CERTIFICATE,
        verify="ok",
        seconds=0.0345,
    ),
    TlsFailed(
        leg=Side.SERVER,
        direct=False,
        reason=TlsFailure.CERTIFICATE_EXPIRED,
        alert="certificate_expired",
        detail="certificate verify failed: certificate has expired",
        server_name="example.org",
        alpn=("xmpp-client",),
        ja4="t13d1516h2_8daaf6152771_b186095e22b6",
        certificate=CERTIFICATE,
        after_handshake=True,
        seconds=0.05,
    ),
    TlsPassthrough(
        stage="end",
        direct=True,
        server_name="example.org",
        alpn=("xmpp-client",),
        ja4="t13d1516h2_8daaf6152771_b186095e22b6",
        refusal="unknown_ca",
        refused_at_ns=1_700_000_000_000_000_000,
        expires_at_ns=1_700_003_600_000_000_000,
        from_client_bytes=4_711,
        from_server_bytes=9_876,
    ),
    StarttlsRequested(trailing_whitespace=1),
    StarttlsRefused(answer="{urn:ietf:params:xml:ns:xmpp-tls}failure"),
    StarttlsInjection(sent_by=Side.CLIENT, octets=74),
    StarttlsStripped(domain="example.org"),
    PlaintextAuthentication(mechanism="PLAIN", starttls_offered=True),
    CertificateChanged(domain="example.org", previous_sha256="ef" * 32, certificate=CERTIFICATE),
    StreamOpened(
        sent_by=Side.CLIENT,
        to="example.org",
        from_="romeo@example.org",
        has_id=False,
        version="1.0",
        lang="en",
        content_namespace="jabber:client",
        xml_declaration=True,
    ),
    StreamRestarted(
        sent_by=Side.CLIENT,
        reason=RestartReason.SASL,
        pipelined=True,
        to="example.org",
        from_="romeo@example.org",
    ),
    StreamFeatures(
        features=(
            "{urn:ietf:params:xml:ns:xmpp-tls}starttls",
            "{urn:ietf:params:xml:ns:xmpp-sasl}mechanisms",
            "{urn:xmpp:stream-limits:0}limits",
        ),
        starttls="required",
        stanza_bytes_max=262_144,
        idle_seconds_max=1_800,
    ),
    StreamError(
        sent_by=Side.SERVER,
        condition="conflict",
        condition_known=True,
        application_condition="{urn:example:errors}replaced",
        text="Replaced by new connection",
        text_bytes=26,
    ),
    StreamClosed(sent_by=Side.SERVER),
    StreamViolation(sent_by=Side.CLIENT, kind="doctype", offset=812),
    InspectionLost(
        sent_by=Side.SERVER, scope=LossScope.ELEMENT, reason="depth", offset=90_112, octets=3_301, policy="relay"
    ),
    RedirectOffered(mechanism="see-other-host", target="xmpp2.example.org:5222", before_tls=True),
    SaslOffered(
        profile="rfc6120",
        mechanisms=("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"),
        channel_bindings=("tls-exporter", "tls-server-end-point"),
    ),
    SaslStarted(
        profile="rfc6120",
        mechanism="SCRAM-SHA-256",
        offered=True,
        attempt=1,
        authcid="romeo",
        authzid="romeo@example.org",
        gs2_flag="p",
        channel_binding="tls-exporter",
        initial_response_bytes=64,
        encoding="strict",
        user_agent_hash="00112233aabbccdd",
        software="AwesomeXMPP",
        inline=("{urn:xmpp:bind:0}bind", "{urn:xmpp:fast:0}request-token"),
        by_token=True,
        token_invalidated=True,
        token_requested="HT-SHA-256-NONE",
    ),
    SaslSucceeded(
        mechanism="SCRAM-SHA-256",
        attempt=2,
        authcid="romeo",
        authzid="romeo@example.org",
        rounds=2,
        iterations=10_000,
        duration_ns=14_200_000,
        tasks=("TOTP-EXAMPLE",),
        authorization_id="romeo@example.org/orchard",
    ),
    SaslFailed(
        mechanism="SCRAM-SHA-256-PLUS",
        attempt=1,
        authcid="romeo",
        authzid="romeo@example.org",
        condition="not-authorized",
        condition_known=True,
        application_condition="{urn:example:errors}locked",
        text="Unable to authorize you with the authentication credentials you've sent.",
        text_bytes=72,
        cause="channel-binding-broken-by-proxy",
        rounds=2,
        iterations=10_000,
        duration_ns=9_876_543,
        tasks=("TOTP-EXAMPLE",),
    ),
    SaslAborted(mechanism="SCRAM-SHA-1", attempt=1, authcid="romeo", rounds=1, duration_ns=5_000_000),
    SaslMalformed(mechanism="PLAIN", kind="base64", step=0),
    SaslDowngrade(kind="weaker-than-before", mechanism="PLAIN", previous="SCRAM-SHA-256", missing=("SCRAM-SHA-512",)),
    ChannelBindingVerdict(
        mechanism="SCRAM-SHA-256-PLUS",
        gs2_flag="p",
        channel_binding="tls-server-end-point",
        end_points_equal=False,
        prediction="fails",
        reason="the legs show different certificates",
    ),
    UpstreamTampering(
        kind="offer",
        mechanism="SCRAM-SHA-1",
        expected="IGn0mGxOVqlQBDl1yzVcoVXYcCo=",
        signed="G6k/rBLDqgOhRRaCuuatSDFkJ08=",
    ),
    ResourceBound(jid=JID, resource_requested="orchard", duration_ns=3_210_000),
    BindFailed(
        condition="conflict",
        condition_known=True,
        resource_requested="orchard",
        text="Resource already bound",
        text_bytes=22,
    ),
    SessionEstablished(how="bind", jid=JID, duration_ns=88_000_000),
    SmEnabled(id_hash="fedcba9876543210", resumable=True, max_seconds=600, has_location=True),
    SessionResumed(id_hash="fedcba9876543210", client_handled=12, server_handled=9, duration_ns=2_000_000),
    SessionResumeFailed(id_hash="fedcba9876543210", condition="item-not-found", server_handled=7),
    SmAnomaly(sent_by=Side.SERVER, kind="handled-count-too-high", handled=40, sent=12, condition="undefined-condition"),
    RegistrationSucceeded(fields=("username", "password", "other"), duration_ns=7_000_000),
    RegistrationFailed(
        purpose="register",
        fields=("username", "password"),
        type="cancel",
        condition="conflict",
        condition_known=True,
        code="409",
        application_conditions=("{urn:example:errors}taken",),
        text="The requested username already exists.",
        text_bytes=38,
        duration_ns=6_000_000,
    ),
    PasswordChanged(duration_ns=5_000_000),
    AccountRemoved(duration_ns=4_000_000),
    FastTokenIssued(requested=True, mechanism="HT-SHA-256-ENDP", expires="2026-12-12T14:36:15Z"),
    StanzaError(
        sent_by=Side.SERVER,
        stanza=STANZA,
        type="cancel",
        condition="service-unavailable",
        condition_known=True,
        by="example.org",
        code="503",
        application_conditions=("{urn:example:errors}gone",),
        text="No such user",
        text_bytes=12,
        request=REQUEST,
        skeleton=SKELETON,
    ),
    IqTimeout(
        request=attrs.evolve(REQUEST, age_ns=30_000_000_000),
        id_hash="0123456789abcdef",
        peer="juliet@example.org/balcony",
        threshold_ns=30_000_000_000,
    ),
    IqUnhandled(stanza=STANZA, payload="{jabber:iq:version}query", request=attrs.evolve(REQUEST, sent_by=Side.SERVER)),
    MucJoinFailed(
        kind="join-refused",
        reason="members-only",
        room="verona@conference.example.org",
        condition="registration-required",
        condition_known=True,
        type="auth",
        status_codes=("110",),
        by_actor=False,
        text_bytes=12,
    ),
    ClientFailureSuspected(
        kind="closed-after-stanza",
        confidence="medium",
        payload="{jabber:client}message",
        fingerprint="89abcdef01234567",
        delay_ns=120_000_000,
        occurrences=2,
    ),
    CarbonsForged(stanza=attrs.evolve(STANZA, kind="message", type="chat"), direction="received"),
    StanzaRelayed(sent_by=Side.SERVER, stanza=attrs.evolve(STANZA, type="result"), answers=REQUEST),
    DialbackResult(
        sent_by=Side.SERVER,
        element="result",
        verdict="error",
        from_="example.org",
        to="example.net",
        condition="remote-server-not-found",
    ),
    ComponentAuthenticated(domain="gateway.example.org", duration_ns=3_000_000),
    ComponentRefused(
        domain="gateway.example.org", condition="not-authorized", condition_known=True, duration_ns=2_000_000
    ),
    ProxyStarted(
        version="0.1.0",
        pid=4711,
        listeners=(LISTENER, Endpoint("::1", 5223)),
        upstream="xmpp.example.org:5222",
        upstream_verify="full",
        certificate="ca",
        on_client_reject="passthrough",
        descriptors_max=1_048_576,
        sessions_max=10_000,
    ),
    ProxyStopped(reason="sigterm", sessions_aborted=3),
    ConfigChanged(
        what=("reload",),
        applied=("log-file", "log-level"),
        kept=("certificates",),
        problem="certificates kept as before: cannot read cert.pem: Permission denied",
        needs_restart=("listen.addresses", "upstream.tls"),
        by_uid=0,
        by_pid=4_711,
    ),
    CaptureStarted(
        directory="/var/lib/xproxy/captures",
        bodies=True,
        jid="romeo@example.org",
        net="192.0.2.0/24",
        actions=("stanza-error",),
        by_uid=0,
        by_pid=4_711,
    ),
    CaptureStopped(
        reason="disk",
        problem="cannot write x.xcap.jsonl: No space left on device",
        sessions=12,
        sessions_lost=1,
        bytes=4_096,
        by_uid=0,
        by_pid=4_711,
    ),
    KeylogOpened(path="/run/xproxy/keys.log"),
    LimitReached(limit="stream.stanza_bytes_max", value=1_048_576, sent_by=Side.CLIENT, offset=1_050_000, closes=True),
    JournalOpened(stream="sec", origin=ORIGIN, vkey=VKEY, segment=SEGMENT, index=4711),
    JournalCheckpoint(note=NOTE, size=20_852, ops_note=NOTE, clock_back_ns=5_000_000),
    JournalRecovered(
        stream="sec", segment=SEGMENT, unsigned_from=4_700, unsigned_count=11, torn_bytes=812, torn_segments=(SEGMENT,)
    ),
    JournalGap(
        stream="sec",
        reason="no-space",
        records=15,
        counts=("sasl-failed failure 12", "stream-opened 3"),
        since_ns=1_790_000_000_123_456_789,
        duration_ns=61_000_000_000,
    ),
    JournalFailed(stream="sec", reason="io-error", error="EIO", segment=SEGMENT, index=4711),
    KeyRotated(stream="sec", vkey=VKEY, previous_vkey=VKEY),
)


def minimal(event: Event) -> Event:
    """Return ``event`` with None and () wherever its type allows it, also in the facts it holds."""
    return typing.cast(Event, _minimal(event))


def _minimal(facts: Any) -> Any:
    changes: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(type(facts)).items():
        if typing.get_origin(hint) is typing.ClassVar:
            continue
        value = getattr(facts, name)
        if typing.get_origin(hint) is types.UnionType and type(None) in typing.get_args(hint):
            changes[name] = None
        elif typing.get_origin(hint) is tuple:
            changes[name] = ()
        elif attrs.has(type(value)) and not isinstance(value, Endpoint | Jid):
            changes[name] = _minimal(value)
    return attrs.evolve(facts, **changes)


MINIMAL: tuple[Event, ...] = tuple(minimal(event) for event in FULL)

assert tuple(type(event) for event in FULL) == EVENT_TYPES, "one sample of every class, in the catalogue's order"
# What a peer can leave empty though its type is str: an attribute without value, an error without condition.
_PEERS_WORDS = frozenset({"mechanism", "condition", "target", "payload", "kind"})


def _blank(event: Event) -> Event:
    blank: Any = {name: "" for name in _PEERS_WORDS if isinstance(getattr(event, name, None), str)}
    if not isinstance(event, StanzaFacts):
        blank.pop("kind", None)  # our word everywhere but in a stanza
    if isinstance(event, RedirectOffered):
        del blank["mechanism"]
    return typing.cast(Event, attrs.evolve(typing.cast(Any, event), **blank))


SAMPLES: dict[str, Event] = {
    **{f"{event.action}-full": event for event in FULL},
    **{f"{event.action}-minimal": event for event in MINIMAL},
    **{f"{event.action}-blank": _blank(event) for event in MINIMAL},
}
"""By a name that says which."""
