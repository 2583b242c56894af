"""Matching: what is the same, what is not, and that mutations are noticed."""

import copy
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xproxy.capture.node import Node, make, parse, render
from xproxy.replay.bindings import Bindings
from xproxy.replay.match import Context, differences, filled, matches, score
from xproxy.replay.patience import Patience

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
SCOPE = ("alice", "client")


def context(**options: object) -> Context:
    return Context(Bindings(jids={"alice": "alice@x.test/res"}, secrets={"alice": "pw-secret"}), SCOPE, NOW, **options)  # type: ignore[arg-type]


def same(expected: str, live: str, **options: object) -> bool:
    want, have = parse(expected), parse(live)
    held = matches(want, have, context(**options))
    assert held == (not differences(want, have, context(**options)))
    assert held == (score(want, have, context(**options)) == 1.0) or held
    return held


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<a x='1' y='2'/>", "<a y='2' x='1'></a>"),
        ("<a xmlns='n'><b/></a>", "<p:a xmlns:p='n'><p:b/></p:a>"),
        ("<a><b/></a>", "<a>\n  <b/>\n</a>"),
        ("<a>x&amp;y</a>", "<a>x&#38;y</a>"),
        ("<a><![CDATA[x<y]]></a>", "<a>x&lt;y</a>"),
        ("<message><body>a</body><thread>t</thread></message>", "<message><thread>t</thread><body>a</body></message>"),
    ],
)
def test_the_same_stanza_written_otherwise_is_the_same(one: str, other: str) -> None:
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<a>x</a>", "<a> x </a>"),
        ("<a>x</a>", "<a>x\n</a>"),
        ("<a> </a>", "<a/>"),
        ("<a x=''/>", "<a/>"),
        ("<a xmlns='n'/>", "<a xmlns='m'/>"),
        ("<a><b>1</b><b>2</b></a>", "<a><b>2</b><b>1</b></a>"),
        ("<a>x<b/>y</a>", "<a>xy<b/></a>"),
        ("<a>x<b/><c/></a>", "<a>x<c/><b/></a>"),
        ("<a><b/></a>", "<a><b/><b/></a>"),
        ("<a><b/><b/></a>", "<a><b/></a>"),
        ("<a xml:lang='en'/>", "<a lang='en'/>"),
    ],
)
def test_what_differs_is_not_the_same(one: str, other: str) -> None:
    assert not same(one, other)
    assert not same(other, one)


DISCO = "http://jabber.org/protocol/disco#info"


def test_features_are_a_multiset() -> None:
    def query(*features: str) -> str:
        return f"<query xmlns='{DISCO}'>{''.join(f'<feature var={name!r}/>' for name in features)}</query>"

    assert same(query("a", "b", "c"), query("c", "a", "b"))
    assert not same(query("a", "a", "b"), query("a", "b", "b"))
    assert not same(query("a", "b"), query("a", "b", "c"))
    assert not same(query("a", "b"), query("a"))


def test_a_set_with_placeholders_finds_the_assignment_that_fits() -> None:
    expected = "<query xmlns='jabber:iq:roster'><item jid='${any}'/><item jid='b'/><item jid='${any:[ac]}'/></query>"
    assert same(expected, "<query xmlns='jabber:iq:roster'><item jid='a'/><item jid='z'/><item jid='b'/></query>")
    assert not same(expected, "<query xmlns='jabber:iq:roster'><item jid='y'/><item jid='z'/><item jid='b'/></query>")


def test_a_set_that_nearly_fits_in_many_ways_ends() -> None:
    wanted = "".join(f"<item jid='${{any}}' name='${{any:[^{index}]*}}'/>" for index in range(10)) + "<item jid='q'/>"
    found = "".join(f"<item jid='{index}' name='0123456789'/>" for index in range(11))
    assert not matches(
        parse(f"<query xmlns='jabber:iq:roster'>{wanted}</query>"),
        parse(f"<query xmlns='jabber:iq:roster'>{found}</query>"),
        context(),
    )


