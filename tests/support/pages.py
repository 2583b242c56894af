"""The pages of README, executed as they are written.

What is not as it is written stands in one table, ``Stage.substitutions``: ports that the kernel chose, and a
directory of the test in place of the root of the file system. What systemd would do is in ``run`` and ``service``:
a server is started by its file, and xproxy by the command, and with the credentials, of the unit that the page wrote.
"""

import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

README: Final = Path(__file__).parents[2] / "README.md"
SECONDS_MAX: Final = 60.0


@attrs.frozen
class Block:
    """A block of code."""

    language: str
    text: str

    @property
    def path(self) -> str | None:
        """Where the file goes: its first line is a comment with a path."""
        found = re.match(r"(?:#|--) (/\S+)\n", self.text)
        return found[1] if found else None

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, one a line."""
        return self.text.replace("\\\n", " ").splitlines()


def section(title: str) -> str:
    """Return the text of the section with that heading, its own subsections included."""
    text = README.read_text()
    found = re.search(rf"^(#+) {re.escape(title)}\n", text, re.MULTILINE)
    assert found, f"README has no section {title!r}"
    rest = text[found.end() :]
    code = re.sub(r"```.*?```", lambda block: "`" * len(block[0]), rest, flags=re.DOTALL)  # same length, no "# ..."
    end = re.search(rf"^#{{1,{len(found[1])}}} ", code, re.MULTILINE)
    return rest[: end.start()] if end else rest


def blocks(title: str) -> list[Block]:
    """Return the blocks of code of a section."""
    found = re.findall(r"^( *)```(\w+)\n(.*?)^\1```$", section(title), re.DOTALL | re.MULTILINE)
    return [Block(language, textwrap.dedent(text)) for _, language, text in found]


def rows(title: str) -> list[list[str]]:
    """Return the cells of the rows of the tables of a section, headings left out."""
    lines = re.findall(r"^\|(.*)\|$", section(title), re.MULTILINE)
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [row for index, row in enumerate(cells) if index > 1 and not set(row[0]) <= {"-"}]


@attrs.define
class Stage:
    """Where a page is played."""

    root: Path
    ports: dict[int, int]  # as written -> as it is
    ca_file: Path  # what the system trusts
    more: dict[str, str] = attrs.field(factory=dict)  # what else is written -> what stands there
    services: dict[str, Callable[[], None]] = attrs.field(factory=dict)  # what systemctl restarts

    @property
    def substitutions(self) -> list[tuple[str, str]]:
        """The table: pattern -> what stands there instead, in this order."""
        return [
            *((re.escape(written), real) for written, real in self.more.items()),
            (r"(?<![\w/.])/(etc|var|run)/", rf"{self.root}/\1/"),
            *((rf"(?<!\d){written}(?!\d)", str(real)) for written, real in self.ports.items()),
        ]

    def real(self, text: str) -> str:
        """Return ``text`` with what stands there instead."""
        for pattern, instead in self.substitutions:
            text = re.sub(pattern, instead, text)
        return text

    def write(self, block: Block) -> Path:
        """Write the file that the block is."""
        assert block.path is not None
        path = Path(self.real(block.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.real(block.text))
        return path

    @property
    def environment(self) -> dict[str, str]:
        """What commands find: ``xproxy`` by that name, and the test's authority as the system's."""
        bin_ = self.root / "bin"
        bin_.mkdir(parents=True, exist_ok=True)
        program = bin_ / "xproxy"
        if not program.exists():
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -m xproxy "$@"\n')
            program.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XPROXY_")}
        return kept | {
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "PYTHONPATH": os.getcwd(),
            "SSL_CERT_FILE": str(self.ca_file),
            "XDG_STATE_HOME": str(self.root / "home-state"),
        }

    def run(self, command: str, *, codes: tuple[int, ...] = (0,)) -> str:
        """Run one command to its end and return what it printed; what systemctl restarts is the test's own."""
        if command == "systemd-sysusers":  # everything here is whoever runs the tests
            return ""
        if (found := re.fullmatch(r"systemctl (?:restart|enable --now) (\w+)", command)) is not None:
            self.services[found[1]]()
            return ""
        done = subprocess.run(
            self.real(command),
            shell=True,
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
        assert done.returncode in codes, f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    @contextmanager
    def service(self) -> Iterator[None]:
        """Run the unit that was written, with its drop-in's credentials, as systemd would, until the block ends."""
        units = self.root / "etc/systemd/system"
        (start,) = re.findall(r"^ExecStart=(.*)$", (units / "xproxy.service").read_text(), re.MULTILINE)
        credentials = self.root / "run/credentials/xproxy.service"
        credentials.mkdir(parents=True)
        drop_in = (units / "xproxy.service.d/certificate.conf").read_text()
        for name, source in re.findall(r"^LoadCredential=([\w.]+):(.*)$", drop_in, re.MULTILINE):
            (credentials / name).write_bytes(Path(source).read_bytes())
            (credentials / name).chmod(0o400)
        told = {
            "CREDENTIALS_DIRECTORY": str(credentials),
            "STATE_DIRECTORY": str(self.root / "var/lib/xproxy"),
            "XPROXY_CONFIG": str(self.root / "etc/xproxy/xproxy.toml"),  # found by itself where / is the root
        }
        with self.running(start, **told):
            yield

    @contextmanager
    def running(self, command: str, **told: str) -> Iterator[None]:
        """Run ``xproxy run ...`` in the background until the block ends, from when it is ready."""
        ready = self.root / "ready"
        errors = self.root / "stderr"
        with errors.open("wb") as err:
            process = subprocess.Popen(
                f"exec {self.real(command)} --ready-file {ready}",
                shell=True,
                cwd=self.root,
                env=self.environment | told,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
            )
        try:
            deadline = time.monotonic() + SECONDS_MAX
            while not (ready.exists() and ready.stat().st_size):
                assert process.poll() is None, errors.read_text()
                assert time.monotonic() < deadline, errors.read_text()
                time.sleep(0.01)
            yield
            process.terminate()
            assert process.wait(timeout=SECONDS_MAX) == 0, errors.read_text()
            assert "Traceback" not in errors.read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
