"""Every key with default, unit and reason, as a TOML file that says the defaults."""

import textwrap
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import attrs

from xproxy.config.address import HostPort
from xproxy.config.listen import ListenAddress
from xproxy.config.load import section_fields, section_types
from xproxy.config.options import CONFIG_VARIABLE, OPTIONS
from xproxy.config.settings import Settings

_WIDTH = 110
_INTRODUCTION = f"""\
xproxy configuration. Every key stands here with its default; keep the lines you change.
Read from -c FILE, else ${CONFIG_VARIABLE}, else ./xproxy.toml, else /etc/xproxy/xproxy.toml.
The command line beats the environment, which beats this file. Relative paths count from this file's directory.
"""


def render_example() -> str:
    """Return the example file. Loaded back it gives the defaults."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from _comment(_INTRODUCTION)
    options = {(option.section, option.key): option for option in OPTIONS}
    for name, type_ in section_types().items():
        yield ""
        yield f"[{name}]"
        yield from _comment(" ".join((type_.__doc__ or "").split()))
        for key, field in section_fields(type_).items():
            yield ""
            yield from _comment(f"{field.metadata['why']} ({field.metadata['unit']})")
            if option := options.get((name, key)):
                yield f"# also {option.flag}, {option.variable}"
            yield _assignment(name, key, field)


def _assignment(section: str, key: str, field: "attrs.Attribute[Any]") -> str:
    default = getattr(getattr(Settings(), section), key)
    # A default that depends on the machine is not written down as if it were fixed.
    if default is None or default == () or isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
        return f"# {key} = {_toml(field.metadata.get('example') or '')}"
    return f"{key} = {_toml(default)}"


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return f"{value:_}"
        case float():
            return repr(value)
        case str() | Path() | HostPort() | ListenAddress() | IPv4Network() | IPv6Network():
            return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
        case tuple() | list():
            # Numbers in a list are names of a kind: ports.
            return f"[{', '.join(str(item) if type(item) is int else _toml(item) for item in value)}]"
        case _:
            raise AssertionError(f"no TOML for {type(value)}")


def _comment(text: str) -> Iterator[str]:
    for paragraph in text.splitlines():
        for line in textwrap.wrap(paragraph, _WIDTH):
            yield f"# {line}"
