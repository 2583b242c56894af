"""Words that several groups of events share. Times are never in events: a record carries the time."""

import enum
from typing import ClassVar

import attrs


class Side(enum.Enum):
    """One of the two parties, and with it our connection to that party (its *leg*).

    CLIENT is the initiating entity and SERVER the receiving one (RFC 6120 section 1.4), for s2s streams too.
    As ``sent_by`` a side names a direction: who sent the bytes.
    """

    CLIENT = "client"
    SERVER = "server"

    # Read on the hot path; a stored attribute costs a third of a property.
    other: "Side"

    # Sides are the keys of many small dicts. Enum's own hash, of the name, is Python code and takes five times as long.
    __hash__ = object.__hash__


Side.CLIENT.other = Side.SERVER
Side.SERVER.other = Side.CLIENT


class Level(enum.IntEnum):
    """Severity of an action, fixed in its class. Values order; names are ECS ``log.level``."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50


class EndOfInput(enum.Enum):
    """How a peer ended its direction."""

    CLOSE_NOTIFY = "close_notify"
    """TLS closed in form (RFC 8446 section 6.1), or FIN on a leg without TLS."""

    TRUNCATED = "truncated"
    """FIN without close_notify on a TLS leg. Normal in XMPP: the closing tag authenticates the end."""

    RESET = "reset"
    """RST, or the descriptor failed."""


@attrs.frozen
class Endpoint:
    """A TCP endpoint: ``ip`` in text form (IPv6 without brackets, v4-mapped addresses as IPv4)."""

    ip: str
    port: int

    def __str__(self) -> str:
        """Return ``ip:port``, IPv6 in brackets."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class EventBase:
    """What every event class fixes: its name in the log, its severity, one constant sentence.

    ``message`` never holds peer data. The class docstring is what ``xproxy events`` prints.
    """

    __slots__ = ()

    action: ClassVar[str]
    level: ClassVar[Level]
    message: ClassVar[str]