def test_form_fields_are_found_by_var_and_items_keep_their_order() -> None:
    form = "<x xmlns='jabber:x:data'>{}</x>"
    one, two = "<field var='a'><value>1</value></field>", "<field var='b'><value>2</value><value>3</value></field>"
    assert same(form.format(one + two), form.format(two + one))
    swapped = "<field var='b'><value>3</value><value>2</value></field>"
    assert not same(form.format(one + two), form.format(one + swapped))
    items = "<item>{}</item><item>{}</item>"
    assert not same(form.format(items.format(one, two)), form.format(items.format(two, one)))


# Placeholders.


@pytest.mark.parametrize(
    ("value", "live", "fits"),
    [
        ("${any}", "", True),
        ("${any}", "line\nline", True),
        ("${any:[0-9]+}", "12", True),
        ("${any:[0-9]+}", "12a", False),
        ("${any:a{2}}", "aa", True),
        ("${any:\\{e\\}[{}]}", "{e}}", True),
        ("${any:(a|b)c}", "bc", True),
        ("${int}", "-7", True),
        ("${int=3}", "7", True),
        ("${int}", "7.5", False),
        ("${time}", "2026-11-25T12:00:00Z", True),
        ("${time}", "2026-11-25T12:00:00.123+01:00", True),
        ("${time}", "20261125T12:00:00", True),
        ("${time}", "2026-13-25T12:00:00Z", False),
        ("${time}", "yesterday", False),
        ("${time:60}", "2026-11-25T12:00:59Z", True),
        ("${time:60}", "2026-11-25T13:00:59+01:00", True),
        ("${time:60}", "2026-11-25T12:01:01Z", False),
        ("${jid:alice}", "alice@x.test/res", True),
        ("${jid:alice}", "alice@x.test/other", False),
        ("room/${res:alice}", "room/res", True),
        ("${jid:bob}", "bob@x.test/res", False),
        ("${secret:alice}", "pw-secret", True),
        ("${secret:alice}", "pw-wrong", False),
        ("$${any}", "${any}", True),
        ("$${any}", "x", False),
        ("a${any}c", "abc", True),
        ("a${any}c", "abd", False),
    ],
)
def test_what_a_placeholder_takes(value: str, live: str, fits: bool) -> None:
    assert context().bindings.takes(value, live, SCOPE, NOW) is fits


def test_an_id_is_bound_at_first_sight_and_is_the_same_from_then_on() -> None:
    one = context()
    assert matches(parse("<iq id='${id:1}'/>"), parse("<iq id='q7'/>"), one)
    assert one.bindings.values == {"id:1": "q7"}
    assert not matches(parse("<iq id='${id:1}'/>"), parse("<iq id='q8'/>"), one)
    assert matches(parse("<iq id='${id:1}'/>"), parse("<iq id='q7'/>"), one)


def test_two_ids_are_never_one() -> None:
    one = context()
    assert matches(parse("<iq id='${id:1}'/>"), parse("<iq id='q7'/>"), one)
    assert not matches(parse("<iq id='${id:2}'/>"), parse("<iq id='q7'/>"), one)
    # Another party may use the same id: its ids are its own.
    one.scope = ("bob", "client")
    assert matches(parse("<iq id='${id:2}'/>"), parse("<iq id='q7'/>"), one)


def test_a_trial_that_fails_binds_nothing() -> None:
    one = context()
    assert not matches(parse("<iq id='${id:1}'><a x='${id:2}'/><b/></iq>"), parse("<iq id='1'><a x='2'/></iq>"), one)
    assert one.bindings.values == {}
    assert one.bindings.owners == {}


def test_an_id_inside_text_is_found_again() -> None:
    one = context()
    assert matches(parse("<a to='${id:1}@rooms.x'/>"), parse("<a to='f00dbabe@rooms.x'/>"), one)
    assert matches(parse("<a>Room ${id:1} is new</a>"), parse("<a>Room f00dbabe is new</a>"), one)
    assert not matches(parse("<a>Room ${id:1} is new</a>"), parse("<a>Room deadbeef is new</a>"), one)


def test_what_is_sent_has_the_live_values() -> None:
    one = context()
    matches(parse("<iq id='${id:1}'/>"), parse("<iq id='q7'/>"), one)
    stanza = parse("<iq id='${id:1}' to='${jid:alice}'><q ver='${any=v1}' n='${int=3}'>${any}</q></iq>")
    sent = filled(stanza, one.bindings, ("alice", "server"), NOW)
    assert render(sent) == '<iq id="q7" to="alice@x.test/res"><q n="3" ver="v1">any</q></iq>'


