"""Hypothesis strategies for octets that look like XML streams, right and wrong."""

import itertools

from hypothesis import strategies as st

from tests.support.reading import HEADER

FRAGMENTS = [
    b"<a/>", b"<message>", b"</message>", b"<body>", b"</body>", b"<iq type='get' id='1'>", b"</iq>", b"<presence/>",
    b"text", b" ", b"\n", b"\t \r\n", b"&lt;", b"&amp;", b"&#32;", b"&#x20;", b"&undefined;", b"&#1;", b"&", b"<", b">",
    b"'", b'"', b"/>", b"<!-- c -->", b"<!--", b"-->", b"<?pi x?>", b"<?", b"?>", b"<![CDATA[x]]>", b"<![CDATA[",
    b"]]>",
    b"<!DOCTYPE a>", b"<?xml version='1.0'?>", b"</stream:stream>", b"<stream:stream>", b"<stream:error/>", b"<p:a/>",
    b"<a xmlns:p='u'><p:b p:c='1'/></a>", b"<a xmlns=''/>", b"<a xmlns='vcard-temp'/>",
    b"<a xmlns='%'/>", b"<a xmlns='}'/>",
    b"<a b='>'", b"<a b='</a>", b"<a b='1' b='2'/>", b"<a xmlns:xml='u'/>", b"<a:b:c/>", b"\xff", b"\x00", b"\xc3\xa9",
    b"\xed\xa0\x80", b"\xc0\x80", b"\xef\xbb\xbf", b"<b xml:lang='en'>", b"</b>", b"=", b"a", b"xmlns='u'",
    b"<d>" * 198 + b"</d>" * 198, b"<d>" * 199 + b"</d>" * 199, b"<d>" * 300 + b"</d>" * 300, b"<d>" * 260,
]  # fmt: skip


def stanzas() -> st.SearchStrategy[bytes]:
    """Well-formed first-level elements: text, references, CDATA, comments, nesting, both kinds of quotes."""
    text = st.sampled_from(
        [b"", b"x", b"&lt;b&gt;", b"&#xe9;", b"\xc3\xa9 \n", b"<![CDATA[<a>]]>", b"<!-- </b> -->", b"a>b"]
    )
    name = st.sampled_from([b"message", b"iq", b"b", b"stream:features", b"r"])
    attribute = st.sampled_from(
        [b"", b" to='a/b>c'", b' id="&apos;>"', b" xml:lang='en'", b" xmlns='urn:x'", b"\n x = 'y' "]
    )

    def element(parts: tuple[bytes, bytes, list[bytes]]) -> bytes:
        tag, attributes, children = parts
        inside = b"".join(children)
        return b"<%b%b>%b</%b>" % (tag, attributes, inside, tag) if inside else b"<%b%b/>" % (tag, attributes)

    return st.recursive(
        st.tuples(name, attribute, st.lists(text, max_size=2)).map(element),
        lambda inner: st.tuples(name, attribute, st.lists(st.one_of(inner, text), max_size=3)).map(element),
        max_leaves=6,
    )


def good_streams() -> st.SearchStrategy[bytes]:
    """A document of stanzas and white space, sometimes with its end."""
    white = st.sampled_from([b"", b" ", b"\n\n", b"\r\n", b"&#32;"])
    parts = st.lists(st.one_of(stanzas(), white), max_size=8).map(b"".join)
    declaration = st.sampled_from([b"", b"<?xml version='1.0'?>", b'<?xml version="1.0" encoding="utf-8" ?>\n'])
    return st.tuples(declaration, parts, st.sampled_from([b"", b"</stream:stream>", b"</stream:stream>\n"])).map(
        lambda all_: all_[0] + HEADER + all_[1] + all_[2]
    )


def odd_streams() -> st.SearchStrategy[bytes]:
    """A header and a heap of fragments, most of them ill-formed together."""
    parts = st.lists(st.one_of(st.sampled_from(FRAGMENTS), stanzas()), max_size=10).map(b"".join)
    return parts.map(lambda body: HEADER + body)


def cuts(size_max: int = 400) -> st.SearchStrategy[list[int]]:
    """Places to cut."""
    return st.lists(st.integers(0, size_max), max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut ``data`` at ``places``."""
    edges = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[a:b] for a, b in itertools.pairwise(edges)]
