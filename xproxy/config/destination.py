"""Where clients may be taken, as people write it: host names, addresses, networks."""

import ipaddress
import re
from typing import Final

from xproxy.config.listen import Network

# RFC 1123 section 2.1, and underscores, which names in use have.
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NAME_LENGTH_MAX: Final = 253


def parse_host(text: str) -> str:
    """Return the host in ``text`` in the one form it is compared in: lower case, no final dot, addresses normalised.

    Raises:
        ValueError: it is neither an address nor a host name in ASCII (an A-label, RFC 5890, is).
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        name = text.lower().removesuffix(".")
        # A name that ends in digits is an address to some resolvers and none to others (RFC 3696 section 2).
        if len(name) > _NAME_LENGTH_MAX or not _NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
            raise ValueError(f"{text!r} is no host name and no address") from None
        return name
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{text!r} has a zone, which is another on each machine")
        return str(address.ipv4_mapped or address)
    return str(address)


def parse_destination(text: str) -> str | Network:
    """Return what one entry of ``[listen] destinations`` allows: a host name, or a network of one or more addresses.

    Raises:
        ValueError: with a sentence that says what to write instead.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        return parse_host(text)
    except ValueError:
        raise ValueError(f"{text!r} is no host: write xmpp.example.org, 192.0.2.1 or 192.0.2.0/24") from None
