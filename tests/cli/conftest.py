"""The real command line, as a subprocess."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

SECONDS_MAX = 30.0  # a hang is a failure, not a wait for ever


@attrs.frozen
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


RunXproxy = Callable[..., Outcome]
StartXproxy = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing of this machine's user counts."""
    told = ("XPROXY_", "GITHUB_", "CI")  # a job of CI prints for people, by itself
    kept = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    return kept | {"XDG_STATE_HOME": str(tmp_path / "xdg"), "COLUMNS": "200", "PYTHONPATH": os.getcwd()}


@pytest.fixture
def start_xproxy(tmp_path: Path, environment: dict[str, str]) -> Iterator[StartXproxy]:
    """Start ``xproxy ARGUMENTS`` in ``tmp_path``; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **more: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "xproxy", *map(str, arguments)],
            cwd=tmp_path,
            env=environment | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def xproxy(start_xproxy: StartXproxy) -> RunXproxy:
    """Run ``xproxy ARGUMENTS`` to its end. No outcome has a traceback, whatever else it has."""

    def run(*arguments: object, **more: str) -> Outcome:
        process = start_xproxy(*arguments, **more)
        out, err = process.communicate(timeout=SECONDS_MAX)
        assert "Traceback" not in err, err
        return Outcome(process.returncode, out, err)

    return run
