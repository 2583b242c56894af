"""A systemd unit, and as much of what systemd makes of it as can be had without systemd.

User, directories, environment, credentials, a read-only file system, no capabilities, passed sockets, and a socket that
hears notifications.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import attrs


@attrs.frozen
class Unit:
    """The settings of a unit file; a name may have several values."""

    settings: dict[tuple[str, str], tuple[str, ...]]

    @classmethod
    def read(cls, path: Path) -> "Unit":
        """Read a unit file without continuation lines."""
        found: dict[tuple[str, str], list[str]] = {}
        section = ""
        for line in path.read_text().splitlines():
            if match := re.fullmatch(r"\[(\w+)\]", line):
                section = match[1]
            elif line and not line.startswith(("#", ";")):
                name, _, value = line.partition("=")
                found.setdefault((section, name), []).append(value)
        return cls({key: tuple(values) for key, values in found.items()})

    def all(self, section: str, name: str) -> tuple[str, ...]:
        """Return every value of a setting."""
        return self.settings.get((section, name), ())

    def one(self, section: str, name: str) -> str:
        """Return the only value of a setting."""
        (value,) = self.all(section, name)
        return value


def read_environment_file(path: Path) -> dict[str, str]:
    """Return the variables of an EnvironmentFile=."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(shlex.split(line)[0].split("=", 1) for line in lines)


def missing() -> str | None:
    """Return why a unit cannot be run here; None: it can."""
    if os.geteuid() != 0:
        return "needs root to become the service's user"
    for program in ("unshare", "nsenter", "setpriv", "systemd-socket-activate"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        return "mount namespaces are not allowed here"
    return None


@attrs.frozen(kw_only=True)
class Service:
    """What systemd would make for one unit, below ``directory`` (root's, 0755)."""

    unit: Unit
    directory: Path
    uid: int
    environment: dict[str, str]

    @property
    def state(self) -> Path:
        """What the service sees as /var/lib/NAME."""
        return self.directory / "state"

    @property
    def logs(self) -> Path:
        """What the service sees as /var/log/NAME."""
        return self.directory / "logs"

    @property
    def credentials(self) -> Path:
        """$CREDENTIALS_DIRECTORY."""
        return self.directory / "credentials"

    def prepare(self, credentials: dict[str, bytes]) -> None:
        """Make the directories with the modes of the unit, and hand over ``credentials``."""
        for path, mode in ((self.state, "StateDirectoryMode"), (self.logs, "LogsDirectoryMode")):
            path.mkdir()
            path.chmod(int(self.unit.one("Service", mode), 8))
            os.chown(path, self.uid, self.uid)
        self.credentials.mkdir()
        for name, data in credentials.items():
            (self.credentials / name).write_bytes(data)
            (self.credentials / name).chmod(0o400)
            os.chown(self.credentials / name, self.uid, self.uid)
        os.chown(self.credentials, self.uid, self.uid)
        self.credentials.chmod(0o500)

    def variables(self) -> dict[str, str]:
        """Return the environment of each of the unit's processes (systemd.exec(5)), and nothing else."""
        name = self.unit.one("Service", "StateDirectory")
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "STATE_DIRECTORY": f"/var/lib/{name}",
            "LOGS_DIRECTORY": f"/var/log/{name}",
            "CREDENTIALS_DIRECTORY": str(self.credentials),
            **self.environment,
        }

    def as_user(self, command: str) -> list[str]:
        """Return ``command`` as the unit's user, without any privilege."""
        assert self.unit.one("Service", "NoNewPrivileges") == "yes"
        assert self.unit.one("Service", "CapabilityBoundingSet") == ""
        user = [f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        return ["setpriv", *user, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", *shlex.split(command)]

    def start(self, *, listen: str, notify: Path, more: dict[str, str]) -> "subprocess.Popen[bytes]":
        """Start ExecStart= at the first connection to ``listen``; stderr goes to ``directory``/stderr."""
        name = self.unit.one("Service", "StateDirectory")
        assert self.unit.one("Service", "ProtectSystem") == "strict"
        assert self.unit.one("Service", "PrivateTmp") == "yes"
        assert self.unit.one("Service", "ProtectHome") == "yes"
        script = f"""
            set -e
            mount --make-rprivate /
            mount -t tmpfs none /var/lib; mkdir /var/lib/{name}; mount --bind {self.state} /var/lib/{name}
            mount -t tmpfs none /var/log; mkdir /var/log/{name}; mount --bind {self.logs} /var/log/{name}
            mount -t tmpfs -o mode=1777 none /tmp; mount -t tmpfs -o mode=1777 none /var/tmp
            for home in /home /root /run/user; do [ ! -d $home ] || mount -t tmpfs -o ro,mode=000 none $home; done
            mount -o remount,bind,ro /
            ! touch {self.directory}/writable 2>/dev/null
            umask {self.unit.one("Service", "UMask")}
            ulimit -n {self.unit.one("Service", "LimitNOFILE")} || ulimit -n $(ulimit -Hn)
            cd /
            exec "$@"
        """
        variables = self.variables() | more | {"NOTIFY_SOCKET": str(notify)}
        passed = [option for each in variables.items() for option in ("-E", "=".join(each))]
        activate = ["systemd-socket-activate", f"--listen={listen}", "--fdname=clients", *passed]
        command = [*activate, *self.as_user(self.unit.one("Service", "ExecStart"))]
        with (self.directory / "stderr").open("wb") as stderr:
            return subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", script, "sh", *command],
                env={"PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )

    def execute(self, command: str, pid: int) -> "subprocess.CompletedProcess[str]":
        """Run ``command`` as another process of the running unit: ExecReload= is one."""
        return subprocess.run(
            ["nsenter", "--mount", f"--target={pid}", *self.as_user(command)],
            env=self.variables(),
            capture_output=True,
            text=True,
            check=False,
        )


@attrs.define
class Manager:
    """Hears what a service says to NOTIFY_SOCKET."""

    path: Path
    sock: socket.socket
    heard: list[str] = attrs.field(factory=list)

    @classmethod
    def at(cls, path: Path) -> "Manager":
        """Listen at ``path``, for anybody."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(path))
        path.chmod(0o666)
        sock.settimeout(20)
        return cls(path, sock)

    def wait_for(self, assignment: str) -> str:
        """Return the first message from now on that has a line beginning with ``assignment``."""
        while True:
            message = self.sock.recv(4_096).decode()
            self.heard.append(message)
            if any(line.startswith(assignment) for line in message.splitlines()):
                return message
