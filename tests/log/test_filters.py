import pytest

from xproxy.events import Level
from xproxy.log.filters import LevelFilter, level_from_name
from xproxy.record.recorder import Record


def test_a_level_passes_itself_and_what_is_worse():
    levels = LevelFilter()
    assert [level for level in Level if levels.passes(Record({}, level, "x"))] == list(Level)[1:]
    levels.level = Level.ERROR
    assert [level for level in Level if levels.passes(Record({}, level, "x"))] == [Level.ERROR, Level.CRITICAL]


def test_names_are_those_of_the_configuration():
    assert [level_from_name(name) for name in ("debug", "info", "warning", "error", "critical")] == list(Level)
    with pytest.raises(KeyError):
        level_from_name("verbose")
