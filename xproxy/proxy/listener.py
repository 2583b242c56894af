"""Listening sockets and the accept loop: who is let in, who is turned away, and what the system may refuse."""

import contextlib
import errno
import logging
import os
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

import attrs
import trio

from xproxy.config.address import HostPort
from xproxy.config.listen import ListenAddress, ListenKind, ListenSettings
from xproxy.errors import AddressProblem
from xproxy.events import Endpoint
from xproxy.events.connection import ConnectionRefused, RefusalReason, UpstreamFailure
from xproxy.proxy.arrival import Arrival
from xproxy.proxy.diagnose import frames_of
from xproxy.proxy.entrance import Entrance, HealthCheck
from xproxy.proxy.original import make_transparent
from xproxy.proxy.refusal import Refusal, Refused
from xproxy.proxy.seams import Answer, Channel
from xproxy.proxy.sockets import address_key, close_socket, endpoint_of
from xproxy.xmpp.names import NameTally

log = logging.getLogger(__name__)

BACKLOG: Final = 1_024
"""Connections the kernel completes for us; a restarted server sees all of its clients within a second."""

ACCEPT_PAUSE_SECONDS: Final = 0.1
"""After the system ran out of something: long enough not to spin, short enough not to be noticed afterwards."""

ADDRESSES_MAX: Final = 16_384
"""Addresses whose names are counted, about 300 bytes each; the one that was not seen longest is forgotten."""

_ACCEPTS_IN_A_ROW: Final = 16

_LAST_READ_BYTES: Final = 65_536

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

# accept(2): errors of the new connection, not of the listening socket. EPERM comes from a firewall rule.
_OF_THE_CONNECTION: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.ETIMEDOUT,
    }
)


def open_listeners(addresses: Iterable[ListenAddress]) -> list[tuple[ListenAddress, socket.socket]]:
    """Return listening, non-blocking sockets, which the caller closes; a name may stand for several.

    Raises:
        AddressProblem: an address is taken, not ours, or unknown; none is left open.
    """
    wanted = list(addresses)
    opened: list[tuple[ListenAddress, socket.socket]] = []
    try:
        for address in wanted:
            # [::] takes IPv4 too, unless that has a listener of its own.
            others = {other.host for other in wanted if other.port == address.port}
            is_dual = address.host == "::" and "0.0.0.0" not in others
            opened += [(address, sock) for sock in _open_address(address, is_dual=is_dual)]
    except BaseException:
        for _, sock in opened:
            sock.close()
        raise
    return opened


def take_over(
    passed: Iterable[socket.socket], addresses: Iterable[ListenAddress]
) -> list[tuple[ListenAddress, socket.socket]]:
    """Return ``passed``, opened by a service manager, each with what ``addresses`` say about its host and port.

    Where they say nothing it is plain: no header is then believed that nobody asked for.
    """
    known = {(address.host, address.port): address for address in addresses}
    found = []
    for sock in passed:
        here = endpoint_of(sock.getsockname())
        found.append((known.pop((here.ip, here.port), ListenAddress(here.ip, here.port)), sock))
    for address in known.values():
        if address.kind is not ListenKind.PLAIN:
            log.warning(
                "%s was not passed by the service manager, and is not listened on: write it as the manager has it (%s)",
                address,
                ", ".join(str(endpoint_of(sock.getsockname())) for _, sock in found),
            )
    return found


def _open_address(address: ListenAddress, *, is_dual: bool) -> list[socket.socket]:
    opened: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in dict.fromkeys(found):
            if opened and address.port == 0:  # the other addresses of a name get the port the first one got
                where = (where[0], opened[0].getsockname()[1], *where[2:])
            sock = socket.socket(family, kind, protocol)
            opened.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_dual else 1)
            if address.kind is ListenKind.TPROXY:
                make_transparent(sock)
            sock.bind(where)
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in opened:
            sock.close()
        raise _problem(address, error) from error
    return opened


