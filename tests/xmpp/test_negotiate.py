"""Stream features as events, and our own part before TLS."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tests.support.dialogue import (
    BIND,
    BOUND,
    DECLARED_HEADER,
    FEATURES_BIND,
    FEATURES_SASL,
    FEATURES_TLS,
    HEADER,
    PLAIN,
    PROCEED,
    SERVER_HEADER,
    STARTTLS,
    SUCCESS,
    Dialogue,
)
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import Side
from xproxy.events.connection import CloseCause, ServerTls
from xproxy.events.stream import StreamError, StreamViolation
from xproxy.events.tls import (
    PlaintextAuthentication,
    StarttlsInjection,
    StarttlsRefused,
    StarttlsRequested,
    StarttlsStripped,
)
from xproxy.xmpp.actions import LegMode, Observe, Pause, Send, StartTls
from xproxy.xmpp.memory import Memory
from xproxy.xmpp.negotiate import is_tolerated_behind_starttls, read_features
from xproxy.xmpp.session import Session

Chunks = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def by_sevens(data: bytes) -> list[bytes]:
    return [data[at : at + 7] for at in range(0, len(data), 7)]


CHUNKINGS = [whole, byte_by_byte, by_sevens]

STREAMS = "xmlns='http://etherx.jabber.org/streams'"
SASL = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"


def features(inner: str) -> etree._Element:
    return etree.fromstring(f"<features {STREAMS}>{inner}</features>")


def test_mechanisms_bindings_and_limits() -> None:
    read = read_features(
        features(
            f"<mechanisms {SASL}><mechanism>SCRAM-SHA-1-PLUS</mechanism><mechanism> PLAIN\n</mechanism>"
            "<hostname xmlns='urn:xmpp:domain-based-name:1'>a</hostname></mechanisms>"
            "<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>"
            "<channel-binding type='tls-exporter'/></sasl-channel-binding>"
            "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>262144</max-bytes>"
            "<idle-seconds>840</idle-seconds></limits>"
        )
    )
    (offer,) = read.offers
    assert offer.mechanisms == ("SCRAM-SHA-1-PLUS", "PLAIN")
    assert offer.channel_bindings == ("tls-exporter",)
    assert (read.seen.stanza_bytes_max, read.seen.idle_seconds_max) == (262144, 840)
    assert not read.starttls_offered


@pytest.mark.parametrize(
    ("inner", "want"),
    [
        ("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "offered"),
        ("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>", "required"),
        ("<starttls xmlns='urn:example'/>", "none"),
    ],
)
def test_starttls_and_whether_it_is_required(inner: str, want: str) -> None:
    assert read_features(features(inner)).seen.starttls == want


@pytest.mark.parametrize("number", ["", "-1", "１", "1e3", "9" * 13, "<a/>"])
def test_a_limit_that_is_no_number_is_no_limit(number: str) -> None:
    inner = f"<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>{number}</max-bytes></limits>"
    assert read_features(features(inner)).seen.stanza_bytes_max is None


def test_comments_between_features_are_passed_over() -> None:
    inner = f"<!-- a --><?b c?><mechanisms {SASL}><!-- --><mechanism>PLA<!-- -->IN</mechanism></mechanisms>"
    read = read_features(features(inner))
    (offer,) = read.offers
    assert offer.mechanisms == ("PLAIN",)
    assert len(read.seen.features) == 1


def test_no_mechanisms_is_no_offer() -> None:
    assert read_features(features("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>")).offers == ()


@pytest.mark.parametrize(
    ("leftover", "tolerated"),
    [(b"", True), (b" \r\n\t", True), (b" " * 16, True), (b" " * 17, False), (b"\x16", False)],
)
def test_what_may_stand_behind_starttls(leftover: bytes, tolerated: bool) -> None:
    assert is_tolerated_behind_starttls(leftover) is tolerated


def test_both_profiles_are_offers_of_their_own() -> None:
    read = read_features(
        features(
            f"<mechanisms {SASL}><mechanism>PLAIN</mechanism></mechanisms>"
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>SCRAM-SHA-256</mechanism>"
            "<inline><fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast></inline>"
            "</authentication>"
        )
    )
    assert [(offer.profile, offer.mechanisms) for offer in read.offers] == [
        ("rfc6120", ("PLAIN",)),
        ("xep-0388", ("SCRAM-SHA-256", "HT-SHA-256-NONE")),
    ]


# Our own part: the legs' TLS does not begin alike ---------------------------------------------------------------------

OWN_FEATURES = (
    "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
)
POLICY_VIOLATION = (
    "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
)
TO_OTHERS = [LegMode.CLEAR_TO_DIRECT, LegMode.CLEAR_TO_PLAIN]
cut = pytest.mark.parametrize("chunks", CHUNKINGS, ids=lambda chunks: chunks.__name__)


def starttls_of(talk: Dialogue) -> StartTls | None:
    return next((action for action in talk.actions if isinstance(action, StartTls)), None)


def header_of(text: str) -> dict[str, str]:
    """Return the attributes of the stream header that ``text`` begins with."""
    begin = text.index("<stream:stream")
    element = etree.fromstring(text[begin : text.index(">", begin)] + "/>")
    assert element.tag == "{http://etherx.jabber.org/streams}stream"
    return dict(element.attrib)


@cut
@pytest.mark.parametrize("mode", TO_OTHERS)
def test_a_client_in_clear_is_led_into_tls(mode: LegMode, chunks: Chunks) -> None:
    talk = Dialogue(mode=mode, chunks=chunks).client(DECLARED_HEADER)
    said = talk.sent_to(Side.CLIENT)
    assert said.startswith("<?xml version='1.0'?><stream:stream ")
    assert said.endswith(OWN_FEATURES)
    header = header_of(said)
    assert (header["from"], header["version"]) == ("example.org", "1.0")
    assert len(header["id"]) == 16
    assert "to" not in header
    talk.client(STARTTLS)
    assert talk.sent_to(Side.CLIENT) == PROCEED
    assert starttls_of(talk) == StartTls(domain="example.org")
    assert talk.actions_seen() == ["stream-opened", "starttls-requested"]
    talk = talk.secured() if mode is LegMode.CLEAR_TO_DIRECT else talk.secured_client()
    talk.client(HEADER).server(SERVER_HEADER + FEATURES_SASL).client(PLAIN).server(SUCCESS)
    talk.client(HEADER).server(SERVER_HEADER + FEATURES_BIND).client(BIND).server(BOUND)
    assert talk.session.established
    assert talk.actions_seen()[-1] == "session-established"
    assert talk.forwarded[Side.CLIENT].decode() == HEADER + PLAIN + HEADER + BIND
    assert not any(talk.sent.values())


def test_proceed_comes_after_the_client_is_held_and_before_tls() -> None:
    talk = Dialogue(mode=LegMode.CLEAR_TO_DIRECT).client(DECLARED_HEADER)
    talk.actions.clear()
    talk.client(STARTTLS)
    assert [type(action) for action in talk.actions] == [Observe, Send, Pause, StartTls]


def test_a_client_that_pipelines_its_header_and_starttls() -> None:
    talk = Dialogue(mode=LegMode.CLEAR_TO_DIRECT).client(DECLARED_HEADER + STARTTLS)
    assert talk.sent_to(Side.CLIENT).endswith(OWN_FEATURES + PROCEED)
    assert starttls_of(talk) is not None


def test_the_stream_id_is_another_one_for_each_session_and_the_same_in_a_replay() -> None:
    def stream_id(at: int, key: bytes = b"k") -> str:
        session = Session(
            limits=StreamLimits(),
            policy=StreamPolicy(correlation_key=key),
            mode=LegMode.CLEAR_TO_DIRECT,
            at_ns=at,
        )
        actions = session.receive(Side.CLIENT, HEADER.encode(), at)
        (sent,) = [action for action in actions if isinstance(action, Send)]
        return header_of(sent.data.decode())["id"]

    assert stream_id(1) == stream_id(1)
    assert len({stream_id(1), stream_id(2), stream_id(1, b"other")}) == 3


def test_what_the_client_called_itself_and_the_domain_is_echoed_in_form() -> None:
    talk = Dialogue(mode=LegMode.CLEAR_TO_DIRECT)
    talk.client(HEADER.replace("to='example.org'", "to='a&amp;b&lt;&quot;&#10;c' from='&apos;x@example.org'"))
    header = header_of(talk.sent_to(Side.CLIENT))
    assert (header["from"], header["to"]) == ('a&b<"\nc', "'x@example.org")


@pytest.mark.parametrize(("leftover", "sane"), [(" \n", True), ("<auth/>", False), ("\x16", False), (" " * 17, False)])
def test_what_stands_behind_starttls_is_judged(leftover: str, sane: bool) -> None:
    talk = Dialogue(mode=LegMode.CLEAR_TO_DIRECT).client(DECLARED_HEADER)
    talk.sent_to(Side.CLIENT)
    talk.client(STARTTLS + leftover)
    if sane:
        assert talk.one(StarttlsRequested).trailing_whitespace == len(leftover)
        assert starttls_of(talk) is not None
    else:
        assert talk.one(StarttlsInjection) == StarttlsInjection(sent_by=Side.CLIENT, octets=len(leftover))
        assert talk.sent_to(Side.CLIENT) == ""
        assert talk.close is not None
        assert talk.close.cause is CloseCause.STARTTLS_INJECTION


@cut
@pytest.mark.parametrize(
    "said", [PLAIN, BIND, "<presence/>", "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<starttls/>", HEADER]
)
def test_nothing_but_starttls_is_taken_in_clear(said: str, chunks: Chunks) -> None:
    talk = Dialogue(mode=LegMode.CLEAR_TO_PLAIN, chunks=chunks).client(DECLARED_HEADER)
    talk.sent_to(Side.CLIENT)
    talk.client(said)
    assert talk.sent_to(Side.CLIENT) == POLICY_VIOLATION
    assert talk.one(StreamViolation).kind == "starttls-not-asked-for"
    assert talk.close is not None
    assert talk.close.cause is CloseCause.STREAM_VIOLATION


def test_a_login_that_is_tried_in_clear_is_on_record() -> None:
    talk = Dialogue(mode=LegMode.CLEAR_TO_PLAIN).client(DECLARED_HEADER + PLAIN)
    assert talk.one(PlaintextAuthentication).mechanism == "PLAIN"
    assert "capulet" not in repr(talk.events)


@pytest.mark.parametrize("version", ["", " version='0.9'", " version='x'", " version='٣.0'"])
def test_a_client_of_another_version_cannot_be_led_into_tls(version: str) -> None:
    talk = Dialogue(mode=LegMode.CLEAR_TO_DIRECT).client(HEADER.replace(" version='1.0'", version))
    assert "<unsupported-version xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>" in talk.sent_to(Side.CLIENT)
    assert talk.one(StreamViolation).kind == "unsupported-version"
    assert talk.close is not None


def test_a_client_that_leaves_in_form_is_answered_in_form() -> None:
    talk = Dialogue(mode=LegMode.CLEAR_TO_DIRECT).client(DECLARED_HEADER)
    talk.sent_to(Side.CLIENT)
    talk.client("</stream:stream>")
    assert talk.sent_to(Side.CLIENT) == "</stream:stream>"
    assert talk.close is not None
    assert talk.close.cause is CloseCause.STREAM_CLOSED


@pytest.mark.parametrize("said", ["<!DOCTYPE a>", "<html>", "&bad;", "<?xml version='2.0'?>"])
def test_a_client_that_breaks_the_rules_is_closed_without_a_word(said: str) -> None:
    talk = Dialogue(mode=LegMode.CLEAR_TO_DIRECT).client(said + HEADER)
    assert talk.sent_to(Side.CLIENT) == ""
    assert talk.close is not None


def test_a_client_that_does_nothing_has_a_limit() -> None:
    talk = Dialogue(mode=LegMode.CLEAR_TO_DIRECT).client(DECLARED_HEADER)
    talk.after(301)
    assert talk.close is not None
    assert talk.close.cause is CloseCause.NEGOTIATION_TIMEOUT


def test_the_streams_without_a_name_are_for_the_configured_domain() -> None:
    policy = StreamPolicy(domain="configured.example")
    talk = Dialogue(mode=LegMode.CLEAR_TO_DIRECT, policy=policy)
    talk.client(HEADER.replace("to='example.org' ", "")).client(STARTTLS)
    assert starttls_of(talk) == StartTls(domain="configured.example")


@cut
def test_a_server_in_clear_is_led_into_tls(chunks: Chunks) -> None:
    talk = Dialogue(mode=LegMode.DIRECT_TO_CLEAR, chunks=chunks).opens()
    said = talk.sent_to(Side.SERVER)
    assert header_of(said) == {"to": "example.org", "version": "1.0"}
    talk.server(SERVER_HEADER)
    assert talk.sent_to(Side.SERVER) == ""
    talk.server(FEATURES_TLS)
    assert talk.sent_to(Side.SERVER) == STARTTLS
    assert starttls_of(talk) is None
    talk.server(PROCEED)
    assert talk.sent_to(Side.SERVER) == ""
    assert starttls_of(talk) == StartTls(domain="example.org")
    assert talk.actions_seen() == ["stream-opened", "stream-features"]
    talk.secured().client(HEADER).server(SERVER_HEADER + FEATURES_SASL).client(PLAIN).server(SUCCESS)
    talk.client(HEADER).server(SERVER_HEADER + FEATURES_BIND).client(BIND).server(BOUND)
    assert talk.session.established


@pytest.mark.parametrize("leftover", [" ", "<success/>", "\x16"])
def test_nothing_may_stand_behind_proceed(leftover: str) -> None:
    talk = Dialogue(mode=LegMode.DIRECT_TO_CLEAR).opens().server(SERVER_HEADER + FEATURES_TLS)
    talk.server(PROCEED + leftover)
    assert talk.one(StarttlsInjection) == StarttlsInjection(sent_by=Side.SERVER, octets=len(leftover))
    assert starttls_of(talk) is None
    assert talk.close is not None
    assert talk.close.cause is CloseCause.STARTTLS_INJECTION


@cut
@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (FEATURES_SASL, "{http://etherx.jabber.org/streams}features"),
        (PROCEED, "{urn:ietf:params:xml:ns:xmpp-tls}proceed"),  # to what was not asked for
        (FEATURES_TLS + FEATURES_TLS, "{http://etherx.jabber.org/streams}features"),
        (
            FEATURES_TLS + PROCEED.replace("proceed", "failure"),
            "{urn:ietf:params:xml:ns:xmpp-tls}failure",
        ),
        (FEATURES_TLS + SUCCESS, "{urn:ietf:params:xml:ns:xmpp-sasl}success"),
        (FEATURES_TLS + "<message/>", "{jabber:client}message"),
    ],
)
def test_a_server_that_does_not_go_into_tls(said: str, answer: str, chunks: Chunks) -> None:
    talk = Dialogue(mode=LegMode.DIRECT_TO_CLEAR, chunks=chunks).opens().server(SERVER_HEADER + said)
    assert talk.one(StarttlsRefused).answer == answer
    assert talk.close is not None
    assert talk.close.cause is CloseCause.TLS_FAILED
    assert starttls_of(talk) is None
    assert not talk.session.established


def test_a_server_that_ends_with_an_error() -> None:
    error = "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
    talk = Dialogue(mode=LegMode.DIRECT_TO_CLEAR).opens().server(SERVER_HEADER + error)
    assert talk.one(StreamError).condition == "host-unknown"
    assert talk.close is not None
    assert talk.close.cause is CloseCause.STREAM_ERROR


def test_a_server_that_took_starttls_away_is_an_alarm_here_too() -> None:
    memory = Memory()
    Dialogue(mode=LegMode.DIRECT_TO_CLEAR, memory=memory).opens().server(SERVER_HEADER + FEATURES_TLS)
    talk = Dialogue(mode=LegMode.DIRECT_TO_CLEAR, memory=memory).opens().server(SERVER_HEADER + FEATURES_SASL)
    assert talk.one(StarttlsStripped).domain == "example.org"


def test_a_server_that_says_nothing_has_a_limit() -> None:
    talk = Dialogue(mode=LegMode.DIRECT_TO_CLEAR).opens().server(SERVER_HEADER)
    talk.after(19)
    assert talk.close is None
    talk.after(1)
    assert talk.close is not None
    assert talk.close.cause is CloseCause.NEGOTIATION_TIMEOUT


def test_the_limit_of_the_whole_holds_again_when_tls_is_up() -> None:
    talk = Dialogue(mode=LegMode.DIRECT_TO_CLEAR).opens().server(SERVER_HEADER + FEATURES_TLS).server(PROCEED)
    talk.secured()
    talk.after(60)
    assert talk.close is None
    talk.after(240)
    assert talk.close is not None


def test_a_plain_server_leg_gets_no_tls() -> None:
    talk = Dialogue(mode=LegMode.DIRECT_TO_PLAIN).secured_client()
    talk.client(HEADER).server(SERVER_HEADER + FEATURES_SASL).client(PLAIN).server(SUCCESS)
    talk.client(HEADER).server(SERVER_HEADER + FEATURES_BIND).client(BIND).server(BOUND)
    assert talk.session.established


@given(data=st.binary(max_size=64), mode=st.sampled_from([*TO_OTHERS, LegMode.DIRECT_TO_CLEAR]), begun=st.booleans())
def test_any_bytes_are_an_answer_or_an_end(data: bytes, mode: LegMode, begun: bool) -> None:
    talk = Dialogue(mode=mode)
    if mode is LegMode.DIRECT_TO_CLEAR:
        talk.opens()
        talk.server(SERVER_HEADER.encode() * begun + data)
    else:
        talk.client(HEADER.encode() * begun + data)
    assert not talk.session.established


def test_how_the_legs_begin() -> None:
    modes = {
        (direct, server): LegMode.of(direct=direct, server=server) for direct in (True, False) for server in ServerTls
    }
    assert len(set(modes.values())) == 6 == len(LegMode)
    assert all((mode.is_direct, mode.server_tls) == pair for pair, mode in modes.items())
