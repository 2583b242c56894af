"""What the first bytes say."""

import pytest

from xproxy.proxy.transport import Transport, transport_of


@pytest.mark.parametrize(
    "first", [b"<", b"<?xml", b" <stream", b"\r\n", b"\xef\xbb\xbf<", b"\xff\xfe<\x00", b"\r\n\r\n<"]
)
def test_what_an_xml_stream_may_begin_with_is_for_the_core(first: bytes) -> None:
    assert transport_of(first) == (Transport.XML, "xml")


def test_a_handshake_record_is_tls() -> None:
    assert transport_of(b"\x16\x03\x01\x02\x00") == (Transport.TLS, "tls")


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"GET / HTTP/1.1\r\n", "http"),
        (b"CONNECT a:5222 H", "http"),
        (b"PRI * HTTP/2.0\r\n", "http"),
        (b"SSH-2.0-OpenSSH", "ssh"),
        (b"PROXY TCP4 192.0", "proxy-protocol"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", "proxy-protocol"),
        (b"\x05\x01\x00", "socks"),
        (b"\x04\x01\x14\x66", "socks"),
        (b"G", "unknown"),
        (b"\x00", "unknown"),
        (b"{", "unknown"),
    ],
)
def test_others_have_a_name(first: bytes, name: str) -> None:
    assert transport_of(first) == (Transport.OTHER, name)
