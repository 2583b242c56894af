import pytest

from xproxy.config.address import HostPort


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
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        HostPort.from_text(text)
