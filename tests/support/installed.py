"""xproxy as an operator installs it: a wheel of this tree, by pipx, for Debian's Python, where anybody may read it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"


def missing() -> str | None:
    """Return why it cannot be installed here; None: it can."""
    for program in ("pipx", PYTHON):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not os.access("/opt", os.W_OK):
        return "/opt cannot be written"
    return None


def copy_source(directory: Path) -> Path:
    """Copy what is installed of this tree, and return the copy: an installation leaves things beside its source."""
    shutil.copytree(ROOT / "xproxy", directory / "xproxy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, directory / name)
    return directory


def build_wheel(directory: Path) -> Path:
    """Build a wheel from a copy of this tree, which stays as it is, and return it."""
    source = copy_source(directory / "source")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps"]
    subprocess.run([*command, "-w", str(directory), str(source)], check=True)
    (wheel,) = directory.glob("xproxy-*.whl")
    return wheel


@contextmanager
def installed_by_pipx() -> Iterator[Path]:
    """Install into a directory of its own below /opt, and give the path of the program. All of it goes at the end."""
    with tempfile.TemporaryDirectory(prefix="xproxy-test-", dir="/opt") as name:
        home = Path(name)
        home.chmod(0o755)
        with tempfile.TemporaryDirectory(prefix="xproxy-wheel-") as build:
            wheel = build_wheel(Path(build))
            environment = os.environ | {"PIPX_HOME": str(home / "pipx"), "PIPX_BIN_DIR": str(home / "bin")}
            constraints = f"--pip-args=-c {ROOT / 'tests' / 'constraints.txt'}"
            command = ["pipx", "install", "--python", PYTHON, constraints, str(wheel)]
            umask = os.umask(0o022)
            try:
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            finally:
                os.umask(umask)
            assert done.returncode == 0, done.stdout + done.stderr
        yield home / "bin" / "xproxy"
