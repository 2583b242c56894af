"""Settings of which some values were refused: what is known is judged all the same.

In the place of a refused value stands a default that nobody asked for, and no check may see it. So reading one raises
``NotKnown``, and a check that comes upon one has said what it can (``as_far_as_known``). Nothing lists which check
needs which key, so no such list can be wrong.
"""

import contextlib
from collections.abc import Container, Iterator
from typing import Any, TypeVar, cast

import attrs

from xproxy.config.settings import Settings

T = TypeVar("T")


class NotKnown(Exception):  # noqa: N818 - it is no accident: the one who reads it stops there
    """The value was refused, which has been said."""

    def __init__(self, section: str, key: str) -> None:
        super().__init__(f"{key} in [{section}]")


class _Section:
    """A section of the settings, but for the keys that were refused."""

    def __init__(self, name: str, values: Any, refused: Container[tuple[str, str]]) -> None:
        self._name = name
        self._values = values
        self._refused = refused

    def __getattr__(self, key: str) -> Any:
        if (self._name, key) in self._refused:
            raise NotKnown(self._name, key)
        member = getattr(type(self._values), key, None)
        if isinstance(member, property) and member.fget is not None:
            return member.fget(self)  # what it is made of may have been refused
        return getattr(self._values, key)


def known_settings(settings: Settings, refused: Container[tuple[str, str]]) -> Settings:
    """Return ``settings``, from which reading a ``refused`` value (section, key) raises ``NotKnown``.

    It is for reading attributes alone: attrs' own functions see the defaults.
    """
    sections = {name: _Section(name, getattr(settings, name), refused) for name in attrs.fields_dict(Settings)}
    return Settings(**cast(dict[str, Any], sections))


def as_far_as_known(found: Iterator[T]) -> Iterator[T]:
    """Yield what ``found`` does before it comes upon a value that was refused."""
    with contextlib.suppress(NotKnown):
        yield from found
