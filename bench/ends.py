"""Drives the two ends of a bench (ends.c): builds them, starts them, talks to the clients."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

SOURCE = Path(__file__).with_name("ends.c")


class BenchFailed(Exception):  # noqa: N818 - says what failed
    """The bench cannot go on; the text says why and what to do."""


def build(directory: Path) -> Path:
    """Compile ends.c into ``directory`` and return the program.

    Raises:
        BenchFailed: there is no compiler, or no headers of OpenSSL.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchFailed("no C compiler: install gcc and libssl-dev")
    program = directory / "ends"
    done = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(SOURCE), "-lssl", "-lcrypto"], capture_output=True, text=True
    )
    if done.returncode:
        raise BenchFailed(f"ends.c does not compile; is libssl-dev installed?\n{done.stderr[:1000]}")
    return program


@contextmanager
def process(*command: str, errors: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start ``command`` with pipes to its input and output; at the end it is told to end, then made to."""
    stderr = errors.open("w") if errors is not None else None
    started = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, bufsize=1
    )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        for pipe in (started.stdin, started.stdout, stderr):
            if pipe is not None:
                pipe.close()


@contextmanager
def echo_server(program: Path, pem: Path) -> Iterator[tuple[int, int]]:
    """Run a server with certificate and key ``pem`` that logs anybody in and echoes; yield its pid and its port."""
    with process(str(program), "serve", str(pem)) as server:
        assert server.stdout is not None
        port = server.stdout.readline()
        if not port:
            raise BenchFailed("the server of the bench did not start")
        yield server.pid, int(port)


@attrs.frozen
class Exchanged:
    """What sending messages took."""

    seconds: float
    p50_us: float
    p99_us: float
    max_us: float
    client_cpu_us: float  # of the load itself, a message


class Load:
    """Clients that log in at a port and do what they are told."""

    def __init__(self, started: subprocess.Popen[str]) -> None:
        self._process = started

    def _tell(self, line: str) -> list[str]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = process.stdout.readline().split()
        except OSError:
            answer = []
        if not answer or answer[0] != "ok":
            raise BenchFailed(f"the clients failed at {line!r}: see above")
        return answer[1:]

    def open(self, count: int, at_once: int = 16) -> str:
        """Log ``count`` more clients in; return the version of TLS."""
        return self._tell(f"open {count} {at_once}")[1]

    def set_up(self, count: int, *, at_once: int = 8, tls_only: bool = False) -> float:
        """Log ``count`` clients in, or only shake hands, and close each at once; return the seconds it took."""
        return float(self._tell(f"{'tls' if tls_only else 'setup'} {count} {at_once}")[0])

    def size(self, octets: int) -> None:
        """Send messages of ``octets`` from now on."""
        self._tell(f"size {octets}")

    def send(self, count: int) -> Exchanged:
        """Send ``count`` messages in all, one in flight a client, and await each."""
        return Exchanged(*map(float, self._tell(f"send {count}")))

    def ping(self) -> Exchanged:
        """Have every client send one message at once, and await all."""
        return Exchanged(*map(float, self._tell("ping")))

    def blanks(self, count: int) -> None:
        """Have every client send ``count`` keepalives."""
        self._tell(f"blanks {count}")

    def close(self) -> None:
        """Close all clients."""
        self._tell("close")


@contextmanager
def load(program: Path, port: int, name: str = "localhost") -> Iterator[Load]:
    """Run clients for ``port``; they ask for ``name`` in TLS."""
    with process(str(program), "load", str(port), name) as started:
        yield Load(started)
