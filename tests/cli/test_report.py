import datetime
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from lxml import etree

from xproxy.cli.report import emit, render_human, report_options, stamped
from xproxy.errors import FileProblem
from xproxy.replay.report import Case, Failure, FailureKind, Report, to_json

FAILURE = Failure(kind=FailureKind.MISMATCH, message="it differs", detail="- a\n+ b\n::error::x", line=7)
REPORT = Report(
    name="xproxy replay server",
    cases=(Case(name="session 1", file="a.xmpp.xml", line=3, failures=(FAILURE,)), Case(name="session 2", file="b")),
)


@click.command()
@report_options
def command(format_: str, junit: Path | None) -> None:
    raise SystemExit(emit(REPORT, format_, junit))  # type: ignore[arg-type]


def test_piped_it_is_json() -> None:
    result = CliRunner().invoke(command, [], env={"CI": None, "GITHUB_ACTIONS": None})
    assert result.exit_code == 1
    assert [case["outcome"] for case in json.loads(result.stdout)["cases"]] == ["failed", "passed"]


def test_for_a_person_it_has_place_and_diff() -> None:
    result = CliRunner().invoke(command, ["--format", "human"])
    lines = result.stdout.splitlines()
    assert lines[0].startswith("FAIL session 1  a.xmpp.xml:3")
    assert lines[1:4] == ["  Mismatch: it differs", "  at a.xmpp.xml:7", "    - a"]
    assert lines[-1] == "xproxy replay server: 1 passed, 1 failed"


def test_on_github_there_are_annotations_and_a_summary(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    result = CliRunner().invoke(command, [], env=environment)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("::stop-commands::")
    end = lines.index(f"::{lines[0].rpartition('::')[2]}::")
    assert any("::error::x" in line for line in lines[:end])
    assert lines[end + 1 :] == ["::error file=a.xmpp.xml,line=7,title=Mismatch in session 1::it differs"]
    assert "| session 1 |" in summary.read_text()


def test_junit_is_written_beside_whatever_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    CliRunner().invoke(command, ["--junit", str(path), "--format", "human"])
    assert len(etree.parse(path).findall(".//testcase")) == 2


def test_an_unwritable_junit_file_is_said(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--junit", str(tmp_path / "none" / "junit.xml")])
    assert "cannot write the JUnit file" in str(result.exception)


@pytest.mark.parametrize("zone", [datetime.UTC, datetime.timezone(datetime.timedelta(hours=2))])
def test_times_are_utc(zone: datetime.tzinfo) -> None:
    started = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC).astimezone(zone)
    report = stamped(REPORT, started, started + datetime.timedelta(seconds=1.5))
    assert (report.started, report.seconds) == ("2026-01-01T12:00:00Z", 1.5)


def test_text_of_a_peer_makes_no_line_of_its_own_and_no_control() -> None:
    failure = Failure(
        kind=FailureKind.MISMATCH, message="m", detail="+ a\u2028::add-mask::b\x85::error::c\u009b31m\u202e"
    )
    report = Report(name="replay", cases=(Case(name="s", file="f", failures=(failure,)),))
    lines = render_human(report).plain.split("\n")
    assert lines[3] == "    + a\\u2028::add-mask::b\\x85::error::c\\x9b31m\\u202e"
    assert not [line for line in render_human(report).plain.splitlines() if line.lstrip().startswith("::")]


def test_the_result_is_said_where_the_junit_file_cannot_be_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--format", "human", "--junit", str(tmp_path / "no" / "junit.xml")])
    assert "Mismatch: it differs" in result.stdout
    assert isinstance(result.exception, FileProblem)


def test_what_was_let_pass_is_shown_in_every_form() -> None:
    report = Report(name="r", cases=(Case(name="session 1", file="a", notes=("it left otherwise",)),))
    assert render_human(report).plain.splitlines()[1] == "  let pass: it left otherwise"
    assert to_json(report)["cases"][0]["notes"] == ["it left otherwise"]
    assert report.scrubbed(lambda text: text.replace("otherwise", "***")).cases[0].notes == ("it left ***",)
