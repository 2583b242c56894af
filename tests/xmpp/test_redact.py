from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from xproxy.xmpp import ns
from xproxy.xmpp.redact import (
    CHILDREN_MAX,
    DEPTH_MAX,
    SKELETON_CHARS_MAX,
    child_names,
    domain_of,
    is_legacy_code,
    safe_name,
    skeleton,
)


def parse(text: str) -> etree._Element:
    return etree.fromstring(f"<s xmlns='jabber:client'>{text}</s>")[0]


def test_an_error_that_echoes_a_password() -> None:
    """XEP-0077 example 8: the server sends the request back."""
    element = parse(
        "<iq type='error' id='reg2' from='shakespeare.example'><query xmlns='jabber:iq:register'>"
        "<username>bill</username><password>Calliope</password></query>"
        f"<error code='409' type='cancel'><conflict xmlns='{ns.STANZA_ERRORS}'/>"
        f"<text xmlns='{ns.STANZA_ERRORS}' xml:lang='en'>Taken.</text></error></iq>"
    )
    assert skeleton(element) == (
        "<iq type=error id={4} from={19}><query xmlns=jabber:iq:register>"
        "<username>{4}</username><password>{8}</password></query>"
        f"<error code=409 type=cancel><conflict xmlns={ns.STANZA_ERRORS}/>"
        "<text xmlns=#2 lang={2}>{6}</text></error></iq>"
    )


def test_forwarded_messages_need_no_rule_of_their_own() -> None:
    element = parse(
        "<message from='a@b'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>"
        "<message xmlns='jabber:client' type='chat'><body>s3cret</body></message></forwarded></received></message>"
    )
    assert skeleton(element) == (
        "<message from={3}><received xmlns=urn:xmpp:carbons:2><forwarded xmlns=urn:xmpp:forward:0>"
        "<message xmlns=jabber:client type=chat><body>{6}</body></message></forwarded></received></message>"
    )


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("<iq/>", "<iq/>"),
        ("<iq></iq>", "<iq/>"),
        ("<iq xmlns='jabber:server'/>", "<iq xmlns=jabber:server/>"),
        ("<x xmlns=''/>", '<x xmlns=""/>'),
        ("<iq type='s3cret'/>", "<iq type={6}/>"),  # a rule holds for values of its kind only
        ("<x xmlns='u:x' type='get'/>", "<x xmlns=u:x type={3}/>"),  # and for its element only
        ("<iq s3cret='x' other='yz' id='1'/>", "<iq id={1} +2{3}/>"),
        ("<iq xmlns:p='u:p' p:type='get'/>", "<iq +1{3}/>"),
        ("<iq xml:lang='s3cret' xml:id='q'/>", "<iq lang={6} id={1}/>"),
        ("<body>\u00e9\u00e9</body>", "<body>{4}</body>"),
        ("<a>x<b/>yz<!-- s3cret -->w</a>", "<a>{1}<b/>{2}<!{8}>{1}</a>"),
        ("<a><?s3cret data?></a>", "<a><!{4}></a>"),
        ("<a><?s3cret?></a>", "<a><!{0}></a>"),
        ("<error type='wait' code='500' by='u@h.example/x'/>", "<error type=wait code=500 by=h.example/>"),
        ("<error type='wat' code='5000' by='a b'/>", "<error type={3} code={4} by={3}/>"),
        (f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>Q</auth>", f"<auth xmlns={ns.SASL} mechanism=PLAIN>{{1}}</auth>"),
        (f"<auth xmlns='{ns.SASL}' mechanism='pw'/>", f"<auth xmlns={ns.SASL} mechanism={{2}}/>"),
        ("<a xmlns='urn:xmpp:sm:3' h='12'/>", "<a xmlns=urn:xmpp:sm:3 h=12/>"),
        ("<a xmlns='urn:xmpp:sm:3' h='12345678901'/>", "<a xmlns=urn:xmpp:sm:3 h={11}/>"),
        (
            "<enabled xmlns='urn:xmpp:sm:3' id='s3cret' resume='true' max='300' location='h'/>",
            "<enabled xmlns=urn:xmpp:sm:3 id={6} resume=true max=300 location={1}/>",
        ),
        (
            "<feature xmlns='http://jabber.org/protocol/disco#info' var='urn:xmpp:ping'/>",
            "<feature xmlns=http://jabber.org/protocol/disco#info var=urn:xmpp:ping/>",
        ),
        (
            "<feature xmlns='http://jabber.org/protocol/disco#info' var='urn:s3cret'/>",
            "<feature xmlns=http://jabber.org/protocol/disco#info var={10}/>",
        ),
        (
            "<field xmlns='jabber:x:data' type='text-private' var='password'><value>s3cret</value></field>",
            "<field xmlns=jabber:x:data type=text-private var={8}><value>{6}</value></field>",
        ),
        (
            "<status xmlns='http://jabber.org/protocol/muc#user' code='110'/>",
            "<status xmlns=http://jabber.org/protocol/muc#user code=110/>",
        ),
    ],
)  # fmt: skip
def test_what_is_printed(text: str, want: str) -> None:
    assert skeleton(parse(text)) == want


