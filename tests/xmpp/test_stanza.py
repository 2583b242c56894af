import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from xproxy.events import Side
from xproxy.events.stanza import StanzaFacts
from xproxy.xmpp import ns
from xproxy.xmpp.stanza import (
    ADDRESS_CHARS_MAX,
    CONDITIONS,
    NAMES_MAX,
    TEXT_OCTETS_MAX,
    ErrorFacts,
    element_text,
    keyed_hash,
    read_conditions,
    read_error,
    stanza_facts,
)

STZ = f"xmlns='{ns.STANZA_ERRORS}'"
KEY = b"key"


def parse(text: str) -> etree._Element:
    return etree.fromstring(f"<s xmlns='jabber:client'>{text}</s>")[0]


def error(children: str, *, attributes: str = "", stanza: str = "") -> etree._Element:
    return parse(f"<iq type='error' id='1' {stanza}><error {attributes}>{children}</error></iq>")


def read(element: etree._Element, *, server_text: bool = True, sent_by: Side = Side.SERVER) -> ErrorFacts:
    return read_error(element, server_text=server_text, sent_by=sent_by)


def test_text_goes_on_behind_comments_and_instructions() -> None:
    element = parse("<a>QU<!-- not this -->JD<?nor this?>RE<b>V</b>G</a>")
    assert element_text(element) == "QUJDREVG"


def test_keyed_hash_is_hmac_sha_256_over_domain_and_value() -> None:
    want = hmac.new(KEY, b"sm\0id-\xcf\x80", hashlib.sha256).hexdigest()[:16]
    assert keyed_hash(KEY, "sm", "id-\u03c0") == want
    assert keyed_hash(KEY, "stanza", "id-\u03c0") != want
    assert len(keyed_hash(b"", "sm", "\ud800")) == 16


def test_facts_of_a_stanza() -> None:
    element = parse(
        "<message type='chat' id='m1' to='a@b/c' from='d@e/f'><!-- c --><body>s3cret</body><?pi?>"
        "<x xmlns='u:x'/></message>"
    )
    assert stanza_facts(element, 99, KEY) == StanzaFacts(
        kind="message",
        type="chat",
        id_hash=keyed_hash(KEY, "stanza", "m1"),
        to="a@b/c",
        from_="d@e/f",
        payloads=("{jabber:client}body", "{u:x}x"),
        octets=99,
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<iq/>", "iq"),
        ("<presence xmlns='jabber:server'/>", "presence"),
        ("<message xmlns='jabber:component:accept'/>", "message"),
        ("<iq xmlns='u:other'/>", "other"),
        ("<ping/>", "other"),
        ("<iq xmlns=''/>", "other"),
    ],
)
def test_kind_is_a_name_in_a_content_namespace(text: str, kind: str) -> None:
    facts = stanza_facts(parse(text), 1, KEY)
    assert (facts.kind, facts.id_hash, facts.payloads) == (kind, None, ())


def test_facts_are_bounded() -> None:
    element = parse(f"<iq type='{'t' * 1000}' to='{'a' * 9000}'>{'<a/>' * 50}</iq>")
    facts = stanza_facts(element, 1, KEY)
    assert facts.type == "t" * 63 + "…"
    assert facts.to is not None
    assert len(facts.to) == ADDRESS_CHARS_MAX
    assert len(facts.payloads) == NAMES_MAX


def test_an_error_is_read_whole() -> None:
    element = error(
        f"<!-- c --><item-not-found {STZ}/><text {STZ} xml:lang='en'>No <!-- c -->such item.</text>"
        "<unsupported xmlns='http://jabber.org/protocol/pubsub#errors' feature='x'/><?pi?><own xmlns='u:own'/>",
        attributes="type='cancel' code='404' by='room@conf.example/nick'",
        stanza="from='conf.example'",
    )
    assert read(element) == ErrorFacts(
        type="cancel",
        condition="item-not-found",
        condition_known=True,
        by="conf.example",
        code="404",
        application_conditions=("{http://jabber.org/protocol/pubsub#errors}unsupported", "{u:own}own"),
        text="No such item.",
        text_bytes=13,
    )


def test_a_stanza_of_type_error_without_an_error() -> None:
    facts = read(parse("<message type='error'><!-- c --><body>x</body><error xmlns='u:x'/></message>"))
    assert (facts.condition, facts.condition_known, facts.text_bytes) == ("", False, 0)


@pytest.mark.parametrize("condition", sorted(CONDITIONS))
def test_conditions_of_the_rfc_are_known(condition: str) -> None:
    facts = read(error(f"<{condition} {STZ}/>"))
    assert (facts.condition, facts.condition_known) == (condition, True)


@pytest.mark.parametrize("condition", ["payment-required", "no-such-condition", "c" * 300])
def test_other_conditions_are_told_as_unknown(condition: str) -> None:
    facts = read(error(f"<{condition} {STZ}/>"))
    assert facts.condition == (condition if len(condition) <= 64 else "c" * 63 + "…")
    assert not facts.condition_known


