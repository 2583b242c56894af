"""SASL on both ends: PLAIN and SCRAM (by scramp), RFC 6120 section 6, RFC 4616, RFC 5802, RFC 7677.

Passwords live in ``Accounts`` and in the caller of ``ClientLogin``; nothing here puts one into an exception or a log.
"""

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from scramp import ScramClient, ScramException, ScramMechanism

MECHANISMS: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN")  # strongest first
ITERATIONS_MAX: Final = 1_000_000  # half a second of CPU; a server may ask for billions, and nothing else runs then
ITERATIONS: Final = 4_096  # RFC 5802 section 5.1, the least; these accounts guard nothing

AuthInfo = tuple[bytes, bytes, bytes, int]  # salt, StoredKey, ServerKey, iterations


class SaslRefused(Exception):  # noqa: N818 - it names what the server does
    """The server answers with this condition (RFC 6120 section 6.5)."""

    def __init__(self, condition: str) -> None:
        super().__init__(condition)
        self.condition = condition


class Accounts:
    """The users of one domain. SCRAM keys are derived once, when first asked for."""

    def __init__(self, domain: str, passwords: Mapping[str, str]) -> None:
        self._domain = domain
        self._passwords = dict(passwords)
        self._keys: dict[tuple[str, str], AuthInfo] = {}
        self._decoy = secrets.token_urlsafe(16)

    def __contains__(self, user: str) -> bool:
        """Whether ``user`` has an account."""
        return user in self._passwords

    def __iter__(self) -> Iterator[str]:
        """The users' names."""
        return iter(self._passwords)

    def check_password(self, user: str, password: str) -> None:
        """Compare in constant time.

        Raises:
            SaslRefused: wrong, or no such user: the two are not told apart.
        """
        known = self._passwords.get(user, self._decoy)
        if not hmac.compare_digest(known.encode(), password.encode()) or user not in self._passwords:
            raise SaslRefused("not-authorized")

    def keys(self, mechanism: str, user: str) -> AuthInfo:
        """SCRAM keys of ``user``; a stranger gets keys that no password fits (RFC 5802 section 9)."""
        if user not in self._passwords:
            return self._derive(mechanism, self._decoy, salt=hmac.digest(self._decoy.encode(), user.encode(), "sha256"))
        if (found := self._keys.get((mechanism, user))) is None:
            found = self._keys[mechanism, user] = self._derive(mechanism, self._passwords[user])
        return found

    @staticmethod
    def _derive(mechanism: str, password: str, salt: bytes | None = None) -> AuthInfo:
        keys: AuthInfo = ScramMechanism(mechanism).make_auth_info(password, iteration_count=ITERATIONS, salt=salt)
        return keys

    def check_authzid(self, user: str, authzid: str) -> None:
        """A user may act for himself only (RFC 6120 section 6.3.8).

        Raises:
            SaslRefused: for anybody else.
        """
        if authzid and authzid != f"{user}@{self._domain}":
            raise SaslRefused("invalid-authzid")


class ServerExchange(Protocol):
    """One attempt to log in, from the server's end."""

    user: str | None
    """The authenticated user, once the attempt succeeded."""

    def step(self, message: bytes) -> bytes:
        """Take the client's message, return the server's: a challenge, or, once ``user`` is set, the last words.

        Raises:
            SaslRefused: the attempt failed.
        """


