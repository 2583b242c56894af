"""Captures into a cassette.

Each captured connection is a session of the cassette, or, where it resumed one (XEP-0198), the going on of that. What
is live in a replay is left out: TLS, SASL, binding, stream management, client state, the server's pings. What is
volatile becomes a placeholder (volatile.py). Sessions and ids are numbered in the order of the script, so that the same
captures give the same bytes.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import attrs

from xproxy.capture.cassette import LIVE_FEATURES, Account, Cassette, Event, Meta, Session, What, numbered
from xproxy.capture.node import Node
from xproxy.capture.story import Moment, Story, read_stories
from xproxy.capture.volatile import Templates
from xproxy.errors import UsageProblem
from xproxy.events import Side
from xproxy.peer.sm import parse_h
from xproxy.xmpp import ns

_PING: Final = "urn:xmpp:ping"
_ROUND_MS: Final = 10  # times in a cassette: finer ones change with each recording, and say nothing


@attrs.frozen(kw_only=True)
class Made:
    """A cassette, and what whoever made it should know."""

    cassette: Cassette
    notes: tuple[str, ...]


@attrs.define(eq=False)
class _Thread:
    """A session while it is put together, over all its connections."""

    name: str = ""
    domain: str = ""
    tls: Literal["starttls", "direct", "none"] = "starttls"
    user: str | None = None
    jid: str | None = None
    mechanism: str | None = None
    mechanisms: tuple[str, ...] = ()
    refused: str | None = None
    resource: str | None = None
    sm: Literal["no", "yes", "resume"] = "no"
    sm_id: str | None = None
    said: dict[Side, int] = attrs.field(factory=lambda: dict.fromkeys(Side, 0))  # stanzas since stream management
    login_features: tuple[Node, ...] = ()
    session_features: tuple[Node, ...] = ()
    registers: str | None = None  # the user name of a registration


@attrs.frozen
class _Draft:
    """An event before its stanza has placeholders."""

    at_ns: int
    order: tuple[int, int]
    thread: _Thread
    what: What
    side: Side
    stanza: Node | None = None
    optional: bool = False


def make_cassette(paths: Sequence[Path], *, by: str) -> Made:
    """Return the cassette of these captures; ``by`` names the program.

    Raises:
        FileProblem, TraceProblem: a capture cannot be read.
        UsageProblem: there is nothing in them, or what cannot be replayed.
    """
    stories = [story for path in paths for story in read_stories(path)]
    stories.sort(key=lambda story: (story.conn.at_ns, str(story.file), story.conn.line))
    if not any(moment.what == "element" for story in stories for moment in story.moments):
        raise UsageProblem(
            f"there is no XMPP session in {', '.join(map(str, paths))}",
            "record one with `xproxy run --capture DIR --capture-bodies`",
        )
    notes = [
        f"{story.file}: session {story.conn.trace_id[:8]} is not whole; what is missing is missing here too"
        for story in stories
        if not story.is_whole
    ]
    threads: list[_Thread] = []
    drafts: list[_Draft] = []
    for number, story in enumerate(stories):
        thread, events = _Telling(story, number, threads).tell(notes)
        if thread not in threads:
            threads.append(thread)
        drafts += events
    drafts.sort(key=lambda draft: (draft.at_ns, draft.order))
    _name(threads)
    hidden = any(not story.meta.redaction.startswith("bodies") for story in stories)
    return _assemble(threads, drafts, hidden=hidden, by=by, first_ns=stories[0].conn.at_ns, notes=notes)


class _Telling:
    """Goes through one connection."""

    def __init__(self, story: Story, number: int, threads: Sequence[_Thread]) -> None:
        self._story = story
        self._number = number
        self._threads = threads
        self._thread = _Thread(tls=story.tls)
        self._events: list[_Draft] = []
        self._bind_id: str | None = None
        self._previd: str | None = None
        self._client_has = 0  # of the server's stanzas, as the client said when it resumed
        self._again = dict.fromkeys(Side, 0)  # stanzas that are said again after a resumption (XEP-0198 section 5)
        self._dropped_pings: set[str] = set()
        self._optional_pings: set[str] = set()
        self._logged_in = False
        self._ended = False
        self._count = 0

    def tell(self, notes: list[str]) -> tuple[_Thread, list[_Draft]]:
        first = self._story.moments[0] if self._story.moments else None
        if first is None or not any(moment.what == "element" for moment in self._story.moments):
            return self._thread, []
        self._add(first, What.CONNECT, Side.CLIENT)
        for moment in self._story.moments:
            match moment.what:
                case "header":
                    if moment.by is Side.CLIENT and moment.to:
                        self._thread.domain = moment.to
                case "element":
                    assert moment.element is not None
                    self._element(moment, moment.element, notes)
                case "close" | "end":
                    if not self._ended:
                        self._ended = True
                        self._add(moment, What.CLOSE if moment.what == "close" else What.DROP, moment.by)
        if not self._ended:  # the capture is, the session was not: how the client left is not known
            self._add(self._story.moments[-1], What.DROP, Side.CLIENT, optional=True)
        return self._thread, [attrs.evolve(event, thread=self._thread) for event in self._events]

    def _add(
        self, moment: Moment, what: What, side: Side, stanza: Node | None = None, *, optional: bool = False
    ) -> None:
        self._count += 1
        self._events.append(
            _Draft(moment.at_ns, (self._number, self._count), self._thread, what, side, stanza, optional)
        )

    def _element(self, moment: Moment, node: Node, notes: list[str]) -> None:
        thread = self._thread
        if self._ended:
            return
        if node.namespace in (ns.CLIENT, ns.SERVER) and node.local in ns.STANZA_KINDS:
            self._stanza(moment, node)
        elif node.tag == f"{{{ns.STREAMS}}}features":
            kept = tuple(each for each in node.children if each.tag not in LIVE_FEATURES)
            if self._logged_in:
                thread.session_features = kept
            else:
                thread.login_features = kept
                if (offer := node.child(ns.SASL, "mechanisms")) is not None:
                    thread.mechanisms = tuple(
                        each.text for each in offer.children if each.local == "mechanism" and "-PLUS" not in each.text
                    )
        elif node.tag == f"{{{ns.STREAMS}}}error":
            self._add(moment, What.STANZA, moment.by, node)
        elif node.namespace == ns.SASL:
            self._sasl(moment, node)
        elif node.namespace in ns.SM:
            self._sm(moment, node)
        elif node.namespace == ns.SASL2:
            raise UsageProblem(
                f"{self._story.file} has a login by SASL2 (XEP-0388), which cannot be replayed yet",
                "record with a client, or a server, that does without",
            )
        elif node.namespace not in (ns.TLS, ns.CSI):
            notes.append(f"{self._story.file}: <{node.local} xmlns='{node.namespace}'> is no stanza and was left out")

    def _sasl(self, moment: Moment, node: Node) -> None:
        thread = self._thread
        match node.local:
            case "auth":
                thread.mechanism = node.get("mechanism").removesuffix("-PLUS")
                thread.user = _claimed_user(thread.mechanism, node.text) or thread.user
            case "success":
                self._logged_in = True
                thread.refused = None
            case "failure":
                condition = next((each.local for each in node.children if each.local != "text"), "not-authorized")
                thread.refused = condition

    def _sm(self, moment: Moment, node: Node) -> None:
        thread = self._thread
        match node.local:
            case "enabled":
                resumable = node.get("resume") in ("true", "1")
                thread.sm = "resume" if resumable else "yes"
                thread.sm_id = node.get("id") or None
                thread.said = dict.fromkeys(Side, 0)
            case "resume":
                self._previd = node.get("previd")
                self._client_has = parse_h(node.attributes.get("h")) or 0
            case "resumed":
                old = next((each for each in self._threads if each.sm_id and each.sm_id == self._previd), None)
                if old is not None:
                    self._thread = old
                    # They stand where they were said first: in a replay stream management says them again by itself.
                    server_has = parse_h(node.attributes.get("h")) or 0
                    self._again[Side.SERVER] = max(0, old.said[Side.SERVER] - self._client_has)
                    self._again[Side.CLIENT] = max(0, old.said[Side.CLIENT] - server_has)
                self._add(moment, What.RESUME, Side.CLIENT)

    def _stanza(self, moment: Moment, node: Node) -> None:
        thread, id_ = self._thread, node.get("id")
        if self._again[moment.by]:
            self._again[moment.by] -= 1
            return
        thread.said[moment.by] += 1
        if node.local == "iq" and (bind := node.child(ns.BIND, "bind")) is not None:
            if moment.by is Side.CLIENT:
                self._bind_id = id_
                resource = bind.child(ns.BIND, "resource")
                thread.resource = resource.text if resource is not None and resource.text else None
                self._add(moment, What.LOGIN, Side.CLIENT)
            elif (jid := bind.child(ns.BIND, "jid")) is not None:
                thread.jid = jid.text
                thread.user = jid.text.partition("@")[0]
            return
        ping = node.local == "iq" and node.child(_PING, "ping") is not None
        if ping and node.get("type") == "get":
            if moment.by is Side.SERVER and node.get("from") in ("", thread.domain):
                self._dropped_pings.add(id_)
                return
            if moment.by is Side.CLIENT and node.get("to") in ("", thread.domain):
                self._optional_pings.add(id_)
        is_answer = node.local == "iq" and node.get("type") in ("result", "error")
        if is_answer and moment.by is Side.CLIENT and id_ in self._dropped_pings:
            return
        register = node.child(ns.REGISTER, "query")
        if register is not None and moment.by is Side.CLIENT and (name := register.child(ns.REGISTER, "username")):
            thread.registers = name.text
        optional = (ping or is_answer) and id_ in self._optional_pings
        self._add(moment, What.STANZA, moment.by, node, optional=optional)


def _claimed_user(mechanism: str, payload: str) -> str | None:
    """Return the authcid in an initial response; a capture keeps it (RFC 4616, RFC 5802 section 5.1)."""
    try:
        text = base64.b64decode(payload, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    if mechanism == "PLAIN":
        parts = text.split("\0")
        return parts[1] if len(parts) == 3 else None
    if mechanism.startswith("SCRAM-"):
        for part in text.split(","):
            if part.startswith("n=") and part != "n=":
                return part[2:].replace("=2C", ",").replace("=3D", "=")
    return None


def _name(threads: Iterable[_Thread]) -> None:
    """Give each thread the name of its user, numbered where there are several."""
    counts: dict[str, int] = {}
    for thread in threads:
        base = "".join(char if char.isalnum() and char.isascii() else "-" for char in thread.user or "guest")[:48]
        counts[base] = counts.get(base, 0) + 1
        thread.name = base if counts[base] == 1 else f"{base}-{counts[base]}"


def _assemble(
    threads: Sequence[_Thread], drafts: Sequence[_Draft], *, hidden: bool, by: str, first_ns: int, notes: list[str]
) -> Made:
    told = [thread for thread in threads if any(draft.thread is thread for draft in drafts)]
    users: dict[str, Account] = {}
    for thread in told:
        if thread.user is not None and thread.user not in users:
            users[thread.user] = Account(name=_account_name(thread.user, users), jid=f"{thread.user}@{thread.domain}")
    begun: list[_Thread] = []

    def jids(session: str) -> list[tuple[str, str]]:
        own = [each for each in begun if each.name == session]
        others = [each for each in reversed(begun) if each.name != session]
        found: dict[str, str] = {}
        for each in (*own, *others):
            if each.jid is not None:
                found.setdefault(each.jid, each.name)
        return sorted(found.items(), key=lambda pair: -len(pair[0]))

    templates = Templates(hidden=hidden, jids=jids)
    start_ns = drafts[0].at_ns
    events: list[Event] = []
    for draft in drafts:
        thread = draft.thread
        if draft.what in (What.LOGIN, What.RESUME) and thread not in begun:
            begun.append(thread)
        stanza = None
        if draft.stanza is not None:
            account = users.get(thread.registers or thread.user or "")
            stanza = templates.apply(draft.stanza, thread.name, password_of=account.name if account else None)
        milliseconds = round((draft.at_ns - start_ns) / 1e6 / _ROUND_MS) * _ROUND_MS
        events.append(
            Event(
                number=0,
                what=draft.what,
                side=draft.side,
                session=thread.name,
                stanza=stanza,
                t_ms=max(0, milliseconds) if draft.what is What.STANZA else None,
                optional=draft.optional,
            )
        )
    sessions = [
        Session(
            name=thread.name,
            account=users[thread.user].name if thread.user is not None else None,
            domain=thread.domain,
            tls=thread.tls,
            mechanism=thread.mechanism,
            mechanisms=thread.mechanisms,
            refused=thread.refused,
            resource=thread.resource,
            sm=thread.sm,
            login_features=tuple(templates.apply(each, thread.name) for each in thread.login_features),
            session_features=tuple(templates.apply(each, thread.name) for each in thread.session_features),
        )
        for thread in told
    ]
    if hidden:
        notes.append("the capture was made without --capture-bodies: it has no bodies, so none is compared")
    if templates.left_out:
        notes.append(f"{templates.left_out} values that the capture left out are ${{any}} here, and are not compared")
    cassette = Cassette(
        meta=Meta(
            recorded=datetime.fromtimestamp(first_ns / 1e9, UTC).date().isoformat(),
            by=by,
            bodies="hidden" if hidden else "recorded",
        ),
        accounts=tuple(users.values()),
        sessions=tuple(sessions),
        events=numbered(_with_refused_logins(events, sessions)),
    )
    return Made(cassette=cassette, notes=tuple(dict.fromkeys(notes)))


def _account_name(user: str, taken: dict[str, Account]) -> str:
    name = "".join(char if char.isalnum() and char.isascii() else "-" for char in user)[:56]
    names = {account.name for account in taken.values()}
    return name if name not in names else f"{name}-{len(names) + 1}"


def _with_refused_logins(events: Sequence[Event], sessions: Sequence[Session]) -> list[Event]:
    """Put a login into the sessions that were refused: a bind, by which the others' are known, they have not."""
    refused = {session.name for session in sessions if session.refused is not None}
    done: list[Event] = []
    for event in events:
        if event.session in refused and event.what in (What.CLOSE, What.DROP):
            done.append(Event(number=0, what=What.LOGIN, side=Side.CLIENT, session=event.session))
        done.append(event)
    return done
