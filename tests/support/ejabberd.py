"""A real ejabberd (Debian) for one test session: own configuration, own data, loopback ports the kernel chose.

It is Erlang that is started, not ejabberdctl: that would change to the user ``ejabberd``, name a node, and need epmd
and a cookie for it. An unnamed node (``nonode@nohost``) needs none of these, and its Mnesia tables are its own.

Debian 12 has 23.01: it offers -PLUS (tls-unique, tls-exporter), and knows neither SASL2, Bind 2, FAST nor XEP-0474.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from tests.support.mint import Leaf
from tests.support.ports import accepts, free_ports
from tests.support.prosody import changed

_START_SECONDS_MAX: Final = 30.0
_START_TRIES: Final = 5  # another process may take a port between our asking for it and ejabberd's bind

_CONFIG = """\
hosts: ["{domain}"]
loglevel: info
hide_sensitive_log_data: false
certfiles: ["{pem}"]
ca_file: "{pem}"
auth_method: [internal]
auth_password_format: plain
acme: {{auto: false}}
new_sql_schema: false
listen:
  - {{port: {starttls_port}, ip: "127.0.0.1", module: ejabberd_c2s, starttls: true, starttls_required: true, \
max_stanza_size: 262144, shaper: none, access: c2s}}
  - {{port: {direct_tls_port}, ip: "127.0.0.1", module: ejabberd_c2s, tls: true, max_stanza_size: 262144, \
shaper: none, access: c2s}}
  - {{port: {plain_port}, ip: "127.0.0.1", module: ejabberd_c2s, max_stanza_size: 262144, shaper: none, access: c2s}}
  - {{port: {proxied_port}, ip: "127.0.0.1", module: ejabberd_c2s, starttls: true, starttls_required: true, \
use_proxy_protocol: true, max_stanza_size: 262144, shaper: none, access: c2s}}
  - {{port: {proxied_direct_port}, ip: "127.0.0.1", module: ejabberd_c2s, tls: true, \
use_proxy_protocol: true, max_stanza_size: 262144, shaper: none, access: c2s}}
acl: {{local: {{user_regexp: ""}}, shut_out: {{user: ["outcast@{domain}"]}}}}
access_rules:
  local: {{allow: local}}
  c2s: [{{deny: shut_out}}, {{allow: all}}]
  register: {{allow: all}}
  trusted_network: {{allow: all}}
api_permissions: {{}}
registration_timeout: infinity
modules:
  mod_blocking: {{}}
  mod_carboncopy: {{}}
  mod_disco: {{}}
  mod_http_upload: {{put_url: "https://{domain}:1/upload", docroot: "{directory}/upload", max_size: 1000}}
  mod_muc: {{host: "rooms.{domain}", access_create: all}}
  mod_ping: {{}}
  mod_privacy: {{}}
  mod_register: {{ip_access: all, access: register, password_strength: 0}}
  mod_roster: {{}}
  mod_stream_mgmt: {{resend_on_timeout: false}}
"""

# Expressions for file:eval/1. JSON strings without escapes are Erlang strings too.
_SETUP = """\
{{ok, _}} = application:ensure_all_started(ejabberd).
[ok = ejabberd_auth:try_register(list_to_binary(User), <<"{domain}">>, list_to_binary(Password))
 || {{User, Password}} <- [{accounts}]].
