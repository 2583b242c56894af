"""What the command line adds to a replay: the cassette that is taken over."""

import json
from pathlib import Path

import attrs
import pytest

from xproxy.capture.cassette import Cassette
from xproxy.capture.cassette_xml import read_cassette
from xproxy.cli.replay_live import Acceptance, _run
from xproxy.errors import FileProblem
from xproxy.replay.report import Case, Report

CASSETTES = Path(__file__).parents[1] / "vectors" / "cassettes"


@attrs.frozen
class Played:
    """An engine at its end."""

    cassette: Cassette

    def accepted(self) -> Cassette:
        return attrs.evolve(self.cassette, events=self.cassette.events[:-1])


def test_a_cassette_that_cannot_be_written_costs_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def play() -> Report:
        return Report(name="xproxy replay server", cases=(Case(name="session 1", file="a"),))

    acceptance = Acceptance(tmp_path / "gone" / "a.xmpp.xml")
    acceptance.take(Played(read_cassette(next(CASSETTES.rglob("*.xmpp.xml")))))  # type: ignore[arg-type]
    with pytest.raises(FileProblem):
        _run(play, "json", None, acceptance)
    assert json.loads(capsys.readouterr().out)["cases"][0]["outcome"] == "passed"
