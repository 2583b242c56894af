"""What the server says in SCRAM's first message: asked for with a name alone, and broken off before any proof.

    client-first   n,,n=<user>,r=<nonce>          no password is needed, and none is sent
    server-first   r=...,s=...,i=...[,h=...][,t=...]
    <abort/>       RFC 6120 section 6.4.4

The server may count it as a failed login of that account: it is asked once, and only where ``--jid`` is given.
"""

import base64
import secrets

import attrs

from xproxy.peer import words
from xproxy.peer.auth import SaslRefused, decode
from xproxy.peer.client import Client
from xproxy.peer.errors import PeerError
from xproxy.xmpp import ns
from xproxy.xmpp.sasl.downgrade import hash_octets
from xproxy.xmpp.sasl.identity import Challenge
from xproxy.xmpp.sasl.scram import ScramDecoder

MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1")
"""The strongest first: which is asked does not matter to what is looked for."""


@attrs.frozen(kw_only=True)
class ServerFirst:
    """What came."""

    mechanism: str
    gs2_flag: str
    challenge: Challenge | None  # None: refused
    refusal: str | None  # the condition


def choose(offered: tuple[str, ...]) -> str | None:
    """Return the SCRAM mechanism to ask with, None if none is offered."""
    return next((name for name in MECHANISMS if name in offered), None)


async def ask(client: Client, user: str, mechanism: str, *, gs2_flag: str = "n") -> ServerFirst:
    """Begin SCRAM as ``user`` on an open stream, and break it off.

    ``gs2_flag``: "n", the client knows no channel binding, or "y", it does and thinks the server does not.

    Raises: PeerError.
    """
    name = user.replace("=", "=3D").replace(",", "=2C")  # RFC 5802 section 5.1
    first = f"{gs2_flag},,n={name},r={secrets.token_urlsafe(18)}"
    payload = base64.b64encode(first.encode()).decode()
    await client.send(f"<auth xmlns='{ns.SASL}' mechanism='{mechanism}'>{payload}</auth>")
    answer = await client.receive()
    if answer.tag != f"{{{ns.SASL}}}challenge":
        condition = words.condition_of(answer, ns.SASL)
        return ServerFirst(mechanism=mechanism, gs2_flag=gs2_flag, challenge=None, refusal=condition)
    decoder = ScramDecoder(plus=False, hash_octets=hash_octets(mechanism))
    decoder.response(first.encode(), 0)
    try:
        challenge = decoder.challenge(decode(words.text_of(answer)), 0)
    except SaslRefused:
        challenge = Challenge(problem="base64")
    await _abort(client)
    return ServerFirst(mechanism=mechanism, gs2_flag=gs2_flag, challenge=challenge, refusal=None)


async def _abort(client: Client) -> None:
    await client.send(f"<abort xmlns='{ns.SASL}'/>")
    try:
        await client.receive()  # <failure><aborted/>: then the server has done with it before we leave
    except PeerError:
        return
