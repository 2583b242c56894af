"""ANONYMOUS (RFC 4505). Its trace may be a mail address or any other text and is dropped; bind tells the JID."""

from xproxy.xmpp.sasl.opaque import OpaqueDecoder


class AnonymousDecoder(OpaqueDecoder):
    """Reads nothing, by design."""
