"""Networks of a test's own: a client, a gateway and a server in network namespaces, joined by veth pairs.

    client 10.77.1.2, fd77:1::2 -- 10.77.1.1, fd77:1::1 gateway 10.77.2.1, fd77:2::1 -- 10.77.2.2, fd77:2::2 server

The gateway forwards; the host's own network is not touched. Firewall rules are the gateway's.
"""

import functools
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import attrs

CLIENT, CLIENT6 = "10.77.1.2", "fd77:1::2"
GATEWAY, GATEWAY6 = "10.77.1.1", "fd77:1::1"  # as the client sees it
SERVER, SERVER6 = "10.77.2.2", "fd77:2::2"

_numbers: Final = itertools.count(1)


@functools.cache
def missing() -> str | None:
    """Say why no network can be made here, or None."""
    for program, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian package {package})"
    name = f"xproxy-{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode != 0:
        return "network namespaces cannot be made here (root with CAP_SYS_ADMIN can)"
    try:
        listed = subprocess.run([*inside(name), "nft", "list", "ruleset"], capture_output=True, check=False)
        return None if listed.returncode == 0 else "nftables rules cannot be set here"
    finally:
        _remove(name)


@attrs.frozen(kw_only=True)
class Network:
    """Three namespaces by name."""

    client: str
    gateway: str
    server: str

    def firewall(self, rules: str, *, at: str | None = None) -> None:
        """Set the nftables rules of the gateway, or of the namespace ``at``, in place of all before."""
        _run(*inside(at or self.gateway), "nft", "-f", "-", text=f"flush ruleset\n{rules}\n")

    def run(self, *command: str) -> None:
        """Run a command in the gateway."""
        _run(*inside(self.gateway), *command)

    def configure(self, *arguments: str, at: str | None = None) -> None:
        """Run ``ip`` in the gateway, or in the namespace ``at``."""
        _run(*inside(at or self.gateway), "ip", *arguments)


def inside(namespace: str) -> tuple[str, ...]:
    """Return what goes before a command that is to run in ``namespace``."""
    return ("ip", "netns", "exec", namespace)


@contextmanager
def network() -> Iterator[Network]:
    """Make a network, and take it away again with all that still runs in it."""
    number = next(_numbers)
    names = {part: f"xproxy-{os.getpid()}-{number}-{part}" for part in ("client", "gateway", "server")}
    with ExitStack() as stack:
        for name in names.values():
            _run("ip", "netns", "add", name)
            stack.callback(_remove, name)
            # Else an address cannot be used for the second that it takes to see that nobody has it.
            _run(*inside(name), "sh", "-c", "echo 0 | tee /proc/sys/net/ipv6/conf/*/accept_dad")
            for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                _run(*inside(name), "sh", "-c", f"echo 1 > /proc/sys/net/{key}")
            _ip(name, "link set lo up")
        made = Network(**names)
        for number_, (name, near) in enumerate(((made.client, "to-gateway"), (made.server, "to-gateway")), start=1):
            far = f"side-{number_}"
            _ip(made.gateway, f"link add {far} type veth peer name {near} netns {name}")
            for here, link, last in ((made.gateway, far, 1), (name, near, 2)):
                _ip(here, f"address add 10.77.{number_}.{last}/24 dev {link}")
                _ip(here, f"address add fd77:{number_}::{last}/64 dev {link} nodad")
                _ip(here, f"link set {link} up")
            _ip(name, f"route add default via 10.77.{number_}.1")
            _ip(name, f"route add default via fd77:{number_}::1")
        yield made


def _ip(namespace: str, arguments: str) -> None:
    _run("ip", "-n", namespace, *arguments.split())


def _remove(namespace: str) -> None:
    subprocess.run(["ip", "netns", "delete", namespace], check=False)


def _run(*command: str, text: str | None = None) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
