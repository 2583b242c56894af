"""Cassettes in files."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.canary import Canary
from tests.support.replaying import ALL_PASSWORDS, ROOM_PASSWORD
from xproxy.capture.cassette import VERSION, Cassette, What
from xproxy.capture.cassette_xml import CassetteInvalid, parse_cassette, read_cassette, render_cassette
from xproxy.capture.migrate import STEPS
from xproxy.capture.node import Node, make, parse, read_xml, render, render_pretty
from xproxy.errors import FileProblem
from xproxy.events import Side

VECTORS = Path(__file__).parent.parent / "vectors" / "cassettes"
SAMPLE = VECTORS / f"v{VERSION}.xmpp.xml"


def problems(text: str) -> list[tuple[int | None, str]]:
    with pytest.raises(CassetteInvalid) as caught:
        parse_cassette(text.encode())
    return [(problem.line, problem.message) for problem in caught.value.problems]


# What is there.


def test_the_sample_is_read() -> None:
    cassette = read_cassette(SAMPLE)
    assert [event.what for event in cassette.events[:3]] == [What.CONNECT, What.LOGIN, What.STANZA]
    assert cassette.events[2].side is Side.CLIENT
    assert cassette.events[2].line == 8
    assert cassette.events[4].comments == (" She becomes available, then he writes. ",)
    assert cassette.meta.bodies == "recorded"


@pytest.mark.parametrize(
    "path", sorted(VECTORS.rglob("*.xmpp.xml")), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_reading_and_writing_gives_the_same_bytes(path: Path) -> None:
    written = render_cassette(read_cassette(path))
    assert render_cassette(parse_cassette(written)) == written
    if path.name != "v1.xmpp.xml":
        assert written == path.read_bytes()


def test_no_cassette_holds_a_secret_of_its_recording() -> None:
    canary = Canary()
    for user, password in ALL_PASSWORDS.items():
        canary.register(f"password of {user}", password)
    for place in (ROOM_PASSWORD, "room-pw-x"):
        canary.register("password of a room", place)
    paths = sorted(VECTORS.rglob("*.xmpp.xml"))
    assert len(paths) > 20
    assert canary.search(paths) == []


# Versions.


def test_there_is_a_sample_of_each_version() -> None:
    assert {path.name for path in VECTORS.glob("v*.xmpp.xml")} == {f"v{n}.xmpp.xml" for n in range(1, VERSION + 1)}
    assert set(STEPS) == set(range(1, VERSION))


def test_an_old_version_is_brought_to_the_present_one() -> None:
    cassette = read_cassette(VECTORS / "v1.xmpp.xml")
    assert [event.what.value for event in cassette.events] == [
        "connect",
        "login",
        "stanza",
        "stanza",
        "stanza",
        "close",
    ]
    assert cassette.sessions[0].account == "juliet"
    assert cassette.sessions[0].domain == "example.test"
    assert cassette.events[2].line == 7
    assert cassette.events[4].optional
    assert cassette.events[4].order == "any"
    assert f'version="{VERSION}"'.encode() in render_cassette(cassette)


def test_a_newer_version_is_refused_with_what_to_do() -> None:
    ((line, message),) = problems(f'<cassette xmlns="urn:xproxy:cassette" version="{VERSION + 1}"/>')
    assert line == 1
    assert f"version {VERSION + 1} is of a newer xproxy" in message
    assert "update xproxy" in message


# What is wrong.

SHELL = """<cassette xmlns="urn:xproxy:cassette" xmlns:x="urn:xproxy:cassette" version="2">
<account name="a" jid="a@x.test"/>
<session name="a" account="a" domain="x.test"/>
<script>
<connect in="a"/><login in="a"/>
{}
</script></cassette>"""


@pytest.mark.parametrize(
    ("inside", "line", "message"),
    [
        ("<client in='b'><iq xmlns='jabber:client'/></client>", 6, "in='b' names no session; known are a"),
        ("\n<clint in='a'/>", 7, "<clint> does not belong into a script"),
        ("<client in='a'/>", 6, "<client> holds one stanza, not 0"),
        ("<client in='a'><iq/></client>", 6, "is of the cassette's namespace"),
        ("<client in='a' order='last'><iq xmlns='jabber:client'/></client>", 6, "order='last' is none of"),
        ("<client in='a' t='soon'><iq xmlns='jabber:client'/></client>", 6, "t='soon' is no number"),
        ("<client in='a' when='1'><iq xmlns='jabber:client'/></client>", 6, "attribute when is not known"),
        ("<client in='a'><iq xmlns='jabber:client' id='${id}'/></client>", 6, "id needs a name"),
        ("<client in='a'><iq xmlns='jabber:client'>\n<b x='${nonsense}'/></iq></client>", 7, "unknown placeholder"),
        ("<client in='a'><iq xmlns='jabber:client'>${any:(}</iq></client>", 6, "no regular expression"),
        ("<client in='a'><iq xmlns='jabber:client'>${any:(a)\\1}</iq></client>", 6, "back-references"),
        ("<client in='a'><iq xmlns='jabber:client'>${any:(?P&lt;n>a)}</iq></client>", 6, "names"),
        ("<client in='a'><iq xmlns='jabber:client'>x${any:(?i)a}</iq></client>", 6, "(?i:...) for a flag"),
        ("<client in='a'><iq xmlns='jabber:client'>${any:[[a]}</iq></client>", 6, "Possible nested set"),
        ("<client in='a'><iq xmlns='jabber:client'>${any:a{99999999999999999999}}</iq></client>", 6, "too large"),
        ("<client in='a'><iq xmlns='jabber:client'>${any:a{e}}</iq></client>", 6, "{e} is no repetition"),
        ("<client in='a'><iq xmlns='jabber:client'>${any:a{1}x{,}}</iq></client>", 6, "{,} is no repetition"),
        ("<client in='a'><iq xmlns='jabber:client'>${any</iq></client>", 6, "without its }"),
        ("<client in='a'><iq xmlns='jabber:client' to='${jid:q}'/></client>", 6, "${jid:q} names no session"),
        ("<client in='a'><iq xmlns='jabber:client'><!-- c --></iq></client>", 6, "comments and processing"),
        ("<client in='a'><iq xmlns='jabber:client' x:strict='maybe'/></client>", 6, "neither yes nor no"),
        ("<client in='a'><iq xmlns='jabber:client' x:skipp='yes'/></client>", 6, "x:skipp is not known"),
        ("<login in='a'/>", 6, "<login> where the session a is logged in"),
        ("<close in='a' by='client'/><close in='a' by='server'/>", 6, "<close> where the session a is not connected"),
        ("text", 5, "there is text between the elements"),
        ("<expect-none in='a' for='ever'/>", 6, "for='ever' is no number of seconds"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(inside: str, line: int, message: str) -> None:
    found = problems(SHELL.replace("{}", inside))
    assert any(message in text and at == line for at, text in found), found


def test_all_problems_are_found_in_one_pass() -> None:
    inside = "<client in='b'><iq xmlns='jabber:client' id='${id}'/></client>\n<nonsense in='a'/>"
    assert len(problems(SHELL.replace("{}", inside))) == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<cassette",
        "<other/>",
        '<cassette xmlns="urn:xproxy:cassette" version="two"/>',
        '<cassette xmlns="urn:xproxy:cassette" version="2"/>',
        "\0",
        '<?xml version="1.0" encoding="nonsense"?><a/>',
    ],
)
def test_what_is_no_cassette_is_said(text: str) -> None:
    assert problems(text)


def test_a_namespace_name_that_is_no_uri_is_kept_wherever_it_stands() -> None:
    # libxml2 notes an error, and lxml raised it, or not, as the next thing noted was.
    for text in (
        '<iq type="get" id="1" xmlns:x="0urn:a:b" x:y="1"/>',
        '<iq type="get" id="1"><a xmlns="relative" xmlns:x="0urn:a:b" x:y="1"/></iq>',
        '<iq type="get" id="1"><a xmlns:x="0urn:a:b" x:y="1"/><b xmlns="relative"/></iq>',
    ):
        node = parse(text)
        assert parse(render(node)) == node
        assert "0urn:a:b" in render(node)
    braces = parse('<a xmlns="{x}y}z" xmlns:p="}" p:q="1"><b/></a>')
    assert parse(render(braces)) == braces
    assert (braces.namespace, braces.local) == ("{x}y}z", "a")


def test_no_later_warning_hides_an_error() -> None:
    with pytest.raises(ValueError, match="prefix b on c is not defined"):
        parse('<iq type="get" id="1"><b:c/><d xmlns="relative"/></iq>')
    with pytest.raises(ValueError, match="Start tag expected"):
        read_xml(b"x")


def test_nothing_is_fetched_or_expanded(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary-of-a-file")
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol"}">' for n in range(9))
    for entity in (f'<!ENTITY f SYSTEM "{secret.as_uri()}">', bomb):
        name = "f" if "SYSTEM" in entity else "e8"
        text = f'<!DOCTYPE c [{entity}]><cassette xmlns="urn:xproxy:cassette" version="2">&{name};</cassette>'
        found = problems(text)
        assert "canary" not in repr(found)
        assert any("DOCTYPE" in message or "well-formed" in message for _, message in found)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="cannot read the cassette"):
        read_cassette(tmp_path / "none")


@given(st.binary(max_size=200))
def test_whatever_is_in_a_file_there_is_no_other_error(data: bytes) -> None:
    with contextlib.suppress(CassetteInvalid):
        assert isinstance(parse_cassette(data), Cassette)


# Layout.


def test_white_space_is_never_put_into_mixed_content() -> None:
    text = "<message><html xmlns='n'><p>a <b>b</b> c</p></html><body> two\nlines </body></message>"
    lines = "\n".join(render_pretty(parse(text)))
    assert "<p>a <b>b</b> c</p>" in lines
    assert "<body> two\nlines </body>" in lines
    assert parse(lines) == parse(text)


def test_xhtml_keeps_the_white_space_that_separates_words() -> None:
    text = "<message><html xmlns='http://www.w3.org/1999/xhtml'><b>a</b> <b>b</b></html></message>"
    assert parse("\n".join(render_pretty(parse(text)))) == parse(text)
    assert " " in parse(text).children[0].content


def test_attributes_stand_in_one_order() -> None:
    assert render(parse("<iq z='1' to='t' a='2' from='f' type='get' id='i'/>")) == (
        '<iq type="get" id="i" from="f" to="t" a="2" z="1"/>'
    )


def test_namespaces_are_declared_where_they_change() -> None:
    node = parse("<iq><p:a xmlns:p='n' p:q='1' xml:lang='en'><p:b/><c xmlns='jabber:client'/></p:a></iq>")
    assert render(node) == (
        '<iq><a xmlns="n" xmlns:ns1="n" ns1:q="1" xml:lang="en"><b/><c xmlns="jabber:client"/></a></iq>'
    )
    assert parse(render(node)) == node


names = st.sampled_from(["a", "{n}b", "{http://www.w3.org/1999/xhtml}p", "{}c"])
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")) | st.sampled_from("\n\t\r"), max_size=8)


@given(st.recursive(
    st.builds(lambda tag, value, text: make(_full(tag), {"x": value}, (text,)), names, words, words),
    lambda inner: st.builds(
        lambda tag, parts: make(_full(tag), {}, tuple(parts)), names, st.lists(inner | words, max_size=4)
    ),
    max_leaves=8,
))  # fmt: skip
def test_any_stanza_survives_the_layout(node: Node) -> None:
    wrapped = make("{jabber:client}message", {}, (node,))
    lines = "\n".join(render_pretty(wrapped))
    try:
        again = parse(lines)
    except ValueError:  # a noncharacter, which lxml refuses
        return
    assert again == wrapped


def _full(tag: str) -> str:
    return {"a": "{jabber:client}a", "{}c": "{m}c"}.get(tag, tag)
