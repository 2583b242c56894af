"""`xproxy share`, and what systemd's own tools say to the units."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from xproxy import share
from xproxy.cli.main import cli
from xproxy.config.options import CREDENTIALS, OPTIONS

SCORE_MAX = 1.5
"""Of systemd-analyze security: 0 is out of everybody's reach, above 1.9 it says "MEDIUM"."""

PLAIN = {"SYSTEMD_COLORS": "0"}
ROOT = Path(__file__).parents[2]
FILES = ROOT / "xproxy" / "share" / "files"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["share", *arguments], prog_name="xproxy", standalone_mode=False)
    if result.exception is not None:
        return 1, str(result.exception)
    return result.return_value or 0, result.output


def test_what_is_listed_is_there_and_nothing_else() -> None:
    code, output = run("list", "--json")
    assert code == 0
    assert {each["name"] for each in json.loads(output)} == {path.name for path in FILES.iterdir()}


def test_a_group_is_written_with_the_path_of_the_program(tmp_path: Path) -> None:
    code, output = run("write", "systemd", str(tmp_path / "units"), "--program", "/opt/pipx/bin/xproxy")
    assert code == 0
    assert "goes to /etc/systemd/system/xproxy.service" in output
    unit = (tmp_path / "units" / "xproxy.service").read_text()
    assert "ExecStart=/opt/pipx/bin/xproxy run" in unit
    assert "ExecReload=/opt/pipx/bin/xproxy reload" in unit
    assert "/usr/bin/xproxy" not in unit
    code, output = run("write", "xproxy.service", str(tmp_path / "units"))
    assert (code, "is there already: --force replaces it" in output) == (1, True)
    assert run("write", "xproxy.service", str(tmp_path / "units"), "--force")[0] == 0


def test_a_program_in_a_home_is_warned_of(tmp_path: Path) -> None:
    assert "ProtectHome=" in run("write", "systemd", str(tmp_path), "--program", "/home/me/bin/xproxy")[1]


def test_standard_output_takes_a_file(tmp_path: Path) -> None:
    assert "FROM ${BASE}" in run("write", "Containerfile", "-")[1]


def test_an_unknown_name_is_answered_with_the_known() -> None:
    code, output = run("write", "unit")
    assert code == 1
    assert "there is no file 'unit': there are systemd, xproxy.service" in output


# Units --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, for a program that is there."""
    program = tmp_path / "xproxy"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    directory = tmp_path / "units"
    assert run("write", "systemd", str(directory), "--program", str(program))[0] == 0
    return directory


@needs_systemd
@pytest.mark.slow
def test_the_score_of_the_sandbox_is_below_the_bar(units: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(units / "xproxy.service")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "SYSTEMD_COLORS": "0"}
    )
    found = re.search(r"Overall exposure level for xproxy\.service: ([\d.]+) (\w+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    print(found[0])
    assert float(found[1]) <= SCORE_MAX


@needs_systemd
@pytest.mark.slow
def test_systemd_finds_nothing_wrong_with_the_units(units: Path) -> None:
    for drop_in in ("certificate.conf", "capabilities.conf"):
        below = units / "xproxy.service.d"
        below.mkdir(exist_ok=True)
        shutil.move(units / drop_in, below / drop_in)
    command = ["systemd-analyze", "verify", str(units / "xproxy.service"), str(units / "xproxy.socket")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # The sandbox in which tests run may have no manager: that is not about our units.
    about_us = [line for line in (done.stdout + done.stderr).splitlines() if "xproxy" in line]
    assert (done.returncode, about_us) == (0, [])


@needs_systemd
def test_the_user_is_one_that_sysusers_can_make(units: Path) -> None:
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("systemd-sysusers is not installed")
    root = units / "root"
    (root / "etc" / "sysusers.d").mkdir(parents=True)
    shutil.copy(units / "xproxy.sysusers", root / "etc" / "sysusers.d" / "xproxy.conf")
    subprocess.run(["systemd-sysusers", f"--root={root}"], check=True, capture_output=True)
    made = (root / "etc" / "passwd").read_text()
    assert re.search(r"^xproxy:x:\d+:\d+:Transparent XMPP logging proxy:/var/lib/xproxy:.*nologin$", made, re.MULTILINE)


def test_variables_in_the_defaults_are_options() -> None:
    variables = set(re.findall(r"^#?(XPROXY_\w+)=", (FILES / "xproxy.default").read_text(), re.MULTILINE))
    assert len(variables) >= 4
    assert variables <= {option.variable for option in OPTIONS}


def test_credentials_in_the_drop_in_are_those_that_are_read() -> None:
    text = (FILES / "certificate.conf").read_text()
    assert set(re.findall(r"^LoadCredential=([\w.-]+):", text, re.MULTILINE)) == {"cert.pem", "key.pem"}
    assert all(credential.name in text for credential in CREDENTIALS)


def test_no_file_names_a_registry() -> None:
    for path in FILES.iterdir():
        images = re.findall(r"^(?:FROM|ARG BASE=)\s*(\S+)", path.read_text(), re.MULTILINE)
        assert [image for image in images if "/" in image or "." in image.partition(":")[0]] == []


def test_every_file_says_where_it_goes() -> None:
    for each in share.SHARED:
        text = share.read(each).decode()
        assert text.startswith("#")
        assert "Goes to" in text or "goes to" in text or each.name == "Containerfile"