def test_depth_is_bounded() -> None:
    inner = skeleton(parse("<a>" * 50 + "</a>" * 50))
    assert inner == "<a>" * DEPTH_MAX + "…" + "</a>" * DEPTH_MAX
    assert skeleton(parse("<a>" * DEPTH_MAX + "x" + "</a>" * DEPTH_MAX)).count("{1}") == 1


def test_width_is_bounded() -> None:
    text = skeleton(parse("<a>" + "<b/>" * 1000 + "</a>"))
    assert text == "<a>" + "<b/>" * CHILDREN_MAX + "…</a>"


def test_length_is_bounded() -> None:
    text = skeleton(parse("<a>" + ("<bbbbbbbbbbbb>" + "<cccccccccccccc/>" * 16 + "</bbbbbbbbbbbb>") * 16 + "</a>"))
    assert len(text) <= SKELETON_CHARS_MAX
    assert len(text) > SKELETON_CHARS_MAX - 20
    assert text.endswith("…")


@pytest.mark.parametrize(
    ("tag", "want"),
    [
        ("{jabber:iq:roster}query", "{jabber:iq:roster}query"),
        ("query", "query"),
        ("{}query", "query"),
        ("{u:x}" + "n" * 40, "{u:x}" + "n" * 31 + "…"),
        ("{jabber:client}" + "n" * 70, "{jabber:client}" + "n" * 63 + "…"),
        ("{" + "u" * 70 + "}n", "{" + "u" * 63 + "…}n"),
        ("{u:a}b<c d\"e\n\u202e\u00a0\ud800}n", "{u:a\\x7db\\x3cc\\x20d\\x22e\\x0a\\x202e\\xa0\\xd800}n"),
        ("{u:\u00fc}\u540d", "{u:\u00fc}\u540d"),
        (etree.Comment, "?"),
    ],
)  # fmt: skip
def test_names_are_cut_and_cleaned(tag: object, want: str) -> None:
    assert safe_name(tag) == want


def test_child_names() -> None:
    element = parse("<a><!-- c --><b/><?pi?><c xmlns='u:c'/><d/></a>")
    assert child_names(element, 2) == ("{jabber:client}b", "{u:c}c")
    assert child_names(element, 9) == ("{jabber:client}b", "{u:c}c", "{jabber:client}d")
    assert child_names(element, 0) == ()


def test_small_helpers() -> None:
    assert domain_of("a@B.example/c") == "b.example"
    assert domain_of("a b") is None
    assert is_legacy_code("501")
    assert not is_legacy_code("5011")


SECRETS = st.text(alphabet="QXZ019#\u265e&<", min_size=8, max_size=24)


NAMES = ["message", "body", "iq", "query", "error", "field", "item", "x"]
NAMESPACES = [*sorted(ns.KNOWN_NAMESPACES), "u:unknown"]


@given(SECRETS, st.lists(st.sampled_from(NAMES), max_size=6), st.sampled_from(NAMESPACES), st.data())
def test_canary(secret: str, path: list[str], namespace: str, data: st.DataObject) -> None:
    """A secret in any text, tail, comment, instruction, or attribute value but the domain of ``by`` stays inside."""
    names = ["id", "to", "type", "code", "h", "max", "resume", "mechanism", "var", "category", "affiliation", "own"]
    text = f"{escape(secret)}<!--{escape(secret)}-->{escape(secret)}<?i {escape(secret)}?><z/>{escape(secret)}"
    for name in path:
        attributes = data.draw(st.lists(st.sampled_from(names), unique=True, max_size=4))
        pairs = " ".join(f"{attribute}={quoteattr(secret)}" for attribute in attributes)
        text = f"<{name} xmlns='{namespace}' {pairs}>{text}</{name}>{escape(secret)}"
    element = etree.fromstring(f"<message xmlns='jabber:client'>{text}</message>")
    assert secret not in skeleton(element)
    assert escape(secret) not in skeleton(element)


@given(st.recursive(
    st.text(alphabet="ab<\u202e", max_size=4).map(escape),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: f"<a xmlns='u:b' id='c'>{''.join(parts)}</a>"),
))  # fmt: skip
def test_any_element_has_a_bounded_skeleton_on_one_line(text: str) -> None:
    result = skeleton(parse(f"<iq>{text}</iq>"))
    assert len(result) <= SKELETON_CHARS_MAX
    assert result.isprintable()
