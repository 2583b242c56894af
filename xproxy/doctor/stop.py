"""Why a connection to the server ended early, in words for a person: at which step, and what came instead."""

import enum
import errno
from typing import Final

import attrs

from xproxy.doctor.findings import quoted
from xproxy.events import Side
from xproxy.events.tls import TlsFailure
from xproxy.peer.errors import Disconnected, PeerTimeout, StreamFailed, TlsRefused
from xproxy.tls.failures import HandshakeRefused, failure_of
from xproxy.xmpp import ns

POLICY_CONDITIONS: Final = frozenset({"policy-violation", "resource-constraint"})  # RFC 6120 section 4.9.3


class Step(enum.Enum):
    """How far a connection came."""

    CONNECT = "connecting"
    STREAM = "opening the stream"
    STARTTLS = "asking for STARTTLS"
    TLS = "the TLS handshake"
    SECURED = "opening the stream above TLS"


@attrs.frozen(kw_only=True)
class Stop:
    """Why a look ended early."""

    step: Step
    reason: str
    """"refused", "unreachable", "silent", "closed", "not-xmpp", "tls", "injection", or a stream error's condition."""
    text: str  # a sentence's end; what the peer said in it is cut, and made harmless in the finding
    content: str | None = None  # of the condition: where a redirect leads
    tls: TlsFailure | None = None
    alert: str | None = None  # that the server gave the handshake up with, by name


def stop_of(error: Exception, step: Step, opening: bytes) -> Stop:
    """Return why a look ended: ``error``, met at ``step``; ``opening``: the first octets that came in clear."""
    if step is Step.STREAM and (what := _protocol_of(opening)):
        return Stop(step=step, reason="not-xmpp", text=f"speaks {what}")
    match error:
        case PeerTimeout():
            return Stop(step=step, reason="silent", text=f"says nothing within {error.seconds:g} s")
        case Disconnected():
            return Stop(step=step, reason="closed", text="hangs up")
        case TlsRefused():
            return _tls_stop(_cause_of(error), step)
        case HandshakeRefused():
            return _tls_stop(error, step)
        case StreamFailed():
            return _stream_stop(error, step, opening)
        case OSError():
            return _connect_stop(error, step)
        case _:
            return Stop(step=step, reason="other", text=f"fails: {type(error).__name__}")


def _cause_of(error: TlsRefused) -> BaseException:
    """The error of OpenSSL behind what trio made of it."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return cause


def _tls_stop(error: BaseException, step: Step) -> Stop:
    if isinstance(error, TlsRefused):  # nothing of OpenSSL's is behind it
        return Stop(step=step, reason="injection", text="sends more in clear behind <proceed/>", tls=TlsFailure.OTHER)
    failed = failure_of(error, Side.SERVER, direct=False, seconds=0.0)
    told = failed.alert or failed.detail
    return Stop(
        step=step,
        reason="tls",
        text=f"fails at TLS: {failed.reason.value}" + (f" ({told})" if told else ""),
        tls=failed.reason,
        alert=failed.alert,
    )


def _stream_stop(error: StreamFailed, step: Step, opening: bytes) -> Stop:
    if error.by_peer:
        known = error.condition in ns.STREAM_CONDITIONS | ns.STREAM_CONDITIONS_LEGACY
        said = f" {quoted(error.text)}" if error.text else ""
        return Stop(
            step=step,
            reason=error.condition if known else "other",
            text=f"answers with the stream error {error.condition if known else quoted(error.condition)}{said}",
            content=error.content,
        )
    if error.condition == "starttls-refused":
        return Stop(step=step, reason=error.condition, text="offers STARTTLS and refuses it")
    return Stop(
        step=step,
        reason="not-xmpp",
        text=f"sends what is no XMPP ({error.condition}): {quoted(_as_text(opening))}",
    )


def _as_text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")


_PROTOCOLS: Final = (
    (b"HTTP/", "HTTP"),
    (b"<!DOCTYPE html", "HTML"),
    (b"<html", "HTML"),
    (b"SSH-", "SSH"),
    (b"220 ", "SMTP or FTP"),
    (b"220-", "SMTP or FTP"),
    (b"* OK", "IMAP"),
    (b"+OK", "POP3"),
    (b"\x15\x03", "TLS from the first octet on"),
    (b"\x16\x03", "TLS from the first octet on"),
)


def _protocol_of(opening: bytes) -> str | None:
    """Name what the first octets are; None for what is not known."""
    return next((name for start, name in _PROTOCOLS if opening.lower().startswith(start.lower())), None)


_REFUSED: Final = frozenset({errno.ECONNREFUSED})
_RESET: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})


def _connect_stop(error: OSError, step: Step) -> Stop:
    if error.errno in _REFUSED:
        return Stop(step=step, reason="refused", text="refuses connections: nothing listens there")
    if error.errno in _RESET:
        return Stop(step=step, reason="closed", text="resets the connection")
    words_ = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return Stop(step=step, reason="unreachable", text=f"cannot be reached: {error.strerror or words_}")
