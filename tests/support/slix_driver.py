"""slixmpp in a process of its own: asyncio stays out of the tests' process.

Reads one job a line (JSON) on stdin, plays it, prints one outcome a line on stdout::

    job      {"scenario": "login", "host": .., "port": .., "mode": "starttls" | "direct-tls", "domain": ..,
              "ca_file": .. | null, "tls_max": "1.2" | null, "bodies": [..],
              "clients": [{"user": .., "password": ..}, ..]}
    outcome  {"final": {..}, "logins": [..], "secrets": [..]}      or {"crashed": traceback}

``final`` is what the application got and must be the same with and without a proxy; ``logins`` is how each login went
(mechanisms tried, conditions met, TLS version), where a listed difference is allowed; ``secrets`` is what went over the
wire and must be in no log.
"""

import asyncio
import contextlib
import json
import logging
import re
import socket
import ssl
import struct
import sys
import traceback
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from slixmpp import JID, ClientXMPP
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

STEP_SECONDS_MAX = 10.0
RESOURCE = "slix"

PING = "{urn:xmpp:ping}ping"
BLOCKING = "{urn:xmpp:blocking}"
CARBONS = "{urn:xmpp:carbons:2}"
FORM = "{jabber:x:data}"
MUC = "{http://jabber.org/protocol/muc}"
MUC_USER = "{http://jabber.org/protocol/muc#user}"
STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
UPLOAD = "{urn:xmpp:http:upload:0}"

_PAYLOADS = re.compile(rb"<(?:auth|response|challenge|success)\b[^>]*>([^<]+)<")
_SM_IDS = re.compile(rb"<(?:enabled|resume|resumed)\b[^>]*?\b(?:id|previd)=['\"]([^'\"]+)['\"]")


