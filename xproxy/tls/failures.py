"""Why a handshake failed, in the words of the log.

OpenSSL tells in two ways and both are read here: the *reason* of the error it queued, which names the alert where the
peer sent one (``TLSV1_ALERT_UNKNOWN_CA``), and, where the peer's certificate was refused, the X.509 verification code.
Both are constants of OpenSSL, so ``detail`` never holds peer data.
"""

import errno
import re
import ssl
from typing import Final

from xproxy.events import Side
from xproxy.events.tls import CertificateFacts, TlsFailed, TlsFailure
from xproxy.tls.hello import ClientHello, HelloIncomplete, HelloMalformed

ALPN_NAMES_MAX: Final = 16  # of what a client offers, in a record


class HandshakeRefused(Exception):  # noqa: N818 - a decision, not a fault
    """We do not go on with this handshake. ``detail`` is our words."""

    def __init__(self, failure: TlsFailure, detail: str | None = None) -> None:
        super().__init__(failure.value, detail)
        self.failure = failure
        self.detail = detail

    def __str__(self) -> str:
        """Return the reason and the detail."""
        return f"{self.failure.value}: {self.detail}" if self.detail else self.failure.value


UNEXPECTED_EOF: Final = "UNEXPECTED_EOF_WHILE_READING"
"""OpenSSL's reason for a FIN without close_notify. Before CPython 3.11.3 it comes as a plain ``ssl.SSLError``."""

# X509_V_ERR_* of <openssl/x509_vfy.h>; a code that is not here makes the certificate "invalid".
_VERIFY_CODES: Final = {
    2: TlsFailure.CERTIFICATE_UNTRUSTED,  # unable to get issuer certificate
    9: TlsFailure.CERTIFICATE_NOT_YET_VALID,
    10: TlsFailure.CERTIFICATE_EXPIRED,
    18: TlsFailure.CERTIFICATE_SELF_SIGNED,  # the server's own certificate is
    19: TlsFailure.CERTIFICATE_UNTRUSTED,  # self-signed certificate in the chain: an authority we do not know
    20: TlsFailure.CERTIFICATE_UNTRUSTED,  # unable to get local issuer certificate
    21: TlsFailure.CERTIFICATE_UNTRUSTED,  # unable to verify the first certificate
    27: TlsFailure.CERTIFICATE_UNTRUSTED,  # certificate not trusted
    62: TlsFailure.CERTIFICATE_NAME_MISMATCH,
    64: TlsFailure.CERTIFICATE_NAME_MISMATCH,
}

VERDICTS: Final = {
    TlsFailure.CERTIFICATE_EXPIRED: "expired",
    TlsFailure.CERTIFICATE_NOT_YET_VALID: "not-yet-valid",
    TlsFailure.CERTIFICATE_SELF_SIGNED: "self-signed",
    TlsFailure.CERTIFICATE_UNTRUSTED: "untrusted",
    TlsFailure.CERTIFICATE_NAME_MISMATCH: "name-mismatch",
    TlsFailure.CERTIFICATE_INVALID: "invalid",
}
"""The same said as a verdict: ``TlsEstablished.verify`` where verification is off."""

_ALERT: Final = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?([A-Z_]+)")
# CPython names the reasons it was compiled with; OpenSSL's own words for a later one stand in the text.
_REASON_IN_TEXT: Final = re.compile(r"\[SSL\] ([a-z0-9 ]+) \(_ssl\.c:\d+\)")
# The alerts whose reason lacks the word ALERT; every other TLSV1_* reason is an error of our side.
_ALERTS_BARE: Final = frozenset(
    {
        "unsupported_extension",
        "certificate_unobtainable",
        "unrecognized_name",
        "bad_certificate_status_response",
        "bad_certificate_hash_value",
    }
)
_ALERT_NAMES: Final = {  # where OpenSSL spells an alert otherwise than RFC 8446 section 6
    "user_cancelled": "user_canceled",
    "no_certificate": "no_certificate_RESERVED",
    "export_restriction": "export_restriction_RESERVED",
    "decryption_failed": "decryption_failed_RESERVED",
    "decompression_failure": "decompression_failure_RESERVED",
    "no_renegotiation": "no_renegotiation_RESERVED",
}

_REJECTS_CERTIFICATE: Final = frozenset(
    {
        "bad_certificate",
        "unsupported_certificate",
        "certificate_revoked",
        "certificate_expired",
        "certificate_unknown",
        "unknown_ca",
        "bad_certificate_status_response",
    }
)
_NO_COMMON_VERSION: Final = frozenset(
    {"UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE", "VERSION_TOO_LOW", "VERSION_TOO_HIGH", "WRONG_SSL_VERSION"}
)
# WRONG_VERSION_NUMBER is what OpenSSL says to a record header that is none: text instead of TLS.
_NOT_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL", "NOT_SSL_RECORD_TYPE"}
)
_CLOSED: Final = frozenset({UNEXPECTED_EOF, "SSL_HANDSHAKE_FAILURE_EOF"})
_CLOSED_DETAIL: Final = "the peer closed the connection during the handshake"


# What an alert about our certificate usually means, for whoever has to do something about it.
_REFUSALS: Final = {
    "unknown_ca": "the client does not know the authority that signed our certificate: have it trust our CA",
    "bad_certificate": "the client does not accept our certificate: not trusted, not for this name, or another pinned",
    "certificate_unknown": "the client does not accept our certificate: not trusted, or another one is pinned",
    "certificate_expired": "our certificate is out of date by the client's clock",
    "certificate_revoked": "the client holds our certificate to be revoked",
    "unsupported_certificate": "our certificate is of a kind that the client does not take",
    "bad_certificate_status_response": "the client wants a proof of validity (OCSP) that our certificate does not have",
}
_CLOSED_AT_CERTIFICATE: Final = (
    "the client closed the connection when it was shown our certificate; many do so when they do not trust it"
)


