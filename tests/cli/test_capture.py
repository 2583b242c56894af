"""``xproxy capture`` over files."""

import json
import shutil
from pathlib import Path

from tests.cli.conftest import RunXproxy
from tests.support.taping import TapedSession
from xproxy.capture.content import redaction
from xproxy.events import Side

C, S = Side.CLIENT, Side.SERVER


def make(path: Path, *, bodies: bool = False) -> Path:
    session = TapedSession(bodies=bodies).log_in()
    session.say(C, "<message to='a@b'><body>good morning</body></message><presence/>")
    session.say(S, "<message from='a@b'><body>\x9b31m\u202egnirom</body></message>")
    session.end()
    file = path / "x.xcap.jsonl"
    file.write_bytes(session.capture())
    return file


def test_a_transcript_reads_as_a_dialogue(xproxy: RunXproxy, tmp_path: Path) -> None:
    shown = xproxy("capture", "show", make(tmp_path, bodies=True))
    assert shown.code == 0
    lines = [line.split(None, 2)[-1] if line[:3].strip() else line.strip() for line in shown.out.splitlines()]
    at = lines.index("C>S <message to='a@b'>")
    assert lines[at : at + 4] == [
        "C>S <message to='a@b'>",
        "<body>good morning</body>",
        "</message>",
        "C>S <presence/>",
    ]
    assert lines[0] == "--  session 1, trace 0123456789abcdef0123456789abcdef"
    assert lines[-1] == "--  closed"
    assert "\x9b" not in shown.out
    assert "\u202e" not in shown.out
    assert "\\u{9b}31m\\u{202e}gnirom" in shown.out


def test_of_tls_that_passed_through_only_how_much_it_was_is_there(xproxy: RunXproxy, tmp_path: Path) -> None:
    file = Path(__file__).parent.parent / "vectors" / "captures" / "versions" / "v2.xcap.jsonl"
    assert b'"d":"client","ph":"opaque","octets":5088}' in file.read_bytes()
    shown = xproxy("capture", "show", file).out
    assert "TLS passes through undecrypted" in shown
    assert "16,361 octets of the client that nobody looked into" in shown
    assert "xxxx" not in shown
    (counted,) = json.loads(xproxy("capture", "stats", file).out)
    assert counted["opaque_octets"] == {"client": 16_361, "server": 17_505}
    assert counted["octets"] == {"client": 16_547, "server": 17_816}
    *_, closed = (json.loads(line) for line in xproxy("replay", "offline", file).out.splitlines())
    assert (closed["source"]["bytes"], closed["destination"]["bytes"]) == (16_547, 17_816)
    assert xproxy("capture", "redact", file, "-o", tmp_path / "again").code == 0
    # The first line of a session has its settings, and today's may be more.
    again, was = (each.read_bytes().splitlines() for each in (tmp_path / "again", file))
    assert (again[0], again[2:]) == (was[0], was[2:])


def test_a_session_that_is_not_there(xproxy: RunXproxy, tmp_path: Path) -> None:
    missing = xproxy("capture", "show", make(tmp_path), "--session", 7)
    assert (missing.code, missing.out) == (2, "")
    assert "has no session 7" in missing.err


def test_stats_count_what_is_there(xproxy: RunXproxy, tmp_path: Path) -> None:
    (counted,) = json.loads(xproxy("capture", "stats", make(tmp_path)).out)
    assert counted["sessions"] == counted["whole_sessions"] == 1
    assert counted["elements"] == {"header": 4, "iq": 2, "message": 2, "nonza": 4, "presence": 1}
    assert counted["redaction"] == redaction(bodies=False)
    assert counted["redaction_is_older"] is False


def test_redact_takes_bodies_out_again(xproxy: RunXproxy, tmp_path: Path) -> None:
    file, new = make(tmp_path, bodies=True), tmp_path / "new.xcap.jsonl"
    done = xproxy("capture", "redact", file, "-o", new)
    assert (done.code, done.err) == (0, "")
    assert b"good morning" in file.read_bytes()
    assert b"good morning" not in new.read_bytes()
    assert new.stat().st_mode & 0o777 == 0o600
    again = xproxy("capture", "redact", file, "-o", new)
    assert again.code == 3
    assert "exists name another" in " ".join(again.err.split())
    same = [xproxy("replay", "offline", each).out for each in (file, new)]
    assert same[0] == same[1]
    assert same[0].count("\n") > 10


def test_export_writes_packets_once(xproxy: RunXproxy, tmp_path: Path) -> None:
    pcapng = tmp_path / "x.pcapng"
    assert xproxy("capture", "export", make(tmp_path), "--pcapng", pcapng).code == 0
    assert pcapng.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    assert xproxy("capture", "export", make(tmp_path), "--pcapng", pcapng).code == 3


def test_a_damaged_file_is_one_line_and_leaves_nothing(xproxy: RunXproxy, tmp_path: Path) -> None:
    file = make(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:6], *lines[7:]]))
    for arguments in (
        ("show", file), ("stats", file), ("redact", file, "-o", tmp_path / "n"),
        ("export", file, "--pcapng", tmp_path / "p"),
    ):  # fmt: skip
        refused = xproxy("capture", *arguments)
        assert refused.code == 2
        assert f"xproxy: {file}:7: line 6 of session 1 is missing: this is 7" in refused.err
        assert "Traceback" not in refused.err
    assert not (tmp_path / "n").exists()
    assert not (tmp_path / "p").exists()


def test_no_proxy_to_ask(xproxy: RunXproxy, tmp_path: Path) -> None:
    for command in (("status",), ("start", tmp_path), ("stop",)):
        asked = xproxy("capture", *command, "--state", tmp_path)
        assert asked.code == 3
        assert "no xproxy runs" in asked.err or "xproxy" in asked.err


def test_a_directory_is_all_its_captures(xproxy: RunXproxy, tmp_path: Path) -> None:
    directory = tmp_path / "c"
    directory.mkdir()
    nothing = xproxy("capture", "stats", directory)
    assert (nothing.code, nothing.out) == (2, "")
    assert f"there is no capture, *.xcap.jsonl, in {directory}" in " ".join(nothing.err.split())
    shutil.copy(make(directory), directory / "y.xcap.jsonl")
    (directory / "dead.xcap.jsonl").write_bytes(b"")
    counted = xproxy("capture", "stats", directory)
    assert [Path(each["file"]).name for each in json.loads(counted.out)] == ["x.xcap.jsonl", "y.xcap.jsonl"]
    assert "dead.xcap.jsonl:1: there is no complete line" in counted.err
    assert xproxy("capture", "export", directory, "--pcapng", tmp_path / "p").code == 0
    assert (tmp_path / "p").read_bytes().count(b"trace 0123456789abcdef") > 20


def test_a_file_that_is_not_there_is_said_by_all(xproxy: RunXproxy, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for command in (("show", gone), ("stats", gone), ("redact", gone, "-o", "n"), ("export", gone, "--pcapng", "p")):
        refused = xproxy("capture", *command)
        assert refused.code == 3
        assert "No such file or directory" in " ".join(refused.err.split())
