"""Each fuzz target over its seeds and a bounded, seeded number of mutations; and that a target can fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
SEED_BYTES_MAX = 4_096
RUNS = {
    "cassette": 400,
    "control": 1_500,
    "doctor": 1_500,
    "hello": 3_000,
    "jid": 3_000,
    "opening": 1_500,
    "proxy_protocol": 3_000,
    "redact": 3_000,
    "sasl": 3_000,
    "session": 250,
    "socks": 3_000,
    "stream": 600,
    "trace": 200,
}


def run(name: str, *arguments: str, crashes: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FUZZ / f"fuzz_{name}.py"), *arguments, "--crashes", str(crashes)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_every_target_is_run() -> None:
    assert RUNS.keys() == {file.stem.removeprefix("fuzz_") for file in FUZZ.glob("fuzz_*.py")}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "runs"), RUNS.items())
def test_the_invariant_holds(name: str, runs: int, tmp_path: Path) -> None:
    done = run(name, "--engine", "mutate", "--seed", "1", "--runs", str(runs), crashes=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{runs} runs" in done.stdout


@pytest.mark.parametrize("name", RUNS)
def test_seeds_are_a_dozen_and_small(name: str) -> None:
    seeds = list((FUZZ / "corpus" / name).iterdir())
    assert 12 <= len(seeds) <= 24
    assert max(seed.stat().st_size for seed in seeds) <= SEED_BYTES_MAX


BROKEN_TARGET = """
import sys
sys.path.insert(0, {fuzz!r})
import harness

def check(data):
    assert b"juliet" not in data

sys.exit(harness.main("sasl", check, words=[b"juliet"], quick=100))
"""


@pytest.mark.slow
def test_a_failure_is_told_written_and_found_again(tmp_path: Path) -> None:
    target = tmp_path / "fuzz_broken.py"
    target.write_text(BROKEN_TARGET.format(fuzz=str(FUZZ)))

    def run_it(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(target), *arguments], capture_output=True, text=True, check=False)

    found = run_it("--engine", "mutate", "--seed", "1", "--runs", "2000", "--crashes", str(tmp_path / "crashes"))
    assert found.returncode == 1
    assert "sasl: FAILED, seed 1" in found.stdout
    assert "AssertionError" in found.stderr
    (crash,) = (tmp_path / "crashes").iterdir()
    again = run_it(str(crash))
    assert again.returncode == 1
    assert "AssertionError" in again.stderr


DIGEST_TARGET = """
import os, sys, zlib
sys.path.insert(0, {fuzz!r})
import harness

with harness.instrumented():
    from xproxy.jid import Jid, JidError

def check(data):
    with open(os.environ["TRIED"], "a") as file:
        print(zlib.crc32(data), file=file)
    try:
        Jid.from_text(data.decode("utf-8", "replace"))
    except JidError:
        pass

sys.exit(harness.main("jid", check, words=[b"@", b"/"], quick=300))
"""


@pytest.mark.slow
def test_quick_tries_the_same_inputs_each_time(tmp_path: Path) -> None:
    target = tmp_path / "fuzz_digest.py"
    target.write_text(DIGEST_TARGET.format(fuzz=str(FUZZ)))

    def tried() -> str:
        out = tmp_path / "tried"
        out.unlink(missing_ok=True)
        command = [sys.executable, str(target), "--quick", "--crashes", str(tmp_path)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "TRIED": str(out)}
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return out.read_text()

    first = tried()
    assert first.count("\n") >= 300
    assert tried() == first
