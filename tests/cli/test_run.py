"""`xproxy run` as an operator meets it: what it says, where, what to do, and the exit code."""

import contextlib
import json
import platform
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
import trustme

from tests.cli.conftest import SECONDS_MAX, RunXproxy, StartXproxy
from xproxy.cli.run import run
from xproxy.config.options import OPTIONS

pytestmark = pytest.mark.slow

LOOPBACK = ("--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:9")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.pem, a.key, b.pem, b.key."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    for name in "ab":
        leaf = authority.issue_cert("example.org")
        leaf.cert_chain_pems[0].write_to_path(directory / f"{name}.pem")
        leaf.private_key_pem.write_to_path(directory / f"{name}.key")
    return directory


def wait_started(process: "subprocess.Popen[str]") -> str:
    """Return the line on stderr that says where it listens."""
    assert process.stderr is not None
    for line in process.stderr:
        if "listening on" in line:
            return line
    raise AssertionError("it ended")


def test_the_options_are_these_and_no_others() -> None:
    """Others call this command line; it does not change by accident."""
    flags = {flag for parameter in run.params if isinstance(parameter, click.Option) for flag in parameter.opts}
    assert flags == {option.flag for option in OPTIONS} | {"-c", "--config", "--ready-file"}
    assert {option.flag for option in OPTIONS} == {
        *("--listen", "--trusted", "--upstream", "--domain", "--state", "--log", "--log-format", "--log-level"),
        "--identities",
        *("--cert", "--key", "--upstream-ca", "--upstream-verify", "--upstream-tls", "--upstream-proxy-protocol"),
        *("--capture", "--capture-on", "--capture-jid", "--capture-ip", "--capture-ring", "--capture-bodies"),
        "--keylog",
    }


def test_it_listens_says_where_and_stops_in_form(
    start_xproxy: StartXproxy, tmp_path: Path, environment: dict[str, str]
) -> None:
    process = start_xproxy(
        *("run", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"),
        *("--ready-file", "ready", "--log", "log.jsonl"),
        XPROXY_UPSTREAM="127.0.0.1:9",
    )
    line = wait_started(process)
    addresses = (tmp_path / "ready").read_text().splitlines()
    assert re.fullmatch(r"127\.0\.0\.1:\d+", addresses[0])
    assert re.fullmatch(r"\[::1\]:\d+", addresses[1])
    state = Path(environment["XDG_STATE_HOME"]) / "xproxy"
    assert line == (
        f"xproxy: listening on {addresses[0]}, {addresses[1]} for 127.0.0.1:9; records in log.jsonl; "
        f"clients must trust {state}/ca.pem\n"
    )
    assert (state / "ca.pem").exists()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=SECONDS_MAX)
    assert (process.returncode, out, err) == (0, "", "")
    opened, started, stopped = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert opened["event"]["action"] == "journal-opened"
    assert started["xproxy"]["listeners"] == addresses
    assert stopped["event"]["reason"] == "sigterm"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "ready"))) == ["ready"]


def test_a_server_that_is_down_is_said_on_stderr_and_recorded(start_xproxy: StartXproxy) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        upstream = f"127.0.0.1:{unused.getsockname()[1]}"
        process = start_xproxy("run", "--listen", "127.0.0.1:0", "--upstream", upstream)
        host, _, port = wait_started(process).split()[3].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=SECONDS_MAX) as client:
            client.sendall(b"<?xml version='1.0'?><stream:stream ")
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""  # closed without a byte
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 0
    assert f"the server {upstream} cannot be reached (refused)" in err
    assert "start it, or check --upstream" in err
    assert "upstream-failed" in [json.loads(line)["event"]["action"] for line in out.splitlines()]


def test_without_a_reader_it_ends_and_says_so(start_xproxy: StartXproxy) -> None:
    process = start_xproxy("run", *LOOPBACK)
    wait_started(process)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.send_signal(signal.SIGHUP)  # makes a record
    assert process.wait(SECONDS_MAX) == 3
    err = process.stderr.read()
    assert "cannot write log standard output: nobody reads it any more" in err
    assert "Traceback" not in err