class Client(ClientXMPP):
    """A client that keeps what went over the wire and how its logins went."""

    def __init__(self, job: dict[str, Any], index: int, *plugins: str) -> None:
        who = job["clients"][index]
        super().__init__(f"{who['user']}@{job['domain']}/{RESOURCE}-{index}", who["password"])
        self.job = job
        self.wire = bytearray()
        self.answered_close = False
        self.is_leaving = False  # slixmpp leaves by itself when no mechanism is left
        self.logins: list[dict[str, Any]] = []
        self.inbox: asyncio.Queue[str] = asyncio.Queue()
        self.copies: asyncio.Queue[str] = asyncio.Queue()
        self.presences: asyncio.Queue[ElementTree.Element] = asyncio.Queue()
        self.registered: dict[str, Any] | None = None
        self.ends: asyncio.Queue[str] = asyncio.Queue()
        self.enable_plaintext = False
        self.enable_direct_tls = job["mode"] == "direct-tls"
        self.enable_starttls = job["mode"] == "starttls"
        self.ca_certs = job["ca_file"] and Path(job["ca_file"])
        self.ssl_context.check_hostname = True
        if job.get("tls_max") == "1.2":
            self.ssl_context.maximum_version = ssl.TLSVersion.TLSv1_2
        for plugin in plugins:
            self.register_plugin(plugin)
        self.add_event_handler("session_start", lambda _: self.ends.put_nowait("session"))
        self.add_event_handler("session_resumed", lambda _: self.ends.put_nowait("resumed"))
        self.add_event_handler("failed_all_auth", self._on_refused)
        self.add_event_handler("ssl_invalid_chain", self._on_tls_failed)
        self.add_event_handler("connection_failed", self._on_tls_failed)
        self.add_event_handler("disconnected", lambda _: self.ends.put_nowait("disconnected"))
        for name, handler in (("message", self._on_message), ("presence", lambda p: self.presences.put_nowait(p.xml))):
            self.register_handler(Callback(f"every {name}", MatchXPath(f"{{jabber:client}}{name}"), handler))
        self.add_event_handler("failed_auth", self._on_failed_auth)

    def _on_message(self, message: Any) -> None:
        if message["type"] == "error":
            conditions = [child.tag for child in message.xml.find("{jabber:client}error")]
            self.inbox.put_nowait(" ".join(tag.rpartition("}")[2] for tag in conditions if tag != STANZAS + "text"))
            return
        for kind in ("sent", "received"):
            if message.xml.find(CARBONS + kind) is not None:
                self.copies.put_nowait(kind)
                return
        if message["body"]:
            self.inbox.put_nowait(message["body"])

    def _on_tls_failed(self, error: Any) -> None:
        self.logins.append({"error": type(error).__name__})
        self.ends.put_nowait("tls-failed" if isinstance(error, ssl.SSLError) else "connect-failed")
        self.cancel_connection_attempt()

    def _on_refused(self, _: Any) -> None:
        self.is_leaving = True
        self.ends.put_nowait("refused")

    def _on_failed_auth(self, stanza: Any) -> None:
        self.logins[-1]["failures"].append([self.logins[-1]["mechanisms"][-1], stanza["condition"]])

    def send_raw(self, data: str | bytes) -> None:
        raw = data.encode() if isinstance(data, str) else data
        self.wire += raw
        if b"<auth" in raw and (chosen := re.search(rb"mechanism=['\"]([^'\"]+)", raw)):
            self.logins[-1]["mechanisms"].append(chosen[1].decode())
            version = getattr(self.socket, "version", None)
            self.logins[-1]["tls"] = version() if version else None
        super().send_raw(data)

    def data_received(self, data: bytes | str) -> None:
        raw = data if isinstance(data, bytes) else data.encode()
        self.wire += raw
        self.answered_close = self.answered_close or raw.rstrip().endswith(b"</stream:stream>")
        super().data_received(data)

    async def open(self) -> str:
        """Connect and say how that ended: session, resumed, refused, tls-failed, connect-failed, disconnected."""
        self.logins.append({"mechanisms": [], "failures": [], "tls": None})
        self.connect(self.job["host"], self.job["port"])
        end: str = await within(self.ends.get())
        return end

    async def leave(self) -> str:
        """Close in form; "closed" when the server answered with its closing tag."""
        if not self.is_connected():
            self.cancel_connection_attempt()
            return "not-connected"
        if not self.is_leaving:
            self.disconnect()
        await within(self.until("disconnected"))
        return "closed" if self.answered_close else "dropped"

    async def until(self, end: str) -> None:
        """Wait for the end of that name; others are passed over."""
        while await self.ends.get() != end:
            pass

    def lose(self) -> None:
        """Lose the connection as a phone does that leaves the network: RST, no closing tag, no close_notify."""
        assert self.transport is not None
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def secrets(self) -> list[str]:
        """Return SASL payloads and SM ids that crossed the wire."""
        wire = bytes(self.wire)
        return [found.decode() for pattern in (_PAYLOADS, _SM_IDS) for found in pattern.findall(wire)]


async def within(awaitable: Any) -> Any:
    """Wait, but not for ever."""
    return await asyncio.wait_for(awaitable, STEP_SECONDS_MAX)


async def ask(client: Client, payload: ElementTree.Element, *, to: str | None = None, kind: str = "set") -> Any:
    """Send an iq and say how it was answered."""
    iq = client.make_iq_get(ito=to) if kind == "get" else client.make_iq_set(ito=to)
    iq.append(payload)
    return await answer_to(iq)


async def answer_to(iq: Any) -> dict[str, Any]:
    """Send this iq and say how it was answered."""
    try:
        answer = await iq.send(timeout=STEP_SECONDS_MAX)
    except IqError as error:
        return {"answer": "error", "condition": error.condition, "type": error.etype}
    except IqTimeout:
        return {"answer": "timeout"}
    return {"answer": answer["type"]}


async def request(client: Client, payload: str, *, to: str) -> dict[str, Any]:
    """Ask with an empty payload ("{namespace}name")."""
    answer: dict[str, Any] = await ask(client, ElementTree.Element(payload), to=to, kind="get")
    return answer


async def login(job: dict[str, Any], clients: list[Client]) -> dict[str, Any]:
    """Log in, leave."""
    client = clients[0]
    end = await client.open()
    jid = str(client.boundjid) if end == "session" else None
    return {"end": end, "jid": jid, "left": await client.leave()}


