"""The ways in: from an accepted connection to an ``Arrival``, with nothing of what follows read.

One ``Entrance`` an address that is listened on. Where the client, or the balancer before it, has something to say
first (a PROXY header, a SOCKS5 request), ``hear`` waits for it, under a deadline and with limits: whoever says nothing,
says it slowly or says something else costs a descriptor and one small task for ``header_seconds_max`` and is then
turned away with a record. Elsewhere ``look`` decides at once.

**Health checks.** A balancer looks whether we live by connecting, with a header that names nobody (LOCAL, UNKNOWN) or
itself, or with none at all, and leaving. That is counted and not recorded: it happens every second or two for ever.
Whoever sends such a header and then speaks is a client whose address is not known; it is served, as one at the
balancer's address.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Callable
from typing import Final, TypeVar

import attrs
import trio

from xproxy.config.address import HostPort
from xproxy.config.listen import ListenAddress, ListenKind, ListenSettings
from xproxy.config.upstream import UpstreamAddress, UpstreamFrom
from xproxy.events import Endpoint
from xproxy.events.connection import RefusalReason, UpstreamFailure, WayIn
from xproxy.proxy.arrival import Arrival
from xproxy.proxy.destination import Destinations
from xproxy.proxy.original import original_destination
from xproxy.proxy.proxy_protocol import HeaderFault, HeaderReader, HeaderRefused, ProxyHeader
from xproxy.proxy.refusal import Refused
from xproxy.proxy.seams import Answer
from xproxy.proxy.socks import Reply, SocksReader, SocksRefused, render_reply

T = TypeVar("T")

_PEEK_BYTES: Final = 4_096  # a SOCKS5 request has at most 262; a longer PROXY header is read in several steps

_WAYS: Final = {
    ListenKind.PLAIN: WayIn.PLAIN,
    ListenKind.PROXY_PROTOCOL: WayIn.PROXY_PROTOCOL,
    ListenKind.SOCKS5: WayIn.SOCKS5,
    ListenKind.TPROXY: WayIn.TPROXY,
}

_HEADER_FAULTS: Final = {
    HeaderFault.MISSING: RefusalReason.PROXY_HEADER_MISSING,
    HeaderFault.MALFORMED: RefusalReason.PROXY_HEADER_MALFORMED,
    HeaderFault.OVERSIZED: RefusalReason.PROXY_HEADER_OVERSIZED,
}

_REPLIES: Final = {
    UpstreamFailure.UNKNOWN_HOST: Reply.HOST_UNREACHABLE,
    UpstreamFailure.REFUSED: Reply.CONNECTION_REFUSED,
    UpstreamFailure.UNREACHABLE: Reply.NETWORK_UNREACHABLE,
    UpstreamFailure.TIMEOUT: Reply.HOST_UNREACHABLE,
    UpstreamFailure.LOOKUP_TIMEOUT: Reply.HOST_UNREACHABLE,
    UpstreamFailure.LOOKUP_FAILED: Reply.HOST_UNREACHABLE,
    UpstreamFailure.LOOP: Reply.NOT_ALLOWED,
    UpstreamFailure.CLEAR_NOT_ALLOWED: Reply.NOT_ALLOWED,
}


class HealthCheck(Exception):  # noqa: N818 - a fact for the listener, which counts it
    """A balancer looked whether we live."""


class _Ended(Exception):  # noqa: N818 - a fact for the one who reads
    """The client is gone. ``before_anything``: without a word."""

    def __init__(self, *, before_anything: bool) -> None:
        self.before_anything = before_anything


@attrs.frozen(kw_only=True)
class Heard:
    """Who came in, and whom to tell what became of his request."""

    arrival: Arrival
    answer: Answer | None = None


class Entrance:
    """One way in."""

    def __init__(
        self,
        address: ListenAddress,
        settings: ListenSettings,
        *,
        upstream: UpstreamAddress,
        destinations: Destinations,
    ) -> None:
        """The way in at ``address``; ``destinations`` judges where clients want to go."""
        self.kind = address.kind
        self.way = _WAYS[address.kind]
        self.must_hear = address.kind in (ListenKind.PROXY_PROTOCOL, ListenKind.SOCKS5)
        self._settings = settings
        self._trusted = settings.trusted if address.trusted is None else address.trusted
        self._is_original = upstream is UpstreamFrom.ORIGINAL
        self._destinations = destinations

    def look(self, sock: socket.socket, peer: Endpoint, listener: Endpoint) -> Arrival:
        """Return how ``peer`` came in, where it has nothing to say about that.

        Raises:
            Refused: not to be let in.
        """
        if self.kind is ListenKind.PLAIN and not self._is_original:
            return Arrival.plain(peer, listener)
        if self.kind is ListenKind.TPROXY:
            destination = None if self._destinations.leads_to_us(listener) else listener
        else:
            destination = original_destination(sock, listener)
        if destination is None:
            if not self._is_original:
                return Arrival.plain(peer, listener)
            raise Refused(
                RefusalReason.NOT_REDIRECTED, detail="nobody redirected it, or connection tracking does not know of it"
            )
        wanted = HostPort(destination.ip, destination.port)
        if self._is_original:
            try:
                self._destinations.check_original(destination)
            except Refused as refused:
                refused.destination = wanted
                raise
        return Arrival(
            way=WayIn.TPROXY if self.kind is ListenKind.TPROXY else WayIn.REDIRECT,
            client=peer,
            peer=peer,
            listener=listener,
            dialled=destination,
            destination=wanted,
        )

    def check_trusted(self, peer: Endpoint) -> None:
        """Judge whether ``peer`` is heard at all.

        Raises:
            Refused: it is of no trusted network.
        """
        address = ipaddress.ip_address(peer.ip)
        if not any(address in network for network in self._trusted):
            is_socks = self.kind is ListenKind.SOCKS5
            raise Refused(RefusalReason.SOCKS_UNTRUSTED if is_socks else RefusalReason.PROXY_HEADER_UNTRUSTED)

    async def hear(self, sock: socket.socket, peer: Endpoint, listener: Endpoint) -> Heard:
        """Wait for what comes first, and return who came in.

        Raises:
            Refused: not to be let in.
            HealthCheck: it was nobody.
        """
        if self.kind is ListenKind.SOCKS5:
            return await self._hear_request(sock, peer, listener)
        return Heard(arrival=await self._hear_header(sock, peer, listener))

    async def _hear_header(self, sock: socket.socket, balancer: Endpoint, listener: Endpoint) -> Arrival:
        seconds_max = self._settings.header_seconds_max
        try:
            with trio.fail_after(seconds_max):
                header = await self._read_header(sock)
        except trio.TooSlowError:
            limit = int(seconds_max)
            raise Refused(RefusalReason.PROXY_HEADER_TIMEOUT, limit, "the header was not whole in time") from None
        except HeaderRefused as refused:
            limit_ = self._settings.header_bytes_max if refused.fault is HeaderFault.OVERSIZED else None
            raise Refused(_HEADER_FAULTS[refused.fault], limit_, refused.detail) from None
        except _Ended as ended:
            if ended.before_anything:
                raise HealthCheck from None
            raise Refused(RefusalReason.PROXY_HEADER_MALFORMED, detail="it ended within the header") from None
        # HAProxy's checks name the balancer's own end of the connection where version 1 has no LOCAL.
        if header.source is None or header.destination is None or header.source == balancer:
            with trio.move_on_after(seconds_max):
                await _see_whether_it_speaks(sock)
        return Arrival(
            way=WayIn.PROXY_PROTOCOL,
            client=header.source or balancer,
            peer=balancer,
            listener=listener,
            dialled=header.destination or listener,
        )

    async def _read_header(self, sock: socket.socket) -> ProxyHeader:
        reader = HeaderReader(bytes_max=self._settings.header_bytes_max)
        return await _read(sock, reader.take)

    async def _hear_request(self, sock: socket.socket, client: Endpoint, listener: Endpoint) -> Heard:
        answer = SocksAnswer(sock)
        wanted: HostPort | None = None
        try:
            with trio.fail_after(self._settings.header_seconds_max):
                wanted = await _read_request(sock, answer)
                destination = await self._destinations.check_request(wanted)
        except trio.TooSlowError:
            answer.reply(Reply.GENERAL_FAILURE)
            limit = int(self._settings.header_seconds_max)
            raise Refused(RefusalReason.SOCKS_TIMEOUT, limit, "no request in time", wanted) from None
        except SocksRefused as refused:
            answer.send(refused.answer)
            reason = RefusalReason.SOCKS_MALFORMED if refused.is_malformed else RefusalReason.SOCKS_UNSUPPORTED
            raise Refused(reason, detail=refused.detail) from None
        except _Ended:
            raise Refused(RefusalReason.SOCKS_MALFORMED, detail="it ended without a request") from None
        except Refused as refused:
            answer.reply(Reply.NOT_ALLOWED)
            refused.destination = wanted
            raise
        arrival = Arrival(
            way=WayIn.SOCKS5,
            client=client,
            peer=client,
            listener=listener,
            dialled=listener,
            destination=destination,
        )
        return Heard(arrival=arrival, answer=answer)


class SocksAnswer:
    """Tells a SOCKS5 client what became of its request. Answers are small and the first on their connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def connected(self, local: Endpoint | None) -> None:
        """The way is free; ``local``: our end of the connection to the server, if it stands already."""
        self.send(render_reply(Reply.SUCCEEDED, local))

    def failed(self, failure: UpstreamFailure) -> None:
        """There is no connection to the server."""
        self.reply(_REPLIES.get(failure, Reply.GENERAL_FAILURE))

    def reply(self, reply: Reply) -> None:
        """Send an answer that ends it."""
        self.send(render_reply(reply))

    def send(self, data: bytes) -> None:
        """Send ``data``. A client that is gone or takes nothing is not waited for: reading from it will tell."""
        with contextlib.suppress(OSError):
            self._sock.send(data)


