"""Captures into cassettes: what becomes a placeholder, what is left out, and that splits change nothing."""

import base64
import random
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from tests.support.chunks import chunkings
from tests.support.traces import AT_NS, ESTABLISHED, META, conn, render
from xproxy.capture.cassette import What
from xproxy.capture.cassette_xml import parse_cassette, render_cassette
from xproxy.capture.make import Made, make_cassette
from xproxy.capture.node import render as render_node
from xproxy.capture.trace import Closed, End, Lost, SessionLine, Tls, Xml
from xproxy.errors import UsageProblem
from xproxy.events import EndOfInput, Side

C, S = Side.CLIENT, Side.SERVER
HEADER = (
    "<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' "
    "xmlns:stream='http://etherx.jabber.org/streams'>"
)
FEATURES = (
    "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1-PLUS</mechanism>"
    "<mechanism>SCRAM-SHA-1</mechanism><mechanism>PLAIN</mechanism></mechanisms>"
    "<register xmlns='http://jabber.org/features/iq-register'/></stream:features>"
)
AFTER = (
    "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
    "<ver xmlns='urn:xmpp:features:rosterver'/></stream:features>"
)
SUCCESS = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"

Saying = tuple[Side, str]


def auth(user: str) -> str:
    payload = base64.b64encode(f"\0{user}\0xxxxxxx".encode()).decode()
    return f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{payload}</auth>"


