"""HOST:PORT as people write it."""

from typing import Self

import attrs


@attrs.frozen
class HostPort:
    """A host (name or address, IPv6 without brackets) and a port, not yet resolved."""

    host: str
    port: int

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the address in ``text``: ``host:port``, ``192.0.2.1:5222``, ``[::1]:5222``.

        Raises:
            ValueError: with a sentence that says what to write instead.
        """
        host, colon, port_text = text.rpartition(":")
        if not colon or text.endswith("]"):
            if text.isascii() and text.isdigit():
                raise ValueError(f"{text!r} has no host: write 127.0.0.1:{text}, or 0.0.0.0:{text} for everyone")
            raise ValueError(f"{text!r} has no port: write {text or 'HOST'}:5222")
        bracketed = host.startswith("[") and host.endswith("]")
        if ":" in host and not bracketed:
            raise ValueError(f"{text!r} is ambiguous: write an IPv6 address in brackets, such as [::1]:5222")
        if bracketed:
            host = host[1:-1]
        if not host:
            raise ValueError(f"{text!r} has no host: write 127.0.0.1:{port_text}, or 0.0.0.0:{port_text} for everyone")
        if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65535:
            raise ValueError(f"{port_text!r} is no port: write a number from 0 to 65535")
        if any(character.isspace() for character in host):
            raise ValueError(f"{text!r} is no address: a host has no white space in it")
        return cls(host, int(port_text))

    def __str__(self) -> str:
        """Return ``host:port``, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
