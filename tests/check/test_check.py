"""`xproxy check` as an operator meets it: each thing that can be wrong, made to be wrong on this machine."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme

from tests.support import dns
from tests.support.mint import Mint
from xproxy.check import machine, network
from xproxy.check.finding import Severity
from xproxy.check.run import run_checks
from xproxy.config.journal import JournalSettings
from xproxy.config.listen import ListenAddress
from xproxy.config.load import section_fields, section_types
from xproxy.config.settings import Settings
from xproxy.config.state import StateSettings
from xproxy.journal.storage import Space
from xproxy.tls.authority import Authority

MIB = 1_048_576


@attrs.frozen
class Checked:
    """What the command said."""

    code: int
    findings: list[dict[str, Any]]
    err: str

    def of(self, topic: str, *severities: str) -> list[dict[str, Any]]:
        return [
            each
            for each in self.findings
            if each["topic"] == topic and each["severity"] in (severities or ("problem", "warning"))
        ]


@pytest.fixture
def mint(tmp_path: Path) -> Mint:
    (tmp_path / "mint").mkdir()
    return Mint(tmp_path / "mint")


def check(directory: Path, *arguments: object, **more: str) -> Checked:
    """Run the command in ``directory``; what is there afterwards is what was there before."""
    before = listing(directory)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XPROXY_")}
    environment = kept | {"XDG_STATE_HOME": str(directory / "xdg"), "PYTHONPATH": os.getcwd()} | more
    command = [sys.executable, "-m", "xproxy", "check", *map(str, arguments)]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert "internal error" not in done.stderr, done.stderr
    assert listing(directory) == before, "it changed something"
    return Checked(done.returncode, json.loads(done.stdout)["findings"] if done.stdout else [], done.stderr)


def listing(directory: Path) -> set[tuple[str, int, int]]:
    return {
        (str(path), path.lstat().st_mtime_ns, path.lstat().st_mode)
        for path in directory.rglob("*")
        if path.is_symlink() or path.exists()
    }


FREE = ("--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:5222")


@pytest.mark.slow
def test_what_is_fine_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    checked = check(tmp_path, *FREE)
    assert checked.code == 0, checked.findings
    assert {finding["topic"] for finding in checked.findings} == {
        *("config", "files", "permissions", "limits", "clock", "ports", "server")
    }
    assert [finding for finding in checked.findings if finding["severity"] == "problem"] == []
    assert not (tmp_path / "xdg").exists()


@pytest.mark.slow
def test_all_problems_come_at_once_each_with_its_place(tmp_path: Path, mint: Mint) -> None:
    leaf, other = mint.leaf("a.example", label="a"), mint.leaf("b.example", label="b")
    os.chmod(other.key, 0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "xproxy.toml").write_text(
            f"[listen]\naddresses = ['127.0.0.1:{port}']\n[upstream]\naddress = 'nowhere.invalid:5222'\n"
            f"[tls]\ncertificate_file = '{leaf.certificate}'\nkey_file = '{other.key}'\n"
            "[log]\npath = 'none/records.jsonl'\nlevel = 'info'\n[stream]\ndepth_max = 300\n"
            "[journal]\nrecords_max = 'x'\n"
        )
        checked = check(tmp_path)
    assert checked.code == 1
    problems = {finding["where"]: finding for finding in checked.findings if finding["severity"] == "problem"}
    assert problems.keys() == {f"xproxy.toml:{line}" for line in (2, 4, 6, 7, 9, 12, 14)}
    assert all(finding["hint"] for where, finding in problems.items() if where != "xproxy.toml:14")
    assert f"(process {os.getpid()}) has this port" in problems["xproxy.toml:2"]["message"]
    assert "nowhere.invalid: unknown-host" in problems["xproxy.toml:4"]["message"]
    assert "does not belong to the first certificate" in problems["xproxy.toml:6"]["message"]
    assert f"anybody may use the server's key {other.key}" in problems["xproxy.toml:7"]["message"]
    assert "there is no directory" in problems["xproxy.toml:9"]["message"]


@pytest.mark.slow
def test_a_refused_value_hides_only_what_depends_on_it(tmp_path: Path, mint: Mint) -> None:
    """One bad value in each section, and beside it in the same section something else that is wrong."""
    leaf, other = mint.leaf("a.example", label="a"), mint.leaf("b.example", label="b")
    os.chmod(other.key, 0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "xproxy.toml").write_text(
            f"[listen]\naddresses = ['127.0.0.1:{port}']\nheaders_max = 'x'\nheader_bytes_max = 3\n"
            "[upstream]\naddress = 'nowhere.invalid:5222'\ndomain = ''\nprobe_seconds_min = 40\nca_file = 'none.pem'\n"
            f"[tls]\ncertificate_file = '{leaf.certificate}'\nkey_file = '{other.key}'\nleaves_max = 'x'\n"
            "[log]\npath = 'none/records.jsonl'\nidentities = 'x'\n"
            "[stream]\ndepth_max = 300\nstanza_bytes_max = 'x'\n"
            "[journal]\nrecords_max = 3\nsegment_bytes_max = 'x'\n"
            "[capture]\njid = 'nobody'\nring_bytes = 'x'\n"
        )
        checked = check(tmp_path)
    problems = {finding["where"] for finding in checked.findings if finding["severity"] == "problem"}
    lines = (2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 15, 16, 18, 19, 21, 22, 24, 25)
    assert problems == {f"xproxy.toml:{line}" for line in lines}
    assert any(f"anybody may use the server's key {other.key}" in each["message"] for each in checked.findings)


@pytest.mark.slow
def test_whatever_key_is_refused_it_is_the_one_problem(tmp_path: Path) -> None:
    """Every check either does without it or is left out, and none takes a default for what was asked for."""
    file = tmp_path / "xproxy.toml"
    rest = {"upstream": {"address": "'127.0.0.1:9'"}, "state": {"directory": f"'{tmp_path / 'state'}'"}}
    rest["listen"] = {"addresses": "'127.0.0.1:0'"}
    for section in ("listen", "upstream", "tls", "log", "state"):
        for key in section_fields(section_types()[section]):
            lines = rest | {section: rest.get(section, {}) | {key: "{}"}}
            file.write_text(
                "".join(
                    f"[{name}]\n" + "".join(f"{each} = {value}\n" for each, value in values.items())
                    for name, values in lines.items()
                )
            )
            findings = run_checks({}, {}, file).findings
            (found,) = [each for each in findings if each.severity is Severity.PROBLEM]
            assert found.message.startswith(f"{key}: "), found


@pytest.mark.slow
def test_what_does_less_than_it_says_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "xproxy.toml").write_text("[upstream]\naddress = '127.0.0.1:5222'\ndomains = ['a.example']\n")
    checked = check(tmp_path, "--listen", "127.0.0.1:0")
    assert checked.code == 0
    (found,) = checked.of("config")
    assert (found["severity"], found["where"]) == ("warning", "xproxy.toml:3")
    assert found["message"].startswith("restricts nothing with address = 127.0.0.1:5222")
    assert found["hint"] == 'leave it away (a server refuses domains that are not its own), or write address = "srv"'


@pytest.mark.slow
def test_a_file_that_is_no_toml_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "xproxy.toml").write_text("[upstream]\naddress = x\n")
    checked = check(tmp_path)
    assert checked.code == 1
    (finding,) = checked.findings
    assert finding["where"].endswith("xproxy.toml:2:11")


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_of_the_environment(tmp_path: Path) -> None:
    checked = check(tmp_path, "-c", "none.toml")
    assert (checked.code, checked.findings) == (3, [])
    assert "cannot read the configuration file none.toml" in checked.err


@pytest.mark.slow
def test_it_takes_the_options_of_run_and_the_environment(tmp_path: Path) -> None:
    checked = check(tmp_path, "--log-level", "loud", XPROXY_LISTEN="here", XPROXY_UPSTREAM="a:5222")
    assert checked.code == 1
    assert {each["where"] for each in checked.of("config")} == {"--log-level", "environment variable XPROXY_LISTEN"}
    assert check(tmp_path, "--no-such-option").code == 2


# Certificates -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_certificate_is_looked_at_as_its_clients_would(tmp_path: Path, mint: Mint) -> None:
    soon = datetime.now(UTC) + timedelta(days=5)
    leaf = mint.leaf("a.example", label="a", not_after=soon)
    os.chmod(leaf.key, 0o640)  # as Debian's group ssl-cert has it
    checked = check(tmp_path, *FREE, "--cert", leaf.certificate, "--key", leaf.key, "--domain", "b.example")
    messages = [finding["message"] for finding in checked.of("files")]
    assert any("expires in 4 days" in message for message in messages)
    assert any("leads to no authority that this system knows" in message for message in messages)
    assert any("is not for b.example" in message for message in messages)
    assert checked.of("permissions") == []
    assert checked.code == 1
    assert check(tmp_path, *FREE, "--cert", leaf.certificate, "--key", leaf.key, "--domain", "a.example").code == 0


@pytest.mark.slow
def test_an_expired_certificate_and_an_open_key_are_problems(tmp_path: Path, mint: Mint) -> None:
    leaf = mint.expired("a.example")
    os.chmod(leaf.key, 0o644)
    checked = check(tmp_path, *FREE, "--cert", leaf.certificate, "--key", leaf.key)
    assert ["expired on" in each["message"] for each in checked.of("files", "problem")] == [True]
    (key,) = checked.of("permissions", "problem")
    assert key["message"] == f"anybody may use the server's key {leaf.key} (mode 0644)"
    assert key["hint"] == f"run chmod 600 {leaf.key}"
    assert key["where"] == "--key"


@pytest.mark.slow
def test_a_chain_in_the_wrong_order_is_told(tmp_path: Path) -> None:
    root = trustme.CA()
    middle = root.create_child_ca()
    leaf = middle.issue_cert("a.example")
    pems = [leaf.cert_chain_pems[0], root.cert_pem, middle.cert_pem]
    (tmp_path / "chain.pem").write_bytes(b"".join(pem.bytes() for pem in pems))
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    os.chmod(tmp_path / "key.pem", 0o600)
    checked = check(tmp_path, *FREE, "--cert", "chain.pem", "--key", "key.pem")
    assert [each["message"] for each in checked.of("files")] == [
        "certificate 2 in chain.pem is not the issuer of certificate 1"
    ]


@pytest.mark.slow
def test_the_local_ca_is_looked_at_and_not_made(tmp_path: Path) -> None:
    state = tmp_path / "state"
    Authority.open_(state)
    good = check(tmp_path, *FREE, "--state", state)
    assert "the local CA is valid until" in " ".join(each["message"] for each in good.of("files", "ok"))
    (state / "ca.key").chmod(0o604)
    assert [each["message"] for each in check(tmp_path, *FREE, "--state", state).of("permissions")] == [
        f"anybody may use the CA's key {state}/ca.key (mode 0604)"
    ]
    (state / "ca.key").unlink()
    (missing,) = check(tmp_path, *FREE, "--state", state).of("files", "problem")
    assert "has no key" in missing["message"]
    (state / "ca.key").write_text("no key")
    (broken,) = check(tmp_path, *FREE, "--state", state).of("files", "problem")
    assert "holds no private key that can be read" in broken["message"]


@pytest.mark.slow
def test_verification_that_is_off_is_a_warning(tmp_path: Path) -> None:
    checked = check(tmp_path, *FREE, "--upstream-verify", "none")
    assert checked.code == 0
    (warned,) = checked.of("files")
    assert warned["where"] == "--upstream-verify"
    assert "any certificate of the server is taken" in warned["message"]


# Permissions --------------------------------------------------------------------------------------------------------


AS_NOBODY = """
import os, sys
from xproxy.cli.main import main
import xproxy.check.run, xproxy.cli.check, xproxy.cli.output, rich.console, rich.text, encodings.idna, cattrs
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that anybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="xproxy-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_what_the_services_user_may_not_is_seen(open_directory: Path, mint: Mint) -> None:
    state, log = open_directory / "state", open_directory / "records.jsonl"
    state.mkdir(mode=0o755)
    log.write_text("")
    leaf = mint.leaf("a.example")
    (open_directory / "key.pem").write_bytes(leaf.key.read_bytes())
    (open_directory / "cert.pem").write_bytes(leaf.certificate.read_bytes())
    (open_directory / "key.pem").chmod(0o600)
    options = (
        "--state",
        state,
        "--log",
        log,
        "--cert",
        open_directory / "cert.pem",
        "--key",
        open_directory / "key.pem",
    )
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "check", *FREE, *map(str, options)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    findings = json.loads(done.stdout)["findings"]
    problems = {each["where"]: each["message"] for each in findings if each["severity"] == "problem"}
    assert problems["--state"] == f"cannot write to the state directory {state}, which is root's"
    assert problems["--log"] == f"cannot write to the log file {log}, which is root's"
    assert problems["--key"] == f"cannot read the server's key {open_directory}/key.pem, which is root's"
    assert "cannot read the key file" in problems["--cert"] or "Permission denied" in problems["--cert"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_what_the_services_user_may_not_even_look_at_is_no_accident(open_directory: Path) -> None:
    closed = open_directory / "closed"
    Authority.open_(closed / "state")
    closed.chmod(0o700)
    options = ("--state", closed / "state", "--log", closed / "records.jsonl")
    others = ("--cert", closed / "cert.pem", "--key", closed / "key.pem", "--upstream-ca", closed / "ca.pem")
    for more in ((), others):
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, "check", *FREE, *map(str, (*options, *more))],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "internal error" not in done.stderr
        assert done.returncode == 1, done.stderr
        problems = {each["where"] for each in json.loads(done.stdout)["findings"] if each["severity"] == "problem"}
        assert {"--state", "--log"} <= problems
        assert not more or {"--cert", "--upstream-ca"} <= problems


