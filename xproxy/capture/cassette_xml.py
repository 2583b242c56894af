"""Cassettes in files: read with every problem named at its line, written always the same way."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, TypeVar, cast

import attrs
from lxml import etree

from xproxy.capture.cassette import NAMESPACE, VERSION, Account, Cassette, Event, Meta, Session, What
from xproxy.capture.migrate import migrate
from xproxy.capture.node import Node, NotWellFormedError, NotXmpp, from_element, make, quoted, read_xml, render_pretty
from xproxy.capture.placeholder import BOUND, BadTemplate, Placeholder, parse_template
from xproxy.errors import FileProblem, UsageProblem
from xproxy.events import Side
from xproxy.jid import Jid, JidError
from xproxy.xmpp import ns

BYTES_MAX: Final = 67_108_864  # 64 MiB: some 100 000 stanzas; a reviewer stops far earlier
PROBLEMS_SHOWN_MAX: Final = 50

_C: Final = f"{{{NAMESPACE}}}"
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_CONTENT: Final = frozenset({ns.CLIENT, ns.SERVER, ns.COMPONENT})


@attrs.frozen
class CassetteProblem:
    """One thing wrong in a cassette."""

    line: int | None
    message: str


class CassetteInvalid(UsageProblem):
    """Everything wrong in a cassette, found in one pass."""

    def __init__(self, file: str, problems: list[CassetteProblem]) -> None:
        assert problems
        self.file = file
        self.problems = tuple(problems)
        lines = [f"{file}:{problem.line or 1}: {problem.message}" for problem in problems[:PROBLEMS_SHOWN_MAX]]
        if len(problems) > PROBLEMS_SHOWN_MAX:
            lines.append(f"and {len(problems) - PROBLEMS_SHOWN_MAX} more")
        count = len(problems)
        super().__init__(f"the cassette has {count} problem{'s' if count > 1 else ''}\n" + "\n".join(lines))


def read_cassette(path: Path) -> Cassette:
    """Return the cassette in a file, brought to the present version.

    Raises:
        FileProblem: it cannot be read, or is too large.
        CassetteInvalid: it is no cassette, or one of a newer xproxy.
    """
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="read the cassette", path=path) from error
    return parse_cassette(data, str(path))


def parse_cassette(data: bytes, file: str = "cassette") -> Cassette:
    """Return the cassette that ``data`` spells.

    Raises:
        CassetteInvalid: as above.
    """
    if len(data) > BYTES_MAX:
        raise CassetteInvalid(file, [CassetteProblem(None, f"larger than {BYTES_MAX >> 20} MiB; record less at once")])
    try:
        root = read_xml(data)
    except NotWellFormedError as error:
        raise CassetteInvalid(file, [CassetteProblem(error.line, str(error))]) from None
    if root.getroottree().docinfo.doctype:
        raise CassetteInvalid(file, [CassetteProblem(1, "a cassette has no DOCTYPE; remove it")])
    root = _at_present_version(root, file)
    return _Reader(file).read(root)


def version_of(root: etree._Element) -> str | None:
    """Return what the root says, None if it is no cassette."""
    name = ns.qname(root.tag)
    if name.localname != "cassette" or not (name.namespace or "").startswith(NAMESPACE):
        return None
    return root.get("version", "")


def _at_present_version(root: etree._Element, file: str) -> etree._Element:
    version = version_of(root)
    if version is None:
        message = f"no cassette: the root is <{ns.qname(root.tag).localname}>, not <cassette> of {NAMESPACE}"
        raise CassetteInvalid(file, [CassetteProblem(root.sourceline, message)])
    if not re.fullmatch(r"[1-9][0-9]{0,5}", version):
        message = f"version={version!r} is no version; this xproxy writes version={VERSION}"
        raise CassetteInvalid(file, [CassetteProblem(root.sourceline, message)])
    if int(version) > VERSION:
        message = (
            f"version {version} is of a newer xproxy, this one reads up to {VERSION}: "
            "update xproxy (pip install --upgrade xproxy), or record the cassette again with this one"
        )
        raise CassetteInvalid(file, [CassetteProblem(root.sourceline, message)])
    return migrate(root, int(version))


def _local(element: etree._Element) -> str:
    return str(element.tag).removeprefix(_C)


E = TypeVar("E", bound=str)


class _Reader:
    """Reads one file and collects what is wrong."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[CassetteProblem] = []
        self._comments: list[str] = []
        self._placeholders: dict[str, int | None] = {}

    def read(self, root: etree._Element) -> Cassette:
        meta = Meta()
        accounts: list[Account] = []
        sessions: list[Session] = []
        events: list[Event] = []
        seen_script = False
        self._only(root, "version")
        for child in self._elements(root):
            match _local(child):
                case "meta":
                    meta = self._meta(child)
                case "account":
                    accounts.append(self._account(child, accounts))
                case "session":
                    sessions.append(self._session(child, accounts, sessions))
                case "script" if not seen_script:
                    seen_script = True
                    names = {session.name for session in sessions}
                    for number, element in enumerate(self._elements(child), 1):
                        if (event := self._event(element, number, names)) is not None:
                            events.append(event)
                case name:
                    self._problem(child, f"<{name}> does not belong here")
        if not seen_script:
            self._problem(root, "there is no <script>")
        cassette = Cassette(
            meta=meta,
            accounts=tuple(accounts),
            sessions=tuple(sessions),
            events=tuple(events),
            tail=self._taken_comments(),
            file=self._file,
        )
        if not self._problems:
            self._check_story(cassette)
        if self._problems:
            self._problems.sort(key=lambda problem: problem.line or 0)
            raise CassetteInvalid(self._file, self._problems)
        return cassette

    # Elements.

    def _elements(self, parent: etree._Element) -> Iterator[etree._Element]:
        """Yield the child elements; comments before one are kept for it."""
        if (parent.text or "").strip():
            self._problem(parent, "there is text between the elements")
        for child in parent:
            if (child.tail or "").strip():
                self._problem(child, "there is text between the elements")
            if isinstance(child, etree._Comment):
                self._comments.append(str(child.text or ""))
            elif isinstance(child.tag, str):
                yield child
            else:
                self._problem(child, "processing instructions and entities are not allowed")

    def _taken_comments(self) -> tuple[str, ...]:
        comments, self._comments = tuple(self._comments), []
        return comments

    def _meta(self, element: etree._Element) -> Meta:
        self._only(element, "recorded", "by", "redaction", "bodies")
        bodies = self._one_of(element, "bodies", ("hidden", "recorded"))
        return Meta(
            recorded=element.get("recorded"),
            by=element.get("by"),
            redaction=element.get("redaction", ""),
            bodies=cast(Literal["recorded", "hidden"], bodies),
        )

    def _account(self, element: etree._Element, others: list[Account]) -> Account:
        self._only(element, "name", "jid")
        name = self._name(element, "name", {account.name for account in others})
        jid = element.get("jid", "")
        try:
            parsed = Jid.from_text(jid)
            if parsed.local is None or parsed.resource is not None:
                self._problem(element, f"jid={jid!r} is not of the form user@domain")
        except JidError as error:
            self._problem(element, f"jid={jid!r} is no JID ({error})")
        return Account(name=name, jid=jid, line=element.sourceline, comments=self._taken_comments())

    def _session(self, element: etree._Element, accounts: list[Account], others: list[Session]) -> Session:
        self._only(element, "name", "account", "domain", "tls", "mechanism", "mechanisms", "refused", "resource", "sm")
        comments = self._taken_comments()
        name = self._name(element, "name", {session.name for session in others})
        account = element.get("account")
        if account is not None and account not in {each.name for each in accounts}:
            self._problem(
                element, f"account={account!r} is not declared above; add <account name={quoted(account)} …/>"
            )
        if not element.get("domain"):
            self._problem(element, "domain is missing: the XMPP domain that the client asks for")
        features: dict[str, tuple[Node, ...]] = {}
        for child in self._elements(element):
            stage = child.get("stage", "")
            if child.tag != f"{_C}features" or stage not in ("login", "session") or stage in features:
                self._problem(
                    child, 'here may stand <features stage="login"> and <features stage="session">, each once'
                )
                continue
            features[stage] = tuple(node for each in self._elements(child) if (node := self._node(each)) is not None)
        return Session(
            name=name,
            account=account,
            domain=element.get("domain", ""),
            tls=cast(
                Literal["starttls", "direct", "none"], self._one_of(element, "tls", ("starttls", "direct", "none"))
            ),
            mechanism=element.get("mechanism"),
            mechanisms=tuple(element.get("mechanisms", "").split()),
            refused=element.get("refused"),
            resource=element.get("resource"),
            sm=cast(Literal["no", "yes", "resume"], self._one_of(element, "sm", ("no", "yes", "resume"))),
            login_features=features.get("login", ()),
            session_features=features.get("session", ()),
            line=element.sourceline,
            comments=comments,
        )

    def _event(self, element: etree._Element, number: int, names: set[str]) -> Event | None:
        comments = self._taken_comments()
        kind = _local(element)
        session = element.get("in", "")
        if session not in names:
            self._problem(element, f"in={session!r} names no session; known are {', '.join(sorted(names)) or 'none'}")
        event: Event | None = None
        match kind:
            case "client" | "server":
                self._only(element, "in", "t", "order", "optional")
                stanza = self._one_stanza(element)
                side = Side.CLIENT if kind == "client" else Side.SERVER
                event = Event(number=number, what=What.STANZA, side=side, session=session, stanza=stanza)
            case "connect" | "login" | "resume":
                self._only(element, "in", "t")
                self._empty(element)
                event = Event(number=number, what=What(kind), side=Side.CLIENT, session=session)
            case "close" | "drop":
                self._only(element, "in", "t", "by", "optional")
                self._empty(element)
                by = self._one_of(element, "by", ("client", "server"))
                side = Side.CLIENT if by == "client" else Side.SERVER
                event = Event(number=number, what=What(kind), side=side, session=session)
            case "expect-none":
                self._only(element, "in", "for", "from")
                seconds = element.get("for", "")
                if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", seconds):
                    self._problem(element, f'for={seconds!r} is no number of seconds, as in for="2"')
                    seconds = "0"
                from_ = self._one_of(element, "from", ("client", "server"))
                side = Side.CLIENT if from_ == "client" else Side.SERVER
                stanza = self._one_stanza(element) if len(element) else None
                event = Event(
                    number=number, what=What.QUIET, side=side, session=session, stanza=stanza, seconds=float(seconds)
                )
            case _:
                self._problem(element, f"<{kind}> does not belong into a script")
        if event is None:
            return None
        t = element.get("t")
        if t is not None and not re.fullmatch(r"[0-9]{1,9}", t):
            self._problem(element, f"t={t!r} is no number of milliseconds")
            t = None
        return attrs.evolve(
            event,
            t_ms=None if t is None else int(t),
            order=self._one_of(element, "order", ("lane", "any", "strict")),
            optional=self._one_of(element, "optional", ("no", "yes")) == "yes",
            line=element.sourceline,
            comments=comments,
        )

    def _one_stanza(self, element: etree._Element) -> Node | None:
        children = list(self._elements(element))
        if len(children) != 1:
            self._problem(element, f"<{_local(element)}> holds one stanza, not {len(children)}")
            return None
        node = self._node(children[0])
        if node is not None and node.namespace == NAMESPACE:
            self._problem(children[0], f'<{node.local}> is of the cassette\'s namespace; add xmlns="{ns.CLIENT}"')
        return node

    def _node(self, element: etree._Element) -> Node | None:
        try:
            node = self._marked(from_element(element))
        except NotXmpp as error:
            self._problem(element, str(error))
            return None
        for each in node.iter():
            values = [*each.attributes.values(), *(item for item in each.content if isinstance(item, str))]
            for value in values:
                try:
                    parts = parse_template(value)
                except BadTemplate as error:
                    self._problems.append(CassetteProblem(each.line, str(error)))
                    continue
                for part in parts:
                    if isinstance(part, Placeholder):
                        self._placeholders.setdefault(f"{part.kind}:{part.argument}", each.line)
        return node

    def _marked(self, node: Node) -> Node:
        """Take x:strict and x:skip out of the attributes."""
        attributes = dict(node.attributes)
        strict = attributes.pop(f"{_C}strict", "yes")
        skip = attributes.pop(f"{_C}skip", "no")
        for name, value in (("strict", strict), ("skip", skip)):
            if value not in ("yes", "no"):
                self._problems.append(CassetteProblem(node.line, f"x:{name}={value!r} is neither yes nor no"))
        for name in attributes:
            if name.startswith(_C):
                known = "known are x:strict and x:skip"
                self._problems.append(CassetteProblem(node.line, f"x:{name.removeprefix(_C)} is not known; {known}"))
        content = tuple(self._marked(item) if isinstance(item, Node) else item for item in node.content)
        return make(node.tag, attributes, content, line=node.line, strict=strict == "yes", skip=skip == "yes")

    # Attributes.

    def _only(self, element: etree._Element, *names: str) -> None:
        for name in element.attrib:
            if name not in names:
                self._problem(element, f"attribute {name!s} is not known; known are {', '.join(names)}")

    def _one_of(self, element: etree._Element, name: str, values: tuple[E, ...]) -> E:
        """The first value is the default."""
        given = element.get(name)
        if given is None:
            return values[0]
        for value in values:
            if given == value:
                return value
        self._problem(element, f"{name}={given!r} is none of {', '.join(values)}")
        return values[0]

    def _name(self, element: etree._Element, attribute: str, taken: set[str]) -> str:
        name = element.get(attribute, "")
        if not _NAME.fullmatch(name):
            self._problem(element, f"{attribute}={name!r} is no name: letters, digits, dot, dash, underscore")
        if name in taken:
            self._problem(element, f"{attribute}={name!r} is there twice")
        return name

    def _empty(self, element: etree._Element) -> None:
        if len(element) or (element.text or "").strip():
            self._problem(element, f"<{_local(element)}> is empty")

    def _problem(self, element: etree._Element, message: str) -> None:
        self._problems.append(CassetteProblem(element.sourceline, message))

    # The story as a whole.

    def _check_story(self, cassette: Cassette) -> None:
        """Each session connects before it talks; names in placeholders are declared."""
        sessions = {session.name for session in cassette.sessions}
        accounts = {account.name for account in cassette.accounts}
        for key, line in self._placeholders.items():
            kind, _, name = key.partition(":")
            known = accounts if kind == "secret" else sessions
            if kind not in BOUND and kind in ("jid", "res", "secret") and name not in known:
                what = "account" if kind == "secret" else "session"
                message = f"${{{key}}} names no {what}; known are {', '.join(sorted(known))}"
                self._problems.append(CassetteProblem(line, message))
        open_: dict[str, str] = {}
        for event in cassette.events:
            state = open_.get(event.session, "away")
            session = cassette.session(event.session)
            fits, next_ = _STORY[event.what](state)
            if event.what in (What.LOGIN, What.RESUME) and session.account is None:
                self._problems.append(
                    CassetteProblem(event.line, f"the session {session.name} has no account to log in with")
                )
            if not fits:
                message = f"<{event.what.value}> where the session {session.name} is {_STATES[state]}"
                self._problems.append(CassetteProblem(event.line, message))
            open_[event.session] = next_
        if not cassette.events:
            self._problems.append(CassetteProblem(None, "the script is empty"))


