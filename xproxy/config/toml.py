"""A TOML file with the line of every key.

``tomllib`` gives values without places. The places are found by a second, shallow look at the text: headers and
``key =`` at the start of a line, quoted and dotted keys included, the insides of multi-line strings skipped. A key
inside an inline table is placed at the line of the nearest key around it.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import attrs

from xproxy.errors import ConfigProblem, ConfigProblems, FileProblem

KeyPath = tuple[str, ...]

_PART = r"""[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'"""
_DOTTED = rf"(?:{_PART})(?:\s*\.\s*(?:{_PART}))*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=(.*)", re.DOTALL)
_PARTS = re.compile(_PART)
_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_AT_END = " (at end of document)"


@attrs.frozen(kw_only=True)
class TomlFile:
    """A parsed file."""

    path: Path
    values: dict[str, Any]
    lines: dict[KeyPath, int]  # 1-based

    def place(self, *key: str) -> str:
        """Return ``FILE:LINE`` of ``key``, of what is around it if its own line is not known, else ``FILE``."""
        for length in range(len(key), 0, -1):
            if line := self.lines.get(key[:length]):
                return f"{self.path}:{line}"
        return str(self.path)


def read_toml(path: Path) -> TomlFile:
    """Read ``path``.

    Raises:
        FileProblem: it cannot be read.
        ConfigProblems: it is not TOML.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileProblem.from_os_error(error, doing="read the configuration file", path=path) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = ConfigProblem(where=f"{path}:{line}", message="not UTF-8", hint="save the file as UTF-8")
        raise ConfigProblems([problem]) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigProblems([_syntax_problem(path, text, str(error))]) from error
    return TomlFile(path=path, values=values, lines=find_lines(text))


def find_lines(text: str) -> dict[KeyPath, int]:
    """Return the line at which each key and each section of valid TOML first stands."""
    lines: dict[KeyPath, int] = {}
    section: KeyPath = ()
    inside: str | None = None  # the quotes that end the multi-line string we are in
    for number, line in enumerate(text.splitlines(), start=1):
        if inside:
            inside = None if inside in line else inside
            continue
        if header := _HEADER.match(line):
            section = _split(header[1])
            lines.setdefault(section, number)
        elif key := _KEY.match(line):
            path = section + _split(key[1])
            for length in range(len(section) + 1, len(path) + 1):
                lines.setdefault(path[:length], number)
            inside = _opens_multiline(key[2])
    return lines


def _split(dotted: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in _PARTS.findall(dotted))


def _opens_multiline(value: str) -> str | None:
    for quotes in ('"""', "'''"):
        before, found, after = value.partition(quotes)
        if found and not before.strip(" \t[") and quotes not in after:
            return quotes
    return None


def _syntax_problem(path: Path, text: str, message: str) -> ConfigProblem:
    lines = text.splitlines()
    if place := _AT_LINE.search(message):
        number, column = int(place[1]), int(place[2])
        message = message[: place.start()]
    else:
        number, column = max(len(lines), 1), 0
        message = message.removesuffix(_AT_END) + " at the end of the file"
    found = lines[number - 1].strip() if number <= len(lines) else ""
    where = f"{path}:{number}:{column}" if column else f"{path}:{number}"
    shown = f", in {_shorten(found)}" if found else ""
    hint = "not valid TOML (https://toml.io)"
    if message == "Invalid value":  # the one mistake everybody makes, and the parser does not name it
        hint = 'not valid TOML: text needs quotes, as in address = "xmpp.example.org:5222"'
    return ConfigProblem(where=where, message=f"{message[:1].lower()}{message[1:]}{shown}", hint=hint)


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
