import json
import stat
import subprocess

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from xproxy.cli.certs import certs
from xproxy.errors import FileProblem, UsageProblem
from xproxy.tls.authority import read_ca_certificate


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
    ok("init", "--state", state, "--domain", "a.example")
    ok("init", "--state", state, "--domain", "b.example")
    assert [leaf["names"][0] for leaf in json.loads(ok("show", "--state", state, "--json").output)["leaves"]] == [
        "a.example",
        "b.example",
    ]
    assert "a.example" not in ok("show", "--state", state, "--domain", "b.example").output
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
