"""XEP-0474 and XEP-0515. Vector: XEP-0474 section 6.3 (version 0.5.0)."""

import base64
import hashlib

import pytest

from xproxy.xmpp.sasl import decode_base64, decoder_for
from xproxy.xmpp.sasl.downgrade import HASHES, TLS_VERSIONS, expected_h, hash_name_of, hash_octets, is_offer_genuine

MECHANISMS = ("SCRAM-SHA-1-PLUS", "SCRAM-SHA-1")
BINDINGS = ("tls-server-end-point", "tls-exporter")
SIGNED = "G6k/rBLDqgOhRRaCuuatSDFkJ08="
# XEP-0515 section 4.3; without its last attribute it is the challenge of XEP-0474 section 6.3.
CHALLENGE = (
    "cj0xMkM0Q0Q1Qy1FMzhFLTRBOTgtOEY2RC0xNUMzOEY1MUNDQzZhMDkxMTdhNi1hYzUwLTRmMmYtOTNmMS05Mzc5OWMyYmRkZjYscz1RU1hDUit"
    "RNnNlazhiZjkyLGk9NDA5NixoPUc2ay9yQkxEcWdPaFJSYUN1dWF0U0RGa0owOD0sdD0wMzA0"
)


def test_the_example_of_the_xep() -> None:
    assert expected_h(MECHANISMS, BINDINGS, "SHA-1") == SIGNED
    assert expected_h(MECHANISMS[::-1], BINDINGS[::-1], "SHA-1") == SIGNED


def test_what_the_decoder_reads_can_be_compared() -> None:
    payload, encoding = decode_base64(CHALLENGE)
    assert payload is not None
    assert encoding == "strict"
    decoder = decoder_for("SCRAM-SHA-1-PLUS")
    decoder.response(b"p=tls-exporter,,n=user,r=12C4CD5C-E38E-4A98-8F6D-15C38F51CCC6", 0)
    facts = decoder.challenge(payload, 1)
    assert (facts.h, facts.t, facts.iterations, facts.problem) == (SIGNED, "0304", 4096, None)
    assert facts.h is not None
    assert facts.t is not None
    assert is_offer_genuine(facts.h, MECHANISMS, BINDINGS, "SCRAM-SHA-1-PLUS") is True
    assert TLS_VERSIONS[facts.t] == "1.3"


def test_without_types_there_is_no_second_part_and_an_empty_list_is_one() -> None:
    def of(text: bytes) -> str:
        return base64.b64encode(hashlib.sha256(text).digest()).decode()

    assert expected_h(["B", "A"], None, "SHA-256") == of(b"A\x1eB")
    assert expected_h(["B", "A"], [], "SHA-256") == of(b"A\x1eB\x1f")
    assert expected_h([], None, "SHA-256") == of(b"")


def test_names_are_sorted_by_octets() -> None:
    """Not by code points of UTF-16, not by the locale: lower case comes last."""
    names = ["b", "B", "a", "A-", "A", "\U0001f600", "\uffff"]
    by_octets = sorted(names, key=str.encode)
    want = base64.b64encode(hashlib.sha1("\x1e".join(by_octets).encode()).digest()).decode()
    assert expected_h(names, None, "SHA-1") == want


@pytest.mark.parametrize("name", HASHES)
def test_the_hash_is_that_of_the_mechanism_in_use(name: str) -> None:
    mechanism = f"SCRAM-{name}"
    signed = expected_h(MECHANISMS, None, name)
    for used in (mechanism, f"{mechanism}-PLUS", mechanism.lower()):
        assert hash_name_of(used) == name
        assert is_offer_genuine(signed, MECHANISMS, None, used) is True
    assert hash_octets(mechanism) == len(base64.b64decode(signed))


@pytest.mark.parametrize(
    ("mechanisms", "bindings"),
    [
        (("SCRAM-SHA-1",), BINDINGS),  # -PLUS was taken away
        (("SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "PLAIN"), BINDINGS),
        (MECHANISMS, ("tls-server-end-point",)),
        (MECHANISMS, None),
        ((), ()),
    ],
)
def test_a_changed_offer_is_found_out(mechanisms: tuple[str, ...], bindings: tuple[str, ...] | None) -> None:
    assert is_offer_genuine(SIGNED, mechanisms, bindings, "SCRAM-SHA-1") is False


def test_earlier_drafts_are_honest_too() -> None:
    """Version 0.3 joined by commas and a bar, as ejabberd's xmpp library did (xmpp_sasl_scram.erl, 2023)."""
    text = b"SCRAM-SHA-1,SCRAM-SHA-1-PLUS|tls-exporter,tls-server-end-point"
    signed = base64.b64encode(hashlib.sha1(text).digest()).decode()
    assert is_offer_genuine(signed, MECHANISMS, BINDINGS, "SCRAM-SHA-1") is True


def test_what_cannot_be_judged_is_not_judged() -> None:
    assert is_offer_genuine(SIGNED, MECHANISMS, BINDINGS, "SCRAM-NEW-1") is None
    assert is_offer_genuine(SIGNED, MECHANISMS, BINDINGS, "PLAIN") is None
    assert is_offer_genuine("\ud7ff", MECHANISMS, BINDINGS, "SCRAM-SHA-1") is False
    assert hash_octets("PLAIN") is None
    assert expected_h(["\ud800"], None, "SHA-1")


@pytest.mark.parametrize(
    ("attributes", "h", "t"),
    [
        (b"h=" + SIGNED.encode(), SIGNED, None),
        (b"t=0304,h=" + SIGNED.encode(), SIGNED, "0304"),
        (b"h=QSXCR+Q6sek8bf92", None, None),  # a salt in the wrong place
        (b"h=" + b"A" * 28, None, None),  # 21 octets
        (b"h=G6k/rBLDqgOhRRaCuuatSDFkJ09=", None, None),  # not canonical
        (b"h=\xff" + SIGNED[1:].encode(), None, None),
        (b"h=,t=", None, None),
        (b"t=1.3", None, None),
        (b"t=030A", None, None),
        (b"t=0303,t=0304", None, "0303"),
    ],
)
def test_only_what_has_the_shape_is_read(attributes: bytes, h: str | None, t: str | None) -> None:
    decoder = decoder_for("SCRAM-SHA-1")
    decoder.response(b"n,,n=u,r=x", 0)
    facts = decoder.challenge(b"r=x,s=y,i=4096," + attributes, 1)
    assert (facts.h, facts.t) == (h, t)
    assert (facts.has_h, facts.has_t) == (b"h=" in attributes, b"t=" in attributes)