@pytest.mark.slow
def test_a_state_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a directory" in check(tmp_path, *FREE, "--state", "file").of("permissions", "problem")[0]["message"]
    below = check(tmp_path, *FREE, "--state", "file/below").of("permissions", "problem")[0]["message"]
    assert "cannot be made" in below or "cannot look at" in below
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "anybody may write" in check(tmp_path, *FREE, "--state", "open").of("permissions", "problem")[0]["message"]
    (tmp_path / "group").mkdir()
    (tmp_path / "group").chmod(0o750)
    assert "others may enter" in check(tmp_path, *FREE, "--state", "group").of("permissions", "warning")[0]["message"]
    if os.geteuid() == 0:
        (tmp_path / "theirs").mkdir(mode=0o700)
        os.chown(tmp_path / "theirs", 65_534, -1)
        warned = check(tmp_path, *FREE, "--state", "theirs").of("permissions", "warning")[0]["message"]
        assert "can exchange CA and log" in warned


# Limits and clock ---------------------------------------------------------------------------------------------------


def place(section: str, key: str) -> str:
    return f"{key} in [{section}]"


def test_open_files_are_counted_against_sessions() -> None:
    (short,) = machine.check_descriptors(Settings(), place, (1_024, 4_096))
    assert short.severity is Severity.WARNING
    assert short.message == "4096 open files allow 2016 sessions, sessions_max is 10000"
    assert short.hint is not None
    assert "LimitNOFILE=20064" in short.hint
    (fits,) = machine.check_descriptors(Settings(), place, (1_024, 20_064))
    assert fits.severity is Severity.OK


