"""From authenticated to usable, and stream management (RFC 6120 section 7, XEP-0198)."""

import attrs

from xproxy.events.common import EventBase, Level, Side
from xproxy.jid import Jid


@attrs.frozen(kw_only=True)
class ResourceBound(EventBase):
    """The server bound a resource (RFC 6120 section 7.6.1)."""

    action = "resource-bound"
    level = Level.INFO
    message = "A resource was bound."

    jid: Jid
    resource_requested: str | None
    duration_ns: int | None  # from request to result


@attrs.frozen(kw_only=True)
class BindFailed(EventBase):
    """The server refused to bind a resource (RFC 6120 sections 7.6.2 and 7.7.2)."""

    action = "bind-failed"
    level = Level.WARNING
    message = "A resource could not be bound."

    condition: str
    condition_known: bool
    resource_requested: str | None
    text: str | None
    text_bytes: int


@attrs.frozen(kw_only=True)
class SessionEstablished(EventBase):
    """Stanzas may flow: XMPPFramework calls this authenticated."""

    action = "session-established"
    level = Level.INFO
    message = "The session is established."

    how: str  # "bind", "resume"
    jid: Jid | None
    duration_ns: int  # since accept


@attrs.frozen(kw_only=True)
class SmEnabled(EventBase):
    """Stream management is on (XEP-0198 section 3). The id is a bearer secret: only a keyed hash of it is kept."""

    action = "sm-enabled"
    level = Level.INFO
    message = "Stream management is enabled."

    id_hash: str | None  # None: not resumable
    resumable: bool
    max_seconds: int | None
    has_location: bool


@attrs.frozen(kw_only=True)
class SessionResumed(EventBase):
    """An earlier session goes on here (XEP-0198 section 5)."""

    action = "session-resumed"
    level = Level.INFO
    message = "A session was resumed."

    id_hash: str
    client_handled: int | None  # h of <resume/>
    server_handled: int | None  # h of <resumed/>
    duration_ns: int | None


@attrs.frozen(kw_only=True)
class SessionResumeFailed(EventBase):
    """The server could not resume (XEP-0198 section 5)."""

    action = "session-resume-failed"
    level = Level.WARNING
    message = "A session could not be resumed."

    id_hash: str | None
    condition: str | None
    server_handled: int | None


@attrs.frozen(kw_only=True)
class SmAnomaly(EventBase):
    """The stream management dialogue does not add up."""

    action = "sm-anomaly"
    level = Level.WARNING
    message = "Stream management counters or answers do not add up."

    sent_by: Side
    kind: str  # "enable-failed", "handled-count-too-high", "h-invalid", "unexpected-answer"
    handled: int | None
    sent: int | None
    condition: str | None = None
