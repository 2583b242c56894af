"""Invariant: whatever a server offers and answers, the diagnosis is made of whole, short lines that move no terminal.

An input is the inside of ``<stream:features>``, a line with ``%%``, and SCRAM's server-first message.
"""

import sys
import unicodedata

import harness

with harness.instrumented():
    from lxml import etree

    from xproxy.config.stream import StreamLimits
    from xproxy.doctor import offer, signed
    from xproxy.doctor.findings import TEXT_BYTES_MAX, Finding
    from xproxy.doctor.look import Look, Offered, Way
    from xproxy.doctor.scram import MECHANISMS, ServerFirst, choose
    from xproxy.peer.client import Mode
    from xproxy.xmpp import ns
    from xproxy.xmpp.sasl.downgrade import hash_octets
    from xproxy.xmpp.sasl.scram import ScramDecoder
    from xproxy.xmpp.stream import FirstLevelElement, NameBudget, StreamReader

HEADER = f"<?xml version='1.0'?><stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}' version='1.0'>".encode()
LIMITS = StreamLimits(names_before_login_max=2_000)  # one process sees all inputs
WAY = Way(address="192.0.2.1", port=5222, mode=Mode.STARTTLS)
WORDS = [
    b"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>", b"<mechanism>", b"</mechanism>", b"</mechanisms>",
    b"SCRAM-SHA-1", b"SCRAM-SHA-256-PLUS", b"PLAIN", b"EXTERNAL", b"%%", b"r=", b",s=", b",i=", b",h=", b",t=0304",
    b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>", b"&#x202e;", b"&#x9b;",
    b"<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>", b"</max-bytes></limits>", b"4096", b"-1",
]  # fmt: skip


def check(data: bytes) -> None:
    """Judge the diagnosis of one offer and answer."""
    inside, _, first = data.partition(b"%%")
    offered = read(inside)
    findings = [] if offered is None else diagnosis(offered, first)
    for finding in findings:
        for text in (finding.finding, finding.seen, finding.consequence, *(fix.setting for fix in finding.fixes)):
            kinds = {unicodedata.category(character) for character in text}
            assert kinds.isdisjoint({"Cc", "Cs", "Zl", "Zp"}), "a text that moves a terminal"
            assert len(text.encode()) <= TEXT_BYTES_MAX, "a text without an end"
        assert finding.finding
        assert finding.seen
    checks = [finding.check for finding in findings]
    assert checks.count("stanza-limit") <= 1


def read(inside: bytes) -> Offered | None:
    """Return what is offered, None where that is no XMPP."""
    reader = StreamReader(limits=LIMITS, names=NameBudget(LIMITS))
    for item in reader.feed(HEADER + b"<stream:features>" + inside + b"</stream:features>"):
        if isinstance(item, FirstLevelElement) and item.element.tag == f"{{{ns.STREAMS}}}features":
            element: etree._Element = item.element
            return Offered.from_element(element)
    return None


def diagnosis(offered: Offered, first: bytes) -> list[Finding]:
    """Return everything that is said about an offer and an answer."""
    look = Look(way=WAY, clear=offered)
    mechanism = choose(offered.mechanisms) or MECHANISMS[-1]
    decoder = ScramDecoder(plus=False, hash_octets=hash_octets(mechanism))
    decoder.response(b"n,,n=romeo,r=nonce", 0)
    answer = ServerFirst(mechanism=mechanism, gs2_flag="n", challenge=decoder.challenge(first, 1), refusal=None)
    offers = {0x0303: offered, 0x0304: offered}
    return [
        *offer.check_starttls(look),
        *offer.check_mechanisms(offers),
        *offer.check_compression([offered], "read"),
        offer.check_limits(offered, "read", LIMITS),
        *signed.check_server_first(answer, offered, "1.3"),
        signed.check_gs2_y({0x0303: answer}),
    ]


if __name__ == "__main__":
    sys.exit(harness.main("doctor", check, words=WORDS, quick=30_000))