def login(user: str, resource: str = "r", *, opening: Sequence[Saying] = ()) -> list[Saying | Tls]:
    jid = f"{user}@example.org/{resource}"
    bind = "<iq type='{}' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{}</bind></iq>"
    at = {"session": 1, "n": 0, "t_ns": 0, "line": 0}
    return [
        (C, HEADER),
        (S, HEADER + "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>"),
        (C, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
        (S, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
        Tls(**at, event=ESTABLISHED),  # type: ignore[arg-type]
        Tls(**at, event=attrs.evolve(ESTABLISHED, leg=C)),  # type: ignore[arg-type]
        (C, HEADER),
        (S, HEADER + FEATURES),
        *opening,
        (C, auth(user)),
        (S, SUCCESS),
        (C, HEADER),
        (S, HEADER + AFTER),
        (C, bind.format("set", f"<resource>{resource}</resource>")),
        (S, bind.format("result", f"<jid>{jid}</jid>")),
    ]


LEAVE: list[Saying] = [(C, "</stream:stream>"), (S, "</stream:stream>")]


def lines_of(
    said: Sequence[Saying | Tls], *, number: int = 1, at_ns: int = AT_NS, whole: bool = True, cut: int = 0
) -> list[SessionLine]:
    rng = random.Random(cut)
    lines: list[SessionLine] = []
    at = {"session": number, "n": 0, "t_ns": 0, "line": 0}
    for each in said:
        if isinstance(each, Tls):
            lines.append(attrs.evolve(each, session=number))
            continue
        data = each[1].encode()
        chunks = [data] if not cut else list(chunkings(data, rng))[cut % 3]
        lines += [Xml(**at, sent_by=each[0], phase="bound", data=chunk) for chunk in chunks if chunk]  # type: ignore[arg-type]
    last = [End(**at, sent_by=C, how=EndOfInput.TRUNCATED), Closed(**at)]  # type: ignore[arg-type]
    lines += last if whole else [Lost(**at, why="size-limit")]  # type: ignore[arg-type]
    first = conn(session=number, at_ns=at_ns, trace_id=f"{number:032x}")
    return [
        first,
        *(attrs.evolve(line, n=n, t_ns=n * 10_000_000, line=n + 1) for n, line in enumerate(lines, 2)),
    ]


def make(tmp_path: Path, *sessions: Sequence[Saying | Tls], bodies: bool = True, **options: object) -> Made:
    paths = []
    for number, said in enumerate(sessions, 1):
        path = tmp_path / f"{number}.xcap.jsonl"
        meta = attrs.evolve(META, redaction="bodies-1") if bodies else META
        path.write_bytes(render(lines_of(said, at_ns=AT_NS + number * 1_000_000, **options), meta))  # type: ignore[arg-type]
        paths.append(path)
    made = make_cassette(paths, by="xproxy test")
    assert parse_cassette(render_cassette(made.cassette)) == made.cassette
    return made


def stanzas(made: Made) -> list[str]:
    return [render_node(event.stanza) for event in made.cassette.events if event.stanza is not None]


def test_what_is_live_is_left_out_and_the_session_says_how_it_was(tmp_path: Path) -> None:
    made = make(tmp_path, [*login("alice"), (C, "<presence/>"), *LEAVE])
    assert [event.what for event in made.cassette.events] == [What.CONNECT, What.LOGIN, What.STANZA, What.CLOSE]
    (session,) = made.cassette.sessions
    assert (session.name, session.account, session.domain) == ("alice", "alice", "example.org")
    assert (session.tls, session.mechanism, session.resource) == ("starttls", "PLAIN", "r")
    assert session.mechanisms == ("SCRAM-SHA-1", "PLAIN")
    assert [render_node(each) for each in session.login_features] == [
        '<register xmlns="http://jabber.org/features/iq-register"/>'
    ]
    assert [render_node(each) for each in session.session_features] == ['<ver xmlns="urn:xmpp:features:rosterver"/>']


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_how_the_octets_were_cut_changes_nothing(cut: int, tmp_path: Path) -> None:
    talk: list[Saying | Tls] = [
        *login("alice"),
        (C, "<presence/><message to='b@x'><body>a &gt; b</body></message>"),
        *LEAVE,
    ]
    (tmp_path / "whole").mkdir()
    whole = make(tmp_path / "whole", talk).cassette
    parts = make(tmp_path, talk, cut=cut).cassette
    assert [event.stanza for event in parts.events] == [event.stanza for event in whole.events]
    assert parts.sessions == whole.sessions


def test_the_same_captures_give_the_same_bytes(tmp_path: Path) -> None:
    talk: list[Saying | Tls] = [*login("alice"), (C, "<presence id='p1'/>"), *LEAVE]
    one = render_cassette(make(tmp_path, talk, talk).cassette)
    assert one == render_cassette(make(tmp_path, talk, talk).cassette)


def test_ids_addresses_and_times_become_placeholders(tmp_path: Path) -> None:
    made = make(
        tmp_path,
        [
            *login("alice", "res-1"),
            (C, "<iq type='get' id='q1'><query xmlns='jabber:iq:roster' ver='7'/></iq>"),
            (S, "<iq type='result' id='q1' to='alice@example.org/res-1'/>"),
            (
                S,
                "<message from='bob@x.org/1' to='alice@example.org/res-1' id='m1'><body>costs ${any}</body>"
                "<delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>"
                "<stanza-id xmlns='urn:xmpp:sid:0' by='alice@example.org' id='s1'/></message>",
            ),
            (C, "<message to='bob@x.org'><received xmlns='urn:xmpp:receipts' id='m1'/></message>"),
            *LEAVE,
        ],
    )
    assert stanzas(made) == [
        '<iq type="get" id="${id:1}"><query xmlns="jabber:iq:roster" ver="${any=7}"/></iq>',
        '<iq type="result" id="${id:1}" to="${jid:alice}"/>',
        '<message id="${id:2}" from="bob@x.org/1" to="${jid:alice}"><body>costs $${any}</body>'
        '<delay xmlns="urn:xmpp:delay" stamp="${time}"/>'
        '<stanza-id xmlns="urn:xmpp:sid:0" id="${id:3}" by="alice@example.org"/></message>',
        '<message to="bob@x.org"><received xmlns="urn:xmpp:receipts" id="${id:2}"/></message>',
    ]


def test_a_room_with_a_random_name_is_an_id_wherever_it_stands(tmp_path: Path) -> None:
    room = "0f8fad5b-d9cb-469f-a165-70867728950e"
    made = make(
        tmp_path,
        [
            *login("alice"),
            (C, f"<presence to='{room}@rooms.example.org/nick'/>"),
            (S, f"<message from='{room}@rooms.example.org'><subject>Configuration for {room}</subject></message>"),
            *LEAVE,
        ],
    )
    assert stanzas(made) == [
        '<presence to="${id:1}@rooms.example.org/nick"/>',
        '<message from="${id:1}@rooms.example.org"><subject>Configuration for ${id:1}</subject></message>',
    ]


def test_secrets_are_left_out_and_a_registration_has_its_accounts(tmp_path: Path) -> None:
    register = (
        "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>alice</username>"
        "<password>xxxxxxxxx</password></query></iq>"
    )
    made = make(
        tmp_path,
        [
            *login("alice", opening=[(C, register), (S, "<iq type='result' id='r'/>")]),
            (
                C,
                "<presence to='room@x'><x xmlns='http://jabber.org/protocol/muc'><password>hush</password></x></presence>",
            ),
            *LEAVE,
        ],
    )
    assert [event.what for event in made.cassette.events] == [
        What.CONNECT,
        What.STANZA,
        What.STANZA,
        What.LOGIN,
        What.STANZA,
        What.CLOSE,
    ]
    assert "<password>${secret:alice}</password>" in stanzas(made)[0]
    assert "<password>${any}</password>" in stanzas(made)[2]


def test_without_bodies_nothing_of_what_people_write_is_there_and_it_is_said(tmp_path: Path) -> None:
    made = make(
        tmp_path, [*login("alice"), (C, "<message to='b@x'><body>xxxxx</body></message>"), *LEAVE], bodies=False
    )
    assert stanzas(made) == ['<message to="b@x"><body>${any}</body></message>']
    assert made.cassette.meta.bodies == "hidden"
    assert any("--capture-bodies" in note for note in made.notes)
    assert any("1 values that the capture left out" in note for note in made.notes)


def test_a_body_of_letters_x_is_not_taken_for_filler_where_there_are_bodies(tmp_path: Path) -> None:
    made = make(tmp_path, [*login("alice"), (C, "<message to='b@x'><body>xxxxx</body></message>"), *LEAVE])
    assert stanzas(made) == ['<message to="b@x"><body>xxxxx</body></message>']


def test_pings_of_the_connection_are_optional_or_live(tmp_path: Path) -> None:
    ping = "<iq type='get' id='{}'{}><ping xmlns='urn:xmpp:ping'/></iq>"
    made = make(
        tmp_path,
        [
            *login("alice"),
            (C, ping.format("p1", "")),
            (S, "<iq type='result' id='p1'/>"),
            (S, ping.format("p2", " from='example.org'")),
            (C, "<iq type='result' id='p2'/>"),
            (C, ping.format("p3", " to='bob@x.org/1'")),
            *LEAVE,
        ],
    )
    kept = [(event.stanza.get("id"), event.optional) for event in made.cassette.events if event.stanza is not None]
    assert kept == [("${id:1}", True), ("${id:1}", True), ("${id:2}", False)]


def test_a_resumed_connection_goes_on_with_its_session(tmp_path: Path) -> None:
    sm = "xmlns='urn:xmpp:sm:3'"
    first: list[Saying | Tls] = [
        *login("alice"),
        (C, f"<enable {sm} resume='true'/>"),
        (S, f"<enabled {sm} id='alias-1' resume='true'/>"),
        (C, "<presence/>"),
        (S, f"<r {sm}/>"),
        (C, f"<a {sm} h='0'/>"),
    ]
    second: list[Saying | Tls] = [
        *login("alice")[:-2],
        (C, f"<resume {sm} previd='alias-1' h='0'/>"),
        (S, f"<resumed {sm} previd='alias-1' h='1'/>"),
        (C, "<message to='b@x'><body>back</body></message>"),
        *LEAVE,
    ]
    path_1, path_2 = tmp_path / "1.xcap.jsonl", tmp_path / "2.xcap.jsonl"
    meta = attrs.evolve(META, redaction="bodies-1")
    path_1.write_bytes(render(lines_of(first), meta))
    path_2.write_bytes(render(lines_of(second, at_ns=AT_NS + 10_000_000_000), meta))
    made = make_cassette([path_2, path_1], by="x")
    assert [session.name for session in made.cassette.sessions] == ["alice"]
    assert made.cassette.sessions[0].sm == "resume"
    assert [event.what.value for event in made.cassette.events] == [
        "connect", "login", "stanza", "drop", "connect", "resume", "stanza", "close",
    ]  # fmt: skip


def test_what_stream_management_says_again_stands_once(tmp_path: Path) -> None:
    sm = "xmlns='urn:xmpp:sm:3'"
    message = "<message from='b@x' id='m{}'><body>lost</body></message>"
    first: list[Saying | Tls] = [
        *login("alice"),
        (C, f"<enable {sm} resume='true'/>"),
        (S, f"<enabled {sm} id='alias-1' resume='true'/>"),
        (S, message.format(1) + message.format(2)),
        (C, "<message to='b@x'><body>here</body></message>"),
    ]
    second: list[Saying | Tls] = [
        *login("alice")[:-2],
        (C, f"<resume {sm} previd='alias-1' h='1'/>"),
        (S, f"<resumed {sm} previd='alias-1' h='0'/>" + message.format(2) + message.format(3)),
        (C, "<message to='b@x'><body>here</body></message><presence/>"),
        *LEAVE,
    ]
    path_1, path_2 = tmp_path / "1.xcap.jsonl", tmp_path / "2.xcap.jsonl"
    meta = attrs.evolve(META, redaction="bodies-1")
    path_1.write_bytes(render(lines_of(first), meta))
    path_2.write_bytes(render(lines_of(second, at_ns=AT_NS + 10_000_000_000), meta))
    made = make_cassette([path_1, path_2], by="x")
    ids = [event.stanza.get("id") for event in made.cassette.events if event.stanza is not None]
    assert ids == ["${id:1}", "${id:2}", "", "${id:3}", ""]


def test_a_refused_login_is_one_again(tmp_path: Path) -> None:
    failure = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>"
    made = make(tmp_path, [*login("alice")[:8], (C, auth("alice")), (S, failure), *LEAVE])
    (session,) = made.cassette.sessions
    assert (session.account, session.refused) == ("alice", "not-authorized")
    assert [event.what for event in made.cassette.events] == [What.CONNECT, What.LOGIN, What.CLOSE]


def test_several_sessions_of_a_user_have_names_of_their_own(tmp_path: Path) -> None:
    made = make(tmp_path, *([*login("alice", name), (C, "<presence/>"), *LEAVE] for name in ("one", "two")))
    assert [(session.name, session.resource) for session in made.cassette.sessions] == [
        ("alice", "one"),
        ("alice-2", "two"),
    ]
    assert [account.name for account in made.cassette.accounts] == ["alice"]


def test_what_is_not_whole_or_cannot_be_replayed_is_said(tmp_path: Path) -> None:
    made = make(tmp_path, [*login("alice"), (C, "<presence/>")], whole=False)
    assert any("is not whole" in note for note in made.notes)
    made = make(tmp_path, [*login("alice"), (C, "<odd xmlns='n'/>"), *LEAVE])
    assert any("<odd xmlns='n'> is no stanza and was left out" in note for note in made.notes)


def test_nothing_to_make_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="there is no XMPP session"):
        make(tmp_path, [])


@pytest.mark.parametrize("whole", [True, False])
def test_how_a_client_left_is_only_said_where_the_capture_saw_it(whole: bool, tmp_path: Path) -> None:
    made = make(tmp_path, [*login("alice"), (C, "<presence/>")], whole=whole)
    last = made.cassette.events[-1]
    assert (last.what, last.optional) == (What.DROP, not whole)
