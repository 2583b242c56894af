"""Who is who in the log: in clear, by pseudonym, or not at all. Applied when a record is made, so that no reader of
the log, no view and no sink ever has more.

**clear**: as it is. **pseudonym**: localparts and resources become keyed hashes, domains stay, addresses are cut to
/24 (IPv4) and /48 (IPv6); the same user has the same pseudonym while the key lives. **omit**: JIDs, users, devices and
addresses are left out; what remains are names of servers, which say which service a record is about.

    romeo@example.org/orchard    u-8d5e957f2978@example.org/r-7f9c2ba4e88f        192.0.2.7 -> 192.0.2.0

Texts that a peer or OpenSSL wrote (``error.message``) may quote an address, so in both modes they are left out; what is
counted about them stays.

**The key** is random, stands in the state directory and is replaced every month (UTC) by the HMAC of itself. From this
month's key no earlier one can be computed: once the file has been rewritten, the pseudonyms of last month can neither
be joined to new ones nor tried out against a list of users. (Whoever copied an old key can go forward from it. Backups
of the file are the operator's to think of.) ``xproxy.identities.key_id`` says which key a record was made with. The
same key and the same events give the same records, so nothing here asks for the time: it comes with the events.

A localpart's pseudonym does not depend on its domain, since a user name is often seen before its domain is. The hash
that stands for the whole user is ``user.hash``.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import attrs

from xproxy.jid import Jid, JidError
from xproxy.record.document import Facts, Value
from xproxy.record.fields import FIELDS, Identity

KEY_BYTES: Final = 32  # HMAC-SHA-256: as long as its output (RFC 2104 section 3)
IPV4_PREFIX: Final = 24
IPV6_PREFIX: Final = 48
CACHE_MAX: Final = 8_192  # pseudonyms remembered; forgotten all at once, they are cheap to make again

_DIGITS: Final = 12  # 48 bits: two of a million users have the same pseudonym with a chance of 1 in 600
_KEY_FILE: Final = re.compile(rb"(\d{4}-(?:0[1-9]|1[0-2])) ([0-9a-f]{64})\n")
_HOST_PORT: Final = re.compile(r"\[?(?P<host>[^\[\]]*?)\]?(?P<port>:\d{1,5})?")
_SKELETON_BY: Final = re.compile(r"(?<= by=)[^\s{}<>/]+")


@attrs.frozen
class IdentityKey:
    """The key of one month."""

    month: str  # "2026-11"
    secret: bytes = attrs.field(repr=False)

    @classmethod
    def new(cls, at_ns: int, random: Callable[[int], bytes]) -> "IdentityKey":
        """Return a random key for the month of ``at_ns``."""
        return cls(month_of(at_ns), random(KEY_BYTES))

    @classmethod
    def from_bytes(cls, data: bytes) -> "IdentityKey":
        """Read what ``to_bytes`` wrote.

        Raises:
            ValueError: it is something else. The message does not hold it.
        """
        if (match := _KEY_FILE.fullmatch(data)) is None:
            raise ValueError("it is not 'YYYY-MM' and 64 hexadecimal digits")
        return cls(match[1].decode(), bytes.fromhex(match[2].decode()))

    def to_bytes(self) -> bytes:
        """Return the key as its file holds it."""
        return f"{self.month} {self.secret.hex()}\n".encode()

    @property
    def key_id(self) -> str:
        """What a record may say about the key: its month, and digits that tell two installations apart."""
        return f"{self.month}-{self.digest('key-id', '')[:8]}"

    def at(self, at_ns: int) -> "IdentityKey":
        """Return the key for the month of ``at_ns``; this one where that month is past."""
        month = month_of(at_ns)
        key = self
        while key.month < month:
            key = IdentityKey(_month_after(key.month), hmac.digest(key.secret, b"next month", hashlib.sha256))
        return key

    def digest(self, what: str, value: str) -> str:
        """Return 64 hexadecimal digits for ``value`` as a ``what``."""
        return hmac.digest(self.secret, f"{what}\0{value}".encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


class Identities:
    """What is done to the identities in the records of one run. Shared by its recorders; not thread-safe."""

    def __init__(
        self,
        mode: Literal["pseudonym", "omit"],
        key: IdentityKey | None = None,
        *,
        on_new_key: Callable[[IdentityKey], None] = lambda key: None,
    ) -> None:
        """``key``: needed for pseudonyms. ``on_new_key`` is called at the first event of a month, to keep the key."""
        assert mode == "omit" or key is not None
        self.mode = mode
        self.generation = 0
        """Counts the keys: what was made with an earlier one is to be made anew."""
        self._key = key
        self._until_ns = _end_of(key) if key is not None else None
        self._on_new_key = on_new_key
        self._cache: dict[tuple[Identity, str], str | None] = {}

    @property
    def stamp(self) -> dict[str, Value]:
        """What every record says about its identities."""
        return {
            "xproxy.identities.mode": self.mode,
            "xproxy.identities.key_id": self._key.key_id if self._key is not None and self.mode != "omit" else None,
        }

    def reach(self, at_ns: int) -> None:
        """Take the key of the month of ``at_ns``. A clock that goes back takes none back."""
        if self._key is None or self._until_ns is None or at_ns < self._until_ns:
            return
        self._key = self._key.at(at_ns)
        self._until_ns = _end_of(self._key)
        self._cache.clear()
        self.generation += 1
        self._on_new_key(self._key)

    def apply(self, facts: Facts) -> dict[str, Value]:
        """Return ``facts`` as the log may hold them."""
        covered: dict[str, Value] = {}
        for name, value in facts.items():
            kind = _KINDS.get(name)
            if kind is None or value is None:
                covered[name] = value
            elif isinstance(value, str):
                if name == "xmpp.jid" and "@" not in value and facts.get("user.domain") is None:
                    kind = Identity.USER  # a claim whose domain nobody said: not an address that is a domain
                covered[name] = self._cover(kind, value)
            elif isinstance(value, Sequence):
                items = (self._cover(kind, item) for item in value)
                covered[name] = [item for item in items if item is not None]
        return covered

    def _cover(self, kind: Identity, value: str) -> str | None:
        place = (kind, value)
        if place in self._cache:
            return self._cache[place]
        covered = _omit(kind, value) if self.mode == "omit" or self._key is None else _pseudonym(self._key, kind, value)
        if len(self._cache) >= CACHE_MAX:
            self._cache.clear()
        self._cache[place] = covered
        return covered


_KINDS: Final = {field.name: field.identity for field in FIELDS.values() if field.identity is not None}


def _omit(kind: Identity, value: str) -> str | None:
    match kind:
        case Identity.HOST:
            # The name of a server. What is an address, or of a user, goes.
            return None if "@" in value or "/" in value or _ip_in(value) is not None else value
        case Identity.SKELETON:
            return _SKELETON_BY.sub(lambda match: f"{{{len(match[0].encode())}}}", value)
        case _:
            return None


def _pseudonym(key: IdentityKey, kind: Identity, value: str) -> str | None:
    match kind:
        case Identity.JID:
            return _pseudonym_of_jid(key, value)
        case Identity.USER:
            return _pseudonym_of_jid(key, value) if "@" in value else _pseudonym_of_local(key, value)
        case Identity.RESOURCE:
            return f"r-{key.digest('resource', value)[:_DIGITS]}"
        case Identity.USER_HASH:
            return key.digest("user", _bare(value))[:32]
        case Identity.DEVICE:
            return key.digest("device", value)[:16]
        case Identity.IP:
            return _cut_ip(value)
        case Identity.HOST:
            if "@" in value or "/" in value:
                return _pseudonym_of_jid(key, value)
            found = _ip_in(value)
            return value if found is None else value.replace(found, _cut_ip(found) or "")
        case Identity.TEXT:
            return None
        case Identity.SKELETON | Identity.OWN:
            return value  # lengths and domains; the proxy's own


def _pseudonym_of_jid(key: IdentityKey, text: str) -> str:
    try:
        jid = Jid.from_text(text)
    except JidError:
        # Where its parts begin and end is anybody's guess, so none is shown.
        return f"x-{key.digest('invalid', text)[:16]}"
    domain = jid.domain
    if (found := _ip_in(domain)) is not None:
        domain = domain.replace(found, _cut_ip(found) or "")
    local = "" if jid.local is None else f"{_pseudonym_of_local(key, jid.local)}@"
    resource = "" if jid.resource is None else f"/r-{key.digest('resource', jid.resource)[:_DIGITS]}"
    return f"{local}{domain}{resource}"


def _pseudonym_of_local(key: IdentityKey, text: str) -> str:
    return f"u-{key.digest('local', _local(text))[:_DIGITS]}"


def _local(text: str) -> str:
    """Return a user name as the localpart it stands for, so that two spellings have one pseudonym."""
    try:
        jid = Jid.from_text(f"{text}@a")
    except JidError:
        return text
    return jid.local if jid.local is not None and jid.resource is None else text


def _bare(text: str) -> str:
    try:
        return str(Jid.from_text(text).bare)
    except JidError:
        return text


def _ip_in(text: str) -> str | None:
    """Return the address that ``text`` is, alone, in brackets, or with a port behind it."""
    match = _HOST_PORT.fullmatch(text)
    for candidate in (text, match["host"] if match else ""):
        try:
            ipaddress.ip_address(candidate)
        except ValueError:
            continue
        return candidate
    return None


def _cut_ip(text: str) -> str | None:
    """Return the network an address is in, without its prefix; None for what is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((address.packed, IPV6_PREFIX), strict=False).network_address)
        address = address.ipv4_mapped
    return str(ipaddress.IPv4Network((address.packed, IPV4_PREFIX), strict=False).network_address)


def month_of(at_ns: int) -> str:
    """Return the month of ``at_ns`` (UTC, ns since the epoch): "2026-11"."""
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%Y-%m")


def _month_after(month: str) -> str:
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


def _end_of(key: IdentityKey) -> int:
    """Return when the key's month is over, in ns since the epoch."""
    following = _month_after(key.month)
    return int(datetime(int(following[:4]), int(following[5:]), 1, tzinfo=UTC).timestamp()) * 1_000_000_000
