"""Clients that refused our certificate, and for how long they are let through undecrypted.

With ``policy.on_client_reject = "passthrough"`` a client that does not accept our certificate fails once. Later
connections of the same client are relayed as they come, TLS and all, and say so in the log at their begin and end.

**The same client** is the same address, name asked for (SNI) and kind of TLS hello (JA4). Who refuses on purpose
therefore blinds the log for himself alone, where he could have gone round the proxy as well; behind one NAT that are
all who ask for the same name with the same software. A client whose hello changes fails once more. Whoever a balancer
brings without saying whose connection it is (LOCAL, UNKNOWN) is nobody who could be remembered, and always decrypted.

**For how long** is counted from the refusal and not from the last use, so that a client that was told to trust us is
seen again at the stated time. A wall clock that was set back behind the refusal ends it too.

**How many.** An address (IPv6: the /64 one subscriber has) keeps ``passthrough_per_address_max`` of them, its oldest
making room, so that one stranger cannot crowd out others by making up names; all together ``passthrough_max``.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

import attrs

from xproxy.config.policy import PolicySettings
from xproxy.events import Side
from xproxy.events.tls import TlsFailed, TlsFailure, TlsPassthrough
from xproxy.proxy.sockets import address_key
from xproxy.tls.hello import ClientHello

SERVER_NAME_CHARS_MAX: Final = 255  # a host name has at most 253; what is longer is remembered for nobody

_NS: Final = 1_000_000_000


@attrs.frozen
class ClientKey:
    """What tells one client from another before it can be looked into."""

    address: str  # without port
    server_name: str | None  # SNI, lower case
    ja4: str


@attrs.frozen(kw_only=True)
class PassedClient:
    """A client that refused our certificate. Times are UTC, ns since the epoch."""

    key: ClientKey
    refusal: str  # name of the alert, or "closed"
    refused_at_ns: int
    expires_at_ns: int
    sessions: int = 0  # relayed undecrypted since


class PassthroughMemory:
    """Who is let through. Belongs to the relay's thread."""

    def __init__(
        self, policy: PolicySettings, *, wall_ns: Callable[[], int], on_limit: Callable[[str, int], None] | None = None
    ) -> None:
        """``on_limit`` is told the name and value of a limit that was reached; then the oldest makes room."""
        self.enabled = policy.on_client_reject == "passthrough"
        self._policy = policy
        self._wall_ns = wall_ns
        self._on_limit = on_limit
        self._clients: dict[ClientKey, PassedClient] = {}  # the oldest first: all are kept equally long
        self._by_address: Counter[str] = Counter()

    def remember(self, address: str, hello: ClientHello, refusal: str) -> PassedClient | None:
        """Let the client through from now on; None: it is not to be, or it cannot be told from others."""
        key = _key(address, hello)
        if not self.enabled or key is None:
            return None
        now = self._wall_ns()
        self._drop_expired(now)
        self._forget(key)
        place = address_key(address)
        if self._by_address[place] >= self._policy.passthrough_per_address_max:
            self._forget(next(each for each in self._clients if address_key(each.address) == place))
            self._say("policy.passthrough_per_address_max", self._policy.passthrough_per_address_max)
        elif len(self._clients) >= self._policy.passthrough_max:
            self._forget(next(iter(self._clients)))
            self._say("policy.passthrough_max", self._policy.passthrough_max)
        client = PassedClient(
            key=key,
            refusal=refusal,
            refused_at_ns=now,
            expires_at_ns=now + int(self._policy.passthrough_seconds * _NS),
        )
        self._clients[key] = client
        self._by_address[place] += 1
        return client

    def admit(self, address: str, hello: ClientHello) -> PassedClient | None:
        """Return who comes if he is to be let through, and count the session; None: he is decrypted."""
        key = _key(address, hello)
        client = self._clients.get(key) if key is not None else None
        if client is None:
            return None
        now = self._wall_ns()
        if not client.refused_at_ns <= now < client.expires_at_ns:
            self._forget(client.key)
            return None
        client = self._clients[client.key] = attrs.evolve(client, sessions=client.sessions + 1)  # keeps its place
        return client

    def snapshot(self) -> tuple[PassedClient, ...]:
        """Return who is let through now, the oldest refusal first."""
        self._drop_expired(self._wall_ns())
        return tuple(self._clients.values())

    def _drop_expired(self, now: int) -> None:
        for client in list(self._clients.values()):
            if not client.refused_at_ns <= now < client.expires_at_ns:
                self._forget(client.key)

    def _forget(self, key: ClientKey) -> None:
        if self._clients.pop(key, None) is not None:
            place = address_key(key.address)
            self._by_address[place] -= 1
            if not self._by_address[place]:
                del self._by_address[place]

    def _say(self, limit: str, value: int) -> None:
        if self._on_limit is not None:
            self._on_limit(limit, value)


def refusal_of(failure: TlsFailed) -> str | None:
    """Return how the client refused our certificate, in the word of the log; None: ``failure`` is something else.

    An end of the connection counts where our certificate was the last thing it was shown: many judge it and
    then just close (slixmpp and Node.js among them).
    """
    if failure.reason is TlsFailure.CLIENT_REJECTED_CERTIFICATE:
        return failure.alert
    if failure.reason is TlsFailure.CLOSED and failure.leg is Side.CLIENT and failure.certificate is not None:
        return TlsFailure.CLOSED.value
    return None


def begin_event(client: PassedClient, hello: ClientHello, *, direct: bool) -> TlsPassthrough:
    """Return what the log says when a session of ``client`` begins."""
    return TlsPassthrough(
        stage="begin",
        direct=direct,
        server_name=hello.server_name,
        alpn=hello.alpn,
        ja4=hello.ja4,
        refusal=client.refusal,
        refused_at_ns=client.refused_at_ns,
        expires_at_ns=client.expires_at_ns,
    )


def end_event(begin: TlsPassthrough, *, from_client_bytes: int, from_server_bytes: int) -> TlsPassthrough:
    """Return what the log says when that session has ended."""
    return attrs.evolve(begin, stage="end", from_client_bytes=from_client_bytes, from_server_bytes=from_server_bytes)


def _key(address: str, hello: ClientHello) -> ClientKey | None:
    name = hello.server_name
    if name is not None and len(name) > SERVER_NAME_CHARS_MAX:
        return None
    return ClientKey(address, None if name is None else name.lower().removesuffix("."), hello.ja4)
