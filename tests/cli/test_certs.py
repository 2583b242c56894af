import json
import os
import stat
import subprocess

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from xproxy.cli.certs import certs
from xproxy.errors import FileProblem, UsageProblem
from xproxy.tls.authority import read_ca_certificate
from xproxy.tls.trust import SYSTEMS


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def run(*arguments, **environment):
    return CliRunner().invoke(certs, [str(argument) for argument in arguments], env=environment)


def ok(*arguments, **environment):
    result = run(*arguments, **environment)
    assert result.exit_code == 0, result.output
    return result


def openssl_fingerprint(path):
    command = ["openssl", "x509", "-in", path, "-noout", "-fingerprint", "-sha256"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().partition("=")[2]


def test_init_tells_path_and_fingerprint_and_twice_does_no_harm(state):
    first, second = ok("init", "--state", state).output, ok("init", "--state", state).output
    for output in (first, second):
        assert str(state / "ca.pem") in output
        assert openssl_fingerprint(state / "ca.pem") in output
    assert "Made a CA" in first
    assert "already" in second


def test_init_with_a_domain_makes_its_certificate(state):
    output = ok("init", "--state", state, "--domain", "Bücher.example").output
    assert openssl_fingerprint(state / "leaves" / "xn--bcher-kva.example.pem") in output


def test_the_default_state_directory_is_that_of_the_service(state):
    ok("init", STATE_DIRECTORY=str(state))
    assert (state / "ca.pem").exists()


def test_show(state):
    ok("init", "--state", state, "--domain", "example.org")
    output = ok("show", "--state", state).output
    assert "days left" in output
    assert "_xmpp-client.example.org" in output
    for path in (state / "ca.pem", state / "leaves" / "example.org.pem"):
        assert str(path) in output
        assert openssl_fingerprint(path) in output
    assert "PRIVATE" not in output


def test_show_json(state):
    ok("init", "--state", state, "--domain", "example.org")
    shown = json.loads(ok("show", "--state", state, "--json").output)
    assert openssl_fingerprint(state / "ca.pem").replace(":", "").lower() == shown["ca"]["sha256"]
    (leaf,) = shown["leaves"]
    assert leaf["names"] == ["example.org", "_xmpp-client.example.org"]
    assert 390 < leaf["days_left"] < 397
    assert leaf["end_point_sha256"] == leaf["sha256"]  # ECDSA with SHA-256
    assert len(leaf["public_key_sha256"]) == 64


def test_show_one_domain(state):
    ok("init", "--state", state, "--domain", "a.example", "--domain", "b.example")
    assert [leaf["names"][0] for leaf in json.loads(ok("show", "--state", state, "--json").output)["leaves"]] == [
        "a.example",
        "b.example",
    ]
    assert "_xmpp-client.a.example" not in ok("show", "--state", state, "--domain", "b.example").output
    assert "No certificate was made for c.example" in ok("show", "--state", state, "--domain", "c.example").output


def test_export_to_standard_output(state):
    ok("init", "--state", state)
    exported = ok("export", "--state", state).stdout_bytes
    assert x509.load_pem_x509_certificate(exported) == read_ca_certificate(state)
    assert b"PRIVATE" not in exported


def test_export_der_to_a_file(state, tmp_path):
    ok("init", "--state", state)
    path = tmp_path / "ca.cer"
    result = ok("export", "--state", state, "--der", "--out", path)
    assert path.read_bytes() == read_ca_certificate(state).public_bytes(Encoding.DER)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert openssl_fingerprint(state / "ca.pem") in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["show", "export"])
def test_without_a_ca_nothing_is_made(state, command):
    result = run(command, "--state", state)
    assert isinstance(result.exception, FileProblem)
    assert result.exception.hint == "xproxy certs init makes one"
    assert not state.exists()


def test_export_into_nowhere(state, tmp_path):
    ok("init", "--state", state)
    result = run("export", "--state", state, "--out", tmp_path / "missing" / "ca.pem")
    assert isinstance(result.exception, FileProblem)
    assert str(tmp_path / "missing" / "ca.pem") in str(result.exception)