async def messages(job: dict[str, Any], clients: list[Client]) -> dict[str, Any]:
    """Two clients write to each other."""
    alice, bob = clients
    ends = [await alice.open(), await bob.open()]
    alice.send_message(mto=bob.boundjid, mbody=job["bodies"][0], mtype="chat")
    got = [await within(bob.inbox.get())]
    bob.send_message(mto=alice.boundjid, mbody=job["bodies"][1], mtype="chat")
    got.append(await within(alice.inbox.get()))
    return {
        "ends": ends,
        "received": [got[i] == job["bodies"][i] for i in (0, 1)],
        "left": [await c.leave() for c in clients],
    }


async def roster(job: dict[str, Any], clients: list[Client]) -> dict[str, Any]:
    """Fetch the roster."""
    client = clients[0]
    end = await client.open()
    iq = client.make_iq_get("jabber:iq:roster")
    answer = await iq.send(timeout=STEP_SECONDS_MAX)  # type: ignore[no-untyped-call]
    items = {str(jid): item["subscription"] for jid, item in answer["roster"]["items"].items()}
    return {"end": end, "items": items, "left": await client.leave()}


async def disco(job: dict[str, Any], clients: list[Client]) -> dict[str, Any]:
    """Ask the server, then somebody who does not exist."""
    client = clients[0]
    end = await client.open()
    payload = "{http://jabber.org/protocol/disco#info}query"
    answers = [await request(client, payload, to=to) for to in (job["domain"], f"nobody@{job['domain']}/gone")]
    return {"end": end, "answers": answers, "left": await client.leave()}


async def resume(job: dict[str, Any], clients: list[Client]) -> dict[str, Any]:
    """Lose the connection with a message under way, come back, get it (XEP-0198 section 5)."""
    alice, bob = clients
    await alice.open()
    await bob.open()
    jid = str(alice.boundjid)
    if not alice.plugin["xep_0198"].sm_id:
        await within(alice.wait_until("sm_enabled"))
    alice.lose()
    await within(alice.until("disconnected"))
    bob.send_message(mto=JID(jid), mbody=job["bodies"][0], mtype="chat")
    await request(bob, PING, to=job["domain"])  # the server has dealt with the message by now
    end = await alice.open()
    got = await within(alice.inbox.get())
    alice.send_message(mto=bob.boundjid, mbody=job["bodies"][1], mtype="chat")
    back = await within(bob.inbox.get())
    return {
        "end": end,
        "same_jid": str(alice.boundjid) == jid,
        "received": [got == job["bodies"][0], back == job["bodies"][1]],
        "left": [await alice.leave(), await bob.leave()],
    }


async def hold(job: dict[str, Any], clients: list[Client]) -> dict[str, Any]:
    """Log in, say so, answer each line on stdin with a round trip, until the connection ends; then come back once.

    ``reconnect_port`` in a "resume" line says where to.
    """
    client = clients[0]
    end = await client.open()
    if not client.plugin["xep_0198"].sm_id:
        await within(client.wait_until("sm_enabled"))
    say({"held": end})
    steps: list[Any] = []
    while True:
        order = json.loads(await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline))
        if order["do"] == "ping":
            steps.append((await request(client, PING, to=job["domain"]))["answer"])
            say({"step": steps[-1]})
        elif order["do"] == "wait-end":
            await within(client.until("disconnected"))
            say({"step": "disconnected"})
        elif order["do"] == "resume":
            client.job["port"] = order["port"]
            if order.get("ca_file"):
                client.ca_certs = Path(order["ca_file"])
            steps.append(await client.open())
            say({"step": steps[-1]})
        else:
            return {"end": end, "steps": steps, "left": await client.leave()}


async def enter(client: Client, room: str, nick: str, password: str | None = None) -> dict[str, Any]:
    """Ask to be let into a room and say what the room answered (XEP-0045 section 7.2)."""
    presence = client.make_presence(pto=f"{room}/{nick}")
    wish = ElementTree.Element(MUC + "x")
    if password:
        ElementTree.SubElement(wish, MUC + "password").text = password
    presence.append(wish)
    presence.send()
    return await told(client, f"{room}/{nick}")


