"""``xproxy replay offline``: records, golden files, reports, exit codes."""

import json
import shutil
from pathlib import Path

import pytest
from lxml import etree

from tests.cli.conftest import RunXproxy
from tests.support.taping import TRACE_ID, TapedSession
from xproxy.events import Side

C, S = Side.CLIENT, Side.SERVER


def make(directory: Path, name: str = "login", *, error: bool = False, whole: bool = True) -> Path:
    directory.mkdir(exist_ok=True)
    session = TapedSession().log_in()
    if error:
        session.say(S, "<message type='error' from='example.org' id='4'><error type='cancel'><gone "
                       "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>")  # fmt: skip
    if whole:
        session.end()
    file = directory / f"{name}.xcap.jsonl"
    file.write_bytes(session.capture())
    return file


def test_the_records_of_then(xproxy: RunXproxy, tmp_path: Path) -> None:
    replayed = xproxy("replay", "offline", make(tmp_path))
    assert (replayed.code, replayed.err) == (0, "")
    records = [json.loads(line) for line in replayed.out.splitlines()]
    assert [record["event"]["id"] for record in records] == [f"{TRACE_ID}-{n}" for n in range(1, len(records) + 1)]
    assert records[0]["event"]["action"] == "connection-accepted"
    assert records[0]["@timestamp"] == "2026-11-25T20:00:00.000000Z"
    assert records[-1]["event"]["action"] == "connection-closed"
    assert records[-1]["observer"]["hostname"] == "gateway"


def test_the_same_input_gives_the_same_output(xproxy: RunXproxy, tmp_path: Path) -> None:
    file = make(tmp_path, error=True)
    assert xproxy("replay", "offline", file).out == xproxy("replay", "offline", file).out


def test_golden_events_are_written_kept_and_found_again(xproxy: RunXproxy, tmp_path: Path) -> None:
    captures = tmp_path / "captures"
    make(captures, "one")
    make(captures, "two", error=True)
    assert xproxy("replay", "offline", captures, "--golden", captures, "--update").code == 0
    golden = captures / "two.events.jsonl"
    lines = golden.read_bytes().splitlines()
    first = json.loads(lines[0])
    assert lines[0] == json.dumps(first, sort_keys=True, separators=(",", ":")).encode()
    assert (first["t_ms"], first["trace"]["id"], first["event"]["id"]) == (0, "1", "1-1")
    assert not {"@timestamp", "observer", "service", "ecs"} & first.keys()
    assert b"hash-1" in golden.read_bytes()
    assert b"gateway" not in golden.read_bytes()
    again = xproxy("replay", "offline", captures, "--golden", captures)
    assert again.code == 0
    assert [case["outcome"] for case in json.loads(again.out)["cases"]] == ["passed", "passed"]


def test_a_difference_is_shown_by_field_and_line(xproxy: RunXproxy, tmp_path: Path) -> None:
    file, golden = make(tmp_path, error=True), tmp_path / "g.events.jsonl"
    xproxy("replay", "offline", file, "--golden", golden, "--update")
    lines = golden.read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if '"stanza-error"' in line)
    lines[at] = lines[at].replace('"code":"gone"', '"code":"conflict"')
    del lines[2]
    golden.write_text("".join(lines))
    junit = tmp_path / "junit.xml"
    differs = xproxy("replay", "offline", file, "--golden", golden, "--junit", junit)
    assert differs.code == 1
    (case,) = json.loads(differs.out)["cases"]
    (failure,) = case["failures"]
    assert failure["kind"] == "Golden"
    assert 'error.code: "conflict"' in failure["detail"]
    assert 'error.code: "gone"' in failure["detail"]
    assert "+      1-3" in failure["detail"]
    assert f"$ xproxy replay offline {file} --golden {golden} --update" in failure["detail"]
    tree = etree.parse(junit)
    assert tree.find(".//failure").get("type") == "Golden"
    github = xproxy("replay", "offline", file, "--golden", golden, "--github")
    assert f"::error file={golden},line=" in github.out


def test_a_session_too_few_is_a_difference(xproxy: RunXproxy, tmp_path: Path) -> None:
    file, golden = make(tmp_path), tmp_path / "g"
    xproxy("replay", "offline", file, "--golden", golden, "--update")
    golden.write_bytes(golden.read_bytes() + golden.read_bytes().replace(b'"trace":{"id":"1"}', b'"trace":{"id":"2"}'))
    differs = xproxy("replay", "offline", file, "--golden", golden)
    assert differs.code == 1
    assert "the capture has no session 2" in differs.out