class ServerPlain:
    """PLAIN (RFC 4616)."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self.user: str | None = None

    def step(self, message: bytes) -> bytes:
        """Check the one message there is."""
        try:
            authzid, user, password = message.decode().split("\0")
        except ValueError:
            raise SaslRefused("malformed-request") from None
        if not user or not password:
            raise SaslRefused("malformed-request")
        self._accounts.check_password(user, password)
        self._accounts.check_authzid(user, authzid)
        self.user = user
        return b""


class ServerScram:
    """SCRAM-SHA-1 and SCRAM-SHA-256 without channel binding."""

    def __init__(self, mechanism: str, accounts: Accounts) -> None:
        self._accounts = accounts
        self._claimed: str | None = None
        self._scram = ScramMechanism(mechanism).make_server(self._keys)
        self._mechanism = mechanism
        self.user: str | None = None

    def _keys(self, user: str) -> AuthInfo:
        self._claimed = user
        return self._accounts.keys(self._mechanism, user)

    def step(self, message: bytes) -> bytes:
        """Answer client-first with server-first, client-final with server-final."""
        try:
            text = message.decode()
            if self._claimed is None:
                if text.split(",")[1:2] not in ([""], []):  # scramp takes no authzid, and does not say so in its error
                    raise SaslRefused("invalid-authzid")
                self._scram.set_client_first(text)
                return str(self._scram.get_server_first()).encode()
            self._scram.set_client_final(text)
            last = str(self._scram.get_server_final()).encode()
        except UnicodeDecodeError:
            raise SaslRefused("malformed-request") from None
        except ScramException as error:
            raise SaslRefused(_condition_of(error)) from None
        # Behind the proof, so that a stranger is refused exactly as a wrong password is.
        if self._claimed not in self._accounts:
            raise SaslRefused("not-authorized")
        self.user = self._claimed
        return last


def _condition_of(error: ScramException) -> str:
    name = error.server_error.value if error.server_error else "other-error"
    return "malformed-request" if name in ("other-error", "invalid-encoding") else "not-authorized"


def server_exchange(mechanism: str, accounts: Accounts) -> ServerExchange:
    """Begin an attempt with one of ``MECHANISMS``."""
    return ServerPlain(accounts) if mechanism == "PLAIN" else ServerScram(mechanism, accounts)


class ClientExchange(Protocol):
    """One attempt to log in, from the client's end."""

    def first(self) -> bytes:
        """The initial response."""

    def respond(self, challenge: bytes) -> bytes:
        """Answer a challenge."""

    def finish(self, data: bytes) -> None:
        """Check what came with success.

        Raises:
            SaslRefused: the server did not prove that it knows the password.
        """


class ClientPlain:
    """PLAIN (RFC 4616)."""

    def __init__(self, user: str, password: str) -> None:
        self._message = f"\0{user}\0{password}".encode()

    def first(self) -> bytes:
        """The one message there is."""
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        """Say it again: the server did not take the initial response."""
        return self._message

    def finish(self, data: bytes) -> None:
        """Nothing is proven by PLAIN."""


class ClientScram:
    """SCRAM without channel binding."""

    def __init__(self, mechanism: str, user: str, password: str) -> None:
        self._scram = ScramClient([mechanism], user, password)
        self._is_proven = False

    def first(self) -> bytes:
        """client-first."""
        return str(self._scram.get_client_first()).encode()

    def respond(self, challenge: bytes) -> bytes:
        """client-final, or nothing when server-final came as a challenge."""
        try:
            if challenge.startswith(b"v="):
                self._scram.set_server_final(challenge.decode())
                self._is_proven = True
                return b""
            if _iterations_of(challenge) > ITERATIONS_MAX:
                raise SaslRefused("too-many-iterations")
            self._scram.set_server_first(challenge.decode())
            return str(self._scram.get_client_final()).encode()
        except (ScramException, UnicodeDecodeError):
            raise SaslRefused("server-not-authentic") from None

    def finish(self, data: bytes) -> None:
        """Check the server's signature (RFC 5802 section 5)."""
        try:
            if not self._is_proven:
                self._scram.set_server_final(data.decode())
        except (ScramException, UnicodeDecodeError):
            raise SaslRefused("server-not-authentic") from None


def _iterations_of(server_first: bytes) -> int:
    """Return ``i=`` (RFC 5802 section 5.1), 0 where there is none to read."""
    found = re.search(rb",i=(\d{1,20})(?:,|$)", server_first)
    return int(found[1]) if found else 0


def client_exchange(mechanism: str, user: str, password: str) -> ClientExchange:
    """Begin an attempt."""
    return ClientPlain(user, password) if mechanism == "PLAIN" else ClientScram(mechanism, user, password)


_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def encode(message: bytes) -> str:
    """Return what stands in the element; "=" is an empty message (RFC 6120 section 6.4.2)."""
    return base64.b64encode(message).decode() or "="


def decode(text: str) -> bytes:
    """Return the message in an element's text.

    Raises:
        SaslRefused: it is no base64.
    """
    if text == "=":
        return b""
    if not _BASE64.fullmatch(text):
        raise SaslRefused("incorrect-encoding")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SaslRefused("incorrect-encoding") from None
