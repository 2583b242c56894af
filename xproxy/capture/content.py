"""What of an element stays in a capture: the tables, an allow-list as in ``xproxy.xmpp.redact``.

Two levels. *Hidden* (the default): names of elements and attributes, and of values and text what the log or the
analysis reads, or what is of a closed set. *Bodies* (``--capture-bodies``): everything but what is a secret by its
name. SASL payloads and stream management ids are treated in both by ``xproxy.capture.redact``.

A capture names what it was redacted by, level and number of the rules: ``default-2``, ``bodies-2``; a cassette too. The
number is raised with every change by which the same octets come out otherwise, here, in ``hide`` or in what does the
work; so who finds that a rule left something in knows which captures hold it, and ``xproxy capture redact`` applies the
rules of now. tests/capture/test_content.py holds a digest of what comes out, and of the tables, that changes with them.
"""

import enum
import re
from typing import Final

from xproxy.xmpp import auth, ns, sasl2

RULES: Final = 2
"""Number of these rules. 1: before device nodes, HTTP confirmations, invitations, upload addresses and odd names of
form fields were among the secrets."""


class Rule(enum.Enum):
    """What becomes of a text or a value."""

    KEEP = enum.auto()
    HIDE = enum.auto()
    ALIAS = enum.auto()  # an id: another one of the same length, the same each time
    PAYLOAD = enum.auto()  # of SASL
    SEAL = enum.auto()  # hide it, and whatever stands inside
    VALUE = enum.auto()  # keep it if it is of a closed set
    FIELD = enum.auto()  # of a form: what its field is called decides
    IF_TOLD = enum.auto()  # an error's text: what the log told of it stays
    MECHANISM = enum.auto()  # where the log tells it: anything else could be a payload


_SASL: Final = f"{{{ns.SASL}}}"
_SASL2: Final = f"{{{ns.SASL2}}}"

# Text that the log reads, or that says how the protocol is spoken.
_TEXTS: Final[frozenset[str]] = frozenset(
    {
        f"{_SASL}mechanism",
        f"{_SASL2}mechanism",
        f"{{{ns.FAST}}}mechanism",
        f"{{{ns.SASL_UPGRADE}}}upgrade",
        f"{_SASL2}upgrade",
        f"{_SASL2}task",
        f"{_SASL2}software",
        f"{_SASL2}authorization-identifier",
        f"{_SASL2}authorization-identity",
        f"{{{ns.BIND2}}}tag",
        f"{{{ns.BIND2_OLD}}}tag",
        f"{{{ns.BIND}}}resource",
        f"{{{ns.BIND}}}jid",
        f"{{{ns.IQ_AUTH}}}username",
        f"{{{ns.LIMITS}}}max-bytes",
        f"{{{ns.LIMITS}}}idle-seconds",
        f"{{{ns.STREAM_ERRORS}}}see-other-host",
        "{http://jabber.org/features/compress}method",
        f"{{{ns.COMPRESS}}}method",
    }
)
# Text of a closed set, or a number: what a program must be able to read when the capture is replayed to it.
_NUMBER: Final = re.compile(rb"-?[0-9]{1,9}")
_VALUES: Final[dict[str, re.Pattern[bytes]]] = {
    **{f"{{{content}}}show": re.compile(rb"away|chat|dnd|xa") for content in ns.CONTENT},
    **{f"{{{content}}}priority": _NUMBER for content in ns.CONTENT},
    "{http://jabber.org/protocol/rsm}max": _NUMBER,
    "{http://jabber.org/protocol/rsm}count": _NUMBER,
}
_ERROR_TEXTS: Final = frozenset(
    {
        f"{{{ns.STANZA_ERRORS}}}text",
        f"{{{ns.STREAM_ERRORS}}}text",
        f"{_SASL}text",
        f"{_SASL2}text",
    }
)
PAYLOADS: Final = frozenset(
    {auth.AUTH, auth.RESPONSE, auth.CHALLENGE, auth.SUCCESS, sasl2.RESPONSE, sasl2.CHALLENGE}
)  # on the first level
INNER_PAYLOADS: Final = frozenset({f"{_SASL2}initial-response", f"{_SASL2}additional-data"})
INNER_PARENTS: Final = frozenset({sasl2.AUTHENTICATE, sasl2.SUCCESS, sasl2.CONTINUE, sasl2.FAILURE})

