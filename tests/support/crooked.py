"""A server that says what it is told to, for what Debian's servers cannot be made to say.

Prosody 0.12.3 and ejabberd 23.01 sign neither their offer (``h=``, XEP-0474) nor their TLS version (``t=``, XEP-0515),
advertise no channel-binding types (XEP-0440) and no limits (XEP-0478), know no SASL2 (XEP-0388; Debian's mod_sasl2 is
for a later Prosody), and lead nobody elsewhere: neither ``location=`` (XEP-0198) nor see-other-host. Neither takes
connections both with and without a PROXY header. Everything else is found out at the real ones, and here once more.
"""

import base64
import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import attrs
import trio

from tests.support.mint import Leaf
from xproxy.proxy.proxy_protocol import SIGNATURE_V2, V2_FIXED_BYTES
from xproxy.xmpp import ns

HEADER: Final = (
    f"<?xml version='1.0'?><stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}' id='crooked' version='1.0'>"
)
REQUIRED: Final = f"<starttls xmlns='{ns.TLS}'><required/></starttls>"
END: Final = "</stream:stream>"


def mechanisms(*names: str) -> str:
    """Return what offers them."""
    return (
        f"<mechanisms xmlns='{ns.SASL}'>"
        + "".join(f"<mechanism>{each}</mechanism>" for each in names)
        + ("</mechanisms>")
    )


def stream_error(condition: str, content: str = "") -> str:
    """Return a stream error and the end."""
    return f"<stream:error><{condition} xmlns='{ns.STREAM_ERRORS}'>{content}</{condition}></stream:error>{END}"


@attrs.define(kw_only=True)
class Crooked:
    """What it says; one script for all connections."""

    tls: ssl.SSLContext
    clear: str = REQUIRED  # within the features before TLS
    secured: str = mechanisms("SCRAM-SHA-1", "PLAIN")  # above TLS
    above: str = f"<bind xmlns='{ns.BIND}'/><sm xmlns='{ns.SM3}'/>"  # above the login
    header: Literal["refused", "taken", "needed"] = "refused"  # of the PROXY protocol, version 2
    opening: bytes | None = None  # said at once instead of all else
    at_header: str | None = None  # said behind the first header instead of features
    first: str = ",i=4096"  # of server-first, behind nonce and salt
    at_login: str | None = None  # said instead of success
    enabled: str = " id='resume-me' resume='true'"  # attributes
    connections: int = attrs.field(init=False, default=0)

    async def serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        """Serve on a loopback port, which is told."""
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        task_status.started(listener.socket.getsockname()[1])
        await trio.serve_listeners(self._connection, [listener])

    async def _connection(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        async with stream:
            try:
                await self._script(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, EOFError):
                return

    async def _script(self, stream: trio.SocketStream) -> None:
        if self.opening is not None:
            await stream.send_all(self.opening)
            while await stream.receive_some():
                pass
            return
        await self._take_header(stream)
        talk = _Talk(stream)
        if await stream.socket.recv(1, socket.MSG_PEEK) != b"\x16":
            await talk.until("<stream:stream")
            await talk.say(HEADER + (self.at_header or f"<stream:features>{self.clear}</stream:features>"))
            await talk.until("<starttls")
            await talk.say(f"<proceed xmlns='{ns.TLS}'/>")
        secure = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
        await secure.do_handshake()
        talk = _Talk(secure)
        await talk.until("<stream:stream")
        await talk.say(f"{HEADER}<stream:features>{self.secured}</stream:features>")
        await self._login(talk)
        await talk.until("<stream:stream")
        await talk.say(f"{HEADER}<stream:features>{self.above}</stream:features>")
        await talk.until("</iq")
        await talk.say(
            f"<iq type='result' id='q1'><bind xmlns='{ns.BIND}'><jid>juliet@example.test/any</jid></bind></iq>"
        )
        await talk.until("<enable")
        await talk.say(f"<enabled xmlns='{ns.SM3}'{self.enabled}/>")
        await talk.until("</iq")
        version = "<query xmlns='jabber:iq:version'><name>crooked</name><version>1</version></query>"
        await talk.say(f"<iq type='result' id='q2'>{version}</iq>")
        await talk.until("</stream")

    async def _take_header(self, stream: trio.SocketStream) -> None:
        has_header = await stream.socket.recv(1, socket.MSG_PEEK) == SIGNATURE_V2[:1]
        if (has_header and self.header == "refused") or (not has_header and self.header == "needed"):
            raise EOFError
        if has_header:
            fixed = await stream.socket.recv(V2_FIXED_BYTES)
            await stream.socket.recv(int.from_bytes(fixed[14:16], "big"))

    async def _login(self, talk: "_Talk") -> None:
        tag = await talk.until("<auth")
        payload = base64.b64decode(await talk.text())
        if "SCRAM" in tag:
            nonce = payload.partition(b"r=")[2].decode()
            server_first = f"r={nonce}crooked,s=c2FsdA=={self.first}"
            await talk.say(
                f"<challenge xmlns='{ns.SASL}'>{base64.b64encode(server_first.encode()).decode()}</challenge>"
            )
            await talk.until("<abort")
            await talk.say(f"<failure xmlns='{ns.SASL}'><aborted/></failure>")
            await talk.until("</stream")
            raise EOFError
        await talk.say(self.at_login or f"<success xmlns='{ns.SASL}'/>")


@contextlib.contextmanager
def running_crooked(leaf: Leaf, **says: Any) -> Iterator[int]:
    """Run one in a thread, for tests that are none of trio's, and give its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(leaf.certificate, leaf.key)
    server = Crooked(tls=context, **says)
    started: queue.SimpleQueue[tuple[int, Callable[[], None]]] = queue.SimpleQueue()

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            port: int = await nursery.start(server.serve)
            started.put((port, lambda: token.run_sync_soon(nursery.cancel_scope.cancel)))

    thread = threading.Thread(target=trio.run, args=(main,), daemon=True)
    thread.start()
    port, stop = started.get(timeout=10)
    try:
        yield port
    finally:
        stop()
        thread.join(timeout=10)


class _Talk:
    """Tags as they come."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._unread = ""

    async def say(self, text: str) -> None:
        await self._stream.send_all(text.encode())

    async def until(self, start: str) -> str:
        """Read up to and with the tag that begins so; EOFError at the end."""
        while True:
            tag = await self._piece(">")
            if tag.lstrip().startswith(start):
                return tag

    async def text(self) -> str:
        """Read the text up to the next tag."""
        return (await self._piece("<")).removesuffix("<")

    async def _piece(self, end: str) -> str:
        while end not in self._unread:
            octets = await self._stream.receive_some()
            if not octets:
                raise EOFError
            self._unread += octets.decode()
        piece, _, self._unread = self._unread.partition(end)
        return piece + end
