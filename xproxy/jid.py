"""JIDs (RFC 7622)."""

import attrs


@attrs.frozen
class Jid:
    """A valid JID: parts enforced by RFC 7622, None for an absent part."""

    local: str | None
    domain: str
    resource: str | None = None

    @classmethod
    def from_text(cls, text: str) -> "Jid":
        raise NotImplementedError