@pytest.mark.parametrize(
    ("free", "total", "inodes", "severities"),
    [
        (10_000 * MIB, 20_000 * MIB, 1_000, ["ok"]),
        (10_000 * MIB, 20_000 * MIB, None, ["ok"]),
        (10_000 * MIB, 20_000 * MIB, 3, ["problem"]),
        (100 * MIB, 20_000 * MIB, 1_000, ["problem"]),
        (200 * MIB, 20_000 * MIB, 1_000, ["warning", "warning", "warning"]),
        (1_000 * MIB, 20_000 * MIB, 1_000, ["warning"]),
    ],
)
def test_the_disk_is_measured_against_the_journal(
    free: int, total: int, inodes: int | None, severities: list[str]
) -> None:
    found = machine.room_findings(Space(total_bytes=total, free_bytes=free), inodes, Settings(), place)
    assert [each.severity.value for each in found] == severities


def test_settings_that_need_more_room_are_measured_by_it() -> None:
    big = Settings(journal=JournalSettings(segment_bytes_max=4_000 * MIB))
    found = machine.room_findings(Space(total_bytes=5_000 * MIB, free_bytes=4_000 * MIB), None, big, place)
    assert [each.severity.value for each in found] == ["problem"]


@pytest.mark.slow
def test_a_clock_behind_the_journal_is_a_problem(tmp_path: Path) -> None:
    state = tmp_path / "state"
    command = [sys.executable, "-m", "xproxy", "run", *FREE, "--state", state, "--log", tmp_path / "log"]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert "listening on" in running.stderr.readline()
        live = check_messages(tmp_path, "--state", state)
        running.terminate()
    newest = machine.newest_entry_ns(state)
    assert newest is not None
    settings = Settings(state=StateSettings(directory=state))

    def found(now_ns: int) -> list[tuple[str, str]]:
        found = [*machine.check_journal_times(settings, now_ns), *machine.check_clock(now_ns)]
        return [(each.severity.value, each.message) for each in found][:1]

    assert found(newest + 1)[0][0] == "ok"
    (severity, message) = found(newest - 7_200_000_000_000)[0]
    assert severity == "problem"
    assert "2 hours behind the newest record" in message
    assert found(newest + 500 * 86_400_000_000_000)[0][0] == "warning"
    assert found(1_000_000_000)[0] == ("problem", "the clock says 1970-01-01 00:00, which is before xproxy was made")
    assert any("ahead of the newest record of the journal" in message for message in live)