async def told(client: Client, me: str) -> dict[str, Any]:
    """Wait for what a room has to say about its occupant ``me`` (a full JID): an error, or that he is in or out."""
    while True:
        presence = await within(client.presences.get())
        if presence.get("from") != me:
            continue
        error = presence.find("{jabber:client}error")
        if error is not None:
            return {"refused": error[0].tag.removeprefix(STANZAS), "type": error.get("type")}
        codes = sorted(status.get("code", "") for status in presence.iterfind(f"{MUC_USER}x/{MUC_USER}status"))
        # ejabberd leaves 110 out where it tells somebody that he was thrown out.
        return {"presence": presence.get("type", "available"), "codes": [code for code in codes if code != "110"]}


async def configure(client: Client, room: str, **values: str) -> Any:
    """Set options of a room."""
    query = ElementTree.Element("{http://jabber.org/protocol/muc#owner}query")
    form = ElementTree.SubElement(query, FORM + "x", type="submit")
    fields = {"FORM_TYPE": "http://jabber.org/protocol/muc#roomconfig"}
    for name, value in (fields | {f"muc#roomconfig_{name}": value for name, value in values.items()}).items():
        field = ElementTree.SubElement(form, FORM + "field", var=name)
        ElementTree.SubElement(field, FORM + "value").text = value
    return (await ask(client, query, to=room))["answer"]


async def throw_out(client: Client, room: str, **item: str) -> Any:
    """Kick (role none) or ban (affiliation outcast)."""
    query = ElementTree.Element("{http://jabber.org/protocol/muc#admin}query")
    ElementTree.SubElement(query, "{http://jabber.org/protocol/muc#admin}item", item)
    return (await ask(client, query, to=room))["answer"]


async def muc(job: dict[str, Any], clients: list[Client]) -> dict[str, Any]:
    """A room: made, closed in several ways to a guest, who is let in, kicked and banned."""
    host, guest = clients
    ends = [await host.open(), await guest.open()]
    room, secret = f"hall@rooms.{job['domain']}", job["room_password"]
    steps = {"made": await enter(host, room, "host")}
    steps["locked"] = await configure(host, room, passwordprotectedroom="1", roomsecret=secret)
    steps["no password"] = await enter(guest, room, "guest")
    steps["nick taken"] = await enter(guest, room, "host", secret)
    steps["let in"] = await enter(guest, room, "guest", secret)
    steps["kick"] = await throw_out(host, room, nick="guest", role="none")
    steps["kicked"] = await told(guest, f"{room}/guest")
    steps["closed"] = await configure(host, room, passwordprotectedroom="0", roomsecret="", membersonly="1")
    steps["not a member"] = await enter(guest, room, "guest")
    steps["opened"] = await configure(host, room, membersonly="0")
    steps["let in again"] = await enter(guest, room, "guest")
    steps["ban"] = await throw_out(host, room, jid=guest.boundjid.bare, affiliation="outcast")
    steps["banned"] = await told(guest, f"{room}/guest")
    steps["outcast"] = await enter(guest, room, "guest")
    # The last one out: the room goes with its list of outcasts.
    host.send_presence(pto=f"{room}/host", ptype="unavailable")
    steps["left"] = await told(host, f"{room}/host")
    return {"ends": ends, "steps": steps, "left": [await client.leave() for client in clients]}


def registering(client: Client) -> None:
    """Have the client register before it logs in (XEP-0077); ``client.registered`` says how that went."""

    async def register(_: Any) -> None:
        iq = client.make_iq_set()
        # By slixmpp's own interface: only iqs it knows for registrations leave before there is a session.
        iq["register"]["username"] = client.boundjid.user
        iq["register"]["password"] = client.password
        client.registered = await answer_to(iq)
        if client.registered["answer"] != "result":
            client.ends.put_nowait("not-registered")

    client.plugin["xep_0077"].create_account = True
    client.plugin["xep_0077"].force_registration = True
    client.add_event_handler("register", register)


