"""Which records an output shows."""

from xproxy.events import Level
from xproxy.record.recorder import Record


class LevelFilter:
    """Passes records of ``level`` and above. The level may be changed at any time, from any thread."""

    __slots__ = ("level",)

    def __init__(self, level: Level = Level.INFO) -> None:
        self.level = level

    def passes(self, record: Record) -> bool:
        """Return whether ``record`` is to be written."""
        return record.level >= self.level


def level_from_name(name: str) -> Level:
    """Return the level called ``name`` in the configuration ("debug" ... "critical").

    Raises: KeyError for any other name.
    """
    return Level[name.upper()]
