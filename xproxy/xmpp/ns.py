"""Namespaces and the closed lists of conditions; the parts of an element's name."""

from typing import Final, NamedTuple


class QName(NamedTuple):
    """The parts of an element's name."""

    namespace: str | None
    localname: str


def qname(tag: object) -> QName:
    """Return the parts of an element's ``tag``, in Clark notation; of a comment or the like (None, "").

    lxml's own QName raises for a namespace that holds a brace. XML allows that, and any peer may send it.
    """
    if not isinstance(tag, str):
        return QName(None, "")
    namespace, _, localname = tag.rpartition("}")
    return QName(namespace[1:] or None, localname)


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
BIND2: Final = "urn:xmpp:bind:0"  # XEP-0386
BIND2_OLD: Final = "urn:xmpp:bind2:1"  # XEP-0386 before 0.4, still in the examples of XEP-0198 and XEP-0474
FAST: Final = "urn:xmpp:fast:0"  # XEP-0484
SASL_UPGRADE: Final = "urn:xmpp:sasl:upgrade:0"  # XEP-0480
REGISTER: Final = "jabber:iq:register"  # XEP-0077
ROSTER: Final = "jabber:iq:roster"  # RFC 6121 section 2
IQ_AUTH: Final = "jabber:iq:auth"  # XEP-0078
BLOCKING: Final = "urn:xmpp:blocking"  # XEP-0191
UPLOAD: Final = "urn:xmpp:http:upload:0"  # XEP-0363
CARBONS: Final = "urn:xmpp:carbons:2"  # XEP-0280
MUC: Final = "http://jabber.org/protocol/muc"  # XEP-0045
MUC_USER: Final = "http://jabber.org/protocol/muc#user"
DATA_FORM: Final = "jabber:x:data"  # XEP-0004
PING: Final = "urn:xmpp:ping"  # XEP-0199

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

# Namespaces of XMPP extensions that are printed whole, and that may be named as a service discovery feature. A name in
# here is the protocol's own and can hold nothing of a user's.
KNOWN_NAMESPACES: Final = CONTENT | frozenset(
    {
        STREAMS,
        TLS,
        SASL,
        SASL2,
        SASL_CB,
        BIND,
        SESSION,
        STREAM_ERRORS,
        STANZA_ERRORS,
        SM2,
        SM3,
        CSI,
        COMPRESS,
        LIMITS,
        DIALBACK,
        BIND2_OLD,
        SASL_UPGRADE,
        "eu.siacs.conversations.axolotl",  # XEP-0384 before 0.4
        "http://jabber.org/features/compress",
        "http://jabber.org/features/iq-auth",
        "http://jabber.org/features/iq-register",
        "http://jabber.org/protocol/activity",
        "http://jabber.org/protocol/address",
        "http://jabber.org/protocol/bytestreams",
        "http://jabber.org/protocol/caps",
        "http://jabber.org/protocol/chatstates",
        "http://jabber.org/protocol/commands",
        "http://jabber.org/protocol/disco#info",
        "http://jabber.org/protocol/disco#items",
        "http://jabber.org/protocol/feature-neg",
        "http://jabber.org/protocol/geoloc",
        "http://jabber.org/protocol/httpbind",
        "http://jabber.org/protocol/ibb",
        "http://jabber.org/protocol/mood",
        "http://jabber.org/protocol/muc",
        "http://jabber.org/protocol/muc#admin",
        "http://jabber.org/protocol/muc#owner",
        "http://jabber.org/protocol/muc#user",
        "http://jabber.org/protocol/nick",
        "http://jabber.org/protocol/offline",
        "http://jabber.org/protocol/pubsub",
        "http://jabber.org/protocol/pubsub#errors",
        "http://jabber.org/protocol/pubsub#event",
        "http://jabber.org/protocol/pubsub#owner",
        "http://jabber.org/protocol/rosterx",
        "http://jabber.org/protocol/rsm",
        "http://jabber.org/protocol/si",
        "http://jabber.org/protocol/si/profile/file-transfer",
        "http://jabber.org/protocol/tune",
        "http://jabber.org/protocol/xhtml-im",
        "http://www.w3.org/1999/xhtml",
        "jabber:iq:auth",
        "jabber:iq:gateway",
        "jabber:iq:last",
        "jabber:iq:oob",
        "jabber:iq:privacy",
        "jabber:iq:private",
        "jabber:iq:register",
        "jabber:iq:roster",
        "jabber:iq:rpc",
        "jabber:iq:search",
        "jabber:iq:time",
        "jabber:iq:version",
        "jabber:x:conference",
        "jabber:x:data",
        "jabber:x:delay",
        "jabber:x:encrypted",
        "jabber:x:oob",
        "jabber:x:signed",
        "storage:bookmarks",
        "urn:ietf:params:xml:ns:vcard-4.0",
        "urn:ietf:params:xml:ns:xmpp-framing",
        "urn:xmpp:archive",
        "urn:xmpp:attention:0",
        "urn:xmpp:avatar:data",
        "urn:xmpp:avatar:metadata",
        "urn:xmpp:bidi",
        "urn:xmpp:bind:0",
        "urn:xmpp:blocking",
        "urn:xmpp:blocking:errors",
        "urn:xmpp:bob",
        "urn:xmpp:bookmarks:1",
        "urn:xmpp:carbons:2",
        "urn:xmpp:chat-markers:0",
        "urn:xmpp:delay",
        "urn:xmpp:eme:0",
        "urn:xmpp:errors",
        "urn:xmpp:extdisco:2",
        "urn:xmpp:fallback:0",
        "urn:xmpp:fast:0",
        "urn:xmpp:features:bidi",
        "urn:xmpp:features:dialback",
        "urn:xmpp:features:pre-approval",
        "urn:xmpp:features:rosterver",
        "urn:xmpp:file:metadata:0",
        "urn:xmpp:forward:0",
        "urn:xmpp:hashes:2",
        "urn:xmpp:hints",
        "urn:xmpp:http:upload:0",
        "urn:xmpp:idle:1",
        "urn:xmpp:jingle:1",
        "urn:xmpp:jingle:apps:file-transfer:5",
        "urn:xmpp:jingle:apps:rtp:1",
        "urn:xmpp:jingle:errors:1",
        "urn:xmpp:jingle:transports:ibb:1",
        "urn:xmpp:jingle:transports:ice-udp:1",
        "urn:xmpp:jingle:transports:raw-udp:1",
        "urn:xmpp:jingle:transports:s5b:1",
        "urn:xmpp:jingle-message:0",
        "urn:xmpp:mam:1",
        "urn:xmpp:mam:2",
        "urn:xmpp:message-correct:0",
        "urn:xmpp:message-moderate:1",
        "urn:xmpp:message-retract:1",
        "urn:xmpp:omemo:2",
        "urn:xmpp:openpgp:0",
        "urn:xmpp:ping",
        "urn:xmpp:push:0",
        "urn:xmpp:reactions:0",
        "urn:xmpp:receipts",
        "urn:xmpp:reference:0",
        "urn:xmpp:reply:0",
        "urn:xmpp:sce:1",
        "urn:xmpp:sid:0",
        "urn:xmpp:spoiler:0",
        "urn:xmpp:styling:0",
        "urn:xmpp:time",
        "vcard-temp",
        "vcard-temp:x:update",
    }
)
