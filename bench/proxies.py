"""Starts what is measured: xproxy and the programs beside it, each before the bench's own server.

All end TLS on both legs and make a new TLS connection to the server for each client, but ``tcp``, which passes the
octets through. haproxy has the server's own certificate; sslsplit and mitmproxy mint one, as xproxy does.
"""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Final

import attrs
import trustme

from bench.ends import BenchFailed, build, echo_server, process

START_SECONDS_MAX = 20.0
XPROXY = (sys.executable, "-m", "xproxy")


@attrs.frozen
class Started:
    """A proxy that runs. ``pid`` 0: nothing stands between."""

    pid: int
    port: int


@attrs.frozen
class Bench:
    """What one bench has: a directory, the ends, a server. Everything in it ends with ``stack``."""

    stack: ExitStack
    directory: Path
    ends: Path
    server_pid: int
    server_port: int

    @classmethod
    def prepare(cls, stack: ExitStack, directory: Path) -> "Bench":
        """Make certificates, build the ends and start the server.

        Raises:
            BenchFailed: something is missing.
        """
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        authority.private_key_pem.write_to_path(str(directory / "ca.key"))
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
        with (directory / "mitm-ca.pem").open("wb") as both:
            both.write(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
        ends = build(directory)
        pid, port = stack.enter_context(echo_server(ends, directory / "server.pem"))
        return cls(stack, directory, ends, pid, port)

    def start(self, name: str) -> Started | None:
        """Start the proxy of that name; None: it is not installed.

        Raises:
            BenchFailed: it does not start.
        """
        return _STARTERS[name](self)


def direct(bench: Bench) -> Started:
    """Nothing between: the ceiling of the load itself."""
    return Started(0, bench.server_port)


def xproxy(bench: Bench, *, level: str = "info", settings: str = "", program: Sequence[str] = XPROXY) -> Started:
    """xproxy before the bench's server."""
    return run_xproxy(
        bench.stack,
        bench.directory / f"xproxy-{level}",
        upstream=bench.server_port,
        domain="localhost",
        authority=bench.directory / "ca.pem",
        level=level,
        settings=settings,
        program=program,
    )


def run_xproxy(
    stack: ExitStack,
    home: Path,
    *,
    upstream: int,
    domain: str,
    authority: Path,
    level: str = "info",
    settings: str = "",
    program: Sequence[str] = XPROXY,
) -> Started:
    """Run xproxy in ``home`` with its local CA, journal and a log file; ``settings``: more of its configuration.

    Raises:
        BenchFailed: it does not start.
    """
    home.mkdir()
    (home / "xproxy.toml").write_text(settings)
    ready = home / "ready"
    started = stack.enter_context(
        process(
            *(*program, "run", "-c", str(home / "xproxy.toml"), "--listen", "127.0.0.1:0"),
            *("--upstream", f"127.0.0.1:{upstream}", "--domain", domain, "--upstream-ca", str(authority)),
            *("--state", str(home / "state"), "--log", str(home / "records.jsonl"), "--log-format", "json"),
            *("--log-level", level, "--ready-file", str(ready)),
            errors=home / "stderr",
        )
    )
    _wait(started, home / "stderr", lambda: ready.exists() and bool(ready.read_text().strip()))
    return Started(started.pid, int(ready.read_text().split()[0].rpartition(":")[2]))


def haproxy(bench: Bench) -> Started | None:
    """HAProxy in TCP mode, TLS on both legs."""
    tls = f"ssl crt {bench.directory}/server.pem alpn xmpp-client"
    return _haproxy(bench, "tls", tls, "ssl verify none sni str(localhost)")


def tcp(bench: Bench) -> Started | None:
    """HAProxy passing the octets through."""
    return _haproxy(bench, "tcp", "", "")


def _haproxy(bench: Bench, name: str, bind: str, server: str) -> Started | None:
    if shutil.which("haproxy") is None:
        return None
    port = _free_port()
    configuration = bench.directory / f"haproxy-{name}.cfg"
    configuration.write_text(
        "global\n  nbthread 1\n  maxconn 9500\n  ssl-server-verify none\n"
        "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n"
        f"listen bench\n  bind 127.0.0.1:{port} {bind}\n  server s 127.0.0.1:{bench.server_port} {server}\n"
    )
    errors = bench.directory / f"haproxy-{name}.err"
    started = bench.stack.enter_context(process("haproxy", "-db", "-f", str(configuration), errors=errors))
    return _listening(started, errors, port)


def sslsplit(bench: Bench) -> Started | None:
    """sslsplit that writes the content of every connection to a file (-S)."""
    if shutil.which("sslsplit") is None:
        return None
    port, logs, errors = _free_port(), bench.directory / "sslsplit", bench.directory / "sslsplit.err"
    logs.mkdir()
    started = bench.stack.enter_context(
        process(
            *(
                "sslsplit",
                "-S",
                str(logs),
                "-k",
                str(bench.directory / "ca.key"),
                "-c",
                str(bench.directory / "ca.pem"),
            ),
            *("ssl", "127.0.0.1", str(port), "127.0.0.1", str(bench.server_port)),
            errors=errors,
        )
    )
    return _listening(started, errors, port)


def mitmproxy(bench: Bench) -> Started | None:
    """mitmproxy in TCP mode."""
    program = shutil.which("mitmdump")
    beside = Path(sys.executable).with_name("mitmdump")
    if program is None and beside.exists():
        program = str(beside)
    if program is None:
        return None
    port, home, errors = _free_port(), bench.directory / "mitmproxy", bench.directory / "mitmproxy.err"
    home.mkdir()
    (home / "mitmproxy-ca.pem").write_bytes((bench.directory / "mitm-ca.pem").read_bytes())
    started = bench.stack.enter_context(
        process(
            *(program, "-q", "--mode", f"reverse:tls://127.0.0.1:{bench.server_port}", "--listen-port", str(port)),
            *("--listen-host", "127.0.0.1", "--set", f"confdir={home}", "--set", "tcp_hosts=.*", "--ssl-insecure"),
            errors=errors,
        )
    )
    return _listening(started, errors, port)


def _listening(started: "subprocess.Popen[str]", errors: Path, port: int) -> Started:
    def is_there() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    _wait(started, errors, is_there)
    return Started(started.pid, port)


def _wait(started: "subprocess.Popen[str]", errors: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not is_ready():
        if started.poll() is not None or time.monotonic() > deadline:
            raise BenchFailed(f"{Path(str(started.args[0])).name} did not start:\n{errors.read_text()[-2000:]}")  # type: ignore[index]
        time.sleep(0.05)


def _free_port() -> int:
    """Return a port that is free now, for programs that do not say which one they got."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


_STARTERS: Final[Mapping[str, Callable[[Bench], Started | None]]] = MappingProxyType(
    {
        "direct": direct,
        "tcp": tcp,
        "haproxy": haproxy,
        "sslsplit": sslsplit,
        "mitmproxy": mitmproxy,
        "xproxy": xproxy,
        "xproxy-debug": lambda bench: xproxy(bench, level="debug"),
    }
)
