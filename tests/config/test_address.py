import pytest

from xproxy.config.address import HostPort
from xproxy.config.upstream import parse_nameserver


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:5222", "127.0.0.1", 5222),
        ("[::1]:5222", "::1", 5222),
        ("xmpp.example.org:0", "xmpp.example.org", 0),
        ("[fe80::1%eth0]:65535", "fe80::1%eth0", 65535),
    ],
)
def test_an_address_reads_and_writes_back(text: str, host: str, port: int) -> None:
    assert HostPort.from_text(text) == HostPort(host, port)
    assert str(HostPort(host, port)) == text


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("localhost", "write localhost:5222"),
        ("[::1]", r"write \[::1\]:5222"),
        ("::1:5222", r"in brackets"),
        (":5222", "0.0.0.0:5222"),
        ("[]:5222", "has no host"),
        ("host:70000", "0 to 65535"),
        ("host:52 22", "is no port"),
        ("host:٣", "is no port"),
        ("ho st:5222", "white space"),
        ("", "has no port"),
        ("5222", "write 127.0.0.1:5222, or 0.0.0.0:5222 for everyone"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        HostPort.from_text(text)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.53", HostPort("192.0.2.53", 53)),
        ("192.0.2.53:5353", HostPort("192.0.2.53", 5353)),
        ("2001:db8::53", HostPort("2001:db8::53", 53)),
        ("[2001:db8::53]", HostPort("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", HostPort("2001:db8::53", 5353)),
    ],
)
def test_a_name_server_needs_no_port(text: str, server: HostPort) -> None:
    assert parse_nameserver(text) == server


@pytest.mark.parametrize(
    "text", ["", "ns.example", "ns.example:53", "192.0.2.53:0", "192.0.2.53:x", "::1:53:", "[]:53"]
)
def test_what_is_no_name_server(text: str) -> None:
    with pytest.raises(ValueError, match="is no address of a name server: write its IP address"):
        parse_nameserver(text)
