"""README's worked example of a cassette: recorded, committed, replayed by the lines of both CI jobs, as written."""

import datetime
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import profanity
from tests.support.canary import Canary
from tests.support.mint import Mint
from tests.support.pages import Block, Stage, blocks
from tests.support.ports import free_ports
from tests.support.prosody import running_prosody

pytestmark = [pytest.mark.integration("prosody", "profanity", "script"), pytest.mark.slow]

TITLE = "Conversations replayed to clients and servers"
PASSWORD = "but-soft"
INSTALLS = re.compile(r"apt-get |python3 -m venv ")  # what a machine of a test has already
SECONDS_MAX = 120.0


@pytest.fixture
def stage(tmp_path: Path, mint: Mint) -> Iterator[Stage]:
    """A repository with the page's files, and a Prosody that has the page's account."""
    if reason := profanity.missing():
        pytest.skip(reason)
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=30)
    leaf = mint.leaf("example.org", label="replay-page", not_after=end)
    (public,) = free_ports(1)
    (tmp_path / "server").mkdir()
    running = running_prosody(tmp_path / "server", domain="example.org", leaf=leaf, passwords={"romeo": PASSWORD})
    with running as server:
        stage = Stage(tmp_path / "repository", {5222: public, 15222: server.starttls_port}, mint.ca_file)
        stage.root.mkdir()
        for block in blocks(TITLE):
            if (path := path_of(block)) is not None:
                (stage.root / path).parent.mkdir(parents=True, exist_ok=True)
                (stage.root / path).write_text(stage.real(block.text))
        yield stage


def path_of(block: Block) -> str | None:
    """Where a file of the repository goes: its first line says so."""
    found = re.match(r"# (\.?[\w./-]+)\n", block.text)
    return found[1] if found else None


def script_of(stage: Stage, name: str) -> list[str]:
    """Return the commands of a job, without those that install."""
    text = (stage.root / name).read_text()
    found = re.findall(r"^ +- (?:run: )?(?!uses:)(.*)$", text, re.MULTILINE)
    commands = [command for command in found if not INSTALLS.match(command)]
    assert commands == ["sh ci/replay.sh"], found
    return commands


def play(stage: Stage, name: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a job's script."""
    return subprocess.run(
        "set -e\n" + "\n".join(script_of(stage, name)),
        shell=True,
        cwd=stage.root,
        env=stage.environment | {"CI": "true"} | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )


def test_a_login_is_recorded_and_replayed_in_both_jobs(stage: Stage, canary: Canary) -> None:
    (record,) = (block for block in blocks(TITLE) if "--capture-bodies" in block.text)
    run, login, make, check = record.commands
    with stage.running(run):
        stage.run(login)
    stage.run(make)
    assert "ok, 1 sessions" in stage.run(check)
    cassette = stage.root / "ci/login.xmpp.xml"
    secrets = Canary()
    secrets.register("the password", PASSWORD)
    assert not secrets.search([cassette])

    done = play(stage, ".gitlab-ci.yml", GITLAB_CI="true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS session romeo" in done.stdout
    assert (stage.root / "replay.xml").read_text().count("<testcase") == 1

    summary = stage.root / "summary.md"
    told = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    done = play(stage, ".github/workflows/replay.yml", **told)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| session romeo |" in summary.read_text()

    # The client changes: another query in place of one that was recorded.
    changed = cassette.read_text().replace("storage:bookmarks", "storage:rosternotes", 1)
    assert changed != cassette.read_text()
    cassette.write_text(changed)
    done = play(stage, ".github/workflows/replay.yml", **told)
    assert done.returncode == 1, done.stdout + done.stderr
    (annotation,) = re.findall(r"^::error file=ci/login\.xmpp\.xml,line=(\d+),title=(.*)::", done.stdout, re.MULTILINE)
    assert annotation[1] == "Mismatch in session romeo"
    assert "storage:rosternotes" in "\n".join(changed.splitlines()[int(annotation[0]) - 1 :][:6])
    assert not secrets.search([stage.root / "replay.xml", summary])
    assert PASSWORD not in done.stdout + done.stderr
