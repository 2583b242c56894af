"""Namespaces and the closed lists of conditions."""

from typing import Final

STREAMS: Final = "http://etherx.jabber.org/streams"  # RFC 6120 section 4.8.1
CLIENT: Final = "jabber:client"
SERVER: Final = "jabber:server"
COMPONENT: Final = "jabber:component:accept"  # XEP-0114
CONTENT: Final = frozenset({CLIENT, SERVER, COMPONENT})
TLS: Final = "urn:ietf:params:xml:ns:xmpp-tls"
SASL: Final = "urn:ietf:params:xml:ns:xmpp-sasl"
SASL2: Final = "urn:xmpp:sasl:2"  # XEP-0388
SASL_CB: Final = "urn:xmpp:sasl-cb:0"  # XEP-0440
BIND: Final = "urn:ietf:params:xml:ns:xmpp-bind"
SESSION: Final = "urn:ietf:params:xml:ns:xmpp-session"
STREAM_ERRORS: Final = "urn:ietf:params:xml:ns:xmpp-streams"
STANZA_ERRORS: Final = "urn:ietf:params:xml:ns:xmpp-stanzas"
SM2: Final = "urn:xmpp:sm:2"
SM3: Final = "urn:xmpp:sm:3"  # XEP-0198
SM: Final = frozenset({SM2, SM3})
CSI: Final = "urn:xmpp:csi:0"  # XEP-0352
COMPRESS: Final = "http://jabber.org/protocol/compress"  # XEP-0138
LIMITS: Final = "urn:xmpp:stream-limits:0"  # XEP-0478
DIALBACK: Final = "jabber:server:dialback"  # XEP-0220

STANZA_KINDS: Final = frozenset({"iq", "message", "presence"})

# The closed lists of conditions. A name outside its list is logged all the same, marked as unknown. What earlier
# RFCs had and later ones took out stands apart: it is still seen, and it is not known.

STREAM_CONDITIONS: Final = frozenset(  # RFC 6120 section 4.9.3
    {
        "bad-format",
        "bad-namespace-prefix",
        "conflict",
        "connection-timeout",
        "host-gone",
        "host-unknown",
        "improper-addressing",
        "internal-server-error",
        "invalid-from",
        "invalid-namespace",
        "invalid-xml",
        "not-authorized",
        "not-well-formed",
        "policy-violation",
        "remote-connection-failed",
        "reset",
        "resource-constraint",
        "restricted-xml",
        "see-other-host",
        "system-shutdown",
        "undefined-condition",
        "unsupported-encoding",
        "unsupported-feature",
        "unsupported-stanza-type",
        "unsupported-version",
    }
)
STREAM_CONDITIONS_LEGACY: Final = frozenset({"invalid-id", "xml-not-well-formed"})  # RFC 3920 section 4.7.3

STANZA_CONDITIONS: Final = frozenset(  # RFC 6120 section 8.3.3
    {
        "bad-request",
        "conflict",
        "feature-not-implemented",
        "forbidden",
        "gone",
        "internal-server-error",
        "item-not-found",
        "jid-malformed",
        "not-acceptable",
        "not-allowed",
        "not-authorized",
        "policy-violation",
        "recipient-unavailable",
        "redirect",
        "registration-required",
        "remote-server-not-found",
        "remote-server-timeout",
        "resource-constraint",
        "service-unavailable",
        "subscription-required",
        "undefined-condition",
        "unexpected-request",
    }
)
STANZA_CONDITIONS_LEGACY: Final = frozenset({"payment-required"})  # RFC 3920 section 9.3.3
STANZA_ERROR_TYPES: Final = frozenset({"auth", "cancel", "continue", "modify", "wait"})  # RFC 6120 section 8.3.2

SASL_CONDITIONS: Final = frozenset(  # RFC 6120 section 6.5
    {
        "aborted",
        "account-disabled",
        "credentials-expired",
        "encryption-required",
        "incorrect-encoding",
        "invalid-authzid",
        "invalid-mechanism",
        "malformed-request",
        "mechanism-too-weak",
        "not-authorized",
        "temporary-auth-failure",
    }
)
SASL_CONDITIONS_LEGACY: Final = frozenset({"bad-protocol"})  # seen from servers of before RFC 3920