_STATES: Final = {"away": "not connected", "connected": "connected and not logged in", "here": "logged in"}


def _goes(*from_: str, to: str | None) -> Callable[[str], tuple[bool, str]]:
    return lambda state: (state in from_, to if to is not None else state)


_STORY: Final[Mapping[What, Callable[[str], tuple[bool, str]]]] = {
    What.CONNECT: _goes("away", to="connected"),
    What.LOGIN: _goes("connected", to="here"),
    What.RESUME: _goes("connected", to="here"),
    What.STANZA: _goes("connected", "here", to=None),
    What.CLOSE: _goes("connected", "here", to="away"),
    What.DROP: _goes("connected", "here", to="away"),
    What.QUIET: _goes("connected", "here", "away", to=None),
}


# Writing.


def render_cassette(cassette: Cassette) -> bytes:
    """Return the file: UTF-8, LF, two spaces a level, attributes in a fixed order."""
    return ("\n".join(_lines(cassette)) + "\n").encode()


def _lines(cassette: Cassette) -> Iterator[str]:
    # The prefix is always declared: x:strict and x:skip are written by hand.
    x = f' xmlns:x="{NAMESPACE}"'
    yield f'<cassette xmlns="{NAMESPACE}"{x} version="{VERSION}">'
    meta = cassette.meta
    named = (("recorded", meta.recorded), ("by", meta.by), ("redaction", meta.redaction), ("bodies", meta.bodies))
    yield f"  <meta{_attributes(named)}/>"
    for account in cassette.accounts:
        yield from _comments(account.comments, 1)
        yield f"  <account{_attributes((('name', account.name), ('jid', account.jid)))}/>"
    for session in cassette.sessions:
        yield from _session_lines(session)
    yield "  <script>"
    for event in cassette.events:
        yield from _comments(event.comments, 2)
        yield from _event_lines(event)
    yield from _comments(cassette.tail, 2)
    yield "  </script>"
    yield "</cassette>"