@pytest.mark.parametrize("domain", ["a..b", "192.0.2.1", "user@example.org"])
def test_a_domain_that_is_none(state, domain):
    result = run("init", "--state", state, "--domain", domain)
    assert isinstance(result.exception, UsageProblem)
    assert not state.exists()


@pytest.mark.parametrize("command", [[], ["init"], ["show"], ["export"]])
def test_help(command):
    assert len(ok(*command, "--help").output.splitlines()) > 8


def test_a_ca_made_with_domains_is_confined_to_them(state):
    output = ok("init", "--state", state, "--domain", "a.example", "--domain", "b.example").output
    assert "It may sign for: a.example, b.example, and what is below" in output
    shown = json.loads(ok("show", "--state", state, "--json").output)
    assert shown["ca"]["permitted_domains"] == ["a.example", "b.example"]
    assert "a.example, b.example, and what is below" in ok("show", "--state", state).output
    ok("init", "--state", state, "--domain", "chat.a.example")
    result = run("init", "--state", state, "--domain", "c.example")
    assert isinstance(result.exception, FileProblem)
    assert "may sign for a.example, b.example only" in str(result.exception)
    assert str(state / "ca.key") in result.exception.hint


def test_domains_for_a_ca_that_was_made_without_are_warned_about(state):
    ok("init", "--state", state)
    result = ok("init", "--state", state, "--domain", "a.example")
    assert "its key can sign for any" in result.stderr
    assert "It may sign for: any domain" in result.stdout
    assert (state / "leaves" / "a.example.pem").exists()


def test_init_json(state):
    made = json.loads(ok("init", "--state", state, "--domain", "a.example", "--json").output)
    assert made["made"] is True
    assert made["ca"]["permitted_domains"] == ["a.example"]
    assert [leaf["names"][0] for leaf in made["leaves"]] == ["a.example"]
    assert json.loads(ok("init", "--state", state, "--json").output)["made"] is False


def openssl(*arguments, data=None):
    return subprocess.run(["openssl", *map(str, arguments)], input=data, check=True, capture_output=True).stdout


def test_show_has_what_others_compute(state):
    """Fingerprints, the pin in the form of HPKP and OkHttp, and the hash for Prosody, computed by openssl."""
    ok("init", "--state", state, "--domain", "example.org")
    path = state / "leaves" / "example.org.pem"
    (leaf,) = json.loads(ok("show", "--state", state, "--json").output)["leaves"]
    output = ok("show", "--state", state).output
    sha1 = openssl("x509", "-in", path, "-noout", "-fingerprint", "-sha1").decode().strip().partition("=")[2]
    assert leaf["sha1"] == sha1.replace(":", "").lower()
    assert sha1 in output
    key = openssl("pkey", "-pubin", "-outform", "DER", data=openssl("x509", "-in", path, "-noout", "-pubkey"))
    pin = openssl("base64", data=openssl("dgst", "-sha256", "-binary", data=key)).decode().strip()
    assert leaf["public_key_sha256_base64"] == pin
    assert f"sha256/{pin}" in output
    der = openssl("x509", "-in", path, "-outform", "DER")
    digest = openssl("dgst", "-sha256", "-r", data=der).decode().split()[0]
    assert leaf["prosody"] == f'tls_server_end_point_hash = "{digest}"'
    assert leaf["prosody"] in output


@pytest.mark.parametrize("system", SYSTEMS)
def test_export_for_a_system_writes_its_files_and_says_how(state, tmp_path, system):
    ok("init", "--state", state)
    human = ok("export", "--state", state, "--for", system, "--out", tmp_path / "out").stdout
    told = json.loads(ok("export", "--state", state, "--for", system, "--out", tmp_path / "out", "--json").stdout)
    assert told["system"] == system
    for path in told["files"]:
        assert path in human
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    for step in told["steps"] + told["undo"]:
        assert step["text"] in human
        assert step["command"] is None or step["command"] in human
    assert openssl_fingerprint(state / "ca.pem") in human


@pytest.mark.parametrize(
    "arguments", [["--for", "java", "--der"], ["--for", "java", "--out", "-"], ["--json"], ["--for", "commodore"]]
)
def test_what_cannot_be_exported(state, arguments):
    ok("init", "--state", state)
    result = run("export", "--state", state, *arguments)
    assert result.exit_code == 2 or isinstance(result.exception, UsageProblem)
