"""A real name server (dnsmasq): on a loopback port the kernel chose, or on the usual one in a network of its own."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from tests.support.netns import inside
from tests.support.ports import free_ports

_START_SECONDS_MAX: Final = 10.0
_START_TRIES: Final = 5
_POLL_SECONDS: Final = 0.01


@attrs.frozen(kw_only=True)
class NameServer:
    """A running server. It answers for what it was given and refuses the rest."""

    port: int
    log_file: Path

    @property
    def address(self) -> str:
        """As ``nameservers`` has it."""
        return f"127.0.0.1:{self.port}"

    def queries(self) -> list[str]:
        """Return what was asked so far, as "SRV name"."""
        found = []
        for line in self.log_file.read_text().splitlines():
            if "query[" in line:
                kind, _, rest = line.partition("query[")[2].partition("] ")
                found.append(f"{kind} {rest.split()[0]}")
        return [each for each in found if each != "NS test"]  # our own, to see that it answers


def missing() -> str | None:
    """Say why no name server can be started here, or None."""
    return None if shutil.which("dnsmasq") else "dnsmasq is not installed (Debian package dnsmasq-base)"


def srv(domain: str, *, target: str, port: int, priority: int = 0, weight: int = 0, direct: bool = False) -> str:
    """Return an option that makes an SRV record. dnsmasq has no way to say its TTL: see ``local_ttl``."""
    service = "_xmpps-client" if direct else "_xmpp-client"
    return f"--srv-host={service}._tcp.{domain},{target},{port},{priority},{weight}"


def not_offered(domain: str, *, direct: bool = False) -> str:
    """Return an option that makes an SRV record with the target "."."""
    service = "_xmpps-client" if direct else "_xmpp-client"
    return f"--srv-host={service}._tcp.{domain}"


def host(name: str, address: str) -> str:
    """Return an option that makes an address record."""
    return f"--host-record={name},{address}"


@contextmanager
def running_dns(
    directory: Path, *records: str, local_ttl: int = 60, namespace: str | None = None
) -> Iterator[NameServer]:
    """Run dnsmasq in ``directory`` with these records, all of ``local_ttl`` seconds.

    In a network ``namespace`` of its own it listens at port 53 of all addresses there.
    """
    log_file = directory / "dnsmasq.log"
    for _ in range(_START_TRIES):
        (port,) = free_ports(1) if namespace is None else (53,)
        where = ("--listen-address=127.0.0.1", "--bind-interfaces") if namespace is None else ()
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [
                    *(inside(namespace) if namespace else ()),
                    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"),
                    *(f"--port={port}", *where, "--user=", "--group="),
                    *("--log-queries", "--log-facility=-", f"--local-ttl={local_ttl}", "--local=/test/"),
                    *records,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            if not _came_up(process, port, log_file, is_here=namespace is None):
                continue
            yield NameServer(port=port, log_file=log_file)
            return
        finally:
            process.kill()
            process.wait()
    raise AssertionError(f"dnsmasq did not start: {log_file.read_text()}")


def _came_up(process: "subprocess.Popen[bytes]", port: int, log_file: Path, *, is_here: bool) -> bool:
    """Wait until it answers; False when its port was taken by somebody else.

    Where it is not ``is_here`` but in another network, its own word has to do, which it gives when it has its sockets.
    """
    question = bytes.fromhex("000101000001000000000000") + b"\x04test\x00" + bytes.fromhex("00020001")
    deadline = time.monotonic() + _START_SECONDS_MAX
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        while time.monotonic() < deadline:
            if process.poll() is not None:
                if "failed to create listening socket" in (text := log_file.read_text(errors="replace")):
                    return False
                raise AssertionError(f"dnsmasq ended with status {process.returncode}: {text}")
            if not is_here:
                if ": started, version" in log_file.read_text(errors="replace"):
                    return True
                time.sleep(_POLL_SECONDS)
                continue
            try:
                sock.sendto(question, ("127.0.0.1", port))
                sock.recv(512)
            except OSError:
                time.sleep(_POLL_SECONDS)
                continue
            return True
    raise AssertionError(f"dnsmasq did not answer: {log_file.read_text()}")
