"""Placeholders in attribute values and text of a cassette: what may differ from one replay to the next.

    ${id:1}        an id: bound to what comes first, the same from then on, and no other id is bound to that
    ${jid:alice}   the full JID of the session alice          ${res:alice}   its resourcepart
    ${time}        a time of XEP-0082 or of XEP-0091          ${time:60}     the same, at most 60 s from now
    ${int}         digits                                     ${any}         anything, nothing too
    ${any:REGEX}   what the whole of REGEX matches (Python's re, without names, back-references and flags for all of
                   it); a "}" in it only with its "{". One that takes too long on what a peer sent is given up
                   (replay/patience.py)
    ${url:1}       as id, for addresses that a server hands out
    ${secret:alice}  the password of the account alice

``${any=X}``, ``${int=X}``, ``${time=X}`` and the like are the same, and X is what is *sent* where the replay has to say
it; as expectation they take any value. X holds no braces and no backslash. ``$${`` stands for a literal ``${``. Several
placeholders may stand in one value, with text between them.
"""

import functools
import re
import warnings
from typing import Final

import attrs

KINDS: Final = ("id", "jid", "res", "time", "int", "any", "url", "secret")
NAMED: Final = frozenset({"id", "jid", "res", "url", "secret"})  # need a name
BOUND: Final = frozenset({"id", "url"})  # bound at first sight
PLACEHOLDERS_MAX: Final = 8  # in one value: each is a group of a regular expression over what a peer sent
SAMPLE_CHARS_MAX: Final = 200
_SAMPLE: Final = re.compile(r"[^{}\\]*")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class BadTemplate(ValueError):  # noqa: N818 - it names what was found
    """A value with placeholders cannot be understood. The text says what to write instead."""


@attrs.frozen
class Placeholder:
    """One placeholder."""

    kind: str
    argument: str | None = None  # name, regular expression, seconds
    sample: str | None = None

    @property
    def key(self) -> str:
        """What it is bound under: "id:1"."""
        return f"{self.kind}:{self.argument}"

    @property
    def is_wild(self) -> bool:
        """Whether it takes values that nothing else pins down."""
        return self.kind in ("any", "int", "time")

    def __str__(self) -> str:
        """Return it as it stands in a cassette."""
        argument = "" if self.argument is None else f":{self.argument}"
        return f"${{{self.kind}{argument}{'' if self.sample is None else f'={self.sample}'}}}"


Template = tuple[str | Placeholder, ...]


def escape(text: str) -> str:
    """Return ``text`` so that no placeholder is seen in it."""
    return text.replace("${", "$${")


@functools.lru_cache(maxsize=8_192)
def parse_template(value: str) -> Template:
    """Return the literals (unescaped) and placeholders of ``value``.

    Raises:
        BadTemplate: a placeholder is none of those above.
    """
    if "${" not in value:
        return (value,) if value else ()
    parts: list[str | Placeholder] = []
    literal = ""
    position = 0
    while position < len(value):
        if value.startswith("$${", position):
            literal += "${"
            position += 3
        elif value.startswith("${", position):
            end = _closing_brace(value, position + 2)
            if literal:
                parts.append(literal)
                literal = ""
            parts.append(_parse_one(value[position + 2 : end]))
            position = end + 1
        else:
            literal += value[position]
            position += 1
    if literal:
        parts.append(literal)
    if sum(isinstance(part, Placeholder) for part in parts) > PLACEHOLDERS_MAX:
        raise BadTemplate(f"more than {PLACEHOLDERS_MAX} placeholders in one value")
    return tuple(parts)


def with_sample(kind: str, value: str) -> str:
    """Return a placeholder that takes anything of its kind and is sent as ``value``, where a sample can hold that."""
    usable = value and len(value) <= SAMPLE_CHARS_MAX and _SAMPLE.fullmatch(value)
    return str(Placeholder(kind, None, value if usable else None))


def is_literal(value: str) -> bool:
    """Whether there is no placeholder in ``value``."""
    return "${" not in value or all(isinstance(part, str) for part in parse_template(value))


_GROUP: Final = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\((?!\?)", re.DOTALL)


_ESCAPED: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_ODD_BRACE: Final = re.compile(r"\{(?!(?:\d+(?:,\d*)?|,\d+)\})[^}]*\}?")


@functools.lru_cache(maxsize=1_024)
def without_groups(pattern: str) -> str:
    """Return the pattern with its plain groups made non-capturing: it becomes a part of a larger one."""
    return _GROUP.sub(lambda found: "(?:" if found[0] == "(" else found[0], pattern)


def _check_pattern(pattern: str, inside: str) -> None:
    """Refuse what is no pattern, or none that can be a part of a larger one."""
    import regex  # here: it is 7 ms of a start, and few cassettes hold a pattern

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "possible nested set": it will mean something else one day
            re.compile(pattern)
            regex.compile(pattern)  # by this one it is matched
    except (re.error, regex.error, OverflowError, RecursionError, Warning) as error:
        raise BadTemplate(f"no regular expression in ${{{inside}}}: {error}") from None
    if odd := _ODD_BRACE.search(_ESCAPED.sub("", pattern)):
        # `re` takes it as it stands; `regex` for "about this", which would match nearly everything.
        raise BadTemplate(f"${{{inside}}}: {odd[0]} is no repetition; a brace that stands for itself is written \\{{")
    try:
        groups = re.compile(f"-(?:{without_groups(pattern)})").groups
    except re.error:
        groups = 1
    if groups:
        raise BadTemplate(
            f"${{{inside}}}: names, back-references and flags for the whole pattern cannot be used; "
            "write the text out, and (?i:...) for a flag"
        )


def _closing_brace(value: str, start: int) -> int:
    depth = 1
    position = start
    while position < len(value):
        match value[position]:
            case "\\":
                position += 1
            case "{":
                depth += 1
            case "}":
                depth -= 1
                if depth == 0:
                    return position
        position += 1
    raise BadTemplate("${ without its }; a literal ${ is written $${")


def _parse_one(inside: str) -> Placeholder:
    head = re.match(r"[a-z]+", inside)
    kind = head[0] if head else ""
    if kind not in KINDS:
        raise BadTemplate(f"unknown placeholder ${{{inside}}}; known are {', '.join(KINDS)}; a literal ${{ is $${{")
    rest = inside[len(kind) :]
    argument: str | None = None
    sample: str | None = None
    if kind == "any" and rest.startswith(":"):
        argument = rest[1:]
        _check_pattern(argument, inside)
    else:
        if rest.startswith(":"):
            argument, equals, given = rest[1:].partition("=")
            sample = given if equals else None
        elif rest.startswith("="):
            sample = rest[1:]
        elif rest:
            raise BadTemplate(f"${{{inside}}}: behind {kind} comes : or =")
    if kind in NAMED and (argument is None or not _NAME.fullmatch(argument)):
        raise BadTemplate(f"${{{inside}}}: {kind} needs a name of letters and digits, as in ${{{kind}:1}}")
    if kind in NAMED and sample is not None:
        raise BadTemplate(f"${{{inside}}}: {kind} has a value of its own and takes no sample")
    if kind == "time" and argument is not None and not re.fullmatch(r"[0-9]{1,6}", argument):
        raise BadTemplate(f"${{{inside}}}: behind time: comes a number of seconds")
    if kind == "int" and argument is not None:
        raise BadTemplate(f"${{{inside}}}: int takes no argument")
    return Placeholder(kind, argument, sample)
