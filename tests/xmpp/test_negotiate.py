"""Stream features as events."""

import pytest
from lxml import etree

from xproxy.xmpp.negotiate import is_tolerated_behind_starttls, read_features

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
