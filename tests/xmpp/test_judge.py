"""The reader against an independent judge: expat over the same octets, as the servers read them."""

import random

import pytest
from hypothesis import given

from tests.support.chunks import chunkings
from tests.support.judge import Restricted, judge
from tests.support.reading import HEADER, disagreement, read
from tests.support.strategies import cut, cuts, good_streams, odd_streams

H = HEADER
DECLARED = b"<?xml version='1.0'?>"

# protocol facts 6.4 and 6.5: what may stand in a stream and what servers make of it
CASES = {
    "nothing": b"",
    "declaration": DECLARED + H + b"<a/>",
    "declaration-utf-8": b"<?xml version='1.0' encoding='UTF-8'?>" + H + b"<a/>",
    "declaration-double-quotes": b'<?xml version="1.0" encoding="utf-8" standalone="yes"?>' + H + b"<a/>",
    "declaration-version-1.1": b"<?xml version='1.1'?>" + H + b"<a/>",
    "declaration-latin-1": b"<?xml version='1.0' encoding='ISO-8859-1'?>" + H + b"<a/>",
    "declaration-utf-7": b"<?xml version='1.0' encoding='UTF-7'?>" + H + b"<a>+ADw-b/+AD4-</a>",
    "declaration-standalone-no": b"<?xml version='1.0' standalone='no'?>" + H + b"<a/>",
    "declaration-without-version": b"<?xml encoding='UTF-8'?>" + H + b"<a/>",
    "declaration-garbage": b"<?xml version='1.0' foo='bar'?>" + H + b"<a/>",
    "declaration-twice": DECLARED + DECLARED + H + b"<a/>",
    "declaration-mid-stream": H + b"<a/>" + DECLARED + b"<b/>",
    "declaration-in-stanza": H + b"<a>" + DECLARED + b"</a><b/>",
    "white-before-root": b" \r\n\t" + H + b"<a/>",
    "white-before-declaration": b"\n" + DECLARED + H + b"<a/>",
    "text-before-root": b"x" + H + b"<a/>",
    "comment-before-root": b"<!-- a -->" + H + b"<a/>",
    "comment-before-root-wrong": b"<!-- a -- b -->" + H + b"<a/>",
    "instruction-before-root": b"<?a b?>" + H + b"<a/>",
    "stylesheet-before-root": b"<?xml-stylesheet href='a'?>" + H + b"<a/>",
    "byte-order-mark": b"\xef\xbb\xbf" + H + b"<a/>",
    "byte-order-mark-twice": b"\xef\xbb\xbf\xef\xbb\xbf" + H + b"<a/>",
    "byte-order-mark-mid-stream": H + b"<a/>\xef\xbb\xbf<b/>",
    "utf-16-le": b"\xff\xfe" + (H + b"<a/>").decode().encode("utf-16-le"),
    "utf-16-be": b"\xfe\xff" + (H + b"<a/>").decode().encode("utf-16-be"),
    "utf-16-without-mark": (H + b"<a/>").decode().encode("utf-16-le"),
    "doctype": b"<!DOCTYPE a>" + H + b"<a/>",
    "doctype-entity": b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + H + b"<a>&b;</a>",
    "doctype-external": b"<!DOCTYPE a SYSTEM 'http://127.0.0.1:9/a.dtd'>" + H + b"<a/>",
    "doctype-parameter-entity": b"<!DOCTYPE a [<!ENTITY % b SYSTEM 'file:///etc/hostname'>%b;]>" + H + b"<a/>",
    "doctype-mid-stream": H + b"<a/><!DOCTYPE a><b/>",
    "doctype-in-stanza": H + b"<a><!DOCTYPE a></a><b/>",
    "billion-laughs": b"<!DOCTYPE a [<!ENTITY b 'bb'><!ENTITY c '&b;&b;&b;&b;'>]>" + H + b"<a>&c;</a>",
    "stanza": H + b"<message to='a@b'><body>hi</body></message>",
    "several": H + b"<a/> <b/>\n<c></c><d e='f'/>",
    "comment-between": H + b"<a/><!-- c --><b/>",
    "comment-in-stanza": H + b"<a>x<!-- c -->y</a><b/>",
    "comment-with-tags": H + b"<a><!-- </a><evil/> --></a><b/>",
    "comment-double-dash": H + b"<a><!-- -- --></a><b/>",
    "comment-ends-dash": H + b"<a><!-- ---></a><b/>",
    "instruction-between": H + b"<a/><?b c?><d/>",
    "instruction-in-stanza": H + b"<a><?b </a>?></a><d/>",
    "instruction-with-colon": H + b"<a><?b:c d?></a><d/>",
    "text-between": H + b"<a/>text<b/>",
    "cdata-between": H + b"<a/><![CDATA[text]]><b/>",
    "white-cdata-between": H + b"<a/><![CDATA[ ]]><b/>",
    "white-reference-between": H + b"<a/>&#32;<b/>",
    "cdata": H + b"<a><![CDATA[</a><b>]]></a><c/>",
    "cdata-end-in-text": H + b"<a>]]></a><b/>",
    "references": H + b"<a b='&lt;&#39;&#x3e;'>&gt;&quot;&apos;&amp;</a>",
    "undefined-entity": H + b"<a>&nbsp;</a><b/>",
    "undefined-entity-in-attribute": H + b"<a b='&nbsp;'/><b/>",
    "undefined-entity-between": H + b"<a/>&nbsp;<b/>",
    "bare-ampersand": H + b"<a>b & c</a><d/>",
    "control-reference": H + b"<a>&#1;</a><b/>",
    "null-reference": H + b"<a>&#0;</a><b/>",
    "surrogate-reference": H + b"<a>&#xD800;</a><b/>",
    "non-character-reference": H + b"<a>&#xFFFE;</a><b/>",
    "huge-reference": H + b"<a>&#x110000;</a><b/>",
    "null": H + b"<a>\x00</a><b/>",
    "control": H + b"<a>\x07</a><b/>",
    "delete": H + b"<a>\x7f</a><b/>",
    "latin-1-octet": H + b"<a>caf\xe9</a><b/>",
    "overlong": H + b"<a>\xc0\xbc</a><b/>",
    "overlong-slash-3": H + b"<a>\xe0\x80\xaf</a><b/>",
    "surrogate-octets": H + b"<a>\xed\xa0\x80</a><b/>",
    "non-character": H + b"<a>\xef\xbf\xbe</a><b/>",
    "above-unicode": H + b"<a>\xf4\x90\x80\x80</a><b/>",
    "cut-character": H + b"<a>\xe2\x82</a><b/>",
    "emoji": H + "<a b='\U0001f600'>\U0001f600</a><b/>".encode(),
    "name-latin": H + "<\u00e9l\u00e9ment/><b/>".encode(),
    "attribute-with-greater": H + b"<a b='>' c=\"/>\"/><d/>",
    "attribute-with-tag": H + b"<a b='</a><evil/>'/><d/>",
    "attribute-with-less": H + b"<a b='<'/><d/>",
    "attribute-twice": H + b"<a b='1' b='2'/><c/>",
    "attribute-twice-by-namespace": H + b"<a xmlns:x='u' xmlns:y='u' x:b='1' y:b='2'/><c/>",
    "attribute-without-quotes": H + b"<a b=c/><d/>",
    "attribute-without-value": H + b"<a b/><c/>",
    "attributes-without-space": H + b"<a b='1'c='2'/><d/>",
    "attribute-white": H + b"<a\n b\t=\r\n'x\ty\nz'\n/><d/>",
    "prefix-undeclared": H + b"<p:a/><b/>",
    "prefix-undeclared-attribute": H + b"<a p:b='c'/><d/>",
    "prefix-undeclared-inside": H + b"<a><p:b/></a><c/>",
    "prefix-undeclared-again": H + b"<a xmlns:p='u'/><p:b/>",
    "prefix-empty": H + b"<a xmlns:p=''/><b/>",
    "prefix-xml": H + b"<a xmlns:xml='u'/><b/>",
    "prefix-xml-right": H + b"<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/><b/>",
    "prefix-xmlns": H + b"<a xmlns:xmlns='u'/><b/>",
    "namespace-xml": H + b"<a xmlns='http://www.w3.org/XML/1998/namespace'/><b/>",
    "namespace-xmlns": H + b"<a xmlns:p='http://www.w3.org/2000/xmlns/'/><b/>",
    "namespace-none": H + b"<a xmlns=''><b/></a><c/>",
    "namespace-relative": H + b"<a xmlns='vcard-temp'/><b/>",
    "namespace-brace": H + b"<a xmlns='u}v'/><b/>",
    "namespace-newline": H + b"<a xmlns='u\nv'/><b/>",
    "namespace-newline-reference": H + b"<a xmlns='u&#10;v'/><b/>",
    "namespace-percent": H + b"<a xmlns='%'/><b/>",
    "two-colons": H + b"<a:b:c/><d/>",
    "colon-first": H + b"<:a/><b/>",
    "colon-last": H + b"<stream:/><b/>",
    "name-digit": H + b"<1/><b/>",
    "mismatch": H + b"<a></b><c/>",
    "mismatch-inside": H + b"<a><b></a></b><c/>",
    "mismatch-prefix": H + b"<stream:a xmlns:s='http://etherx.jabber.org/streams'></s:a><b/>",
    "stray-end": H + b"</a><b/>",
    "end-with-space": H + b"<a></a \n><b/>",
    "end-with-attribute": H + b"<a></a b='c'><d/>",
    "space-before-name": H + b"< a/><b/>",
    "less-less": H + b"<<a/><b/>",
    "deep-at-limit": H + b"<d>" * 199 + b"</d>" * 199 + b"<a/>",
    "deep-above-limit": H + b"<d>" * 200 + b"</d>" * 200 + b"<a/>",
    "deep-300": H + b"<message type='headline'>" + b"<d>" * 300 + b"</d>" * 300 + b"</message><a/><b/>",
    "deep-between": H + b"<a/>" + (b"<d>" * 300 + b"</d>" * 300 + b"<b/>") * 2 + b"<d>" * 300 + b"<d/>" + b"</d>" * 300,
    "deep-and-wrong": H + b"<d>" * 300 + b"&nbsp;" + b"</d>" * 300 + b"<b/>",
    "deep-open": H + b"<a/>" + b"<d>" * 300,
    "long-name": H + b"<" + b"n" * 50_001 + b"/><a/>",
    "end": H + b"<a/></stream:stream>",
    "end-and-white": H + b"<a/></stream:stream> \r\n",
    "end-and-comment": H + b"<a/></stream:stream><!-- c -->",
    "end-and-element": H + b"<a/></stream:stream><b/>",
    "end-and-text": H + b"<a/></stream:stream>b",
    "end-at-once": H[:-1] + b"/>",
    "end-of-another": H + b"</stream:features>",
    "nested-root": H + b"<a/>" + H + b"<b/>",
    "nested-root-complete": H + b"<a/><stream:stream/><b/>",
    "root-inside-stanza": H + b"<a><stream:stream/></a><b/>",
    "open-tag": H + b"<a/><b c='",
    "open-element": H + b"<a/><b><c/>",
    "other-root": b"<html><body/></html>",
    "root-without-prefix": b"<stream xmlns='http://etherx.jabber.org/streams'><a/></stream>",
    "root-prefix-undeclared": b"<stream:stream xmlns='jabber:client'><a/>",
}  # fmt: skip