def _problem(address: ListenAddress, error: OSError) -> AddressProblem:
    text = str(address)
    if isinstance(error, socket.gaierror):
        return AddressProblem(
            f"cannot listen on {text}: {address.host} is not known here",
            "name an address of this machine, 0.0.0.0 or [::] for all of them",
            address=text,
        )
    hint = {
        errno.EADDRINUSE: "another program has this port: stop it, or choose another port (port 0: any free one)",
        errno.EADDRNOTAVAIL: "name an address of this machine, 0.0.0.0 or [::] for all of them",
        errno.EAFNOSUPPORT: "this machine has no IPv6: write 0.0.0.0 for all addresses",
        errno.EPERM: "taking connections to others' addresses needs CAP_NET_ADMIN (AmbientCapabilities=, or root)",
        errno.ENOPROTOOPT: "this system has no TPROXY: redirect with REDIRECT, without tproxy://",
        errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose another port",
    }.get(error.errno or 0)
    return AddressProblem(f"cannot listen on {text}: {error.strerror or error}", hint, address=text)


@attrs.frozen(kw_only=True)
class Admission:
    """A client that was let in. Whoever gets it calls ``leave`` once."""

    sock: socket.socket
    arrival: Arrival
    answer: Answer | None  # to be told what became of the client's request
    names: NameTally
    leave: Callable[[], None]


class Admissions:
    """Counts sessions and says who may come in."""

    def __init__(self, *, sessions_max: int, sessions_per_address_max: int, names_per_address_max: int) -> None:
        self.sessions_max = sessions_max
        self._per_address_max = sessions_per_address_max
        self._names_max = names_per_address_max
        self._names: OrderedDict[str, NameTally] = OrderedDict()  # by address, the one seen last at the end
        self._by_address: Counter[str] = Counter()
        self.count = 0
        self._nobody = trio.Event()
        self._nobody.set()

    def refusal_of(self, ip: str, *, counts_sessions: bool = True) -> Refusal | None:
        """Why a client at ``ip`` may not come in; None: it may.

        ``counts_sessions`` is False for a balancer that did not say whose connection it brings: all of them together
        are no single client.
        """
        if self.is_full:
            return Refusal(RefusalReason.SESSIONS_MAX, self.sessions_max)
        key = address_key(ip)
        if counts_sessions and self._by_address[key] >= self._per_address_max:
            return Refusal(RefusalReason.SESSIONS_PER_ADDRESS_MAX, self._per_address_max)
        names = self._names.get(key)
        if names is not None and names.is_spent:
            return Refusal(RefusalReason.NAMES_PER_ADDRESS_MAX, self._names_max)
        return None

    @property
    def is_full(self) -> bool:
        """Whether there is room for nobody."""
        return self.count >= self.sessions_max

    def names_of(self, ip: str) -> NameTally:
        """The names that strangers at ``ip`` have added."""
        key = address_key(ip)
        names = self._names.get(key)
        if names is None:
            names = self._names[key] = NameTally(self._names_max)
            if len(self._names) > ADDRESSES_MAX:
                self._names.popitem(last=False)
        else:
            self._names.move_to_end(key)
        return names

    def forget_names(self) -> None:
        """The names were given up: nobody has added any."""
        for names in self._names.values():
            names.used = 0

    def enter(self, ip: str | None) -> Callable[[], None]:
        """Count a client in; the result counts it out. None: one whose address is not known yet."""
        key = address_key(ip) if ip is not None else None
        if key is not None:
            self._by_address[key] += 1
        if self.count == 0:
            self._nobody = trio.Event()
        self.count += 1

        def leave() -> None:
            self.count -= 1
            if key is not None:
                self._by_address[key] -= 1
                if not self._by_address[key]:
                    del self._by_address[key]
            if self.count == 0:
                self._nobody.set()

        return leave

    async def nobody_left(self) -> None:
        """Return when the last session has gone."""
        while self.count:
            await self._nobody.wait()


