"""The proxy itself."""

import attrs

from xproxy.events.common import Endpoint, EventBase, Level, Side


@attrs.frozen(kw_only=True)
class ProxyStarted(EventBase):
    """The proxy listens."""

    action = "proxy-started"
    level = Level.INFO
    message = "The proxy started."

    version: str
    pid: int
    listeners: tuple[Endpoint, ...]  # real addresses, port 0 resolved
    upstream: str
    upstream_verify: str  # "full", "none"
    certificate: str  # "ca", "files"
    on_client_reject: str = "close"  # "passthrough": sessions may go by undecrypted, each with records of its own
    descriptors_max: int  # RLIMIT_NOFILE after raising the soft limit to the hard one
    sessions_max: int


@attrs.frozen(kw_only=True)
class ProxyStopped(EventBase):
    """The proxy stopped in form."""

    action = "proxy-stopped"
    level = Level.INFO
    message = "The proxy stopped."

    reason: str  # "sigterm", "sigint", "finished", "log-gone", "names-total-max"
    sessions_aborted: int  # closed abruptly when the drain time was over


@attrs.frozen(kw_only=True)
class ConfigChanged(EventBase):
    """Something was read anew or changed while running: by a signal, or by who asked at the control socket."""

    action = "config-changed"
    level = Level.INFO
    message = "Something was read anew or changed."

    what: tuple[str, ...]  # "certificates", "log-file", "log-level", "drain", "control-socket" ...
    applied: tuple[str, ...] = ()  # of several parts those that were done: "log-file", "certificates", "log-level"
    kept: tuple[str, ...] = ()  # and those that are as they were, for the reason in ``problem``
    problem: str | None = None  # set: the old state was kept
    needs_restart: tuple[str, ...] = ()  # keys that differ in the file and are only read at the start: "upstream.tls"
    by_uid: int | None = None  # of the process that asked at the control socket; None: a signal, or ourselves
    by_pid: int | None = None


@attrs.frozen(kw_only=True)
class LimitReached(EventBase):
    """A configured limit was reached."""

    action = "limit-reached"
    level = Level.WARNING
    message = "A limit was reached."

    limit: str  # the key in the configuration, e.g. "stream.stanza_bytes_max"
    value: int
    sent_by: Side | None = None
    offset: int | None = None
    closes: bool  # True: the session ends for it