def test_there_are_cases_enough() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_reader_and_judge_agree(name: str) -> None:
    data = CASES[name]
    rng = random.Random(name)
    whole = read([data]).story
    for chunks in chunkings(data, rng):
        assert disagreement(chunks) is None, chunks if len(data) < 1_000 else len(chunks)
        assert read(chunks).story == whole


def test_the_judge_can_refuse_and_accept() -> None:
    assert judge(H + b"<p:a/>").refused
    assert judge(H + b"<a>&nbsp;</a>").refused
    verdict = judge(H + b"<a>x<b/></a></stream:stream>")
    assert not verdict.refused
    assert verdict.ended
    assert verdict.elements == (("{jabber:client}a", (), ("x", ("{jabber:client}b", (), ()))),)
    assert judge(H + b"<!-- -->").restricted == {Restricted.COMMENT}


@given(data=good_streams(), places=cuts())
def test_well_formed_streams_are_read_as_the_judge_reads_them(data: bytes, places: list[int]) -> None:
    chunks = cut(data, places)
    assert disagreement(chunks) is None
    assert not read(chunks).broken
    assert read(chunks).story == read([data]).story


@given(data=odd_streams(), places=cuts())
def test_reader_and_judge_agree_over_heaps_of_fragments(data: bytes, places: list[int]) -> None:
    assert disagreement(cut(data, places)) is None
    assert disagreement([data]) is None
    assert disagreement([data[i : i + 1] for i in range(len(data))]) is None
