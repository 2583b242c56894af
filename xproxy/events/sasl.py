"""Authentication (RFC 6120 section 6). No field can hold a payload, a password, a proof or a token."""

import attrs

from xproxy.events.common import EventBase, Level


@attrs.frozen(kw_only=True)
class SaslOffered(EventBase):
    """The server offered mechanisms."""

    action = "sasl-offered"
    level = Level.INFO
    message = "The server offered SASL mechanisms."

    profile: str  # "rfc6120"
    mechanisms: tuple[str, ...]  # in the order sent
    channel_bindings: tuple[str, ...] = ()  # XEP-0440


@attrs.frozen(kw_only=True)
class SaslStarted(EventBase):
    """The client chose a mechanism (RFC 6120 section 6.4.2). Never holds the initial response."""

    action = "sasl-started"
    level = Level.INFO
    message = "The client began to authenticate."

    profile: str
    mechanism: str  # as sent, may be unregistered
    offered: bool | None  # was it in the offer; None: no offer was seen
    attempt: int  # on this connection, from 1
    authcid: str | None  # as claimed, not yet proven; verbatim (may contain "@")
    authzid: str | None
    gs2_flag: str | None  # "n", "y", "p" (RFC 5802 section 6)
    channel_binding: str | None  # the type behind "p="
    initial_response_bytes: int | None  # None: there was none
    encoding: str | None  # "strict", "whitespace", "noncanonical", "invalid"
    user_agent_hash: str | None = None  # keyed hash of the device's id (XEP-0388 section 2.4)
    software: str | None = None  # the client program's own name
    inline: tuple[str, ...] = ()  # "{namespace}name" of what is asked for together with the login
    by_token: bool = False  # a token in place of the password (XEP-0484)
    token_invalidated: bool = False  # and it is not to be valid any more
    token_requested: str | None = None  # the mechanism a token for the next login is wanted for


@attrs.frozen(kw_only=True)
class SaslMalformed(EventBase):
    """A payload is not what its mechanism prescribes; identity may still have been read."""

    action = "sasl-malformed"
    level = Level.WARNING
    message = "A SASL payload is malformed."

    mechanism: str
    kind: str  # "base64", "structure", "utf-8", "saslname", "mechanism", "overlapping", "element-inside" ...
    step: int  # 0: the initial response


@attrs.frozen(kw_only=True)
class SaslSucceeded(EventBase):
    """The server accepted the login (RFC 6120 section 6.4.6)."""

    action = "sasl-succeeded"
    level = Level.INFO
    message = "Authentication succeeded."

    mechanism: str
    attempt: int
    authcid: str | None
    authzid: str | None
    rounds: int  # challenges sent by the server
    iterations: int | None  # SCRAM i=
    duration_ns: int
    tasks: tuple[str, ...] = ()  # done besides, such as a second factor (XEP-0388 section 2.6.3)
    authorization_id: str | None = None  # what the server says the login is for (XEP-0388); a full JID once bound


@attrs.frozen(kw_only=True)
class SaslFailed(EventBase):
    """The server refused the login (RFC 6120 section 6.5)."""

    action = "sasl-failed"
    level = Level.WARNING
    message = "Authentication failed."

    mechanism: str | None
    attempt: int
    authcid: str | None
    authzid: str | None
    condition: str  # as sent, may be unknown
    condition_known: bool
    application_condition: str | None
    text: str | None  # the server's; None where switched off
    text_bytes: int
    cause: str | None  # "channel-binding-broken-by-proxy" where that was predicted
    rounds: int
    iterations: int | None
    duration_ns: int
    tasks: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class SaslAborted(EventBase):
    """The client gave up (RFC 6120 section 6.4.4)."""

    action = "sasl-aborted"
    level = Level.WARNING
    message = "The client aborted authentication."

    mechanism: str | None
    attempt: int
    authcid: str | None
    rounds: int
    duration_ns: int


@attrs.frozen(kw_only=True)
class ChannelBindingVerdict(EventBase):
    """Whether the chosen channel binding can cross a proxy that ends TLS (RFC 5929, RFC 9266)."""

    action = "channel-binding-verdict"
    level = Level.INFO
    message = "A channel binding was judged."

    mechanism: str
    gs2_flag: str
    channel_binding: str | None
    end_points_equal: bool | None  # both legs show the same certificate hash; None: not known
    prediction: str  # "succeeds", "fails", "unknown"
    reason: str


@attrs.frozen(kw_only=True)
class SaslDowngrade(EventBase):
    """A client logs in by less than it could, or than it did before: carelessness, a change, or somebody in between."""

    action = "sasl-downgrade"
    level = Level.ERROR
    message = "A login is weaker than it should be."

    kind: str  # "plain-without-tls", "weaker-than-offered", "weaker-than-before", "offer-shrunk"
    mechanism: str | None  # chosen; None where the offer alone tells it
    previous: str | None  # what the same user and client used before
    missing: tuple[str, ...] = ()  # mechanisms this domain offered before and does not now


@attrs.frozen(kw_only=True)
class UpstreamTampering(EventBase):
    """What the server signed is not what arrived: somebody between it and this proxy changes the traffic."""

    action = "upstream-tampering"
    level = Level.CRITICAL
    message = "The server's offer was changed between the server and this proxy."

    kind: str  # "offer" (XEP-0474), "tls-version" (XEP-0515)
    mechanism: str
    expected: str  # what we computed from what arrived; public, no secret
    signed: str  # what the server signed