FIELD: Final = f"{{{ns.DATA_FORM}}}field"
FIELD_VALUE: Final = f"{{{ns.DATA_FORM}}}value"
_FORM_TYPE: Final = re.compile(rb"[a-z0-9:/#.\-_]{1,80}")  # a namespace
_FORM_TYPE_HEADS: Final = (b"http://jabber.org/protocol/", b"jabber:iq:", b"urn:xmpp:", b"urn:ietf:params:xml:ns:")

# Attributes without a prefix whose values are addresses, ids, numbers or words of the protocol.
_ATTRIBUTES: Final = frozenset(
    {
        "action", "affiliation", "algo", "approved", "ask", "block-size", "by", "category", "code", "count", "expiry",
        "feature", "from", "h", "hash", "id", "index", "invalidate", "jid", "location", "max", "mechanism", "mode",
        "namespace", "node", "queryid", "resume", "role", "send-count", "stamp", "status", "subscription",
        "tls-0rtt", "to", "type", "upgrade", "var", "ver", "version", "xml:lang",
    }
)  # fmt: skip
# ... and of these only what is of the kind they are read as; anything else is read as nothing, and so is filler.
_ATTRIBUTE_VALUES: Final[dict[str, re.Pattern[bytes]]] = {
    "code": re.compile(rb"[0-9]{3}"),
    **{name: re.compile(rb"[0-9]{1,16}") for name in ("count", "h", "index", "max", "send-count")},
    **{name: re.compile(rb"true|false|0|1") for name in ("approved", "invalidate", "resume", "tls-0rtt")},
    "status": re.compile(rb"executing|completed|canceled"),  # XEP-0050 section 4; elsewhere it may be what people write
}
# ... and whose value lets its holder act for someone, whatever its name.
_ALWAYS_HIDDEN: Final = frozenset(
    {
        ("{urn:xmpp:push:0}enable", "node"),  # XEP-0357 section 5: the address of a device at its push service
        ("{urn:xmpp:push:0}disable", "node"),
        ("{http://jabber.org/protocol/http-auth}confirm", "id"),  # XEP-0070 section 4.2: of the transaction
    }
)
_ALIASED: Final = frozenset(
    {
        *((f"{{{namespace}}}enabled", "id") for namespace in ns.SM),
        *((f"{{{namespace}}}{name}", "previd") for namespace in ns.SM for name in ("resume", "resumed", "failed")),
        (f"{_SASL2}user-agent", "id"),
        (f"{{{ns.STREAMS}}}stream", "id"),
    }
)
_MECHANISMS: Final = frozenset({auth.AUTH, sasl2.AUTHENTICATE})

# With bodies: what is a secret by its name, in whatever namespace.
_SECRET_TEXTS: Final = frozenset(
    {
        "digest", "key", "hashed-token", "header", "preauth", "pin", "psk", "authorization", "task-data", "hash",
        "salt", "parameters", "handshake", "verify", "result", "cookie", "device",
    }
)  # fmt: skip
_SECRET_ATTRIBUTES: Final = frozenset(
    {"pwd", "key", "key-params", "key-salt", "ufrag", "url", "pin", "psk", "authorization", "preauth", "cookie"}
)
_SECRET_NAME: Final = re.compile(
    r"passw|passphrase|passcode|passwd|secret|token|credential|signature|api[-_]?key", re.IGNORECASE
)
_SECRET_FIELD: Final = re.compile(
    r"pass|pwd|pw\b|secret|token|pin\b|otp|key|credential|auth|cookie|psk|landing|^uri$", re.IGNORECASE
)  # the last two: addresses that hold the token of an invitation (XEP-0401 section 3.1)
_SECRET_TAGS: Final = frozenset(
    {
        # Addresses that hold the token of an upload (the first versions of XEP-0363), or of an invitation (XEP-0401).
        *(f"{{{upload}}}{name}" for upload in ("urn:xmpp:http:upload", "eu:siacs:conversations:http:upload")
          for name in ("put", "get")),
        "{urn:xmpp:invite#invite}uri",
    }
)  # fmt: skip
# Elements of a login: a client that is being debugged may say them in a wrong namespace.
_LOGIN_NAMES: Final = frozenset({"auth", "response", "challenge", "success", "authenticate"})
_LOGIN_NAMESPACES: Final = (_SASL, _SASL2, "{urn:xmpp:scram-upgrade:")
_OWN_KEYS: Final = frozenset({f"{{{ns.DIALBACK}}}result", f"{{{ns.DIALBACK}}}verify", f"{{{ns.COMPONENT}}}handshake"})
_NO_SECRETS: Final = frozenset({"result", "verify", "hash", "header"})  # elsewhere these are ordinary names


