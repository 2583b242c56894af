"""A real name server (dnsmasq, Debian) for one test."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator

from tests.support.ports import free_ports
from xproxy.config.address import HostPort


@contextlib.contextmanager
def running_dnsmasq(*records: str) -> Iterator[HostPort]:
    """Run dnsmasq (Debian) on a loopback port with these options, "srv-host=..." and the like."""
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-daemon"),
            *("--pid-file=", f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces", "--local=/test/"),
            *(f"--{record}" for record in records),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, "dnsmasq ended"
            time.sleep(0.02)
        yield HostPort("127.0.0.1", port)
    finally:
        process.kill()
        process.wait()