def check_messages(directory: Path, *arguments: object) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XPROXY_")}
    command = [sys.executable, "-m", "xproxy", "check", *FREE, *map(str, arguments)]
    done = subprocess.run(command, cwd=directory, env=kept, capture_output=True, text=True, check=True)
    return [each["message"] for each in json.loads(done.stdout)["findings"]]


def test_whether_the_clock_is_kept_right_is_the_kernels_word() -> None:
    assert machine.is_synchronised() in (True, False, None)


# Ports --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_port_of_the_proxy_that_runs_is_no_problem(tmp_path: Path) -> None:
    state, ready = tmp_path / "state", tmp_path / "ready"
    command = [sys.executable, "-m", "xproxy", "run", *FREE, "--state", state, "--log", tmp_path / "log",
               "--ready-file", ready]  # fmt: skip
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert "listening on" in running.stderr.readline()
        address = ready.read_text().strip()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XPROXY_")}
        again = ["check", "--listen", address, "--upstream", "127.0.0.1:5222"]

        def ports(*more: object) -> list[tuple[str, str]]:
            done = subprocess.run([sys.executable, "-m", "xproxy", *again, *map(str, more)], env=kept,
                                  capture_output=True, text=True, check=False)  # fmt: skip
            return [(f["severity"], f["message"]) for f in json.loads(done.stdout)["findings"] if f["topic"] == "ports"]

        own = ports("--state", state)
        others = ports("--state", tmp_path / "other")
        running.terminate()
    assert own == [("ok", f"{address} is listened on by the xproxy that runs now (process {running.pid})")]
    ((severity, message),) = others
    assert severity == "problem"
    assert re.search(rf"\w+ \(process {running.pid}\) has this port", message)


