"""What a replay has learnt: which live value stands for which placeholder. The time of day comes in as an argument."""

import itertools
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from xproxy.capture.placeholder import BOUND, Placeholder, parse_template, without_groups
from xproxy.config.replay import ReplaySettings
from xproxy.replay.patience import Patience

# XEP-0082 section 3.2; XEP-0091's CCYYMMDDThh:mm:ss beside it (jabber:x:delay).
_TIME: Final = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?(Z|[+-]\d\d:\d\d)?", re.IGNORECASE | re.ASCII
)
_TIME_CHARS: Final = r"[0-9Tt:.Zz+-]{15,40}"
_ID_CHARS_MAX: Final = 1_023  # what a peer may make us remember as one id
_MADE: Final = "xp"  # begins the ids that a replay makes itself
FILLER: Final = "any"  # sent for ${any} without a sample

Scope = tuple[str, str]
"""Who made an id: (session, "client" or "server"). Ids are unique within one of these only."""


class CannotRender(ValueError):  # noqa: N818 - it names what happened
    """A value that has to be sent holds a placeholder nothing is known for."""


@attrs.define
class Bindings:
    """All of it. ``copy`` it for a trial, and keep the copy if the trial holds."""

    values: dict[str, str] = attrs.field(factory=dict)  # "id:1" -> live value
    owners: dict[tuple[Scope, str], str] = attrs.field(factory=dict)  # who has a live value already: bijective
    jids: dict[str, str] = attrs.field(factory=dict)  # session -> full JID
    secrets: Mapping[str, str] = attrs.field(factory=dict, repr=False)  # account -> password
    patience: Patience = attrs.field(factory=lambda: Patience(ReplaySettings().match_seconds_max), repr=False)
    _numbers: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(1), repr=False)

    def copy(self) -> "Bindings":
        """Return one that can be thrown away."""
        return Bindings(
            dict(self.values), dict(self.owners), dict(self.jids), self.secrets, self.patience, self._numbers
        )

    def known(self, placeholder: Placeholder) -> str | None:
        """Return what a placeholder stands for, None if that is not known (yet)."""
        match placeholder.kind:
            case "id" | "url":
                return self.values.get(placeholder.key)
            case "jid":
                return self.jids.get(placeholder.argument or "")
            case "res":
                jid = self.jids.get(placeholder.argument or "")
                return None if jid is None else jid.partition("/")[2]
            case "secret":
                return self.secrets.get(placeholder.argument or "")
            case _:
                return None

    def bind(self, placeholder: Placeholder, value: str, scope: Scope) -> bool:
        """Let an id or address stand for ``value``; False where it stands for another, or ``value`` for another."""
        known = self.values.get(placeholder.key)
        if known is not None:
            return known == value
        owner = (scope, f"{placeholder.kind}:{value}")
        if owner in self.owners or len(value) > _ID_CHARS_MAX:
            return False
        self.values[placeholder.key] = value
        self.owners[owner] = placeholder.key
        return True

    def takes(self, value: str, live: str, scope: Scope, now: datetime) -> bool:
        """Whether ``live`` is what ``value``, with its placeholders, stands for; binds what is new in it."""
        if "${" not in value:
            return value == live
        parts = parse_template(value)
        pattern, groups = self._pattern(parts)
        found = self.patience.fullmatch(value, pattern, live)
        if found is None:
            return False
        for placeholder, text in zip(groups, found.groups(), strict=True):
            if placeholder.kind == "time":
                if not _is_time(text, placeholder, now):
                    return False
            elif placeholder.kind in BOUND and not self.bind(placeholder, text, scope):
                return False
        return True

    def _pattern(self, parts: tuple[str | Placeholder, ...]) -> tuple[str, list[Placeholder]]:
        pattern = ""
        groups: list[Placeholder] = []
        for part in parts:
            if isinstance(part, str):
                pattern += re.escape(part)
            elif (known := self.known(part)) is not None:
                pattern += re.escape(known)
            else:
                pattern += _open_pattern(part)
                if part.kind in BOUND or part.kind == "time":
                    groups.append(part)
        return pattern, groups

    def render(self, value: str, scope: Scope, now: datetime, *, lenient: bool = False) -> str:
        """Return ``value`` as it is sent: with what is known, and new ids for those that are not.

        ``lenient``: for showing; what is not known stays a placeholder, and nothing is bound.

        Raises:
            CannotRender: it holds a JID or a pattern that nothing is known for.
        """
        if "${" not in value:
            return value
        return "".join(
            part if isinstance(part, str) else self._render_one(part, scope, now, lenient)
            for part in parse_template(value)
        )

    def _render_one(self, part: Placeholder, scope: Scope, now: datetime, lenient: bool) -> str:
        if part.kind == "secret" and lenient:
            return str(part)
        if (known := self.known(part)) is not None:
            return known
        if lenient:
            return str(part)
        if part.sample is not None:
            return part.sample
        match part.kind:
            case "id":
                made = f"{_MADE}-{part.argument}-{next(self._numbers)}"
                self.bind(part, made, scope)
                return made
            case "time":
                return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            case "int":
                return "0"
            case "any" if part.argument is None:
                return FILLER
            case "any":
                for candidate in (FILLER, "1", "2026-01-01T00:00:00Z", "a1b2c3d4", ""):
                    if self.patience.fullmatch(str(part), part.argument or "", candidate):
                        return candidate
                raise CannotRender(f"{part} has to be sent: write a value, or ${{any=VALUE}}, in its place")
            case "url":
                made = f"https://upload.invalid/{part.argument}"
                self.bind(part, made, scope)
                return made
            case "secret":
                raise CannotRender(f"{part} has to be sent, and the password of {part.argument} was not given")
            case _:
                raise CannotRender(f"{part} has to be sent before that session is logged in")


def _open_pattern(part: Placeholder) -> str:
    match part.kind:
        case "id" | "url":
            return "(.+)"
        case "time":
            return f"({_TIME_CHARS})"
        case "int":
            return "-?[0-9]{1,20}"
        case "any":
            return ".*" if part.argument is None else f"(?:{without_groups(part.argument)})"
        case "secret":
            return ".+"
        case _:
            return r"(?!)"  # the JID of a session that is not there: nothing is


def _is_time(text: str, placeholder: Placeholder, now: datetime) -> bool:
    found = _TIME.fullmatch(text)
    if found is None:
        return False
    try:
        moment = datetime(*(int(found[index]) for index in range(1, 7)), tzinfo=UTC)  # type: ignore[misc,arg-type]
        if found[7] and found[7].upper() != "Z":
            hours, minutes = int(found[7][1:3]), int(found[7][4:6])
            offset = timedelta(hours=hours, minutes=minutes)
            moment = moment - offset if found[7][0] == "+" else moment + offset
    except (ValueError, OverflowError):
        return False
    if placeholder.argument is None:
        return True
    return abs((moment - now).total_seconds()) <= int(placeholder.argument)
