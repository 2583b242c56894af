"""[listen]: addresses, their kinds, and whom they trust."""

import ipaddress
import re
from pathlib import Path

import pytest

from tests.config.test_load import load_text, problems_of
from xproxy.config.destination import parse_destination, parse_host
from xproxy.config.listen import ListenAddress, ListenKind
from xproxy.config.load import load

TEN = ipaddress.ip_network("10.0.0.0/8")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5222", ListenAddress("127.0.0.1", 5222)),
        ("[::]:5222", ListenAddress("::", 5222)),
        ("proxy://[::]:5222", ListenAddress("::", 5222, ListenKind.PROXY_PROTOCOL)),
        ("socks5://localhost:1080", ListenAddress("localhost", 1080, ListenKind.SOCKS5)),
        ("tproxy://0.0.0.0:15222", ListenAddress("0.0.0.0", 15_222, ListenKind.TPROXY)),
    ],
)
def test_an_address_says_its_kind_by_a_scheme(text: str, address: ListenAddress) -> None:
    assert ListenAddress.from_text(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("socks://127.0.0.1:1080", "socks:// in 'socks://127.0.0.1:1080' is not known: write HOST:PORT, or proxy://"),
        ("proxy://127.0.0.1", "has no port"),
        ("proxy://:5222", "has no host"),
        ("proxy://::1:5222", "brackets"),
    ],
)
def test_what_is_no_address_says_what_to_write(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        ListenAddress.from_text(text)


def test_a_table_has_networks_of_its_own(tmp_path: Path) -> None:
    text = """
        [[listen.addresses]]
        address = "127.0.0.1:5222"
        [[listen.addresses]]
        address = "[::]:5222"
        kind = "proxy-protocol"
        trusted = ["10.0.0.0/8"]
    """
    inline = """
        [listen]
        addresses = ["127.0.0.1:5222", { address = "proxy://[::]:5222", trusted = "10.0.0.0/8" }]
    """
    for each in (text, inline):
        assert load_text(tmp_path, each).settings.listen.addresses == (
            ListenAddress("127.0.0.1", 5222),
            ListenAddress("::", 5222, ListenKind.PROXY_PROTOCOL, (TEN,)),
        )


def test_command_line_and_environment_say_it_too() -> None:
    options = {"listen": ("socks5://127.0.0.1:1080",), "trusted": ("10.0.0.0/8", "2001:db8::/32")}
    listen = load(options, {}, search=()).settings.listen
    assert listen.addresses == (ListenAddress("127.0.0.1", 1080, ListenKind.SOCKS5),)
    assert listen.trusted == (TEN, ipaddress.ip_network("2001:db8::/32"))
    environment = {"XPROXY_LISTEN": "proxy://[::]:5222, 127.0.0.1:5223", "XPROXY_TRUSTED": "10.0.0.0/8"}
    listen = load({}, environment, search=()).settings.listen
    assert listen.addresses[0].kind is ListenKind.PROXY_PROTOCOL
    assert listen.trusted == (TEN,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("trusted = ['10.0.0.1/8']", "FILE:2: trusted: '10.0.0.1/8' has bits behind its prefix: write 10.0.0.0/8, or"),
        ("trusted = ['office']", "'office' is no network: write one as 192.0.2.0/24 or 2001:db8::/32"),
        ("addresses = [{ adress = '[::]:1' }]", "unknown key 'adress' of an address: did you mean 'address'?"),
        ("addresses = [{ address = '[::]:1', colour = 'red' }]", "known are address, kind, trusted"),
        ("addresses = [{ kind = 'socks5' }]", "an address as a table needs its address"),
        (
            "addresses = [{ address = '[::]:1', kind = 'socks' }]",
            "kind must be plain, proxy-protocol, socks5 or tproxy",
        ),
        ("addresses = [{ address = 'proxy://[::]:1', kind = 'socks5' }]", "proxy://[::]:1 is not of kind socks5"),
        (
            "addresses = [{ address = '[::]:1', trusted = ['::/0'] }]",
            "[::]:1 takes everybody, and trusted does nothing",
        ),
        ("addresses = ['[::]:1', 'proxy://[::]:1']", "[::]:1 is listed twice"),
        ("destination_ports = [5222, 70000]", "70000 is no port"),
        ("destinations = ['a b']", "'a b' is no host: write xmpp.example.org, 192.0.2.1 or 192.0.2.0/24"),
        ("header_bytes_max = 51", "51 is out of range"),
        ("headers_max = 0", "must be at least 1"),
    ],
)
def test_what_cannot_be_meant_is_said(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in "\n".join(problems_of(tmp_path, f"[listen]\n{text}\n"))


def test_a_balancer_knows_no_original_destination(tmp_path: Path) -> None:
    text = "[listen]\naddresses = 'proxy://[::]:5222'\n[upstream]\naddress = 'original'\n"
    assert "behind a balancer there is no original destination" in "\n".join(problems_of(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("XMPP.Example.org.", "xmpp.example.org"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("a_b.example", "a_b.example"),
    ],
)
def test_hosts_have_one_form(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text", ["", ".", "a b", "a..b", "127.1", "1.2.3.4.5", "fe80::1%lo", "bücher.example", "-a.example"]
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match=r"no host|zone"):
        parse_host(text)


def test_a_destination_is_a_name_or_a_network() -> None:
    assert parse_destination("xmpp.example.org") == "xmpp.example.org"
    assert parse_destination("192.0.2.1") == ipaddress.ip_network("192.0.2.1/32")
    assert parse_destination("10.0.0.0/8") == TEN
