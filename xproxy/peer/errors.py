"""How a dialogue with a peer ends early. The names say what happened; all are ``PeerError``."""

from typing import Literal


class PeerError(Exception):
    """Base of what a scripted client meets instead of the answer it wanted."""


class Disconnected(PeerError):  # noqa: N818 - it names what happened
    """The connection ended before the answer came."""

    def __init__(self, doing: str, *, how: Literal["closed", "ended", "reset"] = "reset") -> None:
        super().__init__(f"the connection ended while {doing}")
        self.doing = doing
        self.how = how
        """The peer said </stream:stream>; its input ended without; RST, or it was gone already."""


class PeerTimeout(PeerError):  # noqa: N818 - it names what happened
    """Nothing (fitting) came in time."""

    def __init__(self, doing: str, seconds: float) -> None:
        super().__init__(f"nothing came within {seconds:g} s while {doing}")
        self.doing = doing
        self.seconds = seconds


class TlsRefused(PeerError):  # noqa: N818 - it names what happened
    """The TLS handshake failed: a certificate that is not trusted, no common version, or no TLS at all."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"TLS could not be established: {reason}")
        self.reason = reason


class LoginFailed(PeerError):  # noqa: N818 - it names what happened
    """SASL ended in ``<failure/>`` (RFC 6120 section 6.5), or the server did not prove itself."""

    def __init__(self, condition: str, text: str | None = None) -> None:
        super().__init__(f"login failed: {condition}" + (f" ({text})" if text else ""))
        self.condition = condition
        """"not-authorized" ..., or ours: "no-common-mechanism", "server-not-authentic", "too-many-iterations"."""
        self.text = text


class StanzaFailed(PeerError):  # noqa: N818 - it names what happened
    """A request was answered with an error (RFC 6120 section 8.3)."""

    def __init__(self, condition: str, kind: str, text: str | None = None) -> None:
        super().__init__(f"the answer is an error: {condition} (type {kind})" + (f", {text}" if text else ""))
        self.condition = condition
        self.kind = kind
        """"cancel", "modify", "auth", "wait", "continue"."""
        self.text = text


class ResumeFailed(PeerError):  # noqa: N818 - it names what happened
    """The server will not, or cannot, resume or enable stream management (XEP-0198)."""

    def __init__(self, condition: str) -> None:
        super().__init__(f"stream management failed: {condition}")
        self.condition = condition


class StreamFailed(PeerError):  # noqa: N818 - it names what happened
    """The stream ended with an error (RFC 6120 section 4.9), or what came is no XMPP."""

    def __init__(
        self, condition: str, text: str | None = None, *, content: str | None = None, by_peer: bool = False
    ) -> None:
        super().__init__(f"the stream failed: {condition}" + (f" ({text})" if text else ""))
        self.condition = condition
        self.text = text
        self.by_peer = by_peer
        """True: the peer said so. False: it is our judgement of what came."""
        self.content = content
        """What stands within the condition: for see-other-host where to go (RFC 6120 section 4.9.3.19)."""
