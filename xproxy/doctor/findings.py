"""What a check says: a fact, what follows for running behind xproxy, and the setting that mends it."""

import enum
from typing import Final

import attrs

from xproxy.record.clean import clean

TEXT_BYTES_MAX: Final = 1_000  # of one part of a finding; ours are under 500, what peers say in them is cut before
QUOTED_CHARS_MAX: Final = 120  # of one thing a peer said
LISTED_CHARS_MAX: Final = 60  # of one of several names; RFC 4422 gives a mechanism 20
LISTED_MAX: Final = 12


class Severity(enum.IntEnum):
    """How much it matters, the least first."""

    OK = 0  # as it should be
    NOTE = 1  # good to know, or not known
    WARNING = 2  # some clients or logins will meet it
    PROBLEM = 3  # nobody, or not everybody, can use the server through xproxy as it is

    @property
    def word(self) -> str:
        """As it is printed."""
        return self.name.lower()


def _cleaned(text: str) -> str:
    return clean(text, TEXT_BYTES_MAX)[0]


@attrs.frozen
class Fix:
    """A setting that mends it, as it stands in the configuration of ``where``."""

    where: str  # "Prosody", "ejabberd", "xproxy", "DNS"
    setting: str = attrs.field(converter=_cleaned)


@attrs.frozen(kw_only=True)
class Finding:
    """One line of the diagnosis. Texts are made harmless for a terminal here: parts of them come from peers."""

    check: str  # a stable name, such as "channel-binding"
    severity: Severity
    finding: str = attrs.field(converter=_cleaned)
    seen: str = attrs.field(converter=_cleaned)  # how: what was asked or done
    consequence: str = attrs.field(default="", converter=_cleaned)  # behind xproxy; "" where there is none
    fixes: tuple[Fix, ...] = ()


def quoted(text: str) -> str:
    """Return what a peer said, cut, in quotation marks. ``Finding`` makes it harmless: that must happen once only."""
    cut = text[:QUOTED_CHARS_MAX].replace('"', "'")
    return f'"{cut}…"' if len(text) > QUOTED_CHARS_MAX else f'"{cut}"'


def listed(names: tuple[str, ...] | list[str]) -> str:
    """Return names that a peer sent as one text, each and all of them cut; as ``quoted``."""
    shown = [name[:LISTED_CHARS_MAX] for name in names[:LISTED_MAX]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
