"""Listening sockets and the accept loop: who is let in, who is turned away, and what the system may refuse."""

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
from xproxy.errors import AddressProblem
from xproxy.events import Endpoint
from xproxy.events.connection import ConnectionRefused, RefusalReason
from xproxy.proxy.arrival import Arrival
from xproxy.proxy.seams import Channel
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


def open_listeners(addresses: Iterable[HostPort]) -> list[socket.socket]:
    """Return listening, non-blocking sockets, which the caller closes; a name may stand for several.

    Raises:
        AddressProblem: an address is taken, not ours, or unknown; none is left open.
    """
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            opened += _open_address(address)
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


def _open_address(address: HostPort) -> list[socket.socket]:
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
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address.host == "::" else 1)
            sock.bind(where)
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in opened:
            sock.close()
        raise _problem(address, error) from error
    return opened


def _problem(address: HostPort, error: OSError) -> AddressProblem:
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
        errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose another port",
    }.get(error.errno or 0)
    return AddressProblem(f"cannot listen on {text}: {error.strerror or error}", hint, address=text)


@attrs.frozen(kw_only=True)
class Admission:
    """A client that was let in. Whoever gets it calls ``leave`` once."""

    sock: socket.socket
    arrival: Arrival
    names: NameTally
    leave: Callable[[], None]


class Admissions:
    """Counts sessions and says who may come in."""

    def __init__(self, *, sessions_max: int, sessions_per_address_max: int, names_per_address_max: int) -> None:
        self._sessions_max = sessions_max
        self._per_address_max = sessions_per_address_max
        self._names_max = names_per_address_max
        self._names: OrderedDict[str, NameTally] = OrderedDict()  # by address, the one seen last at the end
        self._by_address: Counter[str] = Counter()
        self.count = 0
        self._nobody = trio.Event()
        self._nobody.set()

    def refusal_of(self, ip: str) -> tuple[RefusalReason, int] | None:
        """Why a client at ``ip`` may not come in, and the limit; None: it may."""
        if self.count >= self._sessions_max:
            return RefusalReason.SESSIONS_MAX, self._sessions_max
        if self._by_address[address_key(ip)] >= self._per_address_max:
            return RefusalReason.SESSIONS_PER_ADDRESS_MAX, self._per_address_max
        names = self._names.get(address_key(ip))
        if names is not None and names.is_spent:
            return RefusalReason.NAMES_PER_ADDRESS_MAX, self._names_max
        return None

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

    def enter(self, ip: str) -> Callable[[], None]:
        """Count a client in; the result counts it out."""
        key = address_key(ip)
        self._by_address[key] += 1
        if self.count == 0:
            self._nobody = trio.Event()
        self.count += 1

        def leave() -> None:
            self.count -= 1
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
        channel: Channel,
        admissions: Admissions,
        refuse: Callable[[ConnectionRefused], None],
        may_accept: Callable[[], tuple[RefusalReason, int] | None],
        admit: Callable[[Admission], None],
    ) -> None:
        """Serve ``sock``, which the caller closes. ``may_accept`` is asked first: a reason to refuse everybody."""
        self._sock = sock
        self._channel = channel
        self._admissions = admissions
        self._refuse = refuse
        self._may_accept = may_accept
        self._admit = admit
        self._reserve: int | None = None

    async def serve(self) -> None:
        """Accept until cancelled."""
        self._reserve = _open_reserve()
        try:
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                if self._channel.is_full:
                    await self._channel.wait_not_full()
                for _ in range(_ACCEPTS_IN_A_ROW):
                    if not await self._accept():
                        break
        finally:
            if self._reserve is not None:
                os.close(self._reserve)

    async def _accept(self) -> bool:
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
            raise
        try:
            client, listener = endpoint_of(address), endpoint_of(sock.getsockname())
        except OSError:  # it is gone again
            close_socket(sock)
            return True
        refusal = self._may_accept() or self._admissions.refusal_of(client.ip)
        if refusal is not None:
            self._turn_away(sock, client, listener, *refusal)
            return True
        leave = self._admissions.enter(client.ip)
        names = self._admissions.names_of(client.ip)
        self._admit(Admission(sock=sock, arrival=Arrival.plain(client, listener), names=names, leave=leave))
        return True

    async def _exhausted(self, error: OSError) -> None:
        """No descriptor is left: give up the spare one to turn the client away in form, or only wait."""
        log.error("cannot accept: %s", errno.errorcode.get(error.errno or 0))
        if error.errno in (errno.EMFILE, errno.ENFILE) and self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            try:
                sock, address = self._sock.accept()
                self._turn_away(
                    sock, endpoint_of(address), endpoint_of(sock.getsockname()), RefusalReason.DESCRIPTORS, None
                )
            except OSError:
                pass  # somebody else took the descriptor
            finally:
                self._reserve = _open_reserve()
        await trio.sleep(ACCEPT_PAUSE_SECONDS)

    def _turn_away(
        self, sock: socket.socket, client: Endpoint, listener: Endpoint, reason: RefusalReason, limit: int | None
    ) -> None:
        close_socket(sock)
        self._refuse(ConnectionRefused(client=client, listener=listener, reason=reason, limit=limit))


def _open_reserve() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
