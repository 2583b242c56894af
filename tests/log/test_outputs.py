"""What [log] asks for is opened, and what could not be written is no success."""

from pathlib import Path
from typing import Any

import pytest

from xproxy.config.address import HostPort
from xproxy.config.log import LogSettings
from xproxy.errors import EnvironmentProblem
from xproxy.log.channel import RecordChannel
from xproxy.log.filters import LevelFilter
from xproxy.log.jsonl import JsonLinesFile
from xproxy.log.outputs import open_log, open_outputs
from xproxy.log.view import HumanView


@pytest.mark.parametrize(
    ("path", "format_", "terminal", "types"),
    [
        (False, "auto", True, [HumanView]),
        (False, "auto", False, [JsonLinesFile]),
        (False, "json", True, [JsonLinesFile]),
        (False, "human", False, [HumanView]),
        (True, "auto", True, [JsonLinesFile, HumanView]),
        (True, "auto", False, [JsonLinesFile]),
        (True, "json", True, [JsonLinesFile]),
        (True, "human", False, [JsonLinesFile, HumanView]),
    ],
)
def test_what_is_shown_where(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: bool,
    format_: Any,
    terminal: bool,
    types: list[type],
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    settings = LogSettings(path=tmp_path / "log" if path else None, format=format_)
    outputs = list(open_outputs(settings))
    for output in outputs:
        output.close()
    assert [type(output) for output in outputs] == types


async def test_records_that_could_not_be_written_are_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = RecordChannel.close
    monkeypatch.setattr("xproxy.log.channel.RecordChannel.close", lambda self: close(self) + 3)
    with (
        pytest.raises(EnvironmentProblem, match="3 records could not be written to"),
        open_log(LogSettings(path=tmp_path / "log"), LevelFilter(), HostPort("127.0.0.1", 9), lambda: None),
    ):
        pass