def test_canary_nothing_of_a_login_is_in_any_output(xproxy: RunXproxy, tmp_path: Path) -> None:
    file, golden, junit = make(tmp_path, error=True), tmp_path / "g", tmp_path / "j.xml"
    outputs = [
        xproxy("replay", "offline", file).out,
        xproxy("replay", "offline", file, "--golden", golden, "--update").out,
        xproxy("capture", "show", file).out,
    ]
    golden.write_text(golden.read_text().replace("connection-closed", "connection-stalled"))
    outputs.append(xproxy("replay", "offline", file, "--golden", golden, "--junit", junit, "--github").out)
    for text in (*outputs, junit.read_text(), golden.read_text(), file.read_text()):
        assert "r0m30" not in text
        assert "AGp1bGlldAByMG0zMG15cjBtMzA=" not in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("absent.xcap.jsonl",), 3, "cannot read the capture absent.xcap.jsonl"),
        (("x", "--update"), 2, "there is nothing to compare with"),
        (("x", "--junit", "j"), 2, "there is nothing to compare with"),
        (("a", "b", "--golden", "g"), 2, "2 captures cannot have one golden file"),
        ((), 2, "Missing argument"),
        (("empty",), 6, ""),
        (("login.xcap.jsonl", "--golden", "absent"), 3, "make it with --update"),
        (("noise.xcap.jsonl",), 2, "noise.xcap.jsonl:1: it is no JSON"),
        (("future.xcap.jsonl",), 2, "future.xcap.jsonl:1: the capture is of version 3"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    arguments: tuple[str, ...], code: int, said: str, xproxy: RunXproxy, tmp_path: Path
) -> None:
    file = make(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "noise.xcap.jsonl").write_bytes(b"\x00\xff\n")
    (tmp_path / "future.xcap.jsonl").write_bytes(file.read_bytes().replace(b'"v":2', b'"v":3'))
    refused = xproxy("replay", "offline", *arguments)
    assert refused.code == code
    assert said in refused.err
    assert "Traceback" not in refused.err


def test_a_session_that_is_not_whole_is_skipped_and_said(xproxy: RunXproxy, tmp_path: Path) -> None:
    file = make(tmp_path, whole=False)
    partly = xproxy("replay", "offline", file)
    assert partly.code == 6
    assert "session 1 is not whole: its end is not in the capture" in partly.err
    golden = tmp_path / "g"
    golden.write_bytes(b"")
    report = xproxy("replay", "offline", file, "--golden", golden)
    assert report.code == 6
    assert json.loads(report.out)["cases"][0]["outcome"] == "skipped"


def test_a_directory_is_all_its_captures(xproxy: RunXproxy, tmp_path: Path) -> None:
    file = make(tmp_path / "c")
    shutil.copy(file, tmp_path / "c" / "b.xcap.jsonl")
    (tmp_path / "c" / "notes.txt").write_text("nothing")
    assert xproxy("replay", "offline", tmp_path / "c").out.count("connection-closed") == 2


def test_a_capture_that_was_never_begun_spoils_no_directory(xproxy: RunXproxy, tmp_path: Path) -> None:
    make(tmp_path / "c")
    dead = tmp_path / "c" / "dead.xcap.jsonl"
    for begun in (b"", b'{"v":2,"k":"me'):
        dead.write_bytes(begun)
        replayed = xproxy("replay", "offline", tmp_path / "c")
        assert replayed.code == 0
        assert replayed.out.count("connection-closed") == 1
        assert f"{dead}:1: there is no complete line: its proxy died as it began it" in replayed.err
        assert xproxy("replay", "offline", dead).code == 2  # named, it is a mistake


def test_golden_events_of_a_directory_are_written_where_there_was_none(xproxy: RunXproxy, tmp_path: Path) -> None:
    file = make(tmp_path / "c")
    shutil.copy(file, tmp_path / "c" / "b.xcap.jsonl")
    golden = tmp_path / "new" / "golden"
    assert xproxy("replay", "offline", tmp_path / "c", "--golden", golden, "--update").code == 0
    assert len(list(golden.iterdir())) == 2
    assert xproxy("replay", "offline", tmp_path / "c", "--golden", golden).code == 0
    (tmp_path / "file").write_bytes(b"")
    refused = xproxy("replay", "offline", tmp_path / "c", "--golden", tmp_path / "file", "--update")
    assert (refused.code, (tmp_path / "file").read_bytes()) == (2, b"")
