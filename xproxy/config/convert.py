"""Values of TOML, of the environment and of the command line into the types of the settings.

cattrs does it, made strict: ``"5"`` is no number and ``true`` is not 1. Errors are sentences for the operator.
"""

import difflib
import functools
import ipaddress
import math
import operator
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import cattrs

from xproxy.config.address import HostPort
from xproxy.config.listen import ListenAddress, ListenKind, Network
from xproxy.config.upstream import UpstreamAddress, parse_nameserver, parse_upstream

_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
}


def make_converter() -> cattrs.Converter:
    """Return the converter. It raises ``ValueError`` with a sentence, and knows only the types settings have."""
    converter = cattrs.Converter(detailed_validation=False, forbid_extra_keys=True)
    converter.register_structure_hook(bool, lambda value, _: _only(value, bool))
    converter.register_structure_hook(int, lambda value, _: _only(value, int))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(Path, lambda value, _: Path(_text(value)))
    # Listening addresses and the server have types of their own: what is left are name servers.
    converter.register_structure_hook(HostPort, lambda value, _: parse_nameserver(_text(value)))
    converter.register_structure_hook_func(
        lambda type_: type_ == UpstreamAddress, lambda value, _: parse_upstream(_text(value))
    )
    converter.register_structure_hook(ListenAddress, lambda value, _: _listen_address(converter, value))
    converter.register_structure_hook_func(lambda type_: type_ == Network, _network)
    converter.register_structure_hook_func(_is_choice, _choice)
    converter.register_structure_hook_func(_is_optional, lambda value, t: _optional(converter, value, t))
    converter.register_structure_hook_func(_is_list, lambda value, t: _list(converter, value, t))
    return converter


def from_text(text: str, type_: Any) -> object:
    """Return ``text``, from the environment or the command line, as TOML would have given it for ``type_``."""
    if _is_list(type_):
        return text.replace(",", " ").split()
    if type_ is int and text.strip().isdecimal():
        return int(text)
    if type_ is bool and text in ("true", "false"):
        return text == "true"
    return text


def _only(value: object, type_: type) -> Any:
    if type(value) is not type_:  # bool is an int to isinstance
        raise ValueError(f"must be {_NAMES[type_]}, not {_describe(value)}")
    return value


def _number(value: object, _: Any = None) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"must be a number, not {_describe(value)}")
    return float(value)  # type: ignore[arg-type]


def _text(value: object, _: Any = None) -> str:
    text: str = _only(value, str)
    if not text.strip():
        raise ValueError("must not be empty")
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    return text


def _choice(value: object, type_: Any) -> object:
    allowed = get_args(type_)
    if value not in allowed:
        raise ValueError(f"must be {_one_of(allowed)}, not {_describe(value)}")
    return value


def _optional(converter: cattrs.Converter, value: object, type_: Any) -> object:
    # "-" takes a value back that the file gave, and is how programs name standard output.
    if value is None or value == "-":
        return None
    inner = functools.reduce(operator.or_, (t for t in get_args(type_) if t is not type(None)))
    return converter.structure(value, inner)


def _list(converter: cattrs.Converter, value: object, type_: Any) -> object:
    items = value if isinstance(value, list) else [value]
    if not items or not isinstance(value, list | str | dict | int):
        raise ValueError(f"must be a list with at least one entry, not {_describe(value)}")
    inner = get_args(type_)[0]
    entries, problems = [], []
    for item in items:
        try:
            entries.append(converter.structure(item, inner))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(entries)


def _listen_address(converter: cattrs.Converter, value: object) -> ListenAddress:
    """Return the address of a text or of a table with ``address``, ``kind`` and ``trusted``."""
    if not isinstance(value, dict):
        return ListenAddress.from_text(_text(value))
    keys = {"address": ListenAddress, "kind": str, "trusted": tuple[Network, ...]}
    for key in value:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, n=1)
            raise ValueError(
                f"unknown key {key!r} of an address: " + (f"did you mean {near[0]!r}?" if near else _known(keys))
            )
    if "address" not in value:
        raise ValueError('an address as a table needs its address, as in { address = "[::]:5222" }')
    found: ListenAddress = converter.structure(value["address"], ListenAddress)
    kind: ListenKind = found.kind
    trusted: tuple[Network, ...] | None = None
    if "kind" in value:
        words = tuple(kind.value for kind in ListenKind)
        if value["kind"] not in words:
            raise ValueError(f"kind must be {_one_of(words)}, not {_describe(value['kind'])}")
        kind = ListenKind(value["kind"])
        if found.kind not in (ListenKind.PLAIN, kind):
            raise ValueError(f"{found} is not of kind {kind.value}: leave one of the two away")
    if "trusted" in value:
        trusted = converter.structure(value["trusted"], keys["trusted"])
    return ListenAddress(found.host, found.port, kind, trusted)


def _network(value: object, _: Any = None) -> Network:
    text = _text(value)
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no network: write one as 192.0.2.0/24 or 2001:db8::/32") from None
    raise ValueError(f"{text!r} has bits behind its prefix: write {meant}, or {text.partition('/')[0]} for that one")


def _known(keys: Mapping[str, object]) -> str:
    return f"known are {', '.join(keys)}"


def _is_choice(type_: Any) -> bool:
    origin: Any = get_origin(type_)
    return origin is Literal


def _is_list(type_: Any) -> bool:
    return get_origin(type_) is tuple


def _is_optional(type_: Any) -> bool:
    return get_origin(type_) in (Union, types.UnionType) and type(None) in get_args(type_)


def _describe(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return "a list" if value else "an empty list"
        case dict():
            return "a table"
        case _:
            return repr(value)


def _one_of(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
