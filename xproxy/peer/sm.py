"""The two counters and the queue of XEP-0198, the same for either end."""

from collections import deque
from typing import Final

import attrs

H_MODULUS: Final = 2**32  # XEP-0198 section 4: h wraps


class AckedTooMuch(Exception):  # noqa: N818 - it names what the peer did
    """The peer acknowledged stanzas that were never sent (XEP-0198 section 4)."""

    def __init__(self, h: int, sent: int) -> None:
        super().__init__(f"h={h} with {sent} sent")
        self.h = h
        self.sent = sent


@attrs.define
class SmState:
    """Stream management of one session, from one end. It outlives the connections."""

    id: str | None  # the resumption id; None: acknowledgements only
    received: int = 0  # stanzas taken from the peer since enable
    acked: int = 0  # stanzas of ours the peer has
    unacked: deque[bytes] = attrs.field(factory=deque)

    @property
    def h(self) -> int:
        """What we say in ``h``."""
        return self.received % H_MODULUS

    @property
    def sent(self) -> int:
        """How many stanzas we sent since enable."""
        return self.acked + len(self.unacked)

    def on_sent(self, stanza: bytes) -> None:
        """Keep ``stanza`` until it is acknowledged."""
        self.unacked.append(stanza)

    def on_received(self) -> None:
        """Count a stanza of the peer."""
        self.received += 1

    def on_ack(self, h: int) -> None:
        """Forget what the peer has.

        Raises:
            AckedTooMuch: more than we sent.
        """
        count = (h - self.acked) % H_MODULUS
        if count > len(self.unacked):
            raise AckedTooMuch(h, self.sent)
        for _ in range(count):
            self.unacked.popleft()
        self.acked += count


def parse_h(text: str | None) -> int | None:
    """Return ``h`` as a number, None when it is none."""
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 10:
        return None
    h = int(text)
    return h if h < H_MODULUS else None
