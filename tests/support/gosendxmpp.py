"""go-sendxmpp (Debian) as a client under test: a command-line tool, so one process a scenario.

0.5.7 logs in by PLAIN only, knows no stream management, and leaves by closing TCP.
"""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
from lxml import etree

from tests.support.slix import Outcome

_RUN_SECONDS_MAX = 30.0
_DISCO = "http://jabber.org/protocol/disco#info"


def missing() -> str | None:
    """Say why it cannot be used here, or None."""
    return None if shutil.which("go-sendxmpp") else "go-sendxmpp is not installed (Debian package go-sendxmpp)"


@attrs.frozen(kw_only=True)
class GoSendXmpp:
    """How to call it: which server, which CA to trust (None: none), as whom."""

    port: int
    mode: str  # "starttls", "direct-tls"
    ca_file: Path | None
    user: str
    domain: str
    password: str = attrs.field(repr=False)

    def _command(self, *arguments: str) -> list[str]:
        direct = ["--tls"] if self.mode == "direct-tls" else []
        jid = f"{self.user}@{self.domain}"
        return ["go-sendxmpp", *direct, "-j", f"127.0.0.1:{self.port}", "-u", jid, "-p", self.password, *arguments]

    def _environment(self) -> dict[str, str]:
        return os.environ | {"SSL_CERT_FILE": str(self.ca_file or "/dev/null"), "SSL_CERT_DIR": "/nonexistent"}

    def send(self, to: str, text: str, *, raw: bool = False) -> Outcome:
        """Log in, send ``text`` (with ``raw`` as XML), read what the server answers until it is done, leave."""
        done = subprocess.run(
            self._command("--debug", *(["--raw"] if raw else []), to),
            input=text.encode(),
            capture_output=True,
            timeout=_RUN_SECONDS_MAX,
            env=self._environment(),
            check=False,
        )
        return _outcome(done.returncode, done.stderr.decode(errors="replace"))

    def ask(self) -> Outcome:
        """Ask for the roster, the server's features and those of somebody who does not exist."""
        requests = (
            "<iq type='get' id='go-roster'><query xmlns='jabber:iq:roster'/></iq>"
            f"<iq type='get' id='go-server' to='{self.domain}'><query xmlns='{_DISCO}'/></iq>"
            f"<iq type='get' id='go-nobody' to='nobody@{self.domain}/gone'><query xmlns='{_DISCO}'/></iq>"
        )
        return self.send(f"nobody@{self.domain}", requests, raw=True)

    @contextmanager
    def listening(self) -> Iterator["Listener"]:
        """Log in and print what comes, until the block ends."""
        with subprocess.Popen(
            self._command("--debug", "--listen"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(),
        ) as process:
            listener = Listener(process)
            try:
                yield listener
            finally:
                process.terminate()
                listener.join()


class Listener:
    """A go-sendxmpp that prints messages as they come."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._changed = threading.Condition()
        self._texts = {"stdout": "", "stderr": ""}
        self._threads = [
            threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, name: str, pipe: object) -> None:
        while data := os.read(pipe.fileno(), 65_536):  # type: ignore[attr-defined]
            with self._changed:
                self._texts[name] += data.decode(errors="replace")
                self._changed.notify_all()

    def wait(self, stream: str, pattern: str, seconds_max: float = 15.0) -> str:
        """Wait until ``pattern`` is in "stdout" (messages) or "stderr" (the wire); return the whole match."""
        with self._changed:
            self._changed.wait_for(lambda: re.search(pattern, self._texts[stream]), seconds_max)
            found = re.search(pattern, self._texts[stream])
        assert found, f"go-sendxmpp did not print {pattern!r} but {self._texts!r}"
        return found[0]

    def jid(self) -> str:
        """Wait until it is bound and available; return its full JID."""
        bound = self.wait("stderr", r"<jid>([^<]+)</jid>")
        self.wait("stderr", r"<presence ")  # its own presence came back: messages to the bare JID reach it
        return bound.removeprefix("<jid>").removesuffix("</jid>")

    def join(self) -> None:
        """Wait for the end of its output."""
        for thread in self._threads:
            thread.join(timeout=5)


def _outcome(status: int, wire: str) -> Outcome:
    """Read the debug output: the server's side of the wire, then perhaps a line of error."""
    failures = re.findall(r"<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><([a-z-]+)/>", wire)
    complaint = re.search(r"^\d{4}/\d\d/\d\d [\d:]+ (.*)$", wire, re.MULTILINE)
    return Outcome(
        final={
            "status": status,
            "bound": "</jid>" in wire,
            "failures": failures,
            "complaint": complaint[1] if complaint else None,
            "answers": _answers(wire),
        },
        logins=[{"mechanisms": ["PLAIN"] if "<success" in wire or failures else [], "failures": failures}],
        secrets=tuple(re.findall(r"<(?:challenge|success)\b[^>]*>([^<]+)<", wire)),
    )


def _answers(wire: str) -> dict[str, list[str]]:
    """Map the id of each of our requests to [type, condition or payload, JIDs in it]."""
    answers: dict[str, list[str]] = {}
    for text in re.findall(r"<(?:iq|message)\b(?:(?!<iq|<message).)*?</(?:iq|message)>", wire, re.DOTALL):
        element = etree.fromstring(text)
        if element.tag == "message":
            error = element.find("error")
            if error is not None:
                answers["message"] = ["error", *(etree.QName(child).localname for child in error)]
        elif element.get("id", "").startswith("go-"):
            answers[element.get("id", "")] = [
                element.get("type", ""),
                *(etree.QName(child).localname for child in element.iterfind("error/*")),
                *(item.get("jid", "") for item in element.iterfind("{jabber:iq:roster}query/{*}item")),
            ]
    return answers
