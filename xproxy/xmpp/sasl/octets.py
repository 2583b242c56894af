"""Octets of a payload that are a name, as text."""

from typing import Final

NAME_OCTETS_MAX: Final = 3071
"""A full JID (RFC 7622): three parts of at most 1023 octets and two separators. Longer is no name."""


def read_name(octets: bytes, charset: str = "utf-8") -> tuple[str | None, str | None]:
    """Return the name and the problem: "too-long" (and no name) or "utf-8" (bad octets shown as ``\\xNN``).

    It never raises: a UnicodeDecodeError would hold the whole payload.
    """
    if len(octets) > NAME_OCTETS_MAX:
        return None, "too-long"
    text = octets.decode(charset, errors="backslashreplace")
    problem = "utf-8" if charset == "utf-8" and text.encode() != octets else None
    return text or None, problem
