"""The vocabulary of the log: one frozen class an action, one file a group.

Adding an action is a reviewed change: the class, its line in ``Event`` below, its document in
``xproxy/record/ecs.py`` (``assert_never`` finds a missing one), and a golden record.
"""

from typing import get_args

from xproxy.events.account import (
    AccountRemoved,
    FastTokenIssued,
    PasswordChanged,
    RegistrationFailed,
    RegistrationSucceeded,
)
from xproxy.events.capture import CaptureStarted, CaptureStopped, KeylogOpened
from xproxy.events.common import EndOfInput, Endpoint, Level, Side
from xproxy.events.connection import (
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionRefused,
    ConnectionStalled,
    UnsupportedTransport,
    UpstreamConnected,
    UpstreamFailed,
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
    StanzaError,
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
    PlaintextAuthentication,
    StarttlsInjection,
    StarttlsRefused,
    StarttlsRequested,
    StarttlsStripped,
    TlsEstablished,
    TlsFailed,
    TlsPassthrough,
)

Event = (
    ConnectionAccepted
    | ConnectionRefused
    | ConnectionStalled
    | ConnectionClosed
    | UpstreamConnected
    | UpstreamFailed
    | UnsupportedTransport
    | TlsEstablished
    | TlsFailed
    | TlsPassthrough
    | StarttlsRequested
    | StarttlsRefused
    | StarttlsInjection
    | StarttlsStripped
    | PlaintextAuthentication
    | CertificateChanged
    | StreamOpened
    | StreamRestarted
    | StreamFeatures
    | StreamError
    | StreamClosed
    | StreamViolation
    | InspectionLost
    | RedirectOffered
    | SaslOffered
    | SaslStarted
    | SaslSucceeded
    | SaslFailed
    | SaslAborted
    | SaslMalformed
    | SaslDowngrade
    | ChannelBindingVerdict
    | UpstreamTampering
    | ResourceBound
    | BindFailed
    | SessionEstablished
    | SmEnabled
    | SessionResumed
    | SessionResumeFailed
    | SmAnomaly
    | RegistrationSucceeded
    | RegistrationFailed
    | PasswordChanged
    | AccountRemoved
    | FastTokenIssued
    | StanzaError
    | IqTimeout
    | IqUnhandled
    | MucJoinFailed
    | ClientFailureSuspected
    | CarbonsForged
    | StanzaRelayed
    | DialbackResult
    | ComponentAuthenticated
    | ComponentRefused
    | ProxyStarted
    | ProxyStopped
    | ConfigChanged
    | CaptureStarted
    | CaptureStopped
    | KeylogOpened
    | LimitReached
    | JournalOpened
    | JournalCheckpoint
    | JournalRecovered
    | JournalGap
    | JournalFailed
    | KeyRotated
)

EVENT_TYPES: tuple[type[Event], ...] = get_args(Event)

__all__ = ["EVENT_TYPES", "EndOfInput", "Endpoint", "Event", "Level", "Side"]
