"""How mechanisms compare: only those that prove knowledge of a password can be told stronger or weaker.

EXTERNAL, tokens and ANONYMOUS prove something else; a client that turns to one of them is not downgraded.
"""

from typing import Final

_CLEARTEXT: Final = frozenset({"PLAIN", "LOGIN", "IQ-AUTH-PLAIN"})  # the password itself crosses the stream
_BOUND: Final = 100  # channel binding outweighs the hash: it is what keeps a third party out


def is_cleartext(mechanism: str) -> bool:
    """Tell whether the mechanism shows the password to whoever reads the stream."""
    return mechanism.upper() in _CLEARTEXT


def strength_of(mechanism: str) -> int | None:
    """Return a rank: greater is stronger; None for what cannot be compared."""
    name = mechanism.upper()
    if name in _CLEARTEXT:
        return 1
    if name in ("CRAM-MD5", "DIGEST-MD5", "IQ-AUTH-DIGEST"):  # RFC 6331: obsolete
        return 2
    if not name.startswith("SCRAM-"):
        return None
    bits = name.removesuffix("-PLUS").rpartition("-")[2]
    return (3 if bits == "1" else 4) + (_BOUND if name.endswith("-PLUS") else 0)
