"""Every section together: what a run of xproxy is told."""

import attrs

from xproxy.config.capture import CaptureSettings
from xproxy.config.control import ControlSettings
from xproxy.config.journal import JournalSettings
from xproxy.config.listen import ListenSettings
from xproxy.config.log import LogSettings
from xproxy.config.policy import PolicySettings
from xproxy.config.sessions import SessionLimits
from xproxy.config.state import StateSettings
from xproxy.config.stream import StreamLimits
from xproxy.config.tls import TlsSettings
from xproxy.config.upstream import UpstreamSettings


@attrs.frozen(kw_only=True)
class Settings:
    """The whole configuration, checked. Components get the section they use, never this."""

    listen: ListenSettings = attrs.Factory(ListenSettings)
    upstream: UpstreamSettings = attrs.Factory(UpstreamSettings)
    tls: TlsSettings = attrs.Factory(TlsSettings)
    log: LogSettings = attrs.Factory(LogSettings)
    journal: JournalSettings = attrs.Factory(JournalSettings)
    capture: CaptureSettings = attrs.Factory(CaptureSettings)
    state: StateSettings = attrs.Factory(StateSettings)
    policy: PolicySettings = attrs.Factory(PolicySettings)
    sessions: SessionLimits = attrs.Factory(SessionLimits)
    stream: StreamLimits = attrs.Factory(StreamLimits)
    control: ControlSettings = attrs.Factory(ControlSettings)