def _session_lines(session: Session) -> Iterator[str]:
    yield from _comments(session.comments, 1)
    named = (
        ("name", session.name),
        ("account", session.account),
        ("domain", session.domain),
        ("tls", session.tls),
        ("mechanism", session.mechanism),
        ("mechanisms", " ".join(session.mechanisms) or None),
        ("refused", session.refused),
        ("resource", session.resource),
        ("sm", session.sm),
    )
    stages = [("login", session.login_features), ("session", session.session_features)]
    if not any(features for _, features in stages):
        yield f"  <session{_attributes(named)}/>"
        return
    yield f"  <session{_attributes(named)}>"
    for stage, features in stages:
        if features:
            yield f'    <features stage="{stage}">'
            for node in features:
                yield from render_pretty(node, parent_namespace=NAMESPACE, indent=3)
            yield "    </features>"
    yield "  </session>"


def _event_lines(event: Event) -> Iterator[str]:
    side = "client" if event.side is Side.CLIENT else "server"
    name = side if event.what is What.STANZA else event.what.value
    named = (
        ("in", event.session),
        ("by", side if event.what in (What.CLOSE, What.DROP) else None),
        ("from", side if event.what is What.QUIET else None),
        ("for", f"{event.seconds:g}" if event.what is What.QUIET else None),
        ("t", None if event.t_ms is None else str(event.t_ms)),
        ("order", None if event.order == "lane" else event.order),
        ("optional", "yes" if event.optional else None),
    )
    if event.stanza is None:
        yield f"    <{name}{_attributes(named)}/>"
        return
    yield f"    <{name}{_attributes(named)}>"
    yield from render_pretty(event.stanza, parent_namespace=NAMESPACE, indent=3)
    yield f"    </{name}>"


def _attributes(named: tuple[tuple[str, str | None], ...]) -> str:
    return "".join(f" {name}={quoted(value)}" for name, value in named if value is not None)


def _comments(comments: tuple[str, ...], indent: int) -> Iterator[str]:
    for comment in comments:
        yield from f"{'  ' * indent}<!--{comment}-->".split("\n")