def test_ids_made_for_sending_are_new_and_then_expected() -> None:
    one = context()
    stanza = parse("<iq id='${id:5}'/>")
    first = filled(stanza, one.bindings, ("alice", "server"), NOW).get("id")
    assert filled(stanza, one.bindings, ("alice", "server"), NOW).get("id") == first
    assert filled(parse("<iq id='${id:6}'/>"), one.bindings, ("alice", "server"), NOW).get("id") != first
    assert matches(stanza, parse(f"<iq id='{first}'/>"), one)


# Strictness.


def test_skip_covers_a_subtree() -> None:
    expected = parse("<iq><ciphertext xmlns='e'/></iq>")
    skipping = make(expected.tag, {}, (make("{e}ciphertext", skip=True),))
    assert matches(skipping, parse("<iq><ciphertext xmlns='e' iv='1'>abc<x/></ciphertext></iq>"), context())
    assert not matches(skipping, parse("<iq><other xmlns='e'/></iq>"), context())


def test_not_strict_allows_more_of_everything() -> None:
    loose = make("{jabber:client}iq", {"a": "1"}, (make("{jabber:client}b"),), strict=False)
    assert matches(loose, parse("<iq a='1' z='2'><c/><b/><b/></iq>"), context())
    assert not matches(loose, parse("<iq a='1' z='2'><c/></iq>"), context())


def test_contains_allows_more_in_the_stanza_and_in_sets_only() -> None:
    assert same("<message><body>a</body></message>", "<message><body>a</body><new xmlns='n'/></message>", contains=True)
    assert not same("<message><body>a</body></message>", "<message><body>a<x/></body></message>", contains=True)
    query = "<iq><query xmlns='" + DISCO + "'>{}</query></iq>"
    one, two = "<feature var='a'/>", "<feature var='b'/>"
    assert same(query.format(one), query.format(two + one), contains=True)
    assert not same(query.format(one + two), query.format(two), contains=True)
    assert not same(query.format("<feature var='a'/>"), query.format("<feature var='a' b='c'/>"), contains=True)


# Explanations.


def paths(expected: str, live: str) -> list[str]:
    return [str(each) for each in differences(parse(expected), parse(live), context())]


def test_differences_name_the_place() -> None:
    assert paths("<message><body>hello</body></message>", "<message><body>hallo</body></message>") == [
        "/message/body: expected 'hello', got 'hallo'"
    ]
    assert paths("<iq type='get' to='a'/>", "<iq type='set' x='1'/>") == [
        "/iq@to: missing 'a'",
        "/iq@type: expected 'get', got 'set'",
        "/iq@x: not recorded '1'",
    ]
    roster = "<query xmlns='jabber:iq:roster'>{}</query>"
    one, two, three = (f"<item jid='{jid}' name='{jid}'/>" for jid in ("a", "b", "c"))
    assert paths(roster.format(one + two), roster.format(three + one)) == [
        '/query: missing <item jid="b" name="b"/>',
        '/query: not recorded <item jid="c" name="c"/>',
    ]


def test_what_is_known_stands_in_the_explanation() -> None:
    one = context()
    matches(parse("<iq id='${id:1}'/>"), parse("<iq id='q7'/>"), one)
    (found,) = differences(parse("<iq id='${id:1}'/>"), parse("<iq id='q8'/>"), one)
    assert str(found) == "/iq@id: expected 'q7', got 'q8'"


def test_the_nearer_stanza_has_the_higher_score() -> None:
    live = parse("<message to='a' type='chat'><body>hallo</body></message>")
    near = parse("<message to='a' type='chat'><body>hello</body></message>")
    far = parse("<message to='b' type='groupchat'><subject>x</subject></message>")
    assert score(live, live, context()) == 1.0
    assert 1.0 > score(near, live, context()) > score(far, live, context())


# Mutations: no tolerance where none is said.

names = st.sampled_from(["a", "b", "c", "{n}d", "{http://jabber.org/protocol/disco#info}feature"])
texts = st.text("ab \n<&", max_size=4)


