"""A real Prosody for one test session: own configuration, own data, loopback ports the kernel chose."""

import hashlib
import hmac
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from tests.support.mint import Leaf
from tests.support.netns import inside
from tests.support.ports import accepts, free_ports

STANZA_BYTES_MAX: Final = 262_144  # Prosody's default (c2s_stanza_size_limit)
_START_SECONDS_MAX: Final = 15.0
_STOP_SECONDS_MAX: Final = 1.0  # it waits 5 s for sessions to close; its data are thrown away anyway
_START_TRIES: Final = 5  # another process may take a port between our asking for it and Prosody's bind

_CONFIG = """\
run_as_root = true
daemonize = false
pidfile = "{directory}/prosody.pid"
data_path = "{directory}/data"
certificates = "{directory}"
interfaces = {{ {interfaces} }}
c2s_ports = {{ {starttls_port} }}
c2s_direct_tls_ports = {{ {direct_tls_port} }}
c2s_require_encryption = true
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "smacks", "ping", "version", "register_ibr",
    "user_account_management", "blocklist", "carbons" }}
modules_disabled = {{ "s2s", "offline" }}
allow_registration = true
authentication = "internal_hashed"
storage = "internal"
log = {{ debug = "{directory}/prosody.log" }}
ssl = {{ certificate = "{certificate}", key = "{key}" }}
c2s_direct_tls_ssl = {{ certificate = "{certificate}", key = "{key}" }}
VirtualHost "{domain}"
    ssl = {{ certificate = "{certificate}", key = "{key}" }}
Component "rooms.{domain}" "muc"
    modules_enabled = {{ }}
"""

_ACCOUNT = """\
return {{
\t["salt"] = "{salt}";
\t["iteration_count"] = {iterations};
\t["stored_key"] = "{stored_key}";
\t["server_key"] = "{server_key}";
}};
"""

_ROSTER_ITEM = '\t["{jid}"] = {{ ["subscription"] = "both"; ["groups"] = {{}}; ["name"] = "{name}"; }};\n'


@attrs.frozen(kw_only=True)
class Prosody:
    """A running server."""

    domain: str
    starttls_port: int
    direct_tls_port: int
    directory: Path
    pid: int
    passwords: Mapping[str, str]

    @property
    def log_file(self) -> Path:
        """Prosody's own log, level debug."""
        return self.directory / "prosody.log"

    def jid(self, user: str) -> str:
        """Return the bare JID of ``user``."""
        return f"{user}@{self.domain}"

    def port(self, mode: str) -> int:
        """Return the port for ``mode``, "starttls" or "direct-tls"."""
        return self.starttls_port if mode == "starttls" else self.direct_tls_port


def missing() -> str | None:
    """Say why no Prosody can be started here, or None."""
    return None if shutil.which("prosody") else "prosody is not installed (Debian package prosody)"


@contextmanager
def running_prosody(
    directory: Path,
    *,
    domain: str,
    leaf: Leaf,
    passwords: Mapping[str, str],
    rosters: Mapping[str, Mapping[str, str]] | None = None,
    changes: Mapping[str, str] | None = None,
    namespace: str | None = None,
) -> Iterator[Prosody]:
    """Run Prosody in ``directory`` with these accounts; ``rosters`` maps user -> {bare JID: name}.

    ``changes``: what is to stand in the configuration in place of what. In a network ``namespace`` of its own it takes
    the usual ports of all addresses there.
    """
    write_accounts(directory / "data", domain, passwords, rosters)
    for _ in range(_START_TRIES):
        starttls_port, direct_tls_port = free_ports(2) if namespace is None else (5222, 5223)
        (directory / "prosody.log").unlink(missing_ok=True)
        config = directory / "prosody.cfg.lua"
        text = _CONFIG.format(
            directory=directory,
            domain=domain,
            starttls_port=starttls_port,
            direct_tls_port=direct_tls_port,
            interfaces='"127.0.0.1"' if namespace is None else '"*", "::"',
            certificate=leaf.certificate,
            key=leaf.key,
        )
        config.write_text(changed(text, changes or {}))
        process = _launch(config, directory, inside(namespace) if namespace else ())
        try:
            is_here = namespace is None
            if not _came_up(process, directory / "prosody.log", (starttls_port, direct_tls_port), is_here=is_here):
                continue
            yield Prosody(
                domain=domain,
                starttls_port=starttls_port,
                direct_tls_port=direct_tls_port,
                directory=directory,
                pid=process.pid,
                passwords=dict(passwords),
            )
            return
        finally:
            _stop(process)
    raise AssertionError(f"Prosody did not start in {_START_TRIES} tries: {_diagnosis(directory)}")


