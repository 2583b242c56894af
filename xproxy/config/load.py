"""The configuration from its three layers, every problem found in one pass.

Command line beats environment beats file, and all beat what systemd hands over as credentials; a layer gives single
keys, so they mix freely. A problem is reported at the place that gave the value, and only values that count are judged.
"""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from xproxy.config import check
from xproxy.config.convert import from_text, make_converter
from xproxy.config.known import known_settings
from xproxy.config.options import (
    CONFIG_VARIABLE,
    CREDENTIALS,
    CREDENTIALS_VARIABLE,
    OPTIONS,
    READY_FILE_VARIABLE,
)
from xproxy.config.settings import Settings
from xproxy.config.toml import TomlFile, read_toml
from xproxy.errors import ConfigProblem, ConfigProblems, FileProblem
from xproxy.system import PORTABLE_VARIABLE

SYSTEM_FILE = Path("/etc/xproxy/xproxy.toml")
LOCAL_FILE = Path("xproxy.toml")

Key = tuple[str, str]  # section, key


@attrs.frozen(kw_only=True)
class Loaded:
    """Settings and where they came from."""

    settings: Settings
    file: Path | None
    advice: tuple[ConfigProblem, ...]  # what works, and is not what whoever wrote it can have meant


@attrs.frozen(kw_only=True)
class LookedThrough:
    """Settings with everything that is wrong about them."""

    settings: Settings  # where there are problems, reading a value that was refused raises NotKnown
    file: Path | None
    problems: tuple[ConfigProblem, ...]
    advice: tuple[ConfigProblem, ...]
    place: check.Place  # where a key got its value


@attrs.frozen(kw_only=True)
class _Given:
    """A raw value and the place it was given at."""

    value: object
    where: str
    directory: Path | None = None  # of the file: its relative paths count from there


def load(
    options: Mapping[str, object],
    environment: Mapping[str, str],
    *,
    config_file: Path | None = None,
    search: Iterable[Path] = (LOCAL_FILE, SYSTEM_FILE),
    need_upstream: bool = False,
) -> Loaded:
    """Return the settings.

    ``options`` maps ``Option.parameter`` to text, or to a tuple of texts for a list; None and () are not given.
    ``config_file`` must exist; without it $XPROXY_CONFIG, then the first of ``search`` that exists is read, if any.
    ``need_upstream``: that no server is named is a problem too.

    Raises:
        ConfigProblems: all that is wrong.
        FileProblem: the file cannot be read.
    """
    looked = look_through(options, environment, config_file=config_file, search=search, need_upstream=need_upstream)
    if looked.problems:
        raise ConfigProblems(list(looked.problems))
    return Loaded(settings=looked.settings, file=looked.file, advice=looked.advice)


def look_through(
    options: Mapping[str, object],
    environment: Mapping[str, str],
    *,
    config_file: Path | None = None,
    search: Iterable[Path] = (LOCAL_FILE, SYSTEM_FILE),
    need_upstream: bool = False,
) -> LookedThrough:
    """As ``load``, and return the problems beside what could be read all the same.

    Raises:
        ConfigProblems: the file is no TOML.
        FileProblem: the file cannot be read.
    """
    problems: list[ConfigProblem] = list(_unknown_variables(environment))
    toml = _find_file(config_file, environment, search)
    given: dict[Key, _Given] = {}
    if toml:
        problems += _take_file(toml, given)
    _take_environment(environment, given)
    _take_credentials(environment, given)
    _take_options(options, given)
    refused: set[Key] = set()
    settings = _build(given, problems, refused)

    def place(section: str, key: str) -> str:
        return given[section, key].where if (section, key) in given else f"{key} in [{section}]"

    if refused:
        settings = known_settings(settings, refused)
    problems += check.check(settings, place)
    if need_upstream and ("upstream", "address") not in given:
        hint = f"add --upstream HOST:PORT, or address in [upstream] of {toml.path if toml else 'a configuration file'}"
        problems.append(ConfigProblem(where="--upstream", message="no server is named", hint=hint))
    return LookedThrough(
        settings=settings,
        file=toml.path if toml else None,
        problems=tuple(problems),
        advice=tuple(check.advise(settings, place)),
        place=place,
    )


def section_types() -> dict[str, type[Any]]:
    """Return the class of each section, in the order of ``Settings``."""
    attrs.resolve_types(Settings)
    return {field.name: field.type for field in attrs.fields(Settings) if field.type is not None}


def section_fields(section: type[Any]) -> dict[str, "attrs.Attribute[Any]"]:
    """Return the keys of a section. A field without ``setting()`` is no key."""
    attrs.resolve_types(section)
    return {field.name: field for field in attrs.fields(section) if "why" in field.metadata}


def _find_file(config_file: Path | None, environment: Mapping[str, str], search: Iterable[Path]) -> TomlFile | None:
    if config_file is None and (from_environment := environment.get(CONFIG_VARIABLE)):
        config_file = Path(from_environment)
    if config_file:
        return read_toml(config_file)
    for path in search:
        try:
            return read_toml(path)
        except FileProblem as problem:
            if isinstance(problem.__cause__, FileNotFoundError | NotADirectoryError):
                continue
            raise  # a file that is there and cannot be read must not be passed over in silence
    return None


