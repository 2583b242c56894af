"""profanity (Debian) as a client under test: a terminal program, so each run has a pseudo-terminal of its own.

What it is told is typed; what it made of it is read from its own debug log, which has the whole wire.
"""

import contextlib
import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from tests.support.slix import Outcome

_WAIT_SECONDS_MAX: Final = 20.0
_POLL_SECONDS: Final = 0.02
_SETTLED_POLLS: Final = 5
_RESOURCE: Final = "profanity"
_PAYLOAD: Final = r"<(?:auth|response|challenge|success)\b[^>]*>([^<]+)<"
_SM_ID: Final = r'<enabled\b[^>]*\bid="([^"]+)"'

_ACCOUNT = """\
[test]
enabled=true
jid={user}@{domain}
server=127.0.0.1
port={port}
resource={resource}
password={password}
tls.policy={policy}
"""

# Nothing that goes out by itself at a time of its own choosing.
_PREFERENCES = """\
[connection]
tls.certpath={authorities}
reconnect=0
autoping=0

[chatstates]
enabled=false
outtype=false

[notifications]
message=off
"""


def missing() -> str | None:
    """Say why it cannot be used here, or None."""
    return None if shutil.which("profanity") else "profanity is not installed (Debian package profanity)"


@attrs.frozen(kw_only=True)
class Profanity:
    """How to call it: which server, which CA to trust, as whom."""

    directory: Path
    """Its home; each run makes one below."""

    port: int
    mode: str  # "starttls", "direct-tls"
    ca_file: Path
    user: str
    domain: str
    password: str = attrs.field(repr=False)

    @contextmanager
    def running(self) -> Iterator["Run"]:
        """Log in as it starts; end it with the block (by /quit, so that it says goodbye)."""
        number = len(list(self.directory.iterdir())) if self.directory.exists() else 0
        home = self.directory / f"{number}-{self.user}"
        _write_home(home, self)
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        try:
            process = subprocess.Popen(
                ["profanity", "--account", "test", "--log", "DEBUG", "--logfile", str(home / "log")],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(home),
                    "XDG_DATA_HOME": str(home / "data"),
                    "XDG_CONFIG_HOME": str(home / "config"),
                    "TERM": "xterm",
                    "LANG": "C.UTF-8",
                },
                start_new_session=True,
            )
        finally:
            os.close(slave)
        run = Run(process, master, home / "log")
        try:
            yield run
            run.quit()
        finally:
            run.end()

    def login(self) -> Outcome:
        """Log in, wait until that is decided and it has nothing more to ask, leave."""
        with self.running() as run:
            run.decided()
        return run.outcome()


class Run:
    """One running profanity."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int, log: Path) -> None:
        self._process = process
        self._terminal = terminal
        self._log = log
        # The screen has to be read, or it stops when the terminal's buffer is full.
        self._drain = threading.Thread(target=self._read_screen, daemon=True)
        self._drain.start()

    def _read_screen(self) -> None:
        with contextlib.suppress(OSError):  # EIO: it has ended
            while os.read(self._terminal, 65_536):
                pass

    def text(self) -> str:
        """Return the log so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def wait(self, pattern: str) -> str:
        """Wait until ``pattern`` is in the log; return the whole match."""
        deadline = time.monotonic() + _WAIT_SECONDS_MAX
        while not (found := re.search(pattern, self.text())):
            assert time.monotonic() < deadline, f"profanity did not log {pattern!r} but {self.text()[-3_000:]}"
            assert self._process.poll() is None, f"profanity ended: {self.text()[-3_000:]}"
            time.sleep(_POLL_SECONDS)
        return found[0]

    def decided(self) -> bool:
        """Wait until the login is decided; say whether it went well."""
        ended = self.wait(r"Login failed|<bind xmlns=\"urn:ietf:params:xml:ns:xmpp-bind\"><jid>|Could not connect")
        if "bind" not in ended:
            return False
        self.wait(r"RECV: <presence [^>]*from=")  # its own presence: others' messages to the bare JID reach it now
        self._settled()
        return True

    def _settled(self) -> None:
        """Wait until it has nothing more to ask.

        Told to leave before, 0.13.1 goes on asking after its closing tag, and how that ends is a race with the server.
        """
        deadline = time.monotonic() + _WAIT_SECONDS_MAX
        quiet = 0
        while quiet < _SETTLED_POLLS:
            text = self.text()
            asked = set(re.findall(r'SENT: <iq id="([^"]+)"[^>]* type="get"|SENT: <iq type="get" id="([^"]+)"', text))
            answered = set(re.findall(r'RECV: <iq id="([^"]+)"', text))
            open_ = {first or second for first, second in asked} - answered
            quiet = 0 if open_ else quiet + 1
            assert time.monotonic() < deadline, f"profanity waits for {open_}"
            time.sleep(_POLL_SECONDS)

    def type(self, line: str) -> None:
        """Type a line and Enter."""
        os.write(self._terminal, line.encode() + b"\r")

    def quit(self) -> None:
        """Leave in form."""
        if self._process.poll() is None:
            self.type("/quit")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_WAIT_SECONDS_MAX)

    def end(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._drain.join(timeout=5)
        os.close(self._terminal)

    def outcome(self) -> Outcome:
        """Return what came of it."""
        log = self.text()
        sent = re.findall(r"SENT: <auth mechanism=\"([^\"]+)\"", log)
        failures = re.findall(r"RECV: <failure xmlns=\"urn:ietf:params:xml:ns:xmpp-sasl\">.*?<([a-z-]+)/>", log)
        jid = re.search(r"<jid>([^<]+)</jid>", log)
        return Outcome(
            final={
                "jid": jid[1] if jid else None,
                "login_failed": "Login failed" in log,
                "tls_failed": "Certificate verification failed" in log,
                "said_goodbye": "SENT: </stream:stream>" in log,
                "was_answered": "RECV: </stream:stream>" in log,
                "status": self._process.returncode,
            },
            logins=[{"mechanisms": sent, "failures": failures}],
            secrets=tuple(sorted(set(re.findall(_PAYLOAD, log)) | set(re.findall(_SM_ID, log)))),
        )


def _write_home(home: Path, how: Profanity) -> None:
    data, config, authorities = home / "data/profanity", home / "config/profanity", home / "authorities"
    for directory in (data, config, authorities):
        directory.mkdir(parents=True)
    (data / "accounts").write_text(
        _ACCOUNT.format(
            user=how.user,
            domain=how.domain,
            port=how.port,
            resource=f"{_RESOURCE}-{how.user}",
            password=how.password,
            policy="legacy" if how.mode == "direct-tls" else "force",
        )
    )
    (config / "profrc").write_text(_PREFERENCES.format(authorities=authorities))
    # A directory that OpenSSL looks into: a file is found by the hash of its subject (X509_NAME_hash).
    (authorities / f"{_subject_hash(how.ca_file)}.0").write_bytes(how.ca_file.read_bytes())


def _subject_hash(certificate: Path) -> str:
    printed = subprocess.run(
        ["openssl", "x509", "-noout", "-subject_hash", "-in", str(certificate)], capture_output=True, check=True
    )
    return printed.stdout.decode().strip()
