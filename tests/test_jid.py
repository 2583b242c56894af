"""Vectors: RFC 7622 section 3.5, tables 1 and 2, with erratum 4560 (a leading space in a resourcepart is valid)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xproxy.jid import Jid, JidError, domain_to_ascii, enforce_domainpart, is_ip_address

RFC_7622_TABLE_1 = [
    ("juliet@example.com", ("juliet", "example.com", None)),
    ("juliet@example.com/foo", ("juliet", "example.com", "foo")),
    ("juliet@example.com/foo bar", ("juliet", "example.com", "foo bar")),
    ("juliet@example.com/foo@bar", ("juliet", "example.com", "foo@bar")),
    ("foo\\20bar@example.com", ("foo\\20bar", "example.com", None)),
    ("fussball@example.com", ("fussball", "example.com", None)),
    ("fu\u00dfball@example.com", ("fu\u00dfball", "example.com", None)),
    ("\u03c0@example.com", ("\u03c0", "example.com", None)),
    ("\u03a3@example.com/foo", ("\u03c3", "example.com", "foo")),
    ("\u03c3@example.com/foo", ("\u03c3", "example.com", "foo")),
    ("\u03c2@example.com/foo", ("\u03c2", "example.com", "foo")),
    ("king@example.com/\u265a", ("king", "example.com", "\u265a")),
    ("example.com", (None, "example.com", None)),
    ("example.com/foobar", (None, "example.com", "foobar")),
    ("a.example.com/b@example.net", (None, "a.example.com", "b@example.net")),
]
RFC_7622_TABLE_2 = [
    ('"juliet"@example.com', "localpart", "invalid-character"),
    ("foo bar@example.com", "localpart", "invalid-character"),
    ("@example.com/", "localpart", "empty"),
    ("henry\u2163@example.com", "localpart", "invalid-character"),
    ("\u265a@example.com", "localpart", "invalid-character"),
    ("juliet@", "domainpart", "empty"),
    ("/foobar", "domainpart", "empty"),
]


@pytest.mark.parametrize(("text", "parts"), RFC_7622_TABLE_1)
def test_valid_addresses_of_the_rfc(text: str, parts: tuple[str | None, str, str | None]) -> None:
    assert Jid.from_text(text) == Jid(*parts)


@pytest.mark.parametrize(("text", "part", "reason"), RFC_7622_TABLE_2)
def test_invalid_addresses_of_the_rfc(text: str, part: str, reason: str) -> None:
    with pytest.raises(JidError) as caught:
        Jid.from_text(text)
    assert (caught.value.part, caught.value.reason) == (part, reason)


def test_a_leading_space_in_a_resourcepart_is_valid() -> None:
    """Erratum 4560 takes the row out of table 2: OpaqueString allows it."""
    assert Jid.from_text("juliet@example.com/ foo").resource == " foo"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Juliet@EXAMPLE.com/Balcony", "juliet@example.com/Balcony"),
        ("juliet@example.com./x", "juliet@example.com/x"),
        ("\uff2a\uff55\uff4c@example.com", "jul@example.com"),  # fullwidth
        ("a@example.com/x\u3000y", "a@example.com/x y"),  # OpaqueString: any space is a space
        ("a@example.com/e\u0301", "a@example.com/\u00e9"),  # NFC
        ("a@B\u00dcCHER.example", "a@b\u00fccher.example"),
        ("a@xn--bcher-kva.example", "a@b\u00fccher.example"),
        ("a@XN--BCHER-KVA.example", "a@b\u00fccher.example"),
        ("a@b\u00fccher\u3002example", "a@b\u00fccher.example"),  # ideographic full stop
        ("a@\uff45xample.com", "a@example.com"),
        ("a@\uff11\uff10.0.0.1", "a@10.0.0.1"),
        ("a@192.0.2.1", "a@192.0.2.1"),
        ("a@[2001:DB8:0:0::1]", "a@[2001:db8::1]"),
        ("a@my_host", "a@my_host"),
        ("a@xn--bcea.Example", "a@\u13eb\u13eb.example"),  # Cherokee: IDNA2008 has the capitals
        ("a@\u13eb\u13eb.example", "a@\u13eb\u13eb.example"),
        ("~!#$%()*+,-.;=?[\\]^_`{|}@h", "~!#$%()*+,-.;=?[\\]^_`{|}@h"),
        ("\u05d0\u05d1@example.com", "\u05d0\u05d1@example.com"),  # right to left
    ],
)
def test_enforcement_gives_one_spelling(text: str, want: str) -> None:
    jid = Jid.from_text(text)
    assert str(jid) == want
    assert Jid.from_text(want) == jid


@pytest.mark.parametrize(
    ("text", "part", "reason"),
    [
        ("", "domainpart", "empty"),
        (".", "domainpart", "empty"),
        ("a@b/", "resourcepart", "empty"),
        ("a@b@c", "domainpart", "not-a-name"),
        ("a:b@c", "localpart", "invalid-character"),
        ("\u05d01\u05d0x@example.com", "localpart", "invalid-character"),  # bidi rule
        ("\u00e9<@example.com", "localpart", "invalid-character"),
        ("\ud800@example.com", "localpart", "invalid-character"),
        ("a@b/\x00", "resourcepart", "invalid-character"),
        ("a@b/\u202e", "resourcepart", "invalid-character"),
        ("a@\ud800", "domainpart", "not-a-name"),
        ("a@b..c", "domainpart", "not-a-name"),
        ("a@b c", "domainpart", "not-a-name"),
        ("a@-b", "domainpart", "not-a-name"),
        ("a@xn--bcher", "domainpart", "not-a-name"),  # decodes to nothing valid
        ("a@ab--cd", "domainpart", "not-a-name"),  # reserved LDH label (RFC 5890 section 2.3.1)
        ("a@::1", "domainpart", "not-a-name"),
        ("a@[::1", "domainpart", "not-a-name"),
        ("a@[::1%25eth0]", "domainpart", "not-a-name"),
        ("a@[192.0.2.1]", "domainpart", "not-a-name"),
        ("a@" + "x" * 64, "domainpart", "not-a-name"),
        ("a@" + "\u00fc" * 60, "domainpart", "not-a-name"),  # 63 octets is the limit of the A-label
        ("a" * 1024 + "@b", "localpart", "too-long"),
        ("\u00e9" * 512 + "@b", "localpart", "too-long"),  # octets, not characters
        ("a@" + ".".join(["x" * 60] * 17), "domainpart", "too-long"),
        ("a@b/" + "r" * 1024, "resourcepart", "too-long"),
        ("a@b/" + "r" * 20_000, "jid", "too-long"),
    ],
)
def test_what_is_no_jid_says_which_part_and_why(text: str, part: str, reason: str) -> None:
    with pytest.raises(JidError) as caught:
        Jid.from_text(text)
    assert (caught.value.part, caught.value.reason) == (part, reason)
    assert str(caught.value) == f"{part}: {reason}"
    assert caught.value.__cause__ is None  # the cause would hold the text


def test_limits_are_octets_of_each_part() -> None:
    text = "\u00e9" * 511 + "a@" + ".".join(["x" * 59] * 17) + "abc/" + "r" * 1023
    jid = Jid.from_text(text)
    assert jid.local is not None
    assert len(jid.local.encode()) == 1023
    assert len(jid.domain) == 1022
    assert jid.resource == "r" * 1023


def test_bare_drops_the_resource_only() -> None:
    bare = Jid.from_text("juliet@example.com/balcony").bare
    assert str(bare) == "juliet@example.com"
    assert bare.bare is bare
    assert str(Jid.from_text("example.com/x").bare) == "example.com"


@pytest.mark.parametrize(
    ("domain", "want"),
    [
        ("Example.COM.", "example.com"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("\u13eb\u13eb.example", "xn--bcea.example"),
        ("ab--cd.example", "ab--cd.example"),  # resolvers and certificates know such names
        ("my_host", "my_host"),
        ("x" * 63 + ".example", "x" * 63 + ".example"),
    ],
)
def test_domain_to_ascii(domain: str, want: str) -> None:
    assert domain_to_ascii(domain) == want


@pytest.mark.parametrize(
    ("domain", "reason"),
    [
        ("", "empty"),
        (".", "empty"),
        ("a..b", "not-a-name"),
        (".a", "not-a-name"),
        ("x" * 70 + ".example", "not-a-name"),
        ("\u00fc" * 60, "not-a-name"),
        ("\u265a.example", "not-a-name"),
        ("a b", "not-a-name"),
        ("a/b", "not-a-name"),
        ("a\x00b", "not-a-name"),
        ("127.0.0.1", "address"),
        ("::1", "address"),
        ("[::1]", "address"),
        ("\ud800", "not-a-name"),
        (".".join(["x" * 60] * 5), "too-long"),
        ("x" * 20_000, "too-long"),
    ],
)
def test_a_name_that_is_no_name_is_refused(domain: str, reason: str) -> None:
    with pytest.raises(JidError) as caught:
        domain_to_ascii(domain)
    assert (caught.value.part, caught.value.reason) == ("domainpart", reason)


def test_a_domain_alone_is_bounded_too() -> None:
    with pytest.raises(JidError, match="too-long"):
        enforce_domainpart("x" * 20_000)


def test_is_ip_address() -> None:
    assert is_ip_address("127.0.0.1")
    assert is_ip_address("[::1]")
    assert is_ip_address("::1")
    assert not is_ip_address("[::1")
    assert not is_ip_address("1.2.3")
    assert not is_ip_address("")


@given(st.text(max_size=40) | st.text(alphabet="ab.@/[]:1-_x\u00fc\u3002\uff21\u0130\u1e9e\u05d0", max_size=20))
def test_any_text_is_a_jid_or_a_jid_error(text: str) -> None:
    try:
        jid = Jid.from_text(text)
    except JidError:
        pass
    else:
        assert Jid.from_text(str(jid)) == jid
    try:
        name = domain_to_ascii(text)
    except JidError:
        pass
    else:
        assert domain_to_ascii(name) == name