def test_condition_lists_have_the_length_of_their_section() -> None:
    """RFC 6120 sections 4.9.3, 8.3.3 and 6.5 count 25, 22 and 11."""
    assert (len(ns.STREAM_CONDITIONS), len(ns.STANZA_CONDITIONS), len(ns.SASL_CONDITIONS)) == (25, 22, 11)
    assert ns.STREAM_CONDITIONS.isdisjoint(ns.STREAM_CONDITIONS_LEGACY)
    assert ns.STANZA_CONDITIONS.isdisjoint(ns.STANZA_CONDITIONS_LEGACY)
    assert ns.SASL_CONDITIONS.isdisjoint(ns.SASL_CONDITIONS_LEGACY)


def test_the_first_of_several_conditions_counts() -> None:
    assert read(error(f"<gone {STZ}/><conflict {STZ}/>")).condition == "gone"


@pytest.mark.parametrize("condition", ["gone", "redirect"])
def test_the_address_in_a_condition_is_never_told(condition: str) -> None:
    assert "secret" not in repr(read(error(f"<{condition} {STZ}>xmpp:secret@example.com</{condition}>")))


@pytest.mark.parametrize("from_", [None, "", "example.com", "account@example.com"])
def test_text_of_a_server_is_kept(from_: str | None) -> None:
    stanza = "" if from_ is None else f"from='{from_}'"
    element = error(f"<conflict {STZ}/><text {STZ}>t\u00e9xt</text>", stanza=stanza)
    facts = read_error(element, server_text=True, sent_by=Side.SERVER, account="account@example.com")
    assert (facts.text, facts.text_bytes) == ("t\u00e9xt", 5)


@pytest.mark.parametrize(
    ("from_", "server_text", "sent_by"),
    [
        ("other@example.com", True, Side.SERVER),
        ("other@example.com/x", True, Side.SERVER),
        ("room.example.com/nick", True, Side.SERVER),
        ("account@example.com/x", True, Side.SERVER),  # another client of the account
        ("example.com", True, Side.CLIENT),
        ("example.com", False, Side.SERVER),
    ],
)
def test_text_that_a_user_may_have_written_is_a_length(from_: str, server_text: bool, sent_by: Side) -> None:
    element = error(f"<conflict {STZ}/><text {STZ}>s3cret</text>", stanza=f"from='{from_}'")
    facts = read_error(element, server_text=server_text, sent_by=sent_by, account="account@example.com")
    assert (facts.text, facts.text_bytes) == (None, 6)


def test_text_is_cut_at_a_character_and_only_the_first_is_kept() -> None:
    long = "x" + "\u00e9" * 200
    facts = read(error(f"<text {STZ}>{long}</text><text {STZ} xml:lang='de'>{long}</text>"))
    assert facts.text == "x" + "\u00e9" * 127
    assert len(facts.text.encode()) <= TEXT_OCTETS_MAX
    assert facts.text_bytes == 802


@pytest.mark.parametrize("code", ["", "4040", "40", "s3cret", "\u0664\u0660\u0664"])
def test_a_code_is_three_digits(code: str) -> None:
    assert read(error("", attributes=f"code='{code}'")).code is None


def test_what_is_no_address_is_not_told_as_by() -> None:
    assert read(error("", attributes="by='a b'")).by is None


def test_application_conditions_are_bounded() -> None:
    assert len(read(error("<x xmlns='u:x'/>" * 50)).application_conditions) == NAMES_MAX


def test_conditions_of_a_stream_error() -> None:
    element = parse(
        f"<e><see-other-host xmlns='{ns.STREAM_ERRORS}'>secret.example</see-other-host>"
        f"<text xmlns='{ns.STREAM_ERRORS}'>Moved.</text></e>"
    )
    facts = read_conditions(element, namespace=ns.STREAM_ERRORS, known=ns.STREAM_CONDITIONS, keep_text=True)
    assert (facts.condition, facts.condition_known, facts.text) == ("see-other-host", True, "Moved.")
    assert "secret" not in repr(facts)


@given(st.text(alphabet="QXZ019#\u265e", min_size=8, max_size=24), st.booleans())
def test_canary(secret: str, by_user: bool) -> None:
    element = error(
        f"<gone {STZ}>{secret}</gone><text {STZ}>{secret}</text><x xmlns='u:x' a='{secret}'>{secret}</x>{secret}",
        attributes=f"code='{secret}'",
        stanza="from='u@h/r'" if by_user else "",
    )
    assert secret not in repr(read(element, server_text=by_user))
    assert secret not in repr(stanza_facts(parse(f"<message id='{secret}'><body>{secret}</body></message>"), 1, KEY))


@pytest.mark.parametrize("from_", ["evil.example", "evil-example.com", "com", "sms.gateway.example"])
def test_text_of_another_domain_is_a_length(from_: str) -> None:
    """Anybody may run a domain, and a gateway may quote the message it could not deliver."""
    element = error(f"<conflict {STZ}/><text {STZ}>s3cret</text>", stanza=f"from='{from_}'")
    facts = read_error(element, server_text=True, sent_by=Side.SERVER, account="account@example.com")
    assert (facts.text, facts.text_bytes) == (None, 6)