def test_every_problem_of_the_configuration_is_shown_at_once(xproxy: RunXproxy, tmp_path: Path) -> None:
    (tmp_path / "xproxy.toml").write_text("[strem]\n[stream]\ndepth_max = 'x'\n")
    result = xproxy("run", "--listen", "here", XPROXY_LOG_LEVEL="loud")
    assert result.code == 2
    assert result.err.splitlines() == [
        "xproxy: the configuration has 5 problems",
        "  xproxy.toml:1: unknown section or key 'strem': did you mean 'stream'?",
        "  xproxy.toml:3: depth_max: must be a whole number, not 'x'",
        "  environment variable XPROXY_LOG_LEVEL: must be debug, info, warning, error or critical, not 'loud'",
        "  --listen: 'here' has no port: write here:5222",
        "  --upstream: no server is named: add --upstream HOST:PORT, or address in [upstream] of xproxy.toml",
    ]


def test_a_bad_line_of_toml_is_named(xproxy: RunXproxy, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[upstream]\naddress = xmpp.example.org:5222\n")
    result = xproxy("run", "-c", "bad.toml")
    assert result.code == 2
    assert "bad.toml:2:11: " in result.err
    assert "text needs quotes" in result.err


def test_a_line_of_toml_that_is_bad_otherwise_is_not_said_to_need_quotes(xproxy: RunXproxy, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[upstream\n")
    result = xproxy("run", "-c", "bad.toml")
    assert result.code == 2
    assert "bad.toml:1:10: expected ']'" in result.err
    assert "quotes" not in result.err


ENVIRONMENT_PROBLEMS: dict[str, tuple[str, str, str]] = {
    # arguments, what and where, what to do
    "host": (
        "--listen 127.0.0.1:0 --upstream nowhere.invalid:5222",
        "the server nowhere.invalid:5222 cannot be looked up",
        "check --upstream",
    ),
    "certificate": (
        "--cert none.pem --key {dir}/a.key",
        "read the certificate file none.pem: No such",
        "check the path",
    ),
    "key": ("--cert {dir}/a.pem --key none.key", "read the key file none.key: No such file", "check the path"),
    "unreadable key": ("--cert {dir}/a.pem --key {dir}/a.pem", "a.pem holds no private key", "BEGIN PRIVATE KEY"),
    "mismatch": ("--cert {dir}/a.pem --key {dir}/b.key", "b.key does not belong to", "name the pair"),
    "ca": ("--upstream-ca none.pem", "read the file of authorities none.pem: No such file", "check the path"),
    "no ca": ("--upstream-ca {dir}/a.key", "a.key holds no certificate", "BEGIN CERTIFICATE"),
    "config": ("-c none.toml", "cannot read the configuration file none.toml: No such file", "check the path"),
    "log": ("--log none/log.jsonl", "cannot open the log file none/log.jsonl: No such file", "check the path"),
    "ready": ("--ready-file none/ready", "cannot write the ready file none/ready: No such file", "check the path"),
    "state": ("--state /proc/none", "cannot make the state directory /proc/none", "choose another with --state"),
}


@pytest.mark.parametrize("name", ENVIRONMENT_PROBLEMS)
def test_what_the_machine_lacks_is_a_sentence(xproxy: RunXproxy, certificates: Path, name: str) -> None:
    arguments, what, todo = ENVIRONMENT_PROBLEMS[name]
    more = shlex.split(arguments.format(dir=certificates))
    result = xproxy("run", *(() if "--upstream" in more else LOOPBACK), *more)
    assert result.code == 3
    assert what in result.err
    assert todo in result.err


def test_a_port_that_is_taken_is_named(xproxy: RunXproxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = xproxy("run", "--listen", address, "--upstream", "127.0.0.1:9")
    assert result.code == 3
    assert f"cannot listen on {address}: Address already in use" in result.err
    assert "stop it, or choose another port" in result.err
    (record,) = result.out.splitlines()
    assert "journal-opened" in record


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_threads_share_one_heap(tmp_path: Path) -> None:
    script = f"""
import ctypes, threading
from xproxy.cli.run import keep_one_heap
keep_one_heap()
threads = [threading.Thread(target=lambda: [bytearray(100_000) for _ in range(100)]) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen({str(tmp_path / "heaps").encode()!r}, b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "heaps").read_text().count("<heap nr=") == 1
