"""The service, installed by pipx: the unit's own command lines, run as it says as far as that goes without systemd.

What systemd would do beyond that, the system call filter, is compared with every system call that the program makes.
"""

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.support import installed, unit
from tests.support.peer import DOMAIN, PASSWORDS, make_trust
from tests.support.ports import free_ports
from tests.support.unit import Manager, Service, Unit, read_environment_file
from xproxy.peer.client import Client, trusting
from xproxy.peer.server import Server

pytestmark = [pytest.mark.integration, pytest.mark.slow]

README = Path(__file__).parents[2] / "README.md"
UID = 61_345  # nobody's: a service's user needs no entry anywhere
USER = next(iter(PASSWORDS))


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    """xproxy as pipx installs it from a wheel."""
    if reason := installed.missing():
        pytest.skip(reason)
    with installed.installed_by_pipx() as path:
        yield path


@pytest.fixture(scope="module")
def units(program: Path) -> Path:
    """The units as the installed program writes them."""
    directory = program.parents[1] / "units"
    for group in ("systemd", "debian"):
        subprocess.run([program, "share", "write", group, directory], check=True, capture_output=True)
    return directory


def test_what_pipx_installs_is_whole(program: Path, units: Path, tmp_path: Path) -> None:
    """Every command's modules and all package data are in the wheel."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def run(*arguments: str) -> str:
        done = subprocess.run([program, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True,
                              check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert re.fullmatch(r"xproxy \d+\.\d+\.\d+\n", run("--version"))
    commands = re.findall(r"^  ([a-z-]+) {2,}", run("--help").partition("Commands:")[2].partition("Examples:")[0], re.M)
    assert {"run", "check", "sessions", "share"} <= set(commands)
    for command in commands:
        run(command, "--help")
    for each in json.loads(run("share", "list")):
        assert len(run("share", "write", each["name"], "-")) > 100
    assert json.loads(run("events", "--schema"))["$schema"]
    assert "[listen]" in run("config", "example")
    assert f"ExecStart={program} run" in (units / "xproxy.service").read_text()
    assert '"sasl-failed"' in run("demo")


async def test_exec_start_serves_as_the_user_and_with_the_paths_of_the_unit(
    program: Path, units: Path, tmp_path: Path
) -> None:
    if reason := unit.missing():
        pytest.skip(reason)
    directory = units / "service"
    directory.mkdir()
    trust = make_trust(tmp_path)
    leaf = trust.mint.leaf(DOMAIN, label="clients")
    server = Server(domain=DOMAIN, passwords=PASSWORDS, tls=trust.server)
    manager = Manager.at(directory / "notify")
    (port,) = free_ports(1)
    async with trio.open_nursery() as nursery:
        upstream = await nursery.start(server.serve)
        service = Service(
            unit=Unit.read(units / "xproxy.service"),
            directory=directory,
            uid=UID,
            environment=read_environment_file(units / "xproxy.default") | {"XPROXY_UPSTREAM": str(upstream)},
        )
        service.prepare(
            {
                "cert.pem": leaf.certificate.read_bytes(),
                "key.pem": leaf.key.read_bytes(),
                "upstream-ca.pem": trust.mint.ca_file.read_bytes(),
            }
        )
        process = service.start(
            listen=f"127.0.0.1:{port}", notify=manager.path, more={"WATCHDOG_USEC": "400000", "WATCHDOG_PID": ""}
        )
        try:
            client = Client(host="127.0.0.1", port=port, domain=DOMAIN, tls=trusting(trust.mint.ca_file))
            with trio.fail_after(30):
                while True:  # until systemd-socket-activate listens; then the first connection starts the service
                    try:
                        await client.connect()
                    except OSError:
                        assert process.poll() is None, (directory / "stderr").read_text()
                        await trio.sleep(0.05)
                    else:
                        break
                await client.enter(USER, PASSWORDS[USER], "desk")
                await client.ping()
            assert "STATUS=running" in await in_thread(manager.wait_for, "READY=1")
            await in_thread(manager.wait_for, "WATCHDOG=1")

            reloaded = await in_thread(service.execute, service.unit.one("Service", "ExecReload"), process.pid)
            assert (reloaded.returncode, json.loads(reloaded.stdout)["problems"]) == (0, []), reloaded.stderr
            assert "MONOTONIC_USEC=" in await in_thread(manager.wait_for, "RELOADING=1")
            await in_thread(manager.wait_for, "READY=1")
            status = await in_thread(service.execute, f"{program} status", process.pid)
            assert json.loads(status.stdout)["health"] == "green"
            assert json.loads(status.stdout)["listeners"] == [f"127.0.0.1:{port}"]
            sessions = await in_thread(service.execute, f"{program} sessions", process.pid)
            (row,) = json.loads(sessions.stdout)["sessions"]
            assert row["jid"] == f"{USER}@{DOMAIN}/desk"
            checked = await in_thread(service.execute, f"{program} check", process.pid)
            assert checked.returncode == 0, checked.stdout

            # Clients wait while it restarts, since the port is not the proxy's.
            await client.close()
            process.terminate()
            stopping = await in_thread(manager.wait_for, "STOPPING=1")
            assert re.search(r"^EXTEND_TIMEOUT_USEC=\d+$", stopping, re.MULTILINE)
            assert await in_thread(process.wait, 40) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            manager.sock.close()
            nursery.cancel_scope.cancel()
    said = (directory / "stderr").read_text()
    assert "Traceback" not in said
    assert "cannot be told" not in said
    records = [json.loads(line) for line in (service.logs / "records.jsonl").read_text().splitlines()]
    (asked,) = [record for record in records if record.get("xproxy", {}).get("control")]
    assert asked["xproxy"]["control"]["uid"] == UID
    assert records[-1]["event"]["action"] == "proxy-stopped"
    for path in [*service.state.rglob("*"), service.logs / "records.jsonl"]:
        status_of = path.lstat()
        assert status_of.st_uid == UID, path
        assert stat.S_IMODE(status_of.st_mode) & 0o077 == 0, path
    assert not (service.state / "ca.pem").exists()  # the certificate was handed over
    verified = await trio.run_process([program, "log", "verify", "--state", service.state], capture_stdout=True)
    assert json.loads(verified.stdout)["verdict"] == "intact"


def test_what_readme_says_of_the_service_is_run_as_written(tmp_path: Path) -> None:
    """In copies of /etc, /opt and /usr/local; systemctl alone is not there to be run."""
    if reason := installed.missing() or unit.missing():
        pytest.skip(reason)
    if shutil.which("logrotate") is None:
        pytest.skip("logrotate is not installed")
    section = README.read_text().partition("\n## As a service\n")[2]
    block = section.partition("```sh\n")[2].partition("```")[0]
    source = installed.copy_source(tmp_path / "source")
    for name in ("opt", "local/bin", "stub"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "stub" / "systemctl").write_text(f'#!/bin/sh\necho "$(id -u) $*" >>{tmp_path}/systemctl\n')
    (tmp_path / "stub" / "systemctl").chmod(0o755)
    script = f"""
        set -e
        mount --make-rprivate /
        cp -a /etc {tmp_path}/etc
        mount --bind {tmp_path}/etc /etc; mount --bind {tmp_path}/opt /opt; mount --bind {tmp_path}/local /usr/local
        cd {source}
        export PATH={tmp_path}/stub:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PIP_DISABLE_PIP_VERSION_CHECK=1
        {block}
        xproxy --version
        systemd-analyze verify /etc/systemd/system/xproxy.service
        XPROXY_UPSTREAM= . /etc/default/xproxy; echo "server: $XPROXY_UPSTREAM"
        # What else there is for this machine.
        mount -t tmpfs none /var/log; install -d -m 0750 -o xproxy -g xproxy /var/log/xproxy
        echo '{{}}' >/var/log/xproxy/records.jsonl; chown xproxy:xproxy /var/log/xproxy/records.jsonl
        xproxy share write xproxy.logrotate - >/etc/logrotate.d/xproxy
        logrotate --force --state {tmp_path}/rotated /etc/logrotate.d/xproxy
        stat -c '%n %U %a %s' /var/log/xproxy/*
    """
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "server: 127.0.0.1:15222" in done.stdout
    assert (tmp_path / "systemctl").read_text().splitlines() == [
        *("0 daemon-reload", "0 enable --now xproxy", "0 reload xproxy.service"),
    ]
    assert "/var/log/xproxy/records.jsonl xproxy 600 0\n/var/log/xproxy/records.jsonl.1 xproxy " in done.stdout
    unit_file = Unit.read(tmp_path / "etc" / "systemd" / "system" / "xproxy.service")
    assert unit_file.one("Service", "ExecStart") == "/usr/local/bin/xproxy run"
    assert re.search(r"^xproxy:x:", (tmp_path / "etc" / "passwd").read_text(), re.MULTILINE)
    assert "xproxy" not in Path("/etc/passwd").read_text()


async def in_thread(function, *arguments):  # type: ignore[no-untyped-def]
    """Run what blocks while the server and the client go on."""
    with trio.fail_after(60):
        return await trio.to_thread.run_sync(function, *arguments)


def test_every_system_call_is_one_that_the_unit_allows(program: Path, units: Path, tmp_path: Path) -> None:
    """The demo has the proxy do everything, and a server and clients beside it."""
    if shutil.which("strace") is None or shutil.which("systemd-analyze") is None:
        pytest.skip("strace or systemd-analyze is not installed")
    trace = tmp_path / "trace"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", trace, program, "demo"], env=environment, cwd=tmp_path, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip("tracing is not allowed here")
    assert done.returncode == 0, done.stderr
    lines = [re.sub(r"^\d+ +", "", line) for line in trace.read_text(errors="replace").splitlines()]
    made = {match[1] for line in lines if (match := re.match(r"([a-z_0-9]+)\(", line))}
    assert {"epoll_wait", "sendto", "fdatasync", "accept4"} <= made
    assert made - allowed_by(Unit.read(units / "xproxy.service")) == set()
    # MemoryDenyWriteExecute=: no memory that is or becomes executable and was writable.
    executable = [line for line in lines if re.match(r"(mmap|mprotect|pkey_mprotect|shmat)\(", line) and "EXEC" in line]
    assert [line for line in executable if not line.startswith("mmap") or "PROT_WRITE" in line] == []
    # RestrictAddressFamilies=
    families = {match[1] for line in lines if (match := re.match(r"socket\((AF_\w+)", line))}
    assert families <= set(Unit.read(units / "xproxy.service").one("Service", "RestrictAddressFamilies").split())


def allowed_by(of: Unit) -> set[str]:
    """Return the system calls that the unit's SystemCallFilter= lines leave."""
    listed = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    groups: dict[str, list[str]] = {}
    for line in re.sub(r"\x1b\[[\d;]*m", "", listed).splitlines():
        if line.startswith("@"):
            current = groups.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            current.append(line.strip())

    def members(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return {each for inner in groups[name] for each in members(inner)}

    allowed: set[str] = members("@default")
    for value in of.all("Service", "SystemCallFilter"):
        taken = {each for name in value.removeprefix("~").split() for each in members(name)}
        allowed = allowed - taken if value.startswith("~") else allowed | taken
    return allowed