def classify(verify_code: int) -> tuple[TlsFailure, str]:
    """Return the failure that OpenSSL's X.509 ``verify_code`` is, and its verdict ("expired", "self-signed" ...)."""
    failure = _VERIFY_CODES.get(verify_code, TlsFailure.CERTIFICATE_INVALID)
    return failure, VERDICTS[failure]


def failure_of(
    exc: BaseException,
    leg: Side,
    *,
    direct: bool,
    seconds: float,
    hello: ClientHello | None = None,
    server_name: str | None = None,
    certificate: CertificateFacts | None = None,
    after_handshake: bool = False,
) -> TlsFailed:
    """Return the event for ``exc``, met while making TLS on ``leg``.

    Understood: ``ssl.SSLError`` and other ``OSError``, ``EOFError``, ``TimeoutError``, ``HandshakeRefused``,
    ``HelloIncomplete`` (the peer ended within it), ``HelloMalformed``; anything else is ``other`` with its type.
    ``server_name``: the name in use; without it the hello's. ``certificate``: the one shown or refused, if known.
    ``after_handshake``: our side of it was done.
    """
    reason, alert, detail = _read(exc, leg)
    if reason is TlsFailure.CLIENT_REJECTED_CERTIFICATE:
        detail = _REFUSALS.get(alert or "", detail)
    elif reason is TlsFailure.CLOSED and leg is Side.CLIENT and certificate is not None:
        detail = _CLOSED_AT_CERTIFICATE
    if server_name is None and hello is not None:
        server_name = hello.server_name
    return TlsFailed(
        leg=leg,
        direct=direct,
        reason=reason,
        alert=alert,
        detail=detail,
        server_name=server_name,
        alpn=hello.alpn[:ALPN_NAMES_MAX] if hello else (),
        ja4=hello.ja4 if hello else None,
        certificate=certificate,
        after_handshake=after_handshake,
        seconds=seconds,
    )


def alert_in(exc: BaseException) -> str | None:
    """Return the name, as in RFC 8446 section 6, of the alert that ``exc`` says the peer sent; None: it says none."""
    return _alert_of(_reason_of(exc)) if isinstance(exc, ssl.SSLError) else None


def _read(exc: BaseException, leg: Side) -> tuple[TlsFailure, str | None, str | None]:
    match exc:
        case HandshakeRefused():
            return exc.failure, None, exc.detail
        case HelloIncomplete():
            return TlsFailure.TRUNCATED_HELLO, None, "the client ended within its ClientHello"
        case HelloMalformed():
            return exc.failure, None, exc.reason
        case ssl.SSLCertVerificationError():
            return classify(exc.verify_code)[0], None, exc.verify_message
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | EOFError():
            return TlsFailure.CLOSED, None, _CLOSED_DETAIL
        case ssl.SSLSyscallError():
            return TlsFailure.CLOSED, None, "the connection failed during the handshake"
        case ssl.SSLError():
            return _read_reason(exc, leg)
        case TimeoutError():
            return TlsFailure.TIMEOUT, None, None
        case ConnectionError():
            return TlsFailure.CLOSED, None, _errno_name(exc)
        case OSError():
            return TlsFailure.OTHER, None, _errno_name(exc)
        case _:
            return TlsFailure.OTHER, None, type(exc).__name__


def _read_reason(exc: ssl.SSLError, leg: Side) -> tuple[TlsFailure, str | None, str | None]:
    reason = _reason_of(exc)
    if alert := _alert_of(reason):
        return _meaning_of_alert(alert, leg), alert, None
    detail = f"OpenSSL: {reason}" if reason else None
    if reason in _NO_COMMON_VERSION:
        return TlsFailure.VERSION, None, detail
    if reason in _NOT_TLS:
        return TlsFailure.NOT_TLS, None, detail
    if reason in _CLOSED:
        return TlsFailure.CLOSED, None, _CLOSED_DETAIL
    return TlsFailure.OTHER, None, detail


def _meaning_of_alert(alert: str, leg: Side) -> TlsFailure:
    if leg is Side.CLIENT and alert in _REJECTS_CERTIFICATE:
        return TlsFailure.CLIENT_REJECTED_CERTIFICATE
    if alert == "protocol_version":
        return TlsFailure.VERSION
    return TlsFailure.PEER_ALERT


def _reason_of(exc: ssl.SSLError) -> str:
    """Return OpenSSL's reason in CPython's form, "TLSV1_ALERT_UNKNOWN_CA", or "" if there is none."""
    if reason := getattr(exc, "reason", None):
        return str(reason)
    text = _REASON_IN_TEXT.fullmatch(str(exc))
    return text[1].upper().replace(" ", "_") if text else ""


def _alert_of(reason: str) -> str | None:
    """Return the name, as in RFC 8446 section 6, of the alert the peer sent; None if it sent none."""
    if match := _ALERT.fullmatch(reason):
        name = match[1].lower()
        if "_ALERT_" in reason or name in _ALERTS_BARE:
            return _ALERT_NAMES.get(name, name)
    return None


def _errno_name(exc: OSError) -> str | None:
    return errno.errorcode.get(exc.errno) if exc.errno else type(exc).__name__
