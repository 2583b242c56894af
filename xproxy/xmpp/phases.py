"""How far a session has come, and what may follow what."""

import enum
from typing import Final

from xproxy.xmpp.actions import LegMode


class Phase(enum.Enum):
    """How far a session has come."""

    OWN_PART = "own-part"  # one peer is led into TLS by us, the other waits
    NEGOTIATING = "negotiating"  # streams, features, login, binding; in clear or inside TLS
    STARTTLS_ASKED = "starttls-asked"  # the client is paused, the server has the word
    SECURING = "securing"  # both legs paused, handshakes under way
    ESTABLISHED = "established"  # stanzas flow
    PASSED_ON = "passed-on"  # relayed undecrypted: nothing is looked at
    CLOSING = "closing"  # one peer ended behind its closing tag
    CLOSED = "closed"  # the relay was told to close


class Step(enum.Enum):
    """What takes a session from one phase to the next."""

    ASK_TLS = enum.auto()
    PROCEED = enum.auto()
    REFUSE_TLS = enum.auto()
    SECURED = enum.auto()
    READY = enum.auto()
    PASS_ON = enum.auto()
    HALF_ENDED = enum.auto()
    CLOSE = enum.auto()


# A pair that is not here is a bug of ours, not a peer's oddity.
NEXT: Final = {
    (Phase.NEGOTIATING, Step.ASK_TLS): Phase.STARTTLS_ASKED,
    (Phase.STARTTLS_ASKED, Step.PROCEED): Phase.SECURING,
    (Phase.STARTTLS_ASKED, Step.REFUSE_TLS): Phase.NEGOTIATING,
    (Phase.OWN_PART, Step.PROCEED): Phase.SECURING,
    (Phase.SECURING, Step.SECURED): Phase.NEGOTIATING,
    (Phase.SECURING, Step.PASS_ON): Phase.PASSED_ON,
    (Phase.NEGOTIATING, Step.READY): Phase.ESTABLISHED,
    (Phase.NEGOTIATING, Step.HALF_ENDED): Phase.CLOSING,
    (Phase.STARTTLS_ASKED, Step.HALF_ENDED): Phase.CLOSING,
    (Phase.ESTABLISHED, Step.HALF_ENDED): Phase.CLOSING,
    **{(phase, Step.CLOSE): Phase.CLOSED for phase in Phase},
}

FIRST: Final = {
    LegMode.CLEAR: Phase.NEGOTIATING,
    LegMode.DIRECT_TLS: Phase.SECURING,
    LegMode.CLEAR_TO_DIRECT: Phase.OWN_PART,
    LegMode.CLEAR_TO_PLAIN: Phase.OWN_PART,
    LegMode.DIRECT_TO_CLEAR: Phase.OWN_PART,
    LegMode.DIRECT_TO_PLAIN: Phase.SECURING,
}
