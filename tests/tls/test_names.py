import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from xproxy.tls.names import SRV_NAME, XMPP_ADDR, CertificateNames, encode_srv_name, encode_xmpp_addr


def names(**kwargs):
    return CertificateNames(**{kind: tuple(values) for kind, values in kwargs.items()})


@pytest.mark.parametrize(
    ("held", "domain"),
    [
        (names(dns=["example.org"]), "example.org"),
        (names(dns=["Example.ORG"]), "example.org"),
        (names(dns=["example.org"]), "EXAMPLE.org."),
        (names(dns=["*.example.org"]), "chat.example.org"),
        (names(dns=["*.com", "example.org"]), "example.org"),  # one bad name does not spoil the others
        (names(dns=["xn--bcher-kva.example"]), "bücher.example"),
        (names(dns=["xn--bcher-kva.example"]), "BÜCHER.example"),
        (names(dns=["*.xn--bcher-kva.example"]), "chat.bücher.example"),
        (names(srv=["_xmpp-client.example.org"]), "example.org"),
        (names(srv=["_xmpps-client.example.org"]), "example.org"),
        (names(srv=["_XMPP-client.xn--bcher-kva.example"]), "bücher.example"),
        (names(xmpp=["example.org"]), "Example.org"),
        (names(xmpp=["bücher.example"]), "bücher.example"),
        (names(xmpp=["bücher.example"]), "xn--bcher-kva.example"),
        (names(addresses=["192.0.2.1"]), "192.0.2.1"),
        (names(addresses=["2001:db8::1"]), "[2001:DB8::1]"),
        (names(dns=["localhost"]), "localhost"),
        (names(dns=["under_score.example"]), "under_score.example"),
    ],
)
def test_covered(held, domain):
    assert held.cover(domain)


@pytest.mark.parametrize(
    ("held", "domain"),
    [
        (names(), "example.org"),
        (names(dns=["example.com"]), "example.org"),
        (names(dns=["chat.example.org"]), "example.org"),
        (names(dns=["*.example.org"]), "example.org"),
        (names(dns=["*.example.org"]), "a.b.example.org"),
        (names(dns=["c*.example.org"]), "chat.example.org"),  # RFC 9525 section 6.3: a wildcard is a whole label
        (names(dns=["*.org"]), "example.org"),
        (names(dns=["*"]), "localhost"),
        (names(dns=["chat.*.org"]), "chat.example.org"),
        (names(dns=["*.example"]), "xn--bcher-kva.example"),
        (names(dns=["example.org\0.evil.example"]), "example.org"),
        (names(dns=["_xmpp-client.example.org"]), "example.org"),
        (names(srv=["_xmpp-server.example.org"]), "example.org"),  # for servers' streams
        (names(srv=["_imaps.example.org"]), "example.org"),
        (names(srv=["_xmpp-client.*.org"]), "example.org"),
        (names(srv=["_xmpp-client"]), "example.org"),
        (names(srv=["x"]), "example.org"),
        (names(xmpp=["*.example.org"]), "chat.example.org"),
        (names(xmpp=["user@example.org"]), "example.org"),
        (names(dns=["192.0.2.1"]), "192.0.2.1"),  # an address as text counts for nothing
        (names(addresses=["192.0.2.1"]), "192.0.2.2"),
        (names(dns=["example.org"]), "192.0.2.1"),
        (names(dns=["a..b"]), "a..b"),
        (names(dns=["123"]), "123"),
        (names(dns=["example.org"]), ""),
    ],
)
def test_not_covered(held, domain):
    assert not held.cover(domain)


def certificate(*alternative_names):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "common.example")])
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(255)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if alternative_names:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative_names), critical=False)
    return builder.sign(key, hashes.SHA256())


def test_names_of_every_kind_are_read():
    held = CertificateNames.from_certificate(
        certificate(
            x509.DNSName("a.example"),
            encode_srv_name("b.example"),
            encode_xmpp_addr("ü.example"),
            x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
            x509.RFC822Name("mail@example.org"),
            encode_xmpp_addr("a.example"),
        )
    )
    assert held == names(
        dns=["a.example"],
        srv=["_xmpp-client.b.example"],
        xmpp=["ü.example", "a.example"],
        addresses=["192.0.2.1"],
    )
    assert held.all == ("a.example", "_xmpp-client.b.example", "ü.example", "192.0.2.1")


def test_long_names_survive_der():
    domain = ".".join(["a" * 60] * 4)
    assert CertificateNames.from_certificate(certificate(encode_srv_name(domain))).cover(domain)
    long = "ü" * 200
    assert CertificateNames.from_certificate(certificate(encode_xmpp_addr(long))).xmpp == (long,)


@pytest.mark.parametrize("value", [b"\x05\x00", b"\x0c\x00", b"\x16\x03abc", b"\x0c\x02\xff\xff", b"\x04\x03abc"])
def test_other_names_of_another_form_are_no_names(value):
    held = certificate(x509.DNSName("a.example"), x509.OtherName(XMPP_ADDR, value))
    assert CertificateNames.from_certificate(held) == names(dns=["a.example"])


def test_an_srv_name_without_a_name_covers_nothing():
    held = CertificateNames.from_certificate(certificate(x509.OtherName(SRV_NAME, b"\x16\x02_x")))
    assert held.srv == ("_x",)
    assert not held.cover("x")


def test_the_common_name_never_counts():
    assert not CertificateNames.from_certificate(certificate()).cover("common.example")
