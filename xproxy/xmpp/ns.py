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