async def _read_request(sock: socket.socket, answer: SocksAnswer) -> HostPort:
    reader = SocksReader()

    def take(at_hand: bytes) -> tuple[int, HostPort | None]:
        step = reader.take(at_hand)
        if step.answer:
            answer.send(step.answer)
        return step.used, step.request

    return await _read(sock, take)


async def _read(sock: socket.socket, take: Callable[[bytes], tuple[int, T | None]]) -> T:
    """Read what ``take`` takes, and not an octet more, until it returns something.

    Raises:
        _Ended: the client left first.
    """
    has_read = False
    while True:
        try:
            at_hand = sock.recv(_PEEK_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)
            continue
        except OSError:
            at_hand = b""
        if not at_hand:
            raise _Ended(before_anything=not has_read)
        used, result = take(at_hand)
        has_read = True
        try:
            sock.recv(used)
        except OSError:  # reset between two lines of ours
            raise _Ended(before_anything=False) from None
        if result is not None:
            return result
        await trio.lowlevel.checkpoint()


async def _see_whether_it_speaks(sock: socket.socket) -> None:
    """Return when there is something to read.

    Raises:
        HealthCheck: there is only the end.
    """
    await trio.lowlevel.wait_readable(sock)
    try:
        if sock.recv(1, socket.MSG_PEEK):
            return
    except BlockingIOError:
        return
    except OSError:
        pass
    raise HealthCheck