ok = file:write_file("{directory}/ready", <<"ready">>).
"""


@attrs.frozen(kw_only=True)
class Ejabberd:
    """A running server."""

    domain: str
    starttls_port: int
    direct_tls_port: int
    plain_port: int  # no TLS at all
    proxied_port: int  # STARTTLS, behind a PROXY header
    proxied_direct_port: int
    directory: Path
    pid: int

    @property
    def log_file(self) -> Path:
        """Its own log, level info."""
        return self.directory / "ejabberd.log"

    def port(self, mode: str) -> int:
        """Return the port for ``mode``, "starttls" or "direct-tls"."""
        return self.starttls_port if mode == "starttls" else self.direct_tls_port


def missing() -> str | None:
    """Say why no ejabberd can be started here, or None."""
    if shutil.which("ejabberdctl") and shutil.which("erl") and _libraries():
        return None
    return "ejabberd is not installed (Debian package ejabberd)"


@contextmanager
def running_ejabberd(
    directory: Path,
    *,
    domain: str,
    leaf: Leaf,
    passwords: Mapping[str, str],
    changes: Mapping[str, str] | None = None,
) -> Iterator[Ejabberd]:
    """Run ejabberd in ``directory`` with these accounts; ``changes``: as ``running_prosody``.

    ``leaf`` must end within 49 days or so at most: to warn of its end ejabberd sets a timer, and the year 3000 is
    farther away than an Erlang timer goes.
    """
    pem = directory / "server.pem"
    pem.write_bytes(leaf.certificate.read_bytes() + leaf.key.read_bytes())
    for _ in range(_START_TRIES):
        ports = free_ports(5)
        starttls_port, direct_tls_port, plain_port, proxied_port, proxied_direct_port = ports
        for name in ("ready", "ejabberd.log"):
            (directory / name).unlink(missing_ok=True)
        config = directory / "ejabberd.yml"
        text = _CONFIG.format(
            directory=directory,
            domain=domain,
            pem=pem,
            starttls_port=starttls_port,
            direct_tls_port=direct_tls_port,
            plain_port=plain_port,
            proxied_port=proxied_port,
            proxied_direct_port=proxied_direct_port,
        )
        config.write_text(changed(text, changes or {}))
        process = _launch(config, directory, domain, passwords)
        try:
            if not _came_up(process, directory, (starttls_port, direct_tls_port, plain_port)):
                continue
            yield Ejabberd(
                domain=domain,
                starttls_port=starttls_port,
                direct_tls_port=direct_tls_port,
                plain_port=plain_port,
                proxied_port=proxied_port,
                proxied_direct_port=proxied_direct_port,
                directory=directory,
                pid=process.pid,
            )
            return
        finally:
            process.kill()  # its data are thrown away anyway
            process.wait()
    raise AssertionError(f"ejabberd did not start in {_START_TRIES} tries: {_diagnosis(directory)}")


@contextmanager
def ejabberd_of(
    config: Path, *, directory: Path, domain: str, passwords: Mapping[str, str], ports: tuple[int, ...]
) -> Iterator[Path]:
    """Run ejabberd by the file ``config`` until the block ends; ``ports``: of 127.0.0.1, that it is to listen on.

    What it keeps, and its log, whose path is given, are in ``directory``.
    """
    process = _launch(config, directory, domain, passwords)
    try:
        assert _came_up(process, directory, ports), f"a port is taken: {_diagnosis(directory)}"
        yield directory / "ejabberd.log"
    finally:
        process.kill()
        process.wait()


def _launch(config: Path, directory: Path, domain: str, passwords: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    setup = directory / "setup.eval"
    accounts = ", ".join(f"{{{json.dumps(user)}, {json.dumps(password)}}}" for user, password in passwords.items())
    setup.write_text(_SETUP.format(directory=directory, domain=domain, accounts=accounts))
    with (directory / "ejabberd.out").open("wb") as out:
        return subprocess.Popen(
            [
                *("erl", "-noinput", "-mnesia", "dir", json.dumps(str(directory / "spool"))),
                *("-eval", f'file:eval("{setup}")'),
            ],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            env=_environment(directory, config),
        )


def _libraries() -> Path | None:
    """Return the directory ejabberd's own Erlang application is in; Debian's is outside Erlang's path."""
    found = sorted(Path("/usr/lib").glob("*/ejabberd-*/ebin/ejabberd.app"))
    return found[0].parents[2] if found else None


def _environment(directory: Path, config: Path) -> dict[str, str]:
    return os.environ | {
        "ERL_LIBS": str(_libraries()),
        "ERL_CRASH_DUMP": str(directory / "crash.dump"),
        "EJABBERD_CONFIG_PATH": str(config),
        "EJABBERD_LOG_PATH": str(directory / "ejabberd.log"),
        "HOME": str(directory),  # Erlang writes its cookie there, were it ever asked for one
    }


def _came_up(process: "subprocess.Popen[bytes]", directory: Path, ports: tuple[int, ...]) -> bool:
    """Wait until the accounts are there and every port answers; False when one was taken by somebody else."""
    deadline = time.monotonic() + _START_SECONDS_MAX
    while time.monotonic() < deadline:
        log = directory / "ejabberd.log"
        if log.exists() and "eaddrinuse" in log.read_text(errors="replace"):
            return False
        if process.poll() is not None:
            raise AssertionError(f"ejabberd ended with status {process.returncode}: {_diagnosis(directory)}")
        if (directory / "ready").exists() and all(accepts(port) for port in ports):
            return True
        time.sleep(0.02)
    raise AssertionError(f"ejabberd did not listen within {_START_SECONDS_MAX} s: {_diagnosis(directory)}")


def _diagnosis(directory: Path) -> str:
    parts = [
        path.read_text(errors="replace")[-2_000:]
        for name in ("ejabberd.out", "ejabberd.log")
        if (path := directory / name).exists()
    ]
    return "\n".join(parts)
