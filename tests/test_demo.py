"""The demo: what it shows, what it leaves, and that it comes to an end."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests.support.canary import Canary
from xproxy import demo
from xproxy.errors import EnvironmentProblem, FileProblem
from xproxy.record.schema import event_schema

SECONDS_MAX = 15.0  # what is promised to somebody who just installed it


async def play(directory: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Play the demo; return the records it showed and the titles of its scenes."""
    records: list[dict[str, Any]] = []
    titles: list[str] = []
    log = await demo.run_demo(
        directory,
        show=lambda _line, document: records.append(document),
        narrate=lambda _number, scene: titles.append(scene.title),
    )
    assert log == directory / "records.jsonl"
    return records, titles


def field(record: dict[str, Any], path: str) -> Any:
    for name in path.split("."):
        record = record[name]
    return record


def only(records: list[dict[str, Any]], action: str) -> dict[str, Any]:
    (found,) = [record for record in records if record["event"]["action"] == action]
    return found


@pytest.mark.slow
async def test_the_demo_shows_what_it_promises(tmp_path: Path) -> None:
    records, titles = await play(tmp_path / "new")
    assert titles == [scene.title for scene in demo.SCENES]
    count = Counter(record["event"]["action"] for record in records)
    assert [record["event"]["action"] for record in records[:2]] == ["journal-opened", "proxy-started"]
    assert [record["event"]["sequence"] for record in records] == list(range(1, len(records) + 1))
    assert records[-1]["event"]["action"] == "proxy-stopped"
    assert count["connection-accepted"] == count["connection-closed"] == sum(s.sessions for s in demo.SCENES) == 7
    assert count["sasl-succeeded"] == 6
    assert count["resource-bound"] == 5

    failed = only(records, "sasl-failed")
    assert field(failed, "error.code") == "not-authorized"
    assert field(failed, "xmpp.jid").startswith("romeo@verona.example")
    error = only(records, "stanza-error")
    assert field(error, "error.code") == "service-unavailable"
    assert field(error, "xmpp.jid") == "juliet@verona.example/balcony"
    assert field(only(records, "session-resumed"), "xmpp.sm.id_hash") == field(
        only(records, "sm-enabled"), "xmpp.sm.id_hash"
    )
    # Nothing the demo did not mean to show.
    assert not {"stream-violation", "inspection-lost", "tls-failed", "upstream-failed", "relay-crashed"} & count.keys()
    assert {field(r, "xproxy.upstream.verify") for r in records if r["event"]["action"] == "session-established"} == {
        "ok"
    }

    schema = Draft202012Validator(event_schema())
    for record in records:
        schema.validate(record)

    canary = Canary()
    for user, password in demo.PASSWORDS.items():
        canary.register(f"password of {user}", password)
    canary.register("wrong password", demo.WRONG_PASSWORD)
    for body in (demo.WHEREFORE, demo.SHALL_I, demo.MY_SWEET):
        canary.register("body", body)
    assert canary.search([tmp_path]) == []


@pytest.mark.slow
async def test_what_is_shown_is_what_the_log_holds(tmp_path: Path) -> None:
    records, _ = await play(tmp_path)
    lines = (tmp_path / "records.jsonl").read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == records


@pytest.mark.slow
async def test_an_error_of_a_scene_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    async def fails(stage: demo.Stage) -> None:
        async with stage.client() as client:
            await client.login("romeo", "wrong")

    scene = demo.Scene(title="T", about="", play=fails, sessions=1)
    monkeypatch.setattr(demo, "SCENES", (scene,))
    with pytest.raises(EnvironmentProblem, match="could not play 'T': login failed: not-authorized"):
        await play(tmp_path)


async def test_a_log_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text("precious")
    with pytest.raises(FileProblem, match="is there already"):
        await play(tmp_path)
    assert (tmp_path / "records.jsonl").read_text() == "precious"


async def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileProblem, match="cannot make the demo's directory"):
        await play(tmp_path / "file" / "below")


async def test_records_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "RECORDS_SECONDS_MAX", 0.05)
    monkeypatch.setattr(demo, "POLL_SECONDS", 0.0)
    shown: list[bytes] = []
    lines = iter([b'{"event":{"action":"a"}}\n{"event":', b'{"action":"a"}}\n'])
    follower = demo.Follower(lambda: next(lines, b""), lambda line, _: shown.append(line))
    await follower.until("a", 2)
    assert len(shown) == 2
    with pytest.raises(EnvironmentProblem, match="shows 2 of 3 records a"):
        await follower.until("a", 3)


def run_command(tmp_path: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XPROXY_")}
    return subprocess.run(
        [sys.executable, "-m", "xproxy", "demo", *map(str, arguments)],
        env=environment | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.getcwd()},
        cwd=tmp_path,
        timeout=SECONDS_MAX,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_piped_it_is_pure_json_lines(tmp_path: Path) -> None:
    outcome = run_command(tmp_path)
    assert outcome.returncode == 0
    actions = [json.loads(line)["event"]["action"] for line in outcome.stdout.splitlines()]
    assert (actions[0], actions[1], actions[-1]) == ("journal-opened", "proxy-started", "proxy-stopped")
    assert "1/4 Two clients log in and talk\n" in outcome.stderr
    # It says where the log is, in a directory of its own.
    (log,) = tmp_path.glob("xproxy-demo-*/records.jsonl")
    assert f"xproxy: the log is {log}\n" in outcome.stderr
    assert log.read_text() == outcome.stdout


@pytest.mark.slow
def test_for_people_headings_stand_between_the_lines(tmp_path: Path) -> None:
    outcome = run_command(tmp_path, "--log-format", "human", "--dir", tmp_path / "here")
    assert outcome.returncode == 0
    lines = outcome.stdout.splitlines()
    wrong, error = lines.index("2/4 A wrong password"), lines.index("3/4 A request that earns an error")
    assert any(" sasl-failed " in line for line in lines[wrong:error])
    assert not any(" sasl-failed " in line for line in lines[:wrong] + lines[error:])
    assert any(" stanza-error " in line for line in lines[error:])
    assert outcome.stderr.startswith(f"xproxy: the log is {tmp_path / 'here' / 'records.jsonl'}\n")
    assert "\x1b" not in outcome.stdout


@pytest.mark.slow
def test_a_used_directory_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").touch()
    outcome = run_command(tmp_path, "--dir", tmp_path)
    assert (outcome.returncode, outcome.stdout) == (3, "")
    assert "is there already" in outcome.stderr
    assert "Traceback" not in outcome.stderr
