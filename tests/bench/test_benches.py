"""Every bench still runs: with --quick, whose figures are of no worth."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
REPORTING = ("relay", "setup", "idle", "scale", "soak", "xmpp")  # those that write NAME.json and NAME.svg


def needs() -> str | None:
    """Return what the benches need and is not here."""
    if shutil.which("gcc") is None or not Path("/usr/include/openssl/ssl.h").exists():
        return "gcc and libssl-dev are not installed"
    return next(
        (f"{name} is not installed" for name in ("sslsplit", "haproxy", "prosody") if not shutil.which(name)), None
    )


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("name", REPORTING)
def test_the_bench_runs(name: str, tmp_path: Path) -> None:
    if (reason := needs()) is not None:
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, str(BENCH / f"bench_{name}.py"), "--quick", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / f"{name}.json").read_text())
    assert document["bench"] == name
    assert document["quick"] is True
    assert document["machine"]["commit"]
    assert document["bars"]
    assert (tmp_path / f"{name}.svg").read_text().startswith("<svg")


@pytest.mark.slow
def test_the_bench_of_the_journal_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "bench_journal.py"), "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["verify"]["verdict"] == "intact"


@pytest.mark.slow
def test_the_bench_of_offline_replay_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "bench_offline.py"), "--mib", "4"], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert "capture: 4 MiB" in done.stdout
    assert "MiB early" in done.stdout


def test_every_bench_is_run_here() -> None:
    names = {path.stem.removeprefix("bench_") for path in BENCH.glob("bench_*.py")}
    assert names - {"core", "journal", "offline"} == set(REPORTING)  # those have tests of their own


@pytest.mark.slow
def test_the_bench_of_the_core_runs_against_another_checkout() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "bench_core.py"), "--quick", "--against", str(BENCH.parent)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()[1:]} == {"login", "message"}