class Listener:
    """Accepts on one socket."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        entrance: Entrance,
        limits: ListenSettings,
        channel: Channel,
        admissions: Admissions,
        refuse: Callable[[ConnectionRefused], None],
        may_accept: Callable[[], Refusal | None],
        admit: Callable[[Admission], None],
    ) -> None:
        """Serve ``sock``, which the caller closes. ``may_accept`` is asked first: a reason to refuse everybody."""
        self._sock = sock
        self._entrance = entrance
        self._limits = limits
        self._channel = channel
        self._admissions = admissions
        self._refuse = refuse
        self._may_accept = may_accept
        self._admit = admit
        self._reserve: int | None = None
        self._is_open = trio.Event()
        self._is_open.set()
        self._waiting: Counter[str] = Counter()  # connections whose first word is waited for, by address
        self.health_checks = 0
        self._has_warned = False  # that somebody is not trusted

    @property
    def waiting(self) -> int:
        """How many connections have not said yet what comes first here."""
        return self._waiting.total()

    async def serve(self) -> None:
        """Accept until cancelled."""
        self._reserve = _open_reserve()
        try:
            async with trio.open_nursery() as hearing:
                while True:
                    await self._is_open.wait()
                    await trio.lowlevel.wait_readable(self._sock)
                    if self._channel.is_full:
                        await self._channel.wait_not_full()
                    for _ in range(_ACCEPTS_IN_A_ROW):
                        if not await self._accept(hearing):
                            break
        finally:
            if self._reserve is not None:
                os.close(self._reserve)

    def shut(self) -> None:
        """Have the system refuse connections (RST to their SYN) until ``reopen``. Those not accepted yet are reset.

        Linux keeps the socket bound when it is shut down; without SO_REUSEADDR nobody else gets its port meanwhile.
        """
        self._is_open = trio.Event()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self._sock.shutdown(socket.SHUT_RDWR)

    def reopen(self) -> None:
        """Listen again.

        Raises:
            OSError: the port is taken.
        """
        # First of all: with connections that are still known at this port, listening is refused without it.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.listen(BACKLOG)
        self._is_open.set()

    async def _accept(self, hearing: trio.Nursery) -> bool:
        """Accept one; tell whether another may be waiting."""
        try:
            sock, address = self._sock.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _EXHAUSTED:
                await self._exhausted(error)
                return False
            if error.errno in _OF_THE_CONNECTION:
                return True
            if not self._is_open.is_set():
                return False
            raise
        sock.setblocking(False)  # accept(2) does not hand it down
        try:
            peer, listener = endpoint_of(address), endpoint_of(sock.getsockname())
        except OSError:  # it is gone again
            close_socket(sock)
            return True
        if (refusal := self._may_accept()) is not None:
            self._turn_away(sock, peer, listener, refusal)
            return True
        if not self._entrance.must_hear:
            self._look(sock, peer, listener)
            return True
        try:
            self._check_waiting(peer)
        except Refused as refused:
            self._turn_away(sock, peer, listener, refused.refusal)
            return True
        self._waiting[address_key(peer.ip)] += 1
        hearing.start_soon(self._hear, sock, peer, listener, self._admissions.enter(None))
        return True

    def _look(self, sock: socket.socket, peer: Endpoint, listener: Endpoint) -> None:
        try:
            arrival = self._entrance.look(sock, peer, listener)
        except Refused as refused:
            self._turn_away(sock, peer, listener, refused.refusal, destination=refused.destination)
        except Exception as error:  # a bug of ours turns one away, and not everybody from now on
            log.error("a connection could not be let in for an internal error: %s", frames_of(error))
            close_socket(sock)
        else:
            self._let_in(sock, arrival, None)

    def _check_waiting(self, peer: Endpoint) -> None:
        """Judge whether the first word of one more may be waited for.

        Raises:
            Refused: it is not trusted, or too many are waited for.
        """
        try:
            self._entrance.check_trusted(peer)
        except Refused:
            if not self._has_warned:  # once: the records tell of each
                self._has_warned = True
                where = endpoint_of(self._sock.getsockname())
                # Not from where: what may be said of that, the record says, as it was told to (--identities).
                log.warning(
                    "a client of no network that is trusted at %s was turned away: add --trusted if it is yours "
                    "(xproxy log show --action connection-refused)",
                    where,
                )
            raise
        if self._admissions.is_full:
            raise Refused(RefusalReason.SESSIONS_MAX, self._admissions.sessions_max)
        limit = self._limits.headers_max
        if self.waiting >= limit:
            raise Refused(RefusalReason.HEADERS_MAX, limit)
        limit = self._limits.headers_per_client_max
        # All that comes from a balancer comes from one address.
        if self._entrance.kind is ListenKind.SOCKS5 and self._waiting[address_key(peer.ip)] >= limit:
            raise Refused(RefusalReason.HEADERS_PER_CLIENT_MAX, limit)

    async def _hear(self, sock: socket.socket, peer: Endpoint, listener: Endpoint, leave: Callable[[], None]) -> None:
        """Let in who says in time what is expected here, and turn away the others."""
        try:
            heard = await self._entrance.hear(sock, peer, listener)
            leave()
            leave = _nothing
            self._let_in(sock, heard.arrival, heard.answer)
        except Refused as refused:
            self._turn_away(sock, peer, listener, refused.refusal, destination=refused.destination)
        except HealthCheck:
            self.health_checks += 1
            close_socket(sock)
        except Exception as error:  # a bug of ours turns one away, and not everybody from now on
            log.error("a connection could not be let in for an internal error: %s", frames_of(error))
            close_socket(sock)
        except BaseException:  # Cancelled
            self._turn_away(sock, peer, listener, Refusal(RefusalReason.DRAINING, 0))
            raise
        finally:
            leave()
            key = address_key(peer.ip)
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]

    def _let_in(self, sock: socket.socket, arrival: Arrival, answer: Answer | None) -> None:
        """Count the real client in, or turn it away."""
        client = arrival.client
        refusal = (self._may_accept() if self._entrance.must_hear else None) or self._admissions.refusal_of(
            client.ip, counts_sessions=arrival.is_client_known
        )
        if refusal is not None:
            if answer is not None:
                answer.failed(UpstreamFailure.OTHER)
            self._turn_away(
                sock, client, arrival.listener, refusal, balancer=arrival.balancer, destination=arrival.destination
            )
            return
        leave = self._admissions.enter(client.ip if arrival.is_client_known else None)
        names = self._admissions.names_of(client.ip)
        self._admit(Admission(sock=sock, arrival=arrival, answer=answer, names=names, leave=leave))

    async def _exhausted(self, error: OSError) -> None:
        """No descriptor is left: give up the spare one to turn the client away in form, or only wait."""
        log.error("cannot accept: %s", errno.errorcode.get(error.errno or 0))
        if error.errno in (errno.EMFILE, errno.ENFILE) and self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            try:
                sock, address = self._sock.accept()
                sock.setblocking(False)
                self._turn_away(
                    sock, endpoint_of(address), endpoint_of(sock.getsockname()), Refusal(RefusalReason.DESCRIPTORS)
                )
            except OSError:
                pass  # somebody else took the descriptor
            finally:
                self._reserve = _open_reserve()
        await trio.sleep(ACCEPT_PAUSE_SECONDS)

    def _turn_away(
        self,
        sock: socket.socket,
        client: Endpoint,
        listener: Endpoint,
        refusal: Refusal,
        *,
        balancer: Endpoint | None = None,
        destination: HostPort | None = None,
    ) -> None:
        if self._entrance.kind is ListenKind.SOCKS5:  # an answer may be on its way, and unread bytes would reset it
            with contextlib.suppress(OSError):
                sock.recv(_LAST_READ_BYTES)
        close_socket(sock)
        self._refuse(
            ConnectionRefused(
                client=client,
                listener=listener,
                reason=refusal.reason,
                limit=refusal.limit,
                detail=refusal.detail,
                way=self._entrance.way,
                balancer=balancer,
                destination=str(destination) if destination is not None else None,
            )
        )


def _nothing() -> None:
    pass


def _open_reserve() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
