"""Invariant: whatever text or attribute value stands in a stanza, its skeleton holds none of it and is bounded.

The octets are read as one element. Then a secret is planted in each text, attribute value, foreign attribute name,
comment and processing instruction. Names of elements are printed by design and are left alone, as is the domain in
the ``by`` of an error, whose other parts get the secret.
"""

import copy
import sys

import harness
from lxml import etree

with harness.instrumented():
    from xproxy.events import Side
    from xproxy.xmpp.redact import SKELETON_CHARS_MAX, child_names, safe_name, skeleton
    from xproxy.xmpp.stanza import read_error, stanza_facts

SECRET = "qXzQXzqXz"  # mixed case: a mechanism may be told, and is upper case
WORDS = [
    b"<error", b" type='", b" code='404'", b" by='", b"<text>", b"<!--", b"-->", b"<?", b"?>", b"<![CDATA[", b"]]>",
    b" xmlns='jabber:iq:register'", b" xmlns='jabber:x:data'", b" xmlns='urn:x'", b" var='FORM_TYPE'",
    b" xml:lang='en'",
    b" xmlns:p='u'", b"<p:a p:b='c'/>", b" password='", b" id='", b" mechanism='PLAIN'", b" h='12'", b"<a>", b"</a>",
    b"<a/>", b"&#x202e;", b"&#10;", b"&lt;", b"\xe2\x80\xae", b"<forwarded xmlns='urn:xmpp:forward:0'>", b"'", b"/>",
    b" xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'", b" xmlns=''", b"<status code='110'/>",
]  # fmt: skip


def check(data: bytes) -> None:
    """Judge one element."""
    if SECRET.lower().encode() in data.lower():
        return
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        element = etree.fromstring(b"<r xmlns='jabber:client'>" + data + b"</r>", parser)
    except (etree.XMLSyntaxError, ValueError):
        return
    for stanza in element.iterchildren(etree.Element):
        judge(skeleton(stanza))
        texts = plant_texts(copy.deepcopy(stanza))
        facts = stanza_facts(texts, 1, b"")
        judge(skeleton(texts), repr(facts), *(safe_name(child.tag) for child in texts.iter()))
        judge(repr(read_error(texts, server_text=True, sent_by=Side.CLIENT)))
        judge(repr(read_error(texts, server_text=False, sent_by=Side.SERVER)))
        judge(skeleton(plant_attributes(texts)), *child_names(texts, 16))


def judge(told: str, *others: str) -> None:
    """``told`` is what may be printed."""
    assert all(SECRET.lower() not in text.lower() for text in (told, *others)), f"a secret was told: {told}"
    if told.startswith("<"):
        assert len(told) <= SKELETON_CHARS_MAX, f"{len(told)} characters"
        assert told.isprintable(), "what does not print"


def plant_texts(element: etree._Element) -> etree._Element:
    """Put the secret into every text of ``element``, behind and before what there was."""
    element.tail = None
    for node in element.iter():
        if not isinstance(node, etree._Entity):
            node.text = f"{SECRET}{node.text or ''}{SECRET}"
        if node is not element:
            node.tail = f"{node.tail or ''}{SECRET}"
    return element


def plant_attributes(element: etree._Element) -> etree._Element:
    """Put it into every attribute value, and into a name."""
    for node in element.iter(etree.Element):
        for name, value in node.attrib.items():
            if ":" in str(name).rpartition("}")[2]:  # an undeclared prefix: libxml2 takes it, lxml does not set it
                continue
            # An error names the domain that answered.
            node.set(name, f"{SECRET}@{value}/{SECRET}" if name == "by" else f"{SECRET}{value}")
        node.set(f"x-{SECRET}", SECRET)
        node.set(f"{{urn:{SECRET}}}id", SECRET)
    return element


if __name__ == "__main__":
    sys.exit(harness.main("redact", check, words=WORDS, quick=120_000))