def nodes(depth: int = 3) -> st.SearchStrategy[Node]:
    children = st.lists(nodes(depth - 1), max_size=3) if depth else st.just([])
    return st.builds(
        lambda name, attributes, text, inner, mixed: make(
            name if name.startswith("{") else f"{{jabber:client}}{name}",
            attributes,
            (text, *inner) if mixed and text.strip(" \n") else (*inner,) if inner else (text,),
        ),
        names,
        st.dictionaries(st.sampled_from(["id", "type", "x"]), texts, max_size=2),
        texts,
        children,
        st.booleans(),
    )


def mutations(node: Node) -> Iterator[Node]:
    """Yield the stanza with one thing changed, dropped or doubled."""
    for name in node.attributes:
        yield make(node.tag, node.attributes | {name: node.attributes[name] + "~"}, node.content)
        yield make(node.tag, {key: value for key, value in node.attributes.items() if key != name}, node.content)
    yield make(node.tag, {**node.attributes, "new": "1"}, node.content)
    yield make(node.tag + "~", node.attributes, node.content)
    yield make(node.tag, node.attributes, (*node.content, make("{m}more")))
    for index, item in enumerate(node.content):
        before, behind = node.content[:index], node.content[index + 1 :]
        yield make(node.tag, node.attributes, (*before, *behind))
        if isinstance(item, str):
            yield make(node.tag, node.attributes, (*before, item + "~", *behind))
        else:
            yield make(node.tag, node.attributes, (*before, item, item, *behind))
            for inner in mutations(item):
                yield make(node.tag, node.attributes, (*before, inner, *behind))


@given(nodes())
def test_a_stanza_matches_itself_and_none_of_its_mutations(node: Node) -> None:
    expected = escaped(node)
    assert matches(expected, node, context())
    for mutated in mutations(node):
        assert not matches(expected, mutated, context()), render(mutated)
        assert differences(expected, mutated, context()), render(mutated)


@given(nodes(), nodes())
def test_differences_are_there_exactly_where_nothing_matches(one: Node, other: Node) -> None:
    expected = escaped(one)
    assert matches(expected, other, context()) == (not differences(expected, other, context()))
    assert 0.0 <= score(expected, other, context()) <= 1.0


@given(nodes())
def test_a_stanza_survives_being_written_and_read(node: Node) -> None:
    assert parse(render(node)) == node


def escaped(node: Node) -> Node:
    return copy.deepcopy(node)  # the alphabet above has no "$"


@pytest.mark.slow
def test_stanzas_that_nearly_match_in_many_ways_are_explained_in_bounded_time() -> None:
    def deep(depth: int, filling: str) -> str:
        if not depth:
            return f"<leaf xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{filling}</leaf>"
        inner = deep(depth - 1, filling)
        names = "".join(f"<mechanism xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{inner}</mechanism>" for _ in range(2))
        return f"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{names}</mechanisms>"

    want, have = parse(deep(8, "${any:a}")), parse(deep(8, "b"))
    spent = context()
    assert not matches(want, have, spent)
    assert differences(want, have, context())
    assert score(want, have, context()) < 1.0
    assert spent.budget.left > -2_000


@pytest.mark.parametrize(
    ("value", "live"),
    [
        ("${any:(?:a|aa)*[^a]}", "a" * 4_000),
        ("${any:.*a.*a.*a.*a.*b}", "a" * 4_000),
        ("${any}x${any}x${any}x${any}y", "x" * 4_000),
    ],
)
def test_a_value_that_backtracks_without_end_is_given_up(value: str, live: str) -> None:
    bindings = Bindings(patience=Patience(0.05))
    scope = ("juliet", "client")
    assert not bindings.takes(value, live, scope, NOW)
    assert bindings.patience.given_up == {value: len(live)}
    assert not bindings.copy().takes(value, "aaaab", scope, NOW)  # it is not tried again in this replay


def test_many_matches_share_the_time_that_one_has(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1_000))
    monkeypatch.setattr("xproxy.replay.patience.time.thread_time", lambda: next(ticks) * 0.01)  # each takes 10 ms
    bindings = Bindings(patience=Patience(0.05))
    took = [bindings.takes("${any:a+}", "aaa", ("juliet", "client"), NOW) for _ in range(7)]
    assert took == [True] * 5 + [False] * 2
