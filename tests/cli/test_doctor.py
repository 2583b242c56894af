"""``xproxy doctor`` as a person and as a program calls it. What it finds: tests/doctor, tests/integration."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import RunXproxy
from tests.support.accounts import DOMAIN, PASSWORDS
from tests.support.crooked import mechanisms, running_crooked
from tests.support.mint import Mint


@pytest.fixture
def mint(tmp_path: Path) -> Mint:
    """An authority of this test's own."""
    return Mint(tmp_path)


@pytest.fixture
def port(mint: Mint) -> Iterator[int]:
    """The port of a server with STARTTLS, SCRAM and PLAIN that knows no PROXY header."""
    with running_crooked(mint.leaf(DOMAIN), secured=mechanisms("PLAIN")) as running:
        yield running


@pytest.mark.slow
def test_piped_it_is_one_json_object(xproxy: RunXproxy, port: int, mint: Mint) -> None:
    outcome = xproxy("doctor", f"127.0.0.1:{port}", "--domain", DOMAIN, "--upstream-ca", mint.ca_file)
    document = json.loads(outcome.out)
    assert document["domain"] == DOMAIN
    assert document["reached"]
    assert document["connections"] >= 8
    by_check = {each["check"]: each for each in document["findings"]}
    assert by_check["certificate"]["severity"] == "ok"
    assert by_check["proxy-protocol"]["severity"] == document["worst"] == "warning"
    assert {fix["where"] for fix in by_check["proxy-protocol"]["fixes"]} == {"Prosody", "ejabberd", "xproxy"}
    assert outcome.code == 0
    assert outcome.err == ""


@pytest.mark.slow
def test_a_problem_is_exit_code_1(xproxy: RunXproxy, port: int) -> None:
    outcome = xproxy("doctor", f"127.0.0.1:{port}", "--domain", DOMAIN)
    assert outcome.code == 1
    assert json.loads(outcome.out)["worst"] == "problem"


def test_nobody_there_is_exit_code_3(xproxy: RunXproxy) -> None:
    outcome = xproxy("doctor", "127.0.0.1:1", "--domain", DOMAIN)
    assert outcome.code == 3
    assert not json.loads(outcome.out)["reached"]


@pytest.fixture
def on_terminal(environment: dict[str, str]) -> Callable[..., tuple[int, str]]:
    """Run ``xproxy doctor ARGUMENTS`` on a terminal; ``typed`` is typed once something is asked."""

    def run(*arguments: str, typed: str | None = None) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "xproxy", "doctor", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment | {"TERM": "xterm", "NO_COLOR": "1"},
        )
        os.close(theirs)
        octets = b""
        while True:
            try:
                octets += os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
            if typed is not None and b"Password of" in octets:
                os.write(ours, typed.encode() + b"\n")
                typed = None
        os.close(ours)
        return process.wait(), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", octets.decode())

    return run


@pytest.mark.slow
def test_on_a_terminal_it_is_for_people(port: int, mint: Mint, on_terminal: Callable[..., tuple[int, str]]) -> None:
    code, text = on_terminal(f"127.0.0.1:{port}", "--domain", DOMAIN, "--upstream-ca", str(mint.ca_file))
    assert code == 0
    assert "warning" in text
    assert "behind xproxy: to it all clients come from xproxy's address" in text
    assert "ejabberd: listen:" in text
    assert "looking at" in text
    assert "connections" in text.splitlines()[-1]


@pytest.mark.slow
def test_a_password_is_asked_for_and_not_shown(
    port: int, mint: Mint, on_terminal: Callable[..., tuple[int, str]]
) -> None:
    arguments = (f"127.0.0.1:{port}", "--jid", f"alice@{DOMAIN}", "--login", "--upstream-ca", str(mint.ca_file))
    code, text = on_terminal(*arguments, typed=PASSWORDS["alice"])
    assert code == 0
    assert "the login of --jid works" in text
    assert PASSWORDS["alice"] not in text


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["127.0.0.1:5222"], "add --domain"),
        (["[::1]"], "add --domain"),
        (["a..b"], "no host name"),
        (["example.org:0"], "port 0"),
        (["example.org:http"], "no port"),
        (["example.org:99999"], "no port"),
        (["::1:5222:x"], "brackets"),
        (["example.org", "--domain", "a b"], "no XMPP domain"),
        (["example.org", "--jid", "example.org"], "names no user"),
        (["example.org", "--jid", "@example.org"], "no address"),
        (["example.org", "--jid", "a@example.org", "--domain", "example.net"], "leave one of them out"),
        (["example.org", "--login"], "needs an account"),
        (["example.org", "--jid", "a@example.org", "--login"], "no terminal to ask at"),
        (["example.org", "--nameserver", "ns.example:53"], "no address"),
        (["example.org", "--nameserver", "ns.example"], "no address"),
        (["example.org", "--try-bans", "0"], "--try-bans"),
        (["example.org", "--timeout", "0"], "--timeout"),
    ],
)
def test_what_cannot_be_asked(xproxy: RunXproxy, arguments: list[str], word: str) -> None:
    outcome = xproxy("doctor", *arguments)
    assert outcome.code == 2
    assert word in outcome.err
    assert outcome.out == ""


def test_authorities_that_are_none(xproxy: RunXproxy, tmp_path: Path) -> None:
    (tmp_path / "not-pem").write_text("certificate")
    for name in ("missing.pem", "not-pem"):
        outcome = xproxy("doctor", "127.0.0.1:1", "--domain", DOMAIN, "--upstream-ca", tmp_path / name)
        assert outcome.code == 3
        assert name in outcome.err


@pytest.mark.slow
def test_the_password_comes_from_the_environment_and_is_shown_nowhere(xproxy: RunXproxy, port: int, mint: Mint) -> None:
    outcome = xproxy(
        *("doctor", f"127.0.0.1:{port}", "--jid", f"alice@{DOMAIN}", "--login"),
        *("--upstream-ca", mint.ca_file),
        XPROXY_DOCTOR_PASSWORD=PASSWORDS["alice"],
    )
    by_check = {each["check"]: each for each in json.loads(outcome.out)["findings"]}
    assert by_check["login"]["severity"] == "ok"
    assert PASSWORDS["alice"] not in outcome.out + outcome.err
