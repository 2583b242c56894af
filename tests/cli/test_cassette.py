"""``xproxy cassette``, and what ``xproxy replay`` says before it plays."""

from pathlib import Path

import pytest

from xproxy.capture.cassette import REDACTION
from xproxy.capture.cassette_xml import read_cassette
from xproxy.cli.main import main

SAMPLES = Path(__file__).parents[1] / "vectors" / "cassettes"
SAMPLE = SAMPLES / "v2.xmpp.xml"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A cassette that may be changed."""
    path = tmp_path / "it.xmpp.xml"
    path.write_bytes(SAMPLE.read_bytes())
    return path


def test_check_names_every_problem_of_every_file(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cassette", "check", str(copy)]) == 0
    assert "ok, 1 sessions, 8 events" in capsys.readouterr().out
    for name in ("one", "two"):
        text = copy.read_text().replace("${id:1}", "${nonsense}")
        (tmp_path / name).write_text(text)
    assert main(["cassette", "check", *(str(tmp_path / name) for name in ("one", "two")), str(copy)]) == 2
    said = capsys.readouterr()
    assert "ok" in said.out
    for name in ("one", "two"):
        assert f"{tmp_path / name}:9: unknown placeholder" in said.err.replace("\n", "")


def test_fmt_writes_the_one_layout_and_the_present_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.xmpp.xml"
    path.write_bytes((SAMPLES / "v1.xmpp.xml").read_bytes())
    assert main(["cassette", "fmt", "--check", str(path)]) == 1
    assert path.read_bytes() == (SAMPLES / "v1.xmpp.xml").read_bytes()
    assert main(["cassette", "fmt", str(path)]) == 0
    assert 'version="2"' in path.read_text()
    assert main(["cassette", "fmt", "--check", str(path)]) == 0
    assert "would be changed" in capsys.readouterr().out


def test_redact_takes_bodies_and_secrets_out(copy: Path) -> None:
    assert main(["cassette", "redact", "--keep-bodies", "--secret", "Art thou there?", str(copy)]) == 0
    assert "Art thou" not in copy.read_text()
    assert "I am." in copy.read_text()
    assert main(["cassette", "redact", str(copy)]) == 0
    assert "I am." not in copy.read_text()
    assert read_cassette(copy).meta.bodies == "hidden"


def test_diff_names_what_is_different(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cassette", "diff", str(SAMPLE), str(copy)]) == 0
    copy.write_text(copy.read_text().replace("I am.", "I am not."))
    assert main(["cassette", "diff", str(SAMPLE), str(copy)]) == 1
    assert "@ #7 -> #7 /message/body: expected 'I am.', got 'I am not.'" in capsys.readouterr().out


def test_make_without_a_session_says_how_to_record_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.xcap.jsonl"
    path.write_text("")
    assert main(["cassette", "make", str(path)]) == 2
    assert "no complete line" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["server --listen 127.0.0.1:0", "client --connect 127.0.0.1:1"])
def test_replay_says_what_is_missing(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind, *options = command.split()
    assert main(["replay", kind, str(SAMPLE), *options]) == 2
    assert "no password for juliet" in capsys.readouterr().err
    assert main(["replay", kind, str(tmp_path / "none"), *options]) == 3
    assert main(["replay", kind, str(SAMPLE), *options, "--password", "canary-alone"]) == 2
    assert "canary" not in capsys.readouterr().err
    newer = tmp_path / "newer.xmpp.xml"
    newer.write_text('<cassette xmlns="urn:xproxy:cassette" version="99"/>')
    assert main(["replay", kind, str(newer), *options]) == 2
    assert "update xproxy" in capsys.readouterr().err


def test_a_taken_port_is_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = ["--listen", f"127.0.0.1:{port}", "--state", str(tmp_path), "--password", "juliet=x"]
        assert main(["replay", "server", str(SAMPLE), *listen]) == 3
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_nobody_listening_is_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.support.ports import free_ports

    (port,) = free_ports(1)
    arguments = ["--connect", f"127.0.0.1:{port}", "--password", "juliet=x", "--insecure"]
    assert main(["replay", "client", str(SAMPLE), *arguments]) == 3
    assert "cannot connect" in capsys.readouterr().err


def test_when_nobody_comes_it_ends_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junit = tmp_path / "junit.xml"
    arguments = ["--listen", "127.0.0.1:0", "--state", str(tmp_path / "state"), "--password", "juliet=x"]
    arguments += ["--total-seconds", "0.2", "--junit", str(junit), "--format", "human"]
    assert main(["replay", "server", str(SAMPLE), *arguments]) == 5
    assert "Timeout: no client came" in capsys.readouterr().out
    assert 'type="Timeout"' in junit.read_text()


def test_accept_writes_what_came_and_shows_no_password(tmp_path: Path, copy: Path) -> None:
    """Both commands against each other: the client says what another cassette has."""
    import subprocess
    import sys
    import time

    other = tmp_path / "other.xmpp.xml"
    other.write_text(copy.read_text().replace("I am.", "I am not."))
    state, ready = tmp_path / "state", tmp_path / "ready"
    xproxy = [sys.executable, "-m", "xproxy", "replay"]
    password = ["--password", "juliet=canary-password"]
    server = subprocess.Popen(
        [*xproxy, "server", str(copy), "--listen", "127.0.0.1:0", "--state", str(state), "--ready-file", str(ready),
         "--format", "human", "--accept", *password],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not ready.exists():
        assert server.poll() is None, server.communicate()[1]
        time.sleep(0.02)
    client = subprocess.run(
        [*xproxy, "client", str(other), "--connect", ready.read_text().strip(), "--ca", str(state / "ca.pem"),
         *password],
        capture_output=True, text=True,
    )  # fmt: skip
    out, err = server.communicate(timeout=30)
    assert client.returncode == 0, client.stdout + client.stderr
    assert server.returncode == 1
    assert "expected 'I am.', got 'I am not.'" in out
    assert "canary" not in out + err + client.stdout + client.stderr
    assert "to accept what came: xproxy replay server" in out
    assert copy.read_text() == other.read_text().replace('"default-1"', f'"{REDACTION}"')


def test_make_with_a_file_of_passwords_that_is_no_text_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "passwords").write_bytes(b"juliet=\xff\xfe\n")
    (tmp_path / "passwords").chmod(0o600)
    capture = next((Path(__file__).parent.parent / "vectors" / "captures").glob("*.xcap.jsonl"))
    assert main(["cassette", "make", str(capture), "--password-file", str(tmp_path / "passwords")]) == 3
    assert "are no UTF-8" in capsys.readouterr().err
