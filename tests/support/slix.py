"""slixmpp as a client under test, driven over pipes (tests/support/slix_driver.py)."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

_DRIVER = Path(__file__).with_name("slix_driver.py")
_ANSWER_SECONDS_MAX = 45.0  # above the longest scenario's own deadlines


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of one scenario, the same shape for every client driver."""

    final: dict[str, Any]
    """What the application got: must be the same directly and through xproxy."""

    logins: list[dict[str, Any]]
    """How each login went; here a -PLUS attempt that fails by design may differ."""

    secrets: tuple[str, ...]
    """What crossed the wire and may be in no log."""


@attrs.define
class SlixDriver:
    """One driver process; plays job after job."""

    _process: subprocess.Popen[str]
    _buffer: str = ""

    def play(self, scenario: str, **job: Any) -> Outcome:
        """Play ``scenario`` and return its outcome."""
        self.tell({"scenario": scenario, "host": "127.0.0.1", "ca_file": None, "tls_max": None, "bodies": [], **job})
        return self.outcome()

    def tell(self, line: dict[str, Any]) -> None:
        """Send one line to the driver."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Return the driver's next line."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], _ANSWER_SECONDS_MAX)
        assert readable, "the slixmpp driver did not answer"
        line = self._process.stdout.readline()
        assert line, f"the slixmpp driver ended with status {self._process.poll()}"
        answer: dict[str, Any] = json.loads(line)
        assert "crashed" not in answer, answer["crashed"]
        return answer

    def outcome(self) -> Outcome:
        """Return the outcome of the job that was told last."""
        answer = self.hear()
        return Outcome(final=answer["final"], logins=answer["logins"], secrets=tuple(answer["secrets"]))


@contextmanager
def slix_driver(*prefix: str, environment: Mapping[str, str] | None = None) -> Iterator[SlixDriver]:
    """Run a driver process; ``prefix`` goes before its command line, ``environment`` is added to its own."""
    with subprocess.Popen(
        [*prefix, sys.executable, str(_DRIVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, **(environment or {})},
    ) as process:
        try:
            yield SlixDriver(process)
        finally:
            process.kill()
