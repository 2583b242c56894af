"""The names in a certificate, and whether one of them is an XMPP domain (RFC 6120 section 13.7.1.2, RFC 9525).

A certificate is for a domain if any of these says so:

* a dNSName that is the domain, or a wildcard of one whole left-most label (DNS-ID),
* an SRVName ``_xmpp-client.<domain>`` or ``_xmpps-client.<domain>`` (SRV-ID, RFC 4985, XEP-0368),
* an xmppAddr that is the domain (RFC 6120 section 13.7.1.4),
* an iPAddress, where the domain is an address.

The common name never counts (RFC 9525 section 2). Comparison is in A-labels; the rules of DNS-ID and SRV-ID are
service-identity's. A name that is malformed matches nothing and spoils nothing.
"""

import contextlib
import ipaddress
from collections.abc import Iterator
from typing import Final, Self

import attrs
from cryptography import x509
from service_identity import CertificateError
from service_identity.hazmat import DNS_ID, SRV_ID, DNSPattern, SRVPattern

from xproxy.jid import JidError, domain_to_ascii, is_ip_address

XMPP_ADDR: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5")  # RFC 6120 section 13.7.1.4
SRV_NAME: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7")  # RFC 4985 section 2
SRV_SERVICES: Final = ("xmpp-client", "xmpps-client")

_IA5_STRING: Final = 0x16
_UTF8_STRING: Final = 0x0C


@attrs.frozen(kw_only=True)
class CertificateNames:
    """The names of a certificate, as they stand in its subjectAltName. Peer data: not cleaned."""

    dns: tuple[str, ...] = ()
    srv: tuple[str, ...] = ()  # "_service.name"
    xmpp: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @classmethod
    def from_certificate(cls, certificate: x509.Certificate) -> Self:
        """Return the names of ``certificate``; none if its subjectAltName is absent or unreadable."""
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension):
            return cls()
        other = [(name.type_id, name.value) for name in names if isinstance(name, x509.OtherName)]
        srv = [_parse_string(value, _IA5_STRING) for kind, value in other if kind == SRV_NAME]
        xmpp = [_parse_string(value, _UTF8_STRING) for kind, value in other if kind == XMPP_ADDR]
        return cls(
            dns=tuple(names.get_values_for_type(x509.DNSName)),
            srv=tuple(filter(None, srv)),
            xmpp=tuple(filter(None, xmpp)),
            addresses=tuple(str(address) for address in names.get_values_for_type(x509.IPAddress)),
        )

    @property
    def all(self) -> tuple[str, ...]:
        """Every name once, in the order dns, srv, xmpp, addresses."""
        return tuple(dict.fromkeys(self.dns + self.srv + self.xmpp + self.addresses))

    def cover(self, domain: str) -> bool:
        """Return whether one of the names is the XMPP domain ``domain``."""
        if is_ip_address(domain):
            return str(ipaddress.ip_address(domain.strip("[]"))) in self.addresses
        try:
            name = domain_to_ascii(domain)
            identity = DNS_ID(name)
        except (JidError, ValueError):  # service-identity also refuses names of digits alone
            return False
        return (
            any(identity.verify(pattern) for pattern in _dns_patterns(self.dns))
            or any(
                SRV_ID(f"_{service}.{name}").verify(pattern)
                for pattern in _srv_patterns(self.srv)
                for service in SRV_SERVICES
            )
            or any(_is_same_domain(address, name) for address in self.xmpp)
        )


def encode_srv_name(domain: str) -> x509.OtherName:
    """Return the SRVName ``_xmpp-client.<domain>``; ``domain`` in A-labels."""
    return x509.OtherName(SRV_NAME, _encode_string(_IA5_STRING, f"_{SRV_SERVICES[0]}.{domain}"))


def encode_xmpp_addr(domain: str) -> x509.OtherName:
    """Return the xmppAddr of ``domain``, in U-labels."""
    return x509.OtherName(XMPP_ADDR, _encode_string(_UTF8_STRING, domain))


def _dns_patterns(names: tuple[str, ...]) -> Iterator[DNSPattern]:
    for name in names:
        with contextlib.suppress(CertificateError, ValueError):
            yield DNSPattern.from_bytes(name.encode())


def _srv_patterns(names: tuple[str, ...]) -> Iterator[SRVPattern]:
    for name in names:
        with contextlib.suppress(CertificateError, ValueError):
            yield SRVPattern.from_bytes(name.encode())


def _is_same_domain(address: str, name: str) -> bool:
    try:
        return domain_to_ascii(address) == name
    except JidError:
        return False


def _encode_string(tag: int, text: str) -> bytes:
    """Return ``text`` as a DER string of type ``tag`` (X.690 section 8.1.3, lengths up to 65535)."""
    octets = text.encode()
    if len(octets) < 0x80:
        return bytes((tag, len(octets))) + octets
    length = len(octets).to_bytes(1 if len(octets) < 0x100 else 2, "big")
    return bytes((tag, 0x80 | len(length))) + length + octets


def _parse_string(data: bytes, tag: int) -> str | None:
    """Return the DER string of type ``tag`` that ``data`` is, or None if it is something else."""
    if len(data) < 2 or data[0] != tag:
        return None
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    octets = data[start:]
    if len(octets) != length or not octets:
        return None
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return None
