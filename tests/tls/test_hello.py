import random
import shutil
import ssl
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.handshake import client_hello
from xproxy.events.tls import TlsFailure
from xproxy.tls.hello import HELLO_BYTES_MAX, HelloIncomplete, HelloMalformed, parse_client_hello

# The worked example of FoxIO's technical_details/JA4.md: Chrome, ciphers and extensions in the order sent.
CHROME_CIPHERS = [0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8]
CHROME_CIPHERS += [0xC013, 0xC014, 0x009C, 0x009D, 0x002F, 0x0035]
CHROME_ALGORITHMS = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601]
CHROME_EXTENSIONS = [0x001B, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002D, 0x000D, 0x0005, 0x0023]
CHROME_EXTENSIONS += [0x0012, 0x002B, 0xFF01, 0x000B, 0x000A, 0x0015]
CHROME_JA4 = "t13d1516h2_8daaf6152771_e5627efa2ab1"


def vector(length_octets, data):
    return len(data).to_bytes(length_octets, "big") + data


def numbers(values):
    return b"".join(value.to_bytes(2, "big") for value in values)


def server_name(name):
    return vector(2, b"\0" + vector(2, name))


def alpn(*names):
    return vector(2, b"".join(vector(1, name) for name in names))


def hello_body(*, ciphers=(0x1301,), extensions=(), version=0x0303, tail=b""):
    block = b"".join(kind.to_bytes(2, "big") + vector(2, content) for kind, content in extensions)
    body = version.to_bytes(2, "big") + bytes(32) + vector(1, bytes(32)) + vector(2, numbers(ciphers)) + b"\1\0"
    return body + (vector(2, block) if extensions else b"") + tail


def records(message, size=16_384):
    return b"".join(
        b"\x16\x03\x01" + vector(2, message[start : start + size]) for start in range(0, len(message), size)
    )


def hello(size=16_384, **kwargs):
    return records(b"\1" + vector(3, hello_body(**kwargs)), size)


def chrome(*, grease=0x2A2A):
    known = {
        0x0000: server_name(b"example.org"),
        0x0010: alpn(b"h2", b"http/1.1"),
        0x000D: vector(2, numbers(CHROME_ALGORITHMS)),
        0x002B: vector(1, numbers([grease, 0x0304, 0x0303])),
    }
    extensions = [
        (grease, b""),
        *((kind, known.get(kind, b"")) for kind in CHROME_EXTENSIONS),
        (grease ^ 0xF0F0, b"\0"),
    ]
    return hello(ciphers=[grease, *CHROME_CIPHERS], extensions=extensions)


def test_the_worked_example_of_the_specification():
    parsed = parse_client_hello(chrome())
    assert parsed.ja4 == CHROME_JA4
    assert parsed.server_name == "example.org"
    assert parsed.alpn == ("h2", "http/1.1")
    assert parsed.versions == (0x0304, 0x0303)
    assert parsed.top_version == 0x0304


@pytest.mark.parametrize("grease", [0x0A0A, 0x8A8A, 0xFAFA])
def test_grease_changes_nothing(grease):
    assert parse_client_hello(chrome(grease=grease)) == parse_client_hello(chrome())


def test_chromes_later_vector():
    # As published by huginn-net: 44cd for 4469 (ALPS) and fe0d (ECH) for 0015 (padding).
    extensions = [{0x4469: 0x44CD, 0x0015: 0xFE0D}.get(kind, kind) for kind in CHROME_EXTENSIONS]
    known = {
        0x0000: server_name(b"a.example"),
        0x0010: alpn(b"h2"),
        0x000D: vector(2, numbers(CHROME_ALGORITHMS)),
        0x002B: vector(1, numbers([0x0304])),
    }
    data = hello(ciphers=CHROME_CIPHERS, extensions=[(kind, known.get(kind, b"")) for kind in extensions])
    assert parse_client_hello(data).ja4 == "t13d1516h2_8daaf6152771_d8a2da3f94cd"


@pytest.mark.parametrize(
    ("name", "letters"),
    [
        (b"h2", "h2"),
        (b"xmpp-client", "xt"),
        (b"x", "xx"),
        (b"", "00"),
        # The table of the specification: one end that is no letter, and the hexadecimal form is used.
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"\x30\xab", "3b"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
    ],
)
def test_alpn_letters_of_ja4(name, letters):
    assert parse_client_hello(hello(extensions=[(0x0010, alpn(name))])).ja4[8:10] == letters


@pytest.mark.parametrize(
    ("version", "letters"),
    [(0x0303, "12"), (0x0302, "11"), (0x0301, "10"), (0x0300, "s3"), (0x0399, "00")],
)
def test_without_supported_versions_the_legacy_version_counts(version, letters):
    parsed = parse_client_hello(hello(version=version))
    assert parsed.top_version == version
    assert parsed.ja4.startswith(f"t{letters}i0100" + "00_")
    assert parsed.server_name is None
    assert parsed.alpn == ()


def test_no_extensions_and_no_ciphers_hash_to_zeros():
    assert parse_client_hello(hello(ciphers=[])).ja4 == "t12i000000_000000000000_000000000000"


def test_counts_stop_at_99():
    data = hello(ciphers=range(0x100, 0x200), extensions=[(0x4000 + n, b"") for n in range(120)])
    assert parse_client_hello(data).ja4.startswith("t12i9999")


def test_a_name_that_is_no_text_is_shown_not_refused():
    parsed = parse_client_hello(hello(extensions=[(0, server_name(b"\xff.example"))]))
    assert parsed.server_name == "\\xff.example"


