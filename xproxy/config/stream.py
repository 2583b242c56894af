"""[stream]: what one XML stream may ask of us."""

import attrs

from xproxy.config.setting import setting


@attrs.frozen(kw_only=True)
class StreamLimits:
    """Limits of one direction of one connection. Reaching one is an event."""

    stanza_bytes_max: int = setting(
        1_048_576,
        "bytes",
        "four times what Prosody and ejabberd take from a client; above it the session is closed",
    )
    stanza_bytes_warn: int = setting(
        262_144, "bytes", "Prosody's c2s default and ejabberd's example: the server is about to refuse it"
    )
    stanza_before_login_bytes_max: int = setting(
        65_536,
        "bytes",
        "strangers get little memory: a tag or attribute counts for 32 more; Kerberos' largest token in base64 fits",
    )
    depth_max: int = setting(
        200,
        "elements",
        "libxml2 stops at 256; a deeper element is skipped over and reported, the session lives",
    )
    prolog_bytes_max: int = setting(256, "bytes", "an XML declaration is under 60")
    names_before_login_max: int = setting(
        64, "names", "names live as long as the process; strangers get few", validator=attrs.validators.ge(8)
    )
    names_max: int = setting(2_000, "names", "a normal session adds under 200 to a warm process")
    names_renewals_max: int = setting(
        3,
        "times",
        "what another user's stanza uses up of names_max is given anew, the stanza skipped; more of them are an attack",
    )
    records_before_login_max: int = setting(
        100,
        "records",
        "a login makes about 16, a wrong password 4 at most; a stranger's 22 octets can make a record of 1.5 KiB",
        validator=attrs.validators.ge(32),
    )
    slice_before_login_bytes: int = setting(
        1_024, "bytes", "the name budget is read after a feed: before login feeds are small"
    )
    pending_requests_max: int = setting(
        1_000, "requests", "open iq requests remembered per direction; the oldest goes, before login the session ends"
    )
    pending_without_id_max: int = setting(
        16, "requests", "the same for those without an id: register, iq-auth and bind, one or two at a time"
    )


@attrs.frozen(kw_only=True)
class StreamPolicy:
    """What the core does where a rule leaves a choice, and what it may say."""

    domain: str | None = None  # --domain: for streams without ``to``
    on_inspection_lost_server: str = "relay"  # "relay" | "close": the server's stream cannot be inspected
    on_inspection_lost_client: str = "close"
    server_text: bool = True  # log the server's own error texts
    debug_events: bool = False  # make StanzaRelayed and other debug events
    correlation_key: bytes = attrs.field(default=b"", repr=False)  # keys the hashes of stanza and SM ids
    negotiation_seconds_max: float = 300.0  # from accept to session-established; Prosody's c2s_timeout
    own_part_seconds_max: float = 20.0  # for leading a server into TLS, while the client waits for its handshake
    close_seconds_max: float = 5.0  # from one closing tag to the end
