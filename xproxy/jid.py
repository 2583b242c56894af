"""JIDs (RFC 7622).

What a peer writes as an address is a ``str`` everywhere in the log; a ``Jid`` is made where the address is a fact to
reason with: the bound resource, the name a stream is opened to, the peer a request waits for.

Each part is *enforced*, so that two spellings of one address compare equal: localpart by UsernameCaseMapped
(RFC 8265 section 3.3) without the eight characters RFC 7622 section 3.3.1 takes out, resourcepart by OpaqueString
(RFC 8265 section 4.2), domainpart as IDNA2008 U-labels after the mapping of RFC 5895.

Unicode versions. The tables are those of the Python that runs (14.0 in 3.11, 15.1 in 3.13) and, for domains, also of
``idna``. A character younger than the tables is unassigned for them and the address is refused: an old proxy may call
a new address invalid, never the other way round, and no two versions map one valid address to two different ones
(normalisation and case mapping of assigned characters are stable). So callers keep the text beside a ``JidError``.
"""

import functools
import ipaddress
import re
import unicodedata
from typing import Final

import attrs
import idna
import precis_i18n

PART_OCTETS_MAX: Final = 1023  # RFC 7622 sections 3.2 to 3.4, UTF-8 octets after enforcement
DNS_NAME_OCTETS_MAX: Final = 253  # RFC 1035 section 2.3.4, in text form
TEXT_CHARS_MAX: Final = 4 * 3 * PART_OCTETS_MAX
"""Longer text is refused unread. Enforcement shortens by composition, at most fourfold; above that no part can fit."""

CACHED_CHARS_MAX: Final = 128  # addresses in use are shorter; strangers must not fill the cache with long ones

LOCALPART_EXCLUDED: Final = frozenset("\"&'/:<>@")  # RFC 7622 section 3.3.1

# Addresses of printable ASCII need no tables: PRECIS allows all of it (RFC 8264 section 9.11) and only lowers case.
_ASCII_LOCALPART: Final = re.compile(r"[!#$%()*+,\-.0-9;=?A-Z\[\\\]^_`a-z{|}~]{1,1023}")
_ASCII_RESOURCEPART: Final = re.compile(r"[ -~]{1,1023}")
# COMPAT(Prosody, ejabberd): both serve names with "_", which is no LDH label but common in container networks.
_LDH_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_\-]{0,61}[A-Za-z0-9_])?")
_DOTS: Final = re.compile("[.\u3002\uff0e\uff61]")  # RFC 5895 section 2, step 4; fullwidth forms map to them
_CHEROKEE: Final = re.compile("([\u13a0-\u13f5]+)")


class JidError(ValueError):
    """A text is no JID. ``part`` says where, ``reason`` why; the text itself is not kept."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(part, reason)
        self.part = part
        """"localpart", "domainpart", "resourcepart" or "jid"."""
        self.reason = reason
        """"empty", "too-long", "invalid-character", "not-a-name", "address"."""

    def __str__(self) -> str:
        """Return part and reason, e.g. ``domainpart: not-a-name``."""
        return f"{self.part}: {self.reason}"


@attrs.frozen
class Jid:
    """A valid JID: parts enforced by RFC 7622, None for an absent part."""

    local: str | None
    domain: str
    resource: str | None = None

    @classmethod
    def from_text(cls, text: str) -> "Jid":
        """Return the JID that ``text`` spells. Answers are cached: cheap enough for every stanza.

        Raises: JidError.
        """
        return _parse_cached(text) if len(text) <= CACHED_CHARS_MAX else _parse(text)

    @property
    def bare(self) -> "Jid":
        """The JID without its resourcepart."""
        return self if self.resource is None else Jid(self.local, self.domain)

    def __str__(self) -> str:
        """Return the address as text."""
        text = self.domain if self.local is None else f"{self.local}@{self.domain}"
        return text if self.resource is None else f"{text}/{self.resource}"


def _parse(text: str) -> Jid:
    if len(text) > TEXT_CHARS_MAX:
        raise JidError("jid", "too-long")
    # RFC 7622 section 3.1: first the resourcepart from the first "/", then the localpart up to the first "@".
    rest, slash, resource = text.partition("/")
    local, at, domain = rest.partition("@")
    if not at:
        local, domain = "", rest
    return Jid(
        _enforce_localpart(local) if at else None,
        enforce_domainpart(domain),
        _enforce_resourcepart(resource) if slash else None,
    )


_parse_cached: Final = functools.lru_cache(maxsize=2048)(_parse)


def _enforce_localpart(text: str) -> str:
    if _ASCII_LOCALPART.fullmatch(text):
        return text.lower()
    local = _enforce("UsernameCaseMapped", "localpart", text)
    if not LOCALPART_EXCLUDED.isdisjoint(local):
        raise JidError("localpart", "invalid-character")
    return local


def _enforce_resourcepart(text: str) -> str:
    if _ASCII_RESOURCEPART.fullmatch(text):
        return text
    return _enforce("OpaqueString", "resourcepart", text)


def _enforce(profile: str, part: str, text: str) -> str:
    if not text:
        raise JidError(part, "empty")
    try:
        enforced = _profile(profile).enforce(text)
        octets = len(enforced.encode())
    except ValueError:  # UnicodeEncodeError: its object is the text, so it goes no further
        raise JidError(part, "invalid-character") from None
    if octets > PART_OCTETS_MAX:
        raise JidError(part, "too-long")
    return enforced


@functools.cache
def _profile(name: str) -> precis_i18n.profile.Profile:
    return precis_i18n.get_profile(name)


def enforce_domainpart(text: str) -> str:
    """Return ``text`` as a domainpart: U-labels in lower case, or an IPv4 address, or a bracketed IPv6 address.

    A trailing dot goes (RFC 7622 section 3.2).

    Raises: JidError.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise JidError("domainpart", "too-long")
    if text.startswith("["):
        return _enforce_ipv6(text)
    domain = _map_domain(text)
    if _is_ipv4(domain):
        return domain
    domain = ".".join(map(_u_label, domain.split(".")))
    if len(domain.encode()) > PART_OCTETS_MAX:
        raise JidError("domainpart", "too-long")
    return domain


