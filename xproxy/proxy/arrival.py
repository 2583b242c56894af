"""How a client came in: who it really is, which address it dialled, and where it wants to go."""

import attrs

from xproxy.config.address import HostPort
from xproxy.events import Endpoint
from xproxy.events.connection import ConnectionAccepted, WayIn


@attrs.frozen(kw_only=True)
class Arrival:
    """A client that was let in. The way in has been gone to its end, and its addresses have been judged.

    ``client`` is the real client: from the balancer's header where there is one. Records, limits and a PROXY header
    sent upstream are about it. ``peer`` is who the TCP connection comes from: the balancer, else the client itself.

    ``listener`` is our end of that connection. ``dialled`` is the address the client connected to as far as anybody
    knows: the destination in the balancer's header, the original destination of a redirected connection, else
    ``listener``. It is what a PROXY header sent upstream names as its destination.

    ``destination`` is where the client wants to be taken: the request of SOCKS5 (a host may be a name), the original
    destination of REDIRECT and TPROXY (an address); None where the way in does not say. **For routing:** with
    ``--upstream original`` it is the server to connect to, and it is never None: a connection that was not redirected
    is refused before there is an ``Arrival``, and so is a destination that leads back to us or to a port that is not
    allowed. With ``--upstream HOST:PORT`` and ``--upstream srv`` routing does not look at it: it has been compared with
    what the proxy serves, and otherwise is a fact for the record.
    """

    way: WayIn
    client: Endpoint
    peer: Endpoint
    listener: Endpoint
    dialled: Endpoint
    destination: HostPort | None = None

    @property
    def balancer(self) -> Endpoint | None:
        """Who the connection comes from, if not from the client itself."""
        return self.peer if self.peer != self.client else None

    @property
    def is_client_known(self) -> bool:
        """Whether ``client`` is a client: False where a balancer did not say whose connection it brings."""
        return self.way is not WayIn.PROXY_PROTOCOL or self.client != self.peer

    def accepted(self) -> ConnectionAccepted:
        """Return what the record of it says."""
        return ConnectionAccepted(
            client=self.client,
            listener=self.listener,
            way=self.way,
            balancer=self.balancer,
            dialled=self.dialled if self.dialled != self.listener else None,
            destination=str(self.destination) if self.destination is not None else None,
        )

    @classmethod
    def plain(cls, client: Endpoint, listener: Endpoint) -> "Arrival":
        """Return the arrival of ``client``, with nothing in between."""
        return cls(way=WayIn.PLAIN, client=client, peer=client, listener=listener, dialled=listener)