def test_who_holds_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ((pid, name),) = network.holders_of(taken.getsockname()[1])
    assert pid == os.getpid()
    assert name


def test_an_address_that_is_not_ours_is_told() -> None:
    for host, words in (("192.0.2.1", "Cannot assign"), ("nowhere.invalid", "is not known here")):
        (found,) = network.check_port(ListenAddress(host, 0), "--listen", None)
        assert found.severity is Severity.PROBLEM
        assert words in found.message


# For people ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_person_gets_a_list_by_topic(tmp_path: Path) -> None:
    from tests.control.test_running import on_a_terminal

    shown = on_a_terminal("check", *FREE, "--state", str(tmp_path / "state"), "--log", "/none/x.jsonl")
    assert "permissions" in shown
    assert "x --log: the log file /none/x.jsonl cannot be made: there is no directory /none" in shown
    assert "1 problem, " in shown
    quiet = on_a_terminal("check", "-q", *FREE, "--state", str(tmp_path / "state"), "--log", "/none/x.jsonl")
    assert "can be listened on" not in quiet


# The server ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(dns.missing() is not None, reason="Debian package dnsmasq-base is not installed")
def test_the_servers_of_all_domains_that_are_listed_are_looked_up(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    records = (dns.srv("a.test", target="xmpp.test", port=5299), dns.host("xmpp.test", "192.0.2.7"))
    with dns.running_dns(tmp_path_factory.mktemp("dns"), *records) as server:

        def found(domains: list[str]) -> list[tuple[str, str, str]]:
            file = tmp_path / "xproxy.toml"
            file.write_text(
                f"[upstream]\naddress = 'srv'\nnameservers = ['{server.address}']\ndomains = {json.dumps(domains)}\n"
                f"[state]\ndirectory = '{tmp_path / 'state'}'\n[listen]\naddresses = '127.0.0.1:0'\n"
            )
            findings = [each for each in run_checks({}, {}, file).findings if each.topic == "server"]
            return [(each.severity.value, each.where.removeprefix(f"{tmp_path}/"), each.message) for each in findings]

        assert found(["a.test", "gone.test", "*"]) == [
            ("ok", "xproxy.toml:4", "a.test is at 192.0.2.7:5299"),
            ("warning", "xproxy.toml:4", "the server of gone.test cannot be looked up: gone.test: unknown-host"),
        ]
        ((severity, _, _),) = found(["gone.test"])
        assert severity == "problem"
        ((severity, _, _),) = found(["*"])
        assert severity == "unknown"