def _take_file(toml: TomlFile, given: dict[Key, _Given]) -> Iterator[ConfigProblem]:
    sections = {name: section_fields(type_) for name, type_ in section_types().items()}
    for name, table in toml.values.items():
        if name not in sections:
            yield _unknown(toml.place(name), name, sections, toplevel=True)
            continue
        if not isinstance(table, dict):
            yield ConfigProblem(
                where=toml.place(name),
                message=f"{name} is a section, not a key",
                hint=f"write [{name}] on a line of its own, its keys below ({', '.join(sections[name])})",
            )
            continue
        for key, value in table.items():
            if key not in sections[name]:
                yield _unknown(toml.place(name, key), key, sections, section=name)
            else:
                where = toml.place(name, key)
                given[name, key] = _Given(value=value, where=where, directory=toml.path.parent)


def _unknown(
    where: str, name: str, sections: Mapping[str, Mapping[str, Any]], *, section: str = "", toplevel: bool = False
) -> ConfigProblem:
    known = list(sections) if toplevel else list(sections[section])
    message = f"unknown {'section or key' if toplevel else 'key'} '{name}'{f' in [{section}]' if section else ''}"
    elsewhere = [other for other, keys in sections.items() if name in keys and other != section]
    if elsewhere:
        hint = f"it belongs into [{elsewhere[0]}]"
    elif near := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        hint = f"did you mean '{near[0]}'?"
    else:
        everywhere = {key: other for other, keys in sections.items() for key in keys}
        if nearest := difflib.get_close_matches(name, everywhere, n=1, cutoff=0.7):
            hint = f"did you mean '{nearest[0]}' in [{everywhere[nearest[0]]}]?"
        else:
            hint = f"known here: {', '.join(known)}"
    return ConfigProblem(where=where, message=message, hint=hint)


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[ConfigProblem]:
    """Yield variables that look like a slip of the pen for one of ours; others with our prefix are somebody else's."""
    known = [option.variable for option in OPTIONS] + [CONFIG_VARIABLE, READY_FILE_VARIABLE, PORTABLE_VARIABLE]
    for name in sorted(environment):
        if name.startswith("XPROXY_") and name not in known:
            # The prefix is alike in all of them and must not count.
            bare = {variable.removeprefix("XPROXY_"): variable for variable in known}
            if near := difflib.get_close_matches(name.removeprefix("XPROXY_"), bare, n=1, cutoff=0.7):
                yield ConfigProblem(
                    where=f"environment variable {name}",
                    message="unknown variable",
                    hint=f"did you mean {bare[near[0]]}?",
                )


def _take_environment(environment: Mapping[str, str], given: dict[Key, _Given]) -> None:
    for option in OPTIONS:
        if text := environment.get(option.variable):  # set but empty is not given, as everywhere
            value = from_text(text, _field(option.section, option.key).type)
            given[option.section, option.key] = _Given(value=value, where=f"environment variable {option.variable}")


def _take_credentials(environment: Mapping[str, str], given: dict[Key, _Given]) -> None:
    """Take the files that systemd hands over, where nothing else names one."""
    directory = environment.get(CREDENTIALS_VARIABLE)
    if not directory:
        return
    for credential in CREDENTIALS:
        path = Path(directory, credential.name)
        if (credential.section, credential.key) not in given and os.path.exists(path):
            where = f"credential {credential.name}"
            given[credential.section, credential.key] = _Given(value=str(path), where=where)


def _take_options(options: Mapping[str, object], given: dict[Key, _Given]) -> None:
    for option in OPTIONS:
        value = options.get(option.parameter)
        if value is not None and value != ():
            value = list(value) if isinstance(value, tuple) else value
            given[option.section, option.key] = _Given(value=value, where=option.flag)


def _build(given: Mapping[Key, _Given], problems: list[ConfigProblem], refused: set[Key]) -> Settings:
    """Return the settings made of what was given; add what was refused to ``problems``, its key to ``refused``."""
    converter = make_converter()
    values: dict[str, dict[str, object]] = {name: {} for name in section_types()}
    for (section, key), raw in given.items():
        field = _field(section, key)
        assert field.type is not None
        try:
            value = converter.structure(raw.value, field.type)
            _check_range(field, value)
        except (ValueError, TypeError) as error:
            name = "" if raw.where.startswith(("-", "environment")) else f"{key}: "
            problems.append(ConfigProblem(where=raw.where, message=f"{name}{error}"))
            refused.add((section, key))
            continue
        if isinstance(value, Path):
            value = value.expanduser()
            value = raw.directory / value if raw.directory else value
        values[section][key] = value
    return Settings(**{name: type_(**values[name]) for name, type_ in section_types().items()})


def _check_range(field: "attrs.Attribute[Any]", value: object) -> None:
    """Raise ValueError for a number that cannot be meant. A limit below one would stop everything."""
    if field.validator is not None:
        try:
            field.validator(None, field, value)
        except ValueError as error:
            # attrs says "'name' must be >= 8: 3"
            raise ValueError(str(error).removeprefix(f"'{field.name}' ").replace(": ", ", not ")) from error
    elif type(value) is int and value < 1:
        raise ValueError(f"must be at least 1, not {value}")
    elif type(value) is float and value <= 0:
        raise ValueError(f"must be above 0, not {value}")


def _field(section: str, key: str) -> "attrs.Attribute[Any]":
    return section_fields(section_types()[section])[key]
