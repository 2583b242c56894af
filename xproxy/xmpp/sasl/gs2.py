"""The header of the GS2 family (RFC 5801 section 4): ``gs2-cbind-flag "," ["a=" saslname] ","``.

SCRAM (RFC 5802 section 7) and OAUTHBEARER (RFC 7628 section 3.1) begin with it.
"""

import re
from typing import Final

from xproxy.xmpp.sasl.identity import Identity
from xproxy.xmpp.sasl.octets import read_name

_CHANNEL_BINDING: Final = re.compile(rb"[A-Za-z0-9.\-]+")  # cb-name, RFC 5801 section 5
# RFC 5056 section 7 registry, and RFC 9266. Another name is not told: base64 fits the grammar of cb-name too, and
# a client-final that begins with its proof, ``p=...``, must not come out as a binding.
CHANNEL_BINDINGS: Final = frozenset({"tls-unique", "tls-server-end-point", "tls-unique-for-telnet", "tls-exporter"})
UNREGISTERED: Final = "unregistered"
_ESCAPE: Final = re.compile(r"=(2C|3D)?")


def read_gs2_header(payload: bytes) -> tuple[Identity, bytes]:
    """Return flag, binding, authzid and problem of the header, and what stands behind it.

    Without a header ``gs2_flag`` is None and nothing else is read: what stands where is anybody's guess.
    """
    flag, comma, rest = payload.partition(b",")
    authzid_field, second_comma, behind = rest.partition(b",")
    gs2_flag = flag[:1].decode() if flag in (b"n", b"y") or flag.startswith(b"p=") else None
    if gs2_flag is None or not comma or not second_comma:
        return Identity(problem="structure"), b""

    problem = None
    channel_binding = None
    if gs2_flag == "p" and _CHANNEL_BINDING.fullmatch(flag, 2):
        channel_binding = flag[2:].decode()
        channel_binding = channel_binding if channel_binding in CHANNEL_BINDINGS else UNREGISTERED
    elif gs2_flag == "p":
        problem = "structure"

    authzid = None
    if authzid_field.startswith(b"a="):
        authzid, authzid_problem = read_saslname(authzid_field[2:])
        problem = problem or authzid_problem
    elif authzid_field:
        problem = problem or "structure"
    return Identity(authzid=authzid, gs2_flag=gs2_flag, channel_binding=channel_binding, problem=problem), behind


def read_saslname(octets: bytes) -> tuple[str | None, str | None]:
    """Undo ``=2C`` and ``=3D`` (RFC 5802 section 5.1). Any other "=", or a raw comma, stays and is a problem."""
    text, problem = read_name(octets)
    if text is None:
        return None, problem or "structure"
    if "," in text or any(match[1] is None for match in _ESCAPE.finditer(text)):
        problem = problem or "saslname"
    return _ESCAPE.sub(lambda match: {"2C": ",", "3D": "=", None: "="}[match[1]], text), problem