def redaction(*, bodies: bool) -> str:
    """Return what a capture says of how it was redacted."""
    return f"{'bodies' if bodies else 'default'}-{RULES}"


def is_of_older_rules(redaction: str) -> bool:
    """Return whether a capture was redacted by rules before these, or by nobody knows which."""
    number = redaction.rpartition("-")[2]
    return not (number.isascii() and number.isdecimal() and len(number) < 10 and int(number) >= RULES)


class Content:
    """The tables for one of the two levels."""

    def __init__(self, *, bodies: bool) -> None:
        """``bodies``: keep what people say to each other."""
        self.bodies = bodies

    def text(self, tag: str, depth: int, parent: str | None) -> Rule:
        """Say what becomes of the text in ``tag``, which stands ``depth`` elements below the first level."""
        if (depth == 0 and tag in PAYLOADS) or (depth == 1 and tag in INNER_PAYLOADS and parent in INNER_PARENTS):
            return Rule.PAYLOAD
        if tag == FIELD_VALUE and parent == FIELD:
            return Rule.FIELD
        if tag in _TEXTS:
            return Rule.KEEP
        if self.bodies:
            if is_secret_by_name(tag, depth):
                return Rule.SEAL
            # Of a login nothing stays that is not listed above; what stands in its elements has rules of its own.
            return Rule.HIDE if tag.startswith(_LOGIN_NAMESPACES) and tag not in _ERROR_TEXTS else Rule.KEEP
        if tag in _ERROR_TEXTS:
            return Rule.IF_TOLD
        return Rule.VALUE if tag in _VALUES else Rule.HIDE

    def is_value(self, tag: str, raw: bytes) -> bool:
        """Return whether ``raw`` is of the closed set that the text of ``tag`` is of."""
        return _VALUES[tag].fullmatch(raw.strip()) is not None

    def form_type(self, value: bytes) -> Rule:
        """Say what becomes of the value of the field FORM_TYPE, which names what a form is about."""
        value = value.strip()
        known = _FORM_TYPE.fullmatch(value) is not None and value.startswith(_FORM_TYPE_HEADS)
        return Rule.KEEP if known else Rule.HIDE

    def field(self, var: str, *, is_private: bool) -> Rule:
        """Say what becomes of the values of another field of a form; ``is_private``: it is, or was once, said so."""
        secret = is_private or is_secret_field_by_name(var)
        return Rule.KEEP if self.bodies and not secret else Rule.HIDE

    def attribute(self, tag: str, name: str, raw: bytes) -> Rule:
        """Say what becomes of ``raw``, the value of an attribute; ``name`` as it is written, with its prefix."""
        if name == "xmlns" or name.startswith("xmlns:"):
            return Rule.KEEP
        if (tag, name) in _ALIASED:
            return Rule.ALIAS
        if name == "mechanism" and tag in _MECHANISMS:
            return Rule.MECHANISM
        if (tag, name) in _ALWAYS_HIDDEN:
            return Rule.HIDE
        if self.bodies:
            return Rule.HIDE if is_secret_attribute_by_name(tag, name) else Rule.KEEP
        if (pattern := _ATTRIBUTE_VALUES.get(name)) is not None:
            return Rule.KEEP if pattern.fullmatch(raw.strip()) else Rule.HIDE
        return Rule.KEEP if name in _ATTRIBUTES else Rule.HIDE


def is_secret_by_name(tag: str, depth: int) -> bool:
    """Return whether the text of ``tag``, ``depth`` elements below the first level, and all inside, is a secret."""
    local = tag.rpartition("}")[2].lower()
    if tag in _OWN_KEYS or tag in _SECRET_TAGS or _SECRET_NAME.search(local) is not None:
        return True
    if depth == 0 and local in _LOGIN_NAMES and not tag.startswith(_LOGIN_NAMESPACES):
        return True
    return local in _SECRET_TEXTS and (local not in _NO_SECRETS or tag.startswith((_SASL2, f"{{{ns.UPLOAD}}}")))


def is_secret_attribute_by_name(tag: str, name: str) -> bool:
    """Return whether the attribute ``name`` of elements ``tag`` is a secret, however its prefix is written."""
    local = name.rpartition("}")[2].rpartition(":")[2].lower()
    return (tag, name) in _ALWAYS_HIDDEN or local in _SECRET_ATTRIBUTES or _SECRET_NAME.search(local) is not None


def is_secret_field_by_name(var: str) -> bool:
    """Return whether the values of a form's field of that name are secrets."""
    return _SECRET_FIELD.search(var) is not None
