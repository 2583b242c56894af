"""What a server signs about its own offer: XEP-0474 (``h=``) and XEP-0515 (``t=``), recomputed.

Both stand in SCRAM's server-first message and are covered by the proof of the password, so nobody on the way can change
them. Whoever changed the *offer* on the way is found out: the hash of what arrived is another one. This proxy changes
nothing, so a mismatch on its server leg means that somebody between it and the server does.

    S = mechanisms, sorted, joined by 0x1E  [ 0x1F channel-binding types, sorted, joined by 0x1E ]      i;octet order
    h = base64(hash of the SCRAM mechanism in use (S))

0x1F and what follows is there if the server advertised types (XEP-0440). Mechanisms are those of the profile in use
(SASL or SASL2). Drafts before 0.4 joined by "," and "|": a server that still does is honest, so both are tried.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

HASHES: Final = {
    "SHA-1": "sha1",
    "SHA-224": "sha224",
    "SHA-256": "sha256",
    "SHA-384": "sha384",
    "SHA-512": "sha512",
    "SHA3-512": "sha3_512",
}
"""Names in SCRAM mechanisms (RFC 5802 section 4) -> hashlib's."""

TLS_VERSIONS: Final = {"0301": "1.0", "0302": "1.1", "0303": "1.2", "0304": "1.3"}
"""Values of ``t=`` (XEP-0515 section 4.1) -> versions as TlsEstablished tells them."""

_CURRENT: Final = ("\x1e", "\x1f")
_BEFORE_0_4: Final = (",", "|")


def hash_name_of(mechanism: str) -> str | None:
    """Return the hash in the name of a SCRAM mechanism ("SHA-256"); None for other mechanisms and unknown hashes."""
    name = mechanism.upper()
    if not name.startswith("SCRAM-"):
        return None
    name = name.removeprefix("SCRAM-").removesuffix("-PLUS")
    return name if name in HASHES else None


def hash_octets(mechanism: str) -> int | None:
    """Return how many octets the hash of a SCRAM mechanism has; None where it is not known."""
    name = hash_name_of(mechanism)
    return None if name is None else hashlib.new(HASHES[name]).digest_size


def expected_h(mechanisms: Sequence[str], channel_bindings: Sequence[str] | None, hash_name: str) -> str:
    """Return what ``h=`` must be for an offer (XEP-0474 section 6.1).

    ``channel_bindings``: None where no types were advertised. ``hash_name``: a key of HASHES.
    """
    return _hash(mechanisms, channel_bindings, hash_name, _CURRENT)


def is_offer_genuine(
    signed: str, mechanisms: Sequence[str], channel_bindings: Sequence[str] | None, mechanism: str
) -> bool | None:
    """Return whether ``signed``, an ``h=``, is of this offer; None where it cannot be judged.

    ``mechanism``: the one in use, whose hash counts.
    """
    hash_name = hash_name_of(mechanism)
    if hash_name is None:
        return None
    return any(
        hmac.compare_digest(signed.encode(), _hash(mechanisms, channel_bindings, hash_name, separators).encode())
        for separators in (_CURRENT, _BEFORE_0_4)
    )


def _hash(
    mechanisms: Sequence[str], channel_bindings: Sequence[str] | None, hash_name: str, separators: tuple[str, str]
) -> str:
    within, between = separators
    text = _join(mechanisms, within)
    if channel_bindings is not None:
        text += between.encode() + _join(channel_bindings, within)
    return base64.b64encode(hashlib.new(HASHES[hash_name], text).digest()).decode()


def _join(names: Sequence[str], separator: str) -> bytes:
    """Sort by octets (i;octet, RFC 4790 section 9.3) and join."""
    return separator.encode().join(sorted(name.encode("utf-8", "surrogatepass") for name in names))
