"""TLS on either leg, and the way into it."""

import enum
from typing import Literal

import attrs

from xproxy.events.common import EventBase, Level, Side


@attrs.frozen(kw_only=True)
class CertificateFacts:
    """What the log keeps of a certificate."""

    sha256: str  # of the DER, lower-case hex
    subject_common_name: str | None
    issuer: str | None  # RFC 4514 string
    serial_number: str | None  # upper-case hex
    not_before: str | None  # RFC 3339, UTC
    not_after: str | None
    alternative_names: tuple[str, ...] = ()
    end_point_hash: str | None = None
    """tls-server-end-point channel binding data (RFC 5929 section 4), lower-case hex."""


@attrs.frozen(kw_only=True)
class TlsEstablished(EventBase):
    """TLS is up on one leg. On the client leg the certificate is the one we showed."""

    action = "tls-established"
    level = Level.INFO
    message = "TLS is established on one leg."

    leg: Side
    direct: bool  # True: from the first byte (XEP-0368); False: STARTTLS
    version: str  # "1.2", "1.3"
    cipher: str  # IANA-style name as OpenSSL gives it
    server_name: str | None  # SNI: received on the client leg, sent on the server leg
    alpn: str | None  # the protocol agreed on
    ja4: str | None  # of the client's hello, on the client leg
    resumed: bool
    certificate: CertificateFacts | None  # the receiving entity's certificate on that leg
    verify: str | None
    """Server leg: "ok", or with ``upstream_verify = "none"`` what verification would have said
    ("self-signed", "expired", "name-mismatch", "untrusted", ...), or "off" when it could not be judged."""
    seconds: float


class TlsFailure(enum.Enum):
    """Why no TLS came about on a leg."""

    TRUNCATED_HELLO = "truncated-hello"  # the client left within its ClientHello
    HELLO_TOO_LARGE = "hello-too-large"
    NOT_TLS = "not-tls"  # what came instead of a ClientHello is none
    BAD_NAME = "bad-name"  # the name to be used as SNI is no host name
    NO_NAME = "no-name"  # verification has no name to compare with
    NO_CERTIFICATE = "no-certificate"  # we have and may make none for that name
    CLIENT_REJECTED_CERTIFICATE = "client-rejected-certificate"
    PEER_ALERT = "peer-alert"  # another alert; see alert
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    CERTIFICATE_SELF_SIGNED = "certificate-self-signed"
    CERTIFICATE_UNTRUSTED = "certificate-untrusted"
    CERTIFICATE_NAME_MISMATCH = "certificate-name-mismatch"
    CERTIFICATE_INVALID = "certificate-invalid"
    VERSION = "version"  # no TLS version in common
    CLOSED = "closed"  # the peer closed or reset during the handshake
    TIMEOUT = "timeout"
    OTHER = "other"


@attrs.frozen(kw_only=True)
class TlsFailed(EventBase):
    """The handshake on one leg failed; both legs are closed without a closing tag (RFC 6120 section 5.4.3.2)."""

    action = "tls-failed"
    level = Level.ERROR
    message = "TLS failed on one leg."

    leg: Side
    direct: bool
    reason: TlsFailure
    alert: str | None = None  # name of the TLS alert, e.g. "unknown_ca" (RFC 8446 section 6)
    detail: str | None = None  # OpenSSL's or our words; never peer data
    server_name: str | None = None
    alpn: tuple[str, ...] = ()  # offered by the client
    ja4: str | None = None
    certificate: CertificateFacts | None = None
    after_handshake: bool = False
    """The peer gave TLS up when our side of the handshake was done already. With TLS 1.3 some clients judge a
    certificate only then (RFC 8446 section 4.4.4 lets them)."""
    seconds: float  # since the handshake began


@attrs.frozen(kw_only=True)
class TlsPassthrough(EventBase):
    """A session is relayed undecrypted, for its client refused our certificate before; at its begin and at its end.

    Nothing of such a session is inspected: there will be no record of its login or its stanzas.
    """

    action = "tls-passthrough"
    level = Level.WARNING
    message = "A session is relayed undecrypted: its client refused our certificate before."

    stage: Literal["begin", "end"]
    direct: bool
    server_name: str | None  # the client's SNI
    alpn: tuple[str, ...] = ()  # offered by the client
    ja4: str
    refusal: str  # name of the alert with which the client refused our certificate, or "closed"
    refused_at_ns: int
    expires_at_ns: int  # sessions that begin after that are decrypted again
    from_client_bytes: int | None = None  # at the end; both None at the begin
    from_server_bytes: int | None = None


@attrs.frozen(kw_only=True)
class StarttlsRequested(EventBase):
    """The client asked for STARTTLS (RFC 6120 section 5.4.2.1)."""

    action = "starttls-requested"
    level = Level.INFO
    message = "The client asked for STARTTLS."

    trailing_whitespace: int = 0  # octets of whitespace behind the request, tolerated


@attrs.frozen(kw_only=True)
class StarttlsRefused(EventBase):
    """The server answered STARTTLS with a failure (RFC 6120 section 5.4.2.2) or with something else."""

    action = "starttls-refused"
    level = Level.ERROR
    message = "The server refused STARTTLS."

    answer: str  # "{namespace}name" of what came instead of proceed


@attrs.frozen(kw_only=True)
class StarttlsInjection(EventBase):
    """Octets stood behind the last cleartext element before TLS (the CVE-2011-0411 class): both legs closed."""

    action = "starttls-injection"
    level = Level.CRITICAL
    message = "Octets were found between the end of cleartext and the start of TLS."

    sent_by: Side
    octets: int


@attrs.frozen(kw_only=True)
class StarttlsStripped(EventBase):
    """The server offered no STARTTLS, though it did so for this domain before."""

    action = "starttls-stripped"
    level = Level.CRITICAL
    message = "STARTTLS is no longer offered for a domain that offered it before."

    domain: str


@attrs.frozen(kw_only=True)
class PlaintextAuthentication(EventBase):
    """A client began to log in on a leg without TLS."""

    action = "plaintext-authentication"
    level = Level.WARNING
    message = "A client authenticates without TLS."

    mechanism: str
    starttls_offered: bool


@attrs.frozen(kw_only=True)
class CertificateChanged(EventBase):
    """The server shows another certificate than in the last session to the same domain."""

    action = "certificate-changed"
    level = Level.WARNING
    message = "The server's certificate differs from the one seen last."

    domain: str
    previous_sha256: str
    certificate: CertificateFacts