def domain_to_ascii(domain: str) -> str:
    """Return ``domain`` in A-labels, lower case, without trailing dot: what SNI and certificates compare with.

    Labels of ASCII are taken as they are, valid A-labels or not: what a resolver and a certificate may hold.

    Raises: JidError with reason "address" for an IP address (no SNI: RFC 6066 section 3), "not-a-name", "empty" or
    "too-long" for what is no host name.
    """
    return _to_ascii_cached(domain) if len(domain) <= CACHED_CHARS_MAX else _to_ascii(domain)


def _to_ascii(domain: str) -> str:
    if len(domain) > TEXT_CHARS_MAX:
        raise JidError("domainpart", "too-long")
    name = _map_domain(domain)
    if is_ip_address(name):
        raise JidError("domainpart", "address")
    name = ".".join(map(_a_label, name.split(".")))
    if len(name) > DNS_NAME_OCTETS_MAX:
        raise JidError("domainpart", "too-long")
    return name


_to_ascii_cached: Final = functools.lru_cache(maxsize=1024)(_to_ascii)


def is_ip_address(domain: str) -> bool:
    """Return whether ``domain`` is an IPv4 or IPv6 address, with or without brackets, rather than a name."""
    if ":" not in domain and not domain[-1:].isdecimal() and domain[-1:] != "]":
        return False  # most are names, and most names are told from an address by their last letter
    try:
        ipaddress.ip_address(domain[1:-1] if domain[:1] == "[" and domain[-1:] == "]" else domain)
    except ValueError:
        return False
    return True


def _is_ipv4(text: str) -> bool:
    return text[-1:].isdecimal() and ":" not in text and is_ip_address(text)


def _enforce_ipv6(text: str) -> str:
    """Return an IP-literal (RFC 3986 section 3.2.2) in the one spelling of RFC 5952. Zones are not part of it."""
    try:
        if text[-1:] != "]" or "%" in text:
            raise ValueError
        return f"[{ipaddress.IPv6Address(text[1:-1])}]"
    except ValueError:
        raise JidError("domainpart", "not-a-name") from None


def _map_domain(text: str) -> str:
    """Lower case, wide and narrow forms, NFC, one kind of dot (RFC 5895 section 2); no trailing dot."""
    if not text.isascii():
        text = _profile("UsernameCaseMapped").width_mapping_rule(_DOTS.sub(".", text))
        text = unicodedata.normalize("NFC", _lower(text))
    else:
        text = text.lower()
    text = text.removesuffix(".")
    if not text:
        raise JidError("domainpart", "empty")
    return text


def _lower(text: str) -> str:
    """Lower the case, except of Cherokee: its case folding goes to the capitals, so IDNA2008 takes only these."""
    if _CHEROKEE.search(text) is None:
        return text.lower()
    return "".join(run if _CHEROKEE.match(run) else run.lower() for run in _CHEROKEE.split(text))


def _u_label(label: str) -> str:
    if _LDH_LABEL.fullmatch(label) and label[2:4] != "--":
        return label
    try:
        # A label that starts with "xn--" must be the canonical A-label of what it decodes to (RFC 5891 section 5.3).
        u_label = idna.ulabel(label)
        idna.alabel(u_label)  # refuses what is longer than 63 octets on the wire
    except ValueError:
        raise JidError("domainpart", "not-a-name") from None
    return u_label


def _a_label(label: str) -> str:
    if _LDH_LABEL.fullmatch(label):
        return label
    if label.isascii():
        raise JidError("domainpart", "not-a-name")
    try:
        return idna.alabel(label).decode()
    except ValueError:
        raise JidError("domainpart", "not-a-name") from None