def test_of_repeated_extensions_the_first_counts():
    data = hello(extensions=[(0, server_name(b"a.example")), (0, server_name(b"b.example"))])
    assert parse_client_hello(data).server_name == "a.example"


@pytest.mark.parametrize("top", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_hello_of_python(top):
    parsed = parse_client_hello(client_hello(name="chat.example", alpn=("xmpp-client", "h2"), top=top))
    assert parsed.server_name == "chat.example"
    assert parsed.alpn == ("xmpp-client", "h2")
    assert parsed.top_version == top
    assert parsed.ja4.startswith("t13d" if top is ssl.TLSVersion.TLSv1_3 else "t12d")
    assert parsed.ja4[8:10] == "xt"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_hello_of_openssl_s_client():
    # s_client writes what it sends to stdout as hexadecimal with -msg; with no server it gets no further.
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        port = listener.getsockname()[1]
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "a.example"]
        process = subprocess.Popen(
            [*command, "-alpn", "xmpp-client"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                data = b""
                while True:
                    data += connection.recv(4096)
                    try:
                        parsed = parse_client_hello(data)
                        break
                    except HelloIncomplete:
                        continue
        finally:
            process.wait(10)
    assert (parsed.server_name, parsed.alpn, parsed.top_version) == ("a.example", ("xmpp-client",), 0x0304)
    assert parsed.ja4.startswith("t13d")


def large_hello(size):
    return hello(size, extensions=[(0, server_name(b"a.example")), (0x0015, bytes(49_000))])


@pytest.mark.parametrize("size", [16_384, 4_096, 1_000])
def test_a_hello_of_49_kb_in_many_records(size):
    data = large_hello(size)
    assert parse_client_hello(data + b"next").server_name == "a.example"
    with pytest.raises(HelloIncomplete):
        parse_client_hello(data[:-1])


def needed_for(data):
    """Return how many octets there have to be before asking again, None for a whole hello."""
    try:
        parse_client_hello(data)
    except HelloIncomplete as incomplete:
        return incomplete.needed
    return None


@pytest.mark.parametrize("size", [16_384, 5, 1])
def test_needed_is_never_more_than_comes_and_leads_to_the_end(size):
    data = hello(size, extensions=[(0, server_name(b"a"))])
    asked = [0]
    while (needed := needed_for(data[: asked[-1]])) is not None:
        assert asked[-1] < needed <= len(data)
        asked.append(needed)
    assert asked[-1] == len(data)
    if size == 16_384:
        assert len(asked) == 3  # nothing, the record's header, all of it


@pytest.mark.parametrize("data", [chrome(), hello(7), hello(1)], ids=["one-record", "fragments", "fragments-of-one"])
def test_byte_by_byte_is_incomplete_until_it_is_whole(data):
    for length in range(len(data)):
        assert needed_for(data[:length]) > length
    assert needed_for(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"<",
        b"\x15\x03\x01\x00\x02\x02\x28",  # an alert
        b"\x80\x2e\x01\x00\x02",  # a hello of SSL 2.0
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x04\x02",  # a ServerHello
        records(b"\1" + vector(3, b"")),
        records(b"\1" + vector(3, hello_body()[:-3])),
        hello(extensions=[(0, b"")], tail=b"x"),
        hello(extensions=[(0x000D, b"\0\3abc")]),
        hello(extensions=[(0x0010, b"\0\2\5a")]),
        hello(extensions=[(0x002B, b"\5\3\3")]),
        hello(7)[:12] + b"\x17" + hello(7)[13:],
    ],
)
def test_what_is_no_client_hello_is_refused_at_once(data):
    with pytest.raises(HelloMalformed) as caught:
        parse_client_hello(data)
    assert caught.value.failure is TlsFailure.NOT_TLS
    assert caught.value.reason


def test_too_large_is_known_from_its_header():
    with pytest.raises(HelloMalformed) as caught:
        parse_client_hello(b"\x16\x03\x01\x40\x00\x01" + HELLO_BYTES_MAX.to_bytes(3, "big"))
    assert caught.value.failure is TlsFailure.HELLO_TOO_LARGE


def test_records_of_one_octet_without_end_are_refused():
    with pytest.raises(HelloMalformed) as caught:
        parse_client_hello(hello(1, extensions=[(0x0015, bytes(300))]))
    assert caught.value.failure is TlsFailure.HELLO_TOO_LARGE


def parse_or_refuse(data):
    failure = needed = None
    try:
        needed = needed_for(data)
    except HelloMalformed as malformed:
        failure = malformed.failure
    assert needed is None or len(data) < needed <= HELLO_BYTES_MAX
    assert failure in (None, TlsFailure.NOT_TLS, TlsFailure.HELLO_TOO_LARGE)


@given(st.binary(max_size=200), st.booleans())
def test_any_octets_are_a_hello_incomplete_or_malformed(data, framed):
    parse_or_refuse(records(b"\1" + vector(3, data)) if framed else data)


def test_mutated_hellos_raise_nothing_else():
    rng = random.Random(7)
    corpus = [chrome(), hello(5, extensions=[(0, server_name(b"a.example"))]), client_hello()]
    for _ in range(1_500):
        data = bytearray(rng.choice(corpus))
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 0xFF, rng.randrange(256)))
        parse_or_refuse(bytes(data[: rng.randint(1, len(data))] if rng.random() < 0.3 else data))