@contextmanager
def prosody_of(config: Path, *, directory: Path, log_file: Path, ports: tuple[int, ...]) -> Iterator[int]:
    """Run Prosody by the file ``config`` until the block ends; ``ports``: of 127.0.0.1, that it is to listen on.

    ``log_file``: where it logs to, level info at least; ``directory`` gets what it prints. Gives the process' id.
    """
    process = _launch(config, directory)
    try:
        assert _came_up(process, log_file, ports), f"a port is taken: {_diagnosis(directory)}"
        yield process.pid
    finally:
        _stop(process)


def _launch(config: Path, directory: Path, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    with (directory / "prosody.out").open("wb") as out:
        return subprocess.Popen(
            [*prefix, "prosody", "--foreground", "--config", str(config)],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )


def changed(configuration: str, changes: Mapping[str, str]) -> str:
    """Return ``configuration`` with the right side of each change in place of the left, which must be there."""
    for old, new in changes.items():
        assert old in configuration, f"{old!r} is not in the configuration"
        configuration = configuration.replace(old, new)
    return configuration


def _came_up(process: subprocess.Popen[bytes], log: Path, ports: tuple[int, ...], *, is_here: bool = True) -> bool:
    """Wait until every port answers; False when one of them was taken by somebody else.

    Where it is not ``is_here`` but in another network, its own word has to do.
    """
    deadline = time.monotonic() + _START_SECONDS_MAX
    directory = log.parent
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace") if log.exists() else ""
        if "Failed to open server port" in text:
            return False
        if process.poll() is not None:
            raise AssertionError(f"Prosody ended with status {process.returncode}: {_diagnosis(directory)}")
        if not is_here:
            if all(f"]:{port}" in text for port in ports):
                return True
        # Both in the log (it is this process that listens) and on the network (it accepts).
        elif all(f"[127.0.0.1]:{port}" in text for port in ports) and all(accepts(port) for port in ports):
            return True
        time.sleep(0.02)
    raise AssertionError(f"Prosody did not listen within {_START_SECONDS_MAX} s: {_diagnosis(directory)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _diagnosis(directory: Path) -> str:
    parts = [
        path.read_text(errors="replace")[-2_000:]
        for name in ("prosody.out", "prosody.log")
        if (path := directory / name).exists()
    ]
    return "\n".join(parts)


def write_accounts(
    data: Path, domain: str, passwords: Mapping[str, str], rosters: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Write what ``prosodyctl register`` would (mod_auth_internal_hashed), without a process an account."""
    directory = data / domain.replace(".", "%2e")
    accounts, roster_directory = directory / "accounts", directory / "roster"
    accounts.mkdir(parents=True)
    roster_directory.mkdir(parents=True)
    for user, password in passwords.items():
        salt, iterations = secrets.token_hex(16), 4_096
        salted = hashlib.pbkdf2_hmac("sha1", password.encode(), salt.encode(), iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha1")
        (accounts / f"{user}.dat").write_text(
            _ACCOUNT.format(
                salt=salt,
                iterations=iterations,
                stored_key=hashlib.sha1(client_key).hexdigest(),
                server_key=hmac.digest(salted, b"Server Key", "sha1").hex(),
            )
        )
    for user, items in (rosters or {}).items():
        lines = "".join(_ROSTER_ITEM.format(jid=jid, name=name) for jid, name in items.items())
        (roster_directory / f"{user}.dat").write_text(
            f'return {{\n\t[false] = {{ ["version"] = 1; ["pending"] = {{}}; }};\n{lines}}};\n'
        )