async def register(job: dict[str, Any], clients: list[Client]) -> dict[str, Any]:
    """Make an account, log in, change the password, log in with it, remove the account."""
    client, later = clients
    registering(client)
    ends = [await client.open()]
    changed = ElementTree.Element("{jabber:iq:register}query")
    for name, text in (("username", client.boundjid.user), ("password", later.password)):
        ElementTree.SubElement(changed, "{jabber:iq:register}" + name).text = text
    change = (await ask(client, changed))["answer"]
    left = await client.leave()
    ends.append(await later.open())
    removal = ElementTree.Element("{jabber:iq:register}query")
    ElementTree.SubElement(removal, "{jabber:iq:register}remove")
    # ejabberd closes the stream and leaves the request unanswered.
    answering = asyncio.create_task(ask(later, removal))
    await asyncio.wait(
        {answering, (ending := asyncio.create_task(later.until("disconnected")))}, return_when="FIRST_COMPLETED"
    )
    removed = answering.result()["answer"] if answering.done() else "unanswered"
    answering.cancel()
    await within(ending)
    return {"ends": ends, "registered": client.registered, "changed": change, "left": left, "removed": removed}


async def register_refused(job: dict[str, Any], clients: list[Client]) -> dict[str, Any]:
    """Ask for an account that somebody else has."""
    client = clients[0]
    registering(client)
    return {"end": await client.open(), "registered": client.registered, "left": await client.leave()}


async def services(job: dict[str, Any], clients: list[Client]) -> dict[str, Any]:
    """Carbons, blocking, an upload slot that is not to be had."""
    alice, second, bob = clients
    ends = [await client.open() for client in clients]
    for client in clients:
        client.send_presence()  # ejabberd sends copies to the available only
        while (await within(client.presences.get())).get("from") != str(client.boundjid):
            pass
    steps: dict[str, Any] = {}
    steps["carbons"] = [(await ask(c, ElementTree.Element(CARBONS + "enable")))["answer"] for c in (alice, second)]
    alice.send_message(mto=bob.boundjid, mbody=job["bodies"][0], mtype="chat")
    steps["received"] = await within(bob.inbox.get()) == job["bodies"][0]
    steps["copy"] = await within(second.copies.get())
    for name in ("block", "unblock"):
        wish = ElementTree.Element(BLOCKING + name)
        ElementTree.SubElement(wish, BLOCKING + "item", jid=bob.boundjid.bare)
        steps[name] = (await ask(alice, wish))["answer"]
        if name == "block":
            steps["blocklist"] = (await request(alice, BLOCKING + "blocklist", to=alice.boundjid.bare))["answer"]
            alice.send_message(mto=bob.boundjid, mbody=job["bodies"][1], mtype="chat")
            steps["to the blocked"] = await within(alice.inbox.get())
    slot = ElementTree.Element(UPLOAD + "request", {"filename": "a.bin", "size": "5000", "content-type": "image/png"})
    steps["slot"] = await ask(alice, slot, to=f"upload.{job['domain']}", kind="get")
    return {"ends": ends, "steps": steps, "left": [await client.leave() for client in clients]}


SCENARIOS: dict[str, tuple[Any, int, tuple[str, ...]]] = {
    "login": (login, 1, ()),
    "messages": (messages, 2, ()),
    "roster": (roster, 1, ()),
    "disco": (disco, 1, ("xep_0030",)),
    "resume": (resume, 2, ("xep_0198", "xep_0199")),
    "hold": (hold, 1, ("xep_0198", "xep_0199")),
    "muc": (muc, 2, ()),
    "register": (register, 2, ("xep_0077",)),
    "register-refused": (register_refused, 1, ("xep_0077",)),
    "services": (services, 3, ()),
}


async def play(job: dict[str, Any]) -> dict[str, Any]:
    """Play one job."""
    run, count, plugins = SCENARIOS[job["scenario"]]
    clients = [Client(job, index, *plugins) for index in range(count)]
    final: dict[str, Any]
    try:
        final = await run(job, clients)
    except TimeoutError:
        final = {"timeout": traceback.format_exc()}
    finally:
        for client in clients:
            with contextlib.suppress(Exception):
                client.abort()
    return {
        "final": final,
        "logins": [login for client in clients for login in client.logins],
        "secrets": sorted({secret for client in clients for secret in client.secrets()}),
    }


def say(outcome: dict[str, Any]) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps(outcome) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Play jobs until stdin ends."""
    logging.disable(logging.CRITICAL)
    while line := sys.stdin.readline():
        try:
            outcome = asyncio.run(play(json.loads(line)))
        except Exception:
            outcome = {"crashed": traceback.format_exc()}
        say(outcome)


if __name__ == "__main__":
    main()
