"""SASL mechanisms: who logs in, read from payloads that are dropped at once.

One file a mechanism. A decoder sees the decoded octets and answers with an ``Identity`` or a ``Challenge``; what it
cannot read is data (``problem``), never an exception, since an exception could carry the payload to a traceback.
"""

from xproxy.xmpp.sasl.anonymous import AnonymousDecoder
from xproxy.xmpp.sasl.base64 import Encoding, decode_base64, decode_initial_response
from xproxy.xmpp.sasl.cram_md5 import CramMd5Decoder
from xproxy.xmpp.sasl.digest_md5 import DigestMd5Decoder
from xproxy.xmpp.sasl.downgrade import hash_octets
from xproxy.xmpp.sasl.external import ExternalDecoder
from xproxy.xmpp.sasl.hashed_token import HashedTokenDecoder, binding_suffix
from xproxy.xmpp.sasl.identity import Challenge, Decoder, Identity
from xproxy.xmpp.sasl.oauth import OAuthBearerDecoder, XOAuth2Decoder
from xproxy.xmpp.sasl.opaque import OpaqueDecoder
from xproxy.xmpp.sasl.plain import PlainDecoder
from xproxy.xmpp.sasl.scram import ScramDecoder


def decoder_for(mechanism: str) -> Decoder:
    """Return a new decoder for ``mechanism`` as sent; the opaque one for a mechanism without a file here.

    Names are upper case (RFC 4422 section 3.1). Another case gets the same decoder: should a server accept it, the
    login is attributed; should it not, nothing is lost.
    """
    match mechanism.upper():
        case "PLAIN":
            return PlainDecoder()
        case "DIGEST-MD5":
            return DigestMd5Decoder()
        case "EXTERNAL":
            return ExternalDecoder()
        case "ANONYMOUS":
            return AnonymousDecoder()
        case name if name.startswith("SCRAM-"):  # a family: SCRAM-<hash>[-PLUS] (RFC 5802 section 4)
            return ScramDecoder(plus=name.endswith("-PLUS"), hash_octets=hash_octets(name))
        case "CRAM-MD5":
            return CramMd5Decoder()
        case "OAUTHBEARER":
            return OAuthBearerDecoder()
        case "X-OAUTH2":
            return XOAuth2Decoder()
        case name if binding_suffix(name) is not None:  # FAST: HT-<hash>-<binding>
            return HashedTokenDecoder(mechanism=name)
    return OpaqueDecoder()


__all__ = ["Challenge", "Decoder", "Encoding", "Identity", "decode_base64", "decode_initial_response", "decoder_for"]
